# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What it costs to follow a ring: prints the CPU time for one second of 3000 requests. Run: python tests/bench/bench_ring.py"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / '.collections'))

from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Address  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.logline import parse_line  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.ring import RingReader  # noqa: E402

PER_SECOND = 3000
SECONDS = 10
LINE = (b'<134>Nov 22 15:17:%02d localhost haproxy[14637]: 127.0.0.1:%d [22/Nov/2026:15:17:%02d.%03d] shop~ canary/c%d 0/0/1/%d/%d '
        b'200 512 - - ---- 120/120/35/12/0 0/0 {shop.example.com|Mozilla/5.0 (X11#3B Linux x86_64)} '
        b'"GET /workflows/%d/phases?x=1 HTTP/1.1"')


def lines() -> list[bytes]:
    return [LINE % (n // PER_SECOND, 1024 + n, n // PER_SECOND, n % PER_SECOND * 1000 // PER_SECOND, n % 3, n % 200, n % 200 + 1, n)
            for n in range(PER_SECOND * SECONDS)]


def cost(work) -> float:
    """CPU milliseconds for one second of requests."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1000 / SECONDS


async def follow(text: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix='pd-', dir='/tmp') as home:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            command = await reader.readline()
            writer.write(b'Pid: 1\nStart_time_sec: 1.0\n\n')
            if b' -w' in command:
                writer.write(text)
                await writer.drain()
                await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(serve, home + '/sock')
        ring = RingReader(Address(path=home + '/sock'), 'events', ['canary'])
        await ring.open(5)
        got = 0
        while got < PER_SECOND * SECONDS:
            await asyncio.sleep(0.01)
            got += len(ring.take().lines)
        await ring.close()
        server.close()


def main() -> None:
    every = lines()
    print('parse_line:  %5.1f ms CPU for %d events' % (cost(lambda: [parse_line(line) for line in every]), PER_SECOND))
    text = b'\n'.join(every) + b'\n'
    print('RingReader:  %5.1f ms CPU for %d events (socket, buffers and parsing; bound: 100 ms)' % (
        cost(lambda: asyncio.run(follow(text))), PER_SECOND))


if __name__ == '__main__':
    main()
