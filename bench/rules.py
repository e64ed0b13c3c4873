# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules that stop a canary: ours, those of other rollout tools, and the usual tests. Each is fed a block a peek and says whether it alarms.

Argo Rollouts, Flagger and Kayenta as their documentation and source have them (section 1 of the statistics note); they know the traffic
in blocks of one length, ten seconds.
"""

from __future__ import annotations

import math
import typing as t
from collections import Counter, deque

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _counts as counts
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _eprocess as ep
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import ArmsBlock, Question, SequentialState

ALPHA = 0.05
PEEKS = 180


class Rule(t.Protocol):
    """Decides on one bake."""

    def update(self, block: ArmsBlock) -> bool:
        """Takes in one peek; returns whether the canary is stopped."""


class Argo:
    """``failureCondition: errors > 1 %`` over the last interval, failureLimit 0, as it is by default."""

    def update(self, block: ArmsBlock) -> bool:
        return block.counts.e_c > 0.01 * block.counts.n_c


class Flagger:
    """``thresholdRange max 1`` over a minute, once a minute; the canary goes back at the fifth failed check, as in its documentation."""

    def __init__(self) -> None:
        self.window: deque[ep.Counts] = deque(maxlen=6)
        self.peek = self.failed = 0

    def update(self, block: ArmsBlock) -> bool:
        self.window.append(block.counts)
        self.peek += 1
        if self.peek % 6 == 0 and sum(one.e_c for one in self.window) > 0.01 * sum(one.n_c for one in self.window):
            self.failed += 1
        return self.failed >= 5


class Kayenta:
    """NetflixACAJudge: Mann-Whitney with a 98 % interval of the shift, on one error rate per interval, judged at every peek.

    One object serves several rules: *least* points each. R's ``wilcox.test``: normal approximation, continuity correction, ties.
    """

    def __init__(self, least: int) -> None:
        self.least = least
        self.canary: list[float] = []
        self.baseline: list[float] = []
        self.shifts: list[float] = []
        self.sorted = 0

    def update(self, block: ArmsBlock) -> bool:
        e_b, n_b, e_c, n_c = block.counts
        return self.point(e_c / n_c if n_c else 0.0, e_b / n_b if n_b else 0.0)

    def point(self, canary: float, baseline: float) -> bool:
        """Takes in one value of each series."""
        self.shifts += [canary - y for y in self.baseline] + [x - baseline for x in self.canary] + [canary - baseline]
        self.canary.append(canary)
        self.baseline.append(baseline)
        if len(self.canary) < self.least or sum(self.canary) <= sum(self.baseline):
            # Where the canary's mean is not higher the effect is below allowedIncrease.
            return False
        self.shifts.sort()
        m = len(self.canary)
        pairs, n = m * m, 2 * m
        ties = sum(count ** 3 - count for series in (self.canary, self.baseline) for count in Counter(series).values())
        sigma = math.sqrt(pairs / 12 * (n + 1 - ties / (n * (n - 1))))
        low = self.shifts[max(0, math.floor(pairs / 2 - 0.5 - 2.3263478740408408 * sigma))]
        middle = (self.shifts[(pairs - 1) // 2] + self.shifts[pairs // 2]) / 2
        return low > 0.25 * abs(middle)


class Pooled:
    """What the usual tests have in common: they add up all blocks of the bake."""

    def __init__(self) -> None:
        self.sums = [0, 0, 0, 0]
        self.peek = 0

    def update(self, block: ArmsBlock) -> bool:
        self.sums = [x + y for x, y in zip(self.sums, block.counts)]
        self.peek += 1
        e_b, n_b, e_c, n_c = self.sums
        return bool(n_b and n_c and e_c * n_b > e_b * n_c) and self.alarm(e_b, n_b, e_c, n_c)

    def alarm(self, e_b: int, n_b: int, e_c: int, n_c: int) -> bool:
        raise NotImplementedError


class RepeatedZ(Pooled):
    """A z-test of 5 %, one-sided, at every peek."""

    def alarm(self, e_b: int, n_b: int, e_c: int, n_c: int) -> bool:
        return counts.pooled_z(e_b, n_b, e_c, n_c) >= 1.6448536269514722


class OBrienFleming(Pooled):
    """Group-sequential with continuous O'Brien-Fleming spending."""

    def alarm(self, e_b: int, n_b: int, e_c: int, n_c: int) -> bool:
        return counts.pooled_z(e_b, n_b, e_c, n_c) >= 1.959963984540054 / math.sqrt(self.peek / PEEKS)


class ExactBinomial(Pooled):
    """The exact conditional test at alpha/180 a peek."""

    def alarm(self, e_b: int, n_b: int, e_c: int, n_c: int) -> bool:
        return counts.conditional_p(e_b, n_b, e_c, n_c) <= ALPHA / PEEKS


class AsymptoticSequence(Pooled):
    """GrowthBook's asymptotic confidence sequence, tuned to 5000."""

    rho2 = (-2 * math.log(ALPHA) + math.log(1 - 2 * math.log(ALPHA))) / 5000

    def alarm(self, e_b: int, n_b: int, e_c: int, n_c: int) -> bool:
        z, n_rho2 = counts.wald_z(e_b, n_b, e_c, n_c, 0), (n_b + n_c) * self.rho2
        return z * z * n_rho2 / (2 * (1 + n_rho2)) - 0.5 * math.log1p(n_rho2) >= math.log(1 / ALPHA)


class LindonMalek(Pooled):
    """F1 on the errors of both arms against the split of the traffic."""

    def alarm(self, e_b: int, n_b: int, e_c: int, n_c: int) -> bool:
        return counts.multinomial_log_e((e_c, e_b), (n_c, n_b)) >= math.log(1 / ALPHA)


class Bare:
    """F2 without the condition around it: one process, history as a number, no dispersion; *direction* -1 proves a pass."""

    def __init__(self, a: float = 1, m: float = 0, history: tuple[float, float] = (0, 0), direction: int = 1,
                 pocket: float = ep.POCKET) -> None:
        self.process, self.baseline = ep.EProcess(a, m, direction, pocket), ep.Baseline(*history)

    def update(self, block: ArmsBlock) -> bool:
        if self.baseline.requests:
            self.process.update(block.counts, self.baseline.theta, 1 / 60)
        self.baseline.add(block.counts.e_b, block.counts.n_b)
        return self.process.log_e >= math.log(1 / ALPHA)


class Shipped:
    """The sequential condition as ``health_gate`` has it, fed with *history*: blocks from before the canary had any traffic."""

    def __init__(self, history: t.Iterable[ArmsBlock] = (), **options: t.Any) -> None:
        self.state = SequentialState([Question('errors', **options)], ALPHA)
        for block in history:
            self.state.update({'errors': block})

    def begin_stage(self) -> None:
        self.state.begin_stage()

    def update(self, block: ArmsBlock) -> bool:
        self.state.update({'errors': block})
        return self.state.failed is not None


def first_alarm(rule: Rule, blocks: t.Iterable[ArmsBlock]) -> int | None:
    """Returns the number of the peek at which *rule* stops the canary, None when it does not."""
    return next((peek for peek, block in enumerate(blocks, 1) if rule.update(block)), None)
