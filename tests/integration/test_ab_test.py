# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A/B tests from run to run, through real HAProxy processes, real requests and a journal on disk: each step has nothing but those."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time

import pytest

from ansible_collections.progressive.delivery.plugins.module_utils import _ab_test
from ansible_collections.progressive.delivery.plugins.module_utils._lock import Lock, holder_for
from haproxy_lab import get, tally, wait_for
from traffic_lab import Shop, sentence, validated

TESTED = {'control': {'arm': 'blue', 'share': '50%'}, 'variant_a': {'arm': 'green', 'share': '25%', 'version': '5.1-a'},
          'variant_b': {'arm': 'canary', 'share': '25%', 'version': '5.1-b'}}


class Test:
    """The steps of one test of a shop. *design* changes what it asks."""

    __test__ = False

    def __init__(self, shop, state_dir, **design):
        self.shop, self.state_dir = shop, str(state_dir)
        self.design = {'test_arms': TESTED, 'metrics': [{'name': 'errors_seen', 'source': 'router'}], 'grace': '5m',
                       'ratio_tolerance': '5%', **design}
        self.users = 0

    def step(self, state, check=False, wall=time.time, **options):
        given = {**self.shop.options(state=state, state_dir=self.state_dir, by='anna', **self.design), **options}
        return asyncio.run(_ab_test.run(validated(_ab_test.AB_SPEC, given), check, os.getpid(), _ab_test.Clocks(wall=wall)))

    def start(self):
        opened = self.step('opened')
        self.shop.do(**{key: opened[key] for key in ('split', 'stable', 'lease', 'rollout', 'journal')}, sticky='hash', by='anna')
        self.step('started')
        return opened

    def requests(self, count):
        """So many users, each a new one, make one request."""
        self.users += count
        return tally(self.shop.proxy.port, count, lambda i: {'cookie': 'uid=user%d' % (self.users + i)})

    def events(self):
        with open(os.path.join(self.state_dir, 'shop', 'ab_test.jsonl'), encoding='utf-8') as file:
            return [json.loads(line) for line in file]


@pytest.fixture
def shop():
    with Shop() as one:
        wait_for(lambda: all(n == 1 for n in one.look()['endpoints'][0]['usable'].values()), 'all servers up')
        yield one


def test_a_test_goes_on_from_run_to_run(shop, tmp_path):
    test = Test(shop, tmp_path)
    test.requests(100)
    opened = test.start()
    assert shop.look()['configured'] == {'lb1': {'green': 2500, 'canary': 2500, 'blue': 5000}}
    assert opened['lease'] == '604800s'
    served = test.requests(300)
    first = test.step('analysed')
    assert first['verdict'] == 'keep_running' and not first['changed']
    numbers = first['metrics']['errors_seen']
    assert {arm: numbers[name]['total'] for name, arm in (('control', 'blue'), ('variant_a', 'green'), ('variant_b', 'canary'))} == served
    test.requests(300)
    second = test.step('analysed')
    assert sum(one['total'] for one in second['metrics']['errors_seen'].values()) == 600, 'counted from the beginning'
    assert test.step('opened')['already'], 'begun twice is begun once'
    assert [event['event'] for event in test.events()] == [
        'ab_test_opened', 'intent', 'change', 'ab_test_started', 'ab_test_analysed', 'ab_test_analysed']


def test_a_user_keeps_the_arm_from_run_to_run(shop, tmp_path):
    test = Test(shop, tmp_path)
    test.start()

    def seen():
        return {n: get(shop.proxy.port, headers={'cookie': 'uid=u%d' % n}).body for n in range(200)}

    before = seen()
    assert set(before.values()) == {'blue', 'green', 'canary'}
    test.step('analysed')
    assert seen() == before
    shop.proxy.reload()
    wait_for(lambda: all(n == 1 for n in shop.look()['endpoints'][0]['usable'].values()), 'all servers up')
    assert seen() == before


