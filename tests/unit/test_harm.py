# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Conditions of type ``sequential``, fed with readings as sources give them."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils import _gate, _plan
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.condition import build_conditions
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.harm import _Slow
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.history import Seen
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.spec import Context, Sample
from ansible_collections.progressive.delivery.plugins.module_utils._display import Progress, line
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import COUNTS, GAUGE, LATENCIES, Block, Reading

from gate_fakes import Source, options, watch

ROUTER = {'requests': COUNTS, 'attempts': COUNTS, 'latency': LATENCIES, 'servers_up': GAUGE}
ERRORS = {'name': 'harm', 'type': 'sequential', 'metric': 'errors', 'pass_margin': '0.5%'}
HARD = {'name': 'hard', 'metric': 'error_ratio', 'abort_above': 1}


def context(**changes):
    return Context(**{'candidate': 'canary', 'stable': 'blue', 'arms': ('blue', 'canary'),
                      'sources': {'router': ROUTER, 'shop': {'orders': COUNTS}}, **changes})


class Feed:
    """Polls of a gate; the first one is the mark that the next one counts from."""

    def __init__(self, *raw, before=(57, 57000), **changes):
        self.conditions = build_conditions(raw or [ERRORS], context(**changes))
        self.at, self.judged = 0.0, []
        told = (Block('blue', 'lb1', requests=before[1], bad=before[0]),) if before else ()
        self.give(Reading(before=told), seconds=0.0)

    @property
    def state(self):
        return self.conditions[-1].state

    def give(self, reading, seconds=1.0, between=False, source='router'):
        self.at += seconds
        sample = Sample(self.at, source, reading, between)
        self.judged = [condition.update(sample) for condition in self.conditions]
        return self.judged[-1]

    def __call__(self, e_b=0, n_b=0, e_c=0, n_c=0, seconds=1.0, between=False, servers=()):
        return self.give(Reading((Block('blue', 'lb1', 'requests', seconds, n_b, e_b, servers=servers),
                                  Block('canary', 'lb1', 'requests', seconds, n_c, e_c))), seconds, between)

    def slow(self, blue=((), ()), canary=((), ()), seconds=1.0):
        """Each arm as (latencies, waiting)."""
        return self.give(Reading(tuple(Block(arm, 'lb1', 'requests', seconds, len(ms), 0, tuple(ms), waiting=tuple(waiting))
                                       for arm, (ms, waiting) in (('blue', blue), ('canary', canary)))), seconds)

    def counts(self, name=None):
        numbers = self.state.numbers(name or self.conditions[-1].name)
        return tuple(numbers[key] for key in ('stable_events', 'stable_requests', 'events', 'requests'))

    def dropped(self):
        return self.state.numbers(self.conditions[-1].name)['blocks_dropped']


# Verdicts


def test_harm_ends_the_stage_and_is_told_in_plain_words():
    feed = Feed()
    feed(1, 950, 3, 50)
    judgement = feed(1, 950, 3, 50)
    for _more in range(2):
        judgement = feed(1, 950, 3, 50)
    assert (judgement.verdict, judgement.final, judgement.required) == ('fail', True, True)
    assert judgement.reason.startswith('canary 6 % errors against 0.11 %: ')
    assert judgement.reason.endswith(' times more likely harmful than not, limit 20')


def test_the_live_line_says_how_likely_harm_is():
    feed = Feed()
    for _poll in range(3):
        judgement = feed(1, 950, 1, 50)
    progress = Progress('canary 5 %', 3.0, 30.0, ((feed.conditions[0], judgement),), 150, 510, 4.9)
    text = line(progress)
    assert text.startswith('canary 5 %  0:03/0:30  150 req  share 5.1 %  lease 4.9 s  canary 2 % errors against 0.11 %: ')
    assert text.endswith('times more likely harmful than not, limit 20')


