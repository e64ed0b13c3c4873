# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Journal, lock and summary: what is left of a rollout when all else is gone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading

import pytest

from ansible_collections.progressive.delivery.plugins.module_utils._analysis._eprocess import Counts
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import ArmsBlock, Question, SequentialState
from ansible_collections.progressive.delivery.plugins.module_utils._errors import Conflict, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal, iso, read_journal
from ansible_collections.progressive.delivery.plugins.module_utils._lock import Lock, holder_for
from ansible_collections.progressive.delivery.plugins.module_utils._rollout import failure_sentence
from ansible_collections.progressive.delivery.plugins.module_utils._summary import render, summarize


def test_a_journal_is_read_as_it_was_written(tmp_path):
    path = str(tmp_path / 'j.jsonl')
    journal = Journal(path, 'r1', clock=lambda: 1795359485.25)
    journal.write('intent', strict=True, requested_bp={'canary': 500})
    journal.write('verdict', reason='line\nbreak \u201cand quotes\u201d')
    first, second = read_journal(path)
    assert first == {'t': '2026-11-22T14:58:05.250Z', 'ts': 1795359485.25, 'rollout': 'r1', 'event': 'intent',
                     'requested_bp': {'canary': 500}}
    assert second['reason'] == 'line\nbreak \u201cand quotes\u201d'
    assert len((tmp_path / 'j.jsonl').read_text().splitlines()) == 2


def test_a_journal_cut_off_in_its_last_line_is_still_read(tmp_path):
    path = tmp_path / 'j.jsonl'
    Journal(str(path), 'r1').write('one')
    with path.open('a') as file:
        file.write('{"event": "tw')
    assert [e['event'] for e in read_journal(str(path))] == ['one']


def test_a_journal_damaged_in_the_middle_is_refused(tmp_path):
    path = tmp_path / 'j.jsonl'
    path.write_text('{"event": "one"}\nnonsense\n{"event": "two"}\n')
    with pytest.raises(DeliveryError, match='Line 2 of the journal'):
        read_journal(str(path))


def test_lines_of_several_writers_never_mix(tmp_path):
    path = str(tmp_path / 'j.jsonl')
    writers = [threading.Thread(target=lambda n=n: [Journal(path, str(n)).write('e', text='x' * 3000) for _i in range(50)])
               for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_journal(path)) == 200


def test_a_full_disk_stops_the_start_and_nothing_later(tmp_path):
    journal = Journal('/dev/full', 'r1')
    with pytest.raises(DeliveryError, match='could not be written'):
        journal.write('rollout_started', strict=True)
    journal.write('way_back')
    assert 'No space left' in journal.error


@pytest.fixture()
def sleeper():
    process = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], stdin=subprocess.PIPE)
    yield process
    process.stdin.close()
    process.wait()


def test_a_second_rollout_is_refused_with_who_holds_it_since_when(tmp_path, sleeper):
    lock = Lock(str(tmp_path / 'shop' / 'lock'))
    lock.acquire(holder_for('r1', 'ann@ci', 1795359485, sleeper.pid))
    with pytest.raises(Conflict, match='r1 by ann@ci since 2026-11-22T14:58:05.000Z'):
        lock.acquire(holder_for('r2', 'bob', 1795359486, os.getpid()))
    assert lock.acquire(holder_for('r2', 'bob', 1795359486, os.getpid()), force=True).rollout == 'r1'


def test_a_holder_that_died_does_not_hold(tmp_path, sleeper):
    lock = Lock(str(tmp_path / 'lock'))
    lock.acquire(holder_for('r1', 'ann', 1, sleeper.pid))
    sleeper.stdin.close()
    sleeper.wait()
    assert lock.acquire(holder_for('r2', 'bob', 2, os.getpid())).rollout == 'r1'


def test_a_process_that_was_given_the_same_number_is_not_the_holder(tmp_path):
    lock = Lock(str(tmp_path / 'lock'))
    lock.acquire(holder_for('r1', 'ann', 1, os.getpid()))
    stored = json.loads((tmp_path / 'lock').read_text())
    (tmp_path / 'lock').write_text(json.dumps({**stored, 'started': 1}))
    assert lock.acquire(holder_for('r2', 'bob', 2, os.getpid())).rollout == 'r1'


def test_only_the_holder_releases(tmp_path):
    lock = Lock(str(tmp_path / 'lock'))
    lock.acquire(holder_for('r1', 'ann', 1, os.getpid()))
    assert not lock.release('r2')
    assert lock.release('r1')
    assert not lock.release('r1')
    assert lock.holder() is None


