# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Where the evidence of a rollout goes on that was interrupted, from the journal that it left. Pure."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import Question, SequentialState, times
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput


def go_on(events: t.Sequence[t.Mapping[str, t.Any]], plan: t.Mapping[str, t.Any], previous_version: str | None, alpha: float, beta: float,
          now: float, max_age: float) -> tuple[dict[str, t.Any], str]:
    """Returns the state that the sequential conditions of *plan* go on with, and a sentence about it; ``({}, '')`` where there is none.

    *events* are those of the service's last journal. Its evidence counts for this rollout when that one did not come to an end, was of
    the same versions on the same arms, asked the same questions with the same *alpha* and *beta*, and stopped at most *max_age* seconds
    before *now*. A proof is not taken over: it has ended its rollout, and whoever begins anew after it has a reason.
    """
    start = next((event for event in events if event['event'] == 'rollout_started'), None)
    last = next((event for event in reversed(events) if event['event'] == 'analysis'), None)
    if start is None or last is None or any(event['event'] == 'rollout_finished' for event in events):
        return {}, ''
    same = {'version': plan['version'], 'previous_version': previous_version or '', 'stable': plan['stable'], 'target': plan['target']}
    arms = [stage['arm'] for stage in start.get('plan') or []]
    if {key: start.get(key) for key in same} != same or list(dict.fromkeys(arms)) != plan['candidates']:
        return {}, ''
    state, age = last['state'], now - last['ts']
    who = 'The rollout %s was interrupted %s ago' % (start['rollout'], format_duration(max(age, 0.0)))
    if age > max_age:
        return {}, '%s, more than %s: its evidence is not used.' % (who, format_duration(max_age))
    try:
        questions = [Question(**one['question']) for one in state['tests'].values()]
        known = SequentialState.from_dict(state, questions, alpha, beta)
    except (BadInput, AttributeError, KeyError, TypeError):
        return {}, '%s, with other conditions, or its evidence is damaged: it is not used.' % who
    if json.loads(json.dumps(plan['asks'])) != start.get('asks'):
        return {}, '%s and asked other questions: its evidence is not used.' % who
    if known.failed is not None:
        return {}, '%s with a proof of harm (%s): evidence begins anew.' % (who, known.failed['reason'])
    return state, ('%s: its evidence goes on, %s times more likely harmful than not so far, limit %.0f '
                   '(delivery_forget_evidence=true begins anew).' % (who, times(known.log_e), 1 / alpha))
