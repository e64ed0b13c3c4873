#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_answer
short_description: Answer the question that a rollout asks
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Writes an answer into the journal of the rollout whose gate asks, and waits until that gate has taken it.
  - A gate asks where its policy says V(ask), and where a stage has an approval.
  - Who may write into O(state_dir) may answer. The names that a question is for keep colleagues from answering by mistake, and nobody else.
  - This is an action plugin. It runs on the control host.
extends_documentation_fragment:
  - progressive.delivery.attributes
attributes:
  check_mode:
    support: full
    description: Says which question would be answered and writes nothing.
options:
  service:
    description: Name of the service.
    type: str
    required: true
  state_dir:
    description: Directory for locks and journals, the one that the rollout uses.
    type: path
    required: true
  rollout:
    description: Id of the rollout. Default is the one that began last.
    type: str
  answer:
    description: V(go) or V(stop). Without it the task fails and says what is asked.
    type: str
    default: ''
  reason:
    description: Why, in one line.
    type: str
    default: ''
  by:
    description: Who answers.
    type: str
    required: true
  wait_timeout:
    description: How long to wait until the gate has taken the answer.
    type: raw
    default: 10s
seealso:
  - module: progressive.delivery.health_gate
"""

EXAMPLES = r"""
- name: Let the rollout go on
  progressive.delivery.rollout_answer:
    service: shop
    state_dir: /var/lib/progressive.delivery
    answer: go
    reason: the support desk has no complaints
    by: ann
"""

RETURN = r"""
question:
  description: What was asked.
  returned: success
  type: str
answer:
  description: What was answered.
  returned: success
  type: str
rollout:
  description: Id of the rollout that asked.
  returned: success
  type: str
journal:
  description: Path of its journal.
  returned: success
  type: str
"""
