# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._gate import ARGUMENT_SPEC, read_gate
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._watch import watch
from ansible_collections.progressive.delivery.plugins.plugin_utils._live import Live


class ActionModule(ActionBase):
    """Watches a stage from the control host: one task, a live line, an end that returns the traffic."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        live = Live()
        try:
            gate = read_gate(options)
            if self._task.check_mode:
                self._display.display(gate.intent)
                return {'changed': False, 'msg': gate.intent, 'passed': None, 'verdict': None}
            return asyncio.run(watch(gate, Journal(options['journal'], options['rollout']), live.show, live.say))
        except DeliveryError as exc:
            return {'failed': True, 'changed': False, 'msg': str(exc)}
        finally:
            live.end()
