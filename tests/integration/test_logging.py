# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role logging: a real rsyslogd with the configuration that the role has written, real HAProxy, and receivers that count records."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import haproxy_lab as lab

from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.logline import parse_line
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal

ROOT = Path(__file__).resolve().parents[2]
RSYSLOGD = shutil.which('rsyslogd', path='/usr/sbin:/usr/bin')
pytestmark = pytest.mark.skipif(not RSYSLOGD, reason='rsyslog is not installed')

# What README.md tells users to write, with the version that answered.
LOG_FORMAT = next(line.strip() for line in (ROOT / 'docs' / 'logging.md').read_text().splitlines() if line.strip().startswith('log-format'))
SECRET = 'a"b\\c$d %e'
EDGE = '''\
frontend shop
    bind 127.0.0.1:{port}
    option httplog
    log 127.0.0.1:{edge} len 8192 format rfc5424 local0
    http-request set-var(txn.pd) str(shop),map_str({dir}/delivery.map)
    http-response set-var(txn.pd_version) res.hdr(x-version)
    ''' + LOG_FORMAT.replace('{', '{{').replace('}', '}}') + '''
    default_backend blue
backend blue
    http-response set-header x-version 5.0
    server b1 127.0.0.1:{blue}
'''


class Receiver:
    """A fake of the two HTTP interfaces that records are sent to, Elasticsearch's bulk API and Loki's push API: neither program can be had
    here. It keeps what arrives, answers as their references say, and can be told to be ill."""

    def __init__(self):
        self.documents: list[tuple[str, dict]] = []
        self.streams: list[tuple[dict, str, dict]] = []
        self.headers: dict[str, str] = {}
        self.ill = False
        keeper = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self):
                self._say(503 if keeper.ill else 200, {})

            do_HEAD = do_GET

            def do_POST(self):
                text = self.rfile.read(int(self.headers['Content-Length'])).decode()
                if keeper.ill:
                    return self._say(503, {'error': 'ill'})
                keeper.headers[self.path.split('?')[0]] = {name.lower(): value for name, value in self.headers.items()}
                if self.path.startswith('/loki/'):
                    for stream in json.loads(text)['streams']:
                        keeper.streams += [(stream['stream'], at, json.loads(line)) for at, line in stream['values']]
                    self.send_response(204)
                    self.send_header('Content-Length', '0')
                    return self.end_headers()
                assert self.headers['Content-Type'] == 'application/x-ndjson'
                lines = [json.loads(line) for line in text.splitlines() if line]
                keeper.documents += [(head['index'], document) for head, document in zip(lines[::2], lines[1::2])]
                return self._say(200, {'errors': False, 'items': [{'index': {'status': 201}} for _one in lines[::2]]})

            def _say(self, status, body):
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args):
                pass

        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        self.url = 'http://127.0.0.1:%d' % self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={'poll_interval': 0.05}, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Shipper:
    """The role's configuration in a directory of its own, and rsyslogd with it."""

    def __init__(self, home, outputs, expect=0):
        self.home, self.process = home, None
        self.port = lab.free_port()
        self.state, self.file = home / 'state', home / 'out.jsonl'
        (self.state / 'shop').mkdir(parents=True, exist_ok=True)
        self.said = self.role(outputs)
        assert self.said.returncode == expect, self.said.stdout + self.said.stderr

    def role(self, outputs, *extra, **variables):
        play = [{'hosts': 'localhost', 'gather_facts': False, 'connection': 'local', 'roles': ['progressive.delivery.logging'], 'vars': {
            'logging_install': False, 'logging_service': False, 'logging_state_dir': str(self.state), 'logging_edge_port': self.port,
            'logging_directory': str(self.home / 'conf'), 'logging_work_directory': str(self.home / 'work'), 'logging_retry': 1,
            'logging_retry_longest': 1, 'logging_python': sys.executable, 'logging_outputs': outputs,
            'ansible_python_interpreter': sys.executable, **variables}}]
        (self.home / 'play.yml').write_text(json.dumps(play))
        return subprocess.run(
            [str(Path(sys.executable).parent / 'ansible-playbook'), '-i', 'localhost,', str(self.home / 'play.yml'), *extra],
            env={**os.environ, 'ANSIBLE_CONFIG': str(ROOT / 'ansible.cfg'), 'ANSIBLE_NOCOLOR': '1',
                 'PATH': os.environ['PATH'] + ':/usr/sbin'}, capture_output=True, text=True, check=False, timeout=120)

    def start(self):
        self.process = subprocess.Popen([RSYSLOGD, '-n', '-f', str(self.home / 'conf' / 'rsyslog.conf'), '-i', str(self.home / 'pid')],
                                        stdout=(self.home / 'log').open('ab'), stderr=subprocess.STDOUT)
        return self

    def stop(self, number=signal.SIGTERM):
        if self.process:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def lines(self):
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []


