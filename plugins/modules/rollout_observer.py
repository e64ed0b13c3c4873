#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_observer
short_description: Have people told of a rollout by a process beside it
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Starts a process that reads the journal of a rollout and sends a notice to each channel when it starts, at each stage that passed,
    when a person is asked, when a bad version was taken out, when the run is gone without a word, and at the end. The notices follow what
    has happened, in order; neither a dead receiver nor a slow one holds up the rollout.
  - The same process keeps the metrics of the rollout for Prometheus, and annotates dashboards of Grafana.
  - What each channel made of each notice is kept in the journal, as the event C(notified), without any secret.
  - This is an action plugin. It runs on the control host.
extends_documentation_fragment:
  - progressive.delivery.attributes
attributes:
  check_mode:
    support: full
    description: Checks the channels and tells nobody.
options:
  state:
    description:
      - V(checked) refuses channels that are not understood; V(started) starts the process; V(awaited) waits for its end, at most
        O(timeout), and warns of channels that were not told; V(announced) sends one notice that no journal tells of.
      - V(recorded) and V(told) are for the playbook that sends a notice.
    type: str
    required: true
    choices: [checked, started, awaited, announced, recorded, told]
  journal:
    description: Path of the rollout's journal.
    type: path
  rollout:
    description: Id of the rollout.
    type: str
  channels:
    description: The channels; see the role P(progressive.delivery.notify#role).
    type: list
    elements: dict
    default: []
  state_every:
    description: How often people are told that a stage goes on, a duration; V(0) for never.
    type: raw
    default: 30m
  variables:
    description: Variables for the role that sends.
    type: dict
    default: {}
  timeout:
    description: How long V(awaited) and V(announced) wait, a duration.
    type: raw
    default: 10s
  observer:
    description: The process, as O(state=started) returned it.
    type: dict
    default: {}
  notice:
    description: The notice, for V(announced) and V(recorded).
    type: dict
    default: {}
  service:
    description: Name of the service; needed with O(textfile_dir).
    type: str
    default: ""
  textfile_dir:
    description:
      - Directory that a node exporter's textfile collector reads. The metrics of the rollout are kept there as C(delivery_SERVICE.prom).
        Empty keeps none.
    type: path
    default: ""
  grafana:
    description:
      - Where an annotation is written for each stage and verdict, by Grafana's HTTP API. C(url); C(token) of a service account, or
        C(username) and C(password); C(timeout) in seconds (5); C(ca_path), C(validate_certs). Empty writes none.
    type: dict
    default: {}
  error:
    description: Why a channel did not take the notice, empty when it did.
    type: str
    default: ""
seealso:
  - module: progressive.delivery.rollout_record
"""

EXAMPLES = r"""
- name: Have people told
  progressive.delivery.rollout_observer:
    state: started
    journal: "{{ delivery_journal }}"
    rollout: "{{ delivery_rollout }}"
    service: shop
    textfile_dir: /var/lib/prometheus/node-exporter
    channels:
      - name: team
        type: slack
        url: "{{ vault_slack_webhook }}"
  register: told

- name: Wait for the last word
  progressive.delivery.rollout_observer:
    state: awaited
    journal: "{{ delivery_journal }}"
    rollout: "{{ delivery_rollout }}"
    observer: "{{ told.observer }}"
"""

RETURN = r"""
observer:
  description: The process, C(pid) and C(started) (clock ticks after boot); empty where there is nobody to tell.
  returned: with O(state=started)
  type: dict
"""
