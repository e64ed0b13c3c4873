# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notices as real receivers get them: HTTP, SMTP, and the vendors' own addresses through a proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from receivers import Http, Smtp, Vendors

ROOT = Path(__file__).resolve().parents[2]
NOTICE = {'number': 2, 'event': 'rolled_back', 'severity': 'critical', 'title': 'shop 5.1 was taken out in canary 5 %',
          'text': 'canary: 3 of 14 requests failed <b> & "{{ 7 * 7 }}". All traffic is on blue again.', 'service': 'shop',
          'rollout': 'shop-r1', 'version': '5.1', 'time': '2026-11-22T19:00:00.000Z',
          'facts': [['canary', '14 requests, 3 failed']], 'incident': 'trigger'}


@pytest.fixture
def http():
    receiver = Http()
    yield receiver
    receiver.close()


def send(channels, tmp_path, **environment):
    """Sends as the process beside a rollout does; returns what the journal says of each channel, and all that was printed."""
    journal = tmp_path / 'journal.jsonl'
    given = {'notify_channels': channels, 'notify_notice': NOTICE, 'notify_journal': str(journal),
             'notify_dashboard': 'https://grafana.example/d/1'}
    done = subprocess.run(
        [str(Path(sys.executable).with_name('ansible-playbook')), '-vvv', '-i', 'localhost,', str(ROOT / 'playbooks' / 'notify.yml')],
        env={**os.environ, 'ANSIBLE_CONFIG': str(ROOT / 'ansible.cfg'), 'PROGRESSIVE_DELIVERY_NOTICE': json.dumps(given), **environment},
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    events = {event['channel']: event for event in map(json.loads, journal.read_text().splitlines())}
    return events, done.stdout + done.stderr + journal.read_text()


def test_each_kind_of_channel_gets_the_notice_in_its_own_words(http, tmp_path):
    mail = Smtp()
    try:
        events, _printed = send([
            {'name': 'slack', 'type': 'slack', 'url': http.url('slack')}, {'name': 'teams', 'type': 'teams', 'url': http.url('teams')},
            {'name': 'hook', 'type': 'webhook', 'url': http.url('hook'), 'headers': {'X-Token': 'abcdef'}},
            {'name': 'duty', 'type': 'pagerduty', 'url': http.url('duty'), 'integration_key': 'key-abcdef'},
            {'name': 'mail', 'type': 'email', 'host': '127.0.0.1', 'port': mail.port, 'sender': 'rollouts@example.org',
             'to': ['team@example.org'], 'secure': 'never'}], tmp_path)
    finally:
        mail.close()
    assert {name: event['ok'] for name, event in events.items()} == dict.fromkeys(['slack', 'teams', 'hook', 'duty', 'mail'], True)
    got = {path.strip('/'): (kind, body) for path, kind, body in http.received}
    assert got['slack'][1]['text'] == NOTICE['title']
    assert got['slack'][1]['attachments'][0]['text'].startswith('canary: 3 of 14 requests failed &lt;b&gt; &amp; "{{ 7 * 7 }}"')
    assert '<https://grafana.example/d/1|Dashboard>' in got['slack'][1]['attachments'][0]['text']
    card = got['teams'][1]['attachments'][0]['content']
    assert (card['type'], card['body'][1]['text']) == ('AdaptiveCard', NOTICE['text'])
    kind, event = got['hook']
    assert kind.startswith('application/cloudevents+json')
    assert (event['specversion'], event['id'], event['type'], event['data']['text']) == (
        '1.0', 'shop-r1/2', 'delivery.progressive.rollout.rolled_back', NOTICE['text'])
    assert (got['duty'][1]['event_action'], got['duty'][1]['dedup_key'], got['duty'][1]['payload']['severity']) == (
        'trigger', 'shop-r1', 'critical')
    message, = mail.received
    assert (message['subject'], message['to'], message['x-rollout']) == (NOTICE['title'], 'team@example.org', 'shop-r1')
    assert NOTICE['text'] in message.get_body(('plain',)).get_content()


def test_a_receiver_that_refuses_or_never_answers_holds_up_no_other_and_no_secret_is_told(http, tmp_path):
    events, printed = send([
        {'name': 'refuses', 'type': 'webhook', 'url': http.url('bad/s3cr3t-path')},
        {'name': 'silent', 'type': 'teams', 'url': http.url('dead/s3cr3t-path'), 'timeout': 1},
        {'name': 'gone', 'type': 'slack', 'url': 'http://127.0.0.1:9/s3cr3t-path', 'timeout': 1},
        {'name': 'mailgone', 'type': 'email', 'host': '127.0.0.1', 'port': 9, 'password': 's3cr3t-word', 'username': 'x',
         'sender': 'a@example.org', 'to': 'b@example.org', 'timeout': 1},
        {'name': 'takes', 'type': 'webhook', 'url': http.url('good')}], tmp_path)
    assert {name: event['ok'] for name, event in events.items()} == {
        'refuses': False, 'silent': False, 'gone': False, 'mailgone': False, 'takes': True}
    assert '500' in events['refuses']['error']
    assert 's3cr3t' not in printed
    assert ('/good', 1) in {(path, event['data']['number'] - 1) for path, _kind, event in http.received if path == '/good'}


def test_the_vendors_own_modules_reach_the_vendors_addresses(http, tmp_path):
    vendors = Vendors(http, ['slack.com', 'events.pagerduty.com'], tmp_path)
    try:
        events, printed = send([
            {'name': 'slack', 'type': 'slack', 'token': 'xoxb-s3cr3t', 'channel': '#rollouts'},
            {'name': 'duty', 'type': 'pagerduty', 'integration_key': 's3cr3t-key'}], tmp_path, **vendors.environment())
    finally:
        vendors.close()
    assert {name: (event['ok'], event['error']) for name, event in events.items()}['duty'] == (True, '')
    assert sorted(vendors.asked) == ['events.pagerduty.com:443', 'slack.com:443']
    got = {path: body for path, _kind, body in http.received}
    assert got['/v2/enqueue']['dedup_key'] == 'shop-r1' and got['/v2/enqueue']['event_action'] == 'trigger'
    assert got['/v2/enqueue']['payload']['custom_details'] == {'canary': '14 requests, 3 failed'}
    assert got['/api/chat.postMessage']['channel'] == '#rollouts'
    assert 's3cr3t' not in printed


def test_a_template_of_ones_own_replaces_ours(http, tmp_path):
    template = tmp_path / 'mine.j2'
    template.write_text('{{ {"mine": notify_notice.title} | to_json }}')
    send([{'name': 'hook', 'type': 'webhook', 'url': http.url('hook'), 'template': str(template)}], tmp_path)
    assert http.received[0][2] == {'mine': NOTICE['title']}
