# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a gate sees of routes of a real cluster: each data plane counts what clients got, and the API tells how the pods are."""

from __future__ import annotations

import asyncio
import collections
import json
import time

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.exposition import parse
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.planes import PLANES, mended
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import build_sources
from haproxy_lab import wait_for

ARMS = {'blue': {}, 'green': {}}
REQUESTS = 60


@pytest.fixture(scope='module')
def shop(cluster):
    """A namespace with a good arm and one that fails now and then."""
    with cluster.namespace() as name:
        cluster.arm(name, 'blue', '5.0')
        cluster.arm(name, 'green', '5.1', fault='errors')
        yield name


def refs(**more):
    return [{'name': name, 'port': 80, 'weight': 50, **more} for name in ARMS]


def httproute(shop, host, gateway):
    return [{'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute', 'metadata': {'name': 'shop-' + gateway, 'namespace': shop},
             'spec': {'parentRefs': [{'name': 'public', 'namespace': gateway}], 'hostnames': [host], 'rules': [{'backendRefs': refs()}]}}]


def ingresses(shop, host):
    canary = {'nginx.ingress.kubernetes.io/canary': 'true', 'nginx.ingress.kubernetes.io/canary-weight': '50'}
    return [{'apiVersion': 'networking.k8s.io/v1', 'kind': 'Ingress', 'metadata': {'name': name, 'namespace': shop, 'annotations': marks},
             'spec': {'ingressClassName': 'nginx', 'rules': [{'host': host, 'http': {'paths': [
                 {'path': '/', 'pathType': 'Prefix', 'backend': {'service': {'name': backend, 'port': {'number': 80}}}}]}}]}}
            for name, backend, marks in (('shop', 'blue', {}), ('shop-canary', 'green', canary))]


def traefikservice(shop, host):
    return [{'apiVersion': 'traefik.io/v1alpha1', 'kind': 'TraefikService', 'metadata': {'name': 'shop', 'namespace': shop},
             'spec': {'weighted': {'services': refs()}}},
            {'apiVersion': 'traefik.io/v1alpha1', 'kind': 'IngressRoute', 'metadata': {'name': 'shop', 'namespace': shop}, 'spec': {
                'entryPoints': ['web'], 'routes': [
                    {'kind': 'Rule', 'match': 'Host(`%s`)' % host, 'services': [{'kind': 'TraefikService', 'name': 'shop'}]}]}}]


def httpproxy(shop, host):
    return [{'apiVersion': 'projectcontour.io/v1', 'kind': 'HTTPProxy', 'metadata': {'name': 'shop', 'namespace': shop}, 'spec': {
        'virtualhost': {'fqdn': host}, 'routes': [{'services': refs()}]}}]


def virtualservice(shop, host):
    return [{'apiVersion': 'networking.istio.io/v1', 'kind': 'VirtualService', 'metadata': {'name': 'shop', 'namespace': shop}, 'spec': {
        'hosts': [host], 'gateways': ['istio-system/public'],
        'http': [{'route': [{'destination': {'host': name}, 'weight': 50} for name in ARMS]}]}}]


ROUTES = {
    'httproute-traefik': ('traefik', 'traefik', lambda shop, host: httproute(shop, host, 'traefik'),
                          {'router': 'httproute', 'object': 'shop-traefik'}),
    'httproute-contour': ('contour', 'envoy', lambda shop, host: httproute(shop, host, 'projectcontour'),
                          {'router': 'httproute', 'object': 'shop-projectcontour'}),
    'ingress': ('traefik', 'traefik', ingresses, {'router': 'ingress_nginx', 'object': 'shop'}),
    'traefikservice': ('traefik', 'traefik', traefikservice, {'router': 'weights', 'kind': 'TraefikService', 'object': 'shop'}),
    'httpproxy': ('contour', 'envoy', httpproxy, {'router': 'weights', 'kind': 'HTTPProxy', 'object': 'shop'}),
    'virtualservice': ('istio', 'envoy', virtualservice, {'router': 'virtualservice', 'object': 'shop'}),
}


def endpoint(cluster, shop, plane, kind, options, metrics=None):
    return {'name': 'kube1', 'namespace': shop, 'kubeconfig': cluster.facts.kubeconfig, **options,
            'metrics': metrics or {'kind': kind, 'urls': ['http://127.0.0.1:%d' % cluster.port(plane + '_admin')]}}


def sent(cluster, plane, host, count=REQUESTS):
    """(requests, failed ones) of each arm, as clients saw them."""
    seen = collections.defaultdict(lambda: [0, 0])
    for _number in range(count):
        answer = cluster.get(plane, host)
        seen[answer.headers['x-arm']][0] += 1
        seen[answer.headers['x-arm']][1] += answer.status >= 500
    return {arm: tuple(counts) for arm, counts in seen.items()}


async def watched(source, work, complete, seconds=20.0):
    """Polls *source* before and after *work*, and then until what was seen is *complete*; returns all readings."""
    await source.open()
    try:
        readings = [await source.poll(time.monotonic())]
        result = await asyncio.get_running_loop().run_in_executor(None, work)
        end = time.monotonic() + seconds
        while not complete(readings, result) and time.monotonic() < end:
            await asyncio.sleep(0.2)
            readings.append(await source.poll(time.monotonic()))
        return readings, result
    finally:
        await source.close()


def flushed(cluster, plane, shop):
    """Whether Envoy's histograms have all that its counters have."""
    counts = collections.Counter()
    for sample in parse(mended(cluster.get(plane + '_admin', path='/stats/prometheus').body), PLANES['envoy'].names):
        name = sample.labels.get('envoy_cluster_name', '')
        if shop in name.replace('_', '-'):
            if sample.name == PLANES['envoy'].requests:
                counts[name] += sample.value
            elif sample.labels.get('le') == '+Inf':
                counts[name] -= sample.value
    return counts and not any(counts.values())


