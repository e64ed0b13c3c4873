# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pure parts of the routers of Kubernetes: patches, kinds, plans, owners, clock."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._kube.client import ServerClock
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Ref, content, diff, holds, patched, robust
from ansible_collections.progressive.delivery.plugins.module_utils._kube.owners import foreign
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Claim, Desired
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import parse_arms, parse_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_httproute import HttpRouteCodec
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_plan import Facts, KubePlan
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_weights import KINDS, WeightsCodec
from ansible_collections.progressive.delivery.plugins.module_utils._split import Match, Split, all_to

ARMS = {'blue': {'backend': 'shop-blue', 'port': 80}, 'green': {'backend': 'shop-green', 'port': 80},
        'canary': {'backend': 'shop-canary', 'port': 80}}
JSON = st.recursive(st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(['', 'a', 'b/~c']),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(['name', 'port', 'weight', 'a/b~', '']), inner), max_leaves=12)


def codec(router='httproute', **options):
    (endpoint,) = parse_endpoints([{'router': router, 'object': 'shop', 'name': 'edge', **options}])
    arms = parse_arms(ARMS, endpoint)
    return (HttpRouteCodec if router == 'httproute' else WeightsCodec)(endpoint, 'shop', arms)


def plan(one):
    (endpoint,) = parse_endpoints([{'router': 'httproute', 'object': 'shop', 'name': 'edge'}])
    return KubePlan(endpoint, 'shop', one.arms, one)


def httproute(*rules, **meta):
    return {'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute',
            'metadata': {'name': 'shop', 'namespace': 'default', 'uid': 'u', 'resourceVersion': '1', 'generation': 1, **meta},
            'spec': {'parentRefs': [{'name': 'edge'}], 'hostnames': ['shop.example'], 'rules': list(rules)}}


def rule(*services, **more):
    return {'matches': [{'path': {'type': 'PathPrefix', 'value': '/'}}],
            'backendRefs': [{'group': '', 'kind': 'Service', 'name': name, 'port': 80, 'weight': weight} for name, weight in services],
            **more}


OBJECTS = {
    'TraefikService': {'spec': {'weighted': {'services': [{'name': 'shop-blue', 'port': 80}], 'sticky': {'cookie': {'name': 'x'}}}}},
    'HTTPProxy': {'spec': {'virtualhost': {'fqdn': 'shop.example'}, 'routes': [
        {'conditions': [{'prefix': '/'}], 'services': [{'name': 'shop-blue', 'port': 80}, {'name': 'log', 'port': 80, 'mirror': True}]},
        {'conditions': [{'prefix': '/other'}], 'services': [{'name': 'other', 'port': 80}]}]}},
    'ApisixRoute': {'spec': {'http': [{'name': 'all', 'match': {'paths': ['/*']}, 'backends': [
        {'serviceName': 'shop-blue', 'servicePort': 80}]}]}},
    'VirtualServer': {'spec': {'host': 'shop.example', 'upstreams': [
        {'name': arm, 'service': 'shop-' + arm, 'port': 80} for arm in ('blue', 'green', 'canary')],
        'routes': [{'path': '/', 'action': {'pass': 'blue'}}, {'path': '/static', 'action': {'return': {'body': 'x'}}}]}},
    'TrafficSplit': {'spec': {'service': 'shop', 'backends': [{'service': 'shop-blue', 'weight': 1}]}},
    'Ingress': {'spec': {'rules': [{'http': {'paths': [{'path': '/', 'backend': {'service': {
        'name': 'shop', 'port': {'name': 'use-annotation'}}}}]}}]}},
}
ALB = 'alb.ingress.kubernetes.io/actions.'
ACTIONS = {ALB + 'shop': '{"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "shop-blue", "servicePort": "80"}]}}',
           ALB + 'old': '{"type":"redirect","redirectConfig":{"host":"x"}}', ALB + 'broken': '{'}


def table_object(kind):
    notes = {'annotations': dict(ACTIONS)} if kind == 'Ingress' else {}
    metadata = {'name': 'shop', 'namespace': 'default', 'uid': 'u', 'resourceVersion': '1', **notes}
    return {'metadata': metadata, **copy.deepcopy(OBJECTS[kind])}


