# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a watcher holds: the leases of a split, to be renewed while it watches, and the way back.

Built from the plain ``lease`` value that ``traffic_weight`` returns, so that a gate knows nothing of routers. The way back
reads what the routers have at that moment, because the healthy side is decided then; what was stored before the change is
used where the state cannot be read.
"""

from __future__ import annotations

import asyncio
import math
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils import _fleet
from ansible_collections.progressive.delivery.plugins.module_utils._errors import (
    BadInput, Conflict, DeliveryError, Expired, Refused, Unreachable)
from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Observed, Router
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, format_share

_AGAIN_S = 0.05
_Taken = t.Tuple[t.Optional[Observed], t.Optional[Observed], str]


@dataclass(frozen=True)
class RenewResult:
    """*left_s* is what the lease surely has. *conflict*: somebody else took the split over: stop, and do not take it back."""

    endpoint: str
    ok: bool
    error: str | None
    left_s: float
    conflict: bool


@dataclass(frozen=True)
class WayBackResult:
    """*to* is the arm that has all of the traffic now; *note* says why when that is not the one expected."""

    endpoint: str
    ok: bool
    error: str | None
    to: str | None
    changed: bool
    note: str
    before_bp: t.Mapping[str, int]
    seconds: float


async def take_back(routers: t.Sequence[Router], stored: t.Mapping[str, t.Mapping[str, t.Any]] | None = None,
                    write: bool = True, owner: str | None = None) -> list[WayBackResult]:
    """Takes every endpoint back, all at once; without *write* it only says what would be. Never raises DeliveryError.

    With *owner* only what that rollout still holds: where somebody else has decided since (a rollback by hand, a promotion, another
    rollout), that decision stands. Without it, whatever there is. *stored* has the payloads of ways back that were computed
    earlier, by endpoint. One that cannot be reached is asked once more while its deadline lasts; it costs nobody else anything.
    """
    stored = stored or {}

    async def attempt(router: Router) -> _Taken:
        observed, failure = None, None
        try:
            observed = await router.read()
        except Unreachable:
            raise
        except DeliveryError as exc:
            failure = exc
        if observed is not None and owner and observed.split is not None and (observed.claim is None or observed.claim.rollout != owner):
            return observed, None, ''
        if observed is not None and (observed.split is not None or observed.token is None):
            change = router.way_back(observed)
        elif router.name in stored:
            change = router.stored_way_back(stored[router.name])
        else:
            raise failure or Refused('What %s has for the service is not a split ("%s") and cannot be taken back: set one with force.' % (
                router.name, str(observed.token)[:80] if observed else ''))
        if change is None or (observed is not None and not write):
            return observed, router.expected(observed, change) if change and observed else None, ''
        return observed, (await router.apply(change)).observed, change.note

    async def back(router: Router) -> _Taken:
        try:
            return await attempt(router)
        except Unreachable:
            await asyncio.sleep(_AGAIN_S)
            return await attempt(router)

    outcomes = await _fleet.each(routers, back)
    return [_result(outcomes[router.name]) for router in routers]


def _result(outcome: _fleet.Outcome[_Taken]) -> WayBackResult:
    before, after, note = outcome.value or (None, None, '')
    now = after or before
    effective = now.effective if now else None
    return WayBackResult(
        outcome.endpoint, outcome.error is None, str(outcome.error) if outcome.error else None,
        effective.stable if effective and not effective.partial else None, after is not None,
        note or ('' if effective is None or not effective.partial else '%s has it now (%s) and was left alone' % (
            '%s by %s' % (now.claim.rollout, now.claim.by) if now and now.claim else 'somebody', effective)),
        before.configured_bp if before else {}, outcome.seconds)


def back_report(service: str, taken: t.Sequence[WayBackResult]) -> dict[str, t.Any]:
    """Returns the result of a task that took *service* back; it has ``failed`` when one endpoint did not follow."""
    changed, lost = [one for one in taken if one.changed], [one for one in taken if not one.ok]
    configured = {one.endpoint: {one.to: TOTAL} if one.to else {} for one in taken if one.ok}
    goals = sorted({one.to for one in taken if one.to})
    left = dict.fromkeys(arm for one in changed for arm, bp in one.before_bp.items() if bp and arm not in goals)
    result: dict[str, t.Any] = {
        'changed': bool(changed), 'requested': {}, 'configured': configured, 'stable': goals[0] if len(goals) == 1 else None,
        'previous': {one.endpoint: dict(one.before_bp) for one in taken}, 'lease': {}, 'claims': dict.fromkeys(configured),
        'left': list(left), 'way_back': [_row(one) for one in taken],
        'endpoints': [{'name': one.endpoint, 'changed': one.changed, 'configured_bp': configured.get(one.endpoint, {}),
                       'error': one.error} for one in taken]}
    groups: dict[str, list[str]] = {}
    for one in taken:
        if one.ok:
            where = 'The traffic of %s' % service
            if one.to or not one.note:
                where = 'All traffic of %s is on %s' % (service, one.to or 'what the configuration says')
            note = ': ' + one.note if one.note else '' if one.changed else ', as it was'
            groups.setdefault(where + note, []).append(one.endpoint)
    told = ['%s (%s).' % (text, ', '.join(names)) for text, names in groups.items()]
    if lost:
        told += [
            '%s did not follow: %s Its lease, if it has one, does the rest; run this again.' % (one.endpoint, one.error) for one in lost]
        result['failed'] = True
    result['msg'] = ' '.join(told)
    if changed:
        result['diff'] = [{'prepared': ''.join('%s on %s: %s -> all to %s\n' % (
            service, one.endpoint,
            ', '.join('%s %s' % (arm, format_share(bp)) for arm, bp in one.before_bp.items()) or 'nothing known', one.to)
            for one in changed)}]
    return result


def _row(one: WayBackResult) -> dict[str, t.Any]:
    return {'endpoint': one.endpoint, 'ok': one.ok, 'to': one.to, 'changed': one.changed, 'error': one.error, 'note': one.note,
            'seconds': round(one.seconds, 4)}


class Held:
    """The leases of one split at all its endpoints; ``ttl_s`` is 0 when it is permanent, and there is but a way back. *clock* is
    monotonic seconds."""

    def __init__(self, value: t.Mapping[str, t.Any], clock: t.Callable[[], float] = time.monotonic) -> None:
        try:
            self.service: str = value['service']
            self.rollout: str = value['rollout']
            self.ttl_s = float(value['ttl_s'])
            entries = list(value['endpoints'])
            self._tokens = {entry['name']: entry['token'] for entry in entries}
            self._stored = {entry['name']: entry['way_back'] for entry in entries if entry.get('way_back')}
            self._ends = {entry['name']: float(value['at']) + float(entry['left_s']) for entry in entries}
            self.routers = registry.build_all([entry['endpoint'] for entry in entries], self.service, value['arms'])
        except (KeyError, TypeError, ValueError) as exc:
            raise BadInput('The lease %r is not one that traffic_weight returned: %r.' % (value, exc)) from None
        self._clock = clock

    def left(self) -> float:
        """Returns the seconds that the shortest lease surely still has; infinity for a permanent split."""
        if not self.ttl_s:
            return math.inf
        return min(self._ends.values()) - self._clock()

    async def renew(self) -> list[RenewResult]:
        """Makes every lease run its full time from now; a permanent split has none. Never raises DeliveryError."""
        if not self.ttl_s:
            return []
        start = self._clock()
        outcomes = await _fleet.each(self.routers, lambda router: router.renew(self._tokens[router.name], self.ttl_s))
        results = []
        for router in self.routers:
            outcome = outcomes[router.name]
            if outcome.error is None:
                self._ends[router.name] = start + t.cast(float, outcome.value)
            elif isinstance(outcome.error, Expired):
                self._ends[router.name] = start
            results.append(RenewResult(
                router.name, outcome.error is None, str(outcome.error) if outcome.error else None,
                self._ends[router.name] - self._clock(), isinstance(outcome.error, Conflict)))
        return results

    async def way_back(self, reason: str) -> list[WayBackResult]:
        """Takes all endpoints back at once. *reason* is for whoever records it; nothing is asked of anything but the routers."""
        return await take_back(self.routers, self._stored, owner=self.rollout)


def held(value: t.Mapping[str, t.Any], clock: t.Callable[[], float] = time.monotonic) -> Held:
    """Returns what a watcher holds, from the ``lease`` value of ``traffic_weight``. Raises BadInput."""
    return Held(value, clock)
