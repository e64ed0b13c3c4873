# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's account of a rollout: what counts as failed, as the candidate's doing, as the time of a fault."""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'lab'))

import load
import result
from layout import Layout, LabError
from load import Hit, parse_hit, parse_timestamp, targets
from processes import Process
from result import Receipt, summarise

NUMBERS = itertools.count()


def hit(sent=0.0, took=0.02, code=200, version='5.0'):
    return Hit('r-%d' % next(NUMBERS), 'GET', sent, sent + took, code, version if code else None, None)


def received(*hits, version='5.1'):
    return [Receipt(h.id, h.sent + 0.001, 'canary', version) for h in hits]


def event(event, ts, **fields):
    return {'event': event, 'ts': ts, **fields}


def account(hits, receipts, events=()):
    return summarise(list(events), hits, receipts, '5.0')


def test_a_failed_request_is_the_candidates_doing_only_when_one_received_it():
    had, had_not = hit(code=500, version='5.1'), hit(code=503, version=None)
    found = account([hit(), had, had_not], received(had))
    assert (found['requests'], found['failed'], found['failed_stable']) == (3, 2, 1)


def test_a_request_that_stable_received_is_not_the_candidates_doing():
    failed = hit(code=502, version=None)
    assert account([failed], received(failed, version='5.0'))['failed_stable'] == 1


@pytest.mark.parametrize('code, failed', [(0, 1), (199, 1), (200, 0), (201, 0), (304, 0), (399, 0), (400, 1), (500, 1), (503, 1)])
def test_what_is_no_success_or_redirection_has_failed(code, failed):
    assert account([hit(code=code)], [])['failed'] == failed


def test_the_fault_lasts_from_the_first_request_that_met_it_to_the_last_bad_answer():
    before = hit(sent=0.5, version='5.1')
    first, last = hit(sent=1.0, code=500, version='5.1'), hit(sent=2.0, took=0.25, version='5.1')
    stable = hit(sent=9.0)
    found = account([before, first, last, stable], received(before, first, last))
    assert found['fault_to_last_bad_s'] == 1.25
    assert found['fault_to_last_received_s'] == 1.001


def test_a_silent_candidate_is_bad_until_the_last_request_it_had_fails():
    first, last = hit(sent=1.0, took=10.0, code=504), hit(sent=3.0, took=2.0, code=503)
    found = account([first, last], received(first, last))
    assert (found['fault_to_last_bad_s'], found['fault_to_last_received_s']) == (10.0, 2.001)


def test_a_slow_candidate_has_a_fault_although_nothing_failed():
    slow = hit(sent=1.0, took=1.5, version='5.1')
    assert account([slow], received(slow))['fault_to_last_bad_s'] == 1.5


def test_a_request_that_stable_had_to_repeat_met_the_fault():
    repeated = hit(sent=1.0, took=0.1)
    bad = hit(sent=1.5, took=0.5, version='5.1')
    assert account([repeated, bad], received(repeated, bad))['fault_to_last_bad_s'] == 1.0


def test_a_process_that_died_is_a_fault_although_nobody_noticed():
    good = hit(sent=2.0, took=0.5, version='5.1')
    died = Receipt(None, 1.5, 'canary', '5.1', 'crash')
    found = account([good], [*received(good), died])
    assert (found['failed'], found['fault_to_last_bad_s'], found['fault_to_last_received_s']) == (0, 1.0, 0.501)


def test_a_healthy_candidate_has_no_fault():
    good = hit(version='5.1')
    found = account([good, hit()], received(good))
    assert found['fault_to_last_bad_s'] is found['fault_to_last_received_s'] is None


def stage(ts, arm='canary', bp=500, observed=None):
    shares = {arm: bp, 'blue': 10_000 - bp}
    return event('stage_finished', ts, index=1, name='canary', arm=arm, requested_bp=shares, configured_bp=shares,
                 observed_bp={arm: observed} if observed is not None else None, requests=7, verdict='pass', reason='good')


