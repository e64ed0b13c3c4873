# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the action plugin ``preflight`` does: it looks at everything at once, changes nothing, and has it judged."""

from __future__ import annotations

import asyncio
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils import _fleet, _preflight, _preflight_looks as looks
from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Conflict, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Runtime
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.clock import CLOCK_COMMANDS, wall_clock
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import parse_info
from ansible_collections.progressive.delivery.plugins.module_utils._kube import client
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Reading, Source
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import ROUTER, build_sources
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name
from ansible_collections.progressive.delivery.plugins.module_utils._plan import STRATEGIES, agreed_stable, make_plan
from ansible_collections.progressive.delivery.plugins.module_utils._routers import registry
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Observed, Router, check_claim
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import (
    ARMS_OPTION, ENDPOINTS_OPTION, Endpoint, parse_endpoints)
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share

PREFLIGHT_SPEC: dict[str, t.Any] = {
    'service': {'type': 'str', 'required': True},
    'endpoints': ENDPOINTS_OPTION,
    'arms': ARMS_OPTION,
    'version': {'type': 'str'},
    'strategy': {'type': 'str', 'default': 'hybrid', 'choices': list(STRATEGIES)},
    'canary_stages': {'type': 'raw', 'default': []},
    'blue_green_stages': {'type': 'raw', 'default': []},
    'stable': {'type': 'str'},
    'canary_arm': {'type': 'str'},
    'target_arm': {'type': 'str'},
    'conditions': {'type': 'list', 'elements': 'dict', 'default': []},
    'interval': {'type': 'raw', 'default': 10},
    'lease': {'type': 'raw', 'default': '30s'},
    'scaled': {'type': 'bool', 'default': False},
    'sources': {'type': 'dict', 'default': {}},
    'state_dir': {'type': 'path'},
    'rollout': {'type': 'str'},
    'force': {'type': 'bool', 'default': False},
    'hosts': {'type': 'dict', 'default': {}},
    'certificates': {'type': 'list', 'elements': 'raw', 'default': []},
    'dns': {'type': 'list', 'elements': 'str', 'default': []},
    'alerts': {'type': 'dict', 'default': {}},
    'backup': {'type': 'dict'},
    'limits': {'type': 'dict', 'default': {}},
    'skip': {'type': 'list', 'elements': 'str', 'default': []},
    'deadline': {'type': 'raw', 'default': '5s'},
}

_BETWEEN_POLLS_S = 0.25
_CLOCK_DATE_S = 1.0
"""How exactly an API server's clock is known: the dates of its answers have whole seconds."""


