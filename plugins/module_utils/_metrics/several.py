# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Several sources as one: what the endpoints of a service see, whatever their routers are.

Counts of an arm stay with their endpoints, so that a condition can add them up and guard each endpoint besides. A gauge that several
endpoints have is that of the endpoint that sees the arm worst, as each source's table says.
"""

from __future__ import annotations

import asyncio
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._metrics import base

Worst = t.Mapping[str, t.Callable[[t.Iterable[float]], float]]


class SeveralSource:
    """Source that polls *parts* at once and gives what they say as its own. *worst* makes one of the gauges of several."""

    def __init__(self, name: str, parts: t.Sequence[base.Source], worst: Worst) -> None:
        self.name = name
        self.quick = all(part.quick for part in parts)
        self._parts, self._worst = list(parts), worst

    @property
    def metrics(self) -> dict[str, str]:
        return {metric: kind for part in self._parts for metric, kind in part.metrics.items()}

    async def open(self) -> None:
        """Raises DeliveryError when a part cannot ever work; the first of them in order."""
        for found in await asyncio.gather(*(part.open() for part in self._parts), return_exceptions=True):
            if isinstance(found, BaseException):
                raise found

    async def poll(self, now: float) -> base.Reading:
        return joined(await asyncio.gather(*(part.poll(now) for part in self._parts)), self._worst)

    async def close(self) -> None:
        await asyncio.gather(*(part.close() for part in self._parts))


def joined(readings: t.Iterable[base.Reading], worst: Worst) -> base.Reading:
    """Returns all of *readings* as one."""
    readings = list(readings)
    gauges: dict[tuple[str, str], list[float]] = {}
    for reading in readings:
        for key, value in reading.gauges.items():
            gauges.setdefault(key, []).append(value)
    return base.Reading(
        tuple(block for reading in readings for block in reading.blocks),
        {key: float(worst.get(key[0], max)(values)) for key, values in gauges.items()},
        tuple(dict.fromkeys(error for reading in readings for error in reading.errors)),
        tuple(dict.fromkeys(note for reading in readings for note in reading.notes)),
        tuple(block for reading in readings for block in reading.before),
        {endpoint: process for reading in readings for endpoint, process in reading.processes.items()})
