# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""From what a task asks for to the commands that bring servers of a HAProxy backend there, and what to wait for. Pure."""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.servers import MAX_WEIGHT, WEIGHTLESS, Pool, Server, Weight
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name

# Keywords of "add server" (management manual 2.6) with and without a value. The state has options of its own.
_FLAGS = frozenset(('agent-check', 'allow-0rtt', 'backup', 'check', 'check-send-proxy', 'check-ssl', 'check-via-socks4', 'force-sslv3',
                    'force-tlsv10', 'force-tlsv11', 'force-tlsv12', 'force-tlsv13', 'no-ssl-reuse', 'no-sslv3', 'no-tls-tickets',
                    'no-tlsv10', 'no-tlsv11', 'no-tlsv12', 'no-tlsv13', 'send-proxy', 'send-proxy-v2', 'send-proxy-v2-ssl',
                    'send-proxy-v2-ssl-cn', 'ssl', 'tfo', 'tls-tickets'))
_VALUED = frozenset(('addr', 'agent-addr', 'agent-inter', 'agent-port', 'agent-send', 'alpn', 'ca-file', 'check-alpn', 'check-proto',
                     'check-sni', 'ciphers', 'ciphersuites', 'crl-file', 'crt', 'downinter', 'error-limit', 'fall', 'fastinter', 'id',
                     'inter', 'maxconn', 'maxqueue', 'minconn', 'npn', 'observe', 'on-error', 'on-marked-down', 'on-marked-up',
                     'pool-low-conn', 'pool-max-conn', 'pool-purge-delay', 'port', 'proto', 'proxy-v2-options', 'rise', 'slowstart',
                     'sni', 'source', 'ssl-max-ver', 'ssl-min-ver', 'track', 'usesrc', 'verify', 'verifyhost', 'weight', 'ws'))
_VALUE = re.compile(r'[A-Za-z0-9_.:@+~/%,()*-]{1,200}')
_ADDRESS = re.compile(r'(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15})):([0-9]{1,5})')


def check_address(text: object) -> str:
    """Returns ``10.0.0.1:80`` or ``[2001:db8::1]:80`` as HAProxy shows it; raises BadInput.

    Names are no addresses here: HAProxy accepts one for a dynamic server and never resolves it (management manual).
    """
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match and 0 < int(match[3]) < 65536:
        try:
            host = ipaddress.ip_address(match[1] or match[2])
        except ValueError:
            host = None
        if host is not None and (host.version == 6) == bool(match[1]):
            return '%s:%d' % ('[%s]' % host if match[1] else host, int(match[3]))
    raise BadInput('The address %r is not usable: write an IP address and a port, such as 10.0.0.1:8080 or [2001:db8::1]:8080. HAProxy '
                   'does not resolve names of servers that are added at run time.' % (text,))


def check_options(options: t.Mapping[str, object]) -> dict[str, str | None]:
    """Returns the keywords of a new server, each with its value or None for a flag; raises BadInput."""
    result: dict[str, str | None] = {}
    for name, value in options.items():
        if name in _FLAGS:
            if not isinstance(value, bool):
                raise BadInput('The server option %r is a switch: write true or false, not %r.' % (name, value))
            if value:
                result[name] = None
        elif name in _VALUED:
            text = str(value)
            if isinstance(value, (bool, dict, list)) or value is None or not _VALUE.fullmatch(text):
                raise BadInput('The server option %r cannot be %r: a value is one word without blanks, quotes or semicolons.' % (
                    name, value))
            result[name] = str(Weight.parse(value).amount) if name == 'weight' else text
        else:
            raise BadInput('The server option %r is not one that "add server" of HAProxy takes: see its management manual for the list. '
                           'Weight and state have options of their own.' % (name,))
    return result


