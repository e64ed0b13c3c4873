# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import secrets
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._evidence import go_on
from ansible_collections.progressive.delivery.plugins.module_utils._journal import read_journal
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token
from ansible_collections.progressive.delivery.plugins.module_utils._plan import agreed_stable, make_plan
from ansible_collections.progressive.delivery.plugins.module_utils._rollout import PLAN_SPEC
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction


class ActionModule(DeliveryAction):
    """Makes the plan of a rollout from the variables and from what the routers say; changes nothing."""

    SPEC = PLAN_SPEC

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        service = check_name('service', options['service'])
        stable = options['stable'] or agreed_stable(
            service, [(endpoint['name'], endpoint.get('stable')) for endpoint in options['info'].get('endpoints', [])])
        versions = {endpoint.get('version') for endpoint in options['info'].get('endpoints', [])}
        live = versions.pop() if len(versions) == 1 else None
        plan = make_plan(
            service, options['version'], options['strategy'],
            {'canary': options['canary_stages'], 'blue_green': options['blue_green_stages']},
            options['arms'], stable, options['conditions'], options['canary_arm'], options['target_arm'],
            options['interval'], options['warm_up'], options['settle'], options['ask_timeout'], options['lease'], options['timeouts'])
        # An arm that is neither stable nor a candidate now has no other version that is known.
        plan['versions'] = {**{arm: options['version'] for arm in options['arms']}, stable: live}
        if live is None:
            del plan['versions'][stable]
        evidence, said = self._evidence(options, plan, live)
        moving = any(endpoint.get('candidates') for endpoint in options['info'].get('endpoints', []))
        return {
            'changed': False, 'evidence': evidence, 'notes': [said] if said else [], 'plan': plan, 'live_version': live,
            'already': bool(live == options['version'] and not moving and not options['force']),
            'rollout': check_token('rollout', options['rollout']) if options['rollout'] else '%s-%s-%s' % (
                service, time.strftime('%Y%m%dT%H%M%SZ', time.gmtime()), secrets.token_hex(2)),
        }

    @staticmethod
    def _evidence(options: dict[str, t.Any], plan: dict[str, t.Any], live: str | None) -> tuple[dict[str, t.Any], str]:
        max_age = parse_duration(options['evidence_max_age'], 'evidence_max_age')
        path = os.path.join(options['state_dir'] or '', options['service'], 'latest.jsonl')
        if not options['state_dir'] or options['forget_evidence'] or not os.path.exists(path):
            return {}, ''
        try:
            events = read_journal(path)
        except DeliveryError as exc:
            return {}, str(exc)
        return go_on(events, plan, live, options['alpha'], options['beta'], time.time(), max_age)
