# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The router ``ingress_nginx``: a canary Ingress beside the main one, by the annotations of ingress-nginx. Pure.

The controller of that name is retired; others read its annotations, Traefik 3.7 for one. The main Ingress leads to the stable arm,
and the canary one, which is there only while a candidate has a share, repeats the paths that split. It is deleted on the way back: a
weight of 0 would not take back users with a header, a cookie or an affinity, and ``canary: "false"`` would make it an ordinary duplicate.
A promotion changes the main Ingress first and deletes the canary one after it; both lead to the candidate in between.

Annotations: kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#canary. ``canary-weight-total`` counts only
above 100. Both controllers apply a canary to every path of the namespace that has the same Service and port as the path it repeats.
"""

from __future__ import annotations

import copy
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref, annotation
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_dns_name, check_port
from ansible_collections.progressive.delivery.plugins.module_utils._routers import traefik_raw
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Arm, Capabilities
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import (
    Accepted, Decoded, Instances, Objects, Plain, Wanted, by_service)
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Match, Split

_PREFIX = 'nginx.ingress.kubernetes.io/'
_CLASS = 'kubernetes.io/ingress.class'
_OWNED = ('app.kubernetes.io/managed-by', 'progressive.delivery')
_COOKIE_VALUE = 'always'
_MAIN, _CANARY = 'main', 'canary'


class CanaryIngressCodec(Plain):
    """The codec of one main Ingress and its canary."""

    home = _MAIN
    admin_path = traefik_raw.RAW

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm]) -> None:
        kube = t.cast(t.Any, endpoint.kube)
        self.name, self.service, self.arms, self._rules = endpoint.name, service, arms, kube.rules
        self._main = Ref('networking.k8s.io', 'v1', 'ingresses', kube.namespace, kube.object)
        self._canary = Ref('networking.k8s.io', 'v1', 'ingresses', kube.namespace,
                           check_dns_name('canary Ingress of endpoint %s' % self.name, kube.object + '-canary'))
        self._ports: dict[str, int | None] = {}
        self._arm_of = {check_dns_name('backend of arm "%s" on %s' % (arm.name, self.name), arm.backend): name
                        for name, arm in arms.items()}
        for name, arm in arms.items():
            self._ports[name] = check_port('port of arm "%s"' % name, arm.ref['port']) if arm.ref.get('port') else kube.port
        if len(self._arm_of) < len(arms):
            raise BadInput('Two arms of %s have the same Service on %s: with ingress_nginx each arm has a Service of its own.' % (
                service, self.name))

    def refs(self) -> dict[str, Wanted]:
        return {_MAIN: Wanted(self._main), _CANARY: Wanted(self._canary, False, ('create', 'patch', 'delete'))}

    def capabilities(self) -> Capabilities:
        return Capabilities(arms=2, unit='0.01 %', matches=(('header', '*', '*'), ('cookie', '*', _COOKIE_VALUE)), sticky=('none',),
                            verify=('L0',), native_lease=False)

    # ---- reading

    def decode(self, objects: Objects) -> Decoded:
        main, canary = objects[_MAIN] or {}, objects.get(_CANARY)
        led = [self._arm_of[path['backend']['service']['name']] for path in self._paths(main)]
        if not led:
            return Decoded({}, problems=(self._nothing(main),))
        stable, problems = led[0], []
        if len(set(led)) > 1:
            problems.append('The paths of the %s lead to different arms of %s (%s): lead them to one, or name the hosts that split as '
                            '"rules".' % (self._main, self.service, ', '.join(sorted(set(led)))))
        notes = self._notes(main)
        if canary is None:
            return Decoded({stable: TOTAL}, stable=stable, problems=tuple(problems), notes=notes)
        if (canary['metadata'].get('labels') or {}).get(_OWNED[0]) != _OWNED[1]:
            problems.append('The %s is not ours (it has no label %s=%s): rename or delete it.' % (self._canary, *_OWNED))
        said = _said(canary)
        services = list(dict.fromkeys(
            ((path.get('backend') or {}).get('service') or {}).get('name') for _rule, path in _each_path(canary)))
        unknown = tuple(str(name) for name in services if name not in self._arm_of)
        arm = self._arm_of.get(services[0]) if services else None
        if arm is None or arm == stable or said is None:
            return Decoded({stable: TOTAL}, unknown, stable=stable, uniform=False, problems=tuple(problems), notes=notes)
        weight, total, conditions = said
        matches = tuple(Match(kind, name, value, arm) for kind, name, value in conditions)
        uniform = not unknown and canary.get('spec') == self._spec(main, arm)
        return Decoded({arm: weight, stable: total - weight}, unknown, matches, stable=stable, uniform=uniform,
                       problems=tuple(problems), notes=notes)

    def _paths(self, main: Obj) -> list[Obj]:
        """Returns the paths of *main* that lead to an arm."""
        return [path for rule, path in _each_path(main) if self._is_ours(main, rule, path)]

    def _is_ours(self, main: Obj, rule: Obj, path: Obj) -> bool:
        position = [one is rule for one in main['spec']['rules']].index(True)
        if self._rules and rule.get('host') not in self._rules and str(position) not in self._rules:
            return False
        return ((path.get('backend') or {}).get('service') or {}).get('name') in self._arm_of

    def _nothing(self, main: Obj) -> str:
        services = [((path.get('backend') or {}).get('service') or {}).get('name') for _rule, path in _each_path(main)]
        return 'No path of the %s leads to an arm of %s (%s): it leads to %s; correct the "backend" of the arms.' % (
            self._main, self.service, ', '.join(self._arm_of), ', '.join(dict.fromkeys(filter(None, services))) or 'no Service')

    def _notes(self, main: Obj) -> tuple[str, ...]:
        if annotation(main, _PREFIX + 'affinity') != 'cookie':
            return ()
        return ('The %s keeps users by a cookie (affinity): shares are of new users only, until the canary is deleted.' % self._main,)

    # ---- writing

    def encode(self, objects: Objects, split: Split, deadline_s: float | None = None) -> dict[str, Obj | None]:
        main, canary = t.cast(Obj, objects[_MAIN]), objects.get(_CANARY)
        changes: dict[str, Obj | None] = {}
        moved = self._leading_to(main, split.stable)
        if moved != main:
            changes[_MAIN] = moved
        if split.partial:
            changes[_CANARY] = self._object(moved, canary, split)
        elif canary is not None:
            changes[_CANARY] = None
        return changes

    def _leading_to(self, main: Obj, arm: str) -> Obj:
        new = copy.deepcopy(main)
        for path in self._paths(new):
            if self._arm_of[path['backend']['service']['name']] != arm:
                path['backend'] = self._backend(path, arm)
        return new

    def _backend(self, path: Obj, arm: str) -> Obj:
        port = self._ports[arm]
        return {'service': {'name': self.arms[arm].backend, 'port': {'number': port} if port else copy.deepcopy(
            path['backend']['service'].get('port') or {})}}

    def _object(self, main: Obj, canary: Obj | None, split: Split) -> Obj:
        if split.sticky != 'none':
            raise Unsupported('%s cannot keep users on their arm: an affinity of ingress-nginx would keep them on the candidate after the '
                              'way back.' % self.name)
        arms = list(dict.fromkeys([name for name, _bp in split.candidates] + [match.arm for match in split.matches]))
        if len(arms) != 1 or arms[0] == split.stable:
            raise Unsupported('A canary Ingress has one candidate beside the stable arm, and the split %s of %s on %s leads to %s.' % (
                split, self.service, self.name, ', '.join(arms)))
        notes = {_PREFIX + 'canary': 'true', _PREFIX + 'canary-weight': str(split.shares.get(arms[0], 0)),
                 _PREFIX + 'canary-weight-total': str(TOTAL), **self._conditions(split)}
        if annotation(main, _CLASS):
            notes[_CLASS] = t.cast(str, annotation(main, _CLASS))
        new = copy.deepcopy(canary) if canary else {
            'apiVersion': 'networking.k8s.io/v1', 'kind': 'Ingress',
            'metadata': {'name': self._canary.name, 'namespace': self._canary.namespace, 'labels': dict([_OWNED])}}
        foreign = {key: value for key, value in (new['metadata'].get('annotations') or {}).items()
                   if not key.startswith(_PREFIX + 'canary') and key != _CLASS}
        new['metadata']['annotations'] = {**foreign, **notes}
        new['spec'] = self._spec(main, arms[0])
        return new

    def _conditions(self, split: Split) -> dict[str, str]:
        notes: dict[str, str] = {}
        for match in split.matches:
            if match.kind == 'cookie' and match.value != _COOKIE_VALUE:
                raise Unsupported('A canary Ingress takes the cookie "%s" for the candidate only when its value is "%s", not "%s".' % (
                    match.name, _COOKIE_VALUE, match.value))
            if _PREFIX + 'canary-by-' + match.kind in notes:
                raise Unsupported('A canary Ingress takes one %s, and %s has several.' % (match.kind, self.service))
            notes[_PREFIX + 'canary-by-' + match.kind] = match.name
            if match.kind == 'header':
                notes[_PREFIX + 'canary-by-header-value'] = match.value
        return notes

    def _spec(self, main: Obj, arm: str) -> Obj:
        """The paths of *main* that split, leading to *arm*. Its certificates are the main Ingress's."""
        rules: list[Obj] = []
        for rule in main['spec'].get('rules') or []:
            paths = [path for path in (rule.get('http') or {}).get('paths') or [] if self._is_ours(main, rule, path)]
            if paths:
                host = {'host': rule['host']} if rule.get('host') else {}
                rules.append({**host, 'http': {'paths': [
                    {**copy.deepcopy(path), 'backend': self._backend(path, arm)} for path in paths]}})
        name = main['spec'].get('ingressClassName')
        return {**({'ingressClassName': name} if name else {}), 'rules': rules}

    def instances(self, objects: Objects) -> dict[str, Instances]:
        return by_service(self.arms)

    def accepted(self, objects: Objects) -> Accepted:
        # The status of an Ingress has the addresses of load balancers and no generation.
        return Accepted(None, 'a controller of Ingresses does not say what it has taken')

    def unseen(self, objects: Objects, told: t.Any) -> str:
        main, canary = t.cast(Obj, objects[_MAIN]), objects.get(_CANARY)
        paths = [traefik_raw.Path(number, place, path['backend']['service']['name'])
                 for number, rule in enumerate(main['spec'].get('rules') or [])
                 for place, path in enumerate((rule.get('http') or {}).get('paths') or []) if self._is_ours(main, rule, path)]
        said = _said(canary) if canary else None
        return traefik_raw.difference(told, self._main.namespace, self._main.name, paths,
                                      traefik_raw.Share(said[0], said[1], bool(said[2])) if said else None)


def _each_path(ingress: Obj) -> list[tuple[Obj, Obj]]:
    return [(rule, path) for rule in (ingress.get('spec') or {}).get('rules') or [] for path in (rule.get('http') or {}).get('paths') or []]


def _said(canary: Obj) -> tuple[int, int, list[tuple[str, str, str]]] | None:
    """Returns weight, total and conditions of a canary's annotations; None when it is none, or they are not understood."""
    weight, total = annotation(canary, _PREFIX + 'canary-weight') or '0', annotation(canary, _PREFIX + 'canary-weight-total') or '100'
    if annotation(canary, _PREFIX + 'canary') != 'true' or not weight.isdigit() or not total.isdigit():
        return None
    whole = max(int(total), 100)
    header, cookie = annotation(canary, _PREFIX + 'canary-by-header'), annotation(canary, _PREFIX + 'canary-by-cookie')
    conditions = []
    if header:
        conditions.append(('header', header, annotation(canary, _PREFIX + 'canary-by-header-value') or 'always'))
    if cookie:
        conditions.append(('cookie', cookie, _COOKIE_VALUE))
    return min(int(weight), whole), whole, conditions
