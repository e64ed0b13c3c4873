# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The condition of type ``sequential``: proof, at any look, that the candidate does harm, or in the end that it does not.

All conditions of this type in one gate share one ``SequentialState`` and so one alpha. Every look of a quick source is a block of its
own, not only every sample: an e-process may be looked at whenever one likes, and the onset is counted in seconds, so the number
of looks changes nothing of the promise. A look in which one arm had no request can compare nothing; it is added to the next
one, at most until the sample. Where a block ends so depends on the number of requests, never on how they went.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _planning
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import measure as m
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import spec as s
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import verdict as v
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._eprocess import Counts
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import (
    ArmsBlock, Question, SequentialState, check_question)
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.history import Seen
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.threshold import Threshold
from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import base

DEFAULTS: dict[str, t.Any] = {
    'name': None, 'type': 'sequential', 'source': 'router', 'metric': None, 'above_ms': None, 'ratio': 1, 'margin': 0,
    'pass_ratio': None, 'pass_margin': None, 'direction': 'more', 'weight': None, 'min_events': 3, 'min_sample': 0, 'burst': 1,
    'harm': None, 'must_pass': True, 'warm_up': None,
}
"""Every key of a condition of this type."""

_DIRECTIONS = {'more': 1, 'fewer': -1}
# Requests of one arm that were counted as slow while they waited, and of which nothing is heard for so long, ended unseen.
_UNHEARD_S = 10.0


@dataclass(frozen=True)
class SequentialSpec:
    """A condition of type ``sequential``, checked. What it shares with ``Spec`` has the same meaning."""

    name: str
    source: str
    metric: str
    blocks: str
    """The metric of the blocks that it counts."""
    above_ms: float | None
    """Answers that take longer are the bad ones; None where the source counts bad ones."""
    question: Question
    harm: float | None
    """The candidate's rate that is worth catching, for the plan."""
    arm: str
    stable: str | None
    warm_up: float
    required: bool
    """Whether the stage needs its pass. A proof of harm ends the stage in any case."""
    error_limit: int
    unit: str = m.RATIO
    no_data_after: float | None = None


def read_sequential(raw: t.Mapping[str, t.Any], context: s.Context) -> SequentialSpec:
    """Returns the checked condition. Raises BadInput with a sentence that names it."""
    given = {key: value for key, value in raw.items() if value is not None}
    name = s.condition_name(given)
    # The module's argument specification gives every condition the keys of every type; a false "required" cannot be meant for this one.
    if given.pop('required', True) is not True:
        raise BadInput('The sequential condition "%s" shares its alpha with others, so it cannot be for information only: use '
                       'must_pass: false when its proof of harm is to count, and the lack of a pass is not to hold up.' % name)
    s.check_keys(name, given, DEFAULTS)
    value = {**DEFAULTS, **given}
    offered = s.offered_by(name, value['source'], context)
    blocks, what = _counted(name, str(value['metric']), value, offered)
    if value['direction'] not in _DIRECTIONS:
        raise BadInput('The direction of the condition "%s" is %r: which change is harm, "more" or "fewer"?' % (name, value['direction']))
    if not isinstance(value['must_pass'], bool):
        raise BadInput('The must_pass of the condition "%s" is %r: write true or false.' % (name, value['must_pass']))
    number = {key: None if value[key] is None else s.read_limit(name, key, value[key], m.PLAIN, 'value')
              for key in ('ratio', 'pass_ratio', 'weight', 'burst')}
    margin = {key: None if value[key] is None else s.read_limit(name, key, value[key], m.RATIO, 'difference')
              for key in ('margin', 'pass_margin')}
    question = Question(
        name=name, what=what, ratio=t.cast(float, number['ratio']), margin=t.cast(float, margin['margin']),
        pass_ratio=number['pass_ratio'], pass_margin=margin['pass_margin'], direction=_DIRECTIONS[value['direction']],
        weight=number['weight'], min_events=t.cast(int, s.read_whole(name, 'min_events', value['min_events'], 1)),
        min_requests=t.cast(int, s.read_whole(name, 'min_sample', value['min_sample'], 0)), burst=t.cast(float, number['burst']))
    check_question(question)
    if context.stable is None and (question.ratio or question.tolerated[0]):
        raise BadInput('The condition "%s" compares with the stable arm, but no stable arm was given: give stable, or the ratio 0 and '
                       'a margin that is the limit.' % name)
    return SequentialSpec(
        name=name, source=value['source'], metric=str(value['metric']), blocks=blocks,
        above_ms=None if value['above_ms'] is None else s.read_limit(name, 'above_ms', value['above_ms'], m.MS, 'value'),
        question=question, harm=None if value['harm'] is None else s.read_limit(name, 'harm', value['harm'], m.RATIO, 'value'),
        arm=context.candidate, stable=context.stable, required=value['must_pass'], error_limit=context.error_limit,
        warm_up=context.warm_up if value['warm_up'] is None else parse_duration(value['warm_up'], 'warm_up of the condition "%s"' % name))


