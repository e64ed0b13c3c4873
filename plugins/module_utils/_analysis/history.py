# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is remembered of the blocks of observations: the last seconds exactly, and the whole stage. Memory is bounded."""

from __future__ import annotations

import typing as t
from collections import deque
from fractions import Fraction

from ansible_collections.progressive.delivery.plugins.module_utils._analysis.quantile import Latencies
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import REQUESTS, Block
from ansible_collections.progressive.delivery.plugins.module_utils._split import observed_bp

# Clocks that tick at the interval's multiples give sums that differ from the window in the last bits.
_SLACK = 1e-6


class Tally:
    """Sums over blocks: of a window, or of a stage."""

    def __init__(self) -> None:
        self.requests = 0
        self.bad = 0
        self.latencies = Latencies()
        self.gave_up = Latencies()
        """How long those clients waited who left before there was an answer."""
        self._seconds: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Endpoints run side by side: the longest run of blocks counts."""
        return max(self._seconds.values(), default=0.0)

    def count(self, block: Block, sign: int = 1) -> None:
        """Adds all of *block* but its latencies, or takes it out again with *sign* -1."""
        self.requests += sign * block.requests
        self.bad += sign * block.bad
        self._seconds[block.endpoint] = self._seconds.get(block.endpoint, 0.0) + sign * block.seconds


class Seen:
    """A block with its latencies as multisets, so that every condition that looks at it shares the one counting."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.latencies = Latencies(block.latencies_ms)
        self.gave_up = Latencies(block.gave_up_ms)

    def __bool__(self) -> bool:
        """Whether there was any request, finished or not."""
        return bool(self.block.requests or self.block.latencies_ms or self.block.gave_up_ms or any(n for _ms, n in self.block.waiting))


class Series:
    """What one arm did: behind one endpoint, or behind all of them together.

    ``window`` sums the blocks that lie in the last *length* seconds, the newest poll's in any case; ``stage`` sums all.
    """

    def __init__(self, length: float) -> None:
        self.window, self.stage = Tally(), Tally()
        self.last_seen: float | None = None
        """Time of the last poll that saw a request, finished or waiting."""
        self._length = length
        self._kept: deque[tuple[float, Seen]] = deque()
        self._waiting: list[Block] = []

    def poll(self, at: float, seen: t.Sequence[Seen]) -> None:
        """Takes in what one poll saw at *at* (seconds since the watch began): nothing when there was no answer."""
        self._waiting = [one.block for one in seen if one.block.waiting]
        for one in seen:
            for tally in (self.stage, self.window):
                tally.count(one.block)
            self.stage.latencies.absorb(one.latencies)
            self.stage.gave_up.absorb(one.gave_up)
            self.window.latencies.merge(one.latencies)
            self.window.gave_up.merge(one.gave_up)
            self._kept.append((at, one))
            if one:
                self.last_seen = at
        while self._kept and self._kept[0][0] < at and self._kept[0][0] - self._kept[0][1].block.seconds < at - self._length - _SLACK:
            _at, old = self._kept.popleft()
            self.window.count(old.block, -1)
            self.window.latencies.take_out(old.latencies)
            self.window.gave_up.take_out(old.gave_up)

    def beyond(self, tally: Tally, limit_ms: float) -> list[tuple[float, int]]:
        """Returns pairs (at least ms, how many) of those requests without a known latency that surely took longer than *limit_ms*:
        clients of *tally* that left after it, and requests that still wait."""
        pairs = [(ms, count) for ms, count in tally.gave_up.counts.items() if ms > limit_ms]
        for block in self._waiting:
            steps = sorted((ms, block.waiting_over(ms)) for ms, _count in block.waiting if ms >= limit_ms)
            pairs += [(ms, count - after) for (ms, count), (_ms, after) in zip(steps, steps[1:] + [(0.0, 0)]) if count > after]
        return pairs


class Totals:
    """What each arm did in the whole stage, for a person to read: from the one source that counts the service's requests."""

    def __init__(self) -> None:
        self.arms: dict[str, Tally] = {}
        self._shared: dict[str, int] = {}

    def take_in(self, seen: t.Iterable[Seen]) -> None:
        for one in seen:
            if one.block.metric == REQUESTS:
                tally = self.arms.setdefault(one.block.arm, Tally())
                tally.count(one.block)
                tally.latencies.absorb(one.latencies)
                self._shared[one.block.arm] = self._shared.get(one.block.arm, 0) + (0 if one.block.early else one.block.requests)

    def as_dict(self) -> dict[str, dict[str, t.Any]]:
        """Returns for each arm ``{requests, errors, error_ratio, p50_ms, p95_ms, p99_ms}``; None where there is nothing to tell."""
        return {arm: {
            'requests': tally.requests, 'errors': tally.bad, 'error_ratio': tally.bad / tally.requests if tally.requests else None,
            **{'p%d_ms' % p: (tally.latencies.quantile(Fraction(p, 100)) or (None,))[0] for p in (50, 95, 99)},
        } for arm, tally in self.arms.items()}

    def observed_bp(self) -> dict[str, int] | None:
        """Returns the shares that the requests show; None without any."""
        return observed_bp(self._shared)
