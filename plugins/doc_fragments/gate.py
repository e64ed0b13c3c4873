# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options that say how a gate observes and what follows from its verdict."""

    DOCUMENTATION = r"""
options:
  service:
    description: Name of the service.
    type: str
    required: true
  arms:
    description:
      - The arms of the service by name, each with C(backend) and, where several arms share a backend, C(servers).
    type: dict
    required: true
  endpoints:
    description:
      - The routers, as M(progressive.delivery.traffic_weight) takes them. With at least one of them there is a source V(router), which
        reads HAProxy's counters and, where the endpoint names its C(ring), the latency of each request; at a route of a cluster the
        metrics of its data plane, as its C(metrics) say, and the state of the arms' pods. Counts of all endpoints are added up, and a
        limit also holds behind each endpoint alone.
    type: list
    elements: dict
    default: []
  sources:
    description:
      - Further sources of observations by name, each with C(type) (V(prometheus) or V(http)) and the options of that type.
    type: dict
    default: {}
  stable:
    description: The arm that comparisons are made with.
    type: str
  versions:
    description: The version of each arm, for C($version) in queries of O(sources).
    type: dict
    default: {}
  alpha:
    description: Probability that the V(sequential) conditions of the whole rollout, together, ever fail a candidate that does no harm.
    type: float
    default: 0.05
  beta:
    description: Probability that a V(sequential) condition passes a stage though there is harm beyond what it tolerates.
    type: float
    default: 0.05
  analysis_state:
    description:
      - C(analysis_state) of the rollout's stage before, so that the evidence of all stages counts together, also in a rollout that is
        taken up again. The V(sequential) conditions, O(alpha) and O(beta) must be the same.
    type: dict
  policy:
    description: What follows a verdict that is neither V(pass) nor V(fail).
    type: dict
    suboptions:
      inconclusive:
        description:
          - The data do not decide. V(extend) watches O(extend_by) longer and judges again, at most O(max_extensions) times.
          - V(ask) asks a person, who answers at the terminal or with the playbook C(progressive.delivery.approve). Meanwhile the leases are
            renewed and the limits that end a stage are watched. No answer within O(ask_timeout) is a failure.
        type: str
        default: fail
        choices: [fail, pass, extend, ask]
      no_data:
        description: There was nothing to judge.
        type: str
        default: fail
        choices: [fail, pass, extend, ask]
      error:
        description: A source failed O(error_limit) times in a row.
        type: str
        default: fail
        choices: [fail, pass, extend, ask]
  ask_timeout:
    description: How long a question stands before no answer is a failure. At most a day.
    type: raw
    default: 30m
  ask_by:
    description: Names of those who may answer what V(ask) of O(policy) asks. Default is anybody.
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
"""
