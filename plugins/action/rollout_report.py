# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._report.task import CONSTRAINTS, REPORT_SPEC, run
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Writes the report of a rollout."""

    SPEC = REPORT_SPEC
    CONSTRAINTS = CONSTRAINTS

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        result = asyncio.run(run(options, check_mode=self._task.check_mode))
        self._display.display(result['msg'])
        return result
