# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The work of workload_capacity: bring a candidate to what its share needs, keep what may have to carry everything, give both free."""

from __future__ import annotations

import asyncio
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, Refused
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._kube import capacity
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ops, annotated, annotation
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_dns_name
from ansible_collections.progressive.delivery.plugins.module_utils._split import parse_share
from ansible_collections.progressive.delivery.plugins.module_utils._workload import CLUSTER_SPEC, open_namespace

CAPACITY_SPEC: dict[str, t.Any] = dict(
    CLUSTER_SPEC,
    state={'type': 'str', 'choices': ['ready', 'checked', 'released'], 'default': 'ready'},
    candidate={'type': 'str'},
    survivor={'type': 'str'},
    share={'type': 'raw'},
    headroom={'type': 'raw', 'default': 1},
    min_replicas={'type': 'int', 'default': 1},
    replicas={'type': 'int'},
    carries={'type': 'int'},
    hold={'type': 'bool', 'default': True},
    on_shortage={'type': 'str', 'choices': ['fail', 'warn'], 'default': 'fail'},
)
CONSTRAINTS: dict[str, t.Any] = {'required_one_of': [('candidate', 'survivor')]}

_TRIES = 4
_POLICIES = ('Max', 'Min')


def run_capacity(options: t.Mapping[str, t.Any], check_mode: bool = False, diff: bool = False) -> dict[str, t.Any]:
    """Does what the task asks for and returns its result. Raises DeliveryError, before the first change if there is a shortage."""
    for option in ('min_replicas', 'replicas', 'carries'):
        if options.get(option) is not None and not 0 <= options[option] <= 100000:
            raise BadInput('%s is %d: give 0 to 100000.' % (option, options[option]))
    return asyncio.run(_Task(options).run(check_mode, diff))


class _Task:
    """One run of workload_capacity."""

    def __init__(self, options: t.Mapping[str, t.Any]) -> None:
        self._options = options
        self._namespace = open_namespace(options)
        self._names = {side: check_dns_name(side, options[side]) for side in ('candidate', 'survivor') if options.get(side)}
        if len(set(self._names.values())) < len(self._names):
            raise BadInput('Candidate and survivor are both Deployment "%s": they must be two.' % options['survivor'])
        self._headroom = capacity.parse_headroom(options['headroom'])
        ready = options['state'] == 'ready' and 'candidate' in self._names
        if ready and options.get('share') is None and options.get('replicas') is None:
            raise BadInput('How much the candidate needs is not said: give share, or replicas.')
        self._share = parse_share(options['share']) if options.get('share') is not None else 0

    async def run(self, check_mode: bool, diff: bool) -> dict[str, t.Any]:
        found = dict(zip(self._names, await asyncio.gather(*(self._namespace.read(name) for name in self._names.values()))))
        candidate, survivor = found.get('candidate'), found.get('survivor')
        options = self._options
        if options['state'] == 'released':
            return await self._release(found, check_mode, diff)
        carries = options['carries'] if options.get('carries') is not None else survivor.ready if survivor else 0
        shortages = capacity.shortages(survivor, carries) if survivor else []
        if shortages and options['on_shortage'] == 'fail':
            raise Refused('Nothing was changed. ' + ' '.join(shortages))
        need = options['replicas'] if options.get('replicas') is not None else capacity.needed(
            carries, self._share, self._headroom, options['min_replicas'])
        result: dict[str, t.Any] = {'changed': False, 'carries': carries, 'needed': need, 'shortages': shortages,
                                    **{side: one.facts() for side, one in found.items()}}
        if shortages:
            result['warnings'] = shortages
        if options['state'] == 'checked':
            return result
        steps = []
        if candidate:
            if not candidate.exists:
                if not check_mode:
                    raise BadInput('%s is not there: deploy it first, or correct its name.' % self._namespace.where(candidate.name))
            else:
                steps.append((candidate, capacity.scaling(candidate, need, options['hold'])))
        if survivor and survivor.exists and options['hold']:
            # With less load it would shrink, and be too small for all of the traffic when that comes back.
            steps.append((survivor, capacity.scaling(survivor, 0)))
        return await self._carry_out([step for step in steps if step[1]], result, check_mode, diff)

    async def _carry_out(self, steps: t.Sequence[tuple[capacity.Workload, capacity.Scaling]], result: dict[str, t.Any],
                         check_mode: bool, diff: bool) -> dict[str, t.Any]:
        result['changed'] = bool(steps)
        if diff and steps:
            result['diff'] = [{'before': _lines(one, None), 'after': _lines(one, change)} for one, change in steps]
        for one, change in steps if not check_mode else ():
            if change.hold is not None:
                # First: the autoscaler would take new pods away again.
                await self._edit(self._namespace.autoscaler_ref(t.cast(str, one.autoscaler)), _hold if change.hold else _let_go)
            if change.replicas is not None:
                await self._edit(self._namespace.deployment_ref(one.name), _replicas(change.replicas))
            Journal(self._options.get('journal') or None, self._options.get('rollout')).write(
                'capacity', namespace=self._options['namespace'], name=one.name, replicas_before=one.replicas,
                replicas=one.replicas if change.replicas is None else change.replicas, autoscaler=one.autoscaler, hold=change.hold)
        return result

    async def _release(self, found: t.Mapping[str, capacity.Workload], check_mode: bool, diff: bool) -> dict[str, t.Any]:
        steps = [(one, capacity.Scaling(hold=False)) for one in found.values() if one.held]
        return await self._carry_out(steps, {side: one.facts() for side, one in found.items()}, check_mode, diff)

    async def _edit(self, ref: t.Any, change: t.Callable[[Obj], Ops]) -> None:
        """Changes an object, once more from what it is now when somebody was faster."""
        for left in range(_TRIES - 1, -1, -1):
            now = await self._namespace.api.get(ref)
            if now is None:
                raise Conflict('%s is not there any more.' % ref)
            ops = change(now)
            try:
                if ops:
                    version = {'op': 'test', 'path': '/metadata/resourceVersion', 'value': now['metadata']['resourceVersion']}
                    await self._namespace.api.patch(ref, [version, *ops])
                return
            except Conflict:
                if not left:
                    raise


