# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils import _status
from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name
from ansible_collections.progressive.delivery.plugins.module_utils._report import files
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction
from ansible_collections.progressive.delivery.plugins.plugin_utils._live import terminal_columns

_COLUMNS_ELSEWHERE = 140


class ActionModule(DeliveryAction):
    """Shows how a service stands."""

    SPEC = {
        'service': {'type': 'str', 'required': True},
        'state_dir': {'type': 'path', 'required': True},
        'info': {'type': 'dict', 'default': {}},
        'output': {'type': 'str', 'choices': ['text', 'json'], 'default': 'text'},
    }

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        path = os.path.join(options['state_dir'], check_name('service', options['service']), 'latest.jsonl')
        report, problem = None, None
        # A link to a journal that is gone is a problem; no link is a service that nobody has rolled out from here.
        if os.path.lexists(path):
            try:
                report = files.load(path)
            except DeliveryError as exc:
                problem = str(exc)
        told = _status.status({**options['info'], 'service': options['service']}, report, time.time(), problem)
        if options['output'] == 'json':
            text = json.dumps(told, ensure_ascii=False)
        else:
            columns = terminal_columns()
            text = _status.render(told, columns or _COLUMNS_ELSEWHERE, bool(columns) and not os.environ.get('NO_COLOR')
                                  and not os.environ.get('ANSIBLE_NOCOLOR'))
        self._display.display(text)
        return {'changed': False, 'status': told, 'msg': text}
