# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The rules of an Istio VirtualService: which are the user's, which are ours, and what they shall be for a split. Pure.

A user's rule that leads to the arms is a *base*. While a split is leased, rules of ours stand before it, copies of it (its retries,
timeouts, faults, CORS, rewrites and mirrors too) that differ in their name, in where they lead, and in that each of their matches
also asks for a time before the deadline (``istio_deadline.py``):

    progressive-delivery:shop:0:match0    with the header or cookie: all to the arm
    progressive-delivery:shop:0:split     the shares, and copies to an arm
    (the user's)                          all to the stable arm

The first rule that matches wins, so when the deadline has passed, or nobody stamps the time, the user's own rule is in force. Without
a lease there are none of ours. Other rules are neither changed nor moved.
"""

from __future__ import annotations

import copy
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._errors import Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._routers.istio_deadline import HEADER, below, limit_of
from ansible_collections.progressive.delivery.plugins.module_utils._routers.weights_fit import to_bp
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Match, Mirror, Split

Rule = t.Dict[str, t.Any]

_OURS = 'progressive-delivery:'
_SCALE = 100
_MIRROR = ('mirror', 'mirrorPercentage', 'mirrorPercent')
_COOKIE = r'(.*;\s*)?%s=%s(;.*)?'
_COOKIE_FOUND = re.compile(r'\(\.\*;\\s\*\)\?(?P<name>[^=]+)=(?P<value>.+)\(;\.\*\)\?')


@dataclass(frozen=True)
class Destination:
    """Where an arm is: a host as Istio writes it, and the subset of its DestinationRule. Without *port* any port is that arm's."""

    host: str
    subset: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        return self.host + ('/' + self.subset if self.subset else '')


@dataclass(frozen=True)
class Found:
    """What the rules say; the names are those of ``kube_codec.Decoded``."""

    weights: t.Mapping[str, int]
    matches: tuple[Match, ...] = ()
    mirror: Mirror | None = None
    stable: str | None = None
    unknown: tuple[str, ...] = ()
    uniform: bool = True
    problems: tuple[str, ...] = ()
    leased: bool = False


@dataclass(frozen=True)
class Rules:
    """The rules of one service: *names* (or positions from 0 among the user's) are those that split, none for all that lead to an arm."""

    service: str
    namespace: str
    arms: t.Mapping[str, Destination]
    names: tuple[str, ...] = ()

    # ---- reading

    def read(self, http: t.Sequence[Rule]) -> Found:
        groups, problems = self._groups(http)
        if not groups:
            return Found({}, problems=problems)
        said = [self._group(ours, base) for ours, base in groups]
        first = said[0]
        stables = {max(one.weights, key=lambda arm: one.weights[arm]) for one in said if one.weights} if not first.leased else set()
        if len(stables) > 1:
            problems += ('The rules of the VirtualService that lead to the arms of %s do not agree (%s): name those that split as '
                         '"rules".' % (self.service, ', '.join(_named(base) for _ours, base in groups)),)
        unknown = tuple(dict.fromkeys(name for one in said for name in one.unknown))
        problems += tuple(dict.fromkeys(problem for one in said for problem in one.problems))
        strays = sum(map(self._is_ours, http)) - sum(len(ours) for ours, _base in groups)
        uniform = not strays and all(one.uniform and (to_bp(one.weights), one.matches, one.mirror, one.stable, one.leased) == (
            to_bp(first.weights), first.matches, first.mirror, first.stable, first.leased) for one in said)
        return Found(first.weights, first.matches, first.mirror, first.stable, unknown, uniform, problems, first.leased)

    def _groups(self, http: t.Sequence[Rule]) -> tuple[list[tuple[list[Rule], Rule]], tuple[str, ...]]:
        """Returns each base with the rules of ours before it, and problems."""
        groups: list[tuple[list[Rule], Rule]] = []
        ours: list[Rule] = []
        bases = self._bases(http)
        for index, rule in enumerate(http):
            if self._is_ours(rule):
                ours.append(rule)
                continue
            if index in bases:
                groups.append((ours, rule))
            ours = []
        users = [rule for rule in http if not self._is_ours(rule)]
        has = ', '.join(_named(rule) for rule in users) or 'none'
        missing = [name for name in self.names if name not in {key for index in bases for key in self._keys(http, index)}]
        if missing:
            return groups, ('The VirtualService has no rule "%s" that leads to destinations: it has %s.' % (missing[0], has),)
        if not groups:
            return groups, ('No rule of the VirtualService leads to an arm of %s (%s): it has the rules %s; correct "backend", "subset" '
                            'and "port" of the arms, or name the rules that split as "rules".' % (
                                self.service, ', '.join(str(one) for one in self.arms.values()), has),)
        return groups, ()

    def _bases(self, http: t.Sequence[Rule]) -> set[int]:
        """Returns the indices of the user's rules that split."""
        found = set()
        for index, rule in enumerate(http):
            if rule.get('route') and not str(rule.get('name') or '').startswith(_OURS):
                if any(key in self.names for key in self._keys(http, index)) if self.names else any(map(self._arm_of, rule['route'])):
                    found.add(index)
        return found

    def _keys(self, http: t.Sequence[Rule], index: int) -> tuple[str, ...]:
        """How a user may call the rule at *index*."""
        position = str(sum(not self._is_ours(rule) for rule in http[:index]))
        return (http[index]['name'], position) if http[index].get('name') else (position,)

    def _is_ours(self, rule: Rule) -> bool:
        return bool(re.fullmatch(r'%s%s:[0-9]+:(?:split|match[0-9]+)' % (_OURS, re.escape(self.service)), str(rule.get('name') or '')))

    def _group(self, ours: t.Sequence[Rule], base: Rule) -> Found:
        """What one base and the rules of ours before it say."""
        weights, unknown = self._weights(base)
        if not ours:
            return Found(weights, unknown=unknown)
        stable = max(weights, key=lambda arm: weights[arm]) if weights else None
        uniform, matches, mirror = set(weights) == {stable}, [], None
        for rule in ours:
            shares, strange = self._weights(rule)
            unknown += strange
            limits = {limit_of(((match.get('headers') or {}).get(HEADER) or {}).get('regex')) for match in rule.get('match') or ()}
            uniform = uniform and len(limits) == 1 and None not in limits
            if rule['name'].endswith(':split'):
                weights, mirror = shares, self._mirror(rule, base)
            elif len(shares) == 1:
                found = self._condition(rule, base, next(iter(shares)))
                matches += [found] if found else []
                uniform = uniform and found is not None
        return Found(weights, tuple(matches), mirror, stable, unknown, uniform, leased=True)

    def _mirror(self, rule: Rule, base: Rule) -> Mirror | None:
        """Returns what a rule of ours copies to an arm, besides what *base* copies."""
        for one in mirrors(rule)[len(mirrors(base)):]:
            arm = self._arm_of(one)
            if arm:
                return Mirror(arm, round((one.get('percentage') or {'value': 100}).get('value', 0) * 100))
        return None

    def _weights(self, rule: Rule) -> tuple[dict[str, int], tuple[str, ...]]:
        entries = rule['route']
        weights: dict[str, int] = {}
        unknown = []
        for entry in entries:
            # istiod gives a single destination everything, whatever its weight.
            weight = _SCALE if len(entries) == 1 else entry.get('weight') or 0
            arm = self._arm_of(entry)
            if arm is None and weight:
                unknown.append(str(_destination(entry)))
            elif arm is not None and weight:
                weights[arm] = weights.get(arm, 0) + weight
        return weights, tuple(unknown)

    def _arm_of(self, entry: t.Mapping[str, t.Any]) -> str | None:
        found = _destination(entry)
        for arm, one in self.arms.items():
            if self.full(one.host) == self.full(found.host) and one.subset == found.subset and (
                    one.port is None or found.port is None or one.port == found.port):
                return arm
        return None

    def full(self, host: str) -> str:
        """A name without dots is one of the VirtualService's namespace (Istio's reference of VirtualService, Destination)."""
        return host if '.' in host else '%s.%s.svc.cluster.local' % (host, self.namespace)

    def _condition(self, rule: Rule, base: Rule, arm: str) -> Match | None:
        """Returns the match that *rule* adds to *base*."""
        theirs = (base.get('match') or [{}])[0].get('headers') or {}
        for name, wanted in ((rule.get('match') or [{}])[0].get('headers') or {}).items():
            if name == HEADER or theirs.get(name) == wanted:
                continue
            if 'exact' in wanted:
                return Match('header', name, wanted['exact'], arm)
            cookie = _COOKIE_FOUND.fullmatch(str(wanted.get('regex')))
            if cookie and name == 'cookie':
                return Match('cookie', _unescaped(cookie.group('name')), _unescaped(cookie.group('value')), arm)
        return None

    # ---- writing

    def write(self, http: t.Sequence[Rule], split: Split, limit: int) -> list[Rule]:
        """Returns the rules for *split*, in force while the stamp is below *limit* if it is partial. Raises Unsupported."""
        written: list[Rule] = []
        number, bases = 0, self._bases(http)
        for index, rule in enumerate(http):
            if self._is_ours(rule):
                continue
            if index in bases:
                if split.partial:
                    written += self._ours(rule, number, split, limit)
                written.append(self._all_to(rule, split.stable))
                number += 1
            else:
                written.append(copy.deepcopy(rule))
        return written

    def _ours(self, base: Rule, number: int, split: Split, limit: int) -> list[Rule]:
        rules = []
        for position, match in enumerate(split.matches):
            name, wanted = (match.name.lower(), {'exact': match.value}) if match.kind == 'header' else (
                'cookie', {'regex': _COOKIE % (re.escape(match.name), re.escape(match.value))})
            rules.append(self._copy(base, '%d:match%d' % (number, position), {match.arm: TOTAL}, {name: wanted}, limit))
        if split.candidates or split.mirror:
            rules.append(self._copy(base, '%d:split' % number, {arm: bp for arm, bp in split.arms if bp}, {}, limit))
        if split.mirror:
            rules[-1]['mirrors'] = mirrors(base) + [{
                'destination': self._entry(base, split.mirror.arm)['destination'], 'percentage': {'value': split.mirror.bp / 100}}]
            for key in _MIRROR:
                rules[-1].pop(key, None)
        return rules

    def _copy(self, base: Rule, name: str, shares: t.Mapping[str, int], headers: t.Mapping[str, t.Any], limit: int) -> Rule:
        rule = copy.deepcopy(base)
        rule['name'] = '%s%s:%s' % (_OURS, self.service, name)
        rule['match'] = [self._matching(base, one, {**headers, HEADER: {'regex': below(limit)}}) for one in base.get('match') or [{}]]
        rule['route'] = [{**self._entry(base, arm), 'weight': weight} for arm, weight in shares.items()]
        return rule

    def _matching(self, base: Rule, match: Rule, headers: t.Mapping[str, t.Any]) -> Rule:
        """Returns *match* with the conditions of *headers* besides."""
        new = copy.deepcopy(match)
        has = new['headers'] = dict(new.get('headers') or {})
        taken = {key.lower() for key in (*has, *(match.get('withoutHeaders') or {}))}
        for name, wanted in headers.items():
            if name in taken:
                raise Unsupported('The rule %s of the VirtualService has a condition on the header "%s" already, and Istio takes one a '
                                  'header: use another one.' % (_named(base), name))
            has[name] = copy.deepcopy(wanted)
        return new

    def _entry(self, base: Rule, arm: str) -> Rule:
        """Returns the entry of *base* for *arm*, with all that the user put there; a plain one when there is none."""
        for entry in base['route']:
            if self._arm_of(entry) == arm:
                return copy.deepcopy(entry)
        one = self.arms[arm]
        port = one.port or next((_destination(entry).port for entry in base['route'] if self._arm_of(entry)), None)
        destination: Rule = {'host': one.host}
        if one.subset:
            destination['subset'] = one.subset
        if port:
            destination['port'] = {'number': port}
        return {'destination': destination}

    def _all_to(self, base: Rule, arm: str) -> Rule:
        rule = copy.deepcopy(base)
        weights, unknown = self._weights(base)
        if set(weights) == {arm} and not unknown:
            return rule
        if len(base['route']) == 1:
            rule['route'] = [self._entry(base, arm)]
            return rule
        total, given = sum(entry.get('weight') or 0 for entry in base['route']) or _SCALE, False
        for entry in rule['route']:
            first = self._arm_of(entry) == arm and not given
            given = given or first
            entry['weight'] = total if first else 0
        if not given:
            rule['route'].append({**self._entry(base, arm), 'weight': total})
        return rule


def _destination(entry: t.Mapping[str, t.Any]) -> Destination:
    found = entry.get('destination') or {}
    return Destination(str(found.get('host') or ''), found.get('subset') or None, (found.get('port') or {}).get('number'))


def mirrors(rule: Rule) -> list[Rule]:
    """Where a rule copies requests to. It says so in one of two ways, and may not in both."""
    found = copy.deepcopy(rule.get('mirrors') or [])
    if rule.get('mirror'):
        share = rule.get('mirrorPercentage') or ({'value': rule['mirrorPercent']} if 'mirrorPercent' in rule else None)
        found.append({'destination': copy.deepcopy(rule['mirror']), **({'percentage': copy.deepcopy(share)} if share else {})})
    return found


def _named(rule: Rule) -> str:
    return '"%s"' % rule['name'] if rule.get('name') else 'without a name'


def _unescaped(text: str) -> str:
    return re.sub(r'\\(.)', r'\1', text)
