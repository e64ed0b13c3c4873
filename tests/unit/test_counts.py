# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _counts as counts


def exact_log_e(x, k_rho):
    """The definition as the product of its predictions, one event after the other, for k*rho that are whole."""
    k = sum(k_rho)
    predicted = (math.log((start + i) * k / start) for count, start in zip(x, k_rho) for i in range(count))
    return math.fsum(itertools.chain(predicted, (-math.log(k + i) for i in range(sum(x)))))


class TestMultinomial:
    @pytest.mark.parametrize('shares, k', [((1, 1), 100), ((0.95, 0.05), 100), ((2, 1, 1), 10), ((0.5, 0.3, 0.2), 3)])
    def test_its_expectation_is_one_when_the_split_is_as_told(self, shares, k):
        n, mean = 7, 0.0
        rho = [share / sum(shares) for share in shares]
        for x in itertools.product(range(n + 1), repeat=len(shares)):
            if sum(x) == n:
                weight = math.factorial(n) / math.prod(math.factorial(one) for one in x) * math.prod(p ** one for p, one in zip(rho, x))
                mean += weight * math.exp(counts.multinomial_log_e(x, shares, k))
        assert mean == pytest.approx(1, rel=1e-12)

    @settings(deadline=None)
    @given(x=st.lists(st.integers(0, 3000), min_size=2, max_size=4), data=st.data())
    def test_it_is_the_definition(self, x, data):
        k_rho = data.draw(st.lists(st.integers(1, 60), min_size=len(x), max_size=len(x)))
        ours = counts.multinomial_log_e(x, k_rho, sum(k_rho))
        assert ours == pytest.approx(exact_log_e(x, k_rho), rel=1e-10, abs=1e-11)

    def test_large_counts_keep_their_digits(self):
        x, k_rho = (200_500, 199_500), (50, 50)
        assert counts.multinomial_log_e(x, k_rho) == pytest.approx(exact_log_e(x, k_rho), rel=1e-11)

    def test_no_counts_are_no_evidence(self):
        assert counts.multinomial_log_e((0, 0, 0), (2, 1, 1)) == pytest.approx(0, abs=1e-12)

    def test_evidence_becomes_a_p_value(self):
        assert counts.always_valid_p(math.log(20)) == pytest.approx(0.05)
        assert counts.always_valid_p(-1) == 1 and counts.always_valid_p(10 ** 6) == 0


class TestIntervals:
    @given(n=st.integers(1, 10 ** 6), part=st.floats(0, 1), alpha=st.floats(0.001, 0.5))
    def test_a_rates_interval_is_where_the_evidence_is_below_its_limit(self, n, part, alpha):
        x = round(part * n)
        low, high = counts.rate_interval(x, n, alpha)
        assert 0 <= low <= x / n <= high <= 1
        for edge in (low, high):
            if 0 < edge < 1:
                log_e = counts.multinomial_log_e((x, n - x), (edge, 1 - edge), 1)
                mixture = counts.multinomial_log_e((x, n - x), (1, 1), 1) - x * math.log(2 * edge) - (n - x) * math.log(2 * (1 - edge))
                assert mixture == pytest.approx(math.log(1 / alpha), rel=1e-5, abs=1e-5) and math.isfinite(log_e)

    def test_nothing_seen_excludes_nothing(self):
        assert counts.rate_interval(0, 0, 0.05) == (0, 1)
        assert counts.share_interval(0, 0, 0.5, 0.05) == (0, 1)
        assert counts.rate_ratio_interval(0, 0, 0.5, 0.05) == (0, math.inf)

    def test_all_or_none_leave_one_side_open(self):
        assert counts.rate_interval(0, 100, 0.05)[0] == 0 and counts.rate_interval(100, 100, 0.05)[1] == 1
        low, high = counts.rate_interval(0, 1000, 0.05)
        mirrored = counts.rate_interval(1000, 1000, 0.05)
        assert high == pytest.approx(1 - mirrored[0], rel=1e-9)

    @given(x=st.integers(0, 500), more=st.integers(0, 5000), alpha=st.floats(0.01, 0.2))
    def test_less_risk_takes_a_wider_interval(self, x, more, alpha):
        n = x + more
        (low, high), (lower, higher) = counts.rate_interval(x, n, alpha), counts.rate_interval(x, n, alpha / 2)
        assert lower <= low and high <= higher

    def test_it_hardly_ever_excludes_the_truth_however_often_one_looks(self):
        """All paths of 12 tosses, exactly: the interval excludes 0.3 at some moment with probability alpha at most."""
        truth, alpha, tosses = 0.3, 0.2, 12
        excluded = {(n, x): not low <= truth <= high for n in range(tosses + 1) for x in range(n + 1)
                    for low, high in [counts.rate_interval(x, n, alpha)]}
        alive = {0: 1.0}
        for n in range(1, tosses + 1):
            step: dict[int, float] = {}
            for x, weight in alive.items():
                for hit, p in ((1, truth), (0, 1 - truth)):
                    if not excluded[n, x + hit]:
                        step[x + hit] = step.get(x + hit, 0) + weight * p
            alive = step
        assert 0 < 1 - sum(alive.values()) <= alpha

    def test_a_ratio_counts_the_traffic_of_both(self):
        low, high = counts.rate_ratio_interval(5, 95, 0.05, 0.05)
        assert low < 1 < high
        low, high = counts.rate_ratio_interval(50, 95, 0.05, 0.05)
        assert low > 2
        mirrored = counts.rate_ratio_interval(95, 50, 0.95, 0.05)
        assert 1 / mirrored[1] == pytest.approx(low, rel=1e-9) and 1 / mirrored[0] == pytest.approx(high, rel=1e-9)

    def test_a_difference_holds_what_its_parts_hold(self):
        low, high = counts.difference_interval(10, 1000, 30, 1000, 0.05)
        assert low < 0.02 < high
        assert counts.difference_interval(30, 1000, 10, 1000, 0.05) == pytest.approx((-high, -low))


