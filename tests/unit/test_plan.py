# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a rollout: everything that can be wrong with stages stops here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._plan import make_plan, parse_stages

ARMS = ('blue', 'green', 'canary')
HYBRID = {
    'canary': [{'share': '5%', 'bake': '30m'}, {'share': '20%', 'bake': '45m'}],
    'blue_green': [{'share': '50%', 'bake': '30m'}, {'share': '100%', 'bake': '15m'}],
}
ERRORS = {'name': 'errors', 'metric': 'error_ratio', 'abort_above': 0.005}


def plan(stages=None, strategy='hybrid', arms=ARMS, stable='blue', conditions=(ERRORS,), canary='canary', **more):
    return make_plan('shop', '5.1', strategy, stages or HYBRID, arms, stable, conditions, canary, **more)


def test_the_hybrid_strategy_goes_over_the_canary_to_the_other_colour():
    made = plan()
    assert [(s['index'], s['role'], s['arm'], s['share_bp'], s['bake_s'], s['promotes']) for s in made['stages']] == [
        (1, 'canary', 'canary', 500, 1800, False), (2, 'canary', 'canary', 2000, 2700, False),
        (3, 'blue_green', 'green', 5000, 1800, False), (4, 'blue_green', 'green', 10000, 900, True)]
    assert (made['target'], made['canary'], made['candidates']) == ('green', 'canary', ['canary', 'green'])


def test_a_stage_in_the_shadow_gets_copies_and_no_share():
    stages = {'canary': [{'share': '0%', 'mirror': '10%', 'bake': '5m'}, {'share': '5%', 'mirror': '20%', 'bake': '5m'}],
              'blue_green': [{'share': '100%', 'bake': '5m'}]}
    shadow, canary, last = plan(stages)['stages']
    assert (shadow['label'], shadow['split'], shadow['mirror'], shadow['load_bp'], shadow['promotes']) == (
        'canary 0 % and copies of 10 %', {'canary': 0}, {'arm': 'canary', 'share': 1000}, 1000, False)
    assert (canary['share_bp'], canary['mirror']['share'], canary['load_bp'], last['mirror']) == (500, 2000, 2500, {})
    for wrong, words in (({'share': '0%'}, 'moves traffic, or copies of it'), ({'share': '0%', 'mirror': '101%'}, 'outside'),
                         ({'share': '0%', 'mirror': 10}, 'could mean 10 % or 10 basis points'),
                         ({'share': '100%', 'mirror': '1%'}, 'nothing that could be copied')):
        with pytest.raises(BadInput, match=words):
            plan({'canary': [{**wrong, 'bake': '5m'}], 'blue_green': [{'share': '100%', 'bake': '5m'}]})


def test_each_arm_is_brought_up_by_the_first_role_that_needs_it():
    assert plan()['brings_up'] == {'canary': ['canary'], 'blue_green': ['green']}
    assert plan(strategy='blue_green')['brings_up'] == {'canary': [], 'blue_green': ['green']}
    assert plan(arms=('blue', 'canary'))['brings_up'] == {'canary': ['canary'], 'blue_green': []}, 'once is enough'


def test_the_next_rollout_goes_the_other_way():
    assert plan(stable='green')['target'] == 'blue'


def test_the_canary_strategy_ends_in_one_switch():
    assert [(s['arm'], s['share_bp']) for s in plan(strategy='canary')['stages']] == [('canary', 500), ('canary', 2000), ('green', 10000)]


def test_a_service_of_two_arms_promotes_its_canary():
    made = plan(arms=('blue', 'canary'))
    assert [s['arm'] for s in made['stages']] == ['canary'] * 4


def test_when_the_canary_has_become_stable_the_other_arm_is_the_candidate():
    made = plan(arms=('blue', 'canary'), stable='canary')
    assert {s['arm'] for s in made['stages']} == {'blue'}


def test_a_stage_sharpens_a_condition_of_the_same_name():
    sharper = {'name': 'errors', 'metric': 'error_ratio', 'abort_above': 0.001}
    stages = {'blue_green': [{'share': '50%', 'bake': '1m', 'conditions': [sharper]}, {'share': '100%', 'bake': '1m'}]}
    made = plan(stages, strategy='blue_green')
    assert [s['conditions'] for s in made['stages']] == [[sharper], [ERRORS]]


def test_a_stage_may_ask_a_person():
    asks = {'question': 'Go on?', 'by': ['ann']}
    stages = {'blue_green': [{'share': '50%', 'bake': '1m', 'approval': asks}, {'share': '100%', 'bake': '1m'}]}
    made = plan(stages, strategy='blue_green', ask_timeout='5m')
    assert [s['approval'] for s in made['stages']] == [{'question': 'Go on?', 'timeout': 300.0, 'by': ('ann',)}, {}]


