# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole rollout, as `make rollout` runs it: real HAProxy, real instances, real load, every playbook."""

from __future__ import annotations

import html
import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from e2e_lab import ROOT
from haproxy_lab import wait_for

pytestmark = pytest.mark.xdist_group('e2e')

STAGES = [(500, 'canary'), (2000, 'canary'), (5000, 'green'), (10000, 'green')]
WINDOW_S = 10.0
"""The window of the rates that the lab's Prometheus records."""


def recap(done) -> dict[str, int]:
    return {key: int(value) for key, value in re.findall(r'(\w+)=(\d+)', done.stdout.rpartition('PLAY RECAP')[2])}


def off_by(observed_bp: int, requested_bp: int, n: int) -> float:
    """How many standard errors of a binomial share the observed one is off."""
    share = requested_bp / 10_000
    error = math.sqrt(share * (1 - share) / n)
    if error:
        return abs(observed_bp / 10_000 - share) / error
    return 0.0 if observed_bp == requested_bp else math.inf


def await_true(condition, process, within=60.0):
    end = time.monotonic() + within
    while not condition():
        assert process.poll() is None and time.monotonic() < end, 'it did not come to that'
        time.sleep(0.1)


@pytest.fixture(scope='module')
def promoted(lab):
    done, result = lab.rollout('none')
    assert done.returncode == 0, done.stdout + done.stderr
    return done, result


def test_a_good_version_takes_over_and_no_request_is_lost(promoted):
    _done, result = promoted
    assert (result['outcome'], result['failed'], result['failed_stable']) == ('promoted', 0, 0)
    assert [(stage['requested_bp'], stage['arm']) for stage in result['stages']] == STAGES
    for stage in result['stages']:
        assert stage['configured_bp'] == stage['requested_bp']
        assert off_by(stage['observed_bp'], stage['requested_bp'], stage['requests']) < 3


@pytest.mark.skipif(not shutil.which('prometheus'), reason='Prometheus is not installed')
def test_what_prometheus_recorded_is_what_the_load_generator_counted(lab, promoted):
    _done, result = promoted
    counted = 'haproxy_backend_http_responses_total{proxy=~"blue|green|canary"}'
    wait_for(lambda: lab.ask('sum(%s)' % counted)[0][1] == pytest.approx(result['requests'], rel=0.01), 'the last requests', 15)
    hits = lab.hits()
    last, scraped = max(hit.sent for hit in hits), min(values[0][0] for _labels, values in lab.history(counted))
    begins = [scraped, *(min(hit.done for hit in hits if hit.arm == arm) for arm in {hit.arm for hit in hits})]
    (_labels, rates), = lab.history('service:delivery_requests:rate{service="shop"}')
    # Prometheus guesses what lies between the edge of a window and the samples next to it, but never more than a counter has: a rate is
    # exact only where no counter begins in the window or in the second before it. What remains is that scrapes come early or late.
    steady = [(at, rate) for at, rate in rates if at < last and not any(at - WINDOW_S - 1 < begin <= at for begin in begins)]
    assert len(steady) >= 4, 'too short a rollout to say'
    sent = sum(sum(at - WINDOW_S < hit.done <= at for hit in hits) / WINDOW_S for at, _rate in steady)
    assert sum(rate for _at, rate in steady) == pytest.approx(sent, rel=0.01)


def test_the_summary_tells_all_of_it(promoted):
    done, result = promoted
    for text in ('promoted  shop 5.0 → 5.1', 'requests seen at the balancers', 'Journal: %s' % result['journal'], 'P95', 'pass'):
        assert text in done.stdout


def test_the_journal_has_the_way_back_before_every_change(promoted):
    _done, result = promoted
    events = [json.loads(line) for line in open(result['journal'], encoding='utf-8')]
    # The report's last look at the counters comes after the end.
    names = [event['event'] for event in events if event['event'] != 'counters']
    assert (names[0], names[-1]) == ('rollout_started', 'rollout_finished')
    for position, event in enumerate(events):
        if event['event'] == 'change':
            assert events[position - 1]['event'] == 'intent'
            assert events[position - 1]['way_back']['lab']


