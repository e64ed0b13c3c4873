# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API server that the tests of routers run against: what they rely on."""

from __future__ import annotations

import pytest
from kube_api import ApiError, KubeApi

ROUTES = '/apis/example.org/v1/namespaces/default/routes'


@pytest.fixture(scope='module')
def api():
    with KubeApi(users=['someone']) as server:
        server.define('example.org', 'Route', 'routes')
        yield server


def route(name: str, **spec: object) -> dict:
    return {'apiVersion': 'example.org/v1', 'kind': 'Route', 'metadata': {'name': name}, 'spec': spec}


def test_keeps_what_it_is_given_and_refuses_a_write_that_is_out_of_date(api):
    made = api.request('POST', ROUTES, route('a', weight=5))
    made['spec']['weight'] = 20
    assert api.request('PUT', ROUTES + '/a', made)['spec'] == {'weight': 20}
    with pytest.raises(ApiError) as refused:
        api.request('PUT', ROUTES + '/a', made)
    assert refused.value.status == 409


def test_a_user_may_do_nothing_until_he_is_allowed_to(api):
    with pytest.raises(ApiError) as refused:
        api.request('GET', ROUTES, user='someone')
    assert refused.value.status == 403
    api.kubectl('create', 'clusterrole', 'reader', '--verb=get,list', '--resource=routes.example.org')
    api.kubectl('create', 'clusterrolebinding', 'someone-reads', '--clusterrole=reader', '--user=someone')
    assert api.kubectl('get', 'routes', user='someone') is not None


def test_what_was_stored_is_there_after_a_restart(api):
    api.request('POST', ROUTES, route('kept'))
    api.stop_server()
    with pytest.raises(OSError):
        api.request('GET', ROUTES)
    api.start_server()
    assert api.request('GET', ROUTES + '/kept')['metadata']['name'] == 'kept'


def test_frozen_it_does_not_answer(api):
    with api.frozen(), pytest.raises(OSError):
        api.request('GET', ROUTES, timeout=0.3)
    assert api.request('GET', ROUTES)['kind'] == 'RouteList'
