# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How far a Deployment has come, and what holds it up: from the objects as the API server has them. Pure, and without a clock.

When a rollout of a Deployment is done is what ``kubectl rollout status`` says of it (Kubernetes documentation, 'Deployments',
section 'Deployment status'). The reasons of containers that wait are the kubelet's.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj

REVISION = 'deployment.kubernetes.io/revision'
DONE, WAITING, STALLED = 'done', 'waiting', 'stalled'

_PULL = {'ErrImagePull', 'ImagePullBackOff', 'InvalidImageName', 'ErrImageNeverPull', 'ImageInspectError', 'RegistryUnavailable',
         'SignatureValidationFailed'}
_CREATE = {'CreateContainerConfigError', 'CreateContainerError', 'RunContainerError', 'PreStartHookError', 'PostStartHookError'}
_NEVER = re.compile(r'not found|manifest unknown|repository does not exist|denied|unauthorized|invalid reference', re.I)
_MOUNT = {'FailedMount', 'FailedAttachVolume', 'FailedCreatePodSandBox', 'NetworkNotReady'}
STARTUP, READINESS = 'startupProbe', 'readinessProbe'


@dataclass(frozen=True)
class Symptom:
    """Something that keeps pods from getting ready."""

    kind: str
    """``image_pull``, ``crash_loop``, ``container_config``, ``unschedulable``, ``quota``, ``refused``, ``evicted``, ``volume``,
    ``not_started``, ``not_ready``, ``paused``, ``deadline`` or ``no_controller``."""
    text: str
    """What was seen, as the part of a sentence."""
    advice: str
    """What to do, an imperative sentence without its full stop."""
    final: bool = False
    """Whether it does not pass by itself: nobody needs to wait to be sure."""
    patience_s: float = 0.0
    """What the workload's own probes allow it, beyond the grace that every symptom has."""
    pods: tuple[str, ...] = ()
    log: tuple[str, str, bool] | None = None
    """Pod, container and whether it is the log of the instance before the present one that tells more."""


@dataclass(frozen=True)
class Status:
    """How far a Deployment has come."""

    done: bool
    waits_for: str
    """What is missing, as the part of a sentence; '' when done."""
    desired: int = 0
    updated: int = 0
    ready: int = 0
    """Ready pods of the present revision, those that are about to end not counted."""
    total: int = 0
    symptoms: tuple[Symptom, ...] = ()
    pods: tuple[t.Mapping[str, t.Any], ...] = field(default=())
    """``{name, ready, phase, restarts, reason}`` of each pod of the present revision."""

    @property
    def progress(self) -> tuple[int, int, int]:
        """Changes when the rollout gets on."""
        return self.updated, self.ready, -self.total


def owned(objects: t.Iterable[Obj], owner: Obj) -> list[Obj]:
    """Returns those of *objects* whose controller is *owner*."""
    uid = owner['metadata'].get('uid')
    return [obj for obj in objects if any(ref.get('uid') == uid and ref.get('controller', True)
                                          for ref in obj['metadata'].get('ownerReferences') or ())]


def conditions(obj: Obj) -> dict[str, Obj]:
    return {item['type']: item for item in (obj.get('status') or {}).get('conditions') or ()}


def current_set(deployment: Obj, sets: t.Iterable[Obj]) -> Obj | None:
    """Returns the ReplicaSet of the Deployment's present revision, None as long as there is none."""
    revision = (deployment['metadata'].get('annotations') or {}).get(REVISION)
    found = [obj for obj in owned(sets, deployment) if (obj['metadata'].get('annotations') or {}).get(REVISION) == revision]
    return found[0] if found and revision else None


def is_ready(pod: Obj) -> bool:
    """Whether the pod is ready and stays."""
    return not pod['metadata'].get('deletionTimestamp') and conditions(pod).get('Ready', {}).get('status') == 'True'


