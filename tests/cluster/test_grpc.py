# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GRPCRoutes under gRPC traffic, through Contour and Traefik."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import time
import zipfile
from pathlib import Path

import grpc_service
import h2
import hpack
import hyperframe
import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run
from cluster_lab import PORT, Cluster
from grpc_load import GrpcLoad
from haproxy_lab import wait_for
from traffic_lab import validated

ARMS = {'blue': {'backend': 'blue'}, 'canary': {'backend': 'canary'}}
COUNT = 1500
PLANES = {'contour': 'projectcontour', 'traefik': 'traefik'}


def packages() -> str:
    """The pure-Python packages of HTTP/2, as one archive that Python imports from."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as into:
        for package in (h2, hpack, hyperframe):
            folder = Path(package.__file__).parent
            for source in sorted(folder.rglob('*.py')):
                into.write(source, str(source.relative_to(folder.parent)))
    return base64.b64encode(archive.getvalue()).decode()


def arm(name: str, image: str) -> list[dict]:
    """A gRPC server and its Service."""
    labels = {'app': 'orders', 'arm': name}
    container = {
        'name': 'server', 'image': image, 'imagePullPolicy': 'IfNotPresent', 'ports': [{'containerPort': PORT}],
        'command': ['python3', '/grpc/server.py', name, str(PORT)], 'env': [{'name': 'PYTHONPATH', 'value': '/grpc/packages.zip'}],
        'readinessProbe': {'tcpSocket': {'port': PORT}, 'periodSeconds': 1}, 'volumeMounts': [{'name': 'grpc', 'mountPath': '/grpc'}]}
    return [
        {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': {'name': name, 'labels': labels}, 'spec': {
            'selector': {'matchLabels': labels}, 'template': {'metadata': {'labels': labels}, 'spec': {
                'containers': [container], 'terminationGracePeriodSeconds': 5,
                'volumes': [{'name': 'grpc', 'configMap': {'name': 'grpc'}}]}}}},
        {'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': name}, 'spec': {
            'selector': labels, 'ports': [{'name': 'grpc', 'port': 80, 'targetPort': PORT, 'appProtocol': 'kubernetes.io/h2c'}]}}]


@pytest.fixture(scope='module')
def cluster():
    return Cluster()


@pytest.fixture(scope='module')
def orders(cluster):
    with cluster.namespace() as namespace:
        objects = [{'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': 'grpc'}, 'binaryData': {'packages.zip': packages()},
                    'data': {'server.py': Path(grpc_service.__file__).read_text()}}]
        objects += [one for name in ARMS for one in arm(name, cluster.facts.service_image)]
        objects += [{'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'GRPCRoute', 'metadata': {'name': gateway}, 'spec': {
            'parentRefs': [{'name': 'public', 'namespace': gateway}], 'hostnames': ['%s.%s.test' % (gateway, namespace)],
            'rules': [{'backendRefs': [{'name': 'blue', 'port': 80}]}]}} for gateway in PLANES.values()]
        cluster.apply(*({**one, 'metadata': {**one['metadata'], 'namespace': namespace}} for one in objects))
        for name in ARMS:
            cluster.kubectl('--namespace', namespace, 'rollout', 'status', 'deployment/' + name, '--timeout=120s')
        yield namespace


def move(cluster, namespace, gateway, **options):
    endpoint = {'name': 'edge', 'router': 'httproute', 'kind': 'GRPCRoute', 'namespace': namespace, 'object': gateway, 'deadline': 60,
                'kubeconfig': cluster.facts.kubeconfig, 'lease_image': cluster.facts.service_image}
    return asyncio.run(run(validated(TRAFFIC_SPEC, {
        'service': 'orders', 'arms': ARMS, 'endpoints': [endpoint], 'rollout': 'r1', 'by': 'me', 'verify_timeout': '60s',
        **options}), False))


@pytest.mark.parametrize('plane', sorted(PLANES))
def test_calls_are_shared_and_come_back_and_none_is_lost(cluster, orders, plane):
    gateway = PLANES[plane]
    host, port = '%s.%s.test' % (gateway, orders), cluster.port(plane)

    def served():
        with GrpcLoad(port, host) as one:
            wait_for(lambda: one.count() >= 20, 'calls', 60)
        return not one.failed and set(one.arms()) == {'blue'}
    wait_for(served, 'the route to be served', 90)

    with GrpcLoad(port, host) as load:
        result = move(cluster, orders, gateway, split={'canary': '20%'}, stable='blue', lease='600s')
        assert result['endpoints'][0]['evidence']['level'] == 'L1'
        moved = time.time()
        wait_for(lambda: load.arms(moved).get('canary', 0) > 5, 'the canary to be called', 60)
        since = time.time()
        wait_for(lambda: sum(load.arms(since).values()) >= COUNT, 'calls', 90)
        seen = load.arms(since)
        result = move(cluster, orders, gateway, state='way_back')
        assert result['changed'] and result['stable'] == 'blue'
        wait_for(lambda: load.arms(time.time() - 0.5).keys() == {'blue'}, 'the way back', 60)
        back = time.time()
        wait_for(lambda: sum(load.arms(back).values()) > 200, 'calls', 60)
        assert load.arms(back).keys() == {'blue'}
    count = sum(seen.values())
    off = abs(seen['canary'] - 0.2 * count) / math.sqrt(count * 0.2 * 0.8)
    print('%s: %d of %d calls at 20 %%: %.1f standard errors off; %d of %d lost' % (
        plane, seen['canary'], count, off, len(load.failed), load.count()))
    assert off < 4 and not load.failed, load.failed[:3]