def test_an_answer_of_a_survey_is_read():
    assert parse_stages('5%:30m, 20% : 45m', 'canary stages') == [{'share': '5%', 'bake': '30m'}, {'share': '20%', 'bake': '45m'}]


@pytest.mark.parametrize('change, sentence', [
    ({'stages': {'canary': '20%:1m, 5%:1m', 'blue_green': '100%:1m'}}, 'stages only go up'),
    ({'stages': {'canary': '5%:1m', 'blue_green': '50%:1m'}}, 'must end at 100 %'),
    ({'stages': {'canary': '100%:1m', 'blue_green': '100%:1m'}}, '100 % must be the last stage'),
    ({'stages': {'canary': [], 'blue_green': []}}, 'has no stages'),
    ({'stages': {'canary': '0%:1m', 'blue_green': '100%:1m'}}, 'share of 0 %'),
    ({'stages': {'canary': '5%', 'blue_green': '100%:1m'}}, 'are not understood'),
    ({'stages': {'canary': 7, 'blue_green': '100%:1m'}}, 'must be a list'),
    ({'stages': {'canary': '5:1m', 'blue_green': '100%:1m'}}, 'write "5%" or "5bp"'),
    ({'stages': {'canary': 'five:1m', 'blue_green': '100%:1m'}}, r'stage 1 \(canary\) cannot be planned: The share'),
    ({'stages': {'canary': '5%:1s', 'blue_green': '100%:1m'}}, 'shorter than its interval'),
    ({'stages': {'canary': '0.001%:1m', 'blue_green': '100%:1m'}}, 'finer than 0.01 %'),
    ({'stages': {'canary': '120%:1m', 'blue_green': '100%:1m'}}, 'outside 0 % to 100 %'),
    ({'stages': {'canary': [{'share': '5%'}], 'blue_green': '100%:1m'}}, 'has no bake'),
    ({'stages': {'canary': [{'share': '5%', 'bake': '1m', 'arm': 'purple'}], 'blue_green': '100%:1m'}}, 'the service does not have'),
    ({'stages': {'canary': [{'share': '5%', 'bake': '1m', 'arm': 'blue'}], 'blue_green': '100%:1m'}}, 'is the stable one now'),
    ({'stages': {'canary': [{'share': '5%', 'bake': '1m', 'pause': 1}], 'blue_green': '100%:1m'}}, 'unknown key "pause"'),
    ({'conditions': ()}, 'has no conditions'),
    ({'stable': 'purple'}, 'is not one of the service'),
    ({'strategy': 'yolo'}, 'is not known'),
    ({'arms': ('blue', 'green', 'canary', 'standby')}, 'name one of green, standby as delivery_target_arm'),
    ({'arms': ('blue',), 'canary': None}, 'needs a second one'),
    ({'target': 'blue'}, 'is the stable one already'),
    ({'arms': ('blue', 'gr een', 'canary')}, 'is not a valid name'),
    ({'interval': '0s'}, 'must be above 0 s'),
    ({'lease': '29s'}, r'shorter than three intervals of stage 1 \(canary 5 %, every 10 s\).*Make it 30 s or more'),
    ({'timeouts': {'delivery_drain_timeout': 'soon'}}, "The delivery_drain_timeout 'soon' is not understood"),
    ({'ask_timeout': '2d'}, 'The ask_timeout of 172800 s is not usable'),
    ({'stages': {'canary': [{'share': '5%', 'bake': '1m', 'approval': {'who': 'ann'}}], 'blue_green': '100%:1m'}},
     r'The approval of stage 1 \(canary\) is not understood'),
    ({'arms': ('blue', 'green')}, r'needs the canary arm "canary".*as delivery_canary_arm \(green would do\)'),
])
def test_what_is_wrong_is_said_before_the_first_change(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        plan(**change)


@pytest.mark.parametrize('version', ['5.1; show info', '5 1', '5.1\n', '', 'a/b', 'a,b=c'])
def test_a_version_that_could_become_a_command_is_refused(version):
    with pytest.raises(BadInput, match='cannot be stored'):
        make_plan('shop', version, 'hybrid', HYBRID, ARMS, 'blue', (ERRORS,), 'canary')


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=6))
def test_a_plan_is_made_of_any_rising_shares_and_of_no_others(shares):
    stages = {'blue_green': [{'share': '%dbp' % bp, 'bake': '1m'} for bp in shares]}
    good = all(a <= b for a, b in zip(shares, shares[1:])) and shares[-1] == 10_000 and 10_000 not in shares[:-1]
    if good:
        assert [s['share_bp'] for s in plan(stages, strategy='blue_green')['stages']] == shares
    else:
        with pytest.raises(BadInput):
            plan(stages, strategy='blue_green')


def test_a_canary_arm_that_the_service_does_not_have_is_named():
    with pytest.raises(BadInput, match='the canary arm "purple" is not one of them'):
        plan(canary='purple')
