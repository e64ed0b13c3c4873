# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The options of C(health_gate), checked before anything is watched."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._analysis.condition import Condition, build_conditions
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.harm import DEFAULTS as SEQUENTIAL
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.harm import Sequential
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.spec import DEFAULTS, Context
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.verdict import POLICIES, Policy
from ansible_collections.progressive.delivery.plugins.module_utils._approval import (
    Approval, check_names, check_timeout, read_approval)
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration, parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._lease import Held, held
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import mark
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import COUNTS, REQUESTS, Source
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import build_sources
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, clean_token
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import parse_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share, parse_share

SHORTEST_INTERVAL_S = 0.1
SHORTEST_GUARD_S = 0.25
LONGEST_GUARD_S = 1.0
LONGEST_BAKE_S = 30 * 86400.0
_ENDPOINT_PART = 0.6

_CONDITION_TYPES = {'required': 'bool', 'per_endpoint': 'bool', 'min_sample': 'int', 'min_events': 'int', 'consecutive_limit': 'int',
                    'total_limit': 'int', 'name': 'str', 'type': 'str', 'source': 'str', 'metric': 'str', 'arm': 'str', 'compare': 'str',
                    'must_pass': 'bool', 'direction': 'str'}

ARGUMENT_SPEC: dict[str, t.Any] = {
    'service': {'type': 'str', 'required': True},
    'stage': {'type': 'str'},
    'arms': {'type': 'dict', 'required': True},
    'candidate': {'type': 'str', 'required': True},
    'stable': {'type': 'str'},
    'endpoints': {'type': 'list', 'elements': 'dict', 'default': []},
    'sources': {'type': 'dict', 'default': {}},
    'versions': {'type': 'dict', 'default': {}},
    'tell_plan': {'type': 'bool', 'default': True},
    'conditions': {'type': 'list', 'elements': 'dict', 'required': True,
                   'options': {key: {'type': _CONDITION_TYPES.get(key, 'raw'), 'no_log': False} for key in {**DEFAULTS, **SEQUENTIAL}}},
    'alpha': {'type': 'float', 'default': 0.05},
    'beta': {'type': 'float', 'default': 0.05},
    'analysis_state': {'type': 'dict'},
    'bake': {'type': 'raw', 'required': True},
    'interval': {'type': 'raw', 'default': '10s'},
    'guard_interval': {'type': 'raw'},
    'warm_up': {'type': 'raw', 'default': 0},
    'counters': {'type': 'dict'},
    'leases': {'type': 'list', 'elements': 'dict', 'default': []},
    'on_fail': {'type': 'str', 'choices': ['way_back', 'hold'], 'default': 'way_back'},
    'policy': {'type': 'dict', 'options': {
        verdict: {'type': 'str', 'choices': list(POLICIES), 'default': 'fail'} for verdict in ('inconclusive', 'no_data', 'error')}},
    'approval': {'type': 'raw'},
    'ask_timeout': {'type': 'raw', 'default': '30m'},
    'ask_by': {'type': 'list', 'elements': 'str', 'default': []},
    'by': {'type': 'str', 'default': 'unknown'},
    'extend_by': {'type': 'raw', 'default': '5m'},
    'max_extensions': {'type': 'int', 'default': 1},
    'error_limit': {'type': 'int', 'default': 3},
    'share_bp': {'type': 'raw'},
    'journal': {'type': 'path'},
    'rollout': {'type': 'str'},
    'run_on': {'type': 'str', 'choices': ['control', 'target'], 'default': 'control'},
}


@dataclass(frozen=True)
class Gate:
    """A gate, ready to watch. Times in seconds."""

    service: str
    stage: str
    candidate: str
    stable: str | None
    share_bp: int | None
    sources: tuple[Source, ...]
    conditions: tuple[Condition, ...]
    bake: float
    interval: float
    guard_interval: float
    """Between two looks of quick sources; the limits that end a stage are checked at each."""
    warm_up: float
    leases: tuple[Held, ...]
    way_back: bool
    """Whether a failure returns the traffic that the leases hold."""
    policy: Policy
    extend_by: float
    max_extensions: int
    approval: Approval | None
    """What a person has to say at the end of the bake."""
    ask: Approval
    """The question that the policy ``ask`` puts; its text is made of what was seen."""
    by: str
    """Who runs the rollout, and so answers at the terminal."""
    mark: t.Mapping[str, t.Any] | None = None
    """What the routers had counted before the change that begins the stage."""
    tell_plan: bool = True
    """Whether to show what the sequential conditions can find; recorded it is in any case."""

    @property
    def asks(self) -> bool:
        """Whether a person may be asked."""
        return self.approval is not None or 'ask' in (self.policy.inconclusive, self.policy.no_data, self.policy.error)

    @property
    def label(self) -> str:
        """What a line about this stage begins with."""
        if self.stage:
            return self.stage
        return self.candidate if self.share_bp is None else '%s %s' % (self.candidate, format_share(self.share_bp))

    @property
    def sequential(self) -> tuple[Sequential, ...]:
        """The conditions that share alpha."""
        return tuple(condition for condition in self.conditions if isinstance(condition, Sequential))

    @property
    def main_source(self) -> str:
        """Name of the source whose polls set the pace of the display, and that counts the requests of each arm."""
        counting = [source.name for source in self.sources if source.metrics.get(REQUESTS) == COUNTS]
        return (counting or [source.name for source in self.sources])[0]

    @property
    def intent(self) -> str:
        """What watching would mean, as check mode says it."""
        return 'would watch %s for %s, every %s, with %d condition%s' % (
            self.candidate, format_duration(self.bake), format_duration(self.interval), len(self.conditions),
            's' if len(self.conditions) != 1 else '')


