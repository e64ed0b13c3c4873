# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils import _host, _preflight as p, _preflight_looks as looks
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput

NOW = 1_800_000_000.0
STAGES = [{'arm': 'canary', 'label': 'canary 20 %', 'bake_s': 60, 'load_bp': 2000},
          {'arm': 'green', 'label': 'green 100 %', 'bake_s': 60, 'load_bp': 10000}]
PLAN = {'stable': 'blue', 'candidates': ['canary', 'green'], 'stages': STAGES}
LB = {'name': 'lb', 'shares': 'blue 100 %', 'notes': [], 'problems': [], 'lacking': [], 'owner': '', 'leases': 'by itself'}


def rows(limits=None, skip=(), **facts):
    return p.judge(p.Facts(now=NOW, **facts), p.read_limits(limits or {}), skip)


def states(name, limits=None, **facts):
    return [row.state for row in rows(limits, **facts) if row.name == name]


@pytest.mark.parametrize('name, ratio, state', [
    ('cpu', 0.69, 'pass'), ('cpu', 0.7, 'warn'), ('cpu', 0.85, 'fail'), ('memory', 0.79, 'pass'), ('memory', 0.8, 'warn'),
    ('memory', 0.9, 'fail')])
def test_what_a_host_uses_is_judged_by_its_limits(name, ratio, state):
    host = {'cpu': 0.0, 'memory': 0.0, 'disks': {}, name: ratio}
    assert states(name, hosts={'web1': host}) == [state]


def test_a_limit_that_is_empty_never_fails():
    assert states('cpu', {'cpu': {'fail': None}}, hosts={'web1': {'cpu': 1.0}}) == ['warn']
    assert states('cpu', {'cpu': {'fail': None, 'warn': None}}, hosts={'web1': {'cpu': 1.0}}) == ['pass']


@pytest.mark.parametrize('limits', [{'cpus': {}}, {'cpu': 0.7}, {'cpu': {'warn': 70}}, {'cpu': {'wran': 0.7}}, {'cpu': {'warn': True}},
                                    {'clock': {'warn': 'soon'}}])
def test_wrong_limits_are_refused(limits):
    with pytest.raises(BadInput, match='limit'):
        p.read_limits(limits)


def test_a_check_that_does_not_exist_cannot_be_skipped():
    with pytest.raises(BadInput, match='no check "cpus"'):
        p.check_skip(['cpu', 'cpus'])


@pytest.mark.parametrize('name', p.CHECKS)
def test_a_skipped_check_is_one_row_that_says_so(name):
    facts = {'hosts': {'web1': {'error': 'gone'}}, 'lock': {'holder': 'x', 'alive': True, 'ours': False}, 'dns': {'a': {'error': 'no'}}}
    assert [row.state for row in rows(skip=[name], **facts) if row.name == name] == ['skip']


def test_a_router_that_is_silent_fails_and_the_others_are_still_judged():
    found = rows(endpoints=[{'name': 'lb1', 'error': 'It is gone.'}, {**LB, 'name': 'lb2'}])
    assert [(row.subject, row.state) for row in found if row.name == 'routers'] == [('lb1', 'fail'), ('lb2', 'pass')]
    assert [row.subject for row in found if row.name in ('permissions', 'lease')] == ['lb2', 'lb2']


def test_what_may_not_be_written_fails():
    assert states('permissions', endpoints=[{**LB, 'lacking': ['a', 'b'], 'problems': ['c']}]) == ['fail'] * 3
    assert states('lease', endpoints=[{**LB, 'lease_error': 'no clock'}]) == ['fail']


def test_another_rollout_stops_this_one_unless_it_is_to_be_displaced():
    held = {'holder': 'shop-1 by ann', 'alive': True, 'ours': False}
    assert states('lock', lock=held) == ['fail']
    assert states('lock', lock=held, force=True) == ['warn']
    assert states('lock', lock={**held, 'ours': True}) == ['pass']
    assert states('lock', lock={**held, 'alive': False}) == ['pass']
    assert states('lock', endpoints=[{**LB, 'owner': 'bob has it'}]) == ['fail']


