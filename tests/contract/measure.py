# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether traffic has the shares that it should have."""

from __future__ import annotations

import collections
import math
import time
import typing as t

from kube_load import ask
from planes import ARMS, Plane

Shares = t.Mapping[str, int]
TOTAL = 10_000
_SIGMAS = 4.0
# The logarithm of a likelihood ratio of 8000 to 1.
_SURE = 9.0


def settle(plane: Plane, before: Shares, after: Shares, seconds: float = 60.0) -> None:
    """Waits until the latest answers speak for *after* and not for *before*: what a data plane has yet to hear of is no error of it.

    A likelihood ratio says nothing on how well *after* fits; ``error`` does, on requests sent later.
    """
    end, latest = time.monotonic() + seconds, collections.deque(maxlen=300)
    while before != after:
        latest.extend(ask(plane.port, plane.host, [{}] * 40))
        assert set(latest) <= set(ARMS), 'answered: %s' % sorted(set(latest))
        if sum(_log(after, arm) - _log(before, arm) for arm in latest) > _SURE:
            return
        assert time.monotonic() < end, '%s still answers as with %s, not %s: %s' % (
            plane.name, before, after, collections.Counter(latest))


def quiet(count: t.Callable[[], int], seconds: float = 60.0) -> int:
    """Returns *count* once it stands still, so that what was sent has arrived: three looks, each a round trip to every pod."""
    end, seen = time.monotonic() + seconds, [count()]
    while len(seen) < 3 or len(set(seen[-3:])) > 1:
        assert time.monotonic() < end, 'requests still arrive: %s' % seen[-3:]
        seen.append(count())
    return seen[-1]


def _log(shares: Shares, arm: str) -> float:
    return math.log(max(shares.get(arm, 0) / TOTAL, 1e-7))


def error(shares: Shares, seen: t.Mapping[str, int]) -> float:
    """Returns the largest error of *seen* in binomial standard errors, of shares that are large enough for it; fails above four."""
    count, worst = sum(seen.values()), 0.0
    assert set(seen) <= {arm for arm, bp in shares.items() if bp}, '%s should be %s' % (seen, shares)
    for arm, bp in shares.items():
        mean, off = count * bp / TOTAL, abs(seen.get(arm, 0) - count * bp / TOTAL)
        sigma = math.sqrt(mean * (1 - bp / TOTAL))
        assert off <= _SIGMAS * sigma + 1, '%s of %d requests should be %s' % (seen, count, shares)
        if sigma * sigma >= 5:
            worst = max(worst, off / sigma)
    return worst
