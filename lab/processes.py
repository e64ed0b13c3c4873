# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that outlive the command which started them, each known by a file of its own.

The file holds the pid together with the process's start time, so that a number which the kernel has given to somebody
else is never signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import typing as t
from pathlib import Path

from layout import LabError

Condition = t.Callable[[], object]


def wait_until(condition: Condition, seconds: float, interval: float = 0.03) -> bool:
    """Asks *condition* until it is true; False when it was not within *seconds*."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval)
    return True


def _start_time(pid: int) -> str | None:
    """The process's start in clock ticks since boot, None when there is no such process, or only its zombie (proc(5), stat)."""
    try:
        fields = Path('/proc/%d/stat' % pid).read_text().rpartition(')')[2].split()
    except OSError:
        return None
    return None if fields[0] in 'ZX' else fields[19]


class Process:
    """One named process of a lab: *run*/NAME.json says what it is, *logs*/NAME.log what it said."""

    def __init__(self, run: Path, logs: Path, name: str) -> None:
        self.name = name
        self._file, self.log = run / (name + '.json'), logs / (name + '.log')

    def record(self) -> dict | None:
        """What was started under this name and still runs, or None."""
        try:
            record = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None
        return record if record['start_time'] and _start_time(record['pid']) == record['start_time'] else None

    def start(self, command: t.Sequence[object], about: t.Mapping[str, object] | None = None,
              env: t.Mapping[str, str] | None = None) -> int:
        """Starts *command* in a session of its own and returns its pid; *about* is kept with it."""
        if self.record():
            raise LabError('%s runs already.' % self.name)
        for path in (self._file, self.log):
            path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, 'ab') as log:
            child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     start_new_session=True, env={**os.environ, **(env or {})})
        # The child is init's when we end; until then, we must not hold its zombie for a living process.
        record = {'pid': child.pid, 'start_time': _start_time(child.pid), **(about or {})}
        temporary = self._file.with_suffix('.new')
        temporary.write_text(json.dumps(record))
        temporary.replace(self._file)
        return child.pid

    def stop(self, patience: float, first: int = signal.SIGTERM) -> bool:
        """Ends the process: *first*, and SIGKILL after *patience* seconds. False when it did not run."""
        return stop_all([self], patience, first)

    def signal(self, number: int) -> bool:
        record = self.record()
        if record:
            with contextlib.suppress(ProcessLookupError):
                os.kill(record['pid'], number)
        return bool(record)

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)

    def complaint(self) -> str:
        """The last lines of its log, for an error."""
        with contextlib.suppress(OSError):
            return ' '.join(self.log.read_text(errors='replace').splitlines()[-3:])
        return 'nothing'


def stop_all(processes: t.Sequence[Process], patience: float, first: int = signal.SIGTERM) -> bool:
    """Ends all of *processes* at once, waiting together; False when none of them ran."""
    running = [process for process in processes if process.signal(first)]
    if not wait_until(lambda: not any(process.record() for process in running), patience):
        for process in running:
            process.signal(signal.SIGKILL)
        wait_until(lambda: not any(process.record() for process in running), 5.0)
    for process in processes:
        process.forget()
    return bool(running)
