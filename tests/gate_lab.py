# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service behind a real HAProxy for tests of gates: two arms, the map scheme, a ring, and requests that end by themselves.

    with GateLab() as lab:
        lease = lab.move('50%')
        lab.run(bake=5)      # the task's result, in this process
        lab.to()             # the arm that has all of the traffic, read from HAProxy
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import time

import haproxy_lab as lab

from ansible_collections.progressive.delivery.plugins.module_utils import _gate, _traffic
from ansible_collections.progressive.delivery.plugins.module_utils._display import line
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal, read_journal
from ansible_collections.progressive.delivery.plugins.module_utils._watch import watch

HEAD = '''\
global
    stats socket {socket} level admin mode 600
    stats timeout 10m
    maxconn 2000
    nbthread 2
ring events
    format raw
    maxlen 1024
    size 1048576
defaults
    mode http
    option httplog
    log ring@events local0
    timeout connect 200ms
    timeout client 10s
    timeout server 8s
    retries 2
    option redispatch 1
'''
LINES = '''\
frontend shop
    bind 127.0.0.1:{port}
    http-request set-var(txn.pd)       str(shop),map_str({dir}/delivery.map)
    http-request set-var(txn.pd_point) rand(10000)
    http-request set-var(txn.pd_until) var(txn.pd),field(1,/)
    http-request set-var(txn.pd_b1)    var(txn.pd),field(7,/)
    acl pd_live  date(0,ms),sub(txn.pd_until) lt 0
    acl pd_1     var(txn.pd_point),sub(txn.pd_b1) lt 0
    use_backend %[var(txn.pd),field(6,/)] if pd_live pd_1 {{ var(txn.pd),field(6,/),nbsrv gt 0 }}
    use_backend %[var(txn.pd),field(2,/)] if {{ var(txn.pd),field(2,/),nbsrv gt 0 }}
    default_backend blue
backend blue
    server b1 127.0.0.1:{blue}
backend canary
    default-server check inter 100ms fall 1 rise 1 observe layer4 error-limit 1 on-error mark-down
    server c1 127.0.0.1:{canary}
    server old 127.0.0.1:{blue} backup
'''
ARMS = {'blue': {'backend': 'blue'}, 'canary': {'backend': 'canary'}}
ERRORS = {'name': 'errors', 'metric': 'error_ratio', 'abort_above': '0.5%', 'pass_below': '0.1%'}
LATENCY = {'name': 'latency', 'metric': 'latency_p95', 'abort_above': 300, 'pass_below': 200}
SERVERS = {'name': 'servers', 'metric': 'servers_up_ratio', 'abort_below': 0.5}


class Load:
    """A few requests at a time to *port*, each over a connection of its own, until told to stop or for *seconds*."""

    def __init__(self, port, at_once=6, rate=120.0, seconds=60.0, timeout=3.0):
        self._port, self._pause, self._timeout = port, at_once / rate, timeout
        self._end, self._stop = time.monotonic() + seconds, threading.Event()
        self.bodies: dict[str, int] = {}
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _number in range(at_once)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _run(self):
        while not self._stop.wait(self._pause) and time.monotonic() < self._end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                body = lab.get(self._port, timeout=self._timeout).body
                with self._lock:
                    self.bodies[body] = self.bodies.get(body, 0) + 1


class GateLab:
    """*routers* HAProxy processes before one blue origin; each has a canary origin of its own."""

    def __init__(self, routers=1):
        self._stack = contextlib.ExitStack()
        self._routers = routers

    def __enter__(self):
        self.blue = self._stack.enter_context(lab.Origin('blue'))
        self.canaries = [self._stack.enter_context(lab.Origin('canary')) for _number in range(self._routers)]
        self.proxies = [self._stack.enter_context(lab.HAProxy(
            LINES, head=HEAD, files={'delivery.map': ''}, blue=self.blue.port, canary=canary.port)) for canary in self.canaries]
        self.canary, self.proxy = self.canaries[0], self.proxies[0]
        self.journal = str(self.proxy.dir / 'journal.jsonl')
        return self

    def __exit__(self, *exc):
        self._stack.close()

    @property
    def endpoints(self):
        return [{'name': 'lb%d' % n, 'socket': proxy.address, 'map': str(proxy.dir / 'delivery.map'), 'ring': 'events'}
                for n, proxy in enumerate(self.proxies, 1)]

    def load(self, **options):
        """Requests to every router."""
        stack = contextlib.ExitStack()
        for proxy in self.proxies:
            stack.enter_context(Load(proxy.port, **options))
        return stack

    def move(self, share='50%', lease='10s', rollout='r1', **options):
        """Sets the share of the canary and returns the lease; what the routers had counted by then is in ``counters``."""
        full = {key: spec.get('default') for key, spec in _traffic.TRAFFIC_SPEC.items()}
        full.update(service='shop', arms=ARMS, endpoints=self.endpoints, split={'canary': share}, stable='blue', lease=lease,
                    rollout=rollout, **options)
        result = asyncio.run(_traffic.run(full, False))
        assert result['changed'], result
        self.counters = result['counters']
        return result['lease']

    def options(self, **changes):
        full = {key: spec.get('default') for key, spec in _gate.ARGUMENT_SPEC.items()}
        full.update(service='shop', arms=ARMS, endpoints=self.endpoints, candidate='canary', stable='blue', bake=3, interval=0.5,
                    conditions=[ERRORS, LATENCY, SERVERS], journal=self.journal, rollout='r1')
        full.update(changes)
        return full

    def run(self, **changes):
        """Runs a gate in this process and returns its result; what it showed is in ``lines``."""
        options = self.options(**changes)
        self.lines = []
        return asyncio.run(watch(_gate.read_gate(options), Journal(options['journal'], options['rollout']),
                                 lambda shown: self.lines.append(shown if isinstance(shown, str) else line(shown)), self.lines.append))

    def events(self, event=None):
        return [one for one in read_journal(self.journal) if event in (None, one['event'])]

    def entry(self, proxy=None):
        """The map's entry as fields: until, stable, key, match, record, arms and bounds."""
        proxy = proxy or self.proxy
        reply = proxy.ask('show map %s' % (proxy.dir / 'delivery.map'))
        return reply.split(None, 2)[2].split('/') if reply else []

    def to(self):
        """The arm that all routers send all of the traffic to, None when one of them does not or they differ."""
        entries = [self.entry(proxy) for proxy in self.proxies]
        arms = {entry[1] if len(entry) == 5 and entry[3] == '-' else None for entry in entries}
        return arms.pop() if len(arms) == 1 else None

    def dump(self, **changes):
        """The options as JSON, for a playbook."""
        return json.dumps({key: value for key, value in self.options(**changes).items() if value is not None})
