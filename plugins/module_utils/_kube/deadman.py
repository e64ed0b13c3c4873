# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A lease for route objects whose data plane has none: arming, renewing and releasing the dead man's switch in the cluster.

``deadman_plan.py`` says what objects it is made of, ``deadman_script.py`` is what its Job runs. A share may be given to a candidate
once ``arm`` has returned: the Job has then sent the way back as a dry run, with its own token, and noted it on the Lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils import _watchdog
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import Conflict, DeliveryError, Expired, Refused
from ansible_collections.progressive.delivery.plugins.module_utils._kube import deadman_plan as plan
from ansible_collections.progressive.delivery.plugins.module_utils._kube import deadman_script as script
from ansible_collections.progressive.delivery.plugins.module_utils._kube.client import Api
from ansible_collections.progressive.delivery.plugins.module_utils._kube.deadman_plan import DeadmanSpec, Names, names_of
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ops, Ref, pointer
from ansible_collections.progressive.delivery.plugins.module_utils._kube.stall import stalled

__all__ = ['DeadmanSpec', 'Names', 'arm', 'forbidden', 'left', 'names_of', 'release', 'renew', 'seen']

_POLL_S = 0.25
_AGAIN_S = 10.0
_TRIES = 3
_NEEDED: dict[str, tuple[str, ...]] = {
    'ServiceAccount': ('create', 'delete'), 'Role': ('get', 'create', 'patch', 'delete'), 'RoleBinding': ('create', 'patch', 'delete'),
    'Lease': ('get', 'create', 'patch', 'delete'), 'Job': ('get', 'create', 'delete'),
}


async def forbidden(api: Api, names: Names) -> list[str]:
    """Returns what this user lacks to keep a lease, ``'create roles.rbac.authorization.k8s.io'``; nothing when he lacks nothing.

    That he may do himself what the Role allows is not looked at: without it the API server refuses the Role when it is made.
    """
    asked = {kind: api.forbidden(names.ref(kind), *verbs) for kind, verbs in _NEEDED.items()}
    found = dict(zip(asked, await asyncio.gather(*asked.values())))
    return ['%s %s' % (verb, names.ref(kind).resource) for kind, verbs in found.items() for verb in verbs]


async def arm(api: Api, spec: DeadmanSpec) -> None:
    """Makes the switch of a rollout, or gives the one that it has another way back, and returns when its Job has shown that it could act.

    The lease then runs ``spec.lease_s`` from now. Raises Conflict when another rollout holds a lease that still runs, BadInput for
    what cannot be a switch, and DeliveryError with the reason when the Job does not get there; what was made for it is removed then.
    """
    plan.check(spec)
    names = spec.names
    lease, job = await asyncio.gather(api.get(names.ref('Lease')), api.get(names.ref('Job')))
    left_s = _left(api, lease)
    holder = ((lease or {}).get('spec') or {}).get('holderIdentity')
    if left_s is not None and left_s > 0 and holder != spec.rollout:
        raise Conflict('The lease of %s at %s is held by %s for %s more: wait, or roll that one back.' % (
            spec.service, spec.resource, holder, format_duration(left_s)))
    if lease is not None and left_s is not None and left_s > 0 and job is not None and not _ended(job):
        await _again(api, spec, lease)
    else:
        await _anew(api, spec, lease)
    await renew(api, names, spec.lease_s)


async def _again(api: Api, spec: DeadmanSpec, lease: Obj) -> None:
    """Gives the running Job the way back of *spec*. Where it cannot send that one, the former stays."""
    wanted, former, charge = plan.way_back(spec), plan.note(lease, script.WAY_BACK), plan.note(lease, script.CHARGE)
    if wanted == former and plan.note(lease, script.PROVEN) == script.digest(charge, spec.rollout, wanted):
        return
    ref, role = spec.names.ref('Lease'), spec.names.ref('Role')
    if ((await api.get(role)) or {}).get('rules') != plan.rules(spec):
        await api.patch(role, [{'op': 'add', 'path': '/rules', 'value': plan.rules(spec)}])
    await api.patch(ref, _same(lease) + _renewal(api, spec.lease_s + _AGAIN_S) + [_annotate(script.WAY_BACK, wanted)])
    try:
        await _proven(api, spec, charge, _AGAIN_S)
    except BaseException:
        with contextlib.suppress(DeliveryError):
            await api.patch(ref, [{'op': 'test', 'path': '/spec/holderIdentity', 'value': spec.rollout},
                                  _annotate(script.WAY_BACK, former)])
        raise


