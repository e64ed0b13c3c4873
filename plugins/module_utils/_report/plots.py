# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which plots a report has, and what they say in words. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._analysis.measure import tell, tell_limit
from ansible_collections.progressive.delivery.plugins.module_utils._report import charts as c
from ansible_collections.progressive.delivery.plugins.module_utils._report import values as r
from ansible_collections.progressive.delivery.plugins.module_utils._report.facts import milliseconds, percent
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share

_MOST_ARMS = 8
_MOST_OTHERS = 12
_LEAST_EVIDENCE, _MOST_EVIDENCE = -3.0, 6.0


@dataclass(frozen=True)
class Drawn:
    """A plot with what stands above it: keys are (class, text)."""

    plot: c.Plot
    keys: tuple[tuple[str, str], ...]


class Frame(t.NamedTuple):
    """What all plots share."""

    start: float
    end: float
    bands: tuple[c.Band, ...]
    samples: list[dict[str, t.Any]]
    arms: dict[str, str]
    """Class of each arm: stable is a0."""


def drawn(report: r.Report) -> list[Drawn]:
    """Returns the plots that there are data for."""
    frame = _frame(report)
    if frame is None:
        return []
    found = [_shares(report, frame), _errors(report, frame), _latency(report, frame), _evidence(report, frame)]
    return [one for one in found if one is not None] + _others(report, frame)


def arm_classes(report: r.Report) -> dict[str, str]:
    names = [report.stable, *(stage.arm for stage in report.stages), *(arm.name for arm in report.losses.arms),
             *(arm for step in report.split for arm in step['bp'])]
    distinct = list(dict.fromkeys(name for name in names if name))
    # Without a stable arm that is known, nobody is it.
    first = 0 if report.stable else 1
    return {name: 'a%d' % (first + position) for position, name in enumerate(distinct[:_MOST_ARMS])}


def _frame(report: r.Report) -> Frame | None:
    begun = [stage for stage in report.stages if stage.started is not None]
    if not begun:
        return None
    start = min(stage.started for stage in begun if stage.started is not None)
    samples = [sample for sample in report.samples if sample['ts'] >= start]
    ends = [stage.ended or 0.0 for stage in begun] + [sample['ts'] for sample in samples] + ([report.back.at] if report.back else [])
    end = max(ends + [start])
    if not samples or end - start < 1e-3:
        return None
    # Room behind the last mark.
    end += (end - start) * 0.02
    bands = tuple(c.Band(stage.started or start, min(stage.ended or end, end), stage.label, stage.verdict) for stage in begun)
    return Frame(start, end, bands, samples, arm_classes(report))


def _named(report: r.Report, frame: Frame, arms: t.Iterable[str]) -> tuple[tuple[str, str], ...]:
    new = {arm.name: arm.version for arm in report.losses.arms}
    return tuple((frame.arms[arm], '%s%s' % (arm, ' (%s)' % new[arm] if new.get(arm) else '')) for arm in arms if arm in frame.arms)


def _shares(report: r.Report, frame: Frame) -> Drawn | None:
    order = [arm for arm in frame.arms if arm != report.stable] + ([report.stable] if report.stable in frame.arms else [])
    steps = [step for step in report.split if step['ts'] <= frame.end]
    # What was in force when the first stage began.
    steps = [step for step in steps if step['ts'] <= frame.start][-1:] + [step for step in steps if step['ts'] > frame.start]
    edges: dict[str, list[tuple[float, float, float]]] = {arm: [] for arm in order}
    for step in steps:
        below = 0.0
        for arm in order:
            share = min(step['bp'].get(arm, 0) / 10_000, 1.0)
            edges[arm].append((max(step['ts'], frame.start), below, below + share))
            below += share
    used = [arm for arm in order if any(high > low for _at, low, high in edges[arm])]
    seen = []
    for sample in frame.samples:
        total = sum(arm.get('requests', 0) for arm in sample['arms'].values())
        new = sum(arm.get('requests', 0) for name, arm in sample['arms'].items() if name != report.stable)
        seen.append((sample['ts'], new / total if total else None))
    if not used:
        return None
    most = max((share for step in steps for arm, share in step['bp'].items() if arm != report.stable), default=0)
    words = 'Share of each arm over time. The new version had at most %s of the traffic.' % format_share(most)
    return Drawn(c.Plot(
        'shares', 'Shares of traffic', words, frame.start, frame.end, c.linear(0, 1, percent), bands=frame.bands,
        lines=(c.Line('seen', tuple(seen), True),), areas=tuple((frame.arms[arm], tuple(edges[arm])) for arm in used),
        back=_back(report, frame)),
        (*_named(report, frame, used), ('seen', 'observed of all candidates, sample by sample')))


