# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The router virtualservice against a real API server with Istio's own definitions; what gateways do with it is tested on the cluster."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._lease import held
from ansible_collections.progressive.delivery.plugins.module_utils._routers.istio_deadline import HEADER, limit_of
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_virtualservice import stamp_spec
from kube_api import ApiError, KubeApi
from kube_routes import Routes
from traffic_lab import sentence

ARMS = {'blue': {'backend': 'shop-blue'}, 'green': {'backend': 'shop-green'}}
STAMP = '/apis/networking.istio.io/v1alpha3/namespaces/istio-system/envoyfilters/progressive-delivery-now'
NUMBERS = itertools.count()


@pytest.fixture(scope='module')
def api():
    with KubeApi(users=['deployer']) as api:
        api.definitions('istio')
        api.request('POST', '/api/v1/namespaces', {'metadata': {'name': 'istio-system'}})
        yield api


@pytest.fixture
def shop(api):
    namespace = 'shop-%d' % next(NUMBERS)
    api.request('POST', '/api/v1/namespaces', {'metadata': {'name': namespace}})
    routes = Routes(api, namespace, {'router': 'virtualservice', 'object': 'shop'}, ARMS)
    for arm in ARMS.values():
        routes.service(arm['backend'])
    routes.put('virtualservices', route({'name': 'main', 'route': [to('shop-blue')], 'retries': {'attempts': 2}}))
    return routes


def to(host, weight=None, **more):
    return {'destination': {'host': host, **more}, **({} if weight is None else {'weight': weight})}


def route(*rules):
    return {'apiVersion': 'networking.istio.io/v1', 'kind': 'VirtualService', 'metadata': {'name': 'shop'},
            'spec': {'hosts': ['shop.example'], 'gateways': ['istio-system/public'], 'http': list(rules)}}


def http(shop):
    return shop.get('virtualservices', 'shop')['spec']['http']


def test_a_rollout_from_five_percent_to_everything_and_back(shop):
    first = http(shop)
    result = shop.do(split={'green': '5%'}, lease='30s', matches=[{'header': 'x-canary', 'value': 'yes', 'arm': 'green'}])
    assert result['changed'] and result['endpoints'][0]['configured_bp'] == {'green': 500, 'blue': 9500}
    matched, split, base = http(shop)
    assert base == first[0] and split['retries'] == {'attempts': 2}
    assert matched['route'] == [to('shop-green', weight=10000)]
    assert [(entry['destination']['host'], entry['weight']) for entry in split['route']] == [('shop-green', 500), ('shop-blue', 9500)]
    seen = shop.look()
    assert (seen['stable'], seen['candidates'], seen['rollout']) == ('blue', {'green': 500}, 'r1')
    assert seen['matches'] == [{'header': 'x-canary', 'value': 'yes', 'arm': 'green'}] and 28 < seen['lease_left_s'] <= 30
    assert not shop.do(split={'green': '5%'}, lease='30s', matches=[{'header': 'x-canary', 'value': 'yes', 'arm': 'green'}])['changed']
    shop.do(split={'green': '100%'})
    assert http(shop) == [{**first[0], 'route': [to('shop-green')]}]
    assert shop.do(state='way_back')['stable'] == 'blue'
    assert http(shop) == first


def test_the_way_back_takes_everything_out_that_could_lead_to_the_candidate(shop):
    first = http(shop)
    shop.do(split={'green': '50%'}, lease='30s', matches=[{'cookie': 'seg', 'value': 'b', 'arm': 'green'}])
    result = shop.do(state='way_back')
    assert result['changed'] and http(shop) == first
    assert not shop.do(state='way_back')['changed']


