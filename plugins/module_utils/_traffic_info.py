# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the action plugin and the module ``traffic_weight_info`` share: reads every endpoint, changes nothing."""

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils import _fleet
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._journal import iso
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name
from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Observed, Router, report
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import ARMS_OPTION, ENDPOINTS_OPTION
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share

INFO_SPEC: dict[str, t.Any] = {
    'service': {'type': 'str', 'required': True},
    'endpoints': ENDPOINTS_OPTION,
    'arms': ARMS_OPTION,
    'on_error': {'type': 'str', 'choices': ['fail', 'report'], 'default': 'fail'},
    'run_on': {'type': 'str', 'choices': ['control', 'target'], 'default': 'control'},
}


async def run_info(options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Returns the task's result. Raises DeliveryError for bad options, and for a silent endpoint unless told to report it."""
    service = check_name('service', options['service'])
    routers = registry.build_all(options['endpoints'], service, options['arms'])
    outcomes = await _fleet.each(routers, lambda router: router.read())
    if options['on_error'] == 'fail':
        _fleet.raise_errors(outcomes)
    found = [_endpoint(router, outcomes[router.name]) for router in routers]
    good = [one for one in found if one['ok']]
    return {
        'changed': False, 'service': service, 'endpoints': found,
        'configured': {one['name']: one['configured_bp'] for one in good},
        'stable': _agreed(one['stable'] for one in good),
        # A route that no rollout has moved yet does not know.
        'version': _agreed(one['version'] for one in good if one['version']),
        'moving': any(one['candidates'] or one['matches'] or one['mirror'] for one in good), 'complete': len(good) == len(found),
        'text': '\n'.join([service] + ['  ' + _line(one) for one in found])}


def _endpoint(router: Router, outcome: _fleet.Outcome[Observed]) -> dict[str, t.Any]:
    if outcome.value is None:
        return {'name': router.name, 'ok': False, 'error': str(outcome.error)}
    can = router.capabilities()
    return dict(report(outcome.value), ok=True, error=None, capabilities={
        'arms': can.arms, 'unit': can.unit, 'matches': [{kind: name, 'value': value} for kind, name, value in can.matches],
        'sticky': list(can.sticky), 'verify': list(can.verify), 'native_lease': can.native_lease, 'mirror': can.mirror})


def _agreed(values: t.Iterable[str | None]) -> str | None:
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _line(one: t.Mapping[str, t.Any]) -> str:
    if not one['ok']:
        return '%s: no answer: %s' % (one['name'], one['error'])
    parts = [_shares(one)]
    if one['version']:
        parts[0] += ' (%s is %s)' % (one['stable'], one['version'])
    parts += ['%s=%s -> %s' % (match.get('header') or match.get('cookie'), match['value'], match['arm']) for match in one['matches']]
    parts += ['copies of %s to %s' % (format_share(one['mirror']['share_bp']), one['mirror']['arm'])] if one['mirror'] else []
    left = one['lease_left_s']
    if left is not None:
        parts.append('lease %s left' % format_duration(left) if left > 0 else 'a lease ran out %s ago' % format_duration(-left))
    if one['rollout']:
        parts.append('rollout %s (%s since %s)' % (one['rollout'], one['by'], iso(one['since'])))
    if one['previous']:
        parts.append('back is %s%s' % (one['previous'], ' (%s)' % one['previous_version'] if one['previous_version'] else ''))
    return '%s: %s' % (one['name'], '; '.join(parts + list(one['notes'])))


def _shares(one: t.Mapping[str, t.Any]) -> str:
    return ', '.join('%s %s' % (arm, format_share(bp)) for arm, bp in one['configured_bp'].items()) or 'no split'
