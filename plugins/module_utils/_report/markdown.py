# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A report as Markdown: for a wiki, a ticket, a chat. Pure."""

from __future__ import annotations

import re
import typing as t
from datetime import tzinfo

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._report import values as r
from ansible_collections.progressive.delivery.plugins.module_utils._report.facts import percent
from ansible_collections.progressive.delivery.plugins.module_utils._report.rows import (
    MARKS, clock, criterion_rows, journal_words, loss_words, stage_rows, stage_words, titled, when)
from ansible_collections.progressive.delivery.plugins.module_utils._report.sentences import TITLES

_SPECIAL = re.compile(r'([\\`*_{}\[\]<>#|~&!])')


def escape(text: object) -> str:
    """Returns *text* on one line, and such that nothing in it is markup."""
    return _SPECIAL.sub(r'\\\1', ' '.join(str(text).split()))


def render(report: r.Report, zone: tzinfo | None = None) -> str:
    """Returns the document. Times are UTC, and of *zone* as well at the top."""
    lines = ['# %s %s: %s' % (MARKS[report.outcome], TITLES[report.outcome], escape(titled(report))), '', escape(report.headline), '']
    for name, text in (('When', when(report, zone)), ('Why', report.why), ('Users hurt', report.hurt),
                       ('By', '%s, rollout %s' % (report.by or 'unknown', report.rollout or '?'))):
        if text:
            lines.append('- **%s**: %s' % (name, escape(text)))
    lines += _list('What to look at', report.follow_up)
    lines += _table('Stages: planned and actual', (
        'stage', 'arm', 'asked', 'configured', 'observed', 'planned', 'watched', 'requests', 'failed', 'P50', 'P95', 'P99', 'verdict'),
        stage_rows(report))
    for stage in report.stages:
        if stage.started is not None:
            lines += _list(stage.label, stage_words(stage), '###')
    lines += _list('Before the first stage', ['%s: %s. %s' % (one['label'], one['verdict'] or 'no verdict', one['reason'])
                                              for one in report.checks], '###')
    lines += _table('Criteria of success', ('criterion', 'target', 'measured', 'verdict', 'measured by'), criterion_rows(report))
    lines += _table('What was lost', ('arm', 'version', '', 'requests', 'failed', ''), [
        (arm.name, arm.version or '–', 'new' if arm.new else 'live before', arm.requests, arm.failed,
         percent(arm.failed / arm.requests) if arm.requests else '–') for arm in report.losses.arms])
    lines += ['', escape(loss_words(report))]
    lines += _table('How long each part took', ('part', 'planned', 'took'), [
        (part.name, '–' if part.planned_s is None else format_duration(part.planned_s), format_duration(part.seconds))
        for part in report.parts])
    lines += _list('Approvals', ['%s UTC %s' % (clock(one.at, None), one.what) for one in report.approvals])
    lines += _table('What happened', ('UTC', ''), [(clock(one.at, None), one.what) for one in report.timeline])
    lines += _list('About this report', [
        'Journal: %s' % (report.journal or '–'), journal_words(report),
        'Versions: %s' % (', '.join('%s %s' % pair for pair in report.tools.items()) or '–')])
    return '\n'.join(lines) + '\n'


def _list(title: str, items: t.Sequence[str], level: str = '##') -> list[str]:
    return ['', '%s %s' % (level, escape(title)), '', *('- %s' % escape(item) for item in items)] if items else []


def _table(title: str, head: t.Sequence[str], rows: t.Sequence[t.Sequence[object]]) -> list[str]:
    if not rows:
        return []
    return ['', '## %s' % escape(title), '', '| %s |' % ' | '.join(head), '|%s' % (' --- |' * len(head)),
            *('| %s |' % ' | '.join(escape(cell) for cell in row) for row in rows)]
