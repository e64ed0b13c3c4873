# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What to write into the objects of a route, and why: the decisions of every router of Kubernetes. Pure.

The kind's codec says what the objects mean and what they shall be; here is what is the same for all kinds: owner and versions in
the record, the way back, and the form in which changes are stored.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import (
    Obj, Ops, annotated, annotation, content, diff, robust, token)
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import (
    Arm, Change, Claim, Desired, Observed, check_arms_known, check_claim, check_no_mirror)
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import Codec, Decoded, Objects
from ansible_collections.progressive.delivery.plugins.module_utils._routers.record import Record, heir, public, recorded, released, way_to
from ansible_collections.progressive.delivery.plugins.module_utils._routers.weights_fit import to_bp
from ansible_collections.progressive.delivery.plugins.module_utils._split import Match, Mirror, Split, all_to

RECORD = 'progressive.delivery/%s'
"""Name of the annotation that holds the record of a service's split: JSON text."""


@dataclass(frozen=True)
class Facts:
    """What was read besides the objects."""

    usable: t.Mapping[str, int] = field(default_factory=dict)
    """Arms whose instances could not be counted are not in it."""
    missing: t.Mapping[str, str] = field(default_factory=dict)
    """Arm to a sentence on what of it is not there: its Service, its port."""
    lease_left_s: float | None = None
    now_s: float = 0.0
    """The API server's clock."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class KubeState:
    """What was read."""

    objects: Objects
    record: Record
    decoded: Decoded
    facts: Facts


@dataclass(frozen=True)
class Write:
    """One object that changes. *old* is None for one to be created, *new* for one to be deleted."""

    key: str
    old: Obj | None
    new: Obj | None


class KubePlan:
    """Decides for one service at one endpoint."""

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm], codec: Codec) -> None:
        self.name = endpoint.name
        self.service = service
        self.arms = arms
        self.codec = codec
        self.can = codec.capabilities()
        self.annotation = RECORD % service

    # ---- what there is

    def observed(self, objects: Objects, facts: Facts) -> Observed:
        record = self.record(objects)
        seen = self.codec.decode(objects)
        shares = to_bp({arm: weight for arm, weight in seen.weights.items() if weight > 0})
        stable = self._stable(seen, record, shares)
        split = None
        if stable is not None and shares:
            split = Split(tuple((arm, shares[arm]) for arm in self.arms if arm in shares and arm != stable)
                          + ((stable, shares.get(stable, 0)),), seen.matches, seen.sticky, seen.mirror)
        left = facts.lease_left_s
        if self.can.native_lease:
            left = record['until'] - facts.now_s if record.get('until') else None
        claim = Claim(record['rollout'], record.get('by', 'unknown'), int(record.get('since', 0))) if record.get('rollout') else None
        return Observed(
            self.name, self.service, split, token(objects), lease_left_s=left, self_ending=self.can.native_lease, claim=claim,
            version=record.get('version'), previous=record.get('previous'), previous_version=record.get('previous_version'),
            unknown=seen.unknown, usable=dict(facts.usable), problems=seen.problems + facts.problems, notes=seen.notes + facts.notes,
            achieved_bp=shares if split else None, state=KubeState(objects, record, seen, facts))

    def _stable(self, seen: Decoded, record: Record, shares: t.Mapping[str, int]) -> str | None:
        if seen.stable in self.arms:
            return seen.stable
        # A route that was given to an arm by hand has that arm, whatever the record says.
        if record.get('stable') in self.arms and (record['stable'] in shares or self._leased(record)):
            return record['stable']
        return max(shares, key=lambda arm: shares[arm]) if shares else None

    @staticmethod
    def _leased(record: Record) -> bool:
        return bool(record.get('ttl') or record.get('until'))

    def record(self, objects: Objects) -> Record:
        """Returns the record that the objects carry; of one that cannot be read, nothing."""
        try:
            record = json.loads(annotation(objects[self.codec.home], self.annotation) or '{}')
            return record if isinstance(record, dict) and isinstance(record.get('rev', 0), int) else {}
        except ValueError:
            return {}

    # ---- planning

    def plan(self, observed: Observed, desired: Desired) -> Change | None:
        split, state = desired.split, t.cast(KubeState, observed.state)
        self._check(observed, desired)
        record = self._recorded(observed, desired)
        until = state.record.get('until') if desired.lease_s else None
        writes = self.writes(state.objects, split, None, until)
        after = self._shown(state.objects, writes)
        lease_is_right = self._leased(state.record) == bool(desired.lease_s) and (
            observed.lease_left_s is None if desired.lease_s is None else (observed.lease_left_s or 0) > 0)
        if not writes and lease_is_right and public(record) == public(state.record):
            return None
        after_bp = to_bp({arm: weight for arm, weight in self.codec.decode(after).weights.items() if weight > 0})
        return Change(self.name, self.service, 'split', observed.effective, split, observed.token,
                      {'split': plain(split), 'record': dict(record, rev=state.record.get('rev', 0) + 1)}, desired.lease_s, after_bp)

    def _check(self, observed: Observed, desired: Desired) -> None:
        split, state = desired.split, t.cast(KubeState, observed.state)
        check_arms_known(self.service, self.arms, split)
        if split.partial and not desired.lease_s:
            raise BadInput('The split %s of %s needs a lease: a candidate has a share only while somebody watches it.' % (
                split, self.service))
        if len(split.candidates) + 1 > self.can.arms:
            raise Unsupported('%s can share the traffic between %d arms at most, and the split %s has %d.' % (
                self.name, self.can.arms, split, len(split.candidates) + 1))
        for match in split.matches:
            if not any(kind == match.kind and name in ('*', match.name) and value in ('*', match.value)
                       for kind, name, value in self.can.matches):
                raise Unsupported('%s cannot send requests with the %s %s=%s to an arm: its kind of route knows no such condition.' % (
                    self.name, match.kind, match.name, match.value))
        if split.sticky not in self.can.sticky:
            raise Unsupported('%s cannot keep users on their arm (sticky: %s): its kind of route only draws at random.' % (
                self.name, split.sticky))
        if not self.can.mirror:
            check_no_mirror(split, self.name)
        for problem in observed.problems:
            raise Unsupported(problem)
        check_claim(observed, desired.claim.rollout, desired.force)
        if observed.unknown and not desired.force:
            raise Conflict('%s on %s also goes to %s, which belongs to none of its arms: name it in "arms", or overwrite with force.' % (
                self.service, self.name, ', '.join(observed.unknown)))
        for name in split.used:
            # A prediction is made before the arms are deployed, their Services with them.
            if desired.ready and name in state.facts.missing:
                raise Unsupported(state.facts.missing[name])
            if desired.ready and not observed.usable.get(name):
                raise Unsupported('The arm "%s" has no ready endpoint (%s, %s): bring one up before it gets traffic.' % (
                    name, self.arms[name].backend, self.name))

    def writes(self, objects: Objects, split: Split, record: Record | None = None, deadline_s: float | None = None,
               forward: bool = True) -> list[Write]:
        """Returns what is to be written so that the objects have *split* and, unless it is None, *record*; in that order.

        The record goes first forwards, so that who sees a share sees its owner, and last backwards.
        """
        seen = self.codec.decode(objects)
        shares = to_bp({arm: weight for arm, weight in seen.weights.items() if weight > 0})
        has = {arm: bp for arm, bp in split.arms if bp}
        matches, wanted = ({match.condition + (match.arm,) for match in one.matches} for one in (seen, split))
        same = seen.uniform and not seen.unknown and shares == has and seen.sticky == split.sticky and matches == wanted and (
            seen.mirror == split.mirror)
        goal: dict[str, Obj | None] = {}
        if not same or deadline_s is not None:
            goal = dict(self.codec.encode(objects, split, deadline_s if self.can.native_lease else None))
        if record is not None:
            home = annotated(t.cast(Obj, goal.get(self.codec.home) or objects[self.codec.home]), self.annotation, dumped(record))
            if self.codec.home in goal or not forward:
                goal[self.codec.home] = home
            else:
                goal = {self.codec.home: home, **goal}
        return [Write(key, objects[key], new) for key, new in goal.items() if content(objects[key]) != content(new)]

    @staticmethod
    def _shown(objects: Objects, writes: t.Iterable[Write]) -> Objects:
        return {**objects, **{write.key: write.new for write in writes}}

    @staticmethod
    def _recorded(observed: Observed, desired: Desired) -> Record:
        """The record, with the lease that it speaks of."""
        new = recorded(t.cast(KubeState, observed.state).record, observed, desired)
        return {**new, 'ttl': desired.lease_s} if desired.lease_s else new

    # ---- the way back

    def way_back(self, observed: Observed) -> Change | None:
        split, state = observed.split, t.cast(KubeState, observed.state)
        if split is None:
            return None
        mixed = bool(state.record) and not state.decoded.uniform
        way = way_to(state.record, observed, self.arms, split.partial or mixed)
        if way is None:
            return None
        (goal, version), note = way, ''
        # An arm that could not be counted is taken to be healthy: the way back needs the route and nothing else.
        other = heir(goal, (observed.effective or split).shares, observed.usable) if observed.usable.get(goal) == 0 else None
        if other:
            note = 'no endpoint of "%s" is ready on %s, so all traffic goes to "%s", which has %d' % (
                goal, self.name, other, observed.usable[other])
            goal, version = other, version if other == split.stable else None
        return self._back_to(goal, version, observed, note)

    def _back_to(self, goal: str, version: str | None, observed: Observed, note: str = '') -> Change:
        state = t.cast(KubeState, observed.state)
        record: Record = {'stable': goal, 'rev': state.record.get('rev', 0) + 1}
        record.update({'version': version} if version else {})
        return Change(self.name, self.service, 'way_back', observed.effective, all_to(goal), observed.token, {
            'split': plain(all_to(goal)), 'record': record, 'holder': state.record.get('rollout'),
            'requests': self.requests([state.objects], self._shown(
                state.objects, self.writes(state.objects, all_to(goal), record, forward=False)))}, note=note)

    def stored_way_back(self, payload: t.Mapping[str, t.Any]) -> Change:
        try:
            split = parsed(payload['split'])
            return Change(self.name, self.service, 'way_back', None, split, None, {
                'split': payload['split'], 'record': payload['record'], 'requests': payload['requests'], 'holder': payload.get('holder')})
        except (KeyError, TypeError, ValueError) as exc:
            raise BadInput('The stored way back of %s on %s is not usable: %r.' % (self.service, self.name, exc)) from None

    def requests(self, states: t.Sequence[Objects], goal: Objects) -> list[dict[str, t.Any]]:
        """Returns plain HTTP requests that make *goal* of any of *states*; they test names only, and can be sent twice."""
        found = []
        wanted = self.codec.refs()
        # What receives traffic is taken away first: an object that goes.
        for key in sorted(goal, key=lambda key: goal[key] is not None):
            ref, new, old = wanted[key].ref, goal[key], [state[key] for state in states]
            if new is None:
                if any(obj is not None for obj in old):
                    found.append({'method': 'DELETE', 'path': ref.path, 'content_type': 'application/json', 'body': {
                        'apiVersion': 'v1', 'kind': 'DeleteOptions', 'propagationPolicy': 'Background'}})
            elif any(obj is None for obj in old):
                found.append({'method': 'POST', 'path': ref.collection, 'content_type': 'application/json', 'body': content(new)})
            else:
                ops: Ops = robust([content(obj) for obj in old], content(new))
                if ops:
                    found.append({'method': 'PATCH', 'path': ref.path, 'content_type': 'application/json-patch+json', 'body': ops})
        return found

    def deadman_requests(self, objects: Objects, change: Change) -> list[dict[str, t.Any]]:
        """Returns the way back that is right before and after *change* was made to *objects*, for who holds the lease.

        Its record says that a lease ended it, and whose.
        """
        after = self._shown(objects, self.writes(objects, parsed(change.payload['split']), change.payload['record']))
        back = self.way_back(self.observed(after, Facts(lease_left_s=change.lease_s)))
        if back is None:
            return []
        record = dict(back.payload['record'], ended='lease', ended_of=change.payload['record'].get('rollout'))
        return self.requests([objects, after], self._shown(after, self.writes(after, back.after, record, forward=False)))

    def expected(self, observed: Observed, change: Change) -> Observed:
        state = t.cast(KubeState, observed.state)
        record = dict(change.payload['record'])
        if change.lease_s and self.can.native_lease:
            record['until'] = state.facts.now_s + change.lease_s
        objects = self._shown(state.objects, self.writes(state.objects, parsed(change.payload['split']), record))
        facts = replace(state.facts, lease_left_s=change.lease_s)
        return self.observed(objects, facts)

    def undo(self, observed: Observed, change: Change) -> Change:
        state = t.cast(KubeState, observed.state)
        return Change(self.name, self.service, 'undo', change.after, observed.split or change.after, None, {
            'rev': change.payload['record']['rev'],
            'objects': {key: content(obj) for key, obj in state.objects.items()}})

    def release(self, observed: Observed, rollout: str, force: bool) -> Change | None:
        if observed.claim is None or observed.split is None:
            return None
        check_claim(observed, rollout, force)
        if observed.split.partial:
            raise BadInput('%s on %s is still split (%s) under a lease: take it to 100 %% or back before you release it.' % (
                self.service, self.name, observed.split))
        record = released(t.cast(KubeState, observed.state).record)
        return Change(self.name, self.service, 'release', observed.effective, all_to(observed.split.stable), observed.token, {
            'split': plain(all_to(observed.split.stable)), 'record': record})


def dumped(record: Record) -> str:
    return json.dumps(record, sort_keys=True, separators=(',', ':'))


def plain(split: Split) -> dict[str, t.Any]:
    """Returns a split as plain data that can be stored."""
    return {'arms': [list(pair) for pair in split.arms], 'sticky': split.sticky,
            'matches': [[match.kind, match.name, match.value, match.arm] for match in split.matches],
            'mirror': [split.mirror.arm, split.mirror.bp] if split.mirror else None}


def parsed(raw: t.Mapping[str, t.Any]) -> Split:
    """Returns the split of ``plain``. Raises KeyError, TypeError or ValueError."""
    return Split(tuple((str(arm), int(bp)) for arm, bp in raw['arms']), tuple(Match(*match) for match in raw['matches']), raw['sticky'],
                 Mirror(*raw['mirror']) if raw.get('mirror') else None)


def changes(write: Write) -> Ops:
    """Returns the JSON patch of a write of an object that stays. It tests nothing: the resourceVersion is tested with it."""
    return diff(content(write.old), content(write.new))