def _counted(name: str, metric: str, value: t.Mapping[str, t.Any], offered: t.Mapping[str, str]) -> tuple[str, str]:
    """Returns the metric of the blocks to count, and what the event is called."""
    if offered.get(metric) == base.LATENCIES:
        if value['above_ms'] is None:
            raise BadInput('The condition "%s" counts slow answers: give above_ms, the limit above which one is slow.' % name)
        limit = s.read_limit(name, 'above_ms', value['above_ms'], m.MS, 'value')
        return base.REQUESTS if metric == base.LATENCY else metric, 'slower than %s' % m.tell_limit(limit, m.MS)
    if value['above_ms'] is not None:
        raise BadInput('The condition "%s" gives above_ms, but "%s" is not a latency: of this source %s.' % (
            name, metric, ', '.join(key for key, kind in offered.items() if kind == base.LATENCIES) or 'none is'))
    for counts, kind in offered.items():
        if kind == base.COUNTS and (metric == counts or metric in m.bad_of(counts)):
            return counts, 'errors' if counts in (base.REQUESTS, 'attempts') else counts
    raise BadInput('The sequential condition "%s" names the metric "%s", which the source does not count: it counts %s.' % (
        name, metric, ', '.join([m.bad_of(key)[0] for key, kind in offered.items() if kind == base.COUNTS]
                                + [key for key, kind in offered.items() if kind == base.LATENCIES]) or 'nothing'))


class _Slow:
    """Slow and all answers of one arm, each request once: as slow when it surely has waited longer than the limit, or when it ends."""

    def __init__(self, limit_ms: float) -> None:
        self._limit = limit_ms
        self._ahead = 0
        """Requests that were counted while they waited and that have not been seen to end."""
        self._quiet = 0.0

    def count(self, blocks: t.Sequence[Seen], begun_s: float) -> tuple[int, int]:
        """Returns (slow, all) of the new *blocks*. What began before the stage did, *begun_s* ago, ran under another split."""
        since_ms, fast, ended = begun_s * 1000, 0, 0
        for seen in blocks:
            for ms, count in seen.latencies.counts.items():
                if ms <= self._limit:
                    fast += count if ms <= since_ms else 0
                elif ms <= since_ms:
                    ended += count
            ended += sum(count for ms, count in seen.gave_up.counts.items() if self._limit < ms <= since_ms)
        waiting = sum(next((count for ms, count in seen.block.waiting if ms > self._limit), 0) for seen in blocks)
        new = max(ended + waiting - self._ahead, 0)
        self._quiet = 0.0 if waiting or ended else self._quiet + max((seen.block.seconds for seen in blocks), default=0.0)
        # How many wait is a lower bound: it may fall though nobody has ended.
        self._ahead = max(waiting, self._ahead - ended) if self._quiet < _UNHEARD_S else 0
        return new, fast + new


