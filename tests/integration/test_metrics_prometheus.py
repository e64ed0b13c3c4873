# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import subprocess
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import haproxy_lab as lab
import pytest

from ansible_collections.progressive.delivery.plugins.module_utils import _gate
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError, Refused, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import COUNTS, GAUGE
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import build_sources
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.web import Answer, Client, read_access
from ansible_collections.progressive.delivery.plugins.module_utils._watch import watch

# One Prometheus for all of them.
pytestmark = pytest.mark.xdist_group('prometheus')

ARMS = {'blue': {'backend': 'shop_blue'}, 'canary': {'backend': 'shop_canary'}}
VERSIONS = {'blue': '5.0', 'canary': '5.1'}


class Web:
    """An HTTP server whose answer is *answer(path, headers, body)* -> (status, text[, headers])."""

    def __init__(self, answer):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get('Content-Length') or 0)).decode()
                status, text, *more = outer.answer(self.path, self.headers, body)
                self.send_response(status)
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.send_header('Content-Length', str(len(text.encode())))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(text.encode())

            do_POST = do_GET

            def log_message(self, *args):
                pass

        self.answer = answer
        self._server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        self.url = 'http://127.0.0.1:%d' % self._server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()


class Exporter(Web):
    """Series as a dictionary of text to value; a change is seen by ``settled`` once Prometheus has scraped it."""

    def __init__(self):
        self.series, self.turn = {}, 0
        super().__init__(lambda path, headers, body: (
            200, ''.join('%s %r\n' % item for item in dict(self.series, turn=self.turn).items())))


@pytest.fixture(scope='module')
def prometheus(tmp_path_factory):
    home, port = tmp_path_factory.mktemp('prometheus'), lab.free_port()
    with Exporter() as exporter:
        (home / 'prometheus.yml').write_text(
            'global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n'
            'scrape_configs: [{job_name: shop, static_configs: [{targets: ["%s"]}]}]\n' % exporter.url[len('http://'):])
        with open(home / 'log', 'wb') as log:
            process = subprocess.Popen(
                ['/usr/bin/prometheus', '--config.file=%s' % (home / 'prometheus.yml'), '--storage.tsdb.path=%s' % (home / 'data'),
                 '--web.listen-address=127.0.0.1:%d' % port], stdout=log, stderr=log)
        try:
            exporter.prometheus = 'http://127.0.0.1:%d' % port

            def settled():
                exporter.turn += 1
                lab.wait_for(lambda: _instant(exporter.prometheus, 'turn == %d' % exporter.turn), 'Prometheus; it said: %s' % (
                    (home / 'log').read_text()[-600:]), 30)

            exporter.settled = settled
            settled()
            yield exporter
        finally:
            process.kill()
            process.wait(10)


def _instant(url, query):
    with contextlib.suppress(OSError):
        answer = lab.get(int(url.rsplit(':', 1)[1]), '/api/v1/query?' + urllib.parse.urlencode({'query': query}))
        return json.loads(answer.body)['data']['result'] if answer.status == 200 else None
    return None


def built(options, arms=None, versions=None):
    source, = build_sources('shop', arms or ARMS, [], {'metrics': dict({'type': 'prometheus', 'use_proxy': False}, **options)},
                            VERSIONS if versions is None else versions)
    return source


def polls(source, *between):
    """Polls once, then after each of *between*; returns the readings."""

    async def work():
        try:
            await source.open()
            readings = [await source.poll(time.monotonic())]
            for step in between:
                await asyncio.to_thread(step)
                readings.append(await source.poll(time.monotonic()))
            return readings
        finally:
            await source.close()
    return asyncio.run(work())


def poll(options, **more):
    return polls(built(options, **more))[0]


def test_values_of_arms_and_of_the_service(prometheus):
    prometheus.series = {'agents{arm="blue"}': 61, 'agents{arm="canary"}': 3,
                         'phase{version="5.1",backend="shop_canary",service="shop"}': 8,
                         'phase{version="501",backend="shop_canary",service="shop"}': 99}
    prometheus.settled()
    source = built({'url': prometheus.prometheus, 'queries': {
        'agents': 'agents{arm="$arm"}', 'phase': 'sum(phase{version=~"$version",backend=$backend,service="${service}"})',
        'all': 'sum(agents)', 'one': 'scalar(sum(agents)) / 2', 'raised': 'max_over_time(agents{arm="$arm"}[$window])'}})
    reading, = polls(source)
    assert source.metrics == dict.fromkeys(('agents', 'phase', 'all', 'one', 'raised'), GAUGE)
    assert reading.gauges == {('agents', 'blue'): 61, ('agents', 'canary'): 3, ('phase', 'canary'): 8, ('all', ''): 64, ('one', ''): 32,
                              ('raised', 'blue'): 61, ('raised', 'canary'): 3}
    assert reading.errors == () and reading.blocks == ()