def test_what_is_known_of_harm_goes_on_from_stage_to_stage(promoted):
    _done, result = promoted
    events = [json.loads(line) for line in open(result['journal'], encoding='utf-8')]
    totals = [event['state']['tests']['errors against stable']['total'] for event in events if event['event'] == 'analysis']
    assert len(totals) == len(STAGES) and 0 < totals[0][3] < totals[1][3] < totals[2][3]
    assert len([event for event in events if event['event'] == 'plan']) == 3, 'the last stage leaves stable nothing to compare with'


def read_report(said, directory):
    """The report that the run says it wrote: the page's text up to its first heading below, and the JSON."""
    page = Path(re.search(r'Report \([a-z ]+\): (\S+\.html)', said).group(1))
    assert page.parent == directory and page.with_suffix('.md').read_text().startswith('# ')
    first_screen = re.sub(r'<[^>]+>', ' ', page.read_text().partition('What to look at')[0].partition('<body>')[2])
    return re.sub(r'\s+', ' ', html.unescape(first_screen)), json.loads(page.with_suffix('.json').read_text())


def test_the_report_is_there_and_agrees_with_the_load_generator(lab, promoted):
    done, result = promoted
    screen, report = read_report(done.stdout, lab.dir / 'state' / 'shop')
    # A machine with too much to do makes users wait though no request fails: that is said as well.
    slow = any(one['verdict'] == 'missed' for one in report['criteria'] if one['name'].startswith('P'))
    assert 'Promoted: shop 5.0 → 5.1' in screen and ('Yes, by waiting.' if slow else 'No. None of') in screen
    assert (report['outcome'], report['losses']['failed'], report['hurt_users']) == ('promoted', result['failed'], slow)
    # The load goes on for a moment after the last look at the counters.
    served = sum(result['versions']['5.1'].values())
    assert 0.7 * served <= report['losses']['new_requests'] <= served
    for mine, theirs in zip(report['stages'], result['stages']):
        assert mine['observed_bp'][mine['arm']] == theirs['observed_bp']
    assert {one['verdict'] for one in report['criteria'] if not one['name'].startswith('P')} == {'met', 'not needed'}


def test_the_report_is_made_again_from_the_journal(lab, promoted):
    _done, result = promoted
    again = lab.play('report.yml', '-e', 'delivery_journal=%s' % result['journal'])
    assert (again.returncode, recap(again)['changed']) == (0, 0), again.stdout
    elsewhere = lab.play('report.yml', '-e', 'delivery_journal=%s' % result['journal'], '-e', 'delivery_report_dir=%s' % (lab.dir / 'r'))
    assert elsewhere.returncode == 0 and len(list((lab.dir / 'r').iterdir())) == 3, elsewhere.stdout
    nothing = lab.play('report.yml', '-e', 'delivery_journal=%s/none.jsonl' % lab.dir)
    assert nothing.returncode != 0 and 'could not be read' in nothing.stdout + nothing.stderr


def test_a_second_run_changes_nothing(lab, promoted):
    before = lab.map_value()
    done = lab.play('rollout.yml', '-e', 'delivery_version=5.1')
    assert (done.returncode, recap(done)['changed'], lab.map_value()) == (0, 0, before), done.stdout
    done = lab.play('promote.yml', '-e', 'delivery_version=5.1')
    assert (done.returncode, recap(done)['changed'], lab.map_value()) == (0, 0, before), done.stdout


def test_check_mode_shows_the_plan_and_writes_nothing(lab, promoted):
    before, journals = lab.map_value(), sorted((lab.dir / 'state' / 'shop').iterdir())
    done = lab.play('rollout.yml', '-e', 'delivery_version=5.2', '--check', '--diff')
    assert done.returncode == 0, done.stdout + done.stderr
    assert (lab.map_value(), sorted((lab.dir / 'state' / 'shop').iterdir())) == (before, journals)
    for text in ('5.1 → 5.2', 'canary 0 % -> 5 %', 'blue 0 % -> 100 %', 'would watch'):
        assert text in done.stdout
    done = lab.play('rollback.yml', '--check', '--diff')
    assert (done.returncode, lab.map_value()) == (0, before), done.stdout
    assert 'green 100 % -> all to blue' in done.stdout


