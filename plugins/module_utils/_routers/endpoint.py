# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Endpoints and arms as users write them: one grammar for every plugin that takes them."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Address
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_path
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Arm
from ansible_collections.progressive.delivery.plugins.module_utils._split import MATCH_KINDS, TOTAL, check_match_value, parse_share

ROUTERS = ('haproxy_map', 'haproxy_weights')

ENDPOINT_SPEC: dict[str, t.Any] = {
    'name': {'type': 'str'},
    'router': {'type': 'str', 'choices': list(ROUTERS), 'default': 'haproxy_map'},
    'socket': {'type': 'str', 'required': True},
    'map': {'type': 'str'},
    'file': {'type': 'str'},
    'slots': {'type': 'int', 'default': 1},
    'matches': {'type': 'list', 'elements': 'dict', 'options': {
        'header': {'type': 'str'}, 'cookie': {'type': 'str'}, 'value': {'type': 'str', 'required': True}}},
    'sticky': {'type': 'bool', 'default': False},
    'ring': {'type': 'str'},
    'share': {'type': 'raw', 'default': '100%'},
    'arms': {'type': 'dict'},
    'deadline': {'type': 'float', 'default': 2.0},
    'tolerance_bp': {'type': 'int', 'default': 50},
    'state_dir': {'type': 'path'},
}
"""Argument spec of an element of ``endpoints``; ``docs/architecture.md`` says what each means."""

ENDPOINTS_OPTION: dict[str, t.Any] = {'type': 'list', 'elements': 'dict', 'required': True, 'options': ENDPOINT_SPEC}
ARMS_OPTION: dict[str, t.Any] = {'type': 'dict', 'required': True}


@dataclass(frozen=True)
class Endpoint:
    """One process of a data plane. *deadline* is in seconds, for one operation."""

    name: str
    router: str
    address: Address
    map: str | None
    file: str | None
    slots: int
    matches: tuple[tuple[str, str, str], ...]
    sticky: bool
    ring: str | None
    share_bp: int
    arms: t.Mapping[str, t.Any]
    deadline: float
    tolerance_bp: int
    state_dir: str | None
    options: t.Mapping[str, t.Any]
    """As the user wrote it, name filled in: what a lease value carries."""