def test_nothing_and_nan_are_no_data_and_infinity_is_a_value(prometheus):
    prometheus.series = {'zero{arm="blue"}': 0, 'one{arm="blue"}': 1}
    prometheus.settled()
    reading = poll({'url': prometheus.prometheus, 'queries': {
        'none': 'missing{arm="$arm"}', 'nan': 'zero{arm="$arm"} / zero{arm="$arm"}',
        'inf': 'sum(one{arm="$arm"}) / sum(zero{arm="$arm"})'}})
    assert reading.gauges == {('inf', 'blue'): math.inf} and reading.errors == ()


def test_several_series_are_an_error_that_says_what_to_do(prometheus):
    prometheus.series = {'agents{arm="blue",host="a"}': 1, 'agents{arm="blue",host="b"}': 2}
    prometheus.settled()
    message, = poll({'url': prometheus.prometheus, 'queries': {'agents': 'agents{arm="$arm"}'}}).errors
    assert '"agents" gave 2 series (' in message and 'host="a"' in message and 'instead of one value: aggregate' in message


def test_an_error_in_one_query_leaves_the_others(prometheus):
    prometheus.series = {'agents{arm="blue"}': 1}
    prometheus.settled()
    source = built({'url': prometheus.prometheus, 'queries': {'agents': 'agents{arm="$arm"}', 'good': 'sum(agents)'}})

    def split():
        prometheus.series = {'agents{arm="blue",host="a"}': 1, 'agents{arm="blue",host="b"}': 2}
        prometheus.settled()

    first, second = polls(source, split)
    assert not first.errors and len(second.errors) == 1 and second.gauges[('good', '')] == 3 and ('agents', 'blue') not in second.gauges


@pytest.mark.parametrize('query, words', [
    ('sum(agents{arm="$arm"}', 'HTTP 400: .*parse error'),
    ('agents{arm="$arm"}[5m]', 'result of type matrix'),
    ('"$arm"', 'result of type string'),
    ('agents{arm="$arm"} * on() group_left() {__name__=~".+"}', 'HTTP 422|gave')])
def test_a_query_that_cannot_work_is_refused_at_open(prometheus, query, words):
    prometheus.series = {'agents{arm="blue"}': 1, 'agents{arm="canary"}': 1}
    prometheus.settled()
    with pytest.raises(Refused, match=words):
        polls(built({'url': prometheus.prometheus, 'queries': {'x': query}}))


PAIR = {'bad': 'runs_total{arm="$arm",result="failed"}', 'total': 'runs_total{arm="$arm"}'}


def _runs(**series):
    return {'runs_total{arm="canary",instance_id="%s",result="%s"}' % tuple(key.split('_')): value for key, value in series.items()}


def test_counters_are_differenced_per_series_with_restarts_and_first_failures(prometheus):
    def step(**series):
        def change():
            prometheus.series = _runs(**series)
            prometheus.settled()
        return change

    step(a_ok=1000, b_ok=2000)()
    source = built({'url': prometheus.prometheus, 'counts': {'runs': PAIR}})
    assert source.metrics == {'runs': COUNTS}
    readings = polls(
        source,
        step(a_ok=1010, b_ok=2020),                                     # 30 good ones
        step(a_ok=1010, b_ok=2020),                                     # nothing new
        step(a_ok=1015, b_ok=2020, a_failed=3),                         # the first failures make a new series
        step(a_ok=7, b_ok=2030, a_failed=1),                            # a was restarted: 7 + 1 since, b went on
        step(b_ok=2030, c_ok=5))                                        # a is gone, c is new
    blocks = [[(block.requests, block.bad) for block in reading.blocks] for reading in readings]
    assert blocks == [[], [(30, 0)], [(0, 0)], [(8, 3)], [(18, 1)], [(5, 0)]]
    assert {block.arm for reading in readings for block in reading.blocks} == {'canary'}
    assert all(block.seconds > 0 and block.metric == 'runs' for reading in readings for block in reading.blocks)


