# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The line that tells how a stage goes. Pure."""

from __future__ import annotations

import math
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import measure as m
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.condition import Condition
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.verdict import Judgement


_SHORT = {'error_ratio': 'err', 'servers_up_ratio': 'up', 'probe_success_ratio': 'probes'}


@dataclass(frozen=True)
class Progress:
    """A stage at one moment."""

    label: str
    at: float
    bake: float
    judgements: tuple[tuple[Condition, Judgement], ...]
    requests: int | None
    """Of the candidate in the whole stage; None where no source counts them."""
    share_bp: int | None
    """Observed in the whole stage."""
    lease: float | None
    """Seconds that the shortest lease still has."""
    trouble: str | None = None
    """What does not work at the moment, in a few words."""


def line(progress: Progress) -> str:
    """Returns ``canary 5 %  0:08/0:30  err 0.00 % (limit 0.5)  p95 84 ms (limit 1000)  142 req  share 5.1 %  lease 4.9 s``."""
    parts = [progress.label, '%s/%s' % (clock(progress.at), clock(progress.bake))]
    parts += [_told(condition, judgement) for condition, judgement in progress.judgements if not judgement.told]
    if progress.requests is not None:
        parts.append('%d req' % progress.requests)
    if progress.share_bp is not None:
        parts.append('share %.1f %%' % (progress.share_bp / 100))
    if progress.lease is not None:
        parts.append('lease %.1f s' % max(0.0, progress.lease))
    # Whole sentences last: a narrow terminal cuts them, and not the figures.
    parts += [judgement.told for _condition, judgement in progress.judgements if judgement.told]
    if progress.trouble:
        parts.append('! ' + progress.trouble)
    return '  '.join(parts)


def clock(seconds: float) -> str:
    """Returns ``'0:08'``, ``'30:00'``, ``'1:05:00'``."""
    minutes, rest = divmod(int(seconds + 1e-6), 60)
    return '%d:%02d' % (minutes, rest) if minutes < 60 else '%d:%02d:%02d' % (minutes // 60, minutes % 60, rest)


def fit(text: str, columns: int) -> str:
    """Returns *text* cut to *columns*, the cut marked."""
    return text if len(text) <= columns else text[:max(0, columns - 1)] + '…'


def _told(condition: Condition, judgement: Judgement) -> str:
    name, unit = _short(condition), condition.spec.unit
    if judgement.value is None or not math.isfinite(judgement.value):
        return '%s –' % name
    text = '%s %s%s' % (name, '>' if judgement.bound else '', m.tell(judgement.value, unit))
    if judgement.limit is None or not math.isfinite(judgement.limit):
        return text
    return '%s (limit %s)' % (text, re.sub(r' (%|ms|per s)$', '', m.tell_limit(judgement.limit, unit)))


def _short(condition: Condition) -> str:
    metric: t.Any = condition.spec.metric
    return _SHORT.get(metric) or (metric.replace('latency_', '', 1) if metric.startswith('latency_p') else metric)
