# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The work of workload_status: wait until a Deployment is rolled out, or until it is clear why it will not be."""

from __future__ import annotations

import asyncio
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration, parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._kube import workload
from ansible_collections.progressive.delivery.plugins.module_utils._kube.client import connect
from ansible_collections.progressive.delivery.plugins.module_utils._kube.workload_reads import Namespace
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_dns_name, check_path, check_token

CLUSTER_SPEC: dict[str, t.Any] = {
    'kubeconfig': {'type': 'path'},
    'context': {'type': 'str'},
    'namespace': {'type': 'str', 'default': 'default'},
    'deadline': {'type': 'float', 'default': 10.0},
    'journal': {'type': 'path'},
    'rollout': {'type': 'str'},
    'run_on': {'type': 'str', 'choices': ['control', 'target'], 'default': 'control'},
}
STATUS_SPEC: dict[str, t.Any] = dict(
    CLUSTER_SPEC,
    name={'type': 'str', 'required': True},
    state={'type': 'str', 'choices': ['ready', 'stopped'], 'default': 'ready'},
    replicas={'type': 'int', 'default': 0},
    wait={'type': 'bool', 'default': True},
    wait_timeout={'type': 'str', 'default': '5m'},
    stall_grace={'type': 'str', 'default': '30s'},
)

_POLL_S = 1.0
_SAY_S = 10.0


def open_namespace(options: t.Mapping[str, t.Any]) -> Namespace:
    """Returns the namespace that a task's *options* name, checked; nothing is asked yet."""
    deadline = options['deadline']
    if not 0.1 <= deadline <= 600:
        raise BadInput('The deadline is %g s: give 0.1 to 600 s.' % deadline)
    return Namespace(connect(
        check_path('kubeconfig', options['kubeconfig']) if options.get('kubeconfig') else None,
        check_token('context', options['context']) if options.get('context') else None, deadline),
        check_dns_name('namespace', options['namespace']))


def run_status(options: t.Mapping[str, t.Any], say: t.Callable[[str], None] = lambda text: None) -> dict[str, t.Any]:
    """Waits as *options* say and returns the task's result; ``failed`` is set when the Deployment stalls or takes too long.

    *say* gets a line now and then. Raises DeliveryError when nothing could be found out.
    """
    name = check_dns_name('name', options['name'])
    if options['replicas'] < 0:
        raise BadInput('The replicas are %d: give 0 or more.' % options['replicas'])
    wait_s = parse_duration(options['wait_timeout'], 'wait_timeout')
    patience = workload.Patience(parse_duration(options['stall_grace'], 'stall_grace'))
    waiter = _Waiter(open_namespace(options), name, options['state'] == 'stopped', options['replicas'], patience, say)
    result = asyncio.run(waiter.wait(wait_s if options['wait'] else 0.0, options['wait']))
    Journal(options.get('journal') or None, options.get('rollout')).write(
        'workload', namespace=options['namespace'], **{key: result[key] for key in (
            'name', 'state', 'reason', 'desired', 'ready', 'waited_s')}, **({'msg': result['msg']} if result.get('failed') else {}))
    return result


class _Waiter:
    """One wait for one Deployment."""

    def __init__(self, namespace: Namespace, name: str, stop: bool, wanted: int, patience: workload.Patience,
                 say: t.Callable[[str], None]) -> None:
        self._namespace, self._name, self._stop, self._wanted = namespace, name, stop, wanted
        self._patience, self._say = patience, say
        self._where = namespace.where(name)
        self._started = time.monotonic()

    @property
    def _waited(self) -> float:
        return time.monotonic() - self._started

    async def wait(self, wait_s: float, fail: bool) -> dict[str, t.Any]:
        """Looks until it is decided; without *fail*, once, and then nothing of it is a failure."""
        said = 0.0
        while True:
            try:
                status = await self._look()
            except Unreachable:
                # The API server may be starting anew.
                if not fail or self._waited >= wait_s:
                    raise
                await asyncio.sleep(_POLL_S)
                continue
            if status.done:
                return self._result(workload.DONE, status, '%s is %s.' % (
                    self._where, 'stopped' if self._stop else 'rolled out, %d of %d pods ready' % (status.ready, status.desired)))
            stall = self._patience.stall(status, time.monotonic())
            worst = stall or next(iter(status.symptoms), None)
            if stall or self._waited >= wait_s:
                text = await self._explain(worst, status) if worst else '%s %s: %s after %s. %s.' % (
                    self._where, 'has not ended' if self._stop else 'is not rolled out', 'it still waits for ' + status.waits_for,
                    format_duration(self._waited), 'Raise wait_timeout, or look at its pods (kubectl describe)')
                result = self._result(workload.STALLED if stall else workload.WAITING, status, text, worst)
                return dict(result, failed=True) if fail else result
            if self._waited - said >= _SAY_S:
                said = self._waited
                self._say('%s: waiting %s for %s%s' % (self._where, format_duration(self._waited), status.waits_for,
                                                       ' (%s)' % worst.text if worst else ''))
            await asyncio.sleep(min(_POLL_S, max(0.05, wait_s - self._waited)))

    async def _look(self) -> workload.Status:
        deployment = await self._namespace.deployment(self._name)
        if self._stop:
            return workload.stopped(deployment, await self._namespace.pods(deployment) if deployment else ())
        if deployment is None:
            raise BadInput('%s is not there: deploy it first, or correct its name.' % self._where)
        return await self._namespace.examine(deployment, self._wanted)

    async def _explain(self, symptom: workload.Symptom, status: workload.Status) -> str:
        line = await self._namespace.log_line(*symptom.log) if symptom.log else ''
        return workload.sentence(self._where, symptom, status, line)

    def _result(self, state: str, status: workload.Status, msg: str, symptom: workload.Symptom | None = None) -> dict[str, t.Any]:
        return {'changed': False, 'name': self._name, 'state': state, 'reason': symptom.kind if symptom else '', 'msg': msg,
                'desired': status.desired, 'updated': status.updated, 'ready': status.ready, 'total': status.total,
                'pods': list(status.pods), 'waited_s': round(self._waited, 3)}
