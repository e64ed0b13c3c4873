# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When the evidence of an interrupted rollout counts for the next one."""

from __future__ import annotations

import json

import pytest

from ansible_collections.progressive.delivery.plugins.module_utils._analysis._eprocess import Counts
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import ArmsBlock, Question, SequentialState
from ansible_collections.progressive.delivery.plugins.module_utils._evidence import go_on
from ansible_collections.progressive.delivery.plugins.module_utils._plan import make_plan

HARM = {'name': 'harm', 'type': 'sequential', 'metric': 'errors', 'margin': 0.001}
STAGES = {'canary': '5%:30m', 'blue_green': '100%:15m'}


def plan(version='5.1', condition=None, arms=('blue', 'green', 'canary'), **more):
    return make_plan('shop', version, 'hybrid', STAGES, arms, 'blue', [condition or HARM], 'canary', **more)


def state(bad=0, alpha=0.05):
    made = SequentialState([Question('harm', margin=0.001)], alpha)
    made.history('harm', 10, 10000)
    for _block in range(5):
        made.update({'harm': ArmsBlock(Counts(1, 950, bad, 50), 10.0)})
    return made.to_dict()


def journal(*more, bad=0, alpha=0.05, **changes):
    made = plan()
    start = {'event': 'rollout_started', 'ts': 0.0, 'rollout': 'shop-1', 'version': '5.1', 'previous_version': '5.0', 'stable': 'blue',
             'target': 'green', 'asks': made['asks'], 'plan': [{'arm': one['arm']} for one in made['stages']], **changes}
    return json.loads(json.dumps([start, {'event': 'analysis', 'ts': 60.0, 'state': state(0, alpha)},
                                  {'event': 'analysis', 'ts': 100.0, 'state': state(bad, alpha)}, *more]))


def ask(events, made=None, previous='5.0', alpha=0.05, now=400.0):
    return go_on(events, made or plan(), previous, alpha, 0.05, now, 3600.0)


def test_evidence_goes_on_where_a_rollout_was_interrupted():
    found, said = ask(journal({'event': 'signal', 'ts': 101.0}))
    assert found == json.loads(json.dumps(state()))
    assert said.startswith('The rollout shop-1 was interrupted 5 min ago: its evidence goes on, ')
    assert 'times more likely harmful than not so far, limit 20 (delivery_forget_evidence=true begins anew).' in said


@pytest.mark.parametrize('events, options', [
    (journal({'event': 'rollout_finished', 'ts': 101.0}), {}), (journal()[:1], {}), (journal()[1:], {}), ([], {}),
    (journal(version='5.2'), {}), (journal(stable='green'), {}), (journal(target='canary'), {}), (journal(previous_version='4.9'), {}),
    (journal(), {'previous': None}), (journal(plan=[{'arm': 'green'}]), {})])
def test_of_another_rollout_nothing_is_said_and_nothing_goes_on(events, options):
    assert ask(events, **options) == ({}, '')


@pytest.mark.parametrize('events, options, words', [
    (journal(), {'now': 4000.0}, 'more than 1 h: its evidence is not used'),
    (journal(), {'made': plan(condition={**HARM, 'margin': 0.002})}, 'asked other questions'),
    (journal(asks=None), {}, 'asked other questions'),
    (journal(), {'alpha': 0.01}, 'with other conditions'),
    (journal({'event': 'analysis', 'ts': 101.0, 'state': {'tests': 7}}), {}, 'damaged'),
    (journal(bad=40), {}, 'with a proof of harm (canary ')])
def test_what_cannot_go_on_is_said(events, options, words):
    found, said = ask(events, **options)
    assert found == {} and words in said, said


def test_what_a_condition_is_called_and_how_a_stage_takes_it_are_no_other_questions():
    assert ask(journal(), plan(condition={**HARM, 'must_pass': False, 'harm': '1%'}))[0]
