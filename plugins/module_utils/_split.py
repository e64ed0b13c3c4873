# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Shares, matches, stickiness and copies of a service's arms: arithmetic only, no clock and no I/O.

Shares are whole basis points (1 bp = 0.01 %) that sum to exactly 10 000; the stable arm stands last and
takes what the others leave.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field
from fractions import Fraction

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name

TOTAL = 10_000
"""Basis points of all traffic."""

MATCH_KINDS = ('header', 'cookie')
STICKY_MODES = ('none', 'hash')

_PERCENT = re.compile(r' *([0-9]{1,3}(?:\.[0-9]{1,6})?) *% *')
_POINTS = re.compile(r' *([0-9]{1,5}) *(?:bp)? *')
# A header value or a cookie value that can be written into a configuration line without quoting.
_MATCH_VALUE = re.compile(r'[A-Za-z0-9_.:@+~/-]{1,200}')


def parse_share(value: object) -> int:
    """Returns basis points: ``'5%'`` and ``'5 %'`` are 500, ``'500bp'`` and a whole number are basis points already.

    Raises BadInput for anything else, and for a percentage finer than 0.01 %.
    """
    if isinstance(value, bool):
        raise BadInput('The share %r is not a number: write a percentage such as "5%%" or basis points such as 500.' % (value,))
    if isinstance(value, int):
        bp = Fraction(value)
    elif isinstance(value, str) and _PERCENT.fullmatch(value):
        bp = Fraction(_PERCENT.fullmatch(value).group(1)) * 100
    elif isinstance(value, str) and _POINTS.fullmatch(value):
        bp = Fraction(_POINTS.fullmatch(value).group(1))
    else:
        raise BadInput(
            'The share %r is not understood: write a percentage such as "5%%" or whole basis points such as 500.' % (value,))
    if bp.denominator != 1:
        raise BadInput('The share %r is finer than 0.01 %%, the finest share there is.' % (value,))
    if not 0 <= bp <= TOTAL:
        raise BadInput('The share %r is outside 0 %% to 100 %%.' % (value,))
    return int(bp)


def format_share(bp: int) -> str:
    """Returns ``'5 %'`` for 500: as few decimals as the number needs."""
    return ('%d.%02d' % divmod(bp, 100)).rstrip('0').rstrip('.') + ' %'


@dataclass(frozen=True)
class Match:
    """Requests with this header or cookie value go to *arm*, whatever the shares say."""

    kind: str
    name: str
    value: str
    arm: str

    @property
    def condition(self) -> tuple[str, str, str]:
        """What is matched, without where it leads."""
        return (self.kind, self.name.lower() if self.kind == 'header' else self.name, self.value)


@dataclass(frozen=True)
class Mirror:
    """Copies of *bp* of the requests go to *arm* besides, whatever it answers is thrown away. They are in nobody's share."""

    arm: str
    bp: int

    def __str__(self) -> str:
        return 'copies of %s to %s' % (format_share(self.bp), self.arm)


@dataclass(frozen=True)
class Split:
    """The shares of all arms: ``((name, basis points), ...)``, the stable arm last, sum 10 000."""

    arms: tuple[tuple[str, int], ...]
    matches: tuple[Match, ...] = field(default=())
    sticky: str = 'none'
    mirror: Mirror | None = None

    @property
    def stable(self) -> str:
        return self.arms[-1][0]

    @property
    def candidates(self) -> tuple[tuple[str, int], ...]:
        """Arms other than stable that receive traffic by share."""
        return tuple((name, bp) for name, bp in self.arms[:-1] if bp)

    @property
    def shares(self) -> dict[str, int]:
        return dict(self.arms)

    @property
    def partial(self) -> bool:
        """Whether a candidate can receive requests, or copies of them, while stable still has some: law 1 wants a lease then."""
        return bool(self.candidates or self.matches or self.mirror)

    @property
    def used(self) -> tuple[str, ...]:
        """All arms that requests lead to: by share, by match or as copies."""
        led = [match.arm for match in self.matches] + ([self.mirror.arm] if self.mirror else [])
        return tuple(dict.fromkeys([name for name, bp in self.arms if bp] + led))

    def __str__(self) -> str:
        shares = ['%s %s' % (name, format_share(bp)) for name, bp in self.arms if bp or name == self.stable]
        return ', '.join(shares + ([str(self.mirror)] if self.mirror else []))


