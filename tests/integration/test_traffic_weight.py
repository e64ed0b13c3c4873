# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""traffic_weight with the router haproxy_map, through real HAProxy processes and real requests."""

from __future__ import annotations

import asyncio
import json
import math
import os
import threading
import time

import pytest

from ansible_collections.progressive.delivery.plugins.module_utils._errors import (
    BadInput, Conflict, DeliveryError, Unreachable, Unsupported)
from ansible_collections.progressive.delivery.plugins.module_utils._lease import held
from haproxy_lab import get, tally, wait_for
from traffic_lab import BACKENDS, FRONTEND, Shop, documented_lines, sentence


@pytest.fixture(scope='module')
def shop():
    with Shop() as one:
        yield one


@pytest.fixture(autouse=True)
def _fresh(request):
    """The shared shop begins every test with all traffic on blue, no owner, all servers up."""
    if 'shop' in request.fixturenames:
        one = request.getfixturevalue('shop')
        path = '%s/delivery.map' % one.proxy.dir
        one.proxy.ask('clear map %s' % path)
        one.proxy.ask('add map %s shop 0/blue/rand/-/v=5.0' % path)
        (one.proxy.dir / 'delivery.map').write_text('# kept\nother 0/x/rand/-/-\nshop 0/blue/rand/-/v=5.0\n')
        for server in ('blue/b1', 'canary/c1', 'green/g1'):
            one.proxy.ask('set server %s state ready' % server)
        wait_for(lambda: all(n == 1 for n in one.look()['endpoints'][0]['usable'].values()), 'all servers up')


def within_chance(count, total, share):
    return abs(count - total * share) <= 5 * math.sqrt(total * share * (1 - share)) + 1


# ---- shares

@pytest.mark.parametrize('share', [500, 2000, 5000, 9999])
def test_requests_follow_the_share(shop, share):
    result = shop.do(split={'canary': share}, lease='60s', rollout='r1')
    counts = tally(shop.proxy.port, 1500)
    assert within_chance(counts.get('canary', 0), 1500, share / 10000), counts
    assert result['requested'] == {'canary': share, 'blue': 10000 - share}
    assert result['configured'] == {'lb1': {'canary': share, 'blue': 10000 - share}}
    assert result['previous'] == {'lb1': {'blue': 10000}}
    assert result['changed'] and result['stable'] == 'blue'


def test_three_arms_share(shop):
    shop.do(split={'canary': '25%', 'green': '25%'}, lease='60s', rollout='ab')
    counts = tally(shop.proxy.port, 2000)
    assert within_chance(counts['canary'], 2000, 0.25) and within_chance(counts['green'], 2000, 0.25), counts


def test_promotion_is_permanent_and_remembers_the_former_stable(shop):
    shop.do(split={'green': '50%'}, lease='60s', rollout='r1')
    result = shop.do(split={'green': '100%'}, rollout='r1', version='5.1')
    assert tally(shop.proxy.port, 200) == {'green': 200}
    seen = shop.look()['endpoints'][0]
    assert (seen['stable'], seen['version'], seen['previous'], seen['previous_version']) == ('green', '5.1', 'blue', '5.0')
    assert seen['lease_left_s'] is None and result['claims']['lb1']['rollout'] == 'r1'


def test_header_leads_to_the_arm_while_the_lease_lives(shop):
    shop.do(split={'canary': 0}, stable='blue', matches=[{'header': 'X-Canary-User', 'value': 'true', 'arm': 'canary'}], lease='2s',
            rollout='r1')
    assert get(shop.proxy.port, headers={'x-canary-user': 'true'}).body == 'canary'
    assert get(shop.proxy.port, headers={'x-canary-user': 'false'}).body == 'blue'
    assert tally(shop.proxy.port, 100) == {'blue': 100}
    wait_for(lambda: get(shop.proxy.port, headers={'x-canary-user': 'true'}).body == 'blue', 'the end of the lease')


