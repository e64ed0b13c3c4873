# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The router virtualservice on istiod and an Envoy gateway: what is its own, beside what tests/contract asks of every router."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._routers.istio_deadline import HEADER
from haproxy_lab import wait_for
from kube_load import Load
from kube_routes import Routes

ECHO = '''
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('', 8080), Handler).serve_forever()
'''


@pytest.fixture(scope='module')
def namespace(cluster):
    with cluster.namespace() as name:
        for arm in ('blue', 'green'):
            cluster.arm(name, arm, '5')
        yield name


@pytest.fixture
def shop(cluster, namespace):
    host = 'shop.%s.test' % namespace
    rules = [{'name': 'api', 'match': [{'uri': {'prefix': '/api'}, 'method': {'exact': 'GET'}}, {'uri': {'prefix': '/old'}}],
              'route': [to('blue')], 'retries': {'attempts': 1}, 'headers': {'response': {'set': {'x-rule': 'api'}}}},
             {'name': 'rest', 'route': [to('blue')]}]
    cluster.apply({'apiVersion': 'networking.istio.io/v1', 'kind': 'VirtualService', 'metadata': {'name': 'shop', 'namespace': namespace},
                   'spec': {'hosts': [host], 'gateways': ['istio-system/public'], 'http': rules}})
    shop = Routes(cluster.facts, namespace, {
        'router': 'virtualservice', 'object': 'shop', 'deadline': 30,
        'admin': ['http://' + cluster.facts.addresses['istio_admin']]},
        {'blue': {'backend': 'blue'}, 'green': {'backend': 'green'}})
    shop.host, shop.port = host, cluster.port('istio')
    wait_for(lambda: seen_by(cluster, shop, 20) == {'blue'}, 'the gateway to serve blue alone', 90)
    yield shop
    shop.do(state='way_back', rollout=None)


def to(host):
    return {'destination': {'host': host, 'port': {'number': 80}}}


def seen_by(cluster, shop, count=1, headers=None):
    return {cluster.arm_of('istio', shop.host, headers) for _number in range(count)}


def in_force(cluster, shop, arm='green', headers=None):
    wait_for(lambda: cluster.arm_of('istio', shop.host, headers) == arm, 'the gateway to send somebody to ' + arm, 20)


def test_matches_lead_to_the_candidate_while_the_lease_lives_and_no_longer(cluster, shop):
    matches = [{'header': 'x-canary', 'value': 'yes', 'arm': 'green'}, {'cookie': 'seg', 'value': 'b', 'arm': 'green'}]
    shop.do(split={'green': '0%'}, stable='blue', matches=matches, lease='10s', verify='L0')
    ways = ({'x-canary': 'yes'}, {'Cookie': 'a=1; seg=b; c=2'})
    for headers in ways:
        in_force(cluster, shop, headers=headers)
    assert seen_by(cluster, shop, 5) == {'blue'} and seen_by(cluster, shop, 5, {'x-canary': 'no', 'Cookie': 'seg=bb'}) == {'blue'}
    for headers in ways:
        wait_for(lambda: seen_by(cluster, shop, 3, headers) == {'blue'}, 'the lease to end what matches do', 20)


def test_the_stamp_cannot_be_forged_and_does_not_reach_the_service(cluster, shop, namespace):
    cluster.apply(*echo(namespace, cluster.facts.service_image))
    cluster.kubectl('--namespace', namespace, 'rollout', 'status', 'deployment/echo', '--timeout=60s')
    arms = {'blue': {'backend': 'blue'}, 'echo': {'backend': 'echo'}}
    shop.do(arms=arms, split={'echo': '100%'}, stable='echo', verify='L0', force=True)
    shop.do(arms={**arms, **shop.arms}, split={'green': '50%'}, stable='echo', lease='6s', verify='L0')
    wait_for(lambda: len({cluster.arm_of('istio', shop.host) for _number in range(20)}) == 2, 'the split', 20)

    def received(**headers):
        while True:
            answer = cluster.get('istio', shop.host, headers=headers)
            if 'x-arm' not in answer.headers:
                return json.loads(answer.body)
    assert HEADER not in received() and HEADER not in received(**{HEADER: '5'})
    wait_for(lambda: seen_by(cluster, shop, 5) == {None} or seen_by(cluster, shop, 10) == {None}, 'the lease to end', 20)
    # Far below every deadline: it would be in force, were it believed.
    assert seen_by(cluster, shop, 20, {HEADER: '00000000001'}) == {None}
    shop.do(arms={**arms, **shop.arms}, split={'blue': '100%'}, stable='blue', verify='L0', force=True)


def echo(namespace, image):
    labels = {'app': 'echo'}
    metadata = {'name': 'echo', 'namespace': namespace, 'labels': labels}
    container = {'name': 'echo', 'image': image, 'imagePullPolicy': 'IfNotPresent', 'command': ['python3', '-c', ECHO],
                 'readinessProbe': {'tcpSocket': {'port': 8080}, 'periodSeconds': 1}}
    return [{'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': metadata, 'spec': {
        'selector': {'matchLabels': labels}, 'template': {'metadata': {'labels': labels}, 'spec': {
            'containers': [container], 'terminationGracePeriodSeconds': 1}}}}, {
        'apiVersion': 'v1', 'kind': 'Service', 'metadata': metadata,
        'spec': {'selector': labels, 'ports': [{'port': 80, 'targetPort': 8080}]}}]


WATCHER = '''
import asyncio, json, sys
from ansible_collections.progressive.delivery.plugins.module_utils._lease import held
lease = held(json.load(sys.stdin))
async def renew():
    while True:
        print(*(one.error or 'renewed' for one in await lease.renew()), flush=True)
        await asyncio.sleep(0.5)
asyncio.run(renew())
'''


def test_the_gateway_ends_the_split_when_who_watches_is_killed(cluster, shop):
    result = shop.do(split={'green': '50%'}, lease='10s', verify='L0')
    watcher = subprocess.Popen([sys.executable, '-c', WATCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
    try:
        watcher.stdin.write(json.dumps(result['lease']))
        watcher.stdin.close()
        with Load(shop.port, shop.host) as load:
            began = time.time()
            while time.time() < began + 12:
                assert watcher.stdout.readline() == 'renewed\n'
            assert load.arms(time.time() - 2).get('green'), 'renewed for longer than one lease'
            assert cluster.get('istio', shop.host).headers['x-rule'] == 'api', 'copies keep what the rule does'
            watcher.send_signal(signal.SIGKILL)
            killed = time.time()
            ends = killed + shop.look()['lease_left_s']
            wait_for(lambda: time.time() > ends + 1.5, 'the lease to end', 20)
        assert not load.failed
        print('killed; the lease had %.2f s; last request to the candidate %.3f s after its end' % (
            ends - killed, load.last('green') - ends))
        assert killed < load.last('green') < ends + 1
        assert load.arms(ends + 1).keys() == {'blue'}
    finally:
        watcher.kill()
        watcher.wait()
    assert shop.do(state='way_back')['changed']
