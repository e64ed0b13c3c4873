# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The rows and words that the HTML and the Markdown have in common. Pure."""

from __future__ import annotations

import typing as t
from datetime import datetime, timezone, tzinfo

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._report import values as r
from ansible_collections.progressive.delivery.plugins.module_utils._report.facts import milliseconds
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share

MARKS = {r.PROMOTED: '✓', r.ROLLED_BACK: '↩', r.FAILED: '✕', r.INTERRUPTED: '✕', r.RUNNING: '…', r.UNKNOWN: '?'}


def titled(report: r.Report) -> str:
    return '%s %s → %s' % (report.service or 'a service', report.previous_version or '?', report.version or '?')


def when(report: r.Report, zone: tzinfo | None) -> str:
    """Returns from when to when, in UTC and in *zone* where that differs."""
    if report.last is None:
        return ''
    start = report.last if report.started is None else report.started
    end = report.last if report.ended is None else report.ended
    text = '%s UTC' % _span(start, end, timezone.utc)
    if report.seconds is not None:
        text += ' (%s)' % format_duration(max(report.seconds, 0))
    if zone is not None and _local(start, zone).utcoffset() != _local(start, timezone.utc).utcoffset():
        text += '; %s %s' % (_span(start, end, zone), _local(start, zone).strftime('%Z'))
    return text


def clock(ts: float, zone: tzinfo | None) -> str:
    return _local(ts, zone or timezone.utc).strftime('%H:%M:%S')


def _span(start: float, end: float, zone: tzinfo) -> str:
    first, last = _local(start, zone), _local(end, zone)
    pattern = '%H:%M:%S' if first.date() == last.date() else '%a %d %b %Y %H:%M:%S'
    return '%s – %s' % (first.strftime('%a %d %b %Y %H:%M:%S'), last.strftime(pattern))


def _local(ts: float, zone: tzinfo) -> datetime:
    try:
        return datetime.fromtimestamp(ts, zone)
    except (OverflowError, ValueError):
        # The last hours of the year 9999, elsewhere.
        return datetime.fromtimestamp(ts, timezone.utc)


def stage_rows(report: r.Report) -> list[list[str]]:
    """Returns a row for each arm of each stage; columns: stage, arm, asked, configured, observed, planned, watched, requests, failed,
    P50, P95, P99, verdict."""
    rows = []
    for stage in report.stages:
        requested = stage.requested_bp or {stage.arm: stage.share_bp}
        names = [stage.arm] + [name for name in {**requested, **stage.arms}
                               if name != stage.arm and (requested.get(name) or stage.arms.get(name, {}).get('requests'))]
        for position, name in enumerate(names):
            arm, first = stage.arms.get(name, {}), not position
            rows.append([
                '%d. %s' % (stage.index, stage.name) if first else '', name, format_share(requested.get(name, 0)),
                _share(stage.configured_bp, name, 'differ' if stage.endpoints else '–'), _share(stage.observed_bp, name, '–'),
                format_duration(stage.planned_s) if first else '',
                ('–' if stage.watched_s is None else format_duration(stage.watched_s)) if first else '',
                _count(arm.get('requests')), _count(arm.get('errors')), *(_ms(arm.get('p%d_ms' % p)) for p in (50, 95, 99)),
                (stage.verdict or ('no verdict' if stage.started is not None else 'not reached')) if first else ''])
    return rows


def _share(shares: t.Mapping[str, int] | None, arm: str, without: str) -> str:
    return without if shares is None else format_share(shares.get(arm, 0))


def _count(value: int | None) -> str:
    return '–' if value is None else '%d' % value


def _ms(value: float | None) -> str:
    return '–' if value is None else milliseconds(value)


def stage_words(stage: r.Stage) -> list[str]:
    """Returns what was judged in a stage and why."""
    words = ['%s: %s%s. %s' % (one['name'], one.get('verdict', 'no verdict').replace('_', ' '),
                               '' if one.get('required', True) else ' (not required)', _capital(one['reason'])) for one in stage.conditions]
    if not words and stage.reason:
        words = [_capital(stage.reason)]
    if stage.extensions:
        words.append('Extended %d time%s.' % (stage.extensions, '' if stage.extensions == 1 else 's'))
    return words + ['Before: %s.' % text.rstrip('.') for text in stage.plan]


def _capital(text: str) -> str:
    return text.rstrip('.') + '.'


def criterion_rows(report: r.Report) -> list[list[str]]:
    return [[one.name, one.target, one.measured or '–', one.verdict, one.basis] for one in report.criteria]


def loss_words(report: r.Report) -> str:
    lost = report.losses
    if lost.basis == 'none':
        return 'Nobody counted requests.'
    span = '' if lost.since is None or lost.until is None else ' from %s to %s UTC' % (clock(lost.since, None), clock(lost.until, None))
    if lost.basis == 'counters':
        return ('Read from the balancers\' own counters%s, so that requests between two watches and during the way back are among them. '
                'A request that a client gave up, or that no balancer got, is in nobody\'s count.' % span)
    return ('As the gates saw them%s. Requests between two watches, during the way back and after it are not among them: '
            'take the number of failed ones as a lower bound.' % span)


def journal_words(report: r.Report) -> str:
    return ' '.join(['%d events.' % report.events, *report.damage])
