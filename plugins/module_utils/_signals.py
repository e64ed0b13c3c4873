# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Being told to stop: SIGINT, SIGTERM, and a parent that is gone.

ansible-playbook forwards SIGINT and SIGTERM to its workers and exits; when it is killed it forwards nothing, and the worker finds
a new parent. A module on another host hears nothing of it; its connection is closed.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import typing as t

PARENT_GONE = 'the end of the parent process'

_NAMES = {signal.SIGINT: 'SIGINT', signal.SIGTERM: 'SIGTERM'}
_PARENT_POLL_S = 0.1


class Signals:
    """While entered, calls *stop* inside the running loop when something of the kind happens: once, whatever follows.

    The handlers stay until the process or the loop ends, so that a second signal, which often comes at once, interrupts nothing.
    """

    def __init__(self, stop: t.Callable[[], None]) -> None:
        self._stop = stop
        self._seen: set[str] = set()
        self._parent = os.getppid()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def cause(self) -> str:
        """What happened, the likeliest cause of the rest first: a parent that gets SIGINT sends SIGTERM and goes, in any order for us."""
        return next((name for name in (*_NAMES.values(), PARENT_GONE) if name in self._seen), '')

    def __enter__(self) -> 'Signals':
        loop = asyncio.get_running_loop()
        for number in _NAMES:
            try:
                loop.add_signal_handler(number, self._once, _NAMES[number])
            except (NotImplementedError, RuntimeError, ValueError):
                # Not the main thread: whoever owns it decides on signals; leases do the rest.
                break
        self._watcher = loop.create_task(self._watch_parent())
        return self

    def __exit__(self, *exc: object) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    def _once(self, name: str) -> None:
        first = not self._seen
        self._seen.add(name)
        if first:
            self._stop()

    async def _watch_parent(self) -> None:
        while os.getppid() == self._parent and not _unread():
            await asyncio.sleep(_PARENT_POLL_S)
        self._once(PARENT_GONE)


def _unread() -> bool:
    """Whether standard output is a pipe that nobody can read any more: a module whose connection is gone keeps its shell as parent."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _descriptor, event in poll.poll(0))


def leave(name: str) -> t.NoReturn:
    """Ends this process as the signal *name* would have."""
    for number, known in _NAMES.items():
        if name == known:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
    os._exit(1)
