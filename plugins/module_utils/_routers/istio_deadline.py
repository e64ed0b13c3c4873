# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Envoy's own clock as a header, and the regular expression of every time before a deadline: the lease inside Istio. Pure.

A gateway overwrites HEADER in each request with the time at which the request began, in tenths of a second since 1970 (``STAMP``,
Envoy's access log formatter). A VirtualService can match a header by a regular expression only, so a deadline is written as one
of all smaller numbers of as many digits. RE2 compiles it to at most 80 instructions; an Envoy whose bootstrap does not raise the limit
(``re2.max_program_size.error_level``, 100; Istio's own sets 32768) refuses milliseconds (107), which is why these are tenths.
"""

from __future__ import annotations

import re

HEADER = 'x-delivery-now'
STAMP = '%START_TIME(%s%1f)%'
PER_SECOND = 10
"""A lease ends on a whole tenth of a second of the gateway's clock, the one before the time that was asked for."""

_LAST = re.compile(r'(?P<head>[0-9]*)(?:\[0-(?P<below>[0-8])\]|(?P<zero>0))(?P<tail>(?:\[0-9\](?:\{[0-9]+\})?)?)')


def deadline(epoch_s: float) -> int:
    """Returns the stamp from which on a lease that ends at *epoch_s* is over."""
    return int(epoch_s * PER_SECOND)


def below(limit: int) -> str:
    """Returns the regular expression, to be matched in full, of the numbers below *limit* that are written with as many digits.

    Leading zeros count as digits; a number with fewer digits does not match. Raises ValueError when there is none below *limit*.
    """
    digits = str(limit)
    if limit < 1:
        raise ValueError('No number is below %d.' % limit)
    parts = []
    for position, digit in enumerate(digits):
        if digit != '0':
            rest = len(digits) - position - 1
            first = '0' if digit == '1' else '[0-%d]' % (int(digit) - 1)
            parts.append(digits[:position] + first + ('' if not rest else '[0-9]' if rest == 1 else '[0-9]{%d}' % rest))
    return '|'.join(parts)


def limit_of(expression: object) -> int | None:
    """Returns the number that ``below`` made *expression* of, None when it did not."""
    if not isinstance(expression, str):
        return None
    found = _LAST.fullmatch(expression.rsplit('|', 1)[-1])
    if not found:
        return None
    tail = found.group('tail')
    zeros = 0 if not tail else 1 if tail == '[0-9]' else int(tail[6:-1])
    if zeros > 32:
        return None
    digit = int(found.group('below') or 0) + 1
    limit = int(found.group('head') + str(digit) + '0' * zeros)
    return limit if below(limit) == expression else None
