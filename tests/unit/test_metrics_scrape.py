# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A data plane's own metrics as observations: whose requests are whose, what is counted, restarts, and what cannot be had."""

from __future__ import annotations

import asyncio
import typing as t

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError, Refused, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import base, exposition, pods
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.planes import PLANES, Backend, mended, patterns
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.scrape import ScrapeSource
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.several import joined
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import parse_endpoints
from hypothesis import given
from hypothesis import strategies as st

BACKENDS = {'blue': Backend('shop', 'web'), 'canary': Backend('shop', 'web-canary')}


def names(plane: str, router: str = 'httproute', backends: t.Mapping[str, Backend] | None = None,
          **more: str) -> t.Callable[[str], list[str]]:
    endpoint, = parse_endpoints([{'router': router, 'object': 'main', 'namespace': 'shop', **more}])
    made = patterns(plane, endpoint, backends or BACKENDS)
    return lambda name: [arm for arm, pattern in made.items() if pattern.fullmatch(name)]


@pytest.mark.parametrize(('name', 'arms'), [
    ('httproute-shop-main-gw-traefik-public-ep-web-0-d62abda220cc6188c555-svc-shop-web-0@kubernetesgateway', ['blue']),
    ('httproute-shop-main-gw-traefik-public-ep-web-0-d62abda220cc6188c555-svc-shop-web-canary-1@kubernetesgateway', ['canary']),
    ('grpcroute-shop-main-gw-x-ep-web-0-d6-svc-shop-web-0@kubernetesgateway', ['blue']),
    ('httproute-shop-other-gw-traefik-public-ep-web-0-d62abda220cc6188c555-svc-shop-web-0@kubernetesgateway', []),
    ('httproute-shop-main-gw-traefik-public-ep-web-0-d62abda220cc6188c555-wrr@kubernetesgateway', []),
])
def test_names_of_traefik_for_a_route(name: str, arms: list[str]) -> None:
    assert names('traefik')(name) == arms


@pytest.mark.parametrize(('name', 'arms'), [
    ('shop-web-80@kubernetescrd', ['blue']), ('shop-web-http@kubernetescrd', ['blue']), ('shop-web-canary-80@kubernetescrd', ['canary']),
    ('shop-main@kubernetescrd', []), ('other-web-80@kubernetescrd', []),
])
def test_names_of_traefik_for_its_own_kinds(name: str, arms: list[str]) -> None:
    assert names('traefik', 'weights', kind='TraefikService')(name) == arms


@pytest.mark.parametrize(('name', 'arms'), [
    ('shop-main-web-80@kubernetesingressnginx', ['blue']), ('shop-main-web-80-canary@kubernetesingressnginx', ['canary']),
    ('shop-other-web-80@kubernetesingressnginx', []),
    # After the promotion.
    ('shop-main-web-canary-80@kubernetesingressnginx', ['canary']), ('shop-main-web-canary-80-canary@kubernetesingressnginx', ['blue']),
])
def test_names_of_traefik_for_a_canary_ingress(name: str, arms: list[str]) -> None:
    assert names('traefik', 'ingress_nginx')(name) == arms


def test_the_canary_ingress_of_three_arms_is_the_candidates() -> None:
    endpoint, = parse_endpoints([{'router': 'ingress_nginx', 'object': 'main', 'namespace': 'shop'}])
    three = {**BACKENDS, 'green': Backend('shop', 'web-green')}
    for candidate, arms in (('canary', ['canary']), ('green', ['green']), (None, [])):
        made = patterns('traefik', endpoint, three, candidate)
        assert [arm for arm, one in made.items() if one.fullmatch('shop-main-web-80-canary@kubernetesingressnginx')] == arms
        assert [arm for arm, one in made.items() if one.fullmatch('shop-main-web-80@kubernetesingressnginx')] == ['blue']


