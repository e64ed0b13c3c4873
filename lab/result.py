# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rollout did to its users: the journal's account beside the load generator's own. Pure but for the readers."""

from __future__ import annotations

import json
import typing as t
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from load import Hit

SLOW_S = 1.0
"""A candidate's answer that took longer met a fault: the limit at which the reference rollout goes back."""


@dataclass(frozen=True)
class Receipt:
    """A line of a process's own record; *ts* in epoch seconds. A work request that it received, or a *fault* without an id."""

    id: str | None
    ts: float
    arm: str
    version: str
    fault: str | None = None


def read_lines(path: Path) -> list[dict]:
    """The objects of a file of JSON lines; a last line that a killed process left unfinished is left out."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def read_receipts(directory: Path) -> list[Receipt]:
    return [Receipt(line.get('id'), line['ts'], line['arm'], line['version'], line.get('fault'))
            for path in sorted(directory.glob('*.jsonl')) for line in read_lines(path)]


def newest_journal(state: Path, service: str, since: float = 0.0) -> Path | None:
    """The journal of *service* that was written last, not before *since* (epoch seconds)."""
    journals = [path for path in (state / service).glob('*.jsonl') if not path.is_symlink() and path.stat().st_mtime >= since]
    return max(journals, key=lambda path: path.stat().st_mtime, default=None)


def summarise(events: t.Sequence[dict], hits: t.Sequence[Hit], receipts: t.Iterable[Receipt], stable_version: str) -> dict:
    """Returns the content of result.json.

    A *candidate* is any process of a version other than the one that the rollout found live (*stable_version* where the
    journal does not say). A stage's shares are those of its arm. Keys beside those of the issue: ``load_requests`` and
    ``load_observed_bp`` of a stage (the load generator's count, over the time in which the stage's split was in force),
    ``fault_to_last_received_s`` (to the last request that reached the candidate), ``versions`` (requests by version and
    status).
    """
    stable_version = _last(events, 'rollout_started').get('previous_version') or stable_version
    reached: dict[str, float] = {}
    shown: list[float] = []
    for receipt in receipts:
        if receipt.version == stable_version:
            continue
        if receipt.id is None:
            shown.append(receipt.ts)
        else:
            reached[receipt.id] = max(receipt.ts, reached.get(receipt.id, 0.0))
    finished = _last(events, 'rollout_finished')
    way_back = next((event for event in events if event['event'] == 'way_back'), {})
    failed = [hit for hit in hits if hit.failed]
    return {
        'outcome': finished.get('outcome'),
        'reason': finished.get('reason', '' if finished else 'The journal has no end.' if events else 'There is no journal.'),
        'requests': len(hits),
        'failed': len(failed),
        'failed_stable': sum(hit.id not in reached for hit in failed),
        'stages': [_stage(event, events, hits, reached) for event in events if event['event'] == 'stage_finished'],
        **_fault(hits, reached, shown, stable_version),
        'rollback_s': way_back.get('seconds'),
        'versions': {version: dict(sorted(codes.items())) for version, codes in by_version(hits).items()},
    }


def by_version(hits: t.Iterable[Hit]) -> dict[str, Counter]:
    """Requests by the version that answered ('none': the proxy, or nobody) and status."""
    counts: dict[str, Counter] = {}
    for hit in hits:
        counts.setdefault(hit.version or 'none', Counter())[str(hit.code)] += 1
    return dict(sorted(counts.items()))


def _last(events: t.Sequence[dict], name: str) -> dict:
    return next((event for event in reversed(events) if event['event'] == name), {})


def _stage(event: dict, events: t.Sequence[dict], hits: t.Sequence[Hit], reached: t.Mapping[str, float]) -> dict:
    start, end = _window(event, events)
    inside = [hit for hit in hits if start <= hit.sent < end]
    candidate = sum(hit.id in reached for hit in inside)
    return {
        **{key: event.get(key) for key in ('index', 'name', 'arm')},
        **{key: (event.get(key) or {}).get(event['arm']) for key in ('requested_bp', 'configured_bp', 'observed_bp')},
        **{key: event.get(key) for key in ('requests', 'verdict', 'reason')},
        'load_requests': len(inside),
        'load_observed_bp': round(candidate * 10_000 / len(inside)) if inside else None,
    }


def _window(event: dict, events: t.Sequence[dict]) -> tuple[float, float]:
    """The time in which the stage's split was surely in force: from its last confirmation to the end or the way back."""
    own = events[:next(i for i, other in enumerate(events) if other is event)]
    first = max((i for i, other in enumerate(own) if other['event'] == 'stage_started'), default=0)
    start = max((other['ts'] for other in own[first:] if other['event'] in ('stage_started', 'change')), default=event['ts'])
    back = [other['ts'] - (other.get('seconds') or 0) for other in events if other['event'] == 'way_back' and other['ts'] >= start]
    return start, min([event['ts'], *back])


def _fault(hits: t.Sequence[Hit], reached: t.Mapping[str, float], shown: t.Sequence[float], stable_version: str) -> dict:
    """How long the fault lasted, seen from outside, in seconds; None without one.

    It begins with the first request that met it (a candidate received it and it failed, was slow, or had to be answered by
    stable) or with a process that died, and ends with the last answer of the bad version or the last failure of a request it had.
    """
    had = [hit for hit in hits if hit.id in reached]
    begun = [hit.sent for hit in had if hit.failed or hit.version == stable_version or hit.done - hit.sent > SLOW_S] + list(shown)
    if not begun:
        return {'fault_to_last_bad_s': None, 'fault_to_last_received_s': None}
    start = min(begun)
    bad = [hit.done for hit in had if hit.failed or hit.version not in (None, stable_version)]
    return {
        'fault_to_last_bad_s': round(max([start, *bad]) - start, 3),
        'fault_to_last_received_s': round(max([start, *(reached[hit.id] for hit in had)]) - start, 3),
    }


def text(result: dict) -> str:
    """The short account that a person reads after the run."""
    lines = ['load: %d requests, %d failed, %d of them without a candidate\'s doing' % (
        result['requests'], result['failed'], result['failed_stable'])]
    for version, codes in result['versions'].items():
        lines.append('  answered by %-5s %s' % (version, ', '.join('%s: %d' % pair for pair in codes.items())))
    if result['fault_to_last_bad_s'] is not None:
        lines.append('  from the fault to the last answer of the bad version: %.2f s' % result['fault_to_last_bad_s'])
    return '\n'.join(lines)