def _replicas(count: int) -> t.Callable[[Obj], Ops]:
    return lambda now: [] if now['spec'].get('replicas', 1) >= count else [{'op': 'add', 'path': '/spec/replicas', 'value': count}]


def _hold(now: Obj) -> Ops:
    before = capacity.scale_down(now)
    if before == capacity.DISABLED:
        return []
    behavior = now['spec'].get('behavior')
    new = dict(behavior or {})
    new['scaleDown'] = dict(new.get('scaleDown') or {}, selectPolicy=capacity.DISABLED)
    # What an earlier hold has kept is what the user wants.
    kept = annotation(now, capacity.HELD) or (before if behavior else capacity.NO_BEHAVIOR)
    return [{'op': 'add', 'path': '/spec/behavior', 'value': new}, _notes(annotated(now, capacity.HELD, kept))]


def _let_go(now: Obj) -> Ops:
    before = annotation(now, capacity.HELD)
    if before is None:
        return []
    notes = _notes(annotated(now, capacity.HELD, None))
    if capacity.scale_down(now) != capacity.DISABLED:
        return [notes]  # Somebody has set it since.
    if before == capacity.NO_BEHAVIOR:
        return [{'op': 'remove', 'path': '/spec/behavior'}, notes]
    return [{'op': 'replace', 'path': '/spec/behavior/scaleDown/selectPolicy', 'value': before if before in _POLICIES else 'Max'}, notes]


def _notes(obj: Obj) -> dict[str, t.Any]:
    return {'op': 'add', 'path': '/metadata/annotations', 'value': obj['metadata'].get('annotations') or {}}


def _lines(one: capacity.Workload, change: capacity.Scaling | None) -> str:
    replicas = change.replicas if change and change.replicas is not None else one.replicas
    shrinks = not change.hold if change and change.hold is not None else one.shrinks
    return 'Deployment %s: %d replicas%s\n' % (one.name, replicas, '' if not one.autoscaler else ', autoscaler %s scale down' % (
        'may' if shrinks else 'may not'))
