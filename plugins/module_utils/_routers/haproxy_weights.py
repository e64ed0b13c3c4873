# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A split by the weights of servers in one HAProxy backend, for configurations without a map.

HAProxy keeps no owner and no lease for weights, so both lie in a state file on the host that runs the task, and a watchdog
process there returns the traffic when the lease is not renewed (``_watchdog.py``). Weights are lost when HAProxy reloads.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
import typing as t
from dataclasses import replace

from ansible_collections.progressive.delivery.plugins.module_utils import _watchdog
from ansible_collections.progressive.delivery.plugins.module_utils._errors import Conflict, Expired, Refused, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Runtime
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import parse_backends, parse_servers_state, parse_stat
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, clean_token
from ansible_collections.progressive.delivery.plugins.module_utils._routers import evidence
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import (
    Applied, Arm, Capabilities, Change, Evidence, Observed)
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint
from ansible_collections.progressive.delivery.plugins.module_utils._routers.planned import Planned
from ansible_collections.progressive.delivery.plugins.module_utils._routers.weights_plan import WeightsPlan, WeightsState, commands, token

STATE_DIR = '~/.local/state/progressive.delivery/weights'


class HaproxyWeights(Planned):
    """The router ``haproxy_weights``."""

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm]) -> None:
        self.name = endpoint.name
        self.deadline = endpoint.deadline
        self.endpoint = endpoint
        self.service = check_name('service', service)
        self.arms = arms
        self._runtime = Runtime(endpoint.address, endpoint.deadline)
        self._plan = WeightsPlan(endpoint, service, arms)
        self._backend = self._plan.backend
        directory = os.path.abspath(os.path.expanduser(endpoint.state_dir or STATE_DIR))
        self._file = _watchdog.StateFile(os.path.join(directory, '%s@%s.json' % (
            service, clean_token(str(endpoint.address).replace('://', '_')))))

    def capabilities(self) -> Capabilities:
        return Capabilities(arms=len(self.arms), unit='a weight of 0 to 256 a server', matches=(), sticky=('none',),
                            verify=('L0', 'L2', 'L3'), native_lease=False)

    async def read(self) -> Observed:
        backends, level = await self._runtime.ask('show backend', 'show cli level')
        if self._backend not in parse_backends(backends):
            raise Unsupported('The backend "%s" does not exist on %s: correct "arms" or add the backend to its configuration.' % (
                self._backend, self.name))
        problems = () if level.strip() == 'admin' else (
            'The socket of %s has level "%s": put "level admin" on its "stats socket" line.' % (self.name, clean_token(level.strip())),)
        return self._seen(await self._state(), problems)

    async def _state(self) -> WeightsState:
        servers, stat, tables = await self._runtime.ask('show servers state %s' % self._backend, 'show stat', 'show table')
        rows = [row for row in parse_stat(stat) if row.pxname == self._backend]
        whole = next(row for row in rows if row.kind == 'backend')
        sticks = any(line.startswith('# table: %s,' % self._backend) for line in tables.splitlines())
        return WeightsState({one.server: one for one in parse_servers_state(servers)},
                            {row.svname: row for row in rows if row.kind == 'server'},
                            whole.algo, bool(whole.cookie) or sticks, self._record())

    def _record(self) -> dict[str, t.Any]:
        try:
            return self._file.load() or {}
        except (OSError, ValueError) as exc:
            raise Refused('The state file %s of %s cannot be read: %s. When no rollout runs, remove it.' % (
                self._file.path, self.name, exc)) from exc

    def _seen(self, state: WeightsState, problems: tuple[str, ...] = ()) -> Observed:
        left = _watchdog.left_s(state.record)
        if left is not None and left <= 0 and state.record.get('expired'):
            left = min(0.0, state.record['expired'] - time.time())
        return self._plan.observed(state, left, problems)

    # ---- writing

    async def apply(self, change: Change) -> Applied:
        state = await self._state()
        payload = change.payload
        if change.kind in ('split', 'release') and token(state) != change.token:
            raise Conflict('The weights of "%s" on %s were changed by somebody else since they were read: '
                           'nothing was overwritten; try again.' % (
                               self._backend, self.name))
        if change.kind == 'undo' and state.record.get('rev') != payload['rev']:
            return Applied(change, self._seen(state))
        if change.lease_s:
            await self._in_thread(self._arm, change, state)
        await self._set(payload['servers'], state)
        if not change.lease_s:
            # A permanent split is in force before its lease is given up.
            await self._in_thread(self._keep, dict(payload['record']))
        after = await self._state()
        wrong = [server for server, (weight, admin) in payload['servers'].items()
                 if server in after.servers and (after.servers[server].uweight, after.servers[server].admin) != (weight, admin)]
        if wrong:
            raise Refused('%s does not hold what was written: %s.' % (self.name, ', '.join(
                '%s/%s has weight %d and is %s' % (self._backend, server, after.servers[server].uweight, after.servers[server].admin)
                for server in wrong)))
        return Applied(change, self._seen(after))

    async def _set(self, settings: t.Mapping[str, t.Sequence[t.Any]], state: WeightsState) -> None:
        lines = commands(self._backend, {server: pair for server, pair in settings.items() if server in state.servers}, state)
        for line, said in zip(lines, await self._runtime.ask(*lines) if lines else []):
            if 'static LB algorithm' in said:
                raise Unsupported('The backend "%s" of %s balances by "%s", whose weights cannot change while it runs: '
                                  'use "balance roundrobin", or "hash-type consistent" with a hash.' % (
                                      self._backend, self.name, state.algo))
            if said:
                raise Refused('%s refused "%s": %s' % (self.name, line, ' '.join(said.split())))

    def _arm(self, change: Change, state: WeightsState) -> None:
        """Stores the way back and the deadline, and makes sure that somebody watches them, before the first weight changes."""
        back = self._plan.way_back(self._plan.expected(self._plan.observed(state, None), change))
        settings = back.payload['servers'] if back else {}
        with self._locked():
            self._file.save(dict(
                change.payload['record'], service=self.service, endpoint=self.name,
                socket=str(self.endpoint.address), boot=_watchdog.boot_id(),
                deadline=_watchdog.now_s() + t.cast(float, change.lease_s), way_back=commands(self._backend, settings)))
        try:
            # Its text, because a module on a target host runs from an archive that is gone before the lease is.
            _watchdog.ensure(self._file.path, inspect.getsource(_watchdog))
        except OSError as exc:
            raise Refused('The lease of %s on %s cannot be kept: %s.' % (self.service, self.name, exc)) from exc

    def _keep(self, record: dict[str, t.Any]) -> None:
        with self._locked():
            self._file.save(record)

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        try:
            with self._file.locked():
                yield
        except OSError as exc:
            raise Refused('The state file %s of %s cannot be written: %s. Set state_dir to a directory you may write.' % (
                self._file.path, self.name, exc.strerror or exc)) from exc

    async def _in_thread(self, work: t.Callable[..., t.Any], *args: t.Any) -> t.Any:
        return await asyncio.get_running_loop().run_in_executor(None, work, *args)

    # ---- the lease

    def renewable(self, observed: Observed) -> t.Mapping[str, t.Any]:
        return {'rev': observed.state.record.get('rev'), 'weights': observed.token}

    async def renew(self, token_: t.Mapping[str, t.Any], lease_s: float) -> float:
        state = await self._state()
        if token(state) != token_.get('weights') and not state.record.get('expired'):
            raise Conflict('The weights of "%s" on %s are not the ones that were set: '
                           'somebody else changed them, or HAProxy was reloaded.' % (self._backend, self.name))
        await self._in_thread(self._renew, token_, lease_s)
        return lease_s

    def _renew(self, token_: t.Mapping[str, t.Any], lease_s: float) -> None:
        with self._locked():
            record = self._record()
            if record.get('rev') != token_.get('rev'):
                raise Conflict('The split of %s on %s is not ours any more: it has rev %s of %s.' % (
                    self.service, self.name, record.get('rev'), record.get('rollout', 'nobody')))
            left = _watchdog.left_s(record)
            if left is None or left <= 0:
                raise Expired('The lease of %s on %s had run out before it was renewed: its watchdog returns the traffic.' % (
                    self.service, self.name))
            self._file.save(dict(record, deadline=_watchdog.now_s() + lease_s))
            if not self._file.watched():
                raise Refused('The watchdog of %s on %s is gone: nothing would return the traffic if this run ended.' % (
                    self.service, self.name))

    async def verify(self, observed: Observed, level: str, timeout_s: float) -> Evidence:
        if level != 'L3' or observed.effective is None:
            return Evidence('L2', True, 'the weights were read back', observed.configured_bp)
        split = observed.effective
        exact = replace(split, arms=tuple((arm, observed.configured_bp.get(arm, 0)) for arm, _bp in split.arms))
        return await evidence.by_traffic(self._counts, exact, timeout_s)

    async def _counts(self) -> dict[str, int]:
        """Requests that each arm's servers were given so far."""
        (stat,) = await self._runtime.ask('show stat')
        counts = dict.fromkeys(self.arms, 0)
        for row in parse_stat(stat):
            arm = self._plan.arm_of.get(row.svname) if row.kind == 'server' and row.pxname == self._backend else None
            if arm:
                counts[arm] += row.stot or 0
        return counts