def test_counters_that_begin_anew_are_added_to_those_before(shop, tmp_path):
    test = Test(shop, tmp_path)
    test.requests(50)
    test.start()
    test.requests(300)
    test.step('analysed')
    shop.proxy.reload()
    wait_for(lambda: all(n == 1 for n in shop.look()['endpoints'][0]['usable'].values()), 'all servers up')
    test.requests(400)
    found = test.step('analysed')
    assert sum(one['total'] for one in found['metrics']['errors_seen'].values()) == 700 and found['ratio']['ok']


def test_a_variant_that_does_harm_goes_back_to_control(shop, tmp_path):
    test = Test(shop, tmp_path)
    test.requests(300)
    test.start()
    shop.origins['canary'].status = 500
    test.requests(400)
    told = test.step('analysed', check=True)
    assert told['verdict'] == 'harmful' and shop.look()['moving'], 'check mode writes nothing'
    found = test.step('analysed')
    assert found['verdict'] == 'harmful' and 'variant_b' in found['problem'] and sorted(found['left']) == ['canary', 'green']
    assert set(test.requests(50)) == {'blue'} and shop.look()['configured'] == {'lb1': {'blue': 10000}}
    assert test.events()[-1]['outcome'] == 'harmful'
    again = test.step('analysed')
    assert again['concluded'] and not again['changed']


def test_requests_of_an_arm_that_are_not_counted_make_the_test_invalid(shop, tmp_path):
    # Its server is out, and stable's takes its users as the backend's backup: they are in no count of the variant.
    test = Test(shop, tmp_path)
    test.start()
    shop.proxy.ask('set server canary/c1 state maint')
    test.requests(600)
    found = test.step('analysed')
    assert found['verdict'] == 'invalid' and 'variant_b 0 %' in found['problem'] and found['ratio']['p'] < 0.01
    assert shop.look()['moving'], 'nobody is hurt, so a person decides'
    assert test.step('decided')['target'] is None
    told = test.step('concluded', check=True, outcome='control')
    assert told['changed'] and shop.look()['moving'] and 'would be over' in told['say'][-1]
    over = test.step('concluded', outcome='control')
    assert over['changed'] and sorted(over['left']) == ['canary', 'green'] and set(test.requests(50)) == {'blue'}
    assert not test.step('concluded', outcome='control')['changed']


def test_when_nobody_concludes_the_data_plane_returns_to_control(shop, tmp_path):
    test = Test(shop, tmp_path, duration='1s', grace='1s')
    opened = test.start()
    assert opened['lease'] == '2s'
    assert 'green' in test.requests(100)
    test.step('analysed')
    wait_for(lambda: set(test.requests(40)) == {'blue'}, 'the end of the lease')
    found = test.step('analysed')
    assert not found['live'] and found['over'] and 'not in force any more' in found['say'][-1]
    decided = test.step('decided')
    assert (decided['winner'], decided['target']) == ('control', None) and 'no winner' in decided['reason']
    test.step('concluded', outcome='control')
    assert not shop.look()['moving']


def test_an_analysis_renews_the_lease_up_to_the_end_and_not_beyond(shop, tmp_path):
    test = Test(shop, tmp_path, duration='10m', grace='1m', lease='60s')
    test.start()
    began = test.events()[-1]['began']
    shop.do(split={'green': 2500, 'canary': 2500}, stable='blue', sticky='hash', lease='20s', by='anna',
            rollout=test.events()[0]['rollout'])
    test.step('analysed')
    assert 50 < shop.look()['endpoints'][0]['lease_left_s'] <= 60.1
    # The last minute is not long enough for another whole lease.
    test.step('analysed', wall=lambda: began + 640)
    assert 15 < shop.look()['endpoints'][0]['lease_left_s'] <= 20.1


def test_a_rollback_by_hand_ends_the_test_and_is_not_undone(shop, tmp_path):
    test = Test(shop, tmp_path)
    test.start()
    test.requests(200)
    test.step('analysed')
    back = shop.do(state='way_back')
    assert sorted(back['left']) == ['canary', 'green'], 'all arms of the test at once'
    test.requests(500)
    found = test.step('analysed')
    assert not found['live'] and not shop.look()['moving']
    assert sum(one['total'] for one in found['metrics']['errors_seen'].values()) == 200, 'what came after is not the test\'s'