@pytest.mark.parametrize(('name', 'arms'), [
    ('shop_web_80', ['blue']), ('shop_web-canary_80', ['canary']), ('shop/web/80/da39a3ee5e', ['blue']), ('other_web_80', []),
    ('outbound|80||web.shop.svc.cluster.local;', ['blue']), ('outbound|80||web-canary.shop.svc.cluster.local', ['canary']),
    ('outbound|80|v2|web.shop.svc.cluster.local;', []), ('outbound|80||web.other.svc.cluster.local;', []),
])
def test_names_of_envoy(name: str, arms: list[str]) -> None:
    assert names('envoy')(name) == arms


def test_subsets_of_istio_are_told_apart() -> None:
    arms = names('envoy', backends={'blue': Backend('shop', 'web', 'v1'), 'canary': Backend('shop', 'web', 'v2')})
    assert arms('outbound|80|v2|web.shop.svc.cluster.local;') == ['canary']
    assert arms('outbound|80|v1|web.shop.svc.cluster.local;') == ['blue']


def test_names_that_envoy_tears_apart() -> None:
    # As found on a gateway that is plain Envoy; two namespaces that differ in a sign that is lost are not told apart.
    lines = ['envoy_cluster_shop_svc_cluster_local__upstream_rq{envoy_response_code="200",envoy_cluster_name="outbound|80||web"} 25',
             'envoy_cluster_shop_svc_cluster_local__upstream_rq_time_bucket{envoy_cluster_name="outbound|80||web-canary",le="5"} 3',
             'envoy_cluster_shop_svc_cluster_local__external_upstream_rq{envoy_cluster_name="outbound|80||web"} 25',
             'envoy_cluster_other_svc_cluster_local__upstream_rq_total{envoy_cluster_name="outbound|80||web"} 1']
    found = exposition.parse(mended('\n'.join(lines) + '\n'), PLANES['envoy'].names)
    assert [(one.name.rsplit('_cluster_', 1)[1], names('envoy')(one.labels['envoy_cluster_name'])) for one in found] == [
        ('upstream_rq', ['blue']), ('upstream_rq_time_bucket', ['canary']), ('upstream_rq_total', [])]


# What is counted


class Envoy:
    """What one process of a data plane would answer, written down."""

    def __init__(self) -> None:
        self.uptime = 10.0
        self.codes: dict[tuple[str, str], int] = {}
        self.buckets: dict[tuple[str, float], int] = {}
        self.begun: dict[str, int] = {}
        self.active: dict[str, int] = {}
        self.failure: DeliveryError | None = None

    def text(self) -> str | DeliveryError:
        if self.failure:
            return self.failure
        lines = ['envoy_server_uptime{} %g' % self.uptime]
        lines += ['envoy_cluster_upstream_rq{envoy_response_code="%s",envoy_cluster_name="%s"} %d' % (code, of, count)
                  for (of, code), count in self.codes.items()]
        lines += ['envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="%s",le="%s"} %d' % (
            of, '+Inf' if le == float('inf') else le, count) for (of, le), count in self.buckets.items()]
        for name, values in (('total', self.begun), ('active', self.active)):
            lines += ['envoy_cluster_upstream_rq_%s{envoy_cluster_name="%s"} %d' % (name, of, count) for of, count in values.items()]
        return '\n'.join(lines) + '\n'


def source(*processes: Envoy) -> ScrapeSource:
    async def fetch() -> dict[str, t.Any]:
        return {'p%d' % number: process.text() for number, process in enumerate(processes) if process.uptime >= 0}

    endpoint, = parse_endpoints([{'router': 'httproute', 'object': 'main', 'namespace': 'shop'}])
    return ScrapeSource('kube1', PLANES['envoy'], patterns('envoy', endpoint, BACKENDS), fetch, clock=lambda: 0.0)


def of(reading: base.Reading, arm: str = 'canary') -> tuple[int, int]:
    block, = [block for block in reading.blocks if block.arm == arm]
    return block.requests, block.bad


