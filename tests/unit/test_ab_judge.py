# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A/B tests: what a design may be, and what one look makes of counts and of the state of the look before."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._ab_counts import Look, advance, prometheus_window, since
from ansible_collections.progressive.delivery.plugins.module_utils._ab_design import read_design
from ansible_collections.progressive.delivery.plugins.module_utils._ab_judge import first_state, judge
from ansible_collections.progressive.delivery.plugins.module_utils._ab_record import read_test
from ansible_collections.progressive.delivery.plugins.module_utils._ab_test import AB_SPEC
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import experiment as e
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput

ARMS = ('blue', 'green', 'canary')
TESTED = {'control': {'arm': 'blue', 'share': '50%'}, 'variant_a': {'arm': 'green', 'share': '25%'},
          'variant_b': {'arm': 'canary', 'share': '25%'}}
VISITS = 'sum(increase(visits_total{arm="$arm"}[$window]))'
CONVERSIONS = {'name': 'conversion_rate', 'successes': 'sum(increase(conversions_total{arm="$arm"}[$window]))', 'total': VISITS}
SOURCES = {'prometheus': {'url': 'http://127.0.0.1:9090'}}


def design(**changes):
    options = {key: spec.get('default') for key, spec in AB_SPEC.items()}
    options.update(test_arms=TESTED, metrics=[CONVERSIONS], visitors={'total': VISITS})
    options.update(changes)
    return read_design(options, ARMS, SOURCES)


def marks(process='1/1', control=(0, 0), variant_a=(0, 0), variant_b=(0, 0)):
    return {'lb1': {'process': process, 'arms': {'control': list(control), 'variant_a': list(variant_a), 'variant_b': list(variant_b)}}}


def seen(conversions, visits, router=None, errors=(), missing=()):
    names = ('control', 'variant_a', 'variant_b')
    counted = {'conversion_rate': {name: e.Tally(x, n) for name, x, n in zip(names, conversions, visits)},
               'visitors': {name: e.Tally(0, n) for name, n in zip(names, visits)}}
    return Look({name: one for name, one in counted.items() if name not in missing}, router or marks(), list(errors), set(missing))


def looks(plan, *found, before=None):
    """Judges one look after another, a minute apart; the state goes through JSON, as between runs."""
    state, judged = first_state(plan, before or Look(marks=marks()), 0.0), None
    for number, look in enumerate(found, 1):
        judged = judge(plan, json.loads(json.dumps(state)), look, 60.0 * number, 0.0, 7 * 86400.0)
        state = judged.state
        json.loads(json.dumps(judged.as_dict(), allow_nan=False))
    return judged


def test_a_look_goes_on_from_the_one_before():
    judged = looks(design(), seen((100, 55, 50), (1000, 500, 500)), seen((1000, 700, 500), (10000, 5000, 5000)))
    assert (judged.verdict, judged.winner) == (e.WINNER, 'variant_a')
    assert judged.metrics['conversion_rate']['variant_a']['total'] == 5000, 'Prometheus counts from the beginning itself'


def test_a_verdict_is_not_lost_with_the_next_look():
    won, less = seen((1000, 620, 500), (10000, 5000, 5000)), seen((1000, 590, 500), (10000, 5000, 5000))
    assert looks(design(), less).verdict == e.KEEP_RUNNING
    judged = looks(design(), won, less)
    assert (judged.verdict, judged.winner) == (e.WINNER, 'variant_a')
    assert judged.metrics['conversion_rate']['variant_a']['p'] <= looks(design(), won).metrics['conversion_rate']['variant_a']['p']


def test_a_lift_that_turns_round_is_no_verdict():
    monday, sunday = seen((1000, 800, 500), (10000, 5000, 5000)), seen((10000, 4300, 5000), (100000, 50000, 50000))
    assert looks(design(), monday).winner == 'variant_a'
    judged = looks(design(), monday, sunday)
    assert judged.verdict == e.KEEP_RUNNING and 'not the same all the time' in judged.reason


def test_a_bad_sample_comes_before_every_winner():
    judged = looks(design(), seen((1000, 700, 250), (10000, 5000, 2500)))
    assert judged.verdict == e.INVALID and 'variant_b 14' in judged.reason


def test_harm_comes_before_all_else():
    history = Look(marks=marks(control=(10, 10_000)))
    judged = looks(design(), seen((1000, 700, 250), (10000, 5000, 2500), marks(
        control=(20, 20_000), variant_a=(5, 5000), variant_b=(400, 5000))), before=history)
    assert judged.verdict == e.HARMFUL and 'variant_b 8 % errors' in judged.reason
    assert 'variant_b 8 %' in judged.guardrails['variant_b']['errors'] and 'variant_a 0.1 %' in judged.guardrails['variant_a']['errors']