def examine(deployment: Obj, sets: t.Iterable[Obj], pods: t.Iterable[Obj], events: t.Sequence[Obj] = (), wanted: int = 0) -> Status:
    """Returns how far the Deployment has come; *wanted* is how many ready pods it needs at least, whatever its own replicas say."""
    spec, status = deployment.get('spec') or {}, deployment.get('status') or {}
    desired = spec.get('replicas', 1)
    seen = status.get('observedGeneration', 0) >= deployment['metadata'].get('generation', 0)
    current = current_set(deployment, sets) if seen else None
    mine = owned(pods, current) if current else []
    staying = [pod for pod in mine if not pod['metadata'].get('deletionTimestamp')]
    ready = sum(is_ready(pod) for pod in staying)
    counts = {name: status.get(name, 0) for name in ('replicas', 'updatedReplicas', 'availableReplicas', 'readyReplicas')}
    if not seen:
        waits_for = 'the Deployment controller to see the change'
    elif counts['updatedReplicas'] < desired:
        waits_for = '%d of %d pods to be made' % (desired - counts['updatedReplicas'], desired)
    elif counts['availableReplicas'] < desired:
        waits_for = '%d of %d pods to be available' % (desired - counts['availableReplicas'], desired)
    elif counts['replicas'] > counts['updatedReplicas']:
        waits_for = '%d pods of another revision to end' % (counts['replicas'] - counts['updatedReplicas'])
    elif ready < wanted:
        waits_for = '%d of the %d pods that are needed' % (wanted - ready, wanted)
    else:
        waits_for = ''
    symptoms: list[Symptom] = []
    if waits_for:
        symptoms = _of_deployment(deployment, seen) + (_of_set(current) if current else []) + _of_pods(staying, events)
        symptoms = _merged(symptoms)
    return Status(done=not waits_for, waits_for=waits_for, desired=desired, updated=counts['updatedReplicas'], ready=ready,
                  total=counts['replicas'], symptoms=tuple(symptoms), pods=tuple(_facts(pod) for pod in staying))


def stopped(deployment: Obj | None, pods: t.Sequence[Obj]) -> Status:
    """Returns how far a Deployment has come that is to have no pods, or to be gone; *pods* are all that its selector finds."""
    replicas = 0 if deployment is None else (deployment.get('spec') or {}).get('replicas', 1)
    waits_for = '%d pods to end' % len(pods) if pods else 'the Deployment to be scaled to 0' if replicas else ''
    return Status(done=not waits_for, waits_for=waits_for, desired=0, total=len(pods), pods=tuple(_facts(pod) for pod in pods))


def _of_deployment(deployment: Obj, seen: bool) -> list[Symptom]:
    found = []
    if (deployment.get('spec') or {}).get('paused'):
        found.append(Symptom('paused', 'the Deployment is paused', 'Resume it (kubectl rollout resume)', final=True))
    if not seen:
        return found + [Symptom('no_controller', 'no controller has taken notice of the change',
                                'Look whether kube-controller-manager runs')]
    now = conditions(deployment)
    failure = now.get('ReplicaFailure', {})
    if failure.get('status') == 'True':
        found.append(_refusal(failure.get('message') or failure.get('reason') or ''))
    progressing = now.get('Progressing', {})
    if progressing.get('reason') == 'ProgressDeadlineExceeded':
        found.append(Symptom('deadline', 'it made no progress for its progressDeadlineSeconds (%s)' % (
            (deployment.get('spec') or {}).get('progressDeadlineSeconds', 600)), 'Look at its pods (kubectl describe)', final=True))
    elif progressing.get('reason') == 'ReplicaSetCreateError':
        found.append(_refusal(progressing.get('message') or ''))
    return found


def _of_set(current: Obj) -> list[Symptom]:
    failure = conditions(current).get('ReplicaFailure', {})
    return [_refusal(failure.get('message') or '')] if failure.get('status') == 'True' else []


def _refusal(message: str) -> Symptom:
    """Returns what it means that pods were not even created."""
    said = clean(re.sub(r'^pods "[^"]*" is forbidden: ', '', message))
    if 'exceeded quota' in message:
        return Symptom('quota', 'a quota of the namespace is used up: %s' % said, 'Raise the quota, or ask for less')
    if 'must specify' in message and 'quota' in message:
        return Symptom('quota', 'a quota of the namespace wants resources to be given: %s' % said, 'Set requests and limits', final=True)
    if 'violates PodSecurity' in message:
        return Symptom('refused', "the namespace's Pod Security level refuses the pods: %s" % said,
                       'Correct the securityContext', final=True)
    return Symptom('refused', 'the API server refuses its pods: %s' % said, 'Correct what it names')


def _of_pods(pods: t.Iterable[Obj], events: t.Sequence[Obj]) -> list[Symptom]:
    found = []
    for pod in pods:
        if not is_ready(pod):
            about = [event for event in events if (event.get('involvedObject') or {}).get('uid') == pod['metadata'].get('uid')]
            found += _of_pod(pod, sorted(about, key=_when))
    return found


