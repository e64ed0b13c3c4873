# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._lock import holder_for
from ansible_collections.progressive.delivery.plugins.module_utils._rollout import RECORD_SPEC, Record


class ActionModule(ActionBase):
    """Keeps the record of a rollout: lock, journal, summary."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=RECORD_SPEC)
        display = Display()
        try:
            # The worker's parent is the ansible-playbook process: it lives as long as the rollout does.
            holder = holder_for(options['rollout'], options['by'], time.time(), os.getppid())
            record = Record(options, holder, check_mode=self._task.check_mode)
            result = record.run()
        except DeliveryError as exc:
            return {'failed': True, 'changed': False, 'msg': str(exc)}
        for text in result.pop('say', []):
            display.display(text)
        return result
