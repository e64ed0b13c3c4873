# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Servers of a HAProxy backend: what their state means. Pure.

A server has two states that HAProxy keeps apart and its status text mixes: the administrative one (ready, drain, maint),
which is what was asked for, and the operational one, which is what checks found. Everything here is decided from these two
and from counts, never from the status text ("UP 1/3", "DRAIN", "no check", "MAINT (via app/a2)").
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import ServerState, StatRow

MAX_WEIGHT = 256

# Bits of srv_admin_state (management manual, "show servers state"); inherited ones come from the server that is tracked.
_MAINT, _MAINT_INHERITED, _DRAIN, _DRAIN_INHERITED, _UNRESOLVED = 0x01, 0x02, 0x08, 0x10, 0x20

# Configuration manual, "balance" and "hash-type". Hash algorithms are static unless "hash-type consistent" is set, which no
# read-only command tells: see probe().
_ALWAYS_STATIC = frozenset(('static-rr',))
_ALWAYS_DYNAMIC = frozenset(('roundrobin', 'leastconn', 'random', 'first'))
WEIGHTLESS = frozenset(('first', 'sticky'))


@dataclass(frozen=True)
class Server:
    """One server as one HAProxy process sees it.

    ``admin`` is ready, drain or maint, in effect; ``forced`` the same without what is inherited from ``tracks``.
    ``weight`` is the one set by the user, ``effective_weight`` what the balancer works with now. ``check`` is ``none`` when
    no health check of its own runs, ``passed`` when checks found it fully up, ``pending`` when it counts as up and the last
    checks do not bear it out (HAProxy writes "UP 1/3"), ``failed`` otherwise. ``connections`` are those in use,
    ``idle_connections`` those kept for reuse.
    """

    name: str
    address: str
    weight: int
    initial_weight: int
    effective_weight: int
    admin: str
    forced: str
    operational: str
    check: str
    check_status: str
    sessions: int
    queued: int
    connections: int
    idle_connections: int
    backup: bool
    tracks: str
    resolved: bool

    @property
    def up(self) -> bool:
        """Whether it runs (warming up included) and its checks, if any, say so. A server that was made ready counts as running
        in HAProxy before its first check; that is not enough here."""
        return self.resolved and self.operational in ('starting', 'running') and self.check in ('none', 'passed')

    @property
    def usable(self) -> bool:
        """Whether the balancer may choose it for a new request."""
        return self.admin == 'ready' and self.resolved and self.operational in ('starting', 'running') and self.weight > 0

    @property
    def empty(self) -> bool:
        """Whether no session, no queued request and no connection in use is left on it. A health check under way is none of
        them (2.6), so one that hangs does not hold up a drain."""
        return not self.sessions and not self.queued and not self.connections

    def facts(self) -> dict[str, t.Any]:
        """Returns what plugins report."""
        return {
            'name': self.name, 'address': self.address, 'weight': self.weight, 'initial_weight': self.initial_weight,
            'effective_weight': self.effective_weight, 'admin': self.admin, 'operational': self.operational, 'check': self.check,
            'check_status': self.check_status, 'sessions': self.sessions, 'queued': self.queued, 'connections': self.connections,
            'idle_connections': self.idle_connections, 'backup': self.backup, 'tracks': self.tracks, 'up': self.up, 'usable': self.usable,
        }


@dataclass(frozen=True)
class Pool:
    """A backend and its servers. ``dynamic`` tells whether weights can be changed freely; None when it is not known yet."""

    name: str
    algorithm: str
    mode: str
    dynamic: bool | None
    version: tuple[int, int]
    servers: t.Mapping[str, Server]

    def own(self) -> list[str]:
        """Returns the names of the servers that are not backups."""
        return [name for name, server in self.servers.items() if not server.backup]

    def facts(self) -> dict[str, t.Any]:
        """Returns what plugins report."""
        return {
            'backend': self.name, 'algorithm': self.algorithm, 'mode': self.mode,
            'usable': sum(server.usable and not server.backup for server in self.servers.values()),
            'servers': [server.facts() for server in self.servers.values()],
        }


