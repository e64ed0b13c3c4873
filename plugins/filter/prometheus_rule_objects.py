# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: prometheus_rule_objects
short_description: Make objects of Prometheus' operator of rules
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Returns a PrometheusRule for each group of what P(progressive.delivery.prometheus_rules#filter) returned, one a service, since an
    object of Kubernetes holds a few hundred kilobytes at most. The role P(progressive.delivery.monitoring#role) uses it.
positional: _input, namespace, labels
options:
  _input:
    description: The rules, C(groups).
    type: dict
    required: true
  namespace:
    description: Namespace of the objects.
    type: str
    required: true
  labels:
    description: Labels that the operator selects them by.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Look at the objects
  ansible.builtin.debug:
    msg: "{{ rules | progressive.delivery.prometheus_rule_objects('monitoring', {'release': 'prometheus'}) }}"
"""

RETURN = r"""
_value:
  description: The objects, C(progressive-delivery) for rollouts as such and C(progressive-delivery-SERVICE) for each service.
  type: list
  elements: dict
"""

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._monitoring import rules


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {'prometheus_rule_objects': rules.operator_objects}
