# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._analysis._eprocess import Counts
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import (
    ArmsBlock, Question, SequentialState, percent, times)
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput

ERRORS = Question('errors', pass_margin=0.005)


def block(e_b, n_b, e_c, n_c, seconds=10.0, servers=()):
    return ArmsBlock(Counts(e_b, n_b, e_c, n_c), seconds, servers)


def gate(*questions, **options):
    state = SequentialState(questions or (ERRORS,), **options)
    for question in questions or (ERRORS,):
        state.history(question.name, 57, 57000)
    return state


def feed(state, blocks, name='errors', **options):
    for one in blocks:
        state.update({name: one}, **options)
    return state.judgement(name)


HEALTHY = [block(1, 950, 0, 50)] * 24
SICK = [block(1, 950, 3, 50)]


class TestVerdicts:
    def test_harm_is_found_within_polls_and_told_in_plain_words(self):
        judgement = feed(gate(), SICK * 2)
        assert (judgement.verdict, judgement.final) == ('fail', True)
        assert judgement.reason.startswith('canary 6 % errors against 0.11 %: ')
        assert judgement.reason.endswith(' times more likely harmful than not, limit 20')
        assert judgement.value == pytest.approx(0.06) and judgement.n == 100

    def test_the_sentence_of_the_issue(self):
        state = gate(Question('errors', min_events=1))
        reason = feed(state, [block(1, 1000, 6, 666), block(1, 1000, 12, 1334)]).reason
        assert reason.startswith('canary 0.9 % errors against 0.1 %: ') and reason.endswith(' times more likely harmful than not, limit 20')

    def test_a_failure_stays(self):
        state = gate()
        assert feed(state, SICK * 2).verdict == 'fail'
        before = state.judgement('errors').reason
        assert feed(state, HEALTHY * 4).reason == before

    def test_a_pass_takes_a_proof(self):
        state = gate()
        assert feed(state, HEALTHY[:1]).verdict == 'inconclusive'
        judgement = feed(state, HEALTHY)
        assert (judgement.verdict, judgement.final) == ('pass', False)
        assert 'at most 0.61 % allowed: harm is excluded' in judgement.reason

    def test_absence_of_harm_is_not_a_pass_when_nothing_is_tolerated(self):
        judgement = feed(gate(Question('errors')), [block(19, 19000, 1, 1000)] * 20)
        assert judgement.verdict == 'inconclusive' and 'neither proven' in judgement.reason

    def test_a_bad_last_minute_takes_the_pass_away(self):
        state = gate(Question('errors', margin=0.005))
        assert feed(state, HEALTHY * 3).verdict == 'pass'
        judgement = feed(state, [block(1, 950, 1, 50)])
        assert judgement.verdict == 'pass', 'one error in a minute of 300 requests is within the limit'
        judgement = feed(state, [block(0, 950, 1, 50)] * 2)
        assert judgement.verdict == 'inconclusive' and judgement.reason.startswith('in the last minute canary 1 % errors')

    def test_a_proof_once_given_is_kept(self):
        """The e-process needed to reach its limit only once; a few errors later the last minute alone is looked at."""
        state = gate()
        while state.judgement('errors').verdict != 'pass':
            feed(state, HEALTHY[:1])
        assert feed(state, [block(1, 950, 1, 50)] * 2).verdict == 'inconclusive'
        assert feed(state, HEALTHY[:7]).verdict == 'pass'

    def test_a_pass_is_earned_in_each_stage_and_harm_is_remembered(self):
        state = gate()
        feed(state, [*HEALTHY, block(1, 950, 2, 50)])
        harm = state.log_e
        state.begin_stage()
        assert state.judgement('errors').verdict == 'no_data'
        judgement = feed(state, HEALTHY[:2])
        assert judgement.verdict == 'inconclusive' and judgement.n == 50, 'the first block straddles the change'
        assert state.log_e == pytest.approx(harm, abs=0.5)
        assert feed(state, HEALTHY).verdict == 'pass'

    def test_fewer_than_the_least_events_prove_nothing(self):
        state = gate(Question('errors', min_events=7))
        assert feed(state, SICK * 2).verdict == 'inconclusive'
        assert state.log_e > math.log(20)
        assert feed(state, SICK).verdict == 'fail'

    def test_too_few_requests_do_not_pass(self):
        judgement = feed(gate(Question('errors', pass_margin=0.005, min_requests=2000)), HEALTHY)
        assert judgement.verdict == 'inconclusive' and judgement.reason.endswith('too few requests, at least 2000 are needed')

    def test_an_objective_compares_with_nobody(self):
        state = SequentialState([Question('slow', what='slower than 250 ms', ratio=0, margin=0.01)])
        judgement = feed(state, [block(0, 0, 2, 30)] * 3, 'slow')
        assert judgement.verdict == 'fail'
        assert judgement.reason.startswith('canary 6.7 % slower than 250 ms, at most 1 % allowed: ')
        state = SequentialState([Question('slow', what='slow', ratio=0, margin=0.05)])
        assert feed(state, [block(0, 0, 0, 50)] * 3, 'slow').verdict == 'pass'

    def test_a_drop_of_what_is_wanted_is_harm(self):
        state = SequentialState([Question('conversion', what='conversions', direction=-1, pass_ratio=0.5)])
        state.history('conversion', 300, 10000)
        judgement = feed(state, [block(30, 1000, 0, 1000)], 'conversion')
        assert judgement.verdict == 'fail' and judgement.reason.startswith('canary 0 % conversions against 3 %: ')
        state = SequentialState([Question('conversion', what='conversions', direction=-1, pass_ratio=0.5)])
        judgement = feed(state, [block(30, 1000, 30, 1000)] * 4, 'conversion')
        assert judgement.verdict == 'pass' and 'at least 1.5 % allowed' in judgement.reason

    def test_a_name_of_each_arm(self):
        judgement = feed(gate(candidate='green', stable='blue'), [block(0, 0, 1, 50)])
        assert judgement.verdict == 'no_data' and judgement.reason.startswith('blue: no requests')


