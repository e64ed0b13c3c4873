# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is said of a split beside its weights: owner, versions, where a promotion could be taken back to. Pure.

Routers whose data plane has no room for it keep it as plain data: in a state file, in an annotation.
"""

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Desired, Observed

Record = t.Dict[str, t.Any]
_CLAIM = ('rollout', 'by', 'since')
_PUBLIC = ('stable', *_CLAIM, 'version', 'previous', 'previous_version', 'maint')


def public(record: Record) -> Record:
    """What a record says about a split, without what each write and each renewal changes."""
    return {key: value for key, value in record.items() if key in _PUBLIC and value}


def recorded(record: Record, observed: Observed, desired: Desired) -> Record:
    """Returns the record that goes with *desired*, where *record* goes with what is there."""
    owner = observed.claim
    claim = desired.claim if desired.lease_s or desired.keep_claim else None
    new: Record = {'stable': desired.split.stable}
    if claim:
        new.update(rollout=claim.rollout, by=claim.by, since=owner.since if owner and owner.rollout == claim.rollout else claim.since)
    former = observed.split.stable if observed.split else None
    if former in (None, desired.split.stable):
        new['version'] = desired.version or observed.version
        # What was stable before the last promotion is forgotten when the next rollout begins.
        if not desired.lease_s and (not claim or (owner and owner.rollout == claim.rollout)):
            new.update(previous=record.get('previous'), previous_version=record.get('previous_version'))
    else:
        new.update(version=desired.version, previous=former, previous_version=desired.previous_version or observed.version)
    return {key: value for key, value in new.items() if value is not None}


def released(record: Record) -> Record:
    """Returns the record without its claim, as the next revision."""
    return {**{key: value for key, value in public(record).items() if key not in _CLAIM}, 'rev': record.get('rev', 0) + 1}


def way_to(record: Record, observed: Observed, arms: t.Collection[str], moving: bool) -> tuple[str, str | None] | None:
    """Returns the arm, and its version, that a way back leads to: stable while candidates are *moving* or a claim is left, the arm
    before the last promotion after it; None when there is nothing to take back."""
    if observed.split is None:
        return None
    if moving or observed.lease_left_s is not None:
        return observed.split.stable, observed.version
    if record.get('previous') in arms:
        return record['previous'], record.get('previous_version')
    return (observed.split.stable, observed.version) if record.get('rollout') else None


def heir(goal: str, shares: t.Mapping[str, int], usable: t.Mapping[str, int]) -> str | None:
    """Returns who takes over from *goal* when that cannot serve (law 8): of those with traffic that can, the one with most."""
    live = {name: bp for name, bp in shares.items() if bp and name != goal and usable.get(name)}
    return max(live, key=lambda name: live[name]) if live else None
