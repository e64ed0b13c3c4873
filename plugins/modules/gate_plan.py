#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gate_plan
short_description: Check the gates of a rollout and tell what they can find, before the first change
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Checks what each stage of a plan will be watched with. Anything wrong ends here with one sentence.
  - Looks at the traffic of the arms for a moment, and tells for each V(sequential) condition of each stage the smallest harm that this bake
    finds with that traffic, how soon the harm worth catching is found, and warns when the bake is too short.
  - What cannot be read then is told in RV(notes) and fails nothing.
  - This is an action plugin. It runs on the control host and changes nothing.
extends_documentation_fragment:
  - progressive.delivery.gate
  - progressive.delivery.attributes
  - progressive.delivery.attributes.info
options:
  stages:
    description: The stages of the plan that M(progressive.delivery.rollout_plan) returned.
    type: list
    elements: dict
    required: true
  observe:
    description: How long to look at the traffic, at most a minute. With V(0) nothing is looked at and the options are checked only.
    type: raw
    default: 2s
seealso:
  - module: progressive.delivery.rollout_plan
  - module: progressive.delivery.health_gate
"""

EXAMPLES = r"""
- name: Check what the stages are watched with, and see what that can find
  progressive.delivery.gate_plan:
    service: shop
    arms: "{{ delivery_arms }}"
    endpoints: "{{ delivery_endpoints }}"
    stable: "{{ planned.plan.stable }}"
    stages: "{{ planned.plan.stages }}"
  register: foreseen
"""

RETURN = r"""
stages:
  description: For each stage C(label), C(text) (a sentence for each condition), C(warnings) and C(plans), the figures.
  returned: success
  type: list
  elements: dict
notes:
  description: What could not be read.
  returned: success
  type: list
  elements: str
"""
