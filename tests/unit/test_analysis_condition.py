# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._analysis.condition import build_conditions
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.spec import Context, Sample
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.verdict import Judgement, Policy, overall
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import COUNTS, GAUGE, LATENCIES, Block, Reading

ROUTER = {'requests': COUNTS, 'latency': LATENCIES, 'attempts': COUNTS, 'servers_up_ratio': GAUGE, 'workers': GAUGE}


def context(**changes):
    return Context(**{'candidate': 'canary', 'stable': 'blue', 'arms': ('blue', 'canary', 'green'), 'sources': {'router': ROUTER},
                      **changes})


def one(raw, **changes):
    return build_conditions([raw], context(**changes))[0]


class Feed:
    """Feeds a condition one poll a second."""

    def __init__(self, condition):
        self.condition, self.at, self.last = condition, 0.0, None

    def __call__(self, requests=0, bad=0, ms=(), stable=None, waiting=(), gauges=None, errors=(), source='router', endpoint='lb1',
                 seconds=1.0, stable_ms=(), more=()):
        self.at += seconds
        blocks = [Block('canary', endpoint, 'requests', seconds, requests, bad, tuple(ms), waiting=waiting)] if requests is not None else []
        if stable is not None:
            blocks.append(Block('blue', endpoint, 'requests', seconds, stable[0], stable[1], tuple(stable_ms)))
        reading = Reading(tuple(blocks) + tuple(more), gauges or {}, tuple(errors))
        self.last = self.condition.update(Sample(self.at, source, reading))
        return self.last


ERRORS = {'metric': 'error_ratio', 'abort_above': '0.5%', 'pass_below': '0.1%'}


# Aborting


def test_sentence_names_counts_share_time_and_limit():
    feed = Feed(one({**ERRORS, 'min_sample': 100}))
    assert not feed(60, 10).final
    assert feed(44, 11).reason == 'canary: 21 of 104 requests failed (20.19 %) in the last 2.0 s, limit 0.5 %'


def test_nothing_is_proven_below_the_minimum_sample():
    feed = Feed(one({**ERRORS, 'min_sample': 50}))
    assert not feed(49, 49).final
    assert feed(1, 1).final


def test_nothing_is_proven_below_the_minimum_of_bad_ones():
    feed = Feed(one(ERRORS))
    assert not feed(50, 2).final
    assert feed(50, 1).final


def test_a_ratio_at_the_limit_is_not_above_it():
    feed = Feed(one({**ERRORS, 'abort_above': '3%', 'pass_below': None}))
    assert not feed(100, 3).final
    assert feed(0, 0).verdict == 'pass'


def test_old_failures_leave_the_window():
    feed = Feed(one({**ERRORS, 'window': 2, 'min_events': 3, 'consecutive_limit': 3}))
    for bad in (5, 0, 0, 0, 0, 0):
        assert not feed(100, bad).final


def test_little_traffic_is_judged_over_the_stage():
    """One failure now and then never fills a window, and still is a twentieth of all."""
    feed = Feed(one({**ERRORS, 'window': 5}))
    judged = [feed(1, int(i % 20 == 0)) for i in range(1, 61)]
    assert [i for i, judgement in enumerate(judged, 1) if judgement.final][0] == 60
    assert judged[-1].reason == 'canary: 3 of 60 requests failed (5.00 %) since the stage began, limit 0.5 %'


def test_consecutive_limit_starts_anew_after_a_good_sample():
    feed = Feed(one({**ERRORS, 'window': 1, 'consecutive_limit': 2}))
    assert [feed(100, bad).final for bad in (5, 0, 5, 0, 5, 5)] == [False, False, False, False, False, True]


def test_total_limit_counts_all_failing_samples():
    feed = Feed(one({**ERRORS, 'window': 1, 'total_limit': 3}))
    assert [feed(100, bad).final for bad in (5, 0, 5, 0, 0, 5)] == [False, False, False, False, False, True]


def test_a_proof_stands_whatever_follows():
    feed = Feed(one(ERRORS))
    proof = feed(100, 50)
    assert feed(1000, 0) == proof and feed.condition.finish() == proof


