# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service "shop" with arms blue, canary and green behind a route of a real API server, for tests of traffic_weight.

There are no nodes and no controllers: endpoints are written by hand, and the Job of a lease runs as a process (deadman_lab).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import typing as t
from pathlib import Path

from ansible_collections.progressive.delivery.plugins.module_utils import _lease
from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run
from ansible_collections.progressive.delivery.plugins.module_utils._traffic_info import INFO_SPEC, run_info
from deadman_lab import Jobs
from kube_api import KubeApi
from traffic_lab import validated

ARMS = {'blue': {'backend': 'shop-blue'}, 'canary': {'backend': 'shop-canary'}, 'green': {'backend': 'shop-green'}}
RECORD = 'progressive.delivery/shop'
ALB = 'alb.ingress.kubernetes.io/actions.shop'


def rule(*services: str, **more: t.Any) -> dict[str, t.Any]:
    """A rule of an HTTPRoute that leads to services."""
    return {'backendRefs': [{'name': name, 'port': 80} for name in services], **more}


class Route(t.NamedTuple):
    """How a kind of route begins: all to blue. *destinations* leads to the list of one of its objects."""

    router: str
    kind: str
    api: str
    plural: str
    spec: dict[str, t.Any]
    destinations: t.Callable[[dict[str, t.Any]], list[dict[str, t.Any]]]
    service: str
    meta: dict[str, t.Any] = {}


ROUTES = {route.kind: route for route in (
    Route('httproute', 'HTTPRoute', 'gateway.networking.k8s.io/v1', 'httproutes',
          {'parentRefs': [{'name': 'edge'}], 'rules': [rule('shop-blue')]}, lambda obj: obj['spec']['rules'][0]['backendRefs'], 'name'),
    Route('httproute', 'GRPCRoute', 'gateway.networking.k8s.io/v1', 'grpcroutes',
          {'parentRefs': [{'name': 'edge'}], 'rules': [rule('shop-blue')]}, lambda obj: obj['spec']['rules'][0]['backendRefs'], 'name'),
    Route('weights', 'TraefikService', 'traefik.io/v1alpha1', 'traefikservices',
          {'weighted': {'services': [{'name': 'shop-blue', 'port': 80}]}}, lambda obj: obj['spec']['weighted']['services'], 'name'),
    Route('weights', 'HTTPProxy', 'projectcontour.io/v1', 'httpproxies',
          {'virtualhost': {'fqdn': 'shop.example'}, 'routes': [{'services': [{'name': 'shop-blue', 'port': 80}]}]},
          lambda obj: obj['spec']['routes'][0]['services'], 'name'),
    Route('weights', 'ApisixRoute', 'apisix.apache.org/v2', 'apisixroutes',
          {'http': [{'name': 'all', 'match': {'paths': ['/*']}, 'backends': [{'serviceName': 'shop-blue', 'servicePort': 80}]}]},
          lambda obj: obj['spec']['http'][0]['backends'], 'serviceName'),
    Route('weights', 'VirtualServer', 'k8s.nginx.org/v1', 'virtualservers',
          {'host': 'shop.example', 'upstreams': [{'name': 'shop-' + arm, 'service': 'shop-' + arm, 'port': 80} for arm in ARMS],
           'routes': [{'path': '/', 'action': {'pass': 'shop-blue'}}]},
          lambda obj: [{'name': one['action']['pass'], **one} for one in obj['spec']['routes'][0].get('splits') or [
              {'weight': 100, 'action': obj['spec']['routes'][0]['action']}]], 'name'),
    Route('weights', 'TrafficSplit', 'split.smi-spec.io/v1alpha2', 'trafficsplits',
          {'service': 'shop', 'backends': [{'service': 'shop-blue', 'weight': 1}]}, lambda obj: obj['spec']['backends'], 'service'),
    Route('weights', 'Ingress', 'networking.k8s.io/v1', 'ingresses',
          {'rules': [{'http': {'paths': [{'path': '/', 'pathType': 'Prefix', 'backend': {'service': {
              'name': 'shop', 'port': {'name': 'use-annotation'}}}}]}}]},
          lambda obj: json.loads(obj['metadata']['annotations'][ALB])['forwardConfig']['targetGroups'], 'serviceName',
          {'annotations': {ALB: json.dumps({'type': 'forward', 'forwardConfig': {
              'targetGroups': [{'serviceName': 'shop-blue', 'servicePort': '80'}]}})}}),
)}


