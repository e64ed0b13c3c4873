# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A split that lies in objects of a Kubernetes cluster: the I/O of every router there. What to write is ``kube_plan``'s to say."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import typing as t
from dataclasses import replace

from ansible_collections.progressive.delivery.plugins.module_utils._errors import (
    BadInput, Conflict, DeliveryError, Expired, Refused, Unsupported)
from ansible_collections.progressive.delivery.plugins.module_utils._kube import client, deadman
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref, annotated, content, diff, holds, token
from ansible_collections.progressive.delivery.plugins.module_utils._kube.owners import foreign
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_annotation
from ansible_collections.progressive.delivery.plugins.module_utils._routers import admin, evidence
from ansible_collections.progressive.delivery.plugins.module_utils._routers import kube_facts as facts
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import (
    Applied, Arm, Capabilities, Change, Evidence, Observed)
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import Endpoint, KubeOptions
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import Codec, Decoded, Instances, Objects
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_plan import (
    Facts, KubePlan, KubeState, Record, Write, changes, dumped, parsed)
from ansible_collections.progressive.delivery.plugins.module_utils._routers.planned import Planned
from ansible_collections.progressive.delivery.plugins.module_utils._routers.probe import Probe, parse_probe
from ansible_collections.progressive.delivery.plugins.module_utils._split import Split

_TRIES = 5
_POLL_S = 0.05
_READY_S = 60.0
# How long a controller has to say that it knows a new arm, and, since no data plane can be asked, this one has to hear of it.
_HEARD_S = 3.0
_NAMED_S = 0.25


