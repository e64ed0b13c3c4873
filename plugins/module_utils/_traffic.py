# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the action plugin and the module ``traffic_weight`` share: the options, and the work."""

from __future__ import annotations

import getpass
import socket
import time
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.progressive.delivery.plugins.module_utils import _fleet
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration, parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import (
    BadInput, Conflict, DeliveryError, Expired, Refused, Unsupported)
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._lease import back_report, take_back
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import mark
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import build_sources
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token, clean_token
from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import (
    VERIFY_LEVELS, Change, Claim, Desired, Evidence, Observed, Router, describe, report)
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import ARMS_OPTION, ENDPOINTS_OPTION
from ansible_collections.progressive.delivery.plugins.module_utils._split import STICKY_MODES, TOTAL, Split, make_split, parse_share

TRAFFIC_SPEC: dict[str, t.Any] = {
    'service': {'type': 'str', 'required': True},
    'endpoints': ENDPOINTS_OPTION,
    'arms': ARMS_OPTION,
    'split': {'type': 'dict'},
    'stable': {'type': 'str'},
    'matches': {'type': 'list', 'elements': 'dict', 'options': {
        'header': {'type': 'str'}, 'cookie': {'type': 'str'}, 'value': {'type': 'str', 'required': True},
        'arm': {'type': 'str', 'required': True}}},
    'sticky': {'type': 'str', 'choices': list(STICKY_MODES), 'default': 'none'},
    'mirror': {'type': 'dict', 'options': {'arm': {'type': 'str', 'required': True}, 'share': {'type': 'raw', 'required': True}}},
    'lease': {'type': 'str'},
    'rollout': {'type': 'str'},
    'by': {'type': 'str'},
    'version': {'type': 'str'},
    'previous_version': {'type': 'str'},
    'force': {'type': 'bool', 'default': False},
    'state': {'type': 'str', 'choices': ['present', 'way_back', 'released'], 'default': 'present'},
    'verify': {'type': 'str', 'choices': list(VERIFY_LEVELS), 'default': 'L2'},
    'verify_timeout': {'type': 'str', 'default': '10s'},
    'journal': {'type': 'path'},
    'run_on': {'type': 'str', 'choices': ['control', 'target'], 'default': 'control'},
}

_LEASE_S = (1.0, 7 * 86400.0)


@dataclass(frozen=True)
class Clocks:
    """Where time comes from: *wall* seconds since 1970, *monotonic* seconds."""

    wall: t.Callable[[], float] = time.time
    monotonic: t.Callable[[], float] = time.monotonic


async def run(options: t.Mapping[str, t.Any], check_mode: bool, clocks: Clocks = Clocks()) -> dict[str, t.Any]:
    """Does what the options say and returns the task's result.

    Raises DeliveryError: nothing was changed then, or what was changed was put back (the sentence says where that failed).
    A way back that some endpoints did not take returns ``failed`` instead, because the others have taken it.
    """
    task = _Task(options, check_mode, clocks)
    started = clocks.monotonic()
    result = await {'present': task.present, 'way_back': task.way_back, 'released': task.released}[options['state']]()
    result['seconds'] = round(clocks.monotonic() - started, 4)
    if task.journal.error:
        result['warnings'] = [task.journal.error]
    return result