def test_hash_keeps_users_and_grows_monotonously(shop):
    def users_on_canary():
        return {n for n in range(300) if get(shop.proxy.port, headers={'cookie': 'uid=user%d' % n}).body == 'canary'}

    seen = []
    for share in ('5%', '20%', '50%'):
        shop.do(split={'canary': share}, sticky='hash', lease='60s', rollout='r1')
        seen.append(users_on_canary())
    assert seen[0] == seen[0] & seen[1] and seen[1] == seen[1] & seen[2]
    assert len(seen[0]) < len(seen[1]) < len(seen[2])
    assert seen[2] == users_on_canary()
    # The next arm's users are the same people, and some more.
    shop.do(split={'green': '50%'}, sticky='hash', lease='60s', rollout='r1')
    assert {n for n in range(300) if get(shop.proxy.port, headers={'cookie': 'uid=user%d' % n}).body == 'green'} == seen[2]


# ---- the lease

def test_lease_ends_by_itself_while_requests_flow(shop):
    answers, stop = [], threading.Event()

    def client():
        while not stop.is_set():
            answers.append((time.time(), get(shop.proxy.port).body))

    worker = threading.Thread(target=client)
    worker.start()
    try:
        began = time.time()
        shop.do(split={'canary': '50%'}, lease='1s', rollout='r1')
        wrote = time.time()
        wait_for(lambda: answers and answers[-1][0] > wrote + 1.2, 'requests after the end')
    finally:
        stop.set()
        worker.join()
    assert {body for _at, body in answers} == {'blue', 'canary'}
    # Never longer than asked; answers are stamped after they arrived, so one may be late by its own duration.
    assert max(at for at, body in answers if body == 'canary') < wrote + 1.1
    assert any(body == 'canary' and at > began + 0.7 for at, body in answers)
    seen = shop.look()['endpoints'][0]
    assert seen['candidates'] == {} and seen['lease_left_s'] <= 0 and seen['configured_bp'] == {'blue': 10000}


def test_renewed_lease_lives_on(shop):
    lease = shop.do(split={'canary': '50%'}, lease='1s', rollout='r1')['lease']
    watch = held(json.loads(json.dumps(lease)))
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        (result,) = asyncio.run(watch.renew())
        assert result.ok and 0.5 < result.left_s <= 1.0
        time.sleep(0.2)
    assert 'canary' in tally(shop.proxy.port, 50)
    assert 0 < watch.left() <= 1.0
    assert shop.entry() == shop.filed()


def test_renewal_of_an_ended_lease_does_not_revive_it(shop):
    watch = held(shop.do(split={'canary': '50%'}, lease='1s', rollout='r1')['lease'])
    wait_for(lambda: shop.look()['endpoints'][0]['lease_left_s'] <= 0, 'the end of the lease')
    before = shop.entry()
    (result,) = asyncio.run(watch.renew())
    assert not result.ok and not result.conflict and 'had run out' in result.error
    assert shop.entry() == before and watch.left() <= 0


def test_renewal_never_overwrites_another_owner(shop):
    watch = held(shop.do(split={'canary': '50%'}, lease='60s', rollout='r1')['lease'])
    shop.do(split={'green': '10%'}, lease='60s', rollout='r2', force=True)
    before = shop.entry()
    (result,) = asyncio.run(watch.renew())
    assert not result.ok and result.conflict and 'r2' in result.error
    assert shop.entry() == before


def test_reload_keeps_the_split_and_never_revives_an_ended_one():
    with Shop() as shop:
        shop.do(split={'canary': '50%'}, lease='60s', rollout='r1')
        shop.proxy.reload()
        assert set(tally(shop.proxy.port, 60)) == {'blue', 'canary'}
        shop.do(split={'canary': '50%'}, lease='1s', rollout='r1')
        wait_for(lambda: shop.look()['endpoints'][0]['lease_left_s'] <= 0, 'the end of the lease')
        shop.proxy.reload()
        assert tally(shop.proxy.port, 60) == {'blue': 60}


FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1'


@pytest.mark.skipif(not os.path.exists(FAKETIME), reason='libfaketime is not installed')
def test_a_clock_that_was_set_after_haproxy_began_does_not_lengthen_the_lease(tmp_path):
    offset = tmp_path / 'offset'
    offset.write_text('+3000')
    fake = {'LD_PRELOAD': FAKETIME, 'FAKETIME_TIMESTAMP_FILE': str(offset), 'FAKETIME_NO_CACHE': '1', 'FAKETIME_DONT_FAKE_MONOTONIC': '1',
            'TZ': 'America/St_Johns'}
    with Shop(env=fake) as shop:
        # HAProxy counts its own time on from a start 50 minutes ahead; date() follows the host.
        offset.write_text('+0')
        shop.do(split={'canary': '90%'}, lease='2s', rollout='r1')
        assert 'canary' in tally(shop.proxy.port, 50)
        wait_for(lambda: tally(shop.proxy.port, 50) == {'blue': 50}, 'the end of the lease', 4)