def test_a_sum_that_goes_down_is_left_out_and_said(prometheus):
    def step(**series):
        def change():
            prometheus.series = _runs(**series)
            prometheus.settled()
        return change

    step(a_ok=1000, b_ok=2000)()
    source = built({'url': prometheus.prometheus, 'counts': {'runs': {key: 'sum(%s)' % text for key, text in PAIR.items()}}})
    readings = polls(source, step(a_ok=4, b_ok=2000), step(a_ok=10, b_ok=2004))
    assert [[block.requests for block in reading.blocks] for reading in readings] == [[], [], [10]]
    assert any('without sum()' in note for note in readings[1].notes)


def test_unreachable_and_slow_servers_are_one_error_each():
    reading = poll({'url': 'http://127.0.0.1:%d' % lab.free_port(), 'queries': {'a': 'up{arm="$arm"}', 'b': 'up'}})
    assert len(reading.errors) == 1 and 'Connection refused' in reading.errors[0]
    release = threading.Event()
    with Web(lambda *request: (release.wait(20), (200, '{}'))[1]) as web:
        reading = poll({'url': web.url, 'timeout': '200ms', 'queries': {'a': 'up'}})
        release.set()
    assert len(reading.errors) == 1 and 'did not answer within 0.2 s' in reading.errors[0]


@pytest.mark.parametrize('status, text, words', [
    (503, '{"status":"error","errorType":"unavailable","error":"TSDB not ready"}', 'HTTP 503: TSDB not ready'),
    (502, '<h1>Bad Gateway</h1>', 'HTTP 502: <h1>Bad Gateway'), (200, 'hello', 'type unknown'), (200, '[]', 'type unknown'),
    (200, '{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}', 'type vector'),
    (200, '{"status":"success","data":null}', 'type unknown'), (200, '[' * 100_000, 'type unknown')])
def test_strange_answers_are_sentences(status, text, words):
    with Web(lambda *request: (status, text)) as web:
        source = built({'url': web.url, 'queries': {'a': 'up'}})
        try:
            reading, = polls(source)
            message, = reading.errors
        except DeliveryError as exc:
            message = str(exc)
    assert words in message and '\n' not in message


def test_identity_warnings_and_refusal():
    seen = []

    def answer(path, headers, body):
        seen.append((path, headers.get('Authorization'), headers.get('X-Scope-OrgID'), urllib.parse.parse_qs(body)['query']))
        if headers.get('Authorization') == 'Bearer wrong':
            return 403, 'forbidden'
        return 200, '{"status":"success","warnings":["store x is\\ngone"],"data":{"resultType":"scalar","result":[1,"5"]}}'

    with Web(answer) as web:
        reading = poll({'url': web.url + '/prom/', 'token': 's3cret', 'headers': {'X-Scope-OrgID': 'shop'}, 'queries': {'a': 'up'}})
        assert reading.gauges == {('a', ''): 5} and any('store x is gone' in note for note in reading.notes)
        assert seen[-1] == ('/prom/api/v1/query', 'Bearer s3cret', 'shop', ['up'])
        poll({'url': web.url, 'username': 'me', 'password': 'pw', 'queries': {'a': 'up'}})
        assert seen[-1][1] == 'Basic ' + base64.b64encode(b'me:pw').decode()
        with pytest.raises(Refused, match='HTTP 403: forbidden') as caught:
            poll({'url': web.url, 'token': 'wrong', 'queries': {'a': 'up'}})
        assert 'wrong' not in str(caught.value)


