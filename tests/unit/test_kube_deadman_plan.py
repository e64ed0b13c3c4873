# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The objects of a lease in the cluster, and what its Job decides: with a clock and an API server of the test's own."""

from __future__ import annotations

import ast
import json
import sys
import typing as t

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._kube import deadman_plan as plan
from ansible_collections.progressive.delivery.plugins.module_utils._kube import deadman_script as script
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Ref
from hypothesis import given
from hypothesis import strategies as st

ROUTE = Ref('gateway.networking.k8s.io', 'v1', 'httproutes', 'shop', 'main')
LEASE = '/apis/coordination.k8s.io/v1/namespaces/shop/leases/x'


def spec(**more: t.Any) -> plan.DeadmanSpec:
    return plan.DeadmanSpec(**{
        'service': 'shop', 'endpoint': 'kube1', 'rollout': 'r1', 'resource': ROUTE, 'lease_s': 14.2, 'image': 'python:3', **more,
        'way_back': more.get('way_back', (
            {'method': 'PATCH', 'path': ROUTE.path, 'content_type': 'application/json-patch+json', 'body': []},))})


def objects(**more: t.Any) -> dict[str, t.Any]:
    return plan.manifests(spec(**more), 'charge', plan.micro_time(1000.5), 'boot 1.0', 14.2)


def test_permissions_are_named_objects_only() -> None:
    rules = objects()['Role']['rules']
    assert rules == [
        {'apiGroups': ['gateway.networking.k8s.io'], 'resources': ['httproutes'], 'resourceNames': ['main'], 'verbs': ['get', 'patch']},
        {'apiGroups': ['coordination.k8s.io'], 'resources': ['leases'], 'resourceNames': [spec().names.base],
         'verbs': ['get', 'patch', 'watch']}]


def test_permissions_of_a_way_back_over_several_objects() -> None:
    way_back = ({'method': 'DELETE', 'path': '/apis/networking.k8s.io/v1/namespaces/shop/ingresses/shop-canary'},
                {'method': 'PATCH', 'path': '/apis/apps/v1/namespaces/shop/deployments/web/scale?fieldManager=x',
                 'content_type': 'application/merge-patch+json', 'body': {}},
                {'method': 'PUT', 'path': '/api/v1/namespaces/shop/services/web', 'content_type': 'application/json', 'body': {}})
    rules = {(rule['resources'][0], rule['resourceNames'][0]): rule['verbs'] for rule in objects(way_back=way_back)['Role']['rules']}
    assert rules == {('httproutes', 'main'): ['get'], ('ingresses', 'shop-canary'): ['delete', 'get'],
                     ('deployments/scale', 'web'): ['get', 'patch'], ('services', 'web'): ['get', 'update'],
                     ('leases', spec().names.base): ['get', 'patch', 'watch']}


def test_the_pod_keeps_to_the_restricted_profile() -> None:
    pod = objects()['Job']['spec']['template']['spec']
    assert pod['securityContext'] == {'runAsNonRoot': True, 'runAsUser': 65534, 'runAsGroup': 65534, 'fsGroup': 65534,
                                      'seccompProfile': {'type': 'RuntimeDefault'}}
    container, = pod['containers']
    assert container['securityContext'] == {'allowPrivilegeEscalation': False, 'privileged': False, 'readOnlyRootFilesystem': True,
                                            'capabilities': {'drop': ['ALL']}}
    assert not {'volumes', 'hostNetwork', 'hostPID'} & set(pod)
    assert 'runAsUser' not in objects(user=None)['Job']['spec']['template']['spec']['securityContext']


def test_the_job_outlives_everything_and_then_goes() -> None:
    job = objects()['Job']['spec']
    assert 'activeDeadlineSeconds' not in job and job['backoffLimit'] >= 10 ** 6 and job['ttlSecondsAfterFinished'] > 0
    assert job['template']['spec']['restartPolicy'] == 'OnFailure'


def test_the_program_needs_the_standard_library_only() -> None:
    command = objects()['Job']['spec']['template']['spec']['containers'][0]['command']
    tree = ast.parse(command[3], feature_version=(3, 7))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split('.')[0] for name in modules} <= set(sys.stdlib_module_names)
    assert command[4:] == [spec().names.ref('Lease').path, 'charge']


@given(st.from_regex(r'[A-Za-z0-9_.:][A-Za-z0-9_.:-]{0,126}', fullmatch=True), st.text(min_size=1))
def test_names_are_ones_that_kubernetes_takes(service: str, rollout: str) -> None:
    names = plan.names_of(ROUTE, service, rollout)
    assert plan._DNS.fullmatch(names.job) and plan._DNS.fullmatch(names.base) and names.job.startswith(names.base)


