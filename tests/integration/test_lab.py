# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab itself, for real: what the other tests and `make rollout` take for granted."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from haproxy_lab import get, wait_for

LAB_DIR = Path(__file__).resolve().parents[2] / 'lab'
sys.path.insert(0, str(LAB_DIR))

import load
import stack
from layout import Layout, LabError
from processes import Process

# One lab at a time: they are meant for a machine with two cores.
pytestmark = pytest.mark.xdist_group('lab')

RATE = 150


def free_ports():
    """Returns the first of 40 ports that nobody uses, and that no lab of e2e_lab takes when its arms start."""
    while True:
        first = random.randrange(30000, 32000, 40)
        try:
            stack._check_ports(Layout(Path('/nowhere'), first))
        except LabError:
            continue
        return first


@contextlib.contextmanager
def new_lab():
    lab = Layout(Path(tempfile.mkdtemp(prefix='pd-', dir='/tmp')), free_ports())
    try:
        yield lab
    finally:
        stack.down(lab)
        shutil.rmtree(lab.dir, ignore_errors=True)


@pytest.fixture(scope='module')
def running():
    with new_lab() as lab:
        stack.up(lab, '5.0', 300)
        yield lab


@pytest.fixture
def lab(running):
    """The lab with blue alone, all traffic on it, and nothing received yet."""
    split(running, '0/blue/rand/-/v=5.0')
    for arm in ('canary', 'green'):
        stack.stop_arm(running, arm)
    wait_for(lambda: states(running, 'canary') == states(running, 'green') == {'DOWN'}, 'arms that are down')
    for path in running.received.glob('*.jsonl'):
        path.write_text('')
    return running


def command(lab, *words):
    """Runs lab.py as a user does."""
    return subprocess.run([sys.executable, str(LAB_DIR / 'lab.py'), *map(str, words)], capture_output=True, text=True, check=False,
                          timeout=120, env={**os.environ, 'LAB_DIR': str(lab.dir), 'LAB_PORT': str(lab.port)})


def split(lab, value):
    assert not stack.ask(lab, 'set map %s shop %s' % (lab.map, value)).strip()


def to_canary(lab, share):
    split(lab, '%d/blue/rand/-/v=5.0/canary/%d' % ((time.time() + 60) * 1000, share))


def states(lab, arm):
    found = stack.server_states(lab)
    return {found.get('%s/%s' % (arm, server)) for server in lab.arms[arm]}


def canary(lab, fault='none'):
    """A canary that HAProxy knows to be up."""
    stack.start_arm(lab, 'canary', '5.1', fault)
    wait_for(lambda: states(lab, 'canary') == {'UP'}, 'a canary that is up')


def received(lab, arm):
    return [json.loads(line)['id'] for server in lab.arms[arm] for path in [lab.received / (server + '.jsonl')] if path.exists()
            for line in path.read_text().splitlines() if '"id"' in line and json.loads(line)['id'] != '-']


def port(lab, server='c1'):
    return next(servers[server] for servers in lab.arms.values() if server in servers)


def gone(lab, arm):
    return not any(Process(lab.run, lab.logs, server).record() for server in lab.arms[arm])


@contextlib.contextmanager
def under_load(lab):
    """Load while the body runs, and the account of it, as `lab.py run` makes it, in the dictionary that it yields."""
    account = {}
    binary = load.built_vegeta()
    generator = stack.load_process(lab)
    lab.attack.unlink(missing_ok=True)
    generator.start([sys.executable, LAB_DIR / 'lab.py', 'load', '--rate', RATE, '--duration', 60],
                    env={'LAB_DIR': str(lab.dir), 'LAB_PORT': str(lab.port)})
    try:
        stack.await_load(lab, generator)
        yield account
    finally:
        stack.stop_load(lab)
    assert command(lab, 'result').returncode == 0
    account.update(json.loads(lab.result.read_text()), hits=load.read_hits(binary, lab.attack))
    # Nothing that a server had is missing in the load generator's own count.
    assert {name for arm in lab.arms for name in received(lab, arm)} <= {hit.id for hit in account['hits']}


