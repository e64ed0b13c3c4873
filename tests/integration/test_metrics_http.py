# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import threading
import time

import haproxy_lab as lab
import pytest
from test_metrics_prometheus import Web

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import build_sources

ARMS = {'blue': {}, 'canary': {}}


def built(targets, **options):
    source, = build_sources('shop', ARMS, [], {'checks': dict({'type': 'http', 'targets': targets, 'use_proxy': False}, **options)})
    return source


def polls(source, count=2):
    async def work():
        try:
            await source.open()
            return [await source.poll(time.monotonic()) for _n in range(count)]
        finally:
            await source.close()
    return asyncio.run(work())


def probe(targets, **options):
    """Two polls: the readings of the second, with blocks."""
    return polls(built(targets, **options))[1]


def health(path, headers, body):
    return {'/live': (200, 'alive'), '/ready': (503, 'starting'), '/moved': (302, '', {'Location': '/live'}), '/none': (204, ''),
            '/who': (200, headers.get('X-Token', '-'))}[path]


def block(reading, arm, metric='probes'):
    return next(block for block in reading.blocks if (block.arm, block.metric) == (arm, metric))


def test_counts_ratios_and_latencies_per_arm_and_name():
    with Web(health) as web:
        source = built({'blue': [web.url + '/live'], 'canary': [
            {'name': 'live', 'url': web.url + '/live'}, {'name': 'ready', 'url': web.url + '/ready'},
            {'name': 'ready', 'url': web.url + '/live'}]})
        first, second = polls(source)
    assert first.blocks == () and first.gauges == second.gauges
    assert second.gauges == {('probe_success_ratio', 'blue'): 1, ('probe_success_ratio', 'canary'): pytest.approx(2 / 3),
                             ('live_success_ratio', 'canary'): 1, ('ready_success_ratio', 'canary'): 0.5}
    assert set(source.metrics) == {'probes', 'probe_latency', 'probe_success_ratio', 'live_success_ratio', 'ready_success_ratio'}
    assert (block(second, 'canary').requests, block(second, 'canary').bad) == (3, 1)
    latencies = block(second, 'canary', 'probe_latency').latencies_ms
    assert len(latencies) == 3 and all(0 < ms < 2000 for ms in latencies)
    assert second.notes == ('The probe of "canary" failed: %s/ready answered 503 instead of 200.' % web.url,) and not second.errors


@pytest.mark.parametrize('target, good', [
    ({'url': '/none'}, False), ({'url': '/none', 'status': [200, 204]}, True), ({'url': '/ready', 'status': 503}, True),
    ({'url': '/live', 'body': '^al.ve$'}, True), ({'url': '/live', 'body': 'ok'}, False),
    ({'url': '/moved'}, False), ({'url': '/moved', 'status': 302}, True), ({'url': '/moved', 'follow_redirects': True}, True)])
def test_what_counts_as_healthy(target, good):
    with Web(health) as web:
        reading = probe({'canary': [dict(target, url=web.url + target['url'])]})
    assert reading.gauges['probe_success_ratio', 'canary'] == good and bool(reading.notes) != good


def test_what_a_target_leaves_out_comes_from_the_source():
    with Web(health) as web:
        reading = probe({'blue': [web.url + '/who'], 'canary': [{'url': web.url + '/who', 'body': 'other'}]}, body='abc',
                        headers={'X-Token': 'abc'})
    assert (reading.gauges['probe_success_ratio', 'blue'], reading.gauges['probe_success_ratio', 'canary']) == (1, 0)


def test_refused_silent_and_broken_servers_are_failed_probes_with_their_wait():
    release = threading.Event()
    with Web(lambda *request: (release.wait(20), (200, 'late'))[1]) as silent, lab.Origin('x') as origin:
        origin.status = 99999
        reading = probe({'blue': ['http://127.0.0.1:%d/' % lab.free_port()],
                         'canary': [silent.url + '/a', 'http://127.0.0.1:%d/' % origin.port]}, timeout='200ms')
        release.set()
    assert [reading.gauges['probe_success_ratio', arm] for arm in ('blue', 'canary')] == [0, 0] and not reading.errors
    waited = block(reading, 'canary', 'probe_latency')
    assert waited.latencies_ms == () and 200 in waited.gave_up_ms and waited.unseen == 2
    assert sorted('refused' in note or 'did not answer within 0.2 s' in note for note in reading.notes) == [False, True, True]


def test_all_targets_are_asked_at_once():
    """Every answer waits until all have been asked: one after the other would time out."""
    barrier = threading.Barrier(12)
    with Web(lambda *request: (barrier.wait(10), (200, ''))[1]) as web:
        reading = polls(built({'canary': ['%s/%d' % (web.url, n) for n in range(12)]}, timeout=10), 1)[0]
    assert reading.gauges['probe_success_ratio', 'canary'] == 1


@pytest.mark.parametrize('options, words', [
    ({'targets': {}}, 'probes nothing'),
    ({'targets': {'green': ['http://x/']}}, 'arm "green"'),
    ({'targets': {'blue': 'http://x/'}}, 'must be a list'),
    ({'targets': {'blue': ['x']}}, 'url of a target'), ({'targets': {'blue': ['http://x/a b']}}, 'url of a target'),
    ({'targets': {'blue': ['http://x/\r\nHost: y']}}, 'url of a target'), ({'targets': {'blue': [{'uri': 'http://x/'}]}}, 'not understood'),
    ({'targets': {'blue': [{'url': 'http://x/', 'name': 'Ready!'}]}}, 'not usable'),
    ({'targets': {'blue': ['http://x/']}, 'status': [700]}, 'status'),
    ({'targets': {'blue': ['http://x/']}, 'status': 'ok'}, 'status'),
    ({'targets': {'blue': ['http://x/']}, 'body': '('}, 'not a regular expression'),
    ({'targets': {'blue': ['http://x/']}, 'body': 'x' * 501}, 'at most 500'),
    ({'targets': {'blue': ['http://x/']}, 'timeout': 'soon'}, 'timeout'),
    ({'targets': {'blue': ['http://x/']}, 'follow_redirects': 'yes'}, 'follow_redirects'), ({'targets': ['http://x/']}, 'targets')])
def test_bad_options_are_named(options, words):
    with pytest.raises(BadInput, match=words):
        built(options.pop('targets'), **options)