def test_the_deadline_is_the_leases_and_a_renewal_is_one_write(shop):
    result = shop.do(split={'green': '5%'}, lease='20s')

    def limit():
        return limit_of(http(shop)[0]['match'][0]['headers'][HEADER]['regex'])
    first, version = limit(), int(shop.get('virtualservices', 'shop')['metadata']['generation'])
    assert abs(first / 10 - 20 - time.time()) < 2
    value = dict(result['lease'], ttl_s=40)
    renewed, = asyncio.run(held(value).renew())
    assert renewed.ok and 38 < renewed.left_s <= 40
    assert 190 <= limit() - first <= 210
    assert int(shop.get('virtualservices', 'shop')['metadata']['generation']) == version + 1
    assert 38 < shop.look()['lease_left_s'] <= 40


def has_stamp(api):
    try:
        return bool(api.request('GET', STAMP))
    except ApiError:
        return False


@pytest.fixture
def no_stamp(api):
    if has_stamp(api):
        api.request('DELETE', STAMP)


def test_the_stamp_is_there_once_for_all_services(shop, api, no_stamp):
    shop.do(check=True, split={'green': '1bp'}, lease='30s')
    assert not has_stamp(api)
    shop.do(split={'green': '1bp'}, lease='30s')
    made = api.request('GET', STAMP)
    assert made['spec'] == stamp_spec() and made['metadata']['labels'] == {'app.kubernetes.io/managed-by': 'progressive.delivery'}
    shop.do(state='way_back')
    assert api.request('GET', STAMP)['metadata']['uid'] == made['metadata']['uid']


def test_a_stamp_that_is_taken_away_in_a_stage_comes_back_with_the_next_renewal(shop, api):
    result = shop.do(split={'green': '5%'}, lease='20s')
    api.request('DELETE', STAMP)
    renewed, = asyncio.run(held(result['lease']).renew())
    assert renewed.ok and api.request('GET', STAMP)['spec'] == stamp_spec()


def test_who_may_not_stamp_is_told_before_the_first_change(shop, api, no_stamp):
    rules = [{'apiGroups': ['networking.istio.io'], 'resources': ['virtualservices'], 'verbs': ['get', 'patch']},
             {'apiGroups': [''], 'resources': ['services', 'pods'], 'verbs': ['get', 'list']},
             {'apiGroups': ['discovery.k8s.io'], 'resources': ['endpointslices'], 'verbs': ['list']}]
    allow(api, shop.namespace, rules)
    allow(api, 'istio-system', [{'apiGroups': ['networking.istio.io'], 'resources': ['envoyfilters'], 'verbs': ['get']}])
    deployer = Routes(api, shop.namespace, {'router': 'virtualservice', 'object': 'shop'}, ARMS, api.kubeconfig_for('deployer'))
    said = sentence(lambda: deployer.do(split={'green': '5%'}, lease='30s'))
    assert 'may not create envoyfilters.networking.istio.io, patch envoyfilters.networking.istio.io in namespace "istio-system"' in said
    shop.do(split={'green': '5%'}, lease='30s')
    assert shop.do(state='way_back')['changed']
    assert deployer.do(split={'green': '5%'}, lease='30s')['changed'], 'the stamp is there now, nobody needs to write it'
    assert deployer.do(state='way_back')['changed']


def allow(api, namespace, rules):
    base = '/apis/rbac.authorization.k8s.io/v1/namespaces/%s/' % namespace
    api.request('POST', base + 'roles', {'metadata': {'name': 'deployer'}, 'rules': rules})
    api.request('POST', base + 'rolebindings', {
        'metadata': {'name': 'deployer'}, 'subjects': [{'kind': 'User', 'name': 'deployer', 'apiGroup': 'rbac.authorization.k8s.io'}],
        'roleRef': {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'Role', 'name': 'deployer'}})


