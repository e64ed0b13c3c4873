# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""haproxy_backend against real HAProxy processes.

What users of community.general.haproxy suffered from or asked for, each a test here (``issue`` marks them):

    community.general#12286  drain and wait on a server that is ready waits for sessions that never end
    community.general#8092   drain of a DOWN server times out
    community.general#1913   (ansible#37591, #46515, #59156, #30947) DRAIN, then MAINT
    ansible#28606            a TCP socket; several load balancers in one task
    ansible#21676            (#21709, #21714) drain for N seconds, then cut
    modules-extras#23        weight set when given and always returned; a wrong check mode is worse than none
    opnsense/plugins#2213    static algorithms; weight of a server in maintenance
    dataplaneapi#408         (#343) read back runtime weights and admin states
    haproxy-auth-request#7   "no check" and "UP 1/3" are states, too
    (code)                   missing server ignored, error replies ignored, no time limit on a stuck socket, `changed` by sessions,
                             weight only with state=enabled, weight never compared

community.general#2603 (the drain example was wrong) is in test_haproxy_backend_play.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import typing as t

import pytest
from haproxy_lab import HEAD, HAProxy, Origin, free_port, get, wait_for

from ansible_collections.progressive.delivery.plugins.module_utils._backend import SPEC, run_backend
from ansible_collections.progressive.delivery.plugins.module_utils._backend_info import run_info
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError, Unreachable, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.site import Site

CONFIG = '''
frontend f
    bind 127.0.0.1:{port}
    use_backend sticky if {{ path_beg /sticky }}
    use_backend one if {{ path_beg /one }}
    default_backend app
backend app
    balance roundrobin
    server a1 127.0.0.1:{a} weight 100
    server a2 127.0.0.1:{b} weight 100 check inter 100
    server spare 127.0.0.1:{b} backup
    server off 127.0.0.1:{a} disabled weight 10
backend one
    balance roundrobin
    timeout server 60s
    server s1 127.0.0.1:{a} weight 10
backend sticky
    balance roundrobin
    cookie SRV insert
    server s1 127.0.0.1:{a} cookie one
    server s2 127.0.0.1:{b} cookie two
backend dead
    server d1 127.0.0.1:{dead} check inter 100
backend static
    balance static-rr
    server s1 127.0.0.1:{a} weight 10
backend hashed
    balance source
    server s1 127.0.0.1:{a} weight 10
backend consistent
    balance uri
    hash-type consistent
    server s1 127.0.0.1:{a} weight 10
backend first
    balance first
    server s1 127.0.0.1:{a} weight 10
backend light
    server s1 127.0.0.1:{a}
backend tracked
    server t1 127.0.0.1:{a} track app/a2
'''


def options(*sockets: str, **given: t.Any) -> dict[str, t.Any]:
    values = {name: spec.get('default') for name, spec in SPEC.items()}
    values.update(given)
    values['endpoints'] = [{'name': 'lb%d' % n, 'socket': socket, 'deadline': 1.0} for n, socket in enumerate(sockets, 1)]
    return values


def do(proxy: HAProxy | t.Sequence[HAProxy], check: bool = False, **given: t.Any) -> dict[str, t.Any]:
    """Runs the task; a failure after the first change is a result, one before it raises."""
    proxies = [proxy] if isinstance(proxy, HAProxy) else proxy
    result = run_backend(options(*(p.address for p in proxies), **given), check, True)
    json.dumps(result)
    return result


def servers(result: dict[str, t.Any], endpoint: int = 0) -> dict[str, dict[str, t.Any]]:
    return {server['name']: server for server in result['endpoints'][endpoint]['servers']}


def shown(proxy: HAProxy, backend: str) -> dict[str, tuple[int, int, int]]:
    """What HAProxy itself shows, read without the collection: admin bits, operational state, weight by server."""
    lines = [line.split() for line in proxy.ask('show servers state %s' % backend).splitlines()[2:] if line]
    return {line[3]: (int(line[6]), int(line[5]), int(line[7])) for line in lines}


MAINT, DRAIN = 1, 8


@pytest.fixture
def origins() -> t.Iterator[tuple[Origin, Origin]]:
    with Origin('a') as a, Origin('b') as b:
        yield a, b


@pytest.fixture
def proxy(origins: tuple[Origin, Origin]) -> t.Iterator[HAProxy]:
    a, b = origins
    with HAProxy(CONFIG, a=a.port, b=b.port, dead=free_port()) as running:
        wait_for(lambda: get(running.port).status == 200, 'a first answer')
        yield running


