# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""HAProxy's HTTP log lines. Pure.

Formats ``option httplog`` and ``option httpslog`` (configuration manual, sections 8.2.3 and 8.2.4) with or without a syslog
header. What stands before the captured cookies is HAProxy's own; cookies, captured headers and the request line are the
client's. HAProxy writes control characters, quotes and bytes above 126 of headers and request lines as ``#XX``, so a request is
one line and a client can spoil at most what is said of its own request.
"""

from __future__ import annotations

import calendar
import re
import typing as t

_MONTHS = {name: number for number, name in enumerate(
    (b'Jan', b'Feb', b'Mar', b'Apr', b'May', b'Jun', b'Jul', b'Aug', b'Sep', b'Oct', b'Nov', b'Dec'), 1)}

# A syslog header is skipped lazily, and only where the line does not begin with the client: the first date in brackets is the
# one that HAProxy wrote. Names have the grammar of section 4 of the manual; '<NOSRV>', '<STATS>' stand for what is not a server.
_NAME = rb'[0-9A-Za-z_.:-]{1,127}'
_TIME = rb'(-1|\d{1,10})'
_DATE = re.compile(rb'\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d')
_LINE = re.compile(
    rb'(?:[^"{}]{0,300}?[ >])??[0-9A-Za-z.:%_-]{1,120}:\d{1,10} '
    rb'\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d)\.(\d{3})\] '
    rb'(' + _NAME + rb')~? (' + _NAME + rb')/(' + _NAME + rb'|<[A-Z]{1,12}>) '
    + _TIME + rb'/' + _TIME + rb'/' + _TIME + rb'/' + _TIME + rb'/(\+?)' + _TIME + rb' (-1|\d{3}) \+?\d{1,20} '
    rb'.{0,2000}?([A-Za-z-]{4}) \d{1,10}/\d{1,10}/\d{1,10}/\d{1,10}/\+?\d{1,10} \d{1,10}/\d{1,10} ')


class LogLine(t.NamedTuple):
    """A finished request. Times are milliseconds; -1: that phase was never reached (section 8.4 of the manual)."""

    start: float
    """First byte of the request (``%tr``), in seconds since 1970 as if HAProxy's local time were UTC: the line names no zone."""
    frontend: str
    backend: str
    server: str
    """``<NOSRV>`` and the like for none."""
    TR: int
    """The client sent the request."""
    Tw: int
    """In queues."""
    Tc: int
    """Until the server had accepted the connection."""
    Tr: int
    """Until the server's response headers."""
    Ta: int
    """From the first byte of the request to the last of the response."""
    status: int
    state: str
    """The four letters of the session's state at its end (section 8.5), ``----`` for a normal one."""
    partial: bool
    """Written before the end (``option logasap``): ``Ta`` is not the whole time."""

    @property
    def end(self) -> float:
        """When the last byte was sent, on the clock of ``start``."""
        return self.start + max(self.Ta, 0) / 1000

    @property
    def answered(self) -> bool:
        """Whether the client received an answer, be it HAProxy's own error: all but those who left first."""
        return self.Tr >= 0 or self.state[0] not in 'Cc'


def parse_line(line: bytes) -> LogLine | None:
    """Reads one line; None for anything that is not a whole HTTP log line up to and with its queue fields."""
    match = _LINE.match(line)
    if match is None:
        return None
    date, ms, frontend, backend, server, TR, Tw, Tc, Tr, plus, Ta, status, state = match.groups()
    seconds = _DATES[date]
    if seconds is None:
        return None
    return LogLine(seconds + int(ms) / 1000, frontend.decode(), backend.decode(), server.decode(), int(TR), int(Tw), int(Tc),
                   int(Tr), int(Ta), int(status), state.decode(), bool(plus))


class _Dates(dict):
    """Seconds of the dates seen lately: lines of one second share theirs."""

    def __missing__(self, date: bytes) -> int | None:
        if len(self) >= 64:
            self.clear()
        month = _MONTHS.get(date[3:6])
        day, hour, minute, second = int(date[:2]), int(date[12:14]), int(date[15:17]), int(date[18:20])
        valid = month and int(date[7:11]) >= 1970 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60
        self[date] = calendar.timegm((int(date[7:11]), month, day, hour, minute, second)) if valid else None
        return self[date]


_DATES = _Dates()


def local_seconds(date: bytes) -> int | None:
    """Returns seconds since 1970, as if it were UTC, of a date as HAProxy writes it: ``22/Nov/2026:15:17:58``; None for none."""
    return _DATES[date] if _DATE.fullmatch(date) else None