def test_file_keeps_what_is_not_ours(shop):
    path = shop.proxy.dir / 'delivery.map'
    path.chmod(0o640)
    shop.do(split={'canary': '5%'}, lease='60s', rollout='r1')
    lines = path.read_text().splitlines()
    assert lines[:2] == ['# kept', 'other 0/x/rand/-/-'] and lines[2].startswith('shop ') and len(lines) == 3
    assert path.stat().st_mode & 0o777 == 0o640
    assert shop.filed() == shop.entry()
    assert sorted(item.name for item in shop.proxy.dir.iterdir() if 'delivery' in item.name) == ['delivery.map']


# ---- twice is once, check mode

def test_second_run_changes_nothing_but_the_lease(shop):
    options = dict(split={'canary': '5%'}, lease='60s', rollout='r1', version='5.0')
    assert shop.do(**options)['changed']
    before = shop.entry()
    time.sleep(0.01)
    again = shop.do(**options)
    assert not again['changed'] and 'diff' not in again
    assert again['lease']['endpoints'][0]['token'] == held(again['lease'])._tokens['lb1']
    assert shop.entry().split('/')[1:] == before.split('/')[1:]
    assert int(shop.entry().split('/')[0]) > int(before.split('/')[0])
    assert shop.do(split={'green': '100%'}, rollout='r1')['changed']
    assert not shop.do(split={'green': '100%'}, rollout='r1')['changed']


def test_check_mode_predicts_and_writes_nothing(shop):
    before = (shop.entry(), (shop.proxy.dir / 'delivery.map').read_text())
    result = shop.do(check=True, split={'canary': '5%'}, lease='60s', rollout='r1', journal=str(shop.proxy.dir / 'journal'))
    assert result['changed'] and result['configured'] == {'lb1': {'canary': 500, 'blue': 9500}}
    assert result['diff'] == [{'prepared': 'shop on lb1: canary 0 % -> 5 %, blue 100 % -> 95 %\n'}]
    assert (shop.entry(), (shop.proxy.dir / 'delivery.map').read_text()) == before
    assert not (shop.proxy.dir / 'journal').exists()
    assert shop.do(split={'canary': '5%'}, lease='60s', rollout='r1')['configured'] == result['configured']
    assert shop.do(check=True, split={'canary': '5%'}, lease='60s', rollout='r1')['changed'] is False


def test_check_mode_does_not_want_the_candidate_up_yet(shop):
    shop.proxy.ask('set server canary/c1 state maint')
    assert shop.do(check=True, split={'canary': '5%'}, lease='60s', rollout='r1')['changed']
    said = sentence(lambda: shop.do(split={'canary': '5%'}, lease='60s', rollout='r1'))
    assert said == ('The arm "canary" has no usable server in the backend "canary" of lb1 (c1 is MAINT): bring one up before it gets '
                    'traffic.')


# ---- owners

def test_another_rollout_is_refused_with_who_and_since_when(shop):
    shop.do(split={'canary': '5%'}, lease='60s', rollout='r1', by='ann@ops')
    before = shop.entry()
    with pytest.raises(Conflict, match=r'^shop on lb1 is being rolled out by r1 \(ann@ops since 20\d\d-.*Z\), lease .* left: '
                                       r'wait, or take over with force\.$'):
        shop.do(split={'canary': '5%'}, lease='60s', rollout='r2')
    assert shop.entry() == before
    assert shop.do(split={'green': '5%'}, lease='60s', rollout='r2', force=True)['claims']['lb1']['rollout'] == 'r2'


