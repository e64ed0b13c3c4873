#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_record
short_description: Keep the lock, the journal and the summary of a rollout
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Takes the lock of a service at the start of a rollout and gives it back at its end; a second rollout of the same service is refused
    with who holds it since when. A holder whose process is gone does not hold it.
  - Writes the rollout's events to its journal, one JSON object a line, and prints the plan, the stages and the summary.
  - This is an action plugin. It runs on the control host.
extends_documentation_fragment:
  - progressive.delivery.attributes
attributes:
  check_mode:
    support: full
    description: Prints what would happen; takes no lock and writes no journal.
options:
  state:
    description: What happened.
    type: str
    required: true
    choices: [started, stage_started, stage_finished, finished]
  service:
    description: Name of the service.
    type: str
    required: true
  rollout:
    description: Id of the rollout, as M(progressive.delivery.rollout_plan) returned it.
    type: str
    required: true
  state_dir:
    description: Directory for locks and journals; each service has a directory of its own in it.
    type: path
    required: true
  by:
    description: Who rolls out.
    type: str
    default: unknown
  force:
    description: Take the lock away from a rollout that holds it.
    type: bool
    default: false
  plan:
    description: The plan. Needed for every O(state) but V(finished).
    type: dict
  previous_version:
    description: The version that is stable when the rollout starts.
    type: str
  stage:
    description: The stage of the plan that begins or ends.
    type: dict
  foreseen:
    description: What M(progressive.delivery.gate_plan) returned for the stage, to be told when it begins.
    type: dict
    default: {}
  notes:
    description: Sentences to print below the plan.
    type: list
    elements: str
    default: []
  moved:
    description: What M(progressive.delivery.traffic_weight) returned for the stage.
    type: dict
    default: {}
  gate:
    description: What M(progressive.delivery.health_gate) returned for the stage.
    type: dict
    default: {}
  preflight:
    description: What M(progressive.delivery.preflight) returned, for the journal.
    type: dict
    default: {}
  report_dir:
    description: Where the report of the rollout is to be written, whoever ends it. Without it there is none.
    type: path
  criteria:
    description:
      - >-
        The criteria of success for the report: C(error_ratio), C(p50_ms), C(p95_ms), C(p99_ms), C(availability), C(requests_per_second),
        C(rollback_s), C(duration_s). One that is empty or 0 asks for nothing.
    type: dict
    default: {}
  outcome:
    description: How the rollout ended. Needed for O(state=finished).
    type: str
    choices: [promoted, rolled_back, failed]
  reason:
    description: Why it ended so, in one sentence.
    type: str
    default: ''
  failures:
    description: >-
      The tasks that failed, each with C(task) and C(result), when there is no O(reason);
      the first is why, the others went wrong later.
    type: list
    elements: dict
    default: []
seealso:
  - module: progressive.delivery.rollout_plan
"""

EXAMPLES = r"""
- name: Take the lock and open the journal
  progressive.delivery.rollout_record:
    state: started
    service: shop
    rollout: "{{ planned.rollout }}"
    state_dir: /var/lib/progressive.delivery
    by: "{{ lookup('env', 'USER') }}"
    plan: "{{ planned.plan }}"

- name: Close the journal, give the lock back, print the summary
  progressive.delivery.rollout_record:
    state: finished
    service: shop
    rollout: "{{ planned.rollout }}"
    state_dir: /var/lib/progressive.delivery
    outcome: promoted
"""

RETURN = r"""
journal:
  description: Path of the journal.
  returned: success
  type: str
reason:
  description: Why the rollout ended as it did, in one sentence.
  returned: when O(state=finished)
  type: str
summary:
  description: The rollout in figures, made from its journal.
  returned: when O(state=finished), outside check mode
  type: dict
"""
