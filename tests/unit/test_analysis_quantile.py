# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given, strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import quantile
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.history import Seen, Series
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.measure import ABOVE, Quantile, View
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.quantile import Latencies, floor_of
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Block

MS = st.integers(0, 5000).map(float)
P = st.sampled_from([Fraction(1, 2), Fraction(9, 10), Fraction(95, 100), Fraction(99, 100), Fraction(999, 1000)])


def nearest_rank(values, p):
    return sorted(values)[math.ceil(p * len(values)) - 1]


@given(st.lists(MS, min_size=1, max_size=200), P)
def test_quantile_is_the_value_of_nearest_rank(values, p):
    assert Latencies(values).quantile(p) == (nearest_rank(values, p), False)


def test_quantile_of_nothing_is_none():
    assert Latencies().quantile(Fraction(1, 2)) is None


@given(st.lists(MS, min_size=1, max_size=200), P, st.integers(0, 5000))
def test_counting_proves_exactly_what_the_quantile_says(values, p, limit):
    """More than 1-p of all are slower than the limit if and only if the quantile by nearest rank is."""
    series = Series(60)
    series.poll(1.0, [Seen(Block('canary', '', seconds=1, requests=len(values), latencies_ms=tuple(values)))])
    proven = Quantile('requests', p, 'p').beyond(View(series, series.window), limit, ABOVE)
    assert proven == (nearest_rank(values, p) > limit)


@given(st.lists(MS, max_size=100), st.lists(MS, max_size=50), st.integers(1, 40), P, st.integers(1, 5000))
def test_those_who_wait_longer_than_the_limit_count_as_slower(values, gone, waiting, p, limit):
    """As if each had been answered later than everything: whatever comes, the verdict on the limit is the same."""
    block = Block('canary', '', seconds=1, latencies_ms=tuple(values), gave_up_ms=tuple(gone),
                  waiting=((limit / 2, waiting + 3), (float(limit), waiting)))
    series = Series(60)
    series.poll(1.0, [Seen(block)])
    known = values + [1e9] * (waiting + sum(ms > limit for ms in gone))
    view, measure = View(series, series.window), Quantile('requests', p, 'p')
    assert measure.beyond(view, limit, ABOVE) == (nearest_rank(known, p) > limit)
    assert measure.n(view, limit) == len(known)
    value, bound = measure.value(view, limit)
    assert (value < nearest_rank(known, p)) if bound else (value == nearest_rank(known, p))


@given(st.lists(st.lists(MS, max_size=30), max_size=12), st.integers(1, 5))
def test_window_holds_exactly_the_blocks_inside_it(polls, length):
    series = Series(length)
    for second, values in enumerate(polls, 1):
        series.poll(float(second), [Seen(Block('canary', '', seconds=1.0, requests=len(values), bad=len(values) // 2,
                                               latencies_ms=tuple(values), gave_up_ms=tuple(values[:2])))])
        inside = polls[max(0, second - length):second]
        assert series.window.requests == sum(map(len, inside))
        assert series.window.bad == sum(len(one) // 2 for one in inside)
        assert sorted(v for v, n in series.window.latencies.counts.items() for _number in range(n)) == sorted(sum(inside, []))
        assert series.window.gave_up.total == sum(len(one[:2]) for one in inside)
        assert abs(series.window.seconds - len(inside)) < 1e-9
    assert series.stage.requests == sum(map(len, polls))


def test_window_keeps_the_newest_block_though_it_is_longer():
    series = Series(5)
    for at in (10.0, 20.0):
        series.poll(at, [Seen(Block('canary', '', seconds=10.0, requests=7))])
    assert series.window.requests == 7 and series.window.seconds == 10.0


def test_seconds_of_endpoints_side_by_side_do_not_add():
    series = Series(60)
    for at in (1.0, 2.0):
        series.poll(at, [Seen(Block('canary', name, seconds=1.0, requests=1)) for name in ('lb1', 'lb2')])
    assert series.window.seconds == 2.0 and series.window.requests == 4


def test_waiting_is_forgotten_when_the_endpoint_does_not_answer():
    series = Series(60)
    series.poll(1.0, [Seen(Block('canary', 'lb1', seconds=1.0, waiting=((1000.0, 5),)))])
    assert series.beyond(series.window, 1000.0) == [(1000.0, 5)]
    series.poll(2.0, [])
    assert series.beyond(series.window, 1000.0) == []


@given(st.floats(1e-3, 1e7))
def test_coarse_values_are_at_most_one_per_cent_low(value):
    assert value / 1.0101 <= floor_of(value) <= value


def test_memory_is_bounded_and_the_error_below_one_per_cent():
    stage = Latencies()
    values = [1 + 0.37 * i for i in range(20_000)]
    for start in range(0, len(values), 500):
        stage.absorb(Latencies(values[start:start + 500]))
    assert len(stage.counts) <= quantile.DISTINCT
    assert stage.total == len(values)
    for p in (Fraction(1, 2), Fraction(95, 100), Fraction(99, 100)):
        exact = nearest_rank(values, p)
        assert exact / 1.0101 <= stage.quantile(p)[0] <= exact
    assert stage.slower_than(3000.0) <= sum(v > 3000.0 for v in values)


@given(st.lists(MS, max_size=400))
def test_slower_than_never_counts_too_many_when_coarse(values):
    coarse = Latencies(float(i) for i in range(quantile.DISTINCT + 1))
    before = [float(i) for i in range(quantile.DISTINCT + 1)]
    coarse.add(values)
    for limit in (0.0, 50.0, 777.0, 5000.0):
        assert coarse.slower_than(limit) <= sum(v > limit for v in before + values)
