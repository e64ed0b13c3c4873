# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._host import HOST_SPEC
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Has the module of the same name look at the task's host, and compares the clocks."""

    SPEC = HOST_SPEC

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """A host that cannot be asked is an ``error`` in the result: whether that matters is judged elsewhere."""
        self._host_vars = task_vars or {}
        return super().run(tmp, task_vars)

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        sent = time.time()
        try:
            result = self.module('host_readiness_info', options, self._host_vars, 'Readiness could not be read')
        except DeliveryError as exc:
            return {'changed': False, 'error': str(exc)}
        received = time.time()
        if result.get('failed') or 'time' not in result:
            said = ' '.join(str(result.get('msg') or result.get('module_stderr') or 'no answer').split())[:300]
            return {'changed': False, 'error': 'Readiness could not be read from the host: %s' % said}
        # The module read its clock at some moment between the two.
        return {**result, 'skew_s': round(result['time'] - (sent + received) / 2, 4), 'within_s': round((received - sent) / 2, 4)}