def test_ended_lease_may_be_taken_over_a_promotion_may_not_until_released(shop):
    shop.do(split={'canary': '5%'}, lease='1s', rollout='r1')
    wait_for(lambda: shop.look()['endpoints'][0]['lease_left_s'] <= 0, 'the end of the lease')
    shop.do(split={'green': '5%'}, lease='60s', rollout='r2')
    shop.do(split={'green': '100%'}, rollout='r2')
    with pytest.raises(Conflict, match='by r2'):
        shop.do(split={'blue': '100%'}, rollout='r3')
    with pytest.raises(Conflict, match='by r2'):
        shop.do(state='released', rollout='r3')
    assert shop.do(state='released', rollout='r2')['changed']
    assert not shop.do(state='released', rollout='r2')['changed']
    assert shop.look()['endpoints'][0]['previous'] == 'blue'
    assert shop.do(split={'blue': '5%'}, lease='60s', rollout='r3')['changed']
    # A new rollout has begun: what was stable before the last one is no way back any more.
    assert shop.look()['endpoints'][0]['previous'] is None


def test_a_change_between_read_and_write_is_not_overwritten(shop):
    from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
    from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Claim, Desired
    from ansible_collections.progressive.delivery.plugins.module_utils._split import make_split
    (router,) = registry.build_all(shop.endpoints(), 'shop', {'blue': {}, 'canary': {}, 'green': {}})
    observed = asyncio.run(router.read())
    change = router.plan(observed, Desired(make_split({'canary': '5%'}, 'blue'), Claim('r1', 'me', 1), 60.0))
    shop.do(split={'green': '5%'}, lease='60s', rollout='r2')
    before = shop.entry()
    with pytest.raises(Conflict, match='since it was read .* by r2|of r2'):
        asyncio.run(router.apply(change))
    assert shop.entry() == before and shop.filed() == before


@pytest.mark.parametrize('stale', ['0/blue/rand/-/v=4.9', None])
def test_a_change_between_compare_and_write_is_put_back(shop, stale):
    from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
    (router,) = registry.build_all(shop.endpoints(), 'shop', {'blue': {}, 'canary': {}, 'green': {}})
    with pytest.raises(Conflict, match='at the same moment'):
        asyncio.run(router._replace('0/green/rand/-/-', stale))
    assert shop.proxy.ask('show map %s/delivery.map' % shop.proxy.dir).split(' ', 1)[1] == 'shop 0/blue/rand/-/v=5.0'


# ---- the way back

def test_way_back_takes_the_candidate_out_and_is_idempotent(shop):
    shop.do(split={'canary': '20%'}, lease='60s', rollout='r1')
    result = shop.do(state='way_back')
    assert result['changed'] and result['stable'] == 'blue' and result['left'] == ['canary']
    assert tally(shop.proxy.port, 100) == {'blue': 100}
    assert shop.filed() == shop.entry() == '0/blue/rand/-/rev=2,v=5.0'
    again = shop.do(state='way_back')
    assert not again['changed'] and again['left'] == [] and again['msg'] == 'All traffic of shop is on blue, as it was (lb1).'


def test_way_back_undoes_a_promotion_once(shop):
    shop.do(split={'green': '100%'}, rollout='r1', version='5.1')
    shop.do(state='released', rollout='r1')
    result = shop.do(state='way_back')
    assert result['stable'] == 'blue' and shop.look()['version'] == '5.0'
    assert not shop.do(state='way_back')['changed']


def test_way_back_by_hand_asks_for_no_owner(shop):
    shop.do(split={'canary': '20%'}, lease='60s', rollout='r1')
    assert shop.do(state='way_back')['changed']


def test_way_back_of_a_rollout_leaves_alone_what_another_has_now(shop):
    shop.do(split={'canary': '20%'}, lease='60s', rollout='r2', by='ann')
    before = shop.entry()
    result = shop.do(state='way_back', rollout='r1')
    assert not result['changed'] and shop.entry() == before
    assert result['msg'] == 'The traffic of shop: r2 by ann has it now (canary 20 %, blue 80 %) and was left alone (lb1).'


def test_way_back_of_a_rollout_does_not_undo_a_promotion_by_hand(shop):
    lease = shop.do(split={'canary': '20%'}, lease='60s', rollout='r1')['lease']
    shop.do(split={'green': '100%'}, rollout='r2', force=True, version='5.1')
    shop.do(state='released', rollout='r2')
    (result,) = asyncio.run(held(lease).way_back('a test'))
    assert result.ok and result.to == 'green' and not result.changed
    assert not shop.do(state='way_back', rollout='r1')['changed']
    assert tally(shop.proxy.port, 20) == {'green': 20}


