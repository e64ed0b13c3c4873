# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The condition of type ``threshold``: a value, or its difference or ratio to the stable arm's, against limits.

Abort limits are checked at every poll, over the last ``window`` seconds. Where a window is beyond the limit but holds too few requests
for a proof, the stage so far may give it, so that a service with little traffic is judged too. Pass limits are checked once, over the
whole stage.
"""

from __future__ import annotations

import math
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import measure as m
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import verdict as v
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.history import Series
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.spec import Sample, Spec
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration

_SLACK = 1e-6
# A gauge that was missing in as many of the last polls has no value to end with.
_STALE_POLLS = 3


class _Streak:
    """Failing samples in a row and in all, of one scope."""

    def __init__(self, spec: Spec) -> None:
        self.row = self.total = 0
        self._spec = spec

    def count(self, failing: bool, between: bool) -> bool:
        """Returns whether a limit was reached."""
        if between:
            return failing and 1 in (self._spec.consecutive_limit, self._spec.total_limit)
        self.row = self.row + 1 if failing else 0
        self.total += failing
        return failing and (self.row >= (self._spec.consecutive_limit or math.inf) or self.total >= (self._spec.total_limit or math.inf))


class Threshold:
    """What counted requests and gauges have in common: warm-up, sources that are gone, data that stay away."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.name = spec.name
        self.at = 0.0
        self._errors = 0
        self._last_error = ''
        self._proof: v.Judgement | None = None

    def update(self, sample: Sample) -> v.Judgement:
        """Takes in a poll of any source and returns what is known so far; a judgement that is ``final`` ends the watch."""
        if sample.source == self.spec.source and self._proof is None:
            self.at = sample.at
            if sample.reading.errors:
                self._errors += not sample.between
                self._last_error = sample.reading.errors[0]
            else:
                self._errors = 0
            if sample.at > self.spec.warm_up + _SLACK:
                self._proof = self._take_in(sample)
        if self._proof:
            return self._proof
        gone = self._gone()
        if gone:
            return gone
        starved = self.spec.no_data_after
        if starved is not None and self._silent_for() >= starved - _SLACK:
            return self._judge(v.NO_DATA, '%s: %s for %s' % (self.spec.arm, self._nothing(), format_duration(self._silent_for())),
                               final=True)
        return self._so_far()

    def finish(self) -> v.Judgement:
        """Judges the whole stage. May be called again after further updates."""
        return self._proof or self._gone() or self._at_end()

    def _take_in(self, sample: Sample) -> v.Judgement | None:
        """Takes in a poll of this condition's source; returns the proof when it completes one."""
        raise NotImplementedError

    def _so_far(self) -> v.Judgement:
        raise NotImplementedError

    def _at_end(self) -> v.Judgement:
        raise NotImplementedError

    def _silent_for(self) -> float:
        raise NotImplementedError

    def _nothing(self) -> str:
        """What there was not, for a sentence."""
        raise NotImplementedError

    def _gone(self) -> v.Judgement | None:
        if self._errors < self.spec.error_limit:
            return None
        return self._judge(v.ERROR, 'the source "%s" failed %d polls in a row: %s' % (
            self.spec.source, self._errors, self._last_error.rstrip('.')), final=True)

    def _judge(self, verdict: str, reason: str, **numbers: t.Any) -> v.Judgement:
        return v.Judgement(self.name, verdict, reason, required=self.spec.required, **numbers)

    def _limit_told(self, side: str, limit: float, effective: float) -> str:
        at_least = 'at least ' if side == m.BELOW else ''
        if self.spec.compare == 'value':
            return 'limit %s%s' % (at_least, m.tell_limit(limit, self.spec.unit))
        how = '%s more than' % m.tell_limit(limit, self.spec.unit) if self.spec.compare == 'difference' else '%g times' % limit
        return 'limit %s%s (%s %s)' % (at_least, m.tell_limit(effective, self.spec.unit), how, self.spec.stable)

    def _shown_limit(self) -> tuple[str, float]:
        return (self.spec.abort or self.spec.good)[0]


