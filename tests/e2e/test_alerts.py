# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alerts of a real Prometheus, and what Alertmanager tells of them, while a bad candidate gets traffic and after it was taken out."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from e2e_lab import Dead
from haproxy_lab import wait_for
from receivers import Http
from test_rollout import taken_out

pytestmark = pytest.mark.xdist_group('e2e')
needs_prometheus = pytest.mark.skipif(not shutil.which('prometheus'), reason='Prometheus is not installed')


def fired(lab, alert):
    """The labels and the beginning of each time that an alert fired."""
    return [(labels, began) for labels, values in lab.history('ALERTS_FOR_STATE{alertname="%s"}' % alert)
            for began in sorted({value for _at, value in values})]


def firing(lab, alert):
    return lab.ask('ALERTS{alertname="%s",alertstate="firing"}' % alert)


@pytest.fixture(scope='module')
def people():
    receiver = Http()
    yield receiver
    receiver.close()


@pytest.fixture(scope='module')
def rolled_back(lab, people):
    if not shutil.which('prometheus') or not shutil.which('prometheus-node-exporter'):
        pytest.skip('Prometheus or the node exporter is not installed')
    done, result = lab.rollout('errors', '-e', json.dumps({
        'delivery_notifications': [{'type': 'webhook', 'url': people.url('team')}], 'delivery_notify_timeout': '2m',
        'delivery_grafana_url': people.url('grafana'), 'delivery_grafana_token': 'glsa_x'}))
    assert result['outcome'] == 'rolled_back', done.stdout + done.stderr
    return result


def test_a_bad_candidate_is_told_of_once_and_it_is_over_after_the_way_back(lab, rolled_back):
    for alert, arm in (('DeliveryErrorRateHigh', 'canary'), ('DeliveryRolledBack', None)):
        wait_for(lambda: fired(lab, alert), '%s; there were %s' % (alert, lab.ask('ALERTS')), 30)
        (labels, _began), = fired(lab, alert)
        assert (labels['service'], labels.get('arm')) == ('shop', arm)
        wait_for(lambda: not firing(lab, alert), 'the end of %s' % alert, 60)
        assert len(fired(lab, alert)) == 1
    # The same truth as the journal's.
    assert lab.ask('delivery_rollout_outcome{outcome="rolled_back"}')[0][1] == 1
    (info, _one), = lab.ask('delivery_rollout_info')
    assert info['rollout'] in rolled_back['journal'] and info['version'] == '5.1'
    assert {labels['arm']: value for labels, value in lab.ask('delivery_rollout_share_ratio{kind="configured"}')}['blue'] == 1


def test_people_are_told_once_each_in_order_and_grafana_is_annotated(rolled_back, people):
    told = [event['data'] for path, _kind, event in people.received if path == '/team']
    assert [(one['number'], one['event']) for one in told] == [(1, 'started'), (2, 'rolled_back'), (3, 'finished')]
    assert {one['rollout'] for one in told} == {Path(rolled_back['journal']).stem}
    assert rolled_back['reason'].startswith(told[1]['text'].partition('.')[0])
    notes = [note['tags'][-1] for path, _kind, note in people.received if path == '/grafana/api/annotations']
    assert (notes[0], notes[-1], notes.count('rolled_back')) == ('started', 'finished', 1), notes


@pytest.mark.skipif(not shutil.which('prometheus-alertmanager'), reason='Alertmanager is not installed')
def test_it_pages_once_and_the_page_is_over_by_itself(lab, rolled_back):
    def told(receiver, name):
        """What *receiver* was told of an alert, in order: whether it fires, since when, and the group that makes one page of it."""
        path = lab.dir / 'pages.jsonl'
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        # Another alert of the group, on a machine with too much to do, has the whole page told again: that is the same page.
        return list(dict.fromkeys((alert['status'], alert['startsAt'], one['groupKey']) for one in lines if one['to'] == receiver
                                  for alert in one['alerts'] if alert['labels']['alertname'] == name))

    wait_for(lambda: told('page', 'DeliveryErrorRateHigh')[1:], 'the end of the page', 60)
    wait_for(lambda: told('chat', 'DeliveryRolledBack')[1:], 'the end of what the chat is told', 60)
    for receiver, alert in (('page', 'DeliveryErrorRateHigh'), ('chat', 'DeliveryRolledBack')):
        (began, since, group), (ended, *same) = told(receiver, alert)
        assert (began, ended, same) == ('firing', 'resolved', [since, group])
        assert Path(rolled_back['journal']).stem in group and 'service="shop"' in group
    # Each severity goes its own way.
    assert told('chat', 'DeliveryErrorRateHigh') == told('page', 'DeliveryRolledBack') == []


@needs_prometheus
def test_the_labs_rules_are_those_of_the_role(lab):
    assert subprocess.run(['promtool', 'check', 'rules', str(lab.dir / 'rules.yml')], capture_output=True, check=False).returncode == 0


def test_with_everybody_dead_a_bad_candidate_is_taken_out_all_the_same(lab):
    """Sources that decide nothing, chats, mail, the pager, Grafana and the directory of the metrics: some refuse, some never answer."""
    metrics = lab.dir / 'metrics'
    metrics.mkdir()
    # It was there when the rollout began.
    lost = threading.Thread(target=lambda: wait_for(lambda: any(metrics.iterdir()), 'metrics', 200) and shutil.rmtree(metrics))
    lost.start()
    dead = Dead(metrics)
    try:
        done, result = lab.rollout('silent', '-e', json.dumps(dead.variables))
    finally:
        dead.close()
        lost.join()
    _screen, report = taken_out(lab, done, result, 'without an answer')
    assert report['outcome'] == 'rolled_back'
    said = ' '.join((done.stdout + done.stderr).split())
    assert [name for name in dead.names if 'The channel "%s" did not take' % name not in said] == [], said
    assert [name for name in ('mute', 'gone') if 'warn metrics %s: ' % name not in said] == [], said
    journal = Path(result['journal']).read_text()
    assert dead.SECRET not in said + journal
    events = [json.loads(line) for line in journal.splitlines()]
    back = next(event['ts'] for event in events if event['event'] == 'way_back')
    assert back < min(event['ts'] for event in events if event['event'] == 'notified' and event['about'] == 'rolled_back')
