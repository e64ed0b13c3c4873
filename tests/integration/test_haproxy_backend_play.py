# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""haproxy_backend from a playbook: the action plugin, the module on a target, and the examples of the documentation.

community.general#2603: even the example of a drain was wrong. Here the examples run as they are printed; only addresses are replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from haproxy_lab import HAProxy, Origin, wait_for

from ansible_collections.progressive.delivery.plugins.modules import haproxy_backend, haproxy_backend_info

ROOT = Path(__file__).resolve().parents[2]
CONFIG = '''
backend shop
    balance roundrobin
    server web1 127.0.0.1:{a} weight 100 check inter 100
    server web2 127.0.0.1:{b} weight 100
backend shop_canary
    balance roundrobin
    server web1 127.0.0.1:{a}
'''


@pytest.fixture
def lab() -> t.Iterator[tuple[HAProxy, HAProxy, Origin]]:
    with Origin('a') as a, Origin('b') as b, HAProxy(CONFIG, a=a.port, b=b.port) as one, HAProxy(CONFIG, a=a.port, b=b.port) as two:
        wait_for(lambda: all('L4OK' in proxy.ask('show stat shop 4 -1') for proxy in (one, two)), 'checks')
        yield one, two, b


def play(tmp_path: Path, tasks: list[dict[str, t.Any]], *arguments: str,
         **variables: t.Any) -> tuple[int, list[dict[str, t.Any]], list[str]]:
    """Runs *tasks* in a play; returns the exit code, the results in order and the lines of diffs."""
    (tmp_path / 'ansible.cfg').touch()
    book = tmp_path / 'play.yml'
    book.write_text(json.dumps([{'hosts': 'localhost', 'connection': 'local', 'gather_facts': False, 'vars': variables, 'tasks': tasks}]))
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / '.collections'), ANSIBLE_STDOUT_CALLBACK='default',
               ANSIBLE_CONFIG=str(tmp_path / 'ansible.cfg'), ANSIBLE_LOCALHOST_WARNING='False', ANSIBLE_PYTHON_INTERPRETER=sys.executable,
               ANSIBLE_CALLBACK_RESULT_FORMAT='json', ANSIBLE_LOCAL_TEMP=str(tmp_path / 'tmp'))
    command = [str(Path(sys.executable).parent / 'ansible-playbook'), '-i', 'localhost,', '-v', str(book), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    results = []
    decoder = json.JSONDecoder()
    for part in done.stdout.split(' => ')[1:]:
        results.append(decoder.raw_decode(part)[0])
    print(done.stdout, done.stderr)
    return done.returncode, results, [line for line in done.stdout.splitlines() if line.startswith(('+', '-'))]


def admin(proxy: HAProxy, backend: str) -> dict[str, int]:
    lines = [line.split() for line in proxy.ask('show servers state %s' % backend).splitlines()[2:] if line]
    return {line[3]: int(line[6]) for line in lines}


def test_the_examples_run_as_they_are_printed(lab: tuple[HAProxy, HAProxy, Origin], tmp_path: Path) -> None:
    one, two, b = lab
    text = haproxy_backend.EXAMPLES + haproxy_backend_info.EXAMPLES
    for printed, real in (('tcp://10.0.0.11:9999', one.address), ('tcp://10.0.0.12:9999', two.address),
                          ('10.0.0.33:8080', '127.0.0.1:%d' % b.port), ('unix:///run/haproxy/admin.sock', one.address)):
        assert printed in text
        text = text.replace(printed, real)
    endpoints = [{'name': 'lb1', 'socket': one.address}, {'name': 'lb2', 'socket': two.address}]
    code, results, _diff = play(tmp_path, yaml.safe_load(text), delivery_endpoints=endpoints)
    assert code == 0
    assert [result['changed'] for result in results[:6]] == [True] * 6 and results[6]['changed'] is False
    assert admin(one, 'shop') == admin(two, 'shop') == {'web1': 0, 'web2': 0}
    assert admin(one, 'shop_canary') == {'web1': 1} and admin(two, 'shop_canary') == {'web1': 0}


@pytest.mark.parametrize('run_on', ['control', 'target'])
def test_twice_is_once_and_check_mode_tells_the_truth(lab: tuple[HAProxy, HAProxy, Origin], tmp_path: Path, run_on: str) -> None:
    one, two, _b = lab
    journal = tmp_path / 'journal.jsonl'
    given = {'endpoints': [{'name': 'lb1', 'socket': one.address}, {'name': 'lb2', 'socket': two.address}], 'backend': 'shop',
             'servers': ['web1'], 'admin': 'drain', 'weight': '50%', 'wait': True, 'journal': str(journal), 'rollout': 'r1',
             'run_on': run_on}
    task = {'progressive.delivery.haproxy_backend': given}
    code, (predicted,), foretold = play(tmp_path, [task], '--check', '--diff')
    assert code == 0 and predicted['changed'] and admin(one, 'shop')['web1'] == 0 and not journal.exists()
    code, (first, second), told = play(tmp_path, [task, task], '--diff')
    assert code == 0 and first['changed'] and not second['changed']
    assert told == foretold and sum(line.startswith('+web1: drain, weight 50,') for line in told) == 2
    assert admin(one, 'shop') == admin(two, 'shop') == {'web1': 8, 'web2': 0}
    assert [json.loads(line)['event'] for line in journal.read_text().splitlines()][-1] == 'servers'


@pytest.mark.parametrize('run_on', ['control', 'target'])
def test_an_endpoint_that_is_not_there_is_a_failure_with_our_sentence(
        lab: tuple[HAProxy, HAProxy, Origin], tmp_path: Path, run_on: str) -> None:
    one, two, _b = lab
    two.stop()
    given = {'endpoints': [{'name': 'lb1', 'socket': one.address}, {'name': 'lb2', 'socket': two.address}], 'run_on': run_on}
    code, results, _diff = play(tmp_path, [
        {'progressive.delivery.haproxy_backend': dict(given, backend='shop', admin='maint'), 'ignore_errors': True},
        {'progressive.delivery.haproxy_backend_info': given}])
    assert code == 2 and [result.get('unreachable', False) for result in results] == [False, False]
    assert results[0]['msg'].startswith('Nothing was changed. lb2: HAProxy at unix://') and 'lb2: HAProxy at' in results[1]['msg']
    assert admin(one, 'shop') == {'web1': 0, 'web2': 0}


def test_a_drain_that_fails_says_what_is_left(lab: tuple[HAProxy, HAProxy, Origin], tmp_path: Path) -> None:
    one, _two, _b = lab
    code, (result,), _diff = play(tmp_path, [{'progressive.delivery.haproxy_backend': {
        'endpoints': [{'name': 'lb1', 'socket': one.address}], 'backend': 'shop', 'servers': ['web9'], 'admin': 'drain'}}])
    assert code == 2 and 'has no server web9: it has web1, web2' in result['msg']
