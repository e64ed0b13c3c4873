# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The router protocol and its values: what a data plane can do, has, shall get and got.

A router is built for one endpoint and one service; it knows nothing of stages. What talks to sockets is a coroutine; what
decides (``plan``, ``way_back``) is pure, so that check mode, diff and idempotence all come from the same code.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._journal import iso
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Split, format_share

VERIFY_LEVELS = ('L0', 'L1', 'L2', 'L3')
"""Stored; accepted by the controller; in force in the data plane; shown by traffic."""


@dataclass(frozen=True)
class Arm:
    """Where an arm's instances are: a backend, or some servers of one; in a cluster the Service of that name."""

    name: str
    backend: str
    servers: tuple[str, ...] = ()
    ref: t.Mapping[str, t.Any] = field(default_factory=dict)
    """What else the user wrote of it (port, subset, labels), checked by the router that needs it."""


@dataclass(frozen=True)
class Capabilities:
    """What a router can represent at one endpoint."""

    arms: int
    """How many arms can share the traffic, the stable one included."""
    unit: str
    """The finest share, as a person reads it."""
    matches: tuple[tuple[str, str, str], ...]
    """Conditions (kind, name, value) that can lead to an arm; '*' is any."""
    sticky: tuple[str, ...]
    verify: tuple[str, ...]
    native_lease: bool
    """Whether the data plane itself ends a split whose lease runs out; else a watchdog process of this host does."""
    mirror: str = ''
    """The finest share of the requests that can be copied to an arm, as a person reads it; nothing where none can."""


@dataclass(frozen=True)
class Claim:
    """Who owns a split. *since* is in seconds since 1970."""

    rollout: str
    by: str
    since: int


@dataclass(frozen=True)
class Desired:
    """What a task asks for, and who asks. *lease_s* is None for a permanent split."""

    split: Split
    claim: Claim
    lease_s: float | None = None
    keep_claim: bool = True
    """Whether a permanent split stays claimed until it is released; one under a lease always is claimed."""
    version: str | None = None
    previous_version: str | None = None
    force: bool = False
    ready: bool = True
    """Whether the arms must have usable servers now. A prediction is made before they are started."""


@dataclass(frozen=True)
class Observed:
    """What an endpoint has now."""

    endpoint: str
    service: str
    split: Split | None
    """The split that is stored, whether its lease lives or not; None when there is none that can be read."""
    token: str | None
    """The stored state as it is, for optimistic concurrency; None when there is none."""
    lease_left_s: float | None = None
    """None: permanent. Not above 0: expired."""
    self_ending: bool = True
    """Whether the data plane itself gives all traffic to stable when the lease has run out; else *split* is what it has."""
    claim: Claim | None = None
    version: str | None = None
    previous: str | None = None
    """The arm that was stable before the last promotion."""
    previous_version: str | None = None
    unknown: tuple[str, ...] = ()
    """Backends that take part and belong to no arm of the service."""
    usable: t.Mapping[str, int] = field(default_factory=dict)
    """Per arm, how many of its own servers can take a request."""
    problems: tuple[str, ...] = ()
    """Sentences on why nothing could be written here."""
    notes: tuple[str, ...] = ()
    """Sentences that a person should read."""
    achieved_bp: t.Mapping[str, int] | None = None
    """The shares that are configured, where the router cannot express the split exactly."""
    state: t.Any = None
    """The router's own."""

    @property
    def live(self) -> bool:
        """Whether the stored split is in force."""
        return self.split is not None and (self.lease_left_s is None or self.lease_left_s > 0 or not self.self_ending)

    @property
    def effective(self) -> Split | None:
        """What requests get now: the stored split, or all to stable once its lease has run out."""
        if self.split is None or self.live:
            return self.split
        return Split(((self.split.stable, TOTAL),))

    @property
    def owned(self) -> bool:
        """Whether the claim still counts: one whose lease has run out may be taken over."""
        return self.claim is not None and (self.lease_left_s is None or self.lease_left_s > 0)

    @property
    def configured_bp(self) -> dict[str, int]:
        """Basis points of each arm that has any, the lease considered."""
        if self.achieved_bp is not None and self.live:
            return dict(self.achieved_bp)
        return {} if self.effective is None else {arm: bp for arm, bp in self.effective.arms if bp}


