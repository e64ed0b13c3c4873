# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Conditions: what turns observations into verdicts. One table names their types; to add one, add its builder there.

A condition is an object with ``name``, ``update(sample) -> Judgement`` (what is known so far; a ``final`` one ends the watch) and
``finish() -> Judgement`` (the verdict on the whole stage; may be called again when the stage was extended).
"""

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._analysis.harm import Sequential, read_sequential, share_alpha
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.spec import Context, Sample, Spec, condition_name, read_spec
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.threshold import Counted, Gauge
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.verdict import Judgement
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput


class Condition(t.Protocol):
    """One condition of a gate. Pure: time comes with the samples."""

    name: str
    spec: Spec

    def update(self, sample: Sample) -> Judgement:
        """Takes in one poll of one source."""

    def finish(self) -> Judgement:
        """Judges the whole stage."""


def _threshold(raw: t.Mapping[str, t.Any], context: Context) -> Condition:
    spec = read_spec(raw, context)
    return Counted(spec) if spec.measure else Gauge(spec)


def _sequential(raw: t.Mapping[str, t.Any], context: Context) -> Condition:
    return Sequential(read_sequential(raw, context))


TYPES: dict[str, t.Callable[[t.Mapping[str, t.Any], Context], Condition]] = {
    'threshold': _threshold, 'sequential': _sequential}
"""Each type of condition, and what builds one from its options; a builder raises BadInput."""


def build_conditions(raw: t.Sequence[t.Mapping[str, t.Any]], context: Context) -> list[Condition]:
    """Returns the conditions in the order given. Raises BadInput for the first that is wrong, and when there is none to judge by."""
    conditions: list[Condition] = []
    for one in raw:
        kind = one.get('type') or 'threshold'
        if kind not in TYPES:
            raise BadInput('The condition "%s" is of the unknown type "%s": known are %s.' % (condition_name(one), kind, ', '.join(TYPES)))
        condition = TYPES[kind](one, context)
        if any(condition.name == other.name for other in conditions):
            raise BadInput('Two conditions are named "%s": give each a name of its own.' % condition.name)
        conditions.append(condition)
    if not any(condition.spec.required for condition in conditions):
        raise BadInput('There is no required condition: a gate that nothing judges would pass whatever happens.')
    share_alpha(conditions, context)
    return conditions
