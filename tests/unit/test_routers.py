# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pure parts of the routers: values of the map, the fit of weights, HAProxy's clock, the map file, replies."""

from __future__ import annotations

import asyncio
import threading
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils import _fleet
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Refused, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy import mapfile
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.clock import wall_clock
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import (
    Info, parse_info, parse_map_entries, parse_maps, parse_servers_state, parse_stat)
from ansible_collections.progressive.delivery.plugins.module_utils._lease import take_back
from ansible_collections.progressive.delivery.plugins.module_utils._routers import evidence
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Observed
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import parse_arms, parse_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._routers.map_value import MapValue, NotASplit, lease_end_ms
from ansible_collections.progressive.delivery.plugins.module_utils._routers.weights_fit import MAX_WEIGHT, achieved, fit_weights, to_bp
from ansible_collections.progressive.delivery.plugins.module_utils._split import Split

NAMES = st.from_regex(r'[A-Za-z0-9_.:][A-Za-z0-9_.:-]{0,12}', fullmatch=True)
TOKENS = st.from_regex(r'[A-Za-z0-9_.:@+~-]{1,12}', fullmatch=True)


@st.composite
def map_values(draw):
    shares, left = [], 10000
    for name in draw(st.lists(NAMES, max_size=4)):
        bp = draw(st.integers(0, left))
        left -= bp
        shares.append((name, bp))
    value = MapValue(draw(NAMES), draw(st.integers(0, 10**14)), draw(st.sampled_from(('rand', 'hash'))),
                     draw(st.none() | NAMES), candidates=tuple(shares))
    return value.noting(**draw(st.dictionaries(st.sampled_from(('id', 'by', 'since', 'rev', 'v', 'prev', 'pv', 'zz')), TOKENS)))


@given(map_values())
def test_map_values_survive_being_written(value):
    assert MapValue.parse(str(value)) == value
    assert ' ' not in str(value) and '\n' not in str(value) and ';' not in str(value)


@given(st.text(max_size=60) | st.lists(st.text('0/ab-,=.', max_size=6), max_size=9).map('/'.join))
def test_whatever_is_in_the_map_is_a_split_or_refused(text):
    try:
        value = MapValue.parse(text)
    except NotASplit:
        return
    assert MapValue.parse(str(value)) == value and sum(bp for _name, bp in value.candidates) <= 10000


def test_map_value_by_hand():
    value = MapValue.parse('1795361464897/blue/rand/-/id=r1,by=me,rev=3/canary/500/green/2500')
    assert value.candidates == (('canary', 500), ('green', 2000)) and value.rev == 3 and value.match is None
    assert MapValue.parse('0/blue/rand/-/-') == MapValue.parse('0/blue/rand/-/') == MapValue('blue')
    for bad in ('', 'x', '0/blue/rand/-', '0/blue/rand/-/-/canary', '0/blue/odd/-/-', '0/blue/rand/-/-/canary/9/green/5',
                '-1/blue/rand/-/-',
                '0/bl ue/rand/-/-', '0/blue/rand/-/-/canary/10001', '٣/blue/rand/-/-'):
        with pytest.raises(NotASplit):
            MapValue.parse(bad)


@given(st.floats(1e9, 3e9), st.floats(1, 1e6))
def test_a_lease_is_never_longer_than_asked(now, lease):
    end = lease_end_ms(now, lease)
    assert end / 1000 <= now + lease + 1e-6 and end / 1000 > now + lease - 0.0021


# ---- weights

@settings(max_examples=40)
@given(st.integers(1, 9999), st.integers(1, 5), st.integers(1, 5))
def test_two_arms_have_the_best_fit(bp, few, many):
    shares, sizes = [bp, 10000 - bp], [few, many]
    weights, error = fit_weights(shares, sizes)
    assert all(1 <= weight <= MAX_WEIGHT for weight in weights)
    assert error == max(abs(got - want) for got, want in zip(achieved(weights, sizes), shares))
    # By brute force: for each weight of the one, the two nearest of the other.
    best = Fraction(10000)
    for one in range(1, MAX_WEIGHT + 1):
        ideal = one * few * (10000 - bp) / (bp * many)
        for two in (max(1, min(MAX_WEIGHT, int(ideal))), max(1, min(MAX_WEIGHT, int(ideal) + 1))):
            best = min(best, abs(achieved([one, two], sizes)[0] - bp))
    assert error <= best + Fraction(1, 10**6)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(any), st.data())
