# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a gate returns and records in the end. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import verdict as v
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration


@dataclass(frozen=True)
class Ending:
    """Why a watch ended, and what follows."""

    judgement: v.Judgement
    passed: bool
    returns: bool
    """Whether the traffic has to go back."""
    stopped: bool = False
    """By a signal, or the parent's end."""
    trace: str | None = None
    approval: dict[str, t.Any] | None = None
    """What a person was asked, and said."""


@dataclass(frozen=True)
class Watched:
    """What was seen and done until then."""

    judgements: tuple[v.Judgement, ...]
    arms: dict[str, t.Any]
    observed_bp: dict[str, int]
    samples: int
    duration: float
    extensions: int
    notes: tuple[str, ...]
    holds: bool
    """Whether there was anything to take back."""
    lease_left: float | None
    plans: tuple[str, ...] = ()
    """What the sequential conditions can find, as it was told at the beginning."""
    analysis_state: dict[str, t.Any] | None = None
    """Where the sequential conditions of the rollout's next gate go on."""


def report(ending: Ending, stopped_by: str | None, rollback: dict[str, t.Any] | None, watched: Watched) -> dict[str, t.Any]:
    """Returns the task's result. *stopped_by* names the signal, *rollback* tells the way back when there was one."""
    reason = ending.judgement.reason
    if stopped_by:
        reason = '%s by %s' % (reason, stopped_by)
    elif ending.passed and ending.judgement.verdict == v.PASS:
        reason = '; '.join([*(judgement.reason for judgement in watched.judgements),
                            *([ending.approval['told']] if ending.approval else [])])
    elif watched.extensions:
        reason = '%s (after %d extension%s)' % (reason, watched.extensions, 's' if watched.extensions > 1 else '')
    result: dict[str, t.Any] = {
        'changed': rollback is not None, 'passed': ending.passed, 'verdict': ending.judgement.verdict, 'reason': reason,
        'conditions': [judgement.as_dict() for judgement in watched.judgements], 'arms': watched.arms, 'observed_bp': watched.observed_bp,
        'samples': watched.samples, 'duration': round(watched.duration, 3), 'extensions': watched.extensions, 'notes': list(watched.notes),
        'rolled_back': bool(rollback and rollback['complete']), 'rollback': rollback, 'stopped_by': stopped_by,
        'approval': ending.approval, 'plan': list(watched.plans), 'analysis_state': watched.analysis_state}
    if not ending.passed:
        result.update(failed=True, msg=_sentence(ending, reason, rollback, watched))
        if ending.trace:
            result['exception'] = ending.trace
    return result


def record(write: t.Callable[..., object], stage: str, result: t.Mapping[str, t.Any]) -> None:
    """Writes the last events of a stage: what stopped it, the verdict, the way back."""
    if result.get('stopped_by'):
        write('signal', stage=stage, signal=result['stopped_by'])
    write('verdict', stage=stage, **{key: result[key] for key in (
        'passed', 'verdict', 'reason', 'conditions', 'arms', 'observed_bp', 'samples', 'duration', 'extensions')})
    if result.get('analysis_state'):
        write('analysis', stage=stage, state=result['analysis_state'])
    if result['rollback']:
        write('way_back', stage=stage, reason=result['reason'], **result['rollback'])


def _sentence(ending: Ending, reason: str, rollback: t.Mapping[str, t.Any] | None, watched: Watched) -> str:
    if ending.stopped:
        text = '%s%s.' % (reason[:1].upper(), reason[1:])
    else:
        # The sentence of a proof says what it is; the others need to be told.
        text = '%s%s.' % ('' if ending.judgement.verdict == v.FAIL else ending.judgement.verdict + ': ', reason.rstrip('.'))
    left = None if watched.lease_left is None else format_duration(max(0.0, watched.lease_left))
    if rollback is None:
        if watched.holds and not ending.returns:
            return text + ' Nothing was written.'
        return text if left is None else '%s The shares stay until their lease runs out, in at most %s.' % (text, left)
    if rollback['complete']:
        seconds = rollback['seconds']
        return '%s Traffic is back on %s after %s.' % (
            text, rollback['to'], '%.0f ms' % (seconds * 1000) if seconds < 1 else '%.1f s' % seconds)
    lost = '; '.join('%s: %s' % (row['endpoint'], str(row['error']).rstrip('.')) for row in rollback['endpoints'] if not row['ok'])
    return '%s NOT all traffic could be returned (%s)%s.' % (
        text, lost, '' if left is None else '; what is left ends with its lease, in at most %s' % left)
