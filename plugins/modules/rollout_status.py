#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_status
short_description: Show how a service and its rollout stand, on one screen
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - >-
    Puts together what the routers say and what the journal of the service's last rollout says: stage, shares asked for, configured and
    observed, each condition with its value and limits, what is left of the lease, the last events.
  - Colours are used on a terminal only, and not where E(NO_COLOR) or E(ANSIBLE_NOCOLOR) is set.
  - This is an action plugin. It runs on the control host and changes nothing.
extends_documentation_fragment:
  - progressive.delivery.attributes
  - progressive.delivery.attributes.info
attributes:
  idempotent:
    support: full
    description: Changes nothing.
options:
  service:
    description: Name of the service.
    type: str
    required: true
  state_dir:
    description: Directory of the journals.
    type: path
    required: true
  info:
    description: What M(progressive.delivery.traffic_weight_info) returned. Without it, the routers are not shown.
    type: dict
    default: {}
  output:
    description: V(text) for a person, V(json) for a program, on one line.
    type: str
    choices: [text, json]
    default: text
seealso:
  - module: progressive.delivery.traffic_weight_info
  - module: progressive.delivery.rollout_report
"""

EXAMPLES = r"""
- name: Read the routers
  progressive.delivery.traffic_weight_info:
    service: shop
    arms: {blue: {backend: shop_blue}, canary: {backend: shop_canary}}
    endpoints:
      - {name: lb1, socket: unix:///run/haproxy/admin.sock, map: /etc/haproxy/delivery.map}
    on_error: report
  register: now

- name: Show how the service stands
  progressive.delivery.rollout_status:
    service: shop
    state_dir: /var/lib/progressive.delivery
    info: "{{ now }}"
"""

RETURN = r"""
status:
  description: >-
    The state as data: C(service), C(version), C(stable), C(routers), C(configured_bp), and C(rollout) with C(id), C(outcome), C(running),
    C(stage), C(requested_bp), C(configured_bp), C(observed_bp), C(arms), C(conditions), C(evidence), C(lease_left_s), C(asked),
    C(requests),
    C(failed), C(last_events), C(journal). Shares are basis points, times seconds.
  returned: success
  type: dict
msg:
  description: What was shown.
  returned: success
  type: str
"""
