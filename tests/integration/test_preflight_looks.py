# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The preflight before real HAProxy, TLS servers, Prometheus, Alertmanager and a Kubernetes API server."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trustme

import haproxy_lab as lab
from gate_lab import ARMS, ERRORS, HEAD, LINES, GateLab
from traffic_lab import validated

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._lock import Lock, holder_for
from ansible_collections.progressive.delivery.plugins.module_utils._preflight_run import PREFLIGHT_SPEC, run

ROOT = Path(__file__).resolve().parents[2]
STAGES = {'canary_stages': '5%:1m, 20%:1m', 'blue_green_stages': '100%:1m', 'interval': '1s'}


@pytest.fixture
def one():
    with GateLab() as made:
        lab.get(made.proxy.port)
        yield made


def preflight(one, **options):
    given = {'service': 'shop', 'arms': ARMS, 'endpoints': one.endpoints, 'stable': 'blue', 'canary_arm': 'canary', 'conditions': [ERRORS],
             'state_dir': str(one.proxy.dir), **STAGES, **options}
    return run(validated(PREFLIGHT_SPEC, given))


def said(result, name):
    """(subject, state, text) of each row of a check."""
    return [(row['subject'], row['state'], row['text']) for row in result['rows'] if row['name'] == name]


def states(result, name):
    return [row['state'] for row in result['rows'] if row['name'] == name]


# ---- routers, lock, metrics

def test_a_service_that_is_ready(one):
    result = preflight(one)
    assert (result['state'], result.get('failed')) == ('pass', None), result['text']
    assert said(result, 'servers') == [('blue', 'pass', '1 of 1 up'), ('canary', 'pass', '1 of 1 up')]
    assert said(result, 'metrics') == [('router', 'pass', 'it answers and has data for the stable arm')]
    assert said(result, 'clock')[0][:2] == ('lb1', 'pass')


def test_a_router_that_hangs_is_a_row_and_the_rest_is_judged(one):
    one.proxy.freeze()
    try:
        result = preflight(one, endpoints=[{**one.endpoints[0], 'deadline': 0.5}], dns=['localhost'])
    finally:
        one.proxy.thaw()
    assert result['failed'] and 'did not answer' in result['msg'] and states(result, 'routers') == ['fail']
    assert states(result, 'metrics') == ['fail'] and states(result, 'dns') == ['pass']


def test_a_backend_that_is_not_there(one):
    result = preflight(one, arms={'blue': {'backend': 'blue'}, 'canary': {'backend': 'canaries'}})
    assert 'no backend "canaries"' in said(result, 'metrics')[0][2] and result['failed']


def test_a_server_that_is_down(one):
    one.proxy.ask('disable server blue/b1')
    result = preflight(one)
    assert said(result, 'servers')[0] == ('blue', 'fail', 'none of the 1 servers of the stable arm is up') and result['failed']


def test_a_socket_that_may_not_write(tmp_path):
    with lab.Origin('blue') as blue, lab.HAProxy(
            LINES, head=HEAD.replace('level admin', 'level operator'), files={'delivery.map': ''}, blue=blue.port,
            canary=blue.port) as proxy:
        result = run(validated(PREFLIGHT_SPEC, {
            'service': 'shop', 'arms': ARMS, 'stable': 'blue', 'canary_arm': 'canary', **STAGES,
            'endpoints': [{'name': 'lb1', 'socket': proxy.address, 'map': str(proxy.dir / 'delivery.map'), 'ring': 'events'}]}))
    assert states(result, 'permissions') == ['fail'] and 'level admin' in result['msg']


def test_another_rollout_has_the_traffic(one):
    one.move('50%', rollout='theirs')
    result = preflight(one)
    assert 'is being rolled out by theirs' in said(result, 'lock')[0][2] and result['failed']
    assert states(preflight(one, rollout='theirs'), 'lock') == ['pass']
    assert states(preflight(one, force=True), 'lock') == ['warn']


def test_another_rollout_has_the_lock(one):
    lock = Lock(str(one.proxy.dir / 'shop' / 'lock'))
    lock.acquire(holder_for('theirs', 'ann', time.time(), os.getpid()))
    assert 'theirs by ann' in said(preflight(one), 'lock')[0][2]
    assert states(preflight(one, rollout='theirs'), 'lock') == ['pass']
    lock.release('theirs')
    holder = subprocess.Popen(['sleep', '60'])
    lock.acquire(holder_for('theirs', 'ann', time.time(), holder.pid))
    holder.kill()
    holder.wait()
    assert states(preflight(one), 'lock') == ['pass'], 'its process is gone'


def test_a_version_that_is_live_already(one):
    one.move('100%', lease=None, rollout='r1', version='7', previous_version='6')
    result = preflight(one, version='7', stable=None, hosts={'web1': {'error': 'gone'}})
    assert result['state'] == 'pass' and 'nothing to roll out' in said(result, 'plan')[0][2]
    assert states(preflight(one, version='8', stable=None, rollout='r1', hosts={'web1': {'error': 'gone'}}), 'cpu') == ['fail']