def test_the_stable_arm_must_have_servers():
    assert states('servers', plan=PLAN, servers={'blue': (0, 2)}) == ['fail']
    assert states('servers', plan=PLAN, servers={'blue': (1, 2)}) == ['warn']
    assert states('servers', plan=PLAN, servers={'blue': (2, 2), 'canary': (0, 2)}) == ['pass', 'pass']
    assert states('servers', plan=PLAN, servers={'blue': (2, 2), 'canary': (0, 0)}) == ['pass', 'fail']


@given(st.integers(1, 50), st.integers(1, 50))
def test_an_arm_has_room_for_its_share_exactly_when_its_servers_are_that_share_of_the_stable_ones(stable, canary):
    found = rows(plan=PLAN, servers={'blue': (stable, stable), 'canary': (0, canary), 'green': (0, stable)})
    state = [row.state for row in found if (row.name, row.subject) == ('capacity', 'canary')]
    assert state == ['pass' if canary * 5 >= stable else 'warn']


def test_instances_that_nobody_counts_are_a_warning():
    assert states('capacity', plan=PLAN) == ['warn']
    assert states('capacity') == []


def test_pods_are_the_rollouts_own_matter():
    assert states('capacity', plan=PLAN, servers={'blue': (9, 9)}, scaled=True) == ['pass', 'pass']


def test_metrics_that_are_silent_fail_and_those_without_data_warn():
    assert states('metrics', sources=[{'name': 'a', 'error': 'gone', 'data': False}, {'name': 'b', 'error': '', 'data': False},
                                      {'name': 'c', 'error': '', 'data': True}]) == ['fail', 'warn', 'pass']
    # The rollout needs no source that decides nothing.
    assert states('metrics', sources=[{'name': 'a', 'error': 'gone', 'data': False, 'needed': False}]) == ['warn']


def test_clocks_are_compared_with_this_host_and_with_each_other():
    near, far = {'skew_s': 0.3, 'within_s': 0.01}, {'skew_s': -0.4, 'within_s': 0.01}
    assert states('clock', clocks={'lb1': near, 'lb2': far}) == ['pass', 'pass', 'warn']
    assert states('clock', clocks={'lb1': {'skew_s': 7.0, 'within_s': 0.5}}) == ['fail']


def test_a_difference_that_the_question_itself_may_have_made_does_not_count():
    assert states('clock', clocks={'lb1': {'skew_s': 7.0, 'within_s': 6.6}}) == ['pass']


@pytest.mark.parametrize('days, state', [(30, 'pass'), (20, 'warn'), (1.9, 'fail'), (-1, 'fail')])
def test_a_certificate_is_renewed_before_it_runs_out(days, state):
    assert states('certificates', certificates={'shop': {'ends': NOW + days * 86400}}) == [state]


def test_alerts():
    assert states('alerts') == ['skip']
    assert states('alerts', alerts={'url': 'u', 'error': 'gone'}) == ['warn']
    assert states('alerts', alerts={'url': 'u', 'found': []}) == ['pass']
    found = [{'name': 'A', 'state': 'firing', 'text': ''}, {'name': 'B', 'state': 'pending', 'text': 'soon'}]
    assert states('alerts', alerts={'url': 'u', 'found': found}) == ['fail', 'warn']


@pytest.mark.parametrize('told, state', [
    (None, 'skip'), ({'time': NOW - 3600}, 'pass'), ({'time': NOW - 2 * 86400}, 'warn'), ({'time': NOW - 8 * 86400}, 'fail'),
    ({}, 'fail'), ({'time': 'today'}, 'fail'), ({'ok': False, 'time': NOW}, 'fail'), ({'error': 'The task failed.'}, 'fail')])
def test_a_backup_is_as_good_as_its_check_says(told, state):
    assert states('backup', backup=told) == [state]


