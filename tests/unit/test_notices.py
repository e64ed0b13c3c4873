# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people are told of a journal, and by which channels."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.plugin_utils import _observer
from ansible_collections.progressive.delivery.plugins.module_utils._channels import TYPES, check_channels, masked
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._notices import EVENTS, SEVERITIES, Narrator

START = {'event': 'rollout_started', 'ts': 100.0, 'rollout': 'r1', 'service': 'shop', 'version': '5.1', 'previous_version': '5.0',
         'strategy': 'hybrid', 'stable': 'blue', 'by': 'kim', 'stages': 2,
         'plan': [{'index': 1, 'arm': 'canary', 'share_bp': 500, 'bake_s': 60.0},
                  {'index': 2, 'arm': 'green', 'share_bp': 10000, 'bake_s': 30.0}]}
STAGE = {'event': 'stage_started', 'ts': 110.0, 'index': 1, 'name': 'canary', 'label': 'canary 5 %', 'arm': 'canary', 'bake_s': 60.0}
SAMPLE = {'event': 'sample', 'ts': 111.0, 'arms': {'blue': {'requests': 95, 'errors': 0}, 'canary': {'requests': 5, 'errors': 2}}}
PASSED = {**STAGE, 'event': 'stage_finished', 'ts': 170.0, 'verdict': 'pass', 'duration_s': 60.0, 'requested_bp': {'canary': 500},
          'observed_bp': {'canary': 498}, 'arms': {'canary': {'requests': 50, 'errors': 0, 'p95_ms': 40.0}}}
BACK = {'event': 'way_back', 'ts': 120.0, 'stage': 'canary 5 %', 'reason': 'canary: 3 of 14 requests failed', 'seconds': 0.02, 'to': 'blue',
        'endpoints': [{'endpoint': 'lb1', 'ok': True}]}
ENDED = {'event': 'rollout_finished', 'ts': 130.0, 'outcome': 'rolled_back', 'reason': 'canary: 3 of 14 requests failed.'}


def tell(*events):
    narrator = Narrator()
    return [notice for event in events for notice in narrator.feed(event)], narrator


def test_a_good_rollout_is_told_from_start_to_end():
    told, narrator = tell(START, STAGE, SAMPLE, PASSED, {**ENDED, 'outcome': 'promoted', 'reason': 'shop 5.1 is live.'})
    assert [(notice.number, notice.event, notice.severity, notice.incident) for notice in told] == [
        (1, 'started', 'info', ''), (2, 'stage', 'info', ''), (3, 'finished', 'info', '')]
    assert told[0].text == 'canary 5 % → green 100 %, 1 min 30 s at least.'
    assert told[1].title == 'shop 5.1: canary 5 % passed (1 of 2)' and told[1].text == 'After 1 min; next: green 100 %.'
    assert dict(told[1].facts) == {'Share of canary': '5 % (observed 4.98 %)', 'canary': '50 requests, 0 failed, P95 40 ms'}
    assert narrator.over


def test_a_bad_version_opens_one_incident_and_the_end_closes_it():
    told, _narrator = tell(START, STAGE, SAMPLE, BACK, {**BACK, 'reason': 'again'}, {**PASSED, 'verdict': 'fail'}, ENDED)
    assert [(notice.event, notice.severity, notice.incident) for notice in told[1:]] == [
        ('rolled_back', 'critical', 'trigger'), ('finished', 'warning', 'resolve')]
    assert told[1].text == 'canary: 3 of 14 requests failed. All traffic is on blue again, 0.02 s after the verdict.'
    assert dict(told[1].facts)['canary'] == '5 requests, 2 failed'


def test_a_way_back_that_an_endpoint_did_not_take_says_so():
    told, _narrator = tell(START, {**BACK, 'endpoints': [{'endpoint': 'lb1', 'ok': True}, {'endpoint': 'lb2', 'ok': False}]})
    assert 'but not on lb2: the lease does the rest; look there now' in told[1].text


def test_a_run_that_is_gone_is_an_incident_once():
    _told, narrator = tell(START, STAGE)
    assert narrator.tick(112.0, True) == []
    gone, = narrator.tick(113.0, False)
    assert (gone.event, gone.incident, gone.title) == ('interrupted', 'trigger', 'shop 5.1 was interrupted in the stage "canary 5 %"')
    assert narrator.over and narrator.tick(114.0, False) == [] and narrator.feed(BACK) == []


def test_a_state_is_told_only_while_nothing_else_was():
    _told, narrator = tell(START, STAGE, SAMPLE, SAMPLE)
    assert narrator.tick(1899.0, True) == []
    state, = narrator.tick(1900.0, True)
    assert (state.event, dict(state.facts)['canary']) == ('state', '10 requests, 4 failed')
    assert narrator.tick(1901.0, True) == []
    assert Narrator(0.0).tick(1e9, True) == []


def test_a_question_waits_for_an_answer():
    told, _narrator = tell(START, {'event': 'asked', 'ts': 111.0, 'stage': 'canary 5 %', 'text': 'Is it good?', 'timeout_s': 1800})
    assert (told[1].event, told[1].severity, told[1].text) == ('question', 'warning', 'canary 5 %: Is it good?')
    assert dict(told[1].facts)['Time left'] == '30 min'


EVENT = st.fixed_dictionaries(
    {'event': st.sampled_from(['rollout_started', 'stage_started', 'sample', 'stage_finished', 'way_back', 'asked', 'rollout_finished',
                               'note']),
     'ts': st.floats(0, 1e9)},
    optional={'arm': st.sampled_from(['canary', 'blue']), 'label': st.text(max_size=5), 'verdict': st.sampled_from(['pass', 'fail']),
              'arms': st.dictionaries(st.sampled_from(['canary', 'blue']), st.fixed_dictionaries({}, optional={
                  'requests': st.integers(0, 9), 'errors': st.none() | st.integers(0, 9), 'p95_ms': st.none() | st.floats(0, 9)})),
              'outcome': st.sampled_from(['promoted', 'rolled_back', 'failed']), 'seconds': st.floats(0, 9), 'failed': st.lists(st.text())})


