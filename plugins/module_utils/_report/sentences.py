# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The sentences of a report: what happened, why, whether users were hurt, what to look at. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._report import values as r
from ansible_collections.progressive.delivery.plugins.module_utils._report.facts import milliseconds, percent
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share

Event = t.Mapping[str, t.Any]

TITLES = {
    r.PROMOTED: 'Promoted', r.ROLLED_BACK: 'Rolled back', r.FAILED: 'Stopped before any traffic moved', r.INTERRUPTED: 'Interrupted',
    r.RUNNING: 'Still running', r.UNKNOWN: 'Ended without a word'}


@dataclass(frozen=True)
class Told:
    """What the sentences are made from."""

    outcome: str
    start: Event
    end: Event
    events: t.Sequence[Event]
    stages: t.Sequence[r.Stage]
    losses: r.Losses
    back: r.Back | None
    seconds: float | None

    @property
    def version(self) -> str:
        return self.start.get('version') or 'The new version'

    @property
    def stage(self) -> r.Stage | None:
        """The last stage that began."""
        return next((stage for stage in reversed(self.stages) if stage.started is not None), None)

    @property
    def where(self) -> str:
        stage = self.stage
        if stage is None:
            return 'before the first stage'
        return 'in stage %d of %d (%s)' % (stage.index, len(self.stages), stage.label)


def headline(told: Told) -> str:
    if not told.events:
        return 'The journal holds no events: nothing is known of this rollout.'
    version = told.version
    if told.outcome == r.PROMOTED:
        passed = sum(stage.verdict == 'pass' for stage in told.stages)
        text = '%s has all of the traffic%s: %d of %d stage%s passed%s.' % (
            version, ' on %s' % told.start['target'] if told.start.get('target') else '', passed, len(told.stages),
            '' if len(told.stages) == 1 else 's', ' in %s' % format_duration(told.seconds) if told.seconds is not None else '')
    elif told.outcome == r.ROLLED_BACK:
        text = '%s was taken out %s%s.' % (version, told.where, _with_traffic(told))
    elif told.outcome == r.FAILED:
        text = '%s never received traffic: the rollout ended before the first stage.' % version
    elif told.outcome == r.INTERRUPTED:
        signal = next((event.get('signal') for event in told.events if event['event'] == 'signal'), None)
        text = 'The rollout was stopped by %s %s.' % (signal or 'a signal', told.where)
    elif told.outcome == r.RUNNING:
        text = 'The rollout of %s is under way, %s.' % (version, told.where)
    else:
        return 'The journal of the rollout of %s ends without a word, %s%s. %s' % (
            version, told.where, '' if told.back is None else ', after the way back', _after_silence(told))
    return ' '.join(part for part in (text, _returned(told)) if part)


def _with_traffic(told: Told) -> str:
    """For how long the version had traffic in its last stage."""
    stage = told.stage
    begun = stage.started if stage is not None and stage.started is not None else 0.0
    first = next((event['ts'] for event in told.events if event['event'] == 'change' and event['ts'] >= begun), None)
    if first is None or told.back is None or told.back.at < first:
        return ''
    return ', %s after it had been given its share' % format_duration(round(told.back.at - first, 2))


def _returned(told: Told) -> str:
    back = told.back
    if back is None:
        return ''
    to = back.to or 'stable'
    if not back.complete:
        return 'NOT all traffic could be returned to %s: %s.' % (to, '; '.join(one.rstrip('.') for one in back.lost) or 'see the journal')
    if back.seconds is None:
        return 'Traffic is back on %s.' % to
    return 'Traffic was back on %s %s after the verdict.' % (to, format_duration(back.seconds))


def _after_silence(told: Told) -> str:
    """What became of the traffic when nobody was left to tell."""
    if told.back is not None:
        return _returned(told)
    lease = next((event for event in reversed(told.events) if event['event'] in ('sample', 'change') and 'lease_s' in event), None)
    if told.stage is None or lease is None:
        return 'Read the routers (progressive.delivery.status) to learn who has the traffic.'
    return ('The candidate\'s share ended with its lease, %s after the last renewal that the journal knows, unless somebody renewed it: '
            'read the routers (progressive.delivery.status).' % format_duration(max(round(lease['lease_s'], 2), 0.0)))


def why(told: Told) -> str:
    if told.outcome == r.PROMOTED:
        return 'Every stage that had to pass did.'
    stage, reason = told.stage, told.end.get('reason', '')
    if told.back is not None and stage is not None and stage.reason and stage.reason in reason:
        # What became of the traffic is said in the headline.
        return reason[:reason.index(stage.reason)] + stage.reason.rstrip('.') + '.'
    if reason:
        return reason
    if stage is not None and stage.reason and stage.verdict != 'pass':
        return stage.reason
    return '' if told.outcome == r.RUNNING else 'The journal does not say.'


