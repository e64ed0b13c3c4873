# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""HAProxy itself as a source of observations: counters of ``show stat``, and latencies from a ring of its HTTP log.

An arm's requests are those of its own servers (``counters.py`` tells what is counted); backup servers are another arm's. Where an
arm has a backend to itself, requests that no server was found for are its failures too. A request that HAProxy redispatched to
another server is not a failed request; it shows in the metric ``attempts``, of which it is a bad one. Responses 101 (WebSocket)
are not counted as requests.

The latency of a request is ``Ta``, from the first byte of the request to the last of the response.
"""

from __future__ import annotations

import asyncio
import re
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Runtime
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.clock import CLOCK_COMMANDS
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.logline import LogLine, local_seconds
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import Info, StatRow, parse_info, parse_stat
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import base
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.counters import Counters, Tally, Waiting
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.ring import EVENTS_MAX, GRACE_S, Events, RingReader
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Arm
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint

ATTEMPTS = 'attempts'
"""Tries of HAProxy at an arm's servers; the bad ones are those that failed, retried or redispatched or not."""

_NO_SERVER = ''
WORST: dict[str, t.Callable[[t.Iterable[float]], float]] = {
    'servers_total': max, 'servers_up': min, 'servers_up_ratio': min, 'servers_down': max,
    'retries': sum, 'redispatches': sum, 'queue': sum, 'sessions': sum,
}
"""Gauges, and how those of several endpoints become one: servers as the endpoint sees them that sees them worst, the rest added.
``retries`` and ``redispatches`` are those since the poll before, ``queue`` and ``sessions`` are now."""
_UNLOGGED_MAX = 50


@dataclass
class _Arm:
    """An arm in one poll: its servers by name, and under an empty name what came to its backend and to no server."""

    arm: Arm
    rows: dict[str, StatRow]

    @property
    def keys(self) -> list[str]:
        return ['%s/%s' % (self.arm.backend, name) for name in self.rows]


@dataclass
class _Watch:
    """One endpoint over time."""

    endpoint: Endpoint
    arms: t.Mapping[str, Arm]
    ring: RingReader | None
    events: list[LogLine] = field(default_factory=list)
    over: int = 0
    process: tuple[str, str] = ('', '')
    polled: float | None = None
    last: dict[str, Counters] = field(default_factory=dict)
    waiting: Waiting = field(default_factory=Waiting)
    unlogged: int = 0
    logged: float = 0.0
    """When the ring last gave an event, or was first asked."""

    @property
    def backends(self) -> list[str]:
        return list(dict.fromkeys(arm.backend for arm in self.arms.values()))