@st.composite
def splits(draw, unit=1):
    stable = draw(st.sampled_from(['blue', 'green', 'canary']))
    others = draw(st.permutations([name for name in ARMS if name != stable]))[:draw(st.integers(0, 2))]
    left, shares = 10000 // unit - 1, []
    for name in others:
        bp = draw(st.integers(0, left))
        left -= bp
        shares.append((name, bp * unit))
    return Split(tuple(shares) + ((stable, 10000 - sum(bp for _name, bp in shares)),))


MATCHES = st.lists(st.builds(Match, st.sampled_from(['header', 'cookie']), st.sampled_from(['x-canary', 'uid.a']),
                             st.from_regex(r'[A-Za-z0-9_.:@+~/-]{1,12}', fullmatch=True), st.sampled_from(['green', 'canary'])),
                   max_size=3, unique_by=lambda match: match.condition)


def has(decoded):
    whole = sum(decoded.weights.values())
    return {arm: weight / whole for arm, weight in decoded.weights.items() if weight}


# ---- patches

@given(JSON, JSON)
def test_a_patch_makes_one_form_of_the_other(old, new):
    assert patched(old, diff(old, new)) == new and holds(patched(old, diff(old, new)), diff(old, new)) or old == new == None  # noqa: E711


@given(st.dictionaries(st.sampled_from(['a', 'b']), JSON), st.dictionaries(st.sampled_from(['a', 'b']), JSON),
       st.dictionaries(st.sampled_from(['a', 'b']), JSON))
def test_a_way_back_leads_from_every_state_it_was_made_for(before, after, goal):
    ops = [op for op in robust([before, after], goal) if op['op'] != 'test']
    for state in (before, after):
        once = patched(state, ops)
        assert patched(once, ops) == once, 'sent twice'
        assert all(once.get(key) == goal.get(key) for key in {*before, *after, *goal} if before.get(key) != goal.get(key)
                   or after.get(key) != goal.get(key))


def test_a_way_back_tests_who_is_in_its_place():
    before, after = rule(('shop-canary', 0), ('shop-blue', 10000)), rule(('shop-canary', 500), ('shop-blue', 9500))
    ops = robust([before, after], before)
    moved = rule(('shop-blue', 9500), ('shop-canary', 500))
    assert patched(after, ops) == before == patched(before, ops)
    with pytest.raises(Exception, match='backendRefs/0/name'):
        patched(moved, ops)


# ---- kinds

@given(splits(), MATCHES, st.booleans())
def test_an_httproute_says_what_was_put_into_it(split, matches, twice):
    matches = [match for match in matches if match.arm in split.shares]
    split = dataclasses.replace(split, matches=tuple(matches))
    one = codec()
    foreign_rule = rule(('other', 1), timeouts={'request': '3s'})
    filters = [{'type': 'ResponseHeaderModifier', 'responseHeaderModifier': {'set': [{'name': 'a', 'value': 'b'}]}}]
    before = {'route': httproute(rule(('shop-blue', 1), filters=filters), foreign_rule, *([rule(('shop-blue', 3))] if twice else []))}
    kept = copy.deepcopy(before)
    after = one.encode(before, split)
    seen = one.decode(after)
    assert before == kept, 'the codec changed what it was given'
    assert has(seen) == {arm: bp / 10000 for arm, bp in split.arms if bp} and seen.uniform and not seen.unknown
    assert set(seen.matches) == {dataclasses.replace(match, name=match.condition[1] if match.kind == 'cookie' else match.name)
                                 for match in matches}
    assert one.encode(after, split) == after, 'twice is once'
    rules = after['route']['spec']['rules']
    assert rules[1] == foreign_rule and rules[0]['filters'] == filters
    assert after['route']['spec']['hostnames'] == ['shop.example']
    back = one.encode(after, all_to('blue'))
    assert has(one.decode(back)) == {'blue': 1.0} and len(back['route']['spec']['rules']) == len(kept['route']['spec']['rules'])