class Sequential(Threshold):
    """One question of the gate's sequential test, asked with the blocks of one source."""

    def __init__(self, spec: SequentialSpec) -> None:
        super().__init__(t.cast(s.Spec, spec))
        self.asked = spec
        self.state: SequentialState
        """Shared by all of the gate; ``share_alpha`` sets it."""
        self._slow = {} if spec.above_ms is None else {arm: _Slow(spec.above_ms) for arm in (spec.arm, spec.stable) if arm}
        self._start: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._pending = [0, 0, 0, 0]
        self._seconds = 0.0

    def update(self, sample: s.Sample) -> v.Judgement:
        if sample.source == self.asked.source:
            if self._start is None:
                self._start, self._servers = sample.at, {}
            if sample.reading.before and self.asked.above_ms is None:
                own = [one for one in sample.reading.before if one.metric == self.asked.blocks and one.arm == self.asked.stable]
                self.state.history(self.name, sum(one.bad for one in own), sum(one.requests for one in own))
        return super().update(sample)

    def _take_in(self, sample: s.Sample) -> v.Judgement | None:
        blocks = [block for block in sample.reading.blocks if block.metric == self.asked.blocks]
        arms = {arm: [block for block in blocks if block.arm == arm] for arm in (self.asked.stable, self.asked.arm) if arm}
        if not any(arms.values()):
            if sample.reading.errors and not sample.between:
                self.state.update({self.name: None})
            # Otherwise it is the first poll: the mark that the next one counts from.
            return None
        counts = [*self._counted(self.asked.stable, arms, sample), *self._counted(self.asked.arm, arms, sample)]
        self._pending = [x + y for x, y in zip(self._pending, counts)]
        self._seconds += max(block.seconds for block in blocks)
        for block in arms.get(t.cast(str, self.asked.stable), ()) if self.asked.above_ms is None else ():
            for name, bad, requests in block.servers:
                e_k, n_k = self._servers.get((block.endpoint, name), (0, 0))
                self._servers[block.endpoint, name] = (e_k + bad, n_k + requests)
        _e_b, n_b, _e_c, n_c = self._pending
        if sample.between and not (n_c and (n_b or not self.asked.question.ratio)):
            return None
        # The scatter of the servers wants blocks that are not too small: those of whole samples.
        servers = () if sample.between else tuple(self._servers.values())
        self.state.update({self.name: ArmsBlock(Counts(*self._pending), self._seconds, servers)})
        self._clear()
        if not sample.between:
            self._servers = {}
        return None

    def _counted(self, arm: str | None, arms: t.Mapping[str, t.Sequence[base.Block]], sample: s.Sample) -> tuple[int, int]:
        blocks = arms.get(arm, ()) if arm else ()
        if arm in self._slow:
            return self._slow[arm].count([sample.seen(block) for block in blocks], sample.at - (self._start or 0.0))
        return sum(block.bad for block in blocks), sum(block.requests for block in blocks)

    def _so_far(self) -> v.Judgement:
        found = self.state.judgement(self.name)
        # A proof counts in any case, the lack of a pass only where one is required.
        told = found.reason if found.verdict in (v.FAIL, v.NO_DATA) else self.state.told(self.name)
        return replace(found, required=self.asked.required or found.verdict == v.FAIL, told=told)

    def _at_end(self) -> v.Judgement:
        return self._so_far()

    def plan(self, rps_b: float, rps_c: float, p_b: float, bake: float) -> _planning.Plan:
        """Returns what this condition can find in *bake* seconds of such traffic, with *p_b* as stable's rate."""
        numbers = self.state.numbers(self.name)
        return _planning.plan(self.asked.question, rps_b, rps_c, p_b, bake, self.asked.harm,
                              self.state.alpha * numbers['weight'], self.state.beta, numbers['dispersion'], self.asked.required)


def share_alpha(conditions: t.Iterable[object], context: s.Context) -> None:
    """Gives the sequential ones of *conditions* their common state: a new one, or that which the rollout's gate before returned.

    Raises BadInput when their weights do not go together, and when that state was gathered for other questions.
    """
    own = [condition for condition in conditions if isinstance(condition, Sequential)]
    if not own:
        return
    questions = [condition.asked.question for condition in own]
    options = (questions, context.alpha, context.beta, context.candidate, context.stable or 'stable')
    state = SequentialState.from_dict(context.analysis_state, *options) if context.analysis_state else SequentialState(*options)
    # Whether or not the split is a new one: what was under way when the watch began was not seen to begin.
    state.begin_stage()
    for condition in own:
        condition.state = state
