# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""traffic_weight on routes that keep weights in a list, with the data planes that serve them: Traefik and Contour's Envoy."""

from __future__ import annotations

import asyncio
import http.client
import math
import time

import pytest
from cluster_lab import Cluster
from haproxy_lab import wait_for
from kube_load import Load
from traffic_lab import validated

from ansible_collections.progressive.delivery.plugins.module_utils import _lease
from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run
from ansible_collections.progressive.delivery.plugins.module_utils._traffic_info import INFO_SPEC, run_info

ARMS = {'blue': {}, 'canary': {}, 'green': {}}
SERVICES = [{'name': 'blue', 'port': 80}]
RATE = 100
LEASE = '900s'


@pytest.fixture(scope='module')
def cluster():
    return Cluster()


@pytest.fixture(scope='module')
def namespace(cluster):
    with cluster.namespace() as name:
        for arm, version in (('blue', '5.0'), ('canary', '5.1'), ('green', '5.1')):
            cluster.arm(name, arm, version, ready=False)
        for arm in ARMS:
            cluster.kubectl('--namespace', name, 'rollout', 'status', 'deployment/' + arm, '--timeout=300s')
        yield name


def httproute(gateway):
    return lambda name, host: ({
        'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute', 'metadata': {'name': name}, 'spec': {
            'parentRefs': [{'name': 'public', 'namespace': gateway}], 'hostnames': [host], 'rules': [{'backendRefs': SERVICES}]}},)


def httpproxy(name, host):
    return ({'apiVersion': 'projectcontour.io/v1', 'kind': 'HTTPProxy', 'metadata': {'name': name}, 'spec': {
        'virtualhost': {'fqdn': host}, 'routes': [{'services': SERVICES}]}},)


def traefikservice(name, host):
    return ({'apiVersion': 'traefik.io/v1alpha1', 'kind': 'TraefikService', 'metadata': {'name': name}, 'spec': {
        'weighted': {'services': SERVICES}}},
        {'apiVersion': 'traefik.io/v1alpha1', 'kind': 'IngressRoute', 'metadata': {'name': name}, 'spec': {
            'entryPoints': ['web'], 'routes': [
                {'kind': 'Rule', 'match': 'Host(`%s`)' % host, 'services': [{'kind': 'TraefikService', 'name': name}]}]}})


PLANES = {
    'httproute-traefik': ('traefik', 'httproute', 'HTTPRoute', httproute('traefik')),
    'httproute-contour': ('contour', 'httproute', 'HTTPRoute', httproute('projectcontour')),
    'traefikservice': ('traefik', 'weights', 'TraefikService', traefikservice),
    'httpproxy': ('contour', 'weights', 'HTTPProxy', httpproxy),
}


class Edge:
    """A route of its own for each test; ``do`` runs traffic_weight."""

    def __init__(self, cluster, namespace, which, name):
        self.cluster, self.namespace, self.name = cluster, namespace, name
        self.plane, self.router, self.kind, make = PLANES[which]
        self.host = '%s.%s.test' % (name, namespace)
        cluster.apply(*({**one, 'metadata': {**one['metadata'], 'namespace': namespace}} for one in make(name, self.host)))
        wait_for(lambda: cluster.arm_of(self.plane, self.host), '%s to serve %s' % (self.plane, self.host), 60)

    def options(self, **options):
        endpoint = {'name': 'edge', 'router': self.router, 'kind': self.kind, 'kubeconfig': self.cluster.facts.kubeconfig,
                    'namespace': self.namespace, 'object': self.name, 'lease_image': self.cluster.facts.service_image, 'deadline': 60}
        return {'service': 'shop', 'arms': ARMS, 'endpoints': [endpoint], **options}

    def do(self, **options):
        return asyncio.run(run(validated(TRAFFIC_SPEC, self.options(**{'rollout': 'r1', 'verify_timeout': '60s', **options})), False))

    def look(self):
        return asyncio.run(run_info(validated(INFO_SPEC, self.options())))['endpoints'][0]

    def tally(self, count, headers=None):
        """Who answers *count* requests, over one connection."""
        connection = http.client.HTTPConnection('127.0.0.1', self.cluster.port(self.plane), timeout=30)
        seen = []
        for _n in range(count):
            connection.request('GET', '/api/x', headers={'Host': self.host, **(headers or {})})
            answer = connection.getresponse()
            answer.read()
            seen.append(answer.headers.get('x-arm') or answer.status)
        connection.close()
        return {arm: seen.count(arm) for arm in set(seen)}

    def load(self):
        return Load(self.cluster.port(self.plane), self.host, RATE)

    def settled(self, *arms):
        wait_for(lambda: set(self.tally(16)) == set(arms), 'requests to reach ' + ' and '.join(arms), 60)


