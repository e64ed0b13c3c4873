# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What an Envoy that istiod configures has of a VirtualService: its routes in a ``/config_dump``, compared with the rules. Pure.

istiod writes the VirtualService into the metadata of each route that it makes of it, and names clusters
``outbound|<port>|<subset>|<host>``. Rules that can never match, and destinations of weight 0, it leaves out.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._routers.istio_deadline import HEADER, limit_of
from ansible_collections.progressive.delivery.plugins.module_utils._routers.istio_rules import mirrors

DUMP = '/config_dump?resource=dynamic_route_configs'
"""Where Envoy's administration tells the routes that it was given."""

CLUSTERS = '/clusters?format=json'
"""Where it tells whom it knows behind each destination: it hears of them apart from the routes, and on a busy machine later."""

_Target = t.Tuple[str, str, int]
_MILLIONTHS = {'HUNDRED': 10_000, 'TEN_THOUSAND': 100, 'MILLION': 1}


@dataclass(frozen=True)
class Way:
    """Where requests go: (host, subset, weight) of each destination, the weight 1 of a single one; and until when (``istio_deadline``)."""

    to: frozenset[_Target]
    limit: int | None
    copies: frozenset[_Target] = frozenset()
    """The same of copies, in parts per million of the requests."""

    def does(self, other: Way) -> bool:
        """Whether this is *other*, or the same renewed since: a renewal may have reached the Envoy before it was looked at."""
        return (self.to, self.copies) == (other.to, other.copies) and (
            self.limit == other.limit or None not in (self.limit, other.limit) and t.cast(int, self.limit) > t.cast(int, other.limit))

    def __str__(self) -> str:
        copies = ', copies to ' + _said(self.copies) if self.copies else ''
        return _said(self.to) + copies + (' until %d' % self.limit if self.limit else '')


def wanted(http: t.Iterable[t.Mapping[str, t.Any]], full: t.Callable[[str], str]) -> set[Way]:
    """Returns where the rules of a VirtualService lead; *full* completes a host's name."""
    ways = set()
    for rule in http:
        entries = rule.get('route') or []
        targets = [(full((entry.get('destination') or {}).get('host') or ''), (entry.get('destination') or {}).get('subset') or '',
                    entry.get('weight') or 0) for entry in entries]
        targets = [target for target in targets if target[2]] if len(targets) > 1 else targets
        copies = [(full((one.get('destination') or {}).get('host') or ''), (one.get('destination') or {}).get('subset') or '',
                   round((one.get('percentage') or {'value': 100}).get('value', 0) * 10_000)) for one in mirrors(rule)]
        for match in rule.get('match') or [{}]:
            if targets:
                limit = limit_of(((match.get('headers') or {}).get(HEADER) or {}).get('regex'))
                # istiod leaves out what copies nothing.
                ways.add(Way(_plain(targets), limit, frozenset(one for one in copies if one[2])))
    return ways


def shown(dump: t.Any, namespace: str, name: str) -> set[Way]:
    """Returns where the routes lead that an Envoy has of the VirtualService *name* in *namespace*."""
    ways: set[Way] = set()
    ending = '/namespaces/%s/virtual-service/%s' % (namespace, name)
    for route in _routes(dump):
        config = (((route.get('metadata') or {}).get('filter_metadata') or {}).get('istio') or {}).get('config')
        action = route.get('route')
        if not action or not str(config).endswith(ending):
            continue
        clusters = (action.get('weighted_clusters') or {}).get('clusters') or [{'name': action.get('cluster'), 'weight': 1}]
        targets = []
        for cluster in clusters:
            parts = str(cluster.get('name')).split('|')
            if len(parts) == 4:
                targets.append((parts[3], parts[2], int(cluster.get('weight') or 0)))
        limits = [limit_of((((header.get('string_match') or {}).get('safe_regex')) or {}).get('regex'))
                  for header in (route.get('match') or {}).get('headers') or [] if header.get('name') == HEADER]
        copies = set()
        for one in action.get('request_mirror_policies') or []:
            parts = str(one.get('cluster')).split('|')
            part = (one.get('runtime_fraction') or {}).get('default_value') or {'numerator': 100}
            if len(parts) == 4:
                copies.add((parts[3], parts[2], part.get('numerator', 0) * _MILLIONTHS[part.get('denominator') or 'HUNDRED']))
        ways.add(Way(_plain(targets), limits[0] if limits else None, frozenset(copies)))
    return ways


def difference(want: t.Collection[Way], has: t.Collection[Way]) -> str:
    """Returns what an Envoy lacks, or has too much, of what it should have; nothing when it has a split and no other."""
    if not has:
        return 'it has no route of it'
    strange = [way for way in has if not any(way.does(one) for one in want)]
    if strange:
        return 'it still sends requests to %s' % '; '.join(sorted(map(str, strange)))
    lacking = [one for one in want if one.limit is not None and not any(way.does(one) for way in has)]
    if lacking:
        return 'it does not send requests to %s yet' % '; '.join(sorted(map(str, lacking)))
    return ''


def unserved(targets: t.Iterable[tuple[str, str]], clusters: t.Any) -> str:
    """Returns behind which of *targets* (host, subset) an Envoy knows nobody who is healthy, '' when it does behind all."""
    served = set()
    for cluster in (clusters.get('cluster_statuses') if isinstance(clusters, dict) else None) or []:
        parts = str(cluster.get('name')).split('|')
        health = [one.get('health_status') or {} for one in cluster.get('host_statuses') or []]
        if len(parts) == 4 and any(one.get('eds_health_status', 'HEALTHY') == 'HEALTHY' for one in health):
            served.add((parts[3], parts[2]))
    lacking = sorted(host + ('/' + subset if subset else '') for host, subset in targets if (host, subset) not in served)
    return 'it knows nobody behind %s yet' % ', '.join(lacking) if lacking else ''


def _said(targets: t.Iterable[_Target]) -> str:
    return ', '.join(sorted('%s%s %d' % (host, '/' + subset if subset else '', weight) for host, subset, weight in targets))


def _plain(targets: t.Sequence[_Target]) -> frozenset[_Target]:
    return frozenset((host, subset, weight if len(targets) > 1 else 1) for host, subset, weight in targets)


def _routes(part: t.Any) -> t.Iterator[t.Mapping[str, t.Any]]:
    """Every route of a dump, wherever it stands in it."""
    if isinstance(part, list):
        for one in part:
            yield from _routes(one)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key == 'routes' and isinstance(value, list):
                yield from (one for one in value if isinstance(one, dict))
            else:
                yield from _routes(value)
