# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""traffic_weight with the router haproxy_weights, and its watchdog, through real HAProxy processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.progressive.delivery.plugins.module_utils import _watchdog
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._lease import held
from haproxy_lab import tally, wait_for
from traffic_lab import FRONTEND, Shop, sentence

ARMS = {'blue': {'backend': 'pool', 'servers': ['b1', 'b2']}, 'canary': {'backend': 'pool', 'servers': ['c1']},
        'green': {'backend': 'pool', 'servers': ['g1', 'g2']}}


def pool(balance='roundrobin', more=''):
    return '''
    default_backend pool
backend pool
    balance %s
    %s
    server b1 127.0.0.1:{blue} weight 10 cookie b1
    server b2 127.0.0.1:{blue} weight 10 cookie b2
    server c1 127.0.0.1:{canary} weight 0 cookie c1
    server g1 127.0.0.1:{green} weight 0
    server g2 127.0.0.1:{green} weight 0
    server spare 127.0.0.1:{blue} backup
''' % (balance, more)


class Pool(Shop):
    def __init__(self, *args, **more):
        super().__init__(backends=pool(*args), frontend=FRONTEND, **more)

    def options(self, **options):
        return super().options(**{'arms': ARMS, **options})

    def endpoints(self, **more):
        return [{'name': 'lb%d' % n, 'socket': proxy.address, 'router': 'haproxy_weights', 'state_dir': str(proxy.dir / 'state'), **more}
                for n, proxy in enumerate(self.proxies, 1)]

    def state(self):
        return next((self.proxy.dir / 'state').glob('shop@*.json'))

    def weights(self):
        rows = [line.split(' ') for line in self.proxy.ask('show servers state pool').splitlines()[2:]]
        return {row[3]: int(row[7]) for row in rows}

    def admin(self, server):
        return next(int(line.split(' ')[6]) for line in self.proxy.ask('show servers state pool').splitlines() if ' %s ' % server in line)


@pytest.fixture()
def shop():
    with Pool() as one:
        yield one
        with contextlib.suppress(Exception):
            one.do(state='way_back')
        wait_for(lambda: not watched(one), 'the end of the watchdog')


def watched(shop):
    with contextlib.suppress(StopIteration):
        return _watchdog.StateFile(str(shop.state())).watched()
    return False


def test_requests_follow_the_weights_and_the_error_is_reported(shop):
    result = shop.do(split={'canary': '10%'}, lease='60s', rollout='r1')
    assert result['configured'] == {'lb1': {'canary': 1000, 'blue': 9000}} == {'lb1': result['requested']}
    assert abs(tally(shop.proxy.port, 400)['canary'] - 40) <= 2
    # The finest share of one server against two of weight 256 is 1/513.
    result = shop.do(split={'canary': 10}, lease='60s', rollout='r1')
    assert result['requested']['canary'] == 10 and result['configured'] == {'lb1': {'canary': 19, 'blue': 9981}}


def test_three_arms_promotion_and_way_back(shop):
    shop.do(split={'canary': '20%', 'green': '50%'}, lease='60s', rollout='r1', version='5.0')
    counts = tally(shop.proxy.port, 1000)
    assert abs(counts['canary'] - 200) <= 5 and abs(counts['green'] - 500) <= 5
    shop.do(split={'green': '100%'}, rollout='r1', version='5.1')
    assert tally(shop.proxy.port, 100) == {'green': 100}
    assert not shop.do(split={'green': '100%'}, rollout='r1', version='5.1')['changed']
    wait_for(lambda: not watched(shop), 'the end of the watchdog after the promotion')
    assert shop.do(state='released', rollout='r1')['changed']
    result = shop.do(state='way_back')
    assert result['stable'] == 'blue' and shop.look()['version'] == '5.0'
    assert tally(shop.proxy.port, 100) == {'blue': 100} and shop.weights()['b1'] == 10
    assert not shop.do(state='way_back')['changed']