@pytest.mark.parametrize('options, words', [
    ({}, 'asks nothing'), ({'queries': {'a b': 'up'}}, "metric 'a b'"), ({'queries': {'a': ''}}, 'must be a PromQL'),
    ({'queries': {'a': 'up{x="$pod"}'}}, r'uses \$pod'), ({'queries': {'a': 'up{x="$version"}'}}, r'uses \$version, which is not known'),
    ({'counts': {'a': {'bad': 'x'}}}, 'exactly bad and total'), ({'counts': {'a': {'bad': 'x', 'total': 'y'}}}, 'must name the arm'),
    ({'queries': {'a': 'up'}, 'url': 'ftp://x'}, 'url of the source'),
    ({'queries': {'a': 'up'}, 'url': 'http://u:p@x/'}, 'url of the source'),
    ({'queries': {'a': 'up'}, 'url': 'http://x/?a=b'}, 'must end with'),
    ({'queries': {'a': 'up'}, 'window': '5 min'}, 'not a duration of PromQL'),
    ({'queries': {'a': 'up'}, 'headers': {'A': 'b\r\nC: d'}}, 'cannot be sent'),
    ({'queries': {'a': 'up'}, 'colour': 1}, 'unknown option "colour"'),
    ({'queries': {'a': 'up'}, 'token': 'a', 'username': 'b', 'password': 'c'}, 'both a token'),
    ({'queries': {'a': 'up'}, 'timeout': 0}, 'timeout'),
    ({'queries': {'a': 'up'}, 'ca_path': 'ca.pem'}, 'absolute path'), ({'queries': {'a': 'up'}, 'type': 'datadog'}, 'unknown type'),
    ({'queries': {'a': 'up'}, 'validate_certs': 'maybe'}, 'true or false')])
def test_bad_options_are_named_before_anything_is_asked(options, words):
    with pytest.raises(BadInput, match=words):
        built(dict({'url': 'http://127.0.0.1:1'}, **options), versions={})


def test_names_are_checked_before_they_reach_a_query():
    with pytest.raises(BadInput):
        built({'url': 'http://x', 'queries': {'a': 'up{v="$version"}'}}, versions={'blue': '5.0', 'canary': '5"} or vector(1)'})
    with pytest.raises(BadInput):
        built({'url': 'http://x', 'queries': {'a': 'up'}}, arms={'a"b': {}})
    with pytest.raises(BadInput, match='is taken'):
        build_sources('shop', ARMS, [], {'router': {'type': 'prometheus'}})


def test_certificates_are_validated_unless_told_otherwise(tmp_path):
    import ssl
    key, cert = tmp_path / 'key.pem', tmp_path / 'cert.pem'
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
                    '-keyout', key, '-out', cert, '-days', '1', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'],
                   check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Web(lambda *request: (200, '{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}')) as web:
        web._server.socket = context.wrap_socket(web._server.socket, server_side=True)
        url = web.url.replace('http://127.0.0.1', 'https://localhost')
        assert 'ertificate' in poll({'url': url, 'queries': {'a': 'up'}}).errors[0]
        assert poll({'url': url, 'queries': {'a': 'up'}, 'ca_path': str(cert)}).gauges == {('a', ''): 1}
        assert poll({'url': url, 'queries': {'a': 'up'}, 'validate_certs': False}).gauges == {('a', ''): 1}

        # Whoever asks at the same moment with less caution lends none of it.
        async def many():
            strict, lax = (Client(read_access('x', {'validate_certs': careful}), 4) for careful in (True, False))
            asked = [client.fetch(url, 20) for _n in range(300) for client in (strict, lax)]
            return await asyncio.gather(*asked, return_exceptions=True)
        # Threads that take turns after every few instructions meet at whatever they share.
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            found = asyncio.run(many())
        finally:
            sys.setswitchinterval(before)
        assert {type(answer) for answer in found[0::2]} == {Unreachable} and {type(answer) for answer in found[1::2]} == {Answer}


def test_a_gate_knows_the_versions_of_its_arms(prometheus):
    prometheus.series = {'workers{version="5.1"}': 7, 'workers{version="5.0"}': 99}
    prometheus.settled()
    full = {key: spec.get('default') for key, spec in _gate.ARGUMENT_SPEC.items()}
    full.update(service='shop', arms=ARMS, candidate='canary', stable='blue', bake=1, interval=0.5, versions=VERSIONS, sources={
        'metrics': {'type': 'prometheus', 'url': prometheus.prometheus, 'queries': {'workers': 'workers{version="$version"}'}}},
        conditions=[{'source': 'metrics', 'metric': 'workers', 'abort_below': 5, 'pass_below': 10}])
    result = asyncio.run(watch(_gate.read_gate(full), Journal(None, None), lambda shown: None, lambda sentence: None))
    assert (result['verdict'], result['conditions'][0]['value']) == ('pass', 7), result
    with pytest.raises(BadInput, match=r'uses \$version, which is not known here'):
        _gate.read_gate({**full, 'versions': {}})
