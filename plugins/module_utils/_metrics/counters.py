# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What HAProxy's counters say of the requests of single servers. Pure.

Tried on HAProxy 2.6 (``tests/integration/test_metrics_haproxy.py`` shows each): of a server's columns in ``show stat``
- ``stot`` counts tries: once a request (also of a kept-alive connection), and again for each retry and redispatch;
- ``scur`` is the tries that last now, idle connections excluded. So ``stot - scur`` is exactly the tries that have ended, however
  they ended, and no sum of results has to be kept in step with ``stot`` (client aborts and retries have no column of their own);
- ``hrsp_1xx`` counts interim answers besides the final one (100, 103);
- ``eresp`` counts those without a valid response, and also responses that break off, which have an ``hrsp_2xx`` already and a
  ``srv_abrt``; a response that stalls has ``srv_abrt`` alone;
- ``econ`` counts requests that failed to connect for good; tries that were redispatched have ``wredis`` only;
- requests that no server was found for are in ``econ`` of the backend alone.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.logline import LogLine
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import StatRow

_COLUMNS = ('stot', 'hrsp_2xx', 'hrsp_3xx', 'hrsp_4xx', 'hrsp_5xx', 'hrsp_other', 'econ', 'eresp', 'srv_abrt', 'wretr', 'wredis')
_MARKS_MAX = 120
# Dates in the log and of the runtime API are taken once a turn of a thread's event loop.
_CLOCK_S = 0.01


@dataclass(frozen=True)
class Tally:
    """What a server did between two polls. A try is one attempt of HAProxy to have a request answered there."""

    requests: int = 0
    bad: int = 0
    tries: int = 0
    bad_tries: int = 0
    retries: int = 0
    redispatches: int = 0

    def __add__(self, other: 'Tally') -> 'Tally':
        return Tally(self.requests + other.requests, self.bad + other.bad, self.tries + other.tries,
                     self.bad_tries + other.bad_tries, self.retries + other.retries, self.redispatches + other.redispatches)


class Counters(t.Dict[str, int]):
    """The columns of one row, and of a server the tries that have ended."""

    @classmethod
    def of(cls, row: StatRow) -> 'Counters':
        values = cls((name, getattr(row, name) or 0) for name in _COLUMNS)
        values['ended'] = values['stot'] - (row.scur or 0)
        return values

    def since(self, old: 'Counters | None') -> 'Counters':
        """Returns the difference to *old*. Counters that went down began anew (a reload, ``clear counters all``)."""
        if old is None or self.restarted(old):
            return self
        return Counters((name, max(value - old[name], 0)) for name, value in self.items())

    def restarted(self, old: 'Counters') -> bool:
        return any(self[name] < old[name] for name in _COLUMNS)

    def tally(self) -> Tally:
        """Reads a difference. A stalled and an invalid response in one block count as one: see the columns above."""
        answers = sum(self[name] for name in ('hrsp_2xx', 'hrsp_3xx', 'hrsp_4xx', 'hrsp_5xx', 'hrsp_other'))
        requests = answers + self['econ'] + max(self['eresp'] - self['srv_abrt'], 0)
        bad = min(self['hrsp_5xx'] + self['econ'] + max(self['eresp'], self['srv_abrt']), requests)
        # With layer 7 retries 'wretr' counts twice.
        tries = max(self['ended'], 0)
        return Tally(requests, bad, tries, min(self['wretr'] + self['wredis'] + bad, tries), self['wretr'], self['wredis'])


@dataclass
class _Mark:
    """One poll: when it had been answered, the same on the clock of HAProxy's log, and the tries begun by then."""

    at: float
    logged_at: float | None
    begun: dict[str, int]
    later: dict[str, int] = field(default_factory=dict)
    """Tries that have ended and began, as the log tells, after this mark and before the next."""


class Waiting:
    """How many tries have surely waited how long, from the polls so far; keys are servers of one process.

    Of the tries begun by an earlier poll, all but those that have ended since are waiting. The counters tell how many ended, not
    which, so all that ended count as begun by then, except those of which the log tells that they began later. That is a
    lower bound, exact with a complete log, and never above ``scur``. Some 120 polls are kept, older ones farther apart.
    """

    def __init__(self) -> None:
        self._marks: list[_Mark] = []

    def forget(self, key: str | None = None) -> None:
        """Begins anew for a server whose counters did, or for all."""
        if key is None:
            self._marks.clear()
        for mark in self._marks:
            mark.begun.pop(key, None)

    def ended(self, key: str, line: LogLine) -> None:
        """Takes in the log line of a try that has ended."""
        if line.partial or line.Tc < 0 or line.TR < 0 or line.Tw < 0:
            return
        began = line.start + (line.TR + line.Tw) / 1000 - _CLOCK_S
        for mark in reversed(self._marks):
            if mark.logged_at is not None and mark.logged_at < began:
                mark.later[key] = mark.later.get(key, 0) + 1
                return

    def over(self, now: float, rows: t.Mapping[str, StatRow], keys: t.Iterable[str]) -> tuple[tuple[float, int], ...]:
        """Returns pairs (ms, n): n tries of *keys* together have waited at least ms at *now*; rising ms, falling n."""
        counts = [0] * len(self._marks)
        for key in keys:
            current = rows[key].scur or 0
            if current:
                ended = (rows[key].stot or 0) - current
                for index in range(len(counts) - 1, -1, -1):
                    mark = self._marks[index]
                    # Those that began after a younger mark began after this one as well.
                    ended -= mark.later.get(key, 0)
                    if key in mark.begun:
                        counts[index] += min(max(mark.begun[key] - ended, 0), current)
        pairs: list[tuple[float, int]] = []
        for mark, count in zip(self._marks, counts):
            if count > (pairs[-1][1] if pairs else 0) and now > mark.at:
                pairs.append(((now - mark.at) * 1000, count))
        return tuple(reversed(pairs))

    def mark(self, at: float, logged_at: float | None, rows: t.Mapping[str, StatRow]) -> None:
        """Remembers a poll."""
        self._marks.append(_Mark(at, logged_at, {key: row.stot or 0 for key, row in rows.items()}))
        if len(self._marks) > _MARKS_MAX:
            for index in range(_MARKS_MAX // 2, 0, -2):
                for key, count in self._marks.pop(index).later.items():
                    self._marks[index - 1].later[key] = self._marks[index - 1].later.get(key, 0) + count