async def _anew(api: Api, spec: DeadmanSpec, lease: Obj | None) -> None:
    names, charge = spec.names, secrets.token_hex(8)
    before = plan.note(lease, script.JOB)
    objects = plan.manifests(spec, charge, plan.micro_time(api.now()), _renewed(), spec.ready_s + spec.lease_s)
    try:
        for job in sorted({before, names.job} - {''}):
            await _gone(api, Ref('batch', 'v1', 'jobs', names.namespace, job), spec.ready_s)
        # The Lease first: a pod of a former Job that still runs finds that it is not in charge before it may do anything again.
        if lease is None:
            await api.create(names.ref('Lease'), objects['Lease'])
        else:
            new = objects['Lease']
            await api.patch(names.ref('Lease'), _same(lease) + [
                {'op': 'add', 'path': '/spec', 'value': new['spec']},
                {'op': 'add', 'path': '/metadata/annotations', 'value': new['metadata']['annotations']},
                {'op': 'add', 'path': '/metadata/labels', 'value': new['metadata']['labels']}])
        for kind in ('ServiceAccount', 'Role', 'RoleBinding'):
            await _make(api, names.ref(kind), objects[kind], {'Role': ('rules',), 'RoleBinding': ('subjects',)}.get(kind, ()))
        await api.create(names.ref('Job'), objects['Job'])
        await _proven(api, spec, charge, spec.ready_s)
    except BaseException:
        await _remove(api, names)
        raise


async def _make(api: Api, ref: Ref, obj: Obj, parts: t.Sequence[str]) -> None:
    """Creates an object, or brings *parts* of the one that is there to what they shall be."""
    try:
        await api.create(ref, obj)
    except Conflict:
        if parts:
            await api.patch(ref, [{'op': 'add', 'path': pointer(part), 'value': obj[part]} for part in parts])


async def _gone(api: Api, ref: Ref, seconds: float) -> None:
    """Deletes a Job and waits until its name is free."""
    end = time.monotonic() + seconds
    while await api.delete(ref):
        if time.monotonic() > end:
            raise Refused('%s was deleted and is still there after %s: something holds it (finalizers).' % (ref, format_duration(seconds)))
        await asyncio.sleep(_POLL_S)


async def _proven(api: Api, spec: DeadmanSpec, charge: str, seconds: float) -> None:
    """Waits until the Job that was told *charge* has noted that it could send the way back. Raises Refused with what keeps it from that."""
    names, end = spec.names, time.monotonic() + seconds
    wanted = script.digest(charge, spec.rollout, plan.way_back(spec))
    what = 'The lease of %s on %s is not safe, so nothing was moved: its %s' % (spec.service, spec.endpoint, names.ref('Job'))
    while True:
        lease = await api.get(names.ref('Lease'))
        if plan.note(lease, script.PROVEN) == wanted:
            return
        problem = plan.note(lease, script.PROBLEM)
        if problem.startswith(wanted):
            raise Refused('%s could not send the way back: %s.' % (what, problem[len(wanted) + 1:].rstrip('.')))
        why, final = await stalled(api, names, spec.image)
        if final or time.monotonic() > end:
            raise Refused('%s %s.' % (what, why if final else 'was not ready within %s: it %s' % (format_duration(seconds), why)))
        await asyncio.sleep(_POLL_S)


