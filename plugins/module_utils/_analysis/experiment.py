# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The verdict of an A/B/n test from the counts since its beginning. Pure; what is said here holds at every look.

First whether the sample follows the split (sample-ratio mismatch: when it does not, nothing else can be believed), then each variant's
lift over control on the metric that decides. The lift's confidence sequence conditions on the events, so a rate that moves with the
hour, for all arms alike, is no evidence; the arms' parts are those of the trials that were counted.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace
from math import inf, log, sqrt

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _counts as c
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import percent

WINNER = 'winner'
EQUIVALENT = 'equivalent'
KEEP_RUNNING = 'keep_running'
INVALID = 'invalid'
HARMFUL = 'harmful'
NO_DATA = 'no_data'

_NINE_OF_TEN = 1.2815515655446004
"""The 90 % quantile of the normal law."""


class Tally(t.NamedTuple):
    """*events* of *total* trials."""

    events: int
    total: int

    @property
    def rate(self) -> float | None:
        return self.events / self.total if self.total else None


@dataclass(frozen=True)
class Metric:
    """What is counted. *direction* +1: more events are better (conversions), -1: fewer are (bounces)."""

    name: str
    direction: int = 1
    burst: float = 1.0
    """Events that come together (of one user, say): evidence is divided by it."""


@dataclass(frozen=True)
class Comparison:
    """A variant against control. Lift is the ratio of the rates less 1; intervals hold at every look."""

    lift: float | None
    lift_interval: c.Interval
    difference_interval: c.Interval
    p: float
    """Always valid; multiplied by the number of variants."""

    @property
    def steady(self) -> bool:
        """Whether one lift can be the true one at all looks."""
        return self.lift_interval[0] <= self.lift_interval[1]

    def narrowed(self, before: 'Comparison') -> 'Comparison':
        """Returns the comparison with what an earlier look has excluded left out: a confidence sequence holds at all looks together, so
        their intervals may be intersected, and a verdict is not lost with the next look."""
        low, high = before.lift_interval
        return replace(self, lift_interval=(max(low, self.lift_interval[0]), min(high, self.lift_interval[1])), p=min(before.p, self.p))

    def better(self, direction: int) -> bool:
        return self.steady and (self.lift_interval[0] > 0 if direction > 0 else self.lift_interval[1] < 0)

    def equivalent(self, tolerance: float) -> bool:
        return self.steady and -tolerance <= self.lift_interval[0] and self.lift_interval[1] <= tolerance


def compare(control: Tally, variant: Tally, variants: int, alpha: float, burst: float = 1.0) -> Comparison:
    """Returns how *variant* compares with *control*; the *variants* of the test share *alpha*."""
    alpha /= variants
    if not control.total or not variant.total:
        return Comparison(None, (-1.0, inf), (-1.0, 1.0), 1.0)
    part = variant.total / (variant.total + control.total)
    x_c, x_b = variant.events / burst, control.events / burst
    low, high = c.rate_ratio_interval(x_c, x_b, part, alpha) if x_c + x_b else (0.0, inf)
    difference = c.difference_interval(x_b, control.total / burst, x_c, variant.total / burst, alpha)
    log_e = c.multinomial_log_e((x_c, x_b), (part, 1 - part)) if x_c + x_b else 0.0
    lift = variant.events / variant.total / (control.events / control.total) - 1 if control.events else None
    return Comparison(lift, (low - 1, high - 1), difference, min(1.0, variants * c.always_valid_p(log_e)))


@dataclass(frozen=True)
class RatioCheck:
    """Whether the sample follows the split."""

    ok: bool
    log_e: float
    """Natural logarithm of the largest evidence so far that it does not."""
    p: float
    text: str


def check_visitors(counts: t.Mapping[str, int], shares: t.Mapping[str, int], alpha: float, before: float = 0.0) -> RatioCheck:
    """Returns whether *counts* of visitors, each counted once and assigned at random, follow *shares*. *before* is the evidence of
    earlier looks: a mismatch that was proven once stays."""
    names = list(shares)
    log_e = max(before, c.multinomial_log_e([counts.get(name, 0) for name in names], [shares[name] for name in names]))
    p = c.always_valid_p(log_e)
    return RatioCheck(p >= alpha, log_e, p, _ratio_text('visitors', counts, shares, p))


def check_requests(counts: t.Mapping[str, int], shares: t.Mapping[str, int], alpha: float, tolerance: float, burst: float = 1.0,
                   before: float = 0.0) -> RatioCheck:
    """Returns the same of *counts* of requests. Users make several each, so their shares scatter more than those of visitors, and a
    pool of users that comes back keeps its deviation: a share may miss its own by *tolerance* (a difference of shares), and what counts is
    the evidence against the nearest share that is tolerated."""
    total, whole = sum(counts.values()), float(sum(shares.values()))
    log_e = before
    for name, share in shares.items():
        x, rho = counts.get(name, 0), share / whole
        edge = min(max(x / total, rho - tolerance), rho + tolerance) if total else rho
        if total and 0 < edge < 1 and edge != x / total:
            evidence = c.share_log_e(x / burst, (total - x) / burst, rho, edge) - log(len(shares))
            log_e = max(log_e, evidence)
    p = c.always_valid_p(log_e)
    return RatioCheck(p >= alpha, log_e, p, _ratio_text('requests', counts, shares, p))