def test_differences_are_counted() -> None:
    envoy = Envoy()
    envoy.codes = {('shop_web-canary_80', '200'): 100, ('shop_web-canary_80', '500'): 7, ('shop_web_80', '200'): 5, ('xds', '503'): 9}
    watched = source(envoy)
    first = asyncio.run(watched.poll(0.0))
    assert not first.blocks and {block.arm: (block.requests, block.bad) for block in first.before} == {'blue': (5, 0), 'canary': (107, 7)}
    envoy.codes.update({('shop_web-canary_80', '200'): 110, ('shop_web-canary_80', '503'): 2, ('shop_web-canary_80', '404'): 3})
    second = asyncio.run(watched.poll(2.0))
    assert of(second) == (15, 2) and of(second, 'blue') == (0, 0)
    assert {block.seconds for block in second.blocks} == {2.0} and {block.endpoint for block in second.blocks} == {'kube1'}


def test_a_process_that_began_anew() -> None:
    envoy = Envoy()
    envoy.codes = {('shop_web-canary_80', '200'): 100}
    watched = source(envoy)
    asyncio.run(watched.poll(0.0))
    # More than before, so that the counters alone do not tell.
    envoy.uptime, envoy.codes = 1.0, {('shop_web-canary_80', '200'): 130}
    reading = asyncio.run(watched.poll(2.0))
    assert of(reading) == (130, 0) and 'started anew' in reading.notes[0]


def test_several_processes_add_up_and_come_and_go() -> None:
    one, two = Envoy(), Envoy()
    two.uptime = -1.0
    one.codes = {('shop_web-canary_80', '200'): 10}
    watched = source(one, two)
    asyncio.run(watched.poll(0.0))
    two.uptime, two.codes = 5.0, {('shop_web-canary_80', '500'): 1000}
    assert of(asyncio.run(watched.poll(1.0))) == (0, 0), 'when it counted those is not known'
    one.codes[('shop_web-canary_80', '200')] += 3
    two.codes[('shop_web-canary_80', '500')] += 2
    assert of(asyncio.run(watched.poll(2.0))) == (5, 2)
    two.uptime = -1.0
    one.codes[('shop_web-canary_80', '200')] += 1
    reading = asyncio.run(watched.poll(3.0))
    assert of(reading) == (1, 0) and 'is gone' in reading.notes[0]
    assert not asyncio.run(watched.poll(4.0)).notes
    # Back again, whatever it did meanwhile.
    two.uptime, two.codes[('shop_web-canary_80', '500')] = 9.0, 5000
    assert of(asyncio.run(watched.poll(5.0))) == (0, 0)


def test_one_process_that_does_not_answer_hides_no_other() -> None:
    one, two = Envoy(), Envoy()
    one.codes = two.codes = {('shop_web-canary_80', '200'): 10}
    watched = source(one, two)
    asyncio.run(watched.poll(0.0))
    one.codes, two.failure = {('shop_web-canary_80', '200'): 12}, Unreachable('It did not answer.')
    reading = asyncio.run(watched.poll(1.0))
    assert of(reading) == (2, 0) and reading.errors == ('It did not answer.',)
    one.failure = two.failure
    assert asyncio.run(watched.poll(2.0)).blocks == ()
    one.failure = two.failure = None
    reading = asyncio.run(watched.poll(3.0))
    assert of(reading) == (0, 0) and reading.blocks[0].seconds == 2.0


def test_latencies_and_those_who_wait() -> None:
    envoy, inf = Envoy(), float('inf')
    watched = source(envoy)
    asyncio.run(watched.poll(0.0))
    envoy.codes = {('shop_web-canary_80', '200'): 10}
    envoy.buckets = {('shop_web-canary_80', le): count for le, count in ((100.0, 6), (500.0, 9), (inf, 10))}
    envoy.begun, envoy.active = {'shop_web-canary_80': 14}, {'shop_web-canary_80': 4}
    block = next(block for block in asyncio.run(watched.poll(1.0)).blocks if block.arm == 'canary')
    assert [sum(value > edge for value in block.latencies_ms) for edge in (100, 500)] == [4, 1] and block.unseen == 0
    block = next(block for block in asyncio.run(watched.poll(4.0)).blocks if block.arm == 'canary')
    assert block.waiting == ((3000.0, 4),) and block.latencies_ms == ()


