# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import typing as t
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import ServerState, StatRow
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.server_plan import (
    Step, Want, answered, check_address, check_options, mismatch, plan, probe, probed, reached)
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.servers import Pool, Server, Weight, pools


def server(name: str = 's1', **given: t.Any) -> Server:
    values: dict[str, t.Any] = dict(
        name=name, address='10.0.0.1:80', weight=10, initial_weight=10, effective_weight=10, admin='ready', forced='ready',
        operational='running', check='none', check_status='', sessions=0, queued=0, connections=0, idle_connections=0, backup=False,
        tracks='', resolved=True)
    values.update(given)
    return Server(**values)


def pool(*servers: Server, algorithm: str = 'roundrobin', dynamic: bool | None = True, version: tuple[int, int] = (2, 6)) -> Pool:
    return Pool('app', algorithm, 'http', dynamic, version, {one.name: one for one in servers})


# ---- what HAProxy shows


def shown(admin_state: int = 0, op_state: int = 2, health: tuple[int | None, int | None, int | None] = (None, None, None),
          **row: t.Any) -> Server:
    rise, fall, check_health = health
    rows = [StatRow('app', 'BACKEND', 'backend', algo='roundrobin', mode='http'),
            StatRow('app', 's1', 'server', check_rise=rise, check_fall=fall, check_health=check_health, **row)]
    state = ServerState('app', 's1', '127.0.0.1', 80, '', op_state, admin_state, 10, 10, 1, 1, 0)
    return pools(rows, [state], (2, 6))['app'].servers['s1']


@pytest.mark.parametrize(('bits', 'admin', 'forced', 'resolved'), [
    (0x00, 'ready', 'ready', True), (0x01, 'maint', 'maint', True), (0x02, 'maint', 'ready', True), (0x08, 'drain', 'drain', True),
    (0x10, 'drain', 'ready', True), (0x04, 'ready', 'ready', True), (0x05, 'maint', 'maint', True), (0x09, 'maint', 'maint', True),
    (0x0a, 'maint', 'drain', True), (0x20, 'ready', 'ready', False), (0x40, 'ready', 'ready', True), (0x21, 'maint', 'maint', False)])
def test_admin_state_comes_from_the_bits(bits: int, admin: str, forced: str, resolved: bool) -> None:
    seen = shown(bits)
    assert (seen.admin, seen.forced, seen.resolved) == (admin, forced, resolved)
    assert seen.usable == (admin == 'ready' and resolved)


@pytest.mark.parametrize('status', ['UP', 'UP 1/3', 'DOWN', 'DRAIN', 'no check', 'MAINT (via app/a2)', 'NOLB', 'UP DOWN MAINT'])
def test_the_status_text_decides_nothing(status: str) -> None:
    assert shown(status=status) == shown(status='')


@pytest.mark.parametrize(('health', 'op_state', 'check', 'up'), [
    ((None, None, None), 2, 'none', True), ((2, 3, 4), 2, 'passed', True), ((2, 3, 4), 1, 'passed', True), ((2, 3, 3), 2, 'pending', False),
    ((2, 3, 2), 2, 'pending', False), ((2, 3, 1), 0, 'failed', False), ((2, 3, 0), 0, 'failed', False), ((2, 3, 4), 3, 'passed', False),
    ((None, None, None), 0, 'none', False)])
def test_up_needs_running_and_checks_passed(health: tuple[int | None, int | None, int | None], op_state: int, check: str, up: bool) -> None:
    seen = shown(op_state=op_state, health=health)
    assert (seen.check, seen.up) == (check, up)


@pytest.mark.parametrize(('row', 'empty', 'idle'), [
    ({}, True, 0), ({'scur': 1}, False, 0), ({'qcur': 1}, False, 0), ({'used_conn_cur': 1}, False, 0),
    ({'idle_conn_cur': 1}, True, 1), ({'safe_conn_cur': 2, 'idle_conn_cur': 1}, True, 3)])
def test_empty_comes_from_counts(row: dict[str, int], empty: bool, idle: int) -> None:
    seen = shown(0x01, **row)
    assert (seen.empty, seen.idle_connections) == (empty, idle)
    assert reached(seen, 'empty') == empty and reached(None, 'empty')


# ---- grammar


@given(st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats()))
def test_a_weight_is_in_range_or_an_error(value: object) -> None:
    try:
        weight = Weight.parse(value)
    except BadInput:
        return
    assert all(0 <= weight.of(initial) <= 256 for initial in (0, 1, 10, 256))
    assert re.fullmatch(r'\s*[0-9]+%?\s*', str(value))


