# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rollout as metrics and as annotations, from journals of real rollouts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._annotations import Annotator
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.exposition import parse
from ansible_collections.progressive.delivery.plugins.module_utils._rollout_metrics import HELP, Gauges
from ansible_collections.progressive.delivery.plugins.module_utils._sinks import Textfile, check_grafana, check_textfile_dir

JOURNALS = Path(__file__).parent / 'journals'
START = {'event': 'rollout_started', 'ts': 100.0, 'rollout': 'r"1\\', 'service': 'shop', 'version': '5.1', 'stable': 'blue',
         'target': 'green', 'stages': 2, 'plan': [{'index': 1, 'arm': 'canary', 'share_bp': 500}]}
ENDED = {'event': 'rollout_finished', 'ts': 160.0, 'rollout': 'r1', 'outcome': 'rolled_back'}


def journal(name):
    return [json.loads(line) for line in (JOURNALS / name).read_text().splitlines()]


def series(text):
    """{name: {labels but the service, as a frozenset: value}}"""
    found = {}
    for sample in parse(text, tuple(HELP)):
        assert sample.labels['service'] == 'shop'
        key = frozenset((name, value) for name, value in sample.labels.items() if name != 'service')
        found.setdefault(sample.name, {})[key] = sample.value
    return found


def of(text, name, **labels):
    return series(text).get('delivery_' + name, {}).get(frozenset(labels.items()))


def test_a_rollout_that_went_back():
    gauges = Gauges()
    events = journal('rolled_back.jsonl')
    gauges.feed(events)
    text = gauges.text()
    assert of(text, 'rollout_running') == 0
    assert of(text, 'rollout_outcome', outcome='rolled_back') == 1 and of(text, 'rollout_outcome', outcome='promoted') == 0
    assert (of(text, 'rollouts_total', outcome='rolled_back'), of(text, 'rollbacks_total')) == (1, 1)
    assert of(text, 'rollout_stage_verdict', stage='canary 5 %', verdict='fail') == 1
    assert of(text, 'rollout_share_ratio', arm='canary', kind='configured') == 0
    assert of(text, 'rollout_share_ratio', arm='blue', kind='configured') == 1
    assert of(text, 'rollout_lease_expiry_timestamp_seconds') is None
    back = next(event for event in events if event['event'] == 'way_back')
    assert of(text, 'rollout_way_back_seconds') == pytest.approx(back['seconds'])
    counted = sum(event['arms'].get('canary', {}).get('requests', 0) for event in events if event['event'] == 'sample')
    assert of(text, 'rollout_requests_total', arm='canary') == counted > 0


def test_the_lease_is_over_with_the_way_back():
    events = journal('rolled_back.jsonl')
    at = next(n for n, event in enumerate(events) if event['event'] == 'way_back')
    for end, there in ((at, True), (at + 1, False)):
        gauges = Gauges()
        gauges.feed(events[:end])
        assert (of(gauges.text(), 'rollout_lease_seconds') is not None) is there


def test_while_it_goes_on_the_shares_and_the_lease_are_there():
    gauges = Gauges()
    events = journal('promoted.jsonl')
    at = max(n for n, event in enumerate(events) if event['event'] == 'sample' and event['stage'] == 'canary 20 %')
    gauges.feed(events[:at + 1])
    text = gauges.text()
    assert (of(text, 'rollout_running'), of(text, 'rollout_stage'), of(text, 'rollout_stages')) == (1, 2, 4)
    assert of(text, 'rollout_share_ratio', arm='canary', kind='requested') == 0.2
    assert of(text, 'rollout_share_ratio', arm='green', kind='requested') == 0
    assert of(text, 'rollout_share_ratio', arm='canary', kind='observed') == pytest.approx(0.2, abs=0.05)
    assert of(text, 'rollout_lease_seconds') == 5
    assert of(text, 'rollout_lease_expiry_timestamp_seconds') == pytest.approx(events[at]['ts'] + events[at]['lease_s'])
    assert of(text, 'rollout_condition_limit', condition='errors', limit='abort', side='above') == 0.005
    assert of(text, 'rollout_evidence_limit_log10', condition='errors against stable', kind='harm') == pytest.approx(1.301, abs=0.001)
    assert of(text, 'rollout_latency_seconds', arm='blue', percentile='95') < 0.5
    gauges.feed(events[at + 1:])
    text = gauges.text()
    assert of(text, 'rollout_share_ratio', arm='green', kind='configured') == 1
    assert of(text, 'rollout_lease_seconds') is None and of(text, 'rollouts_total', outcome='promoted') == 1


def test_totals_go_on_from_what_the_rollout_before_has_left():
    first = Gauges()
    first.feed(journal('rolled_back.jsonl'))
    second = Gauges(first.text())
    second.feed([START])
    assert of(second.text(), 'rollouts_total', outcome='rolled_back') == 1
    second.feed([ENDED])
    assert of(second.text(), 'rollouts_total', outcome='rolled_back') == 2 and of(second.text(), 'rollout_duration_seconds') == 60
    assert of(second.text(), 'rollbacks_total') == 1
    spoilt = Gauges('delivery_rollouts_total{service="shop",outco')
    spoilt.feed([START, ENDED])
    assert of(spoilt.text(), 'rollouts_total', outcome='rolled_back') == 1