def test_names_tell_services_routes_and_rollouts_apart() -> None:
    other = Ref('gateway.networking.k8s.io', 'v1', 'grpcroutes', 'shop', 'main')
    bases = {plan.names_of(ref, service, 'r').base for ref in (ROUTE, other) for service in ('a.b', 'a-b')}
    assert len(bases) == 4
    assert plan.names_of(ROUTE, 'a', 'r1').base == plan.names_of(ROUTE, 'a', 'r2').base
    assert plan.names_of(ROUTE, 'a', 'r1').job != plan.names_of(ROUTE, 'a', 'r2').job


@given(st.floats(0, 4e9))
def test_times_survive(seconds: float) -> None:
    assert plan.epoch_s(plan.micro_time(seconds)) == pytest.approx(seconds, abs=2e-6)


def test_what_is_left() -> None:
    lease = objects()['Lease']

    def here() -> tuple[str, float]:
        return 'boot', 6.0

    def elsewhere() -> tuple[str, float]:
        return 'other', 6.0

    assert plan.left_s(lease, here, lambda: 5000.0) == 15 - 5
    assert plan.left_s(lease, elsewhere, lambda: 1004.5) == pytest.approx(11)
    lease['metadata']['annotations'][script.STATE] = script.EXPIRED
    assert plan.left_s(lease, here, lambda: 1001.0) == 0
    lease['metadata']['annotations'][script.STATE] = script.RELEASED
    assert plan.left_s(lease, here, lambda: 1001.0) is None
    assert plan.left_s(None, here, lambda: 1001.0) is None


# The program of the Job


