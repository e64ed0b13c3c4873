# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every router must do, through the data plane that it writes to. What one cannot, it must refuse before the first change."""

from __future__ import annotations

import asyncio
import contextlib
import time

import measure
import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._lease import held
from haproxy_lab import wait_for
from kube_load import ask

BLUE = {'blue': 10000}
SHARES = (5000, 9900, 100, 2000, 500, 1)
COUNT = 1500
LEASE = '900s'


@contextlib.contextmanager
def refused(plane, kind=(Unsupported, BadInput), match=None):
    before = plane.stored()
    with pytest.raises(kind, match=match) as caught:
        yield
    assert str(caught.value).endswith('.'), 'a sentence'
    assert plane.stored() == before, 'refused before the first change'


def split(plane, share='50%'):
    """Options that move traffic to the canary: some of it, or all where nothing can be split."""
    return {'split': {'canary': share}, 'stable': 'blue', 'lease': LEASE} if plane.splits else {'split': {'canary': '100%'}}


def configured(result):
    return {arm: bp for arm, bp in result['configured']['edge'].items() if bp}


def test_shares_are_those_that_were_asked_for(plane, found):
    if not plane.splits:
        for bp in SHARES:
            with refused(plane):
                plane.do(split={'canary': bp}, stable='blue', lease=LEASE)
        return
    before, worst = BLUE, 0.0
    for bp in SHARES:
        after = configured(plane.do(split={'canary': bp}, stable='blue', lease=LEASE))
        assert after == {'canary': bp, 'blue': 10000 - bp} or plane.can.unit != '0.01 %' and abs(after['canary'] - bp) <= 50
        measure.settle(plane, before, after)
        worst = max(worst, measure.error(after, plane.tally(COUNT)))
        before = after
    found('worst share error', '%.1f σ' % worst)


def test_three_arms(plane):
    options = {'split': {'canary': '20%', 'green': '30%'}, 'stable': 'blue', 'lease': LEASE}
    if plane.can.arms < 3 or not plane.splits:
        with refused(plane):
            plane.do(**options)
        return
    after = configured(plane.do(**options))
    assert all(abs(after[arm] - bp) <= 50 for arm, bp in {'canary': 2000, 'green': 3000, 'blue': 5000}.items())
    measure.settle(plane, BLUE, after)
    measure.error(after, plane.tally(COUNT))


def request(kind, name, value):
    return {name: value} if kind == 'header' else {'Cookie': 'a=1; %s=%s; c=2' % (name, value)}


def test_matches(plane):
    can = [(kind, {'header': 'x-canary', 'cookie': 'group'}[kind] if name == '*' else name, 'b.1' if value == '*' else value)
           for kind, name, value in plane.can.matches]
    cannot = [one for one in (('header', 'x-other', 'b.1'), ('cookie', 'other', 'b.1'))
              if not any(kind == one[0] and name in ('*', one[1]) and value in ('*', one[2]) for kind, name, value in plane.can.matches)]
    for kind, name, value in cannot:
        with refused(plane):
            plane.do(split={'canary': '0%'}, stable='blue', lease=LEASE, matches=[{kind: name, 'value': value, 'arm': 'canary'}])
    if not can:
        return
    plane.do(split={'canary': '0%'}, stable='blue', lease=LEASE,
             matches=[{kind: name, 'value': value, 'arm': 'canary'} for kind, name, value in can])
    for one in can:
        wait_for(lambda one=one: plane.tally(10, **request(*one)) == {'canary': 10}, '%s=%s to lead to the canary' % one[1:], 60)
    kind, name, value = can[-1]
    for strange in ({}, request(kind, name, value + '2'), request(kind, name, value[:-1]), request(kind, name, 'x' + value),
                    request(kind, name, 'bx1'), request(kind, 'x' + name, value)):
        assert plane.tally(20, **strange) == {'blue': 20}, strange
    plane.do(state='way_back')
    for one in can:
        wait_for(lambda one=one: plane.tally(10, **request(*one)) == {'blue': 10}, 'the match to be gone', 60)


def test_users_stay_on_their_arm_while_its_share_grows(plane):
    options = {'sticky': 'hash', 'stable': 'blue', 'lease': LEASE}
    if 'hash' not in plane.can.sticky:
        with refused(plane):
            plane.do(split={'canary': '50%'}, **options)
        return
    users = [{'Cookie': 'uid=user-%d' % number} for number in range(500)]
    before = set()
    for bp in (500, 2000, 5000, 9900):
        plane.do(split={'canary': bp}, **options)
        said = ask(plane.port, plane.host, users)
        assert ask(plane.port, plane.host, users) == said, 'each is answered by the same arm again'
        now = {number for number, arm in enumerate(said) if arm == 'canary'}
        assert before <= now, 'nobody goes back to stable while the share grows'
        measure.error({'canary': bp, 'blue': 10000 - bp}, {'canary': len(now), 'blue': len(users) - len(now)})
        before = now


