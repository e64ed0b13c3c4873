# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The block-wise two-arm e-process: evidence, at any moment, that a rate of the canary is beyond ``a`` times the baseline's plus ``m``.

A block is what both arms did between two polls: of ``n_b`` requests of the baseline ``e_b`` had the event (failed, were slow, converted),
of ``n_c`` of the canary ``e_c``. The null hypothesis is that in every block the average rates keep ``p_c <= a*p_b + m`` (direction +1) or
``p_c >= a*p_b + m`` (direction -1); nothing is assumed of how the rates move from block to block, of the split, or of the baseline.
A process E that starts at 1, is never negative and keeps E[E_tau] <= 1 under the null at every stopping time is called an e-process;
whoever stops when it reaches 1/alpha is wrong with probability alpha at most (Ville's inequality), however often he looks.

Source: R. Turner, A. Ly, P. Grunwald, "Generic E-variables for exact sequential k-sample tests" (R package safestats): the likelihood
ratio of an alternative and its projection on a convex null. Here the null is a half-plane, and there is a mixture over effect and onset.
"""

from __future__ import annotations

import typing as t
from math import exp, inf, log, log1p, sqrt

GRID = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
"""Odds ratios between the alternatives that are mixed and the edge of the null."""

ONSET_S = 600.0
"""Mean time, in seconds, after which the harm is expected to begin when it was not there from the start."""

POCKET = 0.5
"""Part of the wealth that waits for a harm that begins late."""

_EPSILON = 1e-9
_LOG_GRID_SIZE = log(len(GRID))

DISPERSION_BLOCKS = 30
"""Blocks of single servers below which their dispersion is not estimated."""


class Counts(t.NamedTuple):
    """One block: events and requests of the baseline (``_b``) and of the canary (``_c``)."""

    e_b: int
    n_b: int
    e_c: int
    n_c: int


def log_add(x: float, y: float) -> float:
    """Returns ``ln(exp(x) + exp(y))``."""
    if x < y:
        x, y = y, x
    return x if y == -inf else x + log1p(exp(y - x))


def log_sum(values: t.Iterable[float]) -> float:
    """Returns the logarithm of the sum of what *values* are the logarithms of."""
    values = list(values)
    top = max(values, default=-inf)
    return top if top in (inf, -inf) else top + log(sum(exp(value - top) for value in values))


def project(n_b: float, n_c: float, theta_b: float, theta_c: float, a: float, m: float) -> float:
    """Returns the baseline's rate at that point of the edge ``p_c = a*p_b + m`` that the alternative (*theta_b*, *theta_c*) is nearest to.

    It minimises ``n_b*KL(theta_b|q) + n_c*KL(theta_c|a*q+m)`` over q; *n_b* and *n_c* are requests or requests per second.
    The derivative's numerator is a cubic with one root between theta_b and (theta_c-m)/a, found by Newton's method kept in that bracket.
    """
    if a == 0 or n_c == 0:
        return theta_b
    if n_b == 0:
        return (theta_c - m) / a
    if a == 1 and m == 0:
        return (n_b * theta_b + n_c * theta_c) / (n_b + n_c)
    low, high = theta_b, (theta_c - m) / a
    if low > high:
        low, high = high, low
    low, high = max(low, 0.0, -m / a), min(high, 1.0, (1 - m) / a)
    # The root for rare events, where 1-q and 1-c are as good as 1: exact enough that two or three steps follow.
    weight = n_b + a * n_c
    linear = m * weight - a * (n_b * theta_b + n_c * theta_c)
    spread = sqrt(max(0.0, linear * linear + 4 * a * weight * n_b * theta_b * m))
    q = (spread - linear) / (2 * a * weight) if linear <= 0 else 2 * n_b * theta_b * m / (spread + linear)
    if not low < q < high:
        q = (low + high) / 2
    last = high - low
    a_n_c = a * n_c
    for _step in range(200):
        c = a * q + m
        above, beyond, c_c, q_q = n_b * (q - theta_b), a_n_c * (c - theta_c), c * (1 - c), q * (1 - q)
        value = above * c_c + beyond * q_q
        if value < 0:
            low = q
        elif value > 0:
            high = q
        else:
            return q
        slope = n_b * c_c + a_n_c * a * q_q + above * a * (1 - 2 * c) + beyond * (1 - 2 * q)
        step = value / slope if slope > 0 else inf
        if abs(step) <= 1e-9 * q:
            # Newton's error squares with each step: this one leaves nothing that a double could hold.
            return q - step
        if not (low < q - step < high and abs(step) <= last / 2):
            step = q - (low + high) / 2
        last = abs(step)
        q -= step
    return q


def block_log_e(block: Counts, theta_b: float, theta_c: float, a: float, m: float) -> float:
    """Returns the log of one block's e-value: the likelihood of (*theta_b*, *theta_c*) over that of its projection on the null's edge.

    Both thetas, in (0, 1), must be known before the block. ``E[exp(.)] <= 1`` for all rates of the null whose edge lies between it and
    the alternative. 0 where there is nothing to compare: no requests of the canary, or none of the baseline while ``a > 0``.
    """
    e_b, n_b, e_c, n_c = block
    if n_c == 0 or (n_b == 0 and a > 0):
        return 0.0
    q = project(n_b, n_c, theta_b, theta_c, a, m)
    c = a * q + m
    result = (n_c - e_c) * log1p((c - theta_c) / (1 - c))
    if e_c:
        result += e_c * log(theta_c / c)
    if a:
        result += (n_b - e_b) * log1p((q - theta_b) / (1 - q))
        if e_b:
            result += e_b * log(theta_b / q)
    return result


class EProcess:
    """Evidence against one null, over unknown sizes of the effect (``GRID``) and an unknown onset: ``len(GRID) + 1`` numbers.

    *direction* +1 gathers evidence for ``p_c > a*p_b + m``, -1 for ``p_c < a*p_b + m``. *pocket* is the part of the wealth that is
    not staked at first; 0 makes it a mixture over effects alone.
    """

    def __init__(self, a: float, m: float, direction: int = 1, pocket: float = POCKET) -> None:
        self.a, self.m, self.direction = a, m, direction
        self._staked = [log((1 - pocket) / len(GRID)) if pocket < 1 else -inf] * len(GRID)
        self._waiting = log(pocket) if pocket else -inf
        self._log_e: float | None = None

    def update(self, block: Counts, theta_b: float, onset: float = 0.0, phi: float = 1.0) -> None:
        """Takes in *block*. *theta_b* is the baseline's rate as it was estimated from earlier blocks alone; *onset* the part of the
        pocket that is staked now; *phi* the dispersion that the logs of e-values are divided by (stats 2.3)."""
        theta_b = min(max(theta_b, _EPSILON), 1 - _EPSILON)
        staked = self._staked
        if self._waiting > -inf and onset:
            share = self._waiting + log(onset) - _LOG_GRID_SIZE
            staked = [log_add(value, share) for value in staked]
            self._waiting += log1p(-onset)
        edge = self.a * theta_b + self.m
        # No rate lies beyond such an edge: the block can prove nothing.
        if not (edge >= 1 - _EPSILON if self.direction > 0 else edge <= _EPSILON):
            staked = [value + block_log_e(block, theta_b, theta_c, self.a, self.m) / phi
                      for value, theta_c in zip(staked, self._alternatives(edge))]
        self._staked, self._log_e = staked, None

    def _alternatives(self, edge: float) -> list[float]:
        """Returns a rate of the canary beyond *edge* for each odds ratio."""
        edge = min(max(edge, _EPSILON), 1 - _EPSILON)
        odds = edge / (1 - edge)
        if self.direction > 0:
            return [min(odds * r / (1 + odds * r), 1 - 1e-12) for r in GRID]
        return [odds / (r + odds) for r in GRID]

    @property
    def log_e(self) -> float:
        """The evidence's natural logarithm: 0 at first, ln(1/alpha) is the limit for an error of alpha."""
        # Asked for by every condition of a gate at every look.
        if self._log_e is None:
            self._log_e = log_sum([*self._staked, self._waiting])
        return self._log_e

    def state(self) -> list[float | None]:
        """Returns the process as JSON has it; None is a part without any wealth."""
        return [None if value == -inf else value for value in [*self._staked, self._waiting]]

    def restore(self, state: t.Sequence[float | None]) -> None:
        """Goes on from what ``state`` returned. Raises ValueError when it is not that."""
        values = [-inf if value is None else float(value) for value in state]
        if len(values) != len(GRID) + 1 or not all(value < inf for value in values):
            raise ValueError('%d numbers below infinity expected' % (len(GRID) + 1))
        *self._staked, self._waiting = values
        self._log_e = None


class Baseline:
    """The baseline's rate as it is known before a block: ``(events + 1/2) / (requests + 1)``."""

    def __init__(self, events: float = 0.0, requests: float = 0.0) -> None:
        self.events, self.requests = float(events), float(requests)

    @property
    def theta(self) -> float:
        return (self.events + 0.5) / (self.requests + 1)

    def add(self, events: float, requests: float) -> None:
        """Counts a block, after it was judged."""
        self.events += events
        self.requests += requests


class Dispersion:
    """How much more the counts of the baseline's single servers scatter *within* a block than independent requests would.

    ``phi_hat = sum (e_k - n_k p)^2 / sum n_k p (1-p) (1 - n_k/n)`` over servers k and blocks, p being the block's own rate: an incident
    that all servers share cancels, a burst that hits one of them shows. Dividing log e-values by phi keeps the promised error where
    requests fail in groups of that size.
    """

    def __init__(self) -> None:
        self.squares = self.expected = 0.0
        self.blocks = 0

    def add(self, servers: t.Sequence[tuple[int, int]]) -> None:
        """Takes in one block: pairs (events, requests) of each of the baseline's servers."""
        servers = [one for one in servers if one[1] > 0]
        if len(servers) < 2:
            return
        n = sum(one[1] for one in servers)
        p = sum(one[0] for one in servers) / n
        self.blocks += len(servers)
        for e_k, n_k in servers:
            self.squares += (e_k - n_k * p) ** 2
            self.expected += n_k * p * (1 - p) * (1 - n_k / n)

    def phi(self, burst: float = 1.0) -> float:
        """Returns what log e-values are to be divided by: at least *burst*, the mean number of events that come together."""
        if self.blocks < DISPERSION_BLOCKS or not self.expected:
            return burst
        estimate = self.squares / self.expected
        return max(burst, 1.0 if estimate <= 1.2 else 1.25 * estimate)


def _kl(p: float, q: float) -> float:
    """Relative entropy of two Bernoulli laws, in nats."""
    return (p * log(p / q) if p else 0.0) + ((1 - p) * log((1 - p) / (1 - q)) if p < 1 else 0.0)


def growth_rate(rps_b: float, rps_c: float, p_b: float, p_c: float, a: float, m: float, direction: int = 1) -> float:
    """Returns the nats of evidence per second that the test gains at best, at so many requests per second and such rates; 0 in the null."""
    if direction * (p_c - (a * p_b + m)) <= 0 or (a > 0 and rps_b <= 0) or rps_c <= 0:
        return 0.0
    q = project(rps_b, rps_c, p_b, p_c, a, m)
    edge = a * q + m
    return (rps_b * _kl(p_b, q) if a and q > 0 else 0.0) + rps_c * _kl(p_c, edge) if 0 < edge < 1 else inf


def time_to_proof(growth: float, alpha: float) -> tuple[float, float]:
    """Returns the seconds after which half, and nine of ten, of the tests have reached 1/*alpha*. The 2 and 7 nats on top of ln(1/alpha)
    pay for the unknown effect and onset and for chance; they fit the simulations (bench/)."""
    if growth <= 0:
        return inf, inf
    return (log(1 / alpha) + 2) / growth, (log(1 / alpha) + 7) / growth


def time_to_pass(growth: float, beta: float) -> tuple[float, float]:
    """Returns the same for a proof that harm is excluded: it keeps no wealth for a late onset. The 3 nats fit the simulations too."""
    if growth <= 0:
        return inf, inf
    return log(1 / beta) / growth, (log(1 / beta) + 3) / growth


def smallest_effect(rps_b: float, rps_c: float, p_b: float, a: float, m: float, seconds: float, alpha: float,
                    direction: int = 1, phi: float = 1.0) -> float | None:
    """Returns the rate of the canary nearest to the null that nine of ten tests prove within *seconds*; None when there is none."""
    near, far = a * p_b + m, 1.0 if direction > 0 else 0.0

    def proven(p_c: float) -> bool:
        return time_to_proof(growth_rate(rps_b, rps_c, p_b, p_c, a, m, direction) / phi, alpha)[1] <= seconds

    if not 0 <= near <= 1 or not proven(far):
        return None
    for _step in range(60):
        middle = (near + far) / 2
        near, far = (near, middle) if proven(middle) else (middle, far)
    return far
