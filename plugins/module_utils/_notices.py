# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What people are told of a rollout, from its journal and from nothing else. Pure.

A notice is sent only of what the journal says has happened: of a way back when the routers have been read back, never before.
"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._journal import iso
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share

EVENTS = ('started', 'stage', 'question', 'rolled_back', 'interrupted', 'state', 'finished')
SEVERITIES = ('info', 'warning', 'critical')

Event = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Notice:
    """One message. *at* is in seconds since 1970; *number* counts the rollout's notices from 1."""

    number: int
    event: str
    severity: str
    title: str
    text: str
    service: str
    rollout: str
    version: str
    at: float
    facts: tuple[tuple[str, str], ...] = ()
    incident: str = ''
    """``trigger`` where somebody must look now, ``resolve`` when what was triggered is over, else empty."""

    def plain(self) -> dict[str, t.Any]:
        """Returns the notice as templates get it."""
        return {**asdict(self), 'facts': [list(fact) for fact in self.facts], 'time': iso(self.at)}


@dataclass
class Narrator:
    """Tells a rollout: events in, notices out. *state_every_s*: how often a state is told while nothing else happens, 0 for never."""

    state_every_s: float = 1800.0
    _start: dict[str, t.Any] = field(default_factory=dict)
    _stage: dict[str, t.Any] = field(default_factory=dict)
    _seen: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    _number: int = 0
    _triggered: bool = False
    _told_at: float = 0.0
    over: bool = False
    """Whether the rollout has ended, in one way or another."""

    def feed(self, event: Event) -> list[Notice]:
        """Returns what is to be told of *event*: mostly nothing."""
        handler = getattr(self, '_on_' + str(event.get('event')), None)
        return [] if handler is None or self.over else handler(event)

    def tick(self, now: float, alive: bool) -> list[Notice]:
        """Returns what is to be told because time has passed: a state, or that the process which rolls out is gone without a word."""
        if self.over or not self._start:
            return []
        if not alive:
            self.over = True
            stage = ' in the stage "%s"' % self._stage['label'] if self._stage else ''
            return [self._notice(
                'interrupted', 'critical', now, '%s was interrupted%s' % (self._name, stage),
                'The process that rolled out is gone. What it had not finished goes back by itself when its lease runs out; '
                'look with status.yml, and run rollback.yml where traffic is not where it should be.', incident='trigger')]
        if self.state_every_s and now - self._told_at >= self.state_every_s and self._stage:
            return [self._notice('state', 'info', now, '%s: %s goes on' % (self._name, self._stage['label']),
                                 'No limit was reached so far.', self._figures(self._seen, self._stage.get('arm')))]
        return []

    @property
    def _name(self) -> str:
        return '%s %s' % (self._start.get('service', '?'), self._start.get('version', '?'))

    def _notice(self, event: str, severity: str, at: float, title: str, text: str, facts: t.Iterable[tuple[str, str]] = (),
                incident: str = '') -> Notice:
        self._number += 1
        self._told_at = at
        if incident == 'trigger':
            self._triggered = True
        service, rollout, version = (str(self._start.get(key, '?')) for key in ('service', 'rollout', 'version'))
        return Notice(self._number, event, severity, title, text, service, rollout, version, at, tuple(facts), incident)

    def _on_rollout_started(self, event: Event) -> list[Notice]:
        self._start = dict(event)
        stages = event.get('plan') or []
        planned = sum(float(stage.get('bake_s') or 0) for stage in stages)
        return [self._notice(
            'started', 'info', event['ts'], '%s: rollout of %s begins' % (self._start.get('service'), event.get('version')),
            '%s, %s at least.' % (' → '.join('%s %s' % (stage['arm'], format_share(stage['share_bp'])) for stage in stages) or 'No stages',
                                  format_duration(planned)),
            [('Version', '%s → %s' % (event.get('previous_version') or '?', event.get('version'))),
             ('Strategy', str(event.get('strategy'))),
             ('Stable', str(event.get('stable'))), ('By', str(event.get('by'))), ('Rollout', str(event.get('rollout')))])]

    def _on_stage_started(self, event: Event) -> list[Notice]:
        self._stage, self._seen = dict(event), {}
        return []

    def _on_sample(self, event: Event) -> list[Notice]:
        for arm, numbers in (event.get('arms') or {}).items():
            sums = self._seen.setdefault(arm, {'requests': 0, 'errors': 0})
            for key in sums:
                sums[key] += numbers.get(key) or 0
        return []

    def _on_asked(self, event: Event) -> list[Notice]:
        return [self._notice('question', 'warning', event['ts'], '%s waits for an answer' % self._name,
                             '%s: %s' % (event.get('stage'), event.get('text')),
                             [('Time left', format_duration(float(event.get('timeout_s') or 0))), ('Answer with', 'approve.yml')])]

    def _on_stage_finished(self, event: Event) -> list[Notice]:
        stage, self._stage = self._stage or dict(event), {}
        if event.get('verdict') != 'pass':
            # What follows from it is told when it has happened.
            return []
        total = int(self._start.get('stages') or 0)
        following = next((one for one in self._start.get('plan') or [] if one.get('index') == event.get('index', 0) + 1), None)
        after = 'next: %s %s' % (following['arm'], format_share(following['share_bp'])) if following else 'the last stage'
        return [self._notice(
            'stage', 'info', event['ts'], '%s: %s passed (%s of %s)' % (self._name, stage.get('label'), event.get('index'), total or '?'),
            'After %s; %s.' % (format_duration(float(event.get('duration_s') or 0)), after),
            [*self._shares(event), *self._figures(event.get('arms') or {}, event.get('arm'))])]

    def _on_way_back(self, event: Event) -> list[Notice]:
        lost = [row for row in event.get('endpoints') or [] if isinstance(row, t.Mapping) and not row.get('ok', True)]
        stage = event.get('stage') or self._stage.get('label')
        scope = 'All traffic is on %s again, %s after the verdict.' % (
            event.get('to') or 'stable', format_duration(float(event.get('seconds') or 0)))
        if lost or event.get('failed'):
            scope = 'Traffic went back, but not on %s: the lease does the rest; look there now.' % ', '.join(
                [str(row.get('endpoint')) for row in lost] or [str(name) for name in event.get('failed') or []])
        if self._triggered:
            return []
        return [self._notice('rolled_back', 'critical', event['ts'], '%s was taken out%s' % (self._name, ' in %s' % stage if stage else ''),
                             '%s. %s' % (str(event.get('reason') or 'No reason was recorded').rstrip('.'), scope),
                             self._figures(self._seen, self._stage.get('arm')), incident='trigger')]

    def _on_rollout_finished(self, event: Event) -> list[Notice]:
        self.over = True
        outcome, took = event.get('outcome'), event['ts'] - self._start.get('ts', event['ts'])
        title, severity = {
            'promoted': ('%s is live', 'info'), 'rolled_back': ('%s was rolled back: stable serves', 'warning'),
        }.get(str(outcome), ('%s failed before any traffic moved', 'warning'))
        return [self._notice('finished', severity, event['ts'], title % self._name, str(event.get('reason') or ''),
                             [('Duration', format_duration(took)), ('By', str(self._start.get('by')))],
                             incident='resolve' if self._triggered else '')]

    def _shares(self, event: Event) -> t.Iterator[tuple[str, str]]:
        arm = event.get('arm')
        seen = (event.get('observed_bp') or {}).get(arm)
        asked = (event.get('requested_bp') or {}).get(arm)
        if asked is not None:
            yield 'Share of %s' % arm, format_share(asked) + (' (observed %s)' % format_share(seen) if seen is not None else '')

    def _figures(self, arms: t.Mapping[str, t.Any], arm: str | None) -> t.Iterator[tuple[str, str]]:
        for name in dict.fromkeys([arm, self._start.get('stable')]):
            numbers = arms.get(str(name)) or {}
            if numbers.get('requests'):
                p95 = numbers.get('p95_ms')
                yield str(name), '%d requests, %d failed%s' % (
                    numbers['requests'], numbers.get('errors') or 0, '' if p95 is None else ', P95 %.0f ms' % p95)