def test_a_pass_takes_a_proof_and_its_lack_is_inconclusive():
    feed = Feed()
    for _poll in range(3):
        judgement = feed(1, 950, 0, 50)
    assert (judgement.verdict, judgement.final) == ('inconclusive', False)
    for _poll in range(60):
        judgement = feed(1, 950, 0, 50)
    assert (judgement.verdict, feed.conditions[0].finish().verdict) == ('pass', 'pass')


def test_a_condition_that_need_not_pass_can_fail_and_not_hold_up():
    raw = [HARD, {**ERRORS, 'must_pass': False}]
    feed = Feed(*raw)
    for _poll in range(3):
        judgement = feed(0, 950, 0, 50)
    assert (judgement.verdict, judgement.required) == ('inconclusive', False)
    for _poll in range(5):
        judgement = feed(1, 950, 3, 50)
    assert (judgement.verdict, judgement.required) == ('fail', True)


def test_it_cannot_be_the_only_one_when_it_need_not_pass():
    with pytest.raises(BadInput, match='no required condition'):
        Feed({**ERRORS, 'must_pass': False})


def test_conditions_share_alpha_by_weight():
    feed = Feed({**ERRORS, 'weight': 0.25}, {**ERRORS, 'name': 'tries', 'metric': 'attempt_errors'})
    assert feed.state.numbers('harm')['weight'] == 0.25 and feed.state.numbers('tries')['weight'] == 0.75
    with pytest.raises(BadInput, match='add up to'):
        Feed({**ERRORS, 'weight': 0.8}, {**ERRORS, 'name': 'tries', 'metric': 'attempt_errors', 'weight': 0.8})


def test_fewer_can_be_harm_too():
    feed = Feed({'name': 'orders', 'type': 'sequential', 'source': 'shop', 'metric': 'order_errors', 'direction': 'fewer'}, before=None)
    for _poll in range(30):
        judgement = feed.give(Reading((Block('blue', '', 'orders', 1.0, 500, 250), Block('canary', '', 'orders', 1.0, 500, 150))),
                              source='shop')
    assert judgement.verdict == 'fail', judgement


@pytest.mark.parametrize('changes, words', [
    ({'metric': 'servers_up'}, 'does not count'), ({'metric': 'latency'}, 'give above_ms'), ({'above_ms': 100}, 'is not a latency'),
    ({'margin': 3}, 'outside'), ({'ratio': 0}, 'margin is the limit'), ({'ratio': 'two'}, 'not understood'),
    ({'direction': 'up'}, '"more" or "fewer"'), ({'abort_above': 1}, 'unknown key "abort_above"'), ({'required': False}, 'must_pass'),
    ({'source': 'x'}, 'not configured'), ({'burst': 0}, 'burst'), ({'min_events': 0}, 'min_events'), ({'margin': '1%'}, 'tolerate'),
    ({'weight': 2}, 'weight'), ({'must_pass': 'perhaps'}, 'must_pass')])
def test_what_cannot_be_asked_is_refused_with_a_sentence(changes, words):
    with pytest.raises(BadInput) as caught:
        Feed({**ERRORS, **changes})
    assert words in str(caught.value) and '"harm"' in str(caught.value)


def test_without_a_stable_arm_only_a_limit_can_be_asked():
    with pytest.raises(BadInput, match='no stable arm'):
        Feed(stable=None)
    feed = Feed({'name': 'harm', 'type': 'sequential', 'metric': 'error_ratio', 'ratio': 0, 'margin': '1%'}, stable=None)
    for _poll in range(4):
        judgement = feed(e_c=8, n_c=50)
    assert judgement.verdict == 'fail' and 'at most 1 % allowed' in judgement.reason


# What arrives


def test_the_first_block_of_a_stage_is_dropped():
    feed = Feed()
    feed(0, 950, 50, 50)
    assert (feed.counts(), feed.dropped()) == ((0, 0, 0, 0), 1)
    feed(0, 950, 0, 50)
    assert feed.counts() == (0, 950, 0, 50)


