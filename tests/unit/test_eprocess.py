# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _eprocess as ep

EDGES = [(1, 0), (1, 0.05), (2, 0), (1.5, 0.02), (0.5, 0), (0, 0.2), (1, -0.1), (0.9, 0.01)]
ROUNDING = 1e-12


def binomial(n, k, p):
    return math.comb(n, k) * p ** k * (1 - p) ** (n - k)


def expectation(block_value, n_b, n_c, p_b, p_c):
    """Sums over every possible block of independent requests with these rates."""
    return sum(binomial(n_b, e_b, p_b) * binomial(n_c, e_c, p_c) * block_value(ep.Counts(e_b, n_b, e_c, n_c))
               for e_b in range(n_b + 1) for e_c in range(n_c + 1))


def null_points(a, m, direction, steps=9):
    """Pairs of rates in the null, its edge and corners among them."""
    rates = [i / steps for i in range(steps + 1)]
    for p_b in rates:
        edge = a * p_b + m
        for p_c in [*rates, min(max(edge, 0.0), 1.0)]:
            if direction * (p_c - edge) <= 1e-15:
                yield p_b, p_c


@pytest.mark.parametrize('a, m', EDGES)
@pytest.mark.parametrize('direction', [1, -1])
@pytest.mark.parametrize('n_b, n_c', [(1, 1), (4, 2), (2, 5)])
def test_a_blocks_expectation_under_the_null_is_one_at_most(a, m, direction, n_b, n_c):
    for theta_b, theta_c in itertools.product((0.02, 0.2, 0.5, 0.9), (0.01, 0.15, 0.6, 0.97)):
        if direction * (theta_c - (a * theta_b + m)) <= 0:
            continue
        for p_b, p_c in null_points(a, m, direction):
            mean = expectation(lambda block: math.exp(ep.block_log_e(block, theta_b, theta_c, a, m)), n_b, n_c, p_b, p_c)
            assert mean <= 1 + ROUNDING, (theta_b, theta_c, p_b, p_c)


def test_some_point_of_the_null_has_the_expectation_one():
    """The bound above is not kept by giving evidence away."""
    a, m, theta_b, theta_c, n_b, n_c = 1.5, 0.02, 0.1, 0.4, 4, 2
    q = ep.project(n_b, n_c, theta_b, theta_c, a, m)
    mean = expectation(lambda block: math.exp(ep.block_log_e(block, theta_b, theta_c, a, m)), n_b, n_c, q, a * q + m)
    assert mean == pytest.approx(1, abs=1e-12)


def test_requests_of_one_block_may_differ_as_long_as_their_averages_keep_the_null():
    for low, high in ((0.0, 0.4), (0.1, 0.3), (0.05, 0.35)):
        rates_b, rates_c = (low, high), (high, low)
        mean = 0.0
        for outcome in itertools.product((0, 1), repeat=4):
            weight = math.prod(p if hit else 1 - p for hit, p in zip(outcome, rates_b + rates_c))
            mean += weight * math.exp(ep.block_log_e(ep.Counts(sum(outcome[:2]), 2, sum(outcome[2:]), 2), 0.1, 0.4, 1, 0))
        assert mean <= 1 + ROUNDING


@pytest.mark.parametrize('a, m, direction', [(1, 0, 1), (1, 0.1, -1), (0, 0.2, 1), (2, 0.05, 1)])
@pytest.mark.parametrize('limit', [1.2, 2.0, math.inf])
def test_stopping_the_mixture_at_any_moment_keeps_the_expectation(a, m, direction, limit):
    """Two blocks; the second one's theta comes from the first; whoever stops early at *limit* gains nothing by it."""
    n_b, n_c, p_b = 3, 2, 0.3
    p_c = a * p_b + m
    mean = 0.0
    for first in itertools.product(range(n_b + 1), range(n_c + 1)):
        process, baseline = ep.EProcess(a, m, direction), ep.Baseline(1, 4)
        process.update(ep.Counts(first[0], n_b, first[1], n_c), baseline.theta, onset=0.1)
        baseline.add(first[0], n_b)
        weight = binomial(n_b, first[0], p_b) * binomial(n_c, first[1], p_c)
        if math.exp(process.log_e) >= limit:
            mean += weight * math.exp(process.log_e)
            continue
        for second in itertools.product(range(n_b + 1), range(n_c + 1)):
            then = ep.EProcess(a, m, direction)
            then.restore(process.state())
            then.update(ep.Counts(second[0], n_b, second[1], n_c), baseline.theta, onset=0.1)
            mean += weight * binomial(n_b, second[0], p_b) * binomial(n_c, second[1], p_c) * math.exp(then.log_e)
    assert mean <= 1 + ROUNDING