class _Task:
    """One run of the task. What it reads, plans and applies is kept by endpoint name."""

    def __init__(self, options: t.Mapping[str, t.Any], check_mode: bool, clocks: Clocks) -> None:
        self.options = options
        self.check_mode = check_mode
        self.clocks = clocks
        self.service = check_name('service', options['service'])
        self.routers = registry.build_all(options['endpoints'], self.service, options['arms'])
        self.router = {router.name: router for router in self.routers}
        self.by = check_token('user', options.get('by') or clean_token('%s@%s' % (_user(), socket.gethostname())))
        self.rollout = check_token('rollout', options.get('rollout') or clean_token('task:%s' % self.by))
        for name in ('version', 'previous_version'):
            if options.get(name):
                check_token(name.replace('_', ' '), options[name])
        self.journal = Journal(None if check_mode else options.get('journal'), self.rollout, clocks.wall)

    # ---- present

    async def present(self) -> dict[str, t.Any]:
        try:
            return await self._present()
        except Expired:
            # Between two stages nobody renews. A lease of our own that ended under this task is no reason to stop: what is there now is
            # where the stage begins.
            return await self._present()

    async def _present(self) -> dict[str, t.Any]:
        lease_s = self._lease_s()
        verify_s = parse_duration(self.options['verify_timeout'], 'verify_timeout')
        self._check_given()
        before = await self._read()
        desired = self._desired(before, lease_s)
        for router in self.routers:
            if self.options['verify'] == 'L3' and 'L3' not in router.capabilities().verify:
                raise Unsupported('%s cannot show the shares by its traffic (L3): nothing there counts requests; ask for L2, which is '
                                  'what it has at most.' % router.name)
        changes = self._plan(before, lambda router: router.plan(before[router.name], desired))
        expected = {name: self.router[name].expected(seen, changes[name]) if name in changes else seen for name, seen in before.items()}
        backs = {name: self.router[name].way_back(seen) for name, seen in expected.items()}
        payloads = {name: dict(change.payload) for name, change in backs.items() if change}
        evidence: dict[str, Evidence] = {}
        after, at, counters = expected, self.clocks.monotonic(), None
        if not self.check_mode and (changes or lease_s):
            if changes:
                self.journal.write('intent', strict=True, service=self.service, requested_bp=desired.split.shares,
                                   lease_s=lease_s, way_back=payloads)
                changes = await self._prepare(before, changes)
                # Not while routes are prepared: that may take seconds, of which the gate would say that they are the stage's.
                counters = await self._count()
                at = self.clocks.monotonic()
            after = await self._write(before, changes, lease_s)
            evidence = await self._verify(before, changes, after, verify_s)
        result = self._result(before, changes, after, desired.split)
        for name, seen in evidence.items():
            result['endpoints'][self._index(name)]['evidence'] = {'level': seen.level, 'text': seen.text, 'observed_bp': seen.observed_bp}
        if not self.check_mode:
            result['counters'] = counters or {}
            result['lease'] = self._lease(desired, lease_s or 0.0, at, after, payloads)
        return result

    def _check_given(self) -> None:
        if not self.options.get('split'):
            raise BadInput('The split of %s is missing: name each arm with its share, such as {canary: "5%%"}.' % self.service)

    def _lease_s(self) -> float | None:
        if self.options.get('lease') in (None, ''):
            return None
        seconds = parse_duration(self.options['lease'], 'lease')
        if not _LEASE_S[0] <= seconds <= _LEASE_S[1]:
            raise BadInput('The lease %s is outside %s to 7 days.' % (self.options['lease'], format_duration(_LEASE_S[0])))
        return seconds

    def _desired(self, before: t.Mapping[str, Observed], lease_s: float | None) -> Desired:
        split = make_split(self.options['split'], self._stable(before), self.options.get('matches') or (), self.options['sticky'],
                           list(self.options['arms']), self.options.get('mirror'))
        if split.partial and lease_s is None:
            raise BadInput('The split %s of %s needs a lease, such as "30s": a candidate has a share only while somebody watches it.' % (
                split, self.service))
        if not split.partial and lease_s is not None:
            raise BadInput('The split %s of %s is permanent and takes no lease: leave "lease" out.' % (split, self.service))
        claim = Claim(self.rollout, self.by, int(self.clocks.wall()))
        return Desired(split, claim, lease_s, bool(self.options.get('rollout')), self.options.get('version') or None,
                       self.options.get('previous_version') or None, self.options['force'], not self.check_mode)

    def _stable(self, before: t.Mapping[str, Observed]) -> str:
        if self.options.get('stable'):
            return self.options['stable']
        for arm, share in self.options['split'].items():
            if share == 'rest' or (share is not None and parse_share(share) == TOTAL):
                return arm
        found: dict[str, list[str]] = {}
        for name, seen in before.items():
            if seen.split is not None:
                found.setdefault(seen.split.stable, []).append(name)
        if len(found) == 1:
            return next(iter(found))
        if found:
            raise BadInput('The endpoints disagree on the stable arm of %s (%s): name it as "stable".' % (
                self.service, '; '.join('%s on %s' % (arm, ', '.join(names)) for arm, names in sorted(found.items()))))
        for problem in (problem for seen in before.values() for problem in seen.problems):
            raise BadInput(problem)
        raise BadInput('No endpoint says which arm of %s is stable: name it as "stable".' % self.service)

    async def _prepare(self, before: t.Mapping[str, Observed], changes: t.Mapping[str, Change]) -> dict[str, Change]:
        """Returns the changes, all ready to be applied; takes back what was prepared when one is not."""
        outcomes = await _fleet.each([self.router[name] for name in changes], lambda router: router.prepare(changes[router.name]),
                                     lambda router: router.setup_s)
        prepared, failed = _fleet.values(outcomes), _fleet.errors(outcomes)
        if failed:
            touched = {name: change for name, change in changes.items() if name in failed or prepared[name] is not change}
            await self._put_back(before, touched, failed, 'could not be prepared')
        return prepared

    async def _count(self) -> dict[str, t.Any] | None:
        """Returns what the routers have counted so far, for the gate that follows; None where that cannot be had."""
        try:
            # A ring is of no use to a single look.
            source = build_sources(self.service, self.options['arms'], [{**one, 'ring': None} for one in self.options['endpoints']], {})[0]
        except DeliveryError:
            return None
        return await mark.take(source)

    async def _write(self, before: t.Mapping[str, Observed], changes: t.Mapping[str, Change], lease_s: float | None) -> dict[str, Observed]:
        """Applies all changes, renews the leases of endpoints that have the split already; puts all back when one fails."""
        async def write(router: Router) -> Observed:
            if router.name in changes:
                applied = await router.apply(changes[router.name])
                return replace(applied.observed, usable=before[router.name].usable)
            if lease_s:
                left = await router.renew(router.renewable(before[router.name]), lease_s)
                return replace(before[router.name], lease_left_s=left)
            return before[router.name]

        outcomes = await _fleet.each(self.routers, write, lambda router: router.setup_s if lease_s else 0.0)
        failed = _fleet.errors(outcomes)
        if failed:
            await self._put_back(before, changes, failed, 'could not be written')
        for name, change in changes.items():
            self.journal.write('change', service=self.service, endpoint=name, before_bp=before[name].configured_bp,
                               after_bp=_fleet.values(outcomes)[name].configured_bp, lease_s=change.lease_s,
                               ms=round(outcomes[name].seconds * 1000, 2))
        return _fleet.values(outcomes)

    async def _verify(self, before: t.Mapping[str, Observed], changes: t.Mapping[str, Change], after: t.Mapping[str, Observed],
                      timeout_s: float) -> dict[str, Evidence]:
        level = self.options['verify']
        outcomes = await _fleet.each(
            self.routers, lambda router: router.verify(after[router.name], level, timeout_s), timeout_s if level != 'L0' else 0.0)
        failed = _fleet.errors(outcomes)
        seen = _fleet.values(outcomes)
        failed.update((name, Refused(evidence.text)) for name, evidence in seen.items() if not evidence.ok)
        if failed:
            await self._put_back(before, changes, failed, 'did not show the split')
        return seen

    async def _put_back(self, before: t.Mapping[str, Observed], changes: t.Mapping[str, Change], failed: t.Mapping[str, DeliveryError],
                        what: str) -> t.NoReturn:
        """Undoes what was written, everywhere but where it belongs to somebody else, and raises."""
        started = self.clocks.monotonic()
        mine = [self.router[name] for name in changes if not isinstance(failed.get(name), Conflict)]
        undone = await _fleet.each(mine, lambda router: router.apply(router.undo(before[router.name], changes[router.name])))
        stuck = _fleet.errors(undone)
        reason = '%s %s (%s)' % (', '.join(failed), what, ' | '.join(str(error) for error in failed.values()))
        self.journal.write('way_back', service=self.service, reason=reason, seconds=round(self.clocks.monotonic() - started, 4),
                           endpoints=[name for name in changes if name not in stuck], failed=sorted(stuck))
        if len(self.routers) == 1 and not stuck:
            raise next(iter(failed.values()))
        # Expired only where all of them are: it is tried again.
        worst = min(failed.values(), key=lambda error: isinstance(error, Expired))
        raise worst.__class__('%s: %s; %s.' % (
            self.service, reason, 'what was written was put back' if not stuck else
            'what was written was put back, but not on %s (%s): its lease, if any, does the rest' % (
                ', '.join(stuck), ' | '.join(str(error) for error in stuck.values()))))

    def _lease(self, desired: Desired, lease_s: float, at: float, after: t.Mapping[str, Observed],
               backs: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
        options = {router.name: raw for router, raw in zip(self.routers, self.options['endpoints'])}
        return {
            'service': self.service, 'rollout': self.rollout, 'by': self.by, 'ttl_s': lease_s, 'at': at, 'stable': desired.split.stable,
            'split': desired.split.shares, 'arms': self.options['arms'],
            'endpoints': [{'name': name, 'endpoint': _plain(options[name]), 'left_s': lease_s,
                           'token': dict(self.router[name].renewable(seen)), 'way_back': backs.get(name)} for name, seen in after.items()]}

    # ---- way_back

    async def way_back(self) -> dict[str, t.Any]:
        started = self.clocks.monotonic()
        taken = await take_back(self.routers, write=not self.check_mode, owner=self.options.get('rollout') or None)
        seconds = round(self.clocks.monotonic() - started, 4)
        result = back_report(self.service, taken)
        if result['changed'] or result.get('failed'):
            self.journal.write('way_back', service=self.service, reason='asked for by %s' % self.by, seconds=seconds,
                               endpoints=result['way_back'], text=result['msg'])
        return result

    # ---- released

    async def released(self) -> dict[str, t.Any]:
        if not self.options.get('rollout') and not self.options['force']:
            raise BadInput('Which rollout gives up %s is missing: name it as "rollout", or use force.' % self.service)
        before = await self._read()
        changes = self._plan(before, lambda router: router.release(before[router.name], self.rollout, self.options['force']))
        after = {name: self.router[name].expected(seen, changes[name]) if name in changes else seen for name, seen in before.items()}
        if changes and not self.check_mode:
            outcomes = await _fleet.each([self.router[name] for name in changes], lambda router: router.apply(changes[router.name]))
            _fleet.raise_errors(outcomes)
            after = {**before, **{name: applied.observed for name, applied in _fleet.values(outcomes).items()}}
            self.journal.write('released', service=self.service, endpoints=sorted(changes))
        return self._result(before, changes, after, None)

    # ---- what all share

    async def _read(self) -> dict[str, Observed]:
        async def read(router: Router) -> Observed:
            seen = await router.read()
            return replace(seen, problems=await router.lacking(seen) + seen.problems)

        outcomes = await _fleet.each(self.routers, read)
        _fleet.raise_errors(outcomes)
        return _fleet.values(outcomes)

    def _plan(self, before: t.Mapping[str, Observed], plan: t.Callable[[Router], Change | None]) -> dict[str, Change]:
        """Plans every endpoint before the first is written; all that stands in the way is named at once."""
        changes, problems = {}, []
        for name in before:
            try:
                change = plan(self.router[name])
                if change is not None:
                    changes[name] = change
            except DeliveryError as exc:
                problems.append(exc)
        if problems:
            raise type(problems[0])(' | '.join(dict.fromkeys(str(problem) for problem in problems)))
        return changes

    def _index(self, name: str) -> int:
        return [router.name for router in self.routers].index(name)

    def _result(self, before: t.Mapping[str, Observed], changes: t.Mapping[str, Change], after: t.Mapping[str, Observed],
                split: Split | None) -> dict[str, t.Any]:
        stables = {seen.split.stable for seen in after.values() if seen.split}
        result: dict[str, t.Any] = {
            'changed': bool(changes), 'requested': split.shares if split else {}, 'lease': {},
            'configured': {name: seen.configured_bp for name, seen in after.items()},
            'previous': {name: seen.configured_bp for name, seen in before.items()},
            'stable': stables.pop() if len(stables) == 1 else None,
            'claims': {name: {'rollout': seen.claim.rollout, 'by': seen.claim.by, 'since': seen.claim.since} if seen.claim else None
                       for name, seen in after.items()},
            'endpoints': [dict(report(after[router.name]), changed=router.name in changes) for router in self.routers]}
        if changes:
            result['diff'] = [{'prepared': ''.join(describe(change) + '\n' for change in changes.values())}]
        return result


def _plain(raw: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {key: value for key, value in raw.items() if value is not None}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return 'unknown'
