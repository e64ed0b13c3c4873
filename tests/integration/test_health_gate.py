# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time

import pytest
from gate_lab import ERRORS, LATENCY, SERVERS, GateLab
from haproxy_lab import get, wait_for

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError


@pytest.fixture
def lab():
    with GateLab() as running:
        yield running


@pytest.fixture
def hanging():
    """A port that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen(64)
        yield 'http://127.0.0.1:%d' % listener.getsockname()[1]


def prometheus(url, **options):
    return {'prom': {'type': 'prometheus', 'url': url, 'queries': {'workers': 'workers'}, **options}}


def test_a_healthy_candidate_passes_and_keeps_its_share(lab):
    with lab.load():
        result = lab.run(leases=[lab.move('50%', lease='1500ms')], bake=3)
    assert (result['verdict'], result['passed'], result.get('failed')) == ('pass', True, None), result
    assert [one['verdict'] for one in result['conditions']] == ['pass', 'pass', 'pass']
    # Longer than the lease: it was renewed, and the share still stands.
    assert lab.to() is None and lab.entry()[5:] == ['canary', '5000']
    arms = result['arms']
    n = arms['blue']['requests'] + arms['canary']['requests']
    assert n > 100 and abs(arms['canary']['requests'] / n - 0.5) < 5 * math.sqrt(0.25 / n)
    assert result['observed_bp']['canary'] + result['observed_bp']['blue'] == 10_000
    assert all(arms['canary'][key] is not None for key in ('p50_ms', 'p95_ms', 'p99_ms'))
    assert (result['rolled_back'], result['rollback'], result['changed']) == (False, None, False)
    names = [one['event'] for one in lab.events()]
    # What the counters held before is told once the source has answered: with its first sample, mostly.
    assert names[0] == 'watching' and names.count('counters') == 1
    assert [name for name in names[1:] if name != 'counters'] == ['sample'] * result['samples'] + ['verdict']
    assert 'err 0.00 % (limit 0.5)' in lab.lines[-1] and 'lease' in lab.lines[-1]


def make_errors(lab):
    lab.canary.status = 500


def make_slow(lab):
    lab.canary.delay = 0.5


def make_silent(lab):
    lab.canary.silent = True


def make_dead(lab):
    lab.canary.stop()


@pytest.mark.parametrize('spoil, condition, words', [
    (make_errors, 'errors', 'requests failed (100.00 %)'),
    (make_slow, 'latency', 'requests took longer than 300 ms'),
    (make_silent, 'latency', 'of them without an answer'),
    (make_dead, 'servers', 'servers_up_ratio is 0, limit at least 0.5')])
def test_a_bad_candidate_is_taken_out_at_the_first_proof(lab, spoil, condition, words):
    lease = lab.move('50%')
    spoil(lab)
    with lab.load(at_once=30):
        result = lab.run(leases=[lease], bake=20)
        assert lab.to() == 'blue'
    assert (result['verdict'], result['failed'], result['rolled_back']) == ('fail', True, True), result
    assert words in result['msg'] and 'Traffic is back on blue after' in result['msg']
    assert {one['name']: one['verdict'] for one in result['conditions']}[condition] == 'fail'
    assert result['rollback']['to'] == 'blue' and [one['endpoint'] for one in result['rollback']['endpoints']] == ['lb1']
    assert result['arms'].get('blue', {}).get('errors', 0) == 0
    verdict, back = lab.events()[-2:]
    assert (verdict['event'], verdict['verdict'], verdict['reason']) == ('verdict', 'fail', result['reason'])
    assert (back['event'], back['to'], back['reason']) == ('way_back', 'blue', result['reason'])


def test_a_fault_in_the_middle_of_a_stage_is_caught(lab):
    lease = lab.move('50%')
    with lab.load():
        threading.Timer(2.0, make_errors, [lab]).start()
        result = lab.run(leases=[lease], bake=30, conditions=[ERRORS])
    assert result['verdict'] == 'fail' and 2 <= result['duration'] < 30 and lab.to() == 'blue'


def test_what_happens_between_the_change_and_the_first_look_counts(lab):
    lab.canary.status = 500
    lease = lab.move('50%')
    answers = [get(lab.proxy.port).status for _number in range(60)]
    lab.canary.status = 200
    result = lab.run(leases=[lease], counters=lab.counters, bake=30, conditions=[ERRORS])
    failed = answers.count(500)
    assert (result['verdict'], lab.to()) == ('fail', 'blue'), result
    assert result['reason'].startswith('canary: %d of %d requests failed' % (failed, failed))
    assert result['arms']['canary']['requests'] == failed and result['arms']['blue']['requests'] == 60 - failed


def test_a_candidate_without_traffic_has_no_data(lab):
    with lab.load():
        result = lab.run(bake=1.5, conditions=[ERRORS])
    assert (result['verdict'], result['passed']) == ('no_data', False)
    assert result['msg'] == 'no_data: canary: no requests in the whole stage.'


def test_a_policy_may_let_no_data_pass(lab):
    result = lab.run(bake=1, conditions=[ERRORS], policy={'no_data': 'pass'})
    assert (result['verdict'], result['passed'], result.get('failed')) == ('no_data', True, None)


def test_too_little_data_extends_the_stage_and_then_decides(lab):
    lease = lab.move('50%')

    def later():
        wait_for(lambda: any('Extended' in one.get('text', '') for one in lab.events()) if lab.lines else False, 'the extension')
        with lab.load(seconds=4):
            time.sleep(3)

    thread = threading.Thread(target=later)
    lab.lines = []
    thread.start()
    result = lab.run(leases=[lease], bake=1, conditions=[ERRORS], policy={'no_data': 'extend'}, extend_by=3, max_extensions=1)
    thread.join()
    assert (result['verdict'], result['extensions'], result['passed']) == ('pass', 1, True), result


def test_hold_leaves_the_shares(lab):
    lease = lab.move('50%')
    lab.canary.status = 500
    with lab.load():
        result = lab.run(leases=[lease], bake=20, on_fail='hold')
    assert (result['verdict'], result['failed'], result['rolled_back'], result['rollback']) == ('fail', True, False, None)
    assert lab.to() is None
    assert 'stay until their lease runs out' in result['msg']


def test_a_hanging_source_neither_stops_the_watch_nor_the_renewals(lab, hanging):
    lease = lab.move('50%', lease='1500ms')
    conditions = [ERRORS, {'metric': 'workers', 'source': 'prom', 'abort_below': 1, 'required': False}]
    with lab.load():
        result = lab.run(leases=[lease], bake=4, conditions=conditions, sources=prometheus(hanging, timeout=1))
    assert (result['verdict'], result['passed']) == ('pass', True), result
    assert lab.to() is None
    assert any('did not answer' in note for note in result['notes']) and any('! prom' in line for line in lab.lines)


def test_a_proof_does_not_wait_for_a_hanging_source(lab, hanging):
    lease = lab.move('50%')
    lab.canary.status = 500
    conditions = [ERRORS, {'metric': 'workers', 'source': 'prom', 'abort_below': 1}]
    with lab.load():
        result = lab.run(leases=[lease], bake=30, conditions=conditions, sources=prometheus(hanging, timeout=20))
    assert result['verdict'] == 'fail' and result['duration'] < 20


def test_a_source_that_stays_away_is_an_error_and_returns_the_traffic(lab, hanging):
    lease = lab.move('50%')
    conditions = [ERRORS, {'metric': 'workers', 'source': 'prom', 'abort_below': 1}]
    with lab.load():
        result = lab.run(leases=[lease], bake=30, conditions=conditions, sources=prometheus(hanging, timeout=0.3))
    assert (result['verdict'], result['rolled_back']) == ('error', True)
    assert result['reason'].startswith('the source "prom" failed 3 polls in a row: ') and lab.to() == 'blue'


def test_http_probes_judge_an_arm_without_traffic(lab):
    sources = {'http': {'type': 'http', 'targets': {'canary': ['http://127.0.0.1:%d/health/ready' % lab.canary.port]}, 'use_proxy': False}}
    conditions = [{'metric': 'probe_success_ratio', 'source': 'http', 'abort_below': '50%'},
                  {'metric': 'probe_latency_p95', 'source': 'http', 'pass_below': '1s', 'min_sample': 2}]
    assert lab.run(bake=1.5, conditions=conditions, sources=sources)['verdict'] == 'pass'
    lab.canary.status = 503
    result = lab.run(bake=30, conditions=conditions, sources=sources)
    assert result['verdict'] == 'fail' and result['reason'].startswith('canary: probe_success_ratio is 0')


def test_who_took_over_is_left_alone(lab):
    lease = lab.move('50%')

    def take_over():
        # A renewal that comes between its reading and its writing refuses it, whatever its force.
        while True:
            with contextlib.suppress(DeliveryError):
                return lab.move('30%', rollout='r2', force=True)

    with lab.load():
        timer = threading.Timer(1.0, take_over)
        timer.start()
        result = lab.run(leases=[lease], bake=30, conditions=[ERRORS])
        timer.join()
    assert (result['verdict'], result['failed'], result['rolled_back']) == ('error', True, False)
    assert 'r2' in result['msg'] and 'Nothing was written.' in result['msg']
    assert lab.entry()[5:] == ['canary', '3000']


def test_a_candidate_bad_behind_one_router_only_is_caught():
    with GateLab(routers=2) as lab:
        lease = lab.move('50%')
        lab.canaries[1].status = 500
        with lab.load():
            result = lab.run(leases=[lease], bake=30, conditions=[{**ERRORS, 'abort_above': '90%'}])
        assert result['verdict'] == 'fail' and result['reason'].startswith('canary behind lb2: ')
        assert lab.to() == 'blue'


def test_a_router_that_hangs_is_named_and_does_not_hold_up_the_others():
    with GateLab(routers=2) as lab:
        lease = lab.move('50%', lease='3s')
        with lab.load():
            lab.proxies[1].freeze()
            try:
                result = lab.run(leases=[lease], bake=30)
                assert lab.entry()[1:] == ['blue', 'rand', '-'] + lab.entry()[4:5]
            finally:
                lab.proxies[1].thaw()
        assert (result['verdict'], result['failed'], result['rolled_back']) == ('error', True, False)
        assert {one['endpoint']: one['ok'] for one in result['rollback']['endpoints']} == {'lb1': True, 'lb2': False}
        assert 'NOT all traffic could be returned (lb2: ' in result['msg']


def test_a_backend_that_is_not_there_ends_the_watch_with_a_sentence(lab):
    lease = lab.move('50%')
    result = lab.run(leases=[lease], arms={'blue': {}, 'canary': {'backend': 'cannary'}})
    assert (result['verdict'], result['rolled_back']) == ('error', True) and 'cannary' in result['msg']


def test_all_conditions_hold_for_what_they_name(lab):
    """Share, rate and comparison, on what a real HAProxy counts."""
    lease = lab.move('50%')
    with lab.load():
        result = lab.run(leases=[lease], bake=3, conditions=[
            {'metric': 'share_bp', 'pass_above': '30%', 'pass_below': '70%'}, {'metric': 'request_rate', 'pass_above': 5},
            {'metric': 'error_ratio', 'compare': 'difference', 'abort_above': '1%'},
            {'metric': 'latency_p50', 'compare': 'ratio', 'abort_above': 1000},
            {'metric': 'attempt_error_ratio', 'abort_above': '1%'}, LATENCY, SERVERS])
    assert {one['name']: one['verdict'] for one in result['conditions']} == dict.fromkeys(
        ('share_bp', 'request_rate', 'error_ratio', 'latency_p50', 'attempt_error_ratio', 'latency', 'servers'), 'pass'), result


# Sequential conditions

HARM = {'name': 'harm', 'type': 'sequential', 'metric': 'errors', 'margin': '0.1%', 'pass_margin': '10%', 'harm': '5%'}
SLOW = {'name': 'slow', 'type': 'sequential', 'metric': 'latency', 'above_ms': 300, 'pass_margin': '10%'}
HARMLESS = {'name': 'harmless', 'metric': 'request_rate', 'abort_above': 100000}


def test_a_harmless_candidate_is_proven_to_be_one(lab):
    lease = lab.move('50%')
    with lab.load():
        result = lab.run(leases=[lease], bake=5, conditions=[HARM, SLOW])
    assert (result['verdict'], result['passed']) == ('pass', True), result
    assert all('harm is excluded' in one['reason'] for one in result['conditions'])
    assert len(result['plan']) == 2 and any(one.startswith('canary: harm: in 5 s at ') for one in lab.lines)
    assert 'times more likely harmful than not, limit 20' in lab.lines[-1]
    written = lab.events('analysis')
    assert [one['state'] for one in written] == [result['analysis_state']] and len(lab.events('plan')) == 2


@pytest.mark.parametrize('spoil, condition, words', [
    (make_errors, HARM, 'canary 100 % errors against 0 %'), (make_slow, SLOW, 'canary 100 % slower than 300 ms against 0 %'),
    (make_silent, SLOW, 'canary 100 % slower than 300 ms against 0 %')])
def test_harm_is_proven_against_stable(lab, spoil, condition, words):
    lease = lab.move('50%')
    spoil(lab)
    with lab.load(at_once=30):
        result = lab.run(leases=[lease], bake=30, conditions=[HARMLESS, {**condition, 'must_pass': False}])
        assert lab.to() == 'blue'
    assert (result['verdict'], result['rolled_back']) == ('fail', True), result
    assert words in result['msg'] and 'times more likely harmful than not, limit 20. Traffic is back on blue' in result['msg']


def test_evidence_goes_on_from_stage_to_stage(lab):
    with lab.load():
        first = lab.run(leases=[lab.move('20%', lease='10s')], bake=2, conditions=[HARMLESS, {**HARM, 'must_pass': False}])
        assert first['passed'], first
        before = first['analysis_state']['tests']['harm']
        second = lab.run(leases=[lab.move('50%', lease='10s')], bake=2, conditions=[HARMLESS, {**HARM, 'must_pass': False}],
                         analysis_state=first['analysis_state'])
    after = second['analysis_state']['tests']['harm']
    assert second['passed'] and after['baseline'][1] > before['baseline'][1] > 0
    assert after['total'][3] == before['total'][3] + after['stage'][3] and after['polls'][2] == 1


def test_counters_that_begin_anew_are_no_evidence(lab):
    with lab.load(seconds=20):
        lease = lab.move('50%', lease='10s')
        threading.Timer(1.5, lambda: lab.proxy.ask('clear counters all')).start()
        result = lab.run(leases=[lease], bake=4, conditions=[HARMLESS, {**HARM, 'must_pass': False}])
    assert result['passed'], result
    test = result['analysis_state']['tests']['harm']
    assert test['stage'][0] == test['stage'][2] == 0 and test['stage'][3] > 50
    assert test['stage'][1] + test['stage'][3] < 1000
