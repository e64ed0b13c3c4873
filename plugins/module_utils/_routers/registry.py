# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The one table that names the routers."""

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Router
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint, parse_arms, parse_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._routers.haproxy_map import HaproxyMap
from ansible_collections.progressive.delivery.plugins.module_utils._routers.haproxy_weights import HaproxyWeights
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_httproute import HttpRouteCodec
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_ingress import CanaryIngressCodec
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_replicas import ReplicasCodec
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_router import KubeRouter
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_selector import ServiceSelectorCodec
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_virtualservice import VirtualServiceCodec
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_weights import WeightsCodec

_ROUTERS: dict[str, t.Callable[..., Router]] = {'haproxy_map': HaproxyMap, 'haproxy_weights': HaproxyWeights}
_CODECS: dict[str, t.Any] = {
    'httproute': HttpRouteCodec, 'weights': WeightsCodec, 'virtualservice': VirtualServiceCodec, 'ingress_nginx': CanaryIngressCodec,
    'service_selector': ServiceSelectorCodec, 'replicas': ReplicasCodec}


def build(endpoint: Endpoint, service: str, arms: t.Mapping[str, t.Any]) -> Router:
    """Returns the router of *endpoint* for *service*, *arms* as the user wrote them. Raises BadInput."""
    own = parse_arms(arms, endpoint)
    if endpoint.router in _CODECS:
        return KubeRouter(endpoint, service, own, _CODECS[endpoint.router])
    return _ROUTERS[endpoint.router](endpoint, service, own)


def build_all(endpoints: t.Sequence[t.Mapping[str, t.Any]], service: str, arms: t.Mapping[str, t.Any]) -> list[Router]:
    """Returns a router for each element of an ``endpoints`` option. Raises BadInput."""
    return [build(endpoint, service, arms) for endpoint in parse_endpoints(endpoints)]
