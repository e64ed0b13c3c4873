# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A dead man's switch in the cluster: a program that sends the stored way back when nobody renews a Lease.

It runs alone, with the standard library: ``python3 -c SOURCE LEASE_PATH CHARGE``. All it knows is in the Lease: who holds it, for how
long, and in annotations the requests to send. Time is counted on its own clock, from the moment it saw ``renewTime`` change, so
that no two clocks are ever compared. Before it acts it marks the Lease as expired, on the condition that nobody has changed it
since it was read: a renewal and an expiry cannot both happen. As long as requests fail it goes on sending them.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import math
import os
import re
import signal
import ssl
import sys
import time
import typing as t
from urllib.parse import quote, urlsplit

PREFIX = 'progressive.delivery/'
STATE = PREFIX + 'state'
ARMED, EXPIRED, RETURNED, RELEASED = 'armed', 'expired', 'returned', 'released'
"""A share may be in force; the time ran out and the way back is being sent; it was sent; nothing is held any more."""
JOB = PREFIX + 'job'
CHARGE = PREFIX + 'charge'
WAY_BACK = PREFIX + 'way-back'
PROVEN = PREFIX + 'proven'
PROBLEM = PREFIX + 'problem'
NOTE = PREFIX + 'note'
"""Annotations: the Job in charge; what that Job alone was told, since one of the same name may have been there before and its pod still
be; what to send (JSON); the digest of what the Job has shown that it may send; the digest, and why it
may not; what the Job did, or why it could not so far."""

END, PROVE, WAIT, EXPIRE, ACT, READ = 'end', 'prove', 'wait', 'expire', 'act', 'read'

# Between the words of a record; those of rollouts' names are `_names.check_token`'s.
_NO_TOKEN = re.compile('[^A-Za-z0-9_.:@+~-]+')
_SECRETS = '/var/run/secrets/kubernetes.io/serviceaccount/'
_REQUEST_S = 5.0
_POLL_S = 1.0
_PAUSE_S = 0.2
_PAUSE_MAX_S = 5.0
_PROOFS = 4
_NOTES = 5
_REPLY_MAX = 2 ** 22


def digest(charge: str, holder: str, way_back: str) -> str:
    """Returns what tells one way back of one rollout from another, and who can send it."""
    return hashlib.sha256(('%s\n%s\n%s' % (charge, holder, way_back)).encode('utf-8')).hexdigest()[:32]


def pointed(document: t.Any, pointer: str) -> t.Any:
    """Returns what a JSON pointer (RFC 6901) leads to; None when there is nothing."""
    for part in pointer.split('/')[1:]:
        part = part.replace('~1', '/').replace('~0', '~')
        if isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        elif isinstance(document, dict):
            document = document.get(part)
        else:
            return None
    return document


class Switch:
    """What is known of the Lease, and what follows from it. Pure: times are passed in, seconds of one steady clock."""

    def __init__(self, charge: str) -> None:
        self.charge = charge
        self.lease: dict[str, t.Any] | None = None
        self.deadline = math.inf
        self.missing = False
        self._renewed: t.Any = None

    def see(self, lease: dict[str, t.Any] | None, now: float) -> None:
        """Takes in the Lease as it was just read; None when there is none."""
        self.missing = lease is None
        if lease is None:
            return
        spec = lease.get('spec') or {}
        renewed = (spec.get('holderIdentity'), spec.get('renewTime'), spec.get('leaseDurationSeconds'))
        if renewed != self._renewed:
            self._renewed, self.deadline = renewed, now + float(spec.get('leaseDurationSeconds') or 0)
        self.lease = lease

    def annotation(self, name: str) -> str:
        return str(((self.lease or {}).get('metadata', {}).get('annotations') or {}).get(name) or '')

    @property
    def digest(self) -> str:
        return digest(self.charge, ((self.lease or {}).get('spec') or {}).get('holderIdentity') or '', self.annotation(WAY_BACK))

    @property
    def plan(self) -> dict[str, t.Any]:
        """What to send: ``{requests: [{method, path, content_type, body}], guard: {path, pointer, holds} or None}``.

        The guard says that the object at *path* still is the rollout's when what *pointer* leads to has the word *holds*.
        """
        return json.loads(self.annotation(WAY_BACK))

    def next(self, now: float) -> str:
        """Returns what is to be done now."""
        if self.lease is None:
            # It was there before the Job was.
            return END if self.missing else WAIT
        state = self.annotation(STATE)
        if state in (RELEASED, RETURNED) or self.annotation(CHARGE) != self.charge:
            return END
        if state == EXPIRED:
            return ACT
        if now >= self.deadline:
            # One that was deleted by hand is no reason to let the candidate stay; who releases it takes our permissions first.
            return ACT if self.missing else EXPIRE
        if not self.missing and self.digest not in (self.annotation(PROVEN), self.annotation(PROBLEM).split(' ', 1)[0]):
            return PROVE
        return WAIT