@dataclass(frozen=True)
class Change:
    """One write. *payload* is the router's own, plain data that can be stored and applied later, by another process."""

    endpoint: str
    service: str
    kind: str
    """``split``, ``way_back``, ``release`` or ``undo``. Only the first and ``release`` respect *token* and owner."""
    before: Split | None
    after: Split
    token: str | None
    payload: t.Mapping[str, t.Any]
    lease_s: float | None = None
    after_bp: t.Mapping[str, int] | None = None
    """Shares that will be configured, where they are not exactly those of *after*."""
    note: str = ''
    """A sentence on a decision that was taken, for the report."""


@dataclass(frozen=True)
class Applied:
    """A change that was carried out, and what was read back."""

    change: Change
    observed: Observed


@dataclass(frozen=True)
class Evidence:
    """How far a change was seen to be in force."""

    level: str
    ok: bool
    text: str
    observed_bp: t.Mapping[str, int] | None = None


class Router(t.Protocol):
    """One data plane endpoint for one service. All coroutines raise DeliveryError."""

    name: str
    deadline: float
    setup_s: float
    """Seconds that the first leased split may take besides, while what keeps its lease comes up."""

    def capabilities(self) -> Capabilities:
        """What can be represented here."""

    async def read(self) -> Observed:
        """Returns what the endpoint has now."""

    async def lacking(self, observed: Observed) -> tuple[str, ...]:
        """Returns sentences on permissions that a change needs and that are not there. A way back asks for none: it tries."""

    def plan(self, observed: Observed, desired: Desired) -> Change | None:
        """Returns the write that leads to *desired*, None when it is there already. Pure.

        Raises Unsupported, BadInput or Conflict for everything that would stand in the way of the write.
        """

    async def prepare(self, change: Change) -> Change:
        """Does what takes time before a split is written and moves no traffic; returns the change to apply.

        Every endpoint is prepared before the first is written: the lease of a fast one must not run out while a slow one begins.
        """

    async def apply(self, change: Change) -> Applied:
        """Writes and reads back. Raises Conflict when the state is not the one the change was planned on."""

    async def verify(self, observed: Observed, level: str, timeout_s: float) -> Evidence:
        """Returns how far what was read back is in force, up to *level*."""

    def way_back(self, observed: Observed) -> Change | None:
        """Returns the write that takes candidates out, or undoes a promotion; None when there is nothing to take back. Pure.

        The healthy side is chosen from what *observed* says now (law 8).
        """

    def stored_way_back(self, payload: t.Mapping[str, t.Any]) -> Change:
        """Returns a way back that was stored earlier, for when the state cannot be read any more."""

    def expected(self, observed: Observed, change: Change) -> Observed:
        """Returns what ``read`` will say after *change*: for check mode, and for the way back that is stored before it. Pure."""

    def undo(self, observed: Observed, change: Change) -> Change:
        """Returns the write that puts back what *observed* says was there before *change*, if *change* is still in force. Pure."""

    def release(self, observed: Observed, rollout: str, force: bool) -> Change | None:
        """Returns the write that keeps the split and gives up the claim. Pure. Raises Conflict, or BadInput for a leased split."""

    def renewable(self, observed: Observed) -> t.Mapping[str, t.Any]:
        """Returns what ``renew`` needs: plain data that identifies the split and its owner."""

    async def renew(self, token: t.Mapping[str, t.Any], lease_s: float) -> float:
        """Makes the lease of the split identified by *token* run *lease_s* from now; returns the seconds it has.

        Raises Conflict when the split is not that one any more, Expired when its lease had run out.
        """