def _of_pod(pod: Obj, events: list[Obj]) -> list[Symptom]:
    name, status, now = pod['metadata']['name'], pod.get('status') or {}, conditions(pod)
    if status.get('phase') == 'Failed':
        said = clean(': '.join(filter(None, (status.get('reason'), status.get('message')))))
        return [Symptom('evicted', 'the pod failed (%s)' % (said or 'no reason given'), 'Look at its node', pods=(name,))]
    scheduled = now.get('PodScheduled', {})
    if scheduled.get('status') == 'False':
        if any(event.get('reason') == 'TriggeredScaleUp' for event in events):
            return []  # A node is on its way.
        return [Symptom('unschedulable', 'no node takes the pod: %s' % clean(scheduled.get('message') or 'no reason given'),
                        'Free or add nodes, or ask for less', pods=(name,))]
    found = []
    for container in (*(status.get('initContainerStatuses') or ()), *(status.get('containerStatuses') or ())):
        symptom = _of_container(pod, container, events)
        if symptom:
            found.append(symptom)
    if not found:
        mounts = [event for event in events if event.get('reason') in _MOUNT]
        if mounts and not any((item.get('state') or {}).get('running') is not None for item in status.get('containerStatuses') or ()):
            found.append(Symptom('volume', clean(mounts[-1].get('message') or ''), 'Look at the volume or the network that it names',
                                 pods=(name,)))
    if not found:
        gates = [gate['conditionType'] for gate in (pod.get('spec') or {}).get('readinessGates') or ()
                 if now.get(gate['conditionType'], {}).get('status') != 'True']
        if gates and now.get('ContainersReady', {}).get('status') == 'True':
            found.append(Symptom('not_ready', 'the readiness gate %s is not met' % ', '.join(gates),
                                 'Look at the controller that sets it', pods=(name,)))
    return found


def _of_container(pod: Obj, container: Obj, events: t.Sequence[Obj]) -> Symptom | None:
    name, pods = container.get('name', '?'), (pod['metadata']['name'],)
    state, image = container.get('state') or {}, container.get('image', '?')
    waiting = state.get('waiting') or {}
    reason = waiting.get('reason', '')
    if reason in _PULL:
        said = waiting.get('message') or ''
        if reason == 'ImagePullBackOff' and not _NEVER.search(said):
            said = next((event.get('message') or '' for event in reversed(events)
                         if event.get('reason') == 'Failed' and 'pull' in (event.get('message') or '')), said)
        said = re.sub(r'^(Back-off pulling image "[^"]*": )?(ErrImagePull: )?', '', said)
        return Symptom('image_pull', 'the image %s cannot be pulled (%s)' % (clean(image), clean(said) or reason),
                       'Correct the version, or push the image', pods=pods,
                       final=bool(reason in ('InvalidImageName', 'ErrImageNeverPull') or _NEVER.search(said)))
    if reason in _CREATE:
        return Symptom('container_config', 'the container %s cannot be created: %s' % (name, clean(waiting.get('message') or reason)),
                       'Create or correct what it names', pods=pods)
    ended = state.get('terminated') or (container.get('lastState') or {}).get('terminated')
    restarts = container.get('restartCount', 0)
    init = any(item.get('name') == name for item in (pod.get('status') or {}).get('initContainerStatuses') or ())
    if ended and (ended.get('exitCode') or not init) and (reason == 'CrashLoopBackOff' or restarts or state.get('terminated')):
        return Symptom('crash_loop', 'the container %s %s' % (name, _death(ended, events)), 'Correct the version', pods=pods,
                       final=restarts >= 2, log=(pods[0], name, not state.get('terminated')))
    if state.get('running') is not None and not container.get('ready') and not init:
        return _not_ready(pod, container, events)
    return None


def _death(ended: Obj, events: t.Sequence[Obj]) -> str:
    if ended.get('reason') == 'OOMKilled':
        return 'was killed for using more memory than its limit (OOMKilled)'
    text = 'ends with exit code %s' % ended.get('exitCode', '?')
    if ended.get('message'):
        text += ' (%s)' % clean(ended['message'])
    killed = [re.search(r'(liveness|startup) probe', event.get('message') or '') for event in events if event.get('reason') == 'Killing']
    probes = [match.group(1) for match in killed if match]
    return text + (', killed because its %sProbe fails' % probes[-1] if probes else '')