@pytest.mark.parametrize('kind', sorted(KINDS))
@given(st.data())
def test_a_kind_of_the_table_says_what_was_put_into_it(kind, data):
    split = data.draw(splits(10000 // KINDS[kind].total))
    one = codec('weights', kind=kind)
    before = {'route': table_object(kind)}
    kept = copy.deepcopy(before)
    after = one.encode(before, split)
    seen = one.decode(after)
    assert before == kept
    assert has(seen) == {arm: bp / 10000 for arm, bp in split.arms if bp} and not seen.unknown
    assert one.encode(after, split) == after
    assert has(one.decode(one.encode(after, all_to('blue')))) == {'blue': 1.0}


def test_actions_of_an_ingress_for_aws():
    one, ingress = codec('weights', kind='Ingress'), table_object('Ingress')
    split = Split((('canary', 500), ('blue', 9500)))
    after = one.encode({'route': ingress}, split)['route']
    notes = after['metadata']['annotations']
    assert json.loads(notes[ALB + 'shop'])['forwardConfig']['targetGroups'] == [
        {'serviceName': 'shop-canary', 'weight': 25, 'servicePort': 80}, {'serviceName': 'shop-blue', 'servicePort': '80', 'weight': 475}]
    assert {key: notes[key] for key in (ALB + 'old', ALB + 'broken')} == {key: ACTIONS[key] for key in (ALB + 'old', ALB + 'broken')}
    assert after['spec'] == ingress['spec'] and 'actions' not in after and one.capabilities().unit == '0.2 %'
    # Argo writes all names in capitals, which the controller reads as well.
    capitals = json.dumps({'Type': 'forward', 'ForwardConfig': {
        'TargetGroups': [{'ServiceName': 'shop-blue', 'ServicePort': '80', 'Weight': 3}, {'ServiceName': 'shop-canary', 'ServicePort': '80',
                                                                                          'Weight': 1}],
        'TargetGroupStickinessConfig': {'Enabled': True, 'DurationSeconds': 60}}})
    ingress['metadata']['annotations'][ALB + 'shop'] = capitals
    seen = one.decode({'route': ingress})
    assert has(seen) == {'blue': 0.75, 'canary': 0.25} and 'ties clients to target groups' in seen.notes[0]
    back = one.encode({'route': ingress}, all_to('blue'))['route']['metadata']['annotations'][ALB + 'shop']
    assert json.loads(back)['ForwardConfig']['TargetGroups'] == [{'ServiceName': 'shop-blue', 'ServicePort': '80', 'Weight': 500}]
    ingress['spec']['rules'][0]['http']['paths'][0]['backend']['service']['port'] = {'number': 80}
    assert 'leads nobody anywhere' in one.decode({'route': ingress}).problems[0]


def test_what_the_unit_cannot_express_is_refused():
    one, strict = codec('weights', kind='VirtualServer'), codec('weights', kind='VirtualServer', tolerance_bp=20)
    objects = {'route': table_object('VirtualServer')}
    with pytest.raises(Unsupported, match='1/100'):
        one.encode(objects, Split((('canary', 30), ('blue', 9970))))
    with pytest.raises(Unsupported, match='off by 0.5 %'):
        strict.encode(objects, Split((('canary', 250), ('blue', 9750))))
    assert one.decode(one.encode(objects, Split((('canary', 250), ('blue', 9750))))).weights == {'canary': 3, 'blue': 97}


def test_contour_never_gets_nothing_but_zeros():
    one = codec('weights', kind='HTTPProxy')
    after = one.encode({'route': table_object('HTTPProxy')}, Split((('canary', 0), ('blue', 10000))))['route']
    services = after['spec']['routes'][0]['services']
    assert [service.get('weight') for service in services if not service.get('mirror')] == [10000]
    assert services[-1] == {'name': 'log', 'port': 80, 'mirror': True}
    even = {'route': table_object('HTTPProxy')}
    even['route']['spec']['routes'][0]['services'] = [{'name': 'shop-blue', 'port': 80, 'weight': 0},
                                                      {'name': 'shop-canary', 'port': 80, 'weight': 0}]
    assert has(one.decode(even)) == {'blue': 0.5, 'canary': 0.5}, 'all 0 is an even split there'


@pytest.mark.parametrize(('one', 'route', 'made'), [
    (codec('weights', kind='HTTPProxy'), table_object('HTTPProxy'), ['canary', 'green']),
    (codec(), httproute({'backendRefs': [{'name': 'shop-blue', 'port': 80}]}, rule(('shop-blue', 3), ('shop-green', 1))),
     ['canary', 'green']),
    (codec('weights', kind='TraefikService'), table_object('TraefikService'), []),
])
def test_new_arms_are_named_before_they_get_a_share(one, route, made):
    split = Split((('canary', 0), ('green', 5000), ('blue', 5000)), (Match('header', 'x', '1', 'canary'),))
    before = one.decode({'route': route})
    named = one.named({'route': route}, split).get('route') or route
    after = one.decode({'route': named})
    assert has(after) == has(before) and after.uniform == before.uniform and after.problems == before.problems
    first = one._rules(named)[0][0]
    assert [arm for arm in map(lambda ref: one._arm(named, ref), one._destinations(first)) if arm != 'blue'] == made
    assert one.named({'route': named}, split).get('route', named) == named, 'once'


@pytest.mark.parametrize('objects, said', [
    (httproute(rule(('other', 1))), 'leads to an arm'),
    (httproute(), 'leads to an arm'),
])
def test_a_route_without_an_arm_is_a_problem(objects, said):
    assert said in codec().decode({'route': objects}).problems[0]


def test_rules_are_chosen_by_name_or_position():
    one = codec(rules=['api', '2', 'nope'])
    seen = one.decode({'route': httproute(rule(('shop-blue', 1)), rule(('shop-green', 1), name='api'), rule(('shop-green', 3)))})
    assert has(seen) == {'green': 1.0} and 'no rule "nope": it has 0, api, 2' in seen.problems[0]


def test_rules_that_differ_are_told_and_written_anew():
    one = codec()
    objects = {'route': httproute(rule(('shop-blue', 1)), rule(('shop-green', 1)))}
    seen = one.decode(objects)
    assert not seen.uniform and 'different shares' in seen.notes[0]
    assert one.decode(one.encode(objects, all_to('blue'))).uniform


def test_a_session_that_would_stay_is_taken_out_with_the_candidate():
    one = codec()
    sticky = httproute(rule(('shop-blue', 1), sessionPersistence={'type': 'Cookie'}))
    moved = one.encode({'route': sticky}, Split((('canary', 500), ('blue', 9500))))
    assert 'sessionPersistence' in one.decode(moved).notes[0]
    back = one.encode(moved, all_to('blue'))['route']
    assert [ref['name'] for ref in back['spec']['rules'][0]['backendRefs']] == ['shop-blue']


def test_a_match_takes_the_place_of_no_other():
    one = codec()
    taken = rule(('shop-blue', 1))
    taken['matches'][0]['headers'] = [{'name': 'X-Canary', 'value': 'no'}]
    with pytest.raises(Unsupported, match='x-canary already'):
        one.encode({'route': httproute(taken)}, Split((('canary', 0), ('blue', 10000)), (Match('header', 'x-canary', '1', 'canary'),)))


def accepted(*conditions, generation=2, parents=True):
    route = httproute(rule(('shop-blue', 1)), generation=generation)
    route['status'] = {'parents': [{'parentRef': {'name': 'edge'}, 'controllerName': 'x/y', 'conditions': [
        {'type': kind, 'status': status, 'observedGeneration': seen, 'reason': 'Because', 'message': 'why'}
        for kind, status, seen in conditions]}] if parents else []}
    return codec().accepted({'route': route})


def test_a_route_is_accepted_by_every_parent_at_this_generation():
    assert accepted(('Accepted', 'True', 2), ('ResolvedRefs', 'True', 2)).ok
    assert accepted(('Accepted', 'True', 1), ('ResolvedRefs', 'True', 2)).ok is None
    assert accepted(('Accepted', 'True', 2), ('ResolvedRefs', 'False', 2)).ok is False
    assert 'Because: why' in accepted(('Accepted', 'True', 2), ('ResolvedRefs', 'False', 2)).text
    assert accepted(('Accepted', 'True', 2)).ok is None
    assert accepted(parents=False).ok is None


# ---- plans

def desired(split, lease_s=None, rollout='r1', **more):
    return Desired(split, Claim(rollout, 'me', 5), lease_s, **more)


def seen_of(one, objects, **facts):
    usable = facts.pop('usable', {arm: 1 for arm in ARMS})
    return plan(one).observed(objects, Facts(usable=usable, **facts))


CANARY = Split((('canary', 500), ('blue', 9500)))


def start(one, **meta):
    return seen_of(one, {'route': httproute(rule(('shop-blue', 1)), **meta)})


def test_a_change_carries_the_record_with_the_shares_and_the_way_back_fits_before_and_after():
    one = codec()
    before = start(one)
    change = plan(one).plan(before, desired(CANARY, 30.0, version='2'))
    after = plan(one).expected(before, change)
    assert after.split == CANARY and after.claim == Claim('r1', 'me', 5) and after.lease_left_s == 30.0
    assert after.state.record == {'stable': 'blue', 'rollout': 'r1', 'by': 'me', 'since': 5, 'version': '2', 'ttl': 30.0, 'rev': 1}
    assert plan(one).plan(after, desired(CANARY, 30.0, version='2')) is None, 'twice is once'
    claimed = copy.deepcopy(before.state.objects)
    claimed['route']['metadata']['annotations'] = {'progressive.delivery/shop': '{"rev":1,"rollout":"r1"}'}
    (request,) = plan(one).deadman_requests(claimed, change)
    assert request['method'] == 'PATCH' and request['path'].endswith('/httproutes/shop')
    for state in (claimed, after.state.objects):
        back = seen_of(one, {'route': patched(content(state['route']), request['body'])})
        assert back.split == all_to('blue') and back.claim is None and back.state.record['ended'] == 'lease'


def test_the_way_back_undoes_a_promotion_once():
    one = codec()
    moved = plan(one).expected(start(one), plan(one).plan(start(one), desired(all_to('green'), version='2', previous_version='1')))
    assert (moved.split.stable, moved.previous, moved.previous_version, moved.version) == ('green', 'blue', '1', '2')
    back = plan(one).way_back(moved)
    assert back.after == all_to('blue')
    home = plan(one).expected(moved, back)
    assert home.split == all_to('blue') and home.previous is None and plan(one).way_back(home) is None


def test_a_route_that_was_never_moved_has_no_way_back():
    one = codec()
    assert plan(one).way_back(seen_of(one, {'route': httproute(rule(('shop-blue', 1)), rule(('shop-green', 1)))})) is None


def test_the_way_back_leads_where_somebody_is_ready():
    one = codec()
    moved = plan(one).expected(start(one), plan(one).plan(start(one), desired(CANARY, 30.0)))
    sick = dataclasses.replace(moved, usable={'blue': 0, 'canary': 2, 'green': 0})
    back = plan(one).way_back(sick)
    assert back.after == all_to('canary') and 'no endpoint of "blue" is ready' in back.note
    assert plan(one).way_back(dataclasses.replace(moved, usable={})).after == all_to('blue'), 'what was not counted is taken to be healthy'


def test_somebody_elses_rollout_is_left_alone_until_its_lease_is_over():
    one = codec()
    moved = plan(one).expected(start(one), plan(one).plan(start(one), desired(CANARY, 30.0)))
    with pytest.raises(Conflict, match='being rolled out by r1'):
        plan(one).plan(moved, desired(CANARY, 30.0, rollout='r2'))
    assert plan(one).plan(dataclasses.replace(moved, lease_left_s=0.0), desired(CANARY, 30.0, rollout='r2'))
    assert plan(one).plan(moved, desired(CANARY, 30.0, rollout='r2', force=True))


@pytest.mark.parametrize('observed, wanted, error, said', [
    ({}, desired(CANARY), BadInput, 'needs a lease'),
    ({}, desired(Split((('nobody', 1), ('blue', 9999))), 30.0), BadInput, 'not one of shop'),
    ({}, desired(dataclasses.replace(CANARY, sticky='hash'), 30.0), Unsupported, 'only draws at random'),
    ({'usable': {'blue': 1, 'canary': 0}}, desired(CANARY, 30.0), Unsupported, 'no ready endpoint'),
    ({'missing': {'canary': 'It is not there.'}}, desired(CANARY, 30.0), Unsupported, 'It is not there'),
    ({'problems': ('No.',)}, desired(CANARY, 30.0), Unsupported, 'No.'),
])
def test_what_stands_in_the_way_is_said_before_the_first_change(observed, wanted, error, said):
    one = codec()
    with pytest.raises(error, match=said):
        plan(one).plan(seen_of(one, {'route': httproute(rule(('shop-blue', 1)))}, **observed), wanted)


def test_a_service_that_is_no_arm_is_overwritten_with_force_only():
    one = codec()
    seen = seen_of(one, {'route': httproute(rule(('shop-blue', 9), ('stranger', 1)))})
    assert seen.unknown == ('stranger',)
    with pytest.raises(Conflict, match='stranger'):
        plan(one).plan(seen, desired(CANARY, 30.0))
    forced = plan(one).expected(seen, plan(one).plan(seen, desired(CANARY, 30.0, force=True)))
    assert forced.unknown == () and forced.split == CANARY


def test_an_undo_brings_back_what_was_there():
    one = codec()
    before = start(one, annotations={'mine': 'yes'})
    change = plan(one).plan(before, desired(CANARY, 30.0))
    after = plan(one).expected(before, change)
    undo = plan(one).undo(before, change)
    (request,) = plan(one).requests([after.state.objects], undo.payload['objects'])
    assert patched(content(after.state.objects['route']), request['body']) == content(before.state.objects['route'])


# ---- owners, clock

REF = Ref('g', 'v1', 'routes', 'default', 'shop')


@pytest.mark.parametrize('meta, problem, note', [
    ({'annotations': {'flagger.kubernetes.io/original-configuration': '{}'}}, 'Flagger', ''),
    ({'ownerReferences': [{'kind': 'Canary', 'name': 'shop', 'controller': True}]}, 'Flagger', ''),
    ({'labels': {'rollouts.argoproj.io/gatewayapi-canary': 'in-progress'}}, 'Argo Rollouts', ''),
    ({'managedFields': [{'manager': 'rollouts-controller'}]}, 'Argo Rollouts', ''),
    ({'annotations': {'argocd.argoproj.io/tracking-id': 'x'}}, 'Argo CD', ''),
    ({'annotations': {'argocd.argoproj.io/tracking-id': 'x', 'progressive.delivery/gitops': 'ignored'}}, '', ''),
    ({'labels': {'kustomize.toolkit.fluxcd.io/name': 'x'}}, 'Flux', ''),
    ({'labels': {'kustomize.toolkit.fluxcd.io/name': 'x'}, 'annotations': {'kustomize.toolkit.fluxcd.io/reconcile': 'disabled'}}, '', ''),
    ({'managedFields': [{'manager': 'kustomize-controller', 'subresource': 'status'}]}, '', ''),
    ({'labels': {'app.kubernetes.io/managed-by': 'Helm'}}, '', 'Helm'),
    ({'ownerReferences': [{'kind': 'Shop', 'name': 'x', 'controller': True}]}, '', 'belongs to Shop "x"'),
    ({}, '', ''),
])
def test_who_else_writes_a_route_is_recognised(meta, problem, note):
    problems, notes = foreign(REF, {'metadata': meta})
    assert (problem in ' '.join(problems)) and bool(problems) == bool(problem)
    assert (note in ' '.join(notes)) and bool(notes) == bool(note)


@given(st.floats(-1e4, 1e4), st.lists(st.tuples(st.floats(0, 1e4), st.floats(0.001, 0.5)), min_size=1, max_size=40))
def test_the_servers_clock_is_never_thought_to_be_behind(offset, requests):
    here = [0.0]
    clock = ServerClock(lambda: here[0])
    for sent, took in sorted(requests):
        clock.saw(float(int(sent + took / 2 + offset) if sent + took / 2 + offset >= 0 else int(sent + took / 2 + offset) - 1),
                  sent, sent + took)
    here[0] = 5000.0
    assert -1e-6 <= clock.now() - (5000.0 + offset) <= clock.precision_s + 1e-6 <= 1.5 + 1e-5
