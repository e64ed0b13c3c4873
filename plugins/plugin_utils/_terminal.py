# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins!

"""The keyboard of whoever runs ansible-playbook, as a worker reaches it.

Display.prompt_until would ask through the parent, but while it waits nothing else is displayed and no result taken, an answer from
elsewhere cannot end it, and a parent that is killed leaves the terminal raw. So the parent's terminal is opened once more: a process that
has no controlling terminal may read any that it may open. It stays in its line mode, and Ctrl-C a signal.
"""

from __future__ import annotations

import os
import termios
import typing as t

from ansible_collections.progressive.delivery.plugins.plugin_utils._live import Live, in_awx


class Keyboard:
    """Lines typed at the terminal of the parent, while that is in the foreground. While open, the live line is not redrawn."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._parent = os.getppid()
        self._fd: int | None = None
        self._rest = b''

    def open(self) -> bool:
        if in_awx():
            return False
        try:
            self._fd = os.open('/proc/%d/fd/0' % self._parent, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            if os.isatty(self._fd):
                # What was typed before was no answer to this question.
                termios.tcflush(self._fd, termios.TCIFLUSH)
                self._live.hold(True)
                return True
        except (OSError, termios.error):
            pass
        self.close()
        return False

    def read(self) -> str | None:
        if self._fd is not None and self._foreground():
            try:
                data = os.read(self._fd, 4096)
                if not data:
                    # Ctrl-D ends a line without a word.
                    return None
                self._rest += data
            except BlockingIOError:
                pass
            except OSError:
                # The terminal is gone: the journal is left.
                self.close()
        line, end, rest = self._rest.partition(b'\n')
        if not end:
            return None
        self._rest = rest
        return line.decode(errors='replace').strip()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._live.hold(False)

    def _foreground(self) -> bool:
        """Whether what is typed is meant for the parent (proc(5), /proc/pid/stat: field 5 its group, 8 the terminal's,
        -1 without one of its own)."""
        try:
            with open('/proc/%d/stat' % self._parent, encoding='ascii', errors='replace') as file:
                fields: t.Sequence[str] = file.read().rpartition(')')[2].split()
        except OSError:
            return False
        return fields[5] in (fields[2], '-1')
