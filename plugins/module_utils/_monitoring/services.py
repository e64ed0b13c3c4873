# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Services that are monitored, as users write them: grammar, limits, and the PromQL of what is measured. Pure."""

from __future__ import annotations

import math
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.prometheus import Query
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name

QUERIES = ('requests', 'errors', 'latency', 'saturation', 'memory', 'cpu', 'failed_instances', 'workflow_errors', 'workflow_phase')
"""What can be measured of an arm: rates per second of requests and errors, the buckets of a latency histogram in seconds by ``le``, parts
of a whole (saturation, memory, CPU), numbers (instances, errors), seconds (workflow_phase)."""
LIMITS = ('error_ratio_abort', 'p95_pass_ms', 'p95_abort_ms', 'min_sample', 'min_events', 'memory', 'cpu', 'failed_instances',
          'workflow_errors', 'workflow_phase_s', 'objective')
DURATIONS = ('error_rate', 'latency', 'latency_critical', 'memory', 'cpu', 'failed_instances', 'workflow_errors', 'workflow_phase',
             'no_data', 'condition', 'lease', 'stuck')
"""For how long a limit must be exceeded before somebody is told."""
_MEMBERS = ('name', 'arms', 'queries', 'limits', 'labels', 'conditions', 'sources', 'runbook', 'dashboard')
_LABEL = re.compile(r'[a-zA-Z_][a-zA-Z0-9_]{0,99}')
_UNITS = (('d', 86_400_000), ('h', 3_600_000), ('m', 60_000), ('s', 1000), ('ms', 1))
_OWN_LABELS = ('service', 'arm', 'severity', 'rollout', 'condition', 'burn', 'alertname')


@dataclass(frozen=True)
class Condition:
    """A gate's condition on a query of Prometheus."""

    name: str
    query: str
    above: float | None
    below: float | None


@dataclass(frozen=True)
class Service:
    name: str
    backends: t.Mapping[str, str]
    queries: t.Mapping[str, str]
    limits: t.Mapping[str, float]
    labels: t.Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    runbook: str = ''
    dashboard: str = ''

    def fill(self, query: str, arm: str, window: str) -> str:
        """Returns the PromQL of *query*, the text of one, for *arm*."""
        return Query('monitoring_services', query, query).fill(
            {'service': self.name, 'arm': arm, 'backend': self.backends[arm], 'window': window})


def read_services(raw: t.Any, queries: t.Mapping[str, t.Any], limits: t.Mapping[str, t.Any]) -> list[Service]:
    """Returns the services; what one does not say is taken from *queries* and *limits*. Raises BadInput with one sentence."""
    if not isinstance(raw, (list, tuple)) or not all(isinstance(item, t.Mapping) for item in raw):
        raise BadInput('monitoring_services must be a list of services, each with a name and its arms.')
    found = [_service(item, queries, limits) for item in raw]
    names = [service.name for service in found]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice:
        raise BadInput('monitoring_services has the service "%s" twice: name each once.' % twice)
    return found


def _service(raw: t.Mapping[str, t.Any], queries: t.Mapping[str, t.Any], limits: t.Mapping[str, t.Any]) -> Service:
    name = check_name('service', raw.get('name'))
    where = 'of the service "%s" in monitoring_services' % name
    _known(raw, _MEMBERS, where)
    arms = raw.get('arms')
    if not isinstance(arms, t.Mapping) or not arms:
        raise BadInput('The arms %s must be a dictionary such as {blue: {backend: blue}}.' % where)
    backends = {check_name('arm', arm): check_name('backend', (options or {}).get('backend', arm)) for arm, options in arms.items()}
    own = _mapping(raw, 'queries', where)
    _known(own, QUERIES, 'among the queries ' + where)
    asked = {key: text for key, text in {**queries, **own}.items() if text}
    for key in ('requests', 'errors'):
        if key not in asked:
            raise BadInput('The query "%s" %s is empty: without it nothing can be told of the service.' % (key, where))
    given = _mapping(raw, 'limits', where)
    _known(given, LIMITS, 'among the limits ' + where)
    service = Service(name, backends, asked, read_limits({**limits, **given}, where), check_labels(_mapping(raw, 'labels', where), where),
                      tuple(_conditions(raw, where)), str(raw.get('runbook') or ''), str(raw.get('dashboard') or ''))
    for query in [*asked.values(), *(condition.query for condition in service.conditions)]:
        for arm in backends:
            service.fill(query, arm, '5m')
    return service


