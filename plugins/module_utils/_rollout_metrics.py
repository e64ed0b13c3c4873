# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A rollout as Prometheus sees it: events of its journal in, the text format (version 0.0.4) out. Pure.

Names follow prometheus.io, 'Metric and label naming': seconds, ratios, moments as ``_timestamp_seconds`` rather than the time that has
passed, so that a text that nobody writes any more still says the truth. The rollout's id is a label of ``delivery_rollout_info`` alone,
to be joined on ``service``: as a label of each series it would begin all of them anew with every rollout.
"""

from __future__ import annotations

import math
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._metrics.exposition import parse
from ansible_collections.progressive.delivery.plugins.module_utils._report.clean import clean

VERDICTS = ('pass', 'fail', 'inconclusive', 'no_data', 'error')
OUTCOMES = ('promoted', 'rolled_back', 'failed', 'interrupted')
ROLLOUTS, WAYS_BACK = 'delivery_rollouts_total', 'delivery_rollbacks_total'

HELP: dict[str, tuple[str, str]] = {
    'delivery_rollout_info': ('gauge', 'The last rollout of the service; always 1.'),
    'delivery_rollout_running': ('gauge', 'Whether the rollout goes on.'),
    'delivery_rollout_waiting': ('gauge', 'Whether the rollout waits for the answer of a person.'),
    'delivery_rollout_outcome': ('gauge', 'Whether this is how the last rollout ended.'),
    'delivery_rollout_start_timestamp_seconds': ('gauge', 'When the rollout began.'),
    'delivery_rollout_end_timestamp_seconds': ('gauge', 'When the rollout ended.'),
    'delivery_rollout_last_event_timestamp_seconds': ('gauge', 'When the journal was last written to.'),
    'delivery_rollout_duration_seconds': ('gauge', 'How long the rollout took, once it has ended.'),
    'delivery_rollout_stages': ('gauge', 'How many stages the rollout has.'),
    'delivery_rollout_stage': ('gauge', 'Number of the stage that the rollout has come to, from 1; 0 before the first.'),
    'delivery_rollout_stage_start_timestamp_seconds': ('gauge', 'When the stage began.'),
    'delivery_rollout_stage_bake_seconds': ('gauge', 'How long the stage is to be watched.'),
    'delivery_rollout_stage_planned_end_timestamp_seconds': ('gauge', 'When the stage that goes on is to end.'),
    'delivery_rollout_stage_duration_seconds': ('gauge', 'How long the stage took, once it has ended.'),
    'delivery_rollout_stage_verdict': ('gauge', 'Whether this is the verdict on the stage.'),
    'delivery_rollout_share_ratio': ('gauge', 'Share of the arm: requested, configured (read back from the routers) or observed.'),
    'delivery_rollout_requests_total': ('counter', 'Requests that the gates of the rollout have seen.'),
    'delivery_rollout_errors_total': ('counter', 'Of these, the failed ones.'),
    'delivery_rollout_latency_seconds': ('gauge', 'Percentiles of the latency in the last sample of the gate.'),
    'delivery_rollout_condition_value': ('gauge', 'What the gate measured last, in the unit of the condition.'),
    'delivery_rollout_condition_limit': ('gauge', 'Limits of the condition: abort goes back at once, pass goes on.'),
    'delivery_rollout_evidence_log10': ('gauge', 'Evidence that the candidate is worse (harm), or is not (excluded), as log10 of odds.'),
    'delivery_rollout_evidence_limit_log10': ('gauge', 'The evidence that is a proof.'),
    'delivery_rollout_lease_seconds': ('gauge', 'How long a renewal lets the candidate keep its share.'),
    'delivery_rollout_lease_expiry_timestamp_seconds': ('gauge', 'When the candidate loses its share unless the lease is renewed.'),
    'delivery_rollout_way_back_seconds': ('gauge', 'How long the way back took, from the verdict until the routers were read back.'),
    ROLLOUTS: ('counter', 'Rollouts that have ended.'),
    WAYS_BACK: ('counter', 'Ways back that were taken.'),
}
"""Type and meaning of every metric, in the order they are written."""

_Key = tuple[tuple[str, str], ...]


class Gauges:
    """The series of one service. *before* is the text that an earlier rollout has left: totals are counted on from there."""

    def __init__(self, before: str = '') -> None:
        self._series: dict[str, dict[_Key, float]] = {}
        self._service = ''
        self._stable = ''
        self._stage = ''
        # A set that keeps its order.
        self._arms: dict[str, None] = {}
        self._seen: dict[str, float] = {}
        try:
            self._before = parse(before, (ROLLOUTS, WAYS_BACK))
        except ValueError:
            # Somebody else's file, or half of one: the counters begin anew, which is what Prometheus expects of counters.
            self._before = []
        self._ended = False

    def feed(self, events: t.Iterable[t.Mapping[str, t.Any]]) -> None:
        """Takes events in; those that cannot be understood are passed over."""
        for event in clean(events).events:
            if event['event'] in ('notified', 'counters') or self._ended:
                continue
            handler = getattr(self, '_on_' + event['event'], None)
            if event['event'] == 'rollout_started' or self._service:
                self._set('delivery_rollout_last_event_timestamp_seconds', event['ts'])
                if handler:
                    handler(event)

    def lost(self, now: float) -> None:
        """The process that rolled out is gone without a word."""
        if self._service and not self._ended:
            self._end('interrupted', now)

    def text(self) -> str:
        """Returns all series, empty before a rollout has begun."""
        if not self._service:
            return ''
        lines = []
        for name, (kind, meaning) in HELP.items():
            series = self._series.get(name)
            if series:
                lines += ['# HELP %s %s' % (name, meaning), '# TYPE %s %s' % (name, kind)]
                lines += ['%s{%s} %s' % (name, ','.join('%s="%s"' % (key, _escaped(value)) for key, value in labels), _number(value))
                          for labels, value in series.items()]
        return '\n'.join(lines) + '\n'

    def _set(self, name: str, value: float | None, **labels: str) -> None:
        key = (('service', self._service), *labels.items())
        if value is None or not math.isfinite(value):
            self._series.get(name, {}).pop(key, None)
        else:
            self._series.setdefault(name, {})[key] = value

    def _add(self, name: str, value: float, **labels: str) -> None:
        key = (('service', self._service), *labels.items())
        self._set(name, self._series.get(name, {}).get(key, 0) + value, **labels)

    def _forget(self, *names: str) -> None:
        for name in names:
            self._series.pop(name, None)

    def _on_rollout_started(self, event: dict[str, t.Any]) -> None:
        self._service, self._stable = event.get('service') or '?', event.get('stable') or ''
        self._forget('delivery_rollout_last_event_timestamp_seconds')
        self._set('delivery_rollout_last_event_timestamp_seconds', event['ts'])
        told = {key: event.get(key) or '' for key in ('rollout', 'version', 'previous_version', 'strategy', 'stable', 'target', 'by')}
        self._set('delivery_rollout_info', 1, **told)
        self._set('delivery_rollout_running', 1)
        self._set('delivery_rollout_waiting', 0)
        self._set('delivery_rollout_stage', 0)
        self._set('delivery_rollout_stages', event.get('stages') or len(event.get('plan') or []))
        self._set('delivery_rollout_start_timestamp_seconds', event['ts'])
        for outcome in OUTCOMES:
            self._set('delivery_rollout_outcome', 0, outcome=outcome)
            self._set(ROLLOUTS, 0, outcome=outcome)
        self._set(WAYS_BACK, 0)
        for sample in self._before:
            if sample.labels.get('service') == self._service:
                self._set(sample.name, sample.value, **{key: value for key, value in sample.labels.items() if key != 'service'})
        for stage in event.get('plan') or []:
            if stage.get('arm'):
                self._arms.setdefault(stage['arm'])
        self._split('configured', {self._stable: 10_000})

    def _on_stage_started(self, event: dict[str, t.Any]) -> None:
        self._stage = event.get('label') or event.get('name') or '?'
        # What the stage before measured is not this one's.
        self._forget('delivery_rollout_condition_value', 'delivery_rollout_condition_limit', 'delivery_rollout_latency_seconds')
        self._seen = {}
        self._split('observed', None)
        self._set('delivery_rollout_stage', event['index'])
        labels = {'stage': self._stage, 'arm': event.get('arm') or ''}
        self._set('delivery_rollout_stage_start_timestamp_seconds', event['ts'], **labels)
        self._set('delivery_rollout_stage_bake_seconds', event.get('bake_s'), **labels)
        self._set('delivery_rollout_stage_planned_end_timestamp_seconds', event['ts'] + (event.get('bake_s') or 0))
        self._split('requested', event.get('requested_bp'))

    def _on_change(self, event: dict[str, t.Any]) -> None:
        if event.get('after_bp'):
            self._split('configured', event['after_bp'])
        lease = event.get('lease_s')
        self._set('delivery_rollout_lease_seconds', lease or None)
        self._set('delivery_rollout_lease_expiry_timestamp_seconds', event['ts'] + lease if lease else None)

    def _on_watching(self, event: dict[str, t.Any]) -> None:
        for condition in event.get('conditions') or []:
            for limit, pairs in (('abort', condition.get('abort')), ('pass', condition.get('good'))):
                for side, value in pairs or ():
                    self._set('delivery_rollout_condition_limit', value, condition=condition['name'], limit=limit, side=side)
            for kind in ('harm', 'excluded'):
                if condition.get(kind + '_limit') is not None:
                    self._set('delivery_rollout_evidence_limit_log10', condition[kind + '_limit'], condition=condition['name'], kind=kind)

    def _on_sample(self, event: dict[str, t.Any]) -> None:
        for arm, numbers in (event.get('arms') or {}).items():
            self._add('delivery_rollout_requests_total', numbers.get('requests') or 0, arm=arm)
            self._add('delivery_rollout_errors_total', numbers.get('errors') or 0, arm=arm)
            self._seen[arm] = self._seen.get(arm, 0) + (numbers.get('requests') or 0)
            for percentile in (50, 95, 99):
                value = numbers.get('p%d_ms' % percentile)
                if value is not None:
                    self._set('delivery_rollout_latency_seconds', value / 1000, arm=arm, percentile=str(percentile))
        total = sum(self._seen.values())
        if total:
            self._split('observed', {arm: 10_000 * requests / total for arm, requests in self._seen.items()})
        self._series.pop('delivery_rollout_condition_value', None)
        for name, value in (event.get('values') or {}).items():
            self._set('delivery_rollout_condition_value', value, condition=name)
        for name, evidence in (event.get('evidence') or {}).items():
            for kind, value in evidence.items():
                self._set('delivery_rollout_evidence_log10', value, condition=name, kind=kind)
        if event.get('lease_s') is not None:
            self._set('delivery_rollout_lease_expiry_timestamp_seconds', event['ts'] + event['lease_s'])

    def _on_asked(self, _event: dict[str, t.Any]) -> None:
        self._set('delivery_rollout_waiting', 1)

    def _on_answered(self, _event: dict[str, t.Any]) -> None:
        self._set('delivery_rollout_waiting', 0)

    def _on_verdict(self, event: dict[str, t.Any]) -> None:
        self._set('delivery_rollout_waiting', 0)
        for verdict in VERDICTS:
            self._set('delivery_rollout_stage_verdict', float(event.get('verdict') == verdict), stage=event['stage'], verdict=verdict)

    def _on_way_back(self, event: dict[str, t.Any]) -> None:
        self._add(WAYS_BACK, 1)
        self._set('delivery_rollout_way_back_seconds', event.get('seconds'))
        if event.get('complete', True) and event.get('to'):
            self._split('requested', {event['to']: 10_000})
            self._split('configured', {event['to']: 10_000})
            self._no_lease()

    def _on_stage_finished(self, event: dict[str, t.Any]) -> None:
        self._forget('delivery_rollout_stage_planned_end_timestamp_seconds')
        self._set('delivery_rollout_stage_duration_seconds', event.get('duration_s'), stage=self._stage, arm=event.get('arm') or '')
        if event.get('verdict') == 'pass':
            self._split('configured', event.get('configured_bp'))
            self._split('observed', event.get('observed_bp'))

    def _on_rollout_finished(self, event: dict[str, t.Any]) -> None:
        outcome = event.get('outcome')
        self._end(outcome if outcome in OUTCOMES else 'failed', event['ts'])
        self._no_lease()

    def _end(self, outcome: str, at: float) -> None:
        self._ended = True
        self._set('delivery_rollout_running', 0)
        self._set('delivery_rollout_waiting', 0)
        self._set('delivery_rollout_end_timestamp_seconds', at)
        begun = self._series['delivery_rollout_start_timestamp_seconds'][(('service', self._service),)]
        self._set('delivery_rollout_duration_seconds', max(at - begun, 0))
        self._set('delivery_rollout_outcome', 1, outcome=outcome)
        self._add(ROLLOUTS, 1, outcome=outcome)

    def _no_lease(self) -> None:
        self._forget('delivery_rollout_lease_seconds', 'delivery_rollout_lease_expiry_timestamp_seconds')

    def _split(self, kind: str, shares_bp: t.Mapping[str, float] | None) -> None:
        """An arm that has no share has 0, so that areas that are stacked close; None: nothing is known."""
        self._arms.update(dict.fromkeys([self._stable, *(shares_bp or ())]))
        for arm in self._arms:
            self._set('delivery_rollout_share_ratio', None if shares_bp is None else shares_bp.get(arm, 0) / 10_000, arm=arm, kind=kind)


def _escaped(value: str) -> str:
    return value.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n')


def _number(value: float) -> str:
    return '%d' % value if value == int(value) else repr(round(value, 6))
