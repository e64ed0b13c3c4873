# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a gate leaves in the journal for plots: over fakes of sources, since what they say has to be known exactly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils import _gate, _samples
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.history import Seen
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Block
from ansible_collections.progressive.delivery.plugins.module_utils._samples import MOST_SAMPLES, Samples
from gate_fakes import ERRORS, options

SEQUENTIAL = {'type': 'sequential', 'name': 'harm', 'metric': 'errors', 'margin': 0.001}


def made(**changes):
    events = []
    samples = Samples(_gate.read_gate(options(**changes)), lambda event, **fields: events.append({'event': event, **fields}))
    return samples, events


def block(requests=10, bad=0, latencies=(), arm='canary', metric='requests'):
    return Seen(Block(arm, 'lb1', metric, 1.0, requests, bad, tuple(latencies)))


def test_the_limits_are_recorded_as_the_gate_has_them():
    samples, events = made(conditions=[ERRORS, SEQUENTIAL])
    samples.begin()
    first, second = json.loads(json.dumps(events[0]))['conditions']
    assert (first['abort'], first['good'], first['unit']) == ([['above', 0.005]], [['below', 0.001]], 'ratio')
    assert (second['type'], second['harm_limit']) == ('sequential', 1.301)


def test_a_sample_has_the_quantiles_of_its_own_requests():
    samples, events = made()
    samples.take_in([block(100, 3, range(1, 101)), block(5, arm='blue')])
    samples.write(1.0, (), 4.0, (), False)
    samples.take_in([block(1, 0, [7.0])])
    samples.write(2.0, (), None, ['no answer'], True)
    assert events[0]['arms'] == {'canary': {'requests': 100, 'errors': 3, 'p50_ms': 50, 'p95_ms': 95, 'p99_ms': 99},
                                 'blue': {'requests': 5, 'errors': 0}}
    assert events[1]['arms']['canary']['p50_ms'] == 7.0 and events[1]['errors'] == ['no answer']
    assert events[0]['lease_s'] == 4.0 and 'lease_s' not in events[1]


def test_what_else_a_source_counts_is_no_request():
    samples, events = made()
    samples.take_in([block(metric='attempts')])
    samples.write(1.0, (), None, (), True)
    assert events[0]['arms'] == {}


def test_the_evidence_is_recorded_as_a_logarithm_to_ten():
    samples, events = made(conditions=[SEQUENTIAL])
    samples.write(1.0, (), None, (), True)
    assert set(events[0]['evidence']['harm']) == {'harm', 'excluded'}


@pytest.mark.parametrize('bake, interval, every', [('2h', '10s', 1), ('2h', '1s', 10), ('30d', '10s', 360), ('10s', '1s', 1)])
def test_a_long_bake_is_thinned_out(bake, interval, every):
    samples, events = made(bake=bake, interval=interval)
    step = samples._gate.interval
    for number in range(1, 3 * every + 1):
        samples.take_in([block(10, 1)])
        samples.write(number * step, (), None, (), False)
    samples.flush()
    assert len(events) == 3
    assert sum(event['arms']['canary']['requests'] for event in events) == 30 * every


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=80), st.integers(1, 4))
def test_no_request_is_lost_by_thinning(counts, hours):
    samples, events = made(bake=hours * 3600, interval=1)
    for number, (requests, last) in enumerate(counts):
        samples.take_in([block(requests)])
        samples.write(10.0 + number, (), None, (), last)
    samples.flush()
    assert sum(event['arms'].get('canary', {}).get('requests', 0) for event in events) == sum(requests for requests, _last in counts)
    assert len(events) <= len(counts)


def test_two_hours_of_samples_take_less_than_half_a_megabyte():
    samples, events = made(bake='2h', interval='1s', conditions=[ERRORS, SEQUENTIAL])
    for number in range(7200):
        samples.take_in([block(200, 1, [1.0 + number % 90] * 10), block(400, 1, [2.0] * 10, 'blue')])
        samples.write(float(number + 1), (), 25.0, (), False)
    assert len(events) <= MOST_SAMPLES + 1
    assert sum(len(json.dumps(event)) for event in events) < 500_000


def test_counters_are_summed_over_endpoints():
    blocks = [Block('canary', 'lb1', requests=3, bad=1), Block('canary', 'lb2', requests=4), Block('blue', 'lb1', 'attempts')]
    arms = _samples.counted(blocks)
    assert arms == {'canary': {'requests': 7, 'errors': 1}}
