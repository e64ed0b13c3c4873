#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_plan
short_description: Make the plan of a rollout and check all of it before the first change
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Turns the stages of a rollout and what the routers say now into a plan, in which each stage has its split, bake and conditions.
  - Everything that can be wrong with stages, arms and shares ends here with one sentence, before anything was changed.
  - This is an action plugin. It runs on the control host and changes nothing.
extends_documentation_fragment:
  - progressive.delivery.attributes
  - progressive.delivery.attributes.info
options:
  service:
    description: Name of the service.
    type: str
    required: true
  version:
    description: The version to roll out.
    type: str
    required: true
  strategy:
    description:
      - V(hybrid) runs the canary stages, then the blue-green stages; V(blue_green) the latter alone.
      - V(canary) runs the canary stages and then the last blue-green stage, the switch.
    type: str
    default: hybrid
    choices: [hybrid, canary, blue_green]
  canary_stages:
    description:
      - Stages of the canary, each with C(share), C(bake) and, where a person has a say, C(approval).
      - A text such as V(5%:30m, 20%:45m) does too.
    type: raw
    default: []
  blue_green_stages:
    description: Stages of the blue-green part, in the same form. The last one must have a share of 100 %.
    type: raw
    default: []
  arms:
    description: The arms of the service by name.
    type: dict
    required: true
  stable:
    description: The stable arm. Without it, the one that all routers name.
    type: str
  canary_arm:
    description: The arm that canary stages send traffic to.
    type: str
  target_arm:
    description: The arm that takes over. Without it, the only one that is neither stable nor the canary.
    type: str
  conditions:
    description: The conditions of every stage, as M(progressive.delivery.health_gate) takes them.
    type: list
    elements: dict
    required: true
  interval:
    description: Time between two samples of a stage that names none.
    type: raw
    default: 10
  warm_up:
    description: Time at the beginning of a stage that is not judged, for a stage that names none.
    type: raw
    default: 0
  settle:
    description: How long the servers of the candidates must stay up before the first stage.
    type: raw
    default: 0
  ask_timeout:
    description: How long the approval of a stage may take that does not say so itself.
    type: raw
    default: 30m
  lease:
    description: The lease of every share, at least three intervals.
    type: raw
    default: 30s
  timeouts:
    description: Durations by the name of their variable, which are used late and must be readable now.
    type: dict
    default: {}
  alpha:
    description: Probability of a false alarm of the V(sequential) conditions, for evidence that goes on.
    type: float
    default: 0.05
  beta:
    description: Probability of a false pass of the V(sequential) conditions, for evidence that goes on.
    type: float
    default: 0.05
  state_dir:
    description:
      - Directory for locks and journals. With it, the evidence of a rollout goes on that was interrupted, where that was of the same
        versions on the same arms and asked the same.
    type: path
  forget_evidence:
    description: Begin with no evidence.
    type: bool
    default: false
  evidence_max_age:
    description: How old the evidence of an interrupted rollout may be.
    type: raw
    default: 24h
  info:
    description: What M(progressive.delivery.traffic_weight_info) returned.
    type: dict
    required: true
  rollout:
    description: The id of the rollout, where it goes on under a claim that is there already. Without it, a new one.
    type: str
  force:
    description: Make a plan although the version is live already.
    type: bool
    default: false
seealso:
  - module: progressive.delivery.traffic_weight_info
  - module: progressive.delivery.rollout_record
"""

EXAMPLES = r"""
- name: Read the routers
  progressive.delivery.traffic_weight_info:
    service: shop
    arms: "{{ delivery_arms }}"
    endpoints: "{{ delivery_endpoints }}"
  register: now

- name: Plan the rollout
  progressive.delivery.rollout_plan:
    service: shop
    version: "5.1"
    canary_stages: "5%:30m, 20%:45m"
    blue_green_stages: "50%:30m, 100%:15m"
    arms: "{{ delivery_arms }}"
    canary_arm: canary
    conditions:
      - name: errors
        metric: error_ratio
        abort_above: 0.005
        pass_below: 0.001
    info: "{{ now }}"
"""

RETURN = r"""
plan:
  description: Stable, canary and target arm, the candidates, and the stages in order.
  returned: success
  type: dict
rollout:
  description: The id of the rollout.
  returned: success
  type: str
evidence:
  description: The state that the V(sequential) conditions go on with, of a rollout that was interrupted; empty for none.
  returned: success
  type: dict
notes:
  description: A sentence about that evidence, where there is something to say.
  returned: success
  type: list
  elements: str
live_version:
  description: The version that the routers name as stable, if they agree on one.
  returned: success
  type: str
already:
  description: Whether the version is live and no candidate has traffic, so that there is nothing to do.
  returned: success
  type: bool
"""