def test_a_candidate_bad_behind_one_router_is_not_diluted():
    feed = Feed(one({**ERRORS, 'abort_above': '5%', 'pass_below': '1%'}, endpoints=2))
    judgement = feed(1000, 0, more=[Block('canary', 'lb2', 'requests', 1.0, 20, 4)])
    assert judgement.reason == 'canary behind lb2: 4 of 20 requests failed (20.00 %) in the last 1.0 s, limit 5 %'
    feed = Feed(one({**ERRORS, 'abort_above': '5%', 'pass_below': '1%', 'per_endpoint': False}, endpoints=2))
    assert not feed(1000, 0, more=[Block('canary', 'lb2', 'requests', 1.0, 20, 4)]).final


def test_warm_up_is_left_out():
    feed = Feed(one({**ERRORS, 'warm_up': 2}))
    assert not feed(100, 100).final and not feed(100, 100).final
    assert feed(100, 0).value == 0
    assert feed.condition.finish().verdict == 'pass'


# Latency

LATENCY = {'metric': 'latency_p95', 'abort_above': 1000, 'pass_below': '500ms'}


def test_slow_answers_are_proven_by_counting():
    feed = Feed(one(LATENCY))
    judgement = feed(100, ms=[20.0] * 94 + [1500.0] * 6)
    assert judgement.final and judgement.value == 1500.0
    assert judgement.reason == 'canary: p95 is 1500 ms (6 of 100 requests took longer than 1000 ms) in the last 1.0 s, limit 1000 ms'


def test_the_share_that_may_be_slow_is_not_a_proof():
    feed = Feed(one(LATENCY))
    assert not feed(100, ms=[20.0] * 95 + [1500.0] * 5).final


def test_silence_is_slow():
    feed = Feed(one(LATENCY))
    assert not feed(0, waiting=((500.0, 20),)).final
    judgement = feed(0, waiting=((500.0, 25), (1000.0, 12)))
    assert judgement.final and judgement.bound
    assert judgement.reason == ('canary: p95 is over 1000 ms (12 of 12 requests took longer than 1000 ms, 12 of them without an answer) '
                                'in the last 2.0 s, limit 1000 ms')


@pytest.mark.parametrize('waited, verdict', [(400.0, 'no_data'), (500.0, 'inconclusive'), (1000.0, 'fail')])
def test_silence_is_never_a_pass(waited, verdict):
    feed = Feed(one(LATENCY))
    feed(0, waiting=((waited, 20),))
    assert feed.condition.finish().verdict == verdict


def test_latency_compared_with_stable():
    ratio = {'metric': 'latency_p50', 'compare': 'ratio', 'abort_above': 2}
    assert not Feed(one(ratio))(50, ms=[39.0] * 50, stable=(50, 0), stable_ms=[20.0] * 50).final
    judgement = Feed(one(ratio))(50, ms=[41.0] * 50, stable=(50, 0), stable_ms=[20.0] * 50)
    assert judgement.reason == (
        'canary: p50 is 41 ms (50 of 50 requests took longer than 40 ms) in the last 1.0 s, limit 40 ms (2 times blue)')
    assert not Feed(one(ratio))(50, ms=[41.0] * 50, stable=(5, 0), stable_ms=[20.0] * 5).final


def test_ratio_to_a_latency_below_the_resolution_of_the_timers():
    ratio = {'metric': 'latency_p50', 'compare': 'ratio', 'abort_above': 3}
    assert not Feed(one(ratio))(50, ms=[3.0] * 50, stable=(50, 0), stable_ms=[0.0] * 50).final
    assert Feed(one(ratio))(50, ms=[4.0] * 50, stable=(50, 0), stable_ms=[0.0] * 50).final


# Comparing


def test_difference_to_the_stable_arm():
    raw = {'metric': 'error_ratio', 'compare': 'difference', 'abort_above': '1%', 'pass_below': '0.5%'}
    assert not Feed(one(raw))(1000, 59, stable=(1000, 50)).final
    judgement = Feed(one(raw))(1000, 61, stable=(1000, 50))
    assert judgement.reason == 'canary: 61 of 1000 requests failed (6.10 %) in the last 1.0 s, limit 6 % (1 % more than blue)'
    feed = Feed(one(raw))
    feed(1000, 50, stable=(1000, 50))
    assert feed.condition.finish().verdict == 'pass'


