# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The one table of sources of observations: builds each from what a user wrote."""

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import haproxy, http, pods, prometheus
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Source
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.haproxy import HaproxySource
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.kube import KubeSource
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.several import SeveralSource
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name
from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry as routers
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import (
    Endpoint, haproxy_endpoints, parse_arms, parse_endpoints)

ROUTER = 'router'
"""Name of the source that the endpoints themselves are."""


def _prometheus(name: str, options: t.Mapping[str, t.Any], scope: 'Scope') -> Source:
    return prometheus.PrometheusSource(name, options, scope.placeholders())


def _http(name: str, options: t.Mapping[str, t.Any], scope: 'Scope') -> Source:
    return http.HttpSource(name, options, scope.arms)


# Type: its options, and what builds it.
SOURCES: dict[str, tuple[tuple[str, ...], t.Callable[[str, t.Mapping[str, t.Any], 'Scope'], Source]]] = {
    'prometheus': (prometheus.OPTIONS, _prometheus),
    'http': (http.OPTIONS, _http),
}


class Scope(t.NamedTuple):
    """What sources may refer to. *versions* are those of the arms, as far as they are known."""

    service: str
    arms: t.Mapping[str, t.Any]
    versions: t.Mapping[str, str]

    def placeholders(self) -> dict[str, dict[str, str]]:
        """Returns the values of each arm that a query may name; the backend is that of the service's arms."""
        return {name: prometheus.checked({
            'arm': name, 'backend': arm.backend, 'version': self.versions.get(name), 'service': self.service,
        }) for name, arm in parse_arms(self.arms).items()}


def build(name: str, options: t.Mapping[str, t.Any], scope: Scope) -> Source:
    """Returns the source *name* from *options*, ``{type: ..., ...}``. Raises BadInput with a sentence that names what to mend."""
    check_name('source', name)
    if name == ROUTER:
        raise BadInput('The name "%s" is taken: it is the source that the endpoints themselves are.' % ROUTER)
    if not isinstance(options, t.Mapping):
        raise BadInput('The source "%s" must be a dictionary with type and its options.' % name)
    kind = options.get('type', name)
    if kind not in SOURCES:
        raise BadInput('The source "%s" has the unknown type "%s": known are %s.' % (name, kind, ', '.join(sorted(SOURCES))))
    known, make = SOURCES[kind]
    given = {key: value for key, value in options.items() if key != 'type' and value is not None}
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise BadInput('The source "%s" has the unknown option "%s": those of type %s are %s.' % (
            name, unknown[0], kind, ', '.join(sorted(known))))
    return make(name, given, scope)


def _endpoints(service: str, arms: t.Mapping[str, t.Any], endpoints: t.Sequence[Endpoint]) -> Source:
    """Returns the one source that all endpoints are. Raises BadInput when some of them would count requests and others not."""
    processes = haproxy_endpoints(endpoints)
    own = [HaproxySource(ROUTER, processes, lambda endpoint: parse_arms(arms, endpoint))] if processes else []
    if len(processes) == len(endpoints):
        return own[0]
    routes = [KubeSource(endpoint, routers.build(endpoint, service, arms)) for endpoint in endpoints if endpoint.kube]
    blind = [route.name for route in routes if not route.kind]
    if blind and (own or len(blind) < len(routes)):
        raise BadInput('The endpoint %s has no "metrics", and other endpoints count requests: a candidate could be bad there and nobody '
                       'would see it. Say how its data plane is observed (kind traefik or envoy), or kind none when another source counts '
                       'its requests.' % blind[0])
    return SeveralSource(ROUTER, [*own, *routes], {**haproxy.WORST, **pods.GAUGES})


def build_sources(service: str, arms: t.Mapping[str, t.Any], endpoints: t.Sequence[t.Mapping[str, t.Any]],
                  sources: t.Mapping[str, t.Any], versions: t.Mapping[str, str] | None = None) -> list[Source]:
    """Returns every source: the router first, where there are endpoints, then those of *sources* in order.

    All are as a user wrote them; *versions* are those of the arms, as far as they are known. Raises BadInput.
    """
    if not isinstance(sources, t.Mapping):
        raise BadInput('The sources must be a dictionary of names and options.')
    scope = Scope(check_name('service', service), arms, dict(versions or {}))
    built: list[Source] = []
    if endpoints:
        built.append(_endpoints(service, arms, parse_endpoints(endpoints)))
    return built + [build(name, options, scope) for name, options in sources.items()]
