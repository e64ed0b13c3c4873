# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""traffic_weight on routes of a real Kubernetes API server, with the kinds' published definitions where they can be had."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import random
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest

from ansible_collections.progressive.delivery.plugins.module_utils._errors import Conflict, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Change
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_router import KubeRouter
from haproxy_lab import wait_for
from kube_api import KubeApi
from kube_traffic_lab import ARMS, ROUTES, KubeShop, rule, shop
from traffic_lab import sentence


@pytest.fixture(scope='module')
def cluster() -> t.Iterator[KubeApi]:
    with KubeApi(users=['operator', 'nobody']) as api:
        api.definitions('gateway-api', 'traefik', 'contour')
        for kind in ('ApisixRoute', 'VirtualServer', 'TrafficSplit'):
            group, version = ROUTES[kind].api.split('/')
            api.define(group, kind, ROUTES[kind].plural, versions=(version,))
        yield api


@pytest.fixture
def one(cluster: KubeApi, tmp_path: Path) -> t.Iterator[KubeShop]:
    with shop(cluster, tmp_path) as made:
        yield made


# ---- every kind

@pytest.mark.parametrize('kind', sorted(ROUTES))
def test_a_rollout_goes_forward_and_back(cluster: KubeApi, tmp_path: Path, kind: str) -> None:
    with shop(cluster, tmp_path, kind, labels={'mine': 'yes'}) as one:
        total = {'VirtualServer': 100, 'Ingress': 500}.get(kind, 10000)
        assert not one.do(split={'blue': '100%'})['diff'][0]['prepared'].count('%  ->'), 'nothing moves'
        result = one.canary('5%', version='2')
        assert result['changed'] and one.weights() == {'shop-blue': total * 95 // 100, 'shop-canary': total * 5 // 100}
        assert json.loads(one.record())['rollout'] == 'r1'
        assert not one.canary('5%', version='2')['changed'], 'twice is once'
        assert 4 < one.look()['lease_left_s'] <= 20
        before = one.object()
        assert one.do(check=True, split={'canary': '20%'}, lease='20s', rollout='r1')['changed']
        assert one.object() == before, 'check mode writes nothing'
        result = one.canary('20%')
        assert result['diff'][0]['prepared'] == 'shop on edge: canary 5 % -> 20 %, blue 95 % -> 80 %\n'
        assert one.back()['changed'] and one.weights() == {'shop-blue': total}
        assert not one.back()['changed']
        assert one.object()['metadata']['labels'] == {'mine': 'yes'}
        assert one.left_over() == []
        assert one.look()['rollout'] is None


@pytest.mark.parametrize('kind', ['HTTPRoute', 'TraefikService', 'HTTPProxy'])
def test_a_promotion_is_permanent_and_can_be_taken_back(cluster: KubeApi, tmp_path: Path, kind: str) -> None:
    with shop(cluster, tmp_path, kind) as one:
        one.canary('50%')
        result = one.do(split={'green': '100%'}, rollout='r1', version='2', previous_version='1')
        assert one.weights() == {'shop-green': 10000} and result['lease']['ttl_s'] == 0
        assert one.left_over() == []
        seen = one.look()
        assert (seen['stable'], seen['previous'], seen['version'], seen['lease_left_s']) == ('green', 'blue', '2', None)
        one.back()
        assert one.weights() == {'shop-blue': 10000}


# ---- copies

COPIES = {'arm': 'canary', 'share': '10%'}


def taken(one: KubeShop, controller: str) -> None:
    """Has a controller say that it serves the route."""
    generation = one.object()['metadata']['generation']
    conditions = [{'type': name, 'status': 'True', 'reason': 'x', 'message': '', 'lastTransitionTime': '2026-01-01T00:00:00Z',
                   'observedGeneration': generation} for name in ('Accepted', 'ResolvedRefs')]
    one.patch({'status': {'parents': [{'parentRef': {'name': 'edge'}, 'controllerName': controller, 'conditions': conditions}]}},
              subresource='/status')


@pytest.mark.parametrize('kind', ['HTTPRoute', 'GRPCRoute', 'HTTPProxy'])
def test_copies_of_requests_go_forward_and_back(cluster: KubeApi, tmp_path: Path, kind: str) -> None:
    with shop(cluster, tmp_path, kind) as one:
        if kind != 'HTTPProxy':
            taken(one, 'istio.io/gateway-controller')
        before = one.object()
        told = one.canary('0%', mirror=COPIES, check=True)
        assert told['changed'] and one.object() == before and one.left_over() == [], 'check mode writes nothing'
        result = one.canary('0%', mirror=COPIES)
        assert result['diff'][0]['prepared'] == told['diff'][0]['prepared'] == 'shop on edge: copies to canary 0 % -> 10 %\n'
        assert result['endpoints'][0]['mirror'] == {'arm': 'canary', 'share_bp': 1000} and one.look()['lease_left_s'] > 4
        assert not one.canary('0%', mirror=COPIES)['changed'], 'twice is once'
        assert one.canary('5%', mirror={**COPIES, 'share': '20%'})['diff'][0]['prepared'] == (
            'shop on edge: canary 0 % -> 5 %, blue 100 % -> 95 %, copies to canary 10 % -> 20 %\n')
        assert asyncio.run(one.held(one.canary('5%', mirror=COPIES)).renew())[0].ok
        assert one.back()['changed'] and one.look()['mirror'] == {} and one.left_over() == []
        assert 'irror' not in json.dumps(one.object()['spec']) and one.weights() == {'shop-blue': 10000}


def test_copies_end_with_their_lease(one: KubeShop) -> None:
    taken(one, 'istio.io/gateway-controller')
    one.canary('0%', lease='2s', mirror=COPIES)
    wait_for(lambda: 'filters' not in one.object()['spec']['rules'][0], 'the Job to take the copies back', 15)
    assert 'ran out' in ' '.join(one.look()['notes'])


def test_copies_that_a_gateway_would_not_make_are_refused(cluster: KubeApi, tmp_path: Path, one: KubeShop) -> None:
    for controller, said in (('', 'has not taken the route'), ('traefik.io/gateway-controller', 'with an error'),
                             ('projectcontour.io/gateway-controller', 'ask for 100 %')):
        if controller:
            taken(one, controller)
        before = one.object()
        assert said in sentence(lambda: one.canary('0%', mirror=COPIES))
        assert one.object() == before and one.left_over() == []
    with shop(cluster, tmp_path, 'TraefikService') as other:
        before = other.object()
        assert 'has no mirror' in sentence(lambda: other.canary('0%', mirror=COPIES))
        assert other.object() == before and other.left_over() == []
    assert 'needs a lease' in sentence(lambda: one.do(split={'canary': '0%'}, mirror=COPIES))


# ---- the lease

def test_nobody_renews_and_the_cluster_takes_the_traffic_back(one: KubeShop) -> None:
    result = one.canary('5%', lease='2s')
    held = one.held(result)
    wait_for(lambda: one.weights() == {'shop-blue': 10000}, 'the Job to take the traffic back', 15)
    seen = one.look()
    assert seen['rollout'] is None and 'ran out' in ' '.join(seen['notes'])
    (renewed,) = asyncio.run(held.renew())
    assert not renewed.ok and not renewed.conflict and 'had run out' in renewed.error
    assert one.canary('5%')['changed'], 'the next rollout begins as if nothing had been'


def test_a_lease_that_ends_under_the_next_stage_is_no_reason_to_stop(one: KubeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another endpoint that takes long to prepare, or a busy machine: the Job returns the traffic between the reading and the writing."""
    one.canary('5%', lease='2s')
    prepare, times = KubeRouter.prepare, []

    async def late(router: KubeRouter, change: Change) -> Change:
        times.append(one.weights())
        if len(times) == 1:
            await asyncio.to_thread(wait_for, lambda: one.weights() == {'shop-blue': 10000}, 'the Job to take the traffic back', 15)
        return await prepare(router, change)

    monkeypatch.setattr(KubeRouter, 'prepare', late)
    assert one.canary('20%')['changed']
    assert (len(times), one.weights()) == (2, {'shop-blue': 8000, 'shop-canary': 2000})


def test_a_lease_that_is_renewed_lives_on(one: KubeShop) -> None:
    held = one.held(one.canary('5%', lease='3s'))
    rev = one.object()['metadata']['resourceVersion']
    for _n in range(4):
        (renewed,) = asyncio.run(held.renew())
        assert renewed.ok and renewed.left_s > 1, renewed
        wait_for(lambda: held.left() < 2.2, 'time to pass', 5)
    assert one.weights()['shop-canary'] == 500
    assert one.object()['metadata']['resourceVersion'] == rev, 'a renewal touches the Lease alone'


def test_a_split_that_was_changed_by_hand_is_not_renewed(one: KubeShop) -> None:
    held = one.held(one.canary('5%'))
    one.patch([{'op': 'replace', 'path': '/spec/rules/0/backendRefs/0/weight', 'value': 7}], 'application/json-patch+json')
    (renewed,) = asyncio.run(held.renew())
    assert renewed.conflict and 'somebody else changed it' in renewed.error


def test_a_rollout_that_was_taken_over_is_not_renewed(one: KubeShop) -> None:
    held = one.held(one.canary('5%'))
    assert 'is being rolled out by r1 (me since' in sentence(lambda: one.canary('10%', rollout='r2', by='you'))
    one.canary('10%', rollout='r2', by='you', force=True)
    (renewed,) = asyncio.run(held.renew())
    assert renewed.conflict and 'not ours any more' in renewed.error
    (back,) = asyncio.run(held.way_back('too late'))
    assert not back.changed and one.weights()['shop-canary'] == 1000


def test_the_stored_way_back_works_where_nothing_can_be_read(cluster: KubeApi, one: KubeShop) -> None:
    """The record's object can be patched and not read: what was stored before the change is sent."""
    result = one.canary('5%')
    (router,) = registry.build_all([one.endpoint()], 'shop', ARMS)
    change = router.stored_way_back(result['lease']['endpoints'][0]['way_back'])
    asyncio.run(router.apply(change))
    assert one.weights() == {'shop-blue': 10000} and one.left_over() == []


def test_an_arm_that_the_route_never_had_is_named_before_all_traffic_goes_there(one: KubeShop) -> None:
    before = one.object()['metadata']['generation']
    one.do(split={'green': '100%'})
    assert one.object()['metadata']['generation'] == before + 2, 'named without a share, then given all of it'
    one.do(split={'blue': '100%'})
    assert one.object()['metadata']['generation'] == before + 3, 'it has the name already'


# ---- two owners

def test_a_change_of_somebody_else_between_plan_and_write_is_not_overwritten(one: KubeShop) -> None:
    (router,) = registry.build_all([one.endpoint()], 'shop', ARMS)

    async def race() -> None:
        from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Claim, Desired
        from ansible_collections.progressive.delivery.plugins.module_utils._split import all_to
        observed = await router.read()
        change = router.plan(observed, Desired(all_to('green'), Claim('r1', 'me', 1)))
        one.patch({'spec': {'hostnames': ['other.example']}})
        await router.apply(change)

    with pytest.raises(Conflict, match='changed by somebody else since it was read'):
        asyncio.run(race())
    assert one.weights() == {'shop-blue': 1}


def test_what_a_controller_says_of_a_route_is_no_change_of_it(one: KubeShop) -> None:
    """The status is written all the time while 30 changes are made."""
    stop = threading.Event()

    def controller() -> None:
        number = 0
        while not stop.wait(0.005):
            number += 1
            one.patch({'status': {'parents': [{'controllerName': 'x.example/y', 'parentRef': {'name': 'edge'}, 'conditions': [
                {'type': 'Accepted', 'status': 'True', 'reason': 'Accepted', 'message': str(number),
                 'lastTransitionTime': '2026-01-01T00:00:00Z'}]}]}}, subresource='/status')
    thread = threading.Thread(target=controller)
    thread.start()
    try:
        for number in range(30):
            arm = ('green', 'blue')[number % 2]
            one.do(split={arm: '100%'})
            assert one.weights() == {'shop-' + arm: 10000}
    finally:
        stop.set()
        thread.join()


def test_of_two_who_begin_at_once_one_has_it(one: KubeShop) -> None:
    outcomes: list[str] = []

    def begin(rollout: str) -> None:
        from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run
        from traffic_lab import validated
        try:
            asyncio.run(run(validated(TRAFFIC_SPEC, one.options(
                split={'canary': '5%'}, lease='20s', rollout=rollout, by=rollout)), False))
            outcomes.append(rollout)
        except DeliveryError as exc:
            outcomes.append(str(exc))

    async def nothing(threads: list[threading.Thread]) -> None:
        while any(thread.is_alive() for thread in threads):
            await asyncio.sleep(0.02)

    threads = [threading.Thread(target=begin, args=(name,)) for name in ('ra', 'rb')]
    for thread in threads:
        thread.start()
    one.run(nothing(threads))
    won = [text for text in outcomes if text in ('ra', 'rb')]
    assert len(won) == 1, outcomes
    assert json.loads(one.record())['rollout'] == won[0]
    lost = next(text for text in outcomes if text not in won)
    assert 'nothing was overwritten' in lost or 'being rolled out by' in lost
    assert one.look()['lease_left_s'] > 5 and one.weights()['shop-canary'] == 500


@pytest.mark.parametrize('meta, said', [
    ({'annotations': {'flagger.kubernetes.io/original-configuration': '{}'}}, 'moved by Flagger'),
    ({'labels': {'rollouts.argoproj.io/gatewayapi-canary': 'in-progress'}}, 'moved by Argo Rollouts'),
    ({'annotations': {'argocd.argoproj.io/tracking-id': 'a:b'}}, 'kept by Argo CD'),
])
def test_a_route_of_another_controller_is_left_alone(cluster: KubeApi, tmp_path: Path, meta: dict[str, t.Any], said: str) -> None:
    with shop(cluster, tmp_path, **meta) as one:
        before = one.object()
        assert said in sentence(one.canary)
        assert one.object() == before
        assert said in ' '.join(one.look()['notes'])


# ---- bad input

def test_what_is_not_there_is_said_in_one_sentence(cluster: KubeApi, one: KubeShop) -> None:
    def of(**more: t.Any) -> str:
        return sentence(lambda: one.do(split={'green': '100%'}, endpoints=[one.endpoint(**more)]))

    assert 'httproutes.gateway.networking.k8s.io "nope" in namespace "%s" does not exist' % one.namespace in of(object='nope')
    assert '(there is no such namespace)' in of(namespace='nowhere')
    assert 'How to reach the cluster' in of(kubeconfig='/nonexistent')
    assert 'no context' in of(context='nope') or 'nope' in of(context='nope')
    assert 'has no port 99: it has 80' in of(port=99)
    assert 'no rule "api"' in of(rules=['api'])
    assert 'The Service "shop-nope" of arm "green"' in sentence(
        lambda: one.do(split={'green': '100%'}, arms={**ARMS, 'green': {'backend': 'shop-nope'}}))
    one.unready('shop-green')
    assert 'has no ready endpoint' in of()
    assert one.weights() == {'shop-blue': 1}, 'and nothing was changed'
    assert one.record() == ''


def test_a_kind_that_the_cluster_does_not_serve(one: KubeShop) -> None:
    # The definition of no other router is there.
    gone = [one.endpoint(router='weights', kind='TrafficSplit')]
    one.cluster.request('DELETE', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trafficsplits.split.smi-spec.io')
    try:
        wait_for(lambda: 'does not serve trafficsplits.split.smi-spec.io' in sentence(
            lambda: one.do(split={'green': '100%'}, endpoints=gone)), 'the kind to be gone', 10)
    finally:
        one.cluster.define('split.smi-spec.io', 'TrafficSplit', 'trafficsplits', versions=('v1alpha2',))


def test_a_service_that_is_no_arm_stays_unless_forced(cluster: KubeApi, tmp_path: Path) -> None:
    with shop(cluster, tmp_path, spec={'rules': [rule('shop-blue', 'stranger')]}) as one:
        assert 'also goes to stranger' in sentence(one.canary)
        one.do(split={'green': '100%'}, force=True)
        assert one.weights() == {'shop-green': 10000}


def test_what_a_kind_cannot_do_is_refused_before_the_first_change(cluster: KubeApi, tmp_path: Path) -> None:
    with shop(cluster, tmp_path, 'TraefikService') as one:
        match = [{'header': 'x-canary', 'value': '1', 'arm': 'canary'}]
        assert 'knows no such condition' in sentence(lambda: one.canary(matches=match))
        assert 'only draws at random' in sentence(lambda: one.canary(sticky='hash'))
    with shop(cluster, tmp_path, 'VirtualServer') as one:
        assert 'units of 1/100' in sentence(lambda: one.canary('0.3%'))
        assert one.record() == ''


def test_matches_are_rules_beside_the_users(cluster: KubeApi, tmp_path: Path) -> None:
    spec = {'parentRefs': [{'name': 'edge'}], 'rules': [
        rule('shop-blue', matches=[{'path': {'type': 'PathPrefix', 'value': '/api'}}], timeouts={'request': '5s'}),
        rule('other', matches=[{'path': {'type': 'PathPrefix', 'value': '/other'}}])]}
    with shop(cluster, tmp_path, spec=spec) as one:
        users = one.object()['spec']['rules']
        matches = [{'header': 'x-canary', 'value': 'yes', 'arm': 'canary'}, {'cookie': 'group', 'value': 'a.b', 'arm': 'canary'}]
        one.do(split={'canary': '0%'}, stable='blue', lease='20s', rollout='r1', matches=matches)
        rules = one.object()['spec']['rules']
        assert [rule.get('name') for rule in rules] == [None, None, 'pd-shop-0', 'pd-shop-1'] and rules[1] == users[1]
        assert rules[2]['matches'][0] == {'path': {'type': 'PathPrefix', 'value': '/api'},
                                          'headers': [{'type': 'Exact', 'name': 'x-canary', 'value': 'yes'}]}
        assert rules[2]['timeouts'] == {'request': '5s'}
        assert one.look()['matches'] == matches
        assert not one.do(split={'canary': '0%'}, stable='blue', lease='20s', rollout='r1', matches=matches)['changed']
        one.back()
        assert len(one.object()['spec']['rules']) == 2 and one.weights() == {'shop-blue': 10000}


def test_a_user_without_permission_is_told_before_the_first_change(cluster: KubeApi, one: KubeShop) -> None:
    assert 'may not get httproutes' in sentence(lambda: one.do(
        split={'green': '100%'}, endpoints=[one.endpoint(kubeconfig=cluster.kubeconfig_for('nobody'))]))
    reader = {'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'ClusterRole', 'metadata': {'name': 'reader'}, 'rules': [
        {'apiGroups': ['*'], 'resources': ['*'], 'verbs': ['get', 'list']}]}
    cluster.apply(json.dumps(reader))
    cluster.kubectl('create', 'rolebinding', 'reader', '--clusterrole=reader', '--user=operator', '-n', one.namespace)
    said = sentence(lambda: one.do(split={'green': '100%'}, endpoints=[one.endpoint(kubeconfig=cluster.kubeconfig_for('operator'))]))
    assert 'may not patch httproutes.gateway.networking.k8s.io' in said
    assert one.weights() == {'shop-blue': 1}


def test_an_admission_rule_that_refuses(cluster: KubeApi, one: KubeShop) -> None:
    policy = 'keep-' + one.namespace
    cluster.apply(json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': [
        {'apiVersion': 'admissionregistration.k8s.io/v1', 'kind': 'ValidatingAdmissionPolicy', 'metadata': {'name': policy}, 'spec': {
            'matchConstraints': {'resourceRules': [{'apiGroups': ['gateway.networking.k8s.io'], 'apiVersions': ['*'],
                                                    'operations': ['UPDATE'], 'resources': ['httproutes']}]},
            'validations': [{'expression': 'object.spec.rules.all(r, r.backendRefs.all(b, '
                                           "b.name != 'shop-green' || b.?weight.orValue(1) == 0))",
                             'message': 'no green on Fridays'}]}},
        {'apiVersion': 'admissionregistration.k8s.io/v1', 'kind': 'ValidatingAdmissionPolicyBinding', 'metadata': {'name': policy},
         'spec': {'policyName': policy, 'validationActions': ['Deny'], 'matchResources': {
             'namespaceSelector': {'matchLabels': {'kubernetes.io/metadata.name': one.namespace}}}}}]}))

    def said() -> str:
        try:
            return sentence(lambda: one.do(split={'green': '100%'}))
        except AssertionError:
            # The server has not taken the rule up yet.
            one.do(split={'blue': '100%'})
            return ''

    try:
        wait_for(lambda: 'no green on Fridays' in said(), 'the rule to count', 30)
        assert said().startswith('An admission rule of the cluster'), said()
    finally:
        cluster.kubectl('delete', 'validatingadmissionpolicy,validatingadmissionpolicybinding', policy)
    assert set(one.weights()) == {'shop-blue'}