class HaproxySource:
    """Source of observations of the HAProxy processes *endpoints*. *arms* gives the arms as each of them has them."""

    quick = True

    def __init__(self, name: str, endpoints: t.Sequence[Endpoint], arms: t.Callable[[Endpoint], t.Mapping[str, Arm]],
                 clock: t.Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self._watches = []
        for endpoint in endpoints:
            own = arms(endpoint)
            check_apart(own, endpoint.name)
            ring = RingReader(endpoint.address, endpoint.ring, {arm.backend for arm in own.values()}, clock) if endpoint.ring else None
            self._watches.append(_Watch(endpoint, own, ring))

    @property
    def metrics(self) -> dict[str, str]:
        offered = {base.REQUESTS: base.COUNTS, ATTEMPTS: base.COUNTS}
        if any(watch.ring for watch in self._watches):
            offered[base.LATENCY] = base.LATENCIES
        offered.update(dict.fromkeys(WORST, base.GAUGE))
        return offered

    async def open(self) -> None:
        """Raises BadInput when an endpoint that answers lacks a backend, a server or the ring; the first of them in order."""
        for found in await asyncio.gather(*(self._open(watch) for watch in self._watches), return_exceptions=True):
            if isinstance(found, BaseException):
                raise found

    async def _open(self, watch: _Watch) -> None:
        patience = watch.endpoint.deadline
        try:
            await self._ask(watch)
            if watch.ring:
                await watch.ring.check(watch.endpoint.deadline)
        except Unreachable:
            # It may answer later; each poll says so until then.
            patience = 0.0
        if watch.ring:
            await watch.ring.open(patience)

    async def close(self) -> None:
        await asyncio.gather(*(watch.ring.close() for watch in self._watches if watch.ring))

    async def poll(self, now: float) -> base.Reading:
        blocks: list[base.Block] = []
        before: list[base.Block] = []
        gauges: dict[tuple[str, str], list[float]] = {}
        errors: list[str] = []
        notes: list[str] = []
        for found in await asyncio.gather(*(self._poll(watch, now, errors, notes) for watch in self._watches), return_exceptions=True):
            if isinstance(found, DeliveryError):
                errors.append(str(found))
            elif isinstance(found, BaseException):
                raise found
            else:
                blocks += found[0]
                before += found[2]
                for metric, arm, value in found[1]:
                    gauges.setdefault((metric, arm), []).append(value)
        return base.Reading(tuple(blocks), {key: float(WORST[key[0]](values)) for key, values in gauges.items()},
                            tuple(errors), tuple(notes), tuple(before),
                            {watch.endpoint.name: '/'.join(watch.process) for watch in self._watches if watch.process[0]})

    async def _poll(self, watch: _Watch, now: float, errors: list[str],
                    notes: list[str]) -> tuple[list[base.Block], list[tuple[str, str, float]], list[base.Block]]:
        if watch.ring:
            # Taken before the counters are asked: what has an event has ended by then.
            self._take(watch, watch.ring.take(), errors, notes)
        asked = self._clock()
        arms, logged_at, info = await self._ask(watch)
        answered = now + self._clock() - asked
        process = (info.values.get('Pid', ''), info.values.get('Start_time_sec', ''))
        if watch.process[0] and process != watch.process:
            notes.append('HAProxy at %s was started anew or reloaded: its counters begin at 0.' % watch.endpoint.address)
            watch.last.clear()
            watch.waiting.forget()
        watch.process = process
        if watch.ring:
            watch.ring.renew(process)
        first, seconds = watch.polled is None, now - (watch.polled or 0.0)
        watch.logged = now if first else watch.logged
        watch.polled = now
        events, over, watch.events, watch.over = watch.events, watch.over, [], 0
        rows = {key: row for arm in arms for key, row in zip(arm.keys, arm.rows.values())}
        lines = self._attribute(watch, arms, events, rows)
        blocks: list[base.Block] = []
        before: list[base.Block] = []
        gauges: list[tuple[str, str, float]] = []
        requests = 0
        for arm in arms:
            tally, each = self._tally(watch, arm)
            servers = [row for name, row in arm.rows.items() if name != _NO_SERVER]
            gauges += [(metric, arm.arm.name, value) for metric, value in _server_gauges(arm, servers)]
            if first:
                before.append(base.Block(arm.arm.name, watch.endpoint.name, requests=tally.requests, bad=tally.bad))
                continue
            gauges += [('retries', arm.arm.name, tally.retries), ('redispatches', arm.arm.name, tally.redispatches)]
            blocks += self._blocks(watch, arm, tally, each, seconds, lines[arm.arm.name],
                                   watch.waiting.over(now, rows, [key for key in arm.keys if not key.endswith('/')]))
            requests += tally.requests
        watch.waiting.mark(answered, logged_at, rows)
        watch.last = {key: Counters.of(row) for key, row in rows.items()}
        if over and not first:
            notes.append('HAProxy at %s logged %d requests more than the %d that are kept between two polls: poll more often.' % (
                watch.endpoint.address, over, EVENTS_MAX))
        if events or not watch.ring:
            watch.unlogged, watch.logged = 0, now
        watch.unlogged += requests
        if watch.ring and watch.unlogged > _UNLOGGED_MAX and now - watch.logged > GRACE_S:
            errors.append('HAProxy at %s has answered %d requests and logged none of them in the ring "%s": give the frontend "option '
                          'httplog" and "log ring@%s local0".' % (
                              watch.endpoint.address, watch.unlogged, watch.endpoint.ring, watch.endpoint.ring))
        return blocks, gauges, before

    def _take(self, watch: _Watch, taken: Events, errors: list[str], notes: list[str]) -> None:
        room = EVENTS_MAX - len(watch.events)
        watch.events += taken.lines[:room]
        watch.over += taken.over + max(len(taken.lines) - room, 0)
        notes += taken.lost
        errors += [taken.problem] if taken.problem else []
        if taken.foreign:
            notes.append('%d lines of the ring "%s" of HAProxy at %s are not HTTP log lines ("option httplog") and were left out.' % (
                taken.foreign, watch.endpoint.ring, watch.endpoint.address))

    async def _ask(self, watch: _Watch) -> tuple[list[_Arm], float | None, Info]:
        """Returns the arms' rows, HAProxy's local time (never before the rows were read) and what it says of itself."""
        backends = watch.backends
        commands = ['show stat %s 6 -1' % backend for backend in backends]
        replies = await Runtime(watch.endpoint.address, watch.endpoint.deadline).ask(*commands, *CLOCK_COMMANDS)
        tables = {}
        for backend, reply in zip(backends, replies):
            if reply.startswith('No such proxy'):
                raise BadInput('HAProxy at %s has no backend "%s": correct the arms or its configuration.' % (
                    watch.endpoint.address, backend))
            tables[backend] = parse_stat(reply)
        shared = [arm.backend for arm in watch.arms.values()]
        found = [_own(arm, tables[arm.backend], shared.count(arm.backend) == 1, str(watch.endpoint.address)) for arm in watch.arms.values()]
        date = re.search(r'captured on \[(\S+)\.(\d{3})\]', replies[-1])
        seconds = local_seconds(date[1].encode()) if date else None
        return found, None if seconds is None else seconds + int(date[2]) / 1000, parse_info(replies[-2])

    def _tally(self, watch: _Watch, arm: _Arm) -> tuple[Tally, tuple[tuple[str, int, int], ...]]:
        """Returns what the arm did since the poll before, or since HAProxy began; and (name, bad, requests) of each server."""
        total, each = Tally(), []
        for key, (name, row) in zip(arm.keys, arm.rows.items()):
            new, old = Counters.of(row), watch.last.get(key)
            if name == _NO_SERVER:
                # The backend's row counts what its servers count, and what never came to one.
                econ = row.econ or 0
                failed = econ if old is None or new.restarted(old) else econ - old['econ']
                total += Tally(requests=failed, bad=failed)
                continue
            if old is not None and new.restarted(old):
                watch.waiting.forget(key)
            tally = new.since(old).tally()
            total += tally
            each.append((key, tally.bad, tally.requests))
        return total, tuple(each)

    def _attribute(self, watch: _Watch, arms: list[_Arm], events: list[LogLine], rows: t.Mapping[str, StatRow]) -> dict[str, list[LogLine]]:
        """Returns the log lines of each arm, and tells ``waiting`` of the tries that ended."""
        owner = {key: arm.arm.name for arm in arms for key in arm.keys}
        lines: dict[str, list[LogLine]] = {arm.arm.name: [] for arm in arms}
        for line in events:
            if line.server[0] == '<':
                # Without a server: its wait for one was in vain, or HAProxy answered by itself and the arm had no part in it.
                key = '%s/%s' % (line.backend, _NO_SERVER) if line.state[0] in 'CcSs' else None
            else:
                key = '%s/%s' % (line.backend, line.server)
                if key in rows:
                    watch.waiting.ended(key, line)
            if key in owner:
                lines[owner[key]].append(line)
        return lines

    def _blocks(self, watch: _Watch, arm: _Arm, tally: Tally, each: tuple[tuple[str, int, int], ...], seconds: float, lines: list[LogLine],
                waiting: tuple[tuple[float, int], ...]) -> list[base.Block]:
        timed = [line for line in lines if line.Ta >= 0 and not line.partial]
        latencies = tuple(float(line.Ta) for line in timed if line.answered)
        gave_up = tuple(float(line.Ta) for line in timed if not line.answered)
        common = {'arm': arm.arm.name, 'endpoint': watch.endpoint.name, 'seconds': seconds}
        return [
            base.Block(requests=tally.requests, bad=tally.bad, latencies_ms=latencies, gave_up_ms=gave_up,
                       unseen=max(tally.requests - len(latencies), 0) if watch.ring else tally.requests, waiting=waiting, servers=each,
                       **common),
            base.Block(metric=ATTEMPTS, requests=tally.tries, bad=tally.bad_tries, **common),
        ]


def check_apart(arms: t.Mapping[str, Arm], endpoint: str) -> None:
    """Raises BadInput when a server would be counted for two arms."""
    for arm in arms.values():
        for other in arms.values():
            if arm.name < other.name and arm.backend == other.backend:
                both = set(arm.servers) & set(other.servers)
                if both or not arm.servers or not other.servers:
                    raise BadInput('The arms "%s" and "%s" at %s share the backend "%s": name the servers of each, %s.' % (
                        arm.name, other.name, endpoint, arm.backend, '"%s" in one of them only' % min(both) if both else 'all of them'))


def _own(arm: Arm, table: list[StatRow], alone: bool, where: str) -> _Arm:
    """Returns the rows that are the arm's; the backend's own, reduced to what no server counts, under an empty name."""
    servers = {row.svname: row for row in table if row.kind == 'server'}
    missing = [name for name in arm.servers if name not in servers]
    if missing:
        raise BadInput('HAProxy at %s has no server "%s" in the backend "%s" (it has %s): correct the servers of the arm "%s".' % (
            where, missing[0], arm.backend, ', '.join(servers) or 'none', arm.name))
    rows = {name: row for name, row in servers.items() if (name in arm.servers if arm.servers else not row.backup)}
    for row in table:
        if row.kind == 'backend' and alone and not arm.servers:
            econ = (row.econ or 0) - sum(server.econ or 0 for server in servers.values())
            rows[_NO_SERVER] = StatRow(row.pxname, '', 'backend', econ=max(econ, 0), qcur=row.qcur)
    return _Arm(arm, rows)


def _server_gauges(arm: _Arm, servers: list[StatRow]) -> list[tuple[str, float]]:
    up = sum(row.up for row in servers)
    values: list[tuple[str, float]] = [
        ('servers_total', len(servers)), ('servers_up', up), ('servers_down', len(servers) - up),
        ('queue', sum(row.qcur or 0 for row in arm.rows.values())), ('sessions', sum(row.scur or 0 for row in servers))]
    if servers:
        values.append(('servers_up_ratio', up / len(servers)))
    return values
