# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the API server has about a Deployment, its pods, their events and logs, and what scales and guards it. I/O only."""

from __future__ import annotations

import asyncio
import json
import typing as t
from urllib.parse import quote

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError, Unreachable, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._kube import capacity, workload
from ansible_collections.progressive.delivery.plugins.module_utils._kube.client import Api
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref

# More pods with the same trouble have no more to say.
_PODS_ASKED_ABOUT = 3


class Namespace:
    """The workloads of one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    def ref(self, group: str, version: str, plural: str, name: str = '') -> Ref:
        return Ref(group, version, plural, self.namespace, name)

    def deployment_ref(self, name: str) -> Ref:
        return self.ref('apps', 'v1', 'deployments', name)

    def autoscaler_ref(self, name: str = '') -> Ref:
        return self.ref('autoscaling', 'v2', 'horizontalpodautoscalers', name)

    def where(self, name: str) -> str:
        return 'Deployment "%s" in namespace "%s"' % (name, self.namespace)

    async def deployment(self, name: str) -> Obj | None:
        return await self.api.get(self.deployment_ref(name))

    async def pods(self, deployment: Obj) -> list[Obj]:
        """Returns all pods that the Deployment's selector finds."""
        return await self._selected(self.ref('', 'v1', 'pods'), deployment)

    async def examine(self, deployment: Obj, wanted: int) -> workload.Status:
        """Returns how far the Deployment has come."""
        sets, pods = await asyncio.gather(self._selected(self.ref('apps', 'v1', 'replicasets'), deployment), self.pods(deployment))
        status = workload.examine(deployment, sets, pods, (), wanted)
        if status.done:
            return status
        current = workload.current_set(deployment, sets)
        behind = [pod for pod in workload.owned(pods, current) if not workload.is_ready(pod)] if current else []
        events = await asyncio.gather(*(self._events(pod) for pod in behind[:_PODS_ASKED_ABOUT]))
        return workload.examine(deployment, sets, pods, [event for some in events for event in some], wanted)

    async def read(self, name: str) -> capacity.Workload:
        """Returns the workload with what scales and guards it."""
        deployment = await self.deployment(name)
        if deployment is None:
            return capacity.workload(name, None, 0, (), ())
        pods, scalers, budgets = await asyncio.gather(
            self.pods(deployment), self._optional(self.autoscaler_ref()),
            self._optional(self.ref('policy', 'v1', 'poddisruptionbudgets')))
        return capacity.workload(name, deployment, sum(workload.is_ready(pod) for pod in pods), scalers, budgets)

    async def log_line(self, pod: str, container: str, previous: bool) -> str:
        """Returns the last line of a container's log that is not empty, '' when it cannot be had."""
        for before in (True, False) if previous else (False,):
            path = '%s/log?container=%s&tailLines=10&limitBytes=8192%s' % (
                self.ref('', 'v1', 'pods', pod).path, quote(container), '&previous=true' if before else '')
            try:
                answer = await self.api.within(min(self.api.deadline, 3.0)).request('GET', path)
            except DeliveryError:
                continue
            # A log of one line that is JSON was decoded.
            text = answer['message'] if isinstance(answer, dict) and list(answer) == ['message'] else json.dumps(answer) if answer else ''
            lines = [line for line in str(text).splitlines() if line.strip()]
            if lines:
                return lines[-1]
        return ''

    async def _selected(self, ref: Ref, deployment: Obj) -> list[Obj]:
        return await self.api.list(ref, labelSelector=selector_text(deployment['spec']['selector']))

    async def _events(self, pod: Obj) -> list[Obj]:
        """Returns the events of a pod; none when they cannot be had: they only explain."""
        try:
            return await self.api.list(self.ref('', 'v1', 'events'), fieldSelector='involvedObject.uid=' + pod['metadata']['uid'])
        except Unreachable:
            raise
        except DeliveryError:
            return []

    async def _optional(self, ref: Ref) -> list[Obj]:
        try:
            return await self.api.list(ref)
        except Unsupported:
            return []


def selector_text(selector: t.Mapping[str, t.Any]) -> str:
    """Returns a LabelSelector as the API's query wants it."""
    parts = ['%s=%s' % pair for pair in sorted((selector.get('matchLabels') or {}).items())]
    for item in selector.get('matchExpressions') or ():
        values = ','.join(sorted(item.get('values') or ()))
        parts.append({'In': '%s in (%s)', 'NotIn': '%s notin (%s)'}[item['operator']] % (item['key'], values) if item.get('values')
                     else ('' if item['operator'] == 'Exists' else '!') + item['key'])
    return ','.join(parts)