def test_way_back_in_check_mode_writes_nothing(shop):
    shop.do(split={'canary': '20%'}, lease='60s', rollout='r1')
    before = shop.entry()
    result = shop.do(check=True, state='way_back')
    assert result['changed'] and result['stable'] == 'blue' and shop.entry() == before
    assert result['diff'] == [{'prepared': 'shop on lb1: canary 20 %, blue 80 % -> all to blue\n'}]


def test_way_back_says_when_only_the_file_could_not_follow(shop, monkeypatch):
    from ansible_collections.progressive.delivery.plugins.module_utils._haproxy import mapfile
    shop.do(split={'canary': '20%'}, lease='60s', rollout='r1')

    def full(*_arguments):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(mapfile, '_replace', full)
    result = shop.do(state='way_back')
    assert result['failed'] and 'lb1 sends all traffic of shop to "blue" now, but a reload would undo that: ' in result['msg']
    assert tally(shop.proxy.port, 50) == {'blue': 50}


def test_healthy_side_is_decided_at_the_abort(shop):
    lease = shop.do(split={'green': '50%'}, lease='60s', rollout='r1')['lease']
    shop.proxy.ask('set server blue/b1 state maint')
    (result,) = asyncio.run(held(lease).way_back('a test'))
    assert result.ok and result.to == 'green'
    assert result.note == 'no server of "blue" can take a request on lb1, so all traffic goes to "green", which has 1'
    assert tally(shop.proxy.port, 50) == {'green': 50}
    assert not shop.do(state='way_back')['changed']


def test_way_back_of_a_promotion_stays_when_the_former_stable_is_gone(shop):
    shop.do(split={'green': '100%'}, rollout='r1', version='5.1')
    shop.proxy.ask('set server blue/b1 state maint')
    result = shop.do(state='way_back')
    assert result['stable'] == 'green' and 'no server of "blue"' in result['msg']
    assert tally(shop.proxy.port, 20) == {'green': 20}


def test_way_back_goes_to_stable_when_neither_side_is_up(shop):
    shop.do(split={'green': '50%'}, lease='60s', rollout='r1')
    for server in ('blue/b1', 'green/g1'):
        shop.proxy.ask('set server %s state maint' % server)
    assert shop.do(state='way_back')['stable'] == 'blue'


def test_way_back_of_a_lost_entry_comes_from_what_was_stored(shop):
    lease = shop.do(split={'canary': '20%'}, lease='60s', rollout='r1')['lease']
    shop.proxy.ask('set map %s/delivery.map shop nonsense' % shop.proxy.dir)
    assert 'cannot be taken back' in shop.do(state='way_back')['msg']
    (result,) = asyncio.run(held(lease).way_back('a test'))
    assert result.ok and shop.entry() == '0/blue/rand/-/rev=2,v=5.0'
    assert tally(shop.proxy.port, 20) == {'blue': 20}


# ---- several endpoints

def test_all_endpoints_or_none():
    with Shop(count=3) as shop:
        result = shop.do(split={'canary': '5%'}, lease='60s', rollout='r1')
        assert result['configured'] == dict.fromkeys(('lb1', 'lb2', 'lb3'), {'canary': 500, 'blue': 9500})
        before = [shop.entry(n) for n in range(3)]
        shop.proxies[1].freeze()
        # Frozen before the read: nothing is written anywhere.
        with pytest.raises(Unreachable, match='did not answer'):
            shop.do(split={'canary': '20%'}, lease='60s', rollout='r1', endpoints=shop.endpoints(deadline=0.5))
        assert [shop.entry(n) for n in (0, 2)] == [before[0], before[2]]
        # The way back reaches the others at once, names the silent one, and costs its deadline only.
        began = time.monotonic()
        result = shop.do(state='way_back', endpoints=shop.endpoints(deadline=0.5))
        assert result['failed'] and 'lb2 did not follow' in result['msg'] and time.monotonic() - began < 1.5
        assert {row['endpoint']: row['ok'] for row in result['way_back']} == {'lb1': True, 'lb2': False, 'lb3': True}
        assert tally(shop.proxies[0].port, 50) == {'blue': 50} == tally(shop.proxies[2].port, 50)
        shop.proxies[1].thaw()
        assert shop.do(state='way_back')['changed']
        assert tally(shop.proxies[1].port, 50) == {'blue': 50}