def test_a_version_that_is_live_needs_no_readiness():
    assert {row.name for row in rows(already=True, endpoints=[LB], hosts={'web1': {'error': 'gone'}})} == {'routers', 'plan'}


def test_the_table_has_what_fails_first_and_what_passes_in_brief():
    hosts = {'web%d' % n: {'cpu': 0.1} for n in range(300)}
    found = rows(hosts={**hosts, 'db': {'cpu': 0.99}}, dns={'shop': {'error': 'Not resolved.'}})
    lines = p.render(found).splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [['fail', 'cpu', 'db:'], ['fail', 'dns', 'shop:']]
    assert len(lines) < 12 and any('300 are well: web0, web1, web2, ...' in line for line in lines)
    assert p.overall(found) == 'fail'
    assert p.failure('shop', found) == (
        'shop is not ready for a rollout, and nothing was changed. cpu: db: 99 % in use. Wait for less load, or add hosts: a rollout warms '
        'up more instances. | dns: shop: Not resolved.')


@given(st.lists(st.sampled_from(['pass', 'warn', 'fail', 'skip'])))
def test_the_worst_row_decides(found):
    state = p.overall([p.Row('cpu', '', one, '') for one in found])
    assert state == ('fail' if 'fail' in found else 'warn' if 'warn' in found else 'pass')


@pytest.mark.parametrize('item, place', [
    ('https://shop.example.com/x', ('shop.example.com', 443)), ('lb:8443', ('lb', 8443)), ('https://[::1]:8443', ('::1', 8443))])
def test_places_of_certificates(item, place):
    one = looks.read_places([item])[0]
    assert (one.host, one.port, one.name) == (*place, item)


@pytest.mark.parametrize('item', ['', 'http//x y', 'shop:0', 'shop:99999', {'address': 'x', 'port': 1}, {'address': 'x', 'ca_path': 'rel'},
                                  {'address': 'x', 'server_name': 'a b'}, None])
def test_places_that_are_none(item):
    with pytest.raises(BadInput):
        looks.read_places([item])


@pytest.mark.parametrize('alerts', [{'type': 'prometheus'}, {'url': 'http://a', 'type': 'nagios'}, {'url': 'http://a', 'labels': 'x'},
                                    {'url': 'ftp://a'}, {'url': 'http://a', 'lables': {}}])
def test_wrong_alert_sources_are_refused(alerts):
    with pytest.raises(BadInput):
        looks.read_alerts(alerts, 'shop')


def test_alerts_of_the_service_count_unless_other_labels_are_named():
    assert looks.read_alerts({}, 'shop') is None
    assert looks.read_alerts({'url': 'http://a/'}, 'shop').labels == {'service': 'shop'}
    assert looks.read_alerts({'url': 'http://a', 'labels': {}}, 'shop').labels == {}


def test_processor_time_as_proc_5_has_it():
    before = _host.parse_ticks('cpu  100 0 50 800 50 0 0 0 30 0\ncpu0 1 2 3 4')
    after = _host.parse_ticks('cpu  160 0 70 820 50 0 0 0 60 0\n')
    assert before == (150, 1000)
    assert _host.cpu_ratio(before, after) == 0.8
    assert _host.cpu_ratio(after, after) is None


@pytest.mark.parametrize('text', ['', 'cpu 1 2', 'cpu a b c d'])
def test_no_proc_stat(text):
    with pytest.raises(ValueError):
        _host.parse_ticks(text)


def test_memory_is_what_new_programs_cannot_have():
    assert _host.memory_ratio('MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n') == 0.75
    with pytest.raises(ValueError):
        _host.memory_ratio('MemTotal: 1000 kB\n')


def test_the_host_is_looked_at_as_it_is():
    seen = _host.look(['/', '/no/such/path'], 0.1)
    assert 0 <= seen['cpu'] <= 1 and 0 < seen['memory'] < 1
    assert 0 < seen['disks']['/'] <= 1 and seen['disks']['/no/such/path'] is None
