# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a gate leaves in the journal while it watches: its limits, what the counters held, and the samples that plots are made of.

A long bake is thinned out while it is written: a sample then stands for several intervals, and no request is left out.
"""

from __future__ import annotations

import math
import typing as t
from fractions import Fraction

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import verdict as v
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.harm import Sequential
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.history import Seen
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.quantile import Latencies
from ansible_collections.progressive.delivery.plugins.module_utils._gate import Gate
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import REQUESTS, Block

MOST_SAMPLES = 720
"""About as many samples a stage has in the journal at most: two hours at ten seconds, all of them; at one second, each tenth."""

_QUANTILES = (50, 95, 99)


class _Counted:
    def __init__(self) -> None:
        self.requests = 0
        self.bad = 0
        self.latencies = Latencies()


class Samples:
    """The journal's samples of one stage. *journal* returns at once."""

    def __init__(self, gate: Gate, journal: t.Callable[..., None]) -> None:
        self._gate = gate
        self._journal = journal
        self._every = max(1, math.ceil(gate.bake / gate.interval / MOST_SAMPLES))
        self._skipped = 0
        self._pending = False
        self._arms: dict[str, _Counted] = {}
        self._errors: dict[str, None] = {}
        self._last: tuple[float, t.Sequence[v.Judgement], float | None] | None = None

    def begin(self) -> None:
        """Records what the stage is watched by, so that a plot can show the limits as the gate had them."""
        gate = self._gate
        self._journal('watching', stage=gate.label, candidate=gate.candidate, stable=gate.stable, share_bp=gate.share_bp, bake_s=gate.bake,
                      interval_s=gate.interval, conditions=[_limits(condition) for condition in gate.conditions])

    def counters(self, before: t.Iterable[Block]) -> None:
        """Records what the counters hold since they were last set to 0: what happens between two gates shows as well then."""
        arms = counted(before)
        if arms:
            self._journal('counters', stage=self._gate.label, arms=arms)

    def take_in(self, seen: t.Iterable[Seen]) -> None:
        for one in seen:
            if one.block.metric == REQUESTS:
                arm = self._arms.setdefault(one.block.arm, _Counted())
                arm.requests += one.block.requests
                arm.bad += one.block.bad
                arm.latencies.absorb(one.latencies)

    def write(self, at: float, judgements: t.Sequence[v.Judgement], lease: float | None, errors: t.Iterable[str], last: bool) -> None:
        """Takes note of a sample *at* seconds after the watch began; it is written when it is its turn, or the *last*."""
        self._errors.update(dict.fromkeys(errors))
        self._last = (at, judgements, lease)
        self._pending = True
        self._skipped += 1
        if last or self._skipped >= self._every or at < self._gate.interval:
            self.flush()

    def flush(self) -> None:
        """Writes what is left to write."""
        if not self._pending or self._last is None:
            return
        at, judgements, lease = self._last
        arms, self._arms = self._arms, {}
        errors, self._errors = self._errors, {}
        self._skipped, self._pending = 0, False
        evidence = {condition.name: _evidence(condition) for condition in self._gate.sequential}
        self._journal('sample', stage=self._gate.label, at_s=round(at, 3), arms={name: _arm(arm) for name, arm in arms.items()},
                      values={one.name: one.value for one in judgements}, **({'evidence': evidence} if evidence else {}),
                      **({} if lease is None else {'lease_s': round(lease, 3)}), **({'errors': list(errors)} if errors else {}))


def counted(blocks: t.Iterable[Block]) -> dict[str, dict[str, int]]:
    """Returns ``{arm: {requests, errors}}`` of the service's own requests, over all endpoints."""
    arms: dict[str, dict[str, int]] = {}
    for block in blocks:
        if block.metric == REQUESTS:
            arm = arms.setdefault(block.arm, {'requests': 0, 'errors': 0})
            arm['requests'] += block.requests
            arm['errors'] += block.bad
    return arms


def _arm(arm: _Counted) -> dict[str, t.Any]:
    found = {'p%d_ms' % p: arm.latencies.quantile(Fraction(p, 100)) for p in _QUANTILES} if arm.latencies.total else {}
    return {'requests': arm.requests, 'errors': arm.bad, **{key: round(value[0], 1) for key, value in found.items() if value}}


def _limits(condition: t.Any) -> dict[str, t.Any]:
    spec = condition.spec
    told = {'name': spec.name, 'source': spec.source, 'metric': str(spec.metric), 'unit': spec.unit, 'arm': spec.arm}
    if isinstance(condition, Sequential):
        return {**told, 'type': 'sequential', 'harm_limit': round(-math.log10(condition.state.alpha), 4),
                'excluded_limit': round(-math.log10(condition.state.beta), 4)}
    return {**told, 'type': 'threshold', 'compare': spec.compare, 'abort': [list(pair) for pair in spec.abort],
            'good': [list(pair) for pair in spec.good]}


def _evidence(condition: Sequential) -> dict[str, float | None]:
    """Returns the evidence of harm, and that harm is excluded, as logarithms to the base 10."""
    numbers = condition.state.numbers(condition.name)
    return {key: round(numbers[name] / math.log(10), 3) if math.isfinite(numbers[name]) else None
            for key, name in (('harm', 'log_harm'), ('excluded', 'log_excluded'))}
