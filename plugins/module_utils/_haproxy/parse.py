# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Replies of HAProxy's runtime API as typed values. Pure.

Formats: management manual (version 2.6), section 9.1 for ``show stat``, section 9.3 for the other commands.
"""

from __future__ import annotations

import csv
import re
import typing as t
from dataclasses import dataclass, fields

from ansible_collections.progressive.delivery.plugins.module_utils._errors import Refused

_KINDS = ('frontend', 'backend', 'server', 'listener')


@dataclass(frozen=True)
class StatRow:
    """One line of ``show stat``; the names are the columns' own, numbers are None where HAProxy leaves the column empty.

    ``weight`` is the effective weight (slow start and drain included), ``uweight`` the one set by the user. Times are
    milliseconds (``qtime``, ``ctime``, ``rtime``, ``ttime``: averages over the last 1024 requests; ``check_duration``) or
    seconds (``lastchg``, ``downtime``, ``lastsess``).
    """

    pxname: str
    svname: str
    kind: str
    status: str = ''
    mode: str = ''
    algo: str = ''
    addr: str = ''
    cookie: str = ''
    tracked: str = ''
    check_status: str = ''
    last_chk: str = ''
    agent_status: str = ''
    iid: int | None = None
    sid: int | None = None
    pid: int | None = None
    weight: int | None = None
    uweight: int | None = None
    act: int | None = None
    bck: int | None = None
    scur: int | None = None
    smax: int | None = None
    slim: int | None = None
    stot: int | None = None
    qcur: int | None = None
    qmax: int | None = None
    bin: int | None = None
    bout: int | None = None
    ereq: int | None = None
    econ: int | None = None
    eresp: int | None = None
    eint: int | None = None
    dreq: int | None = None
    dresp: int | None = None
    wretr: int | None = None
    wredis: int | None = None
    chkfail: int | None = None
    chkdown: int | None = None
    lastchg: int | None = None
    downtime: int | None = None
    lastsess: int | None = None
    lbtot: int | None = None
    rate: int | None = None
    throttle: int | None = None
    check_code: int | None = None
    check_duration: int | None = None
    check_rise: int | None = None
    check_fall: int | None = None
    check_health: int | None = None
    hrsp_1xx: int | None = None
    hrsp_2xx: int | None = None
    hrsp_3xx: int | None = None
    hrsp_4xx: int | None = None
    hrsp_5xx: int | None = None
    hrsp_other: int | None = None
    req_tot: int | None = None
    cli_abrt: int | None = None
    srv_abrt: int | None = None
    connect: int | None = None
    reuse: int | None = None
    used_conn_cur: int | None = None
    idle_conn_cur: int | None = None
    safe_conn_cur: int | None = None
    qtime: int | None = None
    ctime: int | None = None
    rtime: int | None = None
    ttime: int | None = None

    @property
    def backup(self) -> bool:
        """Whether this server is a ``backup``: it receives requests only when the backend's own servers are gone."""
        return self.kind == 'server' and bool(self.bck)

    @property
    def up(self) -> bool:
        """Whether the health checks, if any, let it run: neither down, in maintenance nor draining."""
        return self.status.startswith(('UP', 'no check', 'OPEN'))

    @property
    def usable(self) -> bool:
        """Whether a balancer may choose it for a new request: what ``nbsrv`` counts."""
        return self.up and bool(self.weight)


_TEXT = frozenset(('status', 'mode', 'algo', 'addr', 'cookie', 'tracked', 'check_status', 'last_chk', 'agent_status'))
_NUMBERS = frozenset(f.name for f in fields(StatRow)) - _TEXT - {'pxname', 'svname', 'kind'}


def parse_stat(text: str) -> list[StatRow]:
    """Reads the reply to ``show stat``. Raises Refused when it is something else (a permission error, say)."""
    if not text.startswith('# pxname,'):
        raise _unexpected('show stat', text)
    rows = []
    for raw in csv.DictReader(text[2:].splitlines()):
        kind = raw.get('type') or ''
        values: dict[str, t.Any] = {name: raw.get(name) or '' for name in _TEXT}
        values.update((name, _number(raw.get(name))) for name in _NUMBERS)
        rows.append(StatRow(pxname=raw['pxname'] or '', svname=raw['svname'] or '',
                            kind=_KINDS[int(kind)] if kind in ('0', '1', '2', '3') else 'unknown', **values))
    return rows


# Bits of srv_admin_state and values of srv_op_state: management manual, "show servers state". 0x04 (disabled in the
# configuration) and 0x40 (name set on the socket) only record a cause: they stay when the server is made ready.
_ADMIN_MAINT = 0x01 | 0x02 | 0x20
_ADMIN_DRAIN = 0x08 | 0x10
_OPERATIONAL = ('stopped', 'starting', 'running', 'stopping')


