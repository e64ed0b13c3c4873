# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._backend import CONSTRAINTS, SPEC, run_backend
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Changes servers from the control host, or has the module of the same name do it on the target."""

    SPEC = SPEC
    CONSTRAINTS = CONSTRAINTS

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        return run_backend(options, self._task.check_mode, self._task.diff, self._display.display)

    def target(self, options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        result = self.module('haproxy_backend', options, task_vars, 'The servers of backend %s could not be changed' % (
            options.get('backend') or options.get('arm')), ('journal',))
        if not self._task.check_mode and (result.get('changed') or result.get('failed')):
            # The journal lies on the control host.
            Journal(options['journal'] or None, options['rollout']).write(
                'servers', phase='failed' if result.get('failed') else 'done', run_on='target', reason=result.get('msg'),
                endpoints=result.get('endpoints'), duration_s=result.get('duration_s'))
        return result
