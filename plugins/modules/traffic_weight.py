#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic_weight
short_description: Set the shares of traffic that the arms of a service receive
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Sets, on one or many HAProxy processes and routes of Kubernetes clusters at once, which part of a service's traffic each of its arms
    receives, and which requests reach an arm by a header or a cookie.
  - Everything is read and checked before the first write, and every write is read back. When one endpoint cannot be written, the
    others get back what they had, and the task fails.
  - A split in which a candidate and the stable arm share the traffic carries a lease. When nobody renews it
    (M(progressive.delivery.health_gate) does), HAProxy itself, or a Job in the cluster, returns all traffic to the stable arm.
  - It runs on the control host by default and needs nothing on any other host.
extends_documentation_fragment:
  - progressive.delivery.endpoints
  - progressive.delivery.endpoints.arms
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and predict what would be set. It reads and checks all, and writes nothing.
  diff_mode:
    support: full
    description: Shows the share of each arm at each endpoint before and after.
  idempotent:
    support: full
    description: Sets nothing that is set already. The same split of the same rollout only has its lease renewed, which is no change.
  platform:
    platforms: posix
    support: full
    description: Runs on the control host, or where O(run_on) says.
options:
  split:
    description:
      - Share of each arm, as a percentage such as V(5%) or in whole basis points such as V(500). The stable arm may be absent or
        V(rest). An arm with V(100%) becomes the stable one.
      - Required for O(state=present).
    type: dict
  stable:
    description: The stable arm. Without it, the one that the endpoints name.
    type: str
  matches:
    description: Requests that reach an arm whatever the shares say. The endpoints must declare the conditions in O(endpoints[].matches).
    type: list
    elements: dict
    suboptions:
      header:
        description: Name of a request header.
        type: str
      cookie:
        description: Name of a cookie.
        type: str
      value:
        description: The value that matches.
        type: str
        required: true
      arm:
        description: Where the request goes.
        type: str
        required: true
  sticky:
    description: V(hash) lets a key of the request decide, so that a user keeps the arm as long as its share does not shrink.
    type: str
    choices: [none, hash]
    default: none
  mirror:
    description:
      - Copies of a share of the requests go to an arm besides, and what it answers is thrown away. They are in nobody's share, and want a
        lease as any candidate's share does. A mirror that is not named again is taken away.
      - A request that is copied is carried out twice. Mind what writes.
      - For routes of the kinds HTTPRoute and GRPCRoute, where their controller is known to do it (or O(endpoints[].mirror) says so),
        HTTPProxy (whole percents) and VirtualService. Everything else refuses.
    type: dict
    suboptions:
      arm:
        description: The arm that gets the copies, not the stable one.
        type: str
        required: true
      share:
        description: Of how many requests, in the form of O(split).
        type: raw
        required: true
  lease:
    description:
      - How long the split is valid unless it is renewed, such as V(30s). HAProxy's own clock counts, and it is never longer.
      - Required when a candidate shares the traffic with the stable arm, refused otherwise.
    type: str
  rollout:
    description:
      - Id of the rollout that owns the split. Another rollout is refused until the lease ends, or until O(state=released).
      - Without it, the split is owned by the user while its lease lasts, and by nobody when it is permanent.
      - With O(state=way_back), only what this rollout still owns is taken back; without it, whatever there is.
    type: str
  by:
    description: Who to name as the owner. The default is user and host.
    type: str
  version:
    description: The version that the stable arm of this split runs.
    type: str
  previous_version:
    description: The version that the former stable arm runs. Without it, what the endpoints know.
    type: str
  force:
    description: Whether to take over from another rollout, and overwrite entries that are not understood.
    type: bool
    default: false
  state:
    description:
      - V(present) sets O(split).
      - V(way_back) takes all candidates out, or returns to the former stable arm after a promotion. It asks the endpoints alone and
        respects no owner. Where the arm to return to has no usable server and the other one has, traffic stays and the result says so.
      - V(released) keeps the split and gives up the claim of O(rollout) on it.
    type: str
    choices: [present, way_back, released]
    default: present
  verify:
    description:
      - How far a change must be seen to be in force. V(L0) stored, V(L1) accepted by a controller, V(L2) in force in the data plane, V(L3)
        shown by traffic. HAProxy is its own controller and data plane, so the first three are reached together.
      - V(L3) counts requests and fails when they contradict the shares, or are too few within O(verify_timeout).
    type: str
    choices: [L0, L1, L2, L3]
    default: L2
  verify_timeout:
    description: How long to count requests for V(L3).
    type: str
    default: 10s
  journal:
    description: File to append to what is intended and what was changed. It lies on the control host.
    type: path
  run_on:
    description: V(target) does the work on the task's host, for sockets that only this host sees.
    type: str
    choices: [control, target]
    default: control
