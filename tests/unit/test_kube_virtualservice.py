# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import re

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import parse_arms, parse_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._routers.istio_deadline import HEADER, limit_of
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import Instances
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_virtualservice import VirtualServiceCodec, stamp_spec
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Match, Split, all_to
from hypothesis import given
from hypothesis import strategies as st

ARMS = {'blue': {'backend': 'shop-blue'}, 'green': {'backend': 'shop-green'}, 'red': {'backend': 'shop-red'}}
SUBSETS = {'blue': {'backend': 'shop', 'subset': 'v1'}, 'green': {'backend': 'shop', 'subset': 'v2'}}
DEADLINE = 1795372635.8


def codec(arms=None, **options):
    endpoint, = parse_endpoints([{'router': 'virtualservice', 'object': 'shop', 'namespace': 'prod', **options}])
    return VirtualServiceCodec(endpoint, 'shop', parse_arms(arms or ARMS, endpoint))


def to(host, weight=None, **more):
    return {'destination': {'host': host, **{key: more.pop(key) for key in ('subset', 'port') if key in more}},
            **({} if weight is None else {'weight': weight}), **more}


def route(*rules, **spec):
    return {'apiVersion': 'networking.istio.io/v1', 'kind': 'VirtualService', 'metadata': {'name': 'shop', 'namespace': 'prod'},
            'spec': {'hosts': ['shop.example'], 'http': list(rules), **spec}}


def objects(vs, one=None, stamp=None, **more):
    return {**{key: None for key in (one or codec()).refs()}, 'route': vs, 'stamp': stamp, **more}


def http(one, state, split, deadline_s=DEADLINE):
    return one.encode(state, split, deadline_s)['route']['spec']['http']


PLAIN = {'route': [to('shop-blue')]}
RICH = {'name': 'api', 'match': [{'uri': {'prefix': '/api'}, 'headers': {'x-tenant': {'exact': 'a'}}}, {'uri': {'exact': '/'}}],
        'route': [to('shop-blue', 90, headers={'response': {'set': {'x-arm': 'blue'}}}), to('shop-green', 10)],
        'retries': {'attempts': 3, 'retryOn': '503'}, 'timeout': '3s', 'fault': {'delay': {'fixedDelay': '1s'}},
        'corsPolicy': {'maxAge': '24h'}, 'rewrite': {'uri': '/v1'}, 'mirror': {'host': 'audit'},
        'headers': {'request': {'set': {'x-a': 'b'}, 'remove': ['x-c']}}}
OTHER = {'name': 'static', 'match': [{'uri': {'prefix': '/static'}}], 'route': [to('cdn')]}
REDIRECT = {'name': 'old', 'match': [{'uri': {'prefix': '/old'}}], 'redirect': {'uri': '/new'}}


def test_a_leased_split_stands_before_the_rule_it_copies_and_ends_at_the_deadline():
    one = codec()
    rules = http(one, objects(route(OTHER, PLAIN, REDIRECT)), Split((('green', 500), ('blue', 9500))))
    assert [rule.get('name') for rule in rules] == ['static', 'progressive-delivery:shop:0:split', None, 'old']
    split = rules[1]
    assert split['route'] == [to('shop-green', 500), to('shop-blue', 9500)]
    assert [limit_of(match['headers'][HEADER]['regex']) for match in split['match']] == [17953726358]
    assert [rules[0], rules[2], rules[3]] == [OTHER, PLAIN, REDIRECT]


def test_copies_keep_everything_that_the_rule_says_and_each_of_its_matches():
    rule = {**RICH, 'route': [RICH['route'][0], to('shop-green', 0)]}
    one = codec()
    matched, split, base = http(one, objects(route(rule)), Split(
        (('green', 1000), ('blue', 9000)), (Match('header', 'X-Canary', 'yes', 'green'),)))
    for copied in (matched, split):
        assert {key: copied[key] for key in rule if key not in ('name', 'match', 'route')} == {
            key: rule[key] for key in rule if key not in ('name', 'match', 'route')}
        assert [match['uri'] for match in copied['match']] == [{'prefix': '/api'}, {'exact': '/'}]
        assert copied['match'][0]['headers']['x-tenant'] == {'exact': 'a'}
        assert all(limit_of(match['headers'][HEADER]['regex']) for match in copied['match'])
    assert [match['headers'].get('x-canary') for match in matched['match']] == [{'exact': 'yes'}] * 2
    assert matched['route'] == [to('shop-green', 10000)]
    assert split['route'][1] == to('shop-blue', 9000, headers={'response': {'set': {'x-arm': 'blue'}}})
    assert base == rule