async def renew(api: Api, names: Names, lease_s: float) -> float:
    """Makes the lease run *lease_s* from now (whole seconds, rounded up); returns the seconds that it has.

    Raises Conflict when another rollout holds it, Expired when it has run out or is gone, Refused when its Job is gone.
    """
    ref = names.ref('Lease')
    for attempt in range(_TRIES):
        begun = _watchdog.now_s()
        lease, job = await asyncio.gather(api.get(ref), api.get(names.ref('Job')))
        holder = ((lease or {}).get('spec') or {}).get('holderIdentity')
        if lease is not None and holder != names.rollout:
            raise Conflict('The lease of %s at %s is held by %s now.' % (names.service, names.resource, holder))
        own = plan.own_left_s(lease, _here) if lease else None
        if lease is None or plan.note(lease, script.STATE) != script.ARMED or (own is not None and own <= 0):
            raise Expired('The lease of %s at %s had run out before it was renewed: its Job returns the traffic.%s' % (
                names.service, names.resource, _said(lease)))
        try:
            await api.patch(ref, _same(lease) + _renewal(api, lease_s))
        except Conflict:
            # The Job noted something meanwhile, or it has just ended the lease.
            if attempt + 1 == _TRIES:
                raise
            continue
        if job is None or _ended(job):
            raise Refused('The Job "%s" of the lease of %s at %s is gone: nothing would return the traffic if this run ended.' % (
                names.job, names.service, names.resource))
        break
    return plan.duration_s(lease_s) - (_watchdog.now_s() - begun)


async def seen(api: Api, names: Names) -> tuple[float | None, str]:
    """Returns what the lease has left (None: there is none; not above 0: it has run out) and what its Job noted last."""
    lease = await api.get(names.ref('Lease'))
    return _left(api, lease), plan.note(lease, script.NOTE)


async def left(api: Api, names: Names) -> float | None:
    """Returns what the lease has left: None when there is none, not above 0 when it has run out."""
    return (await seen(api, names))[0]


async def release(api: Api, names: Names) -> None:
    """Ends the Job without the way back and removes the objects. Nothing is done when another rollout holds the lease, or nobody."""
    ref = names.ref('Lease')
    lease = await api.get(ref)
    if lease is not None and lease['spec'].get('holderIdentity') != names.rollout:
        return
    if lease is not None:
        with contextlib.suppress(Conflict):
            # Nobody renews any more, so nothing but the Job's notes can come between.
            await api.patch(ref, [_annotate(script.STATE, script.RELEASED)])
    failed = await _remove(api, names)
    if failed:
        raise failed[0]


async def _remove(api: Api, names: Names) -> list[DeliveryError]:
    """Removes the objects; the permissions first, so that a Job that nobody reaches cannot act any more."""
    failed = []
    for kind in ('RoleBinding', 'Role', 'Job', 'ServiceAccount', 'Lease'):
        try:
            await api.delete(names.ref(kind))
        except DeliveryError as exc:
            failed.append(exc)
    return failed


def _left(api: Api, lease: Obj | None) -> float | None:
    return plan.left_s(lease, _here, api.now)


def _here() -> tuple[str, float]:
    return _watchdog.boot_id(), _watchdog.now_s()


def _renewed() -> str:
    return '%s %.6f' % _here()


def _renewal(api: Api, lease_s: float) -> Ops:
    return [{'op': 'add', 'path': '/spec/renewTime', 'value': plan.micro_time(api.now())},
            {'op': 'add', 'path': '/spec/leaseDurationSeconds', 'value': plan.duration_s(lease_s)}, _annotate(plan.RENEWED, _renewed())]


def _annotate(name: str, value: str) -> t.Dict[str, t.Any]:
    return {'op': 'add', 'path': pointer('metadata', 'annotations', name), 'value': value}


def _same(obj: Obj) -> Ops:
    """Lets a patch fail when somebody has changed the object since it was read."""
    return [{'op': 'test', 'path': '/metadata/resourceVersion', 'value': obj['metadata']['resourceVersion']}]


def _ended(job: Obj) -> bool:
    conditions = (job.get('status') or {}).get('conditions') or ()
    return any(one.get('type') in ('Complete', 'Failed') and one.get('status') == 'True' for one in conditions) or bool(
        job['metadata'].get('deletionTimestamp'))


def _said(lease: Obj | None) -> str:
    said = plan.note(lease, script.NOTE)
    return ' It noted: %s.' % said.rstrip('.') if said else ''
