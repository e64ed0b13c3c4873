# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
import time

import haproxy_lab as lab
import pytest

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Refused
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import COUNTS, GAUGE, LATENCIES, add_up
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.haproxy import HaproxySource
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import parse_arms, parse_endpoints

HEAD = '''\
global
    stats socket {socket} level admin mode 600
    stats timeout {stats_timeout}
    maxconn 2000
    nbthread 2
ring events
    format rfc3164
    maxlen 1024
    size {ring_size}
defaults
    mode http
    option httplog
    log ring@events local0
    timeout connect 200ms
    timeout client 10s
    timeout server {server_timeout}
    timeout queue 300ms
    retries 2
    option redispatch 1
'''
LINES = '''\
frontend shop
    bind 127.0.0.1:{port}
    use_backend canary if {{ path_beg /canary }}
    use_backend dead if {{ path_beg /dead }}
    use_backend tight if {{ path_beg /tight }}
    use_backend flaky if {{ path_beg /flaky }}
    default_backend blue
backend blue
    server b1 127.0.0.1:{blue}
backend canary
    server c1 127.0.0.1:{canary}
    server old 127.0.0.1:{blue} backup
backend dead
    server d1 127.0.0.1:{closed}
    server d2 127.0.0.1:{blue}
    server old 127.0.0.1:{blue} backup
backend tight
    server t1 127.0.0.1:{canary} maxconn 1
backend flaky
    retry-on 503
    server f1 127.0.0.1:{canary}
'''
ARMS = {'blue': {}, 'canary': {}}


@contextlib.contextmanager
def running(server_timeout='10s', stats_timeout='60s', ring_size=262144):
    with lab.Origin('blue') as blue, lab.Origin('canary') as canary:
        with lab.HAProxy(LINES, head=HEAD, blue=blue.port, canary=canary.port, closed=lab.free_port(), server_timeout=server_timeout,
                         stats_timeout=stats_timeout, ring_size=ring_size) as proxy:
            yield proxy, blue, canary


def source(*proxies, arms=None, ring='events', deadline=2, **endpoint):
    common = {'map': '/x', 'ring': ring, 'deadline': deadline, **endpoint}
    endpoints = parse_endpoints([{'name': 'lb%d' % n, 'socket': proxy.address, **common} for n, proxy in enumerate(proxies, 1)])
    return HaproxySource('router', endpoints, lambda one: parse_arms(arms or ARMS, one))


class Watching:
    """A source that is polled in an event loop of its own, so that tests can block."""

    def __init__(self, source):
        self.source, self.loop = source, asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def __enter__(self):
        self.do(self.source.open())
        self.poll()
        return self

    def __exit__(self, *exc):
        self.do(self.source.close())
        self.loop.call_soon_threadsafe(self.loop.stop)

    def do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def poll(self):
        self.reading = self.do(self.source.poll(time.monotonic()))
        return self.reading

    def block(self, arm, metric='requests', poll=True, **wanted):
        reading = self.poll() if poll else self.reading
        return add_up(block for block in reading.blocks if block.arm == arm and block.metric == metric)

    def until(self, condition, what):
        """Polls until *condition*(all blocks so far) and returns them."""
        blocks = []

        def more():
            blocks.extend(self.poll().blocks)
            return condition(blocks)

        lab.wait_for(more, what)
        return blocks


def total(blocks, arm, metric='requests'):
    return add_up(block for block in blocks if block.arm == arm and block.metric == metric)


@contextlib.contextmanager
def observed(server_timeout='10s', stats_timeout='60s', **options):
    """A process, its two origins, and a watch of it."""
    with running(server_timeout, stats_timeout) as (proxy, blue, canary):
        with Watching(source(proxy, **options)) as watch:
            yield proxy, blue, canary, watch


@contextlib.contextmanager
def observed_two(**options):
    """Two processes with origins of their own, the second one's canary, and one watch of both."""
    with running() as (one, _b, _c), running() as (two, _b2, canary2):
        with Watching(source(one, two, **options)) as watch:
            yield one, two, canary2, watch


