# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The value of a service's entry in the HAProxy map: ``docs/architecture.md``, 'The HAProxy map scheme'. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL

KEYS = ('rand', 'hash')
_ORDER = ('id', 'by', 'since', 'rev', 'v', 'prev', 'pv')


class NotASplit(DeliveryError):
    """The entry holds something else."""


@dataclass(frozen=True)
class MapValue:
    """One entry. *until_ms* counts from 1970 on HAProxy's clock, 0 is no lease; *candidates* are (backend, basis points)."""

    stable: str
    until_ms: int = 0
    key: str = 'rand'
    match: str | None = None
    record: tuple[tuple[str, str], ...] = ()
    candidates: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        fields = [str(self.until_ms), self.stable, self.key, self.match or '-', ','.join('%s=%s' % pair for pair in self.record)]
        bound = 0
        for backend, bp in self.candidates:
            bound += bp
            fields += [backend, str(bound)]
        return '/'.join(fields)

    @property
    def facts(self) -> dict[str, str]:
        return dict(self.record)

    @property
    def rev(self) -> int:
        rev = self.facts.get('rev', '')
        return int(rev) if rev.isdigit() else 0

    @property
    def backends(self) -> tuple[str, ...]:
        """All that take part, stable last."""
        return tuple(backend for backend, _bp in self.candidates) + ((self.match,) if self.match else ()) + (self.stable,)

    def without_lease(self) -> 'MapValue':
        """The value that identifies the split and its owner: all but the time, which each renewal changes."""
        return replace(self, until_ms=0)

    def noting(self, **facts: str | None) -> 'MapValue':
        """Returns the value with *facts* put into the record; None takes one out."""
        record = self.facts
        for name, fact in facts.items():
            record.pop(name, None)
            if fact is not None:
                record[name] = fact
        return replace(self, record=_ordered(record))

    @classmethod
    def parse(cls, text: str) -> 'MapValue':
        """Reads an entry. Raises NotASplit."""
        try:
            return cls._parse(text)
        except (DeliveryError, ValueError) as exc:
            raise NotASplit('it is not a split (%s)' % exc) from None

    @classmethod
    def _parse(cls, text: str) -> 'MapValue':
        fields = text.split('/')
        if len(fields) < 5 or len(fields) % 2 == 0:
            raise ValueError('%d fields' % len(fields))
        until, stable, key, match, record = fields[:5]
        if key not in KEYS:
            raise ValueError('the key %r' % key)
        candidates, before = [], 0
        for backend, bound in zip(fields[5::2], fields[6::2]):
            if not before <= _whole(bound) <= TOTAL:
                raise ValueError('the bound %s' % bound)
            candidates.append((check_name('backend', backend), _whole(bound) - before))
            before = _whole(bound)
        facts = {}
        for part in record.split(',') if record not in ('', '-') else ():
            name, equals, fact = part.partition('=')
            if not equals:
                raise ValueError('the record %r' % record)
            facts[check_token('name in the record', name)] = check_token('record', fact)
        return cls(check_name('backend', stable), _whole(until), key, None if match == '-' else check_name('backend', match),
                   _ordered(facts), tuple(candidates))


def _ordered(facts: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Equal records are equal texts."""
    return tuple(sorted(facts.items(), key=lambda pair: (_ORDER.index(pair[0]) if pair[0] in _ORDER else len(_ORDER), pair[0])))


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ValueError('%r is not a number' % text)
    return int(text)


def lease_end_ms(now_s: float, lease_s: float) -> int:
    """Returns the end of a lease, rounded so that it is never longer than asked. Never 0, which would mean no lease."""
    return max(1, int((now_s + lease_s) * 1000))
