# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One rollout behind HAProxy, an HTTPRoute, a VirtualService and a canary Ingress at once, as `make rollout ROUTER=hybrid` runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'e2e'))

from cluster_lab import Cluster
from e2e_lab import ROOT, lab_of_its_own
from haproxy_lab import get, wait_for

RATE = '150'
PLANES = {'httproute': 'traefik', 'virtualservice': 'istio', 'ingress': 'traefik'}


@pytest.fixture(scope='module')
def lab():
    with lab_of_its_own('hybrid') as made:
        yield made


def versions(lab, count=40):
    """The versions that answer at each router now."""
    cluster, port = Cluster(), int(lab.env['LAB_PORT'])
    found = {'haproxy': {get(port, '/api/x').headers.get('x-version') for _number in range(count)}}
    for router, plane in PLANES.items():
        host = 'client-1.%s-%d.lab.test' % (router, port)
        found[router] = {cluster.get(plane, host).headers.get('x-version') for _number in range(count)}
    return found


def test_a_good_version_takes_over_everywhere_and_no_request_is_lost(lab):
    done, result = lab.rollout('none', rate=RATE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (result['outcome'], result['failed']) == ('promoted', 0)
    assert [stage['configured_bp'] for stage in result['stages']] == [500, 2000, 5000, 10000]
    assert set.union(*versions(lab).values()) == {'5.1'}
    assert 'promoted  shop 5.0 → 5.1' in done.stdout, 'the workload says what runs where no router knows it yet'
    back = lab.play('rollback.yml')
    assert back.returncode == 0, back.stdout
    assert set.union(*versions(lab).values()) == {'5.0'}


@pytest.mark.parametrize('candidate', ['errors', 'crash'])
def test_a_bad_version_is_taken_out_everywhere_and_hurts_nobody_else(lab, candidate):
    done, result = lab.rollout(candidate, rate=RATE)
    assert done.returncode != 0
    assert result['outcome'] == 'rolled_back', done.stdout
    # A pod that has just died refuses what a data plane sends it: no process of the new version ever had that request, and stable neither.
    assert result['failed_stable'] == 0 or candidate == 'crash'
    assert set(result['versions']['5.0']) <= {'200', '201'} and set(result['versions'].get('none', {})) <= {'0', '502', '503', '504'}
    assert set.union(*versions(lab).values()) == {'5.0'}


def test_a_version_that_never_gets_ready_gets_no_request(lab):
    done, result = lab.rollout('hang', rate=RATE)
    assert done.returncode != 0
    assert (result['outcome'], result['failed'], result['stages']) == ('failed', 0, []), done.stdout
    assert set(result['versions']) == {'5.0'}


def test_a_run_that_is_killed_is_taken_back_by_the_leases_alone(lab):
    up = lab.run(*lab.command('up'))
    assert up.returncode == 0, up.stdout + up.stderr
    play = subprocess.Popen(lab.playbook('rollout.yml', '-e', 'delivery_version=5.1', '-e', json.dumps({
        'delivery_canary_stages': [{'share': '50%', 'bake': '300s'}], 'delivery_extra_conditions': [], 'delivery_policy': {
            'inconclusive': 'pass', 'no_data': 'extend'}})), env=lab.env, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    journal = lab.dir / 'state' / 'shop' / 'latest.jsonl'
    try:
        wait_for(lambda: journal.exists() and '"event": "watching", "stage": "canary 50' in journal.read_text(), 'the stage', 240)
        wait_for(lambda: all('5.1' in seen for seen in versions(lab, 20).values()), 'the candidate to have traffic everywhere', 60)
    finally:
        kill_all(play)
    ended = time.time()
    wait_for(lambda: set.union(*versions(lab).values()) == {'5.0'}, 'every router to be back on stable', 120)
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    assert not [event for event in events if event['event'] == 'way_back' and event['ts'] > ended - 1], 'nobody was left to take it back'


def kill_all(play):
    """SIGKILL for the run and all that it has forked, watchers included: none of them shall have a say."""
    def below(pid):
        try:
            children = Path('/proc/%d/task/%d/children' % (pid, pid)).read_text().split()
        except OSError:
            return []
        return [int(child) for child in children] + [one for child in children for one in below(int(child))]

    pids = [play.pid, *below(play.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGKILL)
    play.wait()
