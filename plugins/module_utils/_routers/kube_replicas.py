# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The router ``replicas``: shares by the number of ready pods that each arm has behind one Service. Pure.

Of last resort: shares are of connections, not of requests, so clients that keep theirs do not follow; the finest share is one pod of
all, and what cannot be expressed within ``tolerance_bp`` is refused. The arm with the most traffic always has as many replicas as the
stable arm had at the beginning, the others in proportion. So the stable arm keeps all of its pods while a candidate has half of the
traffic or less, and a way back from there only ends the candidate's. Nothing is scaled down before what takes over is ready, but on a
way back from more than half: there the candidate's pods end at once, and the stable arm's come.
"""

from __future__ import annotations

import copy
import typing as t
from fractions import Fraction

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_dns_name
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Arm, Capabilities
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import (
    Accepted, Decoded, Instances, Objects, Plain, Wanted)
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Split, format_share

_SERVICE = 'service'


def counts(shares: t.Mapping[str, int], most: int) -> dict[str, int]:
    """Returns replicas for *shares*, *most* for the largest one; none of a share above zero has none."""
    largest = max(shares.values())
    return {arm: max(1, round(Fraction(most * bp, largest))) for arm, bp in shares.items() if bp}


def miss(shares: t.Mapping[str, int], replicas: t.Mapping[str, int]) -> int:
    """Returns by how many basis points the worst share is missed."""
    total = sum(replicas.values())
    return max(round(abs(Fraction(replicas.get(arm, 0) * TOTAL, total) - bp)) for arm, bp in shares.items())


class ReplicasCodec(Plain):
    """The codec of the Deployments behind one Service."""

    home = _SERVICE

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm]) -> None:
        kube = t.cast(t.Any, endpoint.kube)
        self.name, self.service, self.arms, self._tolerance = endpoint.name, service, arms, endpoint.tolerance_bp
        self._ref = Ref('', 'v1', 'services', kube.namespace, kube.object)
        names = {name: check_dns_name('deployment of arm "%s" on %s' % (name, self.name), arm.ref.get('deployment') or arm.backend)
                 for name, arm in arms.items()}
        if len(set(names.values())) < len(names):
            raise BadInput('Two arms of %s have the same Deployment on %s: with replicas each arm has one of its own.' % (
                service, self.name))
        self._deployments = {arm: Ref('apps', 'v1', 'deployments', kube.namespace, name) for arm, name in names.items()}
        self._scalers = {arm: Ref('autoscaling', 'v2', 'horizontalpodautoscalers', kube.namespace, name) for arm, name in names.items()}

    def refs(self) -> dict[str, Wanted]:
        wanted = {_SERVICE: Wanted(self._ref)}
        wanted.update((_deployment(arm), Wanted(ref, verbs=('patch',))) for arm, ref in self._deployments.items())
        wanted.update((_scaler(arm), Wanted(ref, False)) for arm, ref in self._scalers.items())
        return wanted

    def capabilities(self) -> Capabilities:
        return Capabilities(arms=len(self.arms), unit='one pod of all', matches=(), sticky=('none',), verify=('L0', 'L1'),
                            native_lease=False)

    def decode(self, objects: Objects) -> Decoded:
        selector = ((objects[_SERVICE] or {}).get('spec') or {}).get('selector') or {}
        problems, notes = [], []
        if not selector:
            problems.append('The %s selects no pods.' % self._ref)
        for arm, ref in self._deployments.items():
            labels = _at(objects.get(_deployment(arm)), 'spec', 'template', 'metadata', 'labels') or {}
            if selector and not selector.items() <= labels.items():
                problems.append('The %s of arm "%s" has pods that the %s does not select: their labels must have %s.' % (
                    ref, arm, self._ref, ', '.join('%s=%s' % pair for pair in sorted(selector.items()))))
            if objects.get(_scaler(arm)) is not None:
                problems.append('The %s scales arm "%s" too, and would undo its share: delete it for the time of the rollout.' % (
                    self._scalers[arm], arm))
        if _at(objects[_SERVICE], 'spec', 'sessionAffinity') == 'ClientIP':
            notes.append('The %s keeps clients on their pods (sessionAffinity): shares are of new clients only.' % self._ref)
        weights = {arm: self._replicas(objects, arm) for arm in self.arms}
        if not any(weights.values()):
            problems.append('No arm of %s has replicas on %s: scale the Deployment of the stable one up.' % (self.service, self.name))
        return Decoded({arm: count for arm, count in weights.items() if count}, problems=tuple(problems), notes=tuple(notes))

    def _replicas(self, objects: Objects, arm: str) -> int:
        found = _at(objects.get(_deployment(arm)), 'spec', 'replicas')
        return 1 if found is None else int(found)

    def _ready(self, objects: Objects, arm: str) -> int:
        return int(_at(objects.get(_deployment(arm)), 'status', 'readyReplicas') or 0)

    def encode(self, objects: Objects, split: Split, deadline_s: float | None = None) -> dict[str, Obj | None]:
        goal = self._goal(objects, split)
        moves = {arm: goal.get(arm, 0) - self._replicas(objects, arm) for arm in self.arms}
        return {_deployment(arm): _scaled(t.cast(Obj, objects[_deployment(arm)]), goal.get(arm, 0))
                for arm in sorted(moves, key=lambda arm: moves[arm] < 0) if moves[arm]}

    def _goal(self, objects: Objects, split: Split) -> dict[str, int]:
        if split.matches or split.sticky != 'none':
            raise Unsupported('Replicas of %s on %s take connections at random: they cannot match headers or cookies, or keep users.' % (
                self.service, self.name))
        most = max(self._replicas(objects, arm) for arm in self.arms)
        if not most:
            raise Unsupported('No arm of %s has replicas on %s: scale the Deployment of the stable one up.' % (self.service, self.name))
        shares = {arm: bp for arm, bp in split.arms if bp}
        goal = counts(shares, most)
        missed = miss(shares, goal)
        if split.partial and missed > self._tolerance:
            raise Unsupported('The split %s of %s on %s cannot be expressed with %d replicas: the nearest is %s; use more, or a '
                              '"tolerance_bp" of %d.' % (split, self.service, self.name, most, ', '.join(
                                  '%s %s' % (arm, format_share(round(Fraction(count * TOTAL, sum(goal.values())))))
                                  for arm, count in goal.items()), missed))
        return goal

    def _behind(self, objects: Objects, goal: t.Mapping[str, int]) -> str:
        for arm, wanted in goal.items():
            ready = self._ready(objects, arm)
            if ready < wanted:
                return 'The %s of arm "%s" has %d of %d replicas ready' % (self._deployments[arm], arm, ready, wanted)
        return ''

    def hold(self, objects: Objects, key: str, new: Obj | None) -> str:
        """Returns what must be ready before *new* may be written in place of *key*; nothing when that may be done now."""
        if key not in map(_deployment, self.arms) or _at(new, 'spec', 'replicas') >= (_at(objects.get(key), 'spec', 'replicas') or 0):
            return ''
        return self._behind(objects, {arm: self._replicas(objects, arm) for arm in self.arms if _deployment(arm) != key})

    def instances(self, objects: Objects) -> dict[str, Instances]:
        found = {}
        for arm in self.arms:
            labels = _at(objects.get(_deployment(arm)), 'spec', 'selector', 'matchLabels') or {}
            # An arm without a share has no pods; that it can have some is seen when it is given one.
            found[arm] = Instances(labels=labels) if self._replicas(objects, arm) else Instances(service=self._ref.name)
        return found

    def accepted(self, objects: Objects) -> Accepted:
        behind = self._behind(objects, {arm: self._replicas(objects, arm) for arm in self.arms})
        return Accepted(None, behind) if behind else Accepted(True, 'all replicas are ready')


def _deployment(arm: str) -> str:
    return 'deployment ' + arm


def _scaler(arm: str) -> str:
    return 'autoscaler ' + arm


def _at(obj: t.Any, *keys: str) -> t.Any:
    for key in keys:
        obj = (obj or {}).get(key)
    return obj


def _scaled(deployment: Obj, replicas: int) -> Obj:
    new = copy.deepcopy(deployment)
    new['spec']['replicas'] = replicas
    return new