class TestSharedAlpha:
    def test_weights_share_the_limit(self):
        alone, shared = gate(), gate(ERRORS, *(Question('m%d' % i) for i in range(9)))
        for state in (alone, shared):
            state.update({'errors': block(1, 950, 3, 50)})
        assert alone.failed and shared.failed is None
        assert shared.log_e < alone.log_e
        shared.update({'errors': block(1, 950, 3, 50)})
        assert shared.failed and shared.failed['name'] == 'errors'
        assert shared.judgement('m1').verdict == 'no_data'

    def test_weak_signs_of_several_add_up(self):
        both, single = gate(Question('errors'), Question('latency')), gate(Question('errors'), Question('latency'))
        polls = 0
        while not both.failed:
            polls += 1
            sign = block(1, 950, 1 if polls % 3 == 1 else 0, 50)
            both.update({'errors': sign, 'latency': sign})
            single.update({'errors': sign, 'latency': block(1, 950, 0, 50)})
            assert polls < 100
        assert not single.failed

    def test_a_weight_of_ones_own(self):
        heavy = gate(Question('errors', weight=0.97), *(Question('m%d' % i) for i in range(3)))
        light = gate(Question('errors', weight=0.01), *(Question('m%d' % i) for i in range(3)))
        for state in (heavy, light):
            state.update({'errors': block(1, 950, 3, 50)})
        assert heavy.failed and not light.failed

    @pytest.mark.parametrize('weights', [(0.6, 0.5), (1.0, None), (0.0, None), (-0.5, None), (1.5, None)])
    def test_weights_that_cannot_be_shared(self, weights):
        with pytest.raises(BadInput):
            gate(*(Question('q%d' % i, weight=weight) for i, weight in enumerate(weights)))


