# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The Prometheus text format (version 0.0.4), which data planes write their own metrics in. Pure.

Source: prometheus.io, 'Exposition formats': a sample is ``name{label="value",...} value [timestamp]``; in label values a backslash
escapes itself, ``"`` and a line feed (``\\n``); values are Go's floats, ``NaN``, ``+Inf`` and ``-Inf`` among them.
"""

from __future__ import annotations

import math
import re
import typing as t

_SAMPLE = re.compile(r'(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*(?:\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*")*)\}[ \t]*)?'
                     r'[ \t]*(?P<value>[^ \t{}]+)(?:[ \t]+-?\d+)?[ \t]*')
_LABEL = re.compile(r'[ \t]*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"(?P<value>(?:[^"\\]|\\.)*)"[ \t]*(?:,|$)')
_ESCAPED = re.compile(r'\\(.)')
_VALUE = re.compile(r'[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|[iI]nf|[nN]a[nN])')


class Sample(t.NamedTuple):
    """One line: a series and its value now."""

    name: str
    labels: t.Mapping[str, str]
    value: float


def parse(text: str, names: t.Collection[str]) -> list[Sample]:
    """Returns the samples called *names*, in their order. The rest is skipped unread, as a data plane has thousands of lines.

    Raises ValueError with the line that is not understood, and for a text that is nothing of the kind.
    """
    found, wanted = [], tuple(names)
    lines = text.split('\n')
    if not any(line.startswith('#') or _SAMPLE.fullmatch(line) for line in lines if line) and text.strip():
        raise ValueError(text.strip()[:200])
    for line in lines:
        if line.startswith(wanted):
            match = _SAMPLE.fullmatch(line)
            if not match:
                raise ValueError(line[:200])
            if match['name'] in names:
                found.append(Sample(match['name'], _labels(match['labels'] or '', line), _number(match['value'], line)))
    return found


def _labels(text: str, line: str) -> dict[str, str]:
    labels, at = {}, 0
    while at < len(text):
        match = _LABEL.match(text, at)
        if not match:
            if text[at:].strip():
                raise ValueError(line[:200])
            break
        labels[match['name']] = _ESCAPED.sub(lambda sign: '\n' if sign[1] == 'n' else sign[1], match['value'])
        at = match.end()
    return labels


def _number(text: str, line: str) -> float:
    if not _VALUE.fullmatch(text):
        raise ValueError(line[:200])
    return float(text)


def spread(buckets: t.Mapping[float, float]) -> tuple[float, ...]:
    """Returns values that a histogram may have counted: those of each bucket evenly between its edges, as PromQL's
    ``histogram_quantile`` takes them to be; those above the last finite edge just above it.

    *buckets* maps upper edges, infinity last, to how many values were at most that large: cumulative counts that never fall.
    How many values lie above an edge is exact; between two edges it is an estimate.
    """
    values: list[float] = []
    low, below = 0.0, 0
    for edge, count in sorted(buckets.items()):
        inside = max(round(count) - below, 0)
        if edge == math.inf:
            values += [_above(low)] * inside
        else:
            values += [low + (edge - low) * (number + 0.5) / inside for number in range(inside)]
            low = edge
        below += inside
    return tuple(values)


def _above(edge: float) -> float:
    return edge * (1 + 1e-9) or 1e-9
