# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stage in the shadow; and why a RequestMirror is not asked of every gateway: what comes of it where it is written all the same."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'e2e'))

from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run
from cluster_lab import Cluster
from e2e_lab import lab_of_its_own
from haproxy_lab import wait_for
from kube_load import ask
from traffic_lab import validated

ARMS = {'blue': {'backend': 'blue'}, 'canary': {'backend': 'canary'}}


@pytest.fixture(scope='module')
def cluster():
    return Cluster()


@pytest.fixture(scope='module')
def shop(cluster):
    with cluster.namespace() as name:
        for arm in ARMS:
            cluster.arm(name, arm, '5')
        yield name


def move(cluster, namespace, gateway, host, **options):
    """Runs traffic_weight on a route of its own for *host*."""
    cluster.apply({'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute', 'metadata': {'name': gateway, 'namespace': namespace},
                   'spec': {'parentRefs': [{'name': 'public', 'namespace': gateway}], 'hostnames': [host],
                            'rules': [{'backendRefs': [{'name': 'blue', 'port': 80}]}]}})
    endpoint = {'name': 'edge', 'router': 'httproute', 'namespace': namespace, 'object': gateway, 'kubeconfig': cluster.facts.kubeconfig,
                'lease_image': cluster.facts.service_image, 'deadline': 60, 'mirror': True}
    return asyncio.run(run(validated(TRAFFIC_SPEC, {
        'service': 'shop', 'arms': ARMS, 'endpoints': [endpoint], 'rollout': 'r1', 'by': 'me', 'verify_timeout': '60s', **options}), False))


COPIES = {'split': {'canary': '0%'}, 'stable': 'blue', 'lease': '600s', 'mirror': {'arm': 'canary', 'share': '10%'}}


def test_contour_copies_all_requests_whatever_share_is_asked_for(cluster, shop):
    host = 'contour.%s.test' % shop
    move(cluster, shop, 'projectcontour', host, **COPIES)

    def worked():
        pod = cluster.kubectl('--namespace', shop, 'get', 'pods', '--selector=arm=canary', '--output=jsonpath={.items[0].metadata.name}')
        text = cluster.kubectl('get', '--raw', '/api/v1/namespaces/%s/pods/%s:8080/proxy/metrics' % (shop, pod))
        return sum(map(int, re.findall(r'^http_requests_total\{.*\} (\d+)$', text, re.M)))

    wait_for(lambda: ask(cluster.port('contour'), host, [{}] * 10, path='/api/x') == ['blue'] * 10 and worked(), 'copies to arrive', 60)
    before = worked()
    assert ask(cluster.port('contour'), host, [{}] * 200, path='/api/x') == ['blue'] * 200
    wait_for(lambda: worked() - before >= 200, 'a copy of each', 20)


def test_traefik_answers_with_an_error(cluster, shop):
    host = 'traefik.%s.test' % shop
    move(cluster, shop, 'traefik', host, split={'blue': '100%'})
    wait_for(lambda: ask(cluster.port('traefik'), host, [{}] * 10) == ['blue'] * 10, 'the route', 60)
    move(cluster, shop, 'traefik', host, **COPIES)
    wait_for(lambda: ask(cluster.port('traefik'), host, [{}] * 10) == ['500'] * 10, 'what comes of it', 60)
    move(cluster, shop, 'traefik', host, state='way_back')
    wait_for(lambda: ask(cluster.port('traefik'), host, [{}] * 10) == ['blue'] * 10, 'the way back', 60)


@pytest.fixture
def lab():
    with lab_of_its_own('virtualservice') as made:
        yield made


def test_a_bad_version_is_found_in_the_shadow_and_no_user_meets_it(lab):
    stages = json.dumps({'delivery_canary_stages': [{'share': '0%', 'mirror': '20%', 'bake': '30s'}],
                         'delivery_blue_green_stages': [{'share': '100%', 'bake': '5s'}]})
    done = lab.run(*lab.command('run', '--fresh', '--rate', '100', '--duration', '300', '--', *lab.playbook(
        'rollout.yml', '-e', 'delivery_version=5.1', '-e', 'lab_candidate=errors', '-e', stages)), timeout=600)
    result = json.loads((lab.dir / 'result.json').read_text())
    assert done.returncode != 0 and result['outcome'] == 'rolled_back', done.stdout + done.stderr
    assert 'canary' in result['reason'] and 'requests failed' in result['reason']
    assert (result['failed'], list(result['versions'])) == (0, ['5.0'])
