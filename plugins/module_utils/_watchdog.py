# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A dead man's switch for routers whose data plane has no lease: a process that writes the stored way back when nobody renews it.

The process is started on the host that runs the task, in a session of its own, and outlives whoever started it, SIGKILL
included. It knows one state file: what to send where, and until when not to. Renewing moves the deadline in the file; without
a deadline, or without the file, the process ends. The deadline is on CLOCK_BOOTTIME, which no setting of the clock moves.
It ends with its host: a control host that loses its power takes the switch with it.

This file imports nothing but the standard library, so that a copy of it runs alone: ``python watchdog.py STATE_FILE``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import typing as t

_POLL_S = 0.25
_CONNECT_S = 2.0
_RETRY_S = 0.5
_GIVE_UP_S = 3600.0
_START_S = 1.5


def now_s() -> float:
    """Returns seconds since boot, suspension included: the clock of deadlines."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Returns what tells this boot from another: a deadline means nothing after the next one."""
    with contextlib.suppress(OSError), open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
        return file.read().strip()
    return ''


class StateFile:
    """The state file of one service at one endpoint. Change it under ``locked`` only."""

    def __init__(self, path: str) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> t.Iterator[None]:
        """Holds the lock. Raises OSError."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        descriptor = os.open(self.path + '.lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def load(self) -> dict[str, t.Any] | None:
        """Returns the state, None when there is none. Raises ValueError when the file holds something else."""
        try:
            with open(self.path, encoding='utf-8') as file:
                state = json.load(file)
        except FileNotFoundError:
            return None
        if not isinstance(state, dict):
            raise ValueError('%s does not hold an object' % self.path)
        return state

    def save(self, state: t.Mapping[str, t.Any]) -> None:
        """Replaces the state as a whole. Raises OSError."""
        descriptor, temporary = tempfile.mkstemp(prefix='.state.', dir=os.path.dirname(self.path))
        try:
            with open(descriptor, 'w', encoding='utf-8') as file:
                json.dump(state, file)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def watched(self) -> bool:
        """Whether a watchdog process holds this state."""
        descriptor = os.open(self.path + '.watch', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)


def left_s(state: t.Mapping[str, t.Any] | None) -> float | None:
    """Returns what is left of the lease, not above 0 when it has ended; None when there is none."""
    if not state or state.get('deadline') is None:
        return None
    if state.get('expired') or state.get('boot') != boot_id():
        return 0.0
    return float(state['deadline']) - now_s()


def ensure(path: str, source: str) -> None:
    """Makes sure that a watchdog holds the state file; *source* is the text of this file. Raises OSError."""
    state = StateFile(path)
    if state.watched():
        return
    program = os.path.join(os.path.dirname(path), 'watchdog.py')
    if not os.path.exists(program) or open(program, encoding='utf-8').read() != source:
        descriptor, temporary = tempfile.mkstemp(prefix='.watchdog.', dir=os.path.dirname(path))
        with open(descriptor, 'w', encoding='utf-8') as file:
            file.write(source)
        os.replace(temporary, program)
    # Not run_command: that waits for the end.
    started = subprocess.Popen(  # pylint: disable=consider-using-with,ansible-bad-function
        [sys.executable, '-I', program, path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, cwd='/', close_fds=True)
    # It is left alone on purpose: nobody waits for it.
    started.returncode = 0
    end = time.monotonic() + _START_S
    while not state.watched():
        if time.monotonic() > end:
            raise OSError('the watchdog process did not start within %g s' % _START_S)
        time.sleep(0.01)


def send(address: str, commands: t.Sequence[str]) -> str:
    """Sends commands to a runtime socket, one line for all; returns what HAProxy says, nothing when all went well. Raises OSError."""
    kind, rest = address.split('://', 1)
    if kind == 'unix':
        client = socket.socket(socket.AF_UNIX)
        target: t.Any = rest
    else:
        host, port = rest.rsplit(':', 1)
        client = socket.socket(socket.AF_INET6 if host.startswith('[') else socket.AF_INET)
        target = (host.strip('[]'), int(port))
    with client:
        client.settimeout(_CONNECT_S)
        client.connect(target)
        client.sendall(';'.join(commands).encode('ascii') + b'\n')
        reply = b''
        while True:
            part = client.recv(65536)
            if not part:
                return reply.decode('utf-8', 'replace').strip()
            reply += part


def watch(path: str) -> int:
    """Holds the state file until its lease is over, one way or the other. Returns an exit code."""
    state_file = StateFile(path)
    descriptor = os.open(path + '.watch', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    give_up = now_s() + _GIVE_UP_S
    while True:
        with state_file.locked():
            state = state_file.load()
            left = left_s(state)
            if state is None or left is None or state.get('returned') or now_s() > give_up:
                # Let go under the lock of the state, so that whoever saves a new one sees that nobody watches.
                os.close(descriptor)
                return 0
            if left > 0:
                give_up = now_s() + left + _GIVE_UP_S
                pause = min(left, _POLL_S)
            else:
                pause = _RETRY_S
                state_file.save(_return(state))
        time.sleep(pause)


def _return(state: dict[str, t.Any]) -> dict[str, t.Any]:
    """Writes the way back; returns the state with what came of it."""
    try:
        said = send(state['socket'], state['way_back'])
    except OSError as exc:
        said = str(exc) or type(exc).__name__
    now = time.time()
    return dict(state, expired=state.get('expired') or now, returned=None if said else now, error=said[:500])


if __name__ == '__main__':
    raise SystemExit(watch(sys.argv[1]))