def test_of_many_at_once_one_gets_the_lock(tmp_path):
    lock, got = Lock(str(tmp_path / 'lock')), []

    def contend(n):
        try:
            lock.acquire(holder_for('r%d' % n, 'x', n, os.getpid()))
            got.append(n)
        except Conflict:
            pass

    threads = [threading.Thread(target=contend, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_a_state_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DeliveryError, match='delivery_state_dir'):
        Lock(str(tmp_path / 'file' / 'shop' / 'lock')).acquire(holder_for('r', 'x', 1, os.getpid()))


def events(*more):
    stage = {'index': 1, 'name': 'canary', 'label': 'canary 5 %', 'arm': 'canary', 'requested_bp': {'canary': 500, 'blue': 9500}}
    base = [
        {'event': 'rollout_started', 'ts': 100.0, 'rollout': 'shop-1', 'service': 'shop', 'version': '5.1', 'previous_version': '5.0',
         'stable': 'blue', 'by': 'ann', 'strategy': 'hybrid', 'stages': 4},
        {'event': 'stage_started', 'ts': 101.0, **stage},
        {'event': 'stage_finished', 'ts': 109.0, **stage,
         'configured_bp': {'canary': 500, 'blue': 9500}, 'observed_bp': {'canary': 512, 'blue': 9488},
         'arms': {'canary': {'requests': 120, 'errors': 24, 'p50_ms': 12.0, 'p95_ms': 80.0, 'p99_ms': 99.0},
                  'blue': {'requests': 2224, 'errors': 0}},
         'verdict': 'fail', 'reason': 'canary: 24 of 120 requests failed, limit 0.5 %.'},
    ]
    return base + list(more)


def test_the_summary_of_a_rolled_back_rollout_says_all_of_it():
    made = summarize(events(
        {'event': 'way_back', 'ts': 109.1, 'seconds': 0.02, 'reason': 'x'},
        {'event': 'rollout_finished', 'ts': 110.5, 'outcome': 'rolled_back', 'reason': 'canary: 24 of 120 requests failed, limit 0.5 %.'}))
    assert (made['outcome'], made['requests'], made['failed'], made['seconds']) == ('rolled_back', 2344, 24, 10.5)
    text = render(made, '/j.jsonl')
    for part in ('ROLLED BACK', '5.0 → 5.1', '5 %', '5.12 %', '24', '80 ms', 'Journal: /j.jsonl', '0.02 s after the verdict'):
        assert part in text
    assert text.rstrip().splitlines()[-1].endswith('24 of 120 requests failed, limit 0.5 %.')


def sequential(blocks):
    state = SequentialState([Question('errors against stable', margin=0.001, pass_margin=0.005)])
    for block in blocks:
        state.update({'errors against stable': ArmsBlock(Counts(*block), 10.0)})
    return state.judgement('errors against stable').as_dict()


def test_the_summary_says_in_plain_words_what_was_proven_and_what_was_not():
    open_one = sequential([(1, 950, 0, 50)] * 4)
    told = events()
    told[-1].update(verdict='pass', reason='x', conditions=[{'name': 'errors', 'verdict': 'pass', 'reason': 'x'}, open_one])
    line = next(line for line in render(summarize(told)).splitlines() if line.startswith('  1. canary 5 %: '))
    assert re.fullmatch(r'  1\. canary 5 %: passed on errors; errors against stable: canary 0 % errors against 0\.11 %, '
                        r'at most 0\.21 % allowed: harm neither proven \([\d.]+ of 20\) nor excluded \([\d.]+ of 20\)', line), line
    proof = sequential([(1, 950, 0, 50)] * 4 + [(1, 950, 9, 50)] * 2)
    told[-1].update(verdict='fail', reason=proof['reason'], conditions=[proof])
    text = render(summarize(told + [{'event': 'rollout_finished', 'ts': 110.5, 'outcome': 'rolled_back', 'reason': proof['reason']}]))
    why = (r'canary \d+(\.\d)? % errors against 0\.11 %, at most 0\.21 % allowed: \S+( a million)? times more likely harmful '
           r'than not, limit 20')
    assert re.search('  1. canary 5 %: ' + why, text) and re.search('ROLLED BACK: ' + why, text), text


def test_the_summary_says_who_was_asked_and_said_what():
    asked = {'event': 'answered', 'ts': 108.0, 'stage': 'canary 5 %', 'text': 'Quiet?', 'answer': 'go', 'by': 'ann', 'reason': 'no calls',
             'seconds': 12.0}
    assert '  canary 5 % was asked "Quiet?": go by ann after 12 s (no calls)' in render(summarize(events(asked)))
    assert '"Quiet?": no answer in 12 s' in render(summarize(events({**asked, 'answer': None, 'by': None, 'reason': None})))


def test_a_rollout_that_ended_without_a_word_is_said_to_be_so():
    assert 'ended without a word' in render(summarize(events()))


def test_times_are_utc():
    assert iso(0) == '1970-01-01T00:00:00.000Z'


def test_a_task_file_that_cannot_be_included_gives_its_reason():
    assert failure_sentence({'task': 'x', 'result': {'include': '/nope.yml', 'reason': "Could not find '/nope.yml'.\nMore."}}) == (
        "Could not find '/nope.yml'.")
