# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Recording rules and alerts of Prometheus, made from the limits that the gates have, so that the two cannot drift apart. Pure.

Recorded names are ``level:metric:operation`` (prometheus.io, 'Recording rules'). Burn rates: Google's 'The Site Reliability Workbook',
chapter 5, table 5-8: a budget of 30 days, alerts at 2 % of it in 1 h (14.4), 5 % in 6 h (6), 10 % in 1 day (3) and in 3 days (1), each with
a window of a twelfth beside it, so that an alert ends soon after what caused it.
"""

from __future__ import annotations

import hashlib
import re
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._monitoring import services as s

BURNS = ((14.4, '1h', '5m', 'critical'), (6.0, '6h', '30m', 'critical'), (3.0, '1d', '2h', 'warning'), (1.0, '3d', '6h', 'warning'))
_WINDOWS = tuple(dict.fromkeys(window for _factor, long, short, _severity in BURNS for window in (short, long)))
# No service is called so.
_ALL = 'delivery of all services'
_INFO = 'service:delivery_rollout_info:last'
_RECORDED = {'saturation': 'service_arm:delivery_saturation:ratio', 'memory': 'service_arm:delivery_memory:ratio',
             'cpu': 'service_arm:delivery_cpu:ratio', 'failed_instances': 'service_arm:delivery_failed_instances:count',
             'workflow_errors': 'service_arm:delivery_workflow_errors:count',
             'workflow_phase': 'service_arm:delivery_workflow_phase:seconds'}
# query, alert, limit, duration, severity, what it says; the value and the limit in its words
_GAUGES = (
    ('memory', 'DeliveryMemoryHigh', 'memory', 'critical', 'uses {{ $value | humanizePercentage }} of its memory', '%'),
    ('cpu', 'DeliveryCpuHigh', 'cpu', 'critical', 'uses {{ $value | humanizePercentage }} of its CPU', '%'),
    ('failed_instances', 'DeliveryInstancesFailed', 'failed_instances', 'critical', 'has {{ $value }} failed instances', ''),
    ('workflow_errors', 'DeliveryWorkflowErrors', 'workflow_errors', 'critical', 'has {{ $value }} workflow errors', ''),
    ('workflow_phase', 'DeliveryWorkflowStuck', 'workflow_phase_s', 'warning', 'is in a workflow phase for {{ $value | humanizeDuration }}',
     's'))

Rule = t.Dict[str, t.Any]


def build(services: t.Sequence[s.Service], *, window: str, durations: t.Mapping[str, str], interval: str, stuck_after: str,
          rolled_back_hold: str, labels: t.Mapping[str, str]) -> dict[str, t.Any]:
    """Returns the file of rules as data. Durations are those of ``services.promql_duration``."""
    groups = [{'name': _ALL, 'interval': interval, 'rules': [
        _last_rollout(), *_rollout_alerts(durations, stuck_after, rolled_back_hold, labels)]}]
    for service in services:
        rules = [*_recorded(service, window), *_alerts(service, window, durations, labels)]
        groups.append({'name': 'delivery %s' % service.name, 'interval': interval, 'rules': rules})
    return {'groups': groups}


def from_options(raw: t.Any, options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Returns ``build`` of services and options as the role has them. Raises BadInput."""
    missing = [key for key in ('window', 'interval', 'for', 'stuck_after', 'rolled_back_hold', 'limits', 'queries', 'labels')
               if key not in options]
    if missing:
        raise BadInput('The options of the rules lack "%s".' % missing[0])
    return build(
        s.read_services(raw, options['queries'], options['limits']), window=s.promql_duration(options['window'], 'monitoring_window'),
        durations=s.read_durations(options['for'], 'monitoring_for', s.DURATIONS),
        interval=s.promql_duration(options['interval'], 'monitoring_interval'),
        stuck_after=s.promql_duration(options['stuck_after'], 'monitoring_stuck_after'),
        rolled_back_hold=s.promql_duration(options['rolled_back_hold'], 'monitoring_rolled_back_hold'),
        labels=s.check_labels(options['labels'], 'in monitoring_labels'))


def operator_objects(made: t.Mapping[str, t.Any], namespace: str, labels: t.Mapping[str, str] | None = None) -> list[dict[str, t.Any]]:
    """Returns the rules *made* as objects of Prometheus' operator: one a service, since Kubernetes takes no large ones."""
    return [{'apiVersion': 'monitoring.coreos.com/v1', 'kind': 'PrometheusRule',
             'metadata': {'name': _object_name(group['name']), 'namespace': namespace,
                          'labels': {**(labels or {}), 'app.kubernetes.io/managed-by': 'progressive.delivery'}},
             'spec': {'groups': [group]}} for group in made['groups']]


def _object_name(group: str) -> str:
    if group == _ALL:
        return 'progressive-delivery'
    service = group.rpartition(' ')[2]
    plain = re.sub('[^a-z0-9]+', '-', service.lower()).strip('-')
    # Two services whose names differ in what such a name cannot have must not be one object.
    return 'progressive-delivery-' + (plain if plain == service else '%s-%s' % (plain, hashlib.sha256(service.encode()).hexdigest()[:8]))