def test_ratio_to_a_stable_arm_without_any_failure():
    """It counts as if one of stable's requests had failed: a candidate with a fifth of failures does not hide behind a zero."""
    raw = {'metric': 'error_ratio', 'compare': 'ratio', 'abort_above': 2}
    assert Feed(one(raw))(100, 20, stable=(1000, 0)).final
    assert not Feed(one(raw))(10_000, 3, stable=(1000, 0)).final


def test_no_stable_traffic_is_no_data_for_a_comparison():
    feed = Feed(one({'metric': 'error_ratio', 'compare': 'difference', 'abort_above': '1%'}))
    feed(1000, 500)
    assert feed.condition.finish().verdict == 'no_data'


# Gauges


def test_gauge_aborts_on_its_last_value():
    feed = Feed(one({'metric': 'servers_up_ratio', 'abort_below': 0.5}))
    assert not feed(gauges={('servers_up_ratio', 'canary'): 0.5}).final
    assert feed(gauges={('servers_up_ratio', 'canary'): 0.0}).reason == 'canary: servers_up_ratio is 0, limit at least 0.5'


def test_gauge_passes_by_mean_and_last_value():
    raw = {'metric': 'workers', 'pass_above': 60}
    for values, verdict in (((61, 61), 'pass'), ((10, 61), 'fail'), ((90, 10), 'fail'), ((), 'no_data')):
        feed = Feed(one(raw))
        for value in values:
            feed(gauges={('workers', ''): value})
        assert feed.condition.finish().verdict == verdict, values


def test_gauge_between_its_limits_is_inconclusive():
    feed = Feed(one({'metric': 'workers', 'pass_above': 60, 'abort_below': 50}))
    feed(gauges={('workers', ''): 55})
    assert feed.condition.finish().verdict == 'inconclusive'


def test_a_gauge_that_vanished_is_no_data():
    feed = Feed(one({'metric': 'workers', 'pass_above': 60}))
    feed(gauges={('workers', 'canary'): 61})
    for _number in range(3):
        feed()
    assert feed.condition.finish().verdict == 'no_data'
    feed = Feed(one({'metric': 'workers', 'pass_above': 60}))
    feed(gauges={('workers', 'canary'): float('nan')})
    assert feed.condition.finish().verdict == 'no_data'


@pytest.mark.parametrize('raw, canary, blue, final', [
    ({'compare': 'difference', 'abort_above': 3}, 8, 5, False), ({'compare': 'difference', 'abort_above': 3}, 9, 5, True),
    ({'compare': 'ratio', 'abort_above': 2}, 10, 5, False), ({'compare': 'ratio', 'abort_above': 2}, 11, 5, True),
    ({'compare': 'ratio', 'abort_above': 2}, 1, 0, True), ({'compare': 'ratio', 'abort_above': 2}, 0, 0, False)])
def test_gauge_compared_with_stable(raw, canary, blue, final):
    feed = Feed(one({'metric': 'workers', **raw}))
    assert feed(gauges={('workers', 'canary'): canary, ('workers', 'blue'): blue}).final is final


# Counts, rates, shares


def test_counts_need_no_minimum_sample():
    feed = Feed(one({'metric': 'errors', 'abort_above': 0}))
    assert not feed(3, 0).final
    assert feed(1, 1).reason == 'canary: 1 failed requests in the last 2.0 s, limit 0'


def test_a_low_rate_says_nothing_before_the_window_is_full():
    feed = Feed(one({'metric': 'request_rate', 'abort_below': 5, 'window': 3}))
    assert [feed(1).final for _number in range(3)] == [False, False, True]


def test_share_of_the_candidate():
    raw = {'metric': 'share_bp', 'abort_above': '10%', 'pass_above': '4%', 'pass_below': '6%'}
    feed = Feed(one(raw))
    feed(50, stable=(950, 0))
    assert feed.condition.finish().verdict == 'pass'
    assert Feed(one(raw))(200, stable=(800, 0)).reason == 'canary: 200 of 1000 requests (20.00 %) in the last 1.0 s, limit 10 %'


# The end of a stage


@pytest.mark.parametrize('polls, verdict', [
    ([(1000, 0)], 'pass'), ([(1000, 1)], 'inconclusive'), ([(1000, 2)], 'inconclusive'), ([(0, 0)], 'no_data'), ([], 'no_data'),
    ([(5, 0)], 'inconclusive'), ([(10, 2)], 'inconclusive'), ([(10, 3)], 'fail')])
