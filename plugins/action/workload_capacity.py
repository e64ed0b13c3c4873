# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._capacity import CAPACITY_SPEC, CONSTRAINTS, run_capacity
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Checks and scales from the control host, or has the module of the same name do it on the target."""

    SPEC = CAPACITY_SPEC
    CONSTRAINTS = CONSTRAINTS

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        return run_capacity(options, self._task.check_mode, self._task.diff)

    def target(self, options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        return self.module('workload_capacity', options, task_vars, 'The capacity could not be checked', ('journal',))
