# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Counters that only rise, read at intervals. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

Series = t.Tuple[t.Tuple[str, str], ...]
"""The labels of one series, sorted."""

SERIES_MAX = 10_000


@dataclass
class Counter:
    """The series of one cumulative value over time."""

    last: dict[Series, float] | None = None

    def begin_anew(self) -> None:
        """All series began at 0 since the call before: the process was started again."""
        if self.last is not None:
            self.last = {}

    def since(self, new: t.Mapping[Series, float], from_zero: bool) -> float | None:
        """Returns what was counted since the call before; None when that cannot be told.

        A series that went down began anew. One that is new began at 0 where *from_zero*, else it only sets the mark. A sum that
        went down (a series without labels) does not tell which of its parts began anew.
        """
        old, kept = self.last, dict(self.last or {})
        kept.update(new)
        self.last = dict(new) if len(kept) > SERIES_MAX else kept
        if old is None:
            return sum(new.values()) if from_zero else None
        if () in new and new[()] < old.get((), 0.0):
            return None
        total = 0.0
        for labels, value in new.items():
            before = old.get(labels)
            if before is None:
                total += value if from_zero else 0.0
            else:
                total += value - before if value >= before else value
        return total
