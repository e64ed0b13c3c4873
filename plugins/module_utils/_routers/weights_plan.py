# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What to set server weights to, and why: the decisions of the router ``haproxy_weights``. Pure.

Traps (HAProxy management manual, 'set server'; configuration manual, 'balance' and 'cookie'): static algorithms take no weight but
0 and the initial one, ``first`` takes no notice of weights, and a server with weight 0 still receives the requests of clients
that a cookie or a stick table ties to it: only ``maint`` ends those.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import ServerState, StatRow
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import (
    Arm, Change, Claim, Desired, Observed, check_arms_known, check_claim, check_no_mirror)
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint
from ansible_collections.progressive.delivery.plugins.module_utils._routers.record import heir, public, recorded, released, way_to
from ansible_collections.progressive.delivery.plugins.module_utils._routers.weights_fit import fit_weights, to_bp
from ansible_collections.progressive.delivery.plugins.module_utils._split import Split, all_to, format_share

STATIC = ('static-rr',)
DEAF = ('first', 'none')

Settings = t.Dict[str, t.List[t.Any]]
"""Server to [weight, 'ready' or 'maint']."""


@dataclass(frozen=True)
class WeightsState:
    """What was read. *record* is the state file's content: owner, lease, versions; it may be empty."""

    servers: t.Mapping[str, ServerState]
    rows: t.Mapping[str, StatRow]
    algo: str
    persistent: bool
    record: t.Mapping[str, t.Any]


