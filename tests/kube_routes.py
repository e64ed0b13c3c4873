# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service "shop" behind one route of a Kubernetes API server, for tests of traffic_weight on routers of Kubernetes.

An API server alone has no controllers, so what says who is ready (EndpointSlices, the status of pods) is written here by hand.
"""

from __future__ import annotations

import asyncio
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run
from ansible_collections.progressive.delivery.plugins.module_utils._traffic_info import INFO_SPEC, run_info
from deadman_lab import Jobs
from kube_api import ApiError
from traffic_lab import validated

Obj = t.Dict[str, t.Any]


class Asks(t.Protocol):
    kubeconfig: str

    def request(self, method: str, path: str, body: t.Any = None, content_type: str = ...) -> t.Any: ...


class Routes:
    """One namespace. *endpoint* is what all endpoints have besides kubeconfig and namespace; *arms* the service's."""

    def __init__(self, api: Asks, namespace: str, endpoint: Obj, arms: Obj, kubeconfig: str | None = None,
                 jobs: Jobs | None = None) -> None:
        self.api, self.namespace, self.arms, self.jobs = api, namespace, arms, jobs
        self.endpoint = {'name': 'route', 'kubeconfig': kubeconfig or api.kubeconfig, 'namespace': namespace, **endpoint}

    def options(self, **options: t.Any) -> Obj:
        return {'service': 'shop', 'arms': self.arms, 'endpoints': [self.endpoint], 'rollout': 'r1', **options}

    def do(self, check: bool = False, **options: t.Any) -> Obj:
        """Runs the task traffic_weight. Raises DeliveryError."""
        return self.run(run(validated(TRAFFIC_SPEC, self.options(**options)), check))

    def run(self, work: t.Coroutine[t.Any, t.Any, t.Any]) -> t.Any:
        """Does *work*, while somebody starts the Jobs that it makes, if the server itself cannot."""
        async def both() -> t.Any:
            task = asyncio.ensure_future(work)
            while not task.done():
                if self.jobs:
                    await asyncio.get_running_loop().run_in_executor(None, self.jobs.look)
                await asyncio.wait([task], timeout=0.05)
            return await task
        return asyncio.run(both())

    def look(self, **options: t.Any) -> Obj:
        """Runs traffic_weight_info and returns what it says of the endpoint."""
        asked = self.options(**options)
        asked.pop('rollout')
        return asyncio.run(run_info(validated(INFO_SPEC, asked)))['endpoints'][0]

    # ---- objects

    def path(self, kind: str, name: str = '') -> str:
        return KINDS[kind] % self.namespace + ('/' + name if name else '')

    def get(self, kind: str, name: str) -> Obj | None:
        try:
            return self.api.request('GET', self.path(kind, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def put(self, kind: str, obj: Obj) -> Obj:
        """Creates the object, or replaces it."""
        name = obj['metadata']['name']
        found = self.get(kind, name)
        if found is None:
            return self.api.request('POST', self.path(kind), obj)
        obj = {**obj, 'metadata': {**obj['metadata'], 'resourceVersion': found['metadata']['resourceVersion']}}
        return self.api.request('PUT', self.path(kind, name), obj)

    def patch(self, kind: str, name: str, merge: Obj, subresource: str = '') -> Obj:
        return self.api.request('PATCH', self.path(kind, name) + subresource, merge, 'application/merge-patch+json')

    def service(self, name: str, ready: int = 1, selector: Obj | None = None, port: int = 80) -> None:
        """A Service with *ready* endpoints."""
        self.put('services', {'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': name}, 'spec': {
            'selector': selector or {'app': name}, 'ports': [{'port': port}]}})
        self.put('endpointslices', {
            'apiVersion': 'discovery.k8s.io/v1', 'kind': 'EndpointSlice', 'addressType': 'IPv4',
            'metadata': {'name': name, 'labels': {'kubernetes.io/service-name': name}}, 'ports': [{'port': port}],
            'endpoints': [{'addresses': ['10.0.0.%d' % (n + 1)], 'conditions': {'ready': True}} for n in range(ready)]})

    def pod(self, name: str, labels: Obj, ready: bool = True) -> None:
        self.put('pods', {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': name, 'labels': labels}, 'spec': {
            'containers': [{'name': 'c', 'image': 'c'}]}})
        self.patch('pods', name, {'status': {'conditions': [{'type': 'Ready', 'status': 'True' if ready else 'False'}]}}, '/status')


KINDS = {
    'services': '/api/v1/namespaces/%s/services', 'pods': '/api/v1/namespaces/%s/pods',
    'endpointslices': '/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices',
    'virtualservices': '/apis/networking.istio.io/v1/namespaces/%s/virtualservices',
    'destinationrules': '/apis/networking.istio.io/v1/namespaces/%s/destinationrules',
    'ingresses': '/apis/networking.k8s.io/v1/namespaces/%s/ingresses',
    'deployments': '/apis/apps/v1/namespaces/%s/deployments',
}