class KubeRouter(Planned):
    """Any router of Kubernetes: its kind is what *codec* says."""

    def __init__(self, endpoint: Endpoint, service: str, arms: t.Mapping[str, Arm],
                 codec: t.Callable[[Endpoint, str, t.Mapping[str, Arm]], Codec]) -> None:
        self.name = endpoint.name
        self.deadline = endpoint.deadline
        self.endpoint = endpoint
        self.service = check_annotation('service', service)
        self.arms = arms
        self._where = t.cast(KubeOptions, endpoint.kube)
        self._codec = codec(endpoint, service, arms)
        self._refs = self._codec.refs()
        self._home = self._refs[self._codec.home].ref
        self._plan = KubePlan(endpoint, service, arms, self._codec)
        self._probe = parse_probe(endpoint.name, endpoint.options.get('probe'), endpoint.deadline)
        self._can = self._codec.capabilities()
        if self._probe:
            self._can = replace(self._can, verify=tuple(sorted({*self._can.verify, 'L3'})))
        if self._where.admin:
            if not self._codec.admin_path:
                raise BadInput('The endpoint %s has "admin", and the router %s knows no data plane that it could ask there.' % (
                    self.name, endpoint.router))
            self._can = replace(self._can, verify=tuple(sorted({*self._can.verify, 'L2'})))
        self.setup_s = 0.0 if self._can.native_lease else _READY_S
        self._api = client.connect(self._where.kubeconfig, self._where.context, endpoint.deadline)

    def capabilities(self) -> Capabilities:
        return self._can

    # ---- reading

    async def read(self) -> Observed:
        (objects, found), lease = await asyncio.gather(self._everything(), self._left())
        return self._seen(objects, found, lease)

    async def _everything(self) -> tuple[Objects, Facts]:
        objects = await self._objects()
        return objects, await facts.read(self._api, self._where, self.arms, self._codec.instances(objects), self.name)

    async def instances(self) -> dict[str, Instances]:
        """Returns how to count what serves each arm, as the objects are now."""
        return self._codec.instances(await self._objects())

    async def _objects(self) -> dict[str, Obj | None]:
        """Reads what the codec wants. Raises Unsupported when a required object is not there."""
        got = dict(zip(self._refs, await asyncio.gather(*(self._get(wanted.ref, wanted.required) for wanted in self._refs.values()))))
        for key, wanted in self._refs.items():
            if wanted.required and got[key] is None:
                raise Unsupported('The %s does not exist in %s%s: correct "object" and "namespace" of %s, or create it.' % (
                    wanted.ref, self._api.name, await facts.no_namespace(self._api, wanted.ref.namespace), self.name))
        return got

    async def _get(self, ref: Ref, required: bool) -> Obj | None:
        try:
            return await self._api.get(ref)
        except Unsupported:
            # A kind that is not served has no object; a change that would create one says so.
            if required:
                raise
            return None

    async def lacking(self, observed: Observed) -> tuple[str, ...]:
        settled = observed.state.decoded.settled
        verbs = {key: wanted.verbs for key, wanted in self._refs.items() if wanted.verbs and key not in settled}
        verbs[self._codec.home] = ('patch',)
        try:
            *forbidden, lease = await asyncio.gather(
                *(self._api.forbidden(self._refs[key].ref, *asked) for key, asked in verbs.items()),
                _nothing() if self._can.native_lease else deadman.forbidden(self._api, self._names('')))
        except DeliveryError as exc:
            return (str(exc),)
        lacking = {key: ['%s %s' % (verb, self._refs[key].ref.resource) for verb in refused] for key, refused in zip(verbs, forbidden)}
        lacking[self._codec.home] += lease
        return tuple('This user of %s may not %s in namespace "%s": grant it with a Role there (docs/operations.md).' % (
            self._api.name, ', '.join(what), self._refs[key].ref.namespace) for key, what in lacking.items() if what)

    async def _left(self) -> float | None:
        """What the Lease has; infinity where that cannot be read: unknown is not expired, nobody may take over what might be watched."""
        if self._can.native_lease:
            return None
        try:
            return await deadman.left(self._api, self._names(''))
        except DeliveryError:
            return math.inf

    def _names(self, rollout: str | None) -> deadman.Names:
        return deadman.names_of(self._home, self.service, rollout or '')

    def _seen(self, objects: Objects, found: Facts = Facts(), lease: float | None = None) -> Observed:
        record = self._plan.record(objects)
        problems, notes = foreign(self._home, t.cast(Obj, objects[self._codec.home]))
        left = None
        if record.get('ttl') and not self._can.native_lease:
            left = 0.0 if lease is None else float(record['ttl']) if lease == math.inf else lease
            if left <= 0:
                notes += ('The lease of %s on %s has run out, and its Job has not brought the traffic back: run the rollback.' % (
                    self.service, self.name),)
        if record.get('ended') == 'lease':
            notes += ('A lease of %s on %s ran out: its traffic went back to "%s" by itself.' % (
                self.service, self.name, record.get('stable')),)
        return self._plan.observed(objects, replace(
            found, lease_left_s=left, now_s=self._api.now(), problems=found.problems + problems, notes=found.notes + notes))

    # ---- writing

    async def prepare(self, change: Change) -> Change:
        """Waits until the data plane knows who serves the arms, where that can be asked; claims the object and has the way back
        stored in the cluster, for routers whose data plane keeps no lease; names new arms."""
        if change.kind == 'split' and self._where.admin and self._codec.servers_path:
            split = parsed(change.payload['split'])
            # Whether it knows them in time or not, what follows is right: who has no endpoints is told of elsewhere.
            await admin.lacking(self._where.admin, self._codec.servers_path, lambda told: self._codec.unserved(split, told), _HEARD_S)
        if change.kind != 'split' or self._can.native_lease:
            return change
        objects = await self._unchanged(change)
        former = self._plan.record(objects).get('rollout')
        if change.lease_s:
            objects = await self._claimed(objects, change.payload['record'])
        objects = await self._named(objects, parsed(change.payload['split']))
        if change.lease_s:
            await self._arm(objects, change, former)
        return replace(change, token=token(objects))

    async def _named(self, objects: Objects, split: Split) -> Objects:
        """Has the arms that the route never had named in it, without a share, for a data plane that hears of them apart from their
        shares: Contour's Envoy answered with 503 for up to 20 ms in three of ten first splits."""
        writes = [Write(key, objects[key], new) for key, new in self._codec.named(objects, split).items()
                  if content(objects[key]) != content(new)]
        if not writes:
            return objects
        heard = 'L1' in self._can.verify and self._codec.accepted(objects).ok
        objects = {**objects, **await self._write(writes, objects)}
        if heard:
            # Whether it says so or not, what follows is right; the verification tells of a controller that does not.
            await self._accepted(objects, Evidence('L0', True, ''), _HEARD_S)
            await asyncio.sleep(_NAMED_S)
        return objects

    async def apply(self, change: Change) -> Applied:
        if change.kind in ('split', 'release'):
            return await self._forward(change)
        if change.kind == 'undo':
            return await self._undo(change)
        return await self._back(change)

    async def _forward(self, change: Change) -> Applied:
        objects = await self._unchanged(change)
        record, deadline_s = dict(change.payload['record']), None
        former = self._plan.record(objects).get('rollout')
        if change.lease_s and self._can.native_lease:
            deadline_s = record['until'] = round(self._api.now() + change.lease_s, 3)
        elif change.lease_s:
            # From here on it counts: until now it had the time that the others needed to be prepared besides.
            await deadman.renew(self._api, self._names(record['rollout']), change.lease_s)
        writes = self._plan.writes(objects, parsed(change.payload['split']), record, deadline_s)
        await self._write(writes, objects, self.deadline + (self.setup_s if change.lease_s else 0.0))
        after = await self._objects()
        self._check(writes, after)
        if not change.lease_s:
            # A permanent split is in force before its lease is given up.
            await self._let_go(former or record.get('rollout'))
        return Applied(change, self._seen(after, lease=await self._left()))

    async def _unchanged(self, change: Change) -> Objects:
        """Returns the objects. Raises Conflict when they are not those that *change* was planned on, Expired when that is because the
        lease of the rollout's split before has ended."""
        objects = await self._objects()
        if token(objects) != change.token:
            record = self._plan.record(objects)
            if record.get('ended') == 'lease' and record.get('ended_of') == change.payload.get('record', {}).get('rollout'):
                raise Expired('The lease of %s on %s ran out while its next split was prepared: all its traffic is on stable.' % (
                    self.service, self.name))
            raise Conflict('The %s was changed by somebody else since it was read: nothing was overwritten; try again.' % self._home)
        return objects

    async def _claimed(self, objects: Objects, record: Record) -> Objects:
        """Writes the owner alone, so that of two who begin at once only one makes a lease, and its Job finds the record it looks for."""
        before = self._plan.record(objects)
        if before.get('rollout') == record['rollout']:
            return objects
        home = t.cast(Obj, objects[self._codec.home])
        claim = {**before, **{key: record[key] for key in ('rollout', 'by', 'since', 'rev')}}
        claim = {key: value for key, value in claim.items() if key not in ('ended', 'ended_of')}
        claimed = await self._write([Write(self._codec.home, home, annotated(home, self._plan.annotation, dumped(claim)))], objects)
        return {**objects, **claimed}

    async def _arm(self, objects: Objects, change: Change, former: str | None) -> None:
        """Has the way back stored in the cluster, by a Job that has shown that it could send it, before the first share moves."""
        rollout = change.payload['record']['rollout']
        if former and former != rollout:
            # Taken over: its Job finds another owner in the record and does nothing any more.
            await deadman.release(self._api, self._names(former))
        await deadman.arm(self._api, deadman.DeadmanSpec(
            service=self.service, endpoint=self.name, rollout=rollout, resource=self._home,
            way_back=tuple(self._plan.deadman_requests(objects, change)),
            lease_s=t.cast(float, change.lease_s) + self.setup_s,
            image=self._where.lease_image, ready_s=self.setup_s))

    async def _write(self, writes: t.Iterable[Write], objects: Objects, patience_s: float = 0.0) -> dict[str, Obj | None]:
        """Writes one object after the other, each when its kind says that it may; returns them as the server has them then."""
        loop = asyncio.get_running_loop()
        written, end = {}, loop.time() + patience_s * 0.9
        for write in writes:
            while self._codec.hold(objects, write.key, write.new):
                if loop.time() >= end:
                    raise Refused('%s after %g s: nothing was scaled down.' % (
                        self._codec.hold(objects, write.key, write.new), patience_s))
                await asyncio.sleep(_POLL_S)
                objects = await self._objects()
            written[write.key] = await self._write_one(self._refs[write.key].ref, write)
            objects = {**objects, **written}
        return written

    async def _write_one(self, ref: Ref, write: Write) -> Obj | None:
        """Writes unless somebody else has; a change of the status alone is nobody's change."""
        old = write.old
        while True:
            try:
                if write.new is None:
                    await self._api.delete(ref, old['metadata']['uid'] if old else None)
                    return None
                if old is None:
                    return await self._api.create(ref, write.new)
                version = {'op': 'test', 'path': '/metadata/resourceVersion', 'value': old['metadata']['resourceVersion']}
                return await self._api.patch(ref, [version] + changes(write))
            except Conflict:
                now = await self._api.get(ref)
                if now is not None and write.new is not None and holds(now, diff(content(write.old) or {}, content(write.new))):
                    # It was written, and the answer got lost.
                    return now
                if now is None or write.old is None or content(now) != content(write.old):
                    raise
                old = now

    def _check(self, writes: t.Iterable[Write], after: Objects) -> None:
        """Raises Refused when the server does not have what was written."""
        for write in writes:
            obj = after[write.key]
            gone = write.new is None
            if gone and obj is not None and not obj['metadata'].get('deletionTimestamp'):
                raise Refused('The %s was deleted and is still there.' % self._refs[write.key].ref)
            if not gone and (obj is None or not holds(obj, diff(content(write.old) or {}, content(write.new)))):
                raise Refused('The %s does not hold what was written: somebody else changed it at once, or its definition knows not all '
                              'of it.' % self._refs[write.key].ref)

    async def _undo(self, change: Change) -> Applied:
        objects = await self._objects()
        record = self._plan.record(objects)
        if record.get('rev') != change.payload['rev']:
            return Applied(change, self._seen(objects, lease=await self._left()))
        await self._send(self._plan.requests([objects], change.payload['objects']))
        after = await self._objects()
        if not self._plan.record(after).get('ttl'):
            await self._let_go(record.get('rollout'))
        return Applied(change, self._seen(after, lease=await self._left()))

    async def _back(self, change: Change) -> Applied:
        """Sends the way back; where names are not as they were, it is computed anew from what there is."""
        requests = change.payload['requests']
        for attempt in range(_TRIES):
            try:
                await self._send(requests)
                break
            except Conflict:
                again = self._plan.way_back(self._seen(*await self._everything()))
                if again is None:
                    break
                if attempt + 1 == _TRIES:
                    raise
                requests = again.payload['requests']
                await asyncio.sleep(_POLL_S)
        seen = self._seen(await self._objects())
        if seen.split is None or seen.split.partial:
            raise Refused('%s does not show the way back: %s has %s.' % (self.name, self.service, seen.split or 'no split'))
        with contextlib.suppress(DeliveryError):
            # What is left of a lease does the same once more, or nothing.
            await self._let_go(change.payload.get('holder'))
        return Applied(change, seen)

    async def _send(self, requests: t.Iterable[t.Mapping[str, t.Any]]) -> None:
        for one in requests:
            await self._api.request(one['method'], one['path'], one['body'], one['content_type'])

    async def _let_go(self, rollout: str | None) -> None:
        if rollout and not self._can.native_lease:
            await deadman.release(self._api, self._names(rollout))

    # ---- the lease

    def renewable(self, observed: Observed) -> t.Mapping[str, t.Any]:
        state: KubeState = observed.state
        return {'rev': state.record.get('rev'), 'rollout': state.record.get('rollout'), 'shows': shown(state.decoded)}

    async def renew(self, token_: t.Mapping[str, t.Any], lease_s: float) -> float:
        objects, left = await asyncio.gather(
            self._objects(),
            _nothing() if self._can.native_lease else deadman.renew(self._api, self._names(token_.get('rollout')), lease_s),
            return_exceptions=True)
        if isinstance(objects, BaseException):
            raise objects
        record, seen = self._plan.record(objects), self._seen(objects, lease=lease_s)
        if record.get('ended') == 'lease':
            raise Expired('The lease of %s on %s had run out before it was renewed: its Job has returned the traffic.' % (
                self.service, self.name))
        if record.get('rev') != token_.get('rev'):
            raise Conflict('The split of %s on %s is not ours any more: it has rev %s of %s.' % (
                self.service, self.name, record.get('rev'), record.get('rollout', 'nobody')))
        if shown(seen.state.decoded) != token_.get('shows'):
            raise Conflict('The %s does not have the split that was set: somebody else changed it (%s).' % (
                self._home, seen.split or 'no split'))
        if isinstance(left, BaseException):
            raise left
        return await self._renew_native(objects, seen, lease_s) if self._can.native_lease else t.cast(float, left)

    async def _renew_native(self, objects: Objects, seen: Observed, lease_s: float) -> float:
        now_s = self._api.now()
        if (seen.lease_left_s or 0) <= 0 or seen.split is None:
            raise Expired('The lease of %s on %s had run out before it was renewed: all its traffic is on "%s".' % (
                self.service, self.name, seen.split.stable if seen.split else 'stable'))
        until = round(now_s + lease_s, 3)
        writes = self._plan.writes(objects, seen.split, dict(self._plan.record(objects), until=until), until)
        self._check(writes, {**objects, **await self._write(writes, objects)})
        return lease_s - (self._api.now() - now_s)

    # ---- evidence

    async def verify(self, observed: Observed, level: str, timeout_s: float) -> Evidence:
        if level == 'L3' and not self._probe:
            return Evidence('L0', False, '%s cannot show the shares by its traffic (L3): give its endpoint a "probe".' % self.name)
        clock = asyncio.get_running_loop().time
        end = clock() + timeout_s
        reached, objects = Evidence('L0', True, 'the objects were read back', observed.configured_bp), observed.state.objects
        if level != 'L0' and 'L1' in self._can.verify:
            reached, objects = await self._accepted(objects, reached, timeout_s)
        if reached.ok and level in ('L2', 'L3') and self._where.admin:
            reached = await self._in_force(objects, reached, max(0.0, end - clock()))
        if reached.ok and level == 'L3':
            return await self._by_traffic(t.cast(Probe, self._probe), t.cast(Split, observed.effective), end)
        return reached

    async def _accepted(self, objects: Objects, reached: Evidence, timeout_s: float) -> tuple[Evidence, Objects]:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while True:
            accepted = self._codec.accepted(objects)
            if accepted.ok:
                return replace(reached, level='L1' if accepted.sure else reached.level, text=accepted.text), objects
            if loop.time() >= end:
                return replace(reached, ok=False, text='The %s was not accepted within %g s: %s' % (
                    self._home, timeout_s, accepted.text)), objects
            await asyncio.sleep(_POLL_S)
            objects = await self._objects()

    async def _in_force(self, objects: Objects, reached: Evidence, timeout_s: float) -> Evidence:
        lacks = await admin.lacking(self._where.admin, self._codec.admin_path, lambda told: self._codec.unseen(objects, told), timeout_s)
        if lacks:
            return replace(reached, ok=False, text='The %s is not in force everywhere: %s.' % (self._home, lacks))
        return replace(reached, level='L2', text='all processes of the data plane have it (%d)' % len(self._where.admin))

    async def _by_traffic(self, probe: Probe, split: Split, end: float) -> Evidence:
        """Asks until answers agree with *split*: the first ones may be older than it."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                seen = await evidence.by_traffic(lambda: probe.counts(self.arms), split, max(0.0, end - loop.time()))
                if seen.ok or loop.time() + _POLL_S >= end:
                    return seen
        finally:
            probe.close()


def shown(decoded: Decoded) -> str:
    """Returns what identifies the split that objects show."""
    text = repr((sorted(decoded.weights.items()), decoded.unknown, sorted(map(str, decoded.matches)), decoded.sticky, decoded.mirror))
    return hashlib.sha256(text.encode('utf-8')).hexdigest()


async def _nothing() -> list[str]:
    return []
