# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Why a Job does not get going, from its pods and events."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._kube.client import Api
from ansible_collections.progressive.delivery.plugins.module_utils._kube.deadman_plan import Names
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref

_NO_IMAGE = ('ImagePullBackOff', 'InvalidImageName', 'ErrImageNeverPull', 'ImageInspectError', 'RegistryUnavailable')
_NO_START = ('CreateContainerConfigError', 'CreateContainerError', 'RunContainerError', 'CrashLoopBackOff')


async def stalled(api: Api, names: Names, image: str) -> tuple[str, bool]:
    """Returns what keeps the Job from running, as the end of a sentence, and whether waiting would not help."""
    try:
        job = await api.get(names.ref('Job'))
        if job is None:
            return 'is gone', False
        # By its uid: pods of a Job of that name that was there before may still be ending.
        uid = job['metadata']['uid']
        pods = await api.list(Ref('', 'v1', 'pods', names.namespace, ''), labelSelector='batch.kubernetes.io/controller-uid=' + uid)
        for pod in pods:
            found = _of_pod(pod, image)
            if found:
                return found
        if pods:
            return 'runs, and has not shown yet that it could act', False
        events = await api.list(Ref('', 'v1', 'events', names.namespace, ''),
                                fieldSelector='involvedObject.uid=%s,type=Warning' % uid)
    except DeliveryError as exc:
        return 'cannot be looked at (%s)' % str(exc).rstrip('.'), False
    refused = [event for event in events if event.get('reason') == 'FailedCreate']
    if refused:
        return 'gets no pod: %s' % _words(refused[-1].get('message')), True
    return 'has no pod: the cluster\'s job controller has not taken it up', False


def _of_pod(pod: Obj, image: str) -> tuple[str, bool] | None:
    status = pod.get('status') or {}
    for condition in status.get('conditions') or ():
        if condition.get('type') == 'PodScheduled' and condition.get('status') == 'False':
            return 'cannot be scheduled: %s' % _words(condition.get('message')), False
    for container in status.get('containerStatuses') or ():
        waiting = (container.get('state') or {}).get('waiting') or {}
        reason = waiting.get('reason')
        if reason in _NO_IMAGE:
            return 'has an image that cannot be had, "%s" (%s: %s)' % (image, reason, _words(waiting.get('message'))), True
        states = (container.get('lastState') or {}), (container.get('state') or {})
        ended: Obj = next((state['terminated'] for state in states if state.get('terminated')), {})
        if reason in _NO_START or ended.get('exitCode'):
            return 'does not run (%s: %s): its image "%s" must have a Python' % (
                reason or 'exit code %s' % ended.get('exitCode'),
                _words(ended.get('message') or waiting.get('message') or ended.get('reason')), image), True
        if reason:
            return 'waits (%s%s)' % (reason, ': ' + _words(waiting['message']) if waiting.get('message') else ''), False
    return None


def _words(text: object) -> str:
    return ' '.join(str(text or 'no reason given').split())[:300].rstrip('.')
