# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Endpoints that are routes of a cluster, beside processes of HAProxy: their grammar, and who takes which."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._backend import plain_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._kube import answers, client
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Ref
from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import (
    KUBE_ROUTERS, ROUTERS, parse_arms, parse_endpoints)

HAPROXY = {'name': 'lb1', 'socket': 'unix:///run/a.sock', 'map': '/m'}
ROUTE = {'name': 'edge', 'router': 'httproute', 'object': 'shop', 'namespace': 'web'}
ARMS = {'blue': {'backend': 'shop-blue', 'servers': ['b1'], 'port': 80}, 'canary': {'backend': 'shop-canary'}}


def test_a_route_and_a_process_stand_side_by_side():
    process, route = parse_endpoints([HAPROXY, ROUTE])
    assert (process.family, process.deadline, process.kube) == ('haproxy', 2.0, None)
    assert (route.family, route.deadline, route.address, route.kube.namespace) == ('kube', 10.0, None, 'web')
    assert parse_arms(ARMS, process)['blue'].ref == {} and parse_arms(ARMS, process)['blue'].servers == ('b1',)
    assert parse_arms(ARMS, route)['blue'].ref == {'port': 80} and parse_arms(ARMS, route)['blue'].servers == ()
    assert [type(router).__name__ for router in registry.build_all([HAPROXY, ROUTE], 'shop', ARMS)] == ['HaproxyMap', 'KubeRouter']
    assert [endpoint.name for endpoint in plain_endpoints([HAPROXY, ROUTE])] == ['lb1']
    with pytest.raises(BadInput, match='None of the endpoints is an HAProxy process'):
        plain_endpoints([ROUTE])


@pytest.mark.parametrize('endpoint, said', [
    ({'router': 'httproute'}, 'names no object'),
    ({**ROUTE, 'object': 'Shop/../x'}, 'not a name that Kubernetes allows'),
    ({**ROUTE, 'namespace': 'a b'}, 'not a name that Kubernetes allows'),
    ({**ROUTE, 'socket': 'unix:///a'}, 'has "socket", which the router httproute does not know'),
    ({**HAPROXY, 'namespace': 'web'}, 'has "namespace", which the router haproxy_map does not know'),
    ({**ROUTE, 'port': 0}, 'not a port'),
    ({**ROUTE, 'rules': 'api'}, 'list of names'),
    ({**ROUTE, 'kubeconfig': 'config'}, 'absolute path'),
    ({**ROUTE, 'context': 'a;b'}, 'cannot be stored'),
    ({**ROUTE, 'lease_image': 'x y'}, 'not the name of an image'),
    ({**ROUTE, 'kind': 'TCPRoute'}, 'knows HTTPRoute, GRPCRoute'),
    ({**ROUTE, 'router': 'weights'}, 'name one of them'),
])
def test_what_is_no_route_is_refused(endpoint, said):
    with pytest.raises(BadInput, match=said):
        registry.build_all([endpoint], 'shop', ARMS)


def test_one_route_is_one_endpoint():
    with pytest.raises(BadInput, match='route httproute/shop of namespace web'):
        parse_endpoints([ROUTE, {**ROUTE, 'name': 'other'}])
    parse_endpoints([ROUTE, {**ROUTE, 'name': 'other', 'context': 'b'}])


def test_a_service_that_cannot_name_an_annotation_is_refused():
    with pytest.raises(BadInput, match='cannot name an annotation'):
        registry.build_all([ROUTE], 'shop:web', ARMS)


@pytest.mark.parametrize('arms, said', [
    ({'blue': {'backend': 'Blue'}}, 'not a name that Kubernetes allows'),
    ({'blue': {'backend': 'a'}, 'green': {'backend': 'a'}}, 'have the same Service'),
    ({'blue': {'port': 'http'}}, 'not a port'),
    ({'blue': {'subset': 'v1'}}, 'unknown option "subset"'),
    ({'blue': {'nope': 1}}, 'unknown option "nope"'),
])
def test_arms_that_are_no_services_are_refused(arms, said):
    with pytest.raises(BadInput, match=said):
        registry.build_all([ROUTE], 'shop', arms)


def test_every_router_is_in_the_table():
    for router in ROUTERS:
        assert router in registry._CODECS or router in registry._ROUTERS
        assert (router in registry._CODECS) == (router in KUBE_ROUTERS)


def test_the_client_is_needed_by_who_asks_a_cluster_only(monkeypatch):
    monkeypatch.setitem(sys.modules, 'kubernetes', None)
    registry.build_all([HAPROXY, ROUTE], 'shop', ARMS)
    with pytest.raises(BadInput, match='pip install kubernetes'):
        client._kubernetes()


REF = Ref('g', 'v1', 'routes', 'web', 'shop')


@given(st.sampled_from([400, 401, 403, 404, 409, 410, 422, 429, 500, 503]), st.binary(max_size=80) | st.sampled_from([
    b'{"kind":"Status","message":"x","details":{"name":"shop"}}', b'[]', b'{"message": null}', b'404 page not found']), st.booleans())
def test_every_answer_is_one_sentence(status, body, missing):
    error = answers.error('patch', REF, 'the cluster of test', status, body, missing)
    assert error is None or str(error).endswith('.') and '\n' not in str(error) and len(str(error)) < 700


@pytest.mark.parametrize('status, message, kind, said', [
    (403, 'admission webhook "x.example" denied the request: no', 'Refused', 'admission rule'),
    (500, 'Internal error occurred: failed calling webhook "x": no route to host', 'Refused', 'failed calling webhook'),
    (422, 'the server rejected our request due to an error in our request', 'Conflict', 'not as it was'),
    (422, 'HTTPRoute "shop" is invalid: spec.rules: Too many', 'Refused', 'Too many'),
    (409, 'the object has been modified', 'Conflict', 'nothing was overwritten'),
    (429, 'slow down', 'Unreachable', 'slow down'),
])
def test_refusals_are_told_apart(status, message, kind, said):
    error = answers.error('patch', REF, 'the cluster of test', status, ('{"kind":"Status","message":%s}' % __import__('json').dumps(
        message)).encode(), False)
    assert type(error).__name__ == kind and said in str(error)
