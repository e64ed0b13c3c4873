# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Server weights that come nearest to shares. Pure."""

from __future__ import annotations

import typing as t
from fractions import Fraction

from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL

MAX_WEIGHT = 256
"""The largest weight of a server (HAProxy configuration manual, 'weight')."""


def fit_weights(shares_bp: t.Sequence[int], servers: t.Sequence[int]) -> tuple[list[int], Fraction]:
    """Returns the weight of one server of each arm, and the largest error of a share in basis points.

    *shares_bp* sum to 10 000; *servers* counts each arm's servers, which get equal weights. A share above 0 gets a weight of 1
    at least. For every weight of the arm whose servers weigh most, the others are rounded; of these fits the one with the
    smallest largest error wins, and of equal ones the smallest weights. For two arms no fit is better.
    """
    per_server = [Fraction(bp, count) if bp else Fraction(0) for bp, count in zip(shares_bp, servers)]
    heaviest = max(per_server)
    best: tuple[Fraction, list[int]] | None = None
    for weight in range(1, MAX_WEIGHT + 1):
        weights = [max(1, round(share * weight / heaviest)) if share else 0 for share in per_server]
        error = max(abs(got - bp) for got, bp in zip(achieved(weights, servers), shares_bp))
        if best is None or error < best[0]:
            best = (error, weights)
        if not error:
            break
    if best is None:
        raise ValueError('no weights')
    return best[1], best[0]


def achieved(weights: t.Sequence[int], servers: t.Sequence[int]) -> list[Fraction]:
    """Returns the shares in basis points that *weights* give; of all zero weights, zero."""
    total = sum(weight * count for weight, count in zip(weights, servers))
    return [Fraction(weight * count * TOTAL, total) if total else Fraction(0) for weight, count in zip(weights, servers)]


def to_bp(parts: t.Mapping[str, int]) -> dict[str, int]:
    """Returns whole basis points that sum to 10 000 from any parts of a whole, by largest remainder; zeros are left out."""
    total = sum(parts.values())
    if not total:
        return {}
    exact = {name: Fraction(part * TOTAL, total) for name, part in parts.items() if part}
    whole = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: whole[name] - exact[name])[:TOTAL - sum(whole.values())]:
        whole[name] += 1
    return whole
