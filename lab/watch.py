# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rollout of the lab as it runs, on one screen that is drawn anew in place; ends when the rollout does."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / '.collections'))

from ansible_collections.progressive.delivery.plugins.module_utils import _status
from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._report import files
from ansible_collections.progressive.delivery.plugins.module_utils._traffic_info import run_info
from layout import SERVICE, Layout

_EVERY_S = 0.5
_PLAIN_COLUMNS = 140
_HOME, _CLEAR_LINE, _CLEAR_BELOW = '\x1b[H', '\x1b[K', '\x1b[J'
# The alternate screen leaves what the terminal showed before as it was.
_ENTER, _LEAVE = '\x1b[?1049h\x1b[?25l', '\x1b[?25h\x1b[?1049l'


def look(lab: Layout) -> dict[str, t.Any]:
    """Returns how the lab's service stands now."""
    link = lab.state / SERVICE / 'latest.jsonl'
    report, info, problem = None, None, None
    try:
        report = files.load(str(link)) if link.exists() else None
        if lab.socket.exists():
            info = asyncio.run(run_info({
                'service': SERVICE, 'arms': {arm: {'backend': arm} for arm in lab.arms}, 'on_error': 'report',
                'endpoints': [{'name': 'lab', 'socket': 'unix://%s' % lab.socket, 'map': str(lab.map), 'slots': 2, 'sticky': True,
                               'matches': [{'header': 'x-canary-user', 'value': 'true'}], 'deadline': 1}]}))
    except DeliveryError as exc:
        problem = str(exc)
    return _status.status({**(info or {}), 'service': SERVICE}, report, time.time(), problem)


def watch(lab: Layout, patience: float) -> int:
    """Draws until the rollout that runs has ended; without one, until one has begun and ended, at most *patience* seconds for that.

    Elsewhere than on a terminal it prints each new event on a line of its own.
    """
    terminal = sys.stdout.isatty() and os.environ.get('TERM') != 'dumb'
    colours = terminal and not os.environ.get('NO_COLOR')
    began, seen, drawn, running, told = time.monotonic(), 0.0, '', None, look(lab)
    if terminal:
        print(_ENTER, end='')
    try:
        while True:
            rollout = told['rollout'] or {}
            if rollout.get('running'):
                running = rollout['id']
            if terminal:
                drawn = _draw(told, colours, running, drawn)
            elif (running is not None and rollout.get('id') == running) or rollout.get('running'):
                seen = _tell(rollout, seen)
            if running is not None and not rollout.get('running'):
                return 0
            if running is None and time.monotonic() - began > patience:
                return 0
            time.sleep(_EVERY_S)
            told = look(lab)
    except KeyboardInterrupt:
        return 130
    finally:
        if terminal:
            print(_LEAVE, end='', flush=True)
        print(_status.render(told, shutil.get_terminal_size((_PLAIN_COLUMNS, 40)).columns if terminal else _PLAIN_COLUMNS, colours))


def _draw(told: t.Mapping[str, t.Any], colours: bool, running: str | None, before: str) -> str:
    """Draws a screen in one write, only when something changed: a terminal has nothing to flicker with then. Returns it."""
    size = shutil.get_terminal_size((100, 30))
    text = _status.render(told, size.columns, colours)
    if running is None:
        text += '\n\nWaiting for a rollout to begin (Ctrl-C ends this).'
    lines = text.split('\n')[:max(size.lines - 1, 1)]
    frame = _HOME + ''.join(line + _CLEAR_LINE + '\n' for line in lines) + _CLEAR_BELOW
    if frame != before:
        sys.stdout.write(frame)
        sys.stdout.flush()
    return frame


def _tell(rollout: t.Mapping[str, t.Any], seen: float) -> float:
    for event in rollout['last_events']:
        if event['at'] > seen:
            print('%s  %s' % (time.strftime('%H:%M:%S', time.gmtime(event['at'])), event['what']), flush=True)
            seen = event['at']
    return seen
