# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service that the lab rolls out: one process is one server of an arm.

    service.py --arm canary --version 5.1 --port 18031 --fault errors --received FILE

It answers ``/health/startup``, ``/health/live``, ``/health/ready``, ``/metrics`` and, as its work, GET and POST of anything
under ``/api/`` with a little JSON and the headers ``x-version`` and ``x-arm``. FILE gets one JSON line for each work
request the moment it is received, whatever becomes of it, and one for a crash.

Faults, given at the start or later by ``PUT /admin/fault`` with the fault's name as the body:

    none    healthy
    errors  a fifth of the work is answered with 500 (or the part that LAB_ERROR_SHARE says)
    slow    the work takes half a second in the median, 1.5 s at P95
    crash   the process kills itself a few seconds after its first work request, with whatever it holds
    silent  work is accepted and never answered; health still is
    hang    nothing is answered, health neither

One in ten visits ends in a conversion, whatever was asked for; LAB_CONVERSION sets other parts for versions, as in
``5.1-a=0.13,5.1-b=0.1``. Four in ten visitors are engaged. Both are counters, beside that of the visits.

SIGTERM is graceful: readiness goes off, the process serves on until its balancer has noticed, finishes what it has, exits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import re
import signal
import socket
import time
import typing as t

from aiohttp import web

