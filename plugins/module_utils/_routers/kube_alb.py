# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The forward actions of an Ingress for the AWS load balancer controller, which are JSON in annotations, as rules of an object. Pure.

``alb.ingress.kubernetes.io/actions.<name>`` is the action that a path of the Ingress asks for by the backend ``<name>`` with the port
``use-annotation`` (kubernetes-sigs.github.io/aws-load-balancer-controller, guide/ingress/annotations). The controller reads names in
any capitals, and others write them in capitals (Argo Rollouts): what is written keeps them.
"""

from __future__ import annotations

import copy
import json
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj

PREFIX = 'alb.ingress.kubernetes.io/actions.'
RULES = 'actions'
"""Where ``opened`` puts the rules: {name, targetGroups, sticky}."""
_NAMES = ('serviceName', 'servicePort', 'targetGroupARN', 'weight')


def opened(ingress: Obj) -> Obj:
    """Returns a copy of an Ingress with its forward actions as rules."""
    new = copy.deepcopy(ingress)
    new[RULES] = []
    for key, text in sorted((new['metadata'].get('annotations') or {}).items()):
        config = _config(key, text)
        if config is not None:
            sticky = config.get(_spelt(config, 'targetGroupStickinessConfig')) or {}
            new[RULES].append({'name': key[len(PREFIX):], 'sticky': bool(sticky.get(_spelt(sticky, 'enabled'))), 'targetGroups': [
                {_canonical(name): value for name, value in one.items()} for one in config[_spelt(config, 'targetGroups')]]})
    return new


def closed(ingress: Obj) -> Obj:
    """Returns what ``opened`` was given, with the rules as they are now; an action that is as it was stays to the letter."""
    new = {key: value for key, value in ingress.items() if key != RULES}
    before = {rule['name']: rule['targetGroups'] for rule in opened(new)[RULES]}
    for rule in ingress[RULES]:
        if rule['targetGroups'] != before[rule['name']]:
            notes = new['metadata']['annotations']
            action = json.loads(notes[PREFIX + rule['name']])
            config = action[_spelt(action, 'forwardConfig')]
            capitals = _spelt(action, 'forwardConfig')[0].isupper()
            config[_spelt(config, 'targetGroups')] = [
                {name[0].upper() + name[1:] if capitals else name: value for name, value in one.items()} for one in rule['targetGroups']]
            notes[PREFIX + rule['name']] = json.dumps(action, separators=(',', ':'))
    return new


def problems(ingress: Obj, names: t.Iterable[str]) -> tuple[str, ...]:
    """Returns sentences on those actions of *names* that no path of the Ingress asks for: the controller would not look at them."""
    asked = {((path.get('backend') or {}).get('service') or {}).get('name') for rule in ingress.get('spec', {}).get('rules') or ()
             for path in (rule.get('http') or {}).get('paths') or ()
             if (((path.get('backend') or {}).get('service') or {}).get('port') or {}).get('name') == 'use-annotation'}
    return tuple('No path of the Ingress has the backend "%s" with the port "use-annotation", so its action "%s" leads nobody anywhere: '
                 'add one, or name the actions that split as "rules".' % (name, name) for name in names if name not in asked)


def _config(key: str, text: str) -> Obj | None:
    """The forwardConfig of an annotation that has one with target groups."""
    if not key.startswith(PREFIX):
        return None
    try:
        action = json.loads(text)
    except ValueError:
        return None
    config = action.get(_spelt(action, 'forwardConfig')) if isinstance(action, dict) else None
    groups = config.get(_spelt(config, 'targetGroups')) if isinstance(config, dict) else None
    return config if isinstance(groups, list) and all(isinstance(one, dict) for one in groups) else None


def _spelt(obj: t.Mapping[str, t.Any], name: str) -> str:
    return next((key for key in obj if key.lower() == name.lower()), name)


def _canonical(name: str) -> str:
    return next((one for one in _NAMES if one.lower() == name.lower()), name)
