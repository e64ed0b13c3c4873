# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The live view: one screen from routers, journal and lock."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ansible_collections.progressive.delivery.plugins.module_utils import _status
from ansible_collections.progressive.delivery.plugins.module_utils._journal import scan_journal
from ansible_collections.progressive.delivery.plugins.module_utils._report import model

EVENTS = (Path(__file__).parent / 'journals' / 'promoted.jsonl').read_text(encoding='utf-8').splitlines()
IN_STAGE_2 = next(n for n, line in enumerate(EVENTS) if '"verdict"' in line and 'canary 20 %' in line)
ROLLOUT = json.loads(EVENTS[0])['rollout']


def told(lines, info=None, alive=True, later=1.0):
    report = model.build(scan_journal('\n'.join(lines) + '\n'), '/j.jsonl', alive)
    return _status.status(info, report, (report.last or 0) + later)


def routers(**more):
    return {'service': 'shop', 'stable': 'blue', 'version': '5.0', 'moving': True, 'configured': {'lb1': {'canary': 2000, 'blue': 8000}},
            'endpoints': [{'name': 'lb1', 'ok': True, 'lease_left_s': 2.5}], 'text': 'shop\n  lb1: canary 20 %, blue 80 %', **more}


def test_a_running_rollout_shows_its_stage_shares_conditions_and_lease():
    found = told(EVENTS[:IN_STAGE_2], routers())
    rollout = found['rollout']
    assert (rollout['running'], rollout['stage']['index'], rollout['stages'], rollout['stage']['verdict']) == (True, 2, 4, None)
    assert rollout['requested_bp'] == {'canary': 2000, 'blue': 8000} and abs(rollout['observed_bp']['canary'] - 2000) < 100
    assert rollout['lease_left_s'] == 2.5, 'what the router says counts'
    assert {one['name']: one['state'] for one in rollout['conditions']}['errors'] == 'ok'
    screen = _status.render(found, 120)
    for part in ('shop 5.0 → 5.1  STILL RUNNING', 'Stage 2 of 4: canary grows (canary 20 %)', 'lease 2.5 s left', 'go back above 0.5 %',
                 'harm', 'lb1: canary 20 %, blue 80 %', 'Journal: /j.jsonl', 'requests failed so far'):
        assert part in screen, part
    assert len(screen.splitlines()) <= 40


def test_without_the_routers_the_lease_is_what_the_journal_leaves():
    before, after = (told(EVENTS[:IN_STAGE_2], later=later)['rollout']['lease_left_s'] for later in (0.0, 60.0))
    assert 0 < before < 6 and round(before - after) == 60
    assert 'lease has run out' in _status.render(told(EVENTS[:IN_STAGE_2], later=60.0))


def test_a_rollout_that_has_ended_shows_how():
    screen = _status.render(told(EVENTS, routers(moving=False)))
    assert 'PROMOTED' in screen and '5.1 has all of the traffic on green' in screen


def test_a_service_that_nobody_has_rolled_out_shows_its_routers():
    screen = _status.render(_status.status(routers(), None, 1.0))
    assert 'no rollout on record' in screen and 'lb1: canary 20 %' in screen


def test_values_beyond_their_limits_are_said_to_be():
    sample = {'values': {'a': 0.02, 'b': 0.002, 'c': 5.0}, 'evidence': {'s': {'harm': 1.5}}}
    limits = {'type': 'threshold', 'unit': 'ratio', 'abort': [['above', 0.01]], 'good': [['below', 0.001]]}
    states = [_status._condition({**limits, 'name': name}, sample)['state'] for name in ('a', 'b', 'd')]
    states.append(_status._condition({'name': 'c', 'type': 'threshold', 'abort': [['below', 5.0]]}, sample)['state'])
    states.append(_status._condition({'name': 's', 'type': 'sequential', 'harm_limit': 1.3}, sample)['state'])
    assert states == ['beyond', 'not yet', 'no data', 'ok', 'beyond']


def test_who_waits_for_an_answer_is_said_until_it_comes():
    asked = {'event': 'asked', 'stage': 'canary 20 %', 'text': 'Is it quiet?', 'by': ['ann'], 'ts': 1e9, 'rollout': ROLLOUT}
    begun = [*EVENTS[:IN_STAGE_2], json.dumps({**asked, 'ts': 1.9e9})]
    assert 'WAITING: canary 20 %: asked ann: Is it quiet?' in _status.render(told(begun))
    answered = json.dumps({**asked, 'event': 'answered', 'by': 'ann', 'answer': 'go', 'ts': 1.9e9 + 1})
    assert 'WAITING' not in _status.render(told([*begun, answered]))


@pytest.mark.parametrize('columns', [20, 80, 140])
def test_no_line_is_wider_than_the_screen_and_colours_are_an_addition(columns):
    for lines in (EVENTS[:IN_STAGE_2], EVENTS, EVENTS[:3]):
        plain, coloured = (_status.render(told(lines, routers()), columns, colours) for colours in (False, True))
        assert max(map(len, plain.splitlines())) <= columns and '\x1b' not in plain
        assert '\x1b[' in coloured and re.sub(r'\x1b\[[0-9]*m', '', coloured) == plain
