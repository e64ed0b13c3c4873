# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of requests: what a split says of them, and what the kinds of routes that carry them make of that."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._routers import istio_routes
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Change, describe
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import parse_arms, parse_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_httproute import HttpRouteCodec
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_plan import parsed, plain
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_virtualservice import VirtualServiceCodec
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_weights import WeightsCodec
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Match, Mirror, Split, all_to, make_split
from hypothesis import given
from hypothesis import strategies as st

ARMS = {arm: {'backend': 'shop-' + arm} for arm in ('blue', 'green', 'canary')}
CODECS = {'httproute': HttpRouteCodec, 'virtualservice': VirtualServiceCodec, 'weights': WeightsCodec}
PORT = {'name': 'shop-blue', 'port': 80}
AUDIT = {'type': 'RequestMirror', 'requestMirror': {'backendRef': {'name': 'audit', 'port': 80}, 'percent': 10}}
HEADERS = {'type': 'RequestHeaderModifier', 'requestHeaderModifier': {'set': [{'name': 'a', 'value': 'b'}]}}
OBJECTS = {
    'HTTPRoute': {'rules': [{'filters': [HEADERS, AUDIT], 'backendRefs': [PORT]}, {'name': 'api', 'backendRefs': [PORT]}]},
    'GRPCRoute': {'rules': [{'backendRefs': [PORT]}]},
    'HTTPProxy': {'routes': [{'services': [PORT]}, {'services': [PORT], 'timeoutPolicy': {'response': '3s'}}]},
    'VirtualService': {'hosts': ['shop.example'], 'http': [
        {'route': [{'destination': {'host': 'shop-blue'}}], 'mirror': {'host': 'audit'}, 'mirrorPercentage': {'value': 10}},
        {'name': 'api', 'match': [{'uri': {'prefix': '/api'}}], 'route': [{'destination': {'host': 'shop-blue'}}],
         'mirrors': [{'destination': {'host': 'audit'}}]}]},
}


def bed(kind, controller='gateway.envoyproxy.io/gatewayclass-controller', **options):
    """A codec and its objects, all of the traffic on blue."""
    router = {'HTTPProxy': 'weights', 'VirtualService': 'virtualservice'}.get(kind, 'httproute')
    named = {} if kind == 'VirtualService' else {'kind': kind}
    endpoint, = parse_endpoints([{'router': router, 'object': 'shop', 'name': 'edge', **named, **options}])
    one = CODECS[router](endpoint, 'shop', parse_arms(ARMS, endpoint))
    status = {'status': {'parents': [{'controllerName': controller}]}} if controller else {}
    route = {'kind': kind, 'metadata': {'name': 'shop', 'namespace': 'default'}, 'spec': copy.deepcopy(OBJECTS[kind]), **status}
    return one, {**{key: None for key in one.refs()}, one.home: route}


def encoded(one, objects, split):
    return {**objects, **one.encode(objects, split, 1795372635.8)}


SPLITS = st.builds(
    lambda share, copies, to, matched: Split((('canary', share), ('blue', TOTAL - share)),
                                             (Match('header', 'x-a', 'b', 'canary'),) if matched else (), 'none', Mirror(to, copies)),
    st.sampled_from([0, 1, 500, 9900]), st.sampled_from([100, 1000, 3700, 10000]), st.sampled_from(['canary', 'green']), st.booleans())


@pytest.mark.parametrize('kind', sorted(OBJECTS))
@given(split=SPLITS, later=SPLITS)
def test_copies_are_read_as_they_were_written_and_leave_no_trace(kind, split, later):
    one, objects = bed(kind)
    if kind in ('HTTPProxy', 'GRPCRoute'):
        split, later = (Split(each.arms, (), 'none', each.mirror) for each in (split, later))
    now = encoded(one, encoded(one, objects, split), later)
    seen = one.decode(now)
    shares = {arm: bp for arm, bp in later.arms if bp}
    assert (seen.mirror, seen.matches, seen.uniform) == (later.mirror, later.matches, True)
    assert {arm: weight for arm, weight in seen.weights.items() if weight} == shares or len(shares) == 1
    assert encoded(one, now, later) == now, 'twice is once'
    back = encoded(one, now, all_to('blue'))
    assert one.decode(back).mirror is None
    text = repr(back[one.home])
    assert 'shop-green' not in text.replace("'weight': 0", '') or kind != 'VirtualService'
    assert repr(encoded(one, objects, all_to('blue'))[one.home]['spec']).count('audit') == text.count('audit'), 'the mirrors of others'


def test_what_an_httproute_says():
    one, objects = bed('HTTPRoute')
    rules = encoded(one, objects, Split((('canary', 0), ('blue', TOTAL)), (Match('header', 'x-a', 'b', 'canary'),), 'none',
                                        Mirror('canary', 1000)))['route']['spec']['rules']
    assert rules[0]['filters'] == [HEADERS, AUDIT, {'type': 'RequestMirror', 'requestMirror': {
        'backendRef': {'name': 'shop-canary', 'port': 80}, 'fraction': {'numerator': 1000, 'denominator': 10000}}}]
    assert rules[2]['name'] == 'pd-shop-0' and rules[2]['filters'] == [HEADERS, AUDIT], 'who is on the canary is not copied to it'
    all_of_it = encoded(one, objects, Split((('blue', TOTAL),), (), 'none', Mirror('canary', TOTAL)))['route']['spec']['rules'][1]
    assert all_of_it['filters'] == [{'type': 'RequestMirror', 'requestMirror': {'backendRef': {'name': 'shop-canary', 'port': 80}}}]
    assert 'filters' not in encoded(one, objects, all_to('blue'))['route']['spec']['rules'][1]


