# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The half of a router that decides and does no I/O: what its plan says."""

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Change, Desired, Observed


class Plan(t.Protocol):
    """The pure methods of ``base.Router``."""

    def plan(self, observed: Observed, desired: Desired) -> Change | None: ...

    def way_back(self, observed: Observed) -> Change | None: ...

    def stored_way_back(self, payload: t.Mapping[str, t.Any]) -> Change: ...

    def expected(self, observed: Observed, change: Change) -> Observed: ...

    def undo(self, observed: Observed, change: Change) -> Change: ...

    def release(self, observed: Observed, rollout: str, force: bool) -> Change | None: ...


class Planned:
    """A router by a plan; one that needs no time and no permission before a change, unless it says so itself."""

    setup_s = 0.0
    _plan: Plan

    def plan(self, observed: Observed, desired: Desired) -> Change | None:
        return self._plan.plan(observed, desired)

    def way_back(self, observed: Observed) -> Change | None:
        return self._plan.way_back(observed)

    def stored_way_back(self, payload: t.Mapping[str, t.Any]) -> Change:
        return self._plan.stored_way_back(payload)

    def expected(self, observed: Observed, change: Change) -> Observed:
        return self._plan.expected(observed, change)

    def undo(self, observed: Observed, change: Change) -> Change:
        return self._plan.undo(observed, change)

    def release(self, observed: Observed, rollout: str, force: bool) -> Change | None:
        return self._plan.release(observed, rollout, force)

    async def lacking(self, observed: Observed) -> tuple[str, ...]:
        return ()

    async def prepare(self, change: Change) -> Change:
        return change
