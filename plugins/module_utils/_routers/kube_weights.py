# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Kinds that keep weights in a list: one codec, a row of a table for each kind. Pure.

Sources of the rows: the kinds' own definitions (CRDs) and their controllers' code, by way of research: TraefikService drops services of
weight 0; HTTPProxy shares evenly when no service has a weight, and an unset one is 0 as soon as another is set (of a destination
with ``mirror`` it is the percentage that is copied, one for each rule); ApisixRoute takes an
unset weight for 100; a VirtualServer of F5 wants two splits at least, whose weights sum to 100; AWS takes weights up to 999 and five
target groups.
"""

from __future__ import annotations

import copy
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_dns_name, check_port
from ansible_collections.progressive.delivery.plugins.module_utils._routers import kube_alb
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Arm, Capabilities
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint, KubeOptions
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import (
    Accepted, Decoded, Instances, Objects, Plain, Wanted, by_service, check_ref)
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Mirror, Split, fit, format_share

Element = t.Dict[str, t.Any]


@dataclass(frozen=True)
class Kind:
    """A row: where a kind keeps what."""

    group: str
    version: str
    plural: str
    rules: tuple[str, ...]
    """Path of the list of rules; of the only rule if not *many*."""
    arms: str
    """Member of a rule that is the list of weighted destinations."""
    name: str
    """Member of a destination that is the Service's name."""
    port: str | None
    """Member that is its port; None for a kind that takes all ports of the Service."""
    many: bool = True
    rule: str = 'name'
    """Member of a rule that names it."""
    total: int = TOTAL
    unset: int = 1
    """What a missing weight counts when another destination has one. Where none has, all count the same."""
    most: int = 16
    made: t.Mapping[str, t.Any] = field(default_factory=dict)
    """What a destination has besides, when it is added."""
    condition: str | None = None
    """The condition of ``status.conditions`` that says whether the controller has accepted the object."""
    copies: str = ''
    """The finest share of requests that a destination with ``mirror`` gets copies of; nothing for a kind that has no such thing."""
    text: bool = False
    """Whether the rules are JSON in annotations: those of the AWS load balancer controller (``kube_alb.py``)."""
    apart: bool = False
    """Whether its data plane may hear of a rule before it hears of a new destination: Envoy, over streams of their own for each."""


KINDS = {
    'TraefikService': Kind('traefik.io', 'v1alpha1', 'traefikservices', ('spec', 'weighted'), 'services', 'name', 'port', many=False,
                           most=100, made={'kind': 'Service'}),
    'HTTPProxy': Kind('projectcontour.io', 'v1', 'httpproxies', ('spec', 'routes'), 'services', 'name', 'port', unset=0, most=100,
                      condition='Valid', copies='1 %', apart=True),
    'ApisixRoute': Kind('apisix.apache.org', 'v2', 'apisixroutes', ('spec', 'http'), 'backends', 'serviceName', 'servicePort', unset=100,
                        most=100),
    'VirtualServer': Kind('k8s.nginx.org', 'v1', 'virtualservers', ('spec', 'routes'), 'splits', 'pass', None, rule='path', total=100,
                          unset=0, most=100),
    'TrafficSplit': Kind('split.smi-spec.io', 'v1alpha2', 'trafficsplits', ('spec',), 'backends', 'service', None, many=False, most=100),
    # Whole percents are exact in parts of 500, which in the largest total that AWS allows they are not.
    'Ingress': Kind('networking.k8s.io', 'v1', 'ingresses', (kube_alb.RULES,), 'targetGroups', 'serviceName', 'servicePort', total=500,
                    most=5, text=True),
}


