# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Sequential conditions: questions about one candidate that share one probability of a false alarm, through all stages of a rollout.

``fail`` when the weighted evidence of all questions reaches 1/alpha: harm is proven. ``pass`` when, in this stage, harm above what
is tolerated is excluded with 1/beta, and the last minute looks it. ``inconclusive`` otherwise. Pure: no clock; its state is plain data
of a size that does not grow.
"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass
from math import exp, expm1, isfinite, log

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _eprocess as ep
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import verdict as v
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._counts import rate_interval
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput

HISTORY_S = 60.0
"""What the baseline's counters tell of the time before counts at most as much as so many seconds of its traffic."""

RECENT_S = 60.0
"""Length of the last part of a stage that has to look unharmed for a pass."""

_SLICE_S = 5.0
_VERSION = 1


@dataclass(frozen=True)
class Question:
    """What is asked of the candidate: whether the share of its requests with some event is beyond ``ratio`` times that of stable plus
    ``margin``. A ratio of 0 makes *margin* a service-level objective that stable has no part in."""

    name: str
    what: str = 'errors'
    """The event, as the sentence '0.9 % errors' has it."""
    ratio: float = 1.0
    margin: float = 0.0
    pass_ratio: float | None = None
    """What is tolerated by a pass; default *ratio*. With ratio 1 and margin 0 on both sides an equal candidate can never pass."""
    pass_margin: float | None = None
    direction: int = 1
    """+1: more events are harm (errors, slow answers); -1: fewer are (conversions, cache hits)."""
    weight: float | None = None
    """Its part of alpha; default: what the others leave, in equal parts."""
    min_events: int = 3
    """Harmful events of the candidate that a failure takes at least."""
    min_requests: int = 0
    """Requests of the candidate in the stage that a pass takes at least."""
    burst: float = 1.0
    """Events that come together, when it is known: evidence is divided by it, or by what is measured if that is more."""

    @property
    def tolerated(self) -> tuple[float, float]:
        """Ratio and margin of the pass."""
        return (self.ratio if self.pass_ratio is None else self.pass_ratio, self.margin if self.pass_margin is None else self.pass_margin)


@dataclass(frozen=True)
class ArmsBlock:
    """What stable (``_b``) and candidate (``_c``) did between two polls, under one split. Counter resets are the source's business."""

    counts: ep.Counts
    seconds: float
    servers: tuple[tuple[int, int], ...] = ()
    """(events, requests) of each of stable's servers, where the source can tell."""


def check_question(one: Question) -> None:
    """Raises BadInput when *one* cannot be asked."""
    edges = ((one.ratio, one.margin), one.tolerated)
    lenient = [(given - limit) * one.direction for given, limit in zip(one.tolerated, (one.ratio, one.margin))]
    finite = all(isfinite(value) for value in (one.ratio, one.margin, *one.tolerated, one.burst))
    for wrong, text in (
            (not finite or one.direction not in (1, -1), 'has a number that is not usable'),
            (any(ratio < 0 or abs(margin) >= 1 for ratio, margin in edges),
             'needs a ratio of 0 or more and a margin between -100 % and 100 %'),
            (any(ratio == 0 and not 0 < margin < 1 for ratio, margin in edges),
             'has the ratio 0, so its margin is the limit: give one between 0 and 100 %'),
            (min(lenient) < 0, 'would tolerate for a pass less than it allows without failing'),
            (one.weight is not None and not 0 < one.weight <= 1, 'needs a weight above 0 and at most 1'),
            (one.min_events < 1 or one.min_requests < 0 or one.burst < 1,
             'needs min_events and burst of 1 or more, and min_requests of 0 or more')):
        if wrong:
            raise BadInput('The sequential condition "%s" %s.' % (one.name, text))


def percent(rate: float) -> str:
    """Returns a rate as a person reads it: ``'0.9 %'``, ``'12.3 %'``."""
    value = rate * 100
    text = '%.3g' % value if abs(value) >= 10 else '%.2g' % value
    return ('%.6f' % value).rstrip('0').rstrip('.') + ' %' if 'e' in text else text + ' %'