def exact_projection(n_b, n_c, theta_b, theta_c, a, m):
    """Bisection in exact arithmetic on the derivative's numerator."""
    low, high = sorted((theta_b, (theta_c - m) / a))
    low, high = (Fraction(max(low, 0.0, -m / a)), Fraction(min(high, 1.0, (1 - m) / a)))
    theta_b, theta_c, a, m = map(Fraction, (theta_b, theta_c, a, m))
    for _step in range(80):
        q = Fraction(int((low + high) * 2 ** 119), 2 ** 120)
        c = a * q + m
        if n_b * (q - theta_b) * c * (1 - c) + a * n_c * (c - theta_c) * q * (1 - q) < 0:
            low = q
        else:
            high = q
    return float(low)


@given(n_b=st.integers(1, 10 ** 6), n_c=st.integers(1, 10 ** 5), log_theta=st.floats(-6, -0.02),
       a=st.sampled_from([0.5, 0.95, 1, 1.5, 2, 10]), m=st.sampled_from([0, 1e-4, 0.001, 0.01, 0.2, -0.001, -0.05]),
       ratio=st.sampled_from(ep.GRID), direction=st.sampled_from([1, -1]))
def test_the_projection_is_the_minimum(n_b, n_c, log_theta, a, m, ratio, direction):
    theta_b = 10 ** log_theta
    edge = a * theta_b + m
    assume(1e-9 < edge < 1 - 1e-9)
    odds = edge / (1 - edge) * ratio ** direction
    theta_c = odds / (1 + odds)
    q = ep.project(n_b, n_c, theta_b, theta_c, a, m)
    assert q == pytest.approx(exact_projection(n_b, n_c, theta_b, theta_c, a, m), rel=1e-12)


@given(e_b=st.integers(0, 50), more_b=st.integers(0, 1000), e_c=st.integers(0, 50), more_c=st.integers(0, 1000),
       theta=st.floats(0, 1), a=st.sampled_from([0, 0.5, 1, 3]), m=st.sampled_from([0.0, 0.01, 0.5, -0.2, 0.99]),
       direction=st.sampled_from([1, -1]))
def test_evidence_is_always_a_number(e_b, more_b, e_c, more_c, theta, a, m, direction):
    assume(a or 0 < m < 1)
    process = ep.EProcess(a, m, direction)
    process.update(ep.Counts(e_b, e_b + more_b, e_c, e_c + more_c), theta, onset=0.5)
    assert math.isfinite(process.log_e)


def test_more_errors_of_the_canary_are_more_evidence_for_harm_and_less_against_it():
    def log_e(e_c, direction):
        process = ep.EProcess(1, 0.001, direction)
        process.update(ep.Counts(1, 950, e_c, 50), 0.001)
        return process.log_e
    harm, none = [log_e(e, 1) for e in range(8)], [log_e(e, -1) for e in range(8)]
    assert harm == sorted(harm) and none == sorted(none, reverse=True) and harm[0] < 0 < harm[3]


def test_without_traffic_on_one_side_nothing_is_proven():
    for block in (ep.Counts(3, 900, 0, 0), ep.Counts(0, 0, 5, 50)):
        for a, theta_b in ((1, 0.001), (0.5, 0.5)):
            process = ep.EProcess(a, 0)
            process.update(block, theta_b)
            assert process.log_e == pytest.approx(0, abs=1e-12)


def test_an_objective_needs_no_baseline():
    process = ep.EProcess(0, 0.01)
    process.update(ep.Counts(0, 0, 10, 100), 0.5)
    assert process.log_e > 3


def test_a_rate_that_cannot_be_exceeded_is_not_proven_to_be():
    process = ep.EProcess(2, 0.5)
    process.update(ep.Counts(40, 100, 100, 100), 0.4)
    assert process.log_e == pytest.approx(0, abs=1e-12)
    process = ep.EProcess(1, -0.5, -1)
    process.update(ep.Counts(40, 100, 0, 100), 0.4)
    assert process.log_e == pytest.approx(0, abs=1e-12)


def test_the_pocket_pays_for_a_late_onset():
    def evidence(pocket):
        process = ep.EProcess(1, 0, pocket=pocket)
        for i in range(110):
            process.update(ep.Counts(1, 950, i >= 100, 50), 0.001, onset=1 / 60 if pocket else 0)
        return process.log_e
    assert evidence(0.5) > evidence(0) + 2


