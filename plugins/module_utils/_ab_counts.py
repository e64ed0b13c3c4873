# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the arms of an A/B test did since it began, read in one look.

Prometheus keeps the whole time itself, so its counts are asked anew for all of it at each look (``$window``), resets included. The
counters of routers begin anew with their process: what they show is added to what was counted before, and the marks are kept.
"""

from __future__ import annotations

import asyncio
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._ab_design import Count, Design
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.experiment import Tally
from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import REQUESTS, Reading
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import ROUTER, Scope, build, build_sources

_ROUTER_DEADLINE_S = 10.0


@dataclass
class Look:
    """One look. Names of arms are those of the test."""

    counted: dict[str, dict[str, Tally]] = field(default_factory=dict)
    """``{metric: {arm: tally}}`` since the beginning of the window, from sources other than the router; visitors have no events."""
    marks: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    """``{endpoint: {process, arms: {arm: [bad, requests]}}}``: the routers' counters as they are."""
    errors: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    """Metrics that a source did not give."""


async def look(design: Design, service: str, arms: t.Mapping[str, t.Any], endpoints: t.Sequence[t.Mapping[str, t.Any]],
               sources: t.Mapping[str, t.Any], versions: t.Mapping[str, str], window_s: float, now: float) -> Look:
    """Returns what the sources say of the last *window_s* seconds; *now* is monotonic. Raises BadInput for what cannot ever work."""
    found = Look()
    routers = build_sources(service, arms, [{key: value for key, value in one.items() if key != 'ring'} for one in endpoints], {})
    asked: dict[str, list[Count]] = {}
    for count in design.counts:
        asked.setdefault(count.source, []).append(count)
    window = prometheus_window(window_s)
    tested = {one.arm: arms[one.arm] for one in design.arms.values()}
    built = []
    for name, counts in asked.items():
        queries = {key: text for count in counts for key, text in _queries(count)}
        options = {key: value for key, value in sources[name].items() if key not in ('queries', 'counts', 'window')}
        built.append((build(name, {**options, 'queries': queries, 'window': window}, Scope(service, tested, versions)), counts))
    try:
        await asyncio.gather(*(_read_router(source, design, found, now) for source in routers),
                             *(_read_source(source, counts, design, found, now) for source, counts in built))
    finally:
        await asyncio.gather(*(source.close() for source in [*routers, *(source for source, _counts in built)]))
    return found


def prometheus_window(seconds: float) -> str:
    """Returns a duration of Prometheus of the whole seconds in *seconds*, never longer: a second before the split is all control's, and
    at the first looks it made control's sample too large to be believed. Pure."""
    return '%dm%ds' % divmod(max(int(seconds), 1), 60)


def _queries(count: Count) -> t.Iterator[tuple[str, str]]:
    for part, text in (('events', count.events), ('total', count.total)):
        if text:
            yield '%s_%s' % (count.name, part), text


async def _read_source(source: t.Any, counts: t.Sequence[Count], design: Design, found: Look, now: float) -> None:
    try:
        await source.align()
        reading: Reading = await source.poll(now)
    except DeliveryError as exc:
        reading = Reading(errors=(str(exc),))
    found.errors += reading.errors
    for count in counts:
        tallies = {}
        for name, one in design.arms.items():
            events, total = (reading.gauges.get(('%s_%s' % (count.name, part), one.arm)) for part in ('events', 'total'))
            # A counter without a series has not counted yet; extrapolation gives fractions, and may give more events than trials.
            whole = max(round(total or 0.0), 0)
            tallies[name] = Tally(min(max(round(events or 0.0), 0), whole), whole)
        if reading.errors:
            found.missing.add(count.name)
        else:
            found.counted[count.name] = tallies


async def _read_router(source: t.Any, design: Design, found: Look, now: float) -> None:
    try:
        reading: Reading = await asyncio.wait_for(_first_poll(source, now), _ROUTER_DEADLINE_S)
    except (asyncio.TimeoutError, TimeoutError):
        found.errors.append('The source "%s" did not answer within %g s.' % (ROUTER, _ROUTER_DEADLINE_S))
        return
    found.errors += reading.errors
    label = {one.arm: name for name, one in design.arms.items()}
    for block in reading.before:
        if block.metric == REQUESTS and block.arm in label:
            mark = found.marks.setdefault(block.endpoint, {'process': reading.processes.get(block.endpoint, ''), 'arms': {}})
            mark['arms'][label[block.arm]] = [block.bad, block.requests]


async def _first_poll(source: t.Any, now: float) -> Reading:
    await source.open()
    return await source.poll(now)


def advance(before: t.Mapping[str, t.Any], now: t.Mapping[str, t.Any]) -> dict[str, Tally]:
    """Returns what the routers counted for each arm between two sets of marks. Pure.

    Another process, or counters of which one went down, count from 0. An endpoint without an earlier mark sets its mark only.
    """
    counted: dict[str, Tally] = {}
    for endpoint, mark in now.items():
        old = before.get(endpoint)
        if old is None:
            continue
        anew = mark['process'] != old['process'] or any(
            value < then for arm, pair in mark['arms'].items() for value, then in zip(pair, old['arms'].get(arm, (0, 0))))
        for arm, (bad, requests) in mark['arms'].items():
            then = (0, 0) if anew else old['arms'].get(arm, (0, 0))
            sofar = counted.get(arm, Tally(0, 0))
            counted[arm] = Tally(sofar.events + bad - then[0], sofar.total + requests - then[1])
    return counted


def added(one: t.Mapping[str, t.Sequence[int]], other: t.Mapping[str, t.Sequence[int]]) -> dict[str, Tally]:
    """Returns the sums, arm by arm. Pure."""
    return {arm: Tally(*(x + y for x, y in zip(one.get(arm, (0, 0)), other.get(arm, (0, 0))))) for arm in {**one, **other}}


def since(before: t.Mapping[str, t.Sequence[int]], now: t.Mapping[str, Tally]) -> dict[str, Tally]:
    """Returns what came between two looks at cumulative counts, never below 0: extrapolated counts may shrink a little. Pure."""
    found = {}
    for arm, tally in now.items():
        events, total = before.get(arm, (0, 0))
        fresh = max(tally.total - total, 0)
        found[arm] = Tally(min(max(tally.events - events, 0), fresh), fresh)
    return found