def test_counts_requests_failures_and_exact_latencies_per_arm():
    with observed() as (proxy, _blue, canary, watch):
        lab.tally(proxy.port, 30)
        canary.delay = 0.05
        for _i in range(3):
            assert lab.get(proxy.port, '/canary').status == 200
        canary.delay, canary.status = 0, 500
        for _i in range(2):
            assert lab.get(proxy.port, '/canary').status == 500
        blocks = watch.until(lambda got: [len(total(got, arm).latencies_ms) for arm in ('canary', 'blue')] == [5, 30], 'all events')
        blue, canary_block = total(blocks, 'blue'), total(blocks, 'canary')
        assert (blue.requests, blue.bad) == (30, 0)
        assert (canary_block.requests, canary_block.bad) == (5, 2)
        assert sum(50 <= ms < 500 for ms in canary_block.latencies_ms) == 3
        assert canary_block.waiting == () and canary_block.gave_up_ms == ()
        assert {block.endpoint for block in blocks} == {'lb1'}


def test_offers_latencies_only_with_a_ring():
    with running() as (proxy, _blue, _canary):
        with_ring, without = source(proxy).metrics, source(proxy, ring=None).metrics
    assert with_ring['latency'] == LATENCIES and 'latency' not in without
    assert with_ring['requests'] == with_ring['attempts'] == COUNTS and with_ring['servers_up_ratio'] == GAUGE


def test_first_poll_has_gauges_and_no_blocks_and_what_was_before_is_not_counted():
    with running() as (proxy, _blue, _canary):
        lab.tally(proxy.port, 50)
        with Watching(source(proxy)) as watch:
            assert watch.reading.blocks == ()
            assert watch.reading.gauges['servers_up', 'blue'] == 1
            lab.tally(proxy.port, 7)
            blocks = watch.until(lambda got: len(total(got, 'blue').latencies_ms) >= 7, '7 events')
            assert total(blocks, 'blue').requests == len(total(blocks, 'blue').latencies_ms) == 7


def test_two_endpoints_stay_apart_and_add_up():
    with observed_two() as (one, two, canary2, watch):
        canary2.status = 503
        for _i in range(4):
            lab.get(one.port, '/canary')
            lab.get(two.port, '/canary')
        reading = watch.poll()
        each = {block.endpoint: (block.requests, block.bad) for block in reading.blocks
                if (block.arm, block.metric) == ('canary', 'requests')}
        assert each == {'lb1': (4, 0), 'lb2': (4, 4)}
        assert total(reading.blocks, 'canary').bad == 4 and total(reading.blocks, 'canary').requests == 8


def test_an_endpoint_that_hangs_is_an_error_and_the_other_still_counts():
    with observed_two(deadline=0.3) as (one, two, _canary2, watch):
        two.freeze()
        lab.tally(one.port, 5)
        reading = watch.poll()
        assert [error for error in reading.errors if two.address in error and 'did not answer' in error]
        assert {block.endpoint for block in reading.blocks} == {'lb1'} and total(reading.blocks, 'blue').requests == 5
        two.thaw()
        lab.tally(two.port, 3)
        assert {block.endpoint for block in watch.poll().blocks} == {'lb1', 'lb2'}
        assert not watch.reading.errors


def test_an_endpoint_that_is_down_at_first_counts_from_when_it_answers():
    with running() as (proxy, _b, _c):
        proxy.stop()
        with Watching(source(proxy, deadline=0.3)) as watch:
            assert watch.reading.errors and watch.reading.blocks == ()
            with contextlib.suppress(FileNotFoundError):
                proxy.config.parent.joinpath('admin.sock').unlink()
            proxy.start()
            lab.tally(proxy.port, 3)
            assert watch.poll().blocks == ()
            lab.wait_for(lambda: not watch.poll().errors, 'the ring to be followed')
            lab.tally(proxy.port, 4)
            blocks = watch.until(lambda got: got and total(got, 'blue').requests >= 4, '4 requests')
            assert total(blocks, 'blue').requests == 4


