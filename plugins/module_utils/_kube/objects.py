# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Kubernetes objects as plain data: where one lies, which part of it is its content, and JSON patches between two forms. Pure.

JSON patch is RFC 6902, its paths RFC 6901. The API server answers 422 when a ``test`` fails.
"""

from __future__ import annotations

import copy
import json
import typing as t
from dataclasses import dataclass

Obj = t.Dict[str, t.Any]
Ops = t.List[t.Dict[str, t.Any]]

# Members of a list's element that say which one it is; a way back tests them, so that it never writes into another one's place.
IDENTITY = ('name', 'namespace', 'kind', 'group', 'port', 'host', 'subset', 'destination', 'service', 'serviceName', 'servicePort',
            'pass', 'path')
_VOLATILE = ('resourceVersion', 'managedFields', 'generation', 'selfLink')
_NOTHING: t.Any = object()


@dataclass(frozen=True)
class Ref:
    """Where an object lies. *group* is '' for the core group; *namespace* is '' for one that has none."""

    group: str
    version: str
    plural: str
    namespace: str
    name: str

    @property
    def collection(self) -> str:
        """Path of the collection it is in."""
        base = '/apis/%s/%s' % (self.group, self.version) if self.group else '/api/' + self.version
        return base + ('/namespaces/' + self.namespace if self.namespace else '') + '/' + self.plural

    @property
    def path(self) -> str:
        return '%s/%s' % (self.collection, self.name)

    @property
    def resource(self) -> str:
        """``'httproutes.gateway.networking.k8s.io'``: how kubectl names the kind."""
        return self.plural + ('.' + self.group if self.group else '')

    def __str__(self) -> str:
        return '%s "%s"%s' % (self.resource, self.name, ' in namespace "%s"' % self.namespace if self.namespace else '')


def pointer(*parts: str | int) -> str:
    """Returns a JSON pointer."""
    return ''.join('/' + str(part).replace('~', '~0').replace('/', '~1') for part in parts)


def content(obj: Obj | None) -> Obj | None:
    """Returns what somebody wrote into *obj*: without status and what the API server keeps about it."""
    if obj is None:
        return None
    kept = {key: value for key, value in obj.items() if key != 'status'}
    kept['metadata'] = {key: value for key, value in obj.get('metadata', {}).items() if key not in _VOLATILE}
    return kept


def token(objects: t.Mapping[str, Obj | None]) -> str:
    """Returns what identifies the content of *objects*."""
    return json.dumps({key: content(obj) for key, obj in objects.items()}, sort_keys=True, separators=(',', ':'))


def annotation(obj: Obj | None, name: str) -> str | None:
    """Returns an annotation's text, None when it is not there."""
    return ((obj or {}).get('metadata', {}).get('annotations') or {}).get(name)


def annotated(obj: Obj, name: str, value: str | None) -> Obj:
    """Returns a copy of *obj* with the annotation set, or without it."""
    new = copy.deepcopy(obj)
    notes = new.setdefault('metadata', {}).get('annotations') or {}
    notes = {key: text for key, text in notes.items() if key != name}
    if value is not None:
        notes[name] = value
    if notes or 'annotations' in new['metadata']:
        new['metadata']['annotations'] = notes
    return new


def diff(old: t.Any, new: t.Any, path: str = '') -> Ops:
    """Returns the operations that make *new* of *old*. Lists of another length are replaced as a whole."""
    if type(old) is type(new) and old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        ops: Ops = []
        for key in old:
            if key not in new:
                ops.append({'op': 'remove', 'path': path + pointer(key)})
        for key, value in new.items():
            where = path + pointer(key)
            ops += diff(old[key], value, where) if key in old else [{'op': 'add', 'path': where, 'value': value}]
        return ops
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [op for index, pair in enumerate(zip(old, new)) for op in diff(*pair, path + pointer(index))]
    return [{'op': 'replace', 'path': path, 'value': new}]