class TestTraps:
    def test_a_lost_poll_loses_nothing_but_time(self):
        with_loss, without = gate(), gate()
        feed(without, [block(1, 950, 1, 50), block(2, 1900, 2, 100, seconds=20)])
        feed(with_loss, [block(1, 950, 1, 50), None, block(2, 1900, 2, 100, seconds=20)])
        assert with_loss.log_e == without.log_e

    def test_more_lost_polls_than_others_are_inconclusive(self):
        state = gate()
        judgement = feed(state, HEALTHY + [None] * 25)
        assert judgement.verdict == 'inconclusive' and judgement.reason.endswith('25 of 49 polls were lost')
        assert feed(state, HEALTHY).verdict == 'pass'

    def test_a_repeated_scrape_changes_nothing(self):
        plain, repeated = gate(), gate()
        for one in HEALTHY[:6] + SICK:
            plain.update({'errors': one})
            for _i in range(9):
                repeated.update({'errors': block(0, 0, 0, 0, seconds=1)})
            repeated.update({'errors': block(*one.counts, seconds=1)})
        assert repeated.log_e == pytest.approx(plain.log_e, rel=1e-12)
        assert repeated.judgement('errors').verdict == plain.judgement('errors').verdict

    def test_an_arm_without_traffic_is_no_data_and_trains(self):
        state = gate(Question('errors'))
        before = state.to_dict()['tests']['errors']['fail']
        judgement = feed(state, [block(1, 950, 0, 0)] * 50)
        assert judgement.verdict == 'no_data' and judgement.reason == 'canary: no requests to judge errors by in this stage'
        after = state.to_dict()['tests']['errors']
        assert after['fail'] == before, 'the wealth that waits for a late onset waits for the candidate too'
        assert after['baseline'] == [57 * 5700 / 57000 + 50, 5700 + 50 * 950]
        late = feed(state, SICK * 2)
        assert late.verdict == 'fail'

    def test_a_candidate_that_lost_its_traffic_does_not_pass(self):
        state = gate()
        assert feed(state, HEALTHY).verdict == 'pass'
        judgement = feed(state, [block(1, 950, 0, 0)] * 8)
        assert judgement.verdict == 'inconclusive' and 'had no requests' in judgement.reason

    def test_a_baseline_without_traffic_is_no_data(self):
        state = gate()
        assert feed(state, [block(0, 0, 5, 50)] * 10).verdict == 'no_data'
        assert state.log_e == pytest.approx(0, abs=1e-12)

    def test_a_baseline_without_errors(self):
        state = SequentialState([ERRORS])
        state.history('errors', 0, 57000)
        assert feed(state, [block(0, 950, 0, 50)] * 3).verdict == 'inconclusive'
        assert feed(state, [block(0, 950, 3, 50)]).verdict == 'fail'
        assert 'against 0 %' in state.judgement('errors').reason

    def test_without_history_the_first_block_only_trains(self):
        state = SequentialState([Question('errors')])
        state.update({'errors': block(1, 950, 50, 50)})
        assert state.failed is None and state.log_e == pytest.approx(0, abs=1e-12)
        state.update({'errors': block(1, 950, 5, 50)})
        assert state.failed

    def test_history_counts_as_a_minute_at_most(self):
        """A service that was ten times worse long ago must not hide what it does now."""
        wrong, none = gate(Question('errors')), SequentialState([Question('errors')])
        wrong.history('errors', 500_000, 50_000_000)
        for _i in range(20):
            wrong.update({'errors': block(1, 950, 0, 50)})
            none.update({'errors': block(1, 950, 0, 50)})
        assert wrong.to_dict()['tests']['errors']['baseline'] == [57 + 20, 5700 + 19000]

    def test_a_block_across_a_change_of_weights_is_dropped(self):
        state = gate(Question('errors'))
        state.update({'errors': block(0, 500, 50, 500)}, weight_changed=True)
        assert state.log_e == pytest.approx(0, abs=1e-12) and state.numbers('errors')['blocks_dropped'] == 1
        state.update({'errors': block(0, 500, 50, 500)})
        assert state.failed

    @pytest.mark.parametrize('between', [None, block(0, 0, 0, 0)])
    def test_the_change_is_remembered_until_the_block_comes(self, between):
        state = gate(Question('errors'))
        state.update({'errors': between}, weight_changed=True)
        state.update({'errors': block(0, 500, 50, 500)})
        assert state.log_e == pytest.approx(0, abs=1e-12) and not state.failed

    def test_a_change_drops_the_block_of_a_source_that_is_asked_later(self):
        state = gate(Question('errors'), Question('latency'))
        state.update({'errors': block(1, 950, 0, 50)}, weight_changed=True)
        state.update({'latency': block(0, 500, 50, 500)})
        assert state.numbers('latency')['blocks_dropped'] == 1 and not state.failed

    def test_an_incident_that_hits_both_arms_in_a_ramp_is_not_the_canarys(self):
        """Pooled over the stages, 5 % on both arms in the last one would look like the canary's own: most of its requests are from then."""
        chance = random.Random(4)
        state = gate(Question('errors'))
        for stage, (n_b, n_c) in enumerate(((990, 10), (950, 50), (800, 200), (500, 500))):
            state.begin_stage()
            for i in range(30):
                p = 0.05 if stage == 3 and 5 <= i < 17 else 0.001
                e_b, e_c = (sum(chance.random() < p for _j in range(n)) for n in (n_b, n_c))
                state.update({'errors': block(e_b, n_b, e_c, n_c)})
        assert state.failed is None and state.log_e < 1

    @pytest.mark.parametrize('impossible', [block(2, 1, 0, 5), block(0, 10, 6, 5), block(-1, 10, 0, 5), block(0, 10, 0, 5, seconds=-1),
                                            block(1, 10, 0, 5, servers=((3, 2),))])
    def test_a_block_that_cannot_be_is_a_lost_poll(self, impossible):
        state = gate()
        state.update({'errors': impossible})
        numbers = state.numbers('errors')
        assert (numbers['polls'], numbers['polls_lost'], numbers['requests']) == (1, 1, 0)

    def test_bursts_take_more_to_prove(self):
        chance = random.Random(7)
        plain, measured, told = gate(Question('errors')), gate(Question('errors')), gate(Question('errors', burst=10))
        for i in range(40):
            servers = [(10 if k == i % 4 else 0, 240) for k in range(4)]
            for state in (plain, measured, told):
                state.update({'errors': block(10, 960, 0, 0, servers=servers if state is measured else ())})
        for _i in range(5):
            burst = 10 if chance.random() < 0.5 else 0
            for state in (plain, measured, told):
                state.update({'errors': block(10, 960, burst, 50)})
        assert plain.failed and measured.failed is None and told.failed is None
        assert measured.numbers('errors')['dispersion'] > 10


