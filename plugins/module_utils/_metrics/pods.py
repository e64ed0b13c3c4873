# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the Kubernetes API says of the pods of an arm: how many are ready, restarts, OOM kills, crash loops, CPU and memory.

Restarts and OOM kills are those since the watch began, also of pods that came later or are gone again. A pod is one of the arm's
while it is not being deleted. CPU and memory come from metrics.k8s.io (metrics-server) where the cluster serves that, which looks
every 15 s or so; they are the part of their limits that the pod uses that uses most.
"""

from __future__ import annotations

import asyncio
import re
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._kube.client import Api
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import base
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import Instances

Find = t.Callable[[], t.Awaitable[t.Mapping[str, Instances]]]

GAUGES: dict[str, t.Callable[[t.Iterable[float]], float]] = {
    'servers_total': max, 'servers_up': min, 'servers_up_ratio': min, 'servers_down': max, 'ready_ratio': min,
    'restarts': max, 'oom_kills': max, 'crash_loops': max, 'cpu_ratio': max, 'memory_ratio': max,
}
"""Gauges, and how those of several endpoints become one: as the endpoint sees the arm that sees it worst."""

_EVERY_S = 1.0
_FIND_EVERY_S = 10.0
_USAGE_EVERY_S = 10.0
_SUFFIX = {'n': 1e-9, 'u': 1e-6, 'm': 1e-3, '': 1.0, 'k': 1e3, 'M': 1e6, 'G': 1e9, 'T': 1e12, 'P': 1e15, 'E': 1e18,
           'Ki': 2.0 ** 10, 'Mi': 2.0 ** 20, 'Gi': 2.0 ** 30, 'Ti': 2.0 ** 40, 'Pi': 2.0 ** 50, 'Ei': 2.0 ** 60}
_QUANTITY = re.compile(r'([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([numkMGTPE]|[KMGTPE]i)?')


def quantity(text: object) -> float | None:
    """Returns the number that a Kubernetes quantity (``250m``, ``64Mi``) stands for; None for anything else."""
    found = _QUANTITY.fullmatch(str(text))
    return float(found[1]) * _SUFFIX[found[2] or ''] if found else None


@dataclass
class Tally:
    """What the containers of one arm have gone through since the watch began. Pure."""

    restarts: int = 0
    oom_kills: int = 0
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)
    _killed: set[tuple[str, str, str]] = field(default_factory=set)
    _begun: bool = False

    def take(self, pods: t.Iterable[Obj]) -> dict[str, float]:
        """Takes in the arm's pods as they are now and returns the gauges."""
        here = [pod for pod in pods if not pod['metadata'].get('deletionTimestamp')
                and (pod.get('status') or {}).get('phase') not in ('Succeeded', 'Failed')]
        loops = 0
        for pod in here:
            status = pod.get('status') or {}
            for one in [*(status.get('containerStatuses') or ()), *(status.get('initContainerStatuses') or ())]:
                self._container(pod['metadata'].get('uid', ''), one)
                loops += ((one.get('state') or {}).get('waiting') or {}).get('reason') == 'CrashLoopBackOff'
        self._begun = True
        up = sum(ready(pod) for pod in here)
        gauges: dict[str, float] = {
            'servers_total': len(here), 'servers_up': up, 'servers_down': len(here) - up, 'restarts': self.restarts,
            'oom_kills': self.oom_kills, 'crash_loops': loops}
        if here:
            gauges['servers_up_ratio'] = gauges['ready_ratio'] = up / len(here)
        return gauges

    def _container(self, uid: str, one: Obj) -> None:
        key, count = (uid, str(one.get('name'))), int(one.get('restartCount') or 0)
        before = self._counts.get(key, 0 if self._begun else count)
        self.restarts += max(count - before, 0)
        self._counts[key] = count
        for state in (one.get('state') or {}), (one.get('lastState') or {}):
            ended = state.get('terminated') or {}
            mark = (*key, str(ended.get('containerID') or ended.get('finishedAt')))
            if ended.get('reason') == 'OOMKilled' and mark not in self._killed:
                self._killed.add(mark)
                self.oom_kills += self._begun


def ready(pod: Obj) -> bool:
    return any(one.get('type') == 'Ready' and one.get('status') == 'True' for one in (pod.get('status') or {}).get('conditions') or ())