@pytest.fixture
def home():
    path = Path(tempfile.mkdtemp(prefix='pd-', dir='/tmp'))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def receiver():
    one = Receiver()
    yield one
    one.close()


@contextlib.contextmanager
def shipping(home, outputs):
    shipper = Shipper(home, outputs)
    try:
        yield shipper.start()
    finally:
        shipper.stop()


def journal(shipper, rollout='shop-20261122T1200Z-ab12'):
    """A journal as a rollout has it, with the link to it."""
    path = shipper.state / 'shop' / ('%s.jsonl' % rollout)
    link = shipper.state / 'shop' / 'latest.jsonl'
    if not link.is_symlink():
        link.symlink_to(path.name)
    return Journal(str(path), rollout)


def events(shipper):
    return [json.loads(line) for path in sorted(shipper.state.glob('shop/*.jsonl')) if not path.is_symlink()
            for line in path.read_text().splitlines()]


def arrived(records, expected):
    """Whether each of *expected* is there exactly once, member for member."""
    found = [json.dumps(record['data'], sort_keys=True) for record in records if record['kind'] == 'journal']
    return sorted(found) == sorted(json.dumps(event, sort_keys=True) for event in expected)


def write_some(own, start, count):
    for number in range(start, start + count):
        own.write('sample', stage='canary 5 %', arms={'canary': {'requests': number, 'p95': 0.1 + number / 3}},
                  text='"quoted"\n\\ü €', big='x' * 9000)


def test_every_event_arrives_once_wherever_it_is_sent(home, receiver):
    outputs = [{'type': 'file', 'path': str(home / 'out.jsonl')}, {'type': 'loki', 'url': receiver.url, 'tenant': 't1'},
               {'type': 'elasticsearch', 'url': receiver.url, 'username': 'me', 'password': SECRET}]
    with shipping(home, outputs) as shipper:
        own = journal(shipper)
        own.write('rollout_started', service='shop', version='5.1', strict=True)
        write_some(own, 0, 20)
        own.write('verdict', stage='canary 5 %', arm='canary', verdict='fail', reason='It was bad.')
        wanted = events(shipper)
        assert len(wanted) == 22
        lab.wait_for(lambda: min(map(len, (shipper.lines(), receiver.documents, receiver.streams))) >= 22, 'the records', 30)
    assert arrived(shipper.lines(), wanted)
    assert arrived([document for _head, document in receiver.documents], wanted)
    assert arrived([line for _labels, _at, line in receiver.streams], wanted)
    last = next(one for one in shipper.lines() if one['event'] == 'verdict')
    assert {key: last[key] for key in ('kind', 'service', 'rollout', 'event', 'arm', 'text', '@timestamp')} == {
        'kind': 'journal', 'service': 'shop', 'rollout': own.rollout, 'event': 'verdict', 'arm': 'canary', 'text': 'It was bad.',
        '@timestamp': last['data']['t']}
    assert {head['_index'] for head, _document in receiver.documents} == {'progressive-delivery'}
    assert len({head['_id'] for head, _document in receiver.documents}) == 22, 'what is sent twice overwrites itself'
    assert {json.dumps(labels, sort_keys=True) for labels, _at, _line in receiver.streams} == {
        '{"job": "progressive.delivery", "kind": "journal", "service": "shop"}'}
    assert receiver.headers['/loki/api/v1/push']['x-scope-orgid'] == 't1'
    assert receiver.headers['/_bulk']['authorization'] == 'Basic ' + base64.b64encode(b'me:' + SECRET.encode()).decode()
    assert '%d' % (last['data']['ts'] * 1000) in ''.join(at for _labels, at, _line in receiver.streams)


@pytest.mark.parametrize('kind', ['elasticsearch', 'loki'])
def test_what_a_receiver_cannot_take_arrives_later(home, receiver, kind):
    def there():
        return [document for _head, document in receiver.documents] + [line for _labels, _at, line in receiver.streams]

    receiver.ill = True
    with shipping(home, [{'type': 'file', 'path': str(home / 'out.jsonl')}, {'type': kind, 'url': receiver.url}]) as shipper:
        own = journal(shipper)
        write_some(own, 0, 30)
        lab.wait_for(lambda: len(shipper.lines()) == 30, 'the file, which is not held up', 30)
        assert there() == []
        receiver.ill = False
        lab.wait_for(lambda: len(there()) >= 30, 'the records', 40)
        write_some(own, 30, 5)
        lab.wait_for(lambda: len(there()) >= 35, 'the rest', 40)
    assert arrived(there(), events(shipper))