def test_what_was_written_is_put_back_when_one_endpoint_fails(monkeypatch):
    with Shop(count=2) as shop:
        shop.do(split={'canary': '5%'}, lease='60s', rollout='r1')
        before = [shop.entry(0), shop.entry(1)]
        # lb2 loses its map file's directory permission between check and write: the real error of a full or read-only disk.
        from ansible_collections.progressive.delivery.plugins.module_utils._haproxy import mapfile
        real = mapfile._replace

        def failing(path, text, former):
            if str(shop.proxies[1].dir) in path:
                raise OSError(28, 'No space left on device')
            real(path, text, former)

        monkeypatch.setattr(mapfile, '_replace', failing)
        said = sentence(lambda: shop.do(split={'canary': '20%'}, lease='60s', rollout='r1', journal=str(shop.proxies[0].dir / 'j')))
        assert 'lb2 could not be written' in said and 'No space left' in said and 'was put back' in said
        assert [shop.entry(0), shop.entry(1)] == before
        assert shop.filed(0) == before[0] and shop.filed(1) == before[1]
        events = [json.loads(line)['event'] for line in (shop.proxies[0].dir / 'j').read_text().splitlines()]
        assert events == ['intent', 'way_back']


def test_endpoint_that_stops_between_read_and_write(monkeypatch):
    from ansible_collections.progressive.delivery.plugins.module_utils._routers.haproxy_map import HaproxyMap
    with Shop(count=3) as shop:
        shop.do(split={'canary': '5%'}, lease='60s', rollout='r1')
        before = [shop.entry(n) for n in range(3)]
        real = HaproxyMap.apply

        async def apply(router, change):
            if router.name == 'lb2' and change.kind == 'split':
                shop.proxies[1].freeze()
            return await real(router, change)

        monkeypatch.setattr(HaproxyMap, 'apply', apply)
        with pytest.raises(Unreachable) as caught:
            shop.do(split={'green': '100%'}, rollout='r1', endpoints=shop.endpoints(deadline=0.5))
        shop.proxies[1].thaw()
        said = str(caught.value)
        assert 'lb2 could not be written' in said and 'put back, but not on lb2' in said and 'its lease, if any, does the rest' in said
        assert [shop.entry(n) for n in (0, 2)] == [before[0], before[2]]


def test_tcp_socket_keeps_no_file_unless_told():
    from haproxy_lab import HEAD, HAProxy, free_port
    port = free_port()
    head = HEAD.replace('defaults', '    stats socket ipv4@127.0.0.1:%d level admin\ndefaults' % port)
    text = 'shop 0/blue/rand/-/v=5.0\n'
    with HAProxy(FRONTEND + documented_lines() + BACKENDS, head=head, files={'delivery.map': text}, blue=1, canary=2, green=3) as proxy:
        shop = Shop()
        shop.proxies = [proxy]
        for server in ('blue/b1', 'canary/c1', 'green/g1'):
            proxy.ask('set server %s health up' % server)
            proxy.ask('disable health %s' % server)
        endpoints = shop.endpoints(socket='tcp://127.0.0.1:%d' % port)
        assert shop.do(split={'canary': '5%'}, lease='60s', rollout='r1', endpoints=endpoints)['changed']
        assert 'canary/500' in shop.entry() and (proxy.dir / 'delivery.map').read_text() == text
        assert shop.do(state='way_back', endpoints=endpoints)['changed']


def test_journal_has_the_way_back_before_the_change(shop):
    path = shop.proxy.dir / 'journal'
    shop.do(split={'canary': '5%'}, lease='60s', rollout='r1', journal=str(path))
    shop.do(state='way_back', rollout='r1', journal=str(path))
    intent, change, back = [json.loads(line) for line in path.read_text().splitlines()]
    assert intent['event'] == 'intent' and intent['way_back']['lb1'] == {'value': '0/blue/rand/-/rev=2,v=5.0'}
    assert change['event'] == 'change' and change['before_bp'] == {'blue': 10000} and change['after_bp'] == {'canary': 500, 'blue': 9500}
    assert back['event'] == 'way_back' and back['ts'] >= change['ts'] >= intent['ts']


# ---- verification by traffic

