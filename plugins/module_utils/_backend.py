# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The work of haproxy_backend, on whichever host it runs: read all endpoints, plan, change, read back, wait, read back."""

from __future__ import annotations

import asyncio
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration, parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.server_plan import (
    Want, check_address, check_options)
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.servers import Weight
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.site import Site
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import (
    ENDPOINTS_OPTION, KUBE_ROUTERS, Endpoint, haproxy_endpoints, parse_arms, parse_endpoints)

T = t.TypeVar('T')

SPEC: dict[str, t.Any] = {
    'endpoints': ENDPOINTS_OPTION,
    'backend': {'type': 'str'},
    'arm': {'type': 'str'},
    'arms': {'type': 'dict'},
    'servers': {'type': 'list', 'elements': 'str'},
    'state': {'type': 'str', 'choices': ['present', 'absent'], 'default': 'present'},
    'admin': {'type': 'str', 'choices': ['ready', 'drain', 'maint']},
    'weight': {'type': 'str'},
    'drain': {'type': 'bool', 'default': False},
    'address': {'type': 'str'},
    'server_options': {'type': 'dict'},
    'wait': {'type': 'bool', 'default': False},
    'wait_for': {'type': 'str', 'choices': ['auto', 'empty', 'up'], 'default': 'auto'},
    'wait_timeout': {'type': 'str', 'default': '5m'},
    'on_timeout': {'type': 'str', 'choices': ['fail', 'shutdown', 'keep'], 'default': 'fail'},
    'journal': {'type': 'path'},
    'rollout': {'type': 'str'},
    'run_on': {'type': 'str', 'choices': ['control', 'target'], 'default': 'control'},
}
CONSTRAINTS: dict[str, t.Any] = {
    'mutually_exclusive': [('backend', 'arm')],
    'required_one_of': [('backend', 'arm')],
    'required_by': {'arm': ('arms',)},
}

# What HAProxy does in its own time after it was told: it ends sessions at once, and closes idle connections, half of them every
# pool-purge-delay (5 s).
_GRACE_S = 15.0


def plain_endpoints(raw: t.Sequence[t.Mapping[str, t.Any]]) -> list[Endpoint]:
    """Returns the endpoints of a task that needs no split of traffic, so that one without a map will do. Routes of a cluster are left out.

    Raises BadInput when none is left.
    """
    found = haproxy_endpoints(parse_endpoints([
        dict(item, router='haproxy_weights') if not item.get('map') and item.get('router') not in KUBE_ROUTERS else item for item in raw]))
    if not found:
        raise BadInput('None of the endpoints is an HAProxy process: servers and backends are HAProxy\'s; name one with "socket".')
    return found


def run_backend(options: t.Mapping[str, t.Any], check_mode: bool = False, diff: bool = False,
                say: t.Callable[[str], None] = lambda text: None) -> dict[str, t.Any]:
    """Does what the task asks for and returns its result; ``failed`` is set when it failed after the first change.

    Raises DeliveryError when nothing was changed.
    """
    task = Task(options, say)
    return asyncio.run(task.run(check_mode, diff))


