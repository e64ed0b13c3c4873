# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A gate over fakes: sources and leases that behave as a test wants. For what no real HAProxy can be made to do at will."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from unittest import mock

from ansible_collections.progressive.delivery.plugins.module_utils import _gate
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import COUNTS, GAUGE, LATENCIES, Block, Reading
from ansible_collections.progressive.delivery.plugins.module_utils._watch import Watch

ERRORS = {'metric': 'error_ratio', 'abort_above': '0.5%', 'pass_below': '0.1%'}
SOCKET = {'name': 'lb1', 'socket': 'unix:///nowhere.sock', 'map': '/m', 'ring': 'events'}


def options(**changes):
    defaults = {key: spec.get('default') for key, spec in _gate.ARGUMENT_SPEC.items()}
    return {**defaults, 'service': 'shop', 'arms': {'blue': {}, 'canary': {}}, 'candidate': 'canary', 'stable': 'blue',
            'endpoints': [SOCKET], 'conditions': [ERRORS], 'bake': '1s', 'interval': 0.1, **changes}


class Source:
    quick = False

    def __init__(self, name='router', bad=0, requests=20, ready=None, broken=None, gauges=None):
        self.name, self.metrics = name, {'requests': COUNTS, 'latency': LATENCIES, 'workers': GAUGE}
        self.bad, self.requests, self.ready, self.broken, self.gauges = bad, requests, ready, broken, gauges or {}
        self.polls, self.closed, self._last = [], False, None

    async def open(self):
        if self.broken == 'open':
            raise BadInput('There is no backend "canary".')

    async def close(self):
        self.closed = True

    async def poll(self, now):
        self.polls.append(now)
        if self.broken == 'poll':
            raise RuntimeError('boom')
        if self.ready is not None:
            await self.ready()
        seconds, self._last = now - (self._last or now), now
        if not seconds:
            return Reading(gauges=self.gauges)
        return Reading((Block('canary', 'lb1', 'requests', seconds, self.requests, self.bad, (20.0,) * self.requests),
                        Block('blue', 'lb1', 'requests', seconds, 380)), self.gauges)


@dataclass
class Row:
    endpoint: str
    ok: bool
    error: str | None = None
    conflict: bool = False
    to: str | None = None
    seconds: float = 0.0


class Lease:
    """A lease of a second that counts its renewals; *broken* says how they go wrong."""

    def __init__(self, broken=None, ttl_s=1.0):
        self.broken, self.ttl_s, self.renewals, self.returned, self.end = broken, ttl_s, 0, [], None

    def left(self):
        return float('inf') if not self.ttl_s else 0.0 if self.broken == 'lost' else 1.0

    async def renew(self):
        self.renewals += 1
        if self.broken == 'raises':
            raise RuntimeError('boom')
        return [Row('lb1', not self.broken, self.broken and 'lb1 belongs to r2 of ann.', self.broken == 'conflict')]

    async def way_back(self, reason):
        self.returned.append((reason, self.renewals))
        if self.broken == 'stuck':
            raise DeliveryError('lb1 is gone')
        return [Row('lb1', True, to='blue')]


def watch(sources, leases=(), events=None, terminal=None, answers=None, **changes):
    """Runs a gate over fakes; returns its result and what it showed."""
    fakes = {'build_sources': lambda *args: list(sources), 'held': lambda lease: lease['fake']}
    with mock.patch.multiple(_gate, **fakes):
        gate = _gate.read_gate(options(leases=[{'fake': lease} for lease in leases], **changes))
    shown = []

    async def run():
        watching = Watch(gate, lambda event, **fields: None if events is None else events.append((event, fields)), shown.append,
                         terminal=terminal, answers=answers)
        return await watching.run(lambda: 'SIGTERM')

    return asyncio.run(run()), shown
