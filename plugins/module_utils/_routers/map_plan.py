# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What to write into an HAProxy map, and why: the decisions of the router ``haproxy_map``. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import StatRow
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import (
    Arm, Change, Claim, Desired, Observed, check_arms_known, check_claim, check_no_mirror)
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint
from ansible_collections.progressive.delivery.plugins.module_utils._routers.map_value import MapValue, NotASplit
from ansible_collections.progressive.delivery.plugins.module_utils._routers.record import heir
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Match, Split, all_to


@dataclass(frozen=True)
class MapState:
    """What was read. The values are None when there is no entry, or none that is a split."""

    value: MapValue | None
    on_disk: MapValue | None
    rows: tuple[StatRow, ...]


class MapPlan:
    """Decides for one service at one endpoint."""

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm]) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint
        self.service = service
        self.arms = arms
        self._arm_of = {arm.backend: arm.name for arm in arms.values()}
        if len(self._arm_of) < len(arms):
            raise BadInput('Two arms of %s have the same backend on %s: with haproxy_map each arm is a backend of its own; '
                           'use the router haproxy_weights for arms that share one.' % (service, self.name))

    def observed(self, token: str | None, now_s: float, rows: tuple[StatRow, ...] = (), problems: tuple[str, ...] = (),
                 on_disk: str | None = None) -> Observed:
        value, filed = parsed(token), parsed(on_disk)
        usable = {name: sum(_is_own(row, arm) and row.usable for row in rows) for name, arm in self.arms.items()}
        base = Observed(self.name, self.service, None, token, usable=usable, problems=problems, notes=self._notes(value, filed),
                        state=MapState(value, filed, rows))
        if value is None:
            return base
        facts = value.facts
        claim = None
        if facts.get('id'):
            claim = Claim(facts['id'], facts.get('by', 'unknown'), int(facts['since']) if facts.get('since', '').isdigit() else 0)
        return replace(
            base, split=self._split(value), lease_left_s=value.until_ms / 1000.0 - now_s if value.until_ms else None, claim=claim,
            version=facts.get('v'), previous=self._named(facts['prev']) if facts.get('prev') else None, previous_version=facts.get('pv'),
            unknown=tuple(dict.fromkeys(backend for backend in value.backends if backend not in self._arm_of)))

    def _named(self, backend: str) -> str:
        return self._arm_of.get(backend, backend)

    def _split(self, value: MapValue) -> Split:
        # Without a lease HAProxy sends nothing to candidates, whatever the entry says.
        if not value.until_ms:
            return all_to(self._named(value.stable))
        shares = tuple((self._named(backend), bp) for backend, bp in value.candidates)
        matched = self._named(value.match) if value.match else None
        matches = tuple(Match(kind, name, wanted, matched) for kind, name, wanted in self.endpoint.matches) if matched else ()
        return Split(shares + ((self._named(value.stable), TOTAL - sum(bp for _arm, bp in shares)),), matches,
                     'hash' if value.key == 'hash' else 'none')

    # ---- planning

    def plan(self, observed: Observed, desired: Desired) -> Change | None:
        value = self._render(desired)
        self._check_state(observed, desired)
        check_claim(observed, desired.claim.rollout, desired.force)
        before: MapValue | None = observed.state.value
        value = self._recorded(value, before, observed, desired)
        if before is not None and observed.live and _same(value, before) and self._on_disk(before, observed.state.on_disk):
            return None
        return self._change('split', observed, value.noting(rev=str((before.rev if before else 0) + 1)), desired.lease_s)

    def _on_disk(self, value: MapValue, on_disk: MapValue | None) -> bool:
        return not self.endpoint.file or (on_disk is not None and _same(value, on_disk))

    def _notes(self, value: MapValue | None, on_disk: MapValue | None) -> tuple[str, ...]:
        if value is None or self._on_disk(value, on_disk):
            return ()
        return ('The map file %s does not hold the split that %s runs with: a reload would change the traffic of %s.' % (
            self.endpoint.file, self.name, self.service),)

    def _render(self, desired: Desired) -> MapValue:
        """The entry for a split, record aside; ``until_ms`` only says whether there is a lease."""
        split = desired.split
        check_arms_known(self.service, self.arms, split)
        if split.partial and not desired.lease_s:
            raise BadInput('The split %s of %s needs a lease: a candidate has a share only while somebody watches it.' % (
                split, self.service))
        check_no_mirror(split, self.name)
        if len(split.candidates) > self.endpoint.slots:
            raise Unsupported('%s has lines for %d candidate%s, and the split %s has %d: '
                              'add a pair of lines per candidate and set "slots".' % (
                                  self.name, self.endpoint.slots, '' if self.endpoint.slots == 1 else 's', split, len(split.candidates)))
        if not split.partial:
            return MapValue(self.arms[split.stable].backend)
        if split.sticky == 'hash' and not self.endpoint.sticky:
            raise Unsupported('%s has no line for sticky splits: '
                              'add the hash line of README.md to its frontend and set "sticky: true".' % self.name)
        order = {name: position for position, name in enumerate(self.arms)}
        candidates = sorted(split.candidates, key=lambda pair: order[pair[0]])
        return MapValue(
            stable=self.arms[split.stable].backend, until_ms=1, key='hash' if split.sticky == 'hash' else 'rand',
            match=self._match(split), candidates=tuple((self.arms[name].backend, bp) for name, bp in candidates))

    def _match(self, split: Split) -> str | None:
        if not split.matches:
            return None
        wanted, declared = {m.condition for m in split.matches}, set(self.endpoint.matches)
        for kind, name, value in sorted(wanted - declared):
            raise Unsupported('%s does not match on the %s %s=%s: '
                              'add it to the acl pd_match of its frontend and to "matches" of the endpoint.' % (
                                  self.name, kind, name, value))
        arms = {m.arm for m in split.matches}
        if len(arms) > 1 or wanted != declared:
            raise Unsupported('All matches of %s (%s) lead to one arm: its configuration has a single acl pd_match.' % (
                self.name, ', '.join('%s %s=%s' % condition for condition in sorted(declared))))
        return self.arms[arms.pop()].backend

    def _check_state(self, observed: Observed, desired: Desired) -> None:
        for problem in observed.problems:
            raise Unsupported(problem)
        if observed.token is not None and observed.state.value is None and not desired.force:
            raise Conflict('The entry %s of the map %s on %s is not a split ("%s"): delete it, or overwrite it with force.' % (
                self.service, self.endpoint.map, self.name, observed.token[:80]))
        if observed.unknown and not desired.force:
            raise Conflict('%s on %s also goes to %s, which belongs to none of its arms: name it in "arms", or overwrite with force.' % (
                self.service, self.name, ', '.join(observed.unknown)))
        used = [name for name, bp in desired.split.arms if bp] + [m.arm for m in desired.split.matches]
        for name in dict.fromkeys(used):
            self._check_arm(self.arms[name], observed, desired.ready)

    def _check_arm(self, arm: Arm, observed: Observed, ready: bool) -> None:
        rows = [row for row in observed.state.rows if row.pxname == arm.backend]
        if not any(row.kind == 'backend' for row in rows):
            raise Unsupported('The backend "%s" of arm "%s" does not exist on %s: '
                              'correct "arms" or add the backend to its configuration.' % (
                                  arm.backend, arm.name, self.name))
        servers = {row.svname for row in rows if row.kind == 'server'}
        for server in arm.servers:
            if server not in servers:
                raise Unsupported('The server "%s" of arm "%s" is not in the backend "%s" of %s: it has %s.' % (
                    server, arm.name, arm.backend, self.name, ', '.join(sorted(servers)) or 'none'))
        if ready and not observed.usable[arm.name]:
            raise Unsupported('The arm "%s" has no usable server in the backend "%s" of %s (%s): bring one up before it gets traffic.' % (
                arm.name, arm.backend, self.name,
                ', '.join('%s is %s' % (row.svname, row.status) for row in rows if _is_own(row, arm)) or 'it has none'))

    def _recorded(self, value: MapValue, before: MapValue | None, observed: Observed, desired: Desired) -> MapValue:
        """Adds the record: claim, version, and where a promotion could be taken back to."""
        facts = before.facts if before else {}
        claim, owner = desired.claim if desired.lease_s or desired.keep_claim else None, observed.claim
        record: dict[str, str | None] = {}
        if claim:
            since = owner.since if owner and owner.rollout == claim.rollout else claim.since
            record.update(id=claim.rollout, by=claim.by, since=str(since))
        record['rev'] = facts.get('rev')
        if before is None or before.stable == value.stable:
            record['v'] = desired.version or facts.get('v')
            # What was stable before the last promotion is forgotten when the next rollout begins.
            if before is not None and not value.until_ms and (not claim or (owner and owner.rollout == claim.rollout)):
                record.update(prev=facts.get('prev'), pv=facts.get('pv'))
        else:
            record.update(v=desired.version, prev=before.stable, pv=desired.previous_version or facts.get('v'))
        return value.noting(**{name: fact for name, fact in record.items() if fact})

    def _change(self, kind: str, observed: Observed, value: MapValue, lease_s: float | None = None, note: str = '') -> Change:
        after = self._split(replace(value, until_ms=1 if lease_s else 0))
        return Change(self.name, self.service, kind, observed.effective, after, observed.token,
                      {'value': str(value.without_lease())}, lease_s, note=note)

    # ---- the way back

    def way_back(self, observed: Observed) -> Change | None:
        value: MapValue | None = observed.state.value
        if value is None:
            return None
        facts = value.facts
        if value.until_ms or value.candidates or value.match:
            goal, version = value.stable, facts.get('v')
        elif facts.get('prev'):
            goal, version = facts['prev'], facts.get('pv')
        elif facts.get('id'):
            goal, version = value.stable, facts.get('v')
        else:
            return None
        note = ''
        other = self._heir(value, goal, observed)
        if other:
            note = 'no server of "%s" can take a request on %s, so all traffic goes to "%s", which has %d' % (
                self._named(goal), self.name, self._named(other), _usable_of(observed.state.rows, other))
            goal, version = other, facts.get('v') if other == value.stable else None
        back = MapValue(goal).noting(rev=str(value.rev + 1), v=version)
        return self._change('way_back', observed, back, note=note)

    def _heir(self, value: MapValue, goal: str, observed: Observed) -> str | None:
        """The backend to go to instead of *goal* when that has no usable server: of those with traffic, the one that has most."""
        rows = observed.state.rows
        if _usable_of(rows, goal):
            return None
        live = dict(value.candidates) if observed.live and value.until_ms else {}
        live[value.stable] = TOTAL - sum(live.values())
        return heir(goal, live, {backend: _usable_of(rows, backend) for backend in live})

    def stored_way_back(self, payload: t.Mapping[str, t.Any]) -> Change:
        try:
            value = MapValue.parse(str(payload['value']))
        except (KeyError, NotASplit) as exc:
            raise BadInput('The stored way back of %s on %s is not usable: %s.' % (self.service, self.name, exc)) from None
        value = value.without_lease()
        return Change(self.name, self.service, 'way_back', None, self._split(value), None, {'value': str(value)})

    def expected(self, observed: Observed, change: Change) -> Observed:
        value = MapValue.parse(change.payload['value'])
        if change.lease_s:
            value = replace(value, until_ms=int(change.lease_s * 1000))
        return replace(self.observed(str(value), 0.0, on_disk=str(value)), usable=observed.usable)

    def undo(self, observed: Observed, change: Change) -> Change:
        return Change(self.name, self.service, 'undo', change.after, observed.split or change.after, None,
                      {'raw': observed.token, 'value': change.payload['value']})

    def release(self, observed: Observed, rollout: str, force: bool) -> Change | None:
        value: MapValue | None = observed.state.value
        if value is None or observed.claim is None:
            return None
        check_claim(observed, rollout, force)
        if observed.lease_left_s is not None and observed.lease_left_s > 0:
            raise BadInput('%s on %s is still split (%s) under a lease: take it to 100 %% or back before you release it.' % (
                self.service, self.name, observed.split))
        freed = replace(value, until_ms=0, match=None, candidates=(), key='rand')
        freed = freed.noting(id=None, by=None, since=None, rev=str(value.rev + 1))
        return self._change('release', observed, freed)


def parsed(text: str | None) -> MapValue | None:
    try:
        return None if text is None else MapValue.parse(text)
    except NotASplit:
        return None


def _same(one: MapValue, other: MapValue) -> bool:
    """Whether two entries are the same split of the same owner, and differ by a renewal at most."""
    return one.without_lease() == other.without_lease() and bool(one.until_ms) == bool(other.until_ms)


def _is_own(row: StatRow, arm: Arm) -> bool:
    return row.kind == 'server' and row.pxname == arm.backend and not row.backup and (not arm.servers or row.svname in arm.servers)


def _usable_of(rows: t.Iterable[StatRow], backend: str) -> int:
    return sum(row.kind == 'server' and row.pxname == backend and not row.backup and row.usable for row in rows)
