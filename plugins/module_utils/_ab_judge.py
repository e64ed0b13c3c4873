# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One look at an A/B test: from the state of the look before and what was counted since to a verdict and the next state. Pure.

The state is plain data of a size that does not grow: marks of counters, counts so far, the evidence of each guardrail.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from math import inf, isfinite

from ansible_collections.progressive.delivery.plugins.module_utils._ab_counts import Look, added, advance, since
from ansible_collections.progressive.delivery.plugins.module_utils._ab_design import Count, Design
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _counts as c
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import experiment as e
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._eprocess import Counts
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import ArmsBlock, SequentialState
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import ROUTER

_BETA = 0.05
"""SequentialState wants one; a guardrail has no pass."""


@dataclass(frozen=True)
class Judged:
    """*metrics* is ``{metric: {arm: numbers}}``, *guardrails* ``{variant: {guardrail: sentence}}``."""

    at: float
    """Seconds since 1970."""
    verdict: str
    reason: str
    winner: str | None
    metrics: dict[str, dict[str, dict[str, t.Any]]]
    ratio: dict[str, t.Any]
    guardrails: dict[str, dict[str, str]]
    shares: dict[str, int]
    detectable: float | None
    """The smallest lift that nine of ten such tests find by the end at this traffic."""
    errors: tuple[str, ...]
    state: dict[str, t.Any]

    def as_dict(self) -> dict[str, t.Any]:
        """Plain data without the state, for results and the journal."""
        return {key: getattr(self, key) for key in (
            'at', 'verdict', 'reason', 'winner', 'metrics', 'ratio', 'guardrails', 'shares', 'detectable')}


def _guards(design: Design) -> tuple[list[t.Any], float]:
    return [question for _count, question in design.guards], design.guardrail_alpha / len(design.variants)


def first_state(design: Design, before: Look, at: float) -> dict[str, t.Any]:
    """Returns the state at the beginning. *before* is a look at the time before: its marks are what counts from, and what control did
    then is the first estimate of each guardrail's rate."""
    questions, alpha = _guards(design)
    states = {}
    for variant in design.variants if questions else ():
        state = SequentialState(questions, alpha, _BETA, variant, design.control)
        for count, question in design.guards:
            if count.source == ROUTER:
                pairs = [mark['arms'].get(design.control, (0, 0)) for mark in before.marks.values()]
                state.history(question.name, sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs))
            elif count.name in before.counted:
                state.history(question.name, *before.counted[count.name][design.control])
        states[variant] = state.to_dict()
    return {'at': at, 'marks': before.marks, 'router': {name: [0, 0] for name in design.arms}, 'counted': {}, 'guards': states,
            'ratio_log_e': 0.0, 'best': {}}


def judge(design: Design, state: t.Mapping[str, t.Any], found: Look, now: float, began: float, ends: float,
          errors: t.Sequence[str] = ()) -> Judged:
    """Returns the verdict of this look. *errors* are those of reading the routers; times in seconds since 1970."""
    fresh = advance(state['marks'], found.marks)
    router = added(state['router'], fresh)
    counted = {**_tallies(state['counted']), **found.counted}
    blocks = {count.name: since(state['counted'].get(count.name, {}), found.counted[count.name])
              for count, _question in design.guards if count.name in found.counted}
    guards, sentences, harm = _guardrails(design, state, fresh, blocks, bool(found.marks), found.missing, now)
    ratio = _ratio(design, state, counted, router)
    compared = {count.name: _compared(design, metric, _of(count, counted, router), state['best'].get(count.name, {}))
                for count, metric in design.metrics}
    metrics = {count.name: _numbers(design, metric, _of(count, counted, router), compared[count.name]) for count, metric in design.metrics}
    count, metric = design.metrics[0]
    tallies = _of(count, counted, router)
    absent = [one.name for one, _metric in design.metrics if one.name in found.missing or (one.source == ROUTER and not found.marks)]
    if harm:
        verdict = e.Verdict(e.HARMFUL, harm)
    elif not ratio.ok:
        verdict = e.Verdict(e.INVALID, 'the sample does not follow the split, %s' % ratio.text)
    elif absent:
        said = ' | '.join(error.rstrip('.') for error in found.errors)
        verdict = e.Verdict(e.NO_DATA, '%s could not be counted: %s' % (', '.join(absent), said or 'no answer'))
    else:
        verdict = e.decide(design.control, metric, tallies, compared[count.name], design.equivalence)
    return Judged(
        now, verdict.verdict, verdict.reason, verdict.winner, metrics,
        {'ok': ratio.ok, 'p': ratio.p, 'log_e': ratio.log_e, 'text': ratio.text}, sentences, design.shares,
        _detectable(design, metric, tallies, now, began, ends), tuple(dict.fromkeys([*found.errors, *errors])), {
            'at': now, 'marks': {**state['marks'], **found.marks}, 'router': _lists(router),
            'counted': {name: _lists(one) for name, one in counted.items()}, 'guards': guards, 'ratio_log_e': ratio.log_e,
            'best': {name: {arm: [*_finite(one.lift_interval), one.p] for arm, one in of_arms.items()}
                     for name, of_arms in compared.items()}})