class Task:
    """One run of haproxy_backend. *say* gets a line now and then while it waits."""

    def __init__(self, options: t.Mapping[str, t.Any], say: t.Callable[[str], None] = lambda text: None) -> None:
        self._on_timeout = options['on_timeout']
        self._wait_s = parse_duration(options['wait_timeout'], 'wait_timeout')
        self._started = time.monotonic()
        self._say = say
        self._journal = Journal(options.get('journal') or None, options.get('rollout'))
        endpoints = plain_endpoints(options['endpoints'])
        self.sites = [Site(endpoint.name, endpoint.address, endpoint.deadline, _want(options, endpoint)) for endpoint in endpoints]
        if options['state'] == 'absent' and self._on_timeout == 'keep':
            raise BadInput('on_timeout=keep cannot remove a server: HAProxy keeps one that has connections. Use fail or shutdown.')

    async def run(self, check_mode: bool, diff: bool) -> dict[str, t.Any]:
        try:
            await self._all(Site.prepare)
        except DeliveryError as exc:
            raise type(exc)('Nothing was changed. %s' % exc) from exc
        result: dict[str, t.Any] = {'changed': any(step.changed for site in self.sites for step in site.steps)}
        if diff:
            result['diff'] = [site.diff() for site in self.sites if any(step.changed for step in site.steps)]
        if check_mode:
            for site in self.sites:
                site.predict()
        else:
            if result['changed']:
                self._journal.write('servers', phase='intent', endpoints=[site.intent() for site in self.sites])
            try:
                await self._change()
            except DeliveryError as exc:
                result.update(failed=True, msg=str(exc), changed=any(site.touched for site in self.sites))
        result.update(endpoints=[site.facts() for site in self.sites], duration_s=round(time.monotonic() - self._started, 3))
        if not check_mode and (result['changed'] or result.get('failed')):
            self._journal.write('servers', phase='failed' if result.get('failed') else 'done', reason=result.get('msg'),
                                endpoints=[site.intent() for site in self.sites], duration_s=result['duration_s'])
        warnings = [self._journal.error] if self._journal.error else []
        if self._on_timeout == 'keep' and not result.get('failed'):
            late = self._lacking([site.timed_out for site in self.sites])
            warnings += ['%s; the task went on (on_timeout=keep).' % text for text in late]
        return dict(result, warnings=warnings) if warnings else result

    async def _change(self) -> None:
        until = time.monotonic() + self._wait_s
        await self._all(Site.open)
        await self._wait(lambda site: {step.name: step.wait for step in site.steps if step.wait}, until)
        await self._all(Site.close)
        # A persistent client may have come between the last look and maintenance.
        await self._wait(lambda site: {step.name: 'empty' for step in site.steps if step.wait and step.closing}, until)
        if self._on_timeout == 'shutdown':
            await self._all(Site.shut_down)
            await self._wait(lambda site: {name: 'empty' for name in site.shut}, time.monotonic() + _GRACE_S, last=True)
        until = max(until, time.monotonic() + _GRACE_S)
        await self._all(lambda site: site.remove(until))

    async def _wait(self, goals: t.Callable[[Site], dict[str, str]], until: float, last: bool = False) -> None:
        """Waits on all endpoints at once. What is left when time is up is an error, unless the policy knows what comes next."""
        await self._all(lambda site: site.wait(goals(site), until, self._say))
        texts = self._lacking([{name: goal for name, goal in site.left.items() if last or self._on_timeout == 'fail' or (
            self._on_timeout == 'shutdown' and goal == 'up')} for site in self.sites])
        if texts:
            raise DeliveryError('The wait was in vain: %s. Raise wait_timeout, or choose another on_timeout.' % '; '.join(texts))

    def _lacking(self, found: t.Sequence[t.Mapping[str, str]]) -> list[str]:
        """Returns for each site's servers of *found* what was seen last, after how long."""
        return ['%s: %s after %s, in state %s' % (site.name, site.lack(name, goal), format_duration(site.waited[name]),
                                                  site.pool.servers[name].admin)
                for site, goals in zip(self.sites, found) for name, goal in goals.items() if name in site.pool.servers]

    async def _all(self, work: t.Callable[[Site], t.Awaitable[None]]) -> None:
        await everywhere([(site.name, work(site)) for site in self.sites])


async def everywhere(work: t.Sequence[tuple[str, t.Awaitable[T]]]) -> list[T]:
    """Does the *work* of all endpoints (name, awaitable) at once. When all have ended, raises the errors as one that names each."""
    done = await asyncio.gather(*(task for _name, task in work), return_exceptions=True)
    errors = []
    for (name, _task), outcome in zip(work, done):
        if isinstance(outcome, DeliveryError):
            errors.append((name, outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
    if errors:
        raise type(errors[0][1])(' '.join('%s: %s' % pair for pair in errors))
    return t.cast('list[T]', done)


def _want(options: t.Mapping[str, t.Any], endpoint: Endpoint) -> Want:
    backend, servers = options.get('backend'), options.get('servers')
    if options.get('arm'):
        arms = parse_arms(options['arms'], endpoint)
        if options['arm'] not in arms:
            raise BadInput('The service has no arm "%s": it has %s.' % (options['arm'], ', '.join(arms)))
        arm = arms[options['arm']]
        backend, servers = arm.backend, servers if servers is not None else (list(arm.servers) or None)
    weight = options.get('weight')
    return Want(
        backend=backend, servers=None if servers is None else tuple(servers), present=options['state'] == 'present',
        admin=options.get('admin'), weight=None if weight is None else Weight.parse(weight), drain=options['drain'],
        wait_for=options['wait_for'] if options['wait'] else None,
        address=check_address(options['address']) if options.get('address') is not None else None,
        options=check_options(options.get('server_options') or {}))
