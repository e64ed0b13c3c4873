# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The router ``service_selector``: blue-green of a plain Service, by the labels that it selects. Pure.

One write moves all new connections; the share of an arm is nothing or everything. Connections that are open stay with the pods they have
(kubernetes/kubernetes#46753), so the pods of the arm that was left must live on until these have ended.
"""

from __future__ import annotations

import copy
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_labels
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Arm, Capabilities
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import (
    Accepted, Decoded, Instances, Objects, Plain, Wanted)
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Split

_SERVICE = 'service'


class ServiceSelectorCodec(Plain):
    """The codec of one Service."""

    home = _SERVICE

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm]) -> None:
        kube = t.cast(t.Any, endpoint.kube)
        self.name, self.service, self.arms = endpoint.name, service, arms
        self._ref = Ref('', 'v1', 'services', kube.namespace, kube.object)
        self._labels: dict[str, dict[str, str]] = {}
        for name, arm in arms.items():
            self._labels[name] = check_labels('labels of arm "%s" on %s' % (name, self.name), arm.ref.get('labels'))
        if len({tuple(sorted(labels)) for labels in self._labels.values()}) > 1:
            raise BadInput('The arms of %s on %s have different labels (%s): give each the same ones with values of its own.' % (
                service, self.name, '; '.join(', '.join(sorted(labels)) for labels in self._labels.values())))
        if len({tuple(sorted(labels.items())) for labels in self._labels.values()}) < len(arms):
            raise BadInput('Two arms of %s on %s have the same labels: their pods cannot be told apart.' % (service, self.name))

    def refs(self) -> dict[str, Wanted]:
        return {_SERVICE: Wanted(self._ref)}

    def capabilities(self) -> Capabilities:
        return Capabilities(arms=len(self.arms), unit='all or nothing', matches=(), sticky=('none',), verify=('L0',), native_lease=False)

    def decode(self, objects: Objects) -> Decoded:
        spec = (objects[_SERVICE] or {}).get('spec') or {}
        selector = spec.get('selector') or {}
        problems: tuple[str, ...] = ()
        if spec.get('type') == 'ExternalName' or not selector:
            problems = ('The %s selects no pods: it has %s.' % (
                self._ref, 'the external name "%s"' % spec['externalName'] if spec.get('externalName') else 'no selector'),)
        for name, labels in self._labels.items():
            if labels.items() <= selector.items():
                return Decoded({name: TOTAL}, stable=name, problems=problems)
        return Decoded({}, (','.join('%s=%s' % pair for pair in sorted(selector.items())),) if selector else (), problems=problems)

    def encode(self, objects: Objects, split: Split, deadline_s: float | None = None) -> dict[str, Obj | None]:
        if split.partial:
            raise Unsupported('A Service selects one arm or another: the split %s of %s on %s is neither; give one arm 100 %%.' % (
                split, self.service, self.name))
        service = copy.deepcopy(t.cast(Obj, objects[_SERVICE]))
        service['spec']['selector'] = {**(service['spec'].get('selector') or {}), **self._labels[split.stable]}
        return {} if service == objects[_SERVICE] else {_SERVICE: service}

    def instances(self, objects: Objects) -> dict[str, Instances]:
        selector = ((objects.get(_SERVICE) or {}).get('spec') or {}).get('selector') or {}
        return {name: Instances(labels={**selector, **labels}) for name, labels in self._labels.items()}

    def accepted(self, objects: Objects) -> Accepted:
        return Accepted(None, 'a Service has no status of its selector')