def make_split(shares: t.Mapping[str, object], stable: str, matches: t.Iterable[t.Mapping[str, object]] = (),
               sticky: str = 'none', known: t.Collection[str] | None = None, mirror: t.Mapping[str, object] | None = None) -> Split:
    """Builds a Split from what a user wrote.

    *shares* maps arm to share; the stable arm may be absent or ``'rest'`` and then takes the remainder. An arm
    that is given all of the traffic becomes the stable one: that is what a promotion is. *known* are the arms of
    the service. Raises BadInput.
    """
    check_name('stable arm', stable)
    names = [stable] + [check_name('arm', name) for name in shares]
    for name in names:
        if known is not None and name not in known:
            raise BadInput('The arm "%s" is not one of the service: its arms are %s.' % (name, ', '.join(sorted(known))))
    given = {name: parse_share(value) for name, value in shares.items() if not (name == stable and value in ('rest', None))}
    rest = TOTAL - sum(bp for name, bp in given.items() if name != stable)
    if rest < 0:
        raise BadInput('The shares %s add up to more than 100 %%.' % _listed(given))
    if given.get(stable, rest) != rest:
        raise BadInput('The shares %s do not add up to 100 %%: "%s" should have %s.' % (_listed(given), stable, format_share(rest)))
    if sticky not in STICKY_MODES:
        raise BadInput('The stickiness "%s" is not known: use one of %s.' % (sticky, ', '.join(STICKY_MODES)))
    given[stable] = rest
    last = next((name for name, bp in given.items() if bp == TOTAL), stable)
    arms = tuple((name, bp) for name, bp in given.items() if name != last) + ((last, given[last]),)
    return Split(arms, tuple(_make_match(match, names) for match in matches), sticky, _make_mirror(mirror, last, known))


def _make_mirror(raw: t.Mapping[str, object] | None, stable: str, known: t.Collection[str] | None) -> Mirror | None:
    if not raw:
        return None
    arm, bp = check_name('arm of the mirror', raw.get('arm')), parse_share(raw.get('share'))
    if known is not None and arm not in known:
        raise BadInput('The mirror leads to the arm "%s", which is not one of the service: its arms are %s.' % (
            arm, ', '.join(sorted(known))))
    if arm == stable:
        raise BadInput('The mirror leads to the arm "%s", which is the stable one: it would get requests twice; name a candidate.' % arm)
    return Mirror(arm, bp) if bp else None


def _listed(shares: t.Mapping[str, int]) -> str:
    return ', '.join('%s %s' % (name, format_share(bp)) for name, bp in shares.items())


def _make_match(raw: t.Mapping[str, object], arms: t.Collection[str]) -> Match:
    kinds = [kind for kind in MATCH_KINDS if raw.get(kind)]
    if len(kinds) != 1:
        raise BadInput('The match %r must name either a header or a cookie.' % (dict(raw),))
    name = check_name('%s of the match' % kinds[0], raw[kinds[0]])
    arm = raw.get('arm')
    if arm not in arms:
        raise BadInput('The match on %s leads to the arm "%s", which the split does not name.' % (name, arm))
    return Match(kinds[0], name, check_match_value(name, raw.get('value')), t.cast(str, arm))


def check_match_value(name: str, value: object) -> str:
    """Returns *value* when a header or cookie *name* can be compared with it. Raises BadInput."""
    if isinstance(value, str) and _MATCH_VALUE.fullmatch(value):
        return value
    raise BadInput("The value %r of the match on %s is not usable: use letters, digits and the signs '_.:@+~/-'." % (value, name))


def all_to(arm: str) -> Split:
    """All traffic to one arm: the form of every way back and of every finished promotion."""
    return Split(((arm, TOTAL),))


def observed_bp(counts: t.Mapping[str, int]) -> dict[str, int] | None:
    """Returns the shares that request counts show, in basis points, or None without any request."""
    total = sum(counts.values())
    return {arm: round(Fraction(n * TOTAL, total)) for arm, n in counts.items()} if total else None


def fit(parts: t.Sequence[int], total: int) -> list[int]:
    """Scales *parts* to whole numbers that sum to *total*, by largest remainder.

    A part that is not zero never becomes zero: Unsupported names the smallest share *total* can express.
    """
    whole = sum(parts)
    exact = [Fraction(part * total, whole) for part in parts]
    fitted = [int(x) for x in exact]
    for i in sorted(range(len(parts)), key=lambda i: fitted[i] - exact[i])[:total - sum(fitted)]:
        fitted[i] += 1
    if any(part and not n for part, n in zip(parts, fitted)):
        raise Unsupported('A share of %s cannot be expressed in units of 1/%d.' % (
            format_share(round(Fraction(min(p for p in parts if p) * TOTAL, whole))), total))
    return fitted
