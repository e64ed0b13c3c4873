# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The experiments: each draws bakes, lets rules watch them, and returns rows of outcomes. Seeded: the same arguments give the same rows."""

from __future__ import annotations

import math
import random
import typing as t
from dataclasses import dataclass, field

import rules as r
import sampling as s

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _counts as counts

HEALTHY = 0.001
RATES = (0.005, 0.01, 0.05, 0.5)
POLL_S = 10.0
HISTORY_POLLS = 60


@dataclass
class Cell:
    """What one rule did in one condition: the peek of each alarm, None for each bake without one."""

    peeks: list[int | None] = field(default_factory=list)

    @property
    def share(self) -> float:
        return sum(peek is not None for peek in self.peeks) / len(self.peeks)

    def seconds(self, part: float) -> float:
        """Returns the time within which that *part* of all bakes was stopped; infinite when fewer were."""
        done = sorted(math.inf if peek is None else peek * POLL_S for peek in self.peeks)
        return done[max(0, math.ceil(part * len(done)) - 1)]

    def alarms_text(self) -> str:
        return '%.2g %%' % (self.share * 100) if self.share < 0.1 else '%.0f %%' % (self.share * 100)

    def after_begin(self) -> 'Cell':
        """Returns the same without the bakes that were stopped before the time counts from."""
        return Cell([peek for peek in self.peeks if peek is None or peek > 0])

    def late_text(self) -> str:
        """Times after the moment that the candidate turned bad; before them, the share that was stopped when it was still healthy."""
        early = Cell([peek if peek is not None and peek <= 0 else None for peek in self.peeks])
        after = self.after_begin()
        text = after.times_text() if after.peeks else 'none left'
        return text if early.share < 0.02 else '%s too early; %s' % (early.alarms_text(), text)

    def times_text(self) -> str:
        """Median and 90 % of those that were stopped, in seconds; the share before it where it is below 99 %."""
        stopped = Cell([peek for peek in self.peeks if peek is not None])
        if not stopped.peeks:
            return 'never'
        text = '%.0f/%.0f' % (stopped.seconds(0.5), stopped.seconds(0.9))
        return text if self.share >= 0.99 else '%s: %s' % (self.alarms_text(), text)


Table = t.Dict[str, t.Dict[str, Cell]]
"""Rows by name, each with cells by name."""
Maker = t.Callable[[t.Sequence[s.ArmsBlock], float], r.Rule]
"""Makes a rule for one bake, of the history's blocks and the requests per second."""


@dataclass(frozen=True)
class Row:
    """A rule of a table. A *costly* one watches a quarter of the bakes."""

    name: str
    make: Maker
    ours: bool = False
    costly: bool = False


def _known(rps: float) -> tuple[float, float]:
    return HEALTHY * rps * 600, rps * 600


ALL_ROWS = [
    Row('last 10 s > 1 %, first failure (Argo)', lambda history, rps: r.Argo()),
    Row('60 s > 1 %, 5 failed checks (Flagger)', lambda history, rps: r.Flagger()),
    Row('z-test at every peek', lambda history, rps: r.RepeatedZ()),
    Row('Kayenta Mann-Whitney, from 2 points', lambda history, rps: r.Kayenta(2), costly=True),
    Row('Kayenta Mann-Whitney, from 10 points', lambda history, rps: r.Kayenta(10), costly=True),
    Row('Kayenta Mann-Whitney, from 50 points', lambda history, rps: r.Kayenta(50), costly=True),
    Row("O'Brien-Fleming, continuous", lambda history, rps: r.OBrienFleming()),
    Row('exact binomial, alpha/180 a peek', lambda history, rps: r.ExactBinomial()),
    Row('asymptotic sequence (GrowthBook)', lambda history, rps: r.AsymptoticSequence()),
    Row('F1 Lindon-Malek, cumulative', lambda history, rps: r.LindonMalek()),
    Row('F2 as shipped', lambda history, rps: r.Shipped(history), ours=True),
    Row('F2, no history', lambda history, rps: r.Bare(), ours=True),
    Row('F2 margin +0.1 pp', lambda history, rps: r.Bare(m=0.001, history=_known(rps)), ours=True),
    Row('F2 ratio <= 2', lambda history, rps: r.Bare(a=2, history=_known(rps)), ours=True),
    Row('F2 margin +0.5 pp', lambda history, rps: r.Bare(m=0.005, history=_known(rps)), ours=True),
    Row('F2 absolute 1 %', lambda history, rps: r.Bare(a=0, m=0.01, history=_known(rps)), ours=True),
]
SHIPPED = 'F2 as shipped'
OTHERS = ('last 10 s', '60 s', 'Kayenta Mann-Whitney, from 10')
"""The rules of other rollout tools."""


