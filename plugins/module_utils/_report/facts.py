# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The figures of a report: what was lost, how long each part took, which criteria were met. Pure."""

from __future__ import annotations

import math
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._report import values as r

CRITERIA: dict[str, float] = {
    'error_ratio': 0.001, 'p50_ms': 200, 'p95_ms': 500, 'p99_ms': 1000, 'availability': 0.999, 'rollback_s': 30, 'duration_s': 7200}
"""The criteria of the reference rollout. ``requests_per_second`` is one where it is asked for."""
KNOWN = (*CRITERIA, 'requests_per_second')

Event = t.Mapping[str, t.Any]
Counts = t.Dict[str, t.Tuple[int, int]]


def check_criteria(criteria: t.Mapping[str, t.Any]) -> dict[str, float]:
    """Returns the criteria of success as numbers. Raises BadInput for one that is not known, or no number; None asks for nothing."""
    found = {}
    for name, value in criteria.items():
        if name not in KNOWN:
            raise BadInput('delivery_success_criteria names "%s": known are %s.' % (name, ', '.join(KNOWN)))
        try:
            number = 0.0 if value in (None, '') else float(value)
        except (TypeError, ValueError):
            number = -1.0
        if isinstance(value, bool) or not 0 <= number < 1e12:
            raise BadInput('The criterion %s of delivery_success_criteria is %r: give a number, or nothing to ask for nothing.' % (
                name, value))
        found[name] = number
    return found


def losses(events: t.Sequence[Event], start: Event, stages: t.Sequence[r.Stage]) -> r.Losses:
    """Counts requests and failed ones of each arm.

    Between two looks at the balancers' own counters nothing is missed, also while nobody watches: between two stages, during
    the way back. Where counters began anew (HAProxy was reloaded), or some endpoints have none, what the gates saw is left.
    """
    looks = [(event['ts'], _counts(event)) for event in events if event['event'] == 'counters']
    samples = [event for event in events if event['event'] == 'sample']
    rising = all(now.get(arm, (0, 0))[part] >= count[part]
                 for (_at, before), (_then, now) in zip(looks, looks[1:]) for arm, count in before.items() for part in (0, 1))
    inside: Counts = {}
    for sample in samples:
        if looks and looks[0][0] < sample['ts'] <= looks[-1][0]:
            _add(inside, _counts(sample))
    # Where some endpoints have no counters to look at, the gates saw more than the counters tell.
    whole = all(looks[-1][1].get(arm, (0, 0))[part] - looks[0][1].get(arm, (0, 0))[part] >= count[part]
                for arm, count in inside.items() for part in (0, 1))
    total: Counts = {}
    if looks and rising and whole:
        basis, since, until = 'counters', looks[0][0], looks[-1][0]
        first, last = looks[0][1], looks[-1][1]
        _add(total, {arm: (count[0] - first.get(arm, (0, 0))[0], count[1] - first.get(arm, (0, 0))[1]) for arm, count in last.items()})
        seen = [sample for sample in samples if sample['ts'] > until]
    else:
        basis, seen = 'watched', samples
        since, until = (samples[0]['ts'], samples[-1]['ts']) if samples else (None, None)
    for sample in seen:
        _add(total, _counts(sample))
        until = sample['ts']
    if not looks and not samples:
        # A gate that ran on another host sends its sums and no samples.
        for stage in stages:
            _add(total, {name: (arm.get('requests', 0), arm.get('errors', 0)) for name, arm in stage.arms.items()})
            since, until = since or stage.started, stage.ended or until
        basis = 'watched' if any(stage.arms for stage in stages) else 'none'
    new = {stage.arm for stage in stages} - {start.get('stable')}
    arms = [r.Arm(name, start.get('version') if name in new else start.get('previous_version') or None if name == start.get('stable')
                  else None, name in new, *count) for name, count in sorted(total.items()) if count[0] or count[1]]
    return r.Losses(
        arms=sorted(arms, key=lambda arm: not arm.new), requests=sum(arm.requests for arm in arms), failed=sum(arm.failed for arm in arms),
        new_requests=sum(arm.requests for arm in arms if arm.new), new_failed=sum(arm.failed for arm in arms if arm.new), basis=basis,
        since=since, until=until)


def _counts(event: Event) -> Counts:
    return {name: (arm.get('requests', 0), arm.get('errors', 0)) for name, arm in event.get('arms', {}).items()}


def _add(total: Counts, more: Counts) -> None:
    for arm, (requests, failed) in more.items():
        before = total.get(arm, (0, 0))
        total[arm] = (before[0] + requests, before[1] + failed)


def parts(events: t.Sequence[Event], start: Event, end: Event, stages: t.Sequence[r.Stage], back: r.Back | None) -> list[r.Part]:
    """Returns how long each part took, one after the other; the way back lies within its stage."""
    begun = [stage for stage in stages if stage.started is not None]
    last = (end or (events[-1] if events else {})).get('ts')
    made: list[r.Part] = []
    if start and last is not None:
        first = begun[0].started if begun else last
        made.append(r.Part('Preparation: versions brought up, health checks', _span(start['ts'], first)))
    for position, stage in enumerate(begun):
        until = stage.ended if stage.ended is not None else last
        made.append(r.Part('Stage %d: %s' % (stage.index, stage.label), _span(stage.started, until), stage.planned_s))
        following = begun[position + 1].started if position + 1 < len(begun) else None
        if following is not None and _span(until, following) >= 1:
            made.append(r.Part('Between the stages: your own tasks', _span(until, following)))
    if end and begun:
        made.append(r.Part('Afterwards: arms drained and stopped, your own tasks', _span(begun[-1].ended, end['ts'])))
    if back and back.seconds is not None:
        made.append(r.Part('The way back, from the verdict until every endpoint was read back (within its stage)', back.seconds))
    return made


