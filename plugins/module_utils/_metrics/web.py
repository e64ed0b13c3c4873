# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""HTTP requests of the sources that ask a web server: in a thread, with a deadline and a limit.

Ansible's ``open_url`` reads all certificate authorities of the machine for each request, also of plain HTTP: 25 ms of a processor that the
way back may be waiting for. And it installs its opener for the whole process, so that two threads may send with each other's trust.
What it trusts is what is trusted here.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import re
import ssl
import threading
import time
import typing as t
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ansible.module_utils.urls import make_context
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unreachable

BODY_MAX = 16 * 2 ** 20
"""Bytes of an answer that are read at most."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r'[\x20-\x7e\t]{0,4000}')
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,2000}")

ACCESS_OPTIONS = ('headers', 'token', 'username', 'password', 'validate_certs', 'ca_path', 'client_cert', 'client_key', 'use_proxy')
"""Options that every source over HTTP has."""


@dataclass(frozen=True)
class Access:
    """How a web server is asked: identity, trust, proxy."""

    headers: t.Mapping[str, str] = field(default_factory=dict, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    validate_certs: bool = True
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    use_proxy: bool = True


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    ms: float
    """From the start of the request to the last byte that was read."""


def check_url(what: str, value: object) -> str:
    """Returns *value* when it is an http or https URL with a host and without user or password. Raises BadInput."""
    if isinstance(value, str) and _URL.fullmatch(value):
        try:
            parts = urlsplit(value)
            if parts.hostname and '@' not in parts.netloc and (parts.port is None or parts.port):
                return value
        except ValueError:
            pass
    raise BadInput('The %s %r is not usable: write http://host:port/path or https://..., without user, password and blanks.' % (
        what, value))


def read_access(source: str, options: t.Mapping[str, t.Any]) -> Access:
    """Reads ACCESS_OPTIONS out of *options*. Raises BadInput that never repeats a secret."""
    headers = options.get('headers') or {}
    if not isinstance(headers, t.Mapping):
        raise BadInput('The headers of the source "%s" must be a dictionary of names and values.' % source)
    headers = {str(name): str(value) for name, value in headers.items()}
    if options.get('token') and (options.get('username') or options.get('password')):
        raise BadInput('The source "%s" has both a token and a user name or password: give one of them.' % source)
    if bool(options.get('username')) != bool(options.get('password')):
        raise BadInput('The source "%s" needs username and password together.' % source)
    if options.get('token'):
        headers['Authorization'] = 'Bearer %s' % options['token']
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise BadInput('The header %r of the source "%s" cannot be sent: names are tokens, values printable ASCII on one line.' % (
                name, source))
    paths = {}
    for key in ('ca_path', 'client_cert', 'client_key'):
        value = options.get(key)
        if value is not None and (not isinstance(value, str) or not value.startswith('/')):
            raise BadInput('The %s %r of the source "%s" must be an absolute path.' % (key, value, source))
        paths[key] = value
    if paths['client_key'] and not paths['client_cert']:
        raise BadInput('The source "%s" has a client_key without client_cert.' % source)
    flags = {}
    for key in ('validate_certs', 'use_proxy'):
        flags[key] = options.get(key, True)
        if not isinstance(flags[key], bool):
            raise BadInput('The %s of the source "%s" is %r: write true or false.' % (key, source, flags[key]))
    return Access(headers=headers, username=options.get('username'), password=options.get('password'), **paths, **flags)


class Client:
    """Asks web servers with one *access*. Its threads are its own: a server that hangs holds up no other source."""

    def __init__(self, access: Access, at_once: int) -> None:
        self._access = access
        self._at_once = at_once
        self._threads: ThreadPoolExecutor | None = None
        self._openers: dict[tuple[bool, bool], urllib.request.OpenerDirector] = {}
        self._lock = threading.Lock()

    async def fetch(self, url: str, deadline: float, form: bytes | None = None, follow: bool = False, limit: int = BODY_MAX) -> Answer:
        """Sends a GET, or a POST of *form*, and returns what came back, whatever its status, up to *limit* bytes of body.

        Raises Unreachable when there is no answer within *deadline* seconds. At most *at_once* requests run at a time.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._at_once, 'delivery-web')
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._fetch, url, deadline, form, follow, limit)

    def close(self) -> None:
        """Lets go of the threads; requests that still run end at their deadlines."""
        threads, self._threads = self._threads, None
        if threads:
            threads.shutdown(wait=False, cancel_futures=True)

    def _opener(self, url: str, follow: bool) -> urllib.request.OpenerDirector:
        # Only what may speak TLS reads the authorities, once.
        kind = url.lower().startswith('https:') or follow, follow
        with self._lock:
            if kind not in self._openers:
                self._openers[kind] = _opener(self._access, *kind)
            return self._openers[kind]

    def _fetch(self, url: str, deadline: float, form: bytes | None, follow: bool, limit: int) -> Answer:
        begun = time.monotonic()
        try:
            request = urllib.request.Request(url, form, method='GET' if form is None else 'POST', headers=_headers(self._access))
            try:
                reply = self._opener(url, follow).open(request, timeout=deadline)
            except urllib.error.HTTPError as exc:
                reply = exc
            with reply:
                body = b''
                # A server that drips keeps no thread for longer than the deadline.
                while len(body) < limit and time.monotonic() - begun < deadline:
                    part = reply.read1(min(65536, limit - len(body)))
                    if not part:
                        return Answer(reply.code, body, (time.monotonic() - begun) * 1000)
                    body += part
            if len(body) >= limit:
                return Answer(reply.code, body, (time.monotonic() - begun) * 1000)
            raise TimeoutError
        except TimeoutError:
            raise Unreachable('%s did not answer within %g s.' % (_shown(url), deadline)) from None
        except (OSError, http.client.HTTPException, ValueError) as exc:
            cause = getattr(exc, 'reason', None) or exc
            if isinstance(cause, TimeoutError) or 'timed out' in str(cause):
                raise Unreachable('%s did not answer within %g s.' % (_shown(url), deadline)) from None
            untrusted = isinstance(cause, ssl.SSLError) or 'CERTIFICATE' in str(cause).upper()
            hint = ' Check ca_path, or the name in the certificate.' if untrusted else ''
            raise Unreachable('%s could not be asked: %s.%s' % (_shown(url), _reason(cause).rstrip('.'), hint)) from exc


class _Stay(urllib.request.HTTPRedirectHandler):
    """Makes an answer of what leads elsewhere."""

    def redirect_request(self, *_args: t.Any) -> None:
        return None


def _opener(access: Access, secure: bool, follow: bool) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [] if follow else [_Stay()]
    if not access.use_proxy:
        handlers.append(urllib.request.ProxyHandler({}))
    if secure:
        handlers.append(urllib.request.HTTPSHandler(context=make_context(
            cafile=access.ca_path, validate_certs=access.validate_certs, client_cert=access.client_cert, client_key=access.client_key)))
    return urllib.request.build_opener(*handlers)


def _headers(access: Access) -> dict[str, str]:
    basic = {}
    if access.username is not None:
        basic['Authorization'] = 'Basic %s' % base64.b64encode(('%s:%s' % (access.username, access.password)).encode()).decode()
    return {'User-agent': 'progressive.delivery', **basic, **access.headers}


def _reason(cause: object) -> str:
    if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ssl.SSLError):
        return cause.strerror
    return ' '.join(str(cause).split())[:300] or type(cause).__name__


def _shown(url: str) -> str:
    """The URL without its query, which may hold a secret or be long."""
    return url.split('?', 1)[0]
