# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Being told to stop: SIGINT, SIGTERM, and a parent that is gone.

ansible-playbook forwards SIGINT and SIGTERM to its workers and exits; when it is killed it forwards nothing, and the worker finds
a new parent. A module's parent is the connection that started it, which goes the same way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import typing as t

PARENT_GONE = 'the end of the parent process'

_NAMES = {signal.SIGINT: 'SIGINT', signal.SIGTERM: 'SIGTERM'}
_PARENT_POLL_S = 0.1


class Signals:
    """While entered, calls *stop* inside the running loop with the name of what happened: once, whatever follows.

    The handlers stay until the process or the loop ends, so that a second signal, which often comes at once, interrupts nothing.
    """

    def __init__(self, stop: t.Callable[[str], None]) -> None:
        self._stop = stop
        self._said = False
        self._parent = os.getppid()
        self._watcher: asyncio.Task[None] | None = None

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
        if not self._said:
            self._said = True
            self._stop(name)

    async def _watch_parent(self) -> None:
        while os.getppid() == self._parent:
            await asyncio.sleep(_PARENT_POLL_S)
        self._once(PARENT_GONE)


def leave(name: str) -> t.NoReturn:
    """Ends this process as the signal *name* would have."""
    for number, known in _NAMES.items():
        if name == known:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
    os._exit(1)