def test_a_shipper_that_is_started_again_goes_on_where_it_was(home):
    with shipping(home, [{'type': 'file', 'path': str(home / 'out.jsonl')}]) as shipper:
        own = journal(shipper)
        write_some(own, 0, 10)
        lab.wait_for(lambda: len(shipper.lines()) == 10, 'the first records', 30)
        shipper.stop()
        write_some(own, 10, 10)
        journal(shipper, 'shop-20261122T1300Z-cd34').write('rollout_started', service='shop')
        shipper.start()
        lab.wait_for(lambda: len(shipper.lines()) >= 21, 'the rest', 30)
    assert arrived(shipper.lines(), events(shipper))


def test_a_line_that_was_cut_off_is_kept_as_it_is(home):
    with shipping(home, [{'type': 'file', 'path': str(home / 'out.jsonl')}]) as shipper:
        own = journal(shipper)
        own.write('rollout_started', service='shop')
        with open(own.path, 'a', encoding='utf-8') as file:
            file.write('{"t": "2026-11-22T12:00:00.000Z", "rollout": "shop-2", "eve\n')
        own.write('rollout_finished', outcome='failed')
        lab.wait_for(lambda: len(shipper.lines()) == 3, 'the records', 30)
    assert [one['event'] for one in shipper.lines()] == ['rollout_started', 'unreadable', 'rollout_finished']
    cut = shipper.lines()[1]
    assert (cut['rollout'], cut['service'], cut['text'][:20]) == (own.rollout, 'shop', '{"t": "2026-11-22T12')


def test_requests_at_the_edge(home):
    with shipping(home, [{'type': 'file', 'path': str(home / 'out.jsonl')}]) as shipper, lab.Origin('blue') as blue, lab.HAProxy(
            EDGE, files={'delivery.map': 'shop 0/blue/rand/-/id=shop-2026,by=ann,since=1,rev=3,v=5.0\n'}, blue=blue.port,
            edge=shipper.port) as proxy:
        paths = ['/plain', '/quo"te', '/back\\slash?a=@cee:{"x":1}', '/%22%5C{}']
        lab.wait_for(lambda: lab.get(proxy.port, '/first').status and shipper.lines(), 'the listener', 30)
        for path in paths:
            lab.get(proxy.port, path)
        lab.wait_for(lambda: shipper.lines()[-1]['uri'] == paths[-1], 'the requests', 30)
    found = [one for one in shipper.lines() if one['uri'] != '/first']
    assert [one['uri'] for one in found] == paths
    for one in found:
        assert {key: value for key, value in one.items() if key not in ('uri', 'ms', 'bytes', 'state', 'id', '@timestamp')} == {
            'kind': 'request', 'service': 'shop', 'arm': 'blue', 'server': 'b1', 'version': '5.0', 'stable_version': '5.0',
            'rollout': 'shop-2026', 'status': 200, 'method': 'GET'}
        assert isinstance(one['ms'], int) and one['@timestamp'].startswith('20')


def test_the_ring_reads_that_line_too():
    line = (b'127.0.0.1:44560 [22/Nov/2026:20:20:55.554] shop blue/b1 0/0/1/7/8 200 85 - - ---- 1/1/0/0/0 0/0 "GET / HTTP/1.1" '
            b'@cee:{"service":"shop"}')
    parsed = parse_line(line)
    assert (parsed.backend, parsed.server, parsed.Ta) == ('blue', 'b1', 8)


@pytest.mark.parametrize('output', [
    {'type': 'file', 'path': 'relative'}, {'type': 'file', 'path': '/a"b'}, {'type': 'loki'},
    {'type': 'elasticsearch', 'url': 'http://a:1/x y'},
    {'type': 'elasticsearch', 'url': 'http://a:1', 'index': 'A"'}, {'type': 'elasticsearch', 'url': 'http://a', 'username': 'x'},
    {'type': 'syslog'}])
def test_outputs_that_cannot_be_are_refused_before_anything_is_written(home, output):
    shipper = Shipper(home, [output], expect=2)
    assert not (home / 'conf').exists(), shipper.said.stdout


def test_a_second_run_changes_nothing_and_check_mode_writes_nothing(home):
    outputs = [{'type': 'file', 'path': str(home / 'out.jsonl')}]
    shipper = Shipper(home, outputs)
    assert 'changed=0' in shipper.role(outputs).stdout
    before = (home / 'conf' / 'rsyslog.conf').read_text()
    done = shipper.role(outputs, '--check', logging_retry=7)
    assert 'changed=1' in done.stdout and (home / 'conf' / 'rsyslog.conf').read_text() == before
