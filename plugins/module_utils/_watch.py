# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The loop of a gate: asks the sources on a fixed schedule, renews the leases, stops at the first proof, returns the traffic.

Nothing waits for anything else: every source has its own schedule and deadline, every lease its own renewal; what is said is
written by threads of their own.
"""

from __future__ import annotations

import asyncio
import heapq
import time
import traceback
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import verdict as v
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.history import Totals
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.spec import Sample
from ansible_collections.progressive.delivery.plugins.module_utils._approval import (
    GO, STOP, Approval, Tail, Terminal, await_answer, instruction)
from ansible_collections.progressive.delivery.plugins.module_utils._display import Progress
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import Conflict, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._gate import Gate
from ansible_collections.progressive.delivery.plugins.module_utils._gate_result import Ending, Watched, record, report
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._lease import Held
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import mark as marks
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import COUNTS, REQUESTS, Reading, Source
from ansible_collections.progressive.delivery.plugins.module_utils._outlet import Outlet
from ansible_collections.progressive.delivery.plugins.module_utils._samples import Samples
from ansible_collections.progressive.delivery.plugins.module_utils._signals import Signals, leave

_RENEW_S = 1.0
# A renewal under way may still reach a router; a way back that overtook it would be overwritten.
_RENEWAL_GRACE_S = 0.25
_WAY_BACK_DEADLINE_S = 15.0
_OPEN_DEADLINE_S = 5.0
_POLL_DEADLINE_S = 10.0
_RECORD_DEADLINE_S = 5.0
_SHOW_DEADLINE_S = 1.0
_MOST_NOTES = 50
# What a rollout loses at most of its evidence when it cannot even write its last events.
_SAVE_S = 60.0
# Traffic of a shorter time says too little of that of the stage.
_PLAN_S = 0.4
_THREADS = 128


def offsets(begin: float, end: float, interval: float, extra: t.Iterable[float] = ()) -> t.Iterator[float]:
    """Yields when to poll, in seconds: *begin*, every *interval* after it, the *extra* times, and *end*."""
    regular = (begin + k * interval for k in range(int((end - begin) / interval) + 1))
    last = None
    for at in heapq.merge(regular, sorted(at for at in extra if begin < at < end), [end]):
        if at <= end and (last is None or at - last > 1e-6):
            yield at
            last = at


class Watch:
    """Watches one stage. *journal* and *show* take what is to be recorded and shown (progress, or a
    sentence), and return at once. A person may answer at the *terminal*, and in the journal file *answers*."""

    def __init__(self, gate: Gate, journal: t.Callable[..., None], show: t.Callable[[Progress | str], None],
                 now: t.Callable[[], float] = time.monotonic, terminal: Terminal | None = None, answers: str | None = None) -> None:
        self._terminal = terminal
        self._answers = answers
        self._asked = ''
        self._saved = 0.0
        self.gate = gate
        self._held = gate.leases
        self._leased = [held for held in gate.leases if held.ttl_s > 0]
        self._journal = journal
        self._show = show
        self._now = now
        self._began = now()
        self._bake = gate.bake
        self._extensions = 0
        self._samples = 0
        self._recorded = Samples(gate, journal)
        self._mark = gate.mark
        self._totals = Totals()
        self._unplanned = list(gate.sequential)
        self._plans: list[str] = []
        self._judgements = {condition.name: v.Judgement(condition.name, v.NO_DATA, 'not observed yet') for condition in gate.conditions}
        self._notes: dict[str, None] = {}
        self._open: set[str] = set()
        self._trouble: dict[str, str] = {}
        self._over = asyncio.Event()
        self._decided = 0.0
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Ends the watch because of a signal, or of the parent's end."""
        self._end(Ending(v.Judgement('watch', v.ERROR, 'watching %s was ended' % self.gate.label), False, True, stopped=True))

    async def run(self, cause: t.Callable[[], str]) -> dict[str, t.Any]:
        """Watches to the end, returns the traffic when it has to, records what happened, and returns the task's result.

        *cause* tells what called ``stop``.
        """
        renewals = [asyncio.create_task(self._guard(self._renew(held))) for held in self._leased]
        rounds = asyncio.create_task(self._guard(self._rounds()))
        ending = await self._ending
        rounds.cancel()
        self._over.set()
        if renewals and ending.returns:
            await asyncio.wait(renewals, timeout=_RENEWAL_GRACE_S)
        for task in renewals:
            task.cancel()
        rollback = await self._return(ending) if ending.returns and self._held and self.gate.way_back else None
        duration = self._now() - self._began
        self._recorded.flush()
        await asyncio.gather(rounds, *renewals, *(self._close(source) for source in self.gate.sources), return_exceptions=True)
        result = report(ending, cause() if ending.stopped else None, rollback, Watched(
            tuple(self._judgements.values()), self._totals.as_dict(), self._totals.observed_bp() or {}, self._samples, duration,
            self._extensions, tuple(self._notes), bool(self._held), self._lease_left(),
            tuple(self._plans), self.gate.sequential[0].state.to_dict() if self.gate.sequential else None))
        record(self._journal, self.gate.label, result)
        return result

    def _end(self, ending: Ending) -> None:
        if not self._ending.done():
            self._decided = self._now()
            self._ending.set_result(ending)

    async def _guard(self, work: t.Coroutine[t.Any, t.Any, None]) -> None:
        """A fault of our own must not leave traffic unwatched either."""
        try:
            await work
        except Exception as exc:
            sentence = str(exc) if isinstance(exc, DeliveryError) else 'the watch itself failed (%s: %s)' % (type(exc).__name__, exc)
            self._end(Ending(v.Judgement('watch', v.ERROR, sentence.rstrip('.')), False, not isinstance(exc, Conflict),
                             trace=None if isinstance(exc, DeliveryError) else traceback.format_exc()))

    # Leases

    async def _renew(self, held: Held) -> None:
        every = min(held.ttl_s / 3, self.gate.interval, _RENEW_S)
        due = self._now()
        while not self._over.is_set():
            failed = []
            results = await held.renew()
            if any(result.conflict for result in results):
                # Two writers at the same moment may both have given way: the next answer tells whose it is.
                results = await held.renew()
            for result in results:
                if result.conflict:
                    raise Conflict(result.error)
                if not result.ok:
                    failed.append(str(result.error))
                trouble = None if result.ok else '%s: lease not renewed' % result.endpoint
                self._say_trouble('lease of ' + result.endpoint, trouble, result.error)
            if held.left() <= 0:
                raise DeliveryError('the lease of %s ran out before it could be renewed: %s' % (
                    self.gate.candidate, ' '.join(failed) or 'this process was stopped for too long.'))
            due = max(due + every, self._now())
            try:
                await asyncio.wait_for(self._over.wait(), due - self._now())
            except (asyncio.TimeoutError, TimeoutError):
                pass

    def _lease_left(self) -> float | None:
        return min((held.left() for held in self._leased), default=None)

    async def _return(self, ending: Ending) -> dict[str, t.Any]:
        """Returns all traffic at once; what could not be returned is named, and its lease runs out by itself."""
        reason = ending.judgement.reason
        answers = await asyncio.gather(*(asyncio.wait_for(held.way_back(reason), _WAY_BACK_DEADLINE_S) for held in self._held),
                                       return_exceptions=True)
        rows: list[dict[str, t.Any]] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                rows.append({'endpoint': 'all', 'ok': False, 'error': str(answer) or type(answer).__name__, 'to': None, 'seconds': None})
            else:
                rows += [{'endpoint': one.endpoint, 'ok': one.ok, 'error': one.error, 'to': one.to, 'seconds': one.seconds}
                         for one in answer]
        to = sorted({row['to'] for row in rows if row['ok'] and row['to']})
        return {'seconds': round(self._now() - self._decided, 4), 'endpoints': rows, 'to': to[0] if len(to) == 1 else to or None,
                'complete': bool(rows) and all(row['ok'] for row in rows)}

    # Sources

    async def _rounds(self) -> None:
        self._recorded.begin()
        begin, end = 0.0, self.gate.bake
        # The first sample early, and a mark at the end of each warm-up: a block never holds both.
        extra = {min(1.0, self.gate.interval / 2), self.gate.warm_up, *(condition.spec.warm_up for condition in self.gate.conditions)}
        while True:
            await self._watch_between(begin, end, extra)
            judgements = [condition.finish() for condition in self.gate.conditions]
            self._judgements = {judgement.name: judgement for judgement in judgements}
            decisive = v.overall(judgements)
            follows = self.gate.policy.after(decisive.verdict)
            if follows == 'extend' and self._extensions < self.gate.max_extensions:
                self._extensions += 1
                self._note('Extended by %s: %s.' % (format_duration(self.gate.extend_by), decisive.reason))
                begin, end, extra = end, end + self.gate.extend_by, set()
                self._bake = end
            elif follows == 'ask' or (follows == 'pass' and self.gate.approval):
                self._end(await self._ask(decisive, follows == 'ask', end))
                return
            else:
                self._end(Ending(decisive, follows == 'pass', follows != 'pass'))
                return

    async def _watch_between(self, begin: float, end: float, extra: t.Collection[float] = ()) -> None:
        samples = list(offsets(begin, end, self.gate.interval, extra))
        looks = list(offsets(begin, end, self.gate.guard_interval, samples))
        await asyncio.gather(*(self._poll(source, looks if source.quick else samples, frozenset(samples)) for source in self.gate.sources))

    async def _ask(self, decisive: v.Judgement, undecided: bool, at: float) -> Ending:
        """Asks a person what follows, and returns it. Meanwhile the traffic is watched on, and a proof of harm ends the stage as ever."""
        asked = self.gate.approval or self.gate.ask
        if undecided:
            # One question is enough: who says go has read both.
            asked = Approval(' '.join(filter(None, (
                '%s is %s (%s): go on?' % (self.gate.label, decisive.verdict, decisive.reason), asked.question))), asked.timeout, asked.by)
        finished = dict(self._judgements)
        tail = Tail(self._answers) if self._answers else None
        number = tail.position if tail else 0
        terminal = self._terminal if self._terminal and self._terminal.open() else None
        why, said, began = 'the question was dropped: the stage ended', None, self._now()
        self._journal('asked', stage=self.gate.label, question=number, text=asked.question, by=list(asked.by), timeout_s=asked.timeout)
        self._show('\n%s: %s\n%s' % (self.gate.label, asked.question, instruction(asked, terminal is not None)))
        self._asked, self._bake = 'asked, ', at + asked.timeout
        watching = asyncio.create_task(self._guard(self._watch_between(at, self._bake)))
        try:
            said = await asyncio.wait_for(await_answer(number, asked, tail, terminal, self.gate.by, self._show), asked.timeout)
            why = '%s%s' % (said, '' if said.go else ' to "%s"' % asked.question)
        except (asyncio.TimeoutError, TimeoutError):
            why = 'nobody answered within %s: "%s"' % (format_duration(asked.timeout), asked.question)
        finally:
            watching.cancel()
            if terminal:
                terminal.close()
            told = {'answer': None if said is None else GO if said.go else STOP, 'by': said and said.by, 'reason': said and said.reason,
                    'via': said and said.via, 'seconds': round(self._now() - began, 3)}
            self._journal('answered', stage=self.gate.label, question=number, text=asked.question, **told)
        self._show('%s: %s.' % (self.gate.label, why))
        self._judgements = finished
        approval = {'question': asked.question, **told, 'told': why}
        if said is not None and said.go:
            return Ending(replace(decisive, reason='%s; %s' % (decisive.reason, why)), True, False, approval=approval)
        return Ending(v.Judgement('approval', v.FAIL, why), False, True, approval=approval)

    async def _poll(self, source: Source, due: t.Sequence[float], samples: t.Collection[float]) -> None:
        # Sources have deadlines of their own; a slow one is asked less often and holds up nobody.
        deadline = max(0.8 * self.gate.interval, _POLL_DEADLINE_S)
        for position, at in enumerate(due):
            if position + 1 < len(due) and self._began + due[position + 1] <= self._now():
                # Too late for this one: the schedule is fixed, the next one comes soon.
                continue
            await asyncio.sleep(max(0.0, self._began + at - self._now()))
            now = self._now()
            try:
                if source.name not in self._open:
                    await asyncio.wait_for(source.open(), _OPEN_DEADLINE_S)
                    self._open.add(source.name)
                now = self._now()
                reading = await asyncio.wait_for(source.poll(now), deadline)
            except (asyncio.TimeoutError, TimeoutError):
                reading = Reading(errors=('The source "%s" did not answer in time.' % source.name,))
            self._take_in(source.name, now - self._began, reading, at not in samples)

    async def _close(self, source: Source) -> None:
        await asyncio.wait_for(source.close(), 1.0)

    def _take_in(self, name: str, at: float, reading: Reading, between: bool) -> None:
        counters = reading.before
        if self._mark and counters and name == self.gate.main_source:
            self._recorded.counters(marks.blocks_of(self._mark))
            reading, self._mark = marks.since(self._mark, reading, self._began + at), None
        sample = Sample(at, name, reading, between)
        for condition in self.gate.conditions:
            self._judgements[condition.name] = condition.update(sample)
        final = [one for one in self._judgements.values() if one.final and one.required and self.gate.policy.after(one.verdict) == 'fail']
        if final:
            self._end(Ending(v.overall(final), False, True))
        self._say_trouble(name, '%s: %s' % (name, reading.errors[0]) if reading.errors else None, *reading.errors)
        for note in reading.notes:
            self._note(note)
        if name != self.gate.main_source:
            return
        seen = [sample.seen(block) for block in reading.blocks]
        self._totals.take_in(seen)
        self._recorded.take_in(seen)
        self._recorded.counters(counters)
        if between and not self._ending.done():
            return
        self._plan(at)
        self._samples += 1
        if self.gate.sequential and at - self._saved >= _SAVE_S:
            self._saved = at
            self._journal('analysis', stage=self.gate.label, state=self.gate.sequential[0].state.to_dict())
        lease = self._lease_left()
        self._recorded.write(at, tuple(self._judgements.values()), lease, reading.errors, self._ending.done())
        arms, shares = self._totals.arms, self._totals.observed_bp() or {}
        counts = any(source.metrics.get(REQUESTS) == COUNTS for source in self.gate.sources)
        own = arms.get(self.gate.candidate)
        self._show(Progress(
            self._asked + self.gate.label, at, self._bake,
            tuple((condition, self._judgements[condition.name]) for condition in self.gate.conditions),
            (own.requests if own else 0) if counts else None, shares.get(self.gate.candidate), lease,
            '; '.join(self._trouble[key] for key in sorted(self._trouble)) or None))

    def _plan(self, at: float) -> None:
        """Tells, once both arms have had requests, what each sequential condition can find in this bake at this traffic."""
        for condition in tuple(self._unplanned):
            numbers, p_b = condition.state.numbers(condition.name), condition.state.baseline_rate(condition.name)
            n_b, n_c, seconds = numbers['stable_requests'], numbers['requests'], numbers['seconds']
            if seconds < _PLAN_S or not n_c or (condition.asked.question.ratio and not n_b):
                continue
            self._unplanned.remove(condition)
            plan = condition.plan(n_b / seconds, n_c / seconds, p_b, max(self.gate.bake - condition.asked.warm_up, 1.0))
            self._plans.append(plan.text)
            self._journal('plan', stage=self.gate.label, name=condition.name, **plan.as_dict())
            if self.gate.tell_plan:
                self._show('%s: %s.' % (self.gate.label, plan.text))
            for warning in plan.warnings:
                if self.gate.tell_plan:
                    self._show('%s: %s' % (self.gate.label, warning))
                self._note(warning)

    def _say_trouble(self, key: str, short: str | None, *sentences: str | None) -> None:
        self._trouble.pop(key, None)
        if short:
            self._trouble[key] = short
            for sentence in sentences:
                self._note(sentence or short)

    def _note(self, sentence: str) -> None:
        if sentence not in self._notes and len(self._notes) < _MOST_NOTES:
            self._notes[sentence] = None
            self._journal('note', stage=self.gate.label, text=sentence)


async def watch(gate: Gate, journal: Journal, show: t.Callable[[Progress | str], None], say: t.Callable[[str], None],
                terminal: Terminal | None = None, last: t.Callable[[], object] | None = None) -> dict[str, t.Any]:
    """Watches *gate* and returns the task's result. Where it asks a person, *terminal* and the journal are where the answer comes from.

    When a signal or the parent's end stopped the watch, the traffic is returned and recorded, *say* tells it where a person may still
    see it, *last* is called when all of it is in the journal, and this process ends as the signal would have ended it.
    """
    # Sources ask in threads; names of routers are resolved in threads. Those that hang must not use up the threads of the others.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    events, live = Outlet(journal.write), Outlet(show, room=20, droppable=True)
    watching = Watch(gate, events, live, terminal=terminal, answers=journal.path)
    with Signals(watching.stop) as signals:
        result = await watching.run(lambda: signals.cause)
        if result['stopped_by']:
            say(result['msg'])
            events.close(_RECORD_DEADLINE_S)
            if last is not None:
                last()
            leave(result['stopped_by'])
        events.close(_RECORD_DEADLINE_S)
        live.close(_SHOW_DEADLINE_S)
    if journal.error:
        result['notes'].append(journal.error)
    return result
