# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Plots as SVG: no library, no script, nothing to load. Colours are classes that the page's style gives, for light and dark. Pure."""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timezone

from ansible_collections.progressive.delivery.plugins.module_utils._report.markup import Safe, el

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 900, 64, 150, 24, 24
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800, 2592000)
_LINE = 12  # between two labels that would lie on each other

Points = t.Sequence[t.Tuple[float, t.Optional[float]]]


@dataclass(frozen=True)
class Scale:
    """From values to a fraction of the height."""

    kind: str
    """``linear``, ``log``, or ``root`` (a square root: the small stays visible beside the large, and there is a 0)."""
    low: float
    high: float
    ticks: tuple[float, ...]
    tell: t.Callable[[float], str]

    def __call__(self, value: float) -> float:
        if self.kind == 'log':
            value = max(value, self.low)
            at = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            at = (value - self.low) / (self.high - self.low)
            at = math.sqrt(max(at, 0.0)) if self.kind == 'root' else at
        return min(max(at, 0.0), 1.0)


@dataclass(frozen=True)
class Line:
    """*points* are (time, value); a None breaks the line. *mark* draws the points as well."""

    class_: str
    points: Points
    mark: bool = False


@dataclass(frozen=True)
class Limit:
    """A limit that held from *start* to *end*, as the gate had it."""

    class_: str
    value: float
    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Band:
    """A stage: where it lies in time, and how it ended."""

    start: float
    end: float
    label: str
    verdict: str | None


@dataclass(frozen=True)
class Plot:
    """One plot. *id* is unique on the page; *title* and *words* say the same for those who cannot see it."""

    id: str
    title: str
    words: str
    start: float
    end: float
    scale: Scale
    lines: tuple[Line, ...] = ()
    areas: tuple[tuple[str, tuple[tuple[float, float, float], ...]], ...] = ()
    """(class, ((time, lower edge, upper edge), ...)): each holds until the next time."""
    limits: tuple[Limit, ...] = ()
    bands: tuple[Band, ...] = ()
    back: float | None = None
    """When the traffic was back."""
    height: int = field(default=210)

    def x(self, at: float) -> float:
        return LEFT + (min(max(at, self.start), self.end) - self.start) / (self.end - self.start) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return TOP + (1 - self.scale(value)) * (self.height - TOP - BOTTOM)


def svg(plot: Plot) -> Safe:
    """Returns the plot."""
    bottom = plot.height - BOTTOM
    parts: list[t.Any] = [el('title', plot.title, id=plot.id + '-t'), el('desc', plot.words, id=plot.id + '-d')]
    for number, band in enumerate(plot.bands):
        left, right = plot.x(band.start), plot.x(band.end)
        parts.append(el('rect', x=_f(left), y=TOP, width=_f(max(right - left, 0.5)), height=bottom - TOP, class_='band b%d' % (number % 2)))
        if right - left > 7.0 * len(band.label):
            parts.append(el('text', band.label, x=_f((left + right) / 2), y=TOP - 8, text_anchor='middle'))
    for value in plot.scale.ticks:
        y = _f(plot.y(value))
        parts.append(el('line', x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_='grid'))
        parts.append(el('text', plot.scale.tell(value), x=LEFT - 6, y=y, dy='0.32em', text_anchor='end'))
    for at, label in time_ticks(plot.start, plot.end):
        x = _f(plot.x(at))
        parts.append(el('line', x1=x, x2=x, y1=bottom, y2=bottom + 4, class_='axis'))
        parts.append(el('text', label, x=x, y=bottom + 16, text_anchor='middle'))
    for class_, edges in plot.areas:
        parts.append(_area(plot, class_, edges))
    for limit in plot.limits:
        y = _f(plot.y(limit.value))
        parts.append(el('line', x1=_f(plot.x(limit.start)), x2=_f(plot.x(limit.end)), y1=y, y2=y, class_='limit ' + limit.class_))
    parts += _labels(plot)
    for line in plot.lines:
        parts += _line(plot, line)
    for band in plot.bands:
        # The way back lies within its stage and says more.
        if band.verdict is not None and not (plot.back is not None and band.start <= plot.back <= band.end):
            x = plot.x(band.end)
            parts.append(el('line', x1=_f(x), x2=_f(x), y1=TOP, y2=bottom, class_='verdict v-' + _word(band.verdict)))
            parts.append(el('text', '✓' if band.verdict == 'pass' else '✕', x=_f(x), y=TOP + 11, dx=-3, text_anchor='end',
                            class_='v-' + _word(band.verdict)))
    if plot.back is not None:
        x = _f(plot.x(plot.back))
        parts.append(el('line', x1=x, x2=x, y1=TOP, y2=bottom, class_='back'))
        parts.append(el('text', '✕ traffic back', x=x, y=TOP + 11, dx=-4, text_anchor='end', class_='mark-text v-fail'))
    parts.append(el('line', x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_='axis'))
    return el('svg', parts, viewBox='0 0 %d %d' % (WIDTH, plot.height), role='img', aria_labelledby='%s-t %s-d' % (plot.id, plot.id),
              preserveAspectRatio='xMidYMid meet')


