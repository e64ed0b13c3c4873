# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How much of a Linux host is in use: processors and memory from proc(5), file systems from statvfs(3), the clock."""

from __future__ import annotations

import os
import time
import typing as t

HOST_SPEC: dict[str, t.Any] = {
    'paths': {'type': 'list', 'elements': 'path', 'default': ['/']},
    'seconds': {'type': 'float', 'default': 0.5},
}


class Ticks(t.NamedTuple):
    """Clock ticks of all processors since boot."""

    busy: int
    total: int


def parse_ticks(text: str) -> Ticks:
    """Reads the first line of /proc/stat: user nice system idle iowait irq softirq steal guest guest_nice. Guest time is in user and nice
    already; waiting for a disk is idling. Raises ValueError."""
    fields = [int(field) for field in text.split('\n', 1)[0].split()[1:9]]
    if len(fields) < 4:
        raise ValueError('no line "cpu" with four figures or more')
    idle = sum(fields[3:5])
    return Ticks(sum(fields) - idle, sum(fields))


def cpu_ratio(before: Ticks, after: Ticks) -> float | None:
    """Returns how busy the processors were between the two; None when no time has passed."""
    total = after.total - before.total
    return min(1.0, max(0.0, (after.busy - before.busy) / total)) if total > 0 else None


def memory_ratio(text: str) -> float:
    """Reads /proc/meminfo: what is not available for new programs without swapping. Raises ValueError."""
    found = {}
    for line in text.splitlines():
        name, _colon, rest = line.partition(':')
        if name in ('MemTotal', 'MemAvailable'):
            found[name] = int(rest.split()[0])
    if not found.get('MemTotal') or 'MemAvailable' not in found:
        raise ValueError('no MemTotal or no MemAvailable')
    return 1 - found['MemAvailable'] / found['MemTotal']


def disk_ratio(path: str) -> float | None:
    """Returns how much of *path*'s file system is in use, as df(1) tells it; None when there is no such path."""
    try:
        room = os.statvfs(path)
    except OSError:
        return None
    used = room.f_blocks - room.f_bfree
    return used / (used + room.f_bavail) if used + room.f_bavail else 0.0


def look(paths: t.Iterable[str], seconds: float) -> dict[str, t.Any]:
    """Looks for *seconds*. Raises OSError or ValueError where proc(5) is not as Linux has it."""
    before = parse_ticks(_text('/proc/stat'))
    time.sleep(seconds)
    used = cpu_ratio(before, parse_ticks(_text('/proc/stat')))
    return {'cpu': None if used is None else round(used, 4), 'memory': round(memory_ratio(_text('/proc/meminfo')), 4),
            'disks': {path: None if (ratio := disk_ratio(path)) is None else round(ratio, 4) for path in paths}, 'time': time.time()}


def _text(path: str) -> str:
    with open(path, encoding='ascii', errors='replace') as file:
        return file.read()
