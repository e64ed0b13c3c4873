# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lease of a route object, against a real API server: its Job's program runs as a plain process with the Job's own token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import time
import typing as t
import urllib.error
import urllib.request

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, Expired, Refused
from ansible_collections.progressive.delivery.plugins.module_utils._kube import client, deadman
from ansible_collections.progressive.delivery.plugins.module_utils._kube import deadman_script as script
from ansible_collections.progressive.delivery.plugins.module_utils._kube.deadman import DeadmanSpec
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Ref
from deadman_lab import Jobs
from haproxy_lab import wait_for
from kube_api import ApiError, KubeApi

RECORD = 'progressive.delivery/shop'
ROUTES = '/apis/example.test/v1/namespaces/%s/routes'


@pytest.fixture(scope='module')
def cluster() -> t.Iterator[KubeApi]:
    with KubeApi(users=['operator']) as api:
        api.define('example.test', 'Route', 'routes')
        yield api


class Bed:
    """A namespace with a route that gives a candidate 20 %, and whatever runs there."""

    def __init__(self, cluster: KubeApi, directory: t.Any, user: str = 'administrator') -> None:
        self.cluster = cluster
        self.namespace = 'pd-' + os.urandom(4).hex()
        cluster.request('POST', '/api/v1/namespaces', {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': self.namespace}})
        for name in ('shop', 'other'):
            cluster.request('POST', ROUTES % self.namespace, {
                'apiVersion': 'example.test/v1', 'kind': 'Route', 'metadata': {'name': name, 'annotations': {RECORD: 'id=r1,by=me'}},
                'spec': {'canary': 20}})
        self.api = client.connect(cluster.kubeconfig_for(user), None, 5)
        self.jobs = Jobs(cluster, self.namespace, directory)
        self.route = Ref('example.test', 'v1', 'routes', self.namespace, 'shop')

    def spec(self, **more: t.Any) -> DeadmanSpec:
        return DeadmanSpec(**{
            'service': 'shop', 'endpoint': 'kube1', 'rollout': 'r1', 'resource': self.route, 'lease_s': 2, 'image': 'test/python:1',
            'ready_s': 20, 'way_back': (self.back(),), **more})

    def back(self, name: str = 'shop', share: int = 0) -> dict[str, t.Any]:
        return {'method': 'PATCH', 'path': '%s/%s' % (ROUTES % self.namespace, name), 'content_type': 'application/json-patch+json',
                'body': [{'op': 'replace', 'path': '/spec/canary', 'value': share}]}

    def arm(self, spec: DeadmanSpec | None = None) -> None:
        self.run(deadman.arm(self.api, spec or self.spec()))

    def run(self, work: t.Coroutine[t.Any, t.Any, t.Any]) -> t.Any:
        return self.jobs.during(work)

    def share(self, name: str = 'shop') -> int:
        return self.cluster.request('GET', '%s/%s' % (ROUTES % self.namespace, name))['spec']['canary']

    def lease(self) -> dict[str, t.Any]:
        return self.cluster.request('GET', self.spec().names.ref('Lease').path)

    def note(self, name: str) -> str:
        return self.lease()['metadata']['annotations'].get('progressive.delivery/' + name, '')

    def objects(self) -> list[str]:
        found = []
        for path in ('/api/v1', '/apis/rbac.authorization.k8s.io/v1', '/apis/coordination.k8s.io/v1', '/apis/batch/v1'):
            for plural in {'/api/v1': ('serviceaccounts',), '/apis/rbac.authorization.k8s.io/v1': ('roles', 'rolebindings'),
                           '/apis/coordination.k8s.io/v1': ('leases',), '/apis/batch/v1': ('jobs',)}[path]:
                found += [plural for _item in self.cluster.request('GET', '%s/namespaces/%s/%s' % (path, self.namespace, plural))['items']]
        return found


@pytest.fixture
def bed(cluster: KubeApi, tmp_path: t.Any) -> t.Iterator[Bed]:
    bed = Bed(cluster, tmp_path)
    yield bed
    bed.jobs.stop()
    for pod in bed.jobs.pods.values():
        print(pod.said())


def ask(bed: Bed, method: str, path: str, body: t.Any = None, content_type: str = 'application/merge-patch+json') -> int:
    """What the API server answers to the Job's own token."""
    request = urllib.request.Request(bed.cluster.server + path, None if body is None else json.dumps(body).encode(), {
        'Authorization': 'Bearer ' + bed.jobs.last.token, 'Content-Type': content_type}, method=method)
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(request, context=trust, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_nobody_renews(bed: Bed) -> None:
    bed.arm()
    armed = time.monotonic()
    assert bed.share() == 20
    assert 0 < asyncio.run(deadman.left(bed.api, bed.spec().names)) <= 2
    wait_for(lambda: bed.share() == 0, 'the way back', 20)
    assert time.monotonic() - armed > 1.5
    assert bed.jobs.last.process.wait(10) == 0
    assert bed.note('state') == 'returned'
    assert 'returned to stable' in bed.note('note')
    assert bed.share('other') == 20
    assert asyncio.run(deadman.left(bed.api, bed.spec().names)) == 0
    with pytest.raises(Expired, match='had run out.*returned to stable'):
        asyncio.run(deadman.renew(bed.api, bed.spec().names, 5))


def test_renewed_until_the_renewer_dies(bed: Bed) -> None:
    bed.arm()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            api = client.Api(client.Transport(bed.cluster.kubeconfig, None), 5)
            while True:
                asyncio.run(deadman.renew(api, bed.spec().names, 2))
                time.sleep(0.3)
        os._exit(1)
    try:
        first = bed.lease()['spec']['renewTime']
        end = time.monotonic() + 5
        while time.monotonic() < end:
            assert bed.share() == 20
            time.sleep(0.1)
        assert bed.lease()['spec']['renewTime'] > first
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: bed.share() == 0, 'the way back', 20)
        assert bed.jobs.last.process.wait(10) == 0
        bed.cluster.request('PATCH', bed.route.path, {'spec': {'canary': 20}}, 'application/merge-patch+json')
        # Woken up, it does not revive the lease.
        os.kill(pid, signal.SIGCONT)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        pid = 0
        assert bed.note('state') == 'returned'
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_the_job_may_touch_the_route_and_its_lease_only(bed: Bed) -> None:
    bed.arm(bed.spec(lease_s=60))
    lease = bed.spec().names.ref('Lease')
    nothing: dict[str, t.Any] = {'metadata': {'labels': {'a': 'b'}}}
    assert ask(bed, 'GET', bed.route.path) == 200
    assert ask(bed, 'PATCH', bed.route.path + '?dryRun=All', nothing) == 200
    assert ask(bed, 'PATCH', lease.path, nothing) == 200
    for method, path, body in (
            ('GET', ROUTES % bed.namespace + '/other', None), ('PATCH', ROUTES % bed.namespace + '/other', nothing),
            ('GET', ROUTES % bed.namespace, None), ('DELETE', bed.route.path, None), ('PUT', bed.route.path, nothing),
            ('GET', ROUTES % 'default' + '/shop', None), ('DELETE', lease.path, None), ('GET', lease.collection, None),
            ('GET', '/api/v1/namespaces/%s/secrets' % bed.namespace, None), ('GET', '/api/v1/namespaces/%s/pods' % bed.namespace, None),
            ('PATCH', bed.spec().names.ref('Role').path, nothing)):
        assert ask(bed, method, path, body) == 403, (method, path)
    assert bed.share() == 20


def test_released(bed: Bed) -> None:
    bed.arm()
    pod = bed.jobs.last
    asyncio.run(deadman.release(bed.api, bed.spec().names))
    assert bed.objects() == []
    assert asyncio.run(deadman.left(bed.api, bed.spec().names)) is None
    wait_for(lambda: pod.process.poll() is not None, 'the end of the job', 10)
    assert bed.share() == 20
    asyncio.run(deadman.release(bed.api, bed.spec().names))


def test_released_where_the_job_did_not_hear_of_it(bed: Bed) -> None:
    bed.arm()
    pod = bed.jobs.last
    pod.process.send_signal(signal.SIGSTOP)
    asyncio.run(deadman.release(bed.api, bed.spec().names))
    time.sleep(2.5)
    pod.process.send_signal(signal.SIGCONT)
    wait_for(lambda: '403' in pod.said() or pod.process.poll() is not None or '401' in pod.said(), 'the job to find out', 10)
    assert bed.share() == 20


def test_the_lease_is_deleted_by_hand(bed: Bed) -> None:
    bed.arm()
    bed.cluster.request('DELETE', bed.spec().names.ref('Lease').path)
    wait_for(lambda: bed.share() == 0, 'the way back', 20)
    with pytest.raises(Expired):
        asyncio.run(deadman.renew(bed.api, bed.spec().names, 5))


def test_the_api_server_is_down_when_the_lease_runs_out(cluster: KubeApi, bed: Bed) -> None:
    bed.arm()
    cluster.stop_server()
    try:
        time.sleep(3)
        assert bed.jobs.last.process.poll() is None
    finally:
        cluster.start_server()
    wait_for(lambda: bed.share() == 0, 'the way back', 30)
    assert bed.jobs.last.process.wait(20) == 0


def test_the_api_server_does_not_answer_for_a_while(cluster: KubeApi, bed: Bed) -> None:
    bed.arm()
    with cluster.frozen():
        time.sleep(4)
    wait_for(lambda: bed.share() == 0, 'the way back', 30)


def test_an_api_server_that_restarts_ends_nothing(cluster: KubeApi, bed: Bed) -> None:
    bed.arm(bed.spec(lease_s=30))
    cluster.stop_server()
    cluster.start_server()
    assert asyncio.run(deadman.renew(bed.api, bed.spec().names, 2)) > 1
    assert bed.share() == 20
    wait_for(lambda: bed.share() == 0, 'the way back', 20)


def test_the_job_is_killed_and_started_again(bed: Bed) -> None:
    bed.arm()
    bed.jobs.last.stop()
    bed.jobs.pods.clear()
    bed.jobs.look()
    wait_for(lambda: bed.share() == 0, 'the way back', 20)


def test_a_route_that_somebody_else_decided_on_is_left_alone(bed: Bed) -> None:
    bed.arm()
    bed.cluster.request('PATCH', bed.route.path, {'metadata': {'annotations': {RECORD: 'id=r10,by=you'}}}, 'application/merge-patch+json')
    assert bed.jobs.last.process.wait(20) == 0
    assert bed.share() == 20
    assert 'left alone' in bed.note('note')


def test_a_way_back_that_is_refused_is_tried_until_it_is_not(bed: Bed) -> None:
    bed.arm()
    role = bed.spec().names.ref('Role')
    rules = bed.cluster.request('GET', role.path)['rules']
    kept = [one for one in rules if one['resources'] == ['leases']]
    bed.cluster.request('PATCH', role.path, {'rules': kept}, 'application/merge-patch+json')
    wait_for(lambda: 'cannot get resource' in bed.note('note'), 'the job to say so', 20)
    assert bed.share() == 20
    bed.cluster.request('PATCH', role.path, {'rules': rules}, 'application/merge-patch+json')
    wait_for(lambda: bed.share() == 0, 'the way back', 20)


def unpermitted(bed: Bed) -> None:
    """Has the lease run out, its Job in the middle of trying to return the traffic, which it may not."""
    bed.arm()
    role = bed.spec().names.ref('Role')
    rules = bed.cluster.request('GET', role.path)['rules']
    bed.cluster.request('PATCH', role.path, {'rules': [one for one in rules if one['resources'] == ['leases']]},
                        'application/merge-patch+json')
    wait_for(lambda: 'cannot get resource' in bed.note('note'), 'the job to say so', 20)


def test_the_job_of_a_former_lease_proves_nothing_for_the_next_one(bed: Bed) -> None:
    unpermitted(bed)
    former = bed.jobs.last.process
    # Nobody runs the new Job; the former one is still there, as a pod is for a while when its Job is deleted.
    with pytest.raises(Refused, match='not ready within 3 s.*has no pod'):
        asyncio.run(deadman.arm(bed.api, bed.spec(ready_s=3, lease_s=30)))
    assert bed.share() == 20 and bed.objects() == []
    assert former.wait(10) == 0, 'it knows that it is not in charge any more'


def test_the_job_of_a_former_lease_writes_nothing_on_the_next_one(bed: Bed) -> None:
    bed.arm()
    former = bed.jobs.last
    former.stop()
    spec = bed.spec(lease_s=30)

    class Late(script.Api):
        """Its way back is sent; before it can note that, the lease is armed again."""

        def request(self, method: str, path: str, *rest: t.Any) -> t.Any:
            answer = super().request(method, path, *rest)
            if method == 'PATCH' and path == bed.route.path:
                bed.arm(spec)
            return answer

    lease = bed.lease()
    script.Holder(Late(*former.access), spec.names.ref('Lease').path, lease['metadata']['annotations'][script.CHARGE],
                  script.now_s, time.sleep).hold()
    assert bed.share() == 0 and bed.jobs.last is not former
    assert (bed.note('state'), bed.note('note')) == ('armed', '')
    assert asyncio.run(deadman.renew(bed.api, spec.names, 30)) > 20
    assert bed.jobs.last.process.poll() is None


def test_the_next_stage_has_another_way_back(bed: Bed) -> None:
    bed.arm(bed.spec(lease_s=30))
    first = bed.jobs.last
    bed.arm(bed.spec(way_back=(bed.back(share=1),), lease_s=2))
    assert bed.jobs.last is first
    wait_for(lambda: bed.share() == 1, 'the second way back', 20)


def test_the_way_back_of_the_next_stage_needs_another_object(bed: Bed) -> None:
    bed.cluster.request('PATCH', ROUTES % bed.namespace + '/other', {'spec': {'canary': 20}}, 'application/merge-patch+json')
    bed.arm(bed.spec(lease_s=30))
    bed.arm(bed.spec(way_back=(bed.back(), bed.back('other'))))
    wait_for(lambda: bed.share() == 0 and bed.share('other') == 0, 'the way back of both', 20)


def test_a_way_back_that_cannot_be_sent_moves_nothing(bed: Bed) -> None:
    bed.arm(bed.spec(lease_s=30))
    nonsense = {**bed.back(), 'body': [{'op': 'add', 'path': '/metadata/labels', 'value': {'a b': 'c d'}}]}
    with pytest.raises(Refused, match='could not send the way back.*is invalid'):
        bed.arm(bed.spec(way_back=(nonsense,), lease_s=30))
    asyncio.run(deadman.renew(bed.api, bed.spec().names, 2))
    wait_for(lambda: bed.share() == 0, 'the first way back', 20)
    assert bed.share('other') == 20


def test_another_rollout_waits_for_the_lease(bed: Bed) -> None:
    bed.arm(bed.spec(lease_s=30))
    with pytest.raises(Conflict, match='held by r1 for'):
        bed.arm(bed.spec(rollout='r2'))
    with pytest.raises(Conflict, match='is held by r1 now'):
        asyncio.run(deadman.renew(bed.api, bed.spec(rollout='r2').names, 5))
    asyncio.run(deadman.release(bed.api, bed.spec(rollout='r2').names))
    assert len(bed.objects()) == 5
    asyncio.run(deadman.renew(bed.api, bed.spec().names, 1))
    wait_for(lambda: bed.share() == 0, 'the way back', 20)
    bed.cluster.request('PATCH', bed.route.path, {'metadata': {'annotations': {RECORD: 'id=r2'}}, 'spec': {'canary': 20}},
                        'application/merge-patch+json')
    bed.arm(bed.spec(rollout='r2', lease_s=1))
    wait_for(lambda: bed.share() == 0, 'the way back of the second rollout', 20)


def test_a_job_that_never_runs_is_removed_with_the_reason(bed: Bed) -> None:
    # Without a job controller there is no pod, and no event that says why.
    with pytest.raises(Refused, match='not safe, so nothing was moved.*not ready within 1 s.*has no pod'):
        asyncio.run(deadman.arm(bed.api, bed.spec(ready_s=1)))
    assert bed.objects() == []


def test_a_user_without_permission(cluster: KubeApi, tmp_path: t.Any) -> None:
    bed = Bed(cluster, tmp_path, user='operator')
    lacking = asyncio.run(deadman.forbidden(bed.api, bed.spec().names))
    assert 'create roles.rbac.authorization.k8s.io' in lacking and 'patch leases.coordination.k8s.io' in lacking
    with pytest.raises(Refused, match='may not'):
        asyncio.run(deadman.arm(bed.api, bed.spec()))
    grant(cluster, bed.namespace, 'operator', [
        {'apiGroups': ['', 'batch', 'coordination.k8s.io', 'rbac.authorization.k8s.io'],
         'verbs': ['get', 'list', 'create', 'patch', 'delete'],
         'resources': ['serviceaccounts', 'jobs', 'leases', 'roles', 'rolebindings', 'pods', 'events']}])
    wait_for(lambda: asyncio.run(deadman.forbidden(bed.api, bed.spec().names)) == [], 'the permissions', 10)
    # He cannot hand on what he may not do himself.
    with pytest.raises(Refused, match='attempting to grant RBAC permissions not currently held'):
        asyncio.run(deadman.arm(bed.api, bed.spec()))
    assert bed.objects() == ['roles', 'rolebindings'], 'his own'


def grant(cluster: KubeApi, namespace: str, user: str, rules: list[dict[str, t.Any]]) -> None:
    base = '/apis/rbac.authorization.k8s.io/v1/namespaces/%s/' % namespace
    cluster.request('POST', base + 'roles', {
        'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'Role', 'metadata': {'name': user}, 'rules': rules})
    cluster.request('POST', base + 'rolebindings', {
        'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'RoleBinding', 'metadata': {'name': user},
        'roleRef': {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'Role', 'name': user},
        'subjects': [{'kind': 'User', 'apiGroup': 'rbac.authorization.k8s.io', 'name': user}]})


def test_what_cannot_be_a_switch(bed: Bed) -> None:
    for more, words in (({'image': '$(id)'}, 'image'), ({'way_back': ()}, 'no way back'), ({'lease_s': 0.5}, 'Lease object has 1 s'),
                        ({'way_back': ({**bed.back(), 'path': '/api/v1/namespaces/kube-system/secrets/x'},)}, 'reaches its own only'),
                        ({'way_back': ({**bed.back(), 'method': 'POST'},)}, 'cannot send'), ({'rollout': 'a b'}, 'rollout')):
        with pytest.raises(BadInput, match=words):
            bed.arm(bed.spec(**more))
    assert bed.objects() == []


def test_a_route_that_is_gone_is_nothing_to_take_back(bed: Bed) -> None:
    bed.arm()
    bed.cluster.request('DELETE', bed.route.path)
    assert bed.jobs.last.process.wait(20) == 0
    assert 'is not there any more' in bed.note('note')
    with pytest.raises(ApiError):
        bed.share()