def test_an_arm_starts_and_stops_once(lab):
    start = ('start-arm', '--arm', 'canary', '--version', '5.1')
    assert [command(lab, *start).stdout for _turn in range(2)] == ['changed\n', 'unchanged\n']
    answer = get(port(lab), '/api/items?id=one')
    assert (answer.status, answer.headers['x-version'], answer.headers['x-arm']) == (200, '5.1', 'canary')
    assert command(lab, *start, '--fault', 'errors').stdout == 'changed\n'
    assert 'canary 5.1, fault errors' in command(lab, 'status').stdout
    assert [command(lab, 'stop-arm', '--arm', 'canary').stdout for _turn in range(2)] == ['changed\n', 'unchanged\n']
    assert gone(lab, 'canary')


def test_an_arm_that_does_not_come_up_is_an_error_with_its_own_words(lab):
    with socket.create_server(('127.0.0.1', port(lab))):
        done = command(lab, 'start-arm', '--arm', 'canary', '--version', '5.1')
    assert done.returncode == 1
    assert 'did not become ready on port %d' % port(lab) in done.stderr
    assert 'address already in use' in done.stderr
    assert gone(lab, 'canary')


def test_health_follows_the_life_of_a_process(lab):
    canary(lab)
    assert [get(port(lab), '/health/' + what).status for what in ('live', 'ready', 'startup')] == [200, 200, 200]
    Process(lab.run, lab.logs, 'c1').signal(signal.SIGTERM)
    wait_for(lambda: get(port(lab), '/health/ready').status == 503, 'readiness that is off')
    assert get(port(lab), '/health/live').status == 200
    assert get(port(lab), '/api/items?id=late').status == 200


def test_metrics_count_what_was_answered(lab):
    canary(lab, 'errors')
    codes = [get(port(lab), '/api/items?id=%d' % n).status for n in range(40)]
    metrics = get(port(lab), '/metrics').body
    for code in (200, 500):
        assert 'http_requests_total{version="5.1",method="GET",code="%d"} %d' % (code, codes.count(code)) in metrics
    assert 'shop_agents_active{version="5.1"} 61' in metrics
    assert 'http_request_duration_seconds_bucket{version="5.1",le="+Inf"} 40' in metrics


def test_faults_switch_while_it_runs(lab):
    canary(lab)
    assert command(lab, 'fault', '--arm', 'canary', '--fault', 'silent').returncode == 0
    with pytest.raises(TimeoutError):
        get(port(lab), '/api/items?id=unanswered', timeout=0.5)
    assert get(port(lab), '/health/ready').status == 200
    assert received(lab, 'canary') == ['unanswered']
    assert command(lab, 'fault', '--arm', 'canary', '--fault', 'hang').returncode == 0
    with pytest.raises(TimeoutError):
        get(port(lab), '/health/live', timeout=0.5)
    wait_for(lambda: states(lab, 'canary') == {'DOWN'}, 'HAProxy to notice')
    assert command(lab, 'fault', '--arm', 'canary', '--fault', 'none').returncode == 0
    wait_for(lambda: states(lab, 'canary') == {'UP'}, 'HAProxy to notice')


def test_admin_and_metrics_are_not_for_clients(lab):
    assert [get(lab.ports['frontend'], path).status for path in ('/admin/fault', '/metrics', '/api/items?id=x')] == [403, 403, 200]


def test_a_canary_that_dies_costs_only_requests_that_it_had(lab):
    canary(lab, 'crash')
    with under_load(lab) as account:
        to_canary(lab, 2000)
        wait_for(lambda: gone(lab, 'canary'), 'processes that died')
        dead = time.time()
        wait_for(lambda: time.time() > dead + 1, 'requests after their death')
    assert account['failed_stable'] == 0
    assert len(received(lab, 'canary')) > 20
    later = [hit for hit in account['hits'] if hit.sent > dead]
    assert len(later) > RATE / 2
    assert {hit.version for hit in later} == {'5.0'} and not any(hit.failed for hit in later)
    assert account['fault_to_last_bad_s'] is not None


def test_stopping_an_arm_that_has_traffic_loses_nothing(lab):
    canary(lab)
    with under_load(lab) as account:
        to_canary(lab, 5000)
        wait_for(lambda: len(received(lab, 'canary')) > RATE, 'requests on the canary')
        assert stack.stop_arm(lab, 'canary')
    assert account['failed'] == 0
    assert account['versions']['5.1']