def robust(states: t.Sequence[t.Any], goal: t.Any, path: str = '') -> Ops:
    """Returns operations that make of any of *states* what *goal* has where one of them differs from it.

    They test the members that say which element of a list it is (IDENTITY), and nothing that a split changes. This is the form
    of a way back: stored before the change it takes back, it is right whether that change was made or not.
    """
    if all(type(state) is type(goal) and state == goal for state in states):
        return []
    if isinstance(goal, dict) and all(isinstance(state, dict) for state in states):
        ops: Ops = []
        for key in dict.fromkeys(key for one in (*states, goal) for key in one):
            where = path + pointer(key)
            values = [state.get(key, _NOTHING) for state in states]
            if key not in goal:
                # Added first, because what is not there cannot be removed.
                ops += [{'op': 'add', 'path': where, 'value': ''}, {'op': 'remove', 'path': where}]
            elif any(value is _NOTHING for value in values):
                ops.append({'op': 'add', 'path': where, 'value': goal[key]})
            else:
                ops += robust(values, goal[key], where)
        return ops
    if isinstance(goal, list) and all(isinstance(state, list) and len(state) == len(goal) for state in states):
        ops = []
        for index, value in enumerate(goal):
            where, values = path + pointer(index), [state[index] for state in states]
            inner = robust(values, value, where)
            if inner:
                ops += _identity(values, value, where) + inner
        return ops
    return [{'op': 'replace', 'path': path, 'value': goal}]


def _identity(states: t.Sequence[t.Any], goal: t.Any, path: str) -> Ops:
    if not isinstance(goal, dict):
        return []
    return [{'op': 'test', 'path': path + pointer(key), 'value': goal[key]} for key in IDENTITY
            if key in goal and all(isinstance(state, dict) and state.get(key, _NOTHING) == goal[key] for state in states)]


class PatchFailed(Exception):
    """An operation does not fit the object."""


def patched(obj: t.Any, ops: Ops) -> t.Any:
    """Returns a copy of *obj* after ``test``, ``add``, ``replace`` and ``remove`` operations. Raises PatchFailed."""
    root = {'': copy.deepcopy(obj)}
    for op in ops:
        parts = [part.replace('~1', '/').replace('~0', '~') for part in op['path'].split('/')]
        where: t.Any = root
        for part in parts[:-1]:
            where = _child(where, part, op)
        last, verb = parts[-1], op['op']
        if verb == 'test':
            if _child(where, last, op) != op['value']:
                raise PatchFailed('%s is not %r' % (op['path'], op['value']))
        elif isinstance(where, list):
            if verb == 'add':
                where.insert(len(where) if last == '-' else int(last), copy.deepcopy(op['value']))
            elif verb == 'remove':
                where.pop(int(last))
            else:
                _child(where, last, op)
                where[int(last)] = copy.deepcopy(op['value'])
        elif verb == 'add' and isinstance(where, dict):
            where[last] = copy.deepcopy(op['value'])
        else:
            _child(where, last, op)
            if verb == 'remove':
                del where[last]
            else:
                where[last] = copy.deepcopy(op['value'])
    return root['']


def _child(where: t.Any, part: str, op: t.Mapping[str, t.Any]) -> t.Any:
    try:
        return where[int(part)] if isinstance(where, list) else where[part]
    except (KeyError, IndexError, TypeError, ValueError):
        raise PatchFailed('%s is not there' % op['path']) from None


def holds(obj: Obj, ops: Ops) -> bool:
    """Whether *obj* has what *ops* wrote; the server may have added members (defaults)."""
    for op in ops:
        found: t.Any = obj
        try:
            for part in op['path'].split('/')[1:]:
                found = _child(found, part.replace('~1', '/').replace('~0', '~'), op)
        except PatchFailed:
            found = _NOTHING
        if op['op'] == 'remove':
            continue
        if found is _NOTHING or not _covers(found, op['value']):
            return False
    return True


def _covers(found: t.Any, wanted: t.Any) -> bool:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(key in found and _covers(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(_covers(*pair) for pair in zip(found, wanted))
    return found == wanted
