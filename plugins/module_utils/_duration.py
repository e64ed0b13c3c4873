# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Durations as people write them."""

from __future__ import annotations

import re

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput

_UNITS = {'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86400.0}
_PART = re.compile(r'(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)')
_WHOLE = re.compile(r'\s*(?:%s\s*)+' % _PART.pattern)
_SECONDS = re.compile(r'\s*\d{1,9}(?:\.\d{1,6})?\s*')


def parse_duration(value: object, what: str = 'duration') -> float:
    """Returns seconds: of ``90``, ``'90'``, ``'90s'``, ``'1m30s'``, ``'1.5h'``, ``'500ms'``, ``'7d'``.

    Raises BadInput that names *what* for anything else, negative values included.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    if isinstance(value, str):
        if _SECONDS.fullmatch(value):
            return float(value)
        if _WHOLE.fullmatch(value):
            return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    raise BadInput('The %s %r is not understood: write seconds, or a duration such as "30s", "1m30s" or "2h".' % (what, value))


def format_duration(seconds: float) -> str:
    """Returns a duration as a person reads it: ``'0.25 s'``, ``'45 s'``, ``'1 min 30 s'``, ``'2 h 5 min'``."""
    if seconds < 10 and seconds != int(seconds):
        return '%.2f s' % seconds
    whole = int(seconds + 0.5)
    if whole < 60:
        return '%d s' % whole
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return '%d min' % minutes + (' %d s' % rest if rest else '')
    hours, minutes = divmod(minutes, 60)
    return '%d h' % hours + (' %d min' % minutes if minutes else '')