def test_any_arms_get_legal_weights(parts, data):
    whole = sum(parts)
    shares = [part * 10000 // whole for part in parts]
    shares[parts.index(max(parts))] += 10000 - sum(shares)
    sizes = data.draw(st.lists(st.integers(1, 20), min_size=len(parts), max_size=len(parts)))
    weights, _error = fit_weights(shares, sizes)
    assert all(0 <= weight <= MAX_WEIGHT and bool(weight) == bool(share) for weight, share in zip(weights, shares))


@given(st.dictionaries(st.sampled_from('abcd'), st.integers(0, 5000)))
def test_whole_basis_points_sum_to_all(parts):
    whole = to_bp(parts)
    assert sum(whole.values()) == (10000 if any(parts.values()) else 0)


# ---- the clock

def info(start, uptime):
    return Info({'Start_time_sec': '%.6f' % start, 'Uptime_sec': '%.6f' % uptime})


def headline(at, zone_s=0):
    stamp = time.gmtime(at + zone_s)
    return 'Total events captured on [%s.%03d] : 0\n' % (time.strftime('%d/%b/%Y:%H:%M:%S', stamp), int(at * 1000) % 1000)


NOW = 1795360000.25


@pytest.mark.parametrize('zone_h', [0, -12, 14, 5.75, -3.5])
def test_clock_in_every_zone(zone_h):
    assert wall_clock(info(NOW - 1e6, 1e6), headline(NOW, int(zone_h * 3600)), NOW, 'lb1') == pytest.approx(NOW, abs=0.001)


def test_host_clocks_need_not_agree():
    # This host is days off; HAProxy's is believed.
    assert wall_clock(info(NOW - 50, 50), headline(NOW, 3600), NOW - 300000.5, 'lb1') == pytest.approx(NOW, abs=0.001)


@pytest.mark.parametrize('step', [-3000.5, 7000, -86000.0 / 7, 90])
def test_a_clock_that_was_set_after_the_start_is_followed(step):
    assert wall_clock(info(NOW - 50 - step, 50), headline(NOW, 7200), NOW + 0.4, 'lb1') == pytest.approx(NOW, abs=0.001)


def test_a_clock_that_nothing_explains_is_refused():
    with pytest.raises(Refused, match='The time at lb1 cannot be told'):
        wall_clock(info(NOW - 50 + 100, 50), headline(NOW), NOW + 300, 'lb1')
    # Whole hours: a zone or a step? A lease an hour too long is worse than none.
    with pytest.raises(Refused, match='cannot be told'):
        wall_clock(info(NOW - 50 + 3600, 50), headline(NOW), NOW, 'lb1')


def test_without_a_headline_the_process_is_asked():
    assert wall_clock(info(NOW - 50, 50), 'Unknown command', NOW - 99, 'lb1') == pytest.approx(NOW)


# ---- the map file

@given(st.lists(st.sampled_from(['# c', '', 'other 1', 'shop old', 'shopping x', '  shop indented', 'shop'])), st.none() | TOKENS)
def test_only_the_entry_changes(lines, value):
    before = ''.join(line + '\n' for line in lines)
    after = mapfile.with_entry(before, 'shop', value)
    assert mapfile.entry_of(after, 'shop') == value

    def rest(text):
        return [line for line in text.splitlines() if line.split(None, 1)[:1] != ['shop']]

    assert rest(after) == rest(before)
    assert mapfile.with_entry(after, 'shop', value) == after


def test_writers_of_one_file_lose_nothing(tmp_path):
    path = str(tmp_path / 'delivery.map')

    def writer(key):
        for n in range(20):
            mapfile.write_entry(path, key, str(n), 10.0)

    threads = [threading.Thread(target=writer, args=('s%d' % i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key: mapfile.read_entry(path, key) for key in ('s0', 's1', 's2', 's3', 's4')} == dict.fromkeys(('s0', 's1', 's2', 's3', 's4'),
                                                                                                           '19')
    assert [item.name for item in tmp_path.iterdir()] == ['delivery.map']


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / 'real').write_text('shop 0\n')
    (tmp_path / 'link').symlink_to(tmp_path / 'real')
    mapfile.write_entry(str(tmp_path / 'link'), 'shop', '1', 1.0)
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'real').read_text() == 'shop 1\n'


# ---- replies

@pytest.mark.parametrize('parse', [parse_stat, parse_servers_state, parse_info, parse_map_entries])
@pytest.mark.parametrize('text', ['Permission denied', 'Unknown command', "Can't find backend.", '1'])
def test_refusals_are_not_taken_for_data(parse, text):
    with pytest.raises(Refused, match='is not understood'):
        parse(text)


def test_replies_by_hand():
    rows = parse_stat('# pxname,svname,scur,status,weight,act,bck,type,-,uweight,check_status,\n'
                      'be,s1,3,UP 1/2,5,1,0,2,,10,L7OK,\nbe,s2,,MAINT (via a/b),1,0,1,2,,1,,\nfe,FRONTEND,0,OPEN,,,,0,,,,\n')
    assert [row.kind for row in rows] == ['server', 'server', 'frontend']
    assert rows[0].usable and rows[0].scur == 3 and rows[0].uweight == 10 and rows[0].econ is None
    assert not rows[1].usable and rows[1].backup and rows[1].scur is None
    assert [entry.value for entry in parse_map_entries('0x1 shop a b\n0x2 empty \n')] == ['a b', '']
    assert parse_maps('# id (file) description\n0 (/a b.map) pattern loaded from file\n-1 (/x) y')[0].file == '/a b.map'
    assert parse_info('Name: HAProxy\nVersion: 2.6.12-1\nUptime_sec: 1.5\nStart_time_sec: 3').version_tuple == (2, 6)


# ---- endpoints and arms

@pytest.mark.parametrize('endpoint, said', [
    ({'socket': 'unix:///a.sock'}, 'names no map'),
    ({'socket': 'unix:///a.sock', 'map': 'relative.map'}, 'absolute path'),
    ({'socket': 'http://x:1', 'map': '/m'}, 'not understood'),
    ({'socket': 'tcp://x:0', 'map': '/m'}, 'not understood'),
    ({'socket': 'unix:///a\n.sock', 'map': '/m'}, 'not understood'),
    ({'socket': 'unix:///a.sock', 'map': '/m', 'name': 'a b'}, 'not a valid name'),
    ({'socket': 'unix:///a.sock', 'map': '/m', 'slots': 0}, 'slots'),
    ({'socket': 'unix:///a.sock', 'map': '/m', 'deadline': 0}, 'deadline'),
    ({'socket': 'unix:///a.sock', 'map': '/m', 'ring': 'x y'}, 'not a valid name'),
    ({'socket': 'unix:///a.sock', 'map': '/m', 'share': '200%'}, 'outside'),
    ({'socket': 'unix:///a.sock', 'map': '/m', 'wieght': 1}, 'unknown option "wieght"'),
    ({'socket': 'unix:///a.sock', 'map': '/m', 'router': 'nginx'}, 'not known'),
    ({'socket': 'unix:///a.sock', 'map': '/m', 'matches': [{'value': 'x'}]}, 'either a header or a cookie'),
])
def test_bad_endpoints(endpoint, said):
    with pytest.raises(BadInput, match=said):
        parse_endpoints([endpoint])


def test_endpoints_by_default():
    local, remote = parse_endpoints([{'socket': 'unix:///a.sock', 'map': '/m'}, {'name': 'x', 'socket': 'tcp://[::1]:99', 'map': '/m'}])
    assert (local.name, local.file, remote.file, remote.deadline, remote.share_bp) == ('unix:///a.sock', '/m', None, 2.0, 10000)
    assert parse_endpoints([{'socket': 'unix:///a.sock', 'map': '/m', 'file': ''}])[0].file is None
    with pytest.raises(BadInput, match='Two endpoints have the socket'):
        parse_endpoints([{'name': 'a', 'socket': 'unix:///a.sock', 'map': '/m'}, {'name': 'b', 'socket': 'unix:///a.sock', 'map': '/m'}])
    with pytest.raises(BadInput, match='no endpoints'):
        parse_endpoints([])


def test_an_endpoint_may_have_its_own_backends():
    (endpoint,) = parse_endpoints([{'socket': 'unix:///a.sock', 'map': '/m', 'arms': {'canary': {'backend': 'dc1'}}}])
    arms = parse_arms({'blue': None, 'canary': {'backend': 'c', 'servers': ['s1']}}, endpoint)
    assert (arms['blue'].backend, arms['canary'].backend, arms['canary'].servers) == ('blue', 'dc1', ('s1',))
    for raw, said in (({'blue': 'x', 'canary': {}}, 'must be a dictionary'), ({'blue': {'bakend': 'x'}, 'canary': {}}, 'unknown option'),
                      ({}, 'has no arms'),
                      ({'blue': {'servers': 's1'}, 'canary': {}}, 'list of names'), ({'blue': {}}, 'is not one of the service')):
        with pytest.raises(BadInput, match=said):
            parse_arms(raw, endpoint)


def test_the_hosts_of_an_arm_are_for_the_roles_and_no_business_of_an_endpoint():
    assert parse_arms({'blue': {'hosts': ['web1']}})['blue'].servers == ()
    (endpoint,) = parse_endpoints([{'socket': 'unix:///a.sock', 'map': '/m', 'arms': {'blue': {'hosts': ['web1']}}}])
    with pytest.raises(BadInput, match='unknown option "hosts"'):
        parse_arms({'blue': None}, endpoint)


# ---- traffic as evidence

def test_traffic_that_contradicts_the_shares():
    split = Split((('canary', 500), ('blue', 9500)))
    assert evidence.contradiction(split, {'canary': 20, 'blue': 380, 'green': 0}) is None
    assert '"green" got 1 requests and should get none' == evidence.contradiction(split, {'canary': 20, 'blue': 380, 'green': 1})
    assert 'should get 5 %' in evidence.contradiction(split, {'canary': 80, 'blue': 320, 'green': 0})
    assert evidence.contradiction(Split(split.arms, sticky='hash'), {'canary': 80, 'blue': 320}) is None


# ---- many endpoints

class Stub:
    """A router that does what it is told: names of answers for ``read``, one for each call."""

    deadline = 1.0

    def __init__(self, name, *answers):
        self.name, self.answers = name, list(answers)

    async def read(self):
        answer = self.answers.pop(0)
        if answer == 'hang':
            await asyncio.sleep(60)
        if answer == 'refuse':
            raise Unreachable('%s is not there' % self.name)
        return Observed(self.name, 'shop', None, None)

    def way_back(self, observed):
        return None


def test_a_hanging_endpoint_costs_its_own_deadline_only():
    began = time.monotonic()
    outcomes = asyncio.run(_fleet.each([Stub('lb1', 'hang'), Stub('lb2', 'ok')], lambda router: router.read()))
    assert time.monotonic() - began < 5
    assert 'lb1 did not answer within 1 s' in str(outcomes['lb1'].error) and outcomes['lb2'].error is None


def test_a_way_back_asks_once_more():
    first, second, third = asyncio.run(take_back([Stub('lb1', 'refuse', 'ok'), Stub('lb2', 'refuse', 'refuse', 'ok'), Stub('lb3', 'ok')]))
    assert first.ok and third.ok
    assert not second.ok and second.error == 'lb2 is not there'


def test_a_fault_of_ours_is_not_an_outcome():
    async def broken(router):
        raise KeyError(router.name)

    with pytest.raises(KeyError):
        asyncio.run(_fleet.each([Stub('lb1')], broken))
