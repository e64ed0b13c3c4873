# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a sequential condition can find in a bake, told before the bake begins."""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass
from math import inf

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _eprocess as ep
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import Question, percent
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration


@dataclass(frozen=True)
class Plan:
    """Figures for one question, one bake and one split."""

    smallest: float | None
    """The candidate's rate nearest to the limit that nine of ten bakes prove; None when this bake can prove none."""
    harm: float | None
    """The rate worth catching, as it was given."""
    median_s: float | None
    """Seconds after which half of the gates have failed a candidate with that rate; None when none ever will, or no rate was given."""
    late_s: float | None
    """The same of nine in ten."""
    pass_s: float | None
    """Seconds after which half of the gates may pass a candidate that is as good as stable; None when none ever will."""
    pass_late_s: float | None
    """The same of nine in ten."""
    text: str
    """All of it in one sentence, without the full stop."""
    warnings: tuple[str, ...]
    """Sentences on what this bake cannot do."""

    def as_dict(self) -> dict[str, t.Any]:
        return asdict(self)


def plan(question: Question, rps_b: float, rps_c: float, p_b: float, bake_s: float, harm: float | None = None,
         alpha: float = 0.05, beta: float = 0.05, phi: float = 1.0, must_pass: bool = True) -> Plan:
    """Returns what *question* can find in *bake_s* seconds at *rps_b* and *rps_c* requests per second and a rate of *p_b* on stable.

    *harm* is the candidate's rate that is worth catching; *alpha* the question's part of it (its weight times the gate's).
    Where no pass is needed (*must_pass*), it is no warning that there will be none.
    """
    q, phi = question, max(phi, question.burst)
    smallest = ep.smallest_effect(rps_b, rps_c, p_b, q.ratio, q.margin, bake_s, alpha, q.direction, phi)
    median = late = inf
    if harm is not None:
        median, late = ep.time_to_proof(ep.growth_rate(rps_b, rps_c, p_b, harm, q.ratio, q.margin, q.direction) / phi, alpha)
    passing, passing_late = ep.time_to_pass(ep.growth_rate(rps_b, rps_c, p_b, p_b, *q.tolerated, -q.direction) / phi, beta)

    found = 'no rate of the candidate is surely found'
    if smallest is not None:
        found = '%s %s or %s on the candidate is found in nine of ten cases' % (
            percent(smallest), q.what, 'more' if q.direction > 0 else 'less')
    parts = ['%s: in %s at %.3g and %.3g requests per second, with %s on stable, %s' % (
        q.name, format_duration(bake_s), rps_c, rps_b, percent(p_b), found)]
    warnings = []
    if harm is not None and median < inf:
        parts.append('%s is found in %s, in one of ten cases only after %s' % (
            percent(harm), format_duration(median), format_duration(late)))
        if late > bake_s:
            warnings.append('The bake of %s is too short for the condition "%s" to find %s %s: that takes up to %s. Bake longer, give the '
                            'candidate more traffic, or look for a larger harm.' % (
                                format_duration(bake_s), q.name, percent(harm), q.what, format_duration(late)))
    elif harm is not None:
        warnings.append('The condition "%s" never finds %s %s: that is within its limit, or there is no traffic to see it in.' % (
            q.name, percent(harm), q.what))
    if passing < inf:
        parts.append('a candidate as good as stable passes after %s, in one of ten cases only after %s' % (
            format_duration(passing), format_duration(passing_late)))
    if must_pass and passing == inf:
        warnings.append('The condition "%s" cannot pass a candidate that is only as good as stable, so it ends inconclusive: tolerate more '
                        'for a pass (pass_margin).' % q.name)
    elif must_pass and passing_late > bake_s:
        warnings.append('The condition "%s" needs up to %s to pass a candidate as good as stable, longer than the bake of %s: tolerate '
                        'more for a pass (pass_margin), or bake longer.' % (q.name, format_duration(passing_late), format_duration(bake_s)))
    return Plan(smallest, harm, _finite(median), _finite(late), _finite(passing), _finite(passing_late), '; '.join(parts), tuple(warnings))


def _finite(value: float) -> float | None:
    return value if value < inf else None