def test_subsets_of_a_destination_rule(shop):
    arms = {'v1': {'backend': 'shop', 'subset': 'v1'}, 'v2': {'backend': 'shop', 'subset': 'v2'}}
    shop = Routes(shop.api, shop.namespace, {'router': 'virtualservice', 'object': 'shop'}, arms)
    shop.put('virtualservices', route({'route': [to('shop', subset='v1')]}))
    shop.service('shop', selector={'app': 'shop'})
    assert 'the destinationrules.networking.istio.io "shop" in namespace "%s" is not there' % shop.namespace in sentence(
        lambda: shop.do(split={'v2': '5%'}, lease='30s'))
    rule = {'apiVersion': 'networking.istio.io/v1', 'kind': 'DestinationRule', 'metadata': {'name': 'shop'}, 'spec': {
        'host': 'shop', 'subsets': [{'name': 'v1', 'labels': {'version': '1'}}]}}
    shop.put('destinationrules', rule)
    assert 'The subset "v2" of arm "v2" is not in the destinationrules' in sentence(lambda: shop.do(split={'v2': '5%'}, lease='30s'))
    rule['spec']['subsets'].append({'name': 'v2', 'labels': {'version': '2'}})
    shop.put('destinationrules', rule)
    shop.pod('one', {'app': 'shop', 'version': '1'})
    shop.pod('two', {'app': 'shop', 'version': '2'}, ready=False)
    assert 'The arm "v2" has no ready endpoint' in sentence(lambda: shop.do(split={'v2': '5%'}, lease='30s'))
    shop.pod('three', {'app': 'shop', 'version': '2'})
    assert shop.do(split={'v2': '5%'}, lease='30s')['endpoints'][0]['configured_bp'] == {'v2': 500, 'v1': 9500}
    assert http(shop)[0]['route'][0] == to('shop', weight=500, subset='v2')


def test_what_others_change_in_a_stage_stays_and_costs_the_rollout_nothing(shop):
    result = shop.do(split={'green': '5%'}, lease='30s')
    found = shop.get('virtualservices', 'shop')
    theirs = {'name': 'late', 'match': [{'uri': {'prefix': '/late'}}], 'route': [to('cdn')]}
    found['spec']['http'].insert(0, theirs)
    shop.put('virtualservices', found)
    renewed, = asyncio.run(held(result['lease']).renew())
    assert renewed.ok
    assert shop.do(state='way_back')['stable'] == 'blue'
    assert http(shop) == [theirs, {'name': 'main', 'route': [to('shop-blue')], 'retries': {'attempts': 2}}]


def test_another_rollout_is_a_conflict(shop):
    result = shop.do(split={'green': '5%'}, lease='30s')
    assert 'is being rolled out by r1' in sentence(lambda: shop.do(split={'green': '6%'}, lease='30s', rollout='r2'))
    shop.do(split={'green': '6%'}, lease='30s', rollout='r2', force=True)
    renewed, = asyncio.run(held(result['lease']).renew())
    assert renewed.conflict and 'not ours any more' in renewed.error
    back, = asyncio.run(held(result['lease']).way_back('test'))
    assert not back.changed and 'r2' in back.note


def test_a_lease_that_ran_out_is_not_revived(shop):
    result = shop.do(split={'green': '5%'}, lease='1s')
    end = time.monotonic() + 10
    while shop.look()['lease_left_s'] > 0 and time.monotonic() < end:
        time.sleep(0.05)
    seen = shop.look()
    assert seen['candidates'] == {} and seen['configured_bp'] == {'blue': 10000}
    renewed, = asyncio.run(held(result['lease']).renew())
    assert not renewed.ok and 'had run out' in renewed.error
    assert shop.do(state='way_back')['changed'] and len(http(shop)) == 1


def test_what_is_not_there_is_said_before_the_first_change(shop):
    def said(**more):
        return sentence(lambda: shop.do(split={'green': '5%'}, lease='30s', **more))
    assert 'The Service "nowhere" of arm "green" does not exist' in said(arms={**ARMS, 'green': {'backend': 'nowhere'}})
    others = {'blue': {'backend': 'a'}, 'green': {'backend': 'b'}}
    assert 'No rule of the VirtualService leads to an arm' in said(arms=others, stable='blue')
    assert 'has no rule "mian"' in said(endpoints=[{**shop.endpoint, 'rules': ['mian']}])
    assert 'virtualservices.networking.istio.io "shop2"' in said(endpoints=[{**shop.endpoint, 'object': 'shop2'}])
    assert 'cannot keep users on their arm' in said(sticky='hash')
    assert len(http(shop)) == 1