@given(st.integers(0, 256), st.integers(0, 99999))
def test_percentages_are_of_the_configured_weight(initial: int, percent: int) -> None:
    assert Weight.parse('%d%%' % percent).of(initial) == min(256, initial * percent // 100)


@given(st.dictionaries(st.one_of(st.sampled_from(['check', 'inter', 'maxconn', 'weight', 'sni', 'ssl', 'disabled']), st.text()),
                       st.one_of(st.text(), st.booleans(), st.integers(), st.none(),
                                 st.sampled_from(['1s', 'a b', 'a;b', 'a\nb', 'req.hdr(host)']))))
def test_options_that_pass_are_single_words(options: dict[str, object]) -> None:
    try:
        keywords = check_options(options)
    except BadInput:
        return
    for name, value in keywords.items():
        assert re.fullmatch(r'[a-z0-9-]+', name)
        assert value is None or re.fullmatch(r'[^\s;\\\'"]+', value)


@given(st.text(alphabet='0123456789abcdefABCDEF.:[]; \n/%', max_size=40))
def test_addresses_that_pass_are_ip_and_port(text: str) -> None:
    try:
        address = check_address(text)
    except BadInput:
        return
    assert re.fullmatch(r'(\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.]+\]):\d{1,5}', address) and check_address(address) == address


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_ip_address_passes(host: t.Any, port: int) -> None:
    text = '%s:%d' % ('[%s]' % host if host.version == 6 else host, port)
    assert check_address(text) == text


# ---- plans, against a model of what HAProxy does with the commands


class Model:
    """A HAProxy as the management manual describes it, as far as the commands here go."""

    def __init__(self, servers: t.Iterable[Server]) -> None:
        self.servers = {one.name: one for one in servers}

    def do(self, command: str) -> str:
        assert not re.search(r'[\x00-\x1f;\\]', command)
        words = command.split()
        if words[0] == 'experimental-mode':
            return ''
        label = words[1] if words[0] == 'del-server' else words[2]
        _backend, name = label.split('/')
        if words[:2] == ['add', 'server']:
            initial = int(words[words.index('weight') + 1]) if 'weight' in words else 1
            self.servers[name] = server(name, admin='maint', forced='maint', weight=initial, initial_weight=initial, address=words[3])
            return 'New server registered.'
        if words[:2] == ['del', 'server']:
            assert self.servers.pop(name).admin == 'maint'
            return 'Server deleted.'
        if words[:2] == ['enable', 'health']:
            assert name in self.servers
            return ''
        one = self.servers[name]
        change = {'state': {'admin': words[4], 'forced': words[4]}, 'weight': {'weight': int(words[4]) if words[4].isdigit() else 0},
                  'addr': {'address': '%s:%s' % ('[%s]' % words[4] if ':' in words[4] else words[4], words[-1])}}[words[3]]
        self.servers[name] = replace(one, **change)
        return ''


names = st.sampled_from(['s1', 's2', 's3'])
admins = st.sampled_from(['ready', 'drain', 'maint'])
weights = st.one_of(st.integers(0, 256).map(Weight), st.integers(0, 300).map(lambda n: Weight(n, True)))


@st.composite
def servers_of_a_pool(draw: t.Any) -> list[Server]:
    result = []
    for name in draw(st.lists(names, unique=True, min_size=1)):
        admin = draw(admins)
        result.append(server(name, admin=admin, forced=admin, weight=draw(st.integers(0, 256)), initial_weight=draw(st.integers(0, 256)),
                             backup=draw(st.booleans())))
    return result


@st.composite
def wants(draw: t.Any) -> Want | None:
    present = draw(st.booleans())
    listed = draw(st.one_of(st.none(), st.lists(names, min_size=1).map(tuple)))
    try:
        return Want(
            'app', listed, present, draw(st.one_of(st.none(), admins)), draw(st.one_of(st.none(), weights)), draw(st.booleans()),
            draw(st.sampled_from([None, 'auto', 'empty', 'up'])), draw(st.sampled_from([None, '10.0.0.9:99', '[::1]:5'])),
            draw(st.sampled_from([None, {}, {'check': None, 'inter': '1s'}, {'weight': '40'}])))
    except BadInput:
        return None


def carry_out(model: Model, steps: t.Iterable[Step]) -> None:
    for commands in ([c for s in steps for c in s.opening], [c for s in steps for c in s.closing], [s.removal for s in steps if s.removal]):
        for command in commands:
            assert answered(command, model.do(command))


@given(servers_of_a_pool(), wants())
def test_a_plan_reaches_what_is_wanted_and_a_second_one_changes_nothing(before: list[Server], want: Want | None) -> None:
    if want is None:
        return
    model = Model(before)
    try:
        steps = plan(pool(*before), want)
    except DeliveryError:
        return
    carry_out(model, steps)
    after = pool(*model.servers.values())
    for step in steps:
        assert step.changed == (model.servers.get(step.name) != step.before)
        left = model.servers.get(step.name)
        assert (left is not None) == step.present
        if left is not None:
            assert mismatch(after, want, step, closed=True) is None
            assert (left.admin, left.weight, left.address) == (step.admin, step.weight, step.address)
            assert want.admin in (None, left.admin)
            # What was not asked for stays.
            if step.before is not None:
                assert want.admin or left.admin == step.before.admin
                assert want.weight or left.weight == step.before.weight
                assert want.address or left.address == step.before.address
    touched = {step.name for step in steps}
    assert all(model.servers[one.name] == one for one in before if one.name not in touched)
    if want.present or all(name in {one.name for one in before} for name in want.servers or ()):
        assert not any(step.changed for step in (plan(after, want) if after.own() or want.servers else []))


@given(servers_of_a_pool(), wants())
def test_a_plan_never_waits_for_what_cannot_come(before: list[Server], want: Want | None) -> None:
    if want is None:
        return
    try:
        steps = plan(pool(*before), want)
    except DeliveryError:
        return
    for step in steps:
        if step.wait == 'up':
            assert step.present and step.admin == 'ready' and want.wait_for
        if step.wait == 'empty':
            assert not step.present or step.interim != 'ready' or step.weight == 0


@pytest.mark.parametrize('algorithm', ['static-rr', 'source', 'first'])
def test_weights_that_an_algorithm_refuses(algorithm: str) -> None:
    target = pool(server(), algorithm=algorithm, dynamic=algorithm == 'first')
    for weight in ('0', '10', '100%', '0%'):
        plan(target, Want('app', weight=Weight.parse(weight)))
    for weight in ('5', '50%', '11'):
        with pytest.raises(Unsupported, match=algorithm):
            plan(target, Want('app', weight=Weight.parse(weight)))


def test_only_an_unknown_algorithm_is_probed_and_the_probe_cannot_succeed() -> None:
    want = Want('app', weight=Weight(5))
    assert probe(pool(server()), want) is None and probe(pool(server(), algorithm='static-rr', dynamic=False), want) is None
    assert probe(pool(server(), algorithm='source', dynamic=None), Want('app', admin='maint')) is None
    command = probe(pool(server(), algorithm='source', dynamic=None), want)
    assert command == 'add server app/s1 127.0.0.1:1 weight 257'
    assert probed('Backend must use a dynamic load balancing to support dynamic servers.') is False
    assert probed('weight of server s1 is not within 0 and 256 (257)..') is True and probed('Permission denied') is None


@pytest.mark.parametrize(('version', 'first'), [
    ((2, 5), 'experimental-mode on'), ((2, 6), 'add server app/n 10.0.0.9:1'), ((3, 2), 'add server app/n 10.0.0.9:1')])
def test_dynamic_servers_are_an_experiment_before_2_6(version: tuple[int, int], first: str) -> None:
    (step,) = plan(pool(server(), version=version), Want('app', ('n',), address='10.0.0.9:1'))
    assert step.opening[0] == first


def test_an_added_server_gets_its_checks_enabled_before_traffic() -> None:
    (step,) = plan(pool(server()), Want('app', ('n',), address='10.0.0.9:1', options={'check': None}, weight=Weight(7)))
    assert step.opening == ('add server app/n 10.0.0.9:1 check weight 7', 'enable health app/n', 'set server app/n state ready')


def test_weight_comes_before_ready_and_drain_before_maint() -> None:
    (step,) = plan(pool(server(admin='maint', forced='maint')), Want('app', admin='ready', weight=Weight(5)))
    assert step.opening == ('set server app/s1 weight 5', 'set server app/s1 state ready')
    (step,) = plan(pool(server()), Want('app', admin='maint', drain=True))
    assert (step.opening, step.wait, step.closing) == (('set server app/s1 state drain',), 'empty', ('set server app/s1 state maint',))


def test_a_server_in_inherited_maintenance_is_not_drained_first() -> None:
    tracking = server(admin='maint', forced='ready', tracks='other/s')
    (step,) = plan(pool(tracking), Want('app', admin='maint', drain=True))
    assert (step.opening, step.closing, step.interim) == (('set server app/s1 state maint',), (), 'maint')