def test_a_page_of_something_else() -> None:
    class Page(Envoy):
        def text(self) -> str:
            return '<html>no</html>'

    with pytest.raises(Refused, match='does not answer with metrics'):
        asyncio.run(source(Page()).open())

    class Other(Envoy):
        def text(self) -> str:
            return 'go_goroutines 5\n'

    with pytest.raises(Refused, match='has no metric "envoy_server_uptime"'):
        asyncio.run(source(Other()).open())


def test_gauges_of_several_endpoints() -> None:
    one = base.Reading(gauges={('servers_up_ratio', 'a'): 0.5, ('restarts', 'a'): 1}, errors=('x',))
    two = base.Reading(gauges={('servers_up_ratio', 'a'): 1.0, ('restarts', 'a'): 3, ('queue', 'a'): 1}, errors=('x', 'y'))
    found = joined([one, two], pods.GAUGES)
    assert found.gauges == {('servers_up_ratio', 'a'): 0.5, ('restarts', 'a'): 3, ('queue', 'a'): 1} and found.errors == ('x', 'y')


# Pods


def pod(uid: str, restarts: int = 0, ready: bool = True, oom: str = '', waiting: str = '', **metadata: t.Any) -> dict[str, t.Any]:
    last = {'terminated': {'reason': 'OOMKilled', 'containerID': oom}} if oom else {}
    return {'metadata': {'uid': uid, 'name': uid, **metadata}, 'status': {
        'phase': 'Running', 'conditions': [{'type': 'Ready', 'status': 'True' if ready else 'False'}],
        'containerStatuses': [{'name': 'c', 'restartCount': restarts, 'lastState': last,
                               'state': {'waiting': {'reason': waiting}} if waiting else {'running': {}}}]}}


def test_restarts_since_the_watch_began() -> None:
    tally = pods.Tally()
    first = tally.take([pod('a', restarts=4, oom='old'), pod('b', ready=False)])
    assert (first['restarts'], first['oom_kills'], first['servers_up_ratio']) == (0, 0, 0.5)
    tally.take([pod('a', restarts=5, oom='new'), pod('b'), pod('c', restarts=2, waiting='CrashLoopBackOff')])
    # A pod that is gone took its restarts along, and they were seen.
    last = tally.take([pod('a', restarts=5, oom='new', deletionTimestamp='now'), pod('b')])
    assert (last['restarts'], last['oom_kills'], last['servers_total'], last['crash_loops']) == (3, 1, 1, 0)


def test_an_arm_without_pods_has_no_ratio() -> None:
    assert 'ready_ratio' not in pods.Tally().take([])


@given(st.integers(0, 10 ** 6), st.sampled_from(sorted(pods._SUFFIX)))
def test_quantities(number: int, suffix: str) -> None:
    assert pods.quantity('%d%s' % (number, suffix)) == pytest.approx(number * pods._SUFFIX[suffix])
    assert pods.quantity('%s%s' % (suffix, number)) is None or not suffix


def test_usage_against_limits() -> None:
    limits = {'containers': [{'name': 'c', 'resources': {'limits': {'cpu': '500m', 'memory': '64Mi'}}}, {'name': 'side'}]}
    both = [dict(pod('a'), spec=limits), dict(pod('b'), spec=limits)]
    usages = [{'metadata': {'name': name}, 'containers': [{'name': 'c', 'usage': {'cpu': cpu, 'memory': '32768Ki'}}]}
              for name, cpu in (('a', '100m'), ('b', '450000000n'))]
    assert pods.used(both, usages) == {'cpu_ratio': pytest.approx(0.9), 'memory_ratio': 0.5}
    assert pods.used([dict(pod('a'), spec={'containers': [{'name': 'c'}]})], usages) == {}


def test_the_parser_is_given_all_that_is_needed() -> None:
    for plane in PLANES.values():
        assert len(exposition.parse(''.join('%s 1\n' % name for name in plane.names), plane.names)) == len(plane.names) >= 3