def test_harm_adds_up_over_looks():
    plan = design(guardrails=[{'name': 'errors', 'margin': 0}])
    history = Look(marks=marks(control=(100, 100_000)))
    found = [seen((n, n, n), (100 * n, 50 * n, 50 * n), marks(
        control=(100 + 2 * n, 100_000 + 2000 * n), variant_a=(n, 1000 * n), variant_b=(6 * n, 1000 * n))) for n in range(1, 13)]
    assert looks(plan, found[0], before=history).verdict == e.KEEP_RUNNING
    assert looks(plan, *found, before=history).verdict == e.HARMFUL


def test_guardrails_of_a_source_are_judged_by_what_is_new():
    plan = design(guardrails=[{'name': 'order_errors', 'bad': VISITS, 'total': VISITS, 'margin': '1%'}])

    def look(bad, n):
        found = seen((n, n, n), (20 * n, 10 * n, 10 * n))
        found.counted['order_errors'] = {
            'control': e.Tally(n, 20 * n), 'variant_a': e.Tally(n // 2, 10 * n), 'variant_b': e.Tally(bad, 10 * n)}
        return found

    assert looks(plan, look(10, 20), look(20, 40), look(30, 60)).verdict == e.KEEP_RUNNING
    assert looks(plan, look(10, 20), look(120, 40), look(300, 60)).verdict == e.HARMFUL


def test_counts_that_are_missing_are_no_verdict_and_do_not_hide_harm():
    lost = seen((0, 0, 0), (0, 0, 0), errors=['Prometheus did not answer.'], missing=('conversion_rate', 'visitors'))
    judged = looks(design(), seen((1000, 700, 500), (10000, 5000, 5000)), lost)
    assert judged.verdict == e.NO_DATA and 'Prometheus did not answer' in judged.reason
    lost.marks = marks(control=(10, 10_000), variant_a=(900, 5000), variant_b=(5, 5000))
    assert looks(design(), lost, before=Look(marks=marks(control=(1, 1000)))).verdict == e.HARMFUL


def test_without_a_count_of_visitors_the_requests_have_to_follow_the_split():
    plan = design(visitors=None, metrics=[{'name': 'errors_seen', 'source': 'router'}], guardrails=[])
    even = marks(control=(0, 50_000), variant_a=(0, 24_900), variant_b=(0, 25_100))
    assert looks(plan, Look(marks=even)).verdict == e.KEEP_RUNNING
    assert looks(plan, Look(marks=marks(control=(0, 50_000), variant_a=(0, 25_000), variant_b=(0, 15_000)))).verdict == e.INVALID


def test_the_metric_of_the_router_is_won_by_fewer_failures():
    plan = design(visitors=None, metrics=[{'name': 'errors_seen', 'source': 'router'}], guardrails=[])
    judged = looks(plan, Look(marks=marks(control=(900, 30_000), variant_a=(450, 15_000), variant_b=(120, 15_000))))
    assert (judged.verdict, judged.winner) == (e.WINNER, 'variant_b')


steps = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), min_size=1, max_size=12)


@given(steps)
def test_nothing_is_counted_twice_or_lost_when_a_process_begins_anew(walk):
    """*walk*: bad and good requests of a look, and whether the process is a new one before it."""
    counters, process, old, total = (7, 11), 0, None, (0, 0)
    old = marks('0/0', control=counters)
    for bad, good, anew in walk:
        if anew:
            process, counters = process + 1, (0, 0)
        counters = (counters[0] + bad, counters[1] + bad + good)
        now = marks('%d/0' % process, control=counters)
        got = advance(old, now)['control']
        assert got == (bad, bad + good)
        total = (total[0] + got.events, total[1] + got.total)
        old = now
    assert total == (sum(bad for bad, _good, _anew in walk), sum(bad + good for bad, good, _anew in walk))


def test_counters_that_went_down_begin_anew_for_all_arms_of_the_endpoint():
    before = marks(control=(5, 1000), variant_a=(1, 100))
    after = marks(control=(2, 400), variant_a=(2, 200))
    assert advance(before, after)['control'] == (2, 400) and advance(before, after)['variant_a'] == (2, 200)
    assert advance({}, after) == {}, 'an endpoint that is new has no beginning to count from'


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_what_is_new_is_never_below_zero(events, total, later_events, later_total):
    fresh = since({'control': [min(events, total), total]}, {'control': e.Tally(min(later_events, later_total), later_total)})['control']
    assert 0 <= fresh.events <= fresh.total