FAULTS = ('none', 'errors', 'slow', 'crash', 'silent', 'hang')
# LAB_ERROR_SHARE is for measurements: what bench/ wants to be found.
ERROR_SHARE = float(os.environ.get('LAB_ERROR_SHARE') or 0.2)
CRASH_AFTER_S = 2.0
STARTUP_S = 0.3
# Longer than any proxy keeps an idle connection: the one that closes first must not be the one that gets requests.
KEEPALIVE_S = 120.0
# Lognormal, (median, sigma) in seconds: P95 is exp(1.645 sigma) times the median, so 40 ms and 1.5 s.
HEALTHY = (0.015, 0.6)
SLOW = (0.5, 0.67)
AGENTS = 61
CONVERSION, ENGAGEMENT = 0.1, 0.4
_WORK_LINE = re.compile(rb'(?:GET|POST) /api/[^ ]*[?&]id=([^ &]+)[^ ]* HTTP/1')
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Received:
    """The append-only record of the work requests that reached this process."""

    def __init__(self, path: str | None, arm: str, version: str, port: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if path else None
        self._rest = {'arm': arm, 'version': version, 'port': port}

    def add(self, request_id: str) -> None:
        """One request has arrived."""
        self._write({'id': request_id})

    def fault(self, name: str) -> None:
        """The process shows a fault that no request needs to meet."""
        self._write({'fault': name})

    def _write(self, what: dict) -> None:
        # One write each, unbuffered: a process that is killed in the next instant has still said what it had.
        if self._file is not None:
            os.write(self._file, (json.dumps({**what, 'ts': time.time(), **self._rest}) + '\n').encode())


class Service:
    """One process: its fault, its counters, its life."""

    def __init__(self, arm: str, version: str, fault: str, received: Received, crash: t.Callable[[], object],
                 rng: random.Random) -> None:
        self.arm, self.version, self.fault = arm, version, fault
        self._received, self._crash, self._rng = received, crash, rng
        self._started = self._draining = self._doomed = False
        self._released = asyncio.Event()
        self._answers: dict[tuple[str, int], int] = {}
        self._workflows = {'success': 0, 'failure': 0}
        self._conversion = conversion_of(version, os.environ.get('LAB_CONVERSION', ''))
        self._visits = {'visits': 0, 'conversions': 0, 'engaged': 0}
        self._buckets, self._seconds = [0] * (len(BUCKETS) + 1), 0.0
        self._headers = {'x-version': version, 'x-arm': arm}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get('/health/live', self._health(lambda: True)),
            web.get('/health/startup', self._health(lambda: self._started)),
            web.get('/health/ready', self._health(lambda: self._started and not self._draining)),
            web.get('/metrics', self._metrics),
            web.get('/admin/fault', self._tell_fault),
            web.put('/admin/fault', self._set_fault),
            web.get('/api/{name:.*}', self._work),
            web.post('/api/{name:.*}', self._work),
        ]

    async def start(self) -> None:
        await asyncio.sleep(STARTUP_S)
        self._started = True

    def drain(self) -> None:
        """Readiness goes off and each connection is closed with its next answer."""
        self._draining = True

    def release(self) -> None:
        """Lets go of the requests that a fault holds: they end without an answer."""
        self._released.set()

    def _health(self, condition):
        async def handler(request: web.Request) -> web.Response:
            if self.fault == 'hang':
                return await self._never(request)
            good = condition()
            return self._answer(200 if good else 503, {'status': 'ok' if good else 'unavailable'})
        return handler

    def _answer(self, status: int, body: dict) -> web.Response:
        response = web.json_response({**body, 'version': self.version, 'arm': self.arm}, status=status, headers=self._headers)
        if self._draining:
            response.force_close()
        return response

    async def _never(self, request: web.Request) -> web.Response:
        await self._released.wait()
        if request.transport is not None:
            request.transport.abort()
        raise asyncio.CancelledError

    async def _tell_fault(self, request: web.Request) -> web.Response:
        return self._answer(200, {'fault': self.fault})

    async def _set_fault(self, request: web.Request) -> web.Response:
        fault = (await request.text()).strip()
        if fault not in FAULTS:
            return self._answer(400, {'error': 'The fault must be one of %s.' % ', '.join(FAULTS)})
        self.fault = fault
        self._released.set()
        self._released = asyncio.Event()
        return await self._tell_fault(request)

    async def _work(self, request: web.Request) -> web.Response:
        started = time.monotonic()
        self._received.add(request.query.get('id', '-'))
        if self.fault == 'crash' and not self._doomed:
            self._doomed = True
            asyncio.get_running_loop().call_later(CRASH_AFTER_S, self._crash)
        if self.fault in ('silent', 'hang'):
            return await self._never(request)
        await request.read()
        median, sigma = SLOW if self.fault == 'slow' else HEALTHY
        await asyncio.sleep(self._rng.lognormvariate(math.log(median), sigma))
        failed = self.fault == 'errors' and self._rng.random() < ERROR_SHARE
        status = 500 if failed else 201 if request.method == 'POST' else 200
        self._count(request.method, status, time.monotonic() - started)
        self._visits['visits'] += 1
        if not failed:
            self._visits['conversions'] += self._rng.random() < self._conversion
            self._visits['engaged'] += self._rng.random() < ENGAGEMENT
        return self._answer(status, {'id': request.query.get('id', '-')})

    def _count(self, method: str, status: int, seconds: float) -> None:
        self._answers[method, status] = self._answers.get((method, status), 0) + 1
        self._seconds += seconds
        self._buckets[next((i for i, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))] += 1
        if method == 'POST':
            self._workflows['failure' if status >= 500 else 'success'] += 1

    async def _metrics(self, request: web.Request) -> web.Response:
        if self.fault == 'hang':
            return await self._never(request)
        return web.Response(text=self._exposition(), headers={'Content-Type': 'text/plain; version=0.0.4; charset=utf-8'})

    def _exposition(self) -> str:
        """The counters in Prometheus' text format (prometheus.io, "Exposition formats", 0.0.4)."""
        own = 'version="%s"' % self.version
        lines = ['# TYPE http_requests_total counter']
        lines += ['http_requests_total{%s,method="%s",code="%d"} %d' % (own, method, status, n)
                  for (method, status), n in sorted(self._answers.items())]
        lines.append('# TYPE http_request_duration_seconds histogram')
        total = 0
        for bound, n in zip((*BUCKETS, '+Inf'), self._buckets):
            total += n
            lines.append('http_request_duration_seconds_bucket{%s,le="%s"} %d' % (own, bound, total))
        lines += ['http_request_duration_seconds_sum{%s} %.6f' % (own, self._seconds),
                  'http_request_duration_seconds_count{%s} %d' % (own, total),
                  '# TYPE shop_agents_expected gauge', 'shop_agents_expected{%s} %d' % (own, AGENTS),
                  '# TYPE shop_agents_active gauge', 'shop_agents_active{%s} %d' % (own, AGENTS if self._started else 0),
                  '# TYPE shop_workflows_total counter']
        lines += ['shop_workflows_total{%s,result="%s"} %d' % (own, result, n) for result, n in self._workflows.items()]
        for name, n in self._visits.items():
            lines += ['# TYPE shop_%s_total counter' % name, 'shop_%s_total{%s} %d' % (name, own, n)]
        lines += ['# TYPE shop_workflow_failures_total counter', 'shop_workflow_failures_total{%s} %d' % (own, self._workflows['failure'])]
        return '\n'.join(lines) + '\n'