def used(pods: t.Iterable[Obj], usages: t.Iterable[Obj]) -> dict[str, float]:
    """Returns ``cpu_ratio`` and ``memory_ratio`` of the pods, as far as containers have limits and a usage is known."""
    measured = {usage['metadata']['name']: {one['name']: one.get('usage') or {} for one in usage.get('containers') or ()}
                for usage in usages}
    worst: dict[str, float] = {}
    for pod in pods:
        for container in (pod.get('spec') or {}).get('containers') or ():
            limits = (container.get('resources') or {}).get('limits') or {}
            usage = measured.get(pod['metadata']['name'], {}).get(container['name'], {})
            for kind in ('cpu', 'memory'):
                limit, value = quantity(limits.get(kind)), quantity(usage.get(kind))
                if limit and value is not None:
                    worst[kind + '_ratio'] = max(worst.get(kind + '_ratio', 0.0), value / limit)
    return worst


class PodsSource:
    """Source of gauges of the arms' pods. *find* says how the instances of each arm are counted; *namespace* is the route's."""

    quick = True

    def __init__(self, endpoint: str, api: Api, namespace: str, find: Find, clock: t.Callable[[], float] = time.monotonic) -> None:
        self.name = endpoint
        self._api, self._namespace, self._find, self._clock = api, namespace, find, clock
        self._selectors: dict[str, tuple[str, str]] = {}
        self._found: float | None = None
        self._asked: float | None = None
        self._used: float | None = None
        self._usage = True
        self._tallies: dict[str, Tally] = {}
        self._gauges: dict[tuple[str, str], float] = {}
        self._ratios: dict[tuple[str, str], float] = {}

    @property
    def metrics(self) -> dict[str, str]:
        return dict.fromkeys(GAUGES, base.GAUGE)

    async def open(self) -> None:
        """Raises DeliveryError when the route, a Service or the right to read them is not there."""
        try:
            await self._look_up(self._clock())
        except Unreachable:
            # It may answer later; each poll says so until then.
            pass

    async def close(self) -> None:
        """There is nothing to close."""

    async def poll(self, now: float) -> base.Reading:
        if self._asked is not None and now - self._asked < _EVERY_S:
            return base.Reading((), {**self._gauges, **self._ratios})
        notes: list[str] = []
        try:
            if self._found is None or now - self._found >= _FIND_EVERY_S:
                await self._look_up(now)
            pods = dict(zip(self._selectors, await asyncio.gather(*(
                self._api.list(Ref('', 'v1', 'pods', namespace, ''), labelSelector=selector)
                for namespace, selector in self._selectors.values()))))
        except DeliveryError as exc:
            return base.Reading((), {}, (str(exc),))
        self._asked = now
        self._gauges = {(metric, arm): value for arm, own in pods.items()
                        for metric, value in self._tallies.setdefault(arm, Tally()).take(own).items()}
        if self._usage and (self._used is None or now - self._used >= _USAGE_EVERY_S):
            self._used = now
            notes += await self._measure(pods)
        return base.Reading((), {**self._gauges, **self._ratios}, (), tuple(notes))

    async def _look_up(self, now: float) -> None:
        """Finds out by which labels the pods of each arm are known."""
        selectors = {}
        for arm, one in (await self._find()).items():
            namespace, labels = one.namespace or self._namespace, dict(one.labels)
            if one.service:
                service = await self._api.get(Ref('', 'v1', 'services', namespace, one.service))
                labels = {**((service or {}).get('spec', {}).get('selector') or {}), **labels}
            if labels:
                selectors[arm] = (namespace, ','.join('%s=%s' % pair for pair in sorted(labels.items())))
        self._selectors, self._found = selectors, now

    async def _measure(self, pods: t.Mapping[str, t.Sequence[Obj]]) -> list[str]:
        try:
            usages = await asyncio.gather(*(
                self._api.list(Ref('metrics.k8s.io', 'v1beta1', 'pods', namespace, ''), labelSelector=selector)
                for namespace, selector in self._selectors.values()))
        except DeliveryError as exc:
            self._ratios = {}
            if isinstance(exc, Unreachable):
                return []
            self._usage = False
            return ['CPU and memory of the pods behind %s are not known, ask Prometheus for them: %s' % (self.name, exc)]
        self._ratios = {(metric, arm): value for arm, usage in zip(self._selectors, usages)
                        for metric, value in used(pods[arm], usage).items()}
        return []
