# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random traffic of two arms, block by block. Poisson arrivals; of a Poisson number of requests the bad and the good ones are
independent Poisson numbers themselves, so that nothing else need be drawn."""

from __future__ import annotations

import math
import random
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._analysis._eprocess import Counts
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import ArmsBlock

SERVERS = 4
"""Servers of the baseline."""


def poisson(chance: random.Random, mean: float) -> int:
    """Draws a Poisson number: by multiplication when it is small, else by Hörmann's transformed rejection (PTRS, 1993)."""
    if mean < 30:
        limit, product, count = math.exp(-mean), chance.random(), 0
        while product > limit:
            product *= chance.random()
            count += 1
        return count
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse, v_r = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
    while True:
        u, v = chance.random() - 0.5, chance.random()
        us = 0.5 - abs(u)
        k = math.floor((2 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= v_r:
            return k
        if k < 0 or (us < 0.013 and v > us):
            continue
        if math.log(v) + math.log(inverse) - math.log(a / (us * us) + b) <= k * math.log(mean) - mean - math.lgamma(k + 1):
            return k


def failed(chance: random.Random, mean: float, burst: float) -> int:
    """Draws a number of errors with that mean, which come in groups of a geometric size of mean *burst*."""
    groups = poisson(chance, mean / burst)
    if burst == 1:
        return groups
    stay = math.log(1 - 1 / burst)
    return sum(1 + int(math.log(1 - chance.random()) / stay) for _group in range(groups))


@dataclass(frozen=True)
class Traffic:
    """One kind of bake: what both arms receive, and how they fail, *at* a time in seconds."""

    rps: float
    p_b: t.Callable[[float], float]
    p_c: t.Callable[[float], float]
    share: t.Callable[[float], float] = lambda at: 0.05
    burst: float = 1.0
    seconds: float = 10.0
    """Length of a block."""

    def block(self, chance: random.Random, at: float, history: bool = False) -> ArmsBlock:
        """Draws the block that begins *at*; in a history the baseline has all of the traffic."""
        share = 0.0 if history else self.share(at)
        requests, p_b, p_c = self.rps * self.seconds, self.p_b(at), self.p_c(at)
        servers = []
        for _server in range(SERVERS):
            mean = requests * (1 - share) / SERVERS
            bad = failed(chance, mean * p_b, self.burst)
            servers.append((bad, bad + poisson(chance, mean * (1 - p_b))))
        e_c = failed(chance, requests * share * p_c, self.burst) if share else 0
        n_c = e_c + poisson(chance, requests * share * (1 - p_c)) if share else 0
        return ArmsBlock(Counts(sum(one[0] for one in servers), sum(one[1] for one in servers), e_c, n_c), self.seconds, tuple(servers))


def steady(rate: float) -> t.Callable[[float], float]:
    return lambda at: rate


def onset(before: float, after: float, when: float) -> t.Callable[[float], float]:
    return lambda at: after if at >= when else before


def incident(rate: float, peak: float, begin: float, length: float) -> t.Callable[[float], float]:
    return lambda at: peak if begin <= at < begin + length else rate


def drift(first: float, last: float, length: float) -> t.Callable[[float], float]:
    return lambda at: first + (last - first) * at / length


def ramp(at: float) -> float:
    """The candidate's share in a rollout of four stages in half an hour."""
    return (0.01, 0.05, 0.2, 0.5)[min(int(at // 450), 3)]