def _back(report: r.Report, frame: Frame) -> float | None:
    return report.back.at if report.back and frame.start <= report.back.at <= frame.end else None


def _by_arm(frame: Frame, value: t.Callable[[t.Mapping[str, t.Any]], float | None]) -> dict[str, list[tuple[float, float | None]]]:
    """Returns the series of each arm that has one; it breaks where a stage ends."""
    found: dict[str, list[tuple[float, float | None]]] = {arm: [] for arm in frame.arms}
    stage = None
    for sample in frame.samples:
        for arm, points in found.items():
            if stage is not None and sample['stage'] != stage:
                points.append((sample['ts'], None))
            points.append((sample['ts'], value(sample['arms'].get(arm, {}))))
        stage = sample['stage']
    return {arm: points for arm, points in found.items() if any(value is not None for _at, value in points)}


def _limits(report: r.Report, frame: Frame, metric: str, told: t.Callable[[float], str]) -> tuple[c.Limit, ...]:
    found = []
    for band, stage in zip(frame.bands, [one for one in report.stages if one.started is not None]):
        for condition in report.limits.get(stage.label, []):
            if condition.get('metric') == metric and condition.get('compare') == 'value':
                found += _of_condition(condition, band, told)
    return tuple(found)


def _of_condition(condition: t.Mapping[str, t.Any], band: c.Band, told: t.Callable[[float], str]) -> list[c.Limit]:
    return [c.Limit(key, value, band.start, band.end, '%s %s %s' % (word, side, told(value)))
            for key, word in (('abort', 'go back'), ('good', 'pass')) for side, value in condition.get(key, ())]


def _errors(report: r.Report, frame: Frame) -> Drawn | None:
    series = _by_arm(frame, lambda arm: arm.get('errors', 0) / arm['requests'] if arm.get('requests') else None)
    if not series:
        return None
    limits = _limits(report, frame, 'error_ratio', percent)
    worst = {arm: max(value for _at, value in points if value is not None) for arm, points in series.items()}
    highest, allowed = max(worst.values()), max((limit.value for limit in limits), default=0.0)
    scale = c.linear(0, min(max(highest, allowed * 1.4, 0.001), 1.0), percent, root=highest > 4 * allowed > 0)
    return Drawn(c.Plot(
        'errors', 'Failed requests of each arm%s' % (' (root scale)' if scale.kind == 'root' else ''),
        'Share of failed requests in each sample. %s. %s' % (_worst(worst, percent), _told(limits)), frame.start, frame.end, scale,
        lines=_lines(frame, series), limits=limits, bands=frame.bands, back=_back(report, frame)), _named(report, frame, series))


def _latency(report: r.Report, frame: Frame) -> Drawn | None:
    series = _by_arm(frame, lambda arm: arm.get('p95_ms'))
    if not series:
        return None
    limits = _limits(report, frame, 'latency_p95', milliseconds)
    seen = [value for points in series.values() for _at, value in points if value is not None]
    worst = {arm: max(value for _at, value in points if value is not None) for arm, points in series.items()}
    positive = [value for value in seen if value > 0] or [1.0]
    scale = c.log(min(positive), 1.2 * max(positive + [limit.value for limit in limits if limit.value > 0]), milliseconds)
    return Drawn(c.Plot(
        'latency', 'P95 of each arm (logarithmic scale)', 'P95 in each sample. %s. %s' % (_worst(worst, milliseconds), _told(limits)),
        frame.start, frame.end, scale, lines=_lines(frame, series), limits=limits, bands=frame.bands, back=_back(report, frame)),
        _named(report, frame, series))


def _lines(frame: Frame, series: t.Mapping[str, c.Points]) -> tuple[c.Line, ...]:
    # Stable first, so that the candidate is drawn over it.
    return tuple(c.Line(frame.arms[arm], tuple(points), frame.arms[arm] != 'a0') for arm, points in series.items())


def _worst(worst: t.Mapping[str, float], told: t.Callable[[float], str]) -> str:
    return 'At most: %s' % ', '.join('%s %s' % (arm, told(value)) for arm, value in worst.items())


def _told(limits: t.Sequence[c.Limit]) -> str:
    return 'Limits: %s.' % ', '.join(dict.fromkeys(limit.label for limit in limits)) if limits else 'There was no limit.'


