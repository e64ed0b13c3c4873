# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._traffic_info import INFO_SPEC, run_info


class ActionModule(ActionBase):
    """Reads the split from the control host, or has the module of the same name do it on the target."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=INFO_SPEC)
        try:
            if options['run_on'] == 'target':
                arguments = {key: value for key, value in options.items() if value is not None}
                return self._execute_module(
                    module_name='progressive.delivery.traffic_weight_info', module_args=arguments, task_vars=task_vars)
            return asyncio.run(run_info(options))
        except AnsibleConnectionFailure as exc:
            said = "The split of %s could not be read from the task's host: %s" % (options['service'], exc)
            return {'failed': True, 'changed': False, 'msg': said}
        except DeliveryError as exc:
            return {'failed': True, 'changed': False, 'msg': str(exc)}