def read_limits(raw: t.Mapping[str, t.Any], where: str) -> dict[str, float]:
    found = {}
    for key in LIMITS:
        try:
            value = float(raw.get(key))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            value = -1.0
        if isinstance(raw.get(key), bool) or not math.isfinite(value) or value < 0 or (key == 'objective' and not 0 < value < 1):
            raise BadInput('The limit %s %s is %r: give a number%s.' % (
                key, where, raw.get(key), ' between 0 and 1, such as 0.999' if key == 'objective' else ' that is not negative'))
        found[key] = value
    return found


def read_durations(raw: t.Mapping[str, t.Any], what: str, keys: t.Sequence[str]) -> dict[str, str]:
    """Returns durations as Prometheus writes them. Raises BadInput."""
    _known(raw, keys, 'in ' + what)
    return {key: promql_duration(raw.get(key), '%s of %s' % (key, what)) for key in keys}


def promql_duration(value: object, what: str) -> str:
    """Returns a duration in the largest unit that says it exactly. Raises BadInput."""
    left = round(parse_duration(value, what) * 1000)
    return next('%d%s' % (left // size, unit) for unit, size in _UNITS if left % size == 0 and (left or unit == 's'))


def check_labels(raw: t.Mapping[str, t.Any], where: str) -> dict[str, str]:
    """Returns labels that alerts are to carry; their values may hold anything. Raises BadInput for a name that cannot be one."""
    for key in raw:
        if not isinstance(key, str) or not _LABEL.fullmatch(key) or key.startswith('__') or key in _OWN_LABELS:
            raise BadInput('The label %r %s cannot be used: write letters, digits and "_", and none of %s.' % (
                key, where, ', '.join(_OWN_LABELS)))
    return {key: literal(str(value)) for key, value in raw.items()}


def literal(text: str) -> str:
    """Returns *text* so that the templates of Prometheus' rules leave it as it is."""
    return text.replace('{{', '{{ "{{" }}')


def _conditions(raw: t.Mapping[str, t.Any], where: str) -> t.Iterator[Condition]:
    """Those conditions of the gate that Prometheus itself can judge: a limit on a query of a source of its type."""
    sources = _mapping(raw, 'sources', where)
    for condition in raw.get('conditions') or []:
        if not isinstance(condition, t.Mapping):
            raise BadInput('A condition %s is no dictionary.' % where)
        source = sources.get(condition.get('source') or '') or {}
        query = (source.get('queries') or {}).get(condition.get('metric'))
        limits = [condition.get(key) for key in ('abort_above', 'abort_below')]
        if source.get('type') != 'prometheus' or not query or condition.get('compare', 'value') != 'value' or limits == [None, None]:
            continue
        try:
            above, below = (None if limit is None else float(limit) for limit in limits)
        except (TypeError, ValueError):
            raise BadInput('The limits %r of the condition "%s" %s are no numbers.' % (limits, condition.get('name'), where)) from None
        yield Condition(str(condition.get('name') or condition.get('metric')), query, above, below)


def _mapping(raw: t.Mapping[str, t.Any], key: str, where: str) -> dict[str, t.Any]:
    value = raw.get(key) or {}
    if not isinstance(value, t.Mapping):
        raise BadInput('The %s %s must be a dictionary.' % (key, where))
    return dict(value)


def _known(raw: t.Mapping[str, t.Any], known: t.Sequence[str], where: str) -> None:
    strange = next((key for key in raw if key not in known), None)
    if strange is not None:
        raise BadInput('There is no "%s" %s: known are %s.' % (strange, where, ', '.join(known)))
