# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
requirements:
  - Python package C(kubernetes) on the host that runs the task
options:
  kubeconfig:
    description:
      - File that says where the cluster is and who asks. Without it, and without O(context), what C(KUBECONFIG) names,
        C(~/.kube/config), or the cluster in which the task itself runs.
    type: path
  context:
    description: The context of O(kubeconfig) to use. Without it, the current one.
    type: str
  namespace:
    description: Namespace of the Deployments.
    type: str
    default: default
  deadline:
    description: Seconds that one question to the API server may take, further attempts included.
    type: float
    default: 10
  journal:
    description: File of the rollout's journal on the control host, to which a line is added.
    type: path
  rollout:
    description: Id of the rollout, for the journal.
    type: str
  run_on:
    description: Who asks the API server. V(target) is for one that only the target host reaches; it needs Python 3.9 or later there.
    type: str
    choices: [control, target]
    default: control
"""