def copied(plane, bp):
    return {'split': {'canary': '0%'}, 'stable': 'blue', 'lease': LEASE, 'mirror': {'arm': 'canary', 'share': bp}}


def test_copies_of_requests_are_as_many_as_were_asked_for(plane):
    """What the pods themselves have received counts: nobody else sees a copy."""
    for bp in {1000, 10000} - set(plane.copies):
        with refused(plane, Unsupported):
            plane.do(**copied(plane, bp))
    if not plane.copies:
        return
    for bp in plane.copies:
        before = plane.stored()
        assert 'copies to canary' in plane.do(check=True, **copied(plane, bp))['diff'][0]['prepared'] and plane.stored() == before
        result = plane.do(**copied(plane, bp))
        assert configured(result) == BLUE and plane.look()['mirror'] == {'arm': 'canary', 'share_bp': bp}
        assert not plane.do(**copied(plane, bp))['changed'], 'twice is once'
        wait_for(lambda: copies_of(plane, 40)[1], 'copies to arrive', 60)
        said, copies = copies_of(plane, COUNT)
        assert said == {'blue': COUNT}, 'nobody gets an answer of the canary'
        seen = {'canary': copies, 'blue': COUNT - copies}
        measure.error({'canary': bp, 'blue': 10000 - bp}, {arm: count for arm, count in seen.items() if count})
        plane.do(state='way_back')
        assert plane.look()['mirror'] == {} and not plane.left_over()
        wait_for(lambda: copies_of(plane, 40)[1] == 0, 'the copies to end', 60)
        assert copies_of(plane, 200) == ({'blue': 200}, 0)


def copies_of(plane, count):
    """Who answers *count* requests, and how many the canary got besides."""
    had = measure.quiet(lambda: plane.worked('canary'))
    said = plane.tally(count, '/api/x')
    return said, measure.quiet(lambda: plane.worked('canary')) - had


def test_check_mode_and_a_second_time_change_nothing(plane):
    move, before = split(plane, '20%'), plane.stored()
    told = plane.do(check=True, **move)
    share = '20 %' if plane.splits else '100 %'
    assert told['changed'] and 'canary 0 %% -> %s' % share in told['diff'][0]['prepared']
    assert plane.stored() == before and plane.tally(40) == {'blue': 40}
    for again in (move, {'split': {'canary': '100%'}}):
        plane.do(**again)
        before = plane.stored()
        result = plane.do(**again)
        assert not result['changed'] and 'diff' not in result
        # Where the data plane itself ends a lease, to renew it is to write the same split with another end.
        assert plane.stored() == before or 'lease' in again and plane.can.native_lease


def test_another_owner_is_told_whose_it_is(plane):
    lease = held(plane.do(**split(plane, '20%'))['lease']) if plane.splits else plane.do(**split(plane)) and None
    for options in (split(plane), {'split': {'green': '100%'}}, {'state': 'released'}):
        with refused(plane, Conflict, 'is being rolled out by r1'):
            plane.do(**options, rollout='r2')
    before = plane.stored()
    assert not plane.do(state='way_back', rollout='r2')['changed'] and plane.stored() == before
    assert plane.do(**{**split(plane, '30%'), 'rollout': 'r2', 'force': True})['changed']
    with refused(plane, Conflict, 'is being rolled out by r2'):
        plane.do(**split(plane))
    if lease:
        before = plane.stored()
        (renewed,) = asyncio.run(lease.renew())
        assert renewed.conflict and not renewed.ok
        (back,) = asyncio.run(lease.way_back('the former owner ends'))
        assert not back.changed and plane.stored() == before


def test_what_changed_between_reading_and_writing_is_not_overwritten(plane):
    router = plane.router()
    move = {'canary': '20%'} if plane.splits else {'canary': '100%'}
    change = router.plan(asyncio.run(router.read()), plane.desired(move, 'r1'))
    plane.do(**split(plane), rollout='r2')
    with refused(plane, Conflict):
        asyncio.run(router.apply(change))
    plane.do(state='way_back', rollout='r2')