def _not_ready(pod: Obj, container: Obj, events: t.Sequence[Obj]) -> Symptom:
    name = container.get('name')
    spec = next((item for item in (pod.get('spec') or {}).get('containers') or () if item.get('name') == name), {})
    probe = STARTUP if spec.get(STARTUP) and container.get('started') is False else READINESS
    failures = [event.get('message') or '' for event in events if event.get('reason') == 'Unhealthy']
    own = [text for text in failures if text.lower().startswith(probe[:-len('Probe')])]
    return Symptom('not_started' if probe == STARTUP else 'not_ready', 'the container %s runs, but its %s %s' % (
        name, probe, 'does not pass: %s' % clean(own[-1]) if own else 'has not passed' if spec.get(probe) else 'is not there to pass'),
        'Correct the version, or the probe', patience_s=_budget(spec, probe), pods=(pod['metadata']['name'],),
        log=(pod['metadata']['name'], t.cast(str, name), False))


def _budget(spec: Obj, probe: str) -> float:
    """Returns how long the probe lets a container take, in seconds (defaults: API reference, type Probe)."""
    item = spec.get(probe)
    if not item:
        return 0.0
    tries = item.get('failureThreshold', 3) if probe == STARTUP else item.get('successThreshold', 1)
    return float(item.get('initialDelaySeconds', 0) + tries * item.get('periodSeconds', 10))


def _merged(symptoms: t.Iterable[Symptom]) -> list[Symptom]:
    """Returns one symptom a kind, the pods of all of them together: those that say most about the cause come first."""
    order = ('paused', 'quota', 'refused', 'image_pull', 'container_config', 'crash_loop', 'unschedulable', 'volume', 'evicted',
             'not_started', 'not_ready', 'deadline', 'no_controller')
    merged: dict[str, Symptom] = {}
    for one in symptoms:
        other = merged.get(one.kind)
        merged[one.kind] = one if other is None else Symptom(
            one.kind, other.text, other.advice, other.final or one.final, max(other.patience_s, one.patience_s),
            tuple(dict.fromkeys(other.pods + one.pods)), other.log or one.log)
    return sorted(merged.values(), key=lambda one: order.index(one.kind))


def _facts(pod: Obj) -> dict[str, t.Any]:
    containers = (pod.get('status') or {}).get('containerStatuses') or ()
    reasons = [(item.get('state') or {}).get('waiting', {}).get('reason') for item in containers]
    return {'name': pod['metadata']['name'], 'ready': is_ready(pod), 'phase': (pod.get('status') or {}).get('phase', 'Unknown'),
            'restarts': sum(item.get('restartCount', 0) for item in containers), 'reason': next(filter(None, reasons), '')}


def _when(event: Obj) -> str:
    return str(event.get('lastTimestamp') or event.get('eventTime') or event['metadata'].get('creationTimestamp') or '')


def clean(text: object, limit: int = 300) -> str:
    """Returns foreign text as one line without control characters, not longer than *limit*, without a full stop."""
    line = ' '.join(re.sub(r'[^\x20-\x7e\xa0-\U0010ffff]', ' ', re.sub(r'\x1b\[[0-9;]*[A-Za-z]', '', str(text))).split())
    return (line if len(line) <= limit else line[:limit - 3] + '...').rstrip('. ')


class Patience:
    """Decides when a symptom that stays is a stall. *now* is seconds on any steady clock.

    A symptom is new again once it was not seen for a look; progress does not excuse it.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._since: dict[str, float] = {}

    def stall(self, status: Status, now: float) -> Symptom | None:
        """Returns the symptom that has lasted too long, None when there is none."""
        self._since = {one.kind: self._since.get(one.kind, now) for one in status.symptoms}
        for one in status.symptoms:
            if one.final or now - self._since[one.kind] >= self._grace_s + one.patience_s:
                # The one that says most, if it was there as long.
                return next((other for other in status.symptoms if self._since[other.kind] <= self._since[one.kind]), one)
        return None


def sentence(where: str, symptom: Symptom, status: Status, log_line: str = '') -> str:
    """Returns why the Deployment *where* (``'Deployment "shop" in namespace "default"'``) does not come up, and what to do."""
    pods = ''
    if symptom.pods:
        pods = ', on %d of %d pods' % (len(symptom.pods), max(status.desired, len(symptom.pods)))
    log = '; its log ends with "%s"' % clean(log_line, 200) if log_line.strip() else ''
    return '%s does not come up: %s%s%s (%d of %d ready). %s.' % (
        where, symptom.text, pods, log, status.ready, max(status.desired, status.ready), symptom.advice)