class WeightsCodec(Plain):
    """Shares as weights of one list of destinations, or of one in each rule."""

    home = 'route'

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm]) -> None:
        self.name = endpoint.name
        self.service = service
        self.arms = arms
        self._where = t.cast(KubeOptions, endpoint.kube)
        self._tolerance_bp = endpoint.tolerance_bp
        self._copying = endpoint.options.get('mirror')
        self.kind = self._row(self._where.kind)
        for arm in arms.values():
            check_ref(arm, ('port',), self.name)
            check_dns_name('backend of arm "%s"' % arm.name, arm.backend)
            if 'port' in arm.ref:
                check_port('port of arm "%s"' % arm.name, arm.ref['port'])
        twice = [one.name for one in arms.values() for other in arms.values()
                 if one is not other and one.backend == other.backend and one.ref.get('port') == other.ref.get('port')]
        if twice:
            raise BadInput('The arms %s of %s have the same Service on %s: each needs one of its own.' % (
                ' and '.join('"%s"' % name for name in twice[:2]), service, self.name))

    def _row(self, kind: str | None) -> Kind:
        if kind not in KINDS:
            raise BadInput('The endpoint %s has the kind %s, and the router weights knows %s: name one of them.' % (
                self.name, '"%s"' % kind if kind else 'nothing', ', '.join(KINDS)))
        return KINDS[kind]

    def refs(self) -> dict[str, Wanted]:
        kind = self.kind
        return {'route': Wanted(Ref(kind.group, kind.version, kind.plural, self._where.namespace, self._where.object))}

    def capabilities(self) -> Capabilities:
        unit = '0.01 %' if self.kind.total == TOTAL else '%g %%' % (100 / self.kind.total)
        return Capabilities(arms=self.kind.most, unit=unit, matches=(), sticky=('none',),
                            verify=('L0', 'L1') if self.kind.condition else ('L0',), native_lease=False, mirror=self.kind.copies)

    def instances(self, objects: Objects) -> dict[str, Instances]:
        return by_service(self.arms)

    # ---- rules

    def _opened(self, objects: Objects) -> Obj:
        """Returns a copy of the object, its rules where ``Kind.rules`` says."""
        obj = t.cast(Obj, objects['route'])
        return kube_alb.opened(obj) if self.kind.text else copy.deepcopy(obj)

    def _closed(self, obj: Obj) -> dict[str, Obj | None]:
        return {'route': kube_alb.closed(obj) if self.kind.text else obj}

    def _rules(self, obj: Obj) -> tuple[list[Element], list[str]]:
        """Returns the rules that split, as they lie in *obj*, and sentences on those that are not there."""
        found: t.Any = obj
        for part in self.kind.rules:
            found = found.get(part) if isinstance(found, dict) else None
        rules = [found] if isinstance(found, dict) else found if isinstance(found, list) else []
        rules = [rule for rule in rules if isinstance(rule, dict)]
        if not self.kind.many:
            return rules, []
        if not self._where.rules:
            return [rule for rule in self._candidates(rules) if any(self._arm(obj, one) for one in self._destinations(rule))], []
        chosen, lost = [], []
        for wanted in self._where.rules:
            rule = next((rule for rule in rules if rule.get(self.kind.rule) == wanted), None)
            if rule is None and wanted.isdigit() and int(wanted) < len(rules):
                rule = rules[int(wanted)]
            if rule is None:
                lost.append('The %s has no rule "%s": it has %s.' % (self.refs()['route'].ref, wanted, ', '.join(
                    str(rule.get(self.kind.rule) or number) for number, rule in enumerate(rules)) or 'none'))
            else:
                chosen.append(rule)
        return chosen, lost

    def _candidates(self, rules: list[Element]) -> list[Element]:
        """Returns the rules that may split: all that are the user's."""
        return rules

    def _destinations(self, rule: Element) -> list[Element]:
        """Returns the weighted destinations of a rule. HTTPProxy: one with ``mirror`` gets a copy of requests, and answers nobody."""
        found = rule.get(self.kind.arms)
        if found is None and self.kind.name == 'pass' and isinstance(rule.get('action'), dict):
            return [{'weight': self.kind.total, 'action': rule['action']}]
        return [one for one in found or () if isinstance(one, dict) and not one.get('mirror')]

    def _destination(self, obj: Obj, element: Element) -> tuple[str, t.Any]:
        """Returns the Service and the port that a destination leads to."""
        if self.kind.name != 'pass':
            return (str(element.get(self.kind.name) or element.get('targetGroupARN')),
                    element.get(self.kind.port) if self.kind.port else None)
        upstream = (element.get('action') or {}).get('pass')
        for one in obj.get('spec', {}).get('upstreams') or ():
            if one.get('name') == upstream:
                return str(one.get('service')), one.get('port')
        return str(upstream), None

    def _arm(self, obj: Obj, element: Element) -> str | None:
        service, port = self._destination(obj, element)
        if element.get('kind', 'Service') != 'Service' or element.get('namespace', self._where.namespace) != self._where.namespace:
            return None
        return next((arm.name for arm in self.arms.values()
                     if arm.backend == service and ('port' not in arm.ref or port in (None, arm.ref['port'], str(arm.ref['port'])))), None)

    def _weights(self, rule: Element) -> list[int]:
        given = [one.get('weight') for one in self._destinations(rule)]
        if len(given) == 1 and not given[0] and self.kind.unset == 0 or all(weight is None for weight in given):
            return [1] * len(given)
        weights = [self.kind.unset if weight is None else weight for weight in given]
        # Contour: no weight at all is an even split.
        return [1] * len(given) if self.kind.plural == 'httpproxies' and not any(weights) else weights

    # ---- decode

    def decode(self, objects: Objects) -> Decoded:
        obj = self._opened(objects)
        rules, problems = self._rules(obj)
        if self.kind.text:
            problems += kube_alb.problems(obj, [rule['name'] for rule in rules])
        if not rules and not problems:
            problems = ['No rule of the %s leads to an arm of %s: name the rules that split, or correct "arms".' % (
                self.refs()['route'].ref, self.service)]
        found, unknown = [], {}
        for rule in rules:
            shares: dict[str, int] = {}
            for element, weight in zip(self._destinations(rule), self._weights(rule)):
                arm = self._arm(obj, element)
                if arm:
                    shares[arm] = shares.get(arm, 0) + max(0, int(weight))
                elif weight > 0:
                    unknown[self._destination(obj, element)[0]] = None
            found.append({arm: weight for arm, weight in shares.items() if weight})
        copies = [self._mirror(obj, rule) for rule in rules]
        uniform = all(same_ratio(found[0], other) for other in found[1:]) and len(set(copies)) < 2
        notes: tuple[str, ...] = () if uniform else (
            'The rules of the %s give different shares: the first one\'s are reported.' % self.refs()['route'].ref,)
        if any(rule.get('sticky') for rule in rules if self.kind.text):
            notes += ('The %s ties clients to target groups for a time: those of a candidate stay there while it has a share; the way back '
                      'takes it out.' % self.refs()['route'].ref,)
        return Decoded(found[0] if found else {}, tuple(unknown), mirror=copies[0] if copies else None, uniform=uniform,
                       problems=tuple(problems), notes=notes)

    # ---- encode

    def encode(self, objects: Objects, split: Split, deadline_s: float | None = None) -> dict[str, Obj | None]:
        obj = self._opened(objects)
        weights = self._fitted(split)
        for rule in self._rules(obj)[0]:
            self._share(obj, rule, weights)
            self._copy(obj, rule, split.mirror)
            if self.kind.text and rule['sticky'] and not split.partial:
                # Those that a target group holds stay there whatever its weight.
                rule[self.kind.arms] = [one for one in rule[self.kind.arms] if one.get('weight')]
        return self._closed(obj)

    def named(self, objects: Objects, split: Split) -> dict[str, Obj | None]:
        obj = self._opened(objects)
        wanted = [arm for arm, bp in split.arms if bp or any(match.arm == arm for match in split.matches)]
        for rule in self._rules(obj)[0] if self.kind.apart else ():
            ours = self._destinations(rule)
            new = [arm for arm in wanted if arm not in {self._arm(obj, one) for one in ours}]
            if new:
                # A weight that was left out would not mean the same beside another one.
                for element, weight in zip(ours, self._weights(rule)):
                    element['weight'] = weight
                rule[self.kind.arms][:0] = [self._made(obj, arm, 0, ours) for arm in new]
        return self._closed(obj)

    def _fitted(self, split: Split) -> dict[str, int]:
        fitted = fit([bp for _arm, bp in split.arms], self.kind.total)
        off = max(abs(weight * TOTAL - bp * self.kind.total) for weight, (_arm, bp) in zip(fitted, split.arms)) / self.kind.total
        if off > self._tolerance_bp:
            raise Unsupported('The split %s cannot be expressed on %s, whose weights are whole parts of %d: the nearest is off by %s. '
                              'Take other shares, or a larger tolerance_bp.' % (
                                  split, self.name, self.kind.total, format_share(round(off))))
        return {arm: weight for weight, (arm, _bp) in zip(fitted, split.arms)}

    def _share(self, obj: Obj, rule: Element, weights: t.Mapping[str, int]) -> None:
        left = dict(weights)
        if self.kind.name == 'pass' and rule.get(self.kind.arms) is None:
            rule[self.kind.arms] = self._destinations(rule)
            rule.pop('action', None)
        elements = rule.setdefault(self.kind.arms, [])
        ours = self._destinations(rule)
        for element in ours:
            arm = self._arm(obj, element)
            element['weight'] = left.pop(arm, 0) if arm else 0
        # In front, so that what was there last stays last: where shares are rounded, the last one takes the rest.
        elements[:0] = [self._made(obj, arm, weight, ours) for arm, weight in left.items() if weight]

    def _made(self, obj: Obj, arm: str, weight: int, others: t.Sequence[Element]) -> Element:
        backend = self.arms[arm].backend
        if self.kind.name == 'pass':
            for one in obj.get('spec', {}).get('upstreams') or ():
                if one.get('service') == backend:
                    return {'weight': weight, 'action': {'pass': one.get('name')}}
            raise Unsupported('The %s has no upstream for the Service "%s" of arm "%s": add one to its upstreams.' % (
                self.refs()['route'].ref, backend, arm))
        made: Element = {**self.kind.made, self.kind.name: backend, 'weight': weight}
        if self.kind.port:
            ports = [self.arms[arm].ref.get('port'), self._where.port] + [one.get(self.kind.port) for one in others]
            port = next((port for port in ports if port is not None), None)
            if port is None:
                raise Unsupported('Which port of the Service "%s" the %s shall use is not known: set "port" of %s.' % (
                    backend, self.refs()['route'].ref, self.name))
            made[self.kind.port] = port
        return made

    # ---- copies

    def _mirrors(self, rule: Element) -> list[Element]:
        return [one for one in rule.get(self.kind.arms) or () if isinstance(one, dict) and one.get('mirror')] if self.kind.copies else []

    def _mirror(self, obj: Obj, rule: Element) -> Mirror | None:
        """Returns what *rule* copies to an arm. Contour: the weight is a percentage, and 0 or none is all."""
        return next((Mirror(t.cast(str, self._arm(obj, one)), (one.get('weight') or 100) * (TOTAL // 100))
                     for one in self._mirrors(rule) if self._arm(obj, one)), None)

    def _copy(self, obj: Obj, rule: Element, mirror: Mirror | None) -> None:
        """Has *rule* copy what *mirror* says, and nothing else to any arm."""
        ours = [one for one in self._mirrors(rule) if self._arm(obj, one)]
        if ours:
            rule[self.kind.arms] = [one for one in rule[self.kind.arms] if one not in ours]
        if mirror is None:
            return
        if mirror.bp % 100:
            raise Unsupported('The %s copies whole percents of the requests, and %s is none: ask for a share such as %s.' % (
                self.refs()['route'].ref, format_share(mirror.bp), format_share(max(100, round(mirror.bp, -2)))))
        if self._mirrors(rule):
            raise Unsupported('A rule of the %s copies its requests to "%s" already, and can copy them to one Service: take that away '
                              'first.' % (self.refs()['route'].ref, self._destination(obj, self._mirrors(rule)[0])[0]))
        made = self._made(obj, mirror.arm, mirror.bp // 100, self._destinations(rule))
        rule[self.kind.arms].append({**made, 'mirror': True})

    # ---- accepted

    def accepted(self, objects: Objects) -> Accepted:
        obj = t.cast(Obj, objects['route'])
        for one in (obj.get('status') or {}).get('conditions') or ():
            if one.get('type') == self.kind.condition:
                if one.get('observedGeneration', 0) < obj['metadata'].get('generation', 0):
                    break
                said = str(one.get('message') or one.get('reason') or one.get('status'))
                return Accepted(one.get('status') == 'True', 'its controller says: %s' % said)
        return Accepted(None, 'its controller has not said anything about this generation of it')


def same_ratio(one: t.Mapping[str, int], other: t.Mapping[str, int]) -> bool:
    """Whether two sets of weights are the same shares."""
    whole, own = sum(one.values()), sum(other.values())
    return all(one.get(arm, 0) * own == other.get(arm, 0) * whole for arm in {*one, *other}) and bool(whole) == bool(own)
