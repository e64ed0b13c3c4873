#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: workload_capacity
short_description: Bring a Deployment of Kubernetes to what its share of traffic needs, and keep the one that may have to carry all
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Scales the candidate to the pods that its next share needs, before the share moves. Never scales down.
  - Checks the survivor, that is the Deployment that gets all of the traffic when the candidate is taken out - its ready pods, the maximum
    of its HorizontalPodAutoscaler, its PodDisruptionBudget.
  - An autoscaler would take pods with little load away again, and the stable version would be too small when its traffic comes back.
    So both are kept from scaling down meanwhile (C(behavior.scaleDown.selectPolicy)); what was set before is kept in an annotation of
    the autoscaler, and O(state=released) restores it. They may scale up as ever.
  - Does not wait for the pods. That is what M(progressive.delivery.workload_status) does.
extends_documentation_fragment:
  - progressive.delivery.attributes.target
  - progressive.delivery.workload
attributes:
  check_mode:
    support: full
    description: Reads, checks and says what it would change.
  diff_mode:
    support: full
    description: Shows replicas, and whether autoscalers may scale down, before and after.
  idempotent:
    support: full
    description: What is there already is left alone.
  platform:
    support: full
    platforms: posix
    description: Kubernetes 1.25 or later.
options:
  state:
    description:
      - V(ready) checks and scales.
      - V(checked) only checks.
      - V(released) lets the autoscalers scale down again.
    type: str
    choices: [ready, checked, released]
    default: ready
  candidate:
    description: Name of the Deployment whose share is about to grow. In check mode it may be missing.
    type: str
  survivor:
    description: Name of the Deployment that has to carry all of the traffic when the candidate is taken out.
    type: str
  share:
    description: The share that the candidate is about to get, such as V(20%).
    type: raw
  headroom:
    description: Factor by which capacity is to exceed the share, such as V(1.2) or V(120%).
    type: raw
    default: 1
  min_replicas:
    description: How many pods the candidate gets at least.
    type: int
    default: 1
  replicas:
    description: How many pods the candidate gets, whatever its share.
    type: int
  carries:
    description: How many pods carry all of the traffic. Without it, as many as the survivor has ready now.
    type: int
  hold:
    description: Whether autoscalers are kept from scaling down until O(state=released).
    type: bool
    default: true
  on_shortage:
    description: What to do when the survivor could not carry all of the traffic.
    type: str
    choices: [fail, warn]
    default: fail
seealso:
  - module: progressive.delivery.workload_status
"""

EXAMPLES = r"""
- name: Have enough canaries for a fifth of the traffic, and blue ready to take it back
  progressive.delivery.workload_capacity:
    namespace: shop
    candidate: shop-canary
    survivor: shop-blue
    share: 20%
    headroom: 1.2

- name: Let the autoscalers scale down again
  progressive.delivery.workload_capacity:
    namespace: shop
    candidate: shop-green
    survivor: shop-blue
    state: released
"""

RETURN = r"""
carries:
  description: Pods that carry all of the traffic.
  returned: success, unless O(state=released)
  type: int
needed:
  description: Pods that the candidate needs.
  returned: success, unless O(state=released)
  type: int
shortages:
  description: Why the survivor could not carry all of the traffic, a sentence each.
  returned: success, unless O(state=released)
  type: list
  elements: str
candidate:
  description: The candidate as it was before.
  returned: when O(candidate) is given
  type: dict
  contains: &workload
    name:
      description: Name of the Deployment.
      type: str
    exists:
      description: Whether it is there.
      type: bool
    replicas:
      description: Replicas that it is to have.
      type: int
    ready:
      description: Pods that are ready and stay.
      type: int
    autoscaler:
      description: Name of its HorizontalPodAutoscaler.
      type: str
    min_replicas:
      description: The least that the autoscaler may set.
      type: int
    max_replicas:
      description: The most that the autoscaler may set.
      type: int
    held:
      description: Whether a rollout keeps the autoscaler from scaling down, which O(state=released) ends.
      type: bool
    disruption_budget:
      description: Name of its PodDisruptionBudget.
      type: str
    version:
      description: The version that it runs, by the annotation C(progressive.delivery/version) or the label C(app.kubernetes.io/version).
      type: str
survivor:
  description: The survivor as it was before.
  returned: when O(survivor) is given
  type: dict
  contains: *workload
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.progressive.delivery.plugins.module_utils._capacity import CAPACITY_SPEC, CONSTRAINTS, run_capacity
from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError


def main() -> None:
    module = AnsibleModule(argument_spec=CAPACITY_SPEC, supports_check_mode=True, **CONSTRAINTS)
    try:
        result = run_capacity(module.params, module.check_mode, module._diff)
    except DeliveryError as exc:
        module.fail_json(msg=str(exc))
    for text in result.pop('warnings', ()):
        module.warn(text)
    module.exit_json(**result)


if __name__ == '__main__':
    main()
