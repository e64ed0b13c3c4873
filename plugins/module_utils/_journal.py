# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The record of a rollout: one file, one JSON object a line, appended and never rewritten.

Every line has ``t`` (ISO 8601 in UTC with milliseconds), ``ts`` (seconds since 1970), ``rollout`` and ``event``. A line is
written by a single write(2) on a descriptor opened with O_APPEND, so that several processes can share a journal.
"""

from __future__ import annotations

import json
import os
import time
import typing as t
from datetime import datetime, timezone

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError


def iso(ts: float) -> str:
    """Returns *ts* (seconds since 1970) as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(ts, timezone.utc).isoformat(timespec='milliseconds').replace('+00:00', 'Z')


class Journal:
    """Appends events to *path*; with *path* None it keeps silent.

    Only the first event of a rollout must succeed (``strict``): a disk that fills up later must never hold up a way back.
    What could not be written is kept in ``error``.
    """

    def __init__(self, path: str | None, rollout: str | None, clock: t.Callable[[], float] = time.time) -> None:
        self.path = path
        self.rollout = rollout
        self.error: str | None = None
        self._clock = clock

    def write(self, event: str, *, strict: bool = False, **fields: t.Any) -> None:
        """Appends one event. Raises DeliveryError only when *strict*."""
        if not self.path:
            return
        now = self._clock()
        line = json.dumps({'t': iso(now), 'ts': round(now, 6), 'rollout': self.rollout, 'event': event, **fields}, default=str)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.write(descriptor, line.encode() + b'\n')
                if strict:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as exc:
            self.error = 'The journal %s could not be written: %s. Free the disk or correct its permissions.' % (self.path, exc.strerror)
            if strict:
                raise DeliveryError(self.error) from exc


class Scan(t.NamedTuple):
    """What a journal's text holds."""

    events: list[dict[str, t.Any]]
    unreadable: list[int]
    """Numbers of the lines that are no JSON objects: the last one of a journal whose writer was killed, or a line that a full
    disk cut off and that the next event was written behind."""
    lines: int


def scan_journal(text: str) -> Scan:
    """Reads what can be read. Pure; never raises."""
    events, unreadable = [], []
    lines = text.split('\n')
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        # A number of thousands of digits and a nesting of thousands of brackets are no events either.
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict):
            events.append(event)
        else:
            unreadable.append(number)
    return Scan(events, unreadable, len(lines))


def load_journal(path: str) -> Scan:
    """Returns what can be read of the journal *path*. Raises DeliveryError when there is no such file to be read."""
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return scan_journal(file.read())
    except OSError as exc:
        raise DeliveryError('The journal %s could not be read: %s.' % (path, exc.strerror)) from exc


def read_journal(path: str) -> list[dict[str, t.Any]]:
    """Returns the events of a journal. A last line that was cut off, by a crash say, is left out.

    Raises DeliveryError when the file cannot be read or holds something else in the middle.
    """
    found = load_journal(path)
    if found.unreadable and found.unreadable[0] < found.lines:
        raise DeliveryError('Line %d of the journal %s is not JSON: the file was changed by something else.' % (found.unreadable[0], path))
    return found.events