class Api:
    """The API server, with the token of the pod. Raises OSError or HTTPException when there is no answer."""

    def __init__(self, url: str, token: str, ca: str) -> None:
        self._url, self._token, self._ca = urlsplit(url), token, ca

    def _send(self, timeout: float, method: str, path: str, body: t.Any = None, content_type: str | None = None) -> t.Any:
        if self._url.scheme == 'https':
            # Both files may be replaced at any time, so they are read each time.
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._url.netloc, timeout=timeout, context=ssl.create_default_context(cafile=self._ca))
        else:
            connection = http.client.HTTPConnection(self._url.netloc, timeout=timeout)
        headers = {'Accept': 'application/json', 'User-Agent': 'progressive.delivery'}
        with open(self._token, encoding='ascii') as file:
            headers['Authorization'] = 'Bearer ' + file.read().strip()
        if body is not None:
            headers['Content-Type'] = content_type or 'application/json'
        connection.request(method, path, body if body is None else json.dumps(body).encode('utf-8'), headers)
        return connection, connection.getresponse()

    def request(self, method: str, path: str, body: t.Any = None, content_type: str | None = None) -> tuple[int, dict[str, t.Any]]:
        """Returns the status and the object of the answer."""
        connection, response = self._send(_REQUEST_S, method, path, body, content_type)
        with contextlib.closing(connection):
            text = response.read(_REPLY_MAX)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        return response.status, found if isinstance(found, dict) else {'message': text[:200].decode('utf-8', 'replace')}

    def changed(self, path: str, version: str, seconds: float) -> dict[str, t.Any] | None:
        """Waits until the object is not the one of *version* any more and returns the new one; None when nothing is heard of one."""
        collection, name = path.rsplit('/', 1)
        begun = time.monotonic()
        query = 'watch=1&fieldSelector=%s&resourceVersion=%s&timeoutSeconds=%d' % (
            quote('metadata.name=' + name), quote(version), math.ceil(seconds))
        connection, response = self._send(min(seconds, _REQUEST_S), 'GET', '%s?%s' % (collection, query))
        with contextlib.closing(connection):
            if response.status != 200:
                return None
            connection.sock.settimeout(max(seconds - (time.monotonic() - begun), 0.01))
            line = response.readline(_REPLY_MAX)
        event = json.loads(line) if line else {}
        return event['object'] if event.get('type') == 'MODIFIED' else None


def told(status: int, answer: dict[str, t.Any]) -> str:
    return '%s (%d)' % (' '.join(str(answer.get('message') or 'no reason given').split())[:400], status)


def _annotation(name: str) -> str:
    return '/metadata/annotations/' + name.replace('~', '~0').replace('/', '~1')


def _test_failed(status: int, answer: dict[str, t.Any]) -> bool:
    """Whether a JSON patch does not fit the object as it is (a ``test`` of it). An object that would be invalid is named in the message."""
    return status == 422 and ' is invalid' not in str(answer.get('message'))


