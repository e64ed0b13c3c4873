#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic_weight_info
short_description: Read the shares of traffic that the arms of a service receive
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Reads from every endpoint which split it has and what is in force, what is left of its lease, who owns it, and how many
    servers of each arm can take a request. It changes nothing.
extends_documentation_fragment:
  - progressive.delivery.attributes.info
  - progressive.delivery.endpoints
  - progressive.delivery.endpoints.arms
attributes:
  idempotent:
    support: full
    description: Changes nothing.
  platform:
    platforms: posix
    support: full
    description: Runs on the control host, or where O(run_on) says.
options:
  on_error:
    description: What to do about an endpoint that does not answer. V(report) returns its error as C(error) beside what the others say.
    type: str
    choices: [fail, report]
    default: fail
  run_on:
    description: V(target) does the work on the task's host, for sockets that only this host sees.
    type: str
    choices: [control, target]
    default: control
seealso:
  - module: progressive.delivery.traffic_weight
"""

EXAMPLES = r"""
- name: Who receives traffic
  progressive.delivery.traffic_weight_info:
    service: shop
    arms: {blue: {backend: shop_blue}, canary: {backend: shop_canary}}
    endpoints:
      - {name: lb1, socket: unix:///run/haproxy/admin.sock, map: /etc/haproxy/delivery.map}
  register: now

- name: Show it
  ansible.builtin.debug:
    msg: "{{ now.text }}"
"""

RETURN = r"""
endpoints:
  description: What each endpoint has.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the endpoint.
      type: str
      returned: always
    ok:
      description: Whether it answered.
      type: bool
      returned: always
    error:
      description: Why it did not.
      type: str
      returned: always
    stable:
      description: The stable arm.
      type: str
      returned: when it answered
    version:
      description: The version that the stable arm runs, as far as it was told.
      type: str
      returned: when it answered
    previous:
      description: The arm that was stable before the last promotion, to which a way back leads.
      type: str
      returned: when it answered
    previous_version:
      description: The version of RV(endpoints[].previous).
      type: str
      returned: when it answered
    candidates:
      description: Basis points of arms that share the traffic with the stable one now.
      type: dict
      returned: when it answered
    configured_bp:
      description: Basis points of all arms that receive traffic now.
      type: dict
      returned: when it answered
    lease_left_s:
      description: Seconds until the split ends by itself; not above 0 when it has ended, empty for a permanent one.
      type: float
      returned: when it answered
    rollout:
      description: The rollout that owns the split.
      type: str
      returned: when it answered
    by:
      description: Who began the rollout.
      type: str
      returned: when it answered
    since:
      description: When, in seconds since 1970.
      type: int
      returned: when it answered
    sticky:
      description: Whether a key of the request decides.
      type: str
      returned: when it answered
    matches:
      description: Conditions that lead to an arm now.
      type: list
      elements: dict
      returned: when it answered
    mirror:
      description: The C(arm) that gets copies of requests now, and of how many of 10000, C(share_bp); empty for none.
      type: dict
      returned: when it answered
    usable:
      description: How many servers of each arm can take a request, backups left out.
      type: dict
      returned: when it answered
    unknown:
      description: Backends that take part and belong to no arm.
      type: list
      elements: str
      returned: when it answered
    notes:
      description: What a person should know, such as a map file that differs from the running map.
      type: list
      elements: str
      returned: when it answered
    capabilities:
      description: What this endpoint can represent.
      type: dict
      returned: when it answered
configured:
  description: Basis points of each arm at each endpoint that answered.
  returned: success
  type: dict
  sample: {lb1: {canary: 500, blue: 9500}}
stable:
  description: The stable arm, when the endpoints agree on it.
  returned: success
  type: str
version:
  description: The version of the stable arm, when the endpoints agree on it.
  returned: success
  type: str
moving:
  description: Whether a candidate receives traffic anywhere.
  returned: success
  type: bool
complete:
  description: Whether all endpoints answered.
  returned: success
  type: bool
text:
  description: All of it for a person, a line for each endpoint.
  returned: success
  type: str
"""

import asyncio

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._traffic_info import INFO_SPEC, run_info


def main() -> None:
    module = AnsibleModule(argument_spec=INFO_SPEC, supports_check_mode=True)
    try:
        result = asyncio.run(run_info(module.params))
    except DeliveryError as exc:
        module.fail_json(msg=str(exc), changed=False)
    module.exit_json(**result)


if __name__ == '__main__':
    main()
