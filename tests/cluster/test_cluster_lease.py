# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lease of a route object as a real Job, in a namespace that lets nothing run but pods of the restricted profile."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._errors import Refused
from ansible_collections.progressive.delivery.plugins.module_utils._kube import client, deadman
from ansible_collections.progressive.delivery.plugins.module_utils._kube.deadman import DeadmanSpec
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Ref
from haproxy_lab import wait_for


@pytest.fixture
def spec(cluster):
    """A route of a namespace of its own; only its annotation says whose it is, so it needs no data plane."""
    with cluster.namespace() as name:
        arms = [{'name': arm, 'port': 80, 'weight': weight} for arm, weight in (('blue', 80), ('green', 20))]
        cluster.kubectl('label', 'namespace', name, 'pod-security.kubernetes.io/enforce=restricted')
        cluster.apply({'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute', 'metadata': {
            'name': 'shop', 'namespace': name, 'annotations': {'progressive.delivery/shop': '{"rollout":"r1"}'}},
            'spec': {'rules': [{'backendRefs': arms}]}})
        route = Ref('gateway.networking.k8s.io', 'v1', 'httproutes', name, 'shop')
        yield DeadmanSpec(
            service='shop', endpoint='kube1', rollout='r1', resource=route, lease_s=3, image=cluster.facts.service_image, ready_s=60,
            way_back=({'method': 'PATCH', 'path': route.path, 'content_type': 'application/json-patch+json', 'body': [
                {'op': 'replace', 'path': '/spec/rules/0/backendRefs/1/weight', 'value': 0}]},))


@pytest.fixture
def api(cluster):
    return client.connect(cluster.facts.kubeconfig, None, 5)


def share(api, spec):
    route = asyncio.run(api.get(spec.resource))
    return route['spec']['rules'][0]['backendRefs'][1]['weight']


def left_over(cluster, spec):
    return cluster.kubectl('--namespace', spec.resource.namespace, 'get', 'jobs,roles,rolebindings,leases', '--output=name').split()


def test_nobody_renews(cluster, api, spec):
    began = time.monotonic()
    asyncio.run(deadman.arm(api, spec))
    armed = time.monotonic()
    wait_for(lambda: share(api, spec) == 0, 'the way back', 30)
    print('armed in %.1f s; back %.2f s after that, with a lease of 3 s' % (armed - began, time.monotonic() - armed))
    wait_for(lambda: 'returned' in asyncio.run(deadman.seen(api, spec.names))[1], 'the note of the Job', 10)
    namespace = spec.resource.namespace
    cluster.kubectl('--namespace', namespace, 'wait', '--for=condition=Complete', 'job/' + spec.names.job, '--timeout=20s')


def test_renewed_and_released(cluster, api, spec):
    asyncio.run(deadman.arm(api, spec))
    for _renewal in range(5):
        assert asyncio.run(deadman.renew(api, spec.names, 3)) > 2
        time.sleep(1)
    asyncio.run(deadman.release(api, spec.names))
    assert left_over(cluster, spec) == []
    assert share(api, spec) == 20


def test_another_pod_takes_over(cluster, api, spec):
    asyncio.run(deadman.arm(api, replace(spec, lease_s=20)))
    cluster.kubectl('--namespace', spec.resource.namespace, 'delete', 'pods', '--all', '--wait=true', '--grace-period=1')
    asyncio.run(deadman.renew(api, spec.names, 3))
    wait_for(lambda: share(api, spec) == 0, 'the way back', 60)


@pytest.mark.parametrize(('more', 'words'), [
    ({'image': 'progressive.delivery/absent:none', 'pull_policy': 'Never'}, 'has an image that cannot be had.*ErrImageNeverPull'),
    ({'python': 'python-that-is-not-there'}, 'does not run .*python-that-is-not-there'),
    ({'node_selector': {'no': 'such-node'}, 'ready_s': 3}, 'not ready within 3 s: it cannot be scheduled: .*node'),
    ({'user': 0}, 'does not run|gets no pod'),
])
def test_a_job_that_does_not_start(cluster, api, spec, more, words):
    with pytest.raises(Refused, match='not safe, so nothing was moved.*(%s)' % words) as caught:
        asyncio.run(deadman.arm(api, replace(spec, **more)))
    print(caught.value)
    assert left_over(cluster, spec) == []


def test_a_quota_that_is_used_up(cluster, api, spec):
    cluster.apply({'apiVersion': 'v1', 'kind': 'ResourceQuota', 'metadata': {'name': 'none', 'namespace': spec.resource.namespace},
                   'spec': {'hard': {'pods': '0'}}})
    with pytest.raises(Refused, match='gets no pod: .*exceeded quota') as caught:
        asyncio.run(deadman.arm(api, spec))
    print(caught.value)
    assert left_over(cluster, spec) == []