@pytest.mark.parametrize('wrong, said', [
    ('{"delivery_on_success_tasks": "/nope/tasks.yml"}', 'delivery_on_success_tasks names the task file /nope/tasks.yml'),
    ('{"delivery_deploy": "command", "delivery_deploy_command": []}', 'delivery_deploy_command is empty'),
    ('{"delivery_version": ""}', 'There is no version to roll out'),
    ('{"delivery_extra_conditions": [{"name": "x", "metric": "nope", "abort_above": 1}]}', 'names the metric "nope"'),
    ('{"delivery_policy": {"no_data": "pas"}}', 'value of no_data must be one of')])
def test_what_is_used_late_is_checked_before_the_first_change(lab, promoted, wrong, said):
    before, journals = lab.map_value(), sorted((lab.dir / 'state' / 'shop').iterdir())
    done = lab.play('rollout.yml', '-e', 'delivery_version=5.2', '-e', wrong)
    assert done.returncode != 0 and said in done.stdout + done.stderr, done.stdout + done.stderr
    assert recap(done)['changed'] == 0
    assert (lab.map_value(), sorted((lab.dir / 'state' / 'shop').iterdir())) == (before, journals)


def test_status_says_who_has_the_traffic(lab, promoted):
    done = lab.play('status.yml')
    assert (done.returncode, recap(done)['changed']) == (0, 0)
    assert re.search(r'green +100 %', done.stdout), done.stdout
    assert '\x1b' not in done.stdout, 'colours are for terminals'
    done = lab.play('status.yml', '-e', 'delivery_output=json')
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{')))
    assert (told['stable'], told['rollout']['outcome'], told['rollout']['running']) == ('green', 'promoted', False)
    assert told['configured_bp'] == {'lab': {'green': 10000}}


def test_a_finished_promotion_can_be_taken_back_once(lab, promoted):
    done = lab.play('rollback.yml')
    assert done.returncode == 0, done.stdout + done.stderr
    assert recap(done)['changed'] and lab.map_value().startswith('0/blue/')
    before = lab.map_value()
    done = lab.play('rollback.yml')
    assert (done.returncode, recap(done)['changed'], lab.map_value()) == (0, 0, before), done.stdout


def test_promote_goes_straight_to_all(lab, promoted):
    done = lab.play('promote.yml', '-e', 'delivery_version=5.1', '-e', 'delivery_promote_bake=2s')
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.map_value().startswith('0/green/')


LATE = '{"delivery_prewarm": "late", "delivery_canary_stages": "20%:6s", "delivery_blue_green_stages": "50%:6s, 100%:5s"}'
# What each arm was deployed beside: the entry of the map file at that moment.
NOTE = """
- name: Note the split
  ansible.builtin.shell: (printf '%s ' {{ delivery_arm }}; grep '^shop ' {{ lab_dir }}/delivery.map) >> {{ lab_dir }}/deployed
"""


def test_a_late_target_is_brought_up_while_stable_has_everything(lab, tmp_path):
    (tmp_path / 'note.yml').write_text(NOTE)
    noted = json.dumps({'delivery_deploy': ['tasks', 'command'], 'delivery_deploy_tasks': str(tmp_path / 'note.yml')})
    done, result = lab.rollout('none', '-e', LATE, '-e', noted)
    assert done.returncode == 0, done.stdout + done.stderr
    (canary, green) = (line.split() for line in (lab.dir / 'deployed').read_text().splitlines())
    assert (canary[0], green[0]) == ('canary', 'green')
    assert green[2].startswith('0/blue/') and 'id=%s' % Path(result['journal']).stem in green[2], 'all on stable, and still claimed'
    events = [json.loads(line) for line in open(result['journal'], encoding='utf-8')]
    assert [event['after_bp'] for event in events if event['event'] == 'change'][:3] == [
        {'canary': 2000, 'blue': 8000}, {'blue': 10000}, {'green': 5000, 'blue': 5000}]
    assert (result['outcome'], result['failed']) == ('promoted', 0) and lab.map_value().startswith('0/green/')


def test_a_late_target_that_does_not_come_up_leaves_all_on_stable(lab):
    hangs = '{"lab_candidate": "{{ \'hang\' if delivery_arm == \'green\' else \'none\' }}", "delivery_ready_timeout": "5s"}'
    done, result = lab.rollout('none', '-e', LATE, '-e', hangs)
    assert done.returncode != 0 and (result['outcome'], result['failed']) == ('rolled_back', 0), done.stdout
    assert 'did not become' in result['reason'] and 'green' in result['reason']
    assert [stage['arm'] for stage in result['stages']] == ['canary'] and lab.map_value().startswith('0/blue/')
    assert lab.play('rollback.yml').returncode == 0


def taken_out(lab, done, result, why):
    """Asserts that a bad version has had its way back, that the run says why, and that nobody else was hurt; returns the report."""
    assert done.returncode != 0
    assert lab.map_value().startswith('0/blue/')
    assert result['failed_stable'] == 0
    assert why in result['reason']
    assert result['reason'] in done.stdout
    screen, report = read_report(done.stdout, lab.dir / 'state' / 'shop')
    assert report['outcome'] == result['outcome']
    if report['outcome'] == 'rolled_back':
        assert [stage['verdict'] for stage in result['stages']] == ['fail']
    return screen, report


# "silent" is the one of test_alerts.
@pytest.mark.parametrize('candidate, why', [
    ('errors', 'requests failed'), ('slow', 'took longer than 1000 ms'), ('crash', 'servers'), ('hang', 'did not become')])
def test_a_bad_version_is_taken_out_and_only_those_it_had_are_hurt(lab, candidate, why):
    done, result = lab.rollout(candidate)
    screen, report = taken_out(lab, done, result, why)
    if candidate == 'hang':
        # It never became ready, so it never got a request.
        assert (result['outcome'], result['failed'], result['stages']) == ('failed', 0, [])
    else:
        assert result['outcome'] == 'rolled_back'
    if candidate == 'errors':
        # Each request that the bad version had is counted, whether or not a gate looked.
        served, lost = sum(result['versions']['5.1'].values()), report['losses']
        assert abs(lost['new_requests'] - served) <= max(1, 0.01 * served) and lost['failed'] == lost['new_failed'] == result['failed']
        for text in ('Rolled back: shop 5.0 → 5.1', 'in stage 1 of 4', 'UTC', 'requests failed', 'Yes.',
                     '%d of the %d requests that the new version had failed' % (lost['new_failed'], lost['new_requests'])):
            assert text in screen, screen
    assert lab.play('rollback.yml').returncode == 0


def test_ctrl_c_returns_the_traffic_and_a_second_rollout_meanwhile_is_refused(lab):
    lab.run(*lab.command('up'))
    running = subprocess.Popen(
        lab.command('run', '--', *lab.playbook('rollout.yml', '-e', 'delivery_version=5.1', '-e', '{"delivery_canary_stages": "20%:60s"}')),
        env=lab.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        await_true(lambda: '/canary/2000' in lab.map_value(), running)
        refused = lab.play('rollout.yml', '-e', 'delivery_version=5.2')
        assert refused.returncode != 0
        assert re.search(r'is being rolled out by shop-\S+ \(\S+ since [^)]+\)', refused.stdout), refused.stdout
        assert '/canary/2000' in lab.map_value()
        # A terminal sends Ctrl-C to every process of its foreground group; the session here is that group.
        os.killpg(running.pid, signal.SIGINT)
        said, _none = running.communicate(timeout=60)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode != 0
    assert lab.map_value().startswith('0/blue/'), said
    assert 'Traffic is back on blue' in said
    result = json.loads((lab.dir / 'result.json').read_text())
    assert result['failed_stable'] == 0
    report = json.loads(Path(result['journal']).with_suffix('.json').read_text())
    assert report['outcome'] == 'interrupted' and 'SIGINT' in report['headline'] and 'back on blue' in report['headline']
