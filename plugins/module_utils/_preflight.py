# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Whether a service is ready for a rollout: from what was observed to a table of pass, warn and fail, with what to mend. Pure."""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration, parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, format_share

PASS, WARN, FAIL, SKIP = 'pass', 'warn', 'fail', 'skip'
CHECKS = ('routers', 'permissions', 'lease', 'plan', 'lock', 'metrics', 'servers', 'capacity', 'cpu', 'memory', 'disk', 'clock',
          'certificates', 'dns', 'alerts', 'backup')
"""Names of the checks, in the order of the table."""

LIMITS: dict[str, dict[str, t.Any]] = {
    'cpu': {'warn': 0.70, 'fail': 0.85},
    'memory': {'warn': 0.80, 'fail': 0.90},
    'disk': {'warn': 0.80, 'fail': 0.95},
    'clock': {'warn': '500ms', 'fail': '5s'},
    'certificates': {'warn': '21d', 'fail': '2d'},
    'backup': {'warn': '24h', 'fail': '7d'},
}
"""From which value on a check warns and fails: ratios of what there is, differences of clocks, the time a certificate has left, the
age of a backup. None: never."""
_DURATIONS = ('clock', 'certificates', 'backup')
_BRIEF = 3


class Row(t.NamedTuple):
    """What one check says of one thing. *mend* is what to do about it, empty where it passes."""

    name: str
    subject: str
    state: str
    text: str
    mend: str = ''


@dataclass(frozen=True)
class Limit:
    """Where a value begins to be worth a warning, and where it stops a rollout; None for never."""

    warn: float | None
    fail: float | None

    def state(self, value: float) -> str:
        """Judges a value that is bad when it is high."""
        if self.fail is not None and value >= self.fail:
            return FAIL
        return WARN if self.warn is not None and value >= self.warn else PASS

    def state_of_rest(self, value: float) -> str:
        """Judges a value that is bad when it is low."""
        return Limit(*(None if one is None else -one for one in (self.warn, self.fail))).state(-value)


@dataclass(frozen=True)
class Facts:
    """What was observed; None of a thing that nobody asked about. Every ``error`` is a sentence on why it could not be observed."""

    now: float
    """Seconds since 1970 on the control host."""
    endpoints: t.Sequence[t.Mapping[str, t.Any]] = ()
    """``{name, error}`` or ``{name, shares, problems, notes, lacking, owner, leases, lease_error}`` of each router. *owner* is a sentence
    on another rollout that has its split; *leases* says what ends a split whose lease runs out."""
    plan: t.Mapping[str, t.Any] | None = None
    plan_error: str | None = None
    already: bool = False
    """Whether the version is live everywhere and no candidate has traffic: there is nothing to roll out."""
    lock: t.Mapping[str, t.Any] = field(default_factory=dict)
    """``{error}``, or ``{holder, alive, ours}`` when there is one."""
    sources: t.Sequence[t.Mapping[str, t.Any]] = ()
    """``{name, error, data, needed}`` of each source of observations; *data*: whether it had any for the stable arm; *needed*: whether
    a required condition asks it."""
    servers: t.Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """``{arm: (up, all)}``: servers or pods, where the routers count them."""
    scaled: bool = False
    """Whether the rollout itself gives a candidate the instances that its share needs."""
    force: bool = False
    hosts: t.Mapping[str, t.Mapping[str, t.Any]] = field(default_factory=dict)
    """``{host: {error}}``, or ``{cpu, memory}`` as ratios in use, ``disks`` ``{path: ratio}``, ``skew_s`` to this host's clock and
    ``within_s``, how exactly that is known."""
    clocks: t.Mapping[str, t.Mapping[str, t.Any]] = field(default_factory=dict)
    """``{endpoint: {skew_s, within_s}}`` of the routers' hosts."""
    journal: t.Mapping[str, t.Any] = field(default_factory=dict)
    """``{path, used}`` of the file system that keeps journals and locks, or ``{path, error}``."""
    certificates: t.Mapping[str, t.Mapping[str, t.Any]] = field(default_factory=dict)
    """``{name: {ends}}`` in seconds since 1970, or ``{error}``."""
    dns: t.Mapping[str, t.Mapping[str, t.Any]] = field(default_factory=dict)
    """``{name: {addresses}}``, or ``{error}``."""
    alerts: t.Mapping[str, t.Any] | None = None
    """``{url, found}``, *found* being ``[{name, state, text}]`` of the alerts that are not resolved; or ``{url, error}``."""
    backup: t.Mapping[str, t.Any] | None = None
    """What the user's own check said: ``{time}`` in seconds since 1970, ``{ok}``, ``text``, ``mend``; or ``{error}``."""


