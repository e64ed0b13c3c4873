# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Latencies as a multiset, and quantiles by nearest rank.

The quantile p of n values is the value of rank ceil(p*n) in rising order (nearest rank: always a value that was seen, no
interpolation). It is above a limit exactly when more than the share 1-p of the values is above the limit, so a count proves it.
"""

from __future__ import annotations

import math
import typing as t
from fractions import Fraction

DISTINCT = 4096
"""Values are kept exactly while there are at most this many different ones; HAProxy's timers are whole milliseconds."""

_STEP = math.log(1.01)


def floor_of(value: float) -> float:
    """Returns the lower edge of the 1 % wide logarithmic bucket that holds *value*: never above it, at most 1 % below."""
    if value <= 0:
        return 0.0
    edge = math.exp(math.floor(math.log(value) / _STEP) * _STEP)
    return min(edge, value)


class Latencies:
    """A multiset of latencies in milliseconds that can forget.

    Exact up to DISTINCT different values. Beyond, each value becomes the lower edge of a bucket 1 % wide, so that memory is
    bounded, a quantile is at most 1 % low, and ``slower_than`` never counts too many.
    """

    def __init__(self, values: t.Iterable[float] = ()) -> None:
        self.counts: dict[float, int] = {}
        self.total = 0
        self._coarse = False
        self.add(values)

    def add(self, values: t.Iterable[float]) -> None:
        for value in values:
            self._put(value, 1)
        self._bound()

    def merge(self, other: 'Latencies') -> None:
        """Adds all of *other* without making anything coarser than *other* is: what was merged can be taken out again."""
        for value, count in other.counts.items():
            self.counts[value] = self.counts.get(value, 0) + count
        self.total += other.total

    def take_out(self, other: 'Latencies') -> None:
        """Takes out what was merged before."""
        for value, count in other.counts.items():
            left = self.counts[value] - count
            if left:
                self.counts[value] = left
            else:
                del self.counts[value]
        self.total -= other.total

    def absorb(self, other: 'Latencies') -> None:
        """Adds all of *other* for good, within bounded memory."""
        for value, count in other.counts.items():
            self._put(value, count)
        self._bound()

    def slower_than(self, limit: float) -> int:
        """Returns how many values are surely above *limit*."""
        return sum(count for value, count in self.counts.items() if value > limit)

    def quantile(self, p: Fraction, beyond: t.Sequence[tuple[float, int]] = ()) -> tuple[float, bool] | None:
        """Returns the value of nearest rank and whether it is only a lower bound; None without values.

        *beyond* are pairs (at least, count) of values that are not known better.
        """
        known = sorted(self.counts.items())
        rank = math.ceil(p * (self.total + sum(count for _least, count in beyond)))
        if not rank:
            return None
        least, most = _at(sorted(known + list(beyond)), rank), _at(known, rank)
        return least, least != most

    def _put(self, value: float, count: int) -> None:
        if self._coarse:
            value = floor_of(value)
        self.counts[value] = self.counts.get(value, 0) + count
        self.total += count

    def _bound(self) -> None:
        if self._coarse or len(self.counts) <= DISTINCT:
            return
        self._coarse = True
        fine, self.counts, self.total = self.counts, {}, 0
        for value, count in fine.items():
            self._put(value, count)


def _at(pairs: t.Sequence[tuple[float, int]], rank: int) -> float:
    for value, count in pairs:
        rank -= count
        if rank <= 0:
            return value
    return math.inf
