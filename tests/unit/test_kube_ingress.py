# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import parse_arms, parse_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_ingress import CanaryIngressCodec
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Match, Split, all_to
from hypothesis import given
from hypothesis import strategies as st

ARMS = {'blue': {'backend': 'shop-blue'}, 'green': {'backend': 'shop-green', 'port': 8080}}
NGINX = 'nginx.ingress.kubernetes.io/'


def codec(arms=None, **options):
    endpoint, = parse_endpoints([{'router': 'ingress_nginx', 'object': 'shop', 'namespace': 'prod', **options}])
    return CanaryIngressCodec(endpoint, 'shop', parse_arms(arms or ARMS, endpoint))


def path(service, where='/', port=80):
    return {'path': where, 'pathType': 'Prefix', 'backend': {'service': {'name': service, 'port': {'number': port}}}}


def ingress(*rules, annotations=None, **spec):
    return {'apiVersion': 'networking.k8s.io/v1', 'kind': 'Ingress', 'metadata': {
        'name': 'shop', 'namespace': 'prod', 'uid': '1', **({'annotations': annotations} if annotations else {})}, 'spec': {
        'ingressClassName': 'nginx', 'tls': [{'hosts': ['shop.example'], 'secretName': 'cert'}], 'rules': [
            {'host': host, 'http': {'paths': list(paths)}} for host, *paths in rules], **spec}}


MAIN = ingress(('shop.example', path('shop-blue'), path('static', '/static')), ('www.example', path('shop-blue', '/', 81)))
FIVE = Split((('green', 500), ('blue', 9500)))


def written(split, main=None, canary=None, **options):
    one = codec(**options)
    state = {'main': main or MAIN, 'canary': canary}
    return {**state, **one.encode(state, split)}


def test_a_canary_repeats_the_paths_that_split_and_nothing_else():
    state = written(FIVE)
    assert state['main'] == MAIN
    canary = state['canary']
    assert (canary['metadata']['name'], canary['metadata']['namespace']) == ('shop-canary', 'prod')
    assert canary['metadata']['annotations'] == {
        NGINX + 'canary': 'true', NGINX + 'canary-weight': '500', NGINX + 'canary-weight-total': '10000'}
    assert canary['spec'] == {'ingressClassName': 'nginx', 'rules': [
        {'host': 'shop.example', 'http': {'paths': [path('shop-green', port=8080)]}},
        {'host': 'www.example', 'http': {'paths': [path('shop-green', port=8080)]}}]}


def test_the_canary_is_deleted_on_the_way_back_and_the_main_ingress_is_left_alone():
    one, state = codec(), written(FIVE)
    assert one.encode(state, all_to('blue')) == {'canary': None}
    assert one.encode({'main': MAIN, 'canary': None}, all_to('blue')) == {}


def test_a_promotion_moves_the_main_ingress_before_the_canary_goes():
    one, state = codec(), written(FIVE)
    changes = one.encode(state, all_to('green'))
    assert list(changes) == ['main', 'canary'] and changes['canary'] is None
    assert changes['main']['spec']['rules'] == [
        {'host': 'shop.example', 'http': {'paths': [path('shop-green', port=8080), path('static', '/static')]}},
        {'host': 'www.example', 'http': {'paths': [path('shop-green', port=8080)]}}]
    between = one.decode({'main': changes['main'], 'canary': state['canary']})
    assert between.weights == {'green': TOTAL} and between.stable == 'green' and not between.uniform


def test_an_arm_without_a_port_keeps_that_of_the_path():
    state = written(all_to('red'), arms={'blue': {'backend': 'shop-blue'}, 'red': {'backend': 'shop-red'}})
    assert state['main']['spec']['rules'][1]['http']['paths'] == [path('shop-red', '/', 81)]


def test_the_class_of_old_annotations_is_repeated():
    main = ingress(('', path('shop-blue')), annotations={'kubernetes.io/ingress.class': 'nginx'}, ingressClassName=None)
    canary = written(FIVE, main)['canary']
    assert canary['metadata']['annotations']['kubernetes.io/ingress.class'] == 'nginx' and 'ingressClassName' not in canary['spec']
    assert 'host' not in canary['spec']['rules'][0]


