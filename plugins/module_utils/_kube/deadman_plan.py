# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A lease for route objects whose data plane has none: the objects of a dead man's switch in the cluster. Pure.

A ``Lease`` (coordination.k8s.io/v1) is what is renewed; nothing in the API server ends one, so a Job watches it and sends the stored
way back (``deadman_script.py``). The Job may read and change the objects of the way back and this Lease, and nothing else. Where the
Lease lies it lies beside the route, in the same namespace, because a Role reaches no further.
"""

from __future__ import annotations

import datetime
import hashlib
import inspect
import json
import math
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._kube import deadman_script as script
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref, pointer
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token

SERVICE = script.PREFIX + 'service'
ENDPOINT = script.PREFIX + 'endpoint'
RENEWED = script.PREFIX + 'renewed'
"""Annotation: boot and seconds since then of the host that renewed last. What is left is exact there, whatever its clock is set to."""

_LABEL = 'app.kubernetes.io/'
_VERBS = {'PATCH': 'patch', 'PUT': 'update', 'DELETE': 'delete'}
_CONTENT_TYPES = ('application/json', 'application/json-patch+json', 'application/merge-patch+json', 'application/apply-patch+yaml')
_OBJECT = re.compile(r'/(?:api/(?P<core>v[a-z0-9]+)|apis/(?P<group>[a-z0-9.-]+)/(?P<version>v[a-z0-9]+))'
                     r'/namespaces/(?P<namespace>[a-z0-9-]+)/(?P<plural>[a-z0-9]+)/(?P<name>[a-z0-9.-]+)(?:/(?P<sub>scale))?'
                     r'(?:\?[A-Za-z0-9=&._-]*)?')
_DNS = re.compile(r'[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?')
_IMAGE = re.compile(r'[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}')
# Annotations of an object may have 256 KiB altogether.
_WAY_BACK_MAX = 200_000
_FOR_EVER = 1_000_000
_TTL_S = 3600
_NODE_LOST_S = 10


@dataclass(frozen=True)
class DeadmanSpec:
    """The switch of one service at one route object. *way_back* is requests to the API server, sent in order:
    ``{method: PATCH|PUT|DELETE, path: '/apis/...', content_type: ..., body: ...}``."""

    service: str
    endpoint: str
    rollout: str
    resource: Ref
    """The route. Its namespace is the switch's."""
    way_back: tuple[t.Mapping[str, t.Any], ...]
    lease_s: float
    image: str
    """Of the Job: anything with a Python from 3.7 on."""
    record: str | None = None
    """Annotation of the route that names the rollout it belongs to; None for ``progressive.delivery/<service>``. Where the rollout's
    id is not in it any more, somebody else has decided since, and the way back is not sent."""
    python: str = 'python3'
    ready_s: float = 60.0
    """How long the Job may take until it has shown that it could act."""
    pull_policy: str = 'IfNotPresent'
    pull_secrets: tuple[str, ...] = ()
    priority_class: str | None = None
    tolerations: tuple[t.Mapping[str, t.Any], ...] = ()
    node_selector: t.Mapping[str, str] | None = None
    user: int | None = 65534
    """The user that the Job runs as; None leaves it to the image or the cluster (OpenShift), which must not make it root."""

    @property
    def names(self) -> 'Names':
        return names_of(self.resource, self.service, self.rollout)


@dataclass(frozen=True)
class Names:
    """What the objects of a switch are called. The Lease is the service's at a route; the Job is one rollout's."""

    namespace: str
    base: str
    job: str
    rollout: str
    service: str
    resource: Ref

    def ref(self, kind: str) -> Ref:
        """Returns where the object of *kind* lies: ``Lease``, ``Job``, ``Role``, ``RoleBinding``, ``ServiceAccount``."""
        group, version, plural = KINDS[kind]
        return Ref(group, version, plural, self.namespace, self.job if kind == 'Job' else self.base)


KINDS = {
    'ServiceAccount': ('', 'v1', 'serviceaccounts'),
    'Role': ('rbac.authorization.k8s.io', 'v1', 'roles'),
    'RoleBinding': ('rbac.authorization.k8s.io', 'v1', 'rolebindings'),
    'Lease': ('coordination.k8s.io', 'v1', 'leases'),
    'Job': ('batch', 'v1', 'jobs'),
}
"""Group, version and plural of the objects of a switch, in the order in which they are made."""


def names_of(resource: Ref, service: str, rollout: str) -> Names:
    """Returns the names for *rollout* of *service* at *resource*. They do not depend on what a control host calls the endpoint, so
    that two hosts meet at the same Lease."""
    key = '%s %s %s %s' % (service, resource.group, resource.plural, resource.name)
    readable = re.sub('[^a-z0-9]+', '-', service.lower()).strip('-')[:30].strip('-') or 'service'
    base = 'delivery-%s-%s' % (readable, hashlib.sha256(key.encode()).hexdigest()[:8])
    return Names(resource.namespace, base, '%s-%s' % (base, hashlib.sha256(rollout.encode()).hexdigest()[:8]), rollout, service, resource)


