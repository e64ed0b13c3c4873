# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A/B tests as `make ab-test` runs them: the playbook once for each step, load all the while, conversions counted by Prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import pytest

from e2e_lab import ROOT
from test_rollout import recap

pytestmark = [pytest.mark.xdist_group('e2e'), pytest.mark.skipif(not shutil.which('prometheus'), reason='needs Prometheus')]

RATE = 150


@pytest.fixture(scope='module')
def busy(lab):
    """The lab under load for as long as the module's tests take; version 5.1-a converts half as many again."""
    lab.env['LAB_CONVERSION'] = '5.1-a=0.15'
    assert lab.run(*lab.command('up')).returncode == 0
    load = subprocess.Popen(lab.command('load', '--rate', str(RATE), '--duration', '600'), env=lab.env, cwd=ROOT,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield lab
    finally:
        load.terminate()
        load.wait(60)


def step(lab, action, *extra):
    return lab.play('ab_test.yml', '-e', 'ab_test_action=%s' % action, *extra)


def events(lab):
    with open(lab.dir / 'state' / 'shop' / 'ab_test.jsonl', encoding='utf-8') as file:
        return [json.loads(line) for line in file]


def concluded(lab):
    return [event for event in events(lab) if event['event'] == 'ab_test_concluded'][-1]


def started(lab, *extra):
    done = step(lab, 'start', '-e', 'ab_test_duration=10m', *extra)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '/hash/' in lab.map_value() and '/green/2500/canary/5000' in lab.map_value()
    return done


def looked(lab, wanted, within=90.0):
    """Analyses until the verdict is *wanted*; returns the run."""
    end = time.monotonic() + within
    while True:
        done = step(lab, 'analyse')
        found = [event['result']['verdict'] for event in events(lab) if event['event'] == 'ab_test_analysed'][-1:]
        if found == [wanted]:
            return done
        assert found in ([], ['keep_running']) and time.monotonic() < end, done.stdout + done.stderr


def test_check_mode_plans_and_writes_nothing(busy):
    before = busy.map_value()
    done = step(busy, 'start', '--check', '--diff')
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'check mode: nothing will be changed' in done.stdout and 'variant_a' in done.stdout
    assert busy.map_value() == before and not (busy.dir / 'state' / 'shop' / 'ab_test.jsonl').is_symlink()


def test_the_variant_that_converts_better_gets_all_of_the_traffic(busy):
    done = started(busy)
    assert 'users keep their arm; decided by conversion_rate' in done.stdout
    entry = busy.map_value()
    again = step(busy, 'start', '-e', 'ab_test_duration=10m')
    assert (again.returncode, recap(again)['changed'], busy.map_value()) == (0, 0, entry), again.stdout
    refused = busy.play('rollout.yml', '-e', 'delivery_version=5.2')
    assert refused.returncode != 0 and 'is being rolled out by shop-ab-' in refused.stdout
    status = busy.play('status.yml')
    assert 'green 25 %, canary 25 %, blue 50 %' in status.stdout
    told = step(busy, 'analyse', '--check')
    assert told.returncode == 0 and len([one for one in events(busy) if one['event'] == 'ab_test_analysed']) == 0, told.stdout
    done = looked(busy, 'winner')
    assert recap(done)['changed'] == 0
    for text in ('WINNER: variant_a', 'conversion_rate, which decides', 'the sample follows the split', 'Conclude the test.'):
        assert text in done.stdout
    result = [event['result'] for event in events(busy) if event['event'] == 'ab_test_analysed'][-1]
    low, high = result['metrics']['conversion_rate']['variant_a']['lift_interval']
    assert 0 < low < high
    journal = events(busy)
    told = step(busy, 'conclude', '--check')
    assert told.returncode == 0 and (events(busy), '/green/2500/canary/5000' in busy.map_value()) == (journal, True), told.stdout
    done = step(busy, 'conclude')
    assert done.returncode == 0, done.stdout + done.stderr
    assert busy.map_value().startswith('0/green/') and 'v=5.1-a' in busy.map_value() and 'prev=blue' in busy.map_value()
    kinds = [event['event'] for event in events(busy)]
    order = [kinds.index(kind) for kind in ('ab_test_started', 'rollout_started', 'rollout_finished', 'ab_test_concluded')]
    assert order == sorted(order)
    assert (concluded(busy)['outcome'], concluded(busy)['winner']) == ('winner', 'variant_a')
    running = busy.run(*busy.command('status')).stdout
    assert 'canary/c1    MAINT' in running and 'green/g1     UP' in running
    done = step(busy, 'conclude')
    assert done.returncode == 0 and recap(done)['changed'] == 0, done.stdout
    assert busy.play('rollback.yml').returncode == 0 and busy.map_value().startswith('0/blue/')


def test_an_instance_that_nobody_counts_makes_the_test_invalid(busy):
    port = int(busy.env['LAB_PORT']) + 32
    started(busy, '-e', json.dumps({'ab_test_visitors': {
        'total': 'sum(increase(shop_visits_total{arm="$arm",instance!="127.0.0.1:%d"}[$window]))' % port}}))
    done = looked(busy, 'invalid')
    assert done.returncode != 0 and 'find out who is not counted' in done.stdout
    assert '/green/2500/canary/5000' in busy.map_value()
    done = step(busy, 'stop')
    assert done.returncode == 0 and busy.map_value().startswith('0/blue/'), done.stdout
    assert 'stopped by' in done.stdout


def test_a_variant_that_fails_is_taken_back_by_the_next_look(busy):
    started(busy)
    busy.run(*busy.command('fault', '--arm', 'canary', '--fault', 'errors'))
    done = looked(busy, 'harmful')
    assert done.returncode != 0 and 'variant_b' in done.stdout and 'The A/B test was taken back' in done.stdout
    assert busy.map_value().startswith('0/blue/')
    assert 'canary/c1    MAINT' in busy.run(*busy.command('status')).stdout
    # Who has nothing but the routers' own word sees the same.
    assert busy.play('rollback.yml').returncode == 0


def test_an_analysis_that_stays_takes_a_sick_variant_back_while_it_watches(busy):
    started(busy, '-e', '{"ab_test_guardrails": []}')
    watching = subprocess.Popen(
        busy.playbook('ab_test.yml', '-e', 'ab_test_action=analyse', '-e', 'delivery_ab_watch=60s'), env=busy.env, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 60
        while not any(event['event'] == 'sample' for event in events(busy)):
            assert watching.poll() is None, watching.stdout.read()
            assert time.monotonic() < end
            time.sleep(0.1)
        busy.run(*busy.command('fault', '--arm', 'green', '--fault', 'errors'))
        said, _none = watching.communicate(timeout=90)
    finally:
        if watching.poll() is None:
            watching.kill()
    assert watching.returncode != 0 and 'requests failed' in said, said
    assert busy.map_value().startswith('0/blue/')
    assert concluded(busy)['outcome'] == 'harmful'


def test_a_rollback_by_hand_takes_every_variant_out(busy):
    started(busy)
    done = busy.play('rollback.yml')
    assert done.returncode == 0 and busy.map_value().startswith('0/blue/'), done.stdout
    states = busy.run(*busy.command('status')).stdout
    assert 'canary/c1    MAINT' in states and 'green/g1     MAINT' in states
    done = step(busy, 'analyse')
    assert done.returncode == 0 and 'is not in force any more' in done.stdout, done.stdout
    done = step(busy, 'stop')
    assert done.returncode == 0, done.stdout