def test_looks_that_can_compare_nothing_wait_for_the_next_one():
    feed = Feed()
    feed(0, 95, 0, 5)
    feed(1, 20, 0, 0, between=True)
    assert feed.counts() == (0, 0, 0, 0)
    feed(0, 20, 1, 2, between=True)
    assert feed.counts() == (1, 40, 1, 2)
    feed(0, 20, 0, 0, between=True)
    feed(0, 20, 0, 0)
    assert feed.counts() == (1, 80, 1, 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(3, 30), st.integers(0, 3), st.integers(3, 9), st.booleans()), max_size=20))
def test_every_request_is_counted_once_however_it_was_looked_at(looks):
    feed = Feed()
    feed(0, 1, 0, 1)
    for *counts, between in looks:
        feed(*counts, between=between)
    feed()
    assert feed.counts() == tuple(sum(look[i] for look in looks) for i in range(4))


def test_lost_polls_and_repeated_ones_say_nothing():
    feed = Feed()
    feed(0, 950, 0, 50)
    for _poll in range(3):
        feed(0, 950, 0, 50)
    before = feed.counts(), feed.state.log_e
    feed.give(Reading(errors=('lb1 did not answer.',)))
    feed()
    assert (feed.counts(), feed.state.log_e) == before
    assert feed.state.numbers('harm')['polls_lost'] == 1
    assert feed(0, 950, 0, 50).n == 200


def test_a_source_that_is_gone_is_an_error():
    feed = Feed()
    for _poll in range(3):
        judgement = feed.give(Reading(errors=('lb1 did not answer.',)))
    assert (judgement.verdict, judgement.final) == ('error', True)


def test_counters_that_make_no_sense_are_a_lost_poll():
    feed = Feed()
    feed(0, 950, 0, 50)
    feed(0, 950, 51, 50)
    assert feed.counts() == (0, 0, 0, 0) and feed.state.numbers('harm')['polls_lost'] == 1


@pytest.mark.parametrize('counts, arm', [((0, 100, 0, 0), 'canary'), ((0, 0, 5, 100), 'blue')])
def test_an_arm_without_traffic_proves_nothing(counts, arm):
    feed = Feed()
    for _poll in range(20):
        judgement = feed(*counts)
    assert judgement.verdict == 'no_data' and judgement.reason.startswith('%s: no requests' % arm)
    assert feed.state.log_e == pytest.approx(0.0)


def test_a_baseline_without_any_error_is_no_reason_to_fail_at_the_first_one():
    feed = Feed(before=(0, 0))
    for _poll in range(20):
        judgement = feed(0, 950, 0, 50)
    judgement = feed(0, 950, 1, 50)
    assert judgement.verdict != 'fail'
    for _poll in range(4):
        judgement = feed(0, 950, 3, 50)
    assert judgement.verdict == 'fail' and 'against 0 %' in judgement.reason


def test_the_counters_of_stable_serve_as_history():
    with_it, without = Feed(before=(57, 57000)), Feed(before=None)
    for feed in (with_it, without):
        for _poll in range(2):
            feed(1, 950, 3, 50)
    assert with_it.state.log_e > 0.5 and without.state.log_e == pytest.approx(0.0)


def test_errors_that_bunch_on_one_server_count_for_less():
    def evidence(servers):
        feed = Feed()
        for poll in range(60):
            bunched = tuple(('b%d' % k, 10 if servers and k == poll % 4 and poll % 5 == 0 else 0, 240) for k in range(4))
            feed(10 if poll % 5 == 0 else 0, 960, 1 if poll % 3 == 0 else 0, 50, servers=bunched if servers else ())
        for _poll in range(3):
            feed(0, 960, 5, 50)
        return feed.state.log_e
    assert evidence(True) < evidence(False) / 2


# Latency


SLOW = {'name': 'slow', 'type': 'sequential', 'metric': 'latency', 'above_ms': 1000, 'pass_margin': '5%'}


def test_answers_above_the_limit_are_bad_ones():
    feed = Feed(SLOW)
    feed.slow()
    for _poll in range(6):
        judgement = feed.slow(([20.0] * 95, ()), ([20.0] * 40 + [1500.0] * 10, ()))
    assert judgement.verdict == 'fail' and 'slower than 1000 ms' in judgement.reason