@dataclass(frozen=True)
class Want:
    """What a task asks for. ``servers`` None: all that are not backups. ``wait_for`` None: do not wait; ``auto``: by what is asked."""

    backend: str
    servers: tuple[str, ...] | None = None
    present: bool = True
    admin: str | None = None
    weight: Weight | None = None
    drain: bool = False
    wait_for: str | None = None
    address: str | None = None
    options: t.Mapping[str, str | None] | None = None

    def __post_init__(self) -> None:
        check_name('backend', self.backend)
        for name in self.servers or ():
            check_name('server', name)
        if self.servers is not None and not self.servers:
            raise BadInput('The list of servers is empty: name at least one, or leave the option out for all servers of the backend.')
        if not self.present and (self.servers is None or self.admin or self.weight or self.address):
            raise BadInput('state=absent needs the names of the servers, and goes with neither admin, weight nor address.')
        if self.address and (self.servers is None or len(self.servers) != 1):
            raise BadInput('An address belongs to one server: name exactly one in servers.')
        if self.options and not self.address:
            raise BadInput('server_options are those of a server to add: give its address, too.')
        if self.drain and self.present and self.admin != 'maint':
            raise BadInput('drain=true is a stage on the way to maintenance or removal: it needs admin=maint or state=absent.')


@dataclass(frozen=True)
class Step:
    """What happens to one server: ``opening`` commands, a wait, ``closing`` commands, and ``removal`` once nothing holds it.

    ``admin``, ``weight`` and ``address`` are what is to be read back at the end, ``interim`` the administrative state before
    ``closing``; ``present`` False: the server is gone at the end. ``wait`` is None, ``empty`` or ``up``.
    """

    name: str
    before: Server | None
    present: bool
    admin: str
    weight: int
    address: str
    interim: str
    opening: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    removal: str | None = None
    wait: str | None = None

    @property
    def changed(self) -> bool:
        """From presence, admin state, weight and address alone: sessions come and go without us."""
        return bool(self.opening or self.closing or self.removal)

    def lines(self) -> tuple[str, str]:
        """Returns the server's lines in a diff, before and after."""
        before = _line(self.before.admin, self.before.weight, self.before.address) if self.before else 'absent'
        return '%s: %s' % (self.name, before), '%s: %s' % (
            self.name, _line(self.admin, self.weight, self.address) if self.present else 'absent')


def _line(admin: str, weight: int, address: str) -> str:
    return '%s, weight %d, %s' % (admin, weight, address or 'no address')


def probe(pool: Pool, want: Want) -> str | None:
    """Returns the command that tells whether the backend's algorithm is static, when that is needed and not known.

    A hash algorithm is static or not by "hash-type", which HAProxy shows nowhere. "add server" says it first of all, and
    with a weight that is not possible it never succeeds (2.6 and later; before, it needs experimental mode and says so).
    """
    name = next(iter(pool.servers), want.servers[0] if want.servers else None)
    if pool.dynamic is not None or not (want.weight or want.address) or name is None:
        return None
    return 'add server %s/%s 127.0.0.1:1 weight %d' % (pool.name, name, MAX_WEIGHT + 1)


def probed(reply: str) -> bool | None:
    """Returns whether the algorithm is dynamic, read from the reply to probe(); None when the reply says neither."""
    if 'dynamic load balancing' in reply:
        return False
    return True if 'not within 0 and' in reply or 'Already exists' in reply else None


def plan(pool: Pool, want: Want) -> list[Step]:
    """Returns a step for each server that *want* concerns; raises BadInput or Unsupported. Nothing is sent."""
    names = list(dict.fromkeys(want.servers)) if want.servers is not None else pool.own()
    if not names:
        raise BadInput('Backend %s has no servers of its own%s: name the servers to change.' % (
            pool.name, ', only backups' if pool.servers else ''))
    missing = [name for name in names if name not in pool.servers]
    if missing and want.present and not want.address:
        raise BadInput('Backend %s has no server %s: it has %s. Correct the name, or give an address to add it.' % (
            pool.name, ', '.join(missing), ', '.join(pool.servers) or 'none'))
    return [_step(pool, want, name, set(names)) for name in names]