seealso:
  - module: progressive.delivery.traffic_weight_info
  - module: progressive.delivery.health_gate
"""

EXAMPLES = r"""
- name: Send 5 % to the canary, until the lease ends
  progressive.delivery.traffic_weight:
    service: shop
    arms: "{{ delivery_arms }}"
    endpoints:
      - {name: lb1, socket: unix:///run/haproxy/admin.sock, map: /etc/haproxy/delivery.map}
    split: {canary: 5%}
    stable: blue
    lease: 30s
    rollout: shop-5.1

- name: Green takes over
  progressive.delivery.traffic_weight:
    service: shop
    arms: "{{ delivery_arms }}"
    endpoints: "{{ delivery_endpoints }}"
    split: {green: 100%}
    version: "5.1"
    rollout: shop-5.1

- name: Return all traffic
  progressive.delivery.traffic_weight:
    service: shop
    arms: "{{ delivery_arms }}"
    endpoints: "{{ delivery_endpoints }}"
    state: way_back
"""

RETURN = r"""
requested:
  description: Basis points of each arm that were asked for; empty for the other states.
  returned: success
  type: dict
  sample: {canary: 500, blue: 9500}
configured:
  description: Basis points of each arm at each endpoint, as read back. In check mode, what they would be.
  returned: always
  type: dict
  sample: {lb1: {canary: 500, blue: 9500}}
previous:
  description: The same before the task.
  returned: always
  type: dict
stable:
  description: The stable arm, when the endpoints agree on it.
  returned: always
  type: str
lease:
  description: What M(progressive.delivery.health_gate) needs to renew the lease and to return the traffic. Empty in check mode.
  returned: always
  type: dict
counters:
  description:
    - What the routers had counted before the change, for O(progressive.delivery.health_gate#module:counters). Empty in check mode, without
      a change, and where they count nothing or did not answer in time.
  returned: for O(state=present)
  type: dict
claims:
  description: Who owns the split at each endpoint, with C(rollout), C(by) and C(since) in seconds since 1970.
  returned: always
  type: dict
endpoints:
  description: What each endpoint has, as M(progressive.delivery.traffic_weight_info) returns it, with C(changed) and C(evidence).
  returned: always
  type: list
  elements: dict
way_back:
  description: For O(state=way_back), whether each endpoint followed, where its traffic is, and why it is not where it was expected.
  returned: when O(state=way_back)
  type: list
  elements: dict
left:
  description: For O(state=way_back), the arms that lost their traffic.
  returned: when O(state=way_back)
  type: list
  elements: str
msg:
  description: What happened in one sentence.
  returned: when O(state=way_back), and on failure
  type: str
seconds:
  description: How long the work took.
  returned: success
  type: float
"""

import asyncio

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run


def main() -> None:
    module = AnsibleModule(argument_spec=TRAFFIC_SPEC, supports_check_mode=True)
    try:
        result = asyncio.run(run(module.params, module.check_mode))
    except DeliveryError as exc:
        module.fail_json(msg=str(exc), changed=False)
    module.exit_json(**result)


if __name__ == '__main__':
    main()
