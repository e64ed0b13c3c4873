# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A report as one HTML file that needs nothing from outside: no script, no font, no image, no link to load. Pure."""

from __future__ import annotations

import typing as t
from datetime import tzinfo

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._report import values as r
from ansible_collections.progressive.delivery.plugins.module_utils._report.charts import svg
from ansible_collections.progressive.delivery.plugins.module_utils._report.facts import percent
from ansible_collections.progressive.delivery.plugins.module_utils._report.markup import Safe, el, join, table
from ansible_collections.progressive.delivery.plugins.module_utils._report.plots import Drawn, drawn
from ansible_collections.progressive.delivery.plugins.module_utils._report.rows import (
    MARKS, clock, criterion_rows, journal_words, loss_words, when, stage_rows, stage_words, titled)
from ansible_collections.progressive.delivery.plugins.module_utils._report.sentences import TITLES
from ansible_collections.progressive.delivery.plugins.module_utils._report.style import CSS
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share

# Whatever got into the page after all would neither run nor load anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(report: r.Report, zone: tzinfo | None = None) -> str:
    """Returns the page. Times are UTC, and of *zone* as well."""
    title = '%s: %s' % (TITLES[report.outcome], titled(report))
    body = el('main', _head(report, zone), _follow_up(report), _plots(report), _stages(report), _criteria(report), _losses(report),
              _parts(report), _people(report), _timeline(report), _about(report), class_=report.outcome)
    head = el('head', el('meta', charset='utf-8'), el('meta', name='viewport', content='width=device-width,initial-scale=1'),
              el('meta', http_equiv='Content-Security-Policy', content=_POLICY),
              el('meta', name='generator', content='progressive.delivery'), el('title', title), el('style', Safe(CSS)))
    return '<!DOCTYPE html>\n%s\n' % el('html', head, el('body', body), lang='en')


def _head(report: r.Report, zone: tzinfo | None) -> Safe:
    answer, _stop, rest = report.hurt.partition('.')
    tone = {True: 'hurt', False: 'met', None: 'open'}[report.hurt_users]
    rows: list[tuple[str, t.Any]] = [
        ('When', when(report, zone)), ('Why', report.why), ('Users hurt', [el('span', answer + '.', class_=tone), rest]),
        ('By', '%s, rollout %s' % (report.by or 'unknown', report.rollout or '?'))]
    facts = el('dl', [[el('dt', name), el('dd', text)] for name, text in rows if text])
    return el('header', el('h1', el('span', MARKS[report.outcome], class_='mark', aria_hidden='true'), ' ', TITLES[report.outcome], ': ',
                           titled(report)),
              el('p', report.headline, class_='lead'), facts, _tiles(report))


def _tiles(report: r.Report) -> Safe:
    lost = report.losses
    new = {stage.arm for stage in report.stages} - {report.stable}
    highest = max((step['bp'].get(arm, 0) for step in report.split for arm in new), default=0)
    tiles = [('requests counted', 'none') if lost.basis == 'none' else ('requests failed', str(lost.failed))]
    if lost.new_requests:
        tiles.append(('of %d on the new version' % lost.new_requests, percent(lost.new_failed / lost.new_requests)))
    tiles.append(('highest share of the new version', format_share(min(highest, 10_000))))
    if report.back and report.back.seconds is not None:
        tiles.append(('from the verdict until traffic was back', format_duration(report.back.seconds)))
    if report.seconds is not None:
        tiles.append(('whole rollout', format_duration(max(report.seconds, 0))))
    return el('div', [el('div', el('b', value), el('small', name), class_='tile') for name, value in tiles], class_='tiles')


def _follow_up(report: r.Report) -> Safe | None:
    if not report.follow_up:
        return None
    return join([el('h2', 'What to look at'), el('ul', [el('li', text) for text in report.follow_up])])


def _plots(report: r.Report) -> Safe:
    found = drawn(report)
    if not found:
        return join([el('h2', 'Course'), el('p', 'There is nothing to plot: %s' % (
            'no stage began.' if not any(stage.started for stage in report.stages) else
            'the journal has no samples of a stage (a gate that runs on a target host sends its sums only).'), class_='dim')])
    return join([el('h2', 'Course'), el('p', 'Times are UTC. Each stage is a band; ✓ and ✕ are the verdicts.', class_='dim'),
                 [_figure(one) for one in found]])


