# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The routers ingress_nginx, service_selector and replicas against a real API server, the Job of a lease run by hand."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from deadman_lab import Jobs
from haproxy_lab import wait_for
from kube_api import KubeApi
from kube_routes import Routes
from traffic_lab import sentence

ARMS = {'blue': {'backend': 'shop-blue', 'labels': {'version': '1'}}, 'green': {'backend': 'shop-green', 'labels': {'version': '2'}}}
NGINX = 'nginx.ingress.kubernetes.io/'
NUMBERS = itertools.count()


@pytest.fixture(scope='module')
def api():
    with KubeApi() as api:
        yield api


@pytest.fixture
def made(api, tmp_path):
    namespace = 'shop-%d' % next(NUMBERS)
    api.request('POST', '/api/v1/namespaces', {'metadata': {'name': namespace}})
    jobs = Jobs(api, namespace, tmp_path)
    yield lambda router: Routes(api, namespace, {'router': router, 'object': 'shop', 'lease_image': 'test/python:1'}, ARMS, jobs=jobs)
    jobs.stop()


# ---- canary Ingress

@pytest.fixture
def shop(made):
    routes = made('ingress_nginx')
    for arm in ARMS.values():
        routes.service(arm['backend'])
    routes.put('ingresses', {'apiVersion': 'networking.k8s.io/v1', 'kind': 'Ingress', 'metadata': {'name': 'shop'}, 'spec': {
        'ingressClassName': 'nginx', 'rules': [{'host': 'shop.example', 'http': {'paths': [
            {'path': path, 'pathType': 'Prefix', 'backend': {'service': {'name': service, 'port': {'number': 80}}}}
            for path, service in (('/', 'shop-blue'), ('/static', 'static'))]}}]}})
    return routes


def leads_to(shop, name='shop'):
    found = shop.get('ingresses', name)
    return found and [path['backend']['service']['name'] for rule in found['spec']['rules'] for path in rule['http']['paths']]


def test_a_canary_ingress_comes_changes_and_goes(shop):
    result = shop.do(split={'green': '5%'}, lease='20s', matches=[{'header': 'x-canary', 'value': 'yes', 'arm': 'green'}])
    assert result['endpoints'][0]['configured_bp'] == {'green': 500, 'blue': 9500}
    assert leads_to(shop, 'shop-canary') == ['shop-green'] and leads_to(shop) == ['shop-blue', 'static']
    seen = shop.look()
    assert (seen['stable'], seen['candidates'], seen['matches'][0]['header']) == ('blue', {'green': 500}, 'x-canary')
    shop.do(split={'green': '20%'}, lease='20s')
    notes = shop.get('ingresses', 'shop-canary')['metadata']['annotations']
    assert notes == {NGINX + 'canary': 'true', NGINX + 'canary-weight': '2000', NGINX + 'canary-weight-total': '10000'}
    assert not shop.do(split={'green': '20%'}, lease='20s')['changed']
    assert shop.do(state='way_back')['stable'] == 'blue'
    assert leads_to(shop, 'shop-canary') is None and leads_to(shop) == ['shop-blue', 'static']
    assert not shop.do(state='way_back')['changed']


def test_a_promotion_changes_the_main_ingress_and_can_be_taken_back(shop):
    shop.do(split={'green': '50%'}, lease='20s')
    shop.do(split={'green': '100%'})
    assert leads_to(shop) == ['shop-green', 'static'] and leads_to(shop, 'shop-canary') is None
    assert shop.do(state='way_back')['stable'] == 'blue'
    assert leads_to(shop) == ['shop-blue', 'static']


def test_nobody_renews_and_the_job_deletes_the_canary(shop):
    shop.do(split={'green': '50%'}, lease='2s')
    wait_for(lambda: leads_to(shop, 'shop-canary') is None, 'the canary Ingress to go', 15)
    wait_for(lambda: any('ran out' in note for note in shop.look()['notes']), 'the record to say so', 5)
    seen = shop.look()
    assert seen['configured_bp'] == {'blue': 10000} and leads_to(shop) == ['shop-blue', 'static']


def test_a_canary_of_somebody_else_is_left_alone(shop):
    theirs = shop.get('ingresses', 'shop')
    shop.put('ingresses', {'apiVersion': 'networking.k8s.io/v1', 'kind': 'Ingress', 'spec': theirs['spec'], 'metadata': {
        'name': 'shop-canary', 'annotations': {NGINX + 'canary': 'true', NGINX + 'canary-weight': '1'}}})
    said = sentence(lambda: shop.do(split={'green': '5%'}, lease='20s'))
    assert 'The ingresses.networking.k8s.io "shop-canary" in namespace "%s" is not ours' % shop.namespace in said
    assert leads_to(shop, 'shop-canary') == ['shop-blue', 'static']


