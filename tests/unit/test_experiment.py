# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import math
import random

from hypothesis import given, strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _counts as c
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import experiment as e

SHARES = {'control': 5000, 'variant_a': 2500, 'variant_b': 2500}
MORE = e.Metric('conversion_rate')


def verdict(tallies, metric=MORE, tolerance=0.05, alpha=0.05):
    compared = {name: e.compare(tallies['control'], tallies[name], 2, alpha, metric.burst) for name in tallies if name != 'control'}
    return e.decide('control', metric, tallies, compared, tolerance)


def peeks(chance, looks, visitors, rate, lift=0.0):
    """Yields the tallies at each look: users at random by the split, a conversion rate with the cycle of a day."""
    total, events = dict.fromkeys(SHARES, 0), dict.fromkeys(SHARES, 0)
    for look in range(looks):
        now = rate * (1 + 0.5 * math.sin(look / 4))
        for name in chance.choices(list(SHARES), list(SHARES.values()), k=visitors):
            total[name] += 1
            events[name] += chance.random() < now * (1 + (lift if name == 'variant_a' else 0))
        yield {name: e.Tally(events[name], total[name]) for name in SHARES}


def naive(tallies):
    """What a z-test at each look would say, Bonferroni included."""
    return any(abs(c.pooled_z(*tallies['control'], *tallies[name])) > 2.24 for name in ('variant_a', 'variant_b'))


def test_equal_variants_seldom_win_however_often_one_looks():
    chance, wrong, fooled, invalid, runs = random.Random(7), 0, 0, 0, 120
    for _run in range(runs):
        seen = list(peeks(chance, 25, 160, 0.1))
        wrong += any(verdict(tallies).verdict == e.WINNER for tallies in seen)
        fooled += any(naive(tallies) for tallies in seen[2:])
        invalid += any(not e.check_visitors({name: tally.total for name, tally in tallies.items()}, SHARES, 0.01).ok for tallies in seen)
    assert wrong <= 0.05 * runs and invalid <= 0.03 * runs
    assert fooled > 0.1 * runs, 'the same looks fool a test that is made for one look'


def test_a_better_variant_wins_and_only_that_one():
    chance, won = random.Random(8), []
    for _run in range(20):
        won.append(next((found.winner for found in map(verdict, peeks(chance, 25, 400, 0.1, 0.6)) if found.verdict == e.WINNER), None))
    assert won.count('variant_a') >= 18 and set(won) <= {'variant_a', None}


def test_less_is_better_where_the_metric_says_so():
    tallies = {'control': e.Tally(500, 5000), 'variant_a': e.Tally(150, 2500), 'variant_b': e.Tally(260, 2500)}
    assert verdict(tallies, e.Metric('bounces', -1)).winner == 'variant_a'
    assert verdict(tallies).verdict == e.KEEP_RUNNING


def test_variants_that_are_all_worse_make_control_the_winner():
    tallies = {'control': e.Tally(1000, 5000), 'variant_a': e.Tally(300, 2500), 'variant_b': e.Tally(310, 2500)}
    assert verdict(tallies) == e.Verdict(e.WINNER, verdict(tallies).reason, 'control')


def test_arms_that_surely_differ_by_less_than_the_tolerance_are_equivalent():
    tallies = {'control': e.Tally(100_000, 500_000), 'variant_a': e.Tally(50_000, 250_000), 'variant_b': e.Tally(50_100, 250_000)}
    assert verdict(tallies).verdict == e.EQUIVALENT
    assert verdict(tallies, tolerance=0.001).verdict == e.KEEP_RUNNING
    one_worse = {**tallies, 'variant_b': e.Tally(40_000, 250_000)}
    assert verdict(one_worse).verdict == e.EQUIVALENT, 'neither can be better than control'


def test_without_counts_there_is_no_verdict():
    assert verdict({'control': e.Tally(5, 50), 'variant_a': e.Tally(0, 0), 'variant_b': e.Tally(9, 20)}).verdict == e.KEEP_RUNNING
    assert verdict(dict.fromkeys(SHARES, e.Tally(0, 10))).verdict == e.KEEP_RUNNING