class Held:
    """A keep-alive client that was answered once and whose second request is being worked on until ``finish``."""

    def __init__(self, proxy: HAProxy, origin: Origin, path: str, headers: t.Mapping[str, str]) -> None:
        self.client = http.client.HTTPConnection('127.0.0.1', proxy.port, timeout=20)
        self.origin, self.path, self.headers = origin, path, dict(headers)
        assert self._get() == 200
        origin.gate.clear()
        self.client.request('GET', path, headers=self.headers)

    def _get(self) -> int:
        self.client.request('GET', self.path, headers=self.headers)
        return self._answer()

    def _answer(self) -> int:
        reply = self.client.getresponse()
        reply.read()
        return reply.status

    def finish(self) -> int:
        """Lets the origin answer; returns the status, 0 when the connection was cut."""
        self.origin.gate.set()
        try:
            return self._answer()
        except (OSError, http.client.HTTPException):
            return 0

    def again(self) -> int:
        """Returns the status of one more request over the same connection."""
        return self._get()


@contextlib.contextmanager
def held(proxy: HAProxy, origin: Origin, path: str = '/one', server: str = 'one,s1') -> t.Iterator[Held]:
    request = Held(proxy, origin, path, {})
    try:
        wait_for(lambda: _sessions(proxy, server) == 1, 'a request that is being worked on')
        yield request
    finally:
        origin.gate.set()
        request.client.close()


def _sessions(proxy: HAProxy, server: str) -> int:
    for line in proxy.ask('show stat').splitlines():
        if line.startswith(server + ','):
            return int(line.split(',')[4])
    return -1


class Background:
    """A task in a thread: started, looked at, ended."""

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        self.result: dict[str, t.Any] = {}
        self.error: BaseException | None = None

        def work() -> None:
            try:
                self.result = do(*args, **kwargs)
            except BaseException as exc:
                self.error = exc

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> dict[str, t.Any]:
        self._thread.join(20)
        assert not self._thread.is_alive(), 'the task did not end'
        if self.error:
            raise self.error
        return self.result


def issue(*names: str) -> t.Callable[[t.Callable], t.Callable]:
    """Names the reports that a test answers."""
    return lambda test: test


# ---- the way out