class KubeShop:
    """A namespace with the route and the arms' Services; ``do`` runs traffic_weight, ``look`` traffic_weight_info."""

    def __init__(self, cluster: KubeApi, directory: Path, kind: str = 'HTTPRoute', spec: dict[str, t.Any] | None = None,
                 user: str = 'administrator', **meta: t.Any) -> None:
        self.cluster, self.route, self.user = cluster, ROUTES[kind], user
        self.namespace = 'pd-' + os.urandom(4).hex()
        self.jobs = Jobs(cluster, self.namespace, directory)
        cluster.request('POST', '/api/v1/namespaces', {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': self.namespace}})
        self.path = '/apis/%s/namespaces/%s/%s/shop' % (self.route.api, self.namespace, self.route.plural)
        cluster.request('POST', self.path.rsplit('/', 1)[0], {
            'apiVersion': self.route.api, 'kind': kind, 'metadata': {'name': 'shop', **self.route.meta, **meta},
            'spec': spec or self.route.spec})
        for arm in ARMS.values():
            self.service(arm['backend'])

    def service(self, name: str, ready: int = 1, port: int = 80) -> None:
        """Makes a Service with endpoints, *ready* of two."""
        self.cluster.request('POST', '/api/v1/namespaces/%s/services' % self.namespace, {
            'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': name}, 'spec': {'ports': [{'port': port}]}})
        self.cluster.request('POST', '/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices' % self.namespace, {
            'apiVersion': 'discovery.k8s.io/v1', 'kind': 'EndpointSlice', 'addressType': 'IPv4',
            'metadata': {'name': name + '-1', 'labels': {'kubernetes.io/service-name': name}},
            'ports': [{'port': port}],
            'endpoints': [{'addresses': ['10.0.0.%d' % n], 'conditions': {'ready': n <= ready}} for n in (1, 2)]})

    def unready(self, name: str) -> None:
        self.cluster.request('PATCH', '/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices/%s-1' % (self.namespace, name),
                             {'endpoints': []}, 'application/merge-patch+json')

    def close(self) -> None:
        self.jobs.stop()

    def endpoint(self, **more: t.Any) -> dict[str, t.Any]:
        return {'name': 'edge', 'router': self.route.router, 'kind': self.route.kind, 'kubeconfig': self.cluster.kubeconfig_for(self.user),
                'namespace': self.namespace, 'object': 'shop', 'lease_image': 'test/python:1', **more}

    def options(self, **options: t.Any) -> dict[str, t.Any]:
        given = {'service': 'shop', 'arms': ARMS, 'endpoints': [self.endpoint()], **options}
        return {**given, 'verify': 'L0'} if 'verify' not in given else given

    def do(self, check: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """Runs the task. Raises DeliveryError, and AssertionError for options that the argument spec refuses."""
        return self.run(run(validated(TRAFFIC_SPEC, self.options(**options)), check))

    def canary(self, share: str = '5%', lease: str = '20s', **more: t.Any) -> dict[str, t.Any]:
        return self.do(split={'canary': share}, lease=lease, **{'rollout': 'r1', 'by': 'me', **more})

    def back(self, **more: t.Any) -> dict[str, t.Any]:
        return self.do(state='way_back', **more)

    def look(self, **options: t.Any) -> dict[str, t.Any]:
        given = self.options(**options)
        given.pop('verify')
        return asyncio.run(run_info(validated(INFO_SPEC, given)))['endpoints'][0]

    def held(self, result: dict[str, t.Any]) -> '_lease.Held':
        return _lease.held(result['lease'])

    def run(self, work: t.Coroutine[t.Any, t.Any, t.Any]) -> t.Any:
        return self.jobs.during(work)

    # ---- the route, without the product

    def object(self) -> dict[str, t.Any]:
        return self.cluster.request('GET', self.path)

    def patch(self, body: t.Any, content_type: str = 'application/merge-patch+json', subresource: str = '') -> dict[str, t.Any]:
        return self.cluster.request('PATCH', self.path + subresource, body, content_type)

    def weights(self, route: dict[str, t.Any] | None = None) -> dict[str, int]:
        """Services and their weights, those without any left out; of *route*, or as it is now."""
        return {one[self.route.service]: one.get('weight', 1) for one in self.route.destinations(route or self.object())
                if one.get('weight', 1)}

    def record(self) -> str:
        return (self.object()['metadata'].get('annotations') or {}).get(RECORD, '')

    def left_over(self) -> list[str]:
        """Kinds of objects of a lease that are in the namespace."""
        found = []
        for api, plurals in (('/api/v1', ('serviceaccounts',)), ('/apis/rbac.authorization.k8s.io/v1', ('roles', 'rolebindings')),
                             ('/apis/coordination.k8s.io/v1', ('leases',)), ('/apis/batch/v1', ('jobs',))):
            for plural in plurals:
                found += [plural for _one in self.cluster.request('GET', '%s/namespaces/%s/%s' % (api, self.namespace, plural))['items']]
        return found


@contextlib.contextmanager
def shop(cluster: KubeApi, directory: Path, *args: t.Any, **more: t.Any) -> t.Iterator[KubeShop]:
    one = KubeShop(cluster, directory, *args, **more)
    try:
        yield one
    finally:
        one.close()