def test_a_token_that_runs_out_in_the_middle_of_a_stage(cluster: KubeApi, one: KubeShop, tmp_path: Path) -> None:
    """The renewal fails with a sentence, the Job takes the traffic back, and a token that was renewed in the file is taken."""
    config = tmp_path / 'kubeconfig'
    good = Path(cluster.kubeconfig).read_text()
    config.write_text(good)
    held = one.held(one.canary('5%', lease='3s', endpoints=[one.endpoint(kubeconfig=str(config))]))
    token = json.loads(good)['users'][0]['user']['token']
    config.write_text(good.replace(token, 'f' * 32))
    from ansible_collections.progressive.delivery.plugins.module_utils._kube import client
    client._transport(str(config), None).forget()
    (renewed,) = asyncio.run(held.renew())
    assert not renewed.ok and 'does not know who asks (401)' in renewed.error
    config.write_text(good)
    (renewed,) = asyncio.run(held.renew())
    assert renewed.ok
    config.write_text(good.replace(token, 'f' * 32))
    client._transport(str(config), None).forget()
    wait_for(lambda: one.weights() == {'shop-blue': 10000}, 'the Job to take the traffic back', 15)


def test_an_api_server_that_restarts_under_a_change(cluster: KubeApi, one: KubeShop) -> None:
    one.canary('5%')
    cluster.stop_server()
    starter = threading.Timer(1.0, cluster.start_server)
    starter.start()
    try:
        back = one.back(endpoints=[one.endpoint(deadline=40)])
        assert back['changed'], back['msg']
    finally:
        starter.join()
    assert one.weights() == {'shop-blue': 10000}


