# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""traffic_weight and traffic_weight_info as tasks: through ansible-playbook, on the control host and on a target."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from traffic_lab import Shop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture()
def shop():
    with Shop() as one:
        yield one


def play(shop, tmp_path, tasks, *arguments):
    """Runs *tasks* on a local host; returns the exit code, the text, and what each task registered (by module name, in order)."""
    common = json.dumps({'service': 'shop', 'arms': shop.options()['arms'], 'endpoints': shop.endpoints()})
    lines = ['- hosts: all', '  gather_facts: false', '  module_defaults:',
             '    progressive.delivery.traffic_weight: %s' % common, '    progressive.delivery.traffic_weight_info: %s' % common,
             '  tasks:']
    for number, (module, options) in enumerate(tasks):
        lines += ['    - name: task %d' % number, '      progressive.delivery.%s: %s' % (module, json.dumps(options)),
                  '      register: out%d' % number]
    lines += ['    - ansible.builtin.copy:', '        dest: %s/out.json' % tmp_path,
              '        content: "{{ [%s] | to_json }}"' % ', '.join('out%d' % n for n in range(len(tasks))), '      check_mode: false',
              '      diff: false']
    (tmp_path / 'play.yml').write_text('\n'.join(lines) + '\n')
    inventory = 'target ansible_connection=local ansible_python_interpreter=%s\n' % sys.executable
    (tmp_path / 'hosts').write_text(inventory)
    run = subprocess.run(
        [str(Path(sys.executable).parent / 'ansible-playbook'), '-i', str(tmp_path / 'hosts'), str(tmp_path / 'play.yml'), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env=dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / '.collections'), ANSIBLE_NOCOLOR='1', ANSIBLE_FORCE_COLOR='0',
                 ANSIBLE_LOCALHOST_WARNING='false'))
    out = json.loads((tmp_path / 'out.json').read_text()) if (tmp_path / 'out.json').exists() else []
    return run.returncode, run.stdout + run.stderr, out


SPLIT = {'split': {'canary': '5%'}, 'lease': '60s', 'rollout': 'r1'}


def test_tasks_on_the_control_host(shop, tmp_path):
    code, text, out = play(shop, tmp_path, [
        ('traffic_weight', SPLIT), ('traffic_weight', SPLIT), ('traffic_weight_info', {}), ('traffic_weight', {'state': 'way_back'})],
        '--diff')
    assert code == 0, text
    assert [one['changed'] for one in out] == [True, False, False, True]
    assert 'shop on lb1: canary 0 % -> 5 %, blue 100 % -> 95 %' in text
    assert out[2]['endpoints'][0]['rollout'] == 'r1' and out[2]['moving'] is True
    assert out[3]['seconds'] < 5 and shop.entry() == '0/blue/rand/-/rev=2,v=5.0'


def test_check_and_diff_write_nothing(shop, tmp_path):
    before = shop.entry()
    code, text, out = play(shop, tmp_path, [('traffic_weight', SPLIT), ('traffic_weight', {'state': 'way_back'})], '--check', '--diff')
    assert code == 0, text
    assert out[0]['changed'] and 'shop on lb1: canary 0 % -> 5 %' in text and shop.entry() == before == shop.filed()


def test_module_on_the_target(shop, tmp_path):
    journal = str(tmp_path / 'journal')
    code, text, out = play(shop, tmp_path, [
        ('traffic_weight', {**SPLIT, 'run_on': 'target', 'journal': journal}), ('traffic_weight_info', {'run_on': 'target'}),
        ('traffic_weight', {'state': 'way_back', 'run_on': 'target'})])
    assert code == 0, text
    assert out[0]['configured'] == {'lb1': {'canary': 500, 'blue': 9500}} and out[0]['lease']['ttl_s'] == 60.0
    assert out[1]['endpoints'][0]['candidates'] == {'canary': 500} and out[2]['changed']
    assert [json.loads(line)['event'] for line in Path(journal).read_text().splitlines()] == ['intent', 'change']


def test_failure_is_a_sentence(shop, tmp_path):
    code, text, _out = play(shop, tmp_path, [('traffic_weight', {**SPLIT, 'arms': {'blue': {}, 'canary': {'backend': 'nope'}}})])
    assert code == 2 and 'The backend "nope" of arm "canary" does not exist on lb1' in text.replace('\\', '')
    assert 'Traceback' not in text and 'UNREACHABLE' not in text


def test_target_that_cannot_be_reached_is_a_failure_with_our_message(shop, tmp_path):
    endpoint = [('traffic_weight', {'state': 'way_back', 'run_on': 'target'})]
    code, text, _out = play(shop, tmp_path, endpoint, '-e',
                            'ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_retries=0')
    assert code == 2 and 'The split of shop could not be set from the host target' in text and 'unreachable=0' in text


def test_watchdog_of_a_module_on_the_target(tmp_path):
    from haproxy_lab import tally, wait_for
    from test_traffic_weights import ARMS, Pool, watched
    with Pool() as pool:
        options = {'arms': ARMS, 'endpoints': pool.endpoints(), 'split': {'canary': '50%'}, 'lease': '2s', 'rollout': 'r1',
                   'run_on': 'target'}
        code, text, out = play(pool, tmp_path, [('traffic_weight', options)])
        assert code == 0, text
        assert out[0]['configured'] == {'lb1': {'canary': 5000, 'blue': 5000}}
        wait_for(lambda: tally(pool.proxy.port, 20) == {'blue': 20}, 'the way back of the watchdog')
        wait_for(lambda: not watched(pool), 'the end of the watchdog')
