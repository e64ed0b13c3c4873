# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One adapter a router: a service "shop", all of it on blue, behind a real data plane, with the arms canary and green beside it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import typing as t

import router_table
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import content
from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Capabilities, Claim, Desired, Router
from ansible_collections.progressive.delivery.plugins.module_utils._split import make_split
from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run
from ansible_collections.progressive.delivery.plugins.module_utils._traffic_info import INFO_SPEC, run_info
from cluster_lab import Cluster
from kube_load import Load, ask
from traffic_lab import FRONTEND, Shop, validated

ARMS = ('blue', 'canary', 'green')
Obj = t.Dict[str, t.Any]


class Plane:
    """What the tests know of a router. ``do`` runs traffic_weight, ``look`` traffic_weight_info."""

    lease: str
    """Short, and long enough to be armed and renewed on a busy machine."""
    port: int
    host: str

    def __init__(self, name: str) -> None:
        self.name = name
        self.arms = {arm: router_table.CASES[name].arm(arm) for arm in ARMS}

    def endpoint(self) -> Obj:
        raise NotImplementedError

    def stored(self) -> t.Any:
        """What the router has written, whatever form it has: equal when nothing was."""
        raise NotImplementedError

    def left_over(self) -> list[str]:
        """What is there to keep a lease."""
        return []

    # ---- the product

    def options(self, **options: t.Any) -> Obj:
        return {'service': 'shop', 'arms': self.arms, 'endpoints': [self.endpoint()], 'rollout': 'r1', 'by': 'contract',
                'verify_timeout': '60s', **options}

    def do(self, check: bool = False, **options: t.Any) -> Obj:
        return asyncio.run(run(validated(TRAFFIC_SPEC, self.options(**options)), check))

    def look(self, **options: t.Any) -> Obj:
        asked = {key: value for key, value in self.options(**options).items() if key in INFO_SPEC}
        return asyncio.run(run_info(validated(INFO_SPEC, asked)))['endpoints'][0]

    def router(self) -> Router:
        raw = validated(INFO_SPEC, {key: value for key, value in self.options().items() if key in INFO_SPEC})
        return registry.build_all(raw['endpoints'], 'shop', self.arms)[0]

    @property
    def can(self) -> Capabilities:
        return self.router().capabilities()

    @property
    def splits(self) -> bool:
        """Whether it can share traffic between arms at all."""
        return self.can.unit != 'all or nothing'

    @property
    def copies(self) -> tuple[int, ...]:
        """Shares of copies to try, in basis points; none where there are no copies."""
        return {'': (), '100 %': (10000,)}.get(router_table.copies(self.name), (1000, 10000))

    def worked(self, arm: str) -> int:
        """How many requests the instances of *arm* have answered, whoever got the answers."""
        raise NotImplementedError

    def desired(self, shares: Obj, rollout: str) -> Desired:
        split = make_split(shares, 'blue')
        return Desired(split, Claim(rollout, 'contract', 1), 60.0 if split.partial else None)

    # ---- its traffic

    def tally(self, count: int, path: str = '/health/live', **headers: str) -> dict[str, int]:
        """Who answers *count* requests."""
        said = ask(self.port, self.host, [headers] * count, path=path)
        return {arm: said.count(arm) for arm in set(said)}

    def load(self, rate: float = 200.0) -> Load:
        return Load(self.port, self.host, rate)


class Map(Plane):
    """haproxy_map on a HAProxy with the lines of docs/architecture.md."""

    lease, host = '2s', 'shop.test'

    @contextlib.contextmanager
    def opened(self) -> t.Iterator['Plane']:
        with self.shop() as self.lab:
            self.port = self.lab.proxy.port
            yield self

    def shop(self) -> Shop:
        return Shop()

    def endpoint(self) -> Obj:
        proxy = self.lab.proxy
        return {'name': 'edge', **router_table.CASES[self.name].options, 'socket': proxy.address, 'map': str(proxy.dir / 'delivery.map')}

    def stored(self) -> t.Any:
        return self.lab.entry(), self.lab.filed()


