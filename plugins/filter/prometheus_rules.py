# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: prometheus_rules
short_description: Make recording rules and alerts of services from the limits of their gates
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Returns a file of rules for Prometheus as data, to be written as YAML. The role P(progressive.delivery.monitoring#role) uses it.
  - Every name and every query is checked; a mistake ends with one sentence.
positional: _input
options:
  _input:
    description: The services, as C(monitoring_services) has them.
    type: list
    elements: dict
    required: true
  limits:
    description: Limits of services that do not say their own.
    type: dict
    required: true
  queries:
    description: PromQL of what is measured, with C($service), C($arm), C($backend) and C($window).
    type: dict
    required: true
  window:
    description: Window of rates, a duration.
    type: str
    required: true
  interval:
    description: How often the rules are evaluated, a duration.
    type: str
    required: true
  for:
    description: For how long a limit must be exceeded, a duration for each alert.
    type: dict
    required: true
  stuck_after:
    description: How long a rollout may be silent or late, a duration.
    type: str
    required: true
  rolled_back_hold:
    description: For how long it is told that a rollout went back, a duration.
    type: str
    required: true
  labels:
    description: Labels that every alert gets.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Look at the rules
  ansible.builtin.debug:
    msg: "{{ monitoring_services | progressive.delivery.prometheus_rules(**monitoring_rule_options) | to_nice_yaml }}"
"""

RETURN = r"""
_value:
  description: The file of rules, C(groups).
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._monitoring import rules


def prometheus_rules(services: t.Any, **options: t.Any) -> dict[str, t.Any]:
    try:
        return rules.from_options(services, options)
    except BadInput as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {'prometheus_rules': prometheus_rules}