def test_a_lease_that_nobody_renews_ends_the_split(plane):
    if not plane.splits:
        with refused(plane):
            plane.do(split={'canary': '100%'}, lease=plane.lease)
        return
    lease = held(plane.do(split={'canary': '50%'}, stable='blue', lease=plane.lease, verify='L0')['lease'])
    with plane.load() as load:
        for _n in range(2):
            left = lease.left()
            (renewed,) = asyncio.run(lease.renew())
            assert renewed.ok, renewed
            wait_for(lambda: lease.left() < left * 0.8, 'a gate\'s interval')
        (renewed,) = asyncio.run(lease.renew())
        assert renewed.ok, renewed
        at = time.time()
        ends = at + renewed.left_s
        wait_for(lambda: load.arms(at).get('canary', 0) and time.time() - max(ends, load.last('canary')) > 1, 'the lease to end', 60)
    assert not load.failed, load.failed[:3]
    print('%s: the canary\'s last request %.3f s after the end of the lease' % (plane.name, load.last('canary') - ends))
    (renewed,) = asyncio.run(lease.renew())
    assert not renewed.ok, 'what ran out is not revived'
    assert plane.look()['configured_bp'] == BLUE and plane.tally(60) == {'blue': 60}
    assert plane.do(split={'canary': '20%'}, stable='blue', lease=LEASE, rollout='r2')['changed'], 'the next one needs no force'


def ways(plane):
    yield {'split': {'canary': '100%'}}
    if plane.splits:
        yield {'split': {'canary': '5%'}, 'stable': 'blue', 'lease': LEASE}
        yield {'split': {'canary': '99%'}, 'stable': 'blue', 'lease': LEASE}
    if plane.can.arms > 2 and plane.splits:
        yield {'split': {'canary': '45%', 'green': '45%'}, 'stable': 'blue', 'lease': LEASE}


def test_the_way_back_from_any_split(plane):
    for options in ways(plane):
        after = configured(plane.do(**options))
        measure.settle(plane, BLUE, after)
        result = plane.do(state='way_back')
        assert result['changed'] and result['stable'] == 'blue', options
        measure.settle(plane, after, BLUE)
        assert plane.tally(100) == {'blue': 100}, options
        before = plane.stored()
        assert not plane.do(state='way_back')['changed'] and plane.stored() == before, options
        look = plane.look()
        assert not plane.left_over(), 'what kept the lease is gone'
        assert look['configured_bp'] == BLUE and look['rollout'] is None and look['lease_left_s'] is None


def test_levels_of_verification(plane):
    can = plane.can.verify
    with plane.load():
        for number, level in enumerate(('L0', 'L1', 'L2', 'L3')):
            options = split(plane, '%d%%' % (20 + 20 * number))
            if level == 'L3' and level not in can:
                with refused(plane):
                    plane.do(**options, verify=level)
                continue
            result = plane.do(**options, verify=level)
            said = result['endpoints'][0]['evidence']['level']
            assert said in can and said >= max(one for one in can if one <= level)
            if said >= 'L2':
                measure.error(configured(result), plane.tally(400))
            if not plane.splits:
                plane.do(state='way_back')
                wait_for(lambda: plane.tally(60) == {'blue': 60}, 'the way back', 60)
        result = plane.do(split={'canary': '100%'})
        if result['endpoints'][0]['evidence']['level'] >= 'L2':
            assert plane.tally(100) == {'canary': 100}, 'a promotion is in force when it is said to be'


def test_no_request_is_lost_in_twenty_changes(plane, found):
    with plane.load(200) as load:
        for number in range(20):
            if plane.splits:
                plane.do(split={'canary': '%d%%' % (90 - 80 * (number % 2))}, stable='blue', lease=LEASE)
            else:
                plane.do(split={('blue', 'canary')[number % 2 == 0]: '100%'})
            reached = load.count()
            wait_for(lambda: load.count() > reached + 20, 'twenty requests more', 60)
        plane.do(split={'green': '100%'})
        wait_for(lambda: load.arms(time.time() - 0.5).keys() == {'green'}, 'the promotion', 60)
        plane.do(state='way_back')
        wait_for(lambda: set(load.arms(time.time() - 0.5)) <= {'blue', 'canary'} and load.arms(time.time() - 0.5), 'the way back', 60)
    found('lost requests', '%d of %d' % (len(load.failed), load.count()))
    assert not load.failed, load.failed[:3]
    assert load.arms().get('canary'), 'changes were in force'


def test_an_arm_that_the_route_never_had_costs_no_request(plane):
    if not plane.splits or not hasattr(plane, 'fresh'):
        pytest.skip('its arms are where they are before the rollout')
    arms = plane.fresh(6)
    wait_for(lambda: all(plane.look(arms=arms)['usable'].values()),
             'endpoints of the new Services', 60)
    with plane.load(400) as load:
        for arm in list(arms)[1:]:
            plane.do(arms=arms, split={arm: '50%'}, stable='blue', lease=LEASE, verify='L1')
            moved = time.time()
            wait_for(lambda: load.arms(moved).get('canary', 0) > 20, 'the new arm to answer', 60)
        plane.do(arms=arms, state='way_back')
    assert not load.failed, '%d of %d: %s' % (len(load.failed), load.count(), load.failed[:3])
