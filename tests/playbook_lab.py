# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A gate in a playbook of its own, for tests of what ansible-playbook does with signals and with a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from pathlib import Path

from gate_lab import ARMS, ERRORS
from haproxy_lab import wait_for

ROOT = Path(__file__).resolve().parents[1]


class Playbook:
    """A playbook with one task, a gate, or two, the share of the canary with a *lease* before it. What it says is in ``text``; with
    *tty* its output is a terminal; with *keyboard* that is its controlling terminal too, and ``type`` types there."""

    def __init__(self, lab, tty=False, keyboard=False, arguments=(), environ=None, lease=None, **options):
        self.lab = lab
        path = lab.proxy.dir / 'play.yml'
        gate = json.loads(lab.dump(**{'bake': 40, 'conditions': [ERRORS], **options}))
        tasks = [{'name': 'Watch', 'progressive.delivery.health_gate': gate}]
        if lease:
            gate['leases'] = ['{{ moved.lease }}']
            tasks.insert(0, {'name': 'Move', 'register': 'moved', 'progressive.delivery.traffic_weight': {
                'service': 'shop', 'arms': ARMS, 'endpoints': lab.endpoints, 'split': {'canary': '50%'}, 'stable': 'blue', 'lease': lease}})
        path.write_text(json.dumps([{'hosts': 'localhost', 'gather_facts': False, 'connection': 'local', 'tasks': tasks}]))
        master, slave = pty.openpty() if tty or keyboard else os.pipe()
        self._master = master
        self._parts: list[bytes] = []
        self.process = subprocess.Popen(
            [Path(sys.executable).parent / 'ansible-playbook', str(path), *arguments], stdin=slave if keyboard else subprocess.DEVNULL,
            stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if keyboard else None, cwd=lab.proxy.dir,
            env={**{k: v for k, v in os.environ.items() if not k.startswith('ANSIBLE_')},
                 'ANSIBLE_COLLECTIONS_PATH': str(ROOT / '.collections'), 'ANSIBLE_NOCOLOR': '1', 'TERM': 'xterm', **(environ or {})})
        os.close(slave)
        self._reader = threading.Thread(target=self._read, args=(master,), daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    @property
    def text(self):
        return b''.join(self._parts).decode(errors='replace')

    def end(self, seconds=40):
        """Waits for the end of everything that can still write, and returns the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    def sampled(self, count=3):
        wait_for(lambda: os.path.exists(self.lab.journal) and len(self.lab.events('sample')) >= count or self.process.poll() is not None,
                 'samples; it said: %s' % self.text, 40)
        assert self.process.poll() is None, self.text
        return self

    def type(self, text):
        os.write(self._master, text.encode())

    def said(self, text):
        wait_for(lambda: text in self.text or self.process.poll() is not None, '"%s"; it said: %s' % (text, self.text), 40)
        assert text in self.text, self.text
        return self

    def kill(self, number):
        os.kill(self.process.pid, number)

    def worker(self):
        """The pid of the process that runs the task."""
        return int(subprocess.run(['pgrep', '-P', str(self.process.pid)], capture_output=True, text=True, check=True).stdout.split()[0])

    def _read(self, master):
        with contextlib.suppress(OSError):
            while True:
                part = os.read(master, 65536)
                if not part:
                    break
                self._parts.append(part)
        os.close(master)