def test_reload_counts_the_new_process_from_zero_and_says_so():
    with observed() as (proxy, _b, canary, watch):
        lab.tally(proxy.port, 20)
        for _i in range(5):
            lab.get(proxy.port, '/canary')
        watch.poll()
        before = time.monotonic()
        proxy.reload()
        lab.tally(proxy.port, 30)
        watch.poll()
        assert total(watch.reading.blocks, 'blue').requests == 30
        assert [note for note in watch.reading.notes if 'reloaded' in note]
        # Nobody waits since before the reload, although the old process had begun many more requests.
        canary.silent = True
        client = _raw(proxy, '/canary')
        lab.wait_for(lambda: watch.poll().gauges['sessions', 'canary'] == 1, 'the request to wait')
        assert not [block for block in watch.reading.blocks if block.waiting_over((time.monotonic() - before) * 1000)]
        client.close()
        # The ring is followed again, and its events are the new process's.
        lab.wait_for(lambda: (lab.get(proxy.port), watch.block('blue').latencies_ms)[1], 'events of the new process')


def test_soft_reload_leaves_the_old_process_for_the_new_one():
    """The old process stays as long as somebody follows its ring, and would never log again."""
    with observed() as (proxy, _b, _c, watch):
        lab.tally(proxy.port, 20)
        watch.until(lambda got: len(total(got, 'blue').latencies_ms) == 20, 'the events of the old process')
        old = proxy.pid
        new = subprocess.Popen([lab.HAPROXY, '-db', '-f', str(proxy.config), '-sf', str(old)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            lab.wait_for(lambda: 'Pid: %d\n' % new.pid in proxy.ask('show info'), 'the new process')
            # Until then both listen, and the old one may get the connection.
            lab.wait_for(lambda: 'Proxy shop stopped' in (proxy.dir / 'haproxy.log').read_text(), 'the old process to stop listening')
            assert proxy._process.poll() is None, 'the followed ring holds the old process'
            lab.tally(proxy.port, 30)
            blocks = watch.until(lambda got: len(total(got, 'blue').latencies_ms) == 30, 'the events of the new process')
            assert total(blocks, 'blue').requests == 30
            lab.wait_for(lambda: proxy._process.poll() is not None, 'the old process to end')
            assert len(watch.block('blue').latencies_ms) == 0
        finally:
            new.kill()
            new.wait(10)


def test_cleared_counters_are_counted_from_zero():
    with observed() as (proxy, _b, _c, watch):
        lab.tally(proxy.port, 20)
        watch.poll()
        assert proxy.ask('clear counters all') == ''
        lab.tally(proxy.port, 6)
        assert watch.block('blue').requests == 6


def test_a_server_that_comes_and_goes():
    arms = {'blue': {}, 'canary': {}}
    with observed(arms=arms) as (proxy, blue, _c, watch):
        assert 'New server' in proxy.ask('add server blue/b2 127.0.0.1:%d' % blue.port)
        proxy.ask('enable server blue/b2')
        lab.tally(proxy.port, 10)
        watch.poll()
        assert watch.reading.gauges['servers_total', 'blue'] == 2
        assert total(watch.reading.blocks, 'blue').requests == 10
        proxy.ask('set server blue/b2 state maint')
        lab.wait_for(lambda: 'Server deleted' in proxy.ask('del server blue/b2'), 'the server to go')
        lab.tally(proxy.port, 3)
        watch.poll()
        assert watch.reading.gauges['servers_total', 'blue'] == 1
        assert total(watch.reading.blocks, 'blue').requests == 3


def test_redispatch_is_a_bad_attempt_and_no_failed_request():
    with observed(arms={'blue': {}, 'dead': {}}) as (proxy, _b, _c, watch):
        for _i in range(8):
            assert lab.get(proxy.port, '/dead').body == 'blue'
        reading = watch.poll()
        assert (total(reading.blocks, 'dead').requests, total(reading.blocks, 'dead').bad) == (8, 0)
        attempts = total(reading.blocks, 'dead', 'attempts')
        assert attempts.requests - attempts.bad == 8 and attempts.bad == reading.gauges['redispatches', 'dead'] >= 4
        # A backup is another arm's server, not an instance of this one.
        assert reading.gauges['servers_total', 'dead'] == 2


def test_requests_that_found_no_server_are_failures_of_the_arm():
    with observed(arms={'blue': {}, 'tight': {}}) as (proxy, _b, canary, watch):
        canary.delay = 0.8
        first = threading.Thread(target=lab.get, args=(proxy.port, '/tight'))
        first.start()
        lab.wait_for(lambda: canary.hits == 1, 'the first request to arrive')
        assert lab.get(proxy.port, '/tight').status == 503
        first.join()
        blocks = watch.until(lambda got: total(got, 'tight').requests >= 2 and len(total(got, 'tight').latencies_ms) >= 2, 'both requests')
        block = total(blocks, 'tight')
        assert (block.requests, block.bad) == (2, 1)
        assert sorted(ms >= 700 for ms in block.latencies_ms) == [False, True] and min(block.latencies_ms) >= 250


def _raw(proxy, path, headers=''):
    client = socket.create_connection(('127.0.0.1', proxy.port), timeout=5)
    client.sendall(('GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n' % (path, headers)).encode())
    return client


def test_silence_is_seen_as_waiting_before_any_timeout_and_as_failures_after_it():
    with observed(server_timeout='2500ms') as (proxy, _b, canary, watch):
        canary.silent = True
        clients = [_raw(proxy, '/canary') for _i in range(5)]
        lab.wait_for(lambda: canary.hits == 5, 'the requests to arrive')
        watch.poll()
        silent = watch.until(lambda got: total(got, 'canary').waiting_over(300), 'waiting requests')
        block = total(silent, 'canary')
        assert block.waiting_over(300) == 5 and block.requests == 0
        blocks = watch.until(lambda got: total(got, 'canary').bad == 5 and len(total(got, 'canary').latencies_ms) == 5, 'the time-outs')
        # HAProxy's timers count whole milliseconds of a clock that it looks at once a round.
        assert total(blocks, 'canary').requests == 5 and min(total(blocks, 'canary').latencies_ms) >= 2490
        assert watch.block('canary').waiting == ()
        for client in clients:
            client.close()


def test_waiting_is_exact_among_fast_requests_with_the_ring_and_a_lower_bound_without():
    with observed() as (proxy, _b, canary, exact), contextlib.ExitStack() as stack:
        bound = stack.enter_context(Watching(source(proxy, ring=None)))
        canary.silent = True
        clients = [_raw(proxy, '/canary') for _i in range(3)]
        lab.wait_for(lambda: canary.hits == 3, 'the requests to arrive')
        canary.silent = False
        exact.poll()
        bound.poll()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            lab.get(proxy.port, '/canary')
        lab.wait_for(lambda: exact.block('canary').waiting_over(400) == 3, 'the three that wait')
        assert exact.block('canary').waiting_over(400) == 3
        assert bound.block('canary').waiting_over(400) == 0
        for client in clients:
            client.close()


def test_waiting_does_not_creep_up_with_aborts_retries_and_errors():
    arms = {name: {} for name in ('blue', 'canary', 'dead', 'tight', 'flaky')}
    with observed(server_timeout='50ms', arms=arms) as (proxy, _b, canary, watch):
        for turn in range(40):
            canary.status, canary.silent, canary.delay = (503 if turn % 4 == 0 else 200), turn % 4 == 1, 0.01 * (turn % 4 == 2)
            for path in ('/canary', '/flaky', '/tight', '/dead'):
                client = _raw(proxy, path)
                if turn % 2:
                    client.recv(1000)
                client.close()
            watch.poll()
        canary.silent = False
        lab.wait_for(lambda: all(block.waiting == () for block in watch.poll().blocks), 'nobody to wait')
        lab.wait_for(lambda: all(watch.reading.gauges['sessions', arm] == 0 for arm in arms), 'no sessions')


def test_idle_ring_connection_is_renewed_without_loss():
    """'stats timeout' ends a connection that has no events; what happens meanwhile is still in the ring."""
    with observed(stats_timeout='300ms') as (proxy, _b, _c, watch):
        sent, latencies, notes, end = 0, [], [], time.monotonic() + 2.5
        while time.monotonic() < end:
            for _i in range(3):
                lab.get(proxy.port)
                sent += 1
            time.sleep(0.28 + 0.013 * (sent % 5))
            latencies += watch.block('blue').latencies_ms
            notes += watch.reading.notes
        watch.until(lambda got: len(latencies) + len(total(got, 'blue').latencies_ms) == sent, 'all %d events' % sent)
        assert not notes and not watch.poll().errors


def test_what_cannot_work_is_said_at_open():
    with running() as (proxy, _b, _c):
        for arms, ring, words in (({'blue': {}, 'green': {}}, 'events', 'no backend "green"'),
                                  ({'blue': {'servers': ['b1', 'b9']}}, 'events', 'no server "b9"'),
                                  (ARMS, 'nothing', 'no ring "nothing"')):
            watched = source(proxy, arms=arms, ring=ring)

            async def attempt(watched=watched):
                try:
                    await watched.open()
                finally:
                    await watched.close()

            with pytest.raises(BadInput, match=words):
                asyncio.run(attempt())


def test_arms_of_one_backend_must_name_their_servers():
    with running() as (proxy, _b, _c):
        with pytest.raises(BadInput, match='share the backend "blue"'):
            source(proxy, arms={'blue': {}, 'other': {'backend': 'blue', 'servers': ['b1']}})
        with pytest.raises(BadInput, match='"b1" in one of them only'):
            source(proxy, arms={'blue': {'servers': ['b1']}, 'other': {'backend': 'blue', 'servers': ['b1']}})


def test_a_frontend_that_does_not_log_is_named():
    with running() as (proxy, _b, _c):
        quiet = proxy.config.read_text().replace('log ring@events local0', '')
        proxy.config.write_text(quiet)
        proxy.reload()
        with Watching(source(proxy)) as watch:
            lab.tally(proxy.port, 60)
            # A follower that is late on a busy machine is given a while first.
            assert not watch.poll().errors
            lab.wait_for(lambda: any('logged none of them' in error for error in watch.poll().errors), 'the sentence')


def test_client_that_leaves_is_neither_good_nor_bad_but_its_wait_is_kept():
    with observed() as (proxy, _b, canary, watch):
        canary.silent = True
        # HAProxy 2.6 only notices that a client has left while it still expects something of it.
        client = _raw(proxy, '/canary', 'Content-Length: 10\r\n')
        lab.wait_for(lambda: watch.poll().gauges['sessions', 'canary'] == 1 and canary.hits == 1, 'the request to arrive')
        client.close()
        blocks = watch.until(lambda got: total(got, 'canary').gave_up_ms, 'the abort')
        block = total(blocks, 'canary')
        assert (block.requests, block.bad, block.latencies_ms, len(block.gave_up_ms)) == (0, 0, (), 1)
        assert watch.poll().gauges['sessions', 'canary'] == 0


def test_counters_need_no_rights_and_the_ring_needs_an_operator():
    with running() as (proxy, _b, _canary):
        proxy.config.write_text(proxy.config.read_text().replace('level admin', 'level user'))
        proxy.reload()
        with Watching(source(proxy, ring=None)) as watch:
            lab.tally(proxy.port, 5)
            assert watch.block('blue').requests == 5 and not watch.reading.errors
        watch = Watching(source(proxy))
        with pytest.raises(Refused, match='Permission denied. Give its socket "level operator"'):
            watch.do(watch.source.open())
        watch.__exit__()
