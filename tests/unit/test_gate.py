# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils import _gate, _watch
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.spec import Sample
from ansible_collections.progressive.delivery.plugins.module_utils._display import Progress, clock, fit, line
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Block, Reading
from ansible_collections.progressive.delivery.plugins.module_utils._outlet import Outlet
from ansible_collections.progressive.delivery.plugins.module_utils._watch import offsets
from gate_fakes import ERRORS, SOCKET, Lease, Source, options, watch

# Options


@pytest.mark.parametrize('changes, words', [
    ({'conditions': []}, 'no required condition'),
    ({'endpoints': []}, 'There is nothing to observe'),
    ({'candidate': 'green'}, 'The candidate arm "green" is not one of the service'),
    ({'stable': 'green'}, 'The stable arm "green"'),
    ({'stable': 'canary'}, 'both candidate and stable'),
    ({'service': 'a shop; rm'}, 'not a valid name'),
    ({'bake': 'a while'}, 'bake'), ({'bake': '31d'}, 'cannot be watched'), ({'interval': 0}, 'cannot be watched'),
    ({'interval': 2}, 'cannot be watched'),
    ({'warm_up': '1s'}, 'nothing would be judged'), ({'conditions': [{**ERRORS, 'warm_up': 1}]}, 'warm_up of the condition "error_ratio"'),
    ({'extend_by': 0.01}, 'extend_by'), ({'max_extensions': -1}, 'max_extensions'), ({'error_limit': 0}, 'error_limit'),
    ({'policy': {'fail': 'pass'}}, 'The policy names the verdict "fail"'), ({'policy': {'error': 'ignore'}}, 'The policy "ignore"'),
    ({'share_bp': '105%'}, 'outside'), ({'sources': {'x': {'type': 'graphite'}}}, 'unknown type "graphite"'),
    ({'leases': [{'service': 'shop'}]}, 'not one that traffic_weight returned'),
    ({'conditions': [{'metric': 'latency_p95', 'abort_above': 1}], 'endpoints': [{**SOCKET, 'ring': None}]}, 'does not have'),
])
def test_bad_options_are_refused_with_a_sentence(changes, words):
    with pytest.raises(BadInput) as caught:
        _gate.read_gate(options(**changes))
    assert words in str(caught.value)


def test_check_mode_says_what_it_would_watch():
    gate = _gate.read_gate(options(bake='30m', interval='10s', share_bp='5%', leases=[{}]))
    assert gate.intent == 'would watch canary for 30 min, every 10 s, with 1 condition'
    assert (gate.label, gate.main_source, gate.leases) == ('canary 5 %', 'router', ())


# The schedule


@given(st.floats(0.1, 100), st.floats(1, 200), st.lists(st.floats(-5, 300), max_size=5))
def test_schedule_begins_at_once_ends_at_the_end_and_does_not_drift(interval, bake, extra):
    times = list(offsets(0.0, bake, interval, extra))
    assert times[0] == 0.0 and abs(times[-1] - bake) < 1e-5
    assert times == sorted(times) and len(set(times)) == len(times)
    for k in range(int(bake / interval)):
        assert any(abs(at - k * interval) < 1e-5 for at in times)
    assert max((b - a for a, b in zip(times, times[1:])), default=0) < interval + 1e-5


# The loop, with sources and leases that misbehave

def test_samples_keep_to_the_schedule():
    source = Source()
    result, shown = watch([source], bake=1, interval=0.2)
    assert result['verdict'] == 'pass' and result['samples'] == len(source.polls) == len(shown) == 7
    assert [round((at - source.polls[0]) * 10) for at in source.polls] == [0, 1, 2, 4, 6, 8, 10]
    assert source.closed


def test_a_source_that_hangs_holds_up_nothing():
    async def forever():
        await asyncio.Event().wait()

    hanging, source, lease = Source('router2', ready=forever), Source(bad=0), Lease()
    result, shown = watch([source, hanging], [lease], bake=1, interval=0.2)
    # It is given up in the end, after its own deadline, and nobody asked for its data.
    assert result['verdict'] == 'pass' and len(source.polls) == 7
    assert lease.renewals >= 5


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(_watch, '_POLL_DEADLINE_S', 0.3)


def test_a_source_that_breaks_down_ends_the_watch_and_returns_the_traffic():
    lease = Lease()
    result, _shown = watch([Source(broken='poll')], [lease], bake=30)
    assert (result['verdict'], result['rolled_back']) == ('error', True) and 'RuntimeError: boom' in result['msg']
    assert 'Traceback' in result['exception'] and len(lease.returned) == 1


def test_what_can_never_work_ends_the_watch_with_its_sentence():
    lease = Lease()
    result, _shown = watch([Source(broken='open')], [lease], bake=30)
    assert result['msg'].startswith('error: There is no backend "canary". Traffic is back on blue') and 'exception' not in result


def test_renewals_that_break_down_return_the_traffic():
    lease = Lease('raises')
    result, _shown = watch([Source()], [lease], bake=30)
    assert result['verdict'] == 'error' and len(lease.returned) == 1


def test_a_lost_lease_returns_the_traffic():
    lease = Lease('lost')
    result, _shown = watch([Source()], [lease], bake=30)
    assert result['verdict'] == 'error' and 'ran out before it could be renewed: lb1 belongs' in result['msg'] and len(lease.returned) == 1


def test_a_renewal_that_fails_is_told_and_borne_while_the_lease_lives():
    result, shown = watch([Source()], [Lease('refused')], bake=0.5)
    assert result['verdict'] == 'pass' and 'lb1 belongs to r2 of ann.' in result['notes']
    assert line(shown[-1]).endswith('! lb1: lease not renewed')