def _evidence(report: r.Report, frame: Frame) -> Drawn | None:
    names = list(dict.fromkeys(name for sample in frame.samples for name in sample.get('evidence', {})))[:4]
    if not names:
        return None
    lines, keys, most = [], [], 0.0
    for position, name in enumerate(names):
        for kind, label in (('harm', 'harm'), ('excluded', 'no harm')):
            points: list[tuple[float, float | None]] = []
            for sample in frame.samples:
                value = sample.get('evidence', {}).get(name, {}).get(kind)
                most = max(most, value or 0.0)
                points.append((sample['ts'], None if value is None else min(max(value, _LEAST_EVIDENCE), _MOST_EVIDENCE)))
            if any(value is not None for _at, value in points):
                lines.append(c.Line('e-%s s%d' % (kind, position), tuple(points), kind == 'harm'))
                keys.append(('e-%s s%d' % (kind, position), '%s: evidence of %s' % (name, label)))
    limits = []
    for band, stage in zip(frame.bands, [one for one in report.stages if one.started is not None]):
        for condition in report.limits.get(stage.label, []):
            for key, class_, word in (('harm_limit', 'abort', 'go back at'), ('excluded_limit', 'good', 'no harm proven at')):
                if condition.get('type') == 'sequential' and 0 < condition.get(key, 0) < _MOST_EVIDENCE:
                    limits.append(c.Limit(class_, condition[key], band.start, band.end, '%s %s' % (word, odds(condition[key]))))
    top = min(max(most, 2.0, *(limit.value + 0.5 for limit in limits), 2.0), _MOST_EVIDENCE)
    ticks = tuple(float(power) for power in range(int(_LEAST_EVIDENCE), int(top) + 1))
    highest = 'The evidence of harm reached %s.' % odds(max(
        (value for sample in frame.samples for one in sample.get('evidence', {}).values() for key, value in one.items() if key == 'harm'),
        default=0.0))
    return Drawn(c.Plot(
        'evidence', 'Evidence for and against harm (logarithmic scale)', '%s %s' % (highest, _told(limits)),
        frame.start, frame.end, c.Scale('linear', _LEAST_EVIDENCE, top, ticks, odds), lines=tuple(lines), limits=tuple(limits),
        bands=frame.bands, back=_back(report, frame)), tuple(keys))


def odds(power: float) -> str:
    """Returns how many times more likely than not: ``20 : 1`` of 1.301, ``1 : 100`` of -2."""
    if power < 0:
        return '1 : %s' % odds(-power).partition(' ')[0]
    value = 10 ** min(power, 300)
    return '%s : 1' % ('%.2g' % value if value < 10 else '{:,.0f}'.format(float('%.3g' % value)) if value < 1e7 else '10^%.0f' % power)


def _others(report: r.Report, frame: Frame) -> list[Drawn]:
    """The gates' other conditions, each with its own limits: servers, workers, whatever the service counts."""
    conditions: dict[str, t.Mapping[str, t.Any]] = {}
    for stage in report.stages:
        for condition in report.limits.get(stage.label, []):
            shown = condition.get('metric') in ('error_ratio', 'latency_p95') and condition.get('compare') == 'value'
            if condition.get('type') == 'threshold' and not shown:
                conditions.setdefault(condition['name'], condition)
    made = []
    for number, (name, condition) in enumerate(list(conditions.items())[:_MOST_OTHERS]):
        points = [(sample['ts'], sample.get('values', {}).get(name)) for sample in frame.samples]
        values = [value for _at, value in points if value is not None]
        if not values:
            continue
        unit = condition.get('unit', '')
        limits = tuple(limit for band in frame.bands for limit in _of_condition(condition, band, lambda value: tell_limit(value, unit)))
        every = values + [limit.value for limit in limits]
        scale = c.linear(min(0.0, *every), max(every) if max(every) > min(0.0, *every) else 1.0, lambda value: tell(value, unit))
        words = 'The value was between %s and %s. %s' % (tell(min(values), unit), tell(max(values), unit), _told(limits))
        made.append(Drawn(c.Plot(
            'other%d' % number, '%s (%s of %s)' % (name, condition.get('metric', 'value'), condition.get('arm', 'the candidate')), words,
            frame.start, frame.end, scale, lines=(c.Line('a1', tuple(points), True),), limits=limits, bands=frame.bands,
            back=_back(report, frame), height=150), ()))
    return made
