# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's watch draws what the journal says until the rollout ends: a real journal, a real terminal, no HAProxy needed."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.progressive.delivery.plugins.module_utils._lock import Lock, holder_for

ROOT = Path(__file__).resolve().parents[2]
EVENTS = (ROOT / 'tests' / 'unit' / 'journals' / 'promoted.jsonl').read_text(encoding='utf-8').splitlines()
IN_STAGE_2 = next(n for n, line in enumerate(EVENTS) if '"verdict"' in line and 'canary 20 %' in line)
ROLLOUT = json.loads(EVENTS[0])['rollout']


@pytest.fixture
def running(tmp_path):
    """A journal that is being written by this process, as the lab's watch finds it."""
    folder = tmp_path / 'state' / 'shop'
    folder.mkdir(parents=True)
    journal = folder / ('%s.jsonl' % ROLLOUT)
    journal.write_text('\n'.join(EVENTS[:IN_STAGE_2]) + '\n')
    (folder / 'latest.jsonl').symlink_to(journal.name)
    Lock(str(folder / 'lock')).acquire(holder_for(ROLLOUT, 'ann', 1, os.getpid()))
    return journal


def finish(journal):
    with journal.open('a') as file:
        file.write('\n'.join(EVENTS[IN_STAGE_2:]) + '\n')


def started(journal, **more):
    environ = {**os.environ, 'LAB_DIR': str(journal.parents[2]), 'LAB_PORT': '18000', 'TERM': 'xterm', **more.pop('env', {})}
    return subprocess.Popen([sys.executable, str(ROOT / 'lab' / 'lab.py'), 'watch'], env=environ, stderr=subprocess.PIPE, **more)


def test_watch_prints_what_happens_and_ends_with_the_rollout(running):
    process = started(running, stdout=subprocess.PIPE, text=True)
    assert 'canary 0 % → 5 %' in process.stdout.readline()
    finish(running)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert 'PROMOTED' in said and '\x1b' not in said


@pytest.mark.parametrize('no_color', ['', '1'])
def test_watch_draws_in_place_on_a_terminal_and_leaves_it_as_it_was(running, no_color):
    ours, theirs = pty.openpty()
    process = started(running, stdout=theirs, stdin=theirs, env={'NO_COLOR': no_color})
    os.close(theirs)
    seen, end = '', time.monotonic() + 60
    finished = False
    while time.monotonic() < end:
        try:
            data = os.read(ours, 65536).decode(errors='replace')
        except OSError:
            break
        if not data:
            break
        seen += data
        if 'Stage 2 of 4' in seen and not finished:
            finished = True
            finish(running)
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert seen.startswith('\x1b[?1049h') and '\x1b[?25h\x1b[?1049l' in seen
    frames = seen.split('\x1b[H')
    assert 'STILL RUNNING' in frames[1] and 'PROMOTED' in frames[-1]
    assert bool(re.search(r'\x1b\[[0-9]+m', seen)) is not bool(no_color)
