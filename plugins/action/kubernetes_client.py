# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction

# A strategy loads this module in the process that all workers are forked from, before the task runs in a worker. What is imported
# here is there for every later task: the client takes half a second of work, which a gate would spend while a lease runs.
try:
    import kubernetes
    import kubernetes.client
    import kubernetes.config

    VERSION: str | None = kubernetes.__version__
except ImportError:
    VERSION = None


class ActionModule(DeliveryAction):
    """Has the client of Kubernetes loaded once for all tasks, or says that it is missing."""

    SPEC: t.ClassVar[dict[str, t.Any]] = {}

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        if VERSION is None:
            raise BadInput('Routers of Kubernetes need the Python package "kubernetes" on the control host: install it for the Python of '
                           'ansible-playbook, with "pip install kubernetes".')
        return {'changed': False, 'version': VERSION}
