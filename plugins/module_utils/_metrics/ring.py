# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The events of a HAProxy ring, followed as they happen (management manual 9.3, ``show events <ring> -w -n``).

HAProxy ends such a connection when it is stopped or reloaded, and after ``stats timeout`` without an event. The reader then
connects again, asks for all that the ring still holds, and goes on after the last line that it had; only when that line is gone
may events be lost. ``-n`` is therefore not used: what happens between two connections would be.

A reloaded process lives on as long as such a connection does, and logs nothing more. So each connection first asks whom it talks
to, and ``renew`` ends it once the caller has seen another process.
"""

from __future__ import annotations

import asyncio
import re
import time
import typing as t
from collections import deque
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Refused
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Address, Runtime
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.logline import LogLine, parse_line
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name

EVENTS_MAX = 50_000
"""Events kept between two polls: some 15 MB. Later ones of that interval are counted and not kept."""

_LINE_MAX = 65_536
_REMEMBERED = 32
_RESUME_S = 0.5
# A busy machine may take that long to connect; the counters go on meanwhile.
GRACE_S = 3.0
_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5)
_REFUSALS = (b'No such event sink', b'Permission denied')
_DROPPED = re.compile(rb'(\d{1,10}) events? dropped')


@dataclass
class Events:
    """What a ring gave between two calls of ``take``."""

    lines: list[LogLine] = field(default_factory=list)
    over: int = 0
    """Events of watched backends beyond EVENTS_MAX."""
    foreign: int = 0
    """Lines that are not in the HTTP log format."""
    lost: list[str] = field(default_factory=list)
    """A sentence for each time that events may have been lost."""
    problem: str = ''
    """A sentence once the ring has not been followed for GRACE_S seconds."""


class RingReader:
    """Follows *ring* of the process at *address*; keeps the lines of *backends* only. One event loop."""

    def __init__(self, address: Address, ring: str, backends: t.Iterable[str], clock: t.Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self.ring = check_name('ring', ring)
        self._backends = frozenset(backends)
        self._clock = clock
        self._events = Events()
        self._last: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._last_end = 0.0
        self.process: tuple[str, str] | None = None
        """Process that is followed: its id and its start."""
        self._writer: asyncio.StreamWriter | None = None
        # Lines of a new connection that may have been read from the one before; None once that is settled.
        self._replay: deque[bytes] | None = None
        self._replay_since = 0.0
        self._problem = ''
        self._problem_since = 0.0
        self._refused = False
        self._task: asyncio.Task | None = None
        self._following: asyncio.Event | None = None

    async def check(self, deadline: float) -> None:
        """Raises BadInput when the process has no such ring, Unreachable when it cannot be asked."""
        reply, = await Runtime(self.address, deadline).ask('show events')
        rings = re.findall(r'^\s+(\S+)\s*: type=', reply, re.M)
        if self.ring not in rings:
            raise BadInput('HAProxy at %s has no ring "%s" (it has %s): add a section "ring %s" and "log ring@%s format raw local0" '
                           'to the frontend, or leave "ring" out of the endpoint.' % (
                               self.address, self.ring, ', '.join(rings) or 'none', self.ring, self.ring))

    async def open(self, deadline: float) -> None:
        """Begins to follow; returns when the connection stands, or after *deadline* seconds without one (``take`` then says so).

        Raises Refused when HAProxy does not let this socket read the ring.
        """
        if self._task is None:
            self._following = asyncio.Event()
            self._task = asyncio.ensure_future(self._follow())
        try:
            await asyncio.wait_for(self._following.wait(), deadline)
        except (asyncio.TimeoutError, TimeoutError):
            self._fail(self._problem or 'no answer within %g s' % deadline)
        if self._refused:
            raise Refused('HAProxy at %s does not show the ring "%s": %s. Give its socket "level operator" or "level admin".' % (
                self.address, self.ring, self._problem))

    def renew(self, process: tuple[str, str]) -> None:
        """Ends the connection when it is not to *process*; another one follows by itself."""
        if self._writer is not None and self.process not in (None, process):
            self._writer.close()

    async def close(self) -> None:
        """Ends the connection."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def take(self) -> Events:
        """Returns what came since the call before, and begins anew."""
        if self._replay and self._clock() - self._replay_since > _RESUME_S:
            self._give_up()
        events, self._events = self._events, Events()
        if self._problem and self._clock() - self._problem_since > GRACE_S:
            events.problem = 'The ring "%s" of HAProxy at %s is not being followed: %s.' % (self.ring, self.address, self._problem)
        return events

    def _fail(self, problem: str) -> None:
        if not self._problem:
            self._problem_since = self._clock()
        self._problem = problem

    async def _follow(self) -> None:
        failures = 0
        while True:
            begun = self._clock()
            try:
                if self.process is None:
                    # What is in the ring already is not ours; its last lines are the place to go on from.
                    await self._read(b'', self._remember)
                await self._read(b' -w', self._receive)
            except OSError as exc:
                self._fail(exc.strerror or str(exc))
                self._refused = isinstance(exc, PermissionError) and not exc.errno
                if self._refused:
                    self._following.set()
            failures = 0 if self._clock() - begun > 1 else failures + 1
            await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])

    async def _read(self, option: bytes, receive: t.Callable[[bytes], None]) -> None:
        reader, writer = await self.address.open()
        self._writer = writer
        try:
            writer.write(b'show info float;show events %s%s\n' % (self.ring.encode(), option))
            await writer.drain()
            self._meet(await reader.readuntil(b'\n\n'))
            if option:
                self._replay, self._replay_since = deque(maxlen=EVENTS_MAX) if self._last else None, self._clock()
                self._problem, self._refused = '', False
                self._following.set()
            await self._lines(reader, receive)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise ConnectionError('the connection ended before the answer') from None
        finally:
            writer.close()

    def _meet(self, info: bytes) -> None:
        found = re.search(rb'^Pid: (\d+)$', info, re.M), re.search(rb'^Start_time_sec: (\S+)$', info, re.M)
        process = tuple(match[1].decode() if match else '' for match in found)
        if self.process not in (None, process):
            # All of the new process's ring is new.
            self._last.clear()
            self._events.lost.append('HAProxy at %s was started anew or reloaded: the last events of the process before are lost.' % (
                self.address))
        self.process = t.cast('tuple[str, str]', process)

    async def _lines(self, reader: asyncio.StreamReader, receive: t.Callable[[bytes], None]) -> None:
        rest = b''
        while True:
            data = await reader.read(_LINE_MAX)
            if not data:
                return
            *lines, rest = (rest + data).split(b'\n')
            if len(rest) > _LINE_MAX:
                rest = b''
                self._events.foreign += 1
            for line in lines:
                if line in _REFUSALS:
                    raise PermissionError(0, line.decode())
                if line:
                    receive(line)
            # One very full ring must not starve the polls of the others.
            await asyncio.sleep(0)

    def _receive(self, line: bytes) -> None:
        if self._replay is None:
            self._keep(line)
            return
        self._replay.append(line)
        # All remembered lines, not the last alone: requests of one connection within a millisecond have equal lines.
        count = len(self._last)
        if line == self._last[-1] and len(self._replay) >= count and all(
                self._replay[-back] == self._last[-back] for back in range(1, count + 1)):
            self._replay = None

    def _give_up(self) -> None:
        """Ends a replay in which the last lines did not turn up: what is later than they were is new."""
        lines, self._replay = self._replay or (), None
        self._events.lost.append('The connection to the ring "%s" of HAProxy at %s was renewed, and what it had last is no longer '
                                 'in the ring: events may have been lost, make the ring larger.' % (self.ring, self.address))
        had = self._last_end
        for line in lines:
            parsed = parse_line(line)
            if parsed is None or parsed.end > had:
                self._keep(line)

    def _remember(self, line: bytes) -> LogLine | None:
        self._last.append(line)
        parsed = parse_line(line)
        if parsed is not None:
            self._last_end = max(self._last_end, parsed.end)
        return parsed

    def _keep(self, line: bytes) -> None:
        parsed = self._remember(line)
        if parsed is None:
            dropped = _DROPPED.search(line)
            if dropped:
                self._events.lost.append('HAProxy at %s dropped %d events of the ring "%s": make the ring larger.' % (
                    self.address, int(dropped[1]), self.ring))
            else:
                self._events.foreign += 1
        elif parsed.backend in self._backends:
            if len(self._events.lines) < EVENTS_MAX:
                self._events.lines.append(parsed)
            else:
                self._events.over += 1
