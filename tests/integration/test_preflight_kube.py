# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The preflight before a real Kubernetes API server: permissions by access reviews, the lease, the server's clock, pods."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from kube_api import KubeApi
from kube_traffic_lab import ARMS, shop
from traffic_lab import validated

from ansible_collections.progressive.delivery.plugins.module_utils._preflight_run import PREFLIGHT_SPEC, run


@pytest.fixture(scope='module')
def cluster() -> t.Iterator[KubeApi]:
    with KubeApi(users=['operator']) as api:
        api.definitions('gateway-api')
        yield api


def preflight(one: t.Any, **endpoint: t.Any) -> dict[str, t.Any]:
    return run(validated(PREFLIGHT_SPEC, {
        'service': 'shop', 'arms': ARMS, 'endpoints': [one.endpoint(metrics={'kind': 'none'}, **endpoint)], 'stable': 'blue',
        'canary_arm': 'canary', 'target_arm': 'green', 'canary_stages': '5%:1m', 'blue_green_stages': '100%:1m', 'interval': '1s',
        'scaled': True}))


def states(result: dict[str, t.Any], name: str) -> list[str]:
    return [row['state'] for row in result['rows'] if row['name'] == name]


def test_an_administrator_may_and_the_servers_clock_is_compared(cluster: KubeApi, tmp_path: Path) -> None:
    with shop(cluster, tmp_path) as one:
        result = preflight(one)
    assert [states(result, name) for name in ('routers', 'permissions', 'lease', 'plan', 'lock')] == [['pass']] * 5, result['text']
    assert states(result, 'clock') == ['pass'], result['text']
    assert states(result, 'capacity') == ['warn'], 'there are endpoints here, but no pods'


def test_what_a_user_may_not_is_named_before_anything_is_tried(cluster: KubeApi, tmp_path: Path) -> None:
    with shop(cluster, tmp_path) as one:
        for name, rules in (('reads', [
                {'apiGroups': ['gateway.networking.k8s.io'], 'resources': ['httproutes'], 'verbs': ['get']},
                {'apiGroups': [''], 'resources': ['services'], 'verbs': ['get']},
                {'apiGroups': ['discovery.k8s.io'], 'resources': ['endpointslices'], 'verbs': ['list']},
                {'apiGroups': ['coordination.k8s.io'], 'resources': ['leases'], 'verbs': ['get']}]),):
            where = '/apis/rbac.authorization.k8s.io/v1/namespaces/%s/' % one.namespace
            cluster.request('POST', where + 'roles', {
                'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'Role', 'metadata': {'name': name}, 'rules': rules})
            cluster.request('POST', where + 'rolebindings', {
                'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'RoleBinding', 'metadata': {'name': name},
                'roleRef': {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'Role', 'name': name},
                'subjects': [{'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'User', 'name': 'operator'}]})
        result = preflight(one, kubeconfig=cluster.kubeconfig_for('operator'))
        assert result['failed'] and states(result, 'routers') == ['pass'], result['text']
        assert set(states(result, 'permissions')) == {'fail'}
        assert 'patch httproutes' in result['msg'] and 'create jobs' in result['msg'], result['msg']


def test_a_cluster_that_is_not_there_is_a_row(cluster: KubeApi, tmp_path: Path) -> None:
    with shop(cluster, tmp_path) as one:
        gone = tmp_path / 'kubeconfig'
        gone.write_text(Path(cluster.kubeconfig).read_text().replace('127.0.0.1:', '127.0.0.2:'))
        result = preflight(one, kubeconfig=str(gone), deadline=2)
    assert states(result, 'routers') == ['fail'] and 'could not be asked' in result['text']
