# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""HAProxy's runtime API over a UNIX or TCP socket (management manual, section 9.3).

One connection carries one batch: ``prompt`` turns on interactive mode, in which each reply ends with ``\\n> ``,
so that several commands can be sent at once and their replies told apart.
"""

from __future__ import annotations

import asyncio
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Refused, Unreachable

_PROMPT = b'\n> '
# A command is one line: these end it early, join it to a second one, or escape what follows.
_UNSAFE = re.compile(r'[\x00-\x1f;\\]')
_ADDRESS = re.compile(r'(?P<kind>unix|tcp)://(?P<rest>.+)')
_TCP = re.compile(r'(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_.-]+)):(?P<port>\d{1,5})')


@dataclass(frozen=True)
class Address:
    """Where a runtime socket listens: a path, or a host and a port."""

    path: str | None = None
    host: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> 'Address':
        """Reads ``unix:///run/haproxy/admin.sock`` or ``tcp://lb1.example.com:9999``; raises BadInput."""
        match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
        if match and match['kind'] == 'unix' and match['rest'].startswith('/') and not _UNSAFE.search(text):
            return cls(path=match['rest'])
        tcp = _TCP.fullmatch(match['rest']) if match and match['kind'] == 'tcp' else None
        if tcp and 0 < int(tcp['port']) < 65536:
            return cls(host=tcp['six'] or tcp['host'], port=int(tcp['port']))
        raise BadInput('The socket %r is not understood: write unix:///path/to/socket or tcp://host:port.' % (text,))

    def __str__(self) -> str:
        return 'unix://%s' % self.path if self.path else 'tcp://%s:%d' % ('[%s]' % self.host if ':' in self.host else self.host, self.port)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects. Raises OSError."""
        limit = 2 ** 24
        if self.path:
            return await asyncio.open_unix_connection(self.path, limit=limit)
        return await asyncio.open_connection(self.host, self.port, limit=limit)


class Runtime:
    """Commands to one HAProxy process. *deadline* is in seconds, for connecting and all replies of a call together."""

    def __init__(self, address: Address, deadline: float = 2.0) -> None:
        self.address = address
        self.deadline = deadline

    async def ask(self, *commands: str, deadline: float | None = None) -> list[str]:
        """Sends *commands* in order over one connection and returns their replies, without surrounding newlines.

        Raises Unreachable when there is no socket, no answer in time, or the connection ends early.
        """
        for command in commands:
            if _UNSAFE.search(command):
                raise BadInput('The runtime command %r was not sent: it holds a control character, ";" or "\\".' % command)
        try:
            return await asyncio.wait_for(self._ask(commands), deadline or self.deadline)
        except (asyncio.TimeoutError, TimeoutError):
            raise Unreachable('HAProxy at %s did not answer "%s" within %g s: check that the process is not stopped.' % (
                self.address, commands[0] if commands else '', deadline or self.deadline)) from None
        except (OSError, EOFError) as exc:
            raise Unreachable('HAProxy at %s could not be asked "%s": %s. Check that it runs and that its '
                              '"stats socket" line names this address with "level admin".' % (
                                  self.address, commands[0] if commands else '', _reason(exc))) from exc

    async def do(self, *commands: str, deadline: float | None = None) -> None:
        """Sends *commands* that change state and answer nothing when they succeed; raises Refused with the first other reply."""
        for command, reply in zip(commands, await self.ask(*commands, deadline=deadline)):
            if reply:
                raise Refused('HAProxy at %s refused "%s": %s' % (self.address, command, ' '.join(reply.split())))

    async def _ask(self, commands: t.Sequence[str]) -> list[str]:
        reader, writer = await self.address.open()
        try:
            writer.write(''.join(line + '\n' for line in ('prompt',) + tuple(commands)).encode())
            await writer.drain()
            replies = [(await reader.readuntil(_PROMPT))[:-len(_PROMPT)].decode('utf-8', 'replace').strip('\n')
                       for _dummy in range(len(commands) + 1)]
            return replies[1:]
        finally:
            writer.close()


def _reason(exc: BaseException) -> str:
    if isinstance(exc, OSError):
        return exc.strerror or str(exc) or type(exc).__name__
    return 'the connection ended before the answer'