def check(spec: DeadmanSpec) -> None:
    """Raises BadInput for what cannot become a switch."""
    check_name('service', spec.service)
    check_token('rollout', spec.rollout)
    if not _DNS.fullmatch(spec.resource.namespace):
        raise BadInput('%s lies in no namespace: the lease of a route needs one.' % spec.resource)
    if not isinstance(spec.image, str) or not _IMAGE.fullmatch(spec.image):
        raise BadInput('The image %r of the lease on %s is not usable: write registry/name:tag, of an image with a Python.' % (
            spec.image, spec.endpoint))
    if not 1 <= spec.lease_s <= 86400:
        raise BadInput('The lease of %s on %s is %g s: a Lease object has 1 s to 24 h.' % (spec.service, spec.endpoint, spec.lease_s))
    if not spec.way_back:
        raise BadInput('There is no way back for %s on %s: nothing could be sent when the lease runs out.' % (spec.service, spec.endpoint))
    for one in spec.way_back:
        _parts(spec, one)
    if len(way_back(spec)) > _WAY_BACK_MAX:
        raise BadInput('The way back of %s on %s has %d bytes, and a Lease has room for %d.' % (
            spec.service, spec.endpoint, len(way_back(spec)), _WAY_BACK_MAX))


def _parts(spec: DeadmanSpec, request: t.Mapping[str, t.Any]) -> 're.Match[str]':
    found = _OBJECT.fullmatch(str(request.get('path')))
    if not found or request.get('method') not in _VERBS or (
            request.get('body') is not None and request.get('content_type') not in _CONTENT_TYPES):
        raise BadInput('The way back of %s on %s has a request that the lease cannot send: %s %s (%s).' % (
            spec.service, spec.endpoint, request.get('method'), request.get('path'), request.get('content_type')))
    if found['namespace'] != spec.resource.namespace:
        raise BadInput('The way back of %s on %s changes an object in namespace "%s", and the lease in "%s" reaches its own only.' % (
            spec.service, spec.endpoint, found['namespace'], spec.resource.namespace))
    return found


def way_back(spec: DeadmanSpec) -> str:
    """Returns what the Job reads: requests, and how to tell that the route still belongs to the rollout."""
    record = spec.record or script.PREFIX + spec.service
    return json.dumps({'requests': [dict(one) for one in spec.way_back],
                       'guard': {'path': spec.resource.path, 'pointer': pointer('metadata', 'annotations', record), 'holds': spec.rollout}},
                      sort_keys=True, separators=(',', ':'))


def duration_s(lease_s: float) -> int:
    """Returns what a Lease can hold: whole seconds, never fewer than asked for."""
    return max(1, math.ceil(lease_s))


def rules(spec: DeadmanSpec) -> list[Obj]:
    """Returns the permissions of the Job: the route, the other objects of the way back, and its Lease, each by name."""
    allowed: dict[tuple[str, str, str], set[str]] = {(spec.resource.group, spec.resource.plural, spec.resource.name): {'get'}}
    for one in spec.way_back:
        parts = _parts(spec, one)
        plural = parts['plural'] + ('/' + parts['sub'] if parts['sub'] else '')
        verbs = allowed.setdefault((parts['group'] or '', plural, parts['name']), {'get'})
        verbs.add(_VERBS[one['method']])
    lease = spec.names.ref('Lease')
    allowed[(lease.group, lease.plural, lease.name)] = {'get', 'patch', 'watch'}
    return [{'apiGroups': [group], 'resources': [plural], 'resourceNames': [name], 'verbs': sorted(verbs)}
            for (group, plural, name), verbs in allowed.items()]


def manifests(spec: DeadmanSpec, charge: str, renew_time: str, renewed: str, lease_s: float) -> dict[str, Obj]:
    """Returns the objects by kind. *charge* is new each time, *renew_time* is RFC 3339 with microseconds."""
    names = spec.names
    return {
        'ServiceAccount': {'apiVersion': 'v1', 'kind': 'ServiceAccount', 'metadata': _metadata(spec, names.base),
                           'automountServiceAccountToken': False},
        'Role': {'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'Role', 'metadata': _metadata(spec, names.base),
                 'rules': rules(spec)},
        'RoleBinding': {
            'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'RoleBinding', 'metadata': _metadata(spec, names.base),
            'roleRef': {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'Role', 'name': names.base},
            'subjects': [{'kind': 'ServiceAccount', 'name': names.base, 'namespace': names.namespace}]},
        'Lease': {
            'apiVersion': 'coordination.k8s.io/v1', 'kind': 'Lease',
            'metadata': _metadata(spec, names.base, {
                SERVICE: spec.service, ENDPOINT: spec.endpoint, script.STATE: script.ARMED, script.JOB: names.job, script.CHARGE: charge,
                script.WAY_BACK: way_back(spec), RENEWED: renewed}),
            'spec': {'holderIdentity': spec.rollout, 'leaseDurationSeconds': duration_s(lease_s), 'acquireTime': renew_time,
                     'renewTime': renew_time}},
        'Job': _job(spec, names, charge),
    }


