# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the metrics of conditions mean: how each is made from sums of blocks, and how it is told in words."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from fractions import Fraction

from ansible_collections.progressive.delivery.plugins.module_utils._analysis.history import Series, Tally
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import base

ABOVE, BELOW = 'above', 'below'

RATIO, MS, COUNT, RATE, SHARE, PLAIN = 'ratio', 'ms', 'count', 'rate', 'bp', ''
"""Units of values and limits; ratios are 0..1, shares basis points, rates per second."""


def tell(value: float, unit: str) -> str:
    """Returns a value as a person reads it: ``'20.19 %'``, ``'84 ms'``."""
    if unit == RATIO:
        return _short(value * 100, 2) + ' %'
    if unit == SHARE:
        return _short(value / 100, 2) + ' %'
    if unit == MS:
        return _short(value, 0 if abs(value) >= 10 else 1) + ' ms'
    if unit == COUNT:
        return '%d' % value
    if unit == RATE:
        return _short(value, 1) + ' per s'
    return '%.6g' % value


def tell_limit(value: float, unit: str) -> str:
    """Returns a limit with only the decimals it needs: ``'0.5 %'``."""
    if unit in (RATIO, SHARE):
        return '%g %%' % round(value * 100 if unit == RATIO else value / 100, 4)
    return '%g ms' % round(value, 3) if unit == MS else tell(value, unit)


def _short(value: float, digits: int) -> str:
    text = '%.*f' % (digits, value)
    if digits and float(text) == 0 and value:
        return '%.2g' % value
    return text


@dataclass(frozen=True)
class View:
    """One arm over a window or a stage."""

    series: Series
    tally: Tally
    whole: int = 0
    """Requests of all arms in the same time."""


class Measure:
    """A number made from counted requests. *metric* is that of the blocks it needs."""

    unit = PLAIN
    sampled = True
    """Whether the value is a statement about single requests, which needs a minimum of them, and not a count of its own."""

    def __init__(self, metric: str) -> None:
        self.metric = metric

    def n(self, view: View, limit: float) -> int:
        """Returns how many requests the value rests on."""
        return view.tally.requests

    def value(self, view: View, limit: float) -> tuple[float, bool] | None:
        """Returns the value and whether it is a lower bound only; None without data. *limit* only matters to latencies."""
        raise NotImplementedError

    def beyond(self, view: View, limit: float, side: str) -> bool:
        """Returns whether the value lies *side* of *limit*."""
        found = self.value(view, limit)
        return found is not None and (found[0] > limit if side == ABOVE else found[0] < limit)

    def events(self, view: View, limit: float, side: str) -> int | None:
        """Returns how many requests speak against the arm when it is *side* of *limit*; None where that has no meaning."""
        return None

    def floor(self, view: View) -> float:
        """Returns the least that the value of a stable arm counts as when a ratio to it is made."""
        return 0.0

    def told(self, view: View, limit: float) -> str:
        """Returns the value as the middle of a sentence."""
        raise NotImplementedError


class Proportion(Measure):
    """Failed ones in all, or good ones in all."""

    unit = RATIO

    def __init__(self, metric: str, good: bool) -> None:
        super().__init__(metric)
        self.good = good

    def value(self, view: View, limit: float) -> tuple[float, bool] | None:
        requests, bad = view.tally.requests, view.tally.bad
        return ((requests - bad if self.good else bad) / requests, False) if requests else None

    def events(self, view: View, limit: float, side: str) -> int | None:
        return view.tally.bad if (side == BELOW) == self.good else None

    def floor(self, view: View) -> float:
        # A stable arm without any failure: as if one of its requests had failed.
        return 1 / view.tally.requests if view.tally.requests else 0.0

    def told(self, view: View, limit: float) -> str:
        ratio = view.tally.bad / view.tally.requests if view.tally.requests else 0.0
        return '%d of %d %s failed (%s)' % (
            view.tally.bad, view.tally.requests, self.metric, tell(1 - ratio, RATIO) + ' succeeded' if self.good else tell(ratio, RATIO))


