# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was counted between a change and the first look of its gate."""

from __future__ import annotations

import asyncio
import json
import math
import time
import typing as t
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import mark
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Block, Reading
from gate_fakes import watch

COUNT = st.integers(0, 10**9)


class Counters:
    """A source whose first poll says what its counters hold."""

    quick = True
    name = 'router'
    metrics: t.Mapping[str, str] = {'requests': 'counts', 'latency': 'latencies'}

    def __init__(self, *blocks: Block, process: str = '7', errors: tuple[str, ...] = (), broken: bool = False) -> None:
        self.reading = Reading(before=blocks, processes={'lb1': process}, errors=errors)
        self.broken, self.closed = broken, False

    async def open(self) -> None:
        pass

    async def poll(self, now: float) -> Reading:
        if self.broken:
            raise RuntimeError('boom')
        first, self.reading = self.reading, Reading()
        return first

    async def close(self) -> None:
        self.closed = True


def counters(requests: int, bad: int = 0, buckets: tuple[tuple[float, float], ...] = (), arm: str = 'canary') -> Block:
    return Block(arm, 'lb1', requests=requests, bad=bad, buckets=buckets)


def taken(*blocks: Block, **options: t.Any) -> t.Any:
    found = asyncio.run(mark.take(Counters(*blocks, **options)))
    # As it travels from task to task.
    return found and mark.check(json.loads(json.dumps(found)))


def since(earlier: t.Any, *blocks: Block, process: str = '7', later: float = 0.5) -> Reading:
    return mark.since(earlier, Reading(before=blocks, processes={'lb1': process}), earlier['at'] + later)


def test_what_was_counted_in_between_is_a_block_of_the_first_look() -> None:
    edges = (100.0, 1000.0, math.inf)
    earlier = taken(counters(100, 7, tuple(zip(edges, (90, 98, 100)))), counters(900, 1, arm='blue'))
    reading = since(earlier, counters(110, 9, tuple(zip(edges, (94, 104, 110)))), counters(1000, 1, arm='blue'))
    canary, blue = reading.blocks
    assert (canary.requests, canary.bad, canary.seconds, canary.endpoint) == (10, 2, 0.5, 'lb1')
    assert [sum(low < ms <= high for ms in canary.latencies_ms) for low, high in ((0, 100), (100, 1000), (1000, 2000))] == [4, 2, 4]
    assert (blue.requests, blue.bad, blue.latencies_ms, blue.unseen) == (100, 0, (), 100)
    # What they had before, a condition knows as history, and it must not count twice.
    assert [(one.requests, one.bad) for one in reading.before] == [(100, 7), (900, 1)]


def test_an_arm_without_a_counter_then_began_at_0() -> None:
    reading = since(taken(counters(900, arm='blue')), counters(4, 4), counters(950, arm='blue'))
    assert [(one.arm, one.requests, one.bad) for one in reading.blocks] == [('canary', 4, 4), ('blue', 50, 0)]


@pytest.mark.parametrize('change', [
    {'process': '8'}, {'later': -1.0}, {'later': mark.LONGEST_S + 1},
    {'blocks': [counters(99, 7), counters(950, arm='blue')]}, {'blocks': [counters(120, 6), counters(950, arm='blue')]},
], ids=['another process', 'another clock', 'old', 'fewer requests', 'fewer errors'])
def test_counters_that_are_others_count_from_the_first_look(change: dict[str, t.Any]) -> None:
    blocks = change.pop('blocks', [counters(120, 8), counters(950, arm='blue')])
    reading = since(taken(counters(100, 7), counters(900, arm='blue')), *blocks, **change)
    assert not reading.blocks and list(reading.before) == blocks


def test_an_endpoint_that_did_not_answer_then_has_history_only() -> None:
    other = Block('canary', 'lb2', requests=5000, bad=5000)
    reading = since(taken(counters(100)), counters(101), other)
    assert [(one.endpoint, one.requests) for one in reading.blocks] == [('lb1', 1)] and other in reading.before


@given(COUNT, COUNT, COUNT, COUNT)
def test_nothing_is_lost_or_counted_twice(requests: int, bad: int, more: int, worse: int) -> None:
    bad, worse = min(bad, requests), min(worse, more)
    now = counters(requests + more, bad + worse)
    reading = since(taken(counters(requests, bad)), now)
    assert sum(one.requests for one in (*reading.blocks, *reading.before)) == now.requests
    assert sum(one.bad for one in (*reading.blocks, *reading.before)) == now.bad
    assert [(one.requests, one.bad) for one in reading.blocks] == [(more, worse)]


def test_no_mark_is_no_failure() -> None:
    assert taken() is None and taken(broken=True) is None
    source = Counters(counters(1), errors=('lb2 did not answer.',))
    assert asyncio.run(mark.take(source))['complete'] is False and source.closed


@pytest.mark.parametrize('raw', [
    {'at': 1}, {'at': 'x', 'blocks': [], 'processes': {}}, {'at': 1, 'blocks': [{}], 'processes': {}}, [3], 'x'])
def test_what_is_no_mark_is_refused(raw: t.Any) -> None:
    with pytest.raises(BadInput, match='are not what traffic_weight returned'):
        mark.check(raw)


def test_a_sum_without_one_of_the_endpoints_is_none() -> None:
    both = counters(5, 1), replace(counters(7, 2), endpoint='lb2')
    assert mark.blocks_of(taken(*both)) == both
    assert mark.blocks_of(taken(both[0], errors=('lb2 did not answer.',))) == ()


def test_a_gate_counts_it_with_its_first_look() -> None:
    earlier = {**asyncio.run(mark.take(Counters(counters(100, 0), counters(900, arm='blue')))), 'at': time.monotonic()}
    events: list[t.Any] = []
    result, _shown = watch([Counters(counters(140, 40), counters(1700, arm='blue'))], events=events, counters=earlier, bake='30s')
    assert result['reason'].startswith('canary: 40 of 40 requests failed')
    # It spans the change, so it is no sign of the share.
    assert result['arms']['canary']['requests'] == 40 and result['observed_bp'] == {}
    # The journal has what the counters held before and hold now, so that a report counts what lies between.
    assert [fields['arms']['canary'] for event, fields in events if event == 'counters'] == [
        {'requests': 100, 'errors': 0}, {'requests': 140, 'errors': 40}]


def test_what_spans_the_change_does_not_count_as_a_share() -> None:
    earlier = {**asyncio.run(mark.take(Counters(counters(0), counters(0, arm='blue')))), 'at': time.monotonic()}
    condition = {'metric': 'share_bp', 'abort_above': 600}
    result, _shown = watch([Counters(counters(400), counters(500, arm='blue'))], counters=earlier, conditions=[condition], policy={
        'inconclusive': 'pass', 'no_data': 'pass', 'error': 'pass'})
    assert result['verdict'] == 'no_data', result['reason']
