# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Events of a journal, checked before anything is made of them: a journal is a file, and anybody may have written into it. Pure.

A field of the wrong kind is left out; an event without one that it cannot be understood without is left out as a whole.
"""

from __future__ import annotations

import math
import typing as t

Check = t.Callable[[t.Any], t.Any]
"""Returns the value as it may be used; None when it may not."""

_MOST_TEXT = 4000
_MOST_ITEMS = 2000
_LATEST = 253402300799.0  # the end of the year 9999, beyond which there is no date


def number(value: t.Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e15 < value < 1e15 or not math.isfinite(value):
        return None
    return value


def whole(value: t.Any) -> int | None:
    return int(value) if number(value) is not None and value >= 0 and value == int(value) else None


def moment(value: t.Any) -> float | None:
    return float(value) if number(value) is not None and 0 <= value < _LATEST else None


def seconds(value: t.Any) -> float | None:
    return float(value) if number(value) is not None and 0 <= value < 1e10 else None


def flag(value: t.Any) -> bool | None:
    return value if isinstance(value, bool) else None


def text(value: t.Any) -> str | None:
    """Whatever a terminal, HTML or XML cannot show is replaced: control characters and halves of surrogate pairs."""
    if not isinstance(value, str):
        return None
    return ''.join(sign if sign in '\n\t' or sign.isprintable() else '\ufffd' for sign in value[:_MOST_TEXT])


def listing(check: Check) -> Check:
    def run(value: t.Any) -> t.Any:
        if not isinstance(value, list):
            return None
        return [found for found in map(check, value[:_MOST_ITEMS]) if found is not None]
    return run


def mapping(check: Check) -> Check:
    def run(value: t.Any) -> t.Any:
        if not isinstance(value, dict):
            return None
        found = {text(key): check(one) for key, one in list(value.items())[:_MOST_ITEMS]}
        return {key: one for key, one in found.items() if key is not None and one is not None}
    return run


def record(needed: t.Mapping[str, Check] | None = None, **more: Check) -> Check:
    """A dictionary with the fields *needed*, and those of *more* that are there."""
    fields = {**(needed or {}), **more}

    def run(value: t.Any) -> t.Any:
        if not isinstance(value, dict):
            return None
        found = {name: check(value[name]) for name, check in fields.items() if name in value}
        found = {name: one for name, one in found.items() if one is not None}
        return found if all(name in found for name in needed or ()) else None
    return run


def _pair(value: t.Any) -> list[t.Any] | None:
    """A limit: [side, number]."""
    if isinstance(value, list) and len(value) == 2 and value[0] in ('above', 'below') and number(value[1]) is not None:
        return value
    return None


_ARM = record(requests=whole, errors=whole, error_ratio=number, p50_ms=seconds, p95_ms=seconds, p99_ms=seconds)
_ARMS = mapping(_ARM)
_BP = mapping(whole)
_CONDITION = record({'name': text, 'reason': text}, verdict=text, value=number, limit=number, n=whole, required=flag)
_LIMITS = record({'name': text}, type=text, metric=text, unit=text, arm=text, compare=text, source=text,
                 abort=listing(_pair), good=listing(_pair), harm_limit=number, excluded_limit=number)
_PLANNED = record({'index': whole, 'share_bp': whole}, name=text, arm=text, bake_s=seconds)
_STAGE = {'name': text, 'label': text, 'arm': text, 'bake_s': seconds, 'requested_bp': _BP}
_BACK = record({'endpoint': text}, ok=flag, error=text, to=text, seconds=seconds)

EVENTS: dict[str, Check] = {
    'rollout_started': record(
        service=text, version=text, previous_version=text, strategy=text, stable=text, target=text, by=text, stages=whole,
        plan=listing(_PLANNED), report_dir=text, criteria=mapping(number), tools=mapping(text)),
    'stage_started': record({'index': whole}, **_STAGE),
    'stage_finished': record(
        {'index': whole}, **_STAGE, configured_bp=_BP, endpoints=mapping(_BP), observed_bp=_BP, requests=whole, arms=_ARMS, verdict=text,
        reason=text, samples=whole, duration_s=seconds, conditions=listing(_CONDITION)),
    'watching': record({'stage': text}, candidate=text, stable=text, share_bp=whole, bake_s=seconds, interval_s=seconds,
                       conditions=listing(_LIMITS)),
    'counters': record({'arms': _ARMS}, stage=text),
    'sample': record({'stage': text}, at_s=seconds, arms=_ARMS, values=mapping(number), evidence=mapping(mapping(number)), lease_s=number,
                     errors=listing(text)),
    'verdict': record({'stage': text}, passed=flag, verdict=text, reason=text, conditions=listing(_CONDITION), arms=_ARMS, observed_bp=_BP,
                      samples=whole, duration=seconds, extensions=whole),
    'way_back': record(stage=text, reason=text, seconds=seconds, to=text, complete=flag, endpoints=listing(_BACK)),
    'intent': record(requested_bp=_BP, lease_s=seconds),
    'change': record(endpoint=text, before_bp=_BP, after_bp=_BP, lease_s=seconds, ms=number),
    'plan': record(stage=text, name=text, text=text, warnings=listing(text)),
    'note': record({'text': text}, stage=text),
    'asked': record({'text': text}, stage=text, by=listing(text), timeout_s=seconds),
    'answered': record({'text': text}, stage=text, by=text, answer=text, reason=text, via=text, seconds=seconds),
    'signal': record(stage=text, signal=text),
    'rollout_finished': record(outcome=text, reason=text),
}
"""What each event is made of. Of others, what a person can read is kept."""

_OTHER = record(stage=text, text=text, reason=text, msg=text, by=text, phase=text)
_BASE = record({'event': text, 'ts': moment}, rollout=text)


class Cleaned(t.NamedTuple):
    events: list[dict[str, t.Any]]
    """With ``event``, ``ts`` and the fields of that event, in the order they were written."""
    refused: int
    """How many were left out."""


def clean(events: t.Iterable[t.Any]) -> Cleaned:
    """Checks every event. Never raises."""
    kept, refused = [], 0
    for event in events:
        base = _BASE(event)
        fields = None if base is None else EVENTS.get(base['event'], _OTHER)(event)
        if base is None or fields is None:
            refused += 1
        else:
            kept.append({**fields, **base})
    return Cleaned(kept, refused)