def read_limits(given: t.Mapping[str, t.Any]) -> dict[str, Limit]:
    """Returns the limits with *given* ones in place of the defaults. Raises BadInput."""
    unknown = sorted(str(name) for name in given if name not in LIMITS)
    if unknown:
        raise BadInput('The preflight has no limit "%s": known are %s.' % (unknown[0], ', '.join(LIMITS)))
    return {name: _limit(name, default, given.get(name) or {}) for name, default in LIMITS.items()}


def _limit(name: str, default: t.Mapping[str, t.Any], given: t.Any) -> Limit:
    if not isinstance(given, t.Mapping) or set(given) - set(default):
        raise BadInput('The preflight\'s limit "%s" must be a dictionary of warn and fail, not %r.' % (name, given))
    values = {**default, **given}
    if name in _DURATIONS:
        read = [None if values[key] is None else parse_duration(values[key], '%s of the limit "%s"' % (key, name))
                for key in ('warn', 'fail')]
        return Limit(*read)
    for key in ('warn', 'fail'):
        value = values[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1):
            raise BadInput('The %s of the preflight\'s limit "%s" is %r: give a ratio above 0 and up to 1, or null for never.' % (
                key, name, value))
    return Limit(values['warn'], values['fail'])


def check_skip(names: t.Iterable[str]) -> frozenset[str]:
    """Returns the names of checks to leave out. Raises BadInput for one that there is not."""
    names = frozenset(names)
    unknown = sorted(names - set(CHECKS))
    if unknown:
        raise BadInput('The preflight has no check "%s" to skip: known are %s.' % (unknown[0], ', '.join(CHECKS)))
    return names


def judge(facts: Facts, limits: t.Mapping[str, Limit], skip: t.Collection[str] = ()) -> list[Row]:
    """Returns a row for each check and thing, in the order of CHECKS; one row says that a check was skipped."""
    rows: list[Row] = []
    for name in CHECKS:
        if name in skip:
            rows.append(Row(name, '', SKIP, 'left out by delivery_preflight_skip'))
        elif not facts.already or name in ('routers', 'plan'):
            rows += _JUDGES[name](facts, limits.get(name, Limit(None, None)))
    return rows


def overall(rows: t.Iterable[Row]) -> str:
    """Returns the worst state of *rows*."""
    states = {row.state for row in rows}
    return FAIL if FAIL in states else WARN if WARN in states else PASS


def render(rows: t.Sequence[Row]) -> str:
    """Returns the table: what fails first, what passes last and in brief."""
    lines = []
    width = max((len(row.name) for row in rows), default=0)
    for state in (FAIL, WARN, SKIP, PASS):
        for name in CHECKS:
            own = [row for row in rows if (row.state, row.name) == (state, name)]
            if state == PASS and len(own) > _BRIEF:
                own = [Row(name, '', PASS, '%d are well: %s, ...' % (len(own), ', '.join(row.subject for row in own[:_BRIEF])))]
            lines += ['  %s  %s  %s' % (state, name.ljust(width), _told(row)) for row in own]
    return '\n'.join(lines)