def test_a_cluster_that_does_not_answer(cluster: KubeApi, one: KubeShop) -> None:
    # Its own time is up a twentieth before the fleet's: enough for a busy machine to say so first.
    quick = [one.endpoint(deadline=4)]
    with cluster.frozen():
        assert 'could not be asked: ' in sentence(lambda: one.do(split={'green': '100%'}, endpoints=quick))
        back = one.back(endpoints=quick)
    assert back['failed'] and 'did not follow' in back['msg']


# ---- what the controller says

def test_the_stage_is_in_force_when_the_controller_has_accepted_it(one: KubeShop) -> None:
    said = sentence(lambda: one.do(split={'green': '100%'}, verify='L1', verify_timeout='0.5s'))
    assert 'was not accepted within 0.5 s: no controller has taken it for the Gateway "edge"' in said
    assert one.weights() == {'shop-blue': 1}, 'what was written was put back'

    def controller() -> None:
        def accept() -> bool:
            route = one.object()
            if one.weights(route) != {'shop-green': 10000}:
                return False
            conditions = [{'type': kind, 'status': 'True', 'reason': 'Fine', 'message': '', 'lastTransitionTime': '2026-01-01T00:00:00Z',
                           'observedGeneration': route['metadata']['generation']} for kind in ('Accepted', 'ResolvedRefs')]
            one.patch({'status': {'parents': [
                {'controllerName': 'x.example/y', 'parentRef': {'name': 'edge'}, 'conditions': conditions}]}}, subresource='/status')
            return True
        wait_for(accept, 'the change', 10)
    thread = threading.Thread(target=controller)
    thread.start()
    result = one.do(split={'green': '100%'}, verify='L1', verify_timeout='8s')
    thread.join()
    assert result['endpoints'][0]['evidence'] == {
        'level': 'L1', 'text': 'accepted by x.example/y', 'observed_bp': {'green': 10000}}


