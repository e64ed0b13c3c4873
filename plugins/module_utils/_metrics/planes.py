# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What data planes of Kubernetes call the requests of an arm in their own metrics. Pure.

Tried on the data planes of ``cluster/`` (Traefik 3.7, Contour 1.33 and istiod with Envoy 1.40):
- Traefik counts under the name of the *service* that it makes of a route: ``httproute-NAMESPACE-ROUTE-gw-...-svc-NAMESPACE-SERVICE-N@
  kubernetesgateway``, ``NAMESPACE-SERVICE-PORT@kubernetescrd``, and of the canary annotations of ingress-nginx
  ``NAMESPACE-INGRESS-SERVICE-PORT@kubernetesingressnginx`` for the main Ingress and the same with ``-canary`` for the other one;
- Envoy counts by cluster: ``NAMESPACE_SERVICE_PORT`` (Contour), ``outbound|PORT|SUBSET|HOST;`` (Istio). Without the tags that Istio's own
  images bring along, it takes what follows the host's first dot for a part of the metric's name: ``envoy_cluster_NAMESPACE_svc_
  cluster_local__upstream_rq{envoy_cluster_name="outbound|PORT|SUBSET|SERVICE"}``. Its histograms grow when it
  flushes them, every 5 s unless ``stats_flush_interval`` says otherwise; its counters at once. Of a request that was retried it counts
  the last answer in ``upstream_rq`` and each try in ``upstream_rq_total``; answers it makes itself because nobody answered count.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint


@dataclass(frozen=True)
class Plane:
    """The metrics of one kind of data plane."""

    requests: str
    """Counter of finished requests."""
    code: str
    """Its label with the status of the answer."""
    of: str
    """The label that tells whose requests they are, of all metrics."""
    buckets: str
    """The histogram of latencies."""
    unit_ms: float
    """What its edges count in."""
    started: str
    """Gauge that tells one start of the process from another."""
    rises: bool
    """Whether that gauge rises while the process lives: seconds since its start; else it is the time of the start."""
    path: str
    """Where the metrics are."""
    begun: str | None = None
    """Counter of tries that began, of those that last (``active``) too."""
    active: str | None = None

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for name in (self.requests, self.buckets, self.started, self.begun, self.active) if name)


PLANES = {
    'traefik': Plane('traefik_service_requests_total', 'code', 'service', 'traefik_service_request_duration_seconds_bucket', 1000.0,
                     'process_start_time_seconds', False, '/metrics'),
    'envoy': Plane('envoy_cluster_upstream_rq', 'envoy_response_code', 'envoy_cluster_name', 'envoy_cluster_upstream_rq_time_bucket', 1.0,
                   'envoy_server_uptime', True, '/stats/prometheus', 'envoy_cluster_upstream_rq_total', 'envoy_cluster_upstream_rq_active'),
}


@dataclass(frozen=True)
class Backend:
    """What receives the requests of an arm behind a route."""

    namespace: str
    service: str
    subset: str = ''


# What follows the first dot of an Istio cluster's host, with every other sign an underscore; the ';' behind it is one, too.
_TORN = re.compile(r'^envoy_cluster_(?P<rest>[a-zA-Z0-9_]+?)__(?P<metric>upstream_rq(?:_total|_active|_time_bucket)?)'
                   r'\{(?P<before>[^\n]*?)envoy_cluster_name="(?P<name>outbound\|[^"\n]*)"', re.M)


def mended(text: str) -> str:
    """Returns metrics with the names of Istio's clusters in one piece, as ``outbound|80||web.shop_svc_cluster_local``."""
    if '__upstream_rq' not in text:
        return text
    return _TORN.sub(r'envoy_cluster_\g<metric>{\g<before>envoy_cluster_name="\g<name>.\g<rest>"', text)


def patterns(kind: str, endpoint: Endpoint, arms: t.Mapping[str, Backend], candidate: str | None = None) -> dict[str, t.Pattern[str]]:
    """Returns what matches the whole name of each arm's requests. *candidate* is the arm that a canary Ingress leads to; None for the
    other one of two."""
    made = _envoy if kind == 'envoy' else _traefik
    return {arm: re.compile('|'.join(made(endpoint, arm, arms, candidate))) for arm in arms}


def exactly(names: t.Iterable[str]) -> t.Pattern[str]:
    """Returns what matches *names* and nothing else."""
    return re.compile('|'.join(re.escape(name) for name in names))


def _envoy(_endpoint: Endpoint, arm: str, arms: t.Mapping[str, Backend], _candidate: str | None) -> list[str]:
    backend = arms[arm]
    namespace, service = re.escape(backend.namespace), re.escape(backend.service)
    if '.' in backend.service:
        first, rest = backend.service.split('.', 1)
        hosts = [service, r'%s\.%s' % (first, re.sub('[^A-Za-z0-9]', '_', rest))]
    else:
        hosts = [r'%s\.%s\.svc\.[a-z0-9.-]+' % (service, namespace),
                 r'%s\.%s_svc_[a-z0-9_]+' % (service, backend.namespace.replace('-', '_'))]
    return [r'outbound\|\d+\|%s\|(?:%s);?' % (re.escape(backend.subset), '|'.join(hosts)), r'%s_%s_\d+' % (namespace, service),
            r'%s/%s/\d+/[0-9a-f]+' % (namespace, service)]


def _traefik(endpoint: Endpoint, arm: str, arms: t.Mapping[str, Backend], candidate: str | None) -> list[str]:
    where, backend = endpoint.kube, arms[arm]
    if where is None:
        return []
    namespace, route = re.escape(where.namespace), re.escape(where.object)
    if endpoint.router == 'httproute':
        return [r'(?:http|grpc)route-%s-%s-gw-.+-svc-%s-%s-\d+@kubernetesgateway' % (
            namespace, route, re.escape(backend.namespace), re.escape(backend.service))]
    if endpoint.router == 'ingress_nginx':
        made = [r'%s-%s-%s-[a-z0-9]+@kubernetesingressnginx' % (namespace, route, re.escape(backend.service))]
        others = [re.escape(other.service) for name, other in arms.items() if name != arm]
        if arm == candidate if candidate else len(others) == 1:
            # The canary's requests are counted under the Service of the main Ingress, which is another arm's.
            made.append(r'%s-%s-(?:%s)-[a-z0-9]+-canary@kubernetesingressnginx' % (namespace, route, '|'.join(others)))
        return made
    return [r'%s-%s-[a-z0-9]+@kubernetescrd' % (re.escape(backend.namespace), re.escape(backend.service))]