def test_a_winner_is_decided_by_the_verdict_or_by_a_person(shop, tmp_path):
    test = Test(shop, tmp_path, guardrails=[])
    test.start()
    shop.origins['blue'].status = 503
    test.requests(600)
    shop.origins['blue'].status = 200
    found = test.step('analysed')
    assert found['verdict'] == 'winner' and found['winner'] in ('variant_a', 'variant_b')
    decided = test.step('decided')
    assert decided['target'] == {'variant_a': 'green', 'variant_b': 'canary'}[found['winner']]
    assert decided['version'] == {'variant_a': '5.1-a', 'variant_b': '5.1-b'}[found['winner']]
    named = test.step('decided', winner='variant_b')
    assert (named['target'], named['reason'], named['losers']) == ('canary', 'chosen by anna', ['green'])
    assert 'is not an arm of the A/B test' in sentence(lambda: test.step('decided', winner='red'))


def test_without_a_verdict_nothing_is_decided_before_the_end(shop, tmp_path):
    test = Test(shop, tmp_path)
    test.start()
    test.requests(100)
    test.step('analysed')
    assert 'no verdict yet' in sentence(lambda: test.step('decided'))
    late = test.events()[3]['ends'] + 1
    assert test.step('decided', wall=lambda: late)['target'] is None


def test_what_stands_in_the_way_is_said_before_the_first_change(shop, tmp_path):
    test = Test(shop, tmp_path)
    entry = shop.entry()
    for options, said in (
            ({'endpoints': shop.endpoints(sticky=False)}, 'no line for sticky splits'),
            ({'endpoints': shop.endpoints(slots=1)}, 'has lines for 1 candidate'),
            ({'endpoints': [{**shop.endpoints()[0], 'socket': 'unix:///tmp/pd-nobody.sock'}]}, 'No such file'),
            ({'test_arms': {**TESTED, 'control': {'arm': 'green', 'share': '50%'}, 'variant_a': {'arm': 'blue', 'share': '25%'}}},
             'control must be what serves everybody now'),
            ({'sources': {'prometheus': {'url': 'http://127.0.0.1:9'}}, 'metrics': [
                {'name': 'x', 'successes': 'a{arm="$arm"}[$window]', 'total': 'b{arm="$arm"}[$window]'}]}, 'cannot be watched')):
        assert said in sentence(lambda options=options: test.step('opened', **options))
    assert test.step('opened', check=True)['split'] == {'green': 2500, 'canary': 2500}
    assert shop.entry() == entry and not list(tmp_path.glob('shop/*.jsonl'))
    assert 'There is no A/B test' in sentence(lambda: test.step('analysed'))


def test_one_test_at_a_time_and_one_run_at_a_time(shop, tmp_path):
    test = Test(shop, tmp_path)
    test.start()
    assert 'with another design' in sentence(lambda: test.step('opened', alpha=0.01))
    assert 'is being rolled out by shop-ab-' in sentence(lambda: shop.do(split={'canary': '5%'}, lease='30s', rollout='other'))
    with subprocess.Popen(['sleep', '60']) as other:
        try:
            lock = Lock(str(tmp_path / 'shop' / 'lock'))
            lock.acquire(holder_for('another-run', 'ben', time.time(), other.pid))
            assert 'under way: another-run by ben' in sentence(lambda: test.step('analysed'))
        finally:
            other.kill()
    assert test.step('analysed')['verdict'] == 'keep_running', 'a holder that died holds nothing'
    assert lock.holder() is None


def test_a_run_that_died_between_the_split_and_the_count_is_taken_up(shop, tmp_path):
    test = Test(shop, tmp_path)
    opened = test.step('opened')
    shop.do(**{key: opened[key] for key in ('split', 'stable', 'lease', 'rollout', 'journal')}, sticky='hash', by='anna')
    assert 'never began' in sentence(lambda: test.step('analysed'))
    assert test.start()['rollout'] == opened['rollout']
    assert test.step('analysed')['verdict'] == 'keep_running'
