# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a report says of a rollout: its values. Pure data; ``as_dict`` is the JSON that docs/report.md documents."""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass, field

SCHEMA = 1
"""Counts up when a field of the JSON changes its meaning or goes; new fields do not count."""

PROMOTED, ROLLED_BACK, FAILED, INTERRUPTED, RUNNING, UNKNOWN = OUTCOMES = (
    'promoted', 'rolled_back', 'failed', 'interrupted', 'running', 'unknown')

MET, MISSED, NOT_MEASURED, NOT_NEEDED = 'met', 'missed', 'not measured', 'not needed'


@dataclass(frozen=True)
class Stage:
    """One stage of the plan. Shares in basis points; moments in seconds since 1970; *arms* as the gate returned them."""

    index: int
    name: str
    label: str
    arm: str
    share_bp: int
    planned_s: float
    started: float | None = None
    ended: float | None = None
    watched_s: float | None = None
    requested_bp: dict[str, int] = field(default_factory=dict)
    configured_bp: dict[str, int] | None = None
    """None where nothing was written, or where endpoints differ: then ``endpoints`` tells."""
    endpoints: dict[str, dict[str, int]] = field(default_factory=dict)
    observed_bp: dict[str, int] | None = None
    verdict: str | None = None
    """None: no verdict was reached."""
    reason: str = ''
    extensions: int = 0
    arms: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    conditions: list[dict[str, t.Any]] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)
    """What the sequential conditions could find in this bake, as was said at its beginning."""


@dataclass(frozen=True)
class Criterion:
    """A criterion of success. *measured* is None where it was not."""

    name: str
    target: str
    measured: str | None
    verdict: str
    value: float | None = None
    limit: float | None = None
    basis: str = ''
    """What the value was made from, or why there is none."""


@dataclass(frozen=True)
class Part:
    name: str
    seconds: float
    planned_s: float | None = None


@dataclass(frozen=True)
class Arm:
    """What happened to the requests of one arm in the whole rollout."""

    name: str
    version: str | None
    new: bool
    """Whether it ran the new version."""
    requests: int
    failed: int


@dataclass(frozen=True)
class Losses:
    arms: list[Arm]
    requests: int
    failed: int
    new_requests: int
    new_failed: int
    basis: str
    """``counters``: all requests between the first and the last look at the balancers' counters; ``watched``: those that gates saw;
    ``none``: nobody counted."""
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True)
class Back:
    """The way back. *seconds* from the verdict until every endpoint was read back."""

    at: float
    seconds: float | None
    reason: str
    to: str | None
    complete: bool
    lost: list[str]
    """A sentence for each endpoint that it did not reach."""


@dataclass(frozen=True)
class Moment:
    at: float
    what: str


@dataclass(frozen=True)
class Approval:
    at: float
    what: str
    by: str | None


@dataclass(frozen=True)
class Report:
    """Everything; the renderers add nothing."""

    outcome: str
    headline: str
    """What happened, in a sentence or two."""
    why: str
    hurt: str
    """Whether users were hurt, in a sentence or two."""
    hurt_users: bool | None
    """None: not known."""
    service: str | None
    version: str | None
    previous_version: str | None
    rollout: str | None
    strategy: str | None
    by: str | None
    stable: str | None
    target: str | None
    started: float | None
    ended: float | None
    """When it was closed; None while it runs, and when it never was."""
    last: float | None
    """The last event."""
    seconds: float | None
    journal: str | None
    report_dir: str | None
    """Where the rollout wanted its report."""
    events: int
    damage: list[str]
    """What is wrong with the journal itself."""
    stages: list[Stage]
    checks: list[dict[str, t.Any]]
    """Gates before the first stage: label, verdict, reason."""
    criteria: list[Criterion]
    parts: list[Part]
    losses: Losses
    back: Back | None
    approvals: list[Approval]
    waits: Moment | None
    """The question that waits for a person."""
    follow_up: list[str]
    notes: list[Moment]
    timeline: list[Moment]
    tools: dict[str, str]
    samples: list[dict[str, t.Any]] = field(default_factory=list)
    """Thinned out; ``{ts, stage, arms, values, evidence, lease_s}`` as in the journal."""
    limits: dict[str, list[dict[str, t.Any]]] = field(default_factory=dict)
    """The conditions that each stage was watched by, with their limits."""
    split: list[dict[str, t.Any]] = field(default_factory=list)
    """``{ts, bp}``: the split that the routers had from then on."""

    def as_dict(self) -> dict[str, t.Any]:
        return {'schema': SCHEMA, **asdict(self)}