def test_second_run_and_check_mode_change_nothing(shop):
    before = shop.weights()
    result = shop.do(check=True, split={'canary': '10%'}, lease='60s', rollout='r1')
    assert result['changed'] and result['configured'] == {'lb1': {'canary': 1000, 'blue': 9000}} and shop.weights() == before
    assert not (shop.proxy.dir / 'state').exists()
    shop.do(split={'canary': '10%'}, lease='60s', rollout='r1')
    assert not shop.do(split={'canary': '10%'}, lease='60s', rollout='r1')['changed']
    with pytest.raises(Conflict, match='is being rolled out by r1'):
        shop.do(split={'canary': '10%'}, lease='60s', rollout='r2')


def test_watchdog_returns_the_traffic_when_nobody_renews(shop):
    watch = held(json.loads(json.dumps(shop.do(split={'canary': '50%'}, lease='1s', rollout='r1')['lease'])))
    for _n in range(4):
        (result,) = asyncio.run(watch.renew())
        assert result.ok
    assert set(tally(shop.proxy.port, 20)) == {'blue', 'canary'}
    wait_for(lambda: tally(shop.proxy.port, 20) == {'blue': 20}, 'the way back of the watchdog')
    (result,) = asyncio.run(watch.renew())
    # What it says depends on whether the watchdog has written already; that it does not revive anything does not.
    assert not result.ok and ('had run out' in result.error or result.conflict)
    assert shop.look()['endpoints'][0]['candidates'] == {} and shop.look()['endpoints'][0]['lease_left_s'] <= 0
    assert shop.do(split={'canary': '50%'}, lease='60s', rollout='r2')['changed']


SETTER = '''
import asyncio, json, sys, time
sys.path.insert(0, %(root)r)
from ansible_collections.progressive.delivery.plugins.module_utils._traffic import run
print(json.dumps(asyncio.run(run(json.loads(sys.argv[1]), False))['changed']), flush=True)
time.sleep(60)
'''


def test_watchdog_outlives_sigkill_of_the_run_and_its_process_group(shop):
    from traffic_lab import TRAFFIC_SPEC, validated
    options = validated(TRAFFIC_SPEC, shop.options(split={'canary': '50%'}, lease='1s', rollout='r1'))
    code = SETTER % {'root': str(Path(__file__).resolve().parents[2] / '.collections')}
    run = subprocess.Popen([sys.executable, '-c', code, json.dumps(options)], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert run.stdout.readline().strip() == b'true'
        assert 'canary' in tally(shop.proxy.port, 20)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait(10)
        run.stdout.close()
    wait_for(lambda: tally(shop.proxy.port, 20) == {'blue': 20}, 'the way back after SIGKILL')


def test_watchdog_tries_until_haproxy_answers(shop):
    shop.do(split={'canary': '50%'}, lease='1s', rollout='r1')
    shop.proxy.freeze()
    try:
        wait_for(lambda: json.loads(shop.state().read_text()).get('expired'), 'the end of the lease')
    finally:
        shop.proxy.thaw()
    wait_for(lambda: tally(shop.proxy.port, 20) == {'blue': 20}, 'the way back after HAProxy woke up')


def test_renewal_says_that_the_watchdog_is_gone(shop):
    lease = shop.do(split={'canary': '50%'}, lease='60s', rollout='r1')['lease']
    (pid,) = [int(item.name) for item in Path('/proc').iterdir() if item.name.isdigit() and str(shop.state()).encode() in _cmdline(item)]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not watched(shop), 'the death of the watchdog')
    (result,) = asyncio.run(held(lease).renew())
    assert not result.ok and 'watchdog of shop on lb1 is gone' in result.error


def _cmdline(process):
    with contextlib.suppress(OSError):
        return (process / 'cmdline').read_bytes()
    return b''


def test_renewal_notices_that_a_reload_lost_the_weights(shop):
    lease = shop.do(split={'canary': '50%'}, lease='60s', rollout='r1')['lease']
    shop.proxy.reload()
    (result,) = asyncio.run(held(lease).renew())
    assert result.conflict and 'HAProxy was reloaded' in result.error