def test_verdict_on_the_whole_stage(polls, verdict):
    feed = Feed(one(ERRORS))
    for requests, bad in polls:
        feed(requests, bad)
    assert feed.condition.finish().verdict == verdict


def test_without_an_abort_limit_a_missed_goal_is_a_failure():
    feed = Feed(one({'metric': 'error_ratio', 'pass_below': '0.1%'}))
    assert not feed(1000, 500).final
    assert feed.condition.finish().verdict == 'fail'


def test_without_a_pass_limit_data_within_the_abort_limit_pass():
    feed = Feed(one({'metric': 'error_ratio', 'abort_above': '0.5%'}))
    feed(1000, 4)
    assert feed.condition.finish().verdict == 'pass'


def test_traffic_that_stopped_is_no_data_though_it_was_good():
    feed = Feed(one({**ERRORS, 'window': 5}))
    feed(1000, 0)
    for _number in range(6):
        feed(0, 0)
    judgement = feed.condition.finish()
    assert (judgement.verdict, judgement.reason) == ('no_data', 'canary: no requests in the last 6 s')


def test_no_data_after_ends_the_watch_early():
    feed = Feed(one({**ERRORS, 'no_data_after': 3}))
    assert [feed(0).final for _number in range(3)] == [False, False, True]
    assert feed.last.verdict == 'no_data'


def test_a_source_that_keeps_failing_is_an_error():
    feed = Feed(one(ERRORS))
    feed(100, 0)
    assert [feed(None, errors=['lb1 is silent.']).final for _number in range(3)] == [False, False, True]
    assert feed.last.reason == 'the source "router" failed 3 polls in a row: lb1 is silent'
    feed(100, 0)
    assert feed.condition.finish().verdict == 'pass'


def test_a_proof_counts_more_than_an_error():
    feed = Feed(one({**ERRORS}))
    for _number in range(2):
        feed(None, errors=['lb2 is silent.'])
    assert feed(100, 50, errors=['lb2 is silent.']).verdict == 'fail'


def test_samples_of_other_sources_change_nothing():
    feed = Feed(one(ERRORS))
    feed(100, 0)
    before = feed.last
    assert feed(100, 100, errors=['gone'], source='prometheus') == before


def test_the_stage_may_be_extended():
    feed = Feed(one(ERRORS))
    feed(5, 0)
    assert feed.condition.finish().verdict == 'inconclusive'
    feed(2000, 0)
    assert feed.condition.finish().verdict == 'pass'


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=30))
def test_a_pass_means_that_the_counts_allow_it(polls):
    feed = Feed(one(ERRORS))
    for requests, bad in polls:
        feed(requests, min(requests, bad))
    verdict = feed.condition.finish().verdict
    total, bad = sum(r for r, _bad in polls), sum(min(r, b) for r, b in polls)
    if verdict == 'pass':
        assert total >= 10 and bad / total < 0.001
    if verdict == 'fail':
        assert bad >= 3
    if total and bad / total < 0.001 and total >= 10 and bad == 0:
        assert verdict == 'pass'


# All together


@pytest.mark.parametrize('verdicts, expected', [
    (['pass', 'pass'], 'pass'), (['pass', 'inconclusive'], 'inconclusive'), (['inconclusive', 'no_data'], 'no_data'),
    (['no_data', 'error', 'inconclusive'], 'error'), (['error', 'fail', 'pass'], 'fail')])
def test_the_worst_required_verdict_decides(verdicts, expected):
    judgements = [Judgement(str(i), verdict, '') for i, verdict in enumerate(verdicts)]
    assert overall(judgements).verdict == expected
    assert overall(judgements + [Judgement('advice', 'fail', '', required=False)]).verdict == expected


def test_nothing_required_is_an_error():
    assert overall([Judgement('advice', 'pass', '', required=False)]).verdict == 'error'


def test_policy():
    policy = Policy.of({'inconclusive': 'extend', 'no_data': None})
    assert [policy.after(v) for v in ('pass', 'fail', 'inconclusive', 'no_data', 'error')] == ['pass', 'fail', 'extend', 'fail', 'fail']