def test_dispersion_divides_the_evidence():
    plain, divided = ep.EProcess(0, 0.01, pocket=0), ep.EProcess(0, 0.01, pocket=0)
    block = ep.Counts(0, 0, 9, 100)
    plain.update(block, 0.5)
    divided.update(block, 0.5, phi=4)
    assert 0 < divided.log_e < plain.log_e
    same = ep.EProcess(0, 0.01, pocket=0)
    same.update(block, 0.5, phi=1)
    assert same.log_e == plain.log_e


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=5))
def test_logarithms_are_added_without_overflow(values):
    top = max(values)
    assert top <= ep.log_sum(values) <= top + math.log(len(values)) + 1e-9 * abs(top)
    assert ep.log_add(values[0], values[-1]) == pytest.approx(ep.log_sum([values[0], values[-1]]))
    assert ep.log_add(values[0], -math.inf) == values[0]


def test_the_state_survives_json_and_damage_is_refused():
    process = ep.EProcess(1, 0.001, pocket=0)
    process.update(ep.Counts(1, 950, 3, 50), 0.001)
    again = ep.EProcess(1, 0.001, pocket=0)
    again.restore(json.loads(json.dumps(process.state())))
    assert again.log_e == process.log_e and again.state() == process.state()
    assert 'Infinity' not in json.dumps(process.state())
    for damaged in ([], process.state()[:-1], [math.nan] * 11, [math.inf] * 11, ['x'] * 11):
        with pytest.raises(ValueError):
            again.restore(damaged)


class TestDispersion:
    def test_an_incident_that_all_servers_share_cancels(self):
        dispersion = ep.Dispersion()
        for i in range(40):
            each = 100 if i % 2 else 0
            dispersion.add([(each + k % 2, 1000) for k in range(4)])
        assert dispersion.phi() == 1

    def test_bursts_on_single_servers_show(self):
        dispersion = ep.Dispersion()
        for i in range(40):
            dispersion.add([(10 if k == i % 4 else 0, 1000) for k in range(4)])
        assert 10 < dispersion.phi() < 15

    def test_too_few_blocks_leave_what_the_user_said(self):
        dispersion = ep.Dispersion()
        for _i in range(7):
            dispersion.add([(10, 1000), (0, 1000), (0, 1000), (0, 1000)])
        assert dispersion.phi(3) == 3
        dispersion.add([(10, 1000), (0, 1000), (0, 1000), (0, 1000)])
        assert dispersion.phi(3) > 10
        assert dispersion.phi(30) == 30

    def test_one_server_tells_nothing(self):
        dispersion = ep.Dispersion()
        for _i in range(100):
            dispersion.add([(10, 1000), (0, 0)])
        assert dispersion.phi() == 1


class TestPlanning:
    def test_growth_is_the_mean_evidence_of_a_second(self):
        rps_b, rps_c, p_b, p_c, a, m = 9, 5, 0.2, 0.6, 1, 0.1
        mean = sum(binomial(rps_b, e_b, p_b) * binomial(rps_c, e_c, p_c) * ep.block_log_e(ep.Counts(e_b, rps_b, e_c, rps_c), p_b, p_c, a, m)
                   for e_b in range(rps_b + 1) for e_c in range(rps_c + 1))
        assert ep.growth_rate(rps_b, rps_c, p_b, p_c, a, m) == pytest.approx(mean, rel=1e-12)

    def test_there_is_none_inside_the_null_or_without_traffic(self):
        assert ep.growth_rate(95, 5, 0.01, 0.01, 1, 0) == 0
        assert ep.growth_rate(95, 5, 0.01, 0.02, 1, 0, direction=-1) == 0
        assert ep.growth_rate(95, 0, 0.01, 0.5, 1, 0) == 0
        assert ep.growth_rate(0, 5, 0.01, 0.5, 1, 0) == 0
        assert ep.growth_rate(0, 5, 0.01, 0.5, 0, 0.1) > 0
        assert ep.time_to_proof(0, 0.05) == (math.inf, math.inf)

    @given(rps_c=st.floats(0.5, 500), p_b=st.floats(0, 0.1), seconds=st.floats(10, 10 ** 5), direction=st.sampled_from([1, -1]))
    def test_the_smallest_effect_takes_the_whole_time(self, rps_c, p_b, seconds, direction):
        edge = (1, 0) if direction > 0 else (0, 0.5)
        smallest = ep.smallest_effect(95, rps_c, p_b, *edge, seconds, 0.05, direction)
        if smallest is None:
            extreme = 1.0 if direction > 0 else 0.0
            assert ep.time_to_proof(ep.growth_rate(95, rps_c, p_b, extreme, *edge, direction), 0.05)[1] > seconds
        else:
            _median, late = ep.time_to_proof(ep.growth_rate(95, rps_c, p_b, smallest, *edge, direction), 0.05)
            assert late == pytest.approx(seconds, rel=1e-3)
