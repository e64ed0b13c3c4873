# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way back on the data planes of `make cluster`: from the verdict to the last request that the candidate gets, under light load.

    .venv/bin/python tests/bench/bench_kube_rollback.py [rounds, default 20] [one or more of PLANES, default all]

The watcher that has the verdict holds the lease, as a gate does. Prints milliseconds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / '.collections'), str(ROOT / 'tests')]

from ansible_collections.progressive.delivery.plugins.module_utils._lease import held  # noqa: E402
from cluster_lab import Cluster  # noqa: E402
from haproxy_lab import wait_for  # noqa: E402
from kube_load import Load  # noqa: E402
from kube_routes import Routes  # noqa: E402

ARMS = {'blue': {'backend': 'blue'}, 'green': {'backend': 'green'}}
RATE = 200


def virtualservice(namespace, host):
    return {'apiVersion': 'networking.istio.io/v1', 'kind': 'VirtualService', 'metadata': {'name': 'shop', 'namespace': namespace},
            'spec': {'hosts': [host], 'gateways': ['istio-system/public'], 'http': [
                {'route': [{'destination': {'host': 'blue', 'port': {'number': 80}}}]}]}}


def ingress_nginx(namespace, host):
    return {'apiVersion': 'networking.k8s.io/v1', 'kind': 'Ingress', 'metadata': {'name': 'shop', 'namespace': namespace}, 'spec': {
        'ingressClassName': 'nginx', 'rules': [{'host': host, 'http': {'paths': [
            {'path': '/', 'pathType': 'Prefix', 'backend': {'service': {'name': 'blue', 'port': {'number': 80}}}}]}}]}}


def httproute(gateway):
    return lambda namespace, host: {
        'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute', 'metadata': {'name': gateway, 'namespace': namespace}, 'spec': {
            'parentRefs': [{'name': 'public', 'namespace': gateway}], 'hostnames': [host],
            'rules': [{'backendRefs': [{'name': 'blue', 'port': 80}]}]}}


def httpproxy(namespace, host):
    return {'apiVersion': 'projectcontour.io/v1', 'kind': 'HTTPProxy', 'metadata': {'name': 'shop', 'namespace': namespace}, 'spec': {
        'virtualhost': {'fqdn': host}, 'routes': [{'services': [{'name': 'blue', 'port': 80}]}]}}


PLANES = {
    'virtualservice': (virtualservice, 'istio', {'router': 'virtualservice', 'admin': 'istio_admin'}),
    'ingress_nginx': (ingress_nginx, 'traefik', {'router': 'ingress_nginx', 'admin': 'traefik_admin'}),
    'httproute-traefik': (httproute('traefik'), 'traefik', {'router': 'httproute', 'object': 'traefik'}),
    'httproute-contour': (httproute('projectcontour'), 'contour', {'router': 'httproute', 'object': 'projectcontour'}),
    'httpproxy': (httpproxy, 'contour', {'router': 'weights', 'kind': 'HTTPProxy'}),
}


def measure(cluster, namespace, router, rounds):
    """Returns, for each round, seconds from the verdict to the last request sent to the candidate, and to the answer of the API server;
    and how many requests failed."""
    made, plane, options = PLANES[router]
    host = '%s.%s.test' % (router.replace('_', '-'), namespace)
    cluster.apply(made(namespace, host))
    shop = Routes(cluster.facts, namespace, {
        'object': 'shop', 'lease_image': cluster.facts.service_image, **options,
        **({'admin': ['http://' + cluster.facts.addresses[options['admin']]]} if 'admin' in options else {})}, ARMS)
    wait_for(lambda: cluster.arm_of(plane, host) == 'blue', plane + ' to serve', 30)
    lasts, answers, failed = [], [], 0
    for number in range(rounds):
        result = shop.do(split={'green': '50%'}, lease='60s', rollout='bench%d' % number)
        with Load(cluster.port(plane), host, RATE) as load:
            wait_for(lambda: load.arms().get('green', 0) > 20, 'the candidate to be asked', 20)
            lease = held(result['lease'])
            verdict = time.time()
            back, = asyncio.run(lease.way_back('bench'))
            answers.append(time.time() - verdict)
            assert back.ok, back.error
            wait_for(lambda: load.arms(time.time() - 1).keys() == {'blue'}, 'the way back', 60)
        lasts.append(load.last('green') - verdict)
        failed += len(load.failed)
    return lasts, answers, failed


def told(seconds):
    return 'median %4.0f, worst %4.0f ms' % (statistics.median(seconds) * 1000, max(seconds) * 1000)


def main(rounds, routers):
    cluster = Cluster()
    with cluster.namespace() as namespace:
        for arm in ARMS:
            cluster.arm(namespace, arm, '5', replicas=2)
        for router in routers:
            lasts, answers, failed = measure(cluster, namespace, router, rounds)
            print('%-17s %d ways back at %d requests/s: the last request to the candidate after %s; written and read back after %s; '
                  'failed requests: %d' % (router, rounds, RATE, told(lasts), told(answers), failed))


if __name__ == '__main__':
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, sys.argv[2:] or list(PLANES))
