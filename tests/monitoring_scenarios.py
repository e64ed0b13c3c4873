# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For each alert, series that exceed its limit for a while and then no more: what `promtool test rules` is given.

Everything is computed from the same options as the rules, so that a changed limit moves both.
"""

from __future__ import annotations

import math
import typing as t

ARM = {'service': 'shop', 'arm': 'canary'}
RATE = 100.0
_STEP = 30  # seconds
BURNS = {'14.4': 1, '6': 6, '3': 24, '1': 72}  # burn rate: hours of the long window


def counter(name: str, labels: str, phases: t.Sequence[tuple[float, float]], step: int = _STEP) -> dict[str, str]:
    """A counter that rises by *rate* a second for *seconds*, phase after phase."""
    values, now = ['0'], 0.0
    for rate, seconds in phases:
        steps = max(int(seconds // step) - 1, 0)
        now += rate * step
        values.append('%.9g+%.9gx%d' % (now, rate * step, steps))
        now += rate * step * steps
    return {'series': '%s{%s}' % (name, labels), 'values': ' '.join(values)}


def gauge(name: str, labels: str, phases: t.Sequence[tuple[float | None, float]]) -> dict[str, str]:
    values = [('_x%d' if value is None else '%.15g+0x%%d' % value) % (int(seconds // _STEP) - (value is not None))
              for value, seconds in phases]
    return {'series': '%s{%s}' % (name, labels), 'values': ' '.join(values)}


class Scenario(t.NamedTuple):
    alert: str
    series: list[dict[str, str]]
    fires_at: float | None
    """Seconds from the start: when it must fire; None: never."""
    quiet_at: tuple[float, ...]
    """When it must not: before its limit, and after all is good again."""
    labels: dict[str, str]


def scenarios(options: dict[str, t.Any], seconds: t.Callable[[str], float], buckets: t.Sequence[float]) -> list[Scenario]:
    """One at least for each alert that the rules of the service `shop` have."""
    limits, lasting = options['limits'], {key: seconds(value) for key, value in options['for'].items()}
    window, interval = seconds(options['window']), seconds(options['interval'])
    slack = window + 4 * max(_STEP, interval)
    good = slack + 300
    proxy = 'proxy="canary",code="%sxx"'
    traffic = [counter('haproxy_backend_http_responses_total', proxy % '2', [(RATE, 6000)])]
    # Alerts carry the rollout once there was one.
    info = [gauge('delivery_rollout_info', 'service="shop",rollout="r1",version="5.1"', [(1, 6000)]),
            gauge('delivery_rollout_start_timestamp_seconds', 'service="shop"', [(1, 6000)])]
    told = {'rollout': 'r1', 'version': '5.1', 'service': 'shop'}
    found = []

    def over(alert: str, key: str, series: t.Callable[[float], list[dict[str, str]]], severity: str, labels: dict[str, str] | None = None,
             extra: t.Sequence[dict[str, str]] | None = None) -> None:
        labels, extra = labels if labels is not None else ARM, extra if extra is not None else traffic
        bad = lasting[key] + slack
        # It must not fire before it has lasted: right after the limit was exceeded.
        found.append(Scenario(alert, [*series(bad), *extra, *info], good + bad - _STEP, (good - _STEP, good + bad + slack + good),
                              {**told, **labels, 'severity': severity}))

    share = limits['error_ratio_abort']
    over('DeliveryErrorRateHigh', 'error_rate', lambda bad: [counter('haproxy_backend_http_responses_total', proxy % '5', [
        (RATE * share * 0.8, good), (RATE * share * 1.5, bad), (0, 6000)])], 'critical')

    def latency(limit: float) -> t.Callable[[float], list[dict[str, str]]]:
        def series(bad: float) -> list[dict[str, str]]:
            # One in twenty of the good ones is above the limit at most, one in ten of the bad ones.
            return [counter('http_request_duration_seconds_bucket',
                            'job="shop",arm="canary",le="%s"' % ('+Inf' if math.isinf(le) else '%g' % le),
                            [(RATE * (1.0 if le > limit else 0.99), good), (RATE * (1.0 if le > limit else 0.9), bad),
                             (RATE * (1.0 if le > limit else 0.99), 6000)]) for le in buckets]
        return series

    over('DeliveryLatencyHigh', 'latency', latency(limits['p95_pass_ms'] / 1000), 'warning')
    over('DeliveryLatencyCritical', 'latency_critical', latency(limits['p95_abort_ms'] / 1000), 'critical')
    node = 'instance="a",service="shop",arm="canary"'
    over('DeliveryMemoryHigh', 'memory', lambda bad: [
        gauge('node_memory_MemTotal_bytes', node, [(100, 6000)]),
        gauge('node_memory_MemAvailable_bytes', node, [(100 * (1 - limits['memory']) + 1, good), (100 * (1 - limits['memory']) - 1, bad),
                                                       (50, 6000)])], 'critical')
    over('DeliveryCpuHigh', 'cpu', lambda bad: [counter('node_cpu_seconds_total', 'mode="idle",' + node, [
        (1 - limits['cpu'] + 0.05, good), (1 - limits['cpu'] - 0.05, bad), (0.9, 6000)])], 'critical')
    many = int(limits['failed_instances']) + 1
    over('DeliveryInstancesFailed', 'failed_instances', lambda bad: [
        gauge('up', 'job="shop",arm="canary",instance="%d"' % n, [(float(n == 0), good), (0, bad), (1, 6000)]) for n in range(many)],
        'critical')
    each = limits['workflow_errors'] / window
    over('DeliveryWorkflowErrors', 'workflow_errors', lambda bad: [counter(
        'shop_workflow_failures_total', 'arm="canary"', [(each * 0.8, good), (each * 2, bad), (0, 6000)])], 'critical')
    over('DeliveryWorkflowStuck', 'workflow_phase', lambda bad: [gauge('shop_phase_seconds', 'arm="canary"', [
        (limits['workflow_phase_s'], good), (limits['workflow_phase_s'] + 1, bad), (0, 6000)])], 'warning')
    over('DeliveryCondition', 'condition', lambda bad: [gauge('shop_agents_ratio', 'arm="canary"', [(0.93, good), (0.91, bad), (1, 6000)])],
         'critical', {**ARM, 'condition': 'agents "all"'})
    # The limit of the staleness of series is five minutes, for the exporter's and for what was recorded of it.
    gone = lasting['no_data'] + slack + 900
    found.append(Scenario('DeliveryNoData', [
        gauge('haproxy_backend_http_responses_total', proxy % '2', [(5, good), (None, gone), (5, 6000)]), *info],
        good + gone, (good, good + gone + slack + good), {**told, 'severity': 'warning'}))
    running = gauge('delivery_rollout_running', 'service="shop"', [(1, 6000)])
    lease = lasting['lease'] + slack
    found.append(Scenario('DeliveryLeaseEnding', [
        *info, running, gauge('delivery_rollout_lease_seconds', 'service="shop"', [(30, 6000)]),
        # Renewed until `good`, then not, then renewed again.
        {'series': 'delivery_rollout_lease_expiry_timestamp_seconds{service="shop"}', 'values': ' '.join([
            '30+%dx%d' % (_STEP, good // _STEP), '%d+0x%d' % (good + 30, lease // _STEP), '%d+%dx500' % (good + lease + 120, _STEP)])}],
        good + lease, (good, good + lease + slack + 60), {**told, 'severity': 'warning'}))
    stuck = seconds(options['stuck_after']) + lasting['stuck'] + slack
    found.append(Scenario('DeliveryRolloutStuck', [
        *info, running, gauge('delivery_rollout_waiting', 'service="shop"', [(0, 6000)]),
        {'series': 'delivery_rollout_last_event_timestamp_seconds{service="shop"}', 'values': ' '.join([
            '0+%dx%d' % (_STEP, good // _STEP), '%d+0x%d' % (good, stuck // _STEP), '%d+%dx500' % (good + stuck, _STEP)])}],
        good + stuck, (good + _STEP, good + stuck + slack), {**told, 'severity': 'warning'}))
    for alert, outcome in (('DeliveryRolledBack', 'rolled_back'), ('DeliveryRolloutInterrupted', 'interrupted')):
        hold = seconds(options['rolled_back_hold'])
        found.append(Scenario(alert, [
            *info, gauge('delivery_rollout_outcome', 'service="shop",outcome="%s"' % outcome, [(0, good), (1, 6000)]),
            gauge('delivery_rollout_end_timestamp_seconds', 'service="shop"', [(None, good), (good, 6000)])],
            good + 120, (good - _STEP, good + hold + 120), {**told, 'severity': 'warning'}))
    return found


def quiet(options: dict[str, t.Any], seconds: t.Callable[[str], float]) -> list[Scenario]:
    """What looks bad and is not: nothing runs on an arm without traffic, and of too few requests nothing is known."""
    at = tuple(60.0 * minute for minute in range(10, 60, 5))
    limits, window = options['limits'], seconds(options['window'])
    down = [gauge('up', 'job="shop",arm="canary",instance="%d"' % n, [(0, 6000)]) for n in range(int(limits['failed_instances']) + 1)]
    served = [counter('haproxy_backend_http_responses_total', 'proxy="canary",code="2xx"', [(0, 6000)])]
    # All of them fail, but they are fewer than the gate would judge by.
    few = [counter('haproxy_backend_http_responses_total', 'proxy="canary",code="5xx"', [(0.8 * limits['min_sample'] / window, 6000)])]
    return [Scenario('DeliveryInstancesFailed', [*down, *served], None, at, {}), Scenario('DeliveryErrorRateHigh', few, None, at, {})]


def burns(options: dict[str, t.Any], seconds: t.Callable[[str], float], step: int) -> list[Scenario]:
    """One for each burn rate, with samples every *step* seconds: days are long otherwise."""
    good = 2 * seconds(options['window']) + 4 * step
    found = []
    for factor, hours in BURNS.items():
        long = hours * 3600.0
        ratio = float(factor) * (1 - options['limits']['objective']) * 1.2
        # Over the whole long window; after that the short one, a twelfth of it, ends the alert.
        phases = [(RATE * ratio, long + good), (0.0, long / 12 + 2 * good)]
        found.append(Scenario(
            'DeliveryBudgetBurn',
            [counter('haproxy_backend_http_responses_total', 'proxy="canary",code="5xx"', phases, step),
             counter('haproxy_backend_http_responses_total', 'proxy="canary",code="2xx"', [(RATE, 2 * long + 5 * good)], step)],
            long + good, (0, long + good + long / 12 + good),
            {'service': 'shop', 'burn': factor, 'severity': 'critical' if factor in ('14.4', '6') else 'warning'}))
    return found


def promtool_tests(rules: str, found: t.Sequence[Scenario], interval: str, step: int = _STEP) -> dict[str, t.Any]:
    """Returns what `promtool test rules` reads for *rules*, a file whose alerts have no annotations."""
    tests = []
    for scenario in found:
        times = [(at, []) for at in scenario.quiet_at]
        if scenario.fires_at is not None:
            times.append((scenario.fires_at, [{'exp_labels': scenario.labels}]))
        others = scenario.labels.get('burn')
        tests.append({'name': scenario.alert + (' ' + others if others else ''), 'interval': '%ds' % step, 'input_series': scenario.series,
                      'alert_rule_test': [{'eval_time': '%ds' % at, 'alertname': scenario.alert, 'exp_alerts': alerts}
                                          for at, alerts in sorted(times, key=lambda pair: pair[0])]})
    return {'rule_files': [rules], 'evaluation_interval': interval, 'tests': tests}
