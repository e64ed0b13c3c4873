# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._workload import STATUS_SPEC, run_status
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Waits on the control host, or has the module of the same name wait on the target."""

    SPEC = STATUS_SPEC

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        return run_status(options, self._display.display)

    def target(self, options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        return self.module('workload_status', options, task_vars, 'The Deployment %s could not be read' % options['name'], ('journal',))