PAIRS = st.tuples(st.integers(0, 30), st.integers(1, 60), st.integers(0, 30), st.integers(1, 60)).map(
    lambda p: (p[0], p[0] + p[1], p[2], p[2] + p[3]))


class TestFixedSample:
    @given(x=st.floats(0.01, 200), df=st.integers(1, 40))
    def test_the_chi_square_tail_obeys_its_recurrence(self, x, df):
        step = math.exp((df / 2) * math.log(x / 2) - x / 2 - math.lgamma(df / 2 + 1))
        assert counts.chi2_sf(x, df + 2) == pytest.approx(counts.chi2_sf(x, df) + step, rel=1e-9)

    def test_its_ends(self):
        assert counts.chi2_sf(0, 3) == 1 and counts.chi2_sf(3.841458820694124, 1) == pytest.approx(0.05, rel=1e-12)
        assert counts.chi_square_p((50, 50), (1, 1)) == 1

    @given(PAIRS)
    def test_fishers_p_is_the_exact_sum(self, pair):
        e_b, n_b, e_c, n_c = pair
        n = e_b + e_c
        exact = sum(Fraction(math.comb(n_c, i) * math.comb(n_b, n - i), math.comb(n_b + n_c, n)) for i in range(e_c, min(n, n_c) + 1))
        assert counts.fisher_p(*pair) == pytest.approx(float(exact), rel=1e-9)

    @given(PAIRS)
    def test_the_conditional_p_is_the_exact_sum(self, pair):
        e_b, n_b, e_c, n_c = pair
        w, n = Fraction(n_c, n_b + n_c), e_b + e_c
        exact = sum(math.comb(n, i) * w ** i * (1 - w) ** (n - i) for i in range(e_c, n + 1))
        assert counts.conditional_p(*pair) == pytest.approx(float(exact), rel=1e-9)

    @given(PAIRS, st.floats(0.01, 0.3))
    def test_exchanged_arms_mirror_every_answer(self, pair, alpha):
        e_b, n_b, e_c, n_c = pair
        other = pair[2:] + pair[:2]
        low, high = counts.newcombe_interval(*pair, alpha)
        assert low - 1e-12 <= e_c / n_c - e_b / n_b <= high + 1e-12
        assert counts.newcombe_interval(*other, alpha) == pytest.approx((-high, -low), abs=1e-12)
        assert counts.pooled_z(*pair) == pytest.approx(-counts.pooled_z(*other))
        assert counts.wald_z(*pair, 0.1) == pytest.approx(-counts.wald_z(*other, -0.1))
        assert counts.score_z(*pair, 0.1) == pytest.approx(-counts.score_z(*other, -0.1), rel=1e-6, abs=1e-6)

    @given(PAIRS)
    def test_without_margin_the_score_is_the_pooled_test(self, pair):
        n = pair[1] + pair[3]
        assert counts.score_z(*pair, 0) == pytest.approx(counts.pooled_z(*pair) * math.sqrt((n - 1) / n), rel=1e-6, abs=1e-6)

    def test_wilson_lies_within_0_and_1(self):
        assert 0 <= counts.wilson_interval(0, 10, 0.05)[0] < 1e-12
        assert counts.wilson_interval(10, 10, 0.05)[1] == pytest.approx(1)
