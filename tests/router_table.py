# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of docs/routers.md: what each router says that it can, and what the contract suite measured.

It stands between two comments, so that `pytest tests/contract --write-table` can put in what it found and nothing else.
"""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Capabilities

DOCUMENT = Path(__file__).resolve().parents[1] / 'docs' / 'routers.md'
COLUMNS = ('router', 'data plane', 'arms', 'finest share', 'matches', 'sticky', 'copies', 'verification', 'lease', 'worst share error',
           'lost requests')
MEASURED = COLUMNS[-2:]
_TABLE = re.compile(r'(<!-- table.*?-->\n)(.*?)(<!-- end of the table -->)', re.S)

Options = t.Dict[str, t.Any]


def _servers(arm: str) -> Options:
    return {'backend': 'pool', 'servers': [arm + '1']}


def _service(arm: str) -> Options:
    return {'backend': arm}


class Case(t.NamedTuple):
    """One row. *options* is all of an endpoint that decides what the router can; addresses only have to be there."""

    title: str
    plane: str
    options: Options
    arm: t.Callable[[str], Options] = _service
    copies: str | None = None
    """The finest share of requests that its data plane copies, where that is not what the router can say; '' for none."""


_SOCKET = 'unix:///run/haproxy/admin.sock'
_KUBE = {'object': 'shop', 'kubeconfig': '/kubeconfig'}
_ADMIN = {'admin': ['http://127.0.0.1:1']}
_PROBE = {'probe': {'url': 'http://127.0.0.1:1', 'header': 'x-arm'}}

CASES = {
    'haproxy_map': Case('`haproxy_map`', 'HAProxy', {
        'router': 'haproxy_map', 'socket': _SOCKET, 'map': '/delivery.map', 'slots': 2, 'sticky': True,
        'matches': [{'header': 'x-canary-user', 'value': 'true'}]}),
    'haproxy_weights': Case('`haproxy_weights`', 'HAProxy', {'router': 'haproxy_weights', 'socket': _SOCKET}, _servers),
    'httproute-traefik': Case('`httproute`', 'Traefik', {'router': 'httproute', **_KUBE, **_PROBE}, copies=''),
    'httproute-contour': Case('`httproute`', 'Contour', {'router': 'httproute', **_KUBE, **_PROBE}, copies='100 %'),
    'virtualservice': Case('`virtualservice`', 'Istio', {'router': 'virtualservice', **_KUBE, **_ADMIN, **_PROBE}),
    'ingress-nginx': Case('`ingress_nginx`', 'Traefik', {'router': 'ingress_nginx', **_KUBE, **_ADMIN, **_PROBE}),
    'traefikservice': Case('`weights`, TraefikService', 'Traefik', {'router': 'weights', 'kind': 'TraefikService', **_KUBE, **_PROBE}),
    'httpproxy': Case('`weights`, HTTPProxy', 'Contour', {'router': 'weights', 'kind': 'HTTPProxy', **_KUBE, **_PROBE}),
    'service-selector': Case('`service_selector`', 'Traefik', {'router': 'service_selector', **_KUBE, **_PROBE},
                             lambda arm: {'labels': {'arm': arm}}),
}


def can(case: Case, arms: int = 3) -> Capabilities:
    """What the router of *case* says of a service with so many arms."""
    names = ['arm%d' % n for n in range(arms)]
    router, = registry.build_all([{'name': 'edge', **case.options}], 'shop', {name: case.arm(name) for name in names})
    return router.capabilities()


def copies(name: str) -> str:
    """The finest share of requests that are copied; '' where none are."""
    said = CASES[name].copies
    return can(CASES[name]).mirror if said is None else said


def row(name: str) -> dict[str, str]:
    """The cells of one row that are not measured."""
    case = CASES[name]
    found, more = can(case), can(case, 150)
    slots = case.options.get('slots')
    arms = 'all' if more.arms == 150 else '%d with `slots: %d`' % (found.arms, slots) if slots else str(found.arms)
    kinds = dict.fromkeys('%s%s' % (kind, '' if value == '*' else ' `%s`' % value if name == '*' else ' `%s: %s`' % (name, value))
                          for kind, name, value in found.matches)
    return dict(zip(COLUMNS, (
        case.title, case.plane, arms, found.unit, ', '.join(kinds) or 'no',
        ', '.join(mode for mode in found.sticky if mode != 'none') or 'no',
        {'': 'no', '100 %': 'all'}.get(copies(name), copies(name)), ', '.join(_level(level, case) for level in found.verify),
        'none: nothing is ever split' if found.unit == 'all or nothing' else 'the data plane' if found.native_lease else
        'a Job' if case.options.get('object') else 'a watchdog')))


def _level(level: str, case: Case) -> str:
    needs = {'L2': 'admin', 'L3': 'probe'}.get(level)
    return '%s (`%s`)' % (level, needs) if needs in case.options else level


def render(rows: t.Iterable[t.Mapping[str, str]]) -> str:
    """Rows as a Markdown table."""
    lines = [COLUMNS, ('---',) * len(COLUMNS)] + [tuple(one.get(column) or '–' for column in COLUMNS) for one in rows]
    return ''.join('| %s |\n' % ' | '.join(cells) for cells in lines)


def documented() -> list[dict[str, str]]:
    """The rows that the document has."""
    lines = _TABLE.search(DOCUMENT.read_text()).group(2).splitlines()[2:]
    return [dict(zip(COLUMNS, (cell.strip() for cell in line.strip('|').split('|')))) for line in lines]


def write(rows: t.Iterable[t.Mapping[str, str]]) -> None:
    """Puts *rows* into the document's table."""
    DOCUMENT.write_text(_TABLE.sub(lambda found: found.group(1) + render(rows) + found.group(3), DOCUMENT.read_text()))
