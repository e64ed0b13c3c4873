# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What C(rollout_plan) and C(rollout_record) do: the options of both, and the record of one rollout."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal, load_journal
from ansible_collections.progressive.delivery.plugins.module_utils._lock import Holder, Lock
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token
from ansible_collections.progressive.delivery.plugins.module_utils._plan import STRATEGIES
from ansible_collections.progressive.delivery.plugins.module_utils._report.clean import clean
from ansible_collections.progressive.delivery.plugins.module_utils._report.facts import check_criteria
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share
from ansible_collections.progressive.delivery.plugins.module_utils._summary import render, summarize

PLAN_SPEC: dict[str, t.Any] = {
    'service': {'type': 'str', 'required': True},
    'version': {'type': 'str', 'required': True},
    'strategy': {'type': 'str', 'default': 'hybrid', 'choices': list(STRATEGIES)},
    'canary_stages': {'type': 'raw', 'default': []},
    'blue_green_stages': {'type': 'raw', 'default': []},
    'arms': {'type': 'dict', 'required': True},
    'stable': {'type': 'str'},
    'canary_arm': {'type': 'str'},
    'target_arm': {'type': 'str'},
    'conditions': {'type': 'list', 'elements': 'dict', 'required': True},
    'interval': {'type': 'raw', 'default': 10},
    'warm_up': {'type': 'raw', 'default': 0},
    'settle': {'type': 'raw', 'default': 0},
    'ask_timeout': {'type': 'raw', 'default': '30m'},
    'lease': {'type': 'raw', 'default': '30s'},
    'timeouts': {'type': 'dict', 'default': {}},
    'alpha': {'type': 'float', 'default': 0.05},
    'beta': {'type': 'float', 'default': 0.05},
    'state_dir': {'type': 'path'},
    'forget_evidence': {'type': 'bool', 'default': False},
    'evidence_max_age': {'type': 'raw', 'default': '24h'},
    'info': {'type': 'dict', 'required': True},
    'rollout': {'type': 'str'},
    'force': {'type': 'bool', 'default': False},
}

RECORD_SPEC: dict[str, t.Any] = {
    'state': {'type': 'str', 'required': True, 'choices': ['started', 'stage_started', 'stage_finished', 'finished']},
    'service': {'type': 'str', 'required': True},
    'rollout': {'type': 'str', 'required': True},
    'state_dir': {'type': 'path', 'required': True},
    'by': {'type': 'str', 'default': 'unknown'},
    'force': {'type': 'bool', 'default': False},
    'plan': {'type': 'dict'},
    'previous_version': {'type': 'str'},
    'stage': {'type': 'dict'},
    'foreseen': {'type': 'dict', 'default': {}},
    'notes': {'type': 'list', 'elements': 'str', 'default': []},
    'moved': {'type': 'dict', 'default': {}},
    'gate': {'type': 'dict', 'default': {}},
    'preflight': {'type': 'dict', 'default': {}},
    'report_dir': {'type': 'path'},
    'criteria': {'type': 'dict', 'default': {}},
    'outcome': {'type': 'str', 'choices': ['promoted', 'rolled_back', 'failed']},
    'reason': {'type': 'str', 'default': ''},
    'failures': {'type': 'list', 'elements': 'dict', 'default': []},
}