def test_l3_counts_requests(shop):
    stop = threading.Event()

    def client():
        while not stop.is_set():
            tally(shop.proxy.port, 100)

    worker = threading.Thread(target=client)
    worker.start()
    try:
        evidence = shop.do(split={'canary': '20%'}, lease='60s', rollout='r1', verify='L3')['endpoints'][0]['evidence']
    finally:
        stop.set()
        worker.join()
    assert evidence['level'] == 'L3' and abs(evidence['observed_bp']['canary'] - 2000) < 1200


def test_l3_without_traffic_is_no_proof_and_the_split_goes_back(shop):
    before = shop.entry()
    said = sentence(lambda: shop.do(split={'canary': '20%'}, lease='60s', rollout='r1', verify='L3', verify_timeout='200ms'))
    assert 'too few to show the shares' in said and shop.entry() == before


# ---- bad input stops before the first change

BAD = {
    'no lease': (dict(split={'canary': '5%'}), BadInput, r'needs a lease'),
    'lease on a permanent split': (dict(split={'green': '100%'}, lease='30s'), BadInput, 'takes no lease'),
    'lease too short': (dict(split={'canary': '5%'}, lease='0'), BadInput, 'outside 1 s'),
    'lease not a duration': (dict(split={'canary': '5%'}, lease='soon'), BadInput, 'not understood'),
    'no split': (dict(), BadInput, 'The split of shop is missing'),
    'more than all': (dict(split={'canary': '60%', 'green': '60%'}, lease='30s'), BadInput, 'more than 100'),
    'not all': (dict(split={'canary': '20%', 'blue': '70%'}, lease='30s'), BadInput, 'do not add up'),
    'too fine': (dict(split={'canary': '0.001%'}, lease='30s'), BadInput, 'finer'),
    'negative': (dict(split={'canary': -5}, lease='30s'), BadInput, 'outside 0'),
    'unknown arm': (dict(split={'purple': '5%'}, lease='30s'), BadInput, '"purple" is not one of the service'),
    'arm with a space': (dict(split={'a b': '5%'}, lease='30s'), BadInput, 'not a valid name'),
    'service with a newline': (dict(service='shop\nquit', split={'canary': '5%'}, lease='30s'), BadInput, 'not a valid name'),
    'service with a semicolon': (dict(service='shop;quit', split={'canary': '5%'}, lease='30s'), BadInput, 'not a valid name'),
    'rollout with a slash': (dict(rollout='a/b', split={'canary': '5%'}, lease='30s'), BadInput, 'cannot be stored'),
    'by with a comma': (dict(by='a,b', split={'canary': '5%'}, lease='30s'), BadInput, 'cannot be stored'),
    'version with an equals sign': (dict(version='a=b', split={'canary': '5%'}, lease='30s'), BadInput, 'cannot be stored'),
    'backend with a space': (dict(arms={'blue': {}, 'canary': {'backend': 'x y'}}, split={'canary': '5%'}, lease='30s'), BadInput,
                             'not a valid name'),
    'backend missing': (dict(arms={'blue': {}, 'canary': {'backend': 'nope'}}, split={'canary': '5%'}, lease='30s'), Unsupported,
                        'The backend "nope" of arm "canary" does not exist on lb1'),
    'server missing': (dict(arms={'blue': {}, 'canary': {'servers': ['zz']}}, split={'canary': '5%'}, lease='30s'), Unsupported,
                       'The server "zz" of arm "canary" is not in the backend "canary" of lb1'),
    'one backend for two arms': (dict(arms={'blue': {}, 'canary': {'backend': 'blue'}}, split={'canary': '5%'}, lease='30s'), BadInput,
                                 'same backend'),
    'match not declared': (dict(split={'canary': '5%'}, lease='30s', matches=[{'header': 'x-beta', 'value': '1', 'arm': 'canary'}]),
                           Unsupported,
                           'does not match on the header x-beta=1'),
    'match with a quote': (dict(split={'canary': '5%'}, lease='30s', matches=[{'header': 'x-canary-user', 'value': 't"', 'arm': 'canary'}]),
                           BadInput,
                           'not usable'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input(shop, case):
    options, kind, said = BAD[case]
    before = (shop.entry(), shop.proxy.ask('show map %s/delivery.map' % shop.proxy.dir), (shop.proxy.dir / 'delivery.map').read_text())
    with pytest.raises(kind, match=said):
        shop.do(**{'rollout': 'r1', **options})
    assert before == (shop.entry(), shop.proxy.ask('show map %s/delivery.map' % shop.proxy.dir),
                      (shop.proxy.dir / 'delivery.map').read_text())


BAD_ENDPOINTS = {
    'map missing': (dict(map='/etc/haproxy/none.map', file=''), Unsupported,
                    r'The map /etc/haproxy/none.map is not in the running configuration of lb1: .*README'),
    'map with a semicolon': (dict(map='/etc/x;quit', file=''), BadInput, 'not usable'),
    'file not writable': (dict(file='/proc/none/delivery.map'), Unsupported, 'there is no directory'),
    'too many candidates': (dict(slots=1), Unsupported, 'lines for 1 candidate, and the split'),
    'sticky not declared': (dict(sticky=False), Unsupported, 'no line for sticky'),
    'socket gone': (dict(socket='unix:///tmp/pd-none.sock'), Unreachable, 'No such file'),
    'socket not understood': (dict(socket='/run/x.sock'), BadInput, 'not understood'),
    'unknown router': (dict(socket='tcp://127.0.0.1:99999'), BadInput, 'not understood'),
}


@pytest.mark.parametrize('case', BAD_ENDPOINTS)
def test_bad_endpoint(shop, case):
    options, kind, said = BAD_ENDPOINTS[case]
    with pytest.raises(kind, match=said):
        shop.do(split={'canary': '5%', 'green': '5%'}, sticky='hash', lease='30s', rollout='r1', endpoints=shop.endpoints(**options))
    assert shop.entry() == '0/blue/rand/-/v=5.0'


def test_entry_that_is_no_split_is_not_overwritten_without_force(shop):
    shop.proxy.ask('set map %s/delivery.map shop hello' % shop.proxy.dir)
    with pytest.raises(Conflict, match=r'is not a split \("hello"\)'):
        shop.do(split={'canary': '5%'}, stable='blue', lease='30s', rollout='r1')
    assert shop.do(split={'canary': '5%'}, stable='blue', lease='30s', rollout='r1', force=True)['changed']


def test_missing_entry_is_added(shop):
    shop.proxy.ask('del map %s/delivery.map shop' % shop.proxy.dir)
    with pytest.raises(BadInput, match='No endpoint says which arm of shop is stable'):
        shop.do(split={'canary': '50%'}, lease='30s', rollout='r1')
    shop.do(split={'canary': '50%'}, stable='blue', lease='30s', rollout='r1')
    assert set(tally(shop.proxy.port, 50)) == {'blue', 'canary'}
    assert len(shop.proxy.ask('show map %s/delivery.map' % shop.proxy.dir).splitlines()) == 1


def test_socket_without_admin_level():
    head = ('global\n    stats socket {socket} level operator mode 600\ndefaults\n    mode http\n    timeout connect 1s\n'
            '    timeout client 5s\n    timeout server 5s\n')
    from haproxy_lab import HAProxy
    with HAProxy(FRONTEND + documented_lines() + BACKENDS, head=head, files={'delivery.map': 'shop 0/blue/rand/-/-\n'},
                 blue=1, canary=2, green=3) as proxy:
        shop = Shop()
        shop.proxies = [proxy]
        with pytest.raises(Unsupported, match='has level "operator": put "level admin"'):
            shop.do(split={'green': '100%'}, rollout='r1')


def test_info_reports_those_that_do_not_answer():
    with Shop(count=2) as shop:
        shop.do(split={'canary': '5%'}, lease='60s', rollout='r1', by='ann@ops')
        shop.proxies[1].freeze()
        endpoints = shop.endpoints(deadline=0.3)
        with pytest.raises(DeliveryError, match='did not answer'):
            shop.look(endpoints=endpoints)
        seen = shop.look(endpoints=endpoints, on_error='report')
        assert [one['ok'] for one in seen['endpoints']] == [True, False] and not seen['complete'] and seen['moving']
        assert seen['text'].splitlines()[1].startswith('  lb1: canary 5 %, blue 95 % (blue is 5.0); lease ')
        assert 'rollout r1 (ann@ops since ' in seen['text'] and '  lb2: no answer: ' in seen['text']