class WeightsPlan:
    """Decides for one service at one endpoint."""

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm]) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint
        self.service = service
        self.arms = arms
        backends = {arm.backend for arm in arms.values()}
        if len(backends) != 1:
            raise BadInput('The arms of %s on %s are in the backends %s: with haproxy_weights all are servers of one backend; use the '
                           'router haproxy_map for arms with backends of their own.' % (service, self.name, ', '.join(sorted(backends))))
        self.backend = backends.pop()
        self.arm_of: dict[str, str] = {}
        for arm in arms.values():
            if not arm.servers:
                raise BadInput('The arm "%s" on %s names no servers: haproxy_weights has to know which of the backend are its own.' % (
                    arm.name, self.name))
            for server in arm.servers:
                if self.arm_of.setdefault(server, arm.name) != arm.name:
                    raise BadInput('The server "%s" on %s belongs to two arms, "%s" and "%s".' % (
                        server, self.name, self.arm_of[server], arm.name))

    # ---- what there is

    def observed(self, state: WeightsState, lease_left_s: float | None, problems: tuple[str, ...] = ()) -> Observed:
        record = state.record
        weights = {name: 0 for name in self.arms}
        for server, one in state.servers.items():
            if server in self.arm_of and one.admin == 'ready':
                weights[self.arm_of[server]] += one.uweight
        bp = to_bp(weights)
        stable = record.get('stable') if record.get('stable') in self.arms else None
        stable = stable or (max(bp, key=lambda arm: bp[arm]) if bp else None)
        split = None
        if stable is not None:
            split = Split(tuple((arm, bp[arm]) for arm in bp if arm != stable) + ((stable, bp.get(stable, 0)),))
        claim = Claim(record['rollout'], record.get('by', 'unknown'), int(record.get('since', 0))) if record.get('rollout') else None
        unknown = tuple(server for server, row in state.rows.items()
                        if server not in self.arm_of and not row.backup and row.weight and row.up)
        usable = {name: sum(self._can_serve(server, state) for server in arm.servers) for name, arm in self.arms.items()}
        notes: tuple[str, ...] = ()
        if state.persistent:
            notes += ('The backend "%s" of %s ties clients to servers by a cookie or a stick table: they stay there whatever the weights '
                      'say, until the way back takes the servers to maintenance.' % (self.backend, self.name),)
        if state.algo == 'leastconn':
            notes += ('The backend "%s" of %s balances by "leastconn": weights are shares of the load there, not of the requests.' % (
                self.backend, self.name),)
        if lease_left_s is not None and lease_left_s <= 0 and not record.get('returned'):
            notes += ('The lease on %s ran out, and its watchdog has not brought the traffic back%s: run the rollback.' % (
                self.name, ' (%s)' % record['error'] if record.get('error') else ''),)
        return Observed(
            self.name, self.service, split, token(state), lease_left_s=lease_left_s, self_ending=False, claim=claim,
            version=record.get('version'), previous=record.get('previous'), previous_version=record.get('previous_version'),
            unknown=unknown, usable=usable,
            problems=problems, notes=notes, achieved_bp=bp, state=state)

    def _can_serve(self, server: str, state: WeightsState) -> bool:
        # One that this router itself took to maintenance says nothing about its health.
        row = state.rows.get(server)
        return row is not None and (row.up or server in state.record.get('maint', ()))

    # ---- planning

    def plan(self, observed: Observed, desired: Desired) -> Change | None:
        split = desired.split
        check_arms_known(self.service, self.arms, split)
        if split.partial and not desired.lease_s:
            raise BadInput('The split %s of %s needs a lease: a candidate has a share only while somebody watches it.' % (
                split, self.service))
        check_no_mirror(split, self.name)
        if split.matches or split.sticky != 'none':
            raise Unsupported('%s splits by server weights, which know neither matches nor sticky users: '
                              'use the router haproxy_map for them.' % self.name)
        for problem in observed.problems:
            raise Unsupported(problem)
        state: WeightsState = observed.state
        self._check_servers(state)
        check_claim(observed, desired.claim.rollout, desired.force)
        if observed.unknown and not desired.force:
            raise Conflict('The backend "%s" of %s also sends traffic to %s, which belongs to no arm of %s: name it in "arms".' % (
                self.backend, self.name, ', '.join(observed.unknown), self.service))
        settings, after_bp = self._settings(split, observed, desired.ready)
        record = recorded(observed.state.record, observed, desired)
        maint = [server for server in state.record.get('maint', ()) if settings.get(server, [0, ''])[1] == 'maint']
        record.update({'maint': maint} if maint else {})
        same = not self._differing(settings, state) and public(record) == public(state.record)
        lease_is_right = observed.lease_left_s is None if desired.lease_s is None else (observed.lease_left_s or 0) > 0
        if same and lease_is_right:
            return None
        return Change(self.name, self.service, 'split', observed.effective, split, observed.token,
                      {'servers': settings, 'record': dict(record, rev=state.record.get('rev', 0) + 1)}, desired.lease_s, after_bp)

    def _check_servers(self, state: WeightsState) -> None:
        for server, arm in self.arm_of.items():
            if server not in state.servers:
                raise Unsupported('The server "%s" of arm "%s" is not in the backend "%s" of %s: it has %s.' % (
                    server, arm, self.backend, self.name, ', '.join(sorted(state.servers)) or 'none'))
        if state.algo in DEAF:
            raise Unsupported('The backend "%s" of %s balances by "%s", which takes no notice of weights: use "balance roundrobin".' % (
                self.backend, self.name, state.algo))

    def _settings(self, split: Split, observed: Observed, ready: bool) -> tuple[Settings, dict[str, int]]:
        state: WeightsState = observed.state
        ours = set(state.record.get('maint', ()))
        counted = {name: [s for s in arm.servers if state.servers[s].admin == 'ready' or s in ours] for name, arm in self.arms.items()}
        names = [name for name, bp in split.arms if bp]
        for name in names:
            if not counted[name] or (ready and not observed.usable[name]):
                raise Unsupported('The arm "%s" has no usable server in the backend "%s" of %s: bring one up before it gets traffic.' % (
                    name, self.backend, self.name))
        settings: Settings = {}
        for name, arm in self.arms.items():
            for server in arm.servers:
                settings[server] = [0, state.servers[server].admin if name not in names or server not in counted[name] else 'ready']
        if len(names) == 1:
            for server in counted[names[0]]:
                settings[server][0] = self._whole_weight(names[0], server, state)
            return settings, {names[0]: 10000}
        if state.algo in STATIC:
            raise Unsupported('The backend "%s" of %s balances by "%s", a static algorithm whose weights cannot change while it runs: '
                              'use "balance roundrobin".' % (self.backend, self.name, state.algo))
        sizes, shares = [len(counted[name]) for name in names], [split.shares[name] for name in names]
        weights, error = fit_weights(shares, sizes)
        parts = {name: weight * size for name, weight, size in zip(names, weights, sizes)}
        if error > self.endpoint.tolerance_bp:
            raise Unsupported('The split %s cannot be expressed by the weights of %s servers on %s: the nearest is %s, off by %s. '
                              'Take other shares, other numbers of servers, or a larger tolerance_bp.' % (
                                  split, ' and '.join(str(size) for size in sizes), self.name,
                                  ', '.join('%s %s' % (name, format_share(bp)) for name, bp in to_bp(parts).items()),
                                  format_share(round(error))))
        for name, weight in zip(names, weights):
            for server in counted[name]:
                settings[server][0] = weight
        return settings, to_bp(parts)

    def _whole_weight(self, arm: str, server: str, state: WeightsState) -> int:
        """The weight of a server whose arm has all of the traffic: the configured one, the only one a static algorithm takes."""
        initial = [state.servers[name].iweight for name in self.arms[arm].servers if name in state.servers]
        return state.servers[server].iweight if all(initial) else 100

    def _differing(self, settings: Settings, state: WeightsState) -> list[str]:
        return [server for server, (weight, admin) in settings.items()
                if server in state.servers and (state.servers[server].uweight != weight or state.servers[server].admin != admin)]

    # ---- the way back

    def way_back(self, observed: Observed) -> Change | None:
        shares = observed.split
        way = way_to(observed.state.record, observed, self.arms, bool(shares and shares.candidates))
        if way is None or shares is None:
            return None
        (goal, version), note = way, ''
        other = None if observed.usable.get(goal) else heir(goal, shares.shares, observed.usable)
        if other:
            note = 'no server of "%s" can take a request on %s, so all traffic goes to "%s", which has %d' % (
                goal, self.name, other, observed.usable[other])
            goal, version = other, version if other == shares.stable else None
        return self._back_to(goal, version, observed, note)

    def _back_to(self, goal: str, version: str | None, observed: Observed, note: str) -> Change:
        state: WeightsState = observed.state
        ours = set(state.record.get('maint', ()))
        settings: Settings = {}
        maint = []
        for server, arm in self.arm_of.items():
            if server not in state.servers:
                continue
            admin = state.servers[server].admin
            if arm == goal:
                settings[server] = [self._whole_weight(arm, server, state), 'ready' if server in ours else admin]
            elif state.persistent and (admin == 'ready' or server in ours):
                settings[server] = [0, 'maint']
                maint.append(server)
            else:
                settings[server] = [0, admin]
        record = {'stable': goal, 'rev': state.record.get('rev', 0) + 1}
        record.update({'version': version} if version else {}, **({'maint': maint} if maint else {}))
        return Change(self.name, self.service, 'way_back', observed.effective, all_to(goal), observed.token,
                      {'servers': settings, 'record': record}, note=note)

    def expected(self, observed: Observed, change: Change) -> Observed:
        state: WeightsState = observed.state
        servers = dict(state.servers)
        for server, (weight, admin) in change.payload['servers'].items():
            if server in servers:
                flags = 0 if admin == 'ready' else servers[server].admin_state or 1
                servers[server] = replace(servers[server], uweight=weight, admin_state=flags)
        seen = self.observed(replace(state, servers=servers, record=change.payload['record']), change.lease_s)
        return replace(seen, usable=observed.usable)

    def stored_way_back(self, payload: t.Mapping[str, t.Any]) -> Change:
        stable = payload['record']['stable']
        return Change(self.name, self.service, 'way_back', None, all_to(stable), None, payload)

    def undo(self, observed: Observed, change: Change) -> Change:
        state: WeightsState = observed.state
        before = {server: [one.uweight, one.admin] for server, one in state.servers.items() if server in change.payload['servers']}
        return Change(self.name, self.service, 'undo', change.after, observed.split or change.after, None,
                      {'servers': before, 'record': dict(state.record), 'rev': change.payload['record']['rev']})

    def release(self, observed: Observed, rollout: str, force: bool) -> Change | None:
        if observed.claim is None:
            return None
        check_claim(observed, rollout, force)
        if observed.split and observed.split.candidates:
            raise BadInput('%s on %s is still split (%s) under a lease: take it to 100 %% or back before you release it.' % (
                self.service, self.name, observed.split))
        after = all_to(observed.split.stable) if observed.split else observed.split
        return Change(self.name, self.service, 'release', observed.effective, t.cast(Split, after), observed.token,
                      {'servers': {}, 'record': released(observed.state.record)})


def commands(backend: str, settings: t.Mapping[str, t.Sequence[t.Any]], state: WeightsState | None = None) -> list[str]:
    """Returns the runtime commands for *settings*: who gains first, who loses last, so that there is always somebody to serve.

    With *state*, only what differs from it.
    """
    lines = []
    for server, (weight, admin) in sorted(settings.items(), key=lambda pair: (-pair[1][0], pair[0])):
        now = state.servers.get(server) if state else None
        if (now is None or now.admin != admin) and admin == 'ready':
            lines.append('set server %s/%s state ready' % (backend, server))
        if now is None or now.uweight != weight:
            lines.append('set server %s/%s weight %d' % (backend, server, weight))
        if (now is None or now.admin != admin) and admin != 'ready':
            lines.append('set server %s/%s state %s' % (backend, server, admin))
    return lines


def token(state: WeightsState) -> str:
    """Returns what identifies the weights and states of the backend's servers."""
    return ','.join('%s=%d:%s' % (server, one.uweight, one.admin) for server, one in sorted(state.servers.items()))
