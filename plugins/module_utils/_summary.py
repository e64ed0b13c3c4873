# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A rollout as a person reads it, made from its journal and from nothing else. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share

OUTCOMES = {
    'promoted': 'promoted', 'rolled_back': 'ROLLED BACK', 'failed': 'FAILED before any traffic moved',
    'interrupted': 'INTERRUPTED', 'running': 'still running, or ended without a word',
}

Event = t.Mapping[str, t.Any]


def summarize(events: t.Sequence[Event]) -> dict[str, t.Any]:
    """Returns ``{rollout, service, version, stable, outcome, reason, seconds, stages, requests, failed, rollback, approvals}``.

    ``stages`` has a dictionary for each stage that began: what was asked, configured and observed (basis points), the counts
    and latencies of each arm, the verdict and its reason. A journal that ends early gives what it has.
    """
    start: Event = next((e for e in events if e['event'] == 'rollout_started'), {})
    end: Event = next((e for e in reversed(events) if e['event'] == 'rollout_finished'), {})
    stages: dict[int, dict[str, t.Any]] = {}
    for event in events:
        if event['event'] in ('stage_started', 'stage_finished'):
            fields = {k: v for k, v in event.items() if k not in ('t', 'ts', 'rollout', 'event')}
            stage = stages.setdefault(event['index'], {'from': event['ts'], 'to': None})
            stage.update(fields)
            if event['event'] == 'stage_finished':
                stage['to'] = event['ts']
    back = next((e for e in reversed(events) if e['event'] == 'way_back'), None)
    arms = [arm for stage in stages.values() for arm in (stage.get('arms') or {}).values()]
    asked = [{key: event.get(key) for key in ('stage', 'text', 'answer', 'by', 'reason', 'seconds')} for event in events
             if event['event'] == 'answered']
    return {
        'approvals': asked, 'rollout': start.get('rollout'), 'service': start.get('service'), 'version': start.get('version'),
        'previous_version': start.get('previous_version'), 'stable': start.get('stable'), 'by': start.get('by'),
        'strategy': start.get('strategy'), 'planned_stages': start.get('stages', 0),
        'outcome': end.get('outcome', 'running'), 'reason': end.get('reason', ''),
        'seconds': round((end or events[-1])['ts'] - start['ts'], 3) if start and events else None,
        'stages': [stages[index] for index in sorted(stages)],
        'requests': sum(arm.get('requests', 0) for arm in arms), 'failed': sum(arm.get('errors', 0) for arm in arms),
        'rollback': None if back is None else {'seconds': back.get('seconds'), 'reason': back.get('reason'), 'at': back['ts']},
    }


def render(summary: t.Mapping[str, t.Any], journal: str | None = None) -> str:
    """Returns the summary as text of at most about 100 columns."""
    lines = ['', '%s  %s %s → %s  %s' % (
        OUTCOMES.get(summary['outcome'], summary['outcome']), summary['service'], summary['previous_version'] or '?', summary['version'],
        '(%s)' % format_duration(summary['seconds']) if summary['seconds'] is not None else ''), '']
    if summary['stages']:
        lines += _table([('stage', 'asked', 'configured', 'observed', 'arm', 'requests', 'errors', 'P50', 'P95', 'P99', 'verdict')]
                        + [row for stage in summary['stages'] for row in _stage_rows(stage)])
        lines.append('')
    for stage in summary['stages']:
        if stage.get('reason'):
            lines.append('  %d. %s: %s' % (stage['index'], stage.get('label', stage.get('name', '')), _why(stage)))
    for one in summary['approvals']:
        lines.append('  %s was asked "%s": %s' % (one['stage'], one['text'], '%s by %s after %s%s' % (
            one['answer'], one['by'], format_duration(one['seconds']), ' (%s)' % one['reason'] if one['reason'] else '')
            if one['answer'] else 'no answer in %s' % format_duration(one['seconds'])))
    lines.append('')
    lines.append('%d requests seen at the balancers while watching, %d failed.' % (summary['requests'], summary['failed']))
    if summary['rollback'] and summary['rollback']['seconds'] is not None:
        lines.append('Traffic was back %s after the verdict.' % format_duration(summary['rollback']['seconds']))
    if journal:
        lines.append('Journal: %s' % journal)
    if summary['reason'] and summary['outcome'] != 'promoted':
        lines += ['', '%s: %s' % (OUTCOMES.get(summary['outcome'], summary['outcome']), summary['reason'])]
    return '\n'.join(lines)


def _stage_rows(stage: t.Mapping[str, t.Any]) -> t.Iterator[tuple[str, ...]]:
    arms = stage.get('arms') or {}
    asked = stage.get('requested_bp') or {}
    names = [name for name in sorted(arms, key=lambda name: name != stage.get('arm'))
             if name == stage.get('arm') or asked.get(name) or arms[name].get('requests')] or [stage.get('arm', '')]
    for position, name in enumerate(names):
        numbers = arms.get(name, {})
        head = ('%d. %s' % (stage['index'], stage.get('name', '')),
                *(_share(stage.get(key), name) for key in ('requested_bp', 'configured_bp', 'observed_bp')))
        yield (head if not position else ('',) + head[1:]) + (
            name, _count(numbers.get('requests')), _count(numbers.get('errors')),
            _ms(numbers.get('p50_ms')), _ms(numbers.get('p95_ms')), _ms(numbers.get('p99_ms')),
            '' if position else stage.get('verdict') or 'no verdict')


def _why(stage: t.Mapping[str, t.Any]) -> str:
    """Returns the reason of a verdict; of a pass, whose numbers the table has, what was judged, and what did not have to pass."""
    if stage.get('verdict') != 'pass':
        return stage['reason']
    conditions = stage.get('conditions') or []
    others = ['%s: %s' % (one['name'], one['reason']) for one in conditions if one.get('verdict', 'pass') != 'pass']
    passed = ', '.join(one['name'] for one in conditions if one.get('verdict', 'pass') == 'pass')
    return '; '.join(['passed on %s' % passed, *others])


def _share(shares: t.Mapping[str, int] | None, arm: str) -> str:
    return '–' if shares is None else format_share(shares.get(arm, 0))


def _count(value: int | None) -> str:
    return '–' if value is None else '%d' % value


def _ms(value: float | None) -> str:
    return '–' if value is None else '%.0f ms' % value


_LEFT = {0, 4, 10}


def _table(rows: t.Sequence[t.Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ['  ' + '  '.join(
        cell.ljust(width) if i in _LEFT else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
        for row in rows]
    return lines[:1] + ['  ' + '  '.join('─' * width for width in widths)] + lines[1:]