def _told(row: Row) -> str:
    said = row.text if not row.mend else '%s. %s' % (row.text.rstrip('.'), row.mend)
    return '%s: %s' % (row.subject, said) if row.subject else said


def failure(service: str, rows: t.Iterable[Row]) -> str:
    """Returns what stops a rollout of *service*, in one message."""
    said = ['%s: %s' % (row.name, _told(row)) for row in rows if row.state == FAIL]
    return '%s is not ready for a rollout, and nothing was changed. %s' % (service, ' | '.join(said))


# ---- each check

def _routers(facts: Facts, _limit_: Limit) -> t.Iterator[Row]:
    for one in facts.endpoints:
        if one.get('error'):
            yield Row('routers', one['name'], FAIL, one['error'])
        else:
            yield Row('routers', one['name'], PASS, 'it answers: %s' % one['shares'])
            for note in one.get('notes') or ():
                yield Row('routers', one['name'], WARN, note)


def _permissions(facts: Facts, _limit_: Limit) -> t.Iterator[Row]:
    for one in facts.endpoints:
        if not one.get('error'):
            lacking = [*one['problems'], *one['lacking']]
            for text in lacking:
                yield Row('permissions', one['name'], FAIL, text)
            if not lacking:
                yield Row('permissions', one['name'], PASS, 'its split may be changed')


def _lease(facts: Facts, _limit_: Limit) -> t.Iterator[Row]:
    for one in facts.endpoints:
        if one.get('lease_error'):
            yield Row('lease', one['name'], FAIL, one['lease_error'])
        elif not one.get('error'):
            yield Row('lease', one['name'], PASS, one['leases'])


def _plan(facts: Facts, _limit_: Limit) -> t.Iterator[Row]:
    if facts.plan_error:
        yield Row('plan', '', FAIL, facts.plan_error)
    elif facts.already:
        yield Row('plan', '', PASS, 'the version is live and no candidate has traffic: there is nothing to roll out')
    elif facts.plan:
        yield Row('plan', '', PASS, '%s is stable; %s' % (
            facts.plan['stable'], ', '.join('%s for %s' % (stage['label'], format_duration(stage['bake_s']))
                                            for stage in facts.plan['stages'])))


def _lock(facts: Facts, _limit_: Limit) -> t.Iterator[Row]:
    state = WARN if facts.force else FAIL
    mend = 'Wait for it, or roll back.' if not facts.force else 'It will be displaced, because delivery_force is on.'
    found = []
    if facts.lock.get('error'):
        found.append(Row('lock', '', FAIL, facts.lock['error']))
    elif facts.lock.get('holder') and facts.lock['alive'] and not facts.lock['ours']:
        found.append(Row('lock', '', state, 'Another rollout is under way: %s.' % facts.lock['holder'], mend))
    found += [Row('lock', one['name'], state, one['owner'], mend) for one in facts.endpoints if one.get('owner')]
    yield from found or [Row('lock', '', PASS, 'no other rollout is under way')]


def _metrics(facts: Facts, _limit_: Limit) -> t.Iterator[Row]:
    for one in facts.sources:
        if one.get('error') and one.get('needed', True):
            yield Row('metrics', one['name'], FAIL, one['error'])
        elif one.get('error'):
            yield Row('metrics', one['name'], WARN, one['error'], 'No required condition asks it: the rollout goes on without.')
        elif not one['data']:
            yield Row('metrics', one['name'], WARN, 'it answers and has no data for the stable arm',
                      'See whether requests come, and whether the queries name the arm as the metrics do.')
        else:
            yield Row('metrics', one['name'], PASS, 'it answers and has data for the stable arm')


