# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""An A/B test as a person reads it: the plan, the table of a look, the report. Pure."""

from __future__ import annotations

import typing as t
from math import inf

from ansible_collections.progressive.delivery.plugins.module_utils._ab_counts import Look
from ansible_collections.progressive.delivery.plugins.module_utils._ab_design import Design
from ansible_collections.progressive.delivery.plugins.module_utils._ab_judge import Judged
from ansible_collections.progressive.delivery.plugins.module_utils._ab_record import Test
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import experiment as e
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import percent
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._journal import iso
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import ROUTER
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, format_share

VERDICTS = {e.WINNER: 'WINNER', e.EQUIVALENT: 'EQUIVALENT', e.KEEP_RUNNING: 'KEEP RUNNING', e.INVALID: 'INVALID', e.HARMFUL: 'HARMFUL',
            e.NO_DATA: 'NO DATA'}


def plan(service: str, design: Design, rollout: str, by: str, before: Look, seconds: float, check_mode: bool) -> str:
    """Returns the plan; *before* is what was counted in the *seconds* before."""
    count, metric = design.metrics[0]
    lines = ['', 'A/B test of %s, %s by %s%s' % (service, rollout, by, ' (check mode: nothing will be changed)' if check_mode else '')]
    lines += ['  %-12s %8s  on %s%s%s' % (
        name, format_share(one.share), one.arm, ', version %s' % one.version if one.version else '',
        ', what serves everybody now' if name == design.control else '') for name, one in design.arms.items()]
    lines.append('  for %s; users keep their arm; decided by %s (%s is better)%s' % (
        format_duration(design.duration), metric.name, 'more' if metric.direction > 0 else 'less',
        ''.join(', beside it %s' % other.name for _count, other in design.metrics[1:])))
    guards = ', '.join(question.name for _count, question in design.guards)
    lines.append('  guardrails: %s' % (guards or 'NONE, nothing takes a bad variant out'))
    lines.append('  without anybody: traffic is back on %s %s after the beginning' % (
        design.control, format_duration(design.lease_s(design.duration + design.grace))))
    total = e.Tally(0, 0) if count.source == ROUTER else before.counted.get(count.name, {}).get(design.control, e.Tally(0, 0))
    return '\n'.join(lines + ['  ' + line for line in _detects(design, metric, total, seconds)])


def _detects(design: Design, metric: e.Metric, before: e.Tally, seconds: float) -> list[str]:
    """Says what the test can find, from what control did in the *seconds* before: all of the traffic."""
    if not before.events:
        return ['what it can find is told by the first analysis: there are no counts of %s yet' % metric.name]
    share = min(design.shares[name] for name in design.variants) / TOTAL
    parts = (design.shares[design.control] / TOTAL, share)
    rate = before.events / before.total

    def found(duration: float) -> float | None:
        trials = before.total * duration / seconds
        return e.detectable_lift(rate, trials * parts[0], trials * parts[1], len(design.variants), design.alpha, metric.direction,
                                 metric.burst)

    lift = found(design.duration)
    lines = ['at %.3g trials per second and %s %s, nine of ten such tests find a lift of %s or more in %s' % (
        before.total / seconds, percent(rate), metric.name, e.signed(lift), format_duration(design.duration)) if lift is not None else
        'with %d trials in the hour before, %s cannot be decided in %s' % (before.total, metric.name, format_duration(design.duration))]
    if design.effect:
        enough = next((duration for duration in (design.duration * 2 ** (step / 4) for step in range(-40, 25))
                       if abs(found(duration) or inf) <= design.effect), None)
        lines.append('WARNING: the test is too short for a lift of %s%s' % (
            percent(design.effect), '' if enough is None else ': that takes up to %s' % format_duration(enough))
            if enough is None or enough > design.duration * 1.001 else 'a lift of %s takes up to %s' % (
                percent(design.effect), format_duration(enough)))
    return lines


def table(design: Design, judged: t.Mapping[str, t.Any]) -> str:
    """Returns one table for each metric, as a look saw them."""
    lines = []
    for position, (_count, metric) in enumerate(design.metrics):
        rows = [('arm', 'share', 'trials', 'events', 'rate', 'between', 'lift', 'between', 'p')]
        for name, numbers in judged['metrics'].get(metric.name, {}).items():
            low, high = numbers['rate_interval']
            lift = numbers.get('lift_interval')
            rows.append((name, format_share(design.shares[name]), str(numbers['total']), str(numbers['events']),
                         percent(numbers['rate']) if numbers['rate'] is not None else '?', '%s and %s' % (percent(low), percent(high)),
                         e.signed(numbers.get('lift')) if lift else 'control',
                         '%s and %s' % tuple(e.signed(value) for value in lift) if lift else '', '%.2g' % numbers['p'] if lift else ''))
        lines += ['', '%s%s' % (metric.name, ', which decides' if not position else '')] + _columns(rows)
    ratio = judged['ratio']
    lines += ['', '%s: %s' % ('the sample follows the split' if ratio['ok'] else 'THE SAMPLE DOES NOT FOLLOW THE SPLIT', ratio['text'])]
    lines += ['%s guards: %s' % (name, sentence) for _variant, told in judged['guardrails'].items() for name, sentence in told.items()]
    return '\n'.join(lines)


def _columns(rows: t.Sequence[t.Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ['  ' + '  '.join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
            for row in rows]


def verdict(judged: Judged, left_s: float) -> str:
    """Returns the verdict of a look in one sentence, and what comes next."""
    line = '%s: %s.' % (VERDICTS[judged.verdict], judged.reason)
    if judged.verdict in (e.WINNER, e.EQUIVALENT):
        line += ' Conclude the test.'
    elif judged.verdict == e.KEEP_RUNNING:
        line += ' %s to go' % format_duration(left_s) if left_s > 0 else ' Its time is over: conclude the test'
        if judged.detectable is not None and left_s > 0:
            line += '; by then nine of ten tests with this traffic find a lift of %s' % e.signed(judged.detectable)
        line += '.'
    return line


def status(design: Design, test: Test, live: bool, now: float, errors: t.Sequence[str]) -> str:
    """Returns how far the test is."""
    lines = ['A/B test %s by %s' % (test.id, test.by)]
    if not test.started:
        lines.append('  planned, never begun')
    elif not test.running:
        lines.append('  over: %s' % test.outcome_text)
    else:
        lines.append('  since %s, until %s (%s)%s' % (
            iso(test.began), iso(test.ends), '%s to go' % format_duration(test.ends - now) if now < test.ends else 'its time is over',
            '' if live or errors else ': its split is NOT in force any more'))
    if test.last:
        lines += ['  %d look%s, the last with counts on %s: %s: %s' % (
            test.looks, '' if test.looks == 1 else 's', iso(test.last['at']), VERDICTS[test.last['verdict']], test.last['reason'])]
    return '\n'.join(lines + ['  ' + error for error in errors])


def report(design: Design, test: Test, journal: str) -> str:
    """Returns the account of a test that is over."""
    ended = test.concluded or {}
    to = float(ended.get('ts') or test.ends)
    lines = ['', 'A/B test %s: %s' % (test.id, test.outcome_text), '  from %s to %s (%s), begun by %s, %d look%s' % (
        iso(test.began), iso(to), format_duration(max(to - test.began, 0.0)), test.by, test.looks, '' if test.looks == 1 else 's')]
    if test.last:
        lines += [table(design, test.last), '', '%s: %s.' % (VERDICTS[test.last['verdict']], test.last['reason'])]
    return '\n'.join(lines + ['Journal: %s' % journal])
