# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Counts of several arms against a known split, intervals that hold at every moment, and what a fixed sample would have said.

Source of the sequential part: M. Lindon, A. Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022, arXiv 2011.03567):
given that an event happened, arm i has it with probability rho_i under the null, whatever its rate does in time. A Dirichlet(k*rho) mixture
over alternatives makes an e-process of it. The companions for a fixed sample serve the report at the end of a bake, never a decision
that is looked at more than once.
"""

from __future__ import annotations

import typing as t
from math import erfc, exp, gamma, inf, lgamma, log, log1p, pi, sqrt
from statistics import NormalDist

CONCENTRATION = 100.0
"""Default k of the mixture: suits rates that differ by 10 to 50 %."""

Interval = t.Tuple[float, float]


def _stirling_rest(z: float) -> float:
    """Returns ``lnG(z) - ((z-1/2) ln z - z + ln(2 pi)/2)``."""
    if z < 15:
        return lgamma(z) - ((z - 0.5) * log(z) - z + 0.5 * log(2 * pi))
    w = 1 / (z * z)
    return (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w / 1188)))) / z


def multinomial_log_e(counts: t.Sequence[float], shares: t.Sequence[float], k: float = CONCENTRATION) -> float:
    """Returns the log of the evidence that *counts* do not follow *shares* (any positive weights; they are made to sum to 1).

    ``lnG(k) - lnG(k+n) + sum_i [lnG(k rho_i + x_i) - lnG(k rho_i) - x_i ln rho_i]``, arranged by Stirling's formula so that the large
    terms cancel before they are computed: ten digits hold at a billion counts too.
    """
    total, n = float(sum(shares)), sum(counts)
    whole = k + n
    result = lgamma(k) + 0.5 * log(whole) - _stirling_rest(whole) + (len(counts) - 1) / 2 * log(2 * pi)
    for x, share in zip(counts, shares):
        rho = share / total
        z, expected = k * rho + x, whole * rho
        # z - expected, without the rounding of either
        result += z * log1p((x - n * rho) / expected) - 0.5 * log(z) + _stirling_rest(z)
        result += k * rho * log(rho) - lgamma(k * rho)
    return result


def always_valid_p(log_e: float) -> float:
    """Returns ``min(1, 1/E)``; of the largest E so far it is a p-value at every moment."""
    return 1.0 if log_e <= 0 else exp(-log_e)


def _beta_mixture_interval(x: float, y: float, a: float, b: float, alpha: float) -> Interval:
    """Returns all theta with ``x ln theta + y ln(1-theta) >= ln[B(a+x, b+y)/B(a, b)] + ln alpha``: those that the mixture has no 1/alpha
    of evidence against."""
    def log_beta(p: float, q: float) -> float:
        return lgamma(p) + lgamma(q) - lgamma(p + q)

    bound = log_beta(a + x, b + y) - log_beta(a, b) + log(alpha)

    def inside(theta: float) -> bool:
        return (x * log(theta) if x else 0.0) + (y * log1p(-theta) if y else 0.0) >= bound

    centre = x / (x + y) if x + y else 0.5
    edges = []
    for count, outer in ((x, 0.0), (y, 1.0)):
        inner = centre
        if not count:
            inner = outer
        while abs(inner - outer) > 1e-15 * min(inner, 1 - inner):
            middle = (inner + outer) / 2
            if middle in (inner, outer):
                break
            inner, outer = (middle, outer) if inside(middle) else (inner, middle)
        edges.append(inner)
    return edges[0], edges[1]


def rate_interval(x: float, n: float, alpha: float) -> Interval:
    """Returns the confidence sequence of one rate: *x* events in *n* requests, wrong at any moment with probability *alpha* at most."""
    return _beta_mixture_interval(x, n - x, 0.5, 0.5, alpha)


def difference_interval(e_b: float, n_b: float, e_c: float, n_c: float, alpha: float) -> Interval:
    """Returns the confidence sequence of the canary's rate less the baseline's."""
    low_b, high_b = rate_interval(e_b, n_b, alpha / 2)
    low_c, high_c = rate_interval(e_c, n_c, alpha / 2)
    return low_c - high_b, high_c - low_b


def share_log_e(x_c: float, x_b: float, rho_c: float, theta: float, k: float = CONCENTRATION) -> float:
    """Returns the log of the evidence that the probability of an event to be the canary's is not *theta*: ``share_interval`` holds all
    theta for which it is below ``ln(1/alpha)``."""
    a, b = k * rho_c, k * (1 - rho_c)
    result = sum(lgamma(new) - lgamma(old) for new, old in ((a + x_c, a), (b + x_b, b)))
    return result - lgamma(k + x_c + x_b) + lgamma(k) - (x_c * log(theta) if x_c else 0.0) - (x_b * log1p(-theta) if x_b else 0.0)


def share_interval(x_c: float, x_b: float, rho_c: float, alpha: float, k: float = CONCENTRATION) -> Interval:
    """Returns the confidence sequence of the probability that an event is the canary's; *rho_c* is its part of the two arms' traffic."""
    return _beta_mixture_interval(x_c, x_b, k * rho_c, k * (1 - rho_c), alpha)


def rate_ratio_interval(x_c: float, x_b: float, rho_c: float, alpha: float, k: float = CONCENTRATION) -> Interval:
    """Returns the confidence sequence of the canary's rate over the baseline's; less 1 it is the lift. With several variants against
    one control give each alpha over their number."""
    low, high = share_interval(x_c, x_b, rho_c, alpha, k)
    scale = (1 - rho_c) / rho_c
    return low / (1 - low) * scale if low < 1 else inf, high / (1 - high) * scale if high < 1 else inf


# Companions for a fixed sample: valid for one look.

def chi2_sf(x: float, df: int) -> float:
    """Returns P(X > x) of the chi-square law with *df* degrees of freedom."""
    if x <= 0:
        return 1.0
    half = x / 2
    if df % 2 == 0:
        term = total = 1.0
        for i in range(1, df // 2):
            term *= half / i
            total += term
        return exp(-half) * total
    return erfc(sqrt(half)) + exp(-half) * sum(half ** (i - 0.5) / gamma(i + 0.5) for i in range(1, (df + 1) // 2))


def chi_square_p(counts: t.Sequence[int], shares: t.Sequence[float]) -> float:
    """Returns Pearson's p-value that *counts* follow *shares*, for one look; watched over time use ``multinomial_log_e``."""
    n, total = sum(counts), float(sum(shares))
    expected = [n * share / total for share in shares]
    return chi2_sf(sum((x - e) ** 2 / e for x, e in zip(counts, expected)), len(counts) - 1)