@given(st.integers(0, TOTAL), st.sampled_from([None, 'yes', 'always']), st.booleans(), st.sampled_from(['blue', 'green']))
def test_what_is_written_is_read(bp, header, cookie, stable):
    one, other = codec(), 'green' if stable == 'blue' else 'blue'
    matches = (Match('header', 'x-canary', header, other),) * bool(header) + (Match('cookie', 'seg', 'always', other),) * cookie
    split = Split(((other, bp), (stable, TOTAL - bp)) if bp else ((stable, TOTAL),), matches)
    kept = copy.deepcopy(MAIN)
    state = written(split)
    seen = one.decode(state)
    assert {arm: weight for arm, weight in seen.weights.items() if weight} == {arm: share for arm, share in split.arms if share}
    assert set(seen.matches) == set(matches) and seen.stable == stable and seen.uniform and not seen.problems and not seen.unknown
    again = {**state, **one.encode(state, all_to(stable))}
    assert again['canary'] is None and one.decode(again).weights == {stable: TOTAL}
    assert MAIN == kept


def test_rules_choose_hosts():
    for rules in (['www.example'], ['1']):
        state = written(all_to('green'), rules=rules)
        assert state['main']['spec']['rules'][0] == MAIN['spec']['rules'][0]
        assert state['main']['spec']['rules'][1]['http']['paths'] == [path('shop-green', port=8080)]


def test_a_canary_that_is_not_as_it_should_be_is_written_again():
    state = written(FIVE)
    state['main'] = ingress(('shop.example', path('shop-blue'), path('shop-blue', '/new')))
    assert not codec().decode(state).uniform
    state['canary']['spec']['rules'][0]['http']['paths'][0]['backend']['service']['name'] = 'intruder'
    assert codec().decode(state).unknown == ('intruder',)


@pytest.mark.parametrize('annotations, weights', [
    ({'canary': 'true', 'canary-weight': '20'}, {'green': 20, 'blue': 80}),
    ({'canary': 'true', 'canary-weight': '20', 'canary-weight-total': '50'}, {'green': 20, 'blue': 80}),
    ({'canary': 'true', 'canary-weight': '900', 'canary-weight-total': '500'}, {'green': 500, 'blue': 0}),
    ({'canary': 'false', 'canary-weight': '20'}, {'blue': TOTAL}),
    ({'canary': 'true', 'canary-weight': 'x'}, {'blue': TOTAL})])
def test_weights_are_read_as_controllers_read_them(annotations, weights):
    state = written(FIVE)
    state['canary']['metadata']['annotations'] = {NGINX + key: value for key, value in annotations.items()}
    assert codec().decode(state).weights == weights


def test_the_labels_and_notes_of_others_on_the_canary_stay():
    canary = written(FIVE)['canary']
    canary['metadata']['annotations'].update({'team': 'shop', NGINX + 'canary-by-header': 'x-old', NGINX + 'canary-by-header-value': '1'})
    assert written(FIVE, canary=canary)['canary']['metadata']['annotations'] == {
        'team': 'shop', NGINX + 'canary': 'true', NGINX + 'canary-weight': '500', NGINX + 'canary-weight-total': '10000'}


@pytest.mark.parametrize('split, sentence', [
    (Split((('green', 1), ('red', 1), ('blue', 9998))), 'has one candidate beside the stable arm'),
    (Split((('green', 1), ('blue', 9999)), (Match('header', 'a', 'b', 'blue'),)), 'leads to green, blue'),
    (Split((('green', 1), ('blue', 9999)), (Match('cookie', 'a', 'b', 'green'),)), 'only when its value is "always", not "b"'),
    (Split((('green', 1), ('blue', 9999)), (Match('header', 'a', 'b', 'green'), Match('header', 'c', 'd', 'green'))), 'takes one header'),
    (Split((('green', 1), ('blue', 9999)), sticky='hash'), 'cannot keep users on their arm')])
def test_what_a_canary_ingress_cannot_do_is_refused(split, sentence):
    with pytest.raises(Unsupported, match=sentence):
        written(split, arms={**ARMS, 'red': {'backend': 'shop-red'}})


def test_problems_are_sentences():
    one = codec()
    assert 'No path of the ingresses.networking.k8s.io "shop" in namespace "prod" leads to an arm of shop (shop-blue, shop-green): it ' \
        'leads to other' in one.decode({'main': ingress(('a', path('other'))), 'canary': None}).problems[0]
    assert 'it leads to no Service' in one.decode({'main': ingress(), 'canary': None}).problems[0]
    both = ingress(('a', path('shop-blue'), path('shop-green', '/x')))
    assert 'lead to different arms' in one.decode({'main': both, 'canary': None}).problems[0]
    state = written(FIVE)
    del state['canary']['metadata']['labels']
    assert 'is not ours' in one.decode(state).problems[0]
    sticky = ingress(('a', path('shop-blue')), annotations={NGINX + 'affinity': 'cookie'})
    assert 'new users only' in one.decode({'main': sticky, 'canary': None}).notes[0]


def test_arms_of_one_service_are_refused():
    with pytest.raises(BadInput, match='each arm has a Service of its own'):
        codec({'a': {'backend': 'x'}, 'b': {'backend': 'x'}})
