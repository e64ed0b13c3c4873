# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import os
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._ab_test import AB_SPEC, run
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Takes one step of an A/B test: checks, looks, decides, records. Moves traffic only back."""

    SPEC = AB_SPEC

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        # The worker's parent is the ansible-playbook process: it lives as long as the run does.
        result = asyncio.run(run(options, self._task.check_mode, os.getppid()))
        for text in result.pop('say', []):
            self._display.display(text)
        return result
