# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins!

"""What the collection's action plugins have in common: typed options, one place where an error becomes a result, the way to the target."""

from __future__ import annotations

import typing as t

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError, Unreachable


class DeliveryAction(ActionBase):
    """Runs ``control`` on the control host, or ``target`` where the option ``run_on`` says so.

    A DeliveryError ends the task with its sentence.
    """

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    SPEC: t.ClassVar[dict[str, t.Any]]
    CONSTRAINTS: t.ClassVar[dict[str, t.Any]] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=self.SPEC, **self.CONSTRAINTS)
        try:
            result = self.target(options, task_vars or {}) if options.get('run_on') == 'target' else self.control(options)
        except DeliveryError as exc:
            return {'failed': True, 'changed': False, 'msg': str(exc)}
        if not result.get('changed') and not result.get('failed'):
            # Where tasks that changed nothing are not shown (display_ok_hosts), core drops their warnings with them, however they came.
            for text in result.pop('warnings', ()):
                self._display.display('[WARNING]: ' + text, color=C.COLOR_WARN, stderr=True)
        return result

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        """Does the work here and returns the task's result."""
        raise NotImplementedError

    def target(self, options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Has the module of the same name do the work on the task's host."""
        raise NotImplementedError

    def module(self, name: str, options: t.Mapping[str, t.Any], task_vars: dict[str, t.Any], failure: str,
               leave_out: t.Collection[str] = ()) -> dict[str, t.Any]:
        """Runs the module *name* on the task's host. Raises Unreachable, which begins with *failure*: never UNREACHABLE (law 10)."""
        arguments = {key: value for key, value in options.items() if value is not None and key not in leave_out}
        try:
            return self._execute_module(module_name='progressive.delivery.%s' % name, module_args=arguments, task_vars=task_vars)
        except AnsibleConnectionFailure as exc:
            raise Unreachable('%s from the host %s: %s' % (failure, task_vars.get('inventory_hostname', '?'), exc)) from exc
