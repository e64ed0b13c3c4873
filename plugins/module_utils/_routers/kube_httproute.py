# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""HTTPRoute and GRPCRoute of the Gateway API (gateway.networking.k8s.io/v1): weights of backendRefs, and rules for matches. Pure.

Facts (Gateway API specification): a missing weight is 1; all weights 0 answers 500; of two rules the one with more header matches
wins, so that a rule that repeats another's matches with one header more needs no place in the list. Matching a header exactly is
core; a regular expression, which a cookie needs, is left to implementations (Envoy's match the whole value, Traefik's any part: the one
written here is anchored). ``sessionPersistence`` overrides weights, 0 included: destinations without a share are taken out there.
"""

from __future__ import annotations

import copy
import re
import typing as t
from dataclasses import replace

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Capabilities
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import Accepted, Decoded, Objects
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_weights import Element, Kind, WeightsCodec
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Match, Mirror, Split

_GROUP = 'gateway.networking.k8s.io'
KINDS = {
    'HTTPRoute': Kind(_GROUP, 'v1', 'httproutes', ('spec', 'rules'), 'backendRefs', 'name', 'port', apart=True),
    'GRPCRoute': Kind(_GROUP, 'v1', 'grpcroutes', ('spec', 'rules'), 'backendRefs', 'name', 'port', apart=True),
}
# What becomes of the filter RequestMirror: a controller copies the share that is asked for, or all, or answers every request of the rule
# with 500. Read in their code and seen at the data planes of the tests (Traefik, Contour), or in their conformance reports.
_SHARES, _ALL, _NONE = 'shares', 'all', 'none'
_COPYING = {
    'traefik.io/gateway-controller': _NONE,
    'projectcontour.io/gateway-controller': _ALL,
    'istio.io/gateway-controller': _SHARES,
    'gateway.envoyproxy.io/gatewayclass-controller': _SHARES,
    'io.cilium/gateway-controller': _SHARES,
    'kgateway.dev/kgateway': _SHARES,
    'gateway.nginx.org/nginx-gateway-controller': _SHARES,
}
_MIRROR = 'RequestMirror'
_COOKIE = '^(.*; ?)?%s=%s(;.*)?$'
_COOKIE_PARTS = re.compile(r'\^\(\.\*; \?\)\?(?P<name>.+?)=(?P<value>.+)\(;\.\*\)\?\$')
_RULES_MOST = 16


class HttpRouteCodec(WeightsCodec):
    """Rules that name arms share by weight; a match is a rule of our own beside each, named ``pd-<service>-<number>``."""

    def _row(self, kind: str | None) -> Kind:
        if kind is not None and kind not in KINDS:
            raise BadInput('The endpoint %s has the kind "%s", and the router httproute knows %s.' % (self.name, kind, ', '.join(KINDS)))
        # A rule's name is a DNS name, which a service's need not be.
        self._managed = re.compile('pd-%s-[0-9]+' % re.sub('[^a-z0-9-]', '-', self.service.lower()))
        return KINDS[kind or 'HTTPRoute']

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), matches=(('header', '*', '*'), ('cookie', '*', '*')), verify=('L0', 'L1'),
                       mirror='' if self._copying is False else '0.01 %')

    def _candidates(self, rules: list[Element]) -> list[Element]:
        return [rule for rule in rules if not self._is_managed(rule)]

    def _is_managed(self, rule: Element) -> bool:
        return bool(self._managed.fullmatch(str(rule.get('name'))))

    def decode(self, objects: Objects) -> Decoded:
        seen = super().decode(objects)
        obj = t.cast(Obj, objects['route'])
        matches: dict[Match, int] = {}
        unknown = dict.fromkeys(seen.unknown)
        for rule in obj.get('spec', {}).get('rules') or ():
            if not self._is_managed(rule):
                continue
            for one in {_condition(match) for match in rule.get('matches') or ()} - {None}:
                arms = [self._arm(obj, ref) for ref in rule.get('backendRefs') or ()]
                if arms and arms[0]:
                    match = Match(*t.cast('tuple[str, str, str]', one), arms[0])
                    matches[match] = matches.get(match, 0) + 1
                elif rule.get('backendRefs'):
                    unknown[str(rule['backendRefs'][0].get('name'))] = None
        rules = self._rules(obj)[0]
        persistent = any(rule.get('sessionPersistence') for rule in rules)
        notes = seen.notes + ((
            'The %s ties clients to backends (sessionPersistence): those of a candidate stay there whatever its weight, until the way back '
            'takes it out.' % self.refs()['route'].ref,) if persistent else ())
        meshed = [str(parent.get('name')) for parent in obj.get('spec', {}).get('parentRefs') or () if _kind(parent) == ('', 'Service')]
        notes += (
            'The %s has the Service "%s" for its parent: it is followed by clients in the mesh, not by others; and where a ServiceProfile '
            'of Linkerd is for that Service, by nobody.' % (self.refs()['route'].ref, '", "'.join(meshed)),) if meshed else ()
        # A match that is there for one rule and not for another is not what was asked for.
        whole = all(count == len(rules) for count in matches.values())
        return replace(seen, unknown=tuple(unknown), matches=tuple(matches), uniform=seen.uniform and whole, notes=notes)

    def encode(self, objects: Objects, split: Split, deadline_s: float | None = None) -> dict[str, Obj | None]:
        obj = t.cast(Obj, super().encode(objects, split)['route'])
        rules = [rule for rule in obj['spec'].get('rules') or () if not self._is_managed(rule)]
        chosen = self._rules(obj)[0]
        for rule in chosen:
            if rule.get('sessionPersistence') and len(split.candidates) == 0:
                rule['backendRefs'] = [ref for ref in rule['backendRefs'] if ref.get('weight') != 0]
        added = [self._matched(rule, match, obj) for match in split.matches for rule in chosen]
        for number, rule in enumerate(added):
            rule['name'] = 'pd-%s-%d' % (re.sub('[^a-z0-9-]', '-', self.service.lower()), number)
        if len(rules) + len(added) > _RULES_MOST:
            raise Unsupported('The %s would have %d rules with the matches of %s: it can have %d; name fewer matches, or the rules '
                              'that split.' % (self.refs()['route'].ref, len(rules) + len(added), self.service, _RULES_MOST))
        obj['spec']['rules'] = rules + added
        return {'route': obj}

    def _matched(self, rule: Element, match: Match, obj: Obj) -> Element:
        """Returns the rule that takes the requests of *rule* that have the header or cookie of *match*."""
        new = {key: copy.deepcopy(value) for key, value in rule.items() if key not in ('backendRefs', 'sessionPersistence')}
        self._copy(obj, new, None)
        if match.kind == 'header':
            wanted = {'type': 'Exact', 'name': match.name, 'value': match.value}
        else:
            wanted = {'type': 'RegularExpression', 'name': 'cookie', 'value': _COOKIE % (re.escape(match.name), re.escape(match.value))}
        new['matches'] = new.get('matches') or [{}]
        for one in new['matches']:
            if any(header.get('name', '').lower() == wanted['name'].lower() for header in one.get('headers') or ()):
                raise Unsupported('A rule of the %s matches on the header %s already, and a request can be asked for it once: '
                                  'use another header.' % (self.refs()['route'].ref, wanted['name']))
            one['headers'] = list(one.get('headers') or ()) + [wanted]
        ref = next((copy.deepcopy(ref) for ref in rule['backendRefs'] if self._arm(obj, ref) == match.arm), None)
        ref = ref or self._made(obj, match.arm, 1, rule['backendRefs'])
        new['backendRefs'] = [dict(ref, weight=1)]
        return new

    # ---- copies

    def _mirror(self, obj: Obj, rule: Element) -> Mirror | None:
        return next((Mirror(t.cast(str, self._arm(obj, ref)), bp) for ref, bp in map(_copied, rule.get('filters') or ())
                     if ref and self._arm(obj, ref)), None)

    def _copy(self, obj: Obj, rule: Element, mirror: Mirror | None) -> None:
        filters = [one for one in rule.get('filters') or () if not (_copied(one)[0] and self._arm(obj, _copied(one)[0] or {}))]
        if mirror:
            self._check_copying(obj, mirror)
            ref = self._made(obj, mirror.arm, 1, rule.get('backendRefs') or ())
            share = {} if mirror.bp == TOTAL else {'fraction': {'numerator': mirror.bp, 'denominator': TOTAL}}
            ref = {key: value for key, value in ref.items() if key != 'weight'}
            filters.append({'type': _MIRROR, 'requestMirror': {'backendRef': ref, **share}})
        if filters:
            rule['filters'] = filters
        else:
            rule.pop('filters', None)

    def _check_copying(self, obj: Obj, mirror: Mirror) -> None:
        """Raises Unsupported unless all who serve the route are known, or said by the user, to copy *mirror*'s share."""
        if self._copying:
            return
        names = {str(parent.get('controllerName')) for parent in (obj.get('status') or {}).get('parents') or ()}
        found = {name: _COPYING.get(name, '') for name in sorted(names)}
        for name, how in found.items():
            if how == _NONE:
                raise Unsupported('%s cannot make %s: %s answers all requests of a rule that asks for them with an error.' % (
                    self.name, mirror, name))
            if how == _ALL and mirror.bp != TOTAL:
                raise Unsupported('%s cannot make %s: %s copies all requests of a rule whatever share is asked for; ask for 100 %%.' % (
                    self.name, mirror, name))
        unknown = [name for name, how in found.items() if not how] or ['' if found else 'a controller that has not taken the route']
        if unknown[0]:
            raise Unsupported('%s may not make %s: whether %s copies the share of a RequestMirror is not known; where it does, say '
                              '"mirror: true" at the endpoint.' % (self.name, mirror, unknown[0]))

    def accepted(self, objects: Objects) -> Accepted:
        obj = t.cast(Obj, objects['route'])
        generation = obj['metadata'].get('generation', 0)
        parents, silent = (obj.get('status') or {}).get('parents') or (), set()
        for wanted in obj.get('spec', {}).get('parentRefs') or ():
            if not any(_same_parent(wanted, parent.get('parentRef') or {}) for parent in parents):
                return Accepted(None, 'no controller has taken it for the %s "%s"' % (wanted.get('kind', 'Gateway'), wanted.get('name')))
        for parent in parents:
            where = '%s on "%s"' % (parent.get('controllerName'), (parent.get('parentRef') or {}).get('name'))
            conditions = {one.get('type'): one for one in parent.get('conditions') or ()}
            for name in ('Accepted', 'ResolvedRefs'):
                one = conditions.get(name)
                if one is None or one.get('observedGeneration', generation) < generation:
                    return Accepted(None, '%s has not looked at this generation of it' % where)
                if 'observedGeneration' not in one:
                    silent.add(str(parent.get('controllerName')))
                if one.get('status') != 'True':
                    return Accepted(False, '%s says %s: %s' % (where, one.get('reason'), one.get('message')))
        if not parents:
            return Accepted(None, 'no controller has taken it')
        # Linkerd's, for one: what it says may be of a generation before.
        told = ', and %s does not say which generation of it' % ', '.join(sorted(silent)) if silent else ''
        names = ', '.join(sorted({str(parent.get('controllerName')) for parent in parents}))
        return Accepted(True, 'accepted by %s%s' % (names, told), not silent)