def _ratio_text(what: str, counts: t.Mapping[str, int], shares: t.Mapping[str, int], p: float) -> str:
    total, whole = sum(counts.values()), sum(shares.values())
    if not total:
        return 'no %s yet' % what
    return '%s: %s (p = %.2g)' % (what, ', '.join('%s %s of %s' % (
        name, percent(counts.get(name, 0) / total), percent(share / whole)) for name, share in shares.items()), p)


@dataclass(frozen=True)
class Verdict:
    """*winner* is set for WINNER alone; it may be control, when every variant is worse."""

    verdict: str
    reason: str
    winner: str | None = None


def decide(control: str, metric: Metric, tallies: t.Mapping[str, Tally], compared: t.Mapping[str, Comparison], tolerance: float) -> Verdict:
    """Returns the verdict on a sample that follows the split. *compared* has each variant; *tolerance* is the lift up to which
    arms count as equal."""
    if any(not tally.total for tally in tallies.values()):
        silent = [name for name, tally in tallies.items() if not tally.total]
        return Verdict(KEEP_RUNNING, 'nothing was counted for %s yet' % ', '.join(silent))
    moved = [name for name, one in compared.items() if not one.steady]
    if moved:
        return Verdict(KEEP_RUNNING, 'the lift is not the same all the time, as a test must take it to be: %s' % '; '.join(
            _told(name, control, metric, tallies, compared[name]) for name in moved))
    better = [name for name, one in compared.items() if one.better(metric.direction)]
    if better:
        best = max(better, key=lambda name: metric.direction * (compared[name].lift if compared[name].lift is not None else inf))
        return Verdict(WINNER, _told(best, control, metric, tallies, compared[best]), best)
    worse = [name for name, one in compared.items() if one.better(-metric.direction)]
    if len(worse) == len(compared):
        return Verdict(WINNER, 'no variant is better than %s: %s' % (
            control, '; '.join(_told(name, control, metric, tallies, compared[name]) for name in worse)), control)
    if all(name in worse or one.equivalent(tolerance) for name, one in compared.items()):
        return Verdict(EQUIVALENT, 'no variant differs from %s by more than %s: %s' % (control, percent(tolerance), '; '.join(
            _told(name, control, metric, tallies, one) for name, one in compared.items())))
    return Verdict(KEEP_RUNNING, '; '.join(_told(name, control, metric, tallies, one) for name, one in compared.items()))


def _told(name: str, control: str, metric: Metric, tallies: t.Mapping[str, Tally], one: Comparison) -> str:
    return '%s %s %s against %s of %s, lift %s (%s)' % (
        name, percent(tallies[name].rate or 0.0), metric.name, percent(tallies[control].rate or 0.0), control,
        signed(one.lift), interval(one.lift_interval))


def signed(value: float | None) -> str:
    """Returns a lift as a person reads it: ``'+12 %'``; ``'?'`` where it cannot be told."""
    if value is None or value == inf:
        return '?'
    return '%s%s' % ('-' if value < 0 else '+', percent(abs(value)))


def interval(pair: c.Interval) -> str:
    """Returns ``'-2.1 % to +12 %'``; of one that earlier looks and this one leave empty, where it would lie."""
    return '%s to %s' % (signed(pair[0]), signed(pair[1]))


def detectable_lift(rate: float, n_control: float, n_variant: float, variants: int, alpha: float, direction: int = 1,
                    burst: float = 1.0) -> float | None:
    """Returns the smallest lift that nine of ten tests with so many trials find (below 0 for *direction* -1); None when there is none.

    *rate* is control's. The events are taken at their expectation, less 1.28 standard deviations of their difference.
    """
    if not 0 < rate < 1 or min(n_control, n_variant) <= 0:
        return None

    def found(lift: float) -> bool:
        other = rate * (1 + lift)
        noise = _NINE_OF_TEN * sqrt(burst * ((1 - other) / max(other * n_variant, 1e-9) + (1 - rate) / (rate * n_control)))
        seen = other * (1 - noise) if direction > 0 else other * (1 + noise)
        if not 0 <= seen <= 1:
            return False
        variant = Tally(int(seen * n_variant), int(n_variant))
        return compare(Tally(int(rate * n_control), int(n_control)), variant, variants, alpha, burst).better(direction)

    near, far = 0.0, (1 / rate - 1) if direction > 0 else -1.0
    if not found(far * 0.999):
        return None
    far *= 0.999
    for _step in range(40):
        middle = (near + far) / 2
        near, far = (near, middle) if found(middle) else (middle, far)
    return far
