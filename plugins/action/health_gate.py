# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import time
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._gate import ARGUMENT_SPEC, Gate, read_gate
from ansible_collections.progressive.delivery.plugins.module_utils._gate_result import record
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._report.task import write_where_asked
from ansible_collections.progressive.delivery.plugins.module_utils._watch import watch
from ansible_collections.progressive.delivery.plugins.plugin_utils._live import Live
from ansible_collections.progressive.delivery.plugins.plugin_utils._terminal import Keyboard


class ActionModule(ActionBase):
    """Watches a stage in one task, from the control host with a live line, or through the module of the same name on the target."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        live = Live()
        journal = Journal(options['journal'], options['rollout'])
        try:
            gate = read_gate(options)
            if self._task.check_mode:
                # A single task in check mode, in a run that is not, tries its options: there is nothing to show.
                if (task_vars or {}).get('ansible_check_mode', True):
                    self._display.display(gate.intent)
                return {'changed': False, 'msg': gate.intent, 'passed': None, 'verdict': None}
            if options['run_on'] == 'target':
                return self._on_target(gate, options, journal, task_vars)
            return asyncio.run(watch(gate, journal, live.show, live.say, Keyboard(live), lambda: self._last_word(journal.path, live.say)))
        except DeliveryError as exc:
            return {'failed': True, 'changed': False, 'msg': str(exc)}
        finally:
            live.end()

    @staticmethod
    def _last_word(journal: str | None, say: t.Callable[[str], None]) -> None:
        """The run ends here: no task will come that writes the report."""
        report = write_where_asked(journal)
        if report:
            say('Report: %s' % report)

    def _on_target(self, gate: Gate, options: dict[str, t.Any], journal: Journal, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        arguments = {key: value for key, value in options.items() if value is not None and key != 'journal'}
        now = time.monotonic()
        arguments['leases'] = [
            {**lease, 'endpoints': [{**one, 'left_s': lease['at'] + one['left_s'] - now} for one in lease['endpoints']]}
            for lease in options['leases'] if lease]
        try:
            result = self._execute_module(module_name='progressive.delivery.health_gate', module_args=arguments, task_vars=task_vars)
        except AnsibleConnectionFailure as exc:
            raise Unreachable('%s could not be watched from the host %s: %s' % (
                gate.label, task_vars.get('inventory_hostname') if task_vars else '?', exc)) from exc
        if result.get('verdict'):
            record(journal.write, gate.label, result)
        return result
