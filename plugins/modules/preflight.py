#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Look whether a service is ready for a rollout
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - >-
    Looks at routers, permissions, leases, the plan, the lock, the sources of observations, servers, hosts, clocks, certificates, names,
    alerts and the backup, all at the same time and each with a deadline, and prints a table of pass, warn and fail with what to mend.
  - The task fails when a check fails. What cannot be reached is a row of the table, and never an unreachable host.
  - This is an action plugin. It runs on the control host and changes nothing.
extends_documentation_fragment:
  - progressive.delivery.attributes
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
    description: Runs on the control host.
options:
  version:
    description: The version to roll out. When it is live everywhere already, only routers are looked at.
    type: str
  strategy:
    description: Which stages to plan, as M(progressive.delivery.rollout_plan) takes it, like the seven options that follow.
    type: str
    default: hybrid
    choices: [hybrid, canary, blue_green]
  canary_stages:
    description: Stages of the canary.
    type: raw
    default: []
  blue_green_stages:
    description: Stages on the target arm.
    type: raw
    default: []
  stable:
    description: The stable arm. By default the one that the routers name.
    type: str
  canary_arm:
    description: The arm that canary stages use.
    type: str
  target_arm:
    description: The arm that takes over.
    type: str
  conditions:
    description: The conditions of every stage.
    type: list
    elements: dict
    default: []
  interval:
    description: Time between two looks of a gate.
    type: raw
    default: 10
  lease:
    description: How long a share lives without being renewed.
    type: raw
    default: 30s
  scaled:
    description: Whether the rollout gives a candidate the instances that its share needs (Kubernetes).
    type: bool
    default: false
  sources:
    description: Further sources of observations by name, as M(progressive.delivery.health_gate) takes them.
    type: dict
    default: {}
  state_dir:
    description: Directory for locks and journals. Without it, neither is looked at.
    type: path
  rollout:
    description: The rollout that may hold lock and splits already.
    type: str
  force:
    description: Whether the rollout is to displace another one, which is a warning then.
    type: bool
    default: false
  hosts:
    description: What M(progressive.delivery.host_readiness_info) returned, by host. One without a result was not looked at.
    type: dict
    default: {}
  certificates:
    description: >-
      TLS servers whose certificates must be accepted and last: C(https://host:port) or C(host:port), or dictionaries of C(address),
      C(server_name) and C(ca_path).
    type: list
    elements: raw
    default: []
  dns:
    description: Names that must resolve on the control host.
    type: list
    elements: str
    default: []
  alerts:
    description: >-
      Who knows of alerts: C(url), C(type) (V(prometheus) or V(alertmanager)), C(labels) that an alert must have to count (by default
      C(service)), and the options for access of a source. Empty asks nobody. One that does not answer is a warning.
    type: dict
    default: {}
  backup:
    description: >-
      What a check of yours found: C(time) of the last backup in seconds since 1970, C(ok), C(text), C(mend); or C(error).
    type: dict
  limits:
    description: >-
      From which value on C(cpu), C(memory), C(disk) (ratios in use), C(clock) (difference), C(certificates) (time left) and C(backup)
      (age) C(warn) and C(fail). An empty value is never.
    type: dict
    default: {}
  skip:
    description: >-
      Checks to leave out: V(routers), V(permissions), V(lease), V(plan), V(lock), V(metrics), V(servers), V(capacity), V(cpu), V(memory),
      V(disk), V(clock), V(certificates), V(dns), V(alerts), V(backup).
    type: list
    elements: str
    default: []
  deadline:
    description: How long any single look may take; routers have their own.
    type: raw
    default: 5s
  output:
    description: V(text) for a person, V(json) for a program, on one line.
    type: str
    choices: [text, json]
    default: text
seealso:
  - module: progressive.delivery.host_readiness_info
  - module: progressive.delivery.rollout_plan
"""

EXAMPLES = r"""
- name: Is the shop ready?
  progressive.delivery.preflight:
    service: shop
    arms: {blue: {backend: shop_blue}, canary: {backend: shop_canary}}
    endpoints:
      - {name: lb1, socket: unix:///run/haproxy/admin.sock, map: /etc/haproxy/delivery.map}
    canary_stages: 5%:30m, 20%:45m
    blue_green_stages: 100%:15m
    state_dir: /var/lib/progressive.delivery
    certificates: ["https://shop.example.com"]
    dns: [shop.example.com]
    alerts: {url: "http://prometheus.example.com:9090"}
    limits: {cpu: {warn: 0.6}, disk: {fail: }}
"""

RETURN = r"""
state:
  description: The worst of the rows, V(pass), V(warn) or V(fail).
  returned: always
  type: str
rows:
  description: What each check says.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The check.
      type: str
      returned: always
    subject:
      description: What it looked at.
      type: str
      returned: always
    state:
      description: V(pass), V(warn), V(fail) or V(skip).
      type: str
      returned: always
    text:
      description: What it found.
      type: str
      returned: always
    mend:
      description: What to do about it.
      type: str
      returned: always
text:
  description: The table that was printed.
  returned: always
  type: str
seconds:
  description: How long it took.
  returned: always
  type: float
"""