def test_healthy_side_is_decided_at_the_abort(shop):
    lease = shop.do(split={'green': '50%'}, lease='60s', rollout='r1')['lease']
    for server in ('b1', 'b2'):
        shop.proxy.ask('set server pool/%s state maint' % server)
    (result,) = asyncio.run(held(lease).way_back('a test'))
    assert result.ok and result.to == 'green' and 'no server of "blue"' in result.note
    assert tally(shop.proxy.port, 20) == {'green': 20}


def test_persistent_clients_are_taken_off_by_maint():
    with Pool('roundrobin', 'cookie ARM insert indirect') as shop:
        shop.proxy.ask('set server pool/g1 state maint')
        shop.do(split={'canary': '50%'}, lease='60s', rollout='r1')
        assert any('by a cookie' in note for note in shop.look()['endpoints'][0]['notes'])
        assert tally(shop.proxy.port, 20, lambda i: {'cookie': 'ARM=c1'}) == {'canary': 20}
        shop.do(state='way_back')
        assert shop.weights()['c1'] == 0 and shop.admin('c1') & 1
        assert tally(shop.proxy.port, 20, lambda i: {'cookie': 'ARM=c1'}) == {'blue': 20}
        # What this router took to maintenance, it takes out again; a server that somebody else put there stays.
        shop.do(split={'canary': '20%', 'green': '40%'}, lease='60s', rollout='r2')
        assert shop.admin('c1') == shop.admin('g2') == 0 and shop.admin('g1') & 1 and shop.weights()['g1'] == 0
        shop.do(state='way_back')
        assert shop.admin('g1') & 1 and not shop.do(state='way_back')['changed']


@pytest.mark.parametrize('balance, said', [
    ('static-rr', r'balances by "static-rr", a static algorithm'),
    ('first', r'balances by "first", which takes no notice of weights'),
    ('source', r'balances by "source", whose weights cannot change while it runs'),
    ('uri', r'balances by "uri", whose weights cannot change while it runs'),
])
def test_algorithms_that_take_no_weights(balance, said):
    with Pool(balance) as shop:
        before = shop.weights()
        with pytest.raises(Unsupported, match=said):
            shop.do(split={'canary': '10%'}, lease='60s', rollout='r1')
        assert shop.weights() == before
        wait_for(lambda: not watched(shop), 'no watchdog is left')


def test_consistent_hash_takes_weights():
    with Pool('source', 'hash-type consistent') as shop:
        assert shop.do(split={'canary': '10%'}, lease='60s', rollout='r1')['changed']
        shop.do(state='way_back')


BAD = {
    'server missing': (dict(arms={**ARMS, 'canary': {'backend': 'pool', 'servers': ['c9']}}), Unsupported,
                       '"c9" of arm "canary" is not in the backend'),
    'no servers named': (dict(arms={**ARMS, 'canary': {'backend': 'pool'}}), BadInput, 'names no servers'),
    'two backends': (dict(arms={**ARMS, 'canary': {'backend': 'other', 'servers': ['c1']}}), BadInput, 'are in the backends other, pool'),
    'backend missing': (dict(arms={name: {**arm, 'backend': 'none'} for name, arm in ARMS.items()}), Unsupported,
                        'The backend "none" does not exist on lb1'),
    'server of two arms': (dict(arms={**ARMS, 'canary': {'backend': 'pool', 'servers': ['b1']}}), BadInput, 'belongs to two arms'),
    'sticky': (dict(sticky='hash'), Unsupported, 'neither matches nor sticky'),
    'server of no arm': (dict(arms={'blue': {'backend': 'pool', 'servers': ['b1']}, 'canary': ARMS['canary']}), Conflict,
                         'also sends traffic to b2'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input(shop, case):
    options, kind, said = BAD[case]
    before = shop.weights()
    with pytest.raises(kind, match=said):
        shop.do(**{'split': {'canary': '10%'}, 'lease': '60s', 'rollout': 'r1', **options})
    assert shop.weights() == before


def test_share_that_weights_cannot_express(shop):
    said = sentence(lambda: shop.do(split={'canary': 1}, lease='60s', rollout='r1', endpoints=shop.endpoints(tolerance_bp=5)))
    assert 'cannot be expressed by the weights of 1 and 2 servers on lb1: the nearest is canary 0.' in said
