# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of the traffic when whoever watches it is stopped, through ansible-playbook itself."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time

import pytest
from gate_lab import ERRORS, GateLab
from haproxy_lab import wait_for
from playbook_lab import Playbook


@pytest.fixture
def lab():
    with GateLab() as running, running.load(rate=60.0):
        yield running


# Longer than any test: only a way back can end the candidate's share.
LEASE = '600s'


@pytest.mark.parametrize('number, code, said', [
    (signal.SIGINT, 99, 'SIGINT'), (signal.SIGTERM, -signal.SIGTERM, 'SIGTERM'),
    (signal.SIGKILL, -signal.SIGKILL, 'the end of the parent process')])
def test_a_stopped_playbook_returns_the_traffic_and_says_so(lab, number, code, said):
    with Playbook(lab, leases=[lab.move('50%', lease=LEASE)]) as playbook:
        playbook.sampled().kill(number)
        wait_for(lambda: lab.to() == 'blue', 'the traffic on blue')
        assert playbook.end() == code
        assert 'Watching canary was ended by %s. Traffic is back on blue after ' % said in playbook.text
    events = [one for one in lab.events() if one['event'] not in ('watching', 'counters', 'sample')]
    assert [one['event'] for one in events] == ['signal', 'verdict', 'way_back']
    assert events[0]['signal'] == said and events[2]['to'] == 'blue' and events[2]['complete']


def test_a_module_on_the_target_returns_the_traffic_when_its_connection_is_gone(lab):
    with Playbook(lab, run_on='target', lease=LEASE) as playbook:
        wait_for(lambda: lab.proxy.ask('show activity') and 'canary' in lab.entry(), 'the share', 40)
        renewed = lab.entry()[0]
        wait_for(lambda: lab.entry()[0] != renewed, 'the first renewal', 40)
        worker = playbook.worker()
        playbook.kill(signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        playbook.kill(signal.SIGKILL)
        wait_for(lambda: lab.to() == 'blue', 'the traffic on blue')


def test_a_module_on_the_target_does_the_same(lab):
    with Playbook(lab, run_on='target', lease='60s', bake=4) as playbook:
        assert playbook.end() == 0, playbook.text
    assert lab.to() is None
    assert [(one['event'], one.get('verdict')) for one in lab.events()] == [('verdict', 'pass')]
    lab.canary.status = 500
    with Playbook(lab, run_on='target', lease=LEASE) as playbook:
        assert playbook.end() == 2 and 'Traffic is back on blue' in playbook.text
    assert lab.to() == 'blue' and lab.events()[-1]['event'] == 'way_back'


def test_impatience_changes_nothing(lab):
    """Ctrl-C again and again, and SIGTERM to the worker too: the way back is finished and recorded."""
    with Playbook(lab, leases=[lab.move('50%', lease=LEASE)]) as playbook:
        playbook.sampled()
        worker = playbook.worker()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, number)
        wait_for(lambda: lab.to() == 'blue', 'the traffic on blue')
        assert playbook.end() != 0
    assert [one['event'] for one in lab.events()][-3:] == ['signal', 'verdict', 'way_back']


def test_a_journal_that_hangs_holds_up_no_way_back(lab):
    """A FIFO that nobody reads stands for a file system that does not answer."""
    lease = lab.move('50%', lease=LEASE)
    fifo = str(lab.proxy.dir / 'journal.fifo')
    os.mkfifo(fifo)
    with Playbook(lab, leases=[lease], journal=fifo) as playbook:
        wait_for(lambda: re.search(r'canary  0:\d\d/0:40', playbook.text), 'the first line', 40)
        playbook.kill(signal.SIGTERM)
        wait_for(lambda: lab.to() == 'blue', 'the traffic on blue')
        assert playbook.end() != 0
        assert 'Traffic is back on blue' in playbook.text


def test_a_frozen_playbook_loses_no_lease(lab):
    """The parent is stopped, nothing reads what the worker says: it watches on, renews, and finds the fault."""
    with Playbook(lab, lease='2s') as playbook:
        playbook.sampled().kill(signal.SIGSTOP)
        until = float(lab.entry()[0])
        wait_for(lambda: float(lab.entry()[0]) > until + 2500, 'renewals for longer than the lease')
        lab.canary.status = 500
        wait_for(lambda: lab.to() == 'blue', 'the traffic on blue')
        playbook.kill(signal.SIGCONT)
        assert playbook.end() == 2
        assert 'requests failed' in playbook.text


def test_without_anybody_the_lease_ends_the_share(lab):
    """Parent and worker are killed at once, as a container is."""
    with Playbook(lab, lease='2s') as playbook:
        playbook.sampled()
        worker = playbook.worker()
        playbook.kill(signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        playbook.kill(signal.SIGKILL)
    wait_for(lambda: float(lab.entry()[0]) < time.time() * 1000, 'the end of the lease')
    hits = lab.canary.hits
    served = lab.blue.hits
    wait_for(lambda: lab.blue.hits > served + 30, 'requests on blue')
    assert lab.canary.hits == hits


# What a person sees


def test_a_failed_gate_fails_the_playbook_with_its_sentence(lab):
    lab.canary.status = 500
    with Playbook(lab, leases=[lab.move('50%', lease=LEASE)]) as playbook:
        assert playbook.end() == 2
        assert 'requests failed (100.00 %)' in playbook.text and 'Traffic is back on blue after' in playbook.text
    assert lab.to() == 'blue'


def test_a_terminal_has_one_line_redrawn(lab):
    with Playbook(lab, tty=True, bake=2, leases=[lab.move('50%', lease=LEASE)]) as playbook:
        assert playbook.end() == 0, playbook.text
        assert '\x1b[K' in playbook.text
        drawn = [line for line in playbook.text.split('\n') if 'canary' in line]
        assert len(drawn) == 1 and drawn[0].count('\rcanary') >= 4


@pytest.mark.parametrize('tty, environ', [
    (False, {}), (True, {'AWX_ISOLATED_DATA_DIR': '/tmp'}), (True, {'TERM': 'dumb'})])
def test_elsewhere_each_sample_is_a_line(lab, tty, environ):
    with Playbook(lab, tty=tty, environ=environ, bake=2, leases=[lab.move('50%', lease=LEASE)]) as playbook:
        assert playbook.end() == 0, playbook.text
        assert '\x1b[K' not in playbook.text
        assert len([line for line in playbook.text.split('\n') if line.startswith('canary  0:0')]) >= 4


def test_check_mode_says_what_it_would_do_and_opens_nothing(lab):
    lab.proxy.stop()
    with Playbook(lab, arguments=['--check']) as playbook:
        assert playbook.end() == 0, playbook.text
        assert 'would watch canary for 40 s, every 0.50 s, with 1 condition' in playbook.text
    assert not os.path.exists(lab.journal)


@pytest.mark.parametrize('options, words', [
    ({'conditions': []}, 'There is no required condition'),
    ({'conditions': [{**ERRORS, 'abort_over': 1}]}, 'abort_over'),
    ({'conditions': [{**ERRORS, 'metric': 'latency_p95.x'}]}, 'does not have'),
    ({'candidate': 'purple'}, 'The candidate arm "purple" is not one of the service'),
    ({'bake': '0.2s'}, 'cannot be watched')])
def test_bad_input_ends_before_anything_and_changes_nothing(lab, options, words):
    with Playbook(lab, **{'leases': [lab.move('50%', lease=LEASE)], **options}) as playbook:
        assert playbook.end() == 2
        assert words in playbook.text
    assert lab.to() is None and not os.path.exists(lab.journal)