def test_those_who_still_wait_count_once_when_they_surely_are_slow():
    feed = Feed(SLOW)
    feed.slow()
    feed.slow(([20.0] * 9, ()), ([20.0] * 4, ((500.0, 3),)))
    assert feed.counts() == (0, 0, 0, 0), 'the block with the first answers is the one that is dropped'
    feed.slow(([20.0] * 9, ()), ([20.0] * 4, ((500.0, 5), (1500.0, 3))))
    assert feed.counts() == (0, 9, 3, 7)
    feed.slow(([20.0] * 9, ()), ([20.0] * 4, ((1500.0, 5), (2500.0, 3))))
    assert feed.counts() == (0, 18, 5, 13)
    feed.slow(([20.0] * 9, ()), ([2600.0] * 3 + [1700.0] * 2, ()))
    assert feed.counts() == (0, 27, 5, 13)


def test_answers_to_what_began_before_the_stage_do_not_count():
    feed = Feed(SLOW)
    feed.slow(([20.0], ()), ([20.0], ()))
    feed.slow(([5000.0] * 9, ()), ([20.0], ()))
    assert feed.counts() == (0, 0, 0, 1)


def test_those_who_waited_and_ended_unseen_do_not_hide_others_for_ever():
    slow = _Slow(1000.0)
    assert slow.count([Seen(Block('canary', 'lb1', 'requests', 1.0, waiting=((1500.0, 5),)))], 60.0) == (5, 5)
    for at in range(61, 73):
        assert slow.count([Seen(Block('canary', 'lb1', 'requests', 1.0))], at) == (0, 0)
    assert slow.count([Seen(Block('canary', 'lb1', 'requests', 1.0, 2, 0, (1200.0, 1300.0)))], 75.0) == (2, 2)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0.01, 8)), max_size=40))
def test_slow_requests_are_counted_once_whatever_the_polls_see(requests):
    slow, told = _Slow(1000.0), [0, 0]
    for poll in range(1, 45):
        ended = tuple(took * 1000 for begin, took in requests if poll - 1 < begin + took <= poll)
        ages = sorted((poll - begin) * 1000 for begin, took in requests if begin < poll < begin + took)
        waiting = tuple((age, sum(other >= age for other in ages)) for age in dict.fromkeys(ages))
        new = slow.count([Seen(Block('canary', 'lb1', 'requests', 1.0, len(ended), 0, ended, waiting=waiting))], 100.0)
        told = [told[0] + new[0], told[1] + new[1]]
    assert told == [sum(took * 1000 > 1000 for _begin, took in requests), len(requests)]


# From stage to stage


def sick(feed, polls):
    for _poll in range(polls):
        feed(1, 950, 1, 50)
    return feed.state.log_e


def test_a_gate_goes_on_with_the_evidence_of_the_stage_before():
    first = Feed()
    gathered = sick(first, 4)
    state = json.loads(json.dumps(first.state.to_dict()))
    second = Feed(analysis_state=state)
    assert second.state.log_e == pytest.approx(gathered) and second.counts() == (0, 0, 0, 0)
    assert sick(second, 2) > gathered
    assert second.dropped() == 1
    assert len(json.dumps(state)) < 3000


def test_a_proof_of_the_stage_before_still_counts():
    first = Feed()
    for _poll in range(6):
        first(1, 950, 5, 50)
    assert Feed(analysis_state=first.state.to_dict()).judged[-1].verdict == 'fail'


def test_evidence_for_another_question_is_refused():
    state = Feed().state.to_dict()
    with pytest.raises(BadInput, match='differ from those'):
        Feed({**ERRORS, 'margin': '0.1%'}, analysis_state=state)
    with pytest.raises(BadInput, match='damaged'):
        Feed(analysis_state={'version': 1})