@dataclass(frozen=True)
class ServerState:
    """One line of ``show servers state``."""

    backend: str
    server: str
    addr: str
    port: int | None
    fqdn: str
    op_state: int
    admin_state: int
    uweight: int
    iweight: int
    backend_id: int
    server_id: int
    seconds_since_change: int

    @property
    def operational(self) -> str:
        """``stopped``, ``starting``, ``running`` or ``stopping``: what checks and agent say."""
        return _OPERATIONAL[self.op_state] if 0 <= self.op_state < len(_OPERATIONAL) else 'unknown'

    @property
    def admin(self) -> str:
        """What an administrator (or the configuration) wants: ``ready``, ``drain`` or ``maint``."""
        if self.admin_state & _ADMIN_MAINT:
            return 'maint'
        return 'drain' if self.admin_state & _ADMIN_DRAIN else 'ready'

    @property
    def forced_maint(self) -> bool:
        """Maintenance asked for on the socket (0x01), as opposed to inherited, configured, or for want of an address."""
        return bool(self.admin_state & 0x01)

    @property
    def forced_drain(self) -> bool:
        """Drain asked for on the socket (0x08), as opposed to inherited from a tracked server."""
        return bool(self.admin_state & 0x08)


def parse_servers_state(text: str) -> list[ServerState]:
    """Reads the reply to ``show servers state``, format version 1. Raises Refused when it is something else."""
    lines = text.splitlines()
    if len(lines) < 2 or lines[0].strip() != '1' or not lines[1].startswith('# be_id'):
        raise _unexpected('show servers state', text)
    names = lines[1][2:].split()
    states = []
    for line in lines[2:]:
        if not line.strip():
            continue
        raw = dict(zip(names, line.split(' ')))
        fqdn, addr = raw.get('srv_fqdn', '-'), raw['srv_addr']
        states.append(ServerState(
            backend=raw['be_name'], server=raw['srv_name'], addr='' if addr == '-' else addr, port=_number(raw.get('srv_port')),
            fqdn='' if fqdn == '-' else fqdn, op_state=int(raw['srv_op_state']), admin_state=int(raw['srv_admin_state']),
            uweight=int(raw['srv_uweight']), iweight=int(raw['srv_iweight']), backend_id=int(raw['be_id']),
            server_id=int(raw['srv_id']), seconds_since_change=int(raw['srv_time_since_last_change'])))
    return states


@dataclass(frozen=True)
class Info:
    """The reply to ``show info`` (``show info float`` gives times in microseconds)."""

    values: t.Mapping[str, str]

    @property
    def version(self) -> str:
        return self.values.get('Version', '')

    @property
    def version_tuple(self) -> tuple[int, int]:
        """``(2, 6)`` for 2.6.12; (0, 0) when there is none."""
        match = re.match(r'(\d+)\.(\d+)', self.version)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    @property
    def pid(self) -> int:
        return int(self.values['Pid'])

    @property
    def start_s(self) -> float:
        """Seconds since 1970; whole ones without ``float``."""
        return float(self.values['Start_time_sec'])

    @property
    def uptime_s(self) -> float:
        return float(self.values['Uptime_sec'])


def parse_info(text: str) -> Info:
    """Reads the reply to ``show info`` or ``show info float``. Raises Refused when it is something else."""
    values = dict(line.split(': ', 1) for line in text.splitlines() if ': ' in line)
    if not {'Version', 'Uptime_sec', 'Start_time_sec'} <= set(values):
        raise _unexpected('show info', text)
    return Info(values)


@dataclass(frozen=True)
class MapInfo:
    """A map or ACL file in the running configuration. ``used_by`` is HAProxy's own description."""

    id: int
    file: str
    used_by: str


_MAP = re.compile(r'(-?\d+) \((.*?)\) (.*)')


def parse_maps(text: str) -> list[MapInfo]:
    """Reads the reply to ``show map`` without an argument."""
    return [MapInfo(int(m[1]), m[2], m[3]) for m in map(_MAP.fullmatch, text.splitlines()) if m]


@dataclass(frozen=True)
class MapEntry:
    """An entry of a map; ``ref`` is the address by which ``set map #<ref>`` names it."""

    ref: str
    key: str
    value: str


def parse_map_entries(text: str) -> list[MapEntry]:
    """Reads the reply to ``show map <file>``. Raises Refused when HAProxy has no such map."""
    entries = []
    for line in text.splitlines():
        parts = line.split(' ', 2)
        if not line.strip():
            continue
        if not parts[0].startswith('0x') or len(parts) < 2:
            raise _unexpected('show map', text)
        entries.append(MapEntry(parts[0], parts[1], parts[2] if len(parts) > 2 else ''))
    return entries


def parse_backends(text: str) -> list[str]:
    """Reads the reply to ``show backend``."""
    if not text.startswith('# name'):
        raise _unexpected('show backend', text)
    return [line.strip() for line in text.splitlines()[1:] if line.strip()]


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        return None


def _unexpected(command: str, text: str) -> Refused:
    """Permission errors come as 'Permission denied' or, where a level hides a command, as the list of those that are known."""
    shown = ' '.join(text.split())[:120]
    return Refused('HAProxy\'s answer to "%s" is not understood: "%s". Check that the socket has "level admin".' % (command, shown))
