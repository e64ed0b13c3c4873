# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import secrets
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token
from ansible_collections.progressive.delivery.plugins.module_utils._plan import make_plan
from ansible_collections.progressive.delivery.plugins.module_utils._rollout import PLAN_SPEC
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Makes the plan of a rollout from the variables and from what the routers say; changes nothing."""

    SPEC = PLAN_SPEC

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        service = check_name('service', options['service'])
        stable = options['stable'] or self._only(options['info'], 'stable', service)
        versions = {endpoint.get('version') for endpoint in options['info'].get('endpoints', [])}
        live = versions.pop() if len(versions) == 1 else None
        plan = make_plan(
            service, options['version'], options['strategy'],
            {'canary': options['canary_stages'], 'blue_green': options['blue_green_stages']},
            options['arms'], stable, options['conditions'], options['canary_arm'], options['target_arm'],
            options['interval'], options['warm_up'], options['settle'], options['ask_timeout'])
        moving = any(endpoint.get('candidates') for endpoint in options['info'].get('endpoints', []))
        return {
            'changed': False, 'plan': plan, 'live_version': live,
            'already': bool(live == options['version'] and not moving and not options['force']),
            'rollout': check_token('rollout', options['rollout']) if options['rollout'] else '%s-%s-%s' % (
                service, time.strftime('%Y%m%dT%H%M%SZ', time.gmtime()), secrets.token_hex(2)),
        }

    @staticmethod
    def _only(info: dict[str, t.Any], field: str, service: str) -> str:
        found: dict[str, list[str]] = {}
        for endpoint in info.get('endpoints', []):
            if endpoint.get(field):
                found.setdefault(endpoint[field], []).append(endpoint['name'])
        if len(found) == 1:
            return next(iter(found))
        if not found:
            raise BadInput('No router says which arm of %s is stable: name it as delivery_stable_arm.' % service)
        raise BadInput('The routers disagree on the stable arm of %s (%s): '
                       'run rollback.yml or promote.yml first, or name it as delivery_stable_arm.' % (
                           service, '; '.join('%s on %s' % (arm, ', '.join(names)) for arm, names in sorted(found.items()))))
