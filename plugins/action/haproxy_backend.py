# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.progressive.delivery.plugins.module_utils._backend import CONSTRAINTS, SPEC, run_backend
from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal


class ActionModule(ActionBase):
    """Changes servers from the control host, or has the module of the same name do it on the target."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=SPEC, **CONSTRAINTS)
        try:
            if options['run_on'] == 'target':
                return self._on_target(options, task_vars or {})
            return run_backend(options, self._task.check_mode, self._task.diff, self._display.display)
        except DeliveryError as exc:
            return {'failed': True, 'changed': False, 'msg': str(exc)}

    def _on_target(self, options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        arguments = {key: value for key, value in options.items() if value is not None and key != 'journal'}
        try:
            result = self._execute_module(module_name='progressive.delivery.haproxy_backend', module_args=arguments, task_vars=task_vars)
        except AnsibleConnectionFailure as exc:
            raise Unreachable('The servers of backend %s could not be changed from the host %s: %s' % (
                options.get('backend') or options.get('arm'), task_vars.get('inventory_hostname', '?'), exc)) from exc
        if not self._task.check_mode and (result.get('changed') or result.get('failed')):
            # The journal lies on the control host.
            Journal(options['journal'] or None, options['rollout']).write(
                'servers', phase='failed' if result.get('failed') else 'done', run_on='target', reason=result.get('msg'),
                endpoints=result.get('endpoints'), duration_s=result.get('duration_s'))
        return result