MESH = {'group': '', 'kind': 'Service', 'name': 'shop'}


def reporting(one: KubeShop, controller: str, parent: dict[str, t.Any], generation: bool = True, **said: str) -> threading.Thread:
    """Has a controller report on the route once the canary has a share; *said* replaces the status of conditions."""
    def report() -> bool:
        route = one.object()
        if not one.weights(route).get('shop-canary'):
            return False
        observed = {'observedGeneration': route['metadata']['generation']} if generation else {}
        conditions = [{'type': kind, 'status': said.get(kind, 'True'), 'reason': 'Fine', 'message': '',
                       'lastTransitionTime': '2026-01-01T00:00:00Z', **observed} for kind in ('Accepted', 'ResolvedRefs')]
        one.patch({'status': {'parents': [{'controllerName': controller, 'parentRef': parent, 'conditions': conditions}]}},
                  subresource='/status')
        return True
    thread = threading.Thread(target=lambda: wait_for(report, 'the change', 20))
    thread.start()
    return thread


@pytest.mark.parametrize('controller, parent, generation, level', [
    # Linkerd calls the core group by name, names the namespace, and tells no generation.
    ('linkerd.io/policy-controller', {**MESH, 'group': 'core'}, False, 'L0'),
    ('istio.io/mesh-controller', MESH, True, 'L1')])
