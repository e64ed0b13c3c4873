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
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run


class ActionModule(ActionBase):
    """Sets the split from the control host, or has the module of the same name do it on the target."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=TRAFFIC_SPEC)
        try:
            if options['run_on'] == 'target':
                return self._on_target(options, task_vars)
            return asyncio.run(run(options, self._task.check_mode))
        except DeliveryError as exc:
            return {'failed': True, 'changed': False, 'msg': str(exc)}

    def _on_target(self, options: dict[str, t.Any], task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        # The journal lies on the control host, so it is written here.
        journal = Journal(None if self._task.check_mode else options['journal'], options['rollout'])
        journal.write(
            'intent', strict=True, service=options['service'], state=options['state'], requested=options['split'], run_on='target')
        arguments = {key: value for key, value in options.items() if value is not None and key != 'journal'}
        # Time passes on the way: the lease counts from before the module began.
        at = time.monotonic()
        try:
            result = self._execute_module(module_name='progressive.delivery.traffic_weight', module_args=arguments, task_vars=task_vars)
        except AnsibleConnectionFailure as exc:
            raise Unreachable('The split of %s could not be set from the host %s: %s' % (
                options['service'], task_vars.get('inventory_hostname') if task_vars else '?', exc)) from exc
        if result.get('lease'):
            result['lease']['at'] = at
        journal.write(
            'way_back' if options['state'] == 'way_back' else 'change', service=options['service'], failed=bool(result.get('failed')),
            before_bp=result.get('previous'), after_bp=result.get('configured'), reason=result.get('msg', ''),
            seconds=result.get('seconds'))
        return result