def hurt(told: Told, criteria: t.Sequence[r.Criterion]) -> tuple[bool | None, str]:
    """Returns whether users were hurt, None when nobody can tell, and the sentences on it."""
    lost = told.losses
    if lost.basis == 'none' or not lost.requests:
        if told.outcome == r.FAILED:
            return False, 'No: the new version never received a request.'
        return None, 'Not known: no requests were counted.'
    found, said = [], ''
    if lost.new_failed:
        found.append('%d of the %d requests that the new version had failed (%s).' % (
            lost.new_failed, lost.new_requests, percent(lost.new_failed / max(lost.new_requests, 1))))
    others, other_failed = lost.requests - lost.new_requests, lost.failed - lost.new_failed
    if other_failed:
        found.append('%d of the %d requests on the version that was live before failed as well.' % (other_failed, others))
    elif found and others:
        found.append('None of the %d others did.' % others)
    slow = [one for one in criteria if one.verdict == r.MISSED and one.name.startswith('P') and one.value is not None]
    if slow:
        said = ' Users of the new version waited: %s.' % ', '.join('%s %s (target %s)' % (
            one.name.split()[0], milliseconds(one.value or 0.0), one.target) for one in slow)
    basis = ('by the balancers\' own counters, also between the gates\' looks' if lost.basis == 'counters' else
             'as the gates saw them; requests between two watches and during the way back are not among them')
    if found:
        return True, 'Yes. %s%s Counted %s.' % (' '.join(found), said, basis)
    if slow:
        return True, 'Yes, by waiting.%s None of %d requests failed, counted %s.' % (said, lost.requests, basis)
    return False, 'No. None of %d requests failed, %d of them on the new version. Counted %s.' % (lost.requests, lost.new_requests, basis)


def follow_up(told: Told, criteria: t.Sequence[r.Criterion], damage: t.Sequence[str]) -> list[str]:
    """Returns what somebody should look at, the most pressing first."""
    found: list[str] = []
    stage = told.stage
    if told.outcome in (r.UNKNOWN, r.RUNNING) and told.events:
        found.append('Read who has the traffic now: ansible-playbook progressive.delivery.status.')
    if told.back is not None:
        found += ['The way back did not reach %s. Read the routers, and run progressive.delivery.rollback again.' % one.rstrip('.')
                  for one in told.back.lost]
    if told.outcome in (r.ROLLED_BACK, r.INTERRUPTED) and stage is not None:
        failed = [one['name'] for one in stage.conditions if one.get('verdict') == 'fail']
        blind = [one for one in stage.conditions if one.get('verdict') in ('error', 'no_data')]
        if failed:
            found.append('Find the cause in %s (%s): logs and traces of %s from the minutes of the stage.' % (
                told.version, ', '.join(failed), stage.arm))
        # A stage that was proven bad early has conditions that never had their data.
        if blind and not failed:
            found.append('Mend what the gate could not see (%s): %s.' % (
                ', '.join(one['name'] for one in blind), '; '.join(dict.fromkeys(one['reason'].rstrip('.') for one in blind))))
    for one in criteria:
        if one.verdict == r.MISSED:
            found.append('%s missed its target: %s, asked for was %s%s.' % (
                one.name, one.measured, one.target, ' (%s)' % one.basis if one.basis else ''))
    unmeasured = [one.name for one in criteria if one.verdict == r.NOT_MEASURED]
    if unmeasured and stage is not None:
        found.append('Not measured, so not known to be good: %s.' % ', '.join(unmeasured))
    unanswered: dict[str, list[str]] = {}
    for one in told.stages:
        if one.verdict == 'pass':
            for condition in one.conditions:
                if condition.get('verdict', 'pass') != 'pass':
                    unanswered.setdefault(condition['name'], []).append(one.label)
        elif one.verdict not in (None, 'fail') and told.outcome == r.PROMOTED:
            found.append('%s went on by policy though its verdict was %s.' % (one.label, one.verdict))
        if one.endpoints and one.configured_bp is None:
            found.append('The endpoints had different splits in %s: %s.' % (one.label, '; '.join(
                '%s %s' % (name, _split(bp)) for name, bp in one.endpoints.items())))
    found += ['Passed without an answer to "%s", which did not have to pass: %s. The reasons stand with the stages.' % (
        name, ', '.join(labels)) for name, labels in unanswered.items()]
    # What a stage can find is said with the stage.
    planned = {text for event in told.events if event['event'] == 'plan' for text in event.get('warnings', [])}
    found += dict.fromkeys(event['text'] for event in told.events if event['event'] == 'note' and event['text'] not in planned)
    found += damage
    if told.outcome == r.PROMOTED and told.start.get('stable'):
        found.append('%s still runs %s for the way back (progressive.delivery.rollback), until the next rollout takes it as its target.' % (
            told.start['stable'], told.start.get('previous_version') or 'the version before'))
    return list(dict.fromkeys(found))[:60]


def _split(bp: t.Mapping[str, int]) -> str:
    return ', '.join('%s %s' % (arm, format_share(share)) for arm, share in bp.items())