def test_a_run_that_is_gone_is_interrupted_and_keeps_its_lease():
    gauges = Gauges()
    gauges.feed([START, {'event': 'change', 'ts': 101.0, 'rollout': 'r1', 'after_bp': {'canary': 500, 'blue': 9500}, 'lease_s': 5.0}])
    gauges.lost(103.0)
    assert of(gauges.text(), 'rollout_outcome', outcome='interrupted') == 1 and of(gauges.text(), 'rollout_running') == 0
    assert of(gauges.text(), 'rollout_lease_expiry_timestamp_seconds') == 106


def test_names_and_labels_follow_the_conventions():
    gauges = Gauges()
    gauges.feed(journal('promoted.jsonl'))
    for name, (kind, _meaning) in HELP.items():
        assert re.fullmatch(r'delivery_[a-z0-9_]+', name) and name.endswith('_total') == (kind == 'counter')
    for line in gauges.text().splitlines():
        assert line.startswith('# ') or re.fullmatch(r'[a-z0-9_]+\{[^\n]*\} -?[0-9.e+-]+', line), line
    gauges = Gauges()
    gauges.feed([START])
    assert of(gauges.text(), 'rollout_info', rollout='r"1\\', version='5.1', previous_version='', strategy='', stable='blue',
              target='green', by='') == 1


VALUE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
EVENTS = ['rollout_started', 'stage_started', 'sample', 'stage_finished', 'way_back', 'asked', 'rollout_finished', 'change', 'watching',
          'verdict', 'answered']
EVENT = st.fixed_dictionaries(
    {'event': st.sampled_from(EVENTS), 'ts': st.floats(0, 1e9), 'index': st.integers(0, 5), 'stage': st.text(max_size=5)},
    optional={**{name: VALUE for name in ('service', 'arms', 'values', 'lease_s', 'stable', 'verdict', 'to')},
              'after_bp': st.dictionaries(st.text(max_size=3), st.integers(0, 10000), max_size=3)})


@given(st.lists(EVENT | VALUE, max_size=10))
def test_whatever_a_journal_holds_the_text_is_well_formed(events):
    gauges, annotator = Gauges(), Annotator()
    gauges.feed([{**START, 'service': 'shop'}, *events])
    text = gauges.text()
    parse(text, tuple(HELP))
    assert text.endswith('\n') and '\n\n' not in text
    for event in [START, *events]:
        for note in annotator.feed(event):
            assert json.dumps(note) and isinstance(note['time'], int) and note['time'] <= note.get('timeEnd', note['time'])


def test_annotations_tell_stages_as_regions_and_the_verdict():
    annotator = Annotator()
    notes = [note for event in journal('rolled_back.jsonl') for note in annotator.feed(event)]
    assert [note['tags'][-1] for note in notes] == ['started', 'verdict', 'stage', 'verdict', 'rolled_back', 'stage', 'finished']
    region = notes[5]
    assert region['timeEnd'] > region['time'] and region['text'] == 'shop 5.1: canary 5 %'
    assert notes[3]['text'].startswith('shop 5.1: fail in canary 5 %: canary: 3 of 46 requests failed')
    assert all(note['tags'][:2] == ['progressive.delivery', 'shop'] for note in notes)
    told, = Annotator().feed({**START, 'version': '<b>'})
    assert '&lt;b&gt;' in told['text']


def test_the_file_is_replaced_as_a_whole_and_a_bad_directory_is_told_once(tmp_path):
    told = []
    sink = Textfile(str(tmp_path), 'shop', lambda *args: told.append(args))
    sink([START], None)
    assert [path.name for path in tmp_path.iterdir()] == ['delivery_shop.prom']
    assert of((tmp_path / 'delivery_shop.prom').read_text(), 'rollout_running') == 1
    gone = Textfile(str(tmp_path / 'gone'), 'shop', lambda *args: told.append(args))
    gone([START], None)
    gone([ENDED], None)
    (about, error), = told
    assert about == 'metrics' and 'No such file or directory' in error


def test_wrong_options_are_refused_in_a_sentence_without_secrets(tmp_path):
    for options, text in (({'url': 'grafana'}, 'url of Grafana'), ({'url': 'http://g', 'tokn': 's3cret'}, 'no option "tokn"'),
                          ({'url': 'http://g', 'timeout': 99}, '1 to 30 seconds'),
                          ({'url': 'http://g', 'token': 's3cret\nx'}, 'cannot be sent')):
        with pytest.raises(BadInput, match=text) as refused:
            check_grafana(options)
        assert 's3cret' not in str(refused.value)
    for path, text in (('/nowhere/at/all', 'is not there'), ('a b', 'not usable')):
        with pytest.raises(BadInput, match=text):
            check_textfile_dir(path)
    assert check_textfile_dir(str(tmp_path)) == str(tmp_path)
