# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is observed of a service while traffic moves: the values that every source of observations gives, and its protocol.

Counts add up: over endpoints, over polls, over sources of one metric. Ratios and quantiles are never added or averaged; they
are made from the sums and from the single latencies, and only in ``_analysis``.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

REQUESTS = 'requests'
"""The metric that the service's own requests are counted under; a source may count other things under other names."""

LATENCY = 'latency'
"""The latencies of the service's own requests: they travel in the blocks of ``REQUESTS``."""

COUNTS = 'counts'
"""Kind of a metric whose blocks carry ``requests`` and ``bad``."""
LATENCIES = 'latencies'
"""Kind of a metric whose blocks carry ``latencies_ms``, and ``waiting`` where the source can tell."""
GAUGE = 'gauge'
"""Kind of a metric that has one value a poll and arm, in ``Reading.gauges``."""


@dataclass(frozen=True)
class Block:
    """What one arm did behind one endpoint between two polls of one source."""

    arm: str
    endpoint: str
    """Name of the endpoint; ``''`` where a source sees the arm as a whole (Prometheus)."""
    metric: str = REQUESTS
    seconds: float = 0.0
    """Length of the block."""
    requests: int = 0
    """Finished in the block, well or badly."""
    bad: int = 0
    """Those of *requests* that failed."""
    latencies_ms: tuple[float, ...] = ()
    """One of each finished request that the source saw with a valid timer, in order of their end; may be fewer than *requests*."""
    gave_up_ms: tuple[float, ...] = ()
    """How long each client waited that left before there was an answer: a lower bound of a latency nobody will know. Longer than a
    limit, it counts as slow; shorter, it says nothing."""
    servers: tuple[tuple[str, int, int], ...] = ()
    """(name, bad, requests) of each of the arm's servers, where the source can tell them apart."""
    unseen: int = 0
    """Requests whose latency the source knows to be missing from *latencies_ms*: above its cap, or without a valid timer."""
    waiting: tuple[tuple[float, int], ...] = ()
    """Requests begun and not finished at the end of the block: pairs ``(ms, n)``, "n of them have surely waited at least ms",
    with rising ms and falling n. A state at the end of the block, so the last block alone tells who waits now."""

    buckets: tuple[tuple[float, float], ...] = ()
    """In ``Reading.before``, of a source with histograms: pairs ``(edge in ms, n)``, "n requests so far took at most that long"."""

    early: bool = False
    """Whether it begins before the change that the gate watches: what is bad in it counts, and of shares it says nothing."""

    def waiting_over(self, limit_ms: float) -> int:
        """Returns how many requests have surely waited *limit_ms* or longer at the end of the block."""
        return max((count for ms, count in self.waiting if ms >= limit_ms), default=0)


@dataclass(frozen=True)
class Reading:
    """One poll of one source. A pair (arm, endpoint) without a block has no data in this poll."""

    blocks: tuple[Block, ...] = ()
    gauges: t.Mapping[tuple[str, str], float] = field(default_factory=dict)
    """``{(metric, arm): value}``; a value that is missing was not there to read. ``''`` is the arm of a value of the whole service."""
    errors: tuple[str, ...] = ()
    """A sentence for each endpoint or query that did not answer; what the others said still counts."""
    notes: tuple[str, ...] = ()
    """Sentences that a person should read and that take nothing from the data: counters began anew, events may have been lost."""
    before: tuple[Block, ...] = ()
    """In the first poll: what the counters say of the time before it. How long that was is not known, so ``seconds`` is 0."""
    processes: t.Mapping[str, str] = field(default_factory=dict)
    """By endpoint, what names the process whose counters these are, where the source can tell: another one counts from 0."""


class Source(t.Protocol):
    """A place that observations come from. One event loop, one poll at a time."""

    name: str
    """As conditions name it: ``router``, ``prometheus``, ``http``, or what the user called it."""
    metrics: t.Mapping[str, str]
    """What it offers: ``{metric: kind}``, kind being COUNTS, LATENCIES or GAUGE. A name of kind COUNTS or LATENCIES is the
    ``metric`` of blocks. ``LATENCY`` is the exception: it names the latencies that the blocks of ``REQUESTS`` carry."""

    quick: bool
    """Whether a poll costs a few milliseconds at most, so that it may be asked several times between two samples."""

    async def open(self) -> None:
        """Gets ready. What cannot ever work (a name that an endpoint does not know) raises DeliveryError with a sentence."""

    async def poll(self, now: float) -> Reading:
        """Returns what happened since the poll before. *now* is monotonic seconds.

        The first poll sets the mark that the second one counts from: it has gauges and no blocks. Never raises for an endpoint
        that does not answer: that is an element of ``errors``.
        """

    async def close(self) -> None:
        """Ends every connection; may be called twice, and without ``open``."""


def add_up(blocks: t.Iterable[Block], endpoint: str = '') -> Block | None:
    """Returns the sum of *blocks* of one arm and metric over endpoints and polls; None of none.

    Blocks of the same endpoint follow one another, so their seconds add; blocks of several endpoints run side by side, so the
    longest run counts. ``waiting`` is that of the last block of each endpoint. Give blocks in order of time.
    """
    blocks = list(blocks)
    if not blocks:
        return None
    last = {block.endpoint: block for block in blocks}
    seconds = dict.fromkeys(last, 0.0)
    for block in blocks:
        seconds[block.endpoint] += block.seconds
    steps = sorted({ms for block in last.values() for ms, _n in block.waiting})
    return Block(
        arm=blocks[0].arm, endpoint=endpoint, metric=blocks[0].metric, seconds=max(seconds.values()),
        requests=sum(block.requests for block in blocks), bad=sum(block.bad for block in blocks),
        latencies_ms=tuple(value for block in blocks for value in block.latencies_ms),
        gave_up_ms=tuple(value for block in blocks for value in block.gave_up_ms),
        unseen=sum(block.unseen for block in blocks),
        waiting=tuple((ms, sum(block.waiting_over(ms) for block in last.values())) for ms in steps))
