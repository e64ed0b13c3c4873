#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_report
short_description: Write the report of a rollout
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - >-
    Makes of a rollout's journal one HTML file that needs nothing from outside, and the same as Markdown and JSON: what happened, when,
    why, and whether users were hurt; the stages, planned and actual; the criteria of success; plots of shares, errors, latency and
    evidence; what to look at.
  - >-
    It can be made again at any time, also of a rollout that still runs, or that was killed, and of a journal that was cut off: what is
    missing is then said to be.
  - This is an action plugin. It runs on the control host.
attributes:
  check_mode:
    support: full
    description: Reads the journal and writes nothing.
  idempotent:
    support: full
    description: The report of a journal that has not changed is the same.
extends_documentation_fragment:
  - progressive.delivery.attributes
  - progressive.delivery.endpoints
  - progressive.delivery.endpoints.arms
options:
  journal:
    description: Path of the journal. Without it, the last one of O(service).
    type: path
  service:
    description: Name of the service.
    required: false
  state_dir:
    description: Directory of the journals. Needed with O(service).
    type: path
  directory:
    description: Where to write. Without it, where the rollout wanted its report, else beside the journal.
    type: path
  arms:
    description: >-
      The arms of the service. With them and O(endpoints), the balancers' counters are read once more before the report is made, which
      counts
      the requests that came after the last gate.
    required: false
    default: {}
  endpoints:
    description: The routers that send traffic to the service.
    required: false
    default: []
  on_error:
    description: What to do when the report cannot be written. V(warn) says so and lets the rollout end as it would have ended.
    type: str
    choices: [fail, warn]
    default: fail
seealso:
  - module: progressive.delivery.rollout_record
"""

EXAMPLES = r"""
- name: Write the report of the last rollout of a service
  progressive.delivery.rollout_report:
    service: shop
    state_dir: /var/lib/progressive.delivery

- name: Write the report of a journal that somebody sent
  progressive.delivery.rollout_report:
    journal: /tmp/shop-20261122T183443Z-79b2.jsonl
    directory: /tmp
"""

RETURN = r"""
files:
  description: Paths of what was written.
  returned: success
  type: dict
  sample: {html: /var/lib/x/shop/shop-1.html, md: /var/lib/x/shop/shop-1.md, json: /var/lib/x/shop/shop-1.json}
outcome:
  description: V(promoted), V(rolled_back), V(failed), V(interrupted), V(running) or V(unknown).
  returned: success
  type: str
headline:
  description: What happened, in a sentence or two.
  returned: success, outside check mode
  type: str
hurt:
  description: Whether users were hurt, in a sentence or two.
  returned: success, outside check mode
  type: str
msg:
  description: Where the report lies, for a person.
  returned: always
  type: str
"""
