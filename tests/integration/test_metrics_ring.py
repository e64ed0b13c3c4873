# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import contextlib
import socket

import haproxy_lab as lab
import pytest
from test_metrics_haproxy import running

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Address
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import ring as ring_module
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.ring import RingReader


@contextlib.asynccontextmanager
async def following(proxy, backends=('blue', 'canary')):
    reader = RingReader(Address.parse(proxy.address), 'events', backends)
    await reader.open(5)
    try:
        yield reader
    finally:
        await reader.close()


async def taken(reader, done, what):
    """Takes until *done*(all lines, all sentences of loss, foreign lines); returns these."""
    lines, lost, foreign = [], [], 0
    for _turn in range(1000):
        events = reader.take()
        lines, lost, foreign = lines + events.lines, lost + events.lost, foreign + events.foreign
        if done(lines, lost, foreign):
            return lines, lost, foreign
        await asyncio.sleep(0.01)
    raise AssertionError('waited in vain for %s: %d lines, %s, %d foreign' % (what, len(lines), lost, foreign))


def test_hostile_requests_stay_what_they_are():
    """What HAProxy really writes of quotes, binary, forged lines and overlong requests: one line each, with its own numbers."""
    forged = b'127.0.0.1:1 [22/Nov/2026:15:17:58.967] shop canary/c1 0/0/0/9/99999 500 1 - - ---- 1/1/0/0/0 0/0 "GET / HTTP/1.1"'
    requests = [b'GET /a"b', b'GET /\xff', b'GET /' + b'z' * 5000, b'GET /{x|y}#0A', b'GET /' + forged.replace(b' ', b'%20')]
    headers = [b'', b'User-Agent: ' + forged, b'Cookie: S="' + forged, b'Host: }{"\x7f']

    async def work(proxy):
        async with following(proxy) as reader:
            for request in requests:
                for header in headers:
                    with socket.create_connection(('127.0.0.1', proxy.port), timeout=5) as client:
                        client.sendall(request + b' HTTP/1.1\r\n' + (header + b'\r\n' if header else b'') + b'\r\n')
                        await asyncio.to_thread(client.recv, 1000)
            lab.get(proxy.port, '/canary')
            # 12 of the hostile ones are valid HTTP. Two threads write the ring: the last request need not have the last line.
            return await taken(reader, lambda lines, lost, foreign: len(lines) >= 13 and any(line.backend == 'canary' for line in lines),
                               'all requests that are valid')

    with running() as (proxy, _blue, _canary):
        proxy.config.write_text(proxy.config.read_text().replace(
            'use_backend canary', 'capture cookie S len 100\n    capture request header User-Agent len 100\n    use_backend canary', 1))
        proxy.reload()
        lines, lost, foreign = asyncio.run(work(proxy))
    assert not lost and not foreign
    assert [line.server for line in lines if line.backend == 'canary'] == ['c1']
    assert all(line.Ta < 9000 and line.status in (200, 400) for line in lines)


def test_a_ring_that_was_overwritten_while_away_is_said_and_nothing_counts_twice():
    async def work(proxy):
        async with following(proxy) as reader:
            await asyncio.to_thread(lab.tally, proxy.port, 5)
            await taken(reader, lambda lines, lost, foreign: len(lines) == 5, '5 events')
            await reader.close()
            await asyncio.to_thread(lab.tally, proxy.port, 500)
            await reader.open(5)
            return await taken(reader, lambda lines, lost, foreign: bool(lost), 'the loss to be noticed')

    with running(ring_size=16384) as (proxy, _blue, _canary):
        lines, lost, _foreign = asyncio.run(work(proxy))
    assert 20 < len(lines) < 500 and len(lost) == 1 and 'may have been lost' in lost[0] and proxy.address in lost[0]


