# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._preflight_run import PREFLIGHT_SPEC, run
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Looks whether a service is ready for a rollout, and prints the table; changes nothing."""

    SPEC = {**PREFLIGHT_SPEC, 'output': {'type': 'str', 'choices': ['text', 'json'], 'default': 'text'}}

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        result = run(options)
        if options['output'] == 'json':
            self._display.display(json.dumps({key: result[key] for key in ('service', 'state', 'rows', 'seconds')}, ensure_ascii=False))
        else:
            self._display.display(result['text'])
        return result
