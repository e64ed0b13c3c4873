# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real receivers of notices, on 127.0.0.1: HTTP, SMTP, and vendors' addresses behind a proxy that ends TLS for them."""

from __future__ import annotations

import contextlib
import email
import email.policy
import http.server
import json
import socket
import ssl
import threading
import typing as t

import trustme
from aiosmtpd.controller import Controller


class Http:
    """Keeps what is posted to it: (path, content type, JSON). Paths with "bad" are refused, those with "dead" get no answer."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, t.Any]] = []
        keeper = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802
                body = self.rfile.read(int(self.headers['Content-Length']))
                if 'dead' in self.path:
                    keeper._released.wait(60)
                keeper.received.append((self.path, self.headers['Content-Type'], json.loads(body)))
                self.send_response(500 if 'bad' in self.path else 202)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', '2')
                self.end_headers()
                self.wfile.write(b'{}')

            def log_message(self, *_args: object) -> None:
                pass

        self._released = threading.Event()
        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        self.handler = Handler
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={'poll_interval': 0.05}, daemon=True).start()

    def url(self, path: str) -> str:
        return 'http://127.0.0.1:%d/%s' % (self.port, path)

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


class Smtp:
    """Keeps the messages that it takes."""

    def __init__(self) -> None:
        self.received: list[email.message.EmailMessage] = []
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.port = probe.getsockname()[1]
        self._controller = Controller(self, hostname='127.0.0.1', port=self.port)
        self._controller.start()

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        self.received.append(t.cast(email.message.EmailMessage, email.message_from_bytes(envelope.content, policy=email.policy.default)))
        return '250 taken'

    def close(self) -> None:
        self._controller.stop()


class Vendors:
    """An HTTPS proxy that is every host it is asked for, with certificates of an authority of its own, and hands all to *http*."""

    def __init__(self, http_receiver: Http, hosts: t.Sequence[str], directory) -> None:
        authority = trustme.CA()
        self.authority = directory / 'authority.pem'
        authority.cert_pem.write_to_path(str(self.authority))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*hosts).configure_cert(self._context)
        self._http = http_receiver
        self.asked: list[str] = []
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self._listener.accept()
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            head = b''
            while b'\r\n\r\n' not in head:
                head += connection.recv(4096)
            self.asked.append(head.split()[1].decode())
            connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
            with self._context.wrap_socket(connection, server_side=True) as secure:
                self._http.handler(secure, ('127.0.0.1', 0), None)  # type: ignore[arg-type]

    def environment(self) -> dict[str, str]:
        return {'https_proxy': 'http://127.0.0.1:%d' % self.port, 'SSL_CERT_FILE': str(self.authority)}

    def close(self) -> None:
        self._listener.close()
