# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What data planes say of themselves; that they do say it so is tested on the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import threading
import time

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._routers import admin, istio_routes, registry, traefik_raw
from ansible_collections.progressive.delivery.plugins.module_utils._routers.istio_deadline import HEADER, below
from ansible_collections.progressive.delivery.plugins.module_utils._routers.traefik_raw import Path, Share


def full(host):
    return host + '.prod.svc.cluster.local'


def rule(*targets, limit=None):
    """A rule of a VirtualService: (host, weight) each."""
    match = [{'uri': {'prefix': '/'}, 'headers': {HEADER: {'regex': below(limit)}}}] if limit else []
    return {'match': match, 'route': [{'destination': {'host': host}, 'weight': weight} for host, weight in targets]}


def envoy(*routes, name='shop'):
    found = []
    for targets, limit in routes:
        clusters = [{'name': 'outbound|80||' + full(host), 'weight': weight} for host, weight in targets]
        headers = [{'name': HEADER, 'string_match': {'safe_regex': {'regex': below(limit)}}}] if limit else []
        found.append({'match': {'prefix': '/', 'headers': headers},
                      'route': {'cluster': clusters[0]['name']} if len(clusters) == 1 else {'weighted_clusters': {'clusters': clusters}},
                      'metadata': {'filter_metadata': {'istio': {
                          'config': '/apis/networking.istio.io/v1/namespaces/prod/virtual-service/' + name}}}})
    return {'configs': [{'route_config': {'virtual_hosts': [{'routes': found}]}}]}


BASE = rule(('blue', 100), ('green', 0))
SPLIT = rule(('green', 500), ('blue', 9500), limit=17953726358)
ALONE = ([('blue', 1)], None)


def told(http, dump):
    return istio_routes.difference(istio_routes.wanted(http, full), istio_routes.shown(dump, 'prod', 'shop'))


@pytest.mark.parametrize('http, dump, said', [
    ([BASE], envoy(ALONE), ''),
    ([BASE], envoy(), 'it has no route of it'),
    ([BASE], envoy(ALONE, name='cart'), 'it has no route of it'),
    ([SPLIT, BASE], envoy(ALONE), 'it does not send requests to blue.prod.svc.cluster.local 9500, green.prod.svc.cluster.local 500 until'),
    ([SPLIT, BASE], envoy(([('green', 500), ('blue', 9500)], 17953726358), ALONE), ''),
    ([SPLIT, BASE], envoy(([('green', 500), ('blue', 9500)], 17953726258), ALONE), 'it still sends requests to'),
    # Renewed, and the Envoy has heard of it already.
    ([SPLIT, BASE], envoy(([('green', 500), ('blue', 9500)], 17953726458), ALONE), ''),
    ([SPLIT, BASE], envoy(([('green', 100), ('blue', 9900)], 17953726358), ALONE), 'it still sends requests to'),
    ([BASE], envoy(([('green', 500), ('blue', 9500)], 17953726358), ALONE), 'it still sends requests to'),
    ([rule(('green', 100))], envoy(ALONE), 'it still sends requests to blue.prod.svc.cluster.local 1'),
    ([BASE, {'redirect': {'uri': '/'}}], envoy(ALONE), '')])
def test_an_envoy_has_a_virtual_service_or_lacks_of_it(http, dump, said):
    text = told(http, dump)
    assert text.startswith(said) and bool(text) == bool(said), text


def clusters(**hosts):
    return {'cluster_statuses': [{'name': 'BlackHoleCluster'}, *({
        'name': 'outbound|80|%s|%s.prod.svc.cluster.local' % (subset, host),
        'host_statuses': [{'health_status': {'eds_health_status': one}} for one in health]} for host, (subset, *health) in hosts.items())]}


@pytest.mark.parametrize('told, said', [
    (clusters(blue=['', 'HEALTHY'], green=['', 'UNHEALTHY', 'HEALTHY']), ''),
    (clusters(blue=['', 'HEALTHY'], green=['', 'UNHEALTHY']), 'it knows nobody behind green.prod.svc.cluster.local yet'),
    (clusters(blue=['', 'HEALTHY'], green=['']), 'it knows nobody behind green.prod'),
    (clusters(blue=['', 'HEALTHY']), 'it knows nobody behind green.prod'),
    (clusters(blue=['', 'HEALTHY'], green=['v2', 'HEALTHY']), 'it knows nobody behind green.prod'),
    ({}, 'it knows nobody behind blue.prod.svc.cluster.local, green.prod'), ([], 'it knows nobody behind blue.prod')])