def _step(pool: Pool, want: Want, name: str, together: set[str]) -> Step:
    server = pool.servers.get(name)
    if not want.present:
        return _removal(pool, want, name, server)
    if server is None:
        return _addition(pool, want, name)
    label = '%s/%s' % (pool.name, name)
    admin = want.admin or server.admin
    if want.admin and server.admin != server.forced and want.admin != 'maint' and server.tracks not in _labels(pool, together):
        raise Unsupported('Server %s is in %s because it tracks %s, and stays so whatever is asked of it: change %s instead.' % (
            label, server.admin, server.tracks, server.tracks))
    weight = _weight(pool, want, server.name, server.initial_weight, server.weight)
    opening = []
    address = want.address or server.address
    if address != server.address:
        opening.append('set server %s addr %s port %s' % ((label,) + _split_address(address)))
    if weight != server.weight:
        opening.append('set server %s weight %d' % (label, weight))
    interim, closing = admin, []
    if want.admin and want.admin != server.forced:
        if want.drain and server.admin != 'maint':
            interim = 'drain'
            closing.append('set server %s state maint' % label)
        if interim != server.forced:
            opening.append('set server %s state %s' % (label, interim))
    return Step(name, server, True, admin, weight, address, interim, opening=tuple(opening), closing=tuple(closing),
                wait=_wait(want, label, admin, weight, resolved=server.resolved))


def _labels(pool: Pool, names: t.Iterable[str]) -> set[str]:
    return {'%s/%s' % (pool.name, name) for name in names}


def _split_address(address: str) -> tuple[str, str]:
    host, _colon, port = address.rpartition(':')
    return host.strip('[]'), port


def _weight(pool: Pool, want: Want, name: str, initial: int, now: int) -> int:
    if want.weight is None:
        return now
    weight = want.weight.of(initial)
    if not weight and want.weight.amount:
        raise BadInput('%d%% of the configured weight %d of server %s/%s is less than 1, which HAProxy rounds to 0: the server would get '
                       'nothing. Write the weight as a number, or configure larger weights (100, say).' % (
                           want.weight.amount, initial, pool.name, name))
    if weight not in (0, initial, now):
        if pool.algorithm in WEIGHTLESS or pool.mode == 'log':
            raise Unsupported('Backend %s balances by "%s", which ignores weights: server %s can have 0 or %d, not %d. '
                              'Use roundrobin, leastconn or random.' % (pool.name, pool.algorithm or pool.mode, name, initial, weight))
        if pool.dynamic is False:
            raise Unsupported('Backend %s balances by "%s", a static algorithm that takes only 0 or the configured weight '
                              '(%d for server %s), not %d. Use roundrobin, leastconn or random, or "hash-type consistent" where it hashes.'
                              % (pool.name, pool.algorithm, initial, name, weight))
    return weight


def _wait(want: Want, label: str, admin: str, weight: int, resolved: bool = True) -> str | None:
    """What to wait for: sessions to end on the way out, UP on the way in, and never for what cannot come."""
    out = admin != 'ready' or weight == 0
    if want.wait_for == 'up' and admin != 'ready':
        raise BadInput('Server %s will be in %s: waiting for it to come up has no end. Use wait_for=empty, or admin=ready.' % (
            label, admin))
    if want.wait_for == 'empty' and not out:
        raise BadInput('Server %s will be ready with weight %d: it gets new sessions, so waiting for none has no end. '
                       'Use wait_for=up, or admin=drain.' % (label, weight))
    if want.drain:
        return 'empty'
    if want.wait_for != 'auto':
        return want.wait_for
    if out:
        return 'empty'
    # A slot of a server-template that DNS has not filled never comes up; nobody named it.
    return 'up' if resolved or want.servers is not None else None