# Bad input


@pytest.mark.parametrize('raw, words', [
    ({'abort_above': 1}, 'names no metric'),
    ({**ERRORS, 'abort_over': 1}, 'unknown key "abort_over"'),
    ({**ERRORS, 'source': 'graphite'}, 'source "graphite", which is not configured: there is router'),
    ({**ERRORS, 'metric': 'eror_ratio'}, 'metric "eror_ratio", which the source "router" does not have: it has error_ratio,'),
    ({**ERRORS, 'metric': 'latency_p0'}, 'does not have'),
    ({**ERRORS, 'metric': 'latency_p100'}, 'does not have'),
    ({'metric': 'error_ratio'}, 'has no limit'),
    ({**ERRORS, 'pass_below': '1%'}, 'pass_below is above abort_above'),
    ({'metric': 'workers', 'abort_below': 5, 'pass_above': 3}, 'pass_above is below abort_below'),
    ({'metric': 'workers', 'abort_below': 5, 'abort_above': 5}, 'every value would abort'),
    ({'metric': 'workers', 'pass_above': 5, 'pass_below': 5}, 'no value could pass'),
    ({'metric': 'workers', 'pass_below': 5, 'abort_below': 6}, 'no value could pass'),
    ({**ERRORS, 'abort_above': 5}, 'a bare number is a ratio: write "5%"'),
    ({**ERRORS, 'abort_above': '-1%'}, 'outside'),
    ({**ERRORS, 'abort_above': 'much'}, 'is not understood'),
    ({**ERRORS, 'abort_above': float('nan')}, 'is not understood'),
    ({**ERRORS, 'abort_above': True}, 'is not understood'),
    ({**LATENCY, 'abort_above': '5%'}, 'is not understood'),
    ({**ERRORS, 'arm': 'purple'}, 'arm "purple", which the service does not have'),
    ({**ERRORS, 'compare': 'quotient'}, 'compares by "quotient"'),
    ({**ERRORS, 'compare': 'ratio', 'arm': 'blue'}, 'with itself'),
    ({'metric': 'share_bp', 'compare': 'ratio', 'abort_above': 2}, 'compares shares'),
    ({**ERRORS, 'min_sample': 0}, 'min_sample'), ({**ERRORS, 'consecutive_limit': 'x'}, 'consecutive_limit'),
    ({**ERRORS, 'window': 0}, 'window'), ({**ERRORS, 'window': '1 fortnight'}, 'window'), ({**ERRORS, 'warm_up': -1}, 'warm_up'),
    ({**ERRORS, 'required': 'maybe'}, 'required'), ({**ERRORS, 'name': 'a\nb'}, 'name'),
    ({**ERRORS, 'type': 'bayes'}, 'unknown type "bayes"'),
    ({'metric': 'workers', 'abort_below': 1, 'min_sample': 5}, 'gives min_sample'),
    ({**ERRORS, 'required': False}, 'no required condition'),
])
def test_bad_conditions_are_refused_with_a_sentence(raw, words):
    with pytest.raises(BadInput) as caught:
        one(raw)
    assert words in str(caught.value)


def test_no_condition_is_refused():
    with pytest.raises(BadInput, match='no required condition'):
        build_conditions([], context())


def test_comparison_without_a_stable_arm_is_refused():
    with pytest.raises(BadInput, match='no stable arm'):
        one({**ERRORS, 'compare': 'ratio'}, stable=None)


def test_two_conditions_of_one_name_are_refused():
    with pytest.raises(BadInput, match='Two conditions are named "error_ratio"'):
        build_conditions([ERRORS, ERRORS], context())


@pytest.mark.parametrize('written, limit', [('0.5%', 0.005), ('0.5 %', 0.005), (0.005, 0.005), ('0.005', 0.005)])
def test_ratios_may_be_written_as_percentages(written, limit):
    assert one({'metric': 'error_ratio', 'abort_above': written}).spec.abort == (('above', limit),)


@pytest.mark.parametrize('written, limit', [(1000, 1000.0), ('1s', 1000.0), ('250ms', 250.0), ('80', 80.0)])
def test_latency_limits_may_be_written_as_durations(written, limit):
    assert one({'metric': 'latency_p99.9', 'abort_above': written}).spec.abort == (('above', limit),)
