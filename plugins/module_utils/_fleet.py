# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The same operation on all endpoints at once: each has its own deadline, none waits for another."""

from __future__ import annotations

import asyncio
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Router

T = t.TypeVar('T')


@dataclass(frozen=True)
class Outcome(t.Generic[T]):
    """What one endpoint answered: *value*, or *error*, after *seconds*."""

    endpoint: str
    value: T | None
    error: DeliveryError | None
    seconds: float


Outcomes = t.Dict[str, 'Outcome[T]']


async def each(routers: t.Iterable[Router], operation: t.Callable[[Router], t.Awaitable[T]],
               extra_s: float | t.Callable[[Router], float] = 0.0) -> 'Outcomes[T]':
    """Runs *operation* on every router concurrently, each for its deadline plus *extra_s* at most.

    A DeliveryError is an outcome; anything else is a fault of ours and is raised after the others have ended.
    """
    routers = list(routers)
    done = await asyncio.gather(
        *(_one(router, operation, extra_s(router) if callable(extra_s) else extra_s) for router in routers), return_exceptions=True)
    for outcome in done:
        if isinstance(outcome, BaseException):
            raise outcome
    return {outcome.endpoint: outcome for outcome in t.cast('list[Outcome[T]]', done)}


async def _one(router: Router, operation: t.Callable[[Router], t.Awaitable[T]], extra_s: float) -> 'Outcome[T]':
    start = time.monotonic()
    try:
        value = await asyncio.wait_for(operation(router), router.deadline + extra_s)
        return Outcome(router.name, value, None, time.monotonic() - start)
    except (asyncio.TimeoutError, TimeoutError):
        error: DeliveryError = Unreachable(
            '%s did not answer within %g s: check that its process is not stopped, or raise its deadline.' % (
                router.name, router.deadline + extra_s))
    except DeliveryError as exc:
        error = exc
    return Outcome(router.name, None, error, time.monotonic() - start)


def values(outcomes: 'Outcomes[T]') -> dict[str, T]:
    """Returns what those that answered said."""
    return {name: t.cast(T, outcome.value) for name, outcome in outcomes.items() if outcome.error is None}


def errors(outcomes: 'Outcomes[t.Any]') -> dict[str, DeliveryError]:
    """Returns the errors of those that did not."""
    return {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}


def raise_errors(outcomes: 'Outcomes[t.Any]') -> None:
    """Raises the errors as one: as it is when there is one, listed when there are several."""
    found = list(errors(outcomes).values())
    if len(found) == 1:
        raise found[0]
    if found:
        raise type(found[0])('%d of %d endpoints: %s' % (len(found), len(outcomes), ' | '.join(str(error) for error in found)))