def prove(api: t.Any, plan: dict[str, t.Any]) -> str:
    """Sends the way back without letting it take effect; returns why it could not be sent, '' when it could.

    Permissions are checked before the object is looked at: that it is not there yet, or not yet this rollout's, shows the same.
    """
    guard = plan.get('guard')
    if guard:
        status, answer = api.request('GET', guard['path'])
        if status not in (200, 404):
            return 'reading %s: %s' % (guard['path'], told(status, answer))
    for one in plan['requests']:
        path, body = one['path'] + ('&' if '?' in one['path'] else '?') + 'dryRun=All', one.get('body')
        if one['method'] == 'DELETE':
            # A DELETE that has a body is judged by the options in it; those of its address are not looked at then.
            body = dict(body or {}, dryRun=['All'])
        status, answer = api.request(one['method'], path, body, one.get('content_type'))
        if not (200 <= status < 300 or status in (404, 409) or _test_failed(status, answer)):
            return '%s %s: %s' % (one['method'], one['path'], told(status, answer))
    return ''


def take_back(api: t.Any, plan: dict[str, t.Any]) -> tuple[bool, str]:
    """Sends the way back; returns whether nothing is left to do, and what happened in words."""
    guard = plan.get('guard')
    if guard:
        status, answer = api.request('GET', guard['path'])
        if status == 404:
            return True, 'left alone: %s is not there any more' % guard['path']
        if status != 200:
            return False, 'reading %s: %s' % (guard['path'], told(status, answer))
        if guard['holds'] not in _NO_TOKEN.split(str(pointed(answer, guard['pointer']) or '')):
            return True, 'left alone: %s does not belong to %s any more' % (guard['path'], guard['holds'])
    alone = []
    for one in plan['requests']:
        status, answer = api.request(one['method'], one['path'], one.get('body'), one.get('content_type'))
        if status == 404 or (_test_failed(status, answer) and not guard):
            alone.append('%s: %s' % (one['path'], told(status, answer)))
        elif not 200 <= status < 300:
            return False, '%s %s: %s' % (one['method'], one['path'], told(status, answer))
    if len(alone) == len(plan['requests']):
        return True, 'left alone: ' + '; '.join(alone)
    return True, 'returned to stable' + (', but not %s' % '; '.join(alone) if alone else '')