def rows_named(*names: str) -> list[Row]:
    """Returns the rows that begin with one of *names*."""
    return [row for row in ALL_ROWS if row.name.startswith(names)]


def watch(table: Table, column: str, rows: t.Sequence[Row], traffic: s.Traffic, replicates: int, seed: str, peeks: int = r.PEEKS,
          stages: t.Sequence[int] = (), begin: int = 0) -> None:
    """Draws *replicates* bakes and adds a cell *column* to each row. All rules see the same bakes; *stages* are the peeks at which the
    split changes, and alarms are counted from the peek *begin* on (one before it is an alarm at peek 0 or less)."""
    cells = {row.name: table.setdefault(row.name, {}).setdefault(column, Cell()) for row in rows}
    remembers = any(row.name.startswith(SHIPPED) for row in rows)
    for replicate in range(replicates):
        chance = random.Random('%s/%s/%d' % (seed, column, replicate))
        history = [traffic.block(chance, 0.0, history=True) for _poll in range(HISTORY_POLLS)] if remembers else []
        waiting = {row.name: row.make(history, traffic.rps) for row in rows if not (row.costly and replicate % 4)}
        for peek in range(1, peeks + 1):
            if not waiting:
                break
            block = traffic.block(chance, (peek - 1) * traffic.seconds)
            for name, rule in list(waiting.items()):
                if peek - 1 in stages and isinstance(rule, r.Shipped):
                    rule.begin_stage()
                if rule.update(block):
                    cells[name].peeks.append(peek - begin)
                    del waiting[name]
        for name in waiting:
            cells[name].peeks.append(None)


