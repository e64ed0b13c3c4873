# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Sets the split from the control host, or has the module of the same name do it on the target."""

    SPEC = TRAFFIC_SPEC

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        return asyncio.run(run(options, self._task.check_mode))

    def target(self, options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        # The journal lies on the control host, so it is written here.
        journal = Journal(None if self._task.check_mode else options['journal'], options['rollout'])
        journal.write(
            'intent', strict=True, service=options['service'], state=options['state'], requested=options['split'], run_on='target')
        # Time passes on the way: the lease counts from before the module began.
        at = time.monotonic()
        result = self.module('traffic_weight', options, task_vars, 'The split of %s could not be set' % options['service'], ('journal',))
        if result.get('lease'):
            result['lease']['at'] = at
        journal.write(
            'way_back' if options['state'] == 'way_back' else 'change', service=options['service'], failed=bool(result.get('failed')),
            before_bp=result.get('previous'), after_bp=result.get('configured'), reason=result.get('msg', ''),
            seconds=result.get('seconds'))
        return result
