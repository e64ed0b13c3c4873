# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the routers had counted before a change, so that the gate after it counts from there and not from its own first look.

Between the write of a split and the first look of its gate lie the verification of the split, the end of a task and the begin of another:
most of a second in which a bad version answers and nobody would count it.
"""

from __future__ import annotations

import asyncio
import time
import typing as t
from dataclasses import replace

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import REQUESTS, Block, Reading, Source
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.exposition import spread

LONGEST_S = 300.0
"""A mark that is older is of no use: leases ended meanwhile, and the traffic was another one."""

_DEADLINE_S = 2.0


async def take(source: Source) -> dict[str, t.Any] | None:
    """Returns what *source* has counted by now, as plain data; None where it counts nothing or cannot be asked in time. Raises nothing.

    Without a mark the gate counts from its first look: a reason to say less, and none to move no traffic.
    """
    at = time.monotonic()
    try:
        reading = await asyncio.wait_for(source.poll(at), _DEADLINE_S)
    except Exception:
        return None
    finally:
        await asyncio.gather(source.close(), return_exceptions=True)
    # An infinite edge is no number in JSON.
    blocks = [{'arm': one.arm, 'endpoint': one.endpoint, 'requests': one.requests, 'bad': one.bad,
               'buckets': [['%r' % edge, count] for edge, count in one.buckets]} for one in reading.before if one.metric == REQUESTS]
    return {'at': at, 'blocks': blocks, 'processes': dict(reading.processes), 'complete': not reading.errors} if blocks else None


def check(raw: t.Any) -> t.Mapping[str, t.Any] | None:
    """Returns *raw* as a mark that ``take`` gave; None of nothing. Raises BadInput for anything else."""
    if not raw:
        return None
    try:
        blocks = [{'arm': str(one['arm']), 'endpoint': str(one['endpoint']), 'requests': int(one['requests']), 'bad': int(one['bad']),
                   'buckets': [(float(edge), float(count)) for edge, count in one['buckets']]} for one in raw['blocks']]
        return {'at': float(raw['at']), 'complete': bool(raw['complete']), 'blocks': blocks,
                'processes': {str(name): str(value) for name, value in raw['processes'].items()}}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput('The "counters" are not what traffic_weight returned as such: give them as they are, or leave them out.') from None


def blocks_of(mark: t.Mapping[str, t.Any]) -> tuple[Block, ...]:
    """Returns what each arm had been counted for; none where an endpoint is missing, since a sum without it would be no sum. Pure."""
    if not mark['complete']:
        return ()
    return tuple(Block(one['arm'], one['endpoint'], requests=one['requests'], bad=one['bad']) for one in mark['blocks'])


def since(mark: t.Mapping[str, t.Any], reading: Reading, now: float) -> Reading:
    """Returns the first *reading* of a source, taken at *now*, as one that counts from *mark*, which ``check`` has seen. Pure.

    An endpoint whose counters are those of another process, or went down, counts from the reading, as without a mark.
    """
    seconds = now - mark['at']
    if not 0 <= seconds <= LONGEST_S:
        return reading
    then = {(one['arm'], one['endpoint']): one for one in mark['blocks']}
    marked = {endpoint for _arm, endpoint in then}
    anew = {one.endpoint for one in reading.before if one.metric == REQUESTS and (
        one.endpoint not in marked or mark['processes'].get(one.endpoint) != reading.processes.get(one.endpoint)
        or _below(one, then.get((one.arm, one.endpoint))))}
    blocks, before = [], []
    for one in reading.before:
        if one.metric != REQUESTS or one.endpoint in anew:
            before.append(one)
            continue
        old = then.get((one.arm, one.endpoint)) or {'requests': 0, 'bad': 0, 'buckets': []}
        sofar = dict(old['buckets'])
        requests, bad = one.requests - old['requests'], one.bad - old['bad']
        latencies = spread({edge: count - sofar.get(edge, 0) for edge, count in one.buckets})
        before.append(replace(one, requests=old['requests'], bad=old['bad'], buckets=()))
        blocks.append(replace(one, seconds=seconds, requests=requests, bad=min(bad, requests), latencies_ms=latencies, buckets=(),
                              unseen=max(requests - len(latencies), 0), early=True))
    return replace(reading, blocks=(*reading.blocks, *blocks), before=tuple(before))


def _below(one: Block, old: t.Mapping[str, t.Any] | None) -> bool:
    return old is not None and (one.requests < old['requests'] or one.bad < old['bad'])
