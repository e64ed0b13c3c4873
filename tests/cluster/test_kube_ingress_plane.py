# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The routers ingress_nginx and replicas behind Traefik: what is their own, beside what tests/contract asks of every router."""

from __future__ import annotations

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._routers.evidence import contradiction
from ansible_collections.progressive.delivery.plugins.module_utils._split import Split
from haproxy_lab import wait_for
from kube_load import Load
from kube_routes import Routes
from traffic_lab import sentence

ARMS = {arm: {'backend': arm, 'labels': {'arm': arm}, 'deployment': arm} for arm in ('blue', 'green')}


@pytest.fixture(scope='module')
def namespace(cluster):
    with cluster.namespace() as name:
        for arm in ARMS:
            cluster.arm(name, arm, '5')
        yield name


def ingress(namespace, name, host, service):
    return {'apiVersion': 'networking.k8s.io/v1', 'kind': 'Ingress', 'metadata': {'name': name, 'namespace': namespace}, 'spec': {
        'ingressClassName': 'nginx', 'rules': [{'host': host, 'http': {'paths': [
            {'path': '/', 'pathType': 'Prefix', 'backend': {'service': {'name': service, 'port': {'number': 80}}}}]}}]}}


@pytest.fixture
def routed(cluster, namespace):
    """A function that makes a router's object *name*, reached through Traefik by a host of its own."""
    made = []

    def make(router, name, **more):
        shop = Routes(cluster.facts, namespace, {
            'router': router, 'object': name, 'lease_image': cluster.facts.service_image, 'deadline': 30, **more}, ARMS)
        shop.host, shop.port = '%s.%s.test' % (name, namespace), cluster.port('traefik')
        made.append(shop)
        return shop
    yield make
    for shop in made:
        shop.do(state='way_back', rollout=None)


@pytest.fixture
def canary(cluster, namespace, routed):
    cluster.apply(ingress(namespace, 'canary', 'canary.%s.test' % namespace, 'blue'))
    shop = routed('ingress_nginx', 'canary', admin=['http://' + cluster.facts.addresses['traefik_admin']])
    wait_for(lambda: seen_by(cluster, shop, 10) == {'blue'}, 'Traefik to serve blue alone', 90)
    return shop


def seen_by(cluster, shop, count=1, headers=None):
    return {cluster.arm_of('traefik', shop.host, headers) for _number in range(count)}


def test_what_the_data_plane_does_not_take_is_put_back(cluster, canary):
    cluster.kubectl('--namespace', canary.namespace, 'patch', 'ingress', 'canary', '--type=merge', '--patch',
                    '{"spec":{"ingressClassName":"nobody"}}')
    said = sentence(lambda: canary.do(split={'green': '20%'}, lease='60s', verify_timeout='3s'))
    assert 'is not in force everywhere: http://' in said and 'it has no router' in said
    assert 'canary-canary' not in cluster.kubectl('--namespace', canary.namespace, 'get', 'ingress', '--output=name')
    cluster.apply(ingress(canary.namespace, 'canary', canary.host, 'blue'))


@pytest.fixture
def three(cluster, namespace):
    """Three pods of blue and none of green, for the time of a test."""
    def scale(**counts):
        for arm, count in counts.items():
            cluster.kubectl('--namespace', namespace, 'scale', 'deployment', arm, '--replicas=%d' % count)
            cluster.kubectl('--namespace', namespace, 'rollout', 'status', 'deployment/' + arm, '--timeout=120s')
    scale(blue=3, green=0)
    yield
    scale(blue=1, green=1)


def test_shares_by_replicas(cluster, namespace, three, routed):
    cluster.apply(
        {'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': 'counted', 'namespace': namespace},
         'spec': {'selector': {'app': 'shop'}, 'ports': [{'port': 80, 'targetPort': 8080}]}},
        ingress(namespace, 'counted', 'counted.%s.test' % namespace, 'counted'))
    shop = routed('replicas', 'counted', deadline=60)
    wait_for(lambda: seen_by(cluster, shop, 10) == {'blue'}, 'Traefik to serve blue alone', 60)
    shop.do(split={'green': '25%'}, lease='120s', verify='L1', verify_timeout='60s')
    wait_for(lambda: 'green' in seen_by(cluster, shop, 8), 'the new pod', 60)
    with Load(shop.port, shop.host) as load:
        wait_for(lambda: load.count() > 200, '200 answers', 60)
    assert not load.failed
    assert contradiction(Split((('green', 2500), ('blue', 7500))), load.arms()) is None, load.arms()
    assert shop.do(state='way_back')['stable'] == 'blue'
    wait_for(lambda: seen_by(cluster, shop, 10) == {'blue'}, 'the way back', 60)
