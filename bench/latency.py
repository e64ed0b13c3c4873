# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Latency from histogram buckets (table 5.4): lognormal answers, median 80 ms, 99th percentile 323 ms, Prometheus' default buckets."""

from __future__ import annotations

import math
import random
import typing as t

import rules as r
import sampling as s
import tables

from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import ArmsBlock, Question, SequentialState

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
AROUND = (0.1, 0.25, 0.5)
"""The bounds around the baseline's 50th, 95th and 99th percentile."""
SIGMA = 0.6
CANARIES: dict[str, tuple[float, float]] = {
    'A/A': (1.0, 0.0), 'all x1.1': (1.1, 0.0), 'all x1.25': (1.25, 0.0), 'all x2': (2.0, 0.0),
    '2 % slow': (1.0, 0.02), '10 % slow': (1.0, 0.1)}
"""Each canary's factor, and the part of its answers that takes 1.1 s instead."""

Histogram = t.List[int]
"""Answers in each bucket; the last is beyond all bounds."""


def shape(factor: float, slow: float) -> list[float]:
    """Returns the probability of each bucket."""
    below = [0.5 * math.erfc(-math.log(bound / (0.08 * factor)) / (SIGMA * math.sqrt(2))) for bound in BOUNDS]
    below = [(1 - slow) * p + slow * (bound >= 1.1) for p, bound in zip(below, BOUNDS)] + [1.0]
    return [high - low for low, high in zip([0.0, *below], below)]


def above(histogram: Histogram, bound: float) -> int:
    return sum(histogram[BOUNDS.index(bound) + 1:])


def quantile(histogram: Histogram, p: float) -> float:
    """Prometheus' interpolated ``histogram_quantile``."""
    rank, seen, low = p * sum(histogram), 0, 0.0
    for count, bound in zip(histogram, BOUNDS):
        if seen + count >= rank and count:
            return low + (bound - low) * (rank - seen) / count
        seen, low = seen + count, bound
    return BOUNDS[-1]


class Rule(t.Protocol):
    def update(self, baseline: Histogram, canary: Histogram) -> bool:
        """Takes in one peek; returns whether the canary is stopped."""


class Percentile:
    """The last ten seconds' P99 above 500 ms."""

    def update(self, baseline: Histogram, canary: Histogram) -> bool:
        return above(canary, 0.5) > 0.01 * sum(canary)


class MannWhitney:
    """Kayenta's judge on the P99 of each interval, from 10 points."""

    def __init__(self) -> None:
        self.judge = r.Kayenta(10)

    def update(self, baseline: Histogram, canary: Histogram) -> bool:
        return self.judge.point(quantile(canary, 0.99), quantile(baseline, 0.99))


class Band:
    """Howard and Ramdas' time-uniform bands of both distributions, apart at some bound."""

    def __init__(self) -> None:
        self.baseline, self.canary = [0] * (len(BOUNDS) + 1), [0] * (len(BOUNDS) + 1)

    def update(self, baseline: Histogram, canary: Histogram) -> bool:
        self.baseline = [x + y for x, y in zip(self.baseline, baseline)]
        self.canary = [x + y for x, y in zip(self.canary, canary)]
        n_b, n_c = sum(self.baseline), sum(self.canary)
        if not n_b or not n_c:
            return False
        room = sum(0.85 * math.sqrt((math.log(math.log(math.e * n)) + 0.8 * math.log(1612 / (r.ALPHA / 2))) / n) for n in (n_b, n_c))
        return any(above(self.canary, bound) / n_c - above(self.baseline, bound) / n_b > room for bound in BOUNDS)


class Sequential:
    """Ours: a condition for each of *bounds*, which share alpha evenly, so that their mean decides."""

    def __init__(self, bounds: t.Sequence[float], rps: float) -> None:
        self.names = {'slower than %g s' % bound: bound for bound in bounds}
        self.state = SequentialState([Question(name) for name in self.names], r.ALPHA)
        for name, bound in self.names.items():
            self.state.history(name, round(sum(shape(1, 0)[BOUNDS.index(bound) + 1:]) * rps * 60), round(rps * 60))

    def update(self, baseline: Histogram, canary: Histogram) -> bool:
        self.state.update({name: ArmsBlock(r.ep.Counts(above(baseline, bound), sum(baseline), above(canary, bound), sum(canary)), 10.0)
                           for name, bound in self.names.items()})
        return self.state.failed is not None


def latency(rps: float, replicates: int, seed: str, ours_only: bool = False) -> tables.Table:
    """Table 5.4."""
    rows: dict[str, t.Callable[[], Rule]] = {
        "last 10 s' P99 > 500 ms": Percentile, 'Mann-Whitney on P99, from 10 points': MannWhitney, 'Howard-Ramdas bands': Band,
        'F2 at 250 ms': lambda: Sequential((0.25,), rps), 'F2, mean of three bounds': lambda: Sequential(AROUND, rps),
        'F2, mean of all bounds': lambda: Sequential(BOUNDS, rps)}
    rows = {name: make for name, make in rows.items() if not ours_only or name.startswith('F2')}
    table: tables.Table = {name: {} for name in rows}
    usual = shape(1, 0)
    for column, (factor, slow) in CANARIES.items():
        cells = {name: table[name].setdefault(column, tables.Cell()) for name in rows}
        theirs = shape(factor, slow)
        for replicate in range(replicates):
            chance = random.Random('%s/5.4/%g/%s/%d' % (seed, rps, column, replicate))
            waiting = {name: make() for name, make in rows.items() if name != 'Mann-Whitney on P99, from 10 points' or not replicate % 4}
            for peek in range(1, r.PEEKS + 1):
                if not waiting:
                    break
                baseline = [s.poisson(chance, rps * 9.5 * p) for p in usual]
                canary = [s.poisson(chance, rps * 0.5 * p) for p in theirs]
                for name, rule in list(waiting.items()):
                    if rule.update(baseline, canary):
                        cells[name].peeks.append(peek)
                        del waiting[name]
            for name in waiting:
                cells[name].peeks.append(None)
    return table