def describe(change: Change) -> str:
    """Returns ``'shop on lb1: canary 0 % -> 5 %, blue 100 % -> 95 %'``."""
    before = change.before.shares if change.before else {}
    after = dict(change.after_bp) if change.after_bp is not None else change.after.shares
    names = [name for name, _bp in change.after.arms] + [name for name in before if name not in change.after.shares]
    moves = ['%s %s -> %s' % (name, format_share(before.get(name, 0)) if change.before else '?', format_share(after.get(name, 0)))
             for name in names if before.get(name, 0) != after.get(name, 0) or not change.before]
    matches = {m.condition: m.arm for m in change.before.matches} if change.before else {}
    for match in change.after.matches:
        if matches.pop(match.condition, None) != match.arm:
            moves.append('%s %s=%s -> %s' % (match.kind, match.name, match.value, match.arm))
    moves += ['%s %s=%s no longer -> %s' % (condition + (arm,)) for condition, arm in matches.items()]
    copies = [{one.mirror.arm: one.mirror.bp} if one and one.mirror else {} for one in (change.before, change.after)]
    moves += ['copies to %s %s -> %s' % (arm, *(format_share(one.get(arm, 0)) for one in copies))
              for arm in dict.fromkeys([*copies[0], *copies[1]]) if copies[0].get(arm) != copies[1].get(arm)]
    unmoved = 'claim released' if change.kind == 'release' else 'shares unchanged'
    return '%s on %s: %s' % (change.service, change.endpoint, ', '.join(moves) or unmoved)


def report(observed: Observed) -> dict[str, t.Any]:
    """Returns what an endpoint has, as plain data for a task's result."""
    effective, claim = observed.effective, observed.claim
    return {
        'name': observed.endpoint, 'stable': effective.stable if effective else None, 'version': observed.version,
        'previous': observed.previous, 'previous_version': observed.previous_version,
        'candidates': dict(effective.candidates) if effective else {}, 'configured_bp': observed.configured_bp,
        'sticky': effective.sticky if effective else 'none',
        'matches': [{match.kind: match.name, 'value': match.value, 'arm': match.arm} for match in effective.matches] if effective else [],
        'mirror': {'arm': effective.mirror.arm, 'share_bp': effective.mirror.bp} if effective and effective.mirror else {},
        'lease_left_s': None if observed.lease_left_s is None else round(observed.lease_left_s, 3),
        'rollout': claim.rollout if claim else None, 'by': claim.by if claim else None, 'since': claim.since if claim else None,
        'usable': dict(observed.usable), 'unknown': list(observed.unknown), 'notes': list(observed.notes + observed.problems)}


def check_claim(observed: Observed, rollout: str | None, force: bool) -> None:
    """Raises Conflict when another rollout than *rollout* owns the split, and says who since when."""
    claim = observed.claim
    if claim is None or not observed.owned or force or claim.rollout == rollout:
        return
    lease = '' if observed.lease_left_s is None else ', lease %s left' % format_duration(observed.lease_left_s)
    raise Conflict('%s on %s is being rolled out by %s (%s since %s)%s: wait, or take over with force.' % (
        observed.service, observed.endpoint, claim.rollout, claim.by, iso(claim.since), lease))


def check_no_mirror(split: Split, endpoint: str) -> None:
    """Raises Unsupported when *split* wants copies of requests, for a router that makes none."""
    if split.mirror:
        raise Unsupported('%s cannot copy requests to an arm (%s): its kind of router has no mirror; leave "mirror" out.' % (
            endpoint, split.mirror))


def check_arms_known(service: str, arms: t.Mapping[str, Arm], split: Split) -> None:
    """Raises BadInput for an arm of *split* that the service does not have."""
    for name in dict.fromkeys([name for name, _bp in split.arms] + list(split.used)):
        if name not in arms:
            raise BadInput('The arm "%s" is not one of %s: its arms are %s.' % (name, service, ', '.join(sorted(arms))))
