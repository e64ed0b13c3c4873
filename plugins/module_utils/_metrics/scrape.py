# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A data plane's own metrics, in the Prometheus text format, as observations of one endpoint: requests, failures, latencies.

Counters are read as they are, so nothing is needed between the data plane and a gate. An answer of 500 or above is a failure.
Latencies come in buckets: how many are above a bucket's edge is exact, values between two edges are spread evenly.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError, Refused
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import base, exposition
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.counters import Waiting
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.cumulative import Counter, Series
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.planes import Plane, mended

Fetch = t.Callable[[], t.Awaitable[t.Mapping[str, t.Union[str, DeliveryError]]]]
"""Returns the text of each process of the data plane, by its name, or why it could not be had."""


class _Tries(t.NamedTuple):
    """Tries of one cluster: those that began, and those that last. Named as HAProxy's columns, which ``Waiting`` reads."""

    stot: int
    scur: int


@dataclass
class _Arm:
    """The counters of one arm in one process."""

    requests: Counter = field(default_factory=Counter)
    bad: Counter = field(default_factory=Counter)
    buckets: dict[float, Counter] = field(default_factory=dict)

    def begin_anew(self) -> None:
        for counter in (self.requests, self.bad, *self.buckets.values()):
            counter.begin_anew()


@dataclass
class _Process:
    """One process of the data plane over time."""

    arms: dict[str, _Arm]
    started: float | None = None
    waiting: Waiting = field(default_factory=Waiting)