@given(st.lists(EVENT, max_size=12))
def test_whatever_a_journal_holds_notices_are_numbered_and_can_be_sent(events):
    told, _narrator = tell(*events)
    assert [notice.number for notice in told] == list(range(1, len(told) + 1))
    for notice in told:
        assert notice.event in EVENTS and notice.severity in SEVERITIES and notice.incident in ('', 'trigger', 'resolve')
        json.dumps(notice.plain())
    incidents = [notice.incident for notice in told if notice.incident]
    assert incidents in ([], ['trigger'], ['trigger', 'resolve'])


# --- the process beside the rollout ---

def test_a_journal_is_followed_line_by_line(tmp_path):
    path = tmp_path / 'journal'
    follower = _observer.Follower(str(path))
    assert follower.events() == []
    path.write_text('{"event": "a", "ts": 1}\nspoilt\n[1]\n{"event": "b", ')
    assert [event['event'] for event in follower.events()] == ['a']
    with path.open('a') as file:
        file.write('"ts": 2}\n')
    assert [event['event'] for event in follower.events()] == ['b']
    assert follower.events() == []


def test_it_ends_with_the_rollout(tmp_path):
    path = tmp_path / 'journal'
    path.write_text('')
    later = iter([[START, STAGE], [], [BACK], [ENDED]])

    def sleep(_seconds):
        with path.open('a') as file:
            file.writelines(json.dumps(event) + '\n' for event in next(later))

    sent = []
    _observer.observe(_observer.Orders(str(path), 'r1', 0, None, 'x'), sent.append, lambda: 111.0, sleep)
    assert [notice.event for notice in sent] == ['started', 'rolled_back', 'finished']


def test_it_tells_that_the_run_is_gone(tmp_path):
    path = tmp_path / 'journal'
    path.write_text(json.dumps(START) + '\n')
    sent = []
    # No process has this pid and this start.
    _observer.observe(_observer.Orders(str(path), 'r1', 2**22 + 1, 1, 'x'), sent.append, lambda: 111.0, lambda _seconds: None)
    assert [notice.event for notice in sent] == ['started', 'interrupted']


@pytest.mark.parametrize(('channel', 'event', 'incident', 'wanted'), [
    ({'type': 'slack'}, 'stage', '', True), ({'type': 'slack', 'events': ['finished']}, 'stage', '', False),
    ({'type': 'pagerduty'}, 'stage', '', False), ({'type': 'pagerduty'}, 'finished', 'resolve', True),
    ({'type': 'pagerduty'}, 'finished', '', False)])
def test_each_channel_gets_what_it_wants(channel, event, incident, wanted):
    narrator = Narrator()
    notice = narrator._notice(event, 'info', 1.0, 'a', 'b', incident=incident)
    assert _observer.wanted(channel, notice) is wanted


# --- channels ---

GOOD = {
    'slack': {'url': 'https://hooks.slack.com/services/T0/B0/abcdef'},
    'teams': {'url': 'https://prod.example/workflows/abcdef'},
    'email': {'host': 'mail', 'sender': 'a@example.org', 'to': 'b@example.org'}, 'pagerduty': {'integration_key': 'abcdef0123'},
    'webhook': {'url': 'http://127.0.0.1:1/x', 'headers': {'Authorization': 'Bearer abcdef'}}}


def test_good_channels_are_taken():
    found = check_channels([{'type': kind, **members} for kind, members in GOOD.items()])
    assert [channel['name'] for channel in found] == list(TYPES)
    assert found[2]['to'] == ['b@example.org'] and found[0]['timeout'] == 10


@pytest.mark.parametrize(('channels', 'sentence'), [
    ('slack', 'must be a list'), (['slack'], 'is no dictionary'), ([{'type': 'irc'}], 'use one of slack, teams'),
    ([{'type': 'slack'}], 'needs "url" or "token"'), ([{'type': 'slack', 'url': 'hooks.slack.com/secret'}], 'begins with http'),
    ([{'type': 'slack', 'url': 'https://x/s', 'uri': 'y'}], 'unknown member "uri"'),
    ([{'type': 'teams', 'url': 'https://x/s'}] * 2, 'Two notification channels are called "teams"'),
    ([{'type': 'teams', 'url': 'https://x/s', 'events': ['end']}], "asks for the event 'end'"),
    ([{'type': 'teams', 'url': 'https://x/s', 'timeout': 300}], 'give 1 to 30 seconds'),
    ([{'type': 'teams', 'url': 'https://x/s', 'timeout': True}], 'must be of type int'),
    ([{'type': 'email', 'sender': 'a@b'}], 'needs "to"'),
    ([{'type': 'teams', 'url': 'https://x/s', 'name': 'a b'}], 'notification channel')])
def test_a_channel_that_is_not_understood_is_one_sentence(channels, sentence):
    with pytest.raises(BadInput, match='.') as caught:
        check_channels(channels)
    assert sentence in str(caught.value) and 'secret' not in str(caught.value)


@pytest.mark.parametrize('kind', list(GOOD))
def test_no_secret_is_left_in_an_error(kind):
    channel = {'type': kind, **GOOD[kind]}
    spoken = 'could not reach %s' % json.dumps(channel)
    told = masked(spoken, {**channel, 'password': 'abcdef'})
    assert 'abcdef' not in told and 'could not reach' in told
