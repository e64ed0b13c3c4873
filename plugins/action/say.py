# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Prints a text as it is, whatever the stdout callback makes of results."""

    SPEC = {'msg': {'type': 'str', 'required': True}}

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        self._display.display(options['msg'])
        return {'changed': False, 'msg': options['msg']}