class Server:
    """A clock and an API server with one Lease and one route, for the program alone; what really happens is in the integration test."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lease: t.Any = {
            'metadata': {'resourceVersion': '1', 'annotations': dict(objects()['Lease']['metadata']['annotations'])},
            'spec': {'holderIdentity': 'r1', 'renewTime': 't0', 'leaseDurationSeconds': 10}}
        self.route: t.Any = {'metadata': {'annotations': {'progressive.delivery/shop': 'id=r1,by=me'}}}
        self.sent: list[tuple[float, str]] = []
        self.answers: list[t.Any] = []
        self.at: list[tuple[float, t.Callable[[], None]]] = []

    def clock(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        end = self.now + seconds
        while self.at and self.at[0][0] <= end:
            self.now, happens = self.at.pop(0)
            happens()
        self.now = max(self.now, end)

    def renew(self) -> None:
        self.touch()
        self.lease['spec']['renewTime'] = 't%g' % self.now

    def touch(self) -> None:
        self.lease['metadata']['resourceVersion'] = str(int(self.lease['metadata']['resourceVersion']) + 1)

    def changed(self, _path: str, version: str, seconds: float) -> t.Any:
        end = self.now + seconds
        while self.at and self.at[0][0] <= end:
            self.pass_(max(self.at[0][0] - self.now, 0))
            if self.lease is None or self.lease['metadata']['resourceVersion'] != version:
                return json.loads(json.dumps(self.lease))
        self.now = end
        return None

    def request(self, method: str, path: str, body: t.Any = None, content_type: str | None = None) -> tuple[int, t.Any]:
        if path == LEASE:
            if self.lease is None:
                return 404, {}
            if method == 'PATCH':
                return self.patch(body)
            return 200, json.loads(json.dumps(self.lease))
        if method == 'GET':
            return (200, self.route) if self.route else (404, {})
        if 'dryRun' not in path:
            self.sent.append((self.now, method))
            if not self.answers:
                return 200, {}
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return 200, {}

    def patch(self, body: t.Any) -> tuple[int, t.Any]:
        """A merge patch that asks for the version, or a JSON patch of annotations."""
        notes = self.lease['metadata']['annotations']
        if isinstance(body, dict):
            if body['metadata']['resourceVersion'] != self.lease['metadata']['resourceVersion']:
                return 409, {}
            notes.update(body['metadata']['annotations'])
        else:
            for one in body:
                name = one['path'].rpartition('/')[2].replace('~1', '/')
                if one['op'] == 'test' and notes.get(name) != one['value']:
                    return 422, {'message': 'testing path %s: test failed' % one['path']}
                notes[name] = one['value']
        self.touch()
        return 200, json.loads(json.dumps(self.lease))

    def hold(self) -> int:
        return script.Holder(self, LEASE, 'charge', self.clock, self.pass_).hold()

    def annotate(self, name: str, value: str) -> None:
        self.lease['metadata']['annotations'][name] = value
        self.touch()

    def note(self, name: str) -> str:
        return self.lease['metadata']['annotations'].get(name) or ''


def test_it_acts_once_nobody_renews() -> None:
    server = Server()
    assert server.hold() == 0
    assert server.sent == [(110.0, 'PATCH')]
    assert server.note(script.STATE) == script.RETURNED and server.note(script.PROVEN)


def test_each_renewal_lasts_the_full_time() -> None:
    server = Server()
    server.at = [(100.0 + 4 * number, server.renew) for number in range(1, 6)]
    server.hold()
    assert server.sent == [(130.0, 'PATCH')]


def test_a_note_of_its_own_renews_nothing() -> None:
    server = Server()
    server.at = [(100.0 + number, server.touch) for number in range(1, 60)]
    server.hold()
    assert server.sent[0][0] == pytest.approx(110.0, abs=1)


def test_a_renewal_that_it_did_not_hear_of_wins_over_the_expiry() -> None:
    server = Server()

    def unheard(_path: str, _version: str, seconds: float) -> None:
        server.now += seconds
        server.changed = Server.changed.__get__(server)  # type: ignore[method-assign]

    server.changed = unheard  # type: ignore[method-assign]
    inner = server.request

    def between(method: str, path: str, body: t.Any = None, content_type: str | None = None) -> tuple[int, t.Any]:
        if isinstance(body, dict) and script.EXPIRED in body.get('metadata', {}).get('annotations', {}).values() and server.now < 112:
            server.renew()
        return inner(method, path, body, content_type)

    server.request = between  # type: ignore[method-assign]
    server.hold()
    assert server.sent == [(120.0, 'PATCH')]


@pytest.mark.parametrize('state', [script.RELEASED, script.RETURNED])
def test_it_ends_when_nothing_is_held(state: str) -> None:
    server = Server()
    server.at = [(103.0, lambda: server.annotate(script.STATE, state))]
    assert server.hold() == 0
    assert not server.sent and server.now < 105


def test_it_ends_when_another_job_is_in_charge() -> None:
    server = Server()
    server.at = [(103.0, lambda: server.annotate(script.CHARGE, 'new'))]
    assert server.hold() == 0 and not server.sent


def test_a_lease_that_is_gone_is_no_reason_to_let_go() -> None:
    server = Server()
    server.at = [(103.0, lambda: setattr(server, 'lease', None))]
    assert server.hold() == 0
    assert server.sent and server.sent[0][0] == pytest.approx(110, abs=1)


def test_one_that_takes_over_finishes_what_another_began() -> None:
    server = Server()
    server.lease['metadata']['annotations'][script.STATE] = script.EXPIRED
    server.hold()
    assert server.sent == [(100.0, 'PATCH')]


@pytest.mark.parametrize('answer', [
    (409, {}), (500, {}), (403, {'message': 'no'}), (429, {}), ConnectionRefusedError('no'), (422, {'message': 'the request'})])
def test_it_never_gives_up(answer: t.Any) -> None:
    server = Server()
    server.answers = [answer] * 50
    server.hold()
    assert len(server.sent) == 51
    assert max(later[0] - earlier[0] for earlier, later in zip(server.sent, server.sent[1:])) <= 5
    assert server.note(script.STATE) == script.RETURNED


@pytest.mark.parametrize('record', [None, '', 'id=r10,by=me', 'id=r,by=r1x', 'by=x,id=R1'])
def test_what_belongs_to_somebody_else_is_left_alone(record: str | None) -> None:
    server = Server()
    server.route['metadata']['annotations'] = {} if record is None else {'progressive.delivery/shop': record}
    server.hold()
    assert not server.sent and 'left alone' in server.note(script.NOTE)


@pytest.mark.parametrize('record', ['id=r1,by=me', '{"id":"r1"}', 'r1', 'x/r1'])
def test_what_is_the_rollouts_is_recognised(record: str) -> None:
    server = Server()
    server.route['metadata']['annotations'] = {'progressive.delivery/shop': record}
    server.hold()
    assert server.sent


def test_without_a_record_a_test_in_the_patch_tells_whose_it_is() -> None:
    server = Server()
    refused = [(422, {'message': 'testing value /metadata/annotations/x failed: test failed'})]
    server.answers = list(refused)
    requests = json.loads(plan.way_back(spec()))['requests']
    assert script.take_back(server, {'requests': requests})[0]
    assert script.take_back(server, {'requests': requests}) == (True, 'returned to stable')


def test_a_document_is_followed() -> None:
    document = {'a/b': [{'c~d': 1}]}
    assert script.pointed(document, '/a~1b/0/c~0d') == 1
    assert script.pointed(document, '/a~1b/1/c~0d') is None
    assert script.pointed(document, '/x/y') is None
