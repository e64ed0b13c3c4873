# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real HAProxy processes and tiny origin servers for tests: loopback only, stopped by their own pid.

    with Origin('blue') as blue, HAProxy(frontend_lines + [...]) as proxy:
        get(proxy.port)     # -> Answer(status, body, headers)
        proxy.ask('show stat')
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

HAPROXY = shutil.which('haproxy') or '/usr/sbin/haproxy'

HEAD = '''\
global
    stats socket {socket} level admin mode 600
    maxconn 2000
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    timeout http-keep-alive 10s
'''


def free_port() -> int:
    """Returns a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def wait_for(condition: t.Callable[[], t.Any], what: str, seconds: float = 10.0) -> t.Any:
    """Returns the first true value of *condition*; fails naming *what* after *seconds*."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError('waited %g s in vain for: %s' % (seconds, what))
        time.sleep(0.01)


@dataclass(frozen=True)
class Answer:
    status: int
    body: str
    headers: dict[str, str]


def get(port: int, path: str = '/', headers: t.Mapping[str, str] | None = None, timeout: float = 5.0) -> Answer:
    """One GET over a connection of its own."""
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=timeout)) as client:
        client.request('GET', path, headers=dict(headers or {}))
        reply = client.getresponse()
        return Answer(reply.status, reply.read().decode(), {k.lower(): v for k, v in reply.getheaders()})


def tally(port: int, count: int, headers: t.Callable[[int], t.Mapping[str, str]] = lambda i: {}) -> dict[str, int]:
    """Sends *count* requests over one keep-alive connection and counts their bodies (statuses where not 200)."""
    counts: dict[str, int] = {}
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=10)) as client:
        client.connect()
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(count):
            client.request('GET', '/', headers=dict(headers(i)))
            reply = client.getresponse()
            body = reply.read().decode()
            key = body if reply.status == 200 else str(reply.status)
            counts[key] = counts.get(key, 0) + 1
    return counts


class Origin:
    """An HTTP/1.1 server that answers every request with its name, in the body and as ``x-arm``, until it is told otherwise.

    ``status`` is the status it answers with, ``delay`` seconds it waits first, ``silent`` accepts and never answers.
    ``gate.clear()`` holds answers back until ``gate.set()``.
    """

    def __init__(self, name: str, port: int | None = None) -> None:
        self.name, self.status, self.delay, self.silent, self.hits = name, 200, 0.0, False, 0
        self.gate = threading.Event()
        self.gate.set()
        self._want = port
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None

    def __enter__(self) -> 'Origin':
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(('127.0.0.1', self._want or 0))
        self._want = self.port = self._listener.getsockname()[1]
        self._listener.listen(512)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Stops listening and drops every connection; ``start()`` takes the same port again."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # shutdown wakes the thread that waits in accept; close alone would leave the port taken until it returns.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for conn in list(self._open):
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                conn, _peer = listener.accept()
            except OSError:
                return
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(conn)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError):
            buffer = b''
            while True:
                while b'\r\n\r\n' not in buffer:
                    chunk = conn.recv(65536)
                    if not chunk:
                        self._open.discard(conn)
                        return
                    buffer += chunk
                _head, buffer = buffer.split(b'\r\n\r\n', 1)
                self.hits += 1
                if self.silent:
                    continue
                if self.delay:
                    time.sleep(self.delay)
                self.gate.wait(60)
                body = self.name.encode()
                conn.sendall(b'HTTP/1.1 %d X\r\nx-arm: %s\r\nContent-Length: %d\r\n\r\n%s' % (self.status, body, len(body), body))
        self._open.discard(conn)


class HAProxy:
    """A real HAProxy process. *lines* follow HEAD; ``{dir}``, ``{port}`` and ``{socket}`` in them are filled in, and
    other ``{name}`` from *values*. Braces of the configuration's own are written doubled. *head* replaces HEAD, *env* adds
    to the environment."""

    def __init__(self, lines: str | t.Iterable[str], head: str = HEAD, files: t.Mapping[str, str] | None = None,
                 env: t.Mapping[str, str] | None = None, **values: object) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix='pd-', dir='/tmp'))
        self.port = free_port()
        self.socket = str(self.dir / 'admin.sock')
        self.address = 'unix://' + self.socket
        self._process: subprocess.Popen | None = None
        self._env = dict(os.environ, **(env or {}))
        text = head + (lines if isinstance(lines, str) else '\n'.join(lines)) + '\n'
        self.config = self.dir / 'haproxy.cfg'
        self.config.write_text(text.format(dir=self.dir, port=self.port, socket=self.socket, **values))
        for name, content in (files or {}).items():
            (self.dir / name).write_text(content)

    def __enter__(self) -> 'HAProxy':
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        log = open(self.dir / 'haproxy.log', 'ab')
        with log:
            self._process = subprocess.Popen([HAPROXY, '-db', '-f', str(self.config)], stdout=log, stderr=log,
                                             start_new_session=True, env=self._env)
        wait_for(self._answers, 'HAProxy with %s; it said: %s' % (self.config, (self.dir / 'haproxy.log').read_text()[-800:]))

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError('HAProxy did not start:\n%s' % (self.dir / 'haproxy.log').read_text()[-2000:])
        with contextlib.suppress(OSError):
            return 'Pid: %d\n' % self._process.pid in self.ask('show info') + '\n'
        return False

    def stop(self) -> None:
        """Ends the process for good, stopped (SIGSTOP) or not."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def reload(self) -> None:
        """Starts the configuration and the files anew, as a reload does; the old process ends."""
        self.stop()
        with contextlib.suppress(OSError):
            os.unlink(self.socket)
        self.start()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, command: str, timeout: float = 5.0) -> str:
        """One runtime command, without the collection's own client."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout)
            client.connect(self.socket)
            client.sendall(command.encode() + b'\n')
            parts = []
            while True:
                part = client.recv(65536)
                if not part:
                    return b''.join(parts).decode().strip('\n')
                parts.append(part)
