# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Writing that must not hold up whoever wants something written: a full pipe, a stopped terminal, a slow disk."""

from __future__ import annotations

import queue
import threading
import typing as t


class Outlet:
    """Calls *write* with each item in order, in a thread of its own. With *droppable*, items that find no room are dropped."""

    def __init__(self, write: t.Callable[..., object], room: int = 1000, droppable: bool = False) -> None:
        self._write = write
        self._droppable = droppable
        self._queue: queue.Queue[tuple[tuple[t.Any, ...], dict[str, t.Any]] | None] = queue.Queue(room if droppable else 0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> None:
        try:
            self._queue.put_nowait((args, kwargs))
        except queue.Full:
            pass

    def close(self, timeout: float) -> bool:
        """Waits at most *timeout* seconds until all is written; returns whether it is."""
        try:
            self._queue.put(None, timeout=timeout if self._droppable else None)
        except queue.Full:
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            try:
                self._write(*item[0], **item[1])
            except Exception:
                # Nobody is left to tell: this is the way to the display and the journal.
                pass
