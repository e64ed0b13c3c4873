# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a rollback takes: one endpoint and many, in the fleet's own time and as one Ansible task.

    .venv/bin/python tests/bench/bench_rollback.py [processes, default 100]

Prints milliseconds. Every process is a real HAProxy with the documented lines, its own map file and socket; each way back is read back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / '.collections'), str(ROOT / 'tests')]

from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run  # noqa: E402
from haproxy_lab import HAProxy, tally  # noqa: E402
from traffic_lab import ARMS, FRONTEND, documented_lines, validated  # noqa: E402

LINES = FRONTEND + documented_lines() + '''
backend blue
    server b1 127.0.0.1:9
backend canary
    server c1 127.0.0.1:9
backend green
    server g1 127.0.0.1:9
'''
ROUNDS = 7


def endpoints(proxies):
    return [{'name': 'lb%d' % n, 'socket': proxy.address, 'map': str(proxy.dir / 'delivery.map')} for n, proxy in enumerate(proxies)]


def move(proxies, **options):
    base = {'service': 'shop', 'arms': ARMS, 'endpoints': endpoints(proxies), **options}
    began = time.perf_counter()
    result = asyncio.run(run(validated(TRAFFIC_SPEC, base), False))
    assert result['changed'] and not result.get('failed'), result
    return (time.perf_counter() - began) * 1000


def measure(proxies):
    forth, back = [], []
    for _round in range(ROUNDS):
        forth.append(move(proxies, split={'canary': '5%'}, lease='60s', rollout='bench'))
        back.append(move(proxies, state='way_back'))
    return forth, back


def told(what, times):
    print('%-44s median %7.1f ms   best %7.1f ms   worst %7.1f ms' % (what, statistics.median(times), min(times), max(times)), flush=True)


def as_task(proxies):
    """Returns the seconds that the task's work took, the task as the playbook times it (junit callback), and the whole run."""
    with tempfile.TemporaryDirectory() as name:
        play = [{'hosts': 'localhost', 'gather_facts': False, 'tasks': [
            {'name': 'the way back', 'register': 'out', 'progressive.delivery.traffic_weight': {
                'service': 'shop', 'arms': ARMS, 'endpoints': endpoints(proxies), 'state': 'way_back'}},
            {'ansible.builtin.copy': {'dest': name + '/out', 'content': '{{ out.seconds }} {{ out.changed }}'}}]}]
        Path(name, 'play.yml').write_text(json.dumps(play))
        move(proxies, split={'canary': '5%'}, lease='60s', rollout='bench')
        began = time.perf_counter()
        command = [str(Path(sys.executable).parent / 'ansible-playbook'), '-i', 'localhost,', '-c', 'local',
                   '-e', 'ansible_python_interpreter=' + sys.executable, name + '/play.yml']
        run_ = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
                              env=dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / '.collections'), ANSIBLE_LOCALHOST_WARNING='false',
                                       ANSIBLE_CALLBACKS_ENABLED='ansible.builtin.junit', JUNIT_OUTPUT_DIR=name))
        assert run_.returncode == 0, run_.stdout + run_.stderr
        seconds, changed = Path(name, 'out').read_text().split()
        assert changed == 'True'
        report, = Path(name).glob('*.xml')
        timed, = (float(case.get('time')) for case in ElementTree.parse(report).iter('testcase') if 'the way back' in case.get('name'))
        return float(seconds), timed, time.perf_counter() - began


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(HAProxy(LINES, files={'delivery.map': 'shop 0/blue/rand/-/v=5.0\n'})) for _n in range(count)]
        for some in (proxies[:1], proxies):
            forth, back = measure(some)
            told('%d process%s, set and read back' % (len(some), '' if len(some) == 1 else 'es'), forth)
            told('%d process%s, way back and read back' % (len(some), '' if len(some) == 1 else 'es'), back)
        proxies[0].freeze()
        began = time.perf_counter()
        base = {'service': 'shop', 'arms': ARMS, 'endpoints': endpoints(proxies), 'state': 'way_back'}
        result = asyncio.run(run(validated(TRAFFIC_SPEC, base), False))
        proxies[0].thaw()
        others = max(row['seconds'] for row in result['way_back'] if row['ok'])
        print('one of %d stopped: the others were back after %.1f ms, the task ended after its deadline, %.0f ms' % (
            count, others * 1000, (time.perf_counter() - began) * 1000))
        for some in (proxies[:1], proxies):
            work, task, whole = as_task(some)
            print('one Ansible task, %d process%s: its work %.1f ms, the task as the playbook times it %.0f ms, the whole run %.0f ms' % (
                len(some), '' if len(some) == 1 else 'es', work * 1000, task * 1000, whole * 1000), flush=True)
        assert tally(proxies[0].port, 1).keys() == {'503'}


if __name__ == '__main__':
    main()
