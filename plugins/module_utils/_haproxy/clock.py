# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The wall clock of HAProxy's host, read through the runtime API. Pure.

``date()`` in a configuration is the host's wall clock. ``show info`` gives the process's start and uptime, which HAProxy
counts on a clock of its own that does not follow when the host's is set (tried on 2.6 with faketime): after a step of an
hour back, a lease computed from it would live an hour too long. ``show errors`` prints the wall clock itself with
milliseconds, but in local time without its zone. The two together give it exactly: zones differ from UTC by multiples of
15 minutes.
"""

from __future__ import annotations

import re
from calendar import timegm

from ansible_collections.progressive.delivery.plugins.module_utils._errors import Refused
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import Info

CLOCK_COMMANDS = ('show info float', 'show errors 2147483647')
"""The second names a proxy that does not exist: only the headline is wanted, not the captured requests."""

_MONTHS = ('Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec')
_HEADLINE = re.compile(r'Total events captured on \[(\d\d)/(\w{3})/(\d{4}):(\d\d):(\d\d):(\d\d)\.(\d{3})\]')
_ZONE_S = 900
_ZONES = range(-12 * 4, 14 * 4 + 1)
_NEAR_S = 5.0


def wall_clock(info: Info, errors: str, here_s: float, endpoint: str) -> float:
    """Returns seconds since 1970 on the wall clock of HAProxy's host.

    *info* and *errors* are the replies to CLOCK_COMMANDS, *here_s* is this host's wall clock, which is only asked when
    HAProxy's own was set since its start. Raises Refused when neither tells which time zone *errors* is in.
    """
    process_s = info.start_s + info.uptime_s
    headline = _HEADLINE.search(errors)
    if not headline or headline[2] not in _MONTHS:
        return process_s
    day, month, year, hour, minute, second, ms = headline.groups()
    local_s = timegm((int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))) + int(ms) / 1000.0
    by_process, by_here = _in_zone(local_s, process_s), _in_zone(local_s, here_s)
    near_process, near_here = abs(by_process - process_s) <= _NEAR_S, abs(by_here - here_s) <= _NEAR_S
    # Both near and yet different: one of the clocks is wrong by whole quarters of an hour (a hardware clock in local time).
    if (near_process or near_here) and (by_process == by_here or near_process != near_here):
        return by_process if near_process else by_here
    raise Refused('The time at %s cannot be told: the clock of its host was set since HAProxy started and differs from this host\'s. '
                  'Set both by NTP and reload HAProxy: a lease needs a clock.' % endpoint)


def _in_zone(local_s: float, near_s: float) -> float:
    """Returns what *local_s* is in UTC in the time zone that makes it nearest to *near_s*."""
    zone = min(max(round((local_s - near_s) / _ZONE_S), _ZONES[0]), _ZONES[-1])
    return local_s - zone * _ZONE_S
