# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How many pods a share of the traffic needs, and whether the side that may have to carry all of it can. Pure."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from fractions import Fraction

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, annotation
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL

VERSION = 'progressive.delivery/version'
"""Annotation of a Deployment: the version that it runs, as the rollout names it."""
HELD = 'progressive.delivery/scale-down'
"""Annotation of an autoscaler that a rollout keeps from scaling down: its behavior.scaleDown.selectPolicy before."""
NO_BEHAVIOR = 'default'
"""Value of that annotation where the autoscaler had no ``behavior`` at all."""
DISABLED = 'Disabled'
_NUMBER = re.compile(r'(\d{1,6}(?:\.\d{1,6})?)\s*(%?)')


def parse_headroom(value: object) -> Fraction:
    """Returns the factor by which capacity is to exceed a share: of ``1.2``, ``'1.2'``, ``'120%'``. Raises BadInput below 1, above 10."""
    match = _NUMBER.fullmatch(str(value).strip()) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    factor = Fraction(match.group(1)) / (100 if match.group(2) else 1) if match else Fraction(0)
    if not 1 <= factor <= 10:
        raise BadInput('The headroom %r is not understood: give a factor from 1 to 10, such as 1.2 or "120%%".' % (value,))
    return factor


def needed(carries: int, share_bp: int, headroom: Fraction, least: int = 1) -> int:
    """Returns the pods that *share_bp* basis points of the traffic need when *carries* pods carry all of it; never fewer than *least*."""
    return max(least, -((-carries * share_bp * headroom.numerator) // (TOTAL * headroom.denominator)))


@dataclass(frozen=True)
class Workload:
    """A Deployment with what scales and guards it. *lowest* and *highest* are those of its HorizontalPodAutoscaler."""

    name: str
    exists: bool
    replicas: int = 0
    ready: int = 0
    autoscaler: str | None = None
    lowest: int = 0
    highest: int = 0
    shrinks: bool = False
    """Whether the autoscaler may take pods away."""
    held: bool = False
    """Whether it may not because of a rollout."""
    healthy: int | None = None
    """Pods that its PodDisruptionBudget counts as healthy, and below that those that it wants; None without one."""
    wanted_healthy: int = 0
    budget: str | None = None
    version: str | None = None
    """What the role kubernetes_workload deployed, or else what the recommended label of Kubernetes says."""

    def facts(self) -> dict[str, t.Any]:
        return {'name': self.name, 'exists': self.exists, 'replicas': self.replicas, 'ready': self.ready,
                'autoscaler': self.autoscaler, 'min_replicas': self.lowest if self.autoscaler else None,
                'max_replicas': self.highest if self.autoscaler else None, 'held': self.held, 'disruption_budget': self.budget,
                'version': self.version}


def workload(name: str, deployment: Obj | None, ready: int, autoscalers: t.Iterable[Obj], budgets: t.Iterable[Obj]) -> Workload:
    """Returns the workload that the objects of its namespace make; *ready* are the pods that are ready and stay."""
    if deployment is None:
        return Workload(name, False)
    scaler = next((one for one in autoscalers if one['spec']['scaleTargetRef'].get('kind') == 'Deployment'
                   and one['spec']['scaleTargetRef'].get('name') == name), None)
    labels = deployment['spec']['template']['metadata'].get('labels') or {}
    budget = next((one for one in budgets if selects(one['spec'].get('selector'), labels)), None)
    status = (budget or {}).get('status') or {}
    return Workload(
        name, True, deployment['spec'].get('replicas', 1), ready,
        autoscaler=scaler and scaler['metadata']['name'], lowest=scaler['spec'].get('minReplicas', 1) if scaler else 0,
        highest=scaler['spec']['maxReplicas'] if scaler else 0,
        shrinks=scaler is not None and scale_down(scaler) != DISABLED, held=annotation(scaler, HELD) is not None,
        budget=budget and budget['metadata']['name'], healthy=status.get('currentHealthy'), wanted_healthy=status.get('desiredHealthy', 0),
        version=annotation(deployment, VERSION) or (deployment['metadata'].get('labels') or {}).get('app.kubernetes.io/version'))


def scale_down(scaler: Obj) -> str:
    """Returns the policy by which an autoscaler takes pods away (API reference, type HPAScalingRules)."""
    return ((scaler['spec'].get('behavior') or {}).get('scaleDown') or {}).get('selectPolicy') or 'Max'


def selects(selector: Obj | None, labels: t.Mapping[str, str]) -> bool:
    """Whether a label selector (API reference, type LabelSelector) finds something with *labels*; None finds nothing, ``{}`` all."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get('matchLabels') or {}).items()):
        return False
    for item in selector.get('matchExpressions') or ():
        here, values = labels.get(item['key']), item.get('values') or ()
        holds = {'In': here in values, 'NotIn': here not in values, 'Exists': here is not None, 'DoesNotExist': here is None}
        if not holds[item['operator']]:
            return False
    return True


@dataclass(frozen=True)
class Scaling:
    """What to change so that a workload has enough pods and keeps them. *replicas* None leaves them as they are."""

    replicas: int | None = None
    hold: bool | None = None
    """Whether to keep the autoscaler from taking pods away (True), or to let it again (False)."""

    def __bool__(self) -> bool:
        return self.replicas is not None or self.hold is not None


def scaling(now: Workload, need: int, hold: bool = True) -> Scaling:
    """Returns how to bring *now* to *need* pods: only ever up.

    With *hold*, an autoscaler may not take pods without load away again. Raises BadInput when its maximum is lower than *need*.
    """
    if now.autoscaler and now.highest < need:
        raise BadInput('The autoscaler "%s" of Deployment "%s" may not go above %d pods, but %d are needed: raise its maxReplicas.' % (
            now.autoscaler, now.name, now.highest, need))
    return Scaling(need if now.replicas < need else None, True if hold and now.shrinks else None)


def shortages(survivor: Workload, carries: int) -> list[str]:
    """Returns why *survivor* cannot carry all of the traffic, for which *carries* pods are needed: sentences, none when it can."""
    if not survivor.exists:
        return ['Deployment "%s", which has to carry all of the traffic if it comes back, is not there: deploy it first.' % survivor.name]
    found = []
    if survivor.ready < carries:
        found.append('Deployment "%s" has %d ready pods and needs %d to carry all of the traffic: scale it up first.' % (
            survivor.name, survivor.ready, carries))
    if survivor.autoscaler and survivor.highest < carries:
        found.append('The autoscaler "%s" of Deployment "%s" may not go above %d pods, and %d are needed to carry all of the traffic: '
                     'raise its maxReplicas.' % (survivor.autoscaler, survivor.name, survivor.highest, carries))
    if survivor.healthy is not None and survivor.healthy < survivor.wanted_healthy:
        found.append('The PodDisruptionBudget "%s" of Deployment "%s" is not met: %d of %d pods are healthy. Wait until they are.' % (
            survivor.budget, survivor.name, survivor.healthy, survivor.wanted_healthy))
    return found
