# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many pods a share needs, and whether the other side can carry everything."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._kube.capacity import (
    Scaling, Workload, needed, parse_headroom, scaling, selects, shortages, workload)

pods = st.integers(0, 5000)
shares = st.integers(0, 10000)
factors = st.fractions(1, 10, max_denominator=1000)


@given(pods, shares, factors, st.integers(0, 5))
def test_capacity_is_enough_and_not_one_pod_more(carries, share, headroom, least):
    found = needed(carries, share, headroom, least)
    demand = Fraction(carries * share, 10000) * headroom
    assert found >= demand and found >= least
    assert found == least or found - 1 < demand


@given(pods, shares, shares, factors)
def test_a_larger_share_never_needs_fewer(carries, one, other, headroom):
    low, high = sorted((one, other))
    assert needed(carries, low, headroom) <= needed(carries, high, headroom)


@given(pods)
def test_all_of_the_traffic_needs_what_carries_it(carries):
    assert needed(carries, 10000, Fraction(1), 0) == carries


@pytest.mark.parametrize('carries, share, headroom, found', [
    (3, 500, 1, 1), (3, 5000, 1, 2), (3, 5000, '1.2', 2), (10, 2000, 1, 2), (10, 2000, 1.1, 3), (10, 2000, '110%', 3), (0, 10000, 1, 1)])
def test_examples(carries, share, headroom, found):
    assert needed(carries, share, parse_headroom(headroom)) == found


@pytest.mark.parametrize('value', ['', 'much', 0.5, 11, -1, True, None, '1e3', [1]])
def test_a_bad_headroom_is_refused(value):
    with pytest.raises(BadInput, match='factor from 1 to 10'):
        parse_headroom(value)


plain = st.builds(Workload, st.just('shop'), st.just(True), replicas=pods, ready=pods)
scaled = st.builds(Workload, st.just('shop'), st.just(True), replicas=pods, ready=pods, autoscaler=st.just('shop'), highest=st.just(5000),
                   shrinks=st.booleans())


@given(st.one_of(plain, scaled), pods, st.booleans())
def test_scaling_goes_up_only_and_far_enough_and_once(now, need, hold):
    change = scaling(now, need, hold)
    after = replace(now, replicas=now.replicas if change.replicas is None else change.replicas, shrinks=now.shrinks and not change.hold)
    assert after.replicas == max(now.replicas, need)
    assert after.shrinks == (now.shrinks and not hold)
    assert not scaling(after, need, hold)


def test_an_autoscaler_that_may_not_go_that_far_is_named():
    now = Workload('shop', True, 2, 2, 'shop-hpa', 2, 4, shrinks=True)
    assert scaling(now, 4) == Scaling(4, True)
    with pytest.raises(BadInput, match='"shop-hpa" of Deployment "shop" may not go above 4 pods, but 5'):
        scaling(now, 5)


def test_why_a_survivor_cannot_carry_everything():
    assert shortages(Workload('blue', True, 3, 3), 3) == []
    assert 'is not there' in shortages(Workload('blue', False), 3)[0]
    assert 'has 1 ready pods and needs 3' in shortages(Workload('blue', True, 3, 1), 3)[0]
    assert 'may not go above 2 pods' in shortages(Workload('blue', True, 3, 3, 'hpa', 1, 2), 3)[0]
    assert '1 of 2 pods are healthy' in shortages(Workload('blue', True, 3, 3, healthy=1, wanted_healthy=2, budget='pdb'), 3)[0]


def deployment(labels, replicas=2):
    return {'metadata': {'name': 'shop'}, 'spec': {'replicas': replicas, 'template': {'metadata': {'labels': labels}}}}


def test_what_belongs_to_a_deployment_is_found_by_reference_and_by_labels():
    scalers = [{'metadata': {'name': name}, 'spec': {'scaleTargetRef': {'kind': kind, 'name': target}, 'minReplicas': 2, 'maxReplicas': 6}}
               for name, kind, target in (('a', 'StatefulSet', 'shop'), ('b', 'Deployment', 'other'), ('c', 'Deployment', 'shop'))]
    budgets = [{'metadata': {'name': 'x'}, 'spec': {'selector': {'matchLabels': {'arm': 'green'}}}},
               {'metadata': {'name': 'y'}, 'spec': {'selector': {'matchLabels': {'arm': 'blue'}}},
                'status': {'currentHealthy': 1, 'desiredHealthy': 2}}]
    found = workload('shop', deployment({'arm': 'blue'}), 1, scalers, budgets)
    assert (found.autoscaler, found.lowest, found.highest, found.budget, found.healthy, found.wanted_healthy) == ('c', 2, 6, 'y', 1, 2)
    assert workload('shop', None, 0, scalers, budgets) == Workload('shop', False)
    alone = workload('shop', deployment({'arm': 'red'}, 5), 4, [], budgets)
    assert found.shrinks and not found.held
    assert (alone.replicas, alone.ready, alone.autoscaler, alone.budget, alone.healthy) == (5, 4, None, None, None)


@pytest.mark.parametrize('annotations, labels, version', [
    ({'progressive.delivery/version': '5.1+b2'}, {'app.kubernetes.io/version': '5.1_b2'}, '5.1+b2'),
    ({}, {'app.kubernetes.io/version': '5.0'}, '5.0'), (None, None, None)])
def test_the_version_that_runs(annotations, labels, version):
    running = deployment({})
    running['metadata'].update(annotations=annotations, labels=labels)
    assert workload('shop', running, 1, [], []).facts()['version'] == version


@pytest.mark.parametrize('selector, hit', [
    (None, False), ({}, True), ({'matchLabels': {'a': '1'}}, True), ({'matchLabels': {'a': '2'}}, False),
    ({'matchExpressions': [{'key': 'a', 'operator': 'In', 'values': ['1', '2']}]}, True),
    ({'matchExpressions': [{'key': 'a', 'operator': 'NotIn', 'values': ['1']}]}, False),
    ({'matchExpressions': [{'key': 'b', 'operator': 'DoesNotExist'}, {'key': 'a', 'operator': 'Exists'}]}, True)])
def test_selectors(selector, hit):
    assert selects(selector, {'a': '1'}) is hit
