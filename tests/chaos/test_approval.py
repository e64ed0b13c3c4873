# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A question to a person, through ansible-playbook itself: at its terminal, from elsewhere, and when it is stopped meanwhile."""

from __future__ import annotations

import signal
import time

import pytest
from gate_lab import GateLab
from haproxy_lab import wait_for
from playbook_lab import Playbook

from ansible_collections.progressive.delivery.plugins.module_utils._answering import ANSWER_SPEC, give
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict

LEASE = '600s'


@pytest.fixture
def lab():
    with GateLab() as running, running.load(rate=60.0):
        yield running


def asking(lab, timeout='10m', **options):
    return Playbook(lab, bake=2, by='ann', approval={'question': 'Is the desk quiet?', 'timeout': timeout}, **options)


def answer(lab, folder, **options):
    """What approve.yml does, with the journal of the lab as that of the last rollout."""
    defaults = {key: spec.get('default') for key, spec in ANSWER_SPEC.items()}
    (folder / 'shop').mkdir(exist_ok=True)
    link = folder / 'shop' / 'latest.jsonl'
    if not link.is_symlink():
        link.symlink_to(lab.journal)
    return give({**defaults, 'service': 'shop', 'state_dir': str(folder), 'by': 'bob', **options}, False, time.monotonic, time.sleep)


@pytest.mark.parametrize('typed, code, to', [('go  all is quiet\n', 0, None), ('stop the phone rings\n', 2, 'blue')])
def test_the_terminal_of_the_playbook_answers(lab, typed, code, to):
    with asking(lab, keyboard=True, leases=[lab.move('50%', lease='20s')]) as playbook:
        playbook.said('Is the desk quiet?').said('Type "go" or "stop"')
        renewed = lab.entry()[0]
        shown = playbook.text.count('canary  0:0')
        playbook.type('\n')
        wait_for(lambda: playbook.text.count('canary  0:0') > shown, 'the progress, where Enter asks for it')
        playbook.type('perhaps\n')
        playbook.said('a blank and why;')
        wait_for(lambda: lab.entry()[0] != renewed, 'a renewal while the question stands')
        playbook.type(typed)
        assert playbook.end() == code, playbook.text
    assert lab.to() == to
    told = lab.events('answered')[0]
    word, _blank, why = typed.strip().partition(' ')
    assert (told['answer'], told['by'], told['via'], told['reason']) == (word, 'ann', 'terminal', why.strip())
    assert lab.events('verdict')[0]['passed'] is (code == 0)


def test_without_a_terminal_the_journal_answers_within_a_second(lab, tmp_path):
    with asking(lab, leases=[lab.move('50%', lease='20s')]) as playbook:
        playbook.said('progressive.delivery.approve')
        wait_for(lambda: lab.events('asked'), 'the question in the journal')
        with pytest.raises(BadInput, match='asks: Is the desk quiet.*delivery_answer=go'):
            answer(lab, tmp_path)
        assert answer(lab, tmp_path, answer='go', reason='it is')['changed']
        assert playbook.end() == 0, playbook.text
    written, taken = lab.events('answer')[0], lab.events('answered')[0]
    assert taken['ts'] - written['ts'] < 1 and (taken['by'], taken['reason'], taken['via']) == ('bob', 'it is', 'journal')
    with pytest.raises(Conflict, match='was answered go by bob'):
        answer(lab, tmp_path, answer='stop')


@pytest.mark.parametrize('end, said', [('\x03', 'SIGINT'), (signal.SIGTERM, 'SIGTERM'), (signal.SIGKILL, 'the end of the parent process')])
def test_being_stopped_while_a_question_stands_returns_the_traffic(lab, end, said):
    with asking(lab, keyboard=True, leases=[lab.move('50%', lease=LEASE)]) as playbook:
        playbook.said('Type "go" or "stop"')
        playbook.type(end) if isinstance(end, str) else playbook.kill(end)
        wait_for(lambda: lab.to() == 'blue', 'the traffic on blue')
        assert playbook.end() != 0
    assert [(one['signal'], one['event']) for one in lab.events('signal')] == [(said, 'signal')]
    assert lab.events('answered')[0]['answer'] is None


def test_harm_is_stopped_while_a_question_stands(lab):
    with asking(lab, leases=[lab.move('50%', lease=LEASE)]) as playbook:
        playbook.said('Is the desk quiet?')
        lab.canary.status = 500
        assert playbook.end() == 2 and 'requests failed' in playbook.text
    assert lab.to() == 'blue'


def test_no_answer_is_a_stop(lab):
    with asking(lab, timeout='1s', leases=[lab.move('50%', lease=LEASE)]) as playbook:
        assert playbook.end() == 2 and 'nobody answered within 1 s: "Is the desk quiet?"' in playbook.text
    assert lab.to() == 'blue'