@pytest.mark.parametrize('controller, share, words', [
    ('traefik.io/gateway-controller', TOTAL, 'answers all requests of a rule that asks for them with an error'),
    ('projectcontour.io/gateway-controller', 1000, 'copies all requests of a rule whatever share'),
    ('example.test/new', TOTAL, 'whether example.test/new copies the share of a RequestMirror is not known'),
    ('', 1000, 'has not taken the route')])
def test_a_gateway_that_would_not_do_it_is_refused(controller, share, words):
    one, objects = bed('HTTPRoute', controller)
    with pytest.raises(Unsupported, match=words):
        encoded(one, objects, Split((('blue', TOTAL),), (), 'none', Mirror('canary', share)))


def test_a_gateway_that_does_it_all_or_by_the_users_word():
    for controller, share, options in (('projectcontour.io/gateway-controller', TOTAL, {}), ('example.test/new', 1000, {'mirror': True})):
        one, objects = bed('HTTPRoute', controller, **options)
        split = Split((('blue', TOTAL),), (), 'none', Mirror('canary', share))
        assert one.decode(encoded(one, objects, split)).mirror == split.mirror
    assert bed('HTTPRoute')[0].capabilities().mirror and not bed('HTTPRoute', mirror=False)[0].capabilities().mirror


def test_what_an_httpproxy_says_and_cannot():
    one, objects = bed('HTTPProxy')
    split = Split((('blue', TOTAL),), (), 'none', Mirror('canary', 1000))
    services = encoded(one, objects, split)['route']['spec']['routes'][0]['services']
    assert services == [{'name': 'shop-blue', 'port': 80, 'weight': TOTAL},
                        {'name': 'shop-canary', 'port': 80, 'weight': 10, 'mirror': True}]
    with pytest.raises(Unsupported, match='copies whole percents of the requests, and 0.5 % is none'):
        encoded(one, objects, Split((('blue', TOTAL),), (), 'none', Mirror('canary', 50)))
    objects['route']['spec']['routes'][0]['services'].append({'name': 'audit', 'port': 80, 'mirror': True})
    with pytest.raises(Unsupported, match='copies its requests to "audit" already'):
        encoded(one, objects, split)


def test_what_a_virtualservice_says_and_its_gateways_show():
    one, objects = bed('VirtualService')
    split = Split((('canary', 0), ('blue', TOTAL)), (), 'none', Mirror('canary', 1000))
    http = encoded(one, objects, split)['route']['spec']['http']
    assert [rule.get('name') for rule in http] == ['progressive-delivery:shop:0:split', None, 'progressive-delivery:shop:1:split', 'api']
    assert http[0]['mirrors'] == [{'destination': {'host': 'audit'}, 'percentage': {'value': 10}},
                                  {'destination': {'host': 'shop-canary'}, 'percentage': {'value': 10.0}}]
    assert 'mirror' not in http[0] and 'mirrorPercentage' not in http[0] and http[1] == OBJECTS['VirtualService']['http'][0]

    def full(host):
        return host + '.prod'

    def shown(rule, *policies):
        return {'routes': [{'metadata': {'filter_metadata': {'istio': {'config': '/namespaces/prod/virtual-service/shop'}}},
                            'match': {'headers': [{'name': name, 'string_match': {'safe_regex': wanted}}
                                                  for name, wanted in rule['match'][0]['headers'].items()]},
                            'route': {'cluster': 'outbound|80||shop-blue.prod', 'request_mirror_policies': list(policies)}}]}

    def policy(host, **part):
        return {'cluster': 'outbound|80||%s.prod' % host, 'runtime_fraction': {'default_value': part}}

    want = istio_routes.wanted(http[:1], full)
    audit, ours = policy('audit', numerator=10), policy('shop-canary', numerator=100000, denominator='MILLION')
    assert istio_routes.difference(want, istio_routes.shown(shown(http[0], audit, ours), 'prod', 'shop')) == ''
    assert 'copies to' in istio_routes.difference(want, istio_routes.shown(shown(http[0], audit), 'prod', 'shop'))


def test_a_mirror_is_of_a_candidate_and_wants_a_lease():
    arms = ('blue', 'canary')
    split = make_split({'canary': '0%'}, 'blue', known=arms, mirror={'arm': 'canary', 'share': '10%'})
    assert split.mirror == Mirror('canary', 1000) and split.partial and not split.candidates and split.used == ('blue', 'canary')
    assert str(split) == 'blue 100 %, copies of 10 % to canary'
    assert make_split({}, 'blue', mirror={'arm': 'canary', 'share': '0%'}).mirror is None
    for shares, mirror, words in (({}, {'arm': 'blue', 'share': '1%'}, 'which is the stable one'),
                                  ({'canary': '100%'}, {'arm': 'canary', 'share': '1%'}, 'which is the stable one'),
                                  ({}, {'arm': 'red', 'share': '1%'}, 'not one of the service'),
                                  ({}, {'arm': 'canary', 'share': '101%'}, 'outside 0 % to 100 %'),
                                  ({}, {'arm': 'canary'}, 'not understood')):
        with pytest.raises(BadInput, match=words):
            make_split(shares, 'blue', known=arms, mirror=mirror)


def test_a_split_with_copies_is_stored_and_told():
    split = Split((('canary', 500), ('blue', 9500)), (), 'none', Mirror('canary', 1000))
    assert parsed(plain(split)) == split and parsed(plain(all_to('blue'))) == all_to('blue')
    before = Split((('blue', TOTAL),), (), 'none', Mirror('green', 100))
    assert describe(Change('edge', 'shop', 'split', before, split, None, {})) == (
        'shop on edge: canary 0 % -> 5 %, blue 100 % -> 95 %, copies to green 1 % -> 0 %, copies to canary 0 % -> 10 %')
