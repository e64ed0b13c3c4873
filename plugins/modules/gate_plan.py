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
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return what it would return without it.
  diff_mode:
    support: none
    description: There is nothing to compare.
  action:
    support: full
    description: This is an action plugin; it runs on the control host.
options:
  service:
    description: As M(progressive.delivery.health_gate) takes it, like all options but O(stages) and O(observe).
    type: str
    required: true
  arms:
    description: The arms of the service by name.
    type: dict
    required: true
  endpoints:
    description: The routers.
    type: list
    elements: dict
    default: []
  sources:
    description: Further sources of observations by name.
    type: dict
    default: {}
  stable:
    description: The arm that comparisons are made with.
    type: str
  versions:
    description: The version of each arm, for C($version) in queries.
    type: dict
    default: {}
  alpha:
    description: Probability of a false alarm in the whole rollout.
    type: float
    default: 0.05
  beta:
    description: Probability of a false pass of a stage.
    type: float
    default: 0.05
  analysis_state:
    description: The evidence that the first stage goes on with.
    type: dict
  policy:
    description: What follows a verdict that is neither V(pass) nor V(fail).
    type: dict
    suboptions:
      inconclusive:
        description: The data do not decide.
        type: str
        default: fail
        choices: [fail, pass, extend, ask]
      no_data:
        description: There was nothing to judge.
        type: str
        default: fail
        choices: [fail, pass, extend, ask]
      error:
        description: A source is gone.
        type: str
        default: fail
        choices: [fail, pass, extend, ask]
  ask_timeout:
    description: How long a question stands.
    type: raw
    default: 30m
  ask_by:
    description: Who may answer.
    type: list
    elements: str
    default: []
  extend_by:
    description: How much longer an extended stage is watched.
    type: raw
    default: 5m
  max_extensions:
    description: How often a stage may be extended.
    type: int
    default: 1
  error_limit:
    description: Polls with an error in a row after which a source counts as gone.
    type: int
    default: 3
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