def test_a_conflict_writes_nothing():
    lease = Lease('conflict')
    result, _shown = watch([Source()], [lease], bake=30)
    assert result['msg'] == 'error: lb1 belongs to r2 of ann. Nothing was written.' and not lease.returned and not result['rolled_back']


def test_two_writers_at_the_same_moment_are_no_conflict_yet():
    class Colliding(Lease):
        async def renew(self):
            self.broken = 'conflict' if self.renewals == 2 else None
            return await super().renew()

    lease = Colliding()
    result, _shown = watch([Source()], [lease], bake=1)
    assert result['verdict'] == 'pass' and lease.renewals > 3


def test_a_permanent_split_is_returned_too_and_never_renewed():
    lease = Lease(ttl_s=0.0)
    result, shown = watch([Source(bad=5)], [lease], bake=30)
    assert (result['verdict'], result['rolled_back'], lease.renewals) == ('fail', True, 0) and len(lease.returned) == 1
    assert 'lease' not in line(shown[-1])


def test_no_renewal_reaches_a_router_after_the_way_back():
    """What was sent arrives, whether or not somebody still waits for the answer."""
    class Slow(Lease):
        async def renew(self):
            asyncio.get_running_loop().call_later(0.05, arrived.append, 'renewal')
            await asyncio.sleep(0.05)
            return await super().renew()

        async def way_back(self, reason):
            arrived.append('way back')
            await asyncio.sleep(0.1)
            return await super().way_back(reason)

    arrived = []
    watch([Source(bad=5)], [Slow(ttl_s=0.06)], bake=30)
    assert arrived[-1] == 'way back' and arrived.count('renewal') >= 1


def test_a_way_back_that_fails_is_told():
    result, _shown = watch([Source(bad=5)], [Lease('stuck')], bake=30)
    assert (result['failed'], result['rolled_back'], result['rollback']['complete']) == (True, False, False)
    assert 'NOT all traffic could be returned' in result['msg'] and 'lb1 is gone' in result['msg']


def test_traffic_is_returned_before_it_is_recorded():
    lease, events = Lease(), []
    lease.way_back_events = None
    original = lease.way_back

    async def way_back(reason):
        lease.way_back_events = [event for event, _fields in events]
        return await original(reason)

    lease.way_back = way_back
    watch([Source(bad=5)], [lease], events, bake=30)
    assert 'verdict' not in lease.way_back_events
    assert [event for event, _fields in events][-2:] == ['verdict', 'way_back']


def test_an_extended_stage_is_judged_again():
    source = Source(requests=0)

    async def later():
        if len(source.polls) > 8:
            source.requests = 50

    source.ready = later
    result, _shown = watch([source], bake=0.5, interval=0.1, policy={'no_data': 'extend'}, extend_by=0.5, max_extensions=2)
    assert (result['verdict'], result['extensions']) == ('pass', 1)
    source = Source(requests=0)
    result, _shown = watch([source], bake=0.3, interval=0.1, policy={'no_data': 'extend'}, extend_by=0.2, max_extensions=2)
    assert (result['verdict'], result['extensions']) == ('no_data', 2)
    assert result['msg'] == 'no_data: canary: no requests in the whole stage (after 2 extensions).'


def test_advice_never_fails_a_stage():
    conditions = [ERRORS, {'metric': 'workers', 'abort_below': 60, 'required': False}]
    result, _shown = watch([Source(gauges={('workers', ''): 1})], conditions=conditions)
    assert result['verdict'] == 'pass' and [one['verdict'] for one in result['conditions']] == ['pass', 'fail']


def test_a_gone_source_may_be_let_pass():
    class Failing(Source):
        async def poll(self, now):
            return Reading(errors=('lb1 is silent.',))

    result, _shown = watch([Failing()], bake=1)
    assert (result['verdict'], result['passed']) == ('error', False) and result['duration'] < 1
    result, _shown = watch([Failing()], bake=1, policy={'error': 'pass'})
    assert (result['verdict'], result['passed']) == ('error', True) and result['duration'] >= 1


# What is written


def test_line():
    conditions = [ERRORS, {'metric': 'latency_p95', 'abort_above': 1000}, {'metric': 'servers_up_ratio', 'abort_below': 0.5}]
    gate = _gate.read_gate(options(conditions=conditions))
    empty = tuple((condition, condition.finish()) for condition in gate.conditions)
    block = Block('canary', 'lb1', 'requests', 1.0, 142, 0, (84.0,) * 142)
    sample = Sample(8.0, 'router', Reading((block,), {('servers_up_ratio', 'canary'): 1.0}))
    full = tuple((condition, condition.update(sample)) for condition in gate.conditions)
    assert line(Progress('canary 5 %', 0.0, 30.0, empty, None, None, None)) == 'canary 5 %  0:00/0:30  err –  p95 –  up –'
    assert line(Progress('canary 5 %', 8.0, 30.0, full, 142, 510, 4.94)) == (
        'canary 5 %  0:08/0:30  err 0.00 % (limit 0.5)  p95 84 ms (limit 1000)  up 1 (limit 0.5)  142 req  share 5.1 %  lease 4.9 s')
    assert clock(3900) == '1:05:00' and clock(1799.9999999) == '30:00'
    assert fit('abcdef', 4) == 'abc…' and fit('abc', 3) == 'abc'


def test_an_outlet_holds_up_nobody():
    stuck, written = threading.Event(), []

    def write(item):
        stuck.wait(5)
        written.append(item)

    outlet = Outlet(write, room=2, droppable=True)
    for item in range(100):
        outlet(item)
    assert not outlet.close(0.05)
    stuck.set()
    kept = []
    outlet = Outlet(kept.append)
    for item in range(100):
        outlet(item)
    assert outlet.close(5) and kept == list(range(100))