def _condition(match: Element) -> tuple[str, str, str] | None:
    """Returns the condition that was added to a rule's match: its last header."""
    header = (match.get('headers') or [{}])[-1]
    if header.get('type', 'Exact') == 'Exact':
        return ('header', str(header.get('name')), str(header.get('value')))
    parts = _COOKIE_PARTS.fullmatch(str(header.get('value')))
    return ('cookie', _plain(parts['name']), _plain(parts['value'])) if parts else None


def _copied(one: Element) -> tuple[Element | None, int]:
    """Returns where a filter copies requests to, None for nowhere, and how many of 10 000 (Gateway API: without a share, all)."""
    told = one.get('requestMirror') if one.get('type') == _MIRROR else None
    if not isinstance(told, dict) or not isinstance(told.get('backendRef'), dict):
        return None, 0
    part = told.get('fraction') or {'numerator': told.get('percent', 100)}
    return told['backendRef'], round(part.get('numerator', 0) * TOTAL / (part.get('denominator') or 100))


def _plain(escaped: str) -> str:
    return re.sub(r'\\(.)', r'\1', escaped)


def _same_parent(wanted: t.Mapping[str, t.Any], found: t.Mapping[str, t.Any]) -> bool:
    return _kind(wanted) == _kind(found) and all(wanted.get(key) == found.get(key) for key in ('name', 'sectionName', 'port')
                                                 if key in wanted) and (
        'namespace' not in wanted or wanted['namespace'] == found.get('namespace', wanted['namespace']))


def _kind(parent: t.Mapping[str, t.Any]) -> tuple[str, str]:
    """A route of a mesh has a Service for its parent, whose group Linkerd calls by name."""
    group = parent.get('group', _GROUP)
    return '' if group == 'core' else group, parent.get('kind', 'Gateway')
