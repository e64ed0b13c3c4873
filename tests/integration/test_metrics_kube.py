# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One gate over HAProxy and a route of a cluster: a real HAProxy, a real Traefik as a plain process, a real API server without nodes.

Traefik's routes come from a file, because what nodes would report lies in the API by the test's own hand; the names that it makes of
objects are tested on the cluster (tests/cluster/test_cluster_metrics.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import _gate
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Reading
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import build_sources
from gate_lab import ARMS, ERRORS, LATENCY, SERVERS, GateLab, Load
from haproxy_lab import Origin, free_port, get, wait_for
from kube_api import KubeApi, programs

NAMES = {'blue': ['blue@file'], 'canary': ['canary@file']}
OOM = {'name': 'oom', 'metric': 'oom_kills', 'abort_above': 0}


@pytest.fixture(scope='module')
def api() -> t.Iterator[KubeApi]:
    with KubeApi() as cluster:
        cluster.definitions('gateway-api')
        yield cluster


class Route:
    """An HTTPRoute, the Services and pods of its arms, and a Traefik that shares the traffic of *port* evenly."""

    def __init__(self, api: KubeApi, directory: Path) -> None:
        self.api, self._dir, self._stack = api, directory, contextlib.ExitStack()
        self.port, self.admin = free_port(), free_port()
        self.namespace = 'pd-' + os.urandom(4).hex()

    def __enter__(self) -> 'Route':
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        self.origins = {arm: self._stack.enter_context(Origin(arm)) for arm in NAMES}
        self._objects()
        config = self._dir / 'routes.yaml'
        services: dict[str, t.Any] = {
            arm: {'loadBalancer': {'servers': [{'url': 'http://127.0.0.1:%d' % origin.port}]}} for arm, origin in self.origins.items()}
        services['shop'] = {'weighted': {'services': [{'name': arm, 'weight': 1} for arm in NAMES]}}
        config.write_text(json.dumps({'http': {'routers': {'shop': {'rule': 'PathPrefix(`/`)', 'service': 'shop'}}, 'services': services}}))
        with open(self._dir / 'traefik.log', 'wb') as log:
            process = subprocess.Popen([
                str(programs('traefik')[0]), '--entrypoints.web.address=127.0.0.1:%d' % self.port,
                '--entrypoints.admin.address=127.0.0.1:%d' % self.admin, '--metrics.prometheus.entrypoint=admin',
                '--metrics.prometheus=true', '--providers.file.filename=%s' % config, '--global.checknewversion=false',
                '--global.sendanonymoususage=false'], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._dir)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        wait_for(self._serves, 'Traefik', 60)

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _serves(self) -> bool:
        with contextlib.suppress(OSError):
            return get(self.port).status == 200
        return False

    def _objects(self) -> None:
        self.api.request('POST', '/api/v1/namespaces', {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': self.namespace}})
        self.api.request('POST', '/apis/gateway.networking.k8s.io/v1/namespaces/%s/httproutes' % self.namespace, {
            'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute', 'metadata': {'name': 'shop'},
            'spec': {'rules': [{'backendRefs': [{'name': 'shop-' + arm, 'port': 80, 'weight': 50} for arm in NAMES]}]}})
        for arm in NAMES:
            self.api.request('POST', '/api/v1/namespaces/%s/services' % self.namespace, {
                'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': 'shop-' + arm},
                'spec': {'selector': {'arm': arm}, 'ports': [{'port': 80}]}})
            self.api.request('POST', '/api/v1/namespaces/%s/pods' % self.namespace, {
                'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': arm, 'labels': {'arm': arm}},
                'spec': {'containers': [{'name': 'c', 'image': 'none'}]}})
            self.report(arm)

    def report(self, arm: str, ready: bool = True, **container: t.Any) -> None:
        """Says of the arm's pod what its node would."""
        self.api.request('PATCH', '/api/v1/namespaces/%s/pods/%s/status' % (self.namespace, arm), {'status': {
            'phase': 'Running', 'conditions': [{'type': 'Ready', 'status': 'True' if ready else 'False'}],
            'containerStatuses': [{'name': 'c', 'image': 'none', 'imageID': '', 'ready': ready, 'restartCount': 0, **container}]}},
            'application/merge-patch+json')

    def endpoint(self, **more: t.Any) -> dict[str, t.Any]:
        return {'name': 'kube1', 'router': 'httproute', 'object': 'shop', 'namespace': self.namespace,
                'kubeconfig': self.api.kubeconfig, 'arms': {arm: {'backend': 'shop-' + arm} for arm in NAMES},
                'metrics': {'kind': 'traefik', 'urls': ['http://127.0.0.1:%d' % self.admin], 'names': NAMES}, **more}


@pytest.fixture
def lab() -> t.Iterator[GateLab]:
    with GateLab() as made:
        yield made


@pytest.fixture
def route(api: KubeApi, tmp_path: Path) -> t.Iterator[Route]:
    with Route(api, tmp_path) as made:
        yield made


def gate(lab: GateLab, route: Route, **changes: t.Any) -> dict[str, t.Any]:
    with lab.load(), Load(route.port):
        lease = lab.move('50%')
        return lab.run(endpoints=lab.endpoints + [route.endpoint()], leases=[lease], **{
            'conditions': [ERRORS, {**LATENCY, 'abort_above': 1200, 'pass_below': 1200}, SERVERS, OOM], **changes})


def test_a_good_candidate_behind_both(lab: GateLab, route: Route) -> None:
    result = gate(lab, route)
    assert result['verdict'] == 'pass', result
    assert 40 < result['arms']['canary']['requests'] <= route.origins['canary'].hits + lab.canary.hits


def test_what_is_counted_behind_the_route_alone(lab: GateLab, route: Route) -> None:
    with Load(route.port):
        result = lab.run(endpoints=[route.endpoint()], conditions=[ERRORS, SERVERS])
    assert result['verdict'] == 'pass', result
    assert 20 < result['arms']['canary']['requests'] <= route.origins['canary'].hits


def test_a_candidate_that_is_bad_behind_the_route_only(lab: GateLab, route: Route) -> None:
    route.origins['canary'].status = 500
    # Half of all requests: only behind the route alone it is more than the limit.
    result = gate(lab, route, bake=20, conditions=[{**ERRORS, 'abort_above': '85%', 'pass_below': '85%'}])
    assert result['verdict'] == 'fail' and 'kube1' in result['reason'], result
    assert lab.to() == 'blue'


def test_a_candidate_that_is_slow_behind_the_route_only(lab: GateLab, route: Route) -> None:
    route.origins['canary'].delay = 0.5
    result = gate(lab, route, bake=20, conditions=[ERRORS, LATENCY])
    assert result['verdict'] == 'fail' and 'p95 is' in result['reason'], result


def test_an_oom_kill_ends_the_stage(lab: GateLab, route: Route) -> None:
    killed = threading.Timer(2.0, route.report, ['canary'], {
        'restartCount': 1, 'lastState': {'terminated': {'exitCode': 137, 'reason': 'OOMKilled', 'containerID': 'x://1'}}})
    killed.start()
    try:
        result = gate(lab, route, bake=20, conditions=[ERRORS, OOM])
    finally:
        killed.join()
    assert result['verdict'] == 'fail' and 'oom_kills' in result['reason'], result


def test_a_pod_that_is_not_ready(lab: GateLab, route: Route) -> None:
    route.report('canary', ready=False)
    result = gate(lab, route, bake=20, conditions=[ERRORS, SERVERS])
    assert result['verdict'] == 'fail' and 'servers_up_ratio' in result['reason'], result


def test_an_api_server_that_is_away_when_the_watch_begins(lab: GateLab, route: Route) -> None:
    source, = build_sources('shop', ARMS, [route.endpoint(deadline=0.5)], {})

    async def watched() -> list[Reading]:
        with route.api.frozen():
            await source.open()
            readings = [await source.poll(0.0)]
        for second in range(1, 20):
            readings.append(await source.poll(float(second)))
            if readings[-1].before:
                break
        readings.append(await source.poll(30.0))
        await source.close()
        return readings

    readings = asyncio.run(watched())
    assert readings[0].errors and 'did not answer' in readings[0].errors[0] or 'could not be asked' in readings[0].errors[0], readings[0]
    assert {block.arm for block in readings[-1].blocks} == set(NAMES) and readings[-1].gauges['servers_up', 'canary'] == 1


@pytest.mark.parametrize(('metrics', 'words'), [
    (None, 'has no "metrics", and other endpoints count requests'),
    ({'kind': 'nginx'}, 'kind "nginx".*not known'),
    ({'kind': 'envoy'}, 'need either urls'),
    ({'kind': 'envoy', 'urls': ['file:///etc/passwd']}, 'not usable'),
    ({'kind': 'envoy', 'urls': ['http://a/'], 'names': {'nobody': ['x']}}, 'dictionary of arms'),
    ({'kind': 'envoy', 'pods': {'labels': {'a': 'b c'}, 'port': 1}}, 'label'),
    ({'kind': 'envoy', 'pods': {'labels': {'a': 'b'}, 'port': 1, 'path': '/x?y'}}, 'path'),
])
def test_what_cannot_be_observed_is_said_before_anything_is_asked(metrics: t.Any, words: str) -> None:
    full = {key: spec.get('default') for key, spec in _gate.ARGUMENT_SPEC.items()}
    full.update(service='shop', arms={'blue': {}, 'canary': {}}, candidate='canary', bake=3, interval=0.5, conditions=[ERRORS], endpoints=[
        {'name': 'lb1', 'socket': 'unix:///nowhere', 'map': '/x.map'},
        {'name': 'kube1', 'router': 'httproute', 'object': 'shop', 'metrics': metrics}])
    with pytest.raises(BadInput, match=words):
        _gate.read_gate(full)
