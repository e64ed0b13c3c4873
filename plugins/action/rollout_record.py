# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._lock import holder_for
from ansible_collections.progressive.delivery.plugins.module_utils._rollout import RECORD_SPEC, Record
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction
from ansible_collections.progressive.delivery.plugins.plugin_utils._versions import versions


class ActionModule(DeliveryAction):
    """Keeps the record of a rollout: lock, journal, summary."""

    SPEC = RECORD_SPEC

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        # The worker's parent is the ansible-playbook process: it lives as long as the rollout does.
        holder = holder_for(options['rollout'], options['by'], time.time(), os.getppid())
        result = Record(options, holder, check_mode=self._task.check_mode, tools=versions()).run()
        for text in result.pop('say', []):
            self._display.display(text)
        return result