def test_a_stage_is_counted_while_its_split_is_in_force():
    hits = [hit(sent=0.5), hit(sent=1.0, version='5.1'), *(hit(sent=1.1) for _turn in range(3)), hit(sent=2.0)]
    events = [event('rollout_started', 0.0), event('stage_started', 0.1), event('change', 1.0), stage(2.0, observed=480)]
    only, = account(hits, received(hits[1]), events)['stages']
    assert (only['requested_bp'], only['configured_bp'], only['observed_bp'], only['requests']) == (500, 500, 480, 7)
    assert (only['load_requests'], only['load_observed_bp']) == (4, 2500)


def test_a_stage_ends_with_the_way_back():
    hits = [hit(sent=1.0, version='5.1'), hit(sent=2.5)]
    events = [event('stage_started', 0.5), event('way_back', 2.0, seconds=0.5, reason='errors'), stage(3.0)]
    found = account(hits, received(hits[0]), events)
    assert found['rollback_s'] == 0.5
    assert (found['stages'][0]['load_requests'], found['stages'][0]['load_observed_bp']) == (1, 10_000)


def test_the_outcome_is_the_journals():
    ended = event('rollout_finished', 9.0, outcome='rolled_back', reason='P95 too high')
    found = account([], [], [ended])
    assert (found['outcome'], found['reason']) == ('rolled_back', 'P95 too high')


@pytest.mark.parametrize('events, reason', [([], 'There is no journal.'), ([event('rollout_started', 1.0)], 'The journal has no end.')])
def test_without_an_end_there_is_no_outcome(events, reason):
    found = account([], [], events)
    assert (found['outcome'], found['reason']) == (None, reason)


def test_stable_is_the_version_that_the_rollout_found():
    answered = hit(version='5.1')
    second = [event('rollout_started', 0.0, previous_version='5.1', version='5.2')]
    bad = hit(code=500, version='5.2')
    found = account([answered, bad], received(answered) + received(bad, version='5.2'), second)
    assert (found['failed_stable'], found['fault_to_last_bad_s']) == (0, 0.02)


def test_the_text_tells_requests_failures_versions_and_the_fault():
    bad = hit(code=500, version='5.1')
    text = result.text(account([hit(), bad], received(bad)))
    assert 'load: 2 requests, 1 failed, 0 of them' in text
    assert 'answered by 5.1   500: 1' in text
    assert '0.02 s' in text


def test_a_line_that_a_killed_process_left_unfinished_is_left_out(tmp_path):
    (tmp_path / 'c1.jsonl').write_text('{"id": "a", "ts": 1.0, "arm": "canary", "version": "5.1", "port": 1}\n{"id": "b", "t')
    assert result.read_receipts(tmp_path) == [Receipt('a', 1.0, 'canary', '5.1')]


def test_the_newest_journal_is_the_last_written_file_and_no_link(tmp_path):
    folder = tmp_path / 'shop'
    folder.mkdir()
    for age, name in ((200, 'old'), (100, 'new')):
        (folder / (name + '.jsonl')).write_text('')
        os.utime(folder / (name + '.jsonl'), (1000 - age, 1000 - age))
    (folder / 'latest.jsonl').symlink_to('old.jsonl')
    assert result.newest_journal(tmp_path, 'shop') == folder / 'new.jsonl'
    assert result.newest_journal(tmp_path, 'shop', since=950) is None
    assert result.newest_journal(tmp_path, 'other') is None


# --- the load ---

def test_every_target_has_an_id_a_user_and_a_method_of_its_own():
    made = [json.loads(line) for line in itertools.islice(targets(random.Random(7), ['one.test', 'two.test'], 'run'), 1000)]
    assert len({target['url'].rpartition('id=')[2] for target in made}) == 1000
    assert {target['method'] for target in made} == {'GET', 'POST'}
    assert all(('body' in target) == (target['method'] == 'POST') for target in made)
    assert all(target['header']['Cookie'][0].startswith('uid=u') for target in made)
    hosts = [target['url'].split('/')[2] for target in made]
    assert len(set(hosts)) == load.CLIENTS * 2
    assert sum(host.endswith('.one.test') for host in hosts) == 500


