# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Endpoints and arms as users write them: one grammar for every plugin that takes them."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Address
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.web import check_url
from ansible_collections.progressive.delivery.plugins.module_utils._names import (
    check_dns_name, check_image, check_name, check_path, check_port, check_token)
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Arm
from ansible_collections.progressive.delivery.plugins.module_utils._routers.probe import PROBE_SPEC
from ansible_collections.progressive.delivery.plugins.module_utils._split import MATCH_KINDS, TOTAL, check_match_value, parse_share

HAPROXY_ROUTERS = ('haproxy_map', 'haproxy_weights')
KUBE_ROUTERS = ('httproute', 'weights', 'virtualservice', 'ingress_nginx', 'service_selector', 'replicas')
ROUTERS = HAPROXY_ROUTERS + KUBE_ROUTERS

# Options that mean something to one family of routers only; none of them has a default.
_HAPROXY_ONLY = ('socket', 'map', 'file', 'matches', 'ring', 'state_dir')
_KUBE_ONLY = ('kubeconfig', 'context', 'namespace', 'object', 'kind', 'rules', 'port', 'lease_image', 'metrics', 'probe', 'root_namespace',
              'destination_rule', 'admin', 'mirror')
HAPROXY_ARM = ('backend', 'servers')
KUBE_ARM = ('backend', 'port', 'subset', 'labels', 'deployment')
"""What an arm may have at an endpoint of the family; an arm of the service may have all of it."""
_ROLE_ARM = ('hosts',)
"""What an arm of the service may have besides: it tells the roles where to deploy and means nothing to a router."""
LEASE_IMAGE = 'docker.io/library/python:3.13-alpine'
_DEADLINE_S = {'haproxy': 2.0, 'kube': 10.0}

METRICS_SPEC: dict[str, t.Any] = {
    'kind': {'type': 'str', 'choices': ['traefik', 'envoy', 'none'], 'required': True},
    'urls': {'type': 'list', 'elements': 'str'},
    'pods': {'type': 'dict', 'options': {
        'namespace': {'type': 'str'}, 'labels': {'type': 'dict', 'required': True}, 'port': {'type': 'int', 'required': True},
        'path': {'type': 'str'}}},
    'names': {'type': 'dict'},
}
"""How the data plane of a route is observed (``_metrics/kube.py``)."""

ENDPOINT_SPEC: dict[str, t.Any] = {
    'name': {'type': 'str'},
    'router': {'type': 'str', 'choices': list(ROUTERS), 'default': 'haproxy_map'},
    'socket': {'type': 'str'},
    'map': {'type': 'str'},
    'file': {'type': 'str'},
    'slots': {'type': 'int', 'default': 1},
    'matches': {'type': 'list', 'elements': 'dict', 'options': {
        'header': {'type': 'str'}, 'cookie': {'type': 'str'}, 'value': {'type': 'str', 'required': True}}},
    'sticky': {'type': 'bool', 'default': False},
    'ring': {'type': 'str'},
    'share': {'type': 'raw', 'default': '100%'},
    'arms': {'type': 'dict'},
    'deadline': {'type': 'float'},
    'tolerance_bp': {'type': 'int', 'default': 50},
    'state_dir': {'type': 'path'},
    'kubeconfig': {'type': 'path'},
    'context': {'type': 'str'},
    'namespace': {'type': 'str'},
    'object': {'type': 'str'},
    'kind': {'type': 'str'},
    'rules': {'type': 'list', 'elements': 'str'},
    'port': {'type': 'int'},
    'lease_image': {'type': 'str'},
    'metrics': {'type': 'dict', 'options': METRICS_SPEC},
    'probe': {'type': 'dict', 'options': PROBE_SPEC},
    'root_namespace': {'type': 'str'},
    'destination_rule': {'type': 'str'},
    'admin': {'type': 'list', 'elements': 'str'},
    'mirror': {'type': 'bool'},
}
"""Argument spec of an element of ``endpoints``; ``docs/architecture.md`` says what each means."""

ENDPOINTS_OPTION: dict[str, t.Any] = {'type': 'list', 'elements': 'dict', 'required': True, 'options': ENDPOINT_SPEC}
ARMS_OPTION: dict[str, t.Any] = {'type': 'dict', 'required': True}


@dataclass(frozen=True)
class KubeOptions:
    """Where a route lies in which cluster. Without *kubeconfig* and *context*: what kubectl would take, or the cluster this runs in."""

    kubeconfig: str | None
    context: str | None
    namespace: str
    object: str
    """Name of the object that the router is about: the route, the main Ingress, the Service."""
    kind: str | None
    rules: tuple[str, ...]
    """Names of the rules of the route that split; none: all that lead to an arm."""
    port: int | None
    """Port of the arms' Services, for those that name none themselves."""
    lease_image: str
    """Image of the Job that keeps the lease where the data plane cannot."""
    admin: tuple[str, ...] = ()
    """URLs of the administration of the data plane's processes, without a path."""