class Record:
    """The lock and the journal of one rollout under ``<state_dir>/<service>/``. Check mode reads and writes nothing."""

    def __init__(self, options: t.Mapping[str, t.Any], holder: Holder, check_mode: bool, tools: t.Mapping[str, str] | None = None) -> None:
        self.options = options
        self.tools = dict(tools or {})
        """Versions of what does the rollout, for the report."""
        self.holder = holder
        self.check_mode = check_mode
        folder = os.path.join(options['state_dir'], check_name('service', options['service']))
        self.lock = Lock(os.path.join(folder, 'lock'))
        self.path = os.path.join(folder, '%s.jsonl' % check_token('rollout', options['rollout']))
        self.journal = Journal(None if check_mode else self.path, options['rollout'])

    def run(self) -> dict[str, t.Any]:
        """Does what ``state`` asks for; returns the task's result, with ``say`` for what a person should see."""
        return {'changed': False, 'journal': self.path, 'rollout': self.options['rollout'], **getattr(self, '_' + self.options['state'])()}

    def _started(self) -> dict[str, t.Any]:
        plan, criteria = self.options['plan'], check_criteria(self.options['criteria'])
        if not self.check_mode:
            self.lock.acquire(self.holder, self.options['force'])
            self.journal.write(
                'rollout_started', strict=True, service=plan['service'], version=plan['version'], strategy=plan['strategy'],
                previous_version=self.options['previous_version'], stable=plan['stable'], target=plan['target'], by=self.options['by'],
                stages=len(plan['stages']), asks=plan.get('asks'),
                plan=[{k: s[k] for k in ('index', 'name', 'arm', 'share_bp', 'bake_s')} for s in plan['stages']],
                criteria=criteria, tools=self.tools, **({'report_dir': self.options['report_dir']} if self.options['report_dir'] else {}))
            self._point_latest()
            told = self.options['preflight']
            if told.get('rows') is not None:
                self.journal.write('preflight', service=plan['service'], **{key: told.get(key) for key in ('state', 'rows', 'seconds')})
        return {'say': [_plan_text(plan, self.options, self.check_mode), *('  %s' % note for note in self.options['notes'])]}

    def _stage_started(self) -> dict[str, t.Any]:
        stage, plan, foreseen = self.options['stage'], self.options['plan'], self.options['foreseen']
        self.journal.write('stage_started', **_stage_fields(stage, plan))
        watch = 'would be watched' if self.check_mode else 'watched'
        return {'say': ['\nStage %d of %d: %s for %s, %s every %s' % (
            stage['index'], len(plan['stages']), _titled(stage), format_duration(stage['bake_s']), watch,
            format_duration(stage['interval_s'])),
            *('  %s.' % text for text in foreseen.get('text') or ()), *('  ! %s' % text for text in foreseen.get('warnings') or ())]}

    def _stage_finished(self) -> dict[str, t.Any]:
        stage, plan, gate, moved = (self.options[k] for k in ('stage', 'plan', 'gate', 'moved'))
        arms = gate.get('arms') or {}
        self.journal.write(
            'stage_finished', **_stage_fields(stage, plan), configured_bp=_agreed(moved.get('configured') or {}),
            endpoints=moved.get('configured'), observed_bp=gate.get('observed_bp'),
            requests=sum(arm.get('requests', 0) for arm in arms.values()), arms=arms,
            verdict=gate.get('verdict'), reason=gate.get('reason') or gate.get('msg'), samples=gate.get('samples'),
            duration_s=gate.get('duration'), conditions=gate.get('conditions'))
        return {}

    def _finished(self) -> dict[str, t.Any]:
        reason = self.options['reason'] or ' On the way back: '.join(failure_sentence(failure) for failure in self.options['failures'])
        if self.check_mode:
            return {'reason': reason}
        self.journal.write('rollout_finished', outcome=self.options['outcome'], reason=reason)
        self.lock.release(self.options['rollout'])
        # A line that a full disk cut off must not keep the rest from being told.
        summary = summarize(clean(load_journal(self.path).events).events)
        return {'reason': reason, 'summary': summary, 'say': [render(summary, self.path)]}

    def _point_latest(self) -> None:
        link = os.path.join(os.path.dirname(self.path), 'latest.jsonl')
        temporary = '%s.%d' % (link, os.getpid())
        os.symlink(os.path.basename(self.path), temporary)
        os.replace(temporary, link)


def failure_sentence(failure: t.Mapping[str, t.Any]) -> str:
    """Returns one sentence on a task that failed, from ``{task, result}`` as a rescue has them.

    A looped task says only that some item failed: the items say why. A command says it on its standard error, last.
    """
    result = failure.get('result') or {}
    for item in result.get('results') or []:
        if item.get('failed') or item.get('unreachable'):
            result = item
            break
    said = str(result.get('stderr') or '').strip().splitlines()
    # A task file that cannot be included has a reason of several lines and no msg.
    message = str(result.get('msg') or str(result.get('reason') or '').partition('\n')[0] or 'it did not say why').strip().rstrip('.')
    if said and result.get('cmd'):
        return 'The task "%s" failed: %s: %s.' % (failure.get('task'), message, said[-1].strip().rstrip('.'))
    # The collection's own tasks end with a sentence that stands by itself.
    return '%s.' % message if ' ' in message and not result.get('cmd') else 'The task "%s" failed: %s.' % (failure.get('task'), message)


def _stage_fields(stage: t.Mapping[str, t.Any], plan: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    requested = {stage['arm']: stage['share_bp'], plan['stable']: 10_000 - stage['share_bp']}
    return {**{key: stage[key] for key in ('index', 'name', 'label', 'arm', 'bake_s')}, 'requested_bp': requested}


def _agreed(configured: t.Mapping[str, t.Mapping[str, int]]) -> dict[str, int] | None:
    """Returns what all endpoints have stored, or None when they differ: then the single ones tell."""
    values = list(configured.values())
    return dict(values[0]) if values and all(value == values[0] for value in values) else None


def _titled(stage: t.Mapping[str, t.Any]) -> str:
    return stage['label'] if stage['name'] == stage['label'] else '%s (%s)' % (stage['name'], stage['label'])


def _plan_text(plan: t.Mapping[str, t.Any], options: t.Mapping[str, t.Any], check_mode: bool) -> str:
    mode = ' (check mode: nothing will be changed)' if check_mode else ''
    lines = [
        '',
        '%s %s → %s, %s%s' % (
            plan['service'], options['previous_version'] or '?', plan['version'], plan['strategy'].replace('_', '-'), mode),
        '  stable on %s, rollout %s by %s' % (plan['stable'], options['rollout'], options['by']),
    ]
    for stage in plan['stages']:
        asks = ', then asks "%s"' % stage['approval']['question'] if stage.get('approval') else ''
        copies = ' and copies of %s' % format_share(stage['mirror']['share']) if stage.get('mirror') else ''
        lines.append('  %d. %-12s %8s%s for %s%s' % (
            stage['index'], stage['arm'], format_share(stage['share_bp']), copies, format_duration(stage['bake_s']), asks))
    return '\n'.join(lines)