class Counted(Threshold):
    """A threshold on what was made from requests: ratios, latencies, counts, rates, shares."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.measure = t.cast(m.Measure, spec.measure)
        self._scopes: dict[str, dict[str, Series]] = {}
        self._streaks: dict[str, _Streak] = {}
        self._start: float | None = None

    def _take_in(self, sample: Sample) -> v.Judgement | None:
        blocks = [block for block in sample.reading.blocks if block.metric == self.measure.metric]
        if isinstance(self.measure, m.Share):
            blocks = [block for block in blocks if not block.early]
        if self._start is None:
            self._start = sample.at - max((block.seconds for block in blocks), default=0.0)
        named = {block.endpoint for block in blocks if block.endpoint} if self.spec.per_endpoint else set()
        for scope in {''} | named:
            self._scopes.setdefault(scope, {})
            self._streaks.setdefault(scope, _Streak(self.spec))
        for scope, arms in self._scopes.items():
            wanted = {self.spec.arm, self.spec.stable} - {None} if not isinstance(self.measure, m.Share) else (
                {block.arm for block in blocks} | set(arms) | {self.spec.arm})
            for arm in t.cast('set[str]', wanted):
                series = arms.setdefault(arm, Series(self.spec.window))
                series.poll(sample.at, [sample.seen(block) for block in blocks if block.arm == arm and scope in ('', block.endpoint)])
        # The whole before its parts: its sentence says most.
        for scope in sorted(self._scopes):
            failing = self._failing(scope)
            if self._streaks[scope].count(failing is not None, sample.between) and failing:
                return failing
        return None

    def _failing(self, scope: str) -> v.Judgement | None:
        """Returns the judgement when this sample is beyond an abort limit."""
        for side, limit in self.spec.abort:
            for whole_stage in (False, True):
                view, effective = self._view(scope, self.spec.arm, whole_stage), self._effective(scope, limit, whole_stage)
                if view is None or effective is None or not self._full(side) or not self.measure.beyond(view, effective, side):
                    # The stage adds to what the window lacks for a proof; it does not hold old failures against a good window.
                    break
                n, events = self.measure.n(view, effective), self.measure.events(view, effective, side)
                if not self.measure.sampled or (n >= self.spec.min_sample and (events is None or events >= self.spec.min_events)):
                    return self._told(v.FAIL, view, scope, side, limit, effective, whole_stage, final=True)
        return None

    def _full(self, side: str) -> bool:
        """A count that is too low says nothing until the window is full."""
        return self.measure.sampled or side == m.ABOVE or self.at - (self._start or 0.0) >= self.spec.window - _SLACK

    def _so_far(self) -> v.Judgement:
        side, limit = self._shown_limit()
        view, effective = self._view('', self.spec.arm, False), self._effective('', limit, False)
        if view is None or effective is None or self.measure.value(view, effective) is None:
            return self._judge(v.NO_DATA, '%s: %s yet' % (self.spec.arm, self._nothing()), limit=effective)
        return self._told(v.PASS, view, '', side, limit, effective, False)

    def _at_end(self) -> v.Judgement:
        view = self._view('', self.spec.arm, True)
        side, limit = (self.spec.good or self.spec.abort)[0]
        if view is None or not self._seen(view):
            return self._judge(v.NO_DATA, '%s: %s in the whole stage' % (self.spec.arm, self._nothing()))
        effective = self._effective('', limit, True)
        if effective is None:
            return self._judge(v.NO_DATA, '%s: %s had too few %s to compare with (at least %d are needed)' % (
                self.spec.arm, self.spec.stable, self.measure.metric, self.spec.min_sample))
        recent = self.spec.window if self.spec.no_data_after is None else self.spec.no_data_after
        if self.measure.sampled and self._silent_for() > recent + _SLACK:
            return self._judge(v.NO_DATA, '%s: %s in the last %s' % (self.spec.arm, self._nothing(), format_duration(self._silent_for())))
        if self.measure.value(view, effective) is None:
            return self._judge(v.NO_DATA, '%s: %s in the whole stage' % (self.spec.arm, self._nothing()))
        if self.measure.sampled and self.measure.n(view, effective) < self.spec.min_sample:
            bad_side = (m.BELOW if side == m.ABOVE else m.ABOVE) if self.spec.good else side
            few = self._told(v.INCONCLUSIVE, view, '', bad_side, limit, effective, True, goal=bool(self.spec.good))
            return self._judge(v.INCONCLUSIVE, '%s: too few, at least %d are needed' % (few.reason, self.spec.min_sample),
                               value=few.value, limit=few.limit, n=few.n)
        for side, limit in self.spec.good:
            effective = t.cast(float, self._effective('', limit, True))
            other = m.BELOW if side == m.ABOVE else m.ABOVE
            found = self.measure.value(view, effective)
            # Strictly inside: "below 0.1 %" does not hold at 0.1 %.
            if found is not None and (found[0] == effective or self.measure.beyond(view, effective, other)):
                undecided = any(abort == other for abort, _limit in self.spec.abort)
                return self._told(v.INCONCLUSIVE if undecided else v.FAIL, view, '', other, limit, effective, True, goal=True)
        return self._told(v.PASS, view, '', m.BELOW if side == m.ABOVE and self.spec.good else m.ABOVE if self.spec.good else side,
                          limit, effective, True)

    def _seen(self, view: m.View) -> bool:
        return not self.measure.sampled or view.whole > 0 if isinstance(self.measure, m.Share) else (
            not self.measure.sampled or view.series.last_seen is not None)

    def _silent_for(self) -> float:
        arms = self._scopes.get('', {})
        seen = [series.last_seen for arm, series in arms.items() if series.last_seen is not None and (
            arm == self.spec.arm or isinstance(self.measure, m.Share))]
        return self.at - (max(seen) if seen else self.spec.warm_up)

    def _nothing(self) -> str:
        return 'no latencies' if isinstance(self.measure, m.Quantile) else 'no %s' % self.measure.metric

    def _view(self, scope: str, arm: str, whole_stage: bool) -> m.View | None:
        arms = self._scopes.get(scope, {})
        if arm not in arms:
            return None
        tallies = {name: series.stage if whole_stage else series.window for name, series in arms.items()}
        return m.View(arms[arm], tallies[arm], sum(tally.requests for tally in tallies.values()))

    def _effective(self, scope: str, limit: float, whole_stage: bool) -> float | None:
        """Returns the limit in the metric's own unit; None when the stable arm has too little to compare with."""
        if self.spec.stable is None:
            return limit
        stable = self._view(scope, self.spec.stable, whole_stage)
        found = self.measure.value(stable, math.inf) if stable else None
        if stable is None or found is None or (self.measure.sampled and self.measure.n(stable, math.inf) < self.spec.min_sample):
            return None
        return found[0] + limit if self.spec.compare == 'difference' else max(found[0], self.measure.floor(stable)) * limit

    def _told(self, verdict: str, view: m.View, scope: str, side: str, limit: float, effective: float, whole_stage: bool,
              goal: bool = False, final: bool = False) -> v.Judgement:
        found = self.measure.value(view, effective)
        span = 'in the whole stage' if whole_stage and not final else 'since the stage began' if whole_stage else (
            'in the last %.1f s' % view.tally.seconds)
        reason = '%s%s: %s %s, %s%s' % (
            self.spec.arm, ' behind %s' % scope if scope else '', self.measure.told(view, effective), span,
            'to go on: ' if goal else '', self._limit_told(side, limit, effective))
        return self._judge(verdict, reason, value=found[0] if found else None, bound=bool(found and found[1]), limit=effective,
                           n=self.measure.n(view, effective), final=final)