def test_a_line_of_vegeta_is_read():
    line = {'attack': '', 'seq': 3, 'code': 201, 'timestamp': '2026-11-22T15:30:52.103000001Z', 'latency': 12_500_000, 'error': '',
            'method': 'POST', 'url': 'http://client-3.lab.test:1/api/orders?id=ab-3',
            'headers': {'X-Version': ['5.1'], 'X-Arm': ['canary']}}
    read = parse_hit(json.dumps(line))
    assert (read.id, read.method, read.code, read.version, read.arm, read.failed) == ('ab-3', 'POST', 201, '5.1', 'canary', False)
    assert read.done - read.sent == pytest.approx(0.0125, abs=1e-6)
    assert parse_hit(json.dumps({**line, 'code': 0, 'headers': None})).failed


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)), st.integers(0, 999), st.integers(-14 * 60, 14 * 60))
def test_go_times_are_read_in_every_zone_to_the_microsecond(moment, nanoseconds, offset):
    moment = moment.replace(tzinfo=timezone.utc)
    zone = timezone(timedelta(minutes=offset))
    local = moment.astimezone(zone)
    text = local.strftime('%Y-%m-%dT%H:%M:%S') + ('.%06d%03d' % (moment.microsecond, nanoseconds)).rstrip('0').rstrip('.')
    text += 'Z' if not offset else local.isoformat()[-6:]
    assert parse_timestamp(text) == pytest.approx(moment.timestamp(), abs=2e-6)


@pytest.mark.parametrize('text', ['', 'now', '2026-11-22 15:30:52Z', '2026-11-22T15:30:52', '2026-11-22T15:30:52.Z'])
def test_another_time_is_an_error(text):
    with pytest.raises(LabError, match='not understood'):
        parse_timestamp(text)


# --- where the lab is ---

def test_two_labs_share_neither_port_nor_path():
    labs = [Layout.from_environment({'LAB_DIR': '/tmp/lab-%d' % n, 'LAB_PORT': str(port)}) for n, port in enumerate((18000, 18040))]
    ports = [set(lab.ports.values()) | {port for arm in lab.arms.values() for port in arm.values()} for lab in labs]
    assert not ports[0] & ports[1]
    assert len(ports[0]) == 12
    assert labs[0].socket != labs[1].socket


@pytest.mark.parametrize('port', ['x', '80', '-1', '70000', '18000;'])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(LabError, match='LAB_PORT'):
        Layout.from_environment({'LAB_PORT': port})


def test_routers_are_named_one_by_one_or_by_a_set():
    def routers(asked):
        return Layout.from_environment({'LAB_ROUTERS': asked}).routers

    assert routers('') == routers('haproxy') == ('haproxy',)
    assert routers('hybrid') == ('haproxy', *routers('kubernetes'))
    assert routers('ingress,haproxy,ingress') == ('ingress', 'haproxy')
    with pytest.raises(LabError, match='names "envoy"'):
        routers('haproxy,envoy')


def test_a_directory_too_deep_for_a_socket_is_refused():
    with pytest.raises(LabError, match='set LAB_DIR to a shorter directory'):
        Layout.from_environment({'LAB_DIR': '/tmp/' + 'x' * 100})


def test_a_pid_that_belongs_to_somebody_else_by_now_is_never_signalled(tmp_path):
    process = Process(tmp_path, tmp_path, 'gone')
    (tmp_path / 'gone.json').write_text(json.dumps({'pid': os.getpid(), 'start_time': '1'}))
    assert process.record() is None
    assert process.stop(1.0) is False