class Weights(Map):
    """haproxy_weights on one backend with a server for each arm."""

    BACKEND = FRONTEND + '''
    default_backend pool
backend pool
    balance roundrobin
    server blue1 127.0.0.1:{blue} weight 10
    server canary1 127.0.0.1:{canary} weight 0
    server green1 127.0.0.1:{green} weight 0
'''

    def shop(self) -> Shop:
        return Shop(frontend=self.BACKEND, backends='')

    def endpoint(self) -> Obj:
        proxy = self.lab.proxy
        return {'name': 'edge', **router_table.CASES[self.name].options, 'socket': proxy.address, 'state_dir': str(proxy.dir / 'state')}

    def stored(self) -> t.Any:
        rows = [line.split(' ') for line in self.lab.proxy.ask('show servers state pool').splitlines()[2:]]
        states = sorted((self.lab.proxy.dir / 'state').glob('*.json'))
        # When the lease ends is renewed each time.
        kept = [{key: value for key, value in json.loads(path.read_text()).items() if key != 'deadline'} for path in states]
        return [(row[3], row[6], row[7]) for row in rows], kept


class Home:
    """The cluster, and a namespace of it with the arms, made when it is first asked for."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.cluster = Cluster()
        self.namespace = stack.enter_context(self.cluster.namespace())
        for arm in ARMS:
            self.cluster.arm(self.namespace, arm, '5', ready=False)
        for arm in ARMS:
            self.cluster.kubectl('--namespace', self.namespace, 'rollout', 'status', 'deployment/' + arm, '--timeout=300s')


class Kube(Plane):
    """A route object of the cluster, made by *objects(name, host)*; *watched* are those that the router writes."""

    lease = '5s'

    def __init__(self, name: str, plane: str, objects: t.Callable[[str, str], t.Sequence[Obj]], watched: str, admin: str = '') -> None:
        super().__init__(name)
        self.plane, self.objects, self.watched, self.admin = plane, objects, watched, admin

    @contextlib.contextmanager
    def opened(self, home: Home) -> t.Iterator['Plane']:
        self.home, self.port = home, home.cluster.port(self.plane)
        self.host = '%s.%s.test' % (self.name, home.namespace)
        home.cluster.apply(*({**one, 'metadata': {'namespace': home.namespace, **one['metadata']}}
                             for one in self.objects(self.name, self.host)))
        yield self

    def endpoint(self) -> Obj:
        facts = self.home.cluster.facts
        options = dict(router_table.CASES[self.name].options, name='edge', namespace=self.home.namespace, object=self.name,
                       kubeconfig=facts.kubeconfig, lease_image=facts.service_image, deadline=60)
        options['probe'] = {'url': 'http://127.0.0.1:%d/health/live' % self.port, 'header': 'x-arm', 'host': self.host}
        if 'admin' in options:
            options['admin'] = ['http://' + facts.addresses[self.admin]]
        return options

    def stored(self) -> t.Any:
        names = ['%s/%s' % (kind, self.name + more) for kind, _slash, more in (one.partition('/') for one in self.watched.split())]
        said = self.home.cluster.kubectl('--namespace', self.home.namespace, 'get', '--output=json', '--ignore-not-found', *names)
        found = json.loads(said) if said else {'items': []}
        return [content(one) for one in found.get('items', [found])], self.left_over()

    def fresh(self, count: int) -> Obj:
        """Makes Services that no route has led to yet, and returns arms for them; who answers is the canary."""
        arms = {'fresh%d' % number: {'backend': '%s-fresh%d' % (self.name, number)} for number in range(count)}
        self.home.cluster.apply(*({
            'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': arm['backend'], 'namespace': self.home.namespace}, 'spec': {
                'selector': {'app': 'shop', 'arm': 'canary'}, 'ports': [{'port': 80, 'targetPort': 8080}]}} for arm in arms.values()))
        return {'blue': self.arms['blue'], **arms}

    def worked(self, arm: str) -> int:
        kubectl = functools.partial(self.home.cluster.kubectl, '--namespace', self.home.namespace, 'get')
        pods = kubectl('pods', '--selector=arm=' + arm, '--output=jsonpath={.items[*].metadata.name}').split()
        texts = [kubectl('--raw', '/api/v1/namespaces/%s/pods/%s:8080/proxy/metrics' % (self.home.namespace, pod)) for pod in pods]
        return sum(int(count) for text in texts for count in re.findall(r'^http_requests_total\{.*\} (\d+)$', text, re.M))

    def left_over(self) -> list[str]:
        """Names of the objects of a lease."""
        return self.home.cluster.kubectl('--namespace', self.home.namespace, 'get', 'jobs,leases,roles,rolebindings,serviceaccounts',
                                         '--output=name', '--selector=app.kubernetes.io/managed-by=progressive.delivery').split()


def _service(name: str) -> Obj:
    return {'name': name, 'port': 80}


def _httproute(gateway: str) -> t.Callable[[str, str], t.Sequence[Obj]]:
    return lambda name, host: [{
        'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute', 'metadata': {'name': name}, 'spec': {
            'parentRefs': [{'name': 'public', 'namespace': gateway}], 'hostnames': [host], 'rules': [{'backendRefs': [_service('blue')]}]}}]


def _httpproxy(name: str, host: str) -> t.Sequence[Obj]:
    return [{'apiVersion': 'projectcontour.io/v1', 'kind': 'HTTPProxy', 'metadata': {'name': name}, 'spec': {
        'virtualhost': {'fqdn': host}, 'routes': [{'services': [_service('blue')]}]}}]


def _traefikservice(name: str, host: str) -> t.Sequence[Obj]:
    return [{'apiVersion': 'traefik.io/v1alpha1', 'kind': 'TraefikService', 'metadata': {'name': name}, 'spec': {
        'weighted': {'services': [_service('blue')]}}},
        {'apiVersion': 'traefik.io/v1alpha1', 'kind': 'IngressRoute', 'metadata': {'name': name}, 'spec': {
            'entryPoints': ['web'], 'routes': [{'kind': 'Rule', 'match': 'Host(`%s`)' % host, 'services': [
                {'kind': 'TraefikService', 'name': name}]}]}}]


def _virtualservice(name: str, host: str) -> t.Sequence[Obj]:
    return [{'apiVersion': 'networking.istio.io/v1', 'kind': 'VirtualService', 'metadata': {'name': name}, 'spec': {
        'hosts': [host], 'gateways': ['istio-system/public'], 'http': [
            {'route': [{'destination': {'host': 'blue', 'port': {'number': 80}}}]}]}}]


def _ingress(name: str, host: str, service: str = 'blue') -> t.Sequence[Obj]:
    return [{'apiVersion': 'networking.k8s.io/v1', 'kind': 'Ingress', 'metadata': {'name': name}, 'spec': {
        'ingressClassName': 'nginx', 'rules': [{'host': host, 'http': {'paths': [
            {'path': '/', 'pathType': 'Prefix', 'backend': {'service': {'name': service, 'port': {'number': 80}}}}]}}]}}]


def _plain(name: str, host: str) -> t.Sequence[Obj]:
    return [{'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': name}, 'spec': {
        'selector': {'app': 'shop', 'arm': 'blue'}, 'ports': [{'port': 80, 'targetPort': 8080}]}}, *_ingress(name, host, name)]


PLANES: dict[str, t.Callable[[], t.Any]] = {
    'haproxy_map': lambda: Map('haproxy_map'),
    'haproxy_weights': lambda: Weights('haproxy_weights'),
    'httproute-traefik': lambda: Kube('httproute-traefik', 'traefik', _httproute('traefik'), 'httproutes.gateway.networking.k8s.io'),
    'httproute-contour': lambda: Kube('httproute-contour', 'contour', _httproute('projectcontour'), 'httproutes.gateway.networking.k8s.io'),
    'virtualservice': lambda: Kube('virtualservice', 'istio', _virtualservice, 'virtualservices.networking.istio.io', 'istio_admin'),
    'ingress-nginx': lambda: Kube('ingress-nginx', 'traefik', _ingress, 'ingresses ingresses/-canary', 'traefik_admin'),
    'traefikservice': lambda: Kube('traefikservice', 'traefik', _traefikservice, 'traefikservices.traefik.io'),
    'httpproxy': lambda: Kube('httpproxy', 'contour', _httpproxy, 'httpproxies.projectcontour.io'),
    'service-selector': lambda: Kube('service-selector', 'traefik', _plain, 'services'),
}
assert PLANES.keys() == router_table.CASES.keys()
