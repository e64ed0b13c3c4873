# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""HTTP probes as a source of observations: every URL of every arm is asked once a poll, all at the same time.

A probe succeeds when the status, and the body where one is asked for, are the expected ones. A server that refuses, hangs or
breaks off is a failed probe, not an error of the source.
"""

from __future__ import annotations

import asyncio
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import base, web

OPTIONS = ('targets', 'status', 'body', 'timeout', 'follow_redirects') + web.ACCESS_OPTIONS
_TARGET_OPTIONS = {'name', 'url', 'status', 'body', 'timeout', 'follow_redirects'}

PROBES = 'probes'
PROBE_LATENCY = 'probe_latency'
SUCCESS_RATIO = 'probe_success_ratio'

_TARGETS_MAX = 1000
_AT_ONCE = 64
_PATTERN_MAX = 500
_BODY_MAX = 65_536
_NAME = re.compile(r'[a-z][a-z0-9_]{0,39}')


@dataclass(frozen=True)
class Target:
    """One URL and what it must answer."""

    arm: str
    name: str
    url: str
    status: tuple[int, ...]
    body: 're.Pattern[str] | None'
    timeout: float
    follow: bool


class HttpSource:
    """Probes of the URLs in ``targets``, ``{arm: [url, or {name, url, status, body, timeout, follow_redirects}]}``; what a target
    leaves out comes from the *options* of the same names. *arms* are those there are. Raises BadInput for wrong *options*."""

    quick = False

    def __init__(self, name: str, options: t.Mapping[str, t.Any], arms: t.Iterable[str]) -> None:
        self.name = name
        self._client = web.Client(web.read_access(name, options), _AT_ONCE)
        targets = options.get('targets')
        if not isinstance(targets, t.Mapping) or not any(targets.values()):
            raise BadInput('The source "%s" probes nothing: give targets as {arm: [url, ...]}.' % name)
        strange = sorted(str(arm) for arm in targets if arm not in set(arms))
        if strange:
            raise BadInput('The source "%s" has targets for the arm "%s", which the service does not have.' % (name, strange[0]))
        for arm, items in targets.items():
            if not isinstance(items, (list, tuple)):
                raise BadInput('The targets of the arm "%s" of the source "%s" must be a list of URLs.' % (arm, name))
        self._targets = [self._target(arm, item, options) for arm, items in targets.items() for item in items]
        if len(self._targets) > _TARGETS_MAX:
            raise BadInput('The source "%s" has %d targets: %d are the most.' % (name, len(self._targets), _TARGETS_MAX))
        self._polled: float | None = None

    @property
    def metrics(self) -> dict[str, str]:
        """``probes`` of all polls, the latency of those that were answered, and the success ratio of the poll just made: of all
        URLs, and of those of one name (``ready_success_ratio``)."""
        named = ('%s_success_ratio' % target.name for target in self._targets if target.name)
        return {PROBES: base.COUNTS, PROBE_LATENCY: base.LATENCIES, SUCCESS_RATIO: base.GAUGE, **dict.fromkeys(named, base.GAUGE)}

    def _target(self, arm: str, item: t.Any, options: t.Mapping[str, t.Any]) -> Target:
        where = 'the arm "%s" of the source "%s"' % (arm, self.name)
        raw = {'url': item} if isinstance(item, str) else item
        if not isinstance(raw, t.Mapping) or set(raw) - _TARGET_OPTIONS:
            raise BadInput('A target of %s is not understood: write a URL, or a dictionary of %s.' % (
                where, ', '.join(sorted(_TARGET_OPTIONS))))
        value = {key: raw[key] if raw.get(key) is not None else options.get(key) for key in _TARGET_OPTIONS - {'name', 'url'}}
        name = raw.get('name') or ''
        if name and (not _NAME.fullmatch(str(name)) or name == 'probe'):
            raise BadInput('The name %r of a target of %s is not usable: use small letters, digits and "_".' % (name, where))
        status = value['status'] if value['status'] is not None else [200]
        status = status if isinstance(status, (list, tuple)) else [status]
        codes = tuple(int(code) for code in status if isinstance(code, (int, str)) and re.fullmatch(r'[1-5]\d\d', str(code)))
        if not codes or len(codes) != len(status):
            raise BadInput('The status %r of a target of %s is not understood: give HTTP status codes such as [200, 204].' % (
                value['status'], where))
        timeout = parse_duration(2.0 if value['timeout'] is None else value['timeout'], 'timeout of a target of %s' % where)
        if not 0.01 <= timeout <= 600:
            raise BadInput('The timeout of a target of %s is %g s: give 0.01 to 600 s.' % (where, timeout))
        follow = value['follow_redirects'] or False
        if not isinstance(follow, bool):
            raise BadInput('The follow_redirects of a target of %s is %r: write true or false.' % (where, follow))
        url = web.check_url('url of a target of %s' % where, raw.get('url'))
        return Target(arm, name, url, codes, _pattern(where, value['body']), timeout, follow)

    async def open(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """Ends what still runs."""
        self._client.close()

    async def poll(self, now: float) -> base.Reading:
        found = await asyncio.gather(*(self._probe(target) for target in self._targets))
        first, seconds = self._polled is None, now - (self._polled or 0.0)
        self._polled = now
        blocks: list[base.Block] = []
        gauges: dict[tuple[str, str], float] = {}
        for arm in dict.fromkeys(target.arm for target in self._targets):
            mine = [(target, ms, problem) for target, (ms, problem) in zip(self._targets, found) if target.arm == arm]
            gauges[SUCCESS_RATIO, arm] = sum(not problem for _target, _ms, problem in mine) / len(mine)
            for name in {target.name for target, _ms, _problem in mine if target.name}:
                named = [not problem for target, _ms, problem in mine if target.name == name]
                gauges['%s_success_ratio' % name, arm] = sum(named) / len(named)
            if not first:
                bad = sum(bool(problem) for _target, _ms, problem in mine)
                latencies = tuple(ms for _target, ms, _problem in mine if ms is not None)
                blocks.append(base.Block(arm, '', PROBES, seconds, len(mine), bad))
                blocks.append(base.Block(arm, '', PROBE_LATENCY, seconds, len(mine), bad, latencies, unseen=len(mine) - len(latencies),
                                         gave_up_ms=tuple(target.timeout * 1000 for target, ms, _problem in mine if ms is None)))
        return base.Reading(tuple(blocks), gauges, notes=tuple(
            'The probe of "%s" failed: %s' % (target.arm, problem) for target, (_ms, problem) in zip(self._targets, found) if problem))

    async def _probe(self, target: Target) -> tuple[float | None, str]:
        """Returns how long the answer took, None without one, and a sentence when it is not the expected one."""
        try:
            answer = await self._client.fetch(target.url, target.timeout, follow=target.follow, limit=_BODY_MAX)
        except Unreachable as exc:
            return None, str(exc)
        shown = target.url.split('?', 1)[0]
        if answer.status not in target.status:
            return answer.ms, '%s answered %d instead of %s.' % (shown, answer.status, ' or '.join(map(str, target.status)))
        if target.body and not target.body.search(answer.body.decode('utf-8', 'replace')):
            return answer.ms, '%s answered without what was expected in the body (/%s/).' % (shown, target.body.pattern)
        return answer.ms, ''


def _pattern(where: str, value: object) -> 're.Pattern[str] | None':
    if value is None:
        return None
    try:
        if isinstance(value, str) and len(value) <= _PATTERN_MAX:
            return re.compile(value)
    except re.error as exc:
        raise BadInput('The body %r of a target of %s is not a regular expression: %s.' % (value, where, exc)) from None
    raise BadInput('The body of a target of %s must be a regular expression of at most %d characters.' % (where, _PATTERN_MAX))