BLOCKS = st.one_of(st.none(), st.builds(
    lambda e_b, more_b, e_c, more_c, seconds: block(e_b, e_b + more_b, e_c, e_c + more_c, seconds, ((e_b, e_b + more_b), (1, 100))),
    st.integers(0, 5), st.integers(0, 1000), st.integers(0, 2), st.integers(0, 60), st.sampled_from([0.2, 1.0, 10.0])))


class TestState:
    @settings(deadline=None, max_examples=40)
    @given(polls=st.lists(st.tuples(BLOCKS, BLOCKS, st.booleans(), st.booleans()), max_size=25), cut=st.integers(0, 25))
    def test_a_restart_changes_nothing(self, polls, cut):
        questions = (ERRORS, Question('latency', ratio=1.5, margin=0.01, weight=0.3))
        through, restarted = gate(*questions), gate(*questions)
        for i, (errors, latency, changed, stage) in enumerate(polls):
            if i == cut:
                restarted = SequentialState.from_dict(json.loads(json.dumps(restarted.to_dict())), questions)
            for state in (through, restarted):
                if stage:
                    state.begin_stage()
                state.update({'errors': errors, 'latency': latency}, weight_changed=changed)
        assert restarted.to_dict() == through.to_dict()
        for name in ('errors', 'latency'):
            assert restarted.judgement(name) == through.judgement(name)

    def test_it_does_not_grow(self):
        state = gate()
        sizes = []
        for i in range(3000):
            state.update({'errors': block(1, 95, 0, 5, seconds=0.2, servers=((0, 40), (1, 55)))})
            sizes.append(len(json.dumps(state.to_dict())))
        assert max(sizes) < 2500 and max(sizes[2000:]) < 1.05 * max(sizes[500:1000])

    def test_it_is_plain_json(self):
        state = gate()
        feed(state, SICK * 3)
        assert json.loads(json.dumps(state.to_dict(), allow_nan=False)) == state.to_dict()

    @pytest.mark.parametrize('other', [
        {'questions': (Question('errors', pass_margin=0.01),)}, {'questions': (ERRORS, Question('latency'))},
        {'alpha': 0.01}, {'beta': 0.1}])
    def test_evidence_for_other_questions_is_refused(self, other):
        given_now = {'questions': (ERRORS,), **other}
        with pytest.raises(BadInput, match='differ from those that the rollout began with'):
            SequentialState.from_dict(gate().to_dict(), **given_now)

    @given(st.data())
    def test_a_damaged_state_is_refused_with_a_sentence(self, data):
        state = gate().to_dict()
        where, key = data.draw(st.sampled_from(
            [(state, key) for key in state] + [(state['tests']['errors'], key) for key in state['tests']['errors']]))
        if data.draw(st.booleans()):
            del where[key]
        else:
            where[key] = data.draw(st.sampled_from(['x', {'a': 1}, [], [[]], ['x'] * 11]))
        try:
            again = SequentialState.from_dict(state, (ERRORS,))
        except BadInput as exc:
            assert 'begin a new rollout' in str(exc)
        else:
            again.update({'errors': block(1, 950, 0, 50)})
            json.dumps(again.to_dict())