def test_what_a_rule_had_comes_back_after_a_promotion_and_its_way_back():
    for rule in (PLAIN, {**RICH, 'route': [to('shop-blue', 100), to('shop-green', 0)]}):
        one, before = codec(), objects(route(OTHER, rule))
        after = {**before, **one.encode(before, all_to('green'))}
        assert one.decode(after).weights.keys() == {'green'}
        assert {**after, **one.encode(after, all_to('blue'))} == before


def test_a_cookie_is_matched_whole():
    one = codec()
    matched = http(one, objects(route(PLAIN)), Split((('blue', 10000),), (Match('cookie', 'seg.ment', 'a+b', 'green'),)))[0]
    expression = matched['match'][0]['headers']['cookie']['regex']
    for text, hit in (('seg.ment=a+b', True), ('x=1; seg.ment=a+b; y=2', True), ('x=1;seg.ment=a+b', True), ('seg.ment=a+b;', True),
                      ('segxment=a+b', False), ('seg.ment=a+bc', False), ('xseg.ment=a+b', False), ('seg.ment=aab', False)):
        assert bool(re.fullmatch(expression, text)) is hit, text


NAMES = st.sampled_from(['blue', 'green', 'red'])
MATCHES = st.builds(
    Match, st.just('header'), st.sampled_from(['x-a', 'x-b']), st.from_regex(r'[a-z.+]{1,5}', fullmatch=True), NAMES) | st.builds(
    Match, st.just('cookie'), st.from_regex(r'[a-zA-Z0-9_.:][a-zA-Z0-9_.:-]{0,9}', fullmatch=True),
    st.from_regex(r'[A-Za-z0-9_.:@+~/-]{1,9}', fullmatch=True), NAMES)


@st.composite
def splits(draw):
    order = draw(st.permutations(['blue', 'green', 'red']))
    first = draw(st.integers(0, TOTAL))
    second = draw(st.integers(0, TOTAL - first))
    shares = [(order[0], first), (order[1], second), (order[2], TOTAL - first - second)]
    stable = shares.pop(max(range(3), key=lambda index: shares[index][1]))
    matches = draw(st.lists(MATCHES, max_size=3, unique_by=lambda match: match.kind + match.name.lower() * (match.kind == 'header')))
    return Split(tuple(pair for pair in shares if pair[1]) + (stable,), tuple(matches))


RULES = st.lists(st.sampled_from([PLAIN, RICH, OTHER, REDIRECT, {'name': 'b', 'route': [to('shop-blue', 1), to('shop-red', 0)]}]),
                 min_size=1, max_size=4).filter(lambda rules: any(rule.get('route') and rule is not OTHER for rule in rules))


@given(RULES, splits(), splits())
def test_what_is_written_is_read_and_nothing_else_changes(rules, first, second):
    one, state = codec(), objects(route(*rules))
    kept = copy.deepcopy(state)
    for split in (first, second):
        state = {**state, **one.encode(state, split, DEADLINE)}
        seen = one.decode(state)
        total = sum(seen.weights.values())
        assert {arm: weight * TOTAL for arm, weight in seen.weights.items()} == {arm: bp * total for arm, bp in split.arms if bp}
        assert set(seen.matches) == {Match(*match.condition, match.arm) for match in split.matches}
        assert seen.uniform and not seen.problems and not seen.unknown
        assert seen.stable == (split.stable if split.partial else None)
    back = {**state, **one.encode(state, all_to('blue'))}
    left = back['route']['spec']['http']
    assert [{**rule, 'route': 0} if 'route' in rule else rule for rule in left] == [
        {**rule, 'route': 0} if 'route' in rule else rule for rule in rules]
    assert [rule for rule in left if rule.get('name') in ('static', 'old')] == [rule for rule in rules if rule in (OTHER, REDIRECT)]
    assert HEADER not in str(left) and one.decode(back).weights.keys() == {'blue'} and not one.decode(back).matches
    assert kept == objects(route(*rules))