def counted(readings):
    total = collections.defaultdict(lambda: [0, 0])
    for reading in readings:
        for block in reading.blocks:
            total[block.arm][0] += block.requests
            total[block.arm][1] += block.bad
    return {arm: tuple(counts) for arm, counts in total.items() if counts[0]}


def latencies(readings):
    return sum(len(block.latencies_ms) for reading in readings for block in reading.blocks)


@pytest.mark.parametrize('name', sorted(ROUTES))
def test_a_data_plane_counts_what_clients_got(cluster, shop, name):
    plane, kind, objects, options = ROUTES[name]
    host = '%s.%s.test' % (name, shop)
    cluster.apply(*objects(shop, host))
    wait_for(lambda: cluster.arm_of(plane, host), '%s to serve %s' % (plane, host), 60)
    wait_for(lambda: {cluster.arm_of(plane, host) for _number in range(20)} == set(ARMS), '%s to split %s' % (plane, host), 60)
    if kind == 'envoy':
        wait_for(lambda: flushed(cluster, plane, shop), 'histograms of what was before', 30)
    # An arm that nothing runs of takes nothing from the others.
    source, = build_sources('shop', {**ARMS, 'spare': {}}, [endpoint(cluster, shop, plane, kind, options)], {})
    readings, wanted = asyncio.run(watched(
        source, lambda: sent(cluster, plane, host),
        lambda readings, result: counted(readings) == result and latencies(readings) == REQUESTS))
    assert counted(readings) == wanted and wanted['green'][1] and not wanted['blue'][1]
    assert latencies(readings) == REQUESTS
    assert not [error for reading in readings for error in reading.errors]
    assert readings[-1].gauges['servers_up_ratio', 'green'] == 1


def test_pods_of_a_data_plane_are_asked_through_the_api_server(cluster, shop):
    plane, kind, objects, options = ROUTES['httproute-traefik']
    host = 'proxied.%s.test' % shop
    cluster.apply(*objects(shop, host))
    wait_for(lambda: cluster.arm_of(plane, host), 'the route', 60)
    metrics = {'kind': kind, 'pods': {'namespace': 'traefik', 'labels': {'app': 'traefik'}, 'port': 8080}}
    source, = build_sources('shop', ARMS, [endpoint(cluster, shop, plane, kind, options, metrics)], {})
    readings, wanted = asyncio.run(watched(
        source, lambda: sent(cluster, plane, host, 20), lambda readings, result: counted(readings) == result))
    assert counted(readings) == wanted
    assert not [error for reading in readings for error in reading.errors]


def test_cpu_and_memory_against_limits(cluster, shop):
    plane, kind, objects, options = ROUTES['traefikservice']
    cluster.apply(*objects(shop, 'usage.%s.test' % shop))
    limits = {'name': 'service', 'resources': {'requests': {'cpu': '10m', 'memory': '32Mi'}, 'limits': {'cpu': '1', 'memory': '256Mi'}}}
    cluster.kubectl('--namespace', shop, 'patch', 'deployment', 'blue', '--type=strategic', '--patch', json.dumps(
        {'spec': {'template': {'spec': {'containers': [limits]}}}}))
    source, = build_sources('shop', ARMS, [endpoint(cluster, shop, plane, kind, options, {'kind': 'none'})], {})
    readings, _nothing = asyncio.run(watched(
        source, lambda: None, lambda readings, _result: ('memory_ratio', 'blue') in readings[-1].gauges, 150.0))
    last = readings[-1].gauges
    assert 0 < last['memory_ratio', 'blue'] < 1 and 0 <= last['cpu_ratio', 'blue'] <= 1.2, last
    assert ('memory_ratio', 'green') not in last, 'it has no limits'


def test_a_crash_loop_and_an_oom_kill_are_seen(cluster, shop):
    plane, kind, objects, options = ROUTES['traefikservice']
    cluster.apply(*objects(shop, 'pods.%s.test' % shop))
    source, = build_sources('shop', ARMS, [endpoint(cluster, shop, plane, kind, options, {'kind': 'none'})], {})

    def break_it():
        greedy = 'import time; time.sleep(1); kept = bytearray(10 ** 9); time.sleep(60)'
        cluster.kubectl('--namespace', shop, 'patch', 'deployment', 'green', '--type=strategic', '--patch', json.dumps({'spec': {
            'strategy': {'type': 'Recreate', 'rollingUpdate': None}, 'template': {'spec': {'containers': [{
                'name': 'service', 'command': ['python3', '-c', greedy], 'args': [],
                'resources': {'limits': {'memory': '64Mi', 'cpu': '1'}}}]}}}}))

    def broken(readings, _result):
        last = readings[-1].gauges
        return last.get(('oom_kills', 'green'), 0) >= 1 and last.get(('restarts', 'green'), 0) >= 1 and any(
            reading.gauges.get(('crash_loops', 'green')) for reading in readings)

    readings, _nothing = asyncio.run(watched(source, break_it, broken, 90.0))
    last = readings[-1].gauges
    assert readings[0].gauges['restarts', 'green'] == 0
    assert last['oom_kills', 'green'] >= 1 and last['restarts', 'green'] >= 1 and last['oom_kills', 'blue'] == 0
    assert any(reading.gauges.get(('ready_ratio', 'green')) == 0 for reading in readings)
    assert last['ready_ratio', 'blue'] == 1