def _record(name: str, expr: str, **labels: str) -> Rule:
    return {'record': name, 'expr': expr, **({'labels': labels} if labels else {})}


def _recorded(service: s.Service, window: str) -> t.Iterator[Rule]:
    requests, errors = 'service_arm:delivery_requests:rate', 'service_arm:delivery_errors:rate'
    own = '{service="%s"}' % service.name
    for arm in service.backends:
        labels = {'service': service.name, 'arm': arm}
        counted, bad = (service.fill(service.queries[key], arm, window) for key in ('requests', 'errors'))
        yield _record(requests, 'sum(%s)' % counted, **labels)
        # A counter of errors that nobody has raised yet may not be there.
        yield _record(errors, 'sum(%s) or 0 * sum(%s)' % (bad, counted), **labels)
        if 'latency' in service.queries:
            buckets = service.fill(service.queries['latency'], arm, window)
            for percentile in (50, 95, 99):
                yield _record('service_arm:delivery_latency_seconds:p%d' % percentile,
                              'histogram_quantile(%g, sum by (le) (%s))' % (percentile / 100, buckets), **labels)
        for key, name in _RECORDED.items():
            if key in service.queries:
                yield _record(name, 'max(%s)' % service.fill(service.queries[key], arm, window), **labels)
    # No requests make no ratio: 0/0 is not a number, and that is beyond no limit.
    # Their label is what tells them from those of other services, for promtool too.
    yield _record('service_arm:delivery_errors:ratio', '%s%s / %s%s' % (errors, own, requests, own), service=service.name)
    yield _record('service:delivery_requests:rate', 'sum by (service) (%s%s)' % (requests, own), service=service.name)
    yield _record('service:delivery_errors:rate', 'sum by (service) (%s%s)' % (errors, own), service=service.name)
    for span in _WINDOWS:
        yield _record('service:delivery_errors:ratio_rate%s' % span,
                      'sum_over_time(service:delivery_errors:rate%s[%s]) / sum_over_time(service:delivery_requests:rate%s[%s])' % (
                          own, span, own, span), service=service.name)
    for key in ('error_ratio_abort', 'p95_pass_ms', 'p95_abort_ms', 'objective'):
        name, value = (key[:-3] + '_seconds', service.limits[key] / 1000) if key.endswith('_ms') else (key, service.limits[key])
        yield _record('service:delivery_limit:value', 'vector(%r)' % value, service=service.name, limit=name)


def _last_rollout() -> Rule:
    # Several control hosts may have rolled the same service out; a match of many to many would silence every alert.
    return _record(_INFO, 'max by (service, rollout, version) (topk by (service) (1, delivery_rollout_info * on (service, instance, job) '
                          'group_left () delivery_rollout_start_timestamp_seconds)) > bool 0')


def _of_rollout(expr: str, own: str, on: str = 'service, arm') -> str:
    """*expr* with the service's last rollout as a label, where there was one: what Alertmanager groups and routes by."""
    return '(%s) * on (service) group_left (rollout, version) %s%s or on (%s) (%s)' % (expr, _INFO, own, on, expr)


def _alert(name: str, expr: str, lasting: str, labels: t.Mapping[str, str], summary: str, description: str,
           service: s.Service | None = None) -> Rule:
    links = {'runbook_url': service.runbook, 'dashboard_url': service.dashboard} if service else {}
    return {'alert': name, 'expr': expr, 'for': lasting, 'labels': dict(labels),
            'annotations': {'summary': summary, 'description': description, **{k: s.literal(v) for k, v in links.items() if v}}}