def _span(start: float | None, end: float | None) -> float:
    return 0.0 if start is None or end is None else round(max(end - start, 0.0), 3)


def criteria(asked: t.Mapping[str, float] | None, stages: t.Sequence[r.Stage], lost: r.Losses, back: r.Back | None,
             seconds: float | None, stable: str | None) -> list[r.Criterion]:
    """Returns each criterion with what was measured. A limit of 0 asks for nothing."""
    limits = {**CRITERIA, **(asked or {})}
    made = []
    if limits.get('error_ratio'):
        made.append(_at_most('Errors of the new version', limits['error_ratio'], _ratio(lost.new_failed, lost.new_requests), percent,
                             '%d of %d requests' % (lost.new_failed, lost.new_requests) if lost.new_requests else 'it had no requests'))
    for p in (50, 95, 99):
        limit = limits.get('p%d_ms' % p)
        if limit:
            worst = max(((stage.arms.get(stage.arm, {}).get('p%d_ms' % p), stage) for stage in stages
                         if stage.arms.get(stage.arm, {}).get('p%d_ms' % p) is not None), key=lambda pair: pair[0], default=None)
            made.append(_at_most('P%d of the new version' % p, limit, worst[0] if worst else None, milliseconds,
                                 'worst stage: %s, %d requests' % (worst[1].label, worst[1].arms[worst[1].arm].get('requests', 0))
                                 if worst else 'no latencies were seen'))
    if limits.get('requests_per_second'):
        made.append(_throughput(limits['requests_per_second'], stages))
    if limits.get('availability'):
        # Of zero requests nothing can be said.
        ratio = _ratio(lost.failed, lost.requests)
        value = None if ratio is None else 1 - ratio
        made.append(r.Criterion(
            'Availability for all users', '≥ %s' % percent(limits['availability']), None if value is None else percent(value, True),
            _verdict(None if value is None else value >= limits['availability']), value, limits['availability'],
            '%d of %d requests failed, on all arms' % (lost.failed, lost.requests) if lost.requests else 'no requests were seen'))
    if limits.get('rollback_s'):
        limit = limits['rollback_s']
        if back is None:
            made.append(r.Criterion('Time of the way back', '≤ %s' % format_duration(limit), None, r.NOT_NEEDED, None, limit))
        else:
            made.append(r.Criterion(
                'Time of the way back', '≤ %s' % format_duration(limit), None if back.seconds is None else format_duration(back.seconds),
                _verdict(None if back.seconds is None else back.seconds <= limit and back.complete), back.seconds, limit,
                '' if back.complete else 'not every endpoint was reached'))
    if limits.get('duration_s'):
        limit = limits['duration_s']
        made.append(r.Criterion('Whole rollout', '≤ %s' % format_duration(limit), None if seconds is None else format_duration(seconds),
                                _verdict(None if seconds is None else seconds <= limit), seconds, limit,
                                '' if seconds is not None else 'it has no end'))
    return made


def _throughput(limit: float, stages: t.Sequence[r.Stage]) -> r.Criterion:
    rates = [(sum(arm.get('requests', 0) for arm in stage.arms.values()) / stage.watched_s, stage)
             for stage in stages if stage.arms and stage.watched_s]
    best = max(rates, key=lambda pair: pair[0], default=None)
    return r.Criterion(
        'Throughput of the service', '≥ %.0f requests per second' % limit, '%.0f requests per second' % best[0] if best else None,
        _verdict(best[0] >= limit if best else None), best[0] if best else None, limit,
        'all arms, the busiest stage: %s' % best[1].label if best else 'no requests were seen')


def _at_most(name: str, limit: float, value: float | None, tell: t.Callable[[float], str], basis: str) -> r.Criterion:
    return r.Criterion(name, '< %s' % tell(limit), None if value is None else tell(value),
                       _verdict(None if value is None else value < limit), value, limit, basis)


def _verdict(met: bool | None) -> str:
    return r.NOT_MEASURED if met is None else r.MET if met else r.MISSED


def _ratio(part: int, whole: int) -> float | None:
    return min(part / whole, 1.0) if whole else None


def percent(ratio: float, down: bool = False) -> str:
    """Returns a ratio as per cent; with *down* it is never rounded up, so that 99.9996 % is not said to be 100 %."""
    value = ratio * 100
    if 0 < value < 0.001:
        return '< 0.001 %'
    if down:
        value = math.floor(value * 1000 + 1e-6) / 1000
    return ('%.*f' % (3 if down or value < 0.1 else 2, value)).rstrip('0').rstrip('.') + ' %'


def milliseconds(value: float) -> str:
    return '%.0f ms' % value if value >= 10 else '%.1f ms' % value