class TestInput:
    @pytest.mark.parametrize('wrong, text', [
        ({'ratio': -1}, 'ratio of 0 or more'), ({'ratio': math.nan}, 'not usable'), ({'margin': 1.5}, 'margin between'),
        ({'ratio': 0}, 'its margin is the limit'),
        ({'direction': 0}, 'not usable'), ({'pass_margin': -0.1}, 'tolerate'), ({'direction': -1, 'pass_ratio': 1.1}, 'tolerate'),
        ({'burst': 0.5}, 'burst'), ({'min_events': 0}, 'min_events'), ({'weight': 2}, 'weight')])
    def test_a_question_that_cannot_be_asked(self, wrong, text):
        with pytest.raises(BadInput, match='"errors".*' + text):
            gate(Question('errors', **wrong))

    def test_a_gate_without_questions_or_with_two_alike(self):
        for questions in ([], [ERRORS, ERRORS]):
            with pytest.raises(BadInput):
                SequentialState(questions)

    @pytest.mark.parametrize('alpha, beta', [(0, 0.05), (1, 0.05), (0.05, 1.5)])
    def test_probabilities(self, alpha, beta):
        with pytest.raises(BadInput):
            SequentialState([ERRORS], alpha, beta)


class TestWords:
    @pytest.mark.parametrize('rate, text', [(0, '0 %'), (0.009, '0.9 %'), (0.001, '0.1 %'), (0.2, '20 %'), (0.12345, '12.3 %'),
                                            (1, '100 %'), (0.000000123, '0.000012 %'), (0.0996, '10 %')])
    def test_percent(self, rate, text):
        assert percent(rate) == text

    @pytest.mark.parametrize('log_e, text', [(math.log(212), '212'), (math.log(20), '20'), (math.log(0.7), '0.7'), (0, '1.0'),
                                             (5000, 'over a million')])
    def test_times(self, log_e, text):
        assert times(log_e) == text