def _servers(facts: Facts, _limit_: Limit) -> t.Iterator[Row]:
    stable = (facts.plan or {}).get('stable')
    for arm, (up, total) in facts.servers.items():
        if arm == stable and not up:
            yield Row('servers', arm, FAIL, 'none of the %d servers of the stable arm is up' % total, 'Bring them up first.')
        elif arm == stable and up < total:
            yield Row('servers', arm, WARN, '%d of %d servers of the stable arm are up' % (up, total),
                      'Bring the others up, or take them out.')
        elif not total and not facts.scaled:
            yield Row('servers', arm, FAIL, 'it has no server at all', 'Give its backend servers, or take the arm out of delivery_arms.')
        else:
            yield Row('servers', arm, PASS, '%d of %d up' % (up, total))


def _capacity(facts: Facts, _limit_: Limit) -> t.Iterator[Row]:
    if not facts.plan:
        return
    if facts.plan['stable'] not in facts.servers:
        yield Row('capacity', facts.plan['stable'], WARN, 'how many servers or pods it has could not be counted',
                  'See that it has enough for all of the traffic.')
        return
    up = facts.servers[facts.plan['stable']][0]
    for arm in facts.plan['candidates']:
        share = max(stage['load_bp'] for stage in facts.plan['stages'] if stage['arm'] == arm)
        need = math.ceil(up * share / TOTAL)
        have = facts.servers.get(arm, (0, 0))[1]
        if facts.scaled:
            yield Row('capacity', arm, PASS, 'the rollout gives it the pods that %s needs' % format_share(share))
        elif have < need:
            yield Row('capacity', arm, WARN, 'it has %d servers for %s, which %d carry on stable' % (have, format_share(share), need),
                      'Add servers, or make its share smaller.')
        else:
            yield Row('capacity', arm, PASS, 'it has %d servers for %s, which %d carry on stable' % (have, format_share(share), need))


def _used(name: str, mend: str) -> t.Callable[[Facts, Limit], t.Iterator[Row]]:
    def judged(facts: Facts, limit: Limit) -> t.Iterator[Row]:
        for host, one in facts.hosts.items():
            if one.get('error'):
                # Once is enough: what stands for all that could not be seen of the host.
                if name == 'cpu':
                    yield Row(name, host, FAIL, one['error'])
            elif one.get(name) is not None:
                yield _measured(name, host, one[name], limit, mend)
    return judged


def _measured(name: str, subject: str, ratio: float, limit: Limit, mend: str) -> Row:
    state = limit.state(ratio)
    return Row(name, subject, state, '%.0f %% in use' % (100 * ratio), '' if state == PASS else mend)


def _disk(facts: Facts, limit: Limit) -> t.Iterator[Row]:
    if facts.journal.get('error'):
        yield Row('disk', 'journal', FAIL, facts.journal['error'])
    elif facts.journal:
        yield _measured('disk', 'journal', facts.journal['used'], limit, 'Free %s, where the journals are kept.' % facts.journal['path'])
    for host, one in facts.hosts.items():
        for path, ratio in (one.get('disks') or {}).items():
            if ratio is None:
                yield Row('disk', '%s %s' % (host, path), FAIL, 'there is no such path', 'Correct delivery_preflight_paths.')
            else:
                yield _measured('disk', '%s %s' % (host, path), ratio, limit, 'Free it: logs and core files fill what is left.')


def _clock(facts: Facts, limit: Limit) -> t.Iterator[Row]:
    seen = {**{name: one for name, one in facts.hosts.items() if 'skew_s' in one}, **facts.clocks}
    for name, one in seen.items():
        # Only what is surely so counts: the answer came at an unknown moment within the time that the question took.
        state = limit.state(max(0.0, abs(one['skew_s']) - one['within_s']))
        text = _compared(one['skew_s'], one['within_s'])
        yield Row('clock', name, state, text, '' if state == PASS else 'Set both by NTP: leases and journals are read by their clocks.')
    low, high = (min(seen, key=lambda name: seen[name]['skew_s']), max(seen, key=lambda name: seen[name]['skew_s'])) if seen else ('', '')
    if low != high:
        apart = seen[high]['skew_s'] - seen[low]['skew_s']
        state = limit.state(max(0.0, apart - seen[high]['within_s'] - seen[low]['within_s']))
        if state != PASS:
            yield Row('clock', '%s and %s' % (low, high), state, 'their clocks are %s apart' % format_duration(round(apart, 2)),
                      'Set both by NTP.')