def run(options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Looks and judges; returns the task's result. Raises BadInput for options that are wrong: those are no matter of readiness."""
    begun = time.monotonic()
    limits, skip = _preflight.read_limits(options['limits']), _preflight.check_skip(options['skip'])
    facts = asyncio.run(_Look(options, skip).facts())
    rows = _preflight.judge(facts, limits, skip)
    state = _preflight.overall(rows)
    result: dict[str, t.Any] = {
        'changed': False, 'service': options['service'], 'state': state, 'rows': [row._asdict() for row in rows],
        'text': 'Preflight of %s\n%s' % (options['service'], _preflight.render(rows)), 'seconds': round(time.monotonic() - begun, 3)}
    if state == _preflight.FAIL:
        result.update(failed=True, msg=_preflight.failure(options['service'], rows))
    return result


class _Look:
    """One preflight."""

    def __init__(self, options: t.Mapping[str, t.Any], skip: t.Collection[str]) -> None:
        self.options = options
        self.skip = skip
        self.service = check_name('service', options['service'])
        self.endpoints = parse_endpoints(options['endpoints'])
        self.routers = registry.build_all(options['endpoints'], self.service, options['arms'])
        self.deadline = parse_duration(options['deadline'], 'deadline')
        if not 0.05 <= self.deadline <= 120:
            raise BadInput('The deadline of the preflight is %g s: give 0.05 to 120 s.' % self.deadline)
        self.places = looks.read_places(options['certificates'])
        self.names = looks.read_names(options['dns'])
        self.alerts = looks.read_alerts(options['alerts'], self.service)

    async def facts(self) -> _preflight.Facts:
        outcomes = await _fleet.each(self.routers, _read)
        endpoints = [self._endpoint(router, outcomes[router.name]) for router in self.routers]
        seen = [outcome.value[0] for outcome in outcomes.values() if outcome.value]
        plan, plan_error = self._plan(seen)
        common: dict[str, t.Any] = {
            'now': time.time(), 'endpoints': endpoints, 'plan': plan, 'plan_error': plan_error, 'force': self.options['force'],
            'already': self._already(seen)}
        if common['already']:
            return _preflight.Facts(**common)
        stable = plan['stable'] if plan else self.options['stable']
        (sources, servers), clocks, certificates, names, alerts = await asyncio.gather(
            self._sources(stable, plan), self._clocks(endpoints), self._each('certificates', self.places, looks.certificate),
            self._each('dns', self.names, looks.resolve), looks.alerts(self.alerts, self.deadline) if self._wants('alerts') else _none())
        state_dir = self.options['state_dir']
        return _preflight.Facts(
            **common, sources=sources, servers=servers, clocks=clocks, certificates=certificates, dns=names, alerts=alerts,
            scaled=self.options['scaled'], backup=self.options['backup'], hosts=self.options['hosts'],
            journal=looks.journal_place(state_dir) if state_dir else {},
            lock=looks.lock_state(state_dir, self.service, self.options['rollout']) if state_dir else {})

    def _wants(self, name: str) -> bool:
        return name not in self.skip and (name != 'alerts' or self.alerts is not None)

    async def _each(self, name: str, things: t.Sequence[t.Any],
                    look: t.Callable[[t.Any, float], t.Awaitable[dict[str, t.Any]]]) -> dict[str, t.Any]:
        if name in self.skip:
            return {}
        found = await asyncio.gather(*(look(thing, self.deadline) for thing in things))
        return {getattr(thing, 'name', thing): one for thing, one in zip(things, found)}

    # ---- routers

    def _endpoint(self, router: Router, outcome: t.Any) -> dict[str, t.Any]:
        if outcome.value is None:
            return {'name': router.name, 'error': str(outcome.error)}
        observed, lacking = outcome.value
        try:
            check_claim(observed, self.options['rollout'], False)
            owner = ''
        except Conflict as exc:
            owner = str(exc)
        return {
            'name': router.name, 'notes': list(observed.notes), 'problems': list(observed.problems), 'lacking': list(lacking),
            'owner': owner,
            'shares': ', '.join('%s %s' % (arm, format_share(bp)) for arm, bp in observed.configured_bp.items()) or 'no split yet',
            'native_lease': router.capabilities().native_lease,
            'leases': 'its clock can be read, and the data plane ends a split by itself' if router.capabilities().native_lease
            else 'a process beside the data plane may be started, which ends a split'}

    def _already(self, seen: t.Sequence[Observed]) -> bool:
        """Whether there is nothing to roll out, as rollout_plan tells it."""
        return bool(self.options['version'] and not self.options['force'] and len(seen) == len(self.routers)
                    and all(one.version == self.options['version'] and not (one.effective and one.effective.candidates) for one in seen))

    def _plan(self, seen: t.Sequence[Observed]) -> tuple[dict[str, t.Any] | None, str | None]:
        options = self.options
        if not seen:
            return None, None
        try:
            stable = options['stable'] or agreed_stable(
                self.service, [(one.endpoint, one.effective.stable if one.effective else None) for one in seen])
            return make_plan(
                self.service, options['version'] or 'next', options['strategy'],
                {'canary': options['canary_stages'], 'blue_green': options['blue_green_stages']}, options['arms'], stable,
                options['conditions'] or [{'name': 'any'}], options['canary_arm'], options['target_arm'], options['interval'],
                lease=options['lease']), None
        except BadInput as exc:
            return None, str(exc)

    async def _clocks(self, endpoints: t.Sequence[dict[str, t.Any]]) -> dict[str, dict[str, t.Any]]:
        """Returns the clocks of the routers that answered; one that a lease needs and that cannot be read is said there."""
        answered = {one['name']: one for one in endpoints if not one.get('error')}
        wanted = [endpoint for endpoint in self.endpoints if endpoint.name in answered]
        found = dict(zip((endpoint.name for endpoint in wanted), await asyncio.gather(*(self._clock(endpoint) for endpoint in wanted))))
        for name, error in ((name, one['error']) for name, one in found.items() if 'error' in one):
            if answered[name]['native_lease']:
                answered[name]['lease_error'] = error
                answered[name]['problems'] = [text for text in answered[name]['problems'] if text != error]
        return {name: one for name, one in found.items() if 'error' not in one}

    async def _clock(self, endpoint: Endpoint) -> dict[str, t.Any]:
        if endpoint.kube:
            # The connections are those that the router has just been read by, and their clock with them.
            skew = client.connect(endpoint.kube.kubeconfig, endpoint.kube.context, endpoint.deadline).now() - time.time()
            return {'skew_s': skew - _CLOCK_DATE_S / 2, 'within_s': _CLOCK_DATE_S / 2}
        sent = time.time()
        try:
            info, errors = await Runtime(endpoint.address, endpoint.deadline).ask(*CLOCK_COMMANDS)
            received = time.time()
            there = wall_clock(parse_info(info), errors, received, endpoint.name)
        except DeliveryError as exc:
            return {'error': str(exc)}
        return {'skew_s': there - (sent + received) / 2, 'within_s': (received - sent) / 2 + 0.001}

    # ---- sources

    async def _sources(self, stable: str | None, plan: dict[str, t.Any] | None) -> tuple[
            list[dict[str, t.Any]], dict[str, tuple[int, int]]]:
        if {'metrics', 'servers', 'capacity'} <= set(self.skip):
            return [], {}
        try:
            versions = {arm: self.options['version'] or 'next' for arm in self.options['arms']}
            sources = build_sources(self.service, self.options['arms'], self.options['endpoints'], self.options['sources'], versions)
        except BadInput as exc:
            return [{'name': '', 'error': str(exc)}], {}
        found = await asyncio.gather(*(self._source(source, stable, _needs(plan, source.name)) for source in sources))
        servers = {}
        for source, (_told, reading) in zip(sources, found):
            if source.name == ROUTER and reading:
                servers = {arm: (int(reading.gauges.get(('servers_up', arm), 0)), int(reading.gauges[('servers_total', arm)]))
                           for arm in self.options['arms'] if ('servers_total', arm) in reading.gauges}
        return [told for told, _reading in found], servers

    async def _source(self, source: Source, stable: str | None, needed: bool) -> tuple[dict[str, t.Any], Reading | None]:
        error, reading, data = '', None, False
        try:
            for poll in range(2):
                if poll == 0:
                    await asyncio.wait_for(source.open(), self.deadline)
                elif data:
                    break
                else:
                    # Counters have data only against what they were before.
                    await asyncio.sleep(_BETWEEN_POLLS_S)
                reading = await asyncio.wait_for(source.poll(time.monotonic()), self.deadline)
                error = reading.errors[0] if reading.errors else ''
                data = _has_data(source.name, reading, stable)
        except (asyncio.TimeoutError, TimeoutError):
            error = 'The source "%s" did not answer within %g s.' % (source.name, self.deadline)
        except DeliveryError as exc:
            error = str(exc)
        finally:
            try:
                await asyncio.wait_for(source.close(), 1.0)
            except (asyncio.TimeoutError, TimeoutError):
                pass
        return {'name': source.name, 'error': error, 'data': data, 'needed': needed}, reading


def _needs(plan: dict[str, t.Any] | None, name: str) -> bool:
    """Whether a required condition of a stage asks the source *name*: without it no stage could pass."""
    return plan is None or name == ROUTER or any(
        (condition.get('source') or ROUTER) == name and condition.get('required', True)
        for stage in plan['stages'] for condition in stage['conditions'])


def _has_data(name: str, reading: Reading, stable: str | None) -> bool:
    if any(block.arm == stable and (block.requests or name != ROUTER) for block in (*reading.blocks, *reading.before)):
        return True
    # Its gauges are about servers: whether requests come is another matter.
    return name != ROUTER and any(arm in (stable, '') for _metric, arm in reading.gauges)


async def _read(router: Router) -> tuple[Observed, tuple[str, ...]]:
    observed = await router.read()
    return observed, await router.lacking(observed)


async def _none() -> None:
    return None