@pytest.fixture(params=sorted(PLANES))
def edge(request, cluster, namespace):
    return Edge(cluster, namespace, request.param, 'e%d' % time.monotonic_ns())


def test_shares_reach_the_traffic_and_go_back(edge):
    edge.do(split={'canary': '20%'}, stable='blue', lease=LEASE)
    edge.settled('blue', 'canary')
    seen = edge.tally(400)
    assert set(seen) == {'blue', 'canary'} and abs(seen['canary'] - 80) < 4 * math.sqrt(400 * 0.2 * 0.8), seen
    edge.do(split={'canary': '1%', 'green': '50%'}, stable='blue', lease=LEASE)
    wait_for(lambda: 'green' in edge.tally(16), 'the third arm', 60)
    edge.do(state='way_back')
    edge.settled('blue')
    assert edge.look()['rollout'] is None
    jobs = edge.cluster.kubectl('--namespace', edge.namespace, 'get', 'jobs,leases,roles', '-o', 'name',
                                '-l', 'app.kubernetes.io/managed-by=progressive.delivery')
    assert jobs == ''


def test_twenty_changes_lose_no_request(edge):
    with edge.load() as load:
        edge.do(split={'canary': '50%'}, stable='blue', lease=LEASE)
        for number in range(20):
            edge.do(split={'canary': '%d%%' % (90 - 80 * (number % 2))}, stable='blue', lease=LEASE)
        edge.do(split={'green': '100%'})
        wait_for(lambda: time.time() - load.last('blue') > 1, 'blue to get nothing any more', 60)
        edge.do(state='way_back')
        wait_for(lambda: time.time() - load.last('green') > 1, 'green to get nothing any more', 60)
    assert not load.failed, load.failed[:5]
    assert load.count() > 500


def test_nobody_renews_and_the_cluster_takes_the_traffic_back(edge):
    held = _lease.held(edge.do(split={'canary': '50%'}, stable='blue', lease='10s')['lease'])
    with edge.load() as load:
        wait_for(lambda: load.last('canary') > 0, 'the canary to get requests', 60)
        for _n in range(3):
            (renewed,) = asyncio.run(held.renew())
            assert renewed.ok, renewed
            wait_for(lambda: held.left() < 9, 'a gate\'s interval')
        end = time.time() + renewed.left_s
        wait_for(lambda: time.time() - max(end, load.last('canary')) > 2, 'the traffic to be back', 90)
    assert not load.failed
    assert 'ran out' in ' '.join(edge.look()['notes'])
    print('lease over, last candidate answer after %.2f s' % (load.last('canary') - end))


@pytest.mark.parametrize('which', ['httproute-traefik', 'httproute-contour'])
def test_headers_and_cookies_lead_to_the_candidate(cluster, namespace, which):
    edge = Edge(cluster, namespace, which, 'm%d' % time.monotonic_ns())
    edge.do(split={'canary': '0%'}, stable='blue', lease=LEASE, verify='L1', matches=[
        {'header': 'x-canary', 'value': 'yes', 'arm': 'canary'}, {'cookie': 'group', 'value': 'b.1', 'arm': 'canary'}])
    wait_for(lambda: edge.tally(1, {'x-canary': 'yes'}) == {'canary': 1}, 'the match', 60)
    for headers in ({'x-canary': 'yes'}, {'cookie': 'group=b.1'}, {'cookie': 'a=1; group=b.1; c=2'}):
        assert edge.tally(10, headers) == {'canary': 10}, headers
    for headers in (None, {'x-canary': 'no'}, {'cookie': 'group=bx1'}, {'cookie': 'xgroup=b.1'}, {'cookie': 'group=b.12'}):
        assert edge.tally(10, headers) == {'blue': 10}, headers
    edge.do(state='way_back')
    wait_for(lambda: edge.tally(1, {'x-canary': 'yes'}) == {'blue': 1}, 'the match to be gone', 60)