def read_gate(options: t.Mapping[str, t.Any]) -> Gate:
    """Checks all options, builds sources and conditions, and opens nothing. Raises BadInput (law 5: no condition is one)."""
    service = check_name('service', options['service'])
    arms = tuple(check_name('arm', arm) for arm in options['arms'])
    for key in ('candidate', 'stable'):
        if options.get(key) and options[key] not in arms:
            raise BadInput('The %s arm "%s" is not one of the service: its arms are %s.' % (
                key, options[key], ', '.join(sorted(arms)) or 'none'))
    if options.get('stable') == options['candidate']:
        raise BadInput('The arm "%s" is both candidate and stable: a gate compares two different arms.' % options['candidate'])
    bake, interval = parse_duration(options['bake'], 'bake'), parse_duration(options['interval'], 'interval')
    warm_up, extend_by = parse_duration(options['warm_up'], 'warm_up'), parse_duration(options['extend_by'], 'extend_by')
    if not SHORTEST_INTERVAL_S <= interval <= bake <= LONGEST_BAKE_S:
        raise BadInput('The bake of %g s with an interval of %g s cannot be watched: the interval must be at least %g s and at most '
                       'the bake, and the bake at most 30 days.' % (bake, interval, SHORTEST_INTERVAL_S))
    guard = options.get('guard_interval')
    guard_interval = parse_duration(guard, 'guard_interval') if guard is not None else min(
        interval, max(SHORTEST_GUARD_S, interval / 4), LONGEST_GUARD_S)
    if not SHORTEST_INTERVAL_S <= guard_interval <= interval:
        raise BadInput('The guard_interval of %g s must be at least %g s and at most the interval (%g s).' % (
            guard_interval, SHORTEST_INTERVAL_S, interval))
    if warm_up >= bake:
        raise BadInput('The warm_up (%g s) is not shorter than the bake (%g s): nothing would be judged.' % (warm_up, bake))
    for key, least in (('max_extensions', 0), ('error_limit', 1)):
        if options[key] < least:
            raise BadInput('The %s is %d: it must be at least %d.' % (key, options[key], least))
    if extend_by < interval and options['max_extensions']:
        raise BadInput('The extend_by (%g s) is shorter than the interval (%g s): nothing more would be seen.' % (extend_by, interval))
    # An endpoint that hangs is given up before the next poll: those that answer wait for it.
    endpoints = [{**one.options, 'deadline': min(one.deadline, _ENDPOINT_PART * max(interval, 1.0))}
                 for one in (parse_endpoints(options['endpoints']) if options['endpoints'] else ())]
    sources = tuple(build_sources(service, options['arms'], endpoints, options['sources'], options.get('versions')))
    if not sources:
        raise BadInput('There is nothing to observe: give endpoints, or sources.')
    conditions = build_conditions(options['conditions'], Context(
        candidate=options['candidate'], stable=options.get('stable'), arms=arms,
        sources={source.name: source.metrics for source in sources},
        endpoints=len(options['endpoints']), warm_up=warm_up, error_limit=options['error_limit'],
        alpha=options['alpha'], beta=options['beta'], analysis_state=options.get('analysis_state') or None))
    for condition in conditions:
        if condition.spec.warm_up >= bake:
            raise BadInput('The warm_up of the condition "%s" (%g s) is not shorter than the bake (%g s).' % (
                condition.name, condition.spec.warm_up, bake))
    gate = Gate(
        service=service, stage=str(options.get('stage') or ''), candidate=options['candidate'], stable=options.get('stable'),
        share_bp=None if options.get('share_bp') is None else parse_share(options['share_bp']), sources=sources,
        conditions=tuple(conditions),
        bake=bake, interval=interval, guard_interval=guard_interval, warm_up=warm_up,
        leases=tuple(held(lease) for lease in options['leases'] if lease),
        way_back=options['on_fail'] == 'way_back', policy=Policy.of(options.get('policy')), extend_by=extend_by,
        max_extensions=options['max_extensions'],
        approval=read_approval(options.get('approval'), 'the stage', options['ask_timeout']),
        ask=Approval('', check_timeout('ask_timeout', options['ask_timeout']), check_names('name in ask_by', options['ask_by'])),
        by=clean_token(options.get('by')), mark=mark.check(options.get('counters')), tell_plan=options.get('tell_plan', True))
    if gate.asks and options.get('run_on') == 'target':
        raise BadInput('A person can be asked from the control host only: leave run_on, or the approval and the policy "ask".')
    return gate
