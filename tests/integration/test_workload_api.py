# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""workload_capacity and workload_status against a real API server. There are no controllers: what they would write into a status is
written by the tests."""

from __future__ import annotations

import json
import threading

import pytest
from kube_api import KubeApi

from ansible_collections.progressive.delivery.plugins.module_utils._capacity import run_capacity
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Refused, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._kube.client import Api
from ansible_collections.progressive.delivery.plugins.module_utils._workload import run_status

APPS = '/apis/apps/v1/namespaces/default/deployments'
SCALERS = '/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers'
HELD = 'progressive.delivery/scale-down'


@pytest.fixture(scope='module')
def server():
    with KubeApi(users=['someone']) as api:
        yield api


def deployment(name, replicas=2):
    labels = {'arm': name}
    return {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': {'name': name, 'namespace': 'default'}, 'spec': {
        'replicas': replicas, 'selector': {'matchLabels': labels}, 'template': {'metadata': {'labels': labels}, 'spec': {
            'containers': [{'name': 'shop', 'image': 'shop:1'}]}}}}


def scaler(name):
    cpu = {'type': 'Resource', 'resource': {'name': 'cpu', 'target': {'type': 'Utilization', 'averageUtilization': 70}}}
    return {'apiVersion': 'autoscaling/v2', 'kind': 'HorizontalPodAutoscaler',
            'metadata': {'name': name + '-scaler', 'namespace': 'default'},
            'spec': {'scaleTargetRef': {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'name': name}, 'minReplicas': 1, 'maxReplicas': 5,
                     'metrics': [cpu]}}


@pytest.fixture
def green(server):
    """A Deployment `green` of 2 with an autoscaler."""
    server.request('POST', APPS, deployment('green'))
    server.request('POST', SCALERS, scaler('green'))
    yield server
    server.request('DELETE', APPS + '/green')
    server.request('DELETE', SCALERS + '/green-scaler')


def capacity(server, check=False, diff=False, user=None, **options):
    defaults = {'state': 'ready', 'headroom': 1, 'min_replicas': 1, 'hold': True, 'on_shortage': 'fail', 'deadline': 5.0,
                'namespace': 'default'}
    kubeconfig = server.kubeconfig_for(user) if user else server.kubeconfig
    return run_capacity({**defaults, 'kubeconfig': kubeconfig, 'candidate': 'green', **options}, check, diff)


def status(server, **options):
    return run_status({'state': 'ready', 'replicas': 0, 'wait': True, 'wait_timeout': '1s', 'stall_grace': '5s', 'deadline': 5.0,
                       'namespace': 'default', 'kubeconfig': server.kubeconfig, 'name': 'green', **options})


def held(server):
    found = server.request('GET', SCALERS + '/green-scaler')
    scale_down = (found['spec'].get('behavior') or {}).get('scaleDown', {})
    return (found['metadata'].get('annotations') or {}).get(HELD), scale_down.get('selectPolicy')


def test_check_mode_tells_and_writes_nothing(green):
    found = capacity(green, check=True, diff=True, replicas=4)
    assert found['changed'] and found['needed'] == 4
    assert found['diff'] == [{'before': 'Deployment green: 2 replicas, autoscaler may scale down\n',
                              'after': 'Deployment green: 4 replicas, autoscaler may not scale down\n'}]
    assert green.request('GET', APPS + '/green')['spec']['replicas'] == 2 and held(green) == (None, None)


def test_scale_hold_release_and_twice_is_once(green, tmp_path):
    journal = tmp_path / 'journal'
    assert capacity(green, replicas=4, journal=str(journal), rollout='r1')['changed']
    assert green.request('GET', APPS + '/green')['spec']['replicas'] == 4 and held(green) == ('default', 'Disabled')
    assert not capacity(green, replicas=4)['changed']
    assert capacity(green, state='checked', survivor=None, replicas=1)['candidate']['held']
    assert capacity(green, state='released', check=True)['changed'] and held(green)[1] == 'Disabled'
    assert capacity(green, state='released')['changed'] and held(green) == (None, None)
    assert not capacity(green, state='released')['changed']
    event, = (json.loads(line) for line in journal.read_text().splitlines())
    assert (event['event'], event['replicas_before'], event['replicas'], event['hold']) == ('capacity', 2, 4, True)


@pytest.mark.parametrize('behavior, after', [
    ({'scaleDown': {'selectPolicy': 'Min', 'stabilizationWindowSeconds': 60}}, 'Min'), ({'scaleUp': {'selectPolicy': 'Min'}}, 'Max'),
    ({'scaleDown': {'selectPolicy': 'Disabled'}}, 'Disabled')])
def test_what_the_user_wants_of_his_autoscaler_comes_back(green, behavior, after):
    found = green.request('GET', SCALERS + '/green-scaler')
    found['spec']['behavior'] = behavior
    before = green.request('PUT', SCALERS + '/green-scaler', found)['spec']['behavior']
    capacity(green, replicas=1)
    assert held(green)[1] == 'Disabled'
    capacity(green, state='released')
    assert held(green) == (None, after) and green.request('GET', SCALERS + '/green-scaler')['spec']['behavior'] == before


def test_a_change_that_came_between_is_kept(green, monkeypatch):
    """Somebody else writes to the autoscaler after it was read and before it is changed."""
    get, between = Api.get, []

    async def read(self, ref):
        found = await get(self, ref)
        if ref.plural == 'horizontalpodautoscalers' and not between:
            between.append(green.kubectl('annotate', 'hpa/green-scaler', 'theirs=kept'))
        return found

    monkeypatch.setattr(Api, 'get', read)
    capacity(green, replicas=3)
    annotations = green.request('GET', SCALERS + '/green-scaler')['metadata']['annotations']
    assert between and (annotations.get('theirs'), held(green)) == ('kept', ('default', 'Disabled'))


def test_who_may_not_is_told_so(green):
    with pytest.raises(Refused, match='may not get deployments'):
        capacity(green, user='someone', replicas=3)


def test_a_survivor_without_ready_pods_is_no_survivor(green):
    green.request('POST', APPS, deployment('blue', 3))
    try:
        with pytest.raises(Refused, match='Nothing was changed. Deployment "blue" has 0 ready pods and needs 3'):
            capacity(green, survivor='blue', share='50%', carries=3)
        assert green.request('GET', APPS + '/green')['spec']['replicas'] == 2
    finally:
        green.request('DELETE', APPS + '/blue')


@pytest.mark.parametrize('options, said', [
    ({}, 'give share, or replicas'), ({'share': '50%', 'survivor': 'green'}, 'they must be two'), ({'replicas': -1}, 'give 0 to 100000'),
    ({'share': '5 per cent'}, 'not understood'), ({'share': '5%', 'headroom': 0}, 'factor from 1 to 10'),
    ({'replicas': 1, 'namespace': 'A b'}, 'namespace'), ({'replicas': 1, 'candidate': 'a;b'}, 'candidate'),
    ({'replicas': 6}, 'may not go above 5 pods, but 6 are needed'), ({'replicas': 1, 'candidate': 'nobody'}, 'is not there')])
def test_bad_input_ends_in_a_sentence(green, options, said):
    with pytest.raises(BadInput, match=said):
        capacity(green, **options)
    assert green.request('GET', APPS + '/green')['spec']['replicas'] == 2


def test_without_controllers_nothing_comes_up_and_that_is_said(green):
    found = status(green)
    assert found['failed'] and (found['state'], found['reason']) == ('waiting', 'no_controller')
    assert 'no controller has taken notice' in found['msg']
    looked = status(green, wait=False)
    assert 'failed' not in looked and looked['state'] == 'waiting'


def test_what_is_not_there_is_stopped_but_not_ready(green):
    assert status(green, name='nobody', state='stopped')['state'] == 'done'
    with pytest.raises(BadInput, match='is not there'):
        status(green, name='nobody')


def test_a_wait_outlives_a_restart_of_the_api_server(green):
    server = green
    server.kubectl('scale', 'deployment/green', '--replicas=0')
    results = []
    waiter = threading.Thread(target=lambda: results.append(status(server, wait_timeout='60s', stall_grace='60s', deadline=0.3)))
    waiter.start()
    server.stop_server()
    server.start_server()
    server.request('PATCH', APPS + '/green/status', {'status': {'observedGeneration': 99}}, 'application/merge-patch+json')
    waiter.join(60)
    assert results and results[0]['state'] == 'done'


def test_no_api_server_at_all(tmp_path):
    path = tmp_path / 'kubeconfig'
    path.write_text(json.dumps({'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'x', 'users': [{'name': 'x', 'user': {}}],
                                'clusters': [{'name': 'x', 'cluster': {'server': 'http://127.0.0.1:9'}}],
                                'contexts': [{'name': 'x', 'context': {'cluster': 'x', 'user': 'x'}}]}))
    with pytest.raises(Unreachable, match='could not be asked'):
        run_status({'state': 'ready', 'replicas': 0, 'wait': True, 'wait_timeout': '1s', 'stall_grace': '5s', 'deadline': 0.5,
                    'namespace': 'default', 'kubeconfig': str(path), 'name': 'green'})