class ScrapeSource:
    """Source of observations of the arms of *endpoint*. *patterns* match the names of each arm's requests."""

    quick = True

    def __init__(self, endpoint: str, plane: Plane, patterns: t.Mapping[str, t.Pattern[str]], fetch: Fetch,
                 clock: t.Callable[[], float] = time.monotonic) -> None:
        self.name = endpoint
        self._plane, self._patterns, self._fetch, self._clock = plane, patterns, fetch, clock
        self._owner: dict[str, str | None] = {}
        self._processes: dict[str, _Process] = {}
        self._polled: float | None = None
        self._told = False

    @property
    def metrics(self) -> dict[str, str]:
        return {base.REQUESTS: base.COUNTS, base.LATENCY: base.LATENCIES}

    async def open(self) -> None:
        """Raises Refused when a process answers with something else than metrics."""
        for name, text in (await self._fetch()).items():
            if isinstance(text, Refused):
                raise text
            if isinstance(text, str) and not any(sample.name == self._plane.started for sample in self._parse(name, text)):
                raise Refused('%s of %s answers, and has no metric "%s": check kind and path of its metrics.' % (
                    name, self.name, self._plane.started))

    async def close(self) -> None:
        """There is nothing to close."""

    async def poll(self, now: float) -> base.Reading:
        asked = self._clock()
        texts = await self._fetch()
        answered = now + self._clock() - asked
        first, seconds = self._polled is None, now - (self._polled or 0.0)
        notes: list[str] = []
        errors = [str(text) for text in texts.values() if isinstance(text, DeliveryError)]
        blocks: dict[str, list[base.Block]] = {arm: [] for arm in self._patterns}
        for name, text in texts.items():
            if isinstance(text, DeliveryError):
                continue
            try:
                samples = self._parse(name, text)
            except Refused as exc:
                errors.append(str(exc))
                continue
            for arm, block in self._process(name, samples, now, answered, 0.0 if first else seconds, first, notes).items():
                blocks[arm].append(block)
        gone = sorted(set(self._processes) - set(texts))
        for name in gone:
            del self._processes[name]
            notes.append('%s of %s is gone; what it did since it was asked last is not counted.' % (name, self.name))
        if texts and len(errors) == len(texts):
            return base.Reading((), {}, tuple(errors), tuple(notes))
        self._polled = now
        made = tuple(self._sum(arm, parts, 0.0 if first else seconds) for arm, parts in blocks.items() if parts)
        if first:
            return base.Reading((), {}, tuple(errors), tuple(notes), made, {self.name: self._identity()})
        return base.Reading(made, {}, tuple(errors), tuple(notes))

    def _identity(self) -> str:
        """Returns what sums over the processes depend on: who was asked, since when it counts, and whose requests are whose."""
        of = ['%s=%s' % (arm, pattern.pattern) for arm, pattern in sorted(self._patterns.items())]
        processes = ['%s@%s' % (name, '' if self._plane.rises else one.started) for name, one in sorted(self._processes.items())]
        return hashlib.sha256('\n'.join(processes + of).encode()).hexdigest()[:16]

    def _sum(self, arm: str, parts: list[base.Block], seconds: float) -> base.Block:
        steps = sorted({ms for part in parts for ms, _count in part.waiting})
        return base.Block(
            arm, self.name, seconds=seconds, requests=sum(part.requests for part in parts), bad=sum(part.bad for part in parts),
            latencies_ms=tuple(value for part in parts for value in part.latencies_ms), unseen=sum(part.unseen for part in parts),
            waiting=tuple((ms, sum(part.waiting_over(ms) for part in parts)) for ms in steps),
            buckets=_added(part.buckets for part in parts))

    def _parse(self, name: str, text: str) -> list[exposition.Sample]:
        try:
            return exposition.parse(mended(text), self._plane.names)
        except ValueError as exc:
            raise Refused('%s of %s does not answer with metrics in the Prometheus text format: "%s".' % (name, self.name, exc)) from None

    def _process(self, name: str, samples: list[exposition.Sample], now: float, answered: float, seconds: float, first: bool,
                 notes: list[str]) -> dict[str, base.Block]:
        """Returns what each arm did in one process since the poll before; in the first poll, since the process began."""
        # Of one that comes later it is not known when it counted what it has.
        new = name not in self._processes
        process = self._processes.setdefault(name, _Process({arm: _Arm() for arm in self._patterns}))
        started = next((sample.value for sample in samples if sample.name == self._plane.started), None)
        if started is not None and process.started is not None and (
                started < process.started if self._plane.rises else started != process.started):
            notes.append('%s of %s was started anew: its counters begin at 0.' % (name, self.name))
            process.waiting.forget()
            for arm in process.arms.values():
                arm.begin_anew()
        process.started = started
        counts, tries = self._sorted(samples)
        made = {}
        for arm, counters in process.arms.items():
            requests, bad, buckets = counts[arm]
            known = first or not new
            counted = counters.requests.since(requests, from_zero=known) or 0.0
            failed = counters.bad.since(bad, from_zero=known) or 0.0
            steps = {edge: counters.buckets.setdefault(edge, Counter()).since(series, from_zero=known) or 0.0
                     for edge, series in buckets.items()}
            rows = t.cast(t.Any, tries[arm])
            edges = {edge * self._plane.unit_ms: value for edge, value in steps.items()}
            latencies = () if first else exposition.spread(edges)
            made[arm] = base.Block(
                arm, self.name, seconds=seconds, requests=round(counted), bad=min(round(failed), round(counted)), latencies_ms=latencies,
                unseen=max(round(counted) - len(latencies), 0), waiting=process.waiting.over(now, rows, rows),
                buckets=tuple(sorted(edges.items())) if first else ())
        process.waiting.mark(answered, None, t.cast(t.Any, {key: row for rows in tries.values() for key, row in rows.items()}))
        return made

    def _sorted(self, samples: list[exposition.Sample]) -> tuple[dict[str, tuple[dict[Series, float], dict[Series, float],
                                                                                 dict[float, dict[Series, float]]]],
                                                                 dict[str, dict[str, _Tries]]]:
        """Returns for each arm its series of requests, of failures and of each bucket; and its tries by cluster."""
        plane = self._plane
        counts: dict[str, t.Any] = {arm: ({}, {}, {}) for arm in self._patterns}
        begun: dict[str, dict[str, float]] = {arm: {} for arm in self._patterns}
        active: dict[str, dict[str, float]] = {arm: {} for arm in self._patterns}
        for sample in samples:
            of = sample.labels.get(plane.of)
            arm = self._arm_of(of) if of is not None else None
            if arm is None or of is None or math.isnan(sample.value):
                continue
            series = tuple(sorted(sample.labels.items()))
            if sample.name == plane.requests:
                counts[arm][0][series] = sample.value
                if _failed(sample.labels.get(plane.code, '')):
                    counts[arm][1][series] = sample.value
            elif sample.name == plane.buckets:
                edge = _edge(sample.labels.get('le', ''))
                counts[arm][2].setdefault(edge, {})[series] = sample.value
            elif sample.name == plane.begun:
                begun[arm][of] = sample.value
            elif sample.name == plane.active:
                active[arm][of] = sample.value
        return counts, {arm: {of: _Tries(int(value), int(active[arm].get(of, 0))) for of, value in begun[arm].items()} for arm in begun}

    def _arm_of(self, of: str) -> str | None:
        if of not in self._owner:
            self._owner[of] = next((arm for arm, pattern in self._patterns.items() if pattern.fullmatch(of)), None)
        return self._owner[of]


def _added(parts: t.Iterable[t.Iterable[tuple[float, float]]]) -> tuple[tuple[float, float], ...]:
    total: dict[float, float] = {}
    for edge, count in itertools.chain.from_iterable(parts):
        total[edge] = total.get(edge, 0.0) + count
    return tuple(sorted(total.items()))


def _failed(code: str) -> bool:
    return code[:1] == '5'


def _edge(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


async def gather(fetches: t.Mapping[str, t.Awaitable[str]]) -> dict[str, str | DeliveryError]:
    """Awaits all at once; a DeliveryError is an answer."""
    async def one(work: t.Awaitable[str]) -> str | DeliveryError:
        try:
            return await work
        except DeliveryError as exc:
            return exc

    return dict(zip(fetches, await asyncio.gather(*(one(work) for work in fetches.values()))))