def _removal(pool: Pool, want: Want, name: str, server: Server | None) -> Step:
    label = '%s/%s' % (pool.name, name)
    if server is None:
        return Step(name, None, False, '', 0, '', '')
    if want.wait_for == 'up':
        raise BadInput('Server %s is to be removed: it does not come up. Leave wait_for out.' % label)
    interim = 'drain' if want.drain and server.admin != 'maint' else 'maint'
    return Step(
        name, server, False, 'maint', server.weight, server.address, interim,
        opening=('set server %s state %s' % (label, interim),) if interim != server.forced else (),
        closing=('set server %s state maint' % label,) if interim != 'maint' else (),
        removal='del server %s' % label, wait='empty' if want.drain or want.wait_for else None)


def _addition(pool: Pool, want: Want, name: str) -> Step:
    """``add server`` leaves a server in maintenance with its checks off, whatever its keywords say."""
    if pool.dynamic is False:
        raise Unsupported('Backend %s balances by "%s": HAProxy adds servers only under a dynamic algorithm (roundrobin, leastconn, '
                          'random, or a hash with "hash-type consistent").' % (pool.name, pool.algorithm))
    label = '%s/%s' % (pool.name, name)
    keywords = dict(want.options or {})
    if want.weight is not None and not want.weight.percent:
        keywords.setdefault('weight', str(want.weight.amount))
    initial = int(keywords.get('weight') or 1)
    weight = _weight(pool, want, name, initial, initial)
    admin = want.admin or 'ready'
    words = [word for pair in keywords.items() for word in pair if word is not None]
    opening = [' '.join(['add server %s %s' % (label, want.address)] + words)]
    if pool.version < (2, 6):
        # Dynamic servers are an experiment before 2.6 (management manual of 2.5).
        opening.insert(0, 'experimental-mode on')
    opening += ['enable %s %s' % (kind, label) for kind, word in (('health', 'check'), ('agent', 'agent-check')) if word in keywords]
    if weight != initial:
        opening.append('set server %s weight %d' % (label, weight))
    if admin != 'maint':
        opening.append('set server %s state %s' % (label, admin))
    return Step(name, None, True, admin, weight, want.address or '', admin, opening=tuple(opening),
                wait=_wait(want, label, admin, weight))


def answered(command: str, reply: str) -> bool:
    """Tells whether *reply* to *command* means success. Most commands that succeed say nothing."""
    if command.startswith('add server '):
        return reply.startswith('New server registered')
    if command.startswith('del server '):
        return reply.startswith('Server deleted')
    # "IP changed from ..." or "no need to change ..."; what is true is read back.
    return not reply or ' addr ' in command


def mismatch(pool: Pool, want: Want, step: Step, closed: bool) -> str | None:
    """Returns what a server shows instead of what was asked for, or None. *closed*: its closing commands have been sent."""
    label = '%s/%s' % (pool.name, step.name)
    server = pool.servers.get(step.name)
    if server is None:
        return 'server %s is not there' % label if step.before or step.present else None
    added = step.before is None
    checks = [('admin state', step.admin if closed else step.interim, server.admin, want.admin or added or not step.present),
              ('weight', step.weight, server.weight, want.weight or added), ('address', step.address, server.address, want.address)]
    for what, wanted, shown, asked in checks:
        if asked and wanted != shown:
            return 'server %s shows %s %s instead of %s' % (label, what, shown, wanted)
    return None


def reached(server: Server | None, goal: str | None) -> bool:
    """Tells whether a wait is over. A server that is gone is empty."""
    if goal == 'up':
        return server is not None and server.up
    return goal is None or server is None or server.empty


def lacks(server: Server, goal: str) -> str:
    """Returns what keeps a wait from its end, for the sentence of a time-out."""
    if goal == 'up':
        if not server.resolved:
            return 'has no address yet: its name does not resolve'
        return 'is %s, check %s%s' % (server.operational, server.check, ' (%s)' % server.check_status if server.check_status else '')
    parts = [_count(server.sessions, 'session')]
    parts += [_count(n, what) for n, what in ((server.queued, 'queued request'), (server.connections, 'connection in use')) if n]
    return 'has ' + ', '.join(parts)


def _count(n: int, what: str) -> str:
    return '%d %s%s' % (n, what, '' if n == 1 else 's')