class Gauge(Threshold):
    """A threshold on a value that is read: the last one aborts; the stage passes when its mean and its last value both do."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._streak = _Streak(spec)
        self._last: float | None = None
        self._sum = 0.0
        self._n = 0
        self._missing = 0
        self._last_seen: float | None = None

    def _take_in(self, sample: Sample) -> v.Judgement | None:
        value = self._read(sample)
        if value is None:
            self._missing += not sample.between
            return None
        self._last, self._missing, self._last_seen = value, 0, sample.at
        self._sum += value
        self._n += 1
        failing = None
        for side, limit in self.spec.abort:
            if value > limit if side == m.ABOVE else value < limit:
                failing = self._told(v.FAIL, 'is %s' % self._number(value), side, limit, value, final=True)
                break
        return failing if self._streak.count(failing is not None, sample.between) else None

    def _read(self, sample: Sample) -> float | None:
        gauges = sample.reading.gauges
        own = gauges.get((self.spec.metric, self.spec.arm))
        if self.spec.stable is None:
            value = own if own is not None else gauges.get((self.spec.metric, ''))
        else:
            other = gauges.get((self.spec.metric, self.spec.stable))
            if own is None or other is None:
                return None
            if self.spec.compare == 'difference':
                value = own - other
            else:
                value = own / other if other else math.inf if own > 0 else math.nan
        return None if value is None or math.isnan(value) else value

    def _so_far(self) -> v.Judgement:
        side, limit = self._shown_limit()
        if self._last is None or self._missing:
            return self._judge(v.NO_DATA, '%s: %s yet' % (self.spec.arm, self._nothing()), limit=limit)
        return self._told(v.PASS, 'is %s' % self._number(self._last), side, limit, self._last)

    def _at_end(self) -> v.Judgement:
        if self._last is None or self._missing >= _STALE_POLLS:
            return self._judge(v.NO_DATA, '%s: %s in the %s' % (
                self.spec.arm, self._nothing(), 'whole stage' if self._last is None else 'last %d polls' % self._missing))
        mean = self._sum / self._n
        for side, limit in self.spec.good:
            for value, how in ((self._last, 'is %s at the end of the stage'), (mean, 'was %s on average in the stage')):
                if not (value > limit if side == m.ABOVE else value < limit):
                    other = m.BELOW if side == m.ABOVE else m.ABOVE
                    undecided = any(abort == other for abort, _limit in self.spec.abort)
                    return self._told(v.INCONCLUSIVE if undecided else v.FAIL, how % self._number(value), other, limit, value, goal=True)
        side, limit = (self.spec.good or self.spec.abort)[0]
        if self.spec.good:
            side = m.BELOW if side == m.ABOVE else m.ABOVE
        return self._told(v.PASS, 'is %s at the end and was %s on average in the stage' % (self._number(self._last), self._number(mean)),
                          side, limit, self._last)

    def _silent_for(self) -> float:
        return self.at - (self.spec.warm_up if self._last_seen is None else self._last_seen)

    def _nothing(self) -> str:
        return 'no value of %s' % self.spec.metric

    def _number(self, value: float) -> str:
        if self.spec.compare == 'value':
            return m.tell(value, m.PLAIN)
        if self.spec.compare == 'difference':
            return '%s %s than that of %s' % (m.tell(abs(value), m.PLAIN), 'higher' if value >= 0 else 'lower', self.spec.stable)
        return '%s times that of %s' % (m.tell(value, m.PLAIN), self.spec.stable)

    def _told(self, verdict: str, what: str, side: str, limit: float, value: float, goal: bool = False, final: bool = False) -> v.Judgement:
        return self._judge(verdict, '%s: %s %s, %slimit %s%s' % (
            self.spec.arm, self.spec.metric, what, 'to go on: ' if goal else '', 'at least ' if side == m.BELOW else '',
            m.tell(limit, m.PLAIN)),
            value=value, limit=limit, n=self._n, final=final)