def conversion_of(version: str, given: str) -> float:
    """The part of the visits to *version* that end in a conversion; *given* is ``version=part`` with commas between."""
    parts = dict(part.split('=', 1) for part in given.split(',') if '=' in part)
    return float(parts.get(version, CONVERSION))


async def crash(runner: web.AppRunner, received: Received) -> None:
    """Dies at once, as by SIGKILL, and leaves a true record.

    The kernel takes requests for a process that is killed until it has torn down the memory, which takes milliseconds.
    So what is read already is noted first, then what the sockets hold, each closed the moment it was looked at.
    """
    received.fault('crash')

    def open_now() -> list[asyncio.Transport]:
        return [handler.transport for handler in runner.server.connections if handler.transport]

    for transport in open_now():
        transport.pause_reading()
    for _step in range(5):
        await asyncio.sleep(0)
    for site in runner.sites:
        for listener in site._server.sockets:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(listener.fileno())) as accepting:
                os.close(listener.fileno())
                while True:
                    _note_unread(accepting.accept()[0].detach(), received)
    for transport in open_now():
        descriptor = transport.get_extra_info('socket').fileno()
        if descriptor >= 0:
            _note_unread(descriptor, received)
    os.kill(os.getpid(), signal.SIGKILL)
    # The first process of a container is spared its own signals.
    os._exit(128 + signal.SIGKILL)


def _note_unread(descriptor: int, received: Received) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as connection:
        data = connection.recv(65536, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        connection.close()
        for found in _WORK_LINE.finditer(data):
            received.add(found.group(1).decode())


async def serve(options: argparse.Namespace) -> None:
    """Runs one process until SIGTERM or SIGINT."""
    received = Received(options.received, options.arm, options.version, options.port)
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=options.grace)
    service = Service(options.arm, options.version, options.fault, received,
                      lambda: asyncio.ensure_future(crash(runner, received)), random.Random())
    app.add_routes(service.routes())
    await runner.setup()
    await web.TCPSite(runner, options.host, options.port, backlog=512).start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await service.start()
    await stop.wait()
    service.drain()
    await asyncio.sleep(options.drain)
    cleanup = asyncio.create_task(runner.cleanup())
    await asyncio.wait([cleanup], timeout=options.grace / 2)
    service.release()
    await cleanup


def main() -> None:
    parser = argparse.ArgumentParser(description='One server of the lab.')
    parser.add_argument('--arm', required=True)
    parser.add_argument('--version', required=True)
    parser.add_argument('--port', type=int, required=True)
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on (default 127.0.0.1; 0.0.0.0 in a container)')
    parser.add_argument('--fault', choices=FAULTS, default='none')
    parser.add_argument('--received', help='file that gets a line for each work request received')
    parser.add_argument('--drain', type=float, default=0.8, help='seconds to serve on after SIGTERM, not ready (default 0.8)')
    parser.add_argument('--grace', type=float, default=2.0, help='seconds for what is left after that (default 2)')
    asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