def test_the_stamp_is_made_with_the_first_leased_split_and_mended_when_somebody_changed_it():
    one = codec(root_namespace='mesh')
    state = objects(route(PLAIN), one)
    split = Split((('green', 1), ('blue', 9999)))
    changes = one.encode(state, split, DEADLINE)
    assert list(changes) == ['stamp', 'route']
    assert changes['stamp']['metadata']['namespace'] == 'mesh' and changes['stamp']['spec'] == stamp_spec()
    state = {**state, **changes}
    assert one.decode(state).uniform and list(one.encode(state, split, DEADLINE)) == ['route']
    assert list(one.encode(state, all_to('blue'))) == ['route']
    state['stamp'] = {**state['stamp'], 'spec': {}}
    assert not one.decode(state).uniform and one.encode(state, split, DEADLINE)['stamp']['spec'] == stamp_spec()
    state['stamp']['metadata'] = {'name': 'progressive-delivery-now'}
    assert 'is not ours' in one.decode(state).problems[0]


def test_before_the_deadline_is_known_a_split_is_over():
    rules = http(codec(), objects(route(PLAIN)), Split((('green', 500), ('blue', 9500))), None)
    assert rules[0]['match'][0]['headers'][HEADER] == {'regex': '0'}


@pytest.mark.parametrize('odd', [
    {'match': [{'headers': None}], 'route': [to('shop-blue')]}, {'match': None, 'route': [to('shop-blue')]},
    {'match': [{'uri': None, 'headers': {'x-a': {}}}], 'route': [{}, to('shop-blue', 1)]}])
def test_rules_with_empty_members(odd):
    one, state = codec(), objects(route(odd))
    state = {**state, **one.encode(state, Split((('green', 500), ('blue', 9500))), DEADLINE)}
    assert one.decode(state).weights == {'green': 500, 'blue': 9500} and one.decode(state).uniform
    assert len(one.encode(state, all_to('blue'))['route']['spec']['http']) == 1


def test_several_services_share_a_virtual_service():
    mine = codec()
    theirs, = parse_endpoints([{'router': 'virtualservice', 'object': 'shop', 'namespace': 'prod'}])
    other = VirtualServiceCodec(theirs, 'cart', parse_arms({'old': {'backend': 'cart-old'}, 'new': {'backend': 'cart-new'}}, theirs))
    state = objects(route({'match': [{'uri': {'prefix': '/cart'}}], 'route': [to('cart-old')]}, PLAIN))
    state = {**state, **mine.encode(state, Split((('green', 500), ('blue', 9500))), DEADLINE)}
    state = {**state, **other.encode(state, Split((('new', 100), ('old', 9900))), DEADLINE)}
    assert mine.decode(state).weights == {'green': 500, 'blue': 9500} and mine.decode(state).uniform
    state = {**state, **mine.encode(state, all_to('blue'))}
    assert other.decode(state).weights == {'new': 100, 'old': 9900}


def test_rules_can_be_named_and_counted():
    beta = {'name': 'beta', 'match': [{'headers': {'x-beta': {'exact': 'y'}}}], 'route': [to('shop-green')]}
    seen = codec().decode(objects(route(beta, PLAIN)))
    assert 'do not agree ("beta", without a name)' in seen.problems[0]
    for rules in (['1'], ['main']):
        main = {'name': 'main', **PLAIN}
        state = objects(route(beta, main))
        assert codec(rules=rules).decode(state).weights == {'blue': 100}
        assert http(codec(rules=rules), state, all_to('green')) == [beta, {**main, 'route': [to('shop-green')]}]
    assert 'has no rule "mian"' in codec(rules=['mian']).decode(objects(route(main))).problems[0]


def test_hosts_are_the_same_with_and_without_their_namespace():
    seen = codec().decode(objects(route({'route': [to('shop-blue.prod.svc.cluster.local', 1), to('shop-green', 1)]})))
    assert seen.weights == {'blue': 1, 'green': 1}
    assert codec().decode(objects(route({'route': [to('shop-blue.other.svc.cluster.local', 1), to('shop-green', 1)]}))).unknown


