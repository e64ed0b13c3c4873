# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Questions to a person: their grammar, whose answer counts, and what a gate does while one stands. Sources, lease and keyboard are
fakes here; tests/chaos asks at a real terminal and tests/e2e through playbooks."""

from __future__ import annotations

import pytest
from gate_fakes import ERRORS, Lease, Source, watch
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils import _approval as a
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal

QUESTION = {'question': 'Are the customers content?', 'timeout': 2}


class Keyboard:
    """Types *lines*, one at each look."""

    def __init__(self, *lines):
        self.lines, self.open_now = list(lines), False

    def open(self):
        self.open_now = True
        return True

    def read(self):
        return self.lines.pop(0) if self.lines else None

    def close(self):
        self.open_now = False


@pytest.mark.parametrize('value, words', [
    (7, 'not understood'), ({'timeout': 5}, 'not understood'), ({'question': 'x', 'who': 'ann'}, 'not understood'),
    ('bell\a', 'cannot be shown'), ('x' * 501, 'cannot be shown'), ({'question': 'x', 'timeout': 'soon'}, 'not understood'),
    ({'question': 'x', 'timeout': 0}, 'not usable'), ({'question': 'x', 'timeout': '2d'}, 'not usable'),
    ({'question': 'x', 'by': ['a b']}, 'cannot be stored'), ({'question': 'x', 'by': 5}, 'a list of names')])
def test_what_is_no_question_is_refused(value, words):
    with pytest.raises(BadInput, match=words):
        a.read_approval(value, 'stage 1', '30m')


def test_a_question_may_be_a_text():
    assert a.read_approval('Go on?', 'stage 1', '30m') == a.Approval('Go on?', 1800.0)
    assert a.read_approval({'question': 'Go on?', 'timeout': '5m', 'by': 'ann, bob'}, 'x', 1) == a.Approval('Go on?', 300.0, ('ann', 'bob'))
    assert a.read_approval('', 'x', 1) is None and a.read_approval(None, 'x', 1) is None


@given(st.text(max_size=40))
def test_a_typed_line_is_an_answer_or_a_sentence(line):
    try:
        answer = a.read_typed(line, 'ann')
    except BadInput:
        return
    assert line.strip().split(' ')[0].lower() in a.ANSWERS and answer.reason.isprintable()


def test_a_question_stands_until_it_is_answered():
    asked, other = ({'event': 'asked', 'question': n, 'text': 'x'} for n in (1, 2))
    assert a.open_question([]) is None
    assert a.open_question([asked, {'event': 'sample'}]) is asked
    assert a.open_question([asked, {'event': 'answered'}]) is None
    assert a.open_question([asked, {'event': 'answered'}, other]) is other
    assert a.open_question([asked, {'event': 'rollout_finished'}]) is None


def test_a_tail_gives_whole_lines_of_events_once(tmp_path):
    path = tmp_path / 'j.jsonl'
    path.write_text('{"event": "before"}\n')
    tail = a.Tail(str(path))
    assert tail.position == path.stat().st_size and tail.read() == []
    with path.open('a') as file:
        file.write('{"event": "one"}\nnonsense\n7\n{"event": "t')
        file.flush()
        assert tail.read() == [{'event': 'one'}]
        file.write('wo"}\n')
    assert (tail.read(), tail.read()) == ([{'event': 'two'}], [])
    assert a.Tail(str(tmp_path / 'not there')).read() == []


def test_without_an_answer_the_traffic_goes_back():
    lease, events = Lease(), []
    result, shown = watch([Source()], [lease], events, approval={**QUESTION, 'timeout': 1}, terminal=Keyboard())
    assert (result['verdict'], result['passed'], result['rolled_back']) == ('fail', False, True)
    assert 'Nobody answered within 1 s: "Are the customers content?"'.lower() in result['msg'].lower()
    told = [fields for event, fields in events if event == 'answered']
    assert [(one['answer'], one['by']) for one in told] == [(None, None)] and result['approval']['answer'] is None
    # A bake and a question of one second each, and a renewal three times in a second at least.
    assert lease.renewals >= 12
    assert any('No answer is a stop' in str(one) for one in shown)


@pytest.mark.parametrize('lines, passed, told', [
    (['', 'what?', 'go all is well'], True, ('go', 'ann', 'all is well')), (['STOP  too slow'], False, ('stop', 'ann', 'too slow'))])
def test_the_terminal_answers(lines, passed, told):
    events, keyboard, lease = [], Keyboard(*[line for line in lines if line]), Lease()
    result, shown = watch([Source()], [lease], events, approval=QUESTION, terminal=keyboard, by='ann')
    answered = dict(events)['answered']
    assert (result['passed'], answered['answer'], answered['by'], answered['reason'], answered['via']) == (passed, *told, 'terminal')
    assert bool(lease.returned) is not passed and not keyboard.open_now
    assert told[0] in result['reason'] and (len(lines) == 1 or any('Type "go" or "stop"' in str(one) for one in shown))


def test_the_policy_asks_with_what_was_seen():
    room = {**ERRORS, 'abort_above': '50%'}
    result, shown = watch([Source(bad=1)], policy={'inconclusive': 'ask'}, conditions=[room], terminal=Keyboard('go'), by='ann')
    assert (result['verdict'], result['passed']) == ('inconclusive', True) and result['reason'].endswith('; ann said go')
    assert any('canary is inconclusive (canary: ' in str(one) for one in shown)


def test_a_proof_of_harm_does_not_wait_for_the_answer():
    source, lease, events = Source(), Lease(), []

    class Turning(Keyboard):
        def open(self):
            source.bad = 15
            return True

    result, _shown = watch([source], [lease], events, approval={**QUESTION, 'timeout': '1h'}, terminal=Turning())
    assert (result['verdict'], result['rolled_back'], result['approval']) == ('fail', True, None)
    assert 'requests failed' in result['reason'] and dict(events)['answered']['answer'] is None


def test_only_those_named_may_answer_and_the_journal_is_a_way(tmp_path):
    path, events = str(tmp_path / 'j.jsonl'), []
    journal = Journal(path, 'r1')

    class Elsewhere(Keyboard):
        """What other processes write while the question stands."""

        def read(self):
            number = dict(events)['asked']['question']
            for n, by, answer in ((number + 1, 'bob', 'stop'), (number, 'ann', 'stop'), (number, 'bob', 'rm'), (number, 'bob', 'go')):
                journal.write('answer', question=n, by=by, answer=answer, reason='read it')
            self.read = lambda: None
            return 'go'

    journal.write('sample')
    result, shown = watch([Source()], [Lease()], events, approval={**QUESTION, 'timeout': 9, 'by': ['bob']}, by='ann',
                          terminal=Elsewhere(), answers=path)
    assert result['passed'], result
    assert result['approval'] == {'question': QUESTION['question'], 'answer': 'go', 'by': 'bob', 'reason': 'read it', 'via': 'journal',
                                  'told': 'bob said go (read it)', 'seconds': result['approval']['seconds']}
    assert result['reason'].endswith('; bob said go (read it)')
    assert len([one for one in shown if 'ann may not answer' in str(one)]) == 2
    assert any("'rm' is neither" in str(one) for one in shown)


def test_nobody_is_asked_of_a_bad_stage():
    events = []
    result, _shown = watch([Source(bad=15)], [Lease()], events, approval=QUESTION)
    assert result['verdict'] == 'fail' and 'asked' not in dict(events)