def test_no_request_yet_is_a_warning():
    with GateLab() as one:
        assert states(preflight(one), 'metrics') == ['warn']


@pytest.mark.parametrize(('required', 'state'), [(True, 'fail'), (False, 'warn')])
def test_a_source_that_is_gone_stops_a_rollout_that_it_would_decide(one, required, state):
    agents = {'name': 'agents', 'source': 'gone', 'metric': 'agents', 'abort_below': 1, 'required': required}
    found = preflight(one, conditions=[ERRORS, agents], sources={
        'gone': {'type': 'prometheus', 'url': 'http://127.0.0.1:9', 'queries': {'agents': 'x'}}})
    (_subject, told, text), = [row for row in said(found, 'metrics') if row[0] == 'gone']
    assert told == state and 'refused' in text and (found['state'] == 'fail') is required


def test_a_plan_that_cannot_be(one):
    assert 'has no bake' in said(preflight(one, canary_stages=[{'share': '5%'}]), 'plan')[0][2]


@pytest.mark.parametrize('wrong', [{'deadline': 'soon'}, {'deadline': 0}, {'skip': ['x']}, {'limits': {'x': {}}}, {'dns': ['a b']}])
def test_what_is_asked_wrongly_is_no_matter_of_readiness(one, wrong):
    with pytest.raises(BadInput):
        preflight(one, **wrong)


# ---- certificates and names

