# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A route of a cluster as a source of observations: what its data plane counts, and how the pods behind it are."""

from __future__ import annotations

import asyncio
import re
import typing as t
from urllib.parse import urlsplit

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError, Refused, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._kube import client
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Ref
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import base, web
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.planes import PLANES, Backend, Plane, exactly, patterns
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.pods import PodsSource
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.scrape import Fetch, ScrapeSource, gather
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.several import joined
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_dns_name, check_port
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_router import KubeRouter

NONE = 'none'
"""Kind of metrics that says: another source counts these requests."""

_AT_ONCE = 8
_UNTOLD = ('service_selector', 'replicas')
"""Routers whose arms are behind one Service, so that a data plane counts them together."""
_PATH = re.compile(r'/[A-Za-z0-9_./-]{0,200}')
_LABEL = re.compile(r'[A-Za-z0-9]([A-Za-z0-9_./-]{0,250}[A-Za-z0-9])?')


class KubeSource:
    """Source of observations of one route. Raises BadInput for wrong ``metrics`` of *endpoint*."""

    quick = True

    def __init__(self, endpoint: Endpoint, router: KubeRouter) -> None:
        self.name = endpoint.name
        self._endpoint, self._router = endpoint, router
        where = endpoint.kube
        if where is None:
            raise BadInput('The endpoint %s is no route of a cluster.' % endpoint.name)
        self._api = client.connect(where.kubeconfig, where.context, endpoint.deadline)
        self._parts: list[t.Any] = [PodsSource(endpoint.name, self._api, where.namespace, router.instances)]
        self._web: web.Client | None = None
        options = {key: value for key, value in (endpoint.options.get('metrics') or {}).items() if value is not None}
        self.kind = options.get('kind', '')
        if options and self.kind not in (*PLANES, NONE):
            raise BadInput('The kind "%s" of the metrics of endpoint %s is not known: use %s.' % (
                self.kind, self.name, ', '.join((*PLANES, NONE))))
        self._plane = PLANES.get(self.kind)
        if self._plane:
            self._fetch = self._read(options, self._plane)
            self._names = options.get('names') or {}
            if not isinstance(self._names, t.Mapping) or set(self._names) - set(router.arms):
                raise BadInput('The names in the metrics of endpoint %s must be a dictionary of arms and lists of names.' % self.name)
            if endpoint.router in _UNTOLD and not self._names:
                raise BadInput('The endpoint %s has metrics, and with the router %s all arms are behind one Service, which a data plane '
                               'counts as one: use a source prometheus with metrics of the pods, and metrics of kind "none".' % (
                                   self.name, endpoint.router))

    @property
    def counts(self) -> bool:
        """Whether requests are counted."""
        return self._plane is not None

    @property
    def metrics(self) -> dict[str, str]:
        scraped = {base.REQUESTS: base.COUNTS, base.LATENCY: base.LATENCIES} if self._plane else {}
        return {**scraped, **self._parts[0].metrics}

    def _read(self, options: t.Mapping[str, t.Any], plane: Plane) -> Fetch:
        """Returns what fetches the metrics of every process of the data plane."""
        urls, pods = options.get('urls'), options.get('pods')
        if not urls and not pods:
            urls = t.cast(t.Any, self._endpoint.kube).admin
        if bool(urls) == bool(pods):
            raise BadInput('The metrics of endpoint %s need either urls, one of each process of the data plane, or pods.' % self.name)
        if urls:
            if isinstance(urls, str) or not isinstance(urls, t.Sequence):
                raise BadInput('The urls in the metrics of endpoint %s must be a list.' % self.name)
            whole = [web.check_url('url in the metrics of endpoint %s' % self.name, url) for url in urls]
            self._web = web.Client(web.Access(use_proxy=False), _AT_ONCE)
            return lambda: gather({url: self._get(url if urlsplit(url).path.strip('/') else url.rstrip('/') + plane.path) for url in whole})
        where = self._pods(pods, plane)
        return lambda: self._from_pods(*where)

    def _pods(self, pods: t.Any, plane: Plane) -> tuple[str, str, int, str]:
        what = 'in the metrics of endpoint %s' % self.name
        known = {'namespace', 'labels', 'port', 'path'}
        if not isinstance(pods, t.Mapping) or set(pods) - known or not isinstance(pods.get('labels'), t.Mapping) or not pods['labels']:
            raise BadInput('The pods %s must have labels (a dictionary) and port, and may have namespace and path.' % what)
        for text in [*pods['labels'], *pods['labels'].values()]:
            if not _LABEL.fullmatch(str(text)):
                raise BadInput('The label %r of the pods %s is not one.' % (text, what))
        path = pods.get('path') or plane.path
        if not _PATH.fullmatch(str(path)):
            raise BadInput('The path %r of the pods %s is not usable.' % (path, what))
        own = t.cast(t.Any, self._endpoint.kube).namespace
        return (check_dns_name('namespace of the pods ' + what, pods.get('namespace') or own),
                ','.join('%s=%s' % pair for pair in sorted(pods['labels'].items())),
                check_port('port of the pods ' + what, pods.get('port')), path)

    async def _get(self, url: str) -> str:
        answer = await t.cast(web.Client, self._web).fetch(url, self._endpoint.deadline)
        if answer.status != 200:
            raise Refused('%s answered with HTTP %d: there are the metrics of %s expected.' % (url, answer.status, self.name))
        return answer.body.decode('utf-8', 'replace')

    async def _from_pods(self, namespace: str, selector: str, port: int, path: str) -> t.Mapping[str, str | DeliveryError]:
        """Asks every running pod of the data plane through the API server."""
        async def one(name: str) -> str:
            found = await self._api.request('GET', '/api/v1/namespaces/%s/pods/%s:%d/proxy%s' % (namespace, name, port, path))
            if found is None:
                raise Refused('The pod "%s" in namespace "%s" has nothing at port %d and path %s.' % (name, namespace, port, path))
            return str(found.get('message', ''))

        try:
            pods = await self._api.list(Ref('', 'v1', 'pods', namespace, ''), labelSelector=selector, fieldSelector='status.phase=Running')
        except DeliveryError as exc:
            return {namespace: exc}
        names = [pod['metadata']['name'] for pod in pods if not pod['metadata'].get('deletionTimestamp')]
        if not names:
            return {namespace: Refused('There is no running pod with %s in namespace "%s", so nothing counts the requests of %s.' % (
                selector, namespace, self.name))}
        return await gather({name: one(name) for name in names})

    async def open(self) -> None:
        """Raises DeliveryError for what cannot ever work."""
        await self._parts[0].open()
        try:
            await self._begin()
        except Unreachable:
            # It may answer later; each poll says so until then.
            pass

    async def _begin(self) -> None:
        """Finds out what the data plane calls the requests of each arm, once."""
        if self._plane is None or len(self._parts) > 1:
            return
        where = t.cast(t.Any, self._endpoint.kube)
        backends = {}
        for arm, one in (await self._router.instances()).items():
            subset = self._router.arms[arm].ref.get('subset') or ''
            backends[arm] = Backend(one.namespace or where.namespace, one.service or self._router.arms[arm].backend, str(subset))
        made = patterns(self.kind, self._endpoint, backends, await self._canary())
        made.update({arm: exactly(map(str, names)) for arm, names in self._names.items()})
        scraped = ScrapeSource(self.name, self._plane, made, self._fetch)
        await scraped.open()
        self._parts.append(scraped)

    async def _canary(self) -> str | None:
        """Returns the arm that the canary Ingress leads to now, by weight or by match: its requests do not bear the name of its Service."""
        if self._endpoint.router != 'ingress_nginx':
            return None
        split = (await self._router.read()).split
        if split is None:
            return None
        return next((arm for arm, share in split.candidates if share), None) or next((match.arm for match in split.matches), None)

    async def poll(self, now: float) -> base.Reading:
        failed = []
        try:
            await self._begin()
        except DeliveryError as exc:
            failed.append(base.Reading(errors=(str(exc),)))
        return joined([*await asyncio.gather(*(part.poll(now) for part in self._parts)), *failed], {})

    async def close(self) -> None:
        if self._web:
            self._web.close()