def times(log_e: float) -> str:
    """Returns evidence as a person reads it: ``'0.7'``, ``'212'``, ``'over a million'``."""
    return 'over a million' if log_e > log(1e6) else '%.*f' % (0 if log_e >= log(9.95) else 1, exp(log_e))


class _Test:
    """One question, and all that is remembered for it."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.fail = ep.EProcess(question.ratio, question.margin, question.direction)
        self.baseline, self.dispersion = ep.Baseline(), ep.Dispersion()
        self.history = (0.0, 0.0)
        self.total = [0, 0, 0, 0]
        self.straddles = False
        self.idle = 0.0
        self.begin_stage()

    def begin_stage(self) -> None:
        ratio, margin = self.question.tolerated
        self.proof = ep.EProcess(ratio, margin, -self.question.direction, pocket=0)
        self.proven = False
        self.stage = [0, 0, 0, 0]
        self.seconds = 0.0
        self.recent: list[list[float]] = []
        self.polls = self.lost = self.dropped = 0

    def take(self, block: ArmsBlock | None, beta: float) -> None:
        """Takes in a poll; None is one that was lost: what happened in it comes with the next block."""
        self.polls += 1
        if block is None or not _possible(block):
            self.lost += 1
            return
        counts = block.counts
        if self.straddles and counts.n_b + counts.n_c:
            # Requests under two splits must not be compared with each other: the mix of traffic differs (Simpson's paradox).
            self.straddles = False
            self.dropped += 1
            return
        self._remember(block)
        seconds = self.idle + block.seconds
        if not counts.n_b + counts.n_c:
            # The same scrape again, most likely: what happened meanwhile comes with a later block.
            self.idle = seconds
            return
        self.idle = 0.0
        if counts.n_b and not self.baseline.requests:
            self._start_from_history(counts.n_b, seconds)
        q = self.question
        if counts.n_c and (q.ratio == 0 or (counts.n_b and self.baseline.requests)):
            theta, phi = self.baseline.theta, self.dispersion.phi(q.burst)
            self.fail.update(counts, theta, -expm1(-seconds / ep.ONSET_S), phi)
            if not self.proven:
                self.proof.update(counts, theta, 0.0, phi)
                self.proven = self.proof.log_e >= log(1 / beta)
        self.baseline.add(counts.e_b, counts.n_b)
        self.dispersion.add(block.servers)

    def _start_from_history(self, n_b: int, seconds: float) -> None:
        events, requests = self.history
        kept = min(requests, HISTORY_S * n_b / seconds) if seconds > 0 else requests
        if kept > 0:
            self.baseline.add(events * kept / requests, kept)

    def _remember(self, block: ArmsBlock) -> None:
        self.total = [x + y for x, y in zip(self.total, block.counts)]
        self.stage = [x + y for x, y in zip(self.stage, block.counts)]
        self.seconds += block.seconds
        if self.recent and self.recent[-1][0] < _SLICE_S:
            self.recent[-1] = [x + y for x, y in zip(self.recent[-1], (block.seconds, *block.counts))]
        else:
            self.recent.append([block.seconds, *block.counts])
        while sum(one[0] for one in self.recent[1:]) >= RECENT_S:
            del self.recent[0]

    def last_minute(self) -> list[float]:
        """Returns the four counts of the last minute."""
        return [sum(column) for column in list(zip(*self.recent))[1:]] if self.recent else [0, 0, 0, 0]

    def edge(self, counts: t.Sequence[float], tolerated: bool = False) -> float | None:
        """Returns the rate that the candidate may have by *counts*; None without requests of stable to say so."""
        ratio, margin = self.question.tolerated if tolerated else (self.question.ratio, self.question.margin)
        if ratio == 0:
            return margin
        return ratio * counts[0] / counts[1] + margin if counts[1] else None

    def inside(self, counts: t.Sequence[float], tolerated: bool) -> bool:
        """Returns whether *counts* show a candidate that keeps the limit, as far as they go."""
        edge = self.edge(counts, tolerated)
        return bool(counts[3]) and edge is not None and self.question.direction * (counts[2] / counts[3] - edge) <= 0

    @property
    def harmful(self) -> int:
        """Events of the candidate that count as harm since the evidence began."""
        return self.total[2] if self.question.direction > 0 else self.total[3] - self.total[2]


def _possible(block: ArmsBlock) -> bool:
    """Counters that were read at different moments may show more events than requests: no block to calculate with."""
    pairs = [block.counts[:2], block.counts[2:], *block.servers]
    return block.seconds >= 0 and all(0 <= events <= requests for events, requests in pairs)


class SequentialState:
    """The questions of one gate. Give each poll to ``update``, ask ``judgement``; call ``begin_stage`` at each change of the split.

    *alpha* is the probability of ever failing an unharmed candidate in the whole rollout, *beta* that of a pass of a stage
    in which the candidate was harmful beyond what is tolerated.
    """

    def __init__(self, questions: t.Sequence[Question], alpha: float = 0.05, beta: float = 0.05,
                 candidate: str = 'canary', stable: str = 'stable') -> None:
        if not (0 < alpha < 1 and 0 < beta < 1):
            raise BadInput('The probabilities alpha (%r) and beta (%r) of a sequential gate must lie between 0 and 1.' % (alpha, beta))
        for one in questions:
            check_question(one)
        if not questions or len({one.name for one in questions}) < len(questions):
            raise BadInput('A sequential gate needs conditions, each with a name of its own.')
        left, free = 1 - sum(one.weight or 0.0 for one in questions), sum(one.weight is None for one in questions)
        if left < -1e-9 or (free and left < 1e-9):
            raise BadInput('The weights of the sequential conditions add up to %g%s: they share one alpha, so make it 1 at most.' % (
                1 - left, ', which leaves nothing to those without one' if free else ''))
        self.alpha, self.beta, self.candidate, self.stable = alpha, beta, candidate, stable
        self._weights = {one.name: left / free if one.weight is None else one.weight for one in questions}
        self._tests = {one.name: _Test(one) for one in questions}
        self.failed: dict[str, t.Any] | None = None
        """Once harm is proven: ``name`` of the condition that shows most of it, ``reason``, and ``log_e``, the evidence's logarithm."""

    def history(self, name: str, events: int, requests: int) -> None:
        """Tells what stable's counters say of the time before the first block. Without it the first block only trains."""
        if 0 <= events <= requests:
            self._tests[name].history = (float(events), float(requests))

    def begin_stage(self) -> None:
        """A new split is in force: harm goes on being gathered, a pass has to be earned anew; a block across the change is dropped."""
        for test in self._tests.values():
            test.begin_stage()
            test.straddles = True

    def update(self, blocks: t.Mapping[str, ArmsBlock | None], weight_changed: bool = False) -> None:
        """Takes in one poll: the block of each condition whose source was asked, None where it did not answer.

        *weight_changed*: the split changed since the last poll, so the next block with requests straddles two; say so at each poll for as
        long as blocks may.
        """
        for test in self._tests.values():
            test.straddles = test.straddles or weight_changed
        for name, block in blocks.items():
            self._tests[name].take(block, self.beta)
        if self.failed is None:
            self._decide()

    def _decide(self) -> None:
        parts = {name: log(self._weights[name]) + test.fail.log_e for name, test in self._tests.items()}
        log_e = ep.log_sum(parts.values())
        blamed = max(parts, key=lambda name: parts[name])
        test = self._tests[blamed]
        if log_e >= log(1 / self.alpha) and test.harmful >= test.question.min_events:
            self.failed = {'name': blamed, 'log_e': log_e, 'reason': '%s: %s times more likely harmful than not, limit %s' % (
                self._told(test, self._telling(test)), times(log_e), times(log(1 / self.alpha)))}

    @property
    def log_e(self) -> float:
        """The logarithm of the evidence for harm, of all conditions together; the limit is ln(1/alpha)."""
        return ep.log_sum(log(self._weights[name]) + test.fail.log_e for name, test in self._tests.items())

    def judgement(self, name: str) -> v.Judgement:
        """Returns what is known of one condition now. Only a failure is final: a pass or the lack of one is for the end of the stage."""
        test = self._tests[name]
        failed = self.failed is not None and self.failed['name'] == name
        counts = self._telling(test) if failed else test.stage
        value = counts[2] / counts[3] if counts[3] else None
        verdict, reason = (v.FAIL, t.cast('dict[str, t.Any]', self.failed)['reason']) if failed else self._open(test)
        return v.Judgement(name, verdict, reason, value=value, limit=test.edge(counts, tolerated=not failed), n=test.stage[3], final=failed)

    def _open(self, test: _Test) -> tuple[str, str]:
        q = test.question
        if not test.stage[3] or (q.ratio and not test.stage[1]):
            arm = self.stable if test.stage[3] else self.candidate
            return v.NO_DATA, '%s: no requests to judge %s by in this stage' % (arm, q.what)
        told = self._told(test, test.stage)
        if 2 * test.lost > test.polls:
            return v.INCONCLUSIVE, '%s: %d of %d polls were lost' % (told, test.lost, test.polls)
        if test.stage[3] < q.min_requests:
            return v.INCONCLUSIVE, '%s: too few requests, at least %d are needed' % (told, q.min_requests)
        if not test.proven:
            return v.INCONCLUSIVE, '%s: harm neither proven (%s of %s) nor excluded (%s of %s)' % (
                told, times(self.log_e), times(log(1 / self.alpha)), times(test.proof.log_e), times(log(1 / self.beta)))
        minute = test.last_minute()
        if not test.inside(minute, tolerated=True):
            return v.INCONCLUSIVE, 'in the last minute %s: not within the limit any more' % (
                self._told(test, minute, tolerated=True) if minute[3] else '%s had no requests' % self.candidate)
        return v.PASS, '%s: harm is excluded (%s times less likely than not, limit %s)' % (
            self._told(test, test.stage, tolerated=True), times(test.proof.log_e), times(log(1 / self.beta)))

    def _telling(self, test: _Test) -> t.Sequence[float]:
        """Returns the counts that show the harm best: the last minute's, else those since the evidence began."""
        minute = test.last_minute()
        return minute if minute[3] and (minute[1] or not test.question.ratio) and not test.inside(minute, False) else test.total

    def _told(self, test: _Test, counts: t.Sequence[float], tolerated: bool = False) -> str:
        ratio, margin = test.question.tolerated if tolerated else (test.question.ratio, test.question.margin)
        told = '%s %s %s' % (self.candidate, percent(counts[2] / counts[3]), test.question.what)
        if ratio and counts[1]:
            told += ' against %s' % percent(counts[0] / counts[1])
        edge = test.edge(counts, tolerated)
        if edge is None or (ratio, margin) == (1, 0):
            return told
        return '%s, at %s %s allowed' % (told, 'most' if test.question.direction > 0 else 'least', percent(min(max(edge, 0.0), 1.0)))

    def told(self, name: str) -> str | None:
        """Returns what the stage shows of one condition, and what all evidence together says, in a sentence; None without requests."""
        test = self._tests[name]
        if not test.stage[3] or (test.question.ratio and not test.stage[1]):
            return None
        return '%s: %s times more likely harmful than not, limit %s' % (
            self._told(test, test.stage), times(self.log_e), times(log(1 / self.alpha)))

    def baseline_rate(self, name: str) -> float:
        """Returns the rate of stable that the next block is judged with: all that is known of it, from before the first block too."""
        test = self._tests[name]
        known = test.baseline if test.baseline.requests else ep.Baseline(*test.history)
        return known.theta

    def numbers(self, name: str) -> dict[str, t.Any]:
        """Returns the figures behind a condition, of this stage: counts, rates, the interval that holds at every moment, and evidence as
        natural logarithms."""
        test = self._tests[name]
        e_b, n_b, e_c, n_c = test.stage
        return {
            'events': e_c, 'requests': n_c, 'rate': e_c / n_c if n_c else None, 'rate_interval': list(rate_interval(e_c, n_c, self.alpha)),
            'stable_events': e_b, 'stable_requests': n_b, 'stable_rate': e_b / n_b if n_b else None,
            'log_harm': test.fail.log_e, 'weight': self._weights[name], 'log_harm_limit': log(1 / self.alpha),
            'log_excluded': test.proof.log_e, 'log_excluded_limit': log(1 / self.beta), 'excluded': test.proven,
            'dispersion': test.dispersion.phi(test.question.burst),
            'seconds': test.seconds, 'polls': test.polls, 'polls_lost': test.lost, 'blocks_dropped': test.dropped,
        }

    def to_dict(self) -> dict[str, t.Any]:
        """Returns the state as JSON has it, for the journal."""
        return {'version': _VERSION, 'alpha': self.alpha, 'beta': self.beta, 'failed': self.failed, 'tests': {
            name: {
                'question': asdict(test.question), 'fail': test.fail.state(), 'proof': test.proof.state(), 'proven': test.proven,
                'baseline': [test.baseline.events, test.baseline.requests], 'history': list(test.history),
                'dispersion': [test.dispersion.squares, test.dispersion.expected, test.dispersion.blocks],
                'total': test.total, 'stage': test.stage, 'recent': test.recent, 'polls': [test.polls, test.lost, test.dropped],
                'straddles': test.straddles, 'idle': test.idle, 'seconds': test.seconds,
            } for name, test in self._tests.items()}}

    @classmethod
    def from_dict(cls, state: t.Mapping[str, t.Any], questions: t.Sequence[Question], alpha: float = 0.05, beta: float = 0.05,
                  candidate: str = 'canary', stable: str = 'stable') -> 'SequentialState':
        """Goes on from what ``to_dict`` returned, after a pause of any length; the first block is that after the source's new mark.

        Raises BadInput when the state is damaged, and when it was gathered for other questions: evidence for one is none for another.
        """
        self = cls(questions, alpha, beta, candidate, stable)
        try:
            if state['version'] != _VERSION:
                raise ValueError('its version is %r' % (state['version'],))
            before = (state['alpha'], state['beta'], {name: one['question'] for name, one in state['tests'].items()})
            if before != (alpha, beta, {one.name: asdict(one) for one in questions}):
                raise BadInput('The sequential conditions differ from those that the rollout began with, and evidence for one question is '
                               'none for another: keep conditions, alpha and beta alike in all stages, or begin a new rollout.')
            for name, one in state['tests'].items():
                test = self._tests[name]
                test.fail.restore(one['fail'])
                test.proof.restore(one['proof'])
                test.proven, test.straddles, test.idle = bool(one['proven']), bool(one['straddles']), float(one['idle'])
                test.baseline = ep.Baseline(*one['baseline'])
                events, requests = one['history']
                test.history = (float(events), float(requests))
                test.dispersion.squares, test.dispersion.expected, test.dispersion.blocks = one['dispersion']
                test.total, test.stage = ([int(value) for value in ep.Counts(*one[key])] for key in ('total', 'stage'))
                test.recent = [[float(value) for value in (seconds, *ep.Counts(*counts))] for seconds, *counts in one['recent']]
                test.polls, test.lost, test.dropped = one['polls']
                test.seconds = float(one['seconds'])
            failed = state['failed']
            if failed is not None:
                self.failed = {'name': str(failed['name']), 'log_e': float(failed['log_e']), 'reason': str(failed['reason'])}
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise BadInput('The state of the sequential conditions in the journal is damaged (%s: %s): begin a new rollout.' % (
                type(exc).__name__, exc)) from exc
        return self
