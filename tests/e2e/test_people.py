# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rollout asks and tells people: approvals, the plan before a stage, evidence that goes on, sentences that are said once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest
from e2e_lab import ROOT

pytestmark = pytest.mark.xdist_group('e2e')

STAGES = {'delivery_blue_green_stages': [{'share': '100%', 'bake': '2s'}], 'delivery_settle': '0s', 'delivery_min_sample': 1}
# What these are about is the question: a busy machine, which loses samples of two seconds, must not decide before it.
ASKS = {**STAGES, 'delivery_lease': '20s', 'delivery_conditions': [
    {'name': 'servers', 'metric': 'servers_up_ratio', 'abort_below': 0.1}], 'delivery_canary_stages': [
    {'share': '20%', 'bake': '2s', 'approval': {'question': 'Is the desk quiet?', 'timeout': '1h', 'by': ['ann']}}]}


class Rollout:
    """A rollout under load that a test watches."""

    def __init__(self, lab, variables, *extra):
        self.lab, self.out = lab, open(lab.dir / 'out.txt', 'w+')
        self.process = subprocess.Popen(
            lab.command('run', '--', *lab.playbook('rollout.yml', '-e', 'delivery_version=5.1', '-e', json.dumps(variables), *extra)),
            env=lab.env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self.out, stderr=subprocess.STDOUT, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.out.close()

    @property
    def text(self):
        return (self.lab.dir / 'out.txt').read_text()

    def until(self, condition, what, within=150.0):
        end = time.monotonic() + within
        while not condition():
            assert self.process.poll() is None and time.monotonic() < end, '%s did not come: %s' % (what, self.text)
            time.sleep(0.1)

    def events(self, name):
        journal = self.lab.dir / 'state' / 'shop' / 'latest.jsonl'
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [event for event in map(json.loads, lines) if event['event'] == name]


@pytest.fixture
def fresh(lab):
    lab.run(*lab.command('up'))
    (lab.dir / 'state' / 'shop' / 'latest.jsonl').unlink(missing_ok=True)
    return lab


def approve(lab, **variables):
    return lab.play('approve.yml', '-e', json.dumps({'delivery_%s' % name: value for name, value in variables.items()}))


def test_a_stage_waits_for_a_person(fresh):
    with Rollout(fresh, ASKS) as rollout:
        rollout.until(lambda: rollout.events('asked'), 'the question')
        assert 'then asks "Is the desk quiet?"' in rollout.text
        told = approve(fresh)
        assert told.returncode and 'canary 20 % asks: Is the desk quiet?' in told.stdout
        refused = approve(fresh, answer='go', by='bob')
        assert refused.returncode and 'bob may not answer this question: it is for ann' in refused.stdout, refused.stdout
        assert '/canary/2000' in fresh.map_value(), 'the share lives while the question stands'
        given = approve(fresh, answer='go', by='ann', answer_reason='no calls')
        assert given.returncode == 0 and 'ann said go.' in given.stdout, given.stdout
        assert rollout.process.wait(120) == 0, rollout.text
    assert re.search(r'canary 20 % was asked "Is the desk quiet\?": go by ann after .*\(no calls\)', rollout.text), rollout.text
    late = approve(fresh, answer='stop', by='ann')
    assert late.returncode and 'was answered go by ann' in late.stdout


def test_stop_rolls_back_and_says_who_and_why(fresh):
    with Rollout(fresh, ASKS) as rollout:
        rollout.until(lambda: rollout.events('asked'), 'the question')
        assert approve(fresh, answer='stop', by='ann', answer_reason='many calls').returncode == 0
        assert rollout.process.wait(120) == 2, rollout.text
    assert fresh.map_value().startswith('0/blue/')
    assert 'Rolled back: ann said stop (many calls) to "Is the desk quiet?". Traffic is back on blue' in rollout.text, rollout.text


def test_before_a_stage_it_says_what_it_can_find_also_in_check_mode(fresh):
    with Rollout(fresh, {**STAGES, 'delivery_canary_stages': '20%:6s'}, '--check') as rollout:
        assert rollout.process.wait(120) == 0, rollout.text
    before, _rule, after = rollout.text.partition('Stage 1 of 2')
    assert 'Stage 2 of 2' in after and 'Stage | Move traffic' not in before
    told = after.partition('Stage | Move traffic')[0]
    assert re.search(r'errors against stable: in 6 s at \d+(\.\d)? and \d+ requests per second', told), rollout.text
    assert 'errors or more on the candidate is found in nine of ten cases' in told
    assert '! The bake of 6 s is too short for the condition "errors against stable" to find 1 % errors' in told


def test_an_interrupted_rollout_goes_on_with_its_evidence(fresh):
    slow = {**STAGES, 'delivery_canary_stages': '20%:60s'}
    with Rollout(fresh, slow) as rollout:
        rollout.until(lambda: len(rollout.events('sample')) > 3, 'samples')
        # What AWX does to a job that is cancelled: every process, the worker included, so only the parent is met here.
        os.kill(rollout.events('rollout_started') and _playbook(rollout), signal.SIGKILL)
        rollout.process.wait(60)
        first = rollout.events('rollout_started')[0]['rollout']
        end = time.monotonic() + 20
        while not rollout.events('analysis') and time.monotonic() < end:
            time.sleep(0.1)
        seen = rollout.events('analysis')[-1]['state']['tests']['errors against stable']['total'][3]
    assert seen > 0
    with Rollout(fresh, {**STAGES, 'delivery_canary_stages': '20%:2s'}) as again:
        assert again.process.wait(120) == 0, again.text
    assert re.search('The rollout %s was interrupted .* ago: its evidence goes on, ' % first, again.text), again.text
    assert again.events('analysis')[0]['state']['tests']['errors against stable']['total'][3] > seen
    forgot = fresh.play('rollout.yml', '-e', 'delivery_version=5.2', '--check')
    assert 'evidence' not in forgot.stdout


def _playbook(rollout):
    """The process that has the lock."""
    return json.loads((rollout.lab.dir / 'state' / 'shop' / 'lock').read_text())['pid']


@pytest.mark.parametrize('wrong, said', [
    ({'delivery_lease': '2s'}, 'shorter than three intervals of stage 1'),
    ({'delivery_drain_timeout': 'soon'}, 'is not understood: write seconds'),
    ({'delivery_matches': [{'header': 'x-nope', 'value': '1', 'arm': 'canary'}]}, 'x-nope'),
    ({'delivery_ask_timeout': '3d'}, 'The ask_timeout of 259200 s is not usable'),
    ({'delivery_arms': {'blue': {'backend': 'blue'}, 'green': {'backend': 'green'}}}, 'as delivery_canary_arm (green would do)')])
def test_what_is_wrong_is_said_once(fresh, wrong, said):
    done = fresh.play('rollout.yml', '-e', 'delivery_version=5.1', '-e', json.dumps(wrong))
    assert done.returncode
    assert sum(said in line for line in re.sub(r'\n +', ' ', done.stdout).splitlines() if 'msg:' in line) == 1, done.stdout


def test_a_hook_that_fails_in_check_mode_has_rolled_nothing_back(fresh):
    hook = fresh.dir / 'hook.yml'
    hook.write_text('- name: Fail\n  ansible.builtin.fail:\n    msg: the hook fails\n  when: delivery_stage.index == 2\n')
    done = fresh.play('rollout.yml', '-e', 'delivery_version=5.1', '--check', '-e', 'delivery_before_stage_tasks=%s' % hook)
    assert done.returncode and 'It would stop here: the hook fails.' in done.stdout and 'Rolled back' not in done.stdout
