# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One way to ask a Kubernetes API server: its address, trust and identity from the ``kubernetes`` client, retries and sentences from here.

The package is imported when the first request is made: who uses no cluster needs none. Objects are plain data and kinds are
addressed by path, so that custom resources are no special case. Requests block, so each runs in a thread; all of one cluster
share its connections.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._kube import answers
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ops, Ref

FIELD_MANAGER = 'progressive.delivery'
JSON_PATCH = 'application/json-patch+json'

_AT_ONCE = 8
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount/token'


class ServerClock:
    """The API server's wall clock, from the ``Date`` of its answers, which has whole seconds.

    Each answer bounds the difference to this host's clock from both sides; the bounds of all answers together narrow it, to the
    time that one request takes after a few dozen of them. *wall* is this host's seconds since 1970.
    """

    def __init__(self, wall: t.Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._bounds: tuple[float, float] | None = None

    def saw(self, date_s: float, sent: float, received: float) -> None:
        """Takes an answer's date and when, by this host's clock, it was asked for and came."""
        low, high = date_s - received, date_s + 1.0 - sent
        if self._bounds:
            both = max(low, self._bounds[0]), min(high, self._bounds[1])
            # One of the clocks was set: what was known is worth nothing.
            low, high = both if both[0] <= both[1] else (low, high)
        self._bounds = low, high

    def now(self) -> float:
        """Returns the server's seconds since 1970, at the latest that it can be: a lease is never thought longer than it is."""
        return self._wall() + (self._bounds[1] if self._bounds else 0.0)

    @property
    def precision_s(self) -> float:
        """By how much ``now`` may be ahead."""
        return self._bounds[1] - self._bounds[0] if self._bounds else float('inf')


class Reply(t.NamedTuple):
    """An answer of the server, whatever its status."""

    status: int
    body: bytes
    retry_after_s: float | None


class Transport:
    """The connections to one cluster as one user. Thread-safe."""

    def __init__(self, kubeconfig: str | None, context: str | None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._lock = threading.Lock()
        self._client: t.Any = None
        self.clock = ServerClock()
        self.threads = ThreadPoolExecutor(_AT_ONCE, 'delivery-kube')

    @property
    def name(self) -> str:
        return 'the cluster of %s' % (
            ' '.join(filter(None, ('context "%s"' % self._context if self._context else '',
                                   'in ' + self._kubeconfig if self._kubeconfig and self._context else self._kubeconfig)))
            or 'the default kubeconfig')

    def forget(self) -> None:
        """Reads the kubeconfig anew before the next request: a token there may have been renewed."""
        with self._lock:
            self._client = None

    def send(self, method: str, path: str, body: t.Any, content_type: str | None, timeout_s: float) -> Reply:
        """Sends one request. Raises Unreachable when there is no answer, BadInput when it is not known whom to ask."""
        begun = time.monotonic()
        client = self._opened()
        # The client is loaded with the first request, which takes a second or more of its time.
        timeout_s = max(0.01, timeout_s - (time.monotonic() - begun))
        headers = {'Accept': 'application/json', 'User-Agent': FIELD_MANAGER}
        if content_type:
            headers['Content-Type'] = content_type
        for setting in client.configuration.auth_settings().values():
            if setting['in'] == 'header' and setting['value']:
                headers[setting['key']] = setting['value']
        urllib3 = _urllib3()
        sent = time.time()
        try:
            answer = client.rest_client.pool_manager.request(
                method, client.configuration.host + path, body=None if body is None else json.dumps(body).encode('utf-8'),
                headers=headers, timeout=urllib3.Timeout(total=timeout_s), retries=False)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise Unreachable('%s at %s could not be asked: %s.' % (
                answers.first(self.name), client.configuration.host, answers.reason(exc))) from exc
        date = answer.headers.get('Date')
        if date:
            self.clock.saw(parsedate_to_datetime(date).timestamp(), sent, time.time())
        wait = answer.headers.get('Retry-After')
        return Reply(answer.status, answer.data, float(wait) if wait and wait.isdigit() else None)

    def _opened(self) -> t.Any:
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client

    def _open(self) -> t.Any:
        kubernetes = _kubernetes()
        given = self._kubeconfig or self._context or os.environ.get('KUBECONFIG')
        try:
            if not given and os.path.exists(_SERVICE_ACCOUNT) and not os.path.exists(os.path.expanduser('~/.kube/config')):
                configuration = type.__call__(kubernetes.client.Configuration)
                kubernetes.config.load_incluster_config(client_configuration=configuration)
                return kubernetes.client.ApiClient(configuration)
            # What the files say is not written back: they may be somebody else's.
            return kubernetes.config.new_client_from_config(self._kubeconfig, self._context, persist_config=False)
        except Exception as exc:  # pylint: disable=broad-except
            # Whatever is wrong with the file (YAML, missing keys, certificates that cannot be read), it is the user's to mend.
            raise BadInput('How to reach %s is not known: %s. Set kubeconfig and context of the endpoint.' % (
                self.name, answers.reason(exc))) from exc


class Api:
    """A cluster as one endpoint uses it: every operation takes *deadline* seconds at most, retries included.

    All raise DeliveryError: Unsupported for a kind that the cluster does not serve, Refused for what the server, its admission or
    its permissions refuse, Conflict for an object that is not as it was thought, Unreachable when the deadline passes.
    """

    def __init__(self, transport: Transport, deadline: float) -> None:
        self._transport = transport
        self.deadline = deadline
        self.name = transport.name

    def now(self) -> float:
        """Returns the server's seconds since 1970, as far as an answer has told them."""
        return self._transport.clock.now()

    def within(self, deadline: float) -> 'Api':
        """Returns the same with another deadline."""
        return Api(self._transport, deadline)

    async def get(self, ref: Ref) -> Obj | None:
        """Returns the object, None when it does not exist."""
        return await self._ask('get', ref, 'GET', ref.path)

    async def list(self, ref: Ref, **query: str) -> list[Obj]:
        """Returns the objects of *ref*'s collection; *query* as the API names it: labelSelector, fieldSelector."""
        found = await self._ask('list', ref, 'GET', ref.collection + ('?' + urlencode(query) if query else ''))
        return list((found or {}).get('items') or ())

    async def patch(self, ref: Ref, ops: Ops, subresource: str = '', dry_run: bool = False) -> Obj:
        """Applies a JSON patch and returns the object after it. Raises Conflict when the object is gone or a test fails."""
        return t.cast(Obj, await self._ask('patch', ref, 'PATCH', ref.path + ('/' + subresource if subresource else '') + _query(dry_run),
                                           ops, JSON_PATCH, missing=True))

    async def create(self, ref: Ref, obj: Obj, dry_run: bool = False) -> Obj:
        """Creates the object. Raises Conflict when there is one."""
        return t.cast(Obj, await self._ask('create', ref, 'POST', ref.collection + _query(dry_run), obj, missing=True))

    async def delete(self, ref: Ref, uid: str | None = None, propagation: str = 'Background') -> bool:
        """Deletes the object, only the one of *uid* if given; returns whether there was one."""
        body: Obj = {'apiVersion': 'v1', 'kind': 'DeleteOptions', 'propagationPolicy': propagation}
        if uid:
            body['preconditions'] = {'uid': uid}
        return await self._ask('delete', ref, 'DELETE', ref.path, body) is not None

    async def request(self, method: str, path: str, body: t.Any = None, content_type: str | None = None, dry_run: bool = False) -> t.Any:
        """Sends a plain request and returns the decoded answer, None for an object that does not exist."""
        kind = Ref('', '', path.split('?')[0], '', '')
        return await self._ask(method.lower(), kind, method, path + (_query(True) if dry_run else ''), body, content_type)

    async def forbidden(self, ref: Ref, *verbs: str, subresource: str = '') -> list[str]:
        """Returns those of *verbs* that this user may not use on the object (SelfSubjectAccessReview)."""
        async def denied(verb: str) -> bool:
            attributes = {'verb': verb, 'group': ref.group, 'version': ref.version, 'resource': ref.plural,
                          'subresource': subresource, 'namespace': ref.namespace, 'name': ref.name}
            review = await self.request('POST', '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews', {
                'apiVersion': 'authorization.k8s.io/v1', 'kind': 'SelfSubjectAccessReview', 'spec': {'resourceAttributes': attributes}})
            return not (review or {}).get('status', {}).get('allowed')

        refused = await asyncio.gather(*(denied(verb) for verb in verbs))
        return [verb for verb, no in zip(verbs, refused) if no]

    async def _ask(self, verb: str, ref: Ref, method: str, path: str, body: t.Any = None, content_type: str | None = None,
                   missing: bool = False) -> t.Any:
        """Asks until there is an answer that is one, or the deadline has passed."""
        loop = asyncio.get_running_loop()
        end, pause, renewed = loop.time() + self.deadline * 0.95, _FIRST_PAUSE_S, False
        content_type = content_type or (None if body is None else 'application/json')
        while True:
            failure: DeliveryError
            wait_s = pause
            try:
                reply = await loop.run_in_executor(
                    self._transport.threads, self._transport.send, method, path, body, content_type, max(0.01, end - loop.time()))
            except Unreachable as exc:
                failure = exc
            else:
                if reply.status < 300:
                    return answers.decoded(reply.body)
                error = answers.error(verb, ref, self.name, reply.status, reply.body, missing)
                if error is None:
                    return None
                if reply.status == 401 and not renewed:
                    # A token that another program keeps fresh in the file has a second try.
                    renewed, wait_s = True, 0.0
                    self._transport.forget()
                elif not answers.passing(reply.status):
                    raise error
                failure = error
                wait_s = max(wait_s, reply.retry_after_s or 0.0)
            if loop.time() + wait_s >= end:
                raise failure
            await asyncio.sleep(wait_s)
            pause = min(pause * 2, _LONGEST_PAUSE_S)


def connect(kubeconfig: str | None, context: str | None, deadline: float) -> Api:
    """Returns the cluster; nothing is asked yet."""
    return Api(_transport(kubeconfig, context), deadline)


@functools.lru_cache(maxsize=None)
def _transport(kubeconfig: str | None, context: str | None) -> Transport:
    return Transport(kubeconfig, context)


def _query(dry_run: bool) -> str:
    return '?fieldManager=' + FIELD_MANAGER + ('&dryRun=All' if dry_run else '')


def _kubernetes() -> t.Any:
    try:
        import kubernetes
    except ImportError:
        raise BadInput('Routers of Kubernetes need the Python package "kubernetes" on the host that runs the task: '
                       'install it there with "pip install kubernetes".') from None
    return kubernetes


def _urllib3() -> t.Any:
    import urllib3  # The client stands on it.

    return urllib3
