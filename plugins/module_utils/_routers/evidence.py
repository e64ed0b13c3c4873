# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What traffic shows: request counts per arm, compared with the shares that were asked for."""

from __future__ import annotations

import asyncio
import math
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Evidence
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Split, format_share, observed_bp

ENOUGH = 400
"""Requests after which a share is judged; fewer, down to FEW, when the time is up."""
FEW = 20
_SIGMAS = 4.0
_POLL_S = 0.05


def contradiction(split: Split, counts: t.Mapping[str, int]) -> str | None:
    """Returns what in *counts* cannot be chance, None when they agree with *split*. Pure.

    An arm without a share must have no request at all. The others must be within four binomial standard errors (and one
    request), unless users stick to arms or headers choose them: then single requests are not drawn independently.
    """
    total = sum(counts.values())
    matched = {match.arm for match in split.matches}
    for arm, count in counts.items():
        share = split.shares.get(arm, 0) / TOTAL
        if not share and arm not in matched and count:
            return '"%s" got %d requests and should get none' % (arm, count)
        if split.sticky == 'none' and not matched and abs(count - total * share) > _SIGMAS * math.sqrt(total * share * (1 - share)) + 1:
            return '"%s" got %d of %d requests and should get %s' % (arm, count, total, format_share(split.shares.get(arm, 0)))
    return None


async def by_traffic(counts: t.Callable[[], t.Awaitable[dict[str, int]]], split: Split, timeout_s: float) -> Evidence:
    """Counts requests from now on until ENOUGH of them, or *timeout_s*."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    start = await counts()
    while True:
        await asyncio.sleep(_POLL_S)
        now = await counts()
        seen = {arm: max(0, now[arm] - start.get(arm, 0)) for arm in now}
        total = sum(seen.values())
        if total >= ENOUGH or loop.time() >= end:
            break
    if total < FEW:
        few = 'only %d requests came within %g s: too few to show the shares' % (total, timeout_s)
        return Evidence('L2', False, few, observed_bp(seen))
    wrong = contradiction(split, seen)
    return Evidence('L2' if wrong else 'L3', not wrong, wrong or '%d requests agree with the shares' % total, observed_bp(seen))
