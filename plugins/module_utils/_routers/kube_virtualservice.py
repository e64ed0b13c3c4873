# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The router ``virtualservice``: weights of an Istio VirtualService, with a lease that the gateways themselves keep. Pure.

``istio_rules.py`` has what becomes of its rules. The time that they ask for is put into
each request by an EnvoyFilter, one for all services of the mesh, which the first leased split creates in the mesh's root namespace.
It covers gateways and the outbound side of sidecars, overwrites what a client sends, and takes the header off again before the
request goes to a service.
"""

from __future__ import annotations

import copy
import re
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_dns_name, check_port
from ansible_collections.progressive.delivery.plugins.module_utils._routers import istio_routes
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Arm, Capabilities
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint
from ansible_collections.progressive.delivery.plugins.module_utils._routers.istio_deadline import HEADER, STAMP, deadline
from ansible_collections.progressive.delivery.plugins.module_utils._routers.istio_rules import Destination, Rules
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import (
    Accepted, Decoded, Instances, Objects, Plain, Wanted)
from ansible_collections.progressive.delivery.plugins.module_utils._split import Split

_GROUP = 'networking.istio.io'
_ROOT = 'istio-system'
_STAMP_NAME = 'progressive-delivery-now'
_OWNED = ('app.kubernetes.io/managed-by', 'progressive.delivery')
_IN_CLUSTER = re.compile(r'(?P<name>[a-z0-9-]+)(?:\.(?P<namespace>[a-z0-9-]+)\.svc(?:\.cluster\.local)?)?')
_ROUTE, _STAMP, _RULE = 'route', 'stamp', 'rule'


def _typed(name: str) -> str:
    return 'type.googleapis.com/envoy.extensions.' + name


def stamp_spec() -> Obj:
    """Returns the spec of the EnvoyFilter that puts the time into each request, and takes it off before the service."""
    mutation = {'append': {'header': {'key': HEADER, 'value': STAMP}, 'append_action': 'OVERWRITE_IF_EXISTS_OR_ADD'}}
    manager = {
        '@type': _typed('filters.network.http_connection_manager.v3.HttpConnectionManager'),
        'early_header_mutation_extensions': [{
            'name': 'envoy.http.early_header_mutation.header_mutation',
            'typed_config': {'@type': _typed('http.early_header_mutation.header_mutation.v3.HeaderMutation'), 'mutations': [mutation]}}]}
    filters = {'filterChain': {'filter': {'name': 'envoy.filters.network.http_connection_manager'}}}
    patches: list[Obj] = []
    for context in ('GATEWAY', 'SIDECAR_OUTBOUND'):
        patches += [
            {'applyTo': 'NETWORK_FILTER', 'match': {'context': context, 'listener': filters},
             'patch': {'operation': 'MERGE', 'value': {'typed_config': manager}}},
            {'applyTo': 'ROUTE_CONFIGURATION', 'match': {'context': context},
             'patch': {'operation': 'MERGE', 'value': {'request_headers_to_remove': [HEADER]}}}]
    return {'configPatches': patches}


class VirtualServiceCodec(Plain):
    """The codec of one VirtualService."""

    home = _ROUTE
    admin_path = istio_routes.DUMP
    servers_path = istio_routes.CLUSTERS

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm]) -> None:
        kube = t.cast(t.Any, endpoint.kube)
        self.name, self.service, self.arms = endpoint.name, service, arms
        self._ref = Ref(_GROUP, 'v1', 'virtualservices', kube.namespace, kube.object)
        root = check_dns_name('root_namespace of endpoint %s' % self.name, endpoint.options.get('root_namespace') or _ROOT)
        self._stamp = Ref(_GROUP, 'v1alpha3', 'envoyfilters', root, _STAMP_NAME)
        self._services: dict[str, tuple[str, str | None]] = {}
        destinations = {name: self._destination(arm, kube.namespace, kube.port) for name, arm in arms.items()}
        if len({str(one) for one in destinations.values()}) < len(destinations):
            raise BadInput('Two arms of %s have the same host and subset on %s: each arm is a "backend", or a "subset" of one.' % (
                service, self.name))
        self._rules = Rules(service, kube.namespace, destinations, kube.rules)
        self._destination_rule: Ref | None = None
        hosts = sorted({one.host for one in destinations.values() if one.subset})
        if hosts:
            rule = endpoint.options.get('destination_rule') or hosts[0].split('.')[0]
            self._destination_rule = Ref(_GROUP, 'v1', 'destinationrules', kube.namespace,
                                         check_dns_name('destination_rule of endpoint %s' % self.name, rule))
        if len(hosts) > 1:
            raise BadInput('The arms of %s on %s are subsets of several hosts (%s): one DestinationRule is about one host.' % (
                service, self.name, ', '.join(hosts)))

    def _destination(self, arm: Arm, namespace: str, port: int | None) -> Destination:
        what = ' of arm "%s" on %s' % (arm.name, self.name)
        host = check_dns_name('backend' + what, arm.backend)
        subset = check_dns_name('subset' + what, arm.ref['subset']) if arm.ref.get('subset') else None
        found = _IN_CLUSTER.fullmatch(host)
        if found:
            self._services[arm.name] = found.group('name'), found.group('namespace')
        return Destination(host, subset, check_port('port' + what, arm.ref['port']) if arm.ref.get('port') else port)

    def refs(self) -> dict[str, Wanted]:
        wanted = {_ROUTE: Wanted(self._ref), _STAMP: Wanted(self._stamp, False, ('create', 'patch'))}
        if self._destination_rule:
            wanted[_RULE] = Wanted(self._destination_rule, False)
        return wanted

    def capabilities(self) -> Capabilities:
        return Capabilities(arms=len(self.arms), unit='0.01 %', matches=(('header', '*', '*'), ('cookie', '*', '*')), sticky=('none',),
                            verify=('L0',), native_lease=True, mirror='0.01 %')

    def decode(self, objects: Objects) -> Decoded:
        route = objects[_ROUTE] or {}
        spec = route.get('spec') or {}
        found = self._rules.read(spec.get('http') or [])
        stamp = objects.get(_STAMP)
        problems, notes = list(found.problems) + self._missing(objects), []
        if stamp is not None and not _is_ours(stamp):
            problems.append('The %s is not ours (it has no label %s=%s): rename it.' % (self._stamp, *_OWNED))
        if not spec.get('hosts'):
            notes.append('The VirtualService "%s" is a delegate: what its rules do depends on the one that delegates to it, and Istio '
                         'ignores, without a word, rules that do not fit.' % self._ref.name)
        return Decoded(found.weights, found.unknown, found.matches, mirror=found.mirror, stable=found.stable,
                       uniform=found.uniform and (not found.leased or _stamps(stamp)), problems=tuple(problems), notes=tuple(notes),
                       settled=(_STAMP,) if _stamps(stamp) else ())

    def _missing(self, objects: Objects) -> list[str]:
        """Sentences on subsets that are not there: Istio answers 503 for them."""
        if self._destination_rule is None:
            return []
        rule = objects.get(_RULE)
        if rule is None:
            return ['The arms of %s on %s are subsets, and the %s is not there: create it, or name it as "destination_rule".' % (
                self.service, self.name, self._destination_rule)]
        subsets = _subsets(rule)
        return ['The subset "%s" of arm "%s" is not in the %s: it has %s.' % (
            one.subset, arm, self._destination_rule, ', '.join(sorted(subsets)) or 'none')
            for arm, one in self._rules.arms.items() if one.subset and one.subset not in subsets]

    def encode(self, objects: Objects, split: Split, deadline_s: float | None = None) -> dict[str, Obj | None]:
        if split.sticky != 'none':
            raise Unsupported('Istio draws the arm of each request anew: %s cannot keep users on theirs; use a match on a cookie.' % (
                self.name))
        changes: dict[str, Obj | None] = {}
        if split.partial:
            changes.update(self._stamping(objects.get(_STAMP)))
        route = copy.deepcopy(t.cast(Obj, objects[_ROUTE]))
        http = (route.get('spec') or {}).get('http') or []
        # A plan is made before the deadline is known; what it shows is over already.
        limit = 1 if deadline_s is None else deadline(deadline_s)
        route.setdefault('spec', {})['http'] = self._rules.write(http, split, limit)
        changes[_ROUTE] = route
        return changes

    def _stamping(self, stamp: Obj | None) -> dict[str, Obj | None]:
        if _stamps(stamp):
            return {}
        new = copy.deepcopy(stamp) if stamp else {
            'apiVersion': '%s/%s' % (_GROUP, self._stamp.version), 'kind': 'EnvoyFilter',
            'metadata': {'name': self._stamp.name, 'namespace': self._stamp.namespace, 'labels': dict([_OWNED])}}
        return {_STAMP: {**new, 'spec': stamp_spec()}}

    def instances(self, objects: Objects) -> dict[str, Instances]:
        # Of a host outside the cluster nothing can be counted.
        subsets = _subsets(objects.get(_RULE))
        return {arm: Instances(service, subsets.get(self._rules.arms[arm].subset or '', {}), namespace)
                for arm, (service, namespace) in self._services.items()}

    def accepted(self, objects: Objects) -> Accepted:
        # Istio writes no status unless its analysis is switched on (PILOT_ENABLE_ANALYSIS).
        return Accepted(None, 'Istio does not say whether it has taken the VirtualService')

    def unseen(self, objects: Objects, told: t.Any) -> str:
        http = ((objects[_ROUTE] or {}).get('spec') or {}).get('http') or []
        return istio_routes.difference(istio_routes.wanted(http, self._rules.full), istio_routes.shown(
            told, self._ref.namespace, self._ref.name))

    def unserved(self, split: Split, told: t.Any) -> str:
        arms = {arm for arm, bp in split.arms if bp} | {match.arm for match in split.matches}
        arms |= {split.mirror.arm} if split.mirror else set()
        targets = [(self._rules.full(one.host), one.subset or '') for arm, one in self._rules.arms.items() if arm in arms]
        return istio_routes.unserved(targets, told)


def _is_ours(stamp: Obj) -> bool:
    key, value = _OWNED
    return (stamp['metadata'].get('labels') or {}).get(key) == value


def _stamps(stamp: Obj | None) -> bool:
    return stamp is not None and stamp.get('spec') == stamp_spec()


def _subsets(rule: Obj | None) -> dict[str, dict[str, str]]:
    found = ((rule or {}).get('spec') or {}).get('subsets') or []
    return {str(one.get('name')): dict(one.get('labels') or {}) for one in found}
