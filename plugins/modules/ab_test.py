#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ab_test
short_description: Take one step of an A/B test
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Checks and plans an A/B test, takes a look at one that runs, says who should get the traffic, and keeps the record. The playbook
    C(progressive.delivery.ab_test) takes these steps in order; M(progressive.delivery.traffic_weight) writes the split.
  - No run lives as long as the test. Whatever a later run needs is in the journal of the test; a run on another host goes on from it
    when O(state_dir) is shared.
  - The design is kept as it was when the test began. Later runs take the addresses of routers and sources from their options, and the
    questions from the journal.
  - Moves traffic in one direction only, back to control.
extends_documentation_fragment:
  - progressive.delivery.attributes
  - progressive.delivery.endpoints
  - progressive.delivery.endpoints.arms
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and tell what it sees without writing anything.
options:
  state:
    description:
      - V(opened) checks the design, the sources and what the routers can do, tells the plan and opens the journal. It fails when a router
        cannot keep users on their arm.
      - V(started) begins to count; the split must be in force.
      - V(analysed) takes a look. It returns the traffic to control when a guardrail proves harm, and renews the lease otherwise.
      - V(decided) says who gets the traffic, and changes nothing.
      - V(concluded) ends the test with O(outcome). All traffic goes to control, except when a rollout has given it to the winner.
      - V(status) tells how far the test is.
    type: str
    required: true
    choices: [opened, started, analysed, decided, concluded, status]
  sources:
    description: The sources of O(metrics), as M(progressive.delivery.health_gate) takes them. Those of type C(prometheus) can be asked.
    type: dict
    default: {}
  state_dir:
    description: The directory of locks and journals.
    type: path
    required: true
  by:
    description: Who takes this step, for the record.
    type: str
    default: unknown
  test_arms:
    description:
      - The arms of the test by name, in the order of O(arms). Each has C(share), C(arm) where the service calls it otherwise, and
        C(version) where one is to be brought up there.
    type: dict
    default: {}
  control:
    description: The arm of O(test_arms) that the others are compared with. It must be the stable one.
    type: str
    default: control
  duration:
    description: How long the test runs, 30 days at most.
    type: raw
    default: 7d
  grace:
    description: How long the split stays after that, so that it can be concluded without users going back to control in between.
    type: raw
    default: 1h
  lease:
    description:
      - How long the variants keep their shares when no run analyses the test. Without it, up to the end.
      - Never more than seven days, so a longer test must be analysed.
    type: raw
  metrics:
    description:
      - What is compared; the first metric decides. Each has C(name), C(source) (default V(prometheus)), C(successes) and C(total),
        and may have C(direction) (V(more) is better, or V(fewer)) and C(burst), the number of successes that come together.
      - C(successes) and C(total) are PromQL expressions that name the arm (C($arm), C($backend) or C($version)) and the time since the test
        began (C($window)), as the examples show.
      - With C(source=router) the failed requests of the routers are compared.
    type: list
    elements: dict
    default: []
  visitors:
    description:
      - C(total), an expression that counts each user once, and C(source). The sample must follow the split, or the test is invalid.
      - Without it the routers' requests are compared with the shares, within O(ratio_tolerance).
    type: dict
  guardrails:
    description:
      - What no variant may worsen. Each has C(name), and C(bad) and C(total) of a source, or neither for the failed requests of the
        routers.
      - Harm is proven against control, as conditions of C(type=sequential) of M(progressive.delivery.health_gate) do, with C(ratio),
        C(margin), C(direction), C(min_events) and C(burst).
    type: list
    elements: dict
    default: [{name: errors, margin: 0.5%}]
  alpha:
    description: The probability, over all looks and variants, of naming a winner where there is none.
    type: float
    default: 0.05
  guardrail_alpha:
    description: The probability of taking a harmless test back.
    type: float
    default: 0.05
  ratio_alpha:
    description: The probability of calling a sample invalid that follows the split.
    type: float
    default: 0.01
  ratio_tolerance:
    description: By how much an arm's part of the requests may miss its share.
    type: raw
    default: 2%
  burst:
    description: How many requests one user makes; the evidence on requests is divided by it.
    type: float
    default: 1.0
  equivalence:
    description: Lifts up to this, either way, count as none.
    type: raw
    default: 5%
  effect:
    description: The lift that is worth finding; the plan warns when the test is too short for it.
    type: raw
  watch:
    description: How long the run wants to stay and watch; given back as RV(ignore:watch_s) in seconds.
    type: raw
    default: 0
  watch_conditions:
    description: Conditions of M(progressive.delivery.health_gate), given back for each variant as RV(ignore:watch).
    type: list
    elements: dict
    default: []
  winner:
    description: Who gets the traffic, where a person decides. Recorded with O(by).
    type: str
  outcome:
    description: How the test ended, for O(state=concluded).
    type: str
    choices: [winner, control, stopped, harmful, failed]
  reason:
    description: Why, for the record.
    type: str
    default: ''
  force:
    description: Take the lock and the split over from another rollout.
    type: bool
    default: false
