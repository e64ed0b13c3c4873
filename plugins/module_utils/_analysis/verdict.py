# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The five verdicts, of one condition and of all together. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput

PASS, FAIL, INCONCLUSIVE, NO_DATA, ERROR = VERDICTS = ('pass', 'fail', 'inconclusive', 'no_data', 'error')

POLICIES = ('fail', 'pass', 'extend', 'ask')
"""What may follow a verdict that is neither pass nor fail."""

# The worst first. An error hides what the data would have said, and no data hides whether they would have been enough.
_ORDER = (FAIL, ERROR, NO_DATA, INCONCLUSIVE, PASS)


@dataclass(frozen=True)
class Judgement:
    """What one condition says, with the numbers behind it."""

    name: str
    verdict: str
    reason: str
    """One sentence in plain words, without the full stop."""
    value: float | None = None
    limit: float | None = None
    n: int | None = None
    """How many requests, or polls of a gauge, the value was made from."""
    required: bool = True
    final: bool = False
    """Nothing that can still be observed would change it: a proof of failure, a source that is gone."""
    bound: bool = False
    """The value is a lower bound: requests that still wait are part of it."""
    told: str | None = None
    """What the live line says of it, where value and limit do not say enough."""

    def as_dict(self) -> dict[str, t.Any]:
        return {'name': self.name, 'verdict': self.verdict, 'reason': self.reason, 'value': self.value, 'limit': self.limit, 'n': self.n,
                'required': self.required}


def overall(judgements: t.Sequence[Judgement]) -> Judgement:
    """Returns the judgement that decides: the worst of the required ones; when all pass, the first of them.

    No required condition at all is an error (law 5), which the options have refused before.
    """
    required = [judgement for judgement in judgements if judgement.required]
    if not required:
        return Judgement('conditions', ERROR, 'no required condition was given, so nothing could be judged')
    return min(required, key=lambda judgement: _ORDER.index(judgement.verdict))


@dataclass(frozen=True)
class Policy:
    """What follows each verdict other than pass and fail: ``fail``, ``pass``, ``extend`` (watch longer, then judge again) or ``ask`` (a
    person)."""

    inconclusive: str = 'fail'
    no_data: str = 'fail'
    error: str = 'fail'

    @classmethod
    def of(cls, raw: t.Mapping[str, object] | None) -> 'Policy':
        """Reads the option; raises BadInput."""
        given = {key: value for key, value in (raw or {}).items() if value is not None}
        for key, value in given.items():
            if key not in (INCONCLUSIVE, NO_DATA, ERROR):
                raise BadInput('The policy names the verdict "%s": only inconclusive, no_data and error have one.' % (key,))
            if value not in POLICIES:
                raise BadInput('The policy "%s" for %s is not known: use one of %s.' % (value, key, ', '.join(POLICIES)))
        return cls(**t.cast('dict[str, str]', given))

    def after(self, verdict: str) -> str:
        """Returns ``pass``, ``fail``, ``extend`` or ``ask``."""
        return verdict if verdict in (PASS, FAIL) else getattr(self, verdict)
