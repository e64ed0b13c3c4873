# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One HAProxy process whose servers are being changed: reads, commands, waits, each followed by a look at what is so."""

from __future__ import annotations

import asyncio
import time
import typing as t
from dataclasses import replace

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, Refused, Unreachable, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy import server_plan
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Address, Runtime
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import (
    Info, parse_backends, parse_info, parse_servers_state, parse_stat)
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.servers import Pool, Server, pools

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
# A reload takes the socket away for a moment; a process that is gone does not come back because somebody waits.
_MISSES = 3
_SAY_EVERY_S = 10.0


async def read_pools(runtime: Runtime, only: t.Sequence[str] | None = None) -> tuple[Info, dict[str, Pool]]:
    """Returns what HAProxy is, and its backends (*only* those, when given) in its own order.

    Raises BadInput when it has none of a name, Unreachable, Refused.
    """
    info_text, backend_text, stat_text, states_text = await runtime.ask('show info', 'show backend', 'show stat', 'show servers state')
    info, known = parse_info(info_text), parse_backends(backend_text)
    unknown = [name for name in only or () if name not in known]
    if unknown:
        raise BadInput('HAProxy at %s has no backend %s: it has %s.' % (runtime.address, ', '.join(unknown), ', '.join(known) or 'none'))
    found = pools(parse_stat(stat_text), parse_servers_state(states_text), info.version_tuple)
    return info, {name: found[name] for name in (only if only is not None else known) if name in found}


