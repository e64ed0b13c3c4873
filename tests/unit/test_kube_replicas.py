# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import parse_arms, parse_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_codec import Instances
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_replicas import ReplicasCodec, counts, miss
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Match, Split, all_to
from hypothesis import given
from hypothesis import strategies as st

ARMS = {'blue': {'deployment': 'shop-blue'}, 'green': {'deployment': 'shop-green'}}


def codec(arms=None, **options):
    endpoint, = parse_endpoints([{'router': 'replicas', 'object': 'shop', 'namespace': 'prod', **options}])
    return ReplicasCodec(endpoint, 'shop', parse_arms(arms or ARMS, endpoint))


def deployment(arm, replicas, ready=None):
    status = {'readyReplicas': replicas if ready is None else ready} if replicas else {}
    return {'metadata': {'name': 'shop-' + arm}, 'status': status, 'spec': {
        'replicas': replicas, 'selector': {'matchLabels': {'app': 'shop', 'version': arm}},
        'template': {'metadata': {'labels': {'app': 'shop', 'version': arm}}}}}


def state(blue, green, **more):
    return {'service': {'spec': {'selector': {'app': 'shop'}}}, 'deployment blue': deployment('blue', blue),
            'deployment green': deployment('green', green), 'autoscaler blue': None, 'autoscaler green': None, **more}


def settled(one, objects, split):
    """Writes as the router does, every pod ready in between; returns replicas (blue, green) after each write."""
    seen = []
    for key, obj in one.encode(objects, split).items():
        assert not one.hold(objects, key, obj)
        objects = {**objects, key: deployment(key.split()[1], obj['spec']['replicas'])}
        seen.append(tuple(objects['deployment ' + arm]['spec']['replicas'] for arm in ('blue', 'green')))
    assert not one.encode(objects, split)
    return objects, seen


@pytest.mark.parametrize('share, blue, green', [(1000, 9, 1), (5000, 9, 9), (7500, 3, 9), (9000, 1, 9)])
def test_the_larger_arm_has_all_pods_and_the_other_its_part(share, blue, green):
    one = codec()
    objects, _seen = settled(one, state(9, 0), Split((('green', share), ('blue', TOTAL - share))))
    assert one.decode(objects).weights == {'blue': blue, 'green': green}


@given(st.integers(1, 300), st.integers(1, TOTAL - 1), st.booleans())
def test_nothing_is_scaled_down_before_what_takes_over_is_ready(most, bp, promote):
    one = codec(tolerance_bp=TOTAL)
    objects, seen = settled(one, state(most, 0), Split((('green', bp), ('blue', TOTAL - bp))))
    assert all(max(pair) == most for pair in seen)
    assert bp > 5000 or all(blue == most for blue, _green in seen)
    goal = 'green' if promote else 'blue'
    objects, seen = settled(one, objects, all_to(goal))
    assert one.decode(objects).weights == {goal: most} and all(max(pair) == most for pair in seen)


def test_a_candidate_that_is_not_ready_holds_up_the_rest():
    one = codec()
    changes = one.encode(state(9, 0), Split((('green', 9000), ('blue', 1000))))
    assert list(changes) == ['deployment green', 'deployment blue']
    assert one.hold(state(9, 0), 'deployment green', changes['deployment green']) == ''
    behind = state(9, 9, **{'deployment green': deployment('green', 9, 3)})
    assert one.hold(behind, 'deployment blue', changes['deployment blue']) == \
        'The deployments.apps "shop-green" in namespace "prod" of arm "green" has 3 of 9 replicas ready'
    assert one.hold(state(9, 9), 'deployment blue', changes['deployment blue']) == ''
    assert one.hold(behind, 'service', behind['service']) == ''
    assert not one.accepted(behind).ok and one.accepted(state(9, 9)).ok


def test_a_share_that_cannot_be_expressed_is_refused_with_the_nearest():
    with pytest.raises(Unsupported, match='with 9 replicas: the nearest is green 10 %, blue 90 %; use more, or a "tolerance_bp" of 500'):
        codec().encode(state(9, 0), Split((('green', 500), ('blue', 9500))))
    assert codec(tolerance_bp=500).encode(state(9, 0), Split((('green', 500), ('blue', 9500))))


@given(st.dictionaries(st.sampled_from('abcd'), st.integers(1, TOTAL), min_size=1), st.integers(1, 1000))
def test_counts_are_in_proportion_and_miss_little_with_many(parts, most):
    found = counts(parts, most)
    assert set(found) == set(parts) and max(found.values()) == most and min(found.values()) > 0
    total = sum(parts.values())
    shares = {arm: part * TOTAL // total for arm, part in parts.items()}
    # Each count is off by at most one, and one more where a share is too small for any.
    assert miss(shares, found) <= TOTAL * len(parts) / most + len(parts)


@pytest.mark.parametrize('more, sentence', [
    ({'autoscaler green': {}}, 'horizontalpodautoscalers.autoscaling "shop-green" in namespace "prod" scales arm "green" too'),
    ({'service': {'spec': {}}}, 'selects no pods'),
    ({'service': {'spec': {'selector': {'app': 'other'}}}}, 'has pods that the services "shop" in namespace "prod" does not select'),
    ({'deployment blue': deployment('blue', 0)}, 'scale the Deployment of the stable one up')])
def test_what_would_go_wrong_is_a_problem(more, sentence):
    assert any(sentence in problem for problem in codec().decode(state(3, 0, **more)).problems)


def test_clients_that_keep_their_pod_are_noted():
    service = {'service': {'spec': {'selector': {'app': 'shop'}, 'sessionAffinity': 'ClientIP'}}}
    assert 'new clients only' in codec().decode(state(1, 0, **service)).notes[0]


def test_matches_and_stickiness_are_refused():
    matched = Split((('blue', TOTAL),), (Match('header', 'a', 'b', 'green'),))
    for split in (Split((('green', 5000), ('blue', 5000)), sticky='hash'), matched):
        with pytest.raises(Unsupported, match='at random'):
            codec().encode(state(1, 0), split)


def test_an_arm_without_a_share_is_counted_by_the_service():
    found = codec().instances(state(2, 0))
    assert found == {'blue': Instances(labels={'app': 'shop', 'version': 'blue'}), 'green': Instances(service='shop')}


def test_arms_of_one_deployment_are_refused():
    with pytest.raises(BadInput, match='the same Deployment'):
        codec({'a': {'deployment': 'x'}, 'b': {'deployment': 'x'}})
