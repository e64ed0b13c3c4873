# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Light load on one host name behind a port of this machine, each request's answer kept: who answered, when it was sent.

    with Load(port, 'shop.test', rate=100) as load:
        ...
    load.failed, load.arms(), load.last('green')
"""

from __future__ import annotations

import asyncio
import threading
import time
import typing as t

_LONGEST_S = 120.0


class Sample(t.NamedTuple):
    sent: float
    """Wall clock, seconds."""
    done: float
    arm: str | None
    """The x-arm of the answer; None for none, or for one that is not 200."""
    said: str


class Load:
    """Requests at *rate* a second over *connections* that are kept alive, from __enter__ to __exit__, two minutes at most."""

    def __init__(self, port: int, host: str, rate: float = 100.0, connections: int = 8, path: str = '/api/x') -> None:
        self.port, self.rate, self.connections = port, rate, connections
        self.request = ('GET %s HTTP/1.1\r\nHost: %s\r\n\r\n' % (path, host)).encode()
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> 'Load':
        self._thread.start()
        return self

    def __exit__(self, *_what: object) -> None:
        self._stop.set()
        self._thread.join(20)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(n) for n in range(self.connections)))

    async def _client(self, number: int) -> None:
        step, end = self.connections / self.rate, time.monotonic() + _LONGEST_S
        due = time.monotonic() + number * step / self.connections
        streams: t.Any = None
        while not self._stop.is_set() and due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + step, time.monotonic() - step)
            sent = time.time()
            try:
                streams = streams or await asyncio.open_connection('127.0.0.1', self.port)
                streams[1].write(self.request)
                status, headers = await asyncio.wait_for(answer(streams[0]), 10)
                arm = headers.get('x-arm') if status == 200 else None
                said = str(status)
                if headers.get('connection') == 'close':
                    streams[1].close()
                    streams = None
            except (OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError) as exc:
                arm, said, streams = None, repr(exc), None
            self.samples.append(Sample(sent, time.time(), arm, said))

    # ---- what was seen

    @property
    def failed(self) -> list[Sample]:
        return [sample for sample in list(self.samples) if sample.arm is None]

    def arms(self, since: float = 0.0, until: float = float('inf')) -> dict[str, int]:
        """Answers by arm of requests sent in a span of the wall clock."""
        found: dict[str, int] = {}
        for sample in list(self.samples):
            if sample.arm and since <= sample.sent < until:
                found[sample.arm] = found.get(sample.arm, 0) + 1
        return found

    def last(self, arm: str) -> float:
        """When the last request was sent that *arm* answered."""
        return max((sample.sent for sample in list(self.samples) if sample.arm == arm), default=0.0)

    def count(self) -> int:
        return len(self.samples)


def ask(port: int, host: str, headers: t.Sequence[t.Mapping[str, str]], connections: int = 8, path: str = '/health/live') -> list[str]:
    """Sends one GET for each of *headers*, as fast as answers come; returns, in their order, who answered each: x-arm, or the status."""
    said, numbers = [''] * len(headers), iter(range(len(headers)))

    async def client() -> None:
        reader = writer = None
        for number in numbers:
            if writer is None:
                reader, writer = await asyncio.open_connection('127.0.0.1', port)
            lines = ''.join('%s: %s\r\n' % pair for pair in {'Host': host, **headers[number]}.items())
            writer.write(('GET %s HTTP/1.1\r\n%s\r\n' % (path, lines)).encode())
            status, found = await asyncio.wait_for(answer(reader), 30)
            said[number] = found.get('x-arm', '?') if status == 200 else str(status)
            if found.get('connection') == 'close':
                writer.close()
                writer = None
        if writer is not None:
            writer.close()

    async def clients() -> None:
        await asyncio.gather(*(client() for _n in range(min(connections, len(headers)))))

    asyncio.run(clients())
    return said


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Reads one answer to the end and returns its status and headers."""
    head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1').split('\r\n')
    headers = {name.lower(): value.strip() for name, _colon, value in (line.partition(':') for line in head[1:] if line)}
    if headers.get('transfer-encoding') == 'chunked':
        while True:
            size = int(await reader.readuntil(b'\r\n'), 16)
            await reader.readexactly(size + 2)
            if not size:
                break
    else:
        await reader.readexactly(int(headers.get('content-length') or 0))
    return int(head[0].split()[1]), headers
