# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a person sees while a task runs on the control host.

A worker of ansible-core has no terminal: its standard streams lead to /dev/null, and Display hands lines to the parent. So the
parent's own descriptors are opened through /proc: to learn whether it writes to a terminal, and to have a last word when it is gone.
"""

from __future__ import annotations

import os

from ansible.utils.display import Display

from ansible_collections.progressive.delivery.plugins.module_utils._display import Progress, fit, line

_CLEAR = '\x1b[K'


class Live:
    """Shows the progress of a stage: redrawn in place on a terminal, a line a sample elsewhere (AWX shows a terminal it is not)."""

    def __init__(self) -> None:
        self._display = Display()
        self._parent_err = _open_parent(2)
        self._columns = _columns(_open_parent(1))
        self._redrawn = False
        self._held = False
        self._last = ''

    def show(self, progress: Progress | str) -> None:
        """Shows the progress, or a sentence that stays above it; of an empty sentence the last progress, for one who asks."""
        text = (progress or self._last) if isinstance(progress, str) else line(progress)
        self._last = self._last if isinstance(progress, str) else text
        if isinstance(progress, str):
            self._display.display('\r%s%s' % (_CLEAR, text) if self._redrawn else text)
        elif self._held and self._columns:
            # Somebody types: what is echoed must stay readable.
            pass
        elif self._columns:
            self._display.display('\r%s%s' % (fit(text, self._columns - 1), _CLEAR), newline=False, screen_only=True)
            self._redrawn = True
        else:
            self._display.display(text)

    def hold(self, held: bool) -> None:
        """Keeps the line from being redrawn while a question stands on a terminal."""
        self._held = held

    def end(self) -> None:
        """Leaves the last line standing."""
        if self._redrawn:
            self._display.display('', screen_only=True)
            self._redrawn = False

    def say(self, sentence: str) -> None:
        """Writes *sentence* where the parent's errors go, though the parent may be gone. Never raises."""
        if self._parent_err is None:
            return
        try:
            os.set_blocking(self._parent_err, False)
            os.write(self._parent_err, ('%s%s\n' % ('\r' + _CLEAR if self._redrawn else '', sentence)).encode())
        except OSError:
            pass


def terminal_columns() -> int:
    """Returns the width of the terminal that ansible-playbook writes to, 0 where it writes to something else."""
    return _columns(_open_parent(1))


def _open_parent(number: int) -> int | None:
    try:
        return os.open('/proc/%d/fd/%d' % (os.getppid(), number), os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


def _columns(descriptor: int | None) -> int:
    """Returns the width of the terminal that can be drawn on, 0 when there is none."""
    if descriptor is None:
        return 0
    try:
        if in_awx() or os.environ.get('TERM') == 'dumb' or not os.isatty(descriptor):
            return 0
        return os.get_terminal_size(descriptor).columns or 80
    except OSError:
        return 0
    finally:
        os.close(descriptor)


def in_awx() -> bool:
    """Whether AWX runs this: its terminal has nobody at it."""
    return 'AWX_ISOLATED_DATA_DIR' in os.environ or os.environ.get('ANSIBLE_STDOUT_CALLBACK') == 'awx_display'