@contextlib.contextmanager
def tls(authority, name='localhost', days=90, silent=False):
    """A TLS server, or one that takes connections and is *silent*; yields its port."""
    ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, not_after=ends, not_before=ends - datetime.timedelta(days=100)).configure_cert(context)
    listener = socket.create_server(('127.0.0.1', 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                plain, _peer = listener.accept()
                if silent:
                    kept.append(plain)
                    continue
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as talk:
                    talk.recv(1)
    kept = []
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for plain in kept:
            plain.close()


@pytest.mark.parametrize('days, state, text', [
    (90, 'pass', 'runs out in 9'), (10, 'warn', 'runs out in 1'), (1, 'fail', 'runs out in'), (-5, 'fail', 'expired')])
def test_certificates_are_seen_as_clients_see_them(one, tmp_path, days, state, text):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / 'ca.pem')
    with tls(authority, days=days) as port:
        where = {'address': '127.0.0.1:%d' % port, 'server_name': 'localhost', 'ca_path': str(tmp_path / 'ca.pem')}
        (_subject, found, told), = said(preflight(one, certificates=[where]), 'certificates')
    assert found == state and text in told, told


def test_certificates_that_no_client_takes(one, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / 'ca.pem')
    with tls(authority, name='other.example') as port, tls(authority, silent=True) as silent:
        ca = {'ca_path': str(tmp_path / 'ca.pem'), 'server_name': 'localhost'}
        result = preflight(one, deadline='1s', certificates=[
            'https://127.0.0.1:%d' % port, {'address': '127.0.0.1:%d' % port, **ca}, {'address': '127.0.0.1:%d' % silent, **ca},
            '127.0.0.1:%d' % lab.free_port(), {'address': '127.0.0.1:1', 'ca_path': '/nope'}])
    texts = [text for _subject, state, text in said(result, 'certificates') if state == 'fail']
    words = ('not accepted', 'ostname mismatch', 'did not answer', 'refused', '/nope')
    assert [word for word in words if not any(word in text for text in texts)] == []


def test_names(one):
    result = preflight(one, dns=['localhost', 'no-such-host.invalid'])
    assert [(subject, state) for subject, state, _text in said(result, 'dns')] == [('localhost', 'pass'), ('no-such-host.invalid', 'fail')]


# ---- alerts

@contextlib.contextmanager
def program(home, *command):
    with open(home / 'log', 'wb') as log:
        process = subprocess.Popen(list(command), stdout=log, stderr=log, cwd=home)
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


def test_alerts_of_a_real_prometheus(one, tmp_path):
    port = lab.free_port()
    (tmp_path / 'rules.yml').write_text(json.dumps({'groups': [{'name': 'g', 'interval': '1s', 'rules': [
        {'alert': 'ErrorsHigh', 'expr': 'vector(1)', 'labels': {'service': 'shop'}, 'annotations': {'summary': 'too "many"\nerrors'}},
        {'alert': 'Soon', 'expr': 'vector(1)', 'for': '1h', 'labels': {'service': 'shop'}},
        {'alert': 'NotOurs', 'expr': 'vector(1)', 'labels': {'service': 'other'}}]}]}))
    (tmp_path / 'prometheus.yml').write_text(json.dumps({'rule_files': [str(tmp_path / 'rules.yml')]}))
    url = 'http://127.0.0.1:%d' % port
    alerts = {'url': url, 'use_proxy': False}
    assert states(preflight(one, alerts=alerts), 'alerts') == ['warn'], 'nobody answers, and safety does not depend on it'
    with program(tmp_path, '/usr/bin/prometheus', '--config.file=prometheus.yml', '--storage.tsdb.path=%s' % (tmp_path / 'data'),
                 '--web.listen-address=127.0.0.1:%d' % port):
        lab.wait_for(lambda: len(said(preflight(one, alerts=alerts), 'alerts')) == 2, 'the alerts', 30)
        found = said(preflight(one, alerts=alerts), 'alerts')
        assert sorted(found) == [('ErrorsHigh', 'fail', 'firing: too "many" errors'), ('Soon', 'warn', 'pending')]
        assert states(preflight(one, alerts={**alerts, 'labels': {'service': 'third'}}), 'alerts') == ['pass']
        assert 'does not answer' not in preflight(one, alerts=alerts)['text']
        assert states(preflight(one, alerts={**alerts, 'type': 'alertmanager'}), 'alerts') == ['warn'], 'that is no Alertmanager'


def test_alerts_of_a_real_alertmanager(one, tmp_path):
    port = lab.free_port()
    (tmp_path / 'am.yml').write_text(json.dumps({'route': {'receiver': 'none'}, 'receivers': [{'name': 'none'}]}))
    url = 'http://127.0.0.1:%d' % port
    alerts = {'url': url, 'type': 'alertmanager', 'use_proxy': False}

    def post(path, body):
        subprocess.run(['curl', '-sf', '--noproxy', '*', '-H', 'Content-Type: application/json', '-d', json.dumps(body), url + path],
                       check=True, stdout=subprocess.DEVNULL)

    with program(tmp_path, '/usr/bin/prometheus-alertmanager', '--config.file=am.yml', '--storage.path=%s' % (tmp_path / 'data'),
                 '--web.listen-address=127.0.0.1:%d' % port, '--cluster.listen-address='):
        lab.wait_for(lambda: states(preflight(one, alerts=alerts), 'alerts') == ['pass'], 'Alertmanager', 30)
        post('/api/v2/alerts', [{'labels': {'alertname': 'ErrorsHigh', 'service': 'shop'}}, {'labels': {'alertname': 'X', 'service': 'y'}}])
        lab.wait_for(lambda: said(preflight(one, alerts=alerts), 'alerts')[0][:2] == ('ErrorsHigh', 'fail'), 'the alert', 30)
        post('/api/v2/silences', {
            'matchers': [{'name': 'service', 'value': 'shop', 'isRegex': False}], 'startsAt': '2020-01-01T00:00:00Z',
            'endsAt': '2099-01-01T00:00:00Z', 'createdBy': 'ann', 'comment': 'planned'})
        lab.wait_for(lambda: states(preflight(one, alerts=alerts), 'alerts') == ['pass'], 'the silence', 30)


# ---- the playbook

def test_the_playbook_looks_at_hosts_and_one_that_is_gone_is_a_row(one, tmp_path):
    (tmp_path / 'hosts.yml').write_text(json.dumps({
        'all': {'hosts': {'localhost': {'ansible_connection': 'local'}}},
        'delivery_preflight_hosts': {'hosts': {
            'here': {'ansible_connection': 'local', 'ansible_python_interpreter': sys.executable},
            'gone': {'ansible_host': '127.0.0.1', 'ansible_port': lab.free_port(), 'ansible_connection': 'ssh'}}}}))
    (tmp_path / 'backup.yml').write_text(
        '- name: Tell\n  ansible.builtin.set_fact:\n    delivery_backup: {time: %d, text: of the lab}\n' % time.time())
    variables = {
        'delivery_service': 'shop', 'delivery_arms': ARMS, 'delivery_endpoints': one.endpoints, 'delivery_stable_arm': 'blue',
        'delivery_state_dir': str(tmp_path / 'state'), 'delivery_output': 'json',
        'delivery_backup_check_tasks': str(tmp_path / 'backup.yml'),
        'delivery_preflight_paths': ['/', '/no/such/path'],
        'delivery_preflight_limits': {'cpu': {'fail': None}, 'memory': {'fail': None}, 'disk': {'fail': None}}}
    done = subprocess.run(
        [str(Path(sys.executable).parent / 'ansible-playbook'), '-i', str(tmp_path / 'hosts.yml'), '--check',
         str(ROOT / 'playbooks' / 'preflight.yml'), '-e', json.dumps(variables)],
        env={**os.environ, 'ANSIBLE_CONFIG': str(ROOT / 'ansible.cfg'), 'ANSIBLE_NOCOLOR': '1'}, capture_output=True, text=True,
        check=False, timeout=120)
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{')))
    rows = {(row['name'], row['subject']): row for row in told['rows']}
    assert rows['cpu', 'here']['state'] in ('pass', 'warn') and rows['memory', 'here']['state'] in ('pass', 'warn')
    assert rows['disk', 'here /no/such/path']['state'] == 'fail' and rows['clock', 'here']['state'] == 'pass'
    assert rows['cpu', 'gone']['state'] == 'fail' and 'Readiness could not be read from the host gone' in rows['cpu', 'gone']['text']
    assert rows['backup', '']['state'] == 'pass', rows
    assert done.returncode == 2 and 'unreachable=0    failed=1' in done.stdout and 'UNREACHABLE' not in done.stdout, done.stdout
    assert not (tmp_path / 'state').exists()