def _tallies(raw: t.Mapping[str, t.Mapping[str, t.Sequence[int]]]) -> dict[str, dict[str, e.Tally]]:
    return {name: {arm: e.Tally(*pair) for arm, pair in one.items()} for name, one in raw.items()}


def _lists(tallies: t.Mapping[str, e.Tally]) -> dict[str, list[int]]:
    return {arm: list(tally) for arm, tally in tallies.items()}


def _of(count: Count, counted: t.Mapping[str, t.Mapping[str, e.Tally]], router: t.Mapping[str, e.Tally]) -> t.Mapping[str, e.Tally]:
    return router if count.source == ROUTER else counted.get(count.name, {arm: e.Tally(0, 0) for arm in router})


def _guardrails(design: Design, state: t.Mapping[str, t.Any], fresh: t.Mapping[str, e.Tally],
                blocks: t.Mapping[str, t.Mapping[str, e.Tally]], answered: bool, missing: t.Collection[str],
                now: float) -> tuple[dict[str, t.Any], dict[str, dict[str, str]], str | None]:
    """Returns the states, what to say of each, and the sentence of a proof of harm."""
    questions, alpha = _guards(design)
    states: dict[str, t.Any] = {}
    sentences: dict[str, dict[str, str]] = {}
    harm = None
    none = e.Tally(0, 0)
    for variant in design.variants if questions else ():
        one = SequentialState.from_dict(state['guards'][variant], questions, alpha, _BETA, variant, design.control)
        polls: dict[str, ArmsBlock | None] = {}
        for count, question in design.guards:
            own = fresh if count.source == ROUTER else blocks.get(count.name, {})
            lost = not answered if count.source == ROUTER else count.name in missing
            pair = own.get(design.control, none) + own.get(variant, none)
            polls[question.name] = None if lost else ArmsBlock(Counts(*pair), max(now - state['at'], 0.0))
        one.update(polls)
        sentences[variant] = {question.name: one.told(question.name) or 'no requests yet' for question in questions}
        if one.failed and not harm:
            harm = str(one.failed['reason'])
        states[variant] = one.to_dict()
    return states, sentences, harm


def _ratio(design: Design, state: t.Mapping[str, t.Any], counted: t.Mapping[str, t.Mapping[str, e.Tally]],
           router: t.Mapping[str, e.Tally]) -> e.RatioCheck:
    if design.visitors:
        visitors = {arm: tally.total for arm, tally in counted.get(design.visitors.name, {}).items()}
        return e.check_visitors(visitors, design.shares, design.ratio_alpha, state['ratio_log_e'])
    return e.check_requests({arm: tally.total for arm, tally in router.items()}, design.shares, design.ratio_alpha, design.ratio_tolerance,
                            design.burst, state['ratio_log_e'])


def _compared(design: Design, metric: e.Metric, tallies: t.Mapping[str, e.Tally], best: t.Mapping[str, t.Any]) -> dict[str, e.Comparison]:
    """Returns each variant against control; *best* is what earlier looks have left of the intervals."""
    found = {}
    for name in design.variants:
        found[name] = e.compare(tallies[design.control], tallies[name], len(design.variants), design.alpha, metric.burst)
        if name in best:
            low, high, p = best[name]
            before = (-1.0 if low is None else low, inf if high is None else high)
            found[name] = found[name].narrowed(e.Comparison(None, before, (-1.0, 1.0), p))
    return found


def _finite(pair: t.Iterable[float]) -> list[float | None]:
    """JSON knows no infinity."""
    return [value if isfinite(value) else None for value in pair]


def _numbers(design: Design, metric: e.Metric, tallies: t.Mapping[str, e.Tally],
             compared: t.Mapping[str, e.Comparison]) -> dict[str, dict[str, t.Any]]:
    found = {}
    for name in design.arms:
        events, total = tallies[name]
        numbers: dict[str, t.Any] = {'events': events, 'total': total, 'rate': tallies[name].rate,
                                     'rate_interval': list(c.rate_interval(events / metric.burst, total / metric.burst, design.alpha))}
        if name in compared:
            one = compared[name]
            numbers.update(lift=one.lift, lift_interval=_finite(one.lift_interval),
                           difference_interval=list(one.difference_interval), p=one.p)
        found[name] = numbers
    return found


def _detectable(design: Design, metric: e.Metric, tallies: t.Mapping[str, e.Tally], now: float, began: float, ends: float) -> float | None:
    control = tallies[design.control]
    if not control.events or now <= began or ends <= began:
        return None
    grows = max((ends - began) / (now - began), 1.0)
    smallest = min((tallies[name].total for name in design.variants), default=0)
    return e.detectable_lift(control.events / control.total, control.total * grows, smallest * grows, len(design.variants), design.alpha,
                             metric.direction, metric.burst)
