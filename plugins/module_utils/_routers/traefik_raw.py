# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a Traefik has of a canary Ingress: routers and services of its ``/api/rawdata``, compared with the objects. Pure.

Its provider for ingress-nginx makes of each path of the main Ingress a router ``<namespace>-<name>-rule-<n>-path-<n>``, whose service
ends in ``-wrr`` while a canary shares it, and a router with ``-canary`` for what a header or a cookie chooses (Traefik 3.7).
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

RAW = '/api/rawdata'
_PROVIDER = '@kubernetesingressnginx'


@dataclass(frozen=True)
class Path:
    """One path of a main Ingress: its rule's and its own place, and the Service that it leads to."""

    rule: int
    place: int
    service: str


@dataclass(frozen=True)
class Share:
    """What a canary takes: *weight* of *total*; *matched* when a header or a cookie leads to it too."""

    weight: int
    total: int
    matched: bool


def difference(told: t.Any, namespace: str, ingress: str, paths: t.Iterable[Path], share: Share | None) -> str:
    """Returns what Traefik does not have yet, '' when it has all. Without *share* there is no canary."""
    routers, services = _of(told, 'routers'), _of(told, 'services')
    for path in paths:
        key = _normal('%s-%s-rule-%d-path-%d' % (namespace, ingress, path.rule, path.place))
        router = routers.get(key)
        if not isinstance(router, dict):
            return 'it has no router %s' % key
        leads = str(router.get('service')).partition('@')[0]
        primary = leads[:-len('-wrr')] if leads.endswith('-wrr') else leads
        if not (primary + '-').startswith(_normal('%s-%s-%s' % (namespace, ingress, path.service)) + '-'):
            return 'its router %s leads to %s' % (key, leads)
        weights = [one.get('weight') for one in ((services.get(leads) or {}).get('weighted') or {}).get('services') or ()]
        want = [share.total - share.weight, share.weight] if share else []
        if weights != want:
            return 'its router %s has the weights %s' % (key, ' and '.join(map(str, weights)) or 'of no canary')
        if (key + '-canary' in routers) != bool(share and share.matched):
            return 'its router %s-canary is %s' % (key, 'still there' if key + '-canary' in routers else 'not there yet')
    return ''


def _of(told: t.Any, what: str) -> dict[str, t.Any]:
    found = told.get(what) if isinstance(told, dict) else None
    return {name[:-len(_PROVIDER)]: one for name, one in (found or {}).items() if name.endswith(_PROVIDER)}


def _normal(name: str) -> str:
    """As Traefik makes names: letters and digits, whatever else is between them a dash."""
    return '-'.join(re.findall(r'[A-Za-z0-9]+', name))