def test_a_route_of_a_mesh_has_a_service_for_its_parent(cluster: KubeApi, tmp_path: Path, controller: str, parent: dict[str, t.Any],
                                                        generation: bool, level: str) -> None:
    with shop(cluster, tmp_path, spec={'parentRefs': [MESH], 'rules': [rule('shop-blue')]}) as one:
        one.service('shop')
        thread = reporting(one, controller, {**parent, 'namespace': one.namespace}, generation)
        evidence = one.canary('20%', verify='L1', verify_timeout='10s')['endpoints'][0]['evidence']
        thread.join()
        assert (evidence['level'], controller in evidence['text']) == (level, True), evidence
        assert ('which generation' in evidence['text']) == (not generation)
        assert one.weights() == {'shop-canary': 2000, 'shop-blue': 8000}
        assert 'clients in the mesh' in ' '.join(one.look()['notes'])
        assert one.back()['changed'] and one.weights() == {'shop-blue': 10000}


@pytest.mark.parametrize('parent, said, words', [
    ({'name': 'shop'}, {}, 'no controller has taken it for the Service "shop"'),
    (MESH, {'ResolvedRefs': 'False'}, 'linkerd.io/policy-controller on "shop" says Fine')])
def test_a_mesh_that_has_not_taken_a_route_is_no_mesh_that_has(cluster: KubeApi, tmp_path: Path, parent: dict[str, t.Any],
                                                               said: dict[str, str], words: str) -> None:
    """A Gateway of the Service's name is another parent."""
    with shop(cluster, tmp_path, spec={'parentRefs': [MESH], 'rules': [rule('shop-blue')]}) as one:
        thread = reporting(one, 'linkerd.io/policy-controller', parent, generation='ResolvedRefs' not in said, **said)
        assert words in sentence(lambda: one.canary('20%', verify='L1', verify_timeout='2s'))
        thread.join()
        assert one.weights().get('shop-canary') is None, 'what was written was put back'