def _line(plot: Plot, line: Line) -> list[Safe]:
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in line.points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((plot.x(at), plot.y(value)))
    found = [el('path', d='M' + 'L'.join('%s %s' % (_f(x), _f(y)) for x, y in run), class_='line ' + line.class_)
             for run in runs if len(run) > 1]
    return found + [el('circle', cx=_f(x), cy=_f(y), r=2.2, class_='dot ' + line.class_)
                    for run in runs for x, y in run if line.mark or len(run) == 1]


def _area(plot: Plot, class_: str, edges: t.Sequence[tuple[float, float, float]]) -> Safe:
    upper, lower = [], []
    for position, (at, low, high) in enumerate(edges):
        until = edges[position + 1][0] if position + 1 < len(edges) else plot.end
        for x in (plot.x(at), plot.x(until)):
            upper.append('%s %s' % (_f(x), _f(plot.y(high))))
            lower.append('%s %s' % (_f(x), _f(plot.y(low))))
    return el('path', d='M%sZ' % 'L'.join(upper + lower[::-1]), class_='area ' + class_)


def _labels(plot: Plot) -> list[Safe]:
    """The names of the limits, beside the plot, moved apart where they would cover each other."""
    named = {(limit.label, limit.class_, plot.y(limit.value)) for limit in plot.limits}
    # A report that is made again is the same: no order of a set.
    rows = sorted(named, key=lambda row: (row[2], row[0]))[:10]
    found, last = [], -math.inf
    for label, class_, y in rows:
        last = max(y, last + _LINE)
        found.append(el('text', label, x=WIDTH - RIGHT + 6, y=_f(last), dy='0.32em', class_='limit-text ' + class_))
    return found


def linear(low: float, high: float, tell: t.Callable[[float], str], root: bool = False) -> Scale:
    """Returns a scale from *low* to a round number above *high*, with about five ticks."""
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= 5)
    top = low + math.ceil(span / step - 1e-9) * step
    if root:
        ticks = tuple(top * part for part in (0, 0.01, 0.05, 0.2, 0.5, 1))
    else:
        ticks = tuple(low + step * number for number in range(int(round((top - low) / step)) + 1))
    return Scale('root' if root else 'linear', low, top, ticks, tell)


def log(low: float, high: float, tell: t.Callable[[float], str]) -> Scale:
    """Returns a logarithmic scale that holds *low* and *high* (both above 0), from a 1, 2 or 5 to another."""
    steps = [factor * 10.0 ** power for power in range(-6, 16) for factor in (1, 2, 5)]
    bottom = max((step for step in steps if step <= low * 1.001), default=steps[0])
    top = min((step for step in steps if step >= high * 0.999 and step > bottom), default=steps[-1])
    ticks = [step for step in steps if bottom <= step <= top]
    while len(ticks) > 8:
        ticks = [step for step in ticks if abs(math.log10(step) - round(math.log10(step))) < 1e-6] if len(ticks) > 16 else ticks[::2]
        if len(ticks) > 8:
            ticks = ticks[::-(-len(ticks) // 8)]
    return Scale('log', bottom, top, tuple(ticks), tell)


def time_ticks(start: float, end: float) -> list[tuple[float, str]]:
    """Returns moments (seconds since 1970) at round times of UTC, about six of them, with their labels."""
    span = end - start
    step = next((step for step in _STEPS if span / step <= 7), _STEPS[-1] * math.ceil(span / _STEPS[-1] / 7))
    pattern = '%H:%M:%S' if step < 60 else '%H:%M' if step < 86400 else '%d %b'
    first = math.ceil(start / step)
    return [(number * step, datetime.fromtimestamp(number * step, timezone.utc).strftime(pattern))
            for number in range(first, int(end // step) + 1)]


def _word(value: str) -> str:
    return value if value in ('pass', 'fail') else 'other'


def _f(value: float) -> str:
    return '%.1f' % value
