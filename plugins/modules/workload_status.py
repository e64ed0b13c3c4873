#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: workload_status
short_description: Wait until a Deployment of Kubernetes is rolled out, and say why when it is not
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Waits until every pod of a Deployment's present revision is available, as C(kubectl rollout status) does.
  - Does not wait for the time-out when it is clear what is wrong. The reason is told in one sentence - an image that cannot be pulled,
    a container that ends again and again (with its exit code and the last line of its log), no node that takes the pod, a quota
    that is used up, a probe that does not pass, a pod that the API server refuses, a volume that cannot be mounted.
  - With O(state=stopped), waits until the last pod has ended.
extends_documentation_fragment:
  - progressive.delivery.attributes.target
  - progressive.delivery.workload
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
  idempotent:
    support: full
    description: It only reads.
  platform:
    support: full
    platforms: posix
    description: Kubernetes 1.25 or later.
options:
  name:
    description: Name of the Deployment.
    type: str
    required: true
  state:
    description:
      - V(ready) waits until the Deployment is rolled out.
      - V(stopped) waits until it has no pods any more. One that does not exist is stopped.
    type: str
    choices: [ready, stopped]
    default: ready
  replicas:
    description: How many ready pods it must have at least, whatever its own replicas say.
    type: int
    default: 0
  wait:
    description: Whether to wait. Without it the task looks once and never fails because of what it sees.
    type: bool
    default: true
  wait_timeout:
    description: How long to wait when nothing seems to be wrong.
    type: str
    default: 5m
  stall_grace:
    description:
      - How long something that is wrong may last before the wait ends. What does not pass by itself, such as an image that the registry
        does not have or a third crash, ends it at once.
      - A probe that does not pass gets in addition the time that the probe itself allows.
    type: str
    default: 30s
seealso:
  - module: progressive.delivery.workload_capacity
"""

EXAMPLES = r"""
- name: Wait for the canary
  progressive.delivery.workload_status:
    namespace: shop
    name: shop-canary
    wait_timeout: 10m

- name: Wait until the last pod has ended
  progressive.delivery.workload_status:
    namespace: shop
    name: shop-canary
    state: stopped

- name: Look without waiting
  progressive.delivery.workload_status:
    namespace: shop
    name: shop-canary
    wait: false
  register: canary
"""

RETURN = r"""
name:
  description: Name of the Deployment.
  returned: when the Deployment could be read
  type: str
state:
  description: V(done); V(stalled) when something is wrong; V(waiting) when time was up, or O(wait) is false.
  returned: when the Deployment could be read
  type: str
reason:
  description:
    - What is wrong, V('') for nothing. One of V(image_pull), V(crash_loop), V(container_config), V(unschedulable), V(quota), V(refused),
      V(volume), V(evicted), V(not_started), V(not_ready), V(paused), V(deadline), V(no_controller).
  returned: when the Deployment could be read
  type: str
msg:
  description: The same in a sentence.
  returned: always
  type: str
  sample: >-
    Deployment "shop-canary" in namespace "shop" does not come up: the container shop ends with exit code 1, on 2 of 2 pods; its log
    ends with "no such table: orders" (0 of 2 ready). Correct the version.
desired:
  description: Replicas that it is to have.
  returned: when the Deployment could be read
  type: int
updated:
  description: Pods of the present revision.
  returned: when the Deployment could be read
  type: int
ready:
  description: Those of them that are ready and stay.
  returned: when the Deployment could be read
  type: int
total:
  description: Pods of all revisions.
  returned: when the Deployment could be read
  type: int
pods:
  description: The pods of the present revision.
  returned: when the Deployment could be read
  type: list
  elements: dict
  contains:
    name:
      description: Name of the pod.
      type: str
    ready:
      description: Whether it is ready and stays.
      type: bool
    phase:
      description: Its phase, such as V(Running).
      type: str
    restarts:
      description: How often its containers were started again.
      type: int
    reason:
      description: Why a container of it waits, such as V(CrashLoopBackOff).
      type: str
waited_s:
  description: Seconds that it took.
  returned: when the Deployment could be read
  type: float
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._workload import STATUS_SPEC, run_status


def main() -> None:
    module = AnsibleModule(argument_spec=STATUS_SPEC, supports_check_mode=True)
    try:
        result = run_status(module.params)
    except DeliveryError as exc:
        module.fail_json(msg=str(exc))
    if result.pop('failed', False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == '__main__':
    main()
