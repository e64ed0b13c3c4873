# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What C(rollout_answer) does: it writes an answer into the journal and waits until the gate that asks has taken it."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils import _approval as a
from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal, read_journal
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token

ANSWER_SPEC: dict[str, t.Any] = {
    'service': {'type': 'str', 'required': True},
    'state_dir': {'type': 'path', 'required': True},
    'rollout': {'type': 'str'},
    'answer': {'type': 'str', 'default': ''},
    'reason': {'type': 'str', 'default': ''},
    'by': {'type': 'str', 'required': True},
    'wait_timeout': {'type': 'raw', 'default': '10s'},
}
_LOOK_S = 0.1


def give(options: t.Mapping[str, t.Any], check_mode: bool, clock: t.Callable[[], float],
         sleep: t.Callable[[float], None]) -> dict[str, t.Any]:
    """Answers and returns the task's result. Raises DeliveryError when there is no question, or nobody takes the answer."""
    service, by = check_name('service', options['service']), check_token('name of who answers', options['by'])
    reason, wait = a.check_text('reason', options['reason']), parse_duration(options['wait_timeout'], 'wait_timeout')
    # The link latest.jsonl leads to the rollout that began last.
    name = check_token('rollout', options['rollout']) if options.get('rollout') else 'latest'
    path = os.path.realpath(os.path.join(options['state_dir'], service, '%s.jsonl' % name))
    if not os.path.exists(path):
        raise BadInput('There is no rollout of %s to answer: the journal %s is not there. Is delivery_state_dir that of the rollout, '
                       'on the same machine or share?' % (service, path))
    events = read_journal(path)
    asked = a.open_question(events)
    if asked is None:
        last = next((event for event in reversed(events) if event['event'] == 'answered'), None)
        raise Conflict('No question of %s stands%s.' % (service, '' if last is None else ': the last one, "%s", %s' % (
            last.get('text'), 'was answered %s by %s' % (last['answer'], last['by']) if last.get('answer') else 'was not answered')))
    question = '%s asks: %s' % (asked.get('stage'), asked.get('text'))
    if options['answer'] not in a.ANSWERS:
        raise BadInput('%s Answer with delivery_answer=go or delivery_answer=stop%s.' % (
            question, ', not %r' % options['answer'] if options['answer'] else ''))
    a.check_may(by, asked.get('by') or ())
    result = {'changed': True, 'question': asked.get('text'), 'answer': options['answer'], 'journal': path,
              'rollout': asked.get('rollout'), 'msg': '%s %s said %s.' % (question, by, options['answer'])}
    if check_mode:
        return {**result, 'msg': '%s %s would say %s.' % (question, by, options['answer'])}
    tail = a.Tail(path)
    Journal(path, asked.get('rollout')).write('answer', strict=True, question=asked['question'], answer=options['answer'], by=by,
                                              reason=reason)
    end = clock() + wait
    while clock() < end:
        for event in tail.read():
            if event.get('event') == 'answered' and event.get('question') == asked['question']:
                if (event.get('by'), event.get('answer')) != (by, options['answer']):
                    raise Conflict('%s It was too late: %s.' % (question, '%s had said %s' % (event['by'], event['answer']) if event.get(
                        'answer') else 'the question stood no longer'))
                return result
        sleep(_LOOK_S)
    raise DeliveryError('%s The answer is written, but nothing took it within %g s: the run that asked is gone or stopped. '
                        'Look at progressive.delivery.status.' % (question, wait))