def _figure(one: Drawn) -> Safe:
    keys = [el('span', el('svg', el('path', d='M0 4H30', class_='key ' + class_), viewBox='0 0 30 8', aria_hidden='true'), text)
            for class_, text in one.keys]
    return el('figure', el('figcaption', el('h3', one.plot.title), el('p', keys, class_='keys') if keys else None), svg(one.plot))


def _stages(report: r.Report) -> Safe:
    rows = [[*row[:-1], _verdict(row[-1])] for row in stage_rows(report)]
    head = ('Stage', 'arm', 'asked', 'configured', 'observed', 'planned', 'watched', 'requests', 'failed', 'P50', 'P95', 'P99', 'verdict')
    words = [[el('h3', stage.label), el('ul', [el('li', text) for text in stage_words(stage)])]
             for stage in report.stages if stage.started is not None]
    checks = [el('p', '%s: ' % check['label'], _verdict(check['verdict'] or 'no verdict'), '. ', check['reason'])
              for check in report.checks]
    return join([el('h2', 'Stages: planned and actual'), table(head, rows, range(2, 12)) if rows else el('p', 'The plan is not known.'),
                 checks, el('details', el('summary', 'Verdicts and reasons'), words, open='') if words else None])


def _verdict(verdict: str) -> Safe:
    return el('span', verdict.replace('_', ' '), class_=verdict if verdict in ('pass', 'fail') else
              None if verdict in ('not reached', '') else 'open')


def _criteria(report: r.Report) -> Safe:
    rows = [[*row[:3], el('span', row[3], class_={r.MET: 'met', r.MISSED: 'missed', r.NOT_MEASURED: 'open'}.get(row[3], 'dim')), row[4]]
            for row in criterion_rows(report)]
    return join([el('h2', 'Criteria of success'), table(('Criterion', 'target', 'measured', 'verdict', 'measured by'), rows, (1, 2))])


def _losses(report: r.Report) -> Safe:
    lost = report.losses
    rows = [(arm.name, arm.version or '–', 'new' if arm.new else 'live before', '%d' % arm.requests, '%d' % arm.failed,
             percent(arm.failed / arm.requests) if arm.requests else '–') for arm in lost.arms]
    return join([el('h2', 'What was lost'), table(('Arm', 'version', '', 'requests', 'failed', ''), rows, (3, 4, 5)) if rows else None,
                 el('p', loss_words(report), class_='dim')])


def _parts(report: r.Report) -> Safe | None:
    if not report.parts:
        return None
    rows = [(part.name, '–' if part.planned_s is None else format_duration(part.planned_s), format_duration(part.seconds))
            for part in report.parts]
    if report.seconds is not None:
        rows.append(('All of it', '–', format_duration(max(report.seconds, 0))))
    return join([el('h2', 'How long each part took'), table(('Part', 'planned', 'took'), rows, (1, 2))])


def _people(report: r.Report) -> Safe | None:
    if not report.approvals:
        return None
    return join([el('h2', 'Approvals'), el('ul', [el('li', '%s UTC %s' % (clock(one.at, None), one.what))
                                                  for one in report.approvals])])


def _timeline(report: r.Report) -> Safe | None:
    if not report.timeline:
        return None
    first = report.timeline[0].at
    rows = [(clock(one.at, None), '+%s' % format_duration(round(max(one.at - first, 0), 2)), one.what) for one in report.timeline]
    return join([el('h2', 'What happened'), table(('UTC', 'after', ''), rows, (1,))])


def _about(report: r.Report) -> Safe:
    rows: list[tuple[str, t.Any]] = [
        ('Journal', el('code', report.journal or '–')), ('', journal_words(report)),
        ('Strategy', (report.strategy or '–').replace('_', '-')),
        ('Versions', ', '.join('%s %s' % pair for pair in report.tools.items()) or '–')]
    again = el('code', 'ansible-playbook progressive.delivery.report -e delivery_journal=PATH')
    return join([el('h2', 'About this report'), el('p', 'Made from the journal and from nothing else: ', again, ' makes it again.',
                                                   class_='dim'),
                 el('dl', [[el('dt', name), el('dd', value)] for name, value in rows])])
