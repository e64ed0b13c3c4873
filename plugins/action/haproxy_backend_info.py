# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._backend_info import INFO_SPEC, run_info
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Reads backends and servers from the control host, or has the module of the same name do it on the target."""

    SPEC = INFO_SPEC

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        return run_info(options)

    def target(self, options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        return self.module('haproxy_backend_info', options, task_vars, 'HAProxy could not be read')