def test_lines_had_before_are_not_counted_again_when_their_beginning_is_overwritten():
    """The ring holds some 110 lines: 17 or so of the first 60 are left, fewer than are needed to be sure of the place."""
    async def work(proxy):
        async with following(proxy) as reader:
            await asyncio.to_thread(lab.tally, proxy.port, 60)
            await taken(reader, lambda lines, lost, foreign: len(lines) == 60, '60 events')
            await reader.close()
            await asyncio.to_thread(lab.tally, proxy.port, 90)
            await reader.open(5)
            return await taken(reader, lambda lines, lost, foreign: bool(lost), 'the loss to be noticed')

    with running(ring_size=16384) as (proxy, _blue, _canary):
        lines, _lost, _foreign = asyncio.run(work(proxy))
    assert 60 < len(lines) <= 90


def test_goes_on_where_it_stopped():
    async def work(proxy):
        async with following(proxy) as reader:
            for _turn in range(5):
                await asyncio.to_thread(lab.tally, proxy.port, 7)
                await reader.close()
                await asyncio.to_thread(lab.tally, proxy.port, 7)
                await reader.open(5)
            return await taken(reader, lambda lines, lost, foreign: len(lines) >= 70, '70 events')

    with running() as (proxy, _blue, _canary):
        lines, lost, _foreign = asyncio.run(work(proxy))
    assert len(lines) == 70 and not lost


def test_a_process_that_is_gone_is_said_at_every_poll_until_it_is_back():
    async def work(proxy):
        async with following(proxy) as reader:
            await asyncio.to_thread(lab.tally, proxy.port, 3)
            await taken(reader, lambda lines, lost, foreign: len(lines) == 3, '3 events')
            await asyncio.to_thread(proxy.stop)
            while 'not being followed' not in reader.take().problem:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(proxy.reload)
            await asyncio.to_thread(lab.tally, proxy.port, 4)
            lines, lost, _foreign = await taken(reader, lambda lines, lost, foreign: len(lines) >= 4, 'the new process')
            assert len(lines) == 4 and len(lost) == 1 and 'started anew' in lost[0]
            assert not reader.take().problem and not reader.take().lost

    with running() as (proxy, _blue, _canary):
        asyncio.run(work(proxy))


def test_lines_in_another_format_are_counted_and_left_out():
    async def work(proxy):
        async with following(proxy) as reader:
            await asyncio.to_thread(lab.tally, proxy.port, 4)
            return await taken(reader, lambda lines, lost, foreign: foreign == 4, '4 foreign lines')

    with running() as (proxy, _blue, _canary):
        proxy.config.write_text(proxy.config.read_text().replace('option httplog', 'log-format "%ci %b %ST"'))
        proxy.reload()
        lines, _lost, _foreign = asyncio.run(work(proxy))
    assert lines == []


def test_memory_between_two_polls_is_bounded(monkeypatch):
    monkeypatch.setattr(ring_module, 'EVENTS_MAX', 20)

    async def work(proxy):
        async with following(proxy) as reader:
            await asyncio.to_thread(lab.tally, proxy.port, 50)
            for _turn in range(1000):
                if len(reader._events.lines) + reader._events.over == 50:
                    return reader.take()
                await asyncio.sleep(0.01)

    with running() as (proxy, _blue, _canary):
        events = asyncio.run(work(proxy))
    assert (len(events.lines), events.over) == (20, 30)


def test_what_cannot_be_followed_is_a_sentence():
    async def check(address, ring='events', deadline=2):
        await RingReader(Address.parse(address), ring, ['blue']).check(deadline)

    with running() as (proxy, _blue, _canary):
        asyncio.run(check(proxy.address))
        with pytest.raises(BadInput, match='no ring "other" .it has .*events'):
            asyncio.run(check(proxy.address, 'other'))
        proxy.stop()
        with pytest.raises(Unreachable):
            asyncio.run(check(proxy.address))
    with pytest.raises(BadInput):
        RingReader(Address.parse('unix:///x'), 'a; b', [])