class Holder:
    """Holds the Lease at *path* until it is over, one way or the other. *clock* gives steady seconds, *pause* lets them pass."""

    def __init__(self, api: t.Any, path: str, charge: str, clock: t.Callable[[], float], pause: t.Callable[[float], None]) -> None:
        self.api, self.path, self.clock, self.pause = api, path, clock, pause
        self.switch = Switch(charge)
        self.said = ''
        self._failed = 0
        self._proofs = 0
        self._heard = False

    def hold(self) -> int:
        """Returns an exit code: 0, whatever happened, because a Job that failed would be started again."""
        while True:
            try:
                done = self._step()
            except Exception as exc:  # pylint: disable=broad-except
                # No answer, or one that nobody thought of: neither is a reason to let go.
                done = self._again(str(exc) or type(exc).__name__)
            if done:
                return 0

    def _again(self, why: str) -> bool:
        self._failed += 1
        self.say(why)
        left = self.switch.deadline - self.clock()
        self.pause(min(_PAUSE_S * self._failed, _PAUSE_MAX_S, max(left, 0.05) if left > 0 else _PAUSE_MAX_S))
        return False

    def say(self, text: str) -> None:
        """For the pod's log; each thing once."""
        if text != self.said:
            self.said = text
            sys.stdout.write(text + '\n')
            sys.stdout.flush()

    def _step(self) -> bool:
        if self._heard:
            self._heard, status, answer = False, 200, {}
        else:
            status, answer = self.api.request('GET', self.path)
            if status in (200, 404):
                self.switch.see(answer if status == 200 else None, self.clock())
        todo = self.switch.next(self.clock())
        if todo == END:
            self.say('nothing is held any more')
            return True
        if todo == EXPIRE:
            todo = self._expire()
        if todo == ACT:
            return self._act()
        if status not in (200, 404):
            return self._again('reading %s: %s' % (self.path, told(status, answer)))
        if todo == PROVE:
            return self._prove()
        if todo == WAIT:
            self._failed = 0
            self._wait()
        return False

    def _wait(self) -> None:
        left = self.switch.deadline - self.clock()
        heard = None
        if not self.switch.missing and left > 0:
            self.say('holding until nobody renews')
            try:
                heard = self.api.changed(self.path, self.switch.lease['metadata']['resourceVersion'], left)
            except (OSError, http.client.HTTPException, ValueError):
                # No answer, or nothing to hear until the deadline.
                heard = None
        if heard:
            # What it says is taken as it came: who releases the Lease takes the right to read it a moment later.
            self.switch.see(heard, self.clock())
            self._heard = True
            return
        left = self.switch.deadline - self.clock()
        if left > 0:
            self.pause(min(_POLL_S, left))

    def _expire(self) -> str:
        """Marks the Lease, unless somebody has changed it meanwhile."""
        metadata = self.switch.lease['metadata']
        status, answer = self.api.request(
            'PATCH', self.path, {'metadata': {'resourceVersion': metadata['resourceVersion'], 'annotations': {STATE: EXPIRED}}},
            'application/merge-patch+json')
        if status == 409:
            return READ
        if status == 200:
            self.switch.see(answer, self.clock())
        # What cannot be marked is acted upon all the same.
        return ACT

    def _act(self) -> bool:
        done, text = take_back(self.api, self.switch.plan)
        if not done:
            if text != self.said:
                self._note({NOTE: text}, 1)
            return self._again(text)
        self.say(text)
        self._note({STATE: RETURNED, NOTE: '%s %s' % (time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()), text)}, _NOTES)
        return True

    def _prove(self) -> bool:
        problem = prove(self.api, self.switch.plan)
        self._proofs += 1
        if problem and self._proofs < _PROOFS:
            # Permissions that were granted a moment ago may not have reached every API server.
            return self._again('the way back could not be sent: ' + problem)
        self._proofs = self._failed = 0
        own = self.switch.digest
        self._note({PROVEN: own, PROBLEM: ''} if not problem else {PROVEN: '', PROBLEM: '%s %s' % (own, problem)}, 1)
        return False

    def _note(self, annotations: dict[str, str], tries: int) -> None:
        """Writes annotations of the Lease, for whoever reads it, as long as it is ours."""
        ops = [{'op': 'test', 'path': _annotation(CHARGE), 'value': self.switch.charge}]
        ops += [{'op': 'add', 'path': _annotation(name), 'value': text} for name, text in annotations.items()]
        for number in range(tries):
            try:
                status, answer = self.api.request('PATCH', self.path, ops, 'application/json-patch+json')
                if status in (200, 404) or _test_failed(status, answer):
                    return
                self.say('writing to %s: %s' % (self.path, told(status, answer)))
            except (OSError, http.client.HTTPException) as exc:
                self.say(str(exc) or type(exc).__name__)
            if number + 1 < tries:
                self.pause(_POLL_S)


def now_s() -> float:
    """Returns seconds since boot, suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _stop(_number: int, _frame: t.Any) -> None:
    # The first process of a container ends by no signal that it does not handle. Not 0: elsewhere it is to be started again.
    raise SystemExit(143)


def main(arguments: list[str]) -> int:
    """``LEASE_PATH CHARGE [URL TOKEN_FILE CA_FILE]``: the last three are those of the pod when they are left out."""
    signal.signal(signal.SIGTERM, _stop)
    if len(arguments) > 2:
        api = Api(*arguments[2:5])
    else:
        host = os.environ['KUBERNETES_SERVICE_HOST']
        api = Api('https://%s:%s' % ('[%s]' % host if ':' in host else host, os.environ.get('KUBERNETES_SERVICE_PORT', '443')),
                  _SECRETS + 'token', _SECRETS + 'ca.crt')
    return Holder(api, arguments[0], arguments[1], now_s, time.sleep).hold()


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