@pytest.mark.parametrize('changes, said', [
    ({'metrics': []}, 'has no metric'),
    ({'test_arms': {}}, 'needs two arms or more'),
    ({'control': 'blue'}, 'no arm "blue" to compare with'),
    ({'test_arms': {**TESTED, 'variant_b': {'arm': 'canary', 'share': '30%'}}}, 'add up to 105 %'),
    ({'test_arms': {**TESTED, 'variant_b': {'arm': 'green', 'share': '25%'}}}, 'the same arm of the service'),
    ({'test_arms': {**TESTED, 'variant_b': {'arm': 'red', 'share': '25%'}}}, 'is "red" of the service'),
    ({'test_arms': {**TESTED, 'variant_b': {'arm': 'canary', 'share': '25'}}}, 'could mean'),
    ({'test_arms': {**TESTED, 'variant_b': {'arm': 'canary'}}}, 'has no share'),
    ({'test_arms': {**TESTED, 'variant_b': {'arm': 'canary', 'share': '25%', 'version': 'a b'}}}, 'cannot be stored'),
    ({'metrics': [{'name': 'x', 'successes': VISITS}]}, 'needs successes and total'),
    ({'metrics': [{**CONVERSIONS, 'successes': 'sum(conversions_total)'}]}, 'must count one arm since the test began'),
    ({'metrics': [{**CONVERSIONS, 'total': 'visits_total{arm="$arm"}'}]}, 'must count one arm since the test began'),
    ({'metrics': [{**CONVERSIONS, 'total': 'visits_total{arm="$user"}[$window]'}]}, 'uses $user'),
    ({'metrics': [{**CONVERSIONS, 'source': 'influx'}]}, 'asks the source "influx"'),
    ({'metrics': [{**CONVERSIONS, 'source': 'router'}]}, 'takes no successes or total'),
    ({'metrics': [CONVERSIONS, CONVERSIONS]}, 'have the name "conversion_rate"'),
    ({'metrics': [{**CONVERSIONS, 'burst': 0.5}]}, 'burst'),
    ({'metrics': [{**CONVERSIONS, 'goal': 3}]}, 'unknown key "goal"'),
    ({'metrics': [{**CONVERSIONS, 'name': 'a b'}]}, 'no usable name'),
    ({'metrics': [{**CONVERSIONS, 'direction': 'up'}]}, 'more'),
    ({'guardrails': [{'name': 'errors', 'ratio': 0}]}, 'ratio 0'),
    ({'duration': '40d'}, '30 days at most'),
    ({'duration': 'soon'}, 'is not understood'),
    ({'lease': '8d'}, '1 s to 7 days'),
    ({'alpha': 1.5}, 'between 0 and 1'),
    ({'equivalence': '200%'}, 'below 100 %'),
])
def test_a_design_that_cannot_work_is_refused(changes, said):
    with pytest.raises(BadInput, match=said.replace('$', r'\$')):
        design(**changes)


@given(st.floats(1, 29 * 86400), st.floats(0, 86400), st.one_of(st.none(), st.floats(1, 7 * 86400)), st.floats(-10, 31 * 86400))
def test_a_lease_never_reaches_beyond_the_end(duration, grace, lease, left):
    plan = design(duration=duration, grace=grace, lease=lease)
    assert 0 <= plan.lease_s(left) <= max(left, 0) and plan.lease_s(left) <= 7 * 86400
    if lease:
        assert plan.lease_s(left) <= lease


def test_the_journal_tells_where_a_test_is():
    opened = {'event': 'ab_test_opened', 'rollout': 'x', 'by': 'me', 'design': {}, 'versions': {}}
    started = {'event': 'ab_test_started', 'began': 1.0, 'ends': 2.0, 'last_moment': 3.0, 'state': {'at': 1.0}}
    looked = {'event': 'ab_test_analysed', 'state': {'at': 1.5}, 'result': {'verdict': 'winner'}}
    silent = {'event': 'ab_test_analysed', 'state': {'at': 1.7}, 'result': {'verdict': 'no_data'}}
    over = {'event': 'ab_test_concluded', 'outcome': 'winner', 'winner': 'variant_a', 'by': 'me', 'reason': 'why', 'ts': 2.0}
    assert read_test([]) is None and read_test([looked]) is None
    assert not read_test([opened]).started
    running = read_test([opened, started, {'event': 'sample'}, looked, looked])
    assert (running.running, running.looks, running.looked_at, running.last['verdict']) == (True, 2, 1.5, 'winner')
    assert not read_test([opened, started, looked, over]).running
    later = read_test([opened, started, looked, silent])
    assert (later.last['verdict'], later.looked_at) == ('winner', 1.7), 'a verdict stands, whatever could not be counted since'
    assert read_test([opened, started, silent]).last['verdict'] == 'no_data'


@given(st.floats(1.0, 8 * 86400.0))
def test_a_window_never_begins_before_the_test(seconds):
    minutes, rest = prometheus_window(seconds).rstrip('s').split('m')
    assert seconds - 1 < int(minutes) * 60 + int(rest) <= seconds and int(rest) < 60