def test_a_rollout_asks_the_same_in_all_of_its_stages():
    stages = {'canary': [{'share': '5%', 'bake': 60, 'conditions': [{**ERRORS, 'margin': '0.2%'}]}],
              'blue_green': [{'share': '100%', 'bake': 60}]}
    with pytest.raises(BadInput, match='harm.*in all stages'):
        _plan.make_plan('shop', '5.1', 'hybrid', stages, ('blue', 'canary'), 'blue', [HARD, ERRORS], canary='canary')
    stages['canary'][0]['conditions'] = [{**HARD, 'abort_above': 0.9}]
    assert _plan.make_plan('shop', '5.1', 'hybrid', stages, ('blue', 'canary'), 'blue', [HARD, ERRORS], canary='canary')


# The gate


class Router(Source):
    quick = True

    async def poll(self, now):
        reading = await super().poll(now)
        return reading if reading.blocks else Reading(before=(Block('blue', 'lb1', requests=57000, bad=57),))


def test_the_gate_tells_its_plan_and_returns_where_it_stands():
    events, harm = [], {**ERRORS, 'must_pass': False, 'harm': '0.3%'}
    result, shown = watch([Router()], events=events, conditions=[HARD, harm], bake=1, interval=0.2, guard_interval=0.1)
    assert (result['verdict'], result['passed']) == ('pass', True), result
    assert len(result['plan']) == 1 and 'harm: in 1 s at' in result['plan'][0] and 'found in nine of ten cases' in result['plan'][0]
    assert any(isinstance(one, str) and one.startswith('canary: harm: in 1 s') for one in shown)
    assert any('is too short for the condition "harm" to find' in note for note in result['notes'])
    assert not any('to pass a candidate' in note for note in result['notes'])
    assert [event for event, _fields in events][-2:] == ['verdict', 'analysis']
    assert events[-1][1]['state'] == result['analysis_state'] and 'plan' in [event for event, _fields in events]
    result, _shown = watch([Router(bad=2)], conditions=[HARD, harm], bake=20, interval=0.2, guard_interval=0.1,
                           analysis_state=result['analysis_state'])
    assert (result['verdict'], result['failed']) == ('fail', True) and 'times more likely harmful than not, limit 20' in result['msg']
    assert result['analysis_state']['failed']['name'] == 'harm'


def test_without_sequential_conditions_there_is_no_state():
    result, _shown = watch([Source()], bake=0.3)
    assert (result['plan'], result['analysis_state']) == ([], None)


@pytest.mark.parametrize('changes', [{'alpha': 0}, {'beta': 1}])
def test_probabilities_are_checked(changes):
    with pytest.raises(BadInput, match='between 0 and 1'):
        _gate.read_gate(options(conditions=[HARD, ERRORS], **changes))


# How often it is wrong, and how soon right


def binomial(chance, n, p):
    return sum(chance.random() < p for _one in range(n))


def rollout(chance, p_c, stages=((0.05, 24), (0.2, 24), (0.5, 24)), look_s=0.25, every=4, rps=200, p_b=0.001):
    """A rollout of stages of so many looks, every so many of them a poll; returns the poll of the abort, or None."""
    state, polls = None, 0
    for share, looks in stages:
        feed = Feed({**ERRORS, 'margin': '0.1%'}, analysis_state=state)
        for look in range(looks):
            n = round(rps * look_s)
            n_c = binomial(chance, n, share)
            between = bool((look + 1) % every)
            polls += not between
            if feed(binomial(chance, n - n_c, p_b), n - n_c, binomial(chance, n_c, p_c), n_c, look_s, between).verdict == 'fail':
                return polls + between
        state = feed.state.to_dict()
    return None


def test_of_200_healthy_short_rollouts_at_most_two_in_a_hundred_are_stopped():
    chance = random.Random(4)
    assert sum(rollout(chance, 0.001) is not None for _run in range(200)) <= 4


def test_five_per_cent_errors_on_the_canary_are_caught_within_three_polls():
    """Polls of 10 s and looks of 1 s, as by default, at 5 % of 200 requests per second."""
    chance = random.Random(5)
    caught = [rollout(chance, 0.05, ((0.05, 30),), 1.0, 10) for _run in range(100)]
    assert sum(one is not None for one in caught) >= 90