class Plane:
    """Stands in for a data plane: answers with the name of an arm, drawn by the weights of the route, or by those it had when it became
    *stale*."""

    def __init__(self, one: KubeShop) -> None:
        self.one, self.stale, self._turn, self._known = one, False, 0, {'shop-blue': 1}
        plane = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header('X-Arm', plane.arm())
                self.send_header('Content-Length', '0')
                self.end_headers()

            def log_message(self, *args: t.Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.lock = threading.Lock()

    def arm(self) -> str:
        with self.lock:
            if self._turn % 100 == 0 and not self.stale:
                self._known = self.one.weights()
            self._turn += 1
            names = sorted(self._known)
            return random.choices(names, [self._known[name] for name in names])[0][len('shop-'):]

    def __enter__(self) -> 'Plane':
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_what: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_probes_show_the_shares_or_what_was_written_is_put_back(cluster: KubeApi, tmp_path: Path) -> None:
    with shop(cluster, tmp_path, 'TraefikService') as one, Plane(one) as plane:
        assert 'cannot show the shares by its traffic' in sentence(lambda: one.canary('20%', verify='L3'))
        probe = {'url': 'http://127.0.0.1:%d/' % plane.server.server_port, 'header': 'x-arm'}
        endpoints = [one.endpoint(probe=probe)]
        evidence = one.canary('20%', verify='L3', endpoints=endpoints)['endpoints'][0]['evidence']
        assert evidence['level'] == 'L3' and 1000 < evidence['observed_bp']['canary'] < 3000
        plane.stale = True
        said = sentence(lambda: one.canary('60%', verify='L3', verify_timeout='3s', endpoints=endpoints))
        assert 'requests and should get' in said
        assert one.weights() == {'shop-blue': 8000, 'shop-canary': 2000} and one.look()['lease_left_s'] > 0


# ---- as tasks

def test_tasks_on_the_control_host_and_on_a_target(one: KubeShop, tmp_path: Path) -> None:
    common = {'service': 'shop', 'arms': ARMS, 'endpoints': [one.endpoint()]}
    move = {**common, 'verify': 'L0', 'split': {'canary': '5%'}, 'lease': '60s', 'rollout': 'r1'}
    tasks = [('traffic_weight', move), ('traffic_weight', {**move, 'run_on': 'target'}), ('traffic_weight_info', common),
             ('traffic_weight', {**common, 'state': 'way_back', 'run_on': 'target'})]
    play = [{'hosts': 'localhost', 'gather_facts': False, 'connection': 'local', 'vars': {'ansible_python_interpreter': sys.executable},
             'tasks': [{'name': 'Task', 'progressive.delivery.' + module: options, 'register': 'out%d' % number}
                       for number, (module, options) in enumerate(tasks)] + [{'name': 'Keep', 'ansible.builtin.copy': {
                           'dest': str(tmp_path / 'out.json'), 'content': '{{ [out0, out1, out2, out3] | to_json }}'}}]}]
    (tmp_path / 'play.yml').write_text(json.dumps(play))
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [Path(sys.executable).parent / 'ansible-playbook', str(tmp_path / 'play.yml')], cwd=root, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'ANSIBLE_COLLECTIONS_PATH': str(root / '.collections'), 'ANSIBLE_NOCOLOR': '1'})

    async def ended() -> str:
        return await asyncio.get_running_loop().run_in_executor(None, lambda: process.communicate(timeout=120)[0])

    text = one.run(ended())
    assert process.returncode == 0, text
    out = json.loads((tmp_path / 'out.json').read_text())
    assert [task['changed'] for task in out] == [True, False, False, True]
    assert out[2]['endpoints'][0]['candidates'] == {'canary': 500} and out[2]['endpoints'][0]['rollout'] == 'r1'
    assert one.weights() == {'shop-blue': 10000}


# ---- side by side

def test_haproxy_and_a_route_move_together(cluster: KubeApi, one: KubeShop) -> None:
    from traffic_lab import Shop
    with Shop() as hosts:
        arms = {name: {'backend': name} for name in ARMS}
        route = one.endpoint(arms={name: {'backend': 'shop-' + name} for name in ARMS})
        endpoints = hosts.endpoints() + [route]
        result = one.do(split={'canary': '5%'}, stable='blue', lease='20s', rollout='r1', endpoints=endpoints, arms=arms)
        assert result['configured'] == {'lb1': {'canary': 500, 'blue': 9500}, 'edge': {'canary': 500, 'blue': 9500}}
        held = one.held(result)
        assert all(renewed.ok for renewed in asyncio.run(held.renew()))
        backs = asyncio.run(held.way_back('test'))
        assert [back.to for back in backs] == ['blue', 'blue'] and one.weights() == {'shop-blue': 10000}
        with cluster.frozen():
            # A cluster that hangs holds up nobody.
            slow = [hosts.endpoints()[0], dict(route, deadline=1.5)]
            said = sentence(lambda: one.do(split={'canary': '5%'}, stable='blue', lease='20s', endpoints=slow, arms=arms))
            assert 'could not be asked' in said