def _compared(skew_s: float, within_s: float) -> str:
    if abs(skew_s) <= within_s:
        return 'its clock agrees with this host\'s, as far as %s tell' % format_duration(round(abs(skew_s) + within_s, 2))
    return 'its clock is %s %s this host\'s (known within %s)' % (
        format_duration(round(abs(skew_s), 2)), 'ahead of' if skew_s > 0 else 'behind', format_duration(round(within_s, 2)))


def _certificates(facts: Facts, limit: Limit) -> t.Iterator[Row]:
    for name, one in facts.certificates.items():
        if one.get('error'):
            yield Row('certificates', name, FAIL, one['error'])
        else:
            left = one['ends'] - facts.now
            state = limit.state_of_rest(left)
            text = 'it runs out in %.1f days' % (left / 86400) if left > 0 else 'it ran out %.1f days ago' % (-left / 86400)
            yield Row('certificates', name, state, text, '' if state == PASS else 'Renew it before the rollout.')


def _dns(facts: Facts, _limit_: Limit) -> t.Iterator[Row]:
    for name, one in facts.dns.items():
        if one.get('error'):
            yield Row('dns', name, FAIL, one['error'])
        else:
            yield Row('dns', name, PASS, ', '.join(one['addresses']))


def _alerts(facts: Facts, _limit_: Limit) -> t.Iterator[Row]:
    if facts.alerts is None:
        yield Row('alerts', '', SKIP, 'nobody is asked: delivery_preflight_alerts is empty')
    elif facts.alerts.get('error'):
        # Safety must not depend on who alerts.
        yield Row('alerts', facts.alerts['url'], WARN, facts.alerts['error'])
    else:
        for alert in facts.alerts['found']:
            yield Row('alerts', alert['name'], WARN if alert['state'] == 'pending' else FAIL, '%s%s' % (
                alert['state'], ': ' + alert['text'] if alert['text'] else ''), 'Resolve or silence it first.')
        if not facts.alerts['found']:
            yield Row('alerts', facts.alerts['url'], PASS, 'none of the service is unresolved')


def _backup(facts: Facts, limit: Limit) -> t.Iterator[Row]:
    one = facts.backup
    if one is None:
        yield Row('backup', '', SKIP, 'nobody looks: delivery_backup_check_tasks is empty')
    elif one.get('error'):
        yield Row('backup', '', FAIL, str(one['error']))
    elif not one.get('ok', True):
        yield Row('backup', '', FAIL, str(one.get('text') or 'the check says that it is not well'), str(one.get('mend') or ''))
    elif not isinstance(one.get('time'), (int, float)) or isinstance(one.get('time'), bool):
        yield Row('backup', '', FAIL, 'the check has not said when the last backup was taken',
                  'Have it set the fact delivery_backup with "time" in seconds since 1970.')
    else:
        age = facts.now - one['time']
        state = limit.state(age)
        text = '%s old%s' % (format_duration(max(0.0, age)), ': %s' % one['text'] if one.get('text') else '')
        yield Row('backup', '', state, text, '' if state == PASS else str(one.get('mend') or 'Take one first.'))


_JUDGES: dict[str, t.Callable[[Facts, Limit], t.Iterable[Row]]] = {
    'routers': _routers, 'permissions': _permissions, 'lease': _lease, 'plan': _plan, 'lock': _lock, 'metrics': _metrics,
    'servers': _servers, 'capacity': _capacity, 'cpu': _used('cpu', 'Wait for less load, or add hosts: a rollout warms up more instances.'),
    'memory': _used('memory', 'Free memory first: for a while old and new version run side by side.'), 'disk': _disk, 'clock': _clock,
    'certificates': _certificates, 'dns': _dns, 'alerts': _alerts, 'backup': _backup}