def _alerts(service: s.Service, window: str, durations: t.Mapping[str, str], labels: t.Mapping[str, str]) -> t.Iterator[Rule]:
    own, limits, name = '{service="%s"}' % service.name, service.limits, service.name
    seconds = parse_duration(window)
    arm = '%s {{ $labels.arm }}' % name

    def alert(title: str, expr: str, key: str, severity: str, summary: str, description: str, on: str = 'service, arm',
              **more: str) -> Rule:
        return _alert(title, _of_rollout(expr, own, on), durations[key] if key else '0s',
                      {**labels, **service.labels, **more, 'severity': severity, 'service': name}, summary, description, service)

    def enough(metric: str, limit: str) -> str:
        return ' and on (service, arm) %s%s * %r >= %r' % (metric, own, seconds, limits[limit])

    served = enough('service_arm:delivery_requests:rate', 'min_sample')
    yield alert(
        'DeliveryErrorRateHigh', 'service_arm:delivery_errors:ratio%s > %r%s%s' % (
            own, limits['error_ratio_abort'], served, enough('service_arm:delivery_errors:rate', 'min_events')), 'error_rate', 'critical',
        arm + ': {{ $value | humanizePercentage }} of the requests fail',
        'The limit is %g %%, the same that sends a rollout back (delivery_error_ratio_abort).' % (limits['error_ratio_abort'] * 100))
    if 'latency' in service.queries:
        for title, limit, key, severity, same in (
                ('DeliveryLatencyHigh', 'p95_pass_ms', 'latency', 'warning', 'keeps a stage from passing (delivery_p95_pass_ms)'),
                ('DeliveryLatencyCritical', 'p95_abort_ms', 'latency_critical', 'critical',
                 'sends a rollout back (delivery_p95_abort_ms)')):
            yield alert(title, 'service_arm:delivery_latency_seconds:p95%s > %r%s' % (own, limits[limit] / 1000, served), key, severity,
                        arm + ': P95 is {{ $value | humanizeDuration }}', 'The limit is %g ms, the same that %s.' % (limits[limit], same))
    for query, title, limit, severity, says, unit in _GAUGES:
        if query in service.queries:
            value = '%g %%' % (limits[limit] * 100) if unit == '%' else '%g%s' % (limits[limit], ' s' if unit else '')
            # What is down because nothing is to run there is no failure.
            used = ' and on (service, arm) service_arm:delivery_requests:rate%s > 0' % own if query == 'failed_instances' else ''
            yield alert(title, '%s%s > %r%s' % (_RECORDED[query], own, limits[limit], used), query, severity, '%s %s' % (arm, says),
                        'The limit is %s.' % value)
    for condition in service.conditions:
        for side, limit in (('>', condition.above), ('<', condition.below)):
            if limit is None:
                continue
            for which in service.backends:
                expr = 'label_replace(label_replace(max(%s) %s %r, "service", "%s", "", ""), "arm", "%s", "", "")' % (
                    service.fill(condition.query, which, window), side, limit, name, which)
                yield alert('DeliveryCondition', expr, 'condition', 'critical',
                            '%s: %s is {{ $value }}' % (arm, s.literal(condition.name)),
                            'The gate of a rollout goes back when it is %s %g.' % ('above' if side == '>' else 'below', limit),
                            condition=s.literal(condition.name), arm=which)
    yield alert('DeliveryNoData', 'absent(service:delivery_requests:rate%s)' % own, 'no_data', 'warning',
                '%s: Prometheus has no requests of it' % name, 'The exporter is down, its scrape fails, or the queries name other series.',
                on='service')
    budget = 1 - limits['objective']
    for factor, long, short, severity in BURNS:
        # A budget of 30 days burns at this rate for both windows.
        expr = ' and '.join('service:delivery_errors:ratio_rate%s%s > %r' % (span, own, round(factor * budget, 9))
                            for span in (long, short))
        yield alert('DeliveryBudgetBurn', expr, '', severity, '%s burns its error budget %g times too fast' % (name, factor),
                    'The objective is %g %% of the requests in 30 days; over %s {{ $value | humanizePercentage }} failed.' % (
                        limits['objective'] * 100, long), on='service', burn='%g' % factor)


def _rollout_alerts(durations: t.Mapping[str, str], stuck_after: str, hold: str, labels: t.Mapping[str, str]) -> t.Iterator[Rule]:
    def alert(title: str, expr: str, lasting: str, severity: str, summary: str, description: str) -> Rule:
        expr = '(%s) * on (service) group_left (rollout, version) %s' % (expr, _INFO)
        return _alert(title, expr, lasting, {**labels, 'severity': severity}, summary, description)

    stuck, held = parse_duration(stuck_after), parse_duration(hold)
    lease, at = 'delivery_rollout_lease_expiry_timestamp_seconds', 'delivery_rollout_end_timestamp_seconds'
    yield alert('DeliveryLeaseEnding', '%s - timestamp(%s) < 0.25 * delivery_rollout_lease_seconds and delivery_rollout_running == 1' % (
        lease, lease), durations['lease'], 'warning', '{{ $labels.service }}: nobody renews the lease of {{ $labels.version }}',
        'It has {{ $value | humanizeDuration }} left; then the data plane returns to stable by itself. Look at the run that rolls out.')
    yield alert('DeliveryRolloutStuck', '(time() - delivery_rollout_last_event_timestamp_seconds > %r or time() - '
                'delivery_rollout_stage_planned_end_timestamp_seconds > %r) and delivery_rollout_running == 1 '
                'unless delivery_rollout_waiting == 1' % (stuck, stuck), durations['stuck'], 'warning',
                '{{ $labels.service }}: the rollout of {{ $labels.version }} is stuck',
                'Nothing was recorded, or its stage is over time, for {{ $value | humanizeDuration }}. Look with status.yml.')
    yield alert('DeliveryRolloutInterrupted', 'time() - %s < %r and on (service, instance, job) '
                'delivery_rollout_outcome{outcome="interrupted"} == 1' % (at, held), '0s', 'warning',
                '{{ $labels.service }}: the rollout of {{ $labels.version }} was interrupted',
                'The process that rolled out is gone. Look with status.yml, and run rollback.yml where traffic is not where it should be.')
    yield alert('DeliveryRolledBack', 'time() - %s < %r and on (service, instance, job) '
                'delivery_rollout_outcome{outcome="rolled_back"} == 1' % (at, held), '0s', 'warning',
                '{{ $labels.service }} {{ $labels.version }} was rolled back', 'Stable serves. The report says why.')
