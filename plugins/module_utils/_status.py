# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How a service stands at this moment, from the routers, its journal and its lock; and that as one screen of text. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._analysis.measure import tell, tell_limit
from ansible_collections.progressive.delivery.plugins.module_utils._display import clock, fit
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._report import rows
from ansible_collections.progressive.delivery.plugins.module_utils._report import values as r
from ansible_collections.progressive.delivery.plugins.module_utils._report.facts import milliseconds, percent
from ansible_collections.progressive.delivery.plugins.module_utils._report.plots import odds
from ansible_collections.progressive.delivery.plugins.module_utils._report.sentences import TITLES
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share, observed_bp

_LAST_EVENTS = 6
_GOOD, _BAD, _OPEN, _DIM, _BOLD = '32', '31', '33', '2', '1'
_COLOURS = {r.PROMOTED: _GOOD, r.ROLLED_BACK: _BAD, r.FAILED: _BAD, r.INTERRUPTED: _BAD, r.RUNNING: _OPEN, r.UNKNOWN: _OPEN,
            'pass': _GOOD, 'fail': _BAD}


def status(info: t.Mapping[str, t.Any] | None, report: r.Report | None, now: float, problem: str | None = None) -> dict[str, t.Any]:
    """Returns the state as plain data. *info* is what ``traffic_weight_info`` returned, None when the routers were not asked; *report*
    that of the service's last journal; *problem* why one of them is missing. Shares in basis points, times in seconds."""
    told: dict[str, t.Any] = {
        'service': (info or {}).get('service') or (report.service if report else None), 'at': round(now, 3),
        'stable': (info or {}).get('stable'), 'version': (info or {}).get('version'), 'moving': (info or {}).get('moving'),
        'routers': (info or {}).get('endpoints', []), 'routers_text': str((info or {}).get('text', '')).split('\n')[1:],
        'configured_bp': (info or {}).get('configured', {}), 'problem': problem, 'rollout': None}
    if report is not None and report.events:
        told['rollout'] = _rollout(report, now)
        left = [one['lease_left_s'] for one in told['routers'] if one.get('ok') and one.get('lease_left_s') is not None]
        if left:
            told['rollout']['lease_left_s'] = round(min(left), 3)
    return told


def _rollout(report: r.Report, now: float) -> dict[str, t.Any]:
    begun = [stage for stage in report.stages if stage.started is not None]
    stage = begun[-1] if begun else None
    found: dict[str, t.Any] = {
        'id': report.rollout, 'outcome': report.outcome, 'running': report.outcome == r.RUNNING, 'version': report.version,
        'previous_version': report.previous_version, 'strategy': report.strategy, 'by': report.by, 'started': report.started,
        'ended': report.ended, 'headline': report.headline, 'why': report.why if report.outcome != r.RUNNING else '',
        'requests': report.losses.requests, 'failed': report.losses.failed, 'stages': len(report.stages),
        'journal': report.journal, 'lease_left_s': None, 'stage': None, 'conditions': [], 'arms': {}, 'evidence': {},
        'asked': report.waits.what if report.waits else None,
        'last_events': [{'at': one.at, 'what': one.what} for one in report.timeline[-_LAST_EVENTS:]]}
    if stage is None or stage.started is None:
        return found
    samples = [sample for sample in report.samples if sample['stage'] == stage.label and sample['ts'] >= stage.started]
    last = samples[-1] if samples else None
    arms = stage.arms or _so_far(samples)
    found.update(
        arms=arms, requested_bp=stage.requested_bp, configured_bp=stage.configured_bp,
        observed_bp=stage.observed_bp or observed_bp({name: arm.get('requests', 0) for name, arm in arms.items()}),
        stage={'index': stage.index, 'name': stage.name, 'label': stage.label, 'arm': stage.arm, 'verdict': stage.verdict,
               'planned_s': stage.planned_s, 'at_s': stage.watched_s if stage.watched_s is not None else last and last.get('at_s'),
               'started': stage.started})
    if last is not None:
        found.update(evidence=last.get('evidence', {}), conditions=[
            _condition(condition, last) for condition in report.limits.get(stage.label, [])])
        if last.get('lease_s') is not None and stage.ended is None:
            found['lease_left_s'] = round(last['lease_s'] - (now - last['ts']), 3)
    return found


def _so_far(samples: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, dict[str, t.Any]]:
    """Requests of the stage so far; of quantiles, those of the last sample that has some."""
    arms: dict[str, dict[str, t.Any]] = {}
    for sample in samples:
        for name, arm in sample['arms'].items():
            into = arms.setdefault(name, {'requests': 0, 'errors': 0})
            for key, value in arm.items():
                into[key] = into[key] + value if key in ('requests', 'errors') else value
    return arms