def test_variants_share_alpha():
    control, variant = e.Tally(500, 5000), e.Tally(300, 2500)
    alone, shared = (e.compare(control, variant, variants, 0.05) for variants in (1, 5))
    assert shared.lift_interval[0] < alone.lift_interval[0] - 0.01 and shared.p == min(1.0, 5 * alone.p) > alone.p


def test_events_that_come_together_are_worth_less():
    tallies = {'control': e.Tally(500, 5000), 'variant_a': e.Tally(350, 2500), 'variant_b': e.Tally(250, 2500)}
    assert verdict(tallies).verdict == e.WINNER
    assert verdict(tallies, e.Metric('conversion_rate', burst=5.0)).verdict == e.KEEP_RUNNING


def test_visitors_that_do_not_follow_the_split_are_found_and_never_forgotten():
    half_counted = e.check_visitors({'control': 5000, 'variant_a': 2500, 'variant_b': 1250}, SHARES, 0.01)
    assert not half_counted.ok and half_counted.p < 1e-9
    later = e.check_visitors({'control': 5000, 'variant_a': 2500, 'variant_b': 2500}, SHARES, 0.01, half_counted.log_e)
    assert not later.ok and later.p == half_counted.p


def test_requests_may_miss_their_shares_by_the_tolerance():
    # A pool of 5000 users that comes back keeps its deviation of some tenths of a percentage point, however many requests it makes.
    pool = {'control': 504_000, 'variant_a': 244_000, 'variant_b': 252_000}
    assert not e.check_visitors(pool, SHARES, 0.01).ok
    assert e.check_requests(pool, SHARES, 0.01, 0.02).ok
    lost = {'control': 5000, 'variant_a': 2500, 'variant_b': 1800}
    assert not e.check_requests(lost, SHARES, 0.01, 0.02).ok
    assert e.check_requests(lost, SHARES, 0.01, 0.02, burst=40).ok, 'two hundred users may well fall so'
    assert e.check_requests({}, SHARES, 0.01, 0.02).ok


counts = st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)).map(lambda pair: e.Tally(min(pair), max(pair)))


@given(counts, counts, st.integers(1, 5), st.floats(0.001, 0.2))
def test_an_interval_holds_what_was_seen(control, variant, variants, alpha):
    one = e.compare(control, variant, variants, alpha)
    assert one.lift_interval[0] <= one.lift_interval[1] and 0 <= one.p <= 1
    if control.events and variant.events:
        assert one.lift_interval[0] - 1e-9 <= one.lift <= one.lift_interval[1] + 1e-9
    low, high = one.difference_interval
    assert low - 1e-9 <= variant.rate - control.rate <= high + 1e-9
    wider = e.compare(control, variant, variants + 1, alpha).lift_interval
    assert wider[0] <= one.lift_interval[0] + 1e-12 and one.lift_interval[1] <= wider[1] + 1e-12


@given(st.integers(0, 10**5), st.integers(0, 10**5), st.floats(0.05, 0.95), st.floats(0.001, 0.2))
def test_the_interval_of_a_share_is_where_the_evidence_is_too_small(x, y, rho, alpha):
    low, high = c.share_interval(x, y, rho, alpha)
    for theta, inside in ((low * 0.999, False), (low + (high - low) / 2, True), (high + (1 - high) * 0.001, False)):
        # Nearer to 0 or 1 a double has no room beside the edge.
        if low > 1e-9 and high < 1 - 1e-9:
            assert (c.share_log_e(x, y, rho, theta) <= -math.log(alpha) + 1e-6) == inside


@given(st.floats(0.01, 0.5), st.integers(1000, 10**6))
def test_more_traffic_finds_smaller_lifts(rate, trials):
    one, more = (e.detectable_lift(rate, n, n / 2, 2, 0.05) for n in (trials, 4 * trials))
    assert one is None or (more is not None and 0 < more <= one)