seealso:
  - module: progressive.delivery.traffic_weight
  - module: progressive.delivery.health_gate
"""

EXAMPLES = r"""
- name: Take a look at the A/B test
  progressive.delivery.ab_test:
    state: analysed
    service: shop
    arms: "{{ delivery_arms }}"
    endpoints: "{{ delivery_endpoints }}"
    sources: "{{ delivery_sources }}"
    state_dir: /var/lib/delivery
  register: look

- name: Check and plan one
  progressive.delivery.ab_test:
    state: opened
    service: shop
    arms: "{{ delivery_arms }}"
    endpoints: "{{ delivery_endpoints }}"
    sources: "{{ delivery_sources }}"
    state_dir: /var/lib/delivery
    test_arms:
      control: {arm: blue, share: 50%}
      variant_a: {arm: green, share: 25%}
      variant_b: {arm: canary, share: 25%}
    metrics:
      - name: conversion_rate
        successes: sum(increase(conversions_total{arm="$arm"}[$window]))
        total: sum(increase(visits_total{arm="$arm"}[$window]))
"""

RETURN = r"""
rollout:
  description: The id of the test, which the routers name as the owner of the split.
  returned: success
  type: str
journal:
  description: Its journal.
  returned: success
  type: str
verdict:
  description: >-
    C(winner), C(equivalent), C(keep_running), C(invalid) (the sample does not follow the split), C(harmful) (a guardrail proved harm, the
    traffic is back on control), or C(no_data).
  returned: O(state=analysed) or O(state=decided)
  type: str
reason:
  description: The verdict in words.
  returned: O(state=analysed) or O(state=decided)
  type: str
problem:
  description:
    - A sentence that the run should fail with, where the verdict is C(harmful), C(invalid) or C(no_data); else none.
    - The task itself does not fail, so that what was taken back can be tidied up.
  returned: O(state=analysed)
  type: str
left:
  description: The service's arms that lost their traffic in this step.
  returned: when the traffic went back
  type: list
  elements: str
winner:
  description: The arm that won, or that a person named.
  returned: O(state=analysed) or O(state=decided)
  type: str
metrics:
  description: >-
    For each metric and arm C(events), C(total), C(rate), C(rate_interval), and for variants C(lift), C(lift_interval),
    C(difference_interval) (in shares of 1) and C(p). All hold at every look.
  returned: O(state=analysed)
  type: dict
ratio:
  description: Whether the sample follows the split (C(ok)), with C(p), C(log_e) and C(text).
  returned: O(state=analysed)
  type: dict
live:
  description: Whether the split of the test was in force at this look.
  returned: O(state=analysed)
  type: bool
target:
  description: The service's arm that gets the traffic; empty for control.
  returned: O(state=decided)
  type: str
already:
  description: Whether a test of this design runs already.
  returned: O(state=opened)
  type: bool
"""
