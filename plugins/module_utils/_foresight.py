# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What C(gate_plan) does: it checks the gates of all stages, looks at the traffic for a moment, and tells what each gate can find in it."""

from __future__ import annotations

import asyncio
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._analysis.harm import Sequential
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.spec import Sample
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration, parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._gate import ARGUMENT_SPEC, Gate, read_gate
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Reading, Source
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL

SHARED = ('service', 'arms', 'endpoints', 'sources', 'stable', 'versions', 'alpha', 'beta', 'analysis_state', 'policy', 'ask_timeout',
          'ask_by', 'extend_by', 'max_extensions', 'error_limit')
"""The options that are those of C(health_gate)."""

GATE_PLAN_SPEC: dict[str, t.Any] = {
    **{key: ARGUMENT_SPEC[key] for key in SHARED},
    'stages': {'type': 'list', 'elements': 'dict', 'required': True},
    'observe': {'type': 'raw', 'default': '2s'},
}
LONGEST_S = 60.0
_SHORT_S = 0.3
_DEADLINE_S = 5.0


def read_gates(options: t.Mapping[str, t.Any]) -> list[Gate]:
    """Returns the gate of each stage. Raises BadInput at the first that cannot be, which names its stage when the ones before can."""
    gates: list[Gate] = []
    for stage in options['stages']:
        own = {key: spec.get('default') for key, spec in ARGUMENT_SPEC.items()}
        own.update({key: options[key] for key in SHARED})
        try:
            own.update(stage=stage['label'], candidate=stage['arm'], share_bp=stage['load_bp'], conditions=stage['conditions'],
                       bake=stage['bake_s'], interval=stage['interval_s'], warm_up=stage['warm_up_s'], approval=stage.get('approval'))
        except KeyError as exc:
            raise BadInput('The stages have no %s: give those of the plan that rollout_plan returned.' % exc) from None
        try:
            gates.append(read_gate(own))
        except BadInput as exc:
            # What is wrong with all stages is wrong with the first.
            raise BadInput('In stage %d (%s): %s' % (len(gates) + 1, stage['label'], exc) if gates else str(exc)) from None
    return gates


async def foresee(gates: t.Sequence[Gate], seconds: float, now: t.Callable[[], float] = time.monotonic) -> dict[str, t.Any]:
    """Looks at the traffic for *seconds* and returns ``{stages: [{label, text, warnings, plans}], notes}``, a stage for each gate.

    What cannot be read is a note and fails nothing: the gates will say it, with their policies.
    """
    asked = [(gate, condition) for gate in gates for condition in gate.sequential]
    stages: list[dict[str, t.Any]] = [{'label': gate.label, 'text': [], 'warnings': [], 'plans': []} for gate in gates]
    if not asked or not seconds:
        return {'stages': stages, 'notes': []}
    names = {condition.asked.source for _gate, condition in asked}
    notes: list[str] = []
    # Sources of the same name are the same in all gates.
    await asyncio.gather(*(_look(source, asked, seconds, notes, now) for source in gates[0].sources if source.name in names))
    for gate, condition in asked:
        plan = _plan(gate, condition)
        told = stages[list(gates).index(gate)]
        if plan is None:
            continue
        told['text'].append(plan.text)
        told['warnings'] += plan.warnings
        told['plans'].append({'name': condition.name, **plan.as_dict()})
    if not notes and not any(one['plans'] for one in stages):
        notes.append('There was no traffic in %s, so what the gates can find is not known yet.' % format_duration(seconds))
    return {'stages': stages, 'notes': list(dict.fromkeys(notes))}


async def _look(source: Source, asked: t.Sequence[tuple[Gate, Sequential]], seconds: float, notes: list[str],
                now: t.Callable[[], float]) -> None:
    begin = now()
    try:
        await asyncio.wait_for(source.open(), _DEADLINE_S)
        # The first poll is the mark, and the block after it is dropped, as in a gate.
        for at in (0.0, min(_SHORT_S, seconds / 4), seconds):
            await asyncio.sleep(max(0.0, begin + at - now()))
            reading = await asyncio.wait_for(source.poll(now()), _DEADLINE_S)
            notes += reading.errors
            _take_in(source.name, now() - begin, reading, asked)
    except (asyncio.TimeoutError, TimeoutError):
        notes.append('The source "%s" did not answer in time.' % source.name)
    except DeliveryError as exc:
        notes.append(str(exc))
    finally:
        try:
            await asyncio.wait_for(source.close(), 1.0)
        except (asyncio.TimeoutError, TimeoutError):
            pass


def _take_in(name: str, at: float, reading: Reading, asked: t.Sequence[tuple[Gate, Sequential]]) -> None:
    for _gate, condition in asked:
        # A warm-up is for a candidate that has just begun; stable has been there.
        condition.update(Sample(at + condition.asked.warm_up + 1.0, name, reading))


def _plan(gate: Gate, condition: Sequential) -> t.Any:
    numbers, p_b = condition.state.numbers(condition.name), condition.state.baseline_rate(condition.name)
    requests, seconds = numbers['stable_requests'] + numbers['requests'], numbers['seconds']
    share = (gate.share_bp or 0) / TOTAL
    if seconds <= 0 or not requests or (condition.asked.question.ratio and share == 1):
        return None
    rate = requests / seconds
    return condition.plan(rate * (1 - share), rate * share, p_b, max(gate.bake - condition.asked.warm_up, 1.0))


def run(options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Checks and looks; returns the task's result. Raises BadInput."""
    seconds = parse_duration(options['observe'], 'observe')
    if seconds > LONGEST_S:
        raise BadInput('The observe of %g s is too long: a minute at most, before anything is changed.' % seconds)
    return {'changed': False, **asyncio.run(foresee(read_gates(options), seconds))}
