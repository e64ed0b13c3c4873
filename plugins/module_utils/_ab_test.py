# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the action plugin ``ab_test`` does: an A/B test from run to run.

No process lives as long as the test. Everything that a later run needs is in the test's journal: the design, the marks of the routers'
counters, the evidence. What traffic does is read from the routers each time, and never taken from the journal.
"""

from __future__ import annotations

import secrets
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils import _ab_text as text
from ansible_collections.progressive.delivery.plugins.module_utils import _fleet
from ansible_collections.progressive.delivery.plugins.module_utils._ab_counts import Look, look
from ansible_collections.progressive.delivery.plugins.module_utils._ab_design import DESIGN_OPTIONS, Design, read_design
from ansible_collections.progressive.delivery.plugins.module_utils._ab_judge import Judged, first_state, judge
from ansible_collections.progressive.delivery.plugins.module_utils._ab_record import AbRecord, Test
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import experiment as e
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration, parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._journal import iso
from ansible_collections.progressive.delivery.plugins.module_utils._lease import back_report, take_back
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token, clean_token
from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Claim, Desired, Observed
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import ARMS_OPTION, ENDPOINTS_OPTION
from ansible_collections.progressive.delivery.plugins.module_utils._split import make_split

STATES = ('opened', 'started', 'analysed', 'decided', 'concluded', 'status')
OUTCOMES = ('winner', 'control', 'stopped', 'harmful', 'failed')

AB_SPEC: dict[str, t.Any] = {
    'state': {'type': 'str', 'required': True, 'choices': list(STATES)},
    'service': {'type': 'str', 'required': True},
    'endpoints': ENDPOINTS_OPTION,
    'arms': ARMS_OPTION,
    'sources': {'type': 'dict', 'default': {}},
    'state_dir': {'type': 'path', 'required': True},
    'by': {'type': 'str', 'default': 'unknown'},
    'test_arms': {'type': 'dict', 'default': {}},
    'control': {'type': 'str', 'default': 'control'},
    'duration': {'type': 'raw', 'default': '7d'},
    'grace': {'type': 'raw', 'default': '1h'},
    'lease': {'type': 'raw'},
    'metrics': {'type': 'list', 'elements': 'dict', 'default': []},
    'visitors': {'type': 'dict'},
    'guardrails': {'type': 'list', 'elements': 'dict', 'default': [{'name': 'errors', 'margin': '0.5%'}]},
    'alpha': {'type': 'float', 'default': 0.05},
    'guardrail_alpha': {'type': 'float', 'default': 0.05},
    'ratio_alpha': {'type': 'float', 'default': 0.01},
    'ratio_tolerance': {'type': 'raw', 'default': '2%'},
    'burst': {'type': 'float', 'default': 1.0},
    'equivalence': {'type': 'raw', 'default': '5%'},
    'effect': {'type': 'raw'},
    'watch': {'type': 'raw', 'default': 0},
    'watch_conditions': {'type': 'list', 'elements': 'dict', 'default': []},
    'winner': {'type': 'str'},
    'outcome': {'type': 'str', 'choices': list(OUTCOMES)},
    'reason': {'type': 'str', 'default': ''},
    'force': {'type': 'bool', 'default': False},
}

_HISTORY_S = 3600.0
"""How far before the test its traffic is estimated from."""


@dataclass(frozen=True)
class Clocks:
    """Where time comes from: *wall* seconds since 1970, *monotonic* seconds."""

    wall: t.Callable[[], float] = time.time
    monotonic: t.Callable[[], float] = time.monotonic


async def run(options: t.Mapping[str, t.Any], check_mode: bool, pid: int, clocks: Clocks = Clocks()) -> dict[str, t.Any]:
    """Does what ``state`` asks for and returns the task's result, with ``say`` for what a person should see.

    *pid* is the process that holds the service's lock meanwhile. Raises DeliveryError: nothing was changed then.
    """
    work = _Work(options, check_mode, pid, clocks)
    result = {'changed': False, **await getattr(work, options['state'])()}
    if work.record.error:
        result['warnings'] = [work.record.error]
    return result


class _Work:
    """One task."""

    def __init__(self, options: t.Mapping[str, t.Any], check_mode: bool, pid: int, clocks: Clocks) -> None:
        self.options = options
        self.check_mode = check_mode
        self.clocks = clocks
        self.service = check_name('service', options['service'])
        self.by = check_token('user', clean_token(options['by']))
        self.routers = registry.build_all(options['endpoints'], self.service, options['arms'])
        self.record = AbRecord(options['state_dir'], self.service, check_mode, pid, clocks.wall)

    def _design(self, options: t.Mapping[str, t.Any]) -> Design:
        return read_design(options, list(self.options['arms']), self.options['sources'])

    async def _look(self, design: Design, versions: t.Mapping[str, str], window_s: float) -> Look:
        return await look(design, self.service, self.options['arms'], self.options['endpoints'], self.options['sources'], versions,
                          window_s, self.clocks.monotonic())

    async def _read(self) -> tuple[dict[str, Observed], list[str]]:
        outcomes = await _fleet.each(self.routers, lambda router: router.read())
        return _fleet.values(outcomes), [str(error) for error in _fleet.errors(outcomes).values()]

    def _versions(self, design: Design, seen: t.Mapping[str, Observed]) -> dict[str, str]:
        """The versions of the service's arms, as far as they are known."""
        found = {one.arm: one.version for one in design.arms.values() if one.version}
        live = {one.version for one in seen.values()}
        if len(live) == 1 and None not in live:
            found.setdefault(design.arms[design.control].arm, t.cast(str, live.pop()))
        return t.cast('dict[str, str]', found)

    # ---- opened, started

    async def opened(self) -> dict[str, t.Any]:
        """Checks everything, tells the plan, and opens the journal; the split is not written yet."""
        design = self._design(self.options)
        seen, errors = await self._read()
        if errors:
            raise DeliveryError(' | '.join(errors))
        stables = {one.split.stable for one in seen.values() if one.split}
        control = design.arms[design.control].arm
        if stables and stables != {control}:
            raise BadInput('The control arm "%s" of the A/B test is "%s", and the routers say that "%s" is stable: control must be what '
                           'serves everybody now.' % (design.control, control, ', '.join(sorted(stables))))
        asked = {key: self.options.get(key) for key in DESIGN_OPTIONS}
        test = self.record.latest()
        if test and test.running and (not test.started or self._live(test, seen)):
            if test.asked != asked and test.started:
                raise Conflict('The A/B test %s of %s runs since %s with another design: conclude or stop it before you begin a new '
                               'one.' % (test.id, self.service, iso(test.began)))
            if test.started:
                return self._planned(test.id, design, True, ['The A/B test %s runs already, until %s.' % (test.id, iso(test.ends))])
        self._check_routers(design, seen)
        versions = self._versions(design, seen)
        before = await self._look(design, versions, _HISTORY_S)
        if before.errors:
            raise DeliveryError('The A/B test cannot be watched: %s' % ' | '.join(before.errors))
        now = self.clocks.wall()
        rollout = '%s-ab-%s-%s' % (self.service, time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now)), secrets.token_hex(2))
        if test and test.running and not test.started and test.asked == asked:
            # A run that ended between its plan and its beginning: the split may be in force already, and is this test's.
            rollout = test.id
            self.record.acquire(rollout, self.by, self.options['force'])
        else:
            self.record.open(rollout, asked, self.by, {name: versions.get(one.arm) for name, one in design.arms.items()},
                             self.options['force'])
        return self._planned(rollout, design, False, [text.plan(
            self.service, design, rollout, self.by, before, _HISTORY_S, self.check_mode)])

    def _check_routers(self, design: Design, seen: t.Mapping[str, Observed]) -> None:
        """Raises what stands in the way of the split at any router: one that cannot keep users on their arm, or is taken."""
        split = make_split(design.split, design.arms[design.control].arm, sticky='hash', known=list(self.options['arms']))
        wanted = Desired(split, Claim(self._rollout_id(), self.by, 0), design.lease_s(design.duration + design.grace),
                         force=self.options['force'], ready=False)
        problems = []
        for router in self.routers:
            try:
                router.plan(seen[router.name], wanted)
            except DeliveryError as exc:
                problems.append(exc)
        if problems:
            raise type(problems[0])(' | '.join(dict.fromkeys(str(problem) for problem in problems)))

    def _rollout_id(self) -> str:
        """The id of the test that was planned and may hold the routers already, else none that does."""
        test = self.record.latest()
        return test.id if test and test.running else '%s-ab' % self.service

    def _planned(self, rollout: str, design: Design, already: bool, say: list[str]) -> dict[str, t.Any]:
        return {
            'rollout': rollout, 'already': already, 'journal': self.record.path_of(rollout), 'split': design.split,
            'stable': design.arms[design.control].arm, 'lease': '%ds' % design.lease_s(design.duration + design.grace),
            'deploy': {one.arm: one.version for name, one in design.arms.items() if name != design.control and one.version},
            'variants': [design.arms[name].arm for name in design.variants], 'say': say}

    async def started(self) -> dict[str, t.Any]:
        """The split is in force: from now on counts."""
        if self.check_mode:
            return {}
        test = self._latest()
        if test.started:
            return {}
        design = self._design(test.asked)
        seen, errors = await self._read()
        if errors or not self._live(test, seen):
            raise DeliveryError('The A/B test %s of %s has no split to begin with: %s' % (
                test.id, self.service, ' | '.join(errors) or 'it is not in the routers.'))
        before = await self._look(design, t.cast('dict[str, str]', self._arm_versions(test, design)), _HISTORY_S)
        began = self.clocks.wall()
        ends = began + design.duration
        self.record.start(test.id, began, ends, ends + design.grace, first_state(design, before, began))
        self.record.release()
        return {'changed': True, 'say': ['The A/B test %s has begun. Analyse it as often as you like. Its time is over on %s.' % (
            test.id, iso(ends))]}

    def _latest(self) -> Test:
        test = self.record.latest()
        if test is None:
            raise BadInput('There is no A/B test of %s in %s: begin one with ab_test_action=start, or correct the state directory.' % (
                self.service, self.options['state_dir']))
        return test

    def _arm_versions(self, test: Test, design: Design) -> dict[str, str]:
        return {design.arms[name].arm: version for name, version in test.versions.items() if version}

    @staticmethod
    def _live(test: Test, seen: t.Mapping[str, Observed]) -> bool:
        """Whether the split of the test is in force on all routers that answered."""
        return bool(seen) and all(
            one.owned and one.live and one.claim is not None and one.claim.rollout == test.id
            and one.split is not None and bool(one.split.candidates) for one in seen.values())

    # ---- analysed

    async def analysed(self) -> dict[str, t.Any]:
        """Takes a look: counts, verdict, the way back where there is harm, else the lease up to the end."""
        test = self._latest()
        if not test.started:
            raise BadInput('The A/B test %s of %s was planned and never began: start it.' % (test.id, self.service))
        design = self._design(test.asked)
        if not test.running:
            return self._told(test, design, test.concluded, False, ['The A/B test %s is over: %s.' % (test.id, test.outcome_text)])
        self.record.acquire(test.id, self.by)
        try:
            # Another run may have looked while this one waited for the lock.
            test = self._latest()
            return await self._analyse(test, design)
        finally:
            self.record.release()

    async def _analyse(self, test: Test, design: Design) -> dict[str, t.Any]:
        now = self.clocks.wall()
        counted = await self._look(design, self._arm_versions(test, design), now - test.began)
        # Read after the counts: those of a split that had ended by then are not the test's.
        seen, errors = await self._read()
        if not seen:
            raise DeliveryError('The A/B test %s of %s cannot be analysed: %s' % (test.id, self.service, ' | '.join(errors)))
        if not self._live(test, seen):
            return self._told(test, design, test.last, False, [text.table(design, test.last) if test.last else '', (
                'The split of the A/B test %s is not in force any more%s: what was counted up to %s stands. Conclude the test.' % (
                    test.id, ', its time is over' if now >= test.ends else '', iso(test.looked_at)))])
        judged = judge(design, test.state, counted, now, test.began, test.ends, errors)
        back: dict[str, t.Any] = {}
        notes = list(judged.errors)
        if judged.verdict == e.HARMFUL:
            back = await self._return(test, judged.reason)
        elif not self.check_mode:
            notes += await self._renew(design, seen, test.last_moment - now)
        if not self.check_mode:
            self.record.analysed(test.id, judged.as_dict(), judged.state)
        if judged.verdict == e.HARMFUL and not self.check_mode:
            self.record.conclude(test.id, 'harmful', None, self.by, judged.reason)
        said = [text.table(design, judged.as_dict()), text.verdict(judged, test.ends - now)] + ['note: %s' % note for note in notes]
        result = self._told(test, design, judged.as_dict(), True, said)
        if back:
            result.update(changed=bool(back.get('changed')), way_back=back.get('way_back'), left=back.get('left', []))
        return {**result, 'problem': self._problem(judged, back)}

    def _problem(self, judged: Judged, back: t.Mapping[str, t.Any]) -> str | None:
        """Returns the sentence that a run should end with."""
        if judged.verdict == e.HARMFUL:
            if self.check_mode:
                return 'The A/B test does harm: %s. It would be taken back.' % judged.reason
            return 'The A/B test was taken back: %s. %s' % (judged.reason, back.get('msg', ''))
        if judged.verdict == e.INVALID:
            return ('The A/B test is invalid: %s. Its counts cannot be believed: find out who is not counted, and stop '
                    'the test.' % judged.reason)
        if judged.verdict == e.NO_DATA:
            return 'The A/B test has no data: %s.' % judged.reason.rstrip('.')
        return None

    def _told(self, test: Test, design: Design, judged: t.Mapping[str, t.Any] | None, live: bool, say: list[str]) -> dict[str, t.Any]:
        judged = judged or {}
        return {'rollout': test.id, 'journal': self.record.path_of(test.id), 'live': live, 'verdict': judged.get('verdict'),
                'reason': judged.get('reason'), 'winner': judged.get('winner'), 'metrics': judged.get('metrics', {}),
                'ratio': judged.get('ratio'), 'guardrails': judged.get('guardrails', {}), 'ends': iso(test.ends) if test.started else None,
                'over': not test.running or bool(test.started and self.clocks.wall() >= test.ends),
                'concluded': not test.running, 'variants': [design.arms[name].arm for name in design.variants],
                'watch_s': parse_duration(self.options['watch'], 'watch'), 'watch': [
                    {**one, 'name': '%s of %s' % (one.get('name') or one.get('metric'), name), 'arm': design.arms[name].arm}
                    for name in design.variants for one in self.options['watch_conditions']],
                'say': [line for line in say if line]}

    async def _return(self, test: Test, reason: str) -> dict[str, t.Any]:
        started = self.clocks.monotonic()
        back = back_report(self.service, await take_back(self.routers, write=not self.check_mode, owner=test.id))
        if not self.check_mode:
            self.record.way_back(test.id, reason, back, self.clocks.monotonic() - started)
        return back

    async def _renew(self, design: Design, seen: t.Mapping[str, Observed], left_s: float) -> list[str]:
        """Gives every router a lease up to the test's end at most; returns a sentence for each that did not take it."""
        lease_s = design.lease_s(left_s)
        if lease_s < 1:
            return []
        outcomes = await _fleet.each([router for router in self.routers if router.name in seen],
                                     lambda router: router.renew(router.renewable(seen[router.name]), lease_s))
        return [str(error) for error in _fleet.errors(outcomes).values()]

    # ---- decided, concluded, status

    async def decided(self) -> dict[str, t.Any]:
        """Says who gets the traffic: the winner of the last analysis, a person's choice, or control. Changes nothing."""
        test = self._latest()
        if not test.started:
            raise BadInput('The A/B test %s of %s never began: there is nothing to conclude.' % (test.id, self.service))
        design = self._design(test.asked)
        if not test.running:
            return {**self._told(test, design, test.concluded, False, [text.report(design, test, self.record.path_of(test.id))]),
                    'target': None, 'version': None, 'control': design.arms[design.control].arm}
        last = test.last or {}
        chosen = self.options.get('winner') or None
        if chosen and chosen not in design.arms:
            raise BadInput('The winner "%s" is not an arm of the A/B test: those are %s.' % (chosen, ', '.join(design.arms)))
        winner, reason = chosen, 'chosen by %s' % self.by
        if not chosen:
            winner, reason = self._winner(test, design, last)
        arm = design.arms[t.cast(str, winner)].arm
        return {**self._told(test, design, last, True, ['%s of the A/B test %s gets the traffic: %s.' % (winner, test.id, reason)]),
                'winner': winner, 'reason': reason, 'target': None if winner == design.control else arm,
                'version': test.versions.get(t.cast(str, winner)) or winner, 'control': design.arms[design.control].arm,
                'losers': [design.arms[name].arm for name in design.variants if name != winner]}

    def _winner(self, test: Test, design: Design, last: t.Mapping[str, t.Any]) -> tuple[str, str]:
        verdict, now = last.get('verdict'), self.clocks.wall()
        if verdict == e.WINNER:
            return last['winner'], last['reason']
        if verdict in (e.EQUIVALENT, e.INVALID):
            return design.control, '%s: %s' % (verdict, last['reason'])
        if now >= test.ends:
            return design.control, 'there is no winner after %s' % format_duration(design.duration)
        raise BadInput('The A/B test %s has no verdict yet (%s), and %s to go: wait, name the winner yourself with ab_test_winner, or '
                       'stop the test.' % (test.id, last.get('reason') or 'it was not analysed', format_duration(test.ends - now)))

    async def concluded(self) -> dict[str, t.Any]:
        """Ends the test with ``outcome``; unless a rollout of the winner has moved the traffic, all of it goes to control."""
        if not self.options.get('outcome'):
            raise BadInput('The outcome of the A/B test is missing: give one of %s.' % ', '.join(OUTCOMES))
        test = self._latest()
        design = self._design(test.asked)
        outcome, winner = self.options['outcome'], self.options.get('winner') or None
        if not test.running:
            return self._told(test, design, test.concluded, False, ['The A/B test %s is over already: %s.' % (test.id, test.outcome_text)])
        back: dict[str, t.Any] = {}
        if outcome != 'winner':
            # Before the lock: a way back waits for nobody.
            back = await self._return(test, self.options['reason'] or outcome)
        self.record.acquire(test.id, self.by)
        try:
            self.record.conclude(test.id, outcome, winner, self.by, self.options['reason'])
        finally:
            self.record.release()
        if not self.check_mode:
            test = self._latest()
        said = text.report(design, test, self.record.path_of(test.id))
        if self.check_mode:
            said = 'The A/B test %s would be over: %s%s.' % (test.id, outcome, ' %s' % winner if winner else '')
        result = self._told(test, design, test.last, False, [said])
        result.update(changed=True, left=[arm for arm in back.get('left', []) if arm in result['variants']])
        if back:
            result.update(way_back=back.get('way_back'))
            result['say'].insert(0, back['msg'])
            if back.get('failed'):
                result.update(failed=True, msg=back['msg'])
        return result

    async def status(self) -> dict[str, t.Any]:
        """Tells how far the test is; asks the routers, and the sources not."""
        test = self.record.latest()
        if test is None:
            return {'say': ['There is no A/B test of %s.' % self.service], 'rollout': None, 'live': False}
        design = self._design(test.asked)
        seen, errors = await self._read()
        live = self._live(test, seen)
        return self._told(test, design, test.last, live, [text.status(design, test, live, self.clocks.wall(), errors)])