def normal_sf(z: float) -> float:
    """Returns P(Z > z) of the standard normal law."""
    return erfc(z / sqrt(2)) / 2


def wilson_interval(x: int, n: int, alpha: float) -> Interval:
    """Returns Wilson's confidence interval of one rate."""
    z = NormalDist().inv_cdf(1 - alpha / 2)
    p, w = x / n, z * z / n
    half = z * sqrt(p * (1 - p) / n + w / (4 * n))
    return max(0.0, (p + w / 2 - half) / (1 + w)), min(1.0, (p + w / 2 + half) / (1 + w))


def newcombe_interval(e_b: int, n_b: int, e_c: int, n_c: int, alpha: float) -> Interval:
    """Returns Newcombe's (1998, method 10) confidence interval of the canary's rate less the baseline's."""
    p_b, p_c = e_b / n_b, e_c / n_c
    (low_b, high_b), (low_c, high_c) = wilson_interval(e_b, n_b, alpha), wilson_interval(e_c, n_c, alpha)
    return (p_c - p_b - sqrt((p_c - low_c) ** 2 + (high_b - p_b) ** 2),
            p_c - p_b + sqrt((high_c - p_c) ** 2 + (p_b - low_b) ** 2))


def pooled_z(e_b: int, n_b: int, e_c: int, n_c: int) -> float:
    """Returns the z of equal rates with pooled variance; 0 when all or none had the event."""
    p = (e_b + e_c) / (n_b + n_c)
    variance = p * (1 - p) * (1 / n_c + 1 / n_b)
    return (e_c / n_c - e_b / n_b) / sqrt(variance) if variance else 0.0


def wald_z(e_b: int, n_b: int, e_c: int, n_c: int, margin: float) -> float:
    """Returns the z of "the canary's rate is the baseline's plus *margin*" with unpooled variance; weak where events are rare."""
    p_b, p_c = e_b / n_b, e_c / n_c
    variance = p_c * (1 - p_c) / n_c + p_b * (1 - p_b) / n_b
    return (p_c - p_b - margin) / sqrt(variance) if variance else 0.0


def score_z(e_b: int, n_b: int, e_c: int, n_c: int, margin: float) -> float:
    """Returns the z of the same with the variance at the likeliest rates that differ by *margin* (Miettinen and Nurminen 1985)."""
    n, d = n_b + n_c, e_c / n_c - e_b / n_b - margin
    low, high = max(0.0, -margin), min(1.0, 1 - margin)
    # The likelihood is concave on the line p_c = p_b + margin; its slope changes sign once.
    for _step in range(100):
        q = (low + high) / 2
        c = q + margin
        slope = sum(count / x for count, x in ((e_b, q), (e_b - n_b, 1 - q), (e_c, c), (e_c - n_c, 1 - c)) if count)
        low, high = (q, high) if slope > 0 else (low, q)
    q, c = low, low + margin
    variance = (c * (1 - c) / n_c + q * (1 - q) / n_b) * n / (n - 1)
    return d / sqrt(variance) if variance > 0 else 0.0


def _tail(first: int, last: int, log_first: float, step: t.Callable[[int], float]) -> float:
    """Returns the sum of a law's weights from *first* to *last*; ``step(i)`` is weight(i+1)/weight(i)."""
    term = total = 1.0
    for i in range(first, last):
        term *= step(i)
        total += term
        if term < 1e-18 * total and step(i) < 1:
            break
    return min(1.0, exp(log_first) * total)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def conditional_p(e_b: int, n_b: int, e_c: int, n_c: int) -> float:
    """Returns the exact one-sided p-value of rare events: of ``e_b + e_c`` of them, *e_c* or more fall on the canary by its traffic."""
    n, w = e_b + e_c, n_c / (n_b + n_c)
    return _tail(e_c, n, _log_choose(n, e_c) + e_c * log(w) + e_b * log1p(-w), lambda i: (n - i) / (i + 1) * w / (1 - w))


def fisher_p(e_b: int, n_b: int, e_c: int, n_c: int) -> float:
    """Returns Fisher's exact one-sided p-value that the canary has *e_c* or more of all events."""
    n = e_b + e_c
    return _tail(e_c, min(n, n_c), _log_choose(n_c, e_c) + _log_choose(n_b, e_b) - _log_choose(n_b + n_c, n),
                 lambda i: (n_c - i) * (n - i) / ((i + 1) * (n_b - n + i + 1)))