def test_instances_are_counted_where_the_host_is():
    one = codec({'a': {'backend': 'x'}, 'b': {'backend': 'x.other.svc.cluster.local'}, 'c': {'backend': 'shop.example'}})
    assert one.instances(objects(route(PLAIN), one)) == {'a': Instances('x'), 'b': Instances('x', namespace='other')}


def test_ports_are_kept_and_chosen():
    state = objects(route({'route': [to('shop-blue', port={'number': 8080})]}))
    assert http(codec(), state, all_to('green'))[0]['route'] == [to('shop-green', port={'number': 8080})]
    assert http(codec(arms={**ARMS, 'green': {'backend': 'shop-green', 'port': 81}}), state, all_to('green'))[0]['route'] == [
        to('shop-green', port={'number': 81})]


def test_somebody_elses_destinations_are_named_and_lose_their_share():
    state = objects(route({'route': [to('shop-blue', 80), to('intruder', 20, subset='x')]}))
    assert codec().decode(state).unknown == ('intruder/x',)
    assert http(codec(), state, all_to('blue'))[0]['route'] == [to('shop-blue', 100), to('intruder', 0, subset='x')]


def test_what_is_missing_is_said():
    one = codec(SUBSETS)
    state = objects(route({'route': [to('shop', subset='v1')]}), one)
    assert one.refs()['rule'].ref.name == 'shop'
    assert any('create it, or name it as "destination_rule"' in problem for problem in one.decode(state).problems)
    state['rule'] = {'spec': {'host': 'shop', 'subsets': [{'name': 'v1', 'labels': {'version': '1'}}]}}
    assert 'The subset "v2" of arm "green" is not in the destinationrules.networking.istio.io "shop" in namespace "prod": it has v1.' in \
        one.decode(state).problems
    state['rule']['spec']['subsets'].append({'name': 'v2', 'labels': {'version': '2'}})
    assert not one.decode(state).problems
    assert one.instances(state)['green'] == Instances('shop', {'version': '2'})
    assert 'delegate' in one.decode(objects(route({'route': [to('shop', subset='v1')]}, hosts=[]), one)).notes[0]


@pytest.mark.parametrize('rules, sentence', [
    ((), 'No rule of the VirtualService leads to an arm of shop (shop-blue, shop-green, shop-red): it has the rules none'),
    ((OTHER, REDIRECT), 'it has the rules "static", "old"')])
def test_a_virtual_service_without_our_rules_is_a_problem(rules, sentence):
    seen = codec().decode(objects(route(*rules)))
    assert sentence in seen.problems[0] and not seen.weights
    assert codec().decode(objects({'metadata': {}, 'spec': {'tcp': []}})).problems


def test_what_istio_cannot_do_is_refused():
    split = Split((('green', 500), ('blue', 9500)))
    with pytest.raises(Unsupported, match='draws the arm of each request anew'):
        codec().encode(objects(route(PLAIN)), Split(split.arms, sticky='hash'), DEADLINE)
    for taken in ({'headers': {'X-Canary': {'exact': 'a'}}}, {'withoutHeaders': {'x-canary': {}}}):
        with pytest.raises(Unsupported, match='has a condition on the header "x-canary" already'):
            codec().encode(objects(route({**PLAIN, 'match': [taken]})), Split(
                split.arms, (Match('header', 'x-canary', 'a', 'green'),)), DEADLINE)


@pytest.mark.parametrize('arms, sentence', [
    ({'a': {'backend': 'x'}, 'b': {'backend': 'x'}}, 'the same host and subset'),
    ({'a': {'backend': 'x', 'subset': '1'}, 'b': {'backend': 'y', 'subset': '1'}}, 'subsets of several hosts'),
    ({'a': {'backend': 'X'}}, 'not a name that Kubernetes allows'),
    ({'a': {'backend': 'x', 'subset': 'a b'}}, 'not a name that Kubernetes allows')])
def test_bad_arms(arms, sentence):
    with pytest.raises(BadInput, match=sentence):
        codec(arms)


def test_a_split_whose_rules_stand_elsewhere_has_to_be_written_again():
    one = codec()
    state = objects(route(PLAIN, OTHER))
    state = {**state, **one.encode(state, Split((('green', 500), ('blue', 9500))), DEADLINE)}
    rules = state['route']['spec']['http']
    state['route'] = route(rules[1], rules[2], rules[0])
    assert not one.decode(state).uniform