class Quantile(Measure):
    """A latency quantile by nearest rank. Requests that still wait, or whose client left, count once they are surely above the limit."""

    unit = MS

    def __init__(self, metric: str, p: Fraction, label: str) -> None:
        super().__init__(metric)
        self.p = p
        self.label = label

    def n(self, view: View, limit: float) -> int:
        return view.tally.latencies.total + self._unanswered(view, limit)

    def value(self, view: View, limit: float) -> tuple[float, bool] | None:
        return view.tally.latencies.quantile(self.p, view.series.beyond(view.tally, limit))

    def beyond(self, view: View, limit: float, side: str) -> bool:
        if side == BELOW:
            return super().beyond(view, limit, side)
        # Nearest rank: the quantile is above the limit exactly when more than 1-p of all are.
        return self._slow(view, limit) > (1 - self.p) * self.n(view, limit)

    def events(self, view: View, limit: float, side: str) -> int | None:
        return self._slow(view, limit) if side == ABOVE else None

    def floor(self, view: View) -> float:
        # HAProxy's timers are whole milliseconds: a stable arm's 0 ms is no basis for a ratio.
        return 1.0

    def told(self, view: View, limit: float) -> str:
        found, unanswered = self.value(view, limit), self._unanswered(view, limit)
        if found is None:
            return 'no latencies'
        return '%s is %s%s (%d of %d requests took longer than %s%s)' % (
            self.label, 'over ' if found[1] else '', tell(found[0], MS), self._slow(view, limit), self.n(view, limit),
            tell_limit(limit, MS),
            ', %d of them without an answer' % unanswered if unanswered else '')

    def _slow(self, view: View, limit: float) -> int:
        return view.tally.latencies.slower_than(limit) + self._unanswered(view, limit)

    def _unanswered(self, view: View, limit: float) -> int:
        return sum(count for _ms, count in view.series.beyond(view.tally, limit))


class Count(Measure):
    """How many requests there were, or how many of them failed; for a second or for the whole time."""

    sampled = False

    def __init__(self, metric: str, bad: bool = False, rate: bool = False) -> None:
        super().__init__(metric)
        self.bad = bad
        self.rate = rate
        self.unit = RATE if rate else COUNT

    def value(self, view: View, limit: float) -> tuple[float, bool] | None:
        seconds = view.tally.seconds
        if seconds <= 0:
            return None
        number = view.tally.bad if self.bad else view.tally.requests
        return (number / seconds if self.rate else float(number), False)

    def told(self, view: View, limit: float) -> str:
        found = self.value(view, limit)
        return '%s %s%s' % (tell(found[0], self.unit) if found else 'no', 'failed ' if self.bad else '', self.metric)


class Share(Measure):
    """The arm's part of the requests of all arms, in basis points."""

    unit = SHARE

    def n(self, view: View, limit: float) -> int:
        return view.whole

    def value(self, view: View, limit: float) -> tuple[float, bool] | None:
        return (view.tally.requests * 10_000 / view.whole, False) if view.whole else None

    def told(self, view: View, limit: float) -> str:
        found = self.value(view, limit)
        return '%d of %d requests (%s)' % (view.tally.requests, view.whole, tell(found[0], SHARE) if found else '–')


def bad_of(metric: str) -> tuple[str, str]:
    """Returns the metrics that a condition may name when it means the bad ones of the counts *metric*."""
    prefix, _single = _parts(metric)
    return prefix + 'errors', prefix + 'error_ratio'


_QUANTILE = re.compile(r'p(\d{1,2}(?:\.\d{1,3})?)')


def metrics_of(offered: t.Mapping[str, str]) -> list[str]:
    """Returns the metrics that conditions may name for a source that offers *offered* (``Source.metrics``)."""
    names: list[str] = []
    for metric, kind in offered.items():
        prefix, single = _parts(metric)
        if kind == base.COUNTS:
            names += [prefix + 'error_ratio', prefix + 'success_ratio', prefix + 'errors', metric, single + '_rate']
            names += ['share_bp'] if metric == base.REQUESTS else []
        elif kind == base.LATENCIES:
            names += ['%s_p50' % metric, '%s_p95' % metric, '%s_p99' % metric]
        else:
            names.append(metric)
    return names


def measure_of(name: str, offered: t.Mapping[str, str]) -> Measure | None:
    """Returns what *name* measures at a source that offers *offered*; None for a gauge.

    Raises KeyError when the source has no such metric.
    """
    if offered.get(name) == base.GAUGE:
        return None
    for metric, kind in offered.items():
        prefix, single = _parts(metric)
        if kind == base.COUNTS:
            found = {
                prefix + 'error_ratio': Proportion(metric, good=False), prefix + 'success_ratio': Proportion(metric, good=True),
                prefix + 'errors': Count(metric, bad=True), metric: Count(metric), single + '_rate': Count(metric, rate=True),
            }
            if metric == base.REQUESTS:
                found['share_bp'] = Share(metric)
            if name in found:
                return found[name]
        elif kind == base.LATENCIES and name.startswith(metric + '_'):
            match = _QUANTILE.fullmatch(name[len(metric) + 1:])
            p = Fraction(match.group(1)) / 100 if match else Fraction(0)
            if p:
                return Quantile(base.REQUESTS if metric == base.LATENCY else metric, p, t.cast('re.Match[str]', match).group())
    raise KeyError(name)


def _parts(metric: str) -> tuple[str, str]:
    """Returns the prefix of a count's derived metrics (none for the requests) and its singular."""
    single = metric[:-1] if metric.endswith('s') else metric
    return ('' if metric == base.REQUESTS else single + '_'), single