@issue('community.general#12286')
def test_making_a_ready_server_ready_does_not_wait_for_sessions(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with held(proxy, origins[0]):
        result = do(proxy, backend='one', admin='ready', wait=True, wait_timeout='5')
        assert not result['changed'] and 'failed' not in result
        assert servers(result)['s1']['sessions'] == 1


@issue('community.general#12286')
@pytest.mark.parametrize('given', [{'wait': True, 'wait_for': 'empty'}, {'admin': 'ready', 'wait': True, 'wait_for': 'empty'},
                                   {'admin': 'ready', 'drain': True}, {'admin': 'drain', 'wait': True, 'wait_for': 'up'},
                                   {'admin': 'maint', 'drain': True, 'wait': True, 'wait_for': 'up'},
                                   {'state': 'absent', 'servers': ['s1'], 'weight': None, 'wait': True, 'wait_for': 'up'}])
def test_waiting_for_what_cannot_come_is_an_error_before_the_change(proxy: HAProxy, given: dict[str, t.Any]) -> None:
    with pytest.raises(BadInput):
        do(proxy, **{'backend': 'one', 'weight': '5', **given})
    assert shown(proxy, 'one')['s1'] == (0, 2, 10)


@issue('community.general#8092')
@pytest.mark.parametrize('admin', ['drain', 'maint'])
def test_a_down_server_drains_at_once(proxy: HAProxy, admin: str) -> None:
    wait_for(lambda: shown(proxy, 'dead')['d1'][1] == 0, 'd1 down')
    result = do(proxy, backend='dead', admin=admin, wait=True, wait_timeout='30')
    assert result['changed'] and 'failed' not in result
    assert servers(result)['d1']['waited_s'] < 30 and not servers(result)['d1']['timed_out']
    assert shown(proxy, 'dead')['d1'][0] == (DRAIN if admin == 'drain' else MAINT)


@issue('community.general#1913', 'ansible#37591')
def test_drain_then_maint_in_two_tasks(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with held(proxy, origins[0]) as request:
        task = Background(proxy, backend='one', admin='drain', wait=True, wait_timeout='20')
        wait_for(lambda: shown(proxy, 'one')['s1'][0] == DRAIN, 'drain')
        assert task.running
        assert request.finish() == 200
        assert servers(task.end())['s1']['sessions'] == 0
    assert do(proxy, backend='one', admin='maint', wait=True)['changed']
    assert shown(proxy, 'one')['s1'][0] == MAINT
    assert not do(proxy, backend='one', admin='maint', wait=True)['changed']


@issue('community.general#1913', 'ansible#46515')
def test_drain_then_maint_in_one_task_loses_no_request(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with held(proxy, origins[0]) as request:
        task = Background(proxy, backend='one', admin='maint', drain=True, wait_timeout='20')
        wait_for(lambda: shown(proxy, 'one')['s1'][0] == DRAIN, 'drain')
        assert task.running
        assert request.finish() == 200
        result = task.end()
    assert result['changed'] and servers(result)['s1']['admin'] == 'maint'
    assert servers(result)['s1']['waited_s'] > 0
    assert shown(proxy, 'one')['s1'][0] == MAINT


def test_an_idle_keep_alive_client_holds_nothing_up(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with held(proxy, origins[0]) as request:
        assert request.finish() == 200
        result = do(proxy, backend='one', admin='maint', drain=True, wait_timeout='20')
        assert 'failed' not in result
        assert request.again() == 503


def test_a_server_in_maintenance_is_not_brought_back_by_drain(proxy: HAProxy) -> None:
    do(proxy, backend='one', admin='maint')
    assert not do(proxy, backend='one', admin='maint', drain=True)['changed']
    assert shown(proxy, 'one')['s1'][0] == MAINT


@issue('ansible#21676')
def test_time_out_fails_with_what_was_seen_last(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with held(proxy, origins[0]) as request:
        result = do(proxy, backend='one', admin='maint', drain=True, wait_timeout='0.3')
        assert result['failed'] and result['changed']
        assert 'lb1: server one/s1 has 1 session' in result['msg'] and 'after 0.3' in result['msg'] and 'in state drain' in result['msg']
        assert servers(result)['s1']['timed_out'] and servers(result)['s1']['sessions'] == 1
        assert shown(proxy, 'one')['s1'][0] == DRAIN
        assert request.finish() == 200


@issue('ansible#21676', 'ansible#21709', 'ansible#21714')
@pytest.mark.parametrize(('admin', 'drain', 'bits'), [('maint', True, MAINT), ('maint', False, MAINT), ('drain', False, DRAIN)])
def test_time_out_cuts_what_is_left(proxy: HAProxy, origins: tuple[Origin, Origin], admin: str, drain: bool, bits: int) -> None:
    with held(proxy, origins[0]) as request:
        result = do(proxy, backend='one', admin=admin, drain=drain, wait=True, wait_timeout='0.3', on_timeout='shutdown')
        assert 'failed' not in result
        seen = servers(result)['s1']
        assert seen['timed_out'] and seen['shut_down'] and seen['sessions'] == 0
        assert shown(proxy, 'one')['s1'][0] == bits and _sessions(proxy, 'one,s1') == 0
        assert request.finish() != 200


@issue('ansible#21676')
def test_time_out_keeps_what_is_left(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with held(proxy, origins[0]) as request:
        result = do(proxy, backend='one', admin='maint', drain=True, wait_timeout='0.3', on_timeout='keep')
        assert 'failed' not in result and 'server one/s1 has 1 session' in result['warnings'][0]
        assert shown(proxy, 'one')['s1'][0] == MAINT
        assert request.finish() == 200


def test_drain_keeps_persistent_clients_and_maint_does_not(proxy: HAProxy) -> None:
    cookie = {'Cookie': 'SRV=one'}
    do(proxy, backend='sticky', servers=['s1'], admin='drain', wait=True)
    assert get(proxy.port, '/sticky', cookie).body == 'a' and get(proxy.port, '/sticky').body == 'b'
    do(proxy, backend='sticky', servers=['s1'], admin='maint', wait=True)
    assert get(proxy.port, '/sticky', cookie).body == 'b'


def test_a_persistent_client_that_comes_at_the_last_moment_is_waited_for(
        proxy: HAProxy, origins: tuple[Origin, Origin], monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[Held] = []
    looks: list[None] = []
    close, read = Site.close, Site._read

    async def close_after_a_request(site: Site) -> None:
        late.append(Held(proxy, origins[0], '/sticky', {'Cookie': 'SRV=one'}))
        wait_for(lambda: _sessions(proxy, 'sticky,s1') == 1, 'the late request')
        looks.clear()
        await close(site)

    async def counted_read(site: Site) -> None:
        looks.append(None)
        await read(site)

    monkeypatch.setattr(Site, 'close', close_after_a_request)
    monkeypatch.setattr(Site, '_read', counted_read)
    task = Background(proxy, backend='sticky', servers=['s1'], admin='maint', drain=True, wait_timeout='20')
    wait_for(lambda: late and len(looks) > 3 or not task.running, 'looks after maintenance')
    assert task.running and shown(proxy, 'sticky')['s1'][0] == MAINT
    assert late[0].finish() == 200
    seen = servers(task.end())['s1']
    assert (seen['admin'], seen['sessions']) == ('maint', 0)


def test_a_hung_health_check_does_not_hold_up_a_drain(origins: tuple[Origin, Origin]) -> None:
    origins[0].gate.clear()
    with HAProxy('backend app\n option httpchk\n server a1 127.0.0.1:{a} check inter 2s', a=origins[0].port) as proxy:
        wait_for(lambda: origins[0].hits, 'a check under way')
        assert 'failed' not in do(proxy, backend='app', admin='drain', wait=True, wait_timeout='3')
    origins[0].gate.set()


def test_a_reload_during_the_wait_ends_it(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with held(proxy, origins[0]):
        task = Background(proxy, backend='one', admin='drain', wait=True, wait_timeout='60')
        wait_for(lambda: shown(proxy, 'one')['s1'][0] == DRAIN, 'drain')
        proxy.ask('set server one/s1 state ready')
        result = task.end()
    assert result['failed'] and 'shows admin state ready instead of drain' in result['msg']


def test_a_process_that_dies_during_the_wait_ends_it(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with held(proxy, origins[0]):
        task = Background(proxy, backend='one', admin='drain', wait=True, wait_timeout='60')
        wait_for(lambda: shown(proxy, 'one')['s1'][0] == DRAIN, 'drain')
        proxy.stop()
        result = task.end()
    assert result['failed'] and 'lb1: HAProxy at' in result['msg']


def test_a_long_wait_says_what_it_waits_for(
        proxy: HAProxy, origins: tuple[Origin, Origin], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('ansible_collections.progressive.delivery.plugins.module_utils._haproxy.site._SAY_EVERY_S', 0.0)
    said: list[str] = []
    with held(proxy, origins[0]):
        run_backend(options(proxy.address, backend='one', admin='drain', wait=True, wait_timeout='0.3', on_timeout='keep'), say=said.append)
    assert said[0].startswith('lb1: server one/s1 has 1 session') and said[0].endswith(' left')


# ---- the way in


@issue('haproxy-auth-request#7')
def test_up_means_checked_not_just_enabled(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    wait_for(lambda: 'L4OK' in proxy.ask('show stat app 4 -1'), 'a2 checked')
    do(proxy, backend='app', servers=['a2'], admin='maint')
    origins[1].stop()
    # HAProxy counts it as running (status "UP 1/3") until the first check fails.
    result = do(proxy, backend='app', servers=['a2'], admin='ready', wait=True, wait_timeout='0.5')
    assert result['failed'] and 'server app/a2 is stopped, check failed' in result['msg']
    origins[1].start()
    result = do(proxy, backend='app', servers=['a2'], admin='ready', wait=True, wait_timeout='10')
    assert not result['changed'] and servers(result)['a2']['up'] and servers(result)['a2']['check'] == 'passed'


@issue('haproxy-auth-request#7')
def test_one_failed_check_is_pending_not_passed(origins: tuple[Origin, Origin]) -> None:
    with HAProxy('backend app\n server a1 127.0.0.1:{a} check inter 100 fall 1000 rise 1', a=origins[0].port) as proxy:
        wait_for(lambda: servers(do(proxy, backend='app'))['a1']['check'] == 'passed', 'a passed check')
        origins[0].stop()
        wait_for(lambda: servers(do(proxy, backend='app'))['a1']['check'] == 'pending', 'a failed check')
        assert '1000' in proxy.ask('show stat app 4 -1').split('UP ')[1][:12]
        seen = servers(do(proxy, backend='app'))['a1']
        assert not seen['up'] and seen['usable']


@issue('haproxy-auth-request#7')
def test_a_server_without_checks_is_up_when_it_is_ready(proxy: HAProxy) -> None:
    do(proxy, backend='one', admin='maint')
    result = do(proxy, backend='one', admin='ready', wait=True, wait_timeout='5')
    assert 'no check' in proxy.ask('show stat one 4 -1')
    assert servers(result)['s1']['up'] and servers(result)['s1']['check'] == 'none'


def test_a_server_that_the_configuration_disables_becomes_ready_and_stays_unchanged(proxy: HAProxy) -> None:
    assert do(proxy, backend='app', servers=['off'], admin='ready', wait=True)['changed']
    again = do(proxy, backend='app', servers=['off'], admin='ready', wait=True)
    assert not again['changed'] and servers(again)['off']['admin'] == 'ready' and servers(again)['off']['up']


def test_a_time_out_on_the_way_in_is_never_cut(proxy: HAProxy) -> None:
    result = do(proxy, backend='dead', admin='ready', wait=True, wait_timeout='0.3', on_timeout='shutdown')
    assert result['failed'] and 'dead/d1 is stopped' in result['msg']


# ---- weight


@issue('modules-extras#23', 'code')
def test_weight_is_set_without_touching_the_state(proxy: HAProxy) -> None:
    do(proxy, backend='one', admin='maint')
    result = do(proxy, backend='one', weight='77')
    assert result['changed'] and servers(result)['s1']['weight'] == 77 and servers(result)['s1']['admin'] == 'maint'
    assert shown(proxy, 'one')['s1'] == (MAINT, 0, 77)
    assert not do(proxy, backend='one', weight='77')['changed']


@issue('opnsense/plugins#2213', 'dataplaneapi#408')
def test_weight_and_state_are_returned_in_maintenance_too(proxy: HAProxy) -> None:
    proxy.ask('set server one/s1 weight 33')
    proxy.ask('set server one/s1 state maint')
    seen = servers(do(proxy, backend='one'))['s1']
    assert (seen['weight'], seen['initial_weight'], seen['admin'], seen['operational']) == (33, 10, 'maint', 'stopped')


@pytest.mark.parametrize(('weight', 'expected'), [
    ('0', 0), ('256', 256), ('50%', 50), ('33%', 33), ('0%', 0), ('100%', 100), ('300%', 256)])
def test_weights_are_what_haproxy_makes_of_them(proxy: HAProxy, weight: str, expected: int) -> None:
    predicted = do(proxy, True, backend='app', servers=['a1'], weight=weight)
    assert servers(predicted)['a1']['weight'] == expected
    result = do(proxy, backend='app', servers=['a1'], weight=weight)
    assert servers(result)['a1']['weight'] == expected == shown(proxy, 'app')['a1'][2]
    # HAProxy's own arithmetic of the same words.
    proxy.ask('set server app/a1 weight 1')
    proxy.ask('set server app/a1 weight %s' % weight)
    assert shown(proxy, 'app')['a1'][2] == expected


def test_a_percentage_that_rounds_to_nothing_is_refused(proxy: HAProxy) -> None:
    with pytest.raises(BadInput, match='rounds to 0'):
        do(proxy, backend='light', weight='50%')
    assert shown(proxy, 'light')['s1'][2] == 1


@issue('opnsense/plugins#2213', 'code')
@pytest.mark.parametrize(('backend', 'algorithm', 'words'), [('static', 'static-rr', 'static'), ('hashed', 'source', 'static'),
                                                             ('first', 'first', 'ignores weights')])
def test_an_algorithm_that_refuses_a_weight_is_named_before_the_change(proxy: HAProxy, backend: str, algorithm: str, words: str) -> None:
    for check in (True, False):
        with pytest.raises(Unsupported, match='balances by "%s".*%s' % (algorithm, words)):
            do(proxy, check, backend=backend, weight='5', admin='maint')
    assert shown(proxy, backend)['s1'] == (0, 2, 10)
    for weight in ('0', '10', '100%'):
        assert servers(do(proxy, backend=backend, weight=weight))['s1']['weight'] == (0 if weight == '0' else 10)


def test_a_consistent_hash_takes_any_weight_and_the_probe_adds_nothing(proxy: HAProxy) -> None:
    assert servers(do(proxy, backend='consistent', weight='5'))['s1']['weight'] == 5
    assert list(shown(proxy, 'consistent')) == ['s1'] and list(shown(proxy, 'hashed')) == ['s1']


@issue('code')
def test_sessions_are_not_a_change(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    do(proxy, backend='one', weight='5', admin='ready')
    with held(proxy, origins[0]):
        for given in ({'weight': '5'}, {'admin': 'ready'}, {}):
            result = do(proxy, backend='one', **given)
            assert not result['changed'] and result['diff'] == []


@issue('modules-extras#23')
@pytest.mark.parametrize('given', [
    {'admin': 'maint'}, {'admin': 'drain', 'weight': '7'}, {'weight': '50%'}, {'admin': 'maint', 'drain': True},
    {'state': 'absent'}, {'servers': ['n1'], 'address': '127.0.0.1:1', 'weight': '9'}, {'address': '127.0.0.9:99'}])
def test_check_mode_changes_nothing_and_predicts_what_comes(proxy: HAProxy, given: dict[str, t.Any]) -> None:
    given = {'backend': 'one', 'servers': ['s1'], **given}
    before = shown(proxy, 'one')
    predicted = do(proxy, True, wait=False, **given)
    assert shown(proxy, 'one') == before and predicted['changed']
    done = do(proxy, wait=False, **given)
    assert done['changed'] and done['diff'] == predicted['diff'] and done['diff'][0]['before'] != done['diff'][0]['after']

    def facts(result: dict[str, t.Any]) -> list[tuple]:
        return [(s['name'], s['admin'], s['weight'], s['address'], s['changed']) for s in result['endpoints'][0]['servers']]
    assert facts(done) == facts(predicted)
    for check in (True, False):
        again = do(proxy, check, wait=False, **given)
        assert not again['changed'] and again['diff'] == []


# ---- which servers


def test_all_servers_but_backups_are_the_default(proxy: HAProxy) -> None:
    result = do(proxy, backend='app', admin='drain')
    assert list(servers(result)) == ['a1', 'a2', 'off']
    assert shown(proxy, 'app')['spare'][0] == 0


@issue('code')
@pytest.mark.parametrize(('given', 'words'), [
    ({'backend': 'app', 'servers': ['a1', 'zz']}, 'has no server zz: it has a1, a2, spare, off'),
    ({'backend': 'zz'}, 'has no backend zz: it has app, one'),
    ({'backend': 'app', 'servers': []}, 'list of servers is empty'),
    ({'backend': 'app', 'servers': ['a1; disable server app/a2']}, 'not a valid name'),
    ({'backend': 'app\ndisable server app/a2'}, 'not a valid name'),
    ({'backend': 'app', 'servers': ['a 1']}, 'not a valid name'),
    ({'backend': 'app', 'weight': '257'}, 'not possible'),
    ({'backend': 'app', 'weight': '-1'}, 'not possible'),
    ({'backend': 'app', 'weight': '5 ; show info'}, 'not possible'),
    ({'backend': 'app', 'wait_timeout': 'soon'}, 'wait_timeout'),
    ({'backend': 'app', 'state': 'absent'}, 'needs the names'),
])
def test_bad_input_stops_before_the_change(proxy: HAProxy, given: dict[str, t.Any], words: str) -> None:
    before = shown(proxy, 'app')
    with pytest.raises(BadInput, match=words):
        do(proxy, **{'admin': 'maint', **given})
    assert shown(proxy, 'app') == before


def test_a_tracking_server_follows_and_cannot_be_made_ready_alone(proxy: HAProxy) -> None:
    do(proxy, backend='app', servers=['a2'], admin='maint')
    with pytest.raises(Unsupported, match='because it tracks app/a2'):
        do(proxy, backend='tracked', admin='ready')
    assert servers(do(proxy, backend='tracked'))['t1']['tracks'] == 'app/a2'


def test_slots_that_dns_has_not_filled_do_not_hold_up_the_others(origins: tuple[Origin, Origin]) -> None:
    lines = ('backend app\n server a1 127.0.0.1:{a}\n server-template slot 1-2 nowhere.invalid:80 init-addr none resolvers r\n'
             'resolvers r\n nameserver n 127.0.0.1:{dead}\n')
    with HAProxy(lines, a=origins[0].port, dead=free_port()) as proxy:
        for admin in ('maint', 'ready'):
            result = do(proxy, backend='app', admin=admin, wait=True, wait_timeout='5')
            assert 'failed' not in result and servers(result)['a1']['admin'] == admin
            assert not do(proxy, backend='app', admin=admin)['changed']


def test_an_arm_may_have_another_backend_on_another_endpoint(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with HAProxy('backend elsewhere\n server x 127.0.0.1:{a}', a=origins[0].port) as second:
        given = options(proxy.address, second.address, arm='canary', arms={'canary': {'backend': 'app', 'servers': ['a1']}}, weight='3')
        given['endpoints'][1]['arms'] = {'canary': {'backend': 'elsewhere', 'servers': ['x']}}
        result = run_backend(given)
        assert list(servers(result)) == ['a1'] and list(servers(result, 1)) == ['x']
        assert shown(second, 'elsewhere')['x'][2] == 3 and shown(proxy, 'app')['a2'][2] == 100


# ---- endpoints


@issue('ansible#28606')
def test_tcp_and_unix_sockets_in_one_task(origins: tuple[Origin, Origin]) -> None:
    port = free_port()
    head = HEAD.replace('    maxconn', '    stats socket ipv4@127.0.0.1:%d level admin\n    maxconn' % port, 1)
    with HAProxy(CONFIG, a=origins[0].port, b=origins[1].port, dead=free_port()) as first, \
            HAProxy(CONFIG, head=head, a=origins[0].port, b=origins[1].port, dead=free_port()) as second:
        result = run_backend(options(first.address, 'tcp://127.0.0.1:%d' % port, backend='one', weight='5', admin='drain'))
        assert [endpoint['name'] for endpoint in result['endpoints']] == ['lb1', 'lb2']
        assert shown(first, 'one') == shown(second, 'one') == {'s1': (DRAIN, 2, 5)}


@pytest.mark.parametrize('fault', ['gone', 'frozen', 'lacking'])
def test_one_bad_endpoint_stops_all_before_the_change(proxy: HAProxy, origins: tuple[Origin, Origin], fault: str) -> None:
    lines = 'backend other\n server x 127.0.0.1:1' if fault == 'lacking' else CONFIG
    with HAProxy(lines, a=origins[0].port, b=origins[1].port, dead=free_port()) as second:
        if fault == 'gone':
            second.stop()
        elif fault == 'frozen':
            second.freeze()
        with pytest.raises(DeliveryError, match='Nothing was changed. lb2: ') as caught:
            do([proxy, second], backend='one', admin='maint')
        assert fault == 'lacking' or isinstance(caught.value, Unreachable)
    assert shown(proxy, 'one')['s1'][0] == 0


def test_endpoints_are_drained_at_once(origins: tuple[Origin, Origin], proxy: HAProxy) -> None:
    with HAProxy(CONFIG, a=origins[0].port, b=origins[1].port, dead=free_port()) as second, held(proxy, origins[0]) as first_request:
        task = Background([proxy, second], backend='one', admin='maint', drain=True, wait_timeout='20')
        wait_for(lambda: shown(proxy, 'one')['s1'][0] == shown(second, 'one')['s1'][0] == DRAIN, 'drain on both')
        assert task.running
        assert first_request.finish() == 200
        result = task.end()
        assert [servers(result, n)['s1']['admin'] for n in (0, 1)] == ['maint', 'maint']


@issue('code')
def test_a_socket_without_admin_rights_is_named_before_the_change(origins: tuple[Origin, Origin]) -> None:
    head = HEAD.replace('level admin', 'level operator')
    with HAProxy('backend app\n server a1 127.0.0.1:{a}', head=head, a=origins[0].port) as proxy:
        with pytest.raises(Unsupported, match='has level "operator": add "level admin"'):
            do(proxy, backend='app', weight='5')


def test_a_policy_that_contradicts_itself_is_refused(proxy: HAProxy) -> None:
    with pytest.raises(BadInput, match='on_timeout=keep cannot remove'):
        do(proxy, backend='one', servers=['s1'], state='absent', on_timeout='keep')


# ---- dynamic servers


def test_a_server_is_added_checked_used_and_removed(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    given = {'backend': 'one', 'servers': ['n1'], 'address': '127.0.0.1:%d' % origins[1].port, 'weight': '20',
             'server_options': {'check': True, 'inter': '100', 'maxconn': 50, 'backup': False}}
    result = do(proxy, wait=True, wait_timeout='10', **given)
    seen = servers(result)['n1']
    assert result['changed'] and seen['up'] and seen['check'] == 'passed' and seen['weight'] == 20 and seen['admin'] == 'ready'
    assert {get(proxy.port, '/one').body for _n in range(20)} == {'a', 'b'}
    assert not do(proxy, wait=True, **given)['changed']
    gone = do(proxy, backend='one', servers=['n1'], state='absent', drain=True, wait_timeout='20')
    assert gone['changed'] and gone['endpoints'][0]['absent'] == ['n1'] and list(shown(proxy, 'one')) == ['s1']
    assert not do(proxy, backend='one', servers=['n1'], state='absent', drain=True)['changed']
    assert {get(proxy.port, '/one').body for _n in range(5)} == {'a'}


@pytest.mark.parametrize('fall', [1, 3])
def test_an_added_server_that_does_not_answer_its_checks_is_not_up(proxy: HAProxy, fall: int) -> None:
    result = do(proxy, backend='one', servers=['n1'], address='127.0.0.1:%d' % free_port(), wait=True, wait_timeout='1',
                server_options={'check': True, 'inter': '100', 'fall': fall})
    assert result['failed'] and 'server one/n1 is stopped, check failed' in result['msg']


def test_an_added_server_can_wait_in_maintenance(proxy: HAProxy) -> None:
    result = do(proxy, backend='one', servers=['n1'], address='127.0.0.1:1', admin='maint', weight='50%', server_options={'weight': 40})
    assert (servers(result)['n1']['admin'], servers(result)['n1']['weight']) == ('maint', 20)
    assert shown(proxy, 'one')['n1'] == (MAINT, 0, 20)


def test_removal_waits_for_the_last_request(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with held(proxy, origins[0]) as request:
        refused = do(proxy, backend='one', servers=['s1'], state='absent')
        assert refused['failed'] and 'still has connections' in refused['msg'] and 'wait=true' in refused['msg']
        assert shown(proxy, 'one')['s1'][0] == MAINT
        task = Background(proxy, backend='one', servers=['s1'], state='absent', wait=True, wait_timeout='30')
        wait_for(lambda: _sessions(proxy, 'one,s1') == 1 and task.running, 'the task waits')
        assert request.finish() == 200
        result = task.end()
    assert result['changed'] and 'failed' not in result, result.get('msg')
    assert shown(proxy, 'one') == {}


def test_removal_cuts_the_last_request_when_time_is_up(proxy: HAProxy, origins: tuple[Origin, Origin]) -> None:
    with held(proxy, origins[0]) as request:
        result = do(proxy, backend='one', servers=['s1'], state='absent', drain=True, wait_timeout='0.3', on_timeout='shutdown')
        assert 'failed' not in result and shown(proxy, 'one') == {}
        assert request.finish() != 200


def test_a_server_that_others_refer_to_cannot_be_removed_and_says_so(proxy: HAProxy) -> None:
    result = do(proxy, backend='app', servers=['a2'], state='absent')
    assert result['failed'] and 'other configuration elements' in result['msg']


def test_a_server_that_haproxy_will_not_add_is_an_error(proxy: HAProxy) -> None:
    result = do(proxy, backend='one', servers=['n1'], address='127.0.0.1:1',
                server_options={'check': True, 'crt': '/nowhere.pem', 'ssl': True})
    assert result['failed'] and 'add server one/n1' in result['msg'] and list(shown(proxy, 'one')) == ['s1']


@pytest.mark.parametrize('address', ['web3:80', '10.0.0.1', '10.0.0.1:99999', '10.0.0.999:80', '10.0.0.1:80 backup', '[::1]', 'unix@/x'])
def test_an_address_that_haproxy_would_not_reach_is_refused(proxy: HAProxy, address: str) -> None:
    with pytest.raises(BadInput, match='The address'):
        do(proxy, backend='one', servers=['n1'], address=address)


@pytest.mark.parametrize('given', [{'bogus': True}, {'check': 'yes'}, {'maxconn': '5 backup'}, {'crt': 'a;b'}, {'inter': None},
                                   {'disabled': True}])
def test_server_options_outside_the_manual_are_refused(proxy: HAProxy, given: dict[str, t.Any]) -> None:
    with pytest.raises(BadInput, match='The server option'):
        do(proxy, backend='one', servers=['n1'], address='127.0.0.1:1', server_options=given)


@pytest.mark.parametrize('backend', ['static', 'hashed'])
def test_a_static_backend_takes_no_new_server_and_says_so_before(proxy: HAProxy, backend: str) -> None:
    with pytest.raises(Unsupported, match='dynamic algorithm'):
        do(proxy, backend=backend, servers=['n1'], address='127.0.0.1:1')


def test_an_address_can_change_and_ipv6_is_compared_in_one_spelling(proxy: HAProxy) -> None:
    for address, shown_as in (('127.0.0.2:81', '127.0.0.2:81'), ('[2001:DB8:0::1]:81', '[2001:db8::1]:81')):
        result = do(proxy, backend='one', servers=['s1'], address=address)
        assert result['changed'] and servers(result)['s1']['address'] == shown_as
        assert not do(proxy, backend='one', servers=['s1'], address=address)['changed']


# ---- the record, the facts


def test_the_journal_has_the_intent_and_the_end(proxy: HAProxy, tmp_path: t.Any) -> None:
    path = tmp_path / 'j.jsonl'
    do(proxy, True, backend='one', admin='drain', journal=str(path), rollout='r1')
    assert not path.exists()
    do(proxy, backend='one', admin='drain', wait=True, journal=str(path), rollout='r1')
    do(proxy, backend='one', admin='drain', wait=True, journal=str(path), rollout='r1')
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(e['event'], e['phase'], e['rollout']) for e in events] == [('servers', 'intent', 'r1'), ('servers', 'done', 'r1')]
    assert events[0]['endpoints'][0]['servers'][0]['after'].startswith('s1: drain, weight 10')


def test_facts_of_all_backends(proxy: HAProxy) -> None:
    wait_for(lambda: shown(proxy, 'dead')['d1'][1] == 0 and 'L4OK' in proxy.ask('show stat app 4 -1'), 'checks')
    result = run_info({'endpoints': [{'socket': proxy.address}], 'backends': None})
    (endpoint,) = result['endpoints']
    json.dumps(result)
    assert endpoint['name'] == proxy.address and endpoint['version'].startswith(('2.', '3.')) and endpoint['pid'] == proxy.pid
    backends = {backend['backend']: backend for backend in endpoint['backends']}
    assert (backends['static']['algorithm'], backends['app']['algorithm'], backends['app']['mode']) == ('static-rr', 'roundrobin', 'http')
    assert backends['app']['usable'] == 2 and backends['dead']['usable'] == 0
    assert {s['name']: (s['usable'], s['check'], s['backup']) for s in backends['app']['servers']} == {
        'a1': (True, 'none', False), 'a2': (True, 'passed', False), 'spare': (True, 'none', True), 'off': (False, 'none', False)}
    only = run_info({'endpoints': [{'socket': proxy.address}], 'backends': ['one']})
    assert [backend['backend'] for backend in only['endpoints'][0]['backends']] == ['one']


@pytest.mark.parametrize('given', [{'backends': ['zz']}, {'backends': ['a b']}, {'endpoints': [{'socket': 'unix:///nowhere.sock'}]},
                                   {'endpoints': []}, {'endpoints': [{'socket': '/run/x.sock'}]}])
def test_facts_that_cannot_be_read_are_an_error(proxy: HAProxy, given: dict[str, t.Any]) -> None:
    with pytest.raises(DeliveryError):
        run_info({'endpoints': [{'socket': proxy.address}], 'backends': None, **given})
