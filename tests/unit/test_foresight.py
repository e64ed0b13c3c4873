# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What gates can find, told before the first change. The source is a fake; tests/e2e looks at real traffic."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest
from gate_fakes import ERRORS, SOCKET, Source

from ansible_collections.progressive.delivery.plugins.module_utils import _foresight, _gate
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._planning import plan
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import Question
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Block, Reading
from ansible_collections.progressive.delivery.plugins.module_utils._plan import make_plan

HARM = {'name': 'harm', 'type': 'sequential', 'metric': 'errors', 'margin': '0.1%', 'pass_margin': '0.5%', 'harm': '1%'}
STAGES = {'canary': '5%:10s, 20%:30m', 'blue_green': '100%:15m'}


class Stable(Source):
    """Stable with 1000 requests per second, one in a thousand of them bad."""

    def __init__(self, errors=(), **options):
        super().__init__(**options)
        self.errors = errors

    async def poll(self, now):
        await super().poll(now)
        if len(self.polls) == 1:
            return Reading(before=(Block('blue', 'lb1', 'requests', 0.0, 100_000, 100),))
        seconds = self.polls[-1] - self.polls[-2]
        return Reading((Block('blue', 'lb1', 'requests', seconds, round(1000 * seconds), round(seconds)),), errors=self.errors)


class Nobody(Source):
    async def poll(self, now):
        await super().poll(now)
        return Reading()


def foresee(source, conditions=(ERRORS, HARM), observe=0.5, **changes):
    made = make_plan('shop', '5.1', 'hybrid', STAGES, ('blue', 'canary'), 'blue', conditions, 'canary', warm_up='1s', interval='5s')
    options = {key: spec.get('default') for key, spec in _foresight.GATE_PLAN_SPEC.items()}
    options.update(service='shop', arms={'blue': {}, 'canary': {}}, stable='blue', endpoints=[SOCKET], stages=made['stages'],
                   observe=observe, **changes)
    with mock.patch.object(_gate, 'build_sources', lambda *args: [source]):
        return _foresight.run(options)


def test_each_stage_is_told_what_it_can_find():
    source = Stable()
    found = foresee(source)
    assert source.closed and len(source.polls) == 3 and not found['notes']
    small, large, whole = found['stages']
    assert (small['label'], large['label'], whole['plans']) == ('canary 5 %', 'canary 20 %', [])
    assert 'in 9 s at ' in small['text'][0] and 'with 0.1 % on stable' in small['text'][0]
    assert small['plans'][0]['smallest'] > large['plans'][0]['smallest'] > 0.002
    exact = plan(Question('harm', margin=0.001, pass_margin=0.005), 950, 50, 0.001, 9, 0.01)
    assert small['plans'][0]['median_s'] == pytest.approx(exact.median_s, rel=0.2)
    assert 'too short' in small['warnings'][0] and not large['warnings']


@pytest.mark.parametrize('source, said', [
    (Nobody(), 'There was no traffic in 0.50 s'), (Stable(broken='open'), 'There is no backend "canary".'),
    (Stable(errors=('lb1 is gone.',)), 'lb1 is gone.')])
def test_what_cannot_be_read_fails_nothing(source, said):
    found = foresee(source)
    assert found['notes'] and found['notes'][0].startswith(said) and source.closed


def test_nothing_is_looked_at_where_nothing_is_asked():
    for source, options in ((Stable(), {'observe': 0}), (Stable(), {'conditions': (ERRORS,)})):
        assert foresee(source, **options)['stages'][0]['text'] == [] and source.polls == []


@pytest.mark.parametrize('changes, words', [
    ({'conditions': ({**ERRORS, 'metric': 'nope'},)}, r'^The condition "nope"'), ({'observe': '2m'}, 'a minute at most'),
    ({'policy': {'no_data': 'ignore'}}, 'is not known'), ({'ask_timeout': 'never'}, 'ask_timeout')])
def test_what_is_wrong_is_said_once_and_first(changes, words):
    source = Stable()
    with pytest.raises(BadInput, match=words):
        foresee(source, **changes)
    assert source.polls == []


def test_what_is_wrong_with_a_later_stage_names_it():
    stages = make_plan('shop', '5.1', 'hybrid', STAGES, ('blue', 'canary'), 'blue', (ERRORS,), 'canary', interval='5s')['stages']
    stages[1]['conditions'] = [{**ERRORS, 'metric': 'nope'}]
    options = {key: spec.get('default') for key, spec in _foresight.GATE_PLAN_SPEC.items()}
    options.update(service='shop', arms={'blue': {}, 'canary': {}}, stable='blue', endpoints=[SOCKET], stages=stages)
    with mock.patch.object(_gate, 'build_sources', lambda *args: [Stable()]):
        with pytest.raises(BadInput, match=r'^In stage 2 \(canary 20 %\): '):
            _foresight.run(options)
    del stages[0]['bake_s']
    with pytest.raises(BadInput, match="no 'bake_s'"):
        asyncio.run(_foresight.foresee(_foresight.read_gates(options), 1.0))