def test_what_a_canary_ingress_cannot_do_is_refused_before_the_first_change(shop):
    before = shop.get('ingresses', 'shop')
    match = {'cookie': 'seg', 'value': 'b', 'arm': 'green'}
    for more, said in (({'matches': [match]}, 'cannot send requests with the cookie seg=b'), ({'sticky': 'hash'}, 'cannot keep users'),
                       ({'arms': {**ARMS, 'red': {'backend': 'x'}}, 'split': {'green': '5%', 'red': '5%'}}, 'between 2 arms at most'),
                       ({'arms': {**ARMS, 'green': {'backend': 'nowhere'}}}, 'The Service "nowhere" of arm "green" does not exist')):
        assert said in sentence(lambda: shop.do(**{'split': {'green': '5%'}, 'lease': '20s', **more}))
    assert shop.get('ingresses', 'shop') == before and shop.get('ingresses', 'shop-canary') is None


# ---- Service selector

def test_blue_green_of_a_plain_service(made):
    shop = made('service_selector')
    shop.service('shop', selector={'app': 'shop', 'version': '1'})
    shop.pod('one', {'app': 'shop', 'version': '1'})
    shop.pod('two', {'app': 'shop', 'version': '2'}, ready=False)
    assert 'The arm "green" has no ready endpoint' in sentence(lambda: shop.do(split={'green': '100%'}))
    shop.pod('two', {'app': 'shop', 'version': '2'})
    assert 'selects one arm or another' in sentence(lambda: shop.do(split={'green': '5%'}, lease='20s'))
    assert shop.do(split={'green': '100%'}, version='2')['changed']
    assert shop.get('services', 'shop')['spec']['selector'] == {'app': 'shop', 'version': '2'}
    assert not shop.do(split={'green': '100%'}, version='2')['changed']
    assert (shop.look()['stable'], shop.look()['previous']) == ('green', 'blue')
    assert shop.do(state='way_back')['stable'] == 'blue'
    assert shop.get('services', 'shop')['spec']['selector'] == {'app': 'shop', 'version': '1'}
    shop.patch('services', 'shop', {'spec': {'selector': {'version': '9'}}})
    assert 'also goes to app=shop,version=9' in sentence(lambda: shop.do(split={'green': '100%'}))


# ---- replicas

@pytest.fixture
def scaled(made):
    shop = made('replicas')
    shop.endpoint['deadline'] = 5
    shop.service('shop', selector={'app': 'shop'})
    for arm, replicas in (('blue', 9), ('green', 0)):
        labels = {'app': 'shop', 'version': ARMS[arm]['labels']['version']}
        shop.put('deployments', {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': {'name': 'shop-' + arm}, 'spec': {
            'replicas': replicas, 'selector': {'matchLabels': labels}, 'template': {
                'metadata': {'labels': labels}, 'spec': {'containers': [{'name': 'c', 'image': 'c'}]}}}})
        for n in range(replicas):
            shop.pod('%s-%d' % (arm, n), labels)
        ready(shop, arm)
    return shop


def replicas(shop):
    return [shop.get('deployments', 'shop-' + arm)['spec']['replicas'] for arm in ('blue', 'green')]


def ready(shop, arm):
    """What the controller of Deployments would do: all replicas are there and ready."""
    count = shop.get('deployments', 'shop-' + arm)['spec']['replicas']
    shop.patch('deployments', 'shop-' + arm, {'status': {'replicas': count, 'readyReplicas': count, 'observedGeneration': 9}}, '/status')


def test_shares_by_replicas_and_their_way_back(scaled):
    shop = scaled
    assert 'the nearest is green 10 %, blue 90 %' in sentence(lambda: shop.do(split={'green': '5%'}, lease='20s'))
    assert shop.do(split={'green': '10%'}, lease='20s', verify='L0')['endpoints'][0]['configured_bp'] == {'green': 1000, 'blue': 9000}
    assert replicas(shop) == [9, 1]
    ready(shop, 'green')
    assert shop.look()['candidates'] == {'green': 1000}
    assert shop.do(state='way_back')['stable'] == 'blue'
    assert replicas(shop) == [9, 0]


def test_stable_keeps_its_pods_until_the_candidates_are_ready(scaled):
    shop = scaled
    seen = []

    def watch():
        wait_for(lambda: replicas(shop) == [9, 9], 'the candidate to be scaled up', 20)
        time.sleep(0.3)
        seen.append(replicas(shop))
        ready(shop, 'green')
    kubelet = threading.Thread(target=watch)
    kubelet.start()
    shop.do(split={'green': '90%'}, lease='30s', verify='L0')
    kubelet.join()
    assert seen == [[9, 9]] and replicas(shop) == [1, 9]
    assert shop.do(state='way_back')['stable'] == 'blue' and replicas(shop) == [9, 0]


def test_a_candidate_that_never_gets_ready_costs_stable_nothing(scaled):
    shop = scaled
    said = sentence(lambda: shop.do(split={'green': '100%'}, verify='L0'))
    assert 'has 0 of 9 replicas ready after 5 s: nothing was scaled down' in said
    assert replicas(shop) == [9, 0]
    shop.do(split={'green': '50%'}, lease='20s', verify='L0')
    assert replicas(shop) == [9, 9]
    assert 'The arm "green" has no ready endpoint' in sentence(lambda: shop.do(split={'green': '100%'}, verify='L0'))
    assert replicas(shop) == [9, 9]