def test_errors_are_the_candidates_and_the_share_is_the_one_asked_for(lab):
    canary(lab, 'errors')
    with under_load(lab) as account:
        to_canary(lab, 5000)
        wait_for(lambda: len(received(lab, 'canary')) > 2 * RATE, 'requests on the canary')
        split(lab, '0/blue/rand/-/v=5.0')
    assert account['failed'] == account['versions']['5.1']['500'] > 0
    assert account['failed_stable'] == 0
    assert set(account['versions']['5.0']) == {'200', '201'}
    # Five standard deviations of a fifth.
    had = len(received(lab, 'canary'))
    assert abs(account['failed'] - 0.2 * had) < 5 * (0.16 * had) ** 0.5


def test_a_command_runs_under_load_and_its_status_is_kept(lab):
    journal = lab.state / 'shop' / 'r1.jsonl'
    script = '''
import json, os, sys, time
from pathlib import Path
path = Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
now = time.time()
events = [('rollout_started', {'previous_version': '5.0'}), ('rollout_finished', {'outcome': 'rolled_back', 'reason': 'It was bad.'})]
path.write_text(''.join(json.dumps({'ts': now, 'event': name, **more}) + '\\n' for name, more in events))
sys.exit(7)
'''
    done = command(lab, 'run', '--rate', RATE, '--', sys.executable, '-c', script, journal)
    assert done.returncode == 7, done.stderr
    result = json.loads(lab.result.read_text())
    assert (result['outcome'], result['reason'], result['failed'], result['journal']) == ('rolled_back', 'It was bad.', 0, str(journal))
    assert result['requests'] > 0
    assert done.stdout.splitlines()[-1] == 'rolled back: It was bad.'
    assert not stack.load_process(lab).record()


def test_a_signal_to_the_run_ends_the_command_and_the_load(lab):
    lab.attack.unlink(missing_ok=True)
    run = subprocess.Popen([sys.executable, str(LAB_DIR / 'lab.py'), 'run', '--rate', str(RATE), '--', 'sleep', '100'],
                           stdout=subprocess.PIPE, text=True, env={**os.environ, 'LAB_DIR': str(lab.dir), 'LAB_PORT': str(lab.port)})
    wait_for(lambda: lab.attack.exists() and lab.attack.stat().st_size > 8192, 'load')
    busy = command(lab, 'up')
    assert (busy.returncode, 'Somebody uses the lab' in busy.stderr) == (1, True)
    run.terminate()
    said, _nothing = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM
    assert 'load: ' in said
    assert not stack.load_process(lab).record()


@pytest.mark.parametrize('words, sentence', [
    (['up', '--version', '5.0/6'], 'The version \'5.0/6\' is not usable'),
    (['run'], 'Give the command to run'),
])
def test_what_cannot_be_is_said_in_a_sentence(lab, words, sentence):
    done = command(lab, *words)
    assert (done.returncode, sentence in done.stderr) == (1, True), done.stderr


def test_prometheus_sees_the_arms(lab):
    if not Process(lab.run, lab.logs, 'prometheus').record():
        pytest.skip('Prometheus is not installed')

    def value():
        answer = get(lab.ports['prometheus'], '/api/v1/query?query=sum(shop_agents_active%7Barm=%22blue%22%7D)')
        found = json.loads(answer.body)['data']['result'] if answer.status == 200 else []
        return found and found[0]['value'][1] == '122'
    wait_for(value, 'samples of both servers of blue')


def test_without_alertmanager_prometheus_is_told_of_none(tmp_path, monkeypatch):
    lab, which = Layout(tmp_path, 20000), shutil.which
    monkeypatch.setattr(shutil, 'which', lambda name: None if 'alertmanager' in name else which(name))
    there = stack._start_alertmanager(lab)
    assert not there and not list(tmp_path.iterdir())
    assert 'alertmanagers' not in stack._render(lab, 'prometheus.yml.j2', textfile=None, alertmanager=there)


def test_a_lab_stops_by_itself_and_leaves_nothing():
    with new_lab() as lab:
        stack.up(lab, '5.0', 2)
        assert stack.is_up(lab)
        wait_for(lambda: not list(lab.run.glob('*.json')), 'a lab that has ended', 20)
        stack._check_ports(lab)


def test_a_port_that_is_taken_is_an_error_before_anything_starts():
    with new_lab() as lab, socket.create_server(('127.0.0.1', port(lab, 'g2'))):
        done = command(lab, 'up')
        assert done.returncode == 1
        assert 'Port %d is in use by something else' % port(lab, 'g2') in done.stderr
        assert not list(lab.run.glob('*.json'))