def test_an_envoy_knows_who_serves_an_arm_before_it_gets_a_share(told, said):
    text = istio_routes.unserved([('blue.prod.svc.cluster.local', ''), ('green.prod.svc.cluster.local', '')], told)
    assert text.startswith(said) and bool(text) == bool(said), text


@pytest.mark.parametrize('dump', [None, [], {}, {'configs': 3}, {'routes': [{'route': None}, 3]}])
def test_a_dump_of_something_else_has_nothing(dump):
    assert istio_routes.shown(dump, 'prod', 'shop') == set()


def traefik(service, weights=(), canary=False):
    key = 'prod-shop-rule-0-path-1'
    routers = {key + '@kubernetesingressnginx': {'service': service}, 'prod-shop-rule-0-path-1@kubernetescrd': {'service': 'other'}}
    if canary:
        routers[key + '-canary@kubernetesingressnginx'] = {'service': 'x'}
    services = {service + '@kubernetesingressnginx': {'weighted': {'services': [{'weight': one} for one in weights]}}} if weights else {}
    return {'routers': routers, 'services': services}


@pytest.mark.parametrize('raw, share, said', [
    (traefik('prod-shop-blue-80'), None, ''),
    (traefik('prod-shop-blue-80'), Share(500, 10000, False), 'has the weights of no canary'),
    (traefik('prod-shop-blue-80-wrr', (9500, 500)), Share(500, 10000, False), ''),
    (traefik('prod-shop-blue-80-wrr', (9900, 100)), Share(500, 10000, False), 'has the weights 9900 and 100'),
    (traefik('prod-shop-blue-80-wrr', (9500, 500)), None, 'has the weights 9500 and 500'),
    (traefik('prod-shop-green-80'), None, 'leads to prod-shop-green-80'),
    (traefik('prod-shop-blue-80-wrr', (9500, 500)), Share(500, 10000, True), 'is not there yet'),
    (traefik('prod-shop-blue-80-wrr', (9500, 500), True), Share(500, 10000, True), ''),
    (traefik('prod-shop-blue-80-wrr', (9500, 500), True), Share(500, 10000, False), 'is still there'),
    ({}, None, 'it has no router prod-shop-rule-0-path-1'), (None, None, 'it has no router')])
def test_a_traefik_has_a_canary_or_lacks_of_it(raw, share, said):
    text = traefik_raw.difference(raw, 'prod', 'shop', [Path(0, 1, 'blue')], share)
    assert said in text and bool(text) == bool(said), text


def test_a_router_that_has_nobody_to_ask_says_so():
    endpoint = {'router': 'service_selector', 'object': 'shop', 'admin': ['http://127.0.0.1:1']}
    with pytest.raises(BadInput, match='knows no data plane that it could ask there'):
        registry.build_all([endpoint], 'shop', {'blue': {'labels': {'version': '1'}}})
    with pytest.raises(BadInput, match='The admin of endpoint'):
        registry.build_all([{**endpoint, 'admin': ['file:///etc/passwd']}], 'shop', {'blue': {'labels': {'version': '1'}}})


@pytest.fixture
def process():
    """A process whose administration says how often it was asked; at 'slow' it does not answer for long."""
    class Handler(http.server.BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self):
            Handler.asked += 1
            if self.path == '/late' and Handler.asked > 1:
                time.sleep(1)
            with contextlib.suppress(OSError):
                self.send_response(500 if self.path == '/broken' else 200)
                self.end_headers()
                self.wfile.write(b'no JSON' if self.path == '/text' else str(Handler.asked).encode())

        def log_message(self, *args):
            pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield 'http://127.0.0.1:%d' % server.server_port
    server.shutdown()
    server.server_close()


def asked(process, path, until, timeout_s=0.5):
    return asyncio.run(admin.lacking([process], path, lambda told: '' if told >= until else 'asked %d times' % told, timeout_s))


def test_a_process_is_asked_until_it_has_all(process):
    assert asked(process, '/', 3, 30) == ''


@pytest.mark.parametrize('path, said', [
    ('/', ': asked '), ('/late', ': asked 1 times'), ('/broken', ': it answered with status 500'),
    ('/text', ': it did not answer with JSON')])
def test_what_a_process_said_last_is_told(process, path, said):
    assert asked(process, path, 1000).startswith(process + said)


def test_a_process_that_cannot_be_asked():
    assert 'could not be asked' in asked('http://127.0.0.1:1', '/', 1)
