# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a plan needs to know besides the objects of a route: whether the arms' Services are there, and who is ready behind them."""

from __future__ import annotations

import asyncio
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._kube.client import Api
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Arm
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import KubeOptions
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import Instances
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_plan import Facts


async def read(api: Api, where: KubeOptions, arms: t.Mapping[str, Arm], instances: t.Mapping[str, Instances], endpoint: str) -> Facts:
    """Returns the facts; what cannot be read is a problem for a change, and none for a way back. Never raises DeliveryError."""
    try:
        found = await asyncio.gather(*(_arm(api, where, arms[name], one, endpoint) for name, one in instances.items()))
    except DeliveryError as exc:
        return Facts(problems=(str(exc),))
    counted = dict(zip(instances, found))
    return Facts(usable={name: count for name, (count, _missing) in counted.items()},
                 missing={name: missing for name, (_count, missing) in counted.items() if missing})


async def _arm(api: Api, where: KubeOptions, arm: Arm, instances: Instances, endpoint: str) -> tuple[int, str]:
    """Returns how many can serve the arm, and a sentence on what of it is not there."""
    namespace = instances.namespace or where.namespace
    if instances.service is None:
        return (await _pods(api, namespace, instances.labels) if instances.labels else 0), ''
    service, slices = await asyncio.gather(
        api.get(Ref('', 'v1', 'services', namespace, instances.service)),
        api.list(Ref('discovery.k8s.io', 'v1', 'endpointslices', namespace, ''),
                 labelSelector='kubernetes.io/service-name=' + instances.service))
    if service is None:
        return 0, 'The Service "%s" of arm "%s" does not exist in namespace "%s"%s: correct "arms" of %s, or create it.' % (
            instances.service, arm.name, namespace, await no_namespace(api, namespace), endpoint)
    ports = [port.get('port') for port in service.get('spec', {}).get('ports') or ()]
    port = arm.ref.get('port', where.port)
    if port is not None and port not in ports and service.get('spec', {}).get('type') != 'ExternalName':
        return 0, 'The Service "%s" of arm "%s" in namespace "%s" has no port %s: it has %s.' % (
            instances.service, arm.name, namespace, port, ', '.join(map(str, ports)) or 'none')
    labels = {**(service.get('spec', {}).get('selector') or {}), **instances.labels}
    return (await _pods(api, namespace, labels) if instances.labels else ready(slices)), ''


def ready(slices: t.Iterable[Obj]) -> int:
    """Returns how many endpoints of EndpointSlices are ready; one that does not say so is (EndpointSlice API, ``conditions.ready``)."""
    addresses = {(address, one.get('addressType')) for one in slices for endpoint in one.get('endpoints') or ()
                 if (endpoint.get('conditions') or {}).get('ready') is not False for address in endpoint.get('addresses') or ()}
    kinds = {kind for _address, kind in addresses}
    # With two address families, each endpoint is there twice.
    return max((sum(kind == own for _address, kind in addresses) for own in kinds), default=0)


async def _pods(api: Api, namespace: str, labels: t.Mapping[str, str]) -> int:
    pods = await api.list(Ref('', 'v1', 'pods', namespace, ''), labelSelector=','.join('%s=%s' % pair for pair in sorted(labels.items())))
    return sum(not pod['metadata'].get('deletionTimestamp') and any(
        one.get('type') == 'Ready' and one.get('status') == 'True' for one in (pod.get('status') or {}).get('conditions') or ())
        for pod in pods)


async def no_namespace(api: Api, namespace: str) -> str:
    """Returns the half-sentence that the namespace itself is not there; nothing when it is, or that cannot be told."""
    try:
        return ' (there is no such namespace)' if await api.get(Ref('', 'v1', 'namespaces', '', namespace)) is None else ''
    except DeliveryError:
        return ''