@dataclass(frozen=True)
class Endpoint:
    """One process of a data plane, or one route of a cluster. *deadline* is in seconds, for one operation."""

    name: str
    router: str
    address: Address | None
    """Runtime socket of HAProxy; None for any other router."""
    map: str | None
    file: str | None
    slots: int
    matches: tuple[tuple[str, str, str], ...]
    sticky: bool
    ring: str | None
    share_bp: int
    arms: t.Mapping[str, t.Any]
    deadline: float
    tolerance_bp: int
    state_dir: str | None
    options: t.Mapping[str, t.Any]
    """As the user wrote it, name filled in: what a lease value carries."""
    kube: KubeOptions | None = None

    @property
    def family(self) -> str:
        return 'kube' if self.kube else 'haproxy'


def parse_endpoints(raw: t.Sequence[t.Mapping[str, t.Any]]) -> list[Endpoint]:
    """Checks and returns the endpoints. Raises BadInput for a bad one, two of one name, or none."""
    if not raw:
        raise BadInput('There are no endpoints: name at least one HAProxy socket, or a route of a cluster.')
    endpoints = [_parse_endpoint(item) for item in raw]
    routes = [(e.kube.kubeconfig, e.kube.context, e.kube.namespace, e.router, e.kube.kind, e.kube.object) for e in endpoints if e.kube]
    for what, values in (('name', [e.name for e in endpoints]), ('socket', [str(e.address) for e in endpoints if e.address]),
                         ('route', ['%s/%s of namespace %s' % (route[3], route[5], route[2]) for route in routes
                                    if routes.count(route) > 1])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise BadInput('Two endpoints have the %s %s: each process and each route is one endpoint.' % (what, twice[0]))
    return endpoints


def haproxy_endpoints(endpoints: t.Iterable[Endpoint]) -> list[Endpoint]:
    """Returns those that are processes of HAProxy."""
    return [endpoint for endpoint in endpoints if endpoint.address]


def _parse_endpoint(raw: t.Mapping[str, t.Any]) -> Endpoint:
    if not isinstance(raw, t.Mapping):
        raise BadInput('The endpoint %r is not understood: give name and socket.' % (raw,))
    options = {key: value for key, value in raw.items() if value is not None}
    unknown = sorted(set(options) - set(ENDPOINT_SPEC))
    if unknown:
        raise BadInput('The endpoint %s has the unknown option "%s".' % (options.get('name') or options.get('socket'), unknown[0]))
    router = options.get('router', 'haproxy_map')
    if router not in ROUTERS:
        raise BadInput('The router "%s" of endpoint %s is not known: use one of %s.' % (
            router, options.get('name') or options.get('socket'), ', '.join(ROUTERS)))
    family = 'kube' if router in KUBE_ROUTERS else 'haproxy'
    kube = _parse_kube(router, options) if family == 'kube' else None
    address = None if kube else Address.parse(options.get('socket', ''))
    default = '%s.%s' % (kube.object, kube.namespace) if kube else str(address)
    name = options.setdefault('name', default)
    if name != default:
        check_name('endpoint', name)
    for option in _HAPROXY_ONLY if kube else _KUBE_ONLY:
        if options.get(option):
            raise BadInput('The endpoint %s has "%s", which the router %s does not know.' % (name, option, router))
    map_path = options.get('map')
    if router == 'haproxy_map':
        if not map_path:
            raise BadInput('The endpoint %s names no map: give the path of the map file as the configuration writes it.' % name)
        check_path('map of endpoint %s' % name, map_path)
    file = options.get('file', map_path if address and address.path else '') or None
    if file:
        check_path('file of endpoint %s' % name, file)
    slots, tolerance = options.get('slots', 1), options.get('tolerance_bp', 50)
    if not 1 <= slots <= 100:
        raise BadInput('The endpoint %s has slots %r: the configuration has lines for at least 1 candidate.' % (name, slots))
    if not 0 <= tolerance <= TOTAL:
        raise BadInput('The endpoint %s has tolerance_bp %r: give basis points between 0 and 10000.' % (name, tolerance))
    deadline = parse_duration(options.get('deadline', _DEADLINE_S[family]), 'deadline of endpoint %s' % name)
    if not 0.01 <= deadline <= 600:
        raise BadInput('The deadline of endpoint %s is %g s: give 0.01 to 600 s.' % (name, deadline))
    ring = options.get('ring')
    arms = options.get('arms') or {}
    if not isinstance(arms, t.Mapping):
        raise BadInput('The arms of endpoint %s must be a dictionary of arm to backend and servers.' % name)
    return Endpoint(
        name=name, router=router, address=address, map=map_path, file=file, slots=slots,
        matches=tuple(_parse_condition(name, item) for item in options.get('matches') or ()),
        sticky=bool(options.get('sticky', False)), ring=check_name('ring', ring) if ring else None,
        share_bp=parse_share(options.get('share', '100%')), arms=arms, deadline=deadline, tolerance_bp=tolerance,
        state_dir=options.get('state_dir'), options=options, kube=kube)


def _parse_kube(router: str, options: t.Mapping[str, t.Any]) -> KubeOptions:
    where = options.get('name') or router
    if not options.get('object'):
        raise BadInput('The endpoint %s names no object: give the name of the route that the router %s is about.' % (where, router))
    rules, port = options.get('rules') or (), options.get('port')
    if isinstance(rules, str) or not isinstance(rules, t.Sequence):
        raise BadInput('The rules of endpoint %s must be a list of names.' % where)
    if options.get('kubeconfig'):
        check_path('kubeconfig of endpoint %s' % where, options['kubeconfig'])
    return KubeOptions(
        kubeconfig=options.get('kubeconfig') or None,
        context=check_token('context of endpoint %s' % where, options['context']) if options.get('context') else None,
        namespace=check_dns_name('namespace of endpoint %s' % where, options.get('namespace') or 'default'),
        object=check_dns_name('object of endpoint %s' % where, options['object']),
        kind=check_name('kind of endpoint %s' % where, options['kind']) if options.get('kind') else None,
        rules=tuple(check_name('rule of endpoint %s' % where, str(rule)) for rule in rules),
        port=None if port is None else check_port('port of endpoint %s' % where, port),
        lease_image=check_image('lease_image of endpoint %s' % where, options.get('lease_image') or LEASE_IMAGE),
        admin=tuple(check_url('admin of endpoint %s' % where, url).rstrip('/') for url in options.get('admin') or ()))


def _parse_condition(endpoint: str, raw: t.Mapping[str, t.Any]) -> tuple[str, str, str]:
    kinds = [kind for kind in MATCH_KINDS if raw.get(kind)]
    if len(kinds) != 1:
        raise BadInput('The match %r of endpoint %s must name either a header or a cookie.' % (dict(raw), endpoint))
    name = check_name('%s of the match' % kinds[0], raw[kinds[0]])
    return kinds[0], name.lower() if kinds[0] == 'header' else name, check_match_value(name, raw.get('value'))


def parse_arms(raw: t.Mapping[str, t.Any], endpoint: Endpoint | None = None) -> dict[str, Arm]:
    """Checks and returns the arms of a service, in the user's order, as *endpoint* has them. Raises BadInput.

    An arm without ``backend`` is the backend of its own name.
    """
    if not isinstance(raw, t.Mapping) or not raw:
        raise BadInput('The service has no arms: give a dictionary such as {blue: {backend: shop_blue}, canary: {backend: shop_canary}}.')
    local = endpoint.arms if endpoint else {}
    where = ' on %s' % endpoint.name if endpoint else ''
    strange = sorted(set(local) - set(raw))
    if strange:
        raise BadInput('The arm "%s"%s is not one of the service: its arms are %s.' % (strange[0], where, ', '.join(raw)))
    anywhere = tuple(dict.fromkeys(HAPROXY_ARM + KUBE_ARM + _ROLE_ARM))
    here = (KUBE_ARM if endpoint.kube else HAPROXY_ARM) if endpoint else anywhere
    return {name: _parse_arm(check_name('arm', name), ((value, anywhere), (local.get(name), here)), here, where)
            for name, value in raw.items()}


def _parse_arm(name: str, parts: t.Iterable[tuple[t.Any, t.Collection[str]]], here: t.Collection[str], where: str) -> Arm:
    """Returns the arm that *parts* make, later ones over earlier ones, each with the members it may have; only those *here* are kept."""
    merged: dict[str, t.Any] = {}
    for part, known in parts:
        if part is not None and not isinstance(part, t.Mapping):
            raise BadInput('The arm "%s"%s must be a dictionary with backend and servers, not %r.' % (name, where, part))
        unknown = sorted(set(part or {}) - set(known))
        if unknown:
            raise BadInput('The arm "%s"%s has the unknown option "%s": known are %s.' % (name, where, unknown[0], ', '.join(known)))
        merged.update({key: value for key, value in (part or {}).items() if value is not None and key in here})
    servers = merged.pop('servers', None) or ()
    if isinstance(servers, str) or not isinstance(servers, t.Sequence):
        raise BadInput('The servers of arm "%s"%s must be a list of names.' % (name, where))
    return Arm(name, check_name('backend of arm "%s"' % name, merged.pop('backend', name)),
               tuple(check_name('server of arm "%s"' % name, server) for server in servers), merged)
