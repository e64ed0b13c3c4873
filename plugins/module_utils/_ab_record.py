# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The record of A/B tests: one journal each, which later runs go on from, and the service's lock while a run works on it."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._analysis.experiment import NO_DATA
from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal, read_journal
from ansible_collections.progressive.delivery.plugins.module_utils._lock import Lock, holder_for

LINK = 'ab_test.jsonl'
"""Beside the journals of a service: the one of its newest A/B test."""


@dataclass(frozen=True)
class Test:
    """A test as its journal tells it. Times in seconds since 1970."""

    id: str
    by: str
    asked: dict[str, t.Any]
    """The design, as it was written."""
    versions: dict[str, str | None]
    """By the test's names of the arms."""
    started: bool = False
    began: float = 0.0
    ends: float = 0.0
    last_moment: float = 0.0
    """``ends`` and the grace."""
    state: dict[str, t.Any] = field(default_factory=dict)
    last: dict[str, t.Any] | None = None
    """What the last look said that had counts: its verdict stands, whatever could not be counted since."""
    concluded: dict[str, t.Any] | None = None
    looks: int = 0

    @property
    def running(self) -> bool:
        """Whether nobody has ended it; its lease may have, since."""
        return self.concluded is None

    @property
    def looked_at(self) -> float:
        return float(self.state.get('at', self.began))

    @property
    def outcome_text(self) -> str:
        ended = self.concluded or {}
        winner = ' %s' % ended['winner'] if ended.get('winner') else ''
        return '%s%s by %s%s' % (ended.get('outcome'), winner, ended.get('by'), ', %s' % ended['reason'] if ended.get('reason') else '')


def read_test(events: t.Sequence[t.Mapping[str, t.Any]]) -> Test | None:
    """Returns what the events of a journal say; None when they are not those of an A/B test. Pure."""
    found: dict[str, t.Any] = {}
    for event in events:
        kind = event['event']
        if kind == 'ab_test_opened':
            found = {'id': event['rollout'], 'by': event['by'], 'asked': event['design'], 'versions': event['versions']}
        elif kind == 'ab_test_started':
            found.update(started=True, **{key: event[key] for key in ('began', 'ends', 'last_moment', 'state')})
        elif kind == 'ab_test_analysed':
            silent = event['result']['verdict'] == NO_DATA and found.get('last')
            found.update(state=event['state'], last=found['last'] if silent else event['result'], looks=found.get('looks', 0) + 1)
        elif kind == 'ab_test_concluded':
            found['concluded'] = {key: event.get(key) for key in ('outcome', 'winner', 'by', 'reason', 'ts')}
    return Test(**found) if found.get('id') else None


class AbRecord:
    """Reads and writes under ``<state_dir>/<service>/``; check mode writes nothing."""

    def __init__(self, state_dir: str, service: str, check_mode: bool, pid: int, clock: t.Callable[[], float]) -> None:
        self._folder = os.path.join(state_dir, service)
        self._check_mode = check_mode
        self._pid = pid
        self._clock = clock
        self._lock = Lock(os.path.join(self._folder, 'lock'))
        self.error: str | None = None

    def path_of(self, rollout: str) -> str:
        return os.path.join(self._folder, '%s.jsonl' % rollout)

    def latest(self) -> Test | None:
        """Returns the newest test of the service. Raises DeliveryError for a journal that cannot be read."""
        path = os.path.join(self._folder, LINK)
        if not os.path.lexists(path):
            return None
        test = read_test(read_journal(path))
        if test is None:
            raise DeliveryError('The journal %s does not begin with an A/B test: it was changed by something else.' % path)
        return test

    def acquire(self, rollout: str, by: str, force: bool = False) -> None:
        """Takes the service's lock: no rollout moves its traffic meanwhile, and no other run looks at the test. Raises Conflict."""
        if self._check_mode:
            return
        former = self._lock.holder()
        if former and (former.rollout, former.pid) == (rollout, self._pid) and former.alive():
            # The winner's rollout, of this very run.
            return
        # Two runs on one test are two holders.
        self._lock.acquire(holder_for('%s:%d' % (rollout, self._pid), by, self._clock(), self._pid), force)

    def release(self) -> None:
        """Gives the lock back, whoever of this process took it."""
        if self._check_mode:
            return
        holder = self._lock.holder()
        if holder and holder.pid == self._pid and holder.rollout.endswith(':%d' % self._pid):
            self._lock.release(holder.rollout)

    def _write(self, rollout: str, event: str, strict: bool = False, **fields: t.Any) -> None:
        journal = Journal(None if self._check_mode else self.path_of(rollout), rollout, self._clock)
        journal.write(event, strict=strict, **fields)
        self.error = journal.error or self.error

    def open(self, rollout: str, asked: t.Mapping[str, t.Any], by: str, versions: t.Mapping[str, str | None], force: bool) -> None:
        """Begins the journal of a new test, before any traffic moves."""
        self.acquire(rollout, by, force)
        self._write(rollout, 'ab_test_opened', strict=True, design=dict(asked), by=by, versions=dict(versions))
        if not self._check_mode:
            link = os.path.join(self._folder, LINK)
            temporary = '%s.%d' % (link, self._pid)
            os.symlink('%s.jsonl' % rollout, temporary)
            os.replace(temporary, link)

    def start(self, rollout: str, began: float, ends: float, last_moment: float, state: t.Mapping[str, t.Any]) -> None:
        """The split is in force."""
        self._write(rollout, 'ab_test_started', strict=True, began=began, ends=ends, last_moment=last_moment, state=dict(state))

    def analysed(self, rollout: str, result: t.Mapping[str, t.Any], state: t.Mapping[str, t.Any]) -> None:
        """One look. What cannot be written is told as a warning: the next look counts from the one before then."""
        self._write(rollout, 'ab_test_analysed', result=dict(result), state=dict(state))

    def way_back(self, rollout: str, reason: str, back: t.Mapping[str, t.Any], seconds: float) -> None:
        if back.get('changed') or back.get('failed'):
            self._write(rollout, 'way_back', reason=reason, seconds=round(seconds, 4), endpoints=back['way_back'], text=back['msg'])

    def conclude(self, rollout: str, outcome: str, winner: str | None, by: str, reason: str) -> None:
        self._write(rollout, 'ab_test_concluded', outcome=outcome, winner=winner, by=by, reason=reason)
