# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._foresight import GATE_PLAN_SPEC, run
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Checks the gates of all stages and tells what they can find in the traffic of the moment; changes nothing."""

    SPEC = GATE_PLAN_SPEC

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        return run(options)