class Site:
    """The servers of one backend in one process, from plan to result."""

    def __init__(self, name: str, address: Address, deadline: float, want: server_plan.Want) -> None:
        self.name = name
        self.want = want
        self.runtime = Runtime(address, deadline)
        self.pool: Pool
        self.steps: list[server_plan.Step] = []
        self.left: dict[str, str] = {}
        """Servers whose last wait ended without what was waited for, and what that was."""
        self.waited: dict[str, float] = {}
        """Seconds of waiting by server, all waits together."""
        self.timed_out: dict[str, str] = {}
        self.shut: list[str] = []
        self.touched = False
        self._closed = False

    async def prepare(self) -> None:
        """Reads and plans. Changes nothing; whatever can be refused is refused here."""
        backend = self.want.backend
        _info, found = await read_pools(self.runtime, [backend])
        self.pool = found[backend]
        probe = server_plan.probe(self.pool, self.want)
        level, *replies = await self.runtime.ask('show cli level', *([probe] if probe else []))
        if level.strip() != 'admin':
            raise Unsupported('The socket %s has level "%s": add "level admin" to its "stats socket" line.' % (
                self.runtime.address, level.strip()))
        if replies:
            self.pool = replace(self.pool, dynamic=server_plan.probed(replies[0]))
        self.steps = server_plan.plan(self.pool, self.want)

    async def open(self) -> None:
        """Sends the first commands and compares what HAProxy shows with what was asked for."""
        commands = [command for step in self.steps for command in step.opening]
        await self._send(commands)
        await self._look()

    async def close(self) -> None:
        """Sends the commands that come after the wait, and compares."""
        commands = [command for step in self.steps for command in step.closing]
        self._closed = True
        await self._send(commands)
        if commands:
            await self._look()

    async def shut_down(self) -> None:
        """Ends the sessions of servers whose wait was in vain."""
        self.shut = [name for name in self.timed_out if not server_plan.reached(self.pool.servers.get(name), 'empty')]
        await self._send(['shutdown sessions server %s/%s' % (self.want.backend, name) for name in self.shut])

    async def remove(self, until: float) -> None:
        """Deletes what is to be removed, and looks that it is gone.

        Idle connections, which HAProxy closes in its own time, hold a server that is empty; a task that waits asks again until
        the monotonic clock passes *until*.
        """
        for step in self.steps:
            while step.removal:
                try:
                    await self._send([step.removal])
                    break
                except Refused as exc:
                    if 'connections' not in str(exc):
                        raise
                    if not step.wait or time.monotonic() >= until:
                        raise Refused('%s The server stays in maintenance; with wait=true the task waits until nothing holds it.' % (
                            exc,)) from None
                await asyncio.sleep(_FIRST_PAUSE_S)
        if any(step.removal for step in self.steps):
            await self._read()
        still = [step.name for step in self.steps if step.removal and step.name in self.pool.servers]
        if still:
            raise Refused('HAProxy at %s said that it deleted %s and still shows it.' % (self.runtime.address, ', '.join(still)))

    async def wait(self, goals: t.Mapping[str, str], until: float, say: t.Callable[[str], None]) -> None:
        """Waits until each server has reached its goal or the monotonic clock passes *until*; ``left`` tells which has not."""
        self.left = {}
        if not goals:
            return
        start = said = time.monotonic()
        earlier, open_, pause, misses = dict(self.waited), dict(goals), _FIRST_PAUSE_S, 0
        while True:
            asked = tuple(open_)
            try:
                await self._look()
                misses = 0
                open_ = {name: goal for name, goal in open_.items() if not server_plan.reached(self.pool.servers.get(name), goal)}
            except Unreachable:
                misses += 1
                if misses >= _MISSES:
                    raise
            now = time.monotonic()
            self.waited.update((name, earlier.get(name, 0.0) + now - start) for name in asked)
            if not open_ or now >= until:
                break
            if now - said >= _SAY_EVERY_S:
                said = now
                say('%s: %s; %s left' % (self.name, self.lack(*next(iter(open_.items()))), format_duration(until - now)))
            await asyncio.sleep(min(pause, max(until - now, 0.001)))
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)
        self.left = open_
        self.timed_out.update(open_)

    def lack(self, name: str, goal: str) -> str:
        """Returns what keeps a server from what is waited for."""
        return 'server %s/%s %s' % (self.want.backend, name, server_plan.lacks(self.pool.servers[name], goal))

    def predict(self) -> None:
        """Puts what the plan says in the place of what was read: check mode."""
        servers = dict(self.pool.servers)
        for step in self.steps:
            if not step.present:
                servers.pop(step.name, None)
            elif step.before is not None:
                servers[step.name] = replace(
                    step.before, admin=step.admin, weight=step.weight, effective_weight=step.weight, address=step.address)
            else:
                servers[step.name] = Server(
                    name=step.name, address=step.address, weight=step.weight, initial_weight=step.weight, effective_weight=0,
                    admin=step.admin, forced=step.admin, operational='stopped', check='none', check_status='', sessions=0, queued=0,
                    connections=0, idle_connections=0, backup='backup' in (self.want.options or {}), tracks='', resolved=True)
        self.pool = replace(self.pool, servers=servers)

    def diff(self) -> dict[str, str]:
        lines = [step.lines() for step in self.steps]
        header = '%s: backend %s' % (self.name, self.want.backend)
        return {'before_header': header, 'after_header': header, 'before': ''.join(before + '\n' for before, _after in lines),
                'after': ''.join(after + '\n' for _before, after in lines)}

    def intent(self) -> dict[str, t.Any]:
        """Returns what changes, for the journal."""
        return {'endpoint': self.name, 'backend': self.want.backend, 'servers': [
            dict(zip(('before', 'after'), step.lines()), waited_s=round(self.waited.get(step.name, 0.0), 3), shut=step.name in self.shut)
            for step in self.steps if step.changed or step.wait]}

    def facts(self) -> dict[str, t.Any]:
        steps = {step.name: step for step in self.steps}
        facts = self.pool.facts()
        servers = []
        for server in facts['servers']:
            step = steps.get(server['name'])
            if step is not None:
                servers.append(dict(server, changed=step.changed, waited_s=round(self.waited.get(step.name, 0.0), 3),
                                    timed_out=step.name in self.timed_out, shut_down=step.name in self.shut))
        return dict(facts, name=self.name, servers=servers, changed=any(step.changed for step in self.steps),
                    absent=[step.name for step in self.steps if step.name not in self.pool.servers])

    async def _read(self) -> None:
        stat, states = await self.runtime.ask('show stat %s 6 -1' % self.want.backend, 'show servers state %s' % self.want.backend)
        found = pools(parse_stat(stat), parse_servers_state(states), self.pool.version)
        if self.want.backend not in found:
            raise Conflict('HAProxy at %s no longer has the backend %s: it was reloaded meanwhile.' % (
                self.runtime.address, self.want.backend))
        self.pool = replace(found[self.want.backend], dynamic=self.pool.dynamic)

    async def _look(self) -> None:
        await self._read()
        found = [text for text in (server_plan.mismatch(self.pool, self.want, step, self._closed) for step in self.steps) if text]
        if found:
            raise Conflict('HAProxy at %s: %s. Another client of the socket or a reload of HAProxy, which forgets states and weights, '
                           'changed it.' % (self.runtime.address, '; '.join(found)))

    async def _send(self, commands: t.Sequence[str]) -> None:
        if not commands:
            return
        self.touched = True
        for command, reply in zip(commands, await self.runtime.ask(*commands)):
            if not server_plan.answered(command, reply):
                raise Refused('HAProxy at %s refused "%s": %s' % (self.runtime.address, command, ' '.join(reply.split()) or 'no answer'))
