# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A gRPC server: ``grpc_service.py ARM PORT``. It answers any unary call with an empty message and the header x-arm.

Runs in a pod of the lab's service image, which has a Python and no gRPC: HTTP/2 is the pure-Python package h2, and what gRPC puts on
top of it (github.com/grpc/grpc, PROTOCOL-HTTP2.md) is a message with five bytes before it and a trailer with the status.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import h2.config
import h2.connection
import h2.events
import h2.exceptions

EMPTY = bytes(5)
"""An uncompressed message of length 0."""


class Call(asyncio.Protocol):
    """One connection; each call is answered when it has been sent whole."""

    def __init__(self, arm: str) -> None:
        self.arm = arm
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        try:
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    self.h2.send_headers(event.stream_id, [(':status', '200'), ('content-type', 'application/grpc'), ('x-arm', self.arm)])
                    self.h2.send_data(event.stream_id, EMPTY)
                    self.h2.send_headers(event.stream_id, [('grpc-status', '0')], end_stream=True)
                elif isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        except h2.exceptions.ProtocolError:
            self.transport.close()
        self.transport.write(self.h2.data_to_send())


async def serve(arm: str, port: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Call(arm), '0.0.0.0', port)
    await stop.wait()
    server.close()


if __name__ == '__main__':
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