def pools(rows: t.Iterable[StatRow], states: t.Iterable[ServerState], version: tuple[int, int]) -> dict[str, Pool]:
    """Joins ``show stat`` and ``show servers state`` into pools by backend name. A server that one of the two does not know
    (it was just added or deleted) is left out."""
    state_of = {(state.backend, state.server): state for state in states}
    heads: dict[str, StatRow] = {}
    servers: dict[str, dict[str, Server]] = {}
    for row in rows:
        state = state_of.get((row.pxname, row.svname))
        if row.kind == 'backend':
            heads[row.pxname] = row
        elif row.kind == 'server' and state is not None:
            servers.setdefault(row.pxname, {})[row.svname] = _server(row, state)
    return {name: Pool(name, head.algo, head.mode, _dynamic(head), version, servers.get(name, {})) for name, head in heads.items()}


def _dynamic(head: StatRow) -> bool | None:
    if head.algo in _ALWAYS_DYNAMIC:
        return True
    return False if head.algo in _ALWAYS_STATIC else None


def _admin(bits: int) -> str:
    if bits & (_MAINT | _MAINT_INHERITED):
        return 'maint'
    return 'drain' if bits & (_DRAIN | _DRAIN_INHERITED) else 'ready'


def _server(row: StatRow, state: ServerState) -> Server:
    # "* L4OK": the last result, and a check is under way.
    check, check_status = 'none', row.check_status[2:] if row.check_status.startswith('* ') else row.check_status
    if row.check_rise is not None and row.check_fall is not None and row.check_health is not None:
        # health runs from 0 to rise + fall - 1; from `rise` on the server counts as up (check.c). A server that leaves
        # maintenance starts at `rise`, so only the top says that a check has passed since. With "fall 1" the two are one, and
        # only INI (no check yet, as on a server that was just added) tells them apart.
        top = row.check_rise + row.check_fall - 1
        running = 'passed' if row.check_health >= top and check_status != 'INI' else 'pending'
        check = running if row.check_health >= row.check_rise else 'failed'
    return Server(
        name=row.svname, address=row.addr or state.fqdn, weight=state.uweight, initial_weight=state.iweight,
        effective_weight=row.weight or 0, admin=_admin(state.admin_state),
        forced=_admin(state.admin_state & (_MAINT | _DRAIN)), operational=state.operational, check=check,
        check_status=check_status, sessions=row.scur or 0, queued=row.qcur or 0, connections=row.used_conn_cur or 0,
        idle_connections=(row.idle_conn_cur or 0) + (row.safe_conn_cur or 0), backup=row.backup, tracks=row.tracked,
        resolved=not state.admin_state & _UNRESOLVED)


@dataclass(frozen=True)
class Weight:
    """A weight as a user writes it: 0..256, or a percentage of the configured weight."""

    amount: int
    percent: bool = False

    @classmethod
    def parse(cls, value: object) -> 'Weight':
        """Reads ``50``, ``'50'`` or ``'50%'``. Raises BadInput."""
        match = re.fullmatch(r'([0-9]{1,5})(%?)', str(value).strip()) if not isinstance(value, bool) else None
        if match and (match[2] or int(match[1]) <= MAX_WEIGHT):
            return cls(int(match[1]), bool(match[2]))
        raise BadInput("The weight %r is not possible: write a whole number from 0 to %d, or a percentage of the configured weight "
                       "such as '50%%'." % (value, MAX_WEIGHT))

    def of(self, initial: int) -> int:
        """Returns the weight that HAProxy makes of it: a percentage is rounded down and cut at 256 (server.c)."""
        return min(initial * self.amount // 100, MAX_WEIGHT) if self.percent else self.amount
