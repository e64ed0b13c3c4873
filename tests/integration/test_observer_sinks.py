# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the process beside a rollout writes: metrics that promtool accepts, annotations to an HTTP receiver in Grafana's place.

A Grafana cannot be had here, so the receiver is a fake: it checks what Grafana's documentation asks of ``POST /api/annotations``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.progressive.delivery.plugins.plugin_utils import _observer
from ansible_collections.progressive.delivery.plugins.module_utils._lock import process_start
from receivers import Http

ROOT = Path(__file__).resolve().parents[2]
JOURNAL = (ROOT / 'tests' / 'unit' / 'journals' / 'rolled_back.jsonl').read_text()


@pytest.fixture
def grafana():
    receiver = Http()
    yield receiver
    receiver.close()


def observe(tmp_path, text, alive=True, **orders):
    """Runs the process on a journal with *text* until its end; returns the journal's events and how long it took."""
    journal = tmp_path / 'journal.jsonl'
    journal.write_text(text)
    gone = subprocess.Popen(['sleep', '0'])
    gone.wait()
    began = time.monotonic()
    child = _observer.start(
        _observer.Orders(str(journal), 'shop-20261122T190442Z-c2e7', os.getpid() if alive else gone.pid,
                         process_start(os.getpid()) if alive else 1, 'none.yml', service='shop', **orders),
        {**os.environ, 'PYTHONPATH': str(ROOT / '.collections')})
    _pid, status = os.waitpid(child, 0)
    assert status == 0
    return [json.loads(line) for line in journal.read_text().splitlines()], time.monotonic() - began


def test_it_gives_way_to_the_rollout():
    # In a session of its own, where the nice value of the process alone counts for nothing against other sessions.
    code = ('import os; from ansible_collections.progressive.delivery.plugins.plugin_utils import _observer; _observer._step_back(); '
            'print(os.nice(0)); print(open("/proc/self/autogroup").read())')
    done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': str(ROOT / '.collections')}, capture_output=True,
                          text=True, start_new_session=True, check=False)
    nice, group = done.stdout.split('\n', 1)
    assert int(nice) >= 10, done.stderr
    assert not group.startswith('/autogroup') or group.split()[-2:] == ['nice', '10']


def test_metrics_and_annotations_of_a_rollout_that_went_back(tmp_path, grafana):
    metrics = tmp_path / 'metrics'
    metrics.mkdir()
    events, _seconds = observe(tmp_path, JOURNAL, textfile_dir=str(metrics), grafana={'url': grafana.url('g'), 'token': 'gl-s3cret'})
    assert not [event for event in events if event['event'] == 'notified']
    file, = metrics.iterdir()
    assert file.name == 'delivery_shop.prom' and file.stat().st_mode & 0o777 == 0o644
    if shutil.which('promtool'):
        checked = subprocess.run(['promtool', 'check', 'metrics'], input=file.read_bytes(), capture_output=True, check=False)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b'', b'')
    assert {path for path, _kind, _note in grafana.received} == {'/g/api/annotations'}
    assert {kind for _path, kind, _note in grafana.received} == {'application/json'}
    notes = [note for _path, _kind, note in grafana.received]
    assert [note['tags'][-1] for note in notes] == ['started', 'verdict', 'stage', 'verdict', 'rolled_back', 'stage', 'finished']
    assert all(set(note) <= {'time', 'timeEnd', 'tags', 'text'} and note['time'] > 1e12 for note in notes)


def test_a_grafana_that_refuses_is_asked_three_times_and_its_token_is_not_told(tmp_path, grafana):
    events, _seconds = observe(tmp_path, JOURNAL, grafana={'url': grafana.url('bad'), 'token': 'gl-s3cret'})
    told = [event for event in events if event['event'] == 'notified']
    assert [(event['channel'], event['ok']) for event in told] == [('grafana', False)] * 3
    assert 'status 500' in told[0]['error'] and told[-1]['error'].endswith('It is not asked any more.')
    assert 's3cret' not in json.dumps(told) and len(grafana.received) == 3


def test_what_a_grafana_says_is_told_without_the_token(tmp_path, grafana):
    def echo(self):
        body = b'{"message": "no right with %s"}' % self.headers['Authorization'].encode()
        self.send_response(403)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    grafana.handler.do_POST = echo
    events, _seconds = observe(tmp_path, JOURNAL, grafana={'url': grafana.url('g'), 'token': 'gl-s3cret'})
    told = [event['error'] for event in events if event['event'] == 'notified']
    assert told[0] == 'it answered with status 403: {"message": "no right with Bearer ***"}' and 's3cret' not in ''.join(told)


def test_a_grafana_that_never_answers_holds_up_no_metrics(tmp_path, grafana):
    metrics = tmp_path / 'metrics'
    metrics.mkdir()
    events, seconds = observe(tmp_path, JOURNAL, textfile_dir=str(metrics), grafana={'url': grafana.url('dead'), 'timeout': 1})
    written = (metrics / 'delivery_shop.prom').stat().st_mtime
    first = next(event for event in events if event['event'] == 'notified')
    assert 'did not answer within 1 s' in first['error'] and written < first['ts']
    assert seconds < _observer._FAREWELL_S + 10


def test_a_run_that_is_gone_is_seen_in_the_metrics(tmp_path):
    lines = JOURNAL.splitlines(keepends=True)
    begun = ''.join(lines[:10])  # to the first change
    observe(tmp_path, begun, alive=False, textfile_dir=str(tmp_path))
    text = (tmp_path / 'delivery_shop.prom').read_text()
    assert 'delivery_rollout_outcome{service="shop",outcome="interrupted"} 1\n' in text
    assert 'delivery_rollout_lease_expiry_timestamp_seconds{service="shop"}' in text
