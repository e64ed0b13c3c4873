# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A split in one entry of an HAProxy map: ``docs/architecture.md``, 'The HAProxy map scheme'."""

from __future__ import annotations

import asyncio
import time
import typing as t
from dataclasses import replace

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import Conflict, DeliveryError, Expired, Refused, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy import mapfile
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Runtime
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.clock import CLOCK_COMMANDS, wall_clock
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import (
    MapEntry, parse_info, parse_map_entries, parse_maps, parse_stat)
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, clean_token
from ansible_collections.progressive.delivery.plugins.module_utils._routers import evidence
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import (
    Applied, Arm, Capabilities, Change, Evidence, Observed)
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint
from ansible_collections.progressive.delivery.plugins.module_utils._routers.map_plan import MapPlan, parsed
from ansible_collections.progressive.delivery.plugins.module_utils._routers.map_value import MapValue, lease_end_ms
from ansible_collections.progressive.delivery.plugins.module_utils._routers.planned import Planned

_TRIES = 3


class HaproxyMap(Planned):
    """The router ``haproxy_map``. *here* is this host's wall clock in seconds since 1970."""

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm], here: t.Callable[[], float] = time.time) -> None:
        self.name = endpoint.name
        self.deadline = endpoint.deadline
        self.endpoint = endpoint
        self.service = check_name('service', service)
        self.arms = arms
        self._here = here
        self._runtime = Runtime(endpoint.address, endpoint.deadline)
        self._map = t.cast(str, endpoint.map)
        self._show = 'show map %s' % self._map
        self._plan = MapPlan(endpoint, service, arms)

    def capabilities(self) -> Capabilities:
        return Capabilities(arms=self.endpoint.slots + 1, unit='0.01 %', matches=self.endpoint.matches,
                            sticky=('none', 'hash') if self.endpoint.sticky else ('none',), verify=('L0', 'L2', 'L3'), native_lease=True)

    async def read(self) -> Observed:
        maps, entries, info, errors, stat, level = await self._runtime.ask(
            'show map', self._show, *CLOCK_COMMANDS, 'show stat', 'show cli level')
        if self._map not in [found.file for found in parse_maps(maps)]:
            raise Unsupported('The map %s is not in the running configuration of %s: put the lines of README.md, "What HAProxy needs", '
                              'into its frontend and reload it, or correct "map".' % (self._map, self.name))
        problems, on_disk = [], None
        if level.strip() != 'admin':
            problems.append('The socket of %s has level "%s": put "level admin" on its "stats socket" line.' % (
                self.name, clean_token(level.strip())))
        if self.endpoint.file:
            try:
                mapfile.check_writable(self.endpoint.file)
                on_disk = mapfile.read_entry(self.endpoint.file, self.service)
            except Refused as exc:
                problems.append(str(exc))
        try:
            now_s = self._clock(info, errors)
        except Refused as exc:
            # A way back needs no clock, so it must not be stopped by one.
            problems.append(str(exc))
            now_s = self._here()
        return self._plan.observed(self._value(entries), now_s, tuple(parse_stat(stat)), tuple(problems), on_disk)

    def _entries(self, reply: str) -> list[MapEntry]:
        return [entry for entry in parse_map_entries(reply) if entry.key == self.service]

    def _value(self, reply: str) -> str | None:
        found = self._entries(reply)
        if len({entry.value for entry in found}) > 1:
            raise Refused('The map %s of %s has %d entries for %s: delete all but one, on the socket ("del map") and in the file.' % (
                self._map, self.name, len(found), self.service))
        return found[0].value if found else None

    def _clock(self, info: str, errors: str) -> float:
        return wall_clock(parse_info(info), errors, self._here(), self.name)

    async def _look(self) -> tuple[str | None, float]:
        entries, info, errors = await self._runtime.ask(self._show, *CLOCK_COMMANDS)
        return self._value(entries), self._clock(info, errors)

    async def apply(self, change: Change) -> Applied:
        if change.kind == 'way_back':
            wanted, now_s = str(change.payload['value']), self._here()
            await self._overwrite(wanted)
            try:
                await self._keep(wanted)
            except DeliveryError as exc:
                raise Refused('%s sends all traffic of %s to "%s" now, but a reload would undo that: %s' % (
                    self.name, self.service, change.after.stable, exc)) from exc
            return Applied(change, self._plan.observed(wanted, now_s, on_disk=wanted))
        if change.kind == 'undo':
            found, now_s = await self._look()
            wanted = change.payload['raw']
            ours, now = MapValue.parse(change.payload['value']), parsed(found)
            if now is None or now.without_lease() != ours.without_lease():
                return Applied(change, self._plan.observed(found, now_s, on_disk=found))
            await self._overwrite(wanted)
            await self._keep(wanted)
            return Applied(change, self._plan.observed(wanted, now_s, on_disk=wanted))
        value = MapValue.parse(str(change.payload['value']))
        for last in (False,) * _TRIES + (True,):
            found, now_s = await self._look()
            self._check_token(change, found)
            wanted = str(replace(value, until_ms=lease_end_ms(now_s, change.lease_s)) if change.lease_s else value)
            try:
                await self._replace(wanted, found)
                break
            except Conflict:
                # A renewal of the same split may have come between; _check_token tells that from somebody else's change.
                if last:
                    raise
        try:
            await self._keep(wanted)
        except DeliveryError:
            await self._overwrite(found)
            raise
        return Applied(change, self._plan.observed(wanted, now_s, on_disk=wanted))

    async def _keep(self, wanted: str | None) -> None:
        """Writes the file too, so that a reload keeps the split. Its lease is in it, so a reload never revives an expired one."""
        if self.endpoint.file:
            await asyncio.get_running_loop().run_in_executor(
                None, mapfile.write_entry, self.endpoint.file, self.service, wanted, self.deadline)

    async def _replace(self, wanted: str, before: str | None) -> None:
        """Writes where *before* stands, and reads back. Whoever came between is put back and respected."""
        command = '%s map %s %s %s' % ('add' if before is None else 'set', self._map, self.service, wanted)
        first, said, last = await self._runtime.ask(self._show, command, self._show)
        found = self._value(first)
        if found == before:
            self._check_written(wanted, command, said, last)
            return
        if before is None:
            # Both entries are there now: ours is taken out by its reference.
            ours = [entry.ref for entry in self._entries(last) if entry.value == wanted]
            await self._runtime.ask(*['del map %s #%s' % (self._map, ref) for ref in ours])
        elif found is not None:
            await self._runtime.ask('set map %s %s %s' % (self._map, self.service, found))
        raise Conflict('%s on %s was changed by somebody else at the same moment: nothing was overwritten; try again.' % (
            self.service, self.name))

    async def _overwrite(self, wanted: str | None) -> None:
        """Writes whatever is there, and reads back."""
        if wanted is None:
            await self._runtime.ask('del map %s %s' % (self._map, self.service))
            return
        command = 'set map %s %s %s' % (self._map, self.service, wanted)
        said, last = await self._runtime.ask(command, self._show)
        if not self._entries(last):
            command = 'add map %s %s %s' % (self._map, self.service, wanted)
            said, last = await self._runtime.ask(command, self._show)
        self._check_written(wanted, command, said, last)

    def _check_written(self, wanted: str, command: str, said: str, last: str) -> None:
        if said:
            raise Refused('%s refused "%s": %s' % (self.name, command, ' '.join(said.split())))
        if self._value(last) != wanted:
            raise Refused('%s does not hold what was written for %s: it has "%s".' % (self.name, self.service, self._value(last)))

    def _check_token(self, change: Change, found: str | None) -> None:
        before, now = parsed(change.token), parsed(found)
        if found == change.token or (before is not None and now is not None and before.without_lease() == now.without_lease()):
            # The second: renewed since it was read, the same split of the same owner.
            return
        raise Conflict('%s on %s was changed by somebody else since it was read (it has rev %s of %s now): '
                       'nothing was overwritten; try again.' % (
                           self.service, self.name, now.rev if now else '-', now.facts.get('id', 'nobody') if now else 'nobody'))

    def renewable(self, observed: Observed) -> t.Mapping[str, t.Any]:
        return {'value': str(observed.state.value.without_lease())}

    async def renew(self, token: t.Mapping[str, t.Any], lease_s: float) -> float:
        found, now_s = await self._look()
        value = parsed(found)
        if value is None or str(value.without_lease()) != token.get('value'):
            raise Conflict('The split of %s on %s is not ours any more: it %s.' % (
                self.service, self.name, 'is gone' if value is None else 'has rev %d of %s' % (value.rev, value.facts.get('id', 'nobody'))))
        left = value.until_ms / 1000.0 - now_s
        if left <= 0:
            raise Expired('The lease of %s on %s had run out %s before it was renewed: stable has all of the traffic since.' % (
                self.service, self.name, format_duration(-left)))
        wanted = str(replace(value, until_ms=lease_end_ms(now_s, lease_s)))
        await self._replace(wanted, found)
        await self._keep(wanted)
        return lease_s

    async def verify(self, observed: Observed, level: str, timeout_s: float) -> Evidence:
        # The map that was read back is the memory that every request is decided on, so what is stored is in force.
        if level != 'L3':
            return Evidence('L2', True, 'the running map was read back', observed.configured_bp)
        return await evidence.by_traffic(self._counts, observed.effective, timeout_s)

    async def _counts(self) -> dict[str, int]:
        """Requests that each arm's backend was given so far."""
        (stat,) = await self._runtime.ask('show stat')
        totals = {row.pxname: row.stot or 0 for row in parse_stat(stat) if row.kind == 'backend'}
        return {name: totals.get(arm.backend, 0) for name, arm in self.arms.items()}