def _condition(condition: t.Mapping[str, t.Any], sample: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    name, unit = condition['name'], condition.get('unit', '')
    value = sample.get('values', {}).get(name)
    found = {'name': name, 'value': value, 'unit': unit, 'state': 'no data' if value is None else 'ok',
             'told': '–' if value is None else tell(value, unit), 'limits': ''}
    if condition.get('type') == 'sequential':
        harm, limit = sample.get('evidence', {}).get(name, {}).get('harm'), condition.get('harm_limit')
        if harm is not None and limit is not None:
            found.update(told='harm %s' % odds(harm), limits='go back at %s' % odds(limit),
                         state='beyond' if harm >= limit else 'not yet' if harm > limit / 2 else 'ok')
        return found
    sides = [(word, side, limit) for word, key in (('go back', 'abort'), ('pass', 'good')) for side, limit in condition.get(key, ())]
    found['limits'] = ', '.join('%s %s %s' % (word, side, tell_limit(limit, unit)) for word, side, limit in sides)
    if value is not None:
        beyond = [(word, (value > limit) == (side == 'above') and value != limit) for word, side, limit in sides]
        if any(word == 'go back' and out for word, out in beyond):
            found['state'] = 'beyond'
        elif any(word == 'pass' and not inside for word, inside in beyond):
            found['state'] = 'not yet'
    return found


def render(told: t.Mapping[str, t.Any], columns: int = 100, colours: bool = False) -> str:
    """Returns the state as one screen; with *colours*, words that matter carry ANSI colours. No line is wider than *columns*."""
    def paint(text: str, colour: str | None) -> str:
        return '\x1b[%sm%s\x1b[0m' % (colour, text) if colours and colour else text

    lines: list[tuple[str, str | None]] = []
    rollout = told['rollout']
    if rollout is None:
        lines += [('%s  no rollout on record' % (told['service'] or 'a service'), _BOLD), ('', None)]
    else:
        lines += _rollout_lines(told, rollout)
    lines.append(('Routers', _BOLD))
    lines += [(text, _BAD if ': no answer' in text else None) for text in told['routers_text']] or [('  not asked', _DIM)]
    if rollout is not None:
        lines += [('', None), ('Last events (UTC)', _BOLD)]
        lines += [('  %s  %s' % (rows.clock(one['at'], None), one['what']), None) for one in rollout['last_events']]
        lines += [('', None), ('Journal: %s' % (rollout['journal'] or '–'), _DIM)]
    if told['problem']:
        lines.append((told['problem'], _BAD))
    return '\n'.join(paint(fit(text.replace('\n', ' '), columns), colour) for text, colour in lines)


def _rollout_lines(told: t.Mapping[str, t.Any], rollout: t.Mapping[str, t.Any]) -> list[tuple[str, str | None]]:
    since = rollout['started']
    lines: list[tuple[str, str | None]] = [
        ('%s %s → %s  %s' % (told['service'] or '?', rollout['previous_version'] or '?', rollout['version'] or '?',
                             TITLES[rollout['outcome']].upper()), _COLOURS[rollout['outcome']]),
        ('%s by %s%s' % (rollout['id'] or '?', rollout['by'] or 'unknown', '' if since is None else ', %s ago' % format_duration(
            max(round(told['at'] - since), 0))), _DIM)]
    if not rollout['running']:
        lines.append((rollout['headline'], None))
        if rollout['why']:
            lines.append((rollout['why'], None))
    if rollout['asked']:
        lines.append(('WAITING: %s' % rollout['asked'], _OPEN))
    stage = rollout['stage']
    if stage is None:
        return [*lines, ('', None)]
    at = '' if stage['at_s'] is None else '  %s/%s' % (clock(stage['at_s']), clock(stage['planned_s']))
    lease = rollout['lease_left_s']
    lines += [('', None), ('Stage %d of %d: %s (%s)%s%s%s' % (
        stage['index'], rollout['stages'], stage['name'], stage['label'], at,
        '' if lease is None else '  lease %s' % ('%.1f s left' % lease if lease > 0 else 'has run out'),
        '  verdict %s' % stage['verdict'] if stage['verdict'] else ''), _COLOURS.get(stage['verdict'] or '', _BOLD))]
    lines += [(line, None) for line in _arm_lines(told, rollout, stage)]
    for one in rollout['conditions']:
        colour = {'beyond': _BAD, 'not yet': _OPEN, 'no data': _DIM}.get(one['state'])
        lines.append(('  %-24s %14s  %-12s %s' % (fit(one['name'], 24), one['told'], one['state'], one['limits']), colour))
    failed = '%d of %d requests failed so far' % (rollout['failed'], rollout['requests'])
    return [*lines, ('  ' + failed, _BAD if rollout['failed'] else None), ('', None)]


def _arm_lines(told: t.Mapping[str, t.Any], rollout: t.Mapping[str, t.Any], stage: t.Mapping[str, t.Any]) -> list[str]:
    asked = rollout.get('requested_bp') or {}
    stored = list(told['configured_bp'].values()) if rollout['running'] else [rollout.get('configured_bp') or {}]
    names = [name for name in dict.fromkeys([stage['arm'], *asked, *(arm for one in stored for arm in one), *rollout['arms']])
             if name in asked or any(one.get(name) for one in stored) or rollout['arms'].get(name, {}).get('requests')]
    table = [('arm', 'asked', 'configured', 'observed', 'requests', 'failed', 'errors', 'P50', 'P95', 'P99')]
    for name in names:
        arm = rollout['arms'].get(name, {})
        requests = arm.get('requests', 0)
        there = {one.get(name, 0) for one in stored if one}
        table.append((
            name, format_share(asked.get(name, 0)), '–' if not there else format_share(there.pop()) if len(there) == 1 else 'differ',
            '–' if not rollout.get('observed_bp') else format_share(rollout['observed_bp'].get(name, 0)), '%d' % requests,
            '%d' % arm.get('errors', 0), percent(arm.get('errors', 0) / requests) if requests else '–',
            *('–' if arm.get('p%d_ms' % p) is None else milliseconds(arm['p%d_ms' % p]) for p in (50, 95, 99))))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ['  ' + '  '.join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zip(row, widths)))
            for row in table] + ['']
