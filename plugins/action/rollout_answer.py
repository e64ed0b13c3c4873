# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._answering import ANSWER_SPEC, give
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Answers the question that a rollout of a service asks, through its journal."""

    SPEC = ANSWER_SPEC

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        return give(options, self._task.check_mode, time.monotonic, time.sleep)