def parse_endpoints(raw: t.Sequence[t.Mapping[str, t.Any]]) -> list[Endpoint]:
    """Checks and returns the endpoints. Raises BadInput for a bad one, two of one name, or none."""
    if not raw:
        raise BadInput('There are no endpoints: name at least one HAProxy socket.')
    endpoints = [_parse_endpoint(item) for item in raw]
    for what, values in (('name', [e.name for e in endpoints]), ('socket', [str(e.address) for e in endpoints])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise BadInput('Two endpoints have the %s %s: each process is one endpoint.' % (what, twice[0]))
    return endpoints


def _parse_endpoint(raw: t.Mapping[str, t.Any]) -> Endpoint:
    if not isinstance(raw, t.Mapping):
        raise BadInput('The endpoint %r is not understood: give name and socket.' % (raw,))
    options = {key: value for key, value in raw.items() if value is not None}
    unknown = sorted(set(options) - set(ENDPOINT_SPEC))
    if unknown:
        raise BadInput('The endpoint %s has the unknown option "%s".' % (options.get('name') or options.get('socket'), unknown[0]))
    address = Address.parse(options.get('socket', ''))
    name = options.setdefault('name', str(address))
    if name != str(address):
        check_name('endpoint', name)
    router = options.get('router', 'haproxy_map')
    if router not in ROUTERS:
        raise BadInput('The router "%s" of endpoint %s is not known: use one of %s.' % (router, name, ', '.join(ROUTERS)))
    map_path = options.get('map')
    if router == 'haproxy_map':
        if not map_path:
            raise BadInput('The endpoint %s names no map: give the path of the map file as the configuration writes it.' % name)
        check_path('map of endpoint %s' % name, map_path)
    file = options.get('file', map_path if address.path else '') or None
    if file:
        check_path('file of endpoint %s' % name, file)
    slots, tolerance = options.get('slots', 1), options.get('tolerance_bp', 50)
    if not 1 <= slots <= 100:
        raise BadInput('The endpoint %s has slots %r: the configuration has lines for at least 1 candidate.' % (name, slots))
    if not 0 <= tolerance <= TOTAL:
        raise BadInput('The endpoint %s has tolerance_bp %r: give basis points between 0 and 10000.' % (name, tolerance))
    deadline = parse_duration(options.get('deadline', 2.0), 'deadline of endpoint %s' % name)
    if not 0.01 <= deadline <= 600:
        raise BadInput('The deadline of endpoint %s is %g s: give 0.01 to 600 s.' % (name, deadline))
    ring = options.get('ring')
    arms = options.get('arms') or {}
    if not isinstance(arms, t.Mapping):
        raise BadInput('The arms of endpoint %s must be a dictionary of arm to backend and servers.' % name)
    return Endpoint(
        name=name, router=router, address=address, map=map_path, file=file, slots=slots,
        matches=tuple(_parse_condition(name, item) for item in options.get('matches') or ()),
        sticky=bool(options.get('sticky', False)), ring=check_name('ring', ring) if ring else None,
        share_bp=parse_share(options.get('share', '100%')), arms=arms, deadline=deadline, tolerance_bp=tolerance,
        state_dir=options.get('state_dir'), options=options)


def _parse_condition(endpoint: str, raw: t.Mapping[str, t.Any]) -> tuple[str, str, str]:
    kinds = [kind for kind in MATCH_KINDS if raw.get(kind)]
    if len(kinds) != 1:
        raise BadInput('The match %r of endpoint %s must name either a header or a cookie.' % (dict(raw), endpoint))
    name = check_name('%s of the match' % kinds[0], raw[kinds[0]])
    return kinds[0], name.lower() if kinds[0] == 'header' else name, check_match_value(name, raw.get('value'))


def parse_arms(raw: t.Mapping[str, t.Any], endpoint: Endpoint | None = None) -> dict[str, Arm]:
    """Checks and returns the arms of a service, in the user's order, as *endpoint* has them. Raises BadInput.

    An arm without ``backend`` is the backend of its own name.
    """
    if not isinstance(raw, t.Mapping) or not raw:
        raise BadInput('The service has no arms: give a dictionary such as {blue: {backend: shop_blue}, canary: {backend: shop_canary}}.')
    local = endpoint.arms if endpoint else {}
    where = ' on %s' % endpoint.name if endpoint else ''
    strange = sorted(set(local) - set(raw))
    if strange:
        raise BadInput('The arm "%s"%s is not one of the service: its arms are %s.' % (strange[0], where, ', '.join(raw)))
    arms = {}
    for name, value in raw.items():
        check_name('arm', name)
        merged: dict[str, t.Any] = {}
        for part in (value, local.get(name)):
            if part is not None and not isinstance(part, t.Mapping):
                raise BadInput('The arm "%s"%s must be a dictionary with backend and servers, not %r.' % (name, where, part))
            merged.update({k: v for k, v in (part or {}).items() if v is not None})
        unknown = sorted(set(merged) - {'backend', 'servers'})
        if unknown:
            raise BadInput('The arm "%s"%s has the unknown option "%s": known are backend and servers.' % (name, where, unknown[0]))
        servers = merged.get('servers') or ()
        if isinstance(servers, str) or not isinstance(servers, t.Sequence):
            raise BadInput('The servers of arm "%s"%s must be a list of names.' % (name, where))
        arms[name] = Arm(name, check_name('backend of arm "%s"' % name, merged.get('backend', name)),
                         tuple(check_name('server of arm "%s"' % name, server) for server in servers))
    return arms
