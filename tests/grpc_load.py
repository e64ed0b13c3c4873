# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Light gRPC load on one host name behind a port of this machine: unary calls, one after the other on each of some connections.

    with GrpcLoad(port, 'shop.test') as load:
        ...
    load.failed, load.arms(since), load.count()
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import typing as t

import h2.config
import h2.connection
import h2.events
from grpc_service import EMPTY
from kube_load import Sample

_LONGEST_S = 120.0


class Client:
    """One connection."""

    def __init__(self, port: int, host: str) -> None:
        self.port, self.host = port, host
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding='utf-8'))
        self.closing = False

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection('127.0.0.1', self.port)
        self.h2.initiate_connection()
        self.writer.write(self.h2.data_to_send())

    async def call(self) -> tuple[str | None, str]:
        """Makes a call; returns who answered, None for nobody whose answer counts, and what was said."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(':method', 'POST'), (':scheme', 'http'), (':path', '/shop.Orders/Get'), (':authority', self.host),
                                      ('te', 'trailers'), ('content-type', 'application/grpc')])
        self.h2.send_data(stream, EMPTY, end_stream=True)
        self.writer.write(self.h2.data_to_send())
        headers: dict[str, str] = {}
        while True:
            data = await asyncio.wait_for(self.reader.read(65536), 10)
            if not data:
                return None, 'the connection was closed'
            for event in self.h2.receive_data(data):
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    headers.update(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    return None, 'reset: %s' % event.error_code
                elif isinstance(event, h2.events.ConnectionTerminated):
                    # What has been sent is still answered.
                    self.closing = True
                elif isinstance(event, h2.events.StreamEnded):
                    self.writer.write(self.h2.data_to_send())
                    good = headers.get(':status') == '200' and headers.get('grpc-status') == '0'
                    return headers.get('x-arm') if good else None, str(headers)
            self.writer.write(self.h2.data_to_send())

    def close(self) -> None:
        self.writer.close()


class GrpcLoad:
    """Calls at up to *rate* a second over *connections*, from __enter__ to __exit__, two minutes at most."""

    def __init__(self, port: int, host: str, rate: float = 200.0, connections: int = 8) -> None:
        self.port, self.host, self.pause, self.connections = port, host, connections / rate, connections
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> 'GrpcLoad':
        self._thread.start()
        return self

    def __exit__(self, *_what: object) -> None:
        self._stop.set()
        self._thread.join(20)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _n in range(self.connections)))

    async def _client(self) -> None:
        client: t.Any = None
        end = due = time.monotonic()
        end += _LONGEST_S
        while not self._stop.is_set() and due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + self.pause, time.monotonic() - self.pause)
            sent = time.time()
            try:
                if client is None or client.closing:
                    client = Client(self.port, self.host)
                    await client.open()
                arm, said = await client.call()
            except (OSError, asyncio.TimeoutError) as exc:
                arm, said = None, repr(exc)
            if arm is None and client is not None:
                with contextlib.suppress(AttributeError):
                    client.close()
                client = None
            self.samples.append(Sample(sent, time.time(), arm, said))

    @property
    def failed(self) -> list[Sample]:
        return [sample for sample in list(self.samples) if sample.arm is None]

    def arms(self, since: float = 0.0) -> dict[str, int]:
        """Answers by arm of calls made since then."""
        found: dict[str, int] = {}
        for sample in list(self.samples):
            if sample.arm and sample.sent >= since:
                found[sample.arm] = found.get(sample.arm, 0) + 1
        return found

    def count(self) -> int:
        return len(self.samples)