def _metadata(spec: DeadmanSpec, name: str, annotations: t.Mapping[str, str] | None = None) -> Obj:
    labels = {_LABEL + 'managed-by': 'progressive.delivery', _LABEL + 'component': 'lease', _LABEL + 'instance': spec.names.base}
    metadata = {'name': name, 'namespace': spec.resource.namespace, 'labels': labels}
    return {**metadata, 'annotations': dict(annotations)} if annotations else metadata


def _job(spec: DeadmanSpec, names: Names, charge: str) -> Obj:
    metadata = _metadata(spec, names.job)
    user = {} if spec.user is None else {'runAsUser': spec.user, 'runAsGroup': spec.user, 'fsGroup': spec.user}
    away = [{'key': 'node.kubernetes.io/' + state, 'operator': 'Exists', 'effect': 'NoExecute', 'tolerationSeconds': _NODE_LOST_S}
            for state in ('not-ready', 'unreachable')]
    pod: Obj = {
        'serviceAccountName': names.base, 'automountServiceAccountToken': True, 'restartPolicy': 'OnFailure', 'enableServiceLinks': False,
        'terminationGracePeriodSeconds': 5, 'tolerations': away + [dict(one) for one in spec.tolerations],
        'securityContext': {'runAsNonRoot': True, 'seccompProfile': {'type': 'RuntimeDefault'}, **user},
        'containers': [{
            'name': 'lease', 'image': spec.image, 'imagePullPolicy': spec.pull_policy,
            'command': [spec.python, '-I', '-c', inspect.getsource(script), names.ref('Lease').path, charge],
            # What it said last is then in the pod's status, where whoever waits for it looks.
            'terminationMessagePolicy': 'FallbackToLogsOnError',
            'resources': {'requests': {'cpu': '10m', 'memory': '32Mi'}, 'limits': {'cpu': '500m', 'memory': '64Mi'}},
            'securityContext': {'allowPrivilegeEscalation': False, 'privileged': False, 'readOnlyRootFilesystem': True,
                                'capabilities': {'drop': ['ALL']}}}]}
    if spec.priority_class:
        pod['priorityClassName'] = spec.priority_class
    if spec.node_selector:
        pod['nodeSelector'] = dict(spec.node_selector)
    if spec.pull_secrets:
        pod['imagePullSecrets'] = [{'name': name} for name in spec.pull_secrets]
    template = {'metadata': {
        # A sidecar would keep the Job from ending, and stand between it and the API server.
        'labels': {**metadata['labels'], 'sidecar.istio.io/inject': 'false'},
        'annotations': {'linkerd.io/inject': 'disabled', 'cluster-autoscaler.kubernetes.io/safe-to-evict': 'false',
                        'karpenter.sh/do-not-disrupt': 'true'}}, 'spec': pod}
    return {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': metadata,
            'spec': {'backoffLimit': _FOR_EVER, 'completions': 1, 'parallelism': 1, 'ttlSecondsAfterFinished': _TTL_S,
                     'template': template}}


def left_s(lease: Obj | None, renewed: t.Callable[[], tuple[str, float]], wall_s: t.Callable[[], float]) -> float | None:
    """Returns what a Lease still has: not above 0 when it has run out, None when nothing is held.

    On the host that renewed it, which *renewed* tells (boot, seconds since then), that is exact; elsewhere clocks are compared.
    """
    state = note(lease, script.STATE)
    if lease is None or state == script.RELEASED:
        return None
    if state != script.ARMED:
        return 0.0
    spec = lease.get('spec') or {}
    duration = float(spec.get('leaseDurationSeconds') or 0)
    own = own_left_s(lease, renewed)
    return own if own is not None else duration - (wall_s() - epoch_s(str(spec.get('renewTime'))))


def own_left_s(lease: Obj, renewed: t.Callable[[], tuple[str, float]]) -> float | None:
    """Returns what a Lease has that this host renewed last; None when another one did."""
    boot, now = renewed()
    words = note(lease, RENEWED).split()
    if len(words) != 2 or words[0] != boot:
        return None
    return float(lease['spec']['leaseDurationSeconds']) - (now - float(words[1]))


def note(obj: Obj | None, name: str) -> str:
    """Returns an annotation, '' when there is none."""
    return str(((obj or {}).get('metadata', {}).get('annotations') or {}).get(name) or '')


_MICRO = re.compile(r'(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?Z')


def micro_time(seconds: float) -> str:
    """Returns seconds since 1970 as Kubernetes' MicroTime."""
    whole = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return whole.strftime('%Y-%m-%dT%H:%M:%S.%fZ')


def epoch_s(text: str) -> float:
    """Returns the seconds since 1970 of a MicroTime; 0 for anything else."""
    found = _MICRO.fullmatch(text)
    if not found:
        return 0.0
    whole = datetime.datetime(*(int(part) for part in found.groups()[:6]), tzinfo=datetime.timezone.utc)  # type: ignore[misc]
    return whole.timestamp() + float(found[7] or 0)