def alarms(rps: float, rows: t.Sequence[Row], replicates: int, seed: str) -> Table:
    """Table 5.1: a canary with 5 % of the traffic, equal to the baseline or with one of the error rates."""
    table: Table = {}
    for rate in (HEALTHY, *RATES):
        traffic = s.Traffic(rps, s.steady(HEALTHY), s.steady(rate))
        watch(table, percent(rate), rows, traffic, replicates if rate == HEALTHY else max(1, replicates // 2), '%s/5.1/%g' % (seed, rps))
    return table


def conditions(rps: float, rows: t.Sequence[Row], replicates: int, seed: str) -> Table:
    """Table 5.2, first part: a healthy canary in a ramp of four stages, alone, with an incident of both arms, with a drift of both."""
    table: Table = {}
    for name, rate in (('ramp', s.steady(HEALTHY)), ('ramp, shared incident', s.incident(HEALTHY, 0.05, 1500, 120)),
                       ('ramp, baseline drifting x10', s.drift(HEALTHY, 0.01, 1800))):
        watch(table, name, rows, s.Traffic(rps, rate, rate, share=s.ramp), replicates, '%s/5.2/%g' % (seed, rps), stages=(45, 90, 135))
    return table


def bursts(rps: float, rate: float, sizes: t.Sequence[float], replicates: int, seed: str) -> Table:
    """Table 5.2, second part: errors that come in groups; ten minutes of history from four servers."""
    table: Table = {}
    rows = [Row('F2, dispersion ignored', lambda history, rps: r.Bare(history=_known(rps))), *rows_named(SHIPPED)]
    for size in sizes:
        watch(table, 'bursts of %g' % size, rows, s.Traffic(rps, s.steady(HEALTHY), s.steady(rate), burst=size), replicates,
              '%s/5.2b/%g/%g' % (seed, rps, rate))
    return table


def late(rps: float, replicates: int, seed: str) -> Table:
    """Table 5.3: the canary turns bad (0.1 % to 1 %) in the middle of the bake; times count from then, alarms before it as 0 or less."""
    table: Table = {}
    rows = rows_named(*OTHERS, 'exact', 'F1', "O'Brien", SHIPPED) + [
        Row('F2 without pocket', lambda history, rps: r.Bare(history=_known(rps), pocket=0))]
    for name, minute, rate in (('minute 15', 15, s.steady(HEALTHY)), ('minute 25', 25, s.steady(HEALTHY)),
                               ('minute 15, shared incident before', 15, s.incident(HEALTHY, 0.05, 300, 120))):
        sick = s.onset(0, 0.009, minute * 60.0)
        watch(table, name, rows, s.Traffic(rps, rate, lambda at, rate=rate, sick=sick: rate(at) + sick(at)), replicates,
              '%s/5.3/%g' % (seed, rps), begin=minute * 6)
    return table


def passes(rps: float, replicates: int, seed: str) -> Table:
    """Table 5.5: proofs that a canary is not worse by a margin, when it is equal, and (falsely) when it is worse by just that."""
    table: Table = {}
    for margin in (0.001, 0.002, 0.005, 0.01):
        row = Row('margin %s' % percent(margin), lambda history, rps, margin=margin: r.Bare(
            m=margin, history=_known(rps), direction=-1, pocket=0), ours=True)
        for name, rate in (('equal', HEALTHY), ('at the margin', HEALTHY + margin)):
            watch(table, name, [row], s.Traffic(rps, s.steady(HEALTHY), s.steady(rate)), replicates, '%s/5.5/%g' % (seed, rps))
    return table


def percent(rate: float) -> str:
    return '%g %%' % (rate * 100)


def variants(lift: float, replicates: int, seed: str, split: tuple[float, ...] = (1, 1, 1), visitors: int = 60_000) -> Table:
    """Table 5.6: three arms, 3 % conversion with daily and weekly cycles, 336 hourly peeks; the last variant converts *lift* better."""
    hours, arms = 336, 3
    table: Table = {'F1': {'any winner': Cell(), 'true lift excluded': Cell(), 'split not as told': Cell()},
                    'z, chi-square': {'any winner': Cell(), 'split not as told': Cell()}}
    total = sum(split)
    limit_z = 2.2414027276049464  # two-sided 5 % shared by two variants
    for replicate in range(replicates):
        chance = random.Random('%s/5.6/%g/%d' % (seed, lift, replicate))
        n, x = [0] * arms, [0] * arms
        first: dict[tuple[str, str], int] = {}

        for hour in range(1, hours + 1):
            cycle = (1 + 0.5 * math.sin(hour * math.pi / 12)) * (0.8 if hour // 24 % 7 > 4 else 1)
            rate = 0.03 * (1 + 0.3 * math.sin(hour * math.pi / 12 + 1)) * (1 + 0.1 * math.sin(hour * math.pi / 84))
            for arm in range(arms):
                mean = visitors / hours * cycle * split[arm] / total
                own = rate * (1 + lift) if arm == arms - 1 else rate
                good = s.poisson(chance, mean * own)
                x[arm] += good
                n[arm] += good + s.poisson(chance, mean * (1 - own))
            for arm in range(1, arms):
                true = 1 + lift if arm == arms - 1 else 1.0
                if x[0] + x[arm] and n[0] and n[arm]:
                    log_e = counts.multinomial_log_e((x[arm], x[0]), (1, 1))
                    # The evidence against a ratio: that against 1, less what the ratio explains better.
                    explained = x[arm] * math.log(2 * true / (1 + true)) + x[0] * math.log(2 / (1 + true))
                    if log_e >= math.log(2 / r.ALPHA):
                        first.setdefault(('F1', 'any winner'), hour)
                    if log_e - explained >= math.log(2 / r.ALPHA):
                        first.setdefault(('F1', 'true lift excluded'), hour)
                    if abs(counts.pooled_z(x[0], n[0], x[arm], n[arm])) >= limit_z:
                        first.setdefault(('z, chi-square', 'any winner'), hour)
            if counts.multinomial_log_e(n, (1, 1, 1)) >= math.log(100):
                first.setdefault(('F1', 'split not as told'), hour)
            if counts.chi_square_p(n, (1, 1, 1)) < 0.01:
                first.setdefault(('z, chi-square', 'split not as told'), hour)
        for row, columns in table.items():
            for column, cell in columns.items():
                cell.peeks.append(first.get((row, column)))
    return table
