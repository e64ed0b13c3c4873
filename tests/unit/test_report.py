# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a rollout: of journals that the lab recorded, and of what is left of journals when things go wrong."""

from __future__ import annotations

import asyncio
import html.parser
import json
import os
import subprocess
import sys
from xml.etree import ElementTree
from datetime import timedelta, timezone
from pathlib import Path

import pytest

hypothesis = pytest.importorskip('hypothesis')

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from ansible_collections.progressive.delivery.plugins.module_utils import _status  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._journal import scan_journal  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._report import (  # noqa: E402
    charts, facts, files, markdown, markup, model, page, task)
from ansible_collections.progressive.delivery.plugins.module_utils._report.clean import EVENTS, clean  # noqa: E402

JOURNALS = Path(__file__).parent / 'journals'
BACK = (JOURNALS / 'rolled_back.jsonl').read_text(encoding='utf-8')
GOOD = (JOURNALS / 'promoted.jsonl').read_text(encoding='utf-8')
VOID = {'meta', 'br', 'hr', 'link', 'img', 'input'}


def report(text, alive=None):
    return model.build(scan_journal(text), '/j/shop-1.jsonl', alive)


def lines(*events):
    return ''.join(json.dumps({'ts': 100.0 + number, 'rollout': 'r1', **event}) + '\n' for number, event in enumerate(events))


def without(text, *names):
    return ''.join(line + '\n' for line in text.splitlines() if json.loads(line)['event'] not in names)


class Checked(html.parser.HTMLParser):
    """Raises where tags do not match; keeps the tags, their attributes and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.said = [], [], ''
        self.feed(text)
        self.close()
        assert not self.open, 'not closed: %s' % self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        if 'style' not in self.open:
            self.said += data

    def unknown_decl(self, data):
        raise AssertionError(data)


def rendered(made, zone=None):
    """Every form of a report; checks what must hold of each whatever it says."""
    text = page.render(made, zone)
    checked = Checked(text)
    names = {tag for tag, _attributes in checked.tags}
    assert not names & {'script', 'link', 'img', 'iframe', 'object', 'form', 'a'}
    assert not [key for _tag, attributes in checked.tags for key in attributes if key.startswith('on') or key in ('src', 'href', 'style')]
    for drawing in text.split('<svg')[1:]:
        ElementTree.fromstring('<svg' + drawing.partition('</svg>')[0] + '</svg>')
    ids = [attributes['id'] for _tag, attributes in checked.tags if 'id' in attributes]
    assert len(ids) == len(set(ids))
    json.loads(json.dumps(made.as_dict(), allow_nan=False))
    markdown.render(made, zone)
    _status.render(_status.status(None, made, 1e9), 100)
    return checked


def first_screen(checked):
    return checked.said.partition('What to look at')[0]


def test_the_first_screen_of_a_rolled_back_rollout_tells_what_when_why_and_who_was_hurt():
    said = first_screen(rendered(report(BACK)))
    for part in ('Rolled back: shop 5.0 → 5.1', 'taken out in stage 1 of 4 (canary 5 %)', 'back on blue 0.66 s after the verdict',
                 'Sun 22 Nov 2026 19:04:48 – 19:05:26 UTC (38 s)', 'canary: 3 of 46 requests failed (6.52 %)',
                 'Yes. 25 of the 130 requests that the new version had failed (19.23 %)', 'None of the 8320 others did.', 'root'):
        assert part in said, part


def test_the_first_screen_of_a_promoted_rollout_says_that_nobody_was_hurt():
    made = report(GOOD)
    said = first_screen(rendered(made))
    for part in ('Promoted: shop 5.0 → 5.1', '5.1 has all of the traffic on green: 4 of 4 stages passed in 1 min 1 s.',
                 'No. None of 17557 requests failed, 7931 of them on the new version.'):
        assert part in said, part
    assert {one.verdict for one in made.criteria} == {'met', 'not needed'}
    assert [stage.verdict for stage in made.stages] == ['pass'] * 4 and made.hurt_users is False


def test_users_who_waited_were_hurt_though_no_request_failed():
    made = report(GOOD.replace('"p95_ms": 500.0', '"p95_ms": 50').replace('"p99_ms": 1000.0', '"p99_ms": 60'))
    assert made.hurt_users is True
    assert made.hurt.startswith('Yes, by waiting. Users of the new version waited: P95 60 ms (target < 50 ms), P99 82 ms (target < 60 ms).')


def test_the_split_over_time_is_what_the_routers_had():
    made = report(GOOD)
    steps = [step['bp'] for step in made.split]
    assert steps[0] == {'blue': 10000} and {'canary': 500, 'blue': 9500} in steps and steps[-1].get('green') == 10000
    assert report(BACK).split[-1]['bp'] == {'blue': 10000}


def test_requests_between_the_watches_are_counted_too():
    made = report(BACK)
    assert (made.losses.basis, made.losses.new_requests, made.losses.new_failed) == ('counters', 130, 25)
    watched = report(without(BACK, 'counters'))
    assert (watched.losses.basis, watched.losses.new_requests, watched.losses.new_failed) == ('watched', 46, 3)
    assert 'requests between two watches and during the way back are not among them' in watched.hurt


def test_counters_that_began_anew_are_not_subtracted():
    made = report(lines({'event': 'counters', 'arms': {'canary': {'requests': 50, 'errors': 5}}},
                        {'event': 'sample', 'stage': 's', 'arms': {'canary': {'requests': 7, 'errors': 1}}},
                        {'event': 'counters', 'arms': {'canary': {'requests': 3, 'errors': 0}}}))
    assert (made.losses.basis, made.losses.requests, made.losses.failed) == ('watched', 7, 1)


def test_counters_of_some_endpoints_only_are_no_sum():
    made = report(lines({'event': 'counters', 'arms': {'canary': {'requests': 5, 'errors': 0}}},
                        {'event': 'sample', 'stage': 's', 'arms': {'canary': {'requests': 70, 'errors': 1}}},
                        {'event': 'counters', 'arms': {'canary': {'requests': 25, 'errors': 0}}}))
    assert (made.losses.basis, made.losses.requests, made.losses.failed) == ('watched', 70, 1)


def test_local_time_stands_beside_utc_where_it_differs():
    made = report(BACK)
    assert '20:04:48 – 20:05:26 CET' in first_screen(rendered(made, timezone(timedelta(hours=1), 'CET')))
    assert 'CET' not in first_screen(rendered(made, timezone(timedelta(0), 'CET')))


def test_a_criterion_that_was_not_measured_is_not_passed():
    made = report(lines({'event': 'rollout_started', 'service': 'shop', 'plan': [{'index': 1, 'share_bp': 500, 'arm': 'canary'}]}))
    assert {one.name: one.verdict for one in made.criteria} == {
        'Errors of the new version': 'not measured', 'P50 of the new version': 'not measured', 'P95 of the new version': 'not measured',
        'P99 of the new version': 'not measured', 'Availability for all users': 'not measured', 'Time of the way back': 'not needed',
        'Whole rollout': 'not measured'}


def test_criteria_are_those_that_were_asked_for():
    asked = BACK.replace('"criteria": {', '"criteria": {"requests_per_second": 100, ', 1).replace('"requests_per_second": 0.0, ', '')
    asked = asked.replace('"p50_ms": 200.0', '"p50_ms": 0')
    verdicts = {one.name: (one.verdict, one.measured) for one in report(asked).criteria}
    assert 'P50 of the new version' not in verdicts
    assert verdicts['Throughput of the service'] == ('met', '171 requests per second')
    assert verdicts['Errors of the new version'] == ('missed', '19.23 %')


@pytest.mark.parametrize('wrong', [{'nope': 1}, {'p95_ms': 'fast'}, {'p95_ms': -1}, {'p95_ms': True}, {'p95_ms': float('nan')}])
def test_a_criterion_that_nobody_knows_or_that_is_no_number_is_refused(wrong):
    with pytest.raises(BadInput, match='delivery_success_criteria'):
        facts.check_criteria(wrong)
    assert facts.check_criteria({'p95_ms': '500', 'requests_per_second': None}) == {'p95_ms': 500.0, 'requests_per_second': 0.0}


def test_plots_show_what_they_say_in_words_and_the_limits():
    checked = rendered(report(BACK))
    for part in ('Shares of traffic', 'The new version had at most 5 % of the traffic', 'go back above 0.5 %', 'pass below 500 ms',
                 'go back at 20 : 1', 'Evidence for and against harm', 'traffic back'):
        assert part in checked.said, part
    assert all(attributes.get('aria-labelledby') or attributes.get('aria-hidden') for tag, attributes in checked.tags if tag == 'svg')


def test_what_comes_from_outside_is_never_markup():
    evil = '"><script>alert(1)</script><img src=x onerror=y>&lt;\x00\ud800\u202e'
    text = lines(
        {'event': 'rollout_started', 'service': evil, 'version': evil, 'previous_version': evil, 'by': evil, 'stable': evil, 'target': evil,
         'plan': [{'index': 1, 'share_bp': 500, 'arm': evil, 'name': evil, 'bake_s': 5}], 'tools': {evil: evil}, 'report_dir': evil},
        {'event': 'stage_started', 'index': 1, 'label': evil, 'arm': evil, 'name': evil, 'requested_bp': {evil: 500}},
        {'event': 'watching', 'stage': evil, 'conditions': [{'name': evil, 'metric': evil, 'type': 'threshold', 'unit': evil, 'arm': evil,
                                                             'abort': [['above', 1]]}]},
        {'event': 'sample', 'stage': evil, 'at_s': 1, 'arms': {evil: {'requests': 9, 'errors': 1, 'p95_ms': 5}}, 'values': {evil: 2},
         'evidence': {evil: {'harm': 1}}},
        {'event': 'sample', 'stage': evil, 'at_s': 2, 'arms': {evil: {'requests': 9, 'errors': 1, 'p95_ms': 5}}, 'values': {evil: 2}},
        {'event': 'change', 'endpoint': evil, 'after_bp': {evil: 500}}, {'event': evil, 'text': evil}, {'event': 'note', 'text': evil},
        {'event': 'answered', 'text': evil, 'by': evil, 'answer': evil, 'stage': evil, 'reason': evil},
        {'event': 'verdict', 'stage': evil, 'verdict': evil, 'reason': evil,
         'conditions': [{'name': evil, 'reason': evil, 'verdict': evil}]},
        {'event': 'way_back', 'to': evil, 'seconds': 1, 'endpoints': [{'endpoint': evil, 'ok': False, 'error': evil}]},
        {'event': 'rollout_finished', 'outcome': 'rolled_back', 'reason': evil})
    made = report(text)
    checked = rendered(made)
    assert '<script>alert(1)</script>' in checked.said, 'it is shown as text'
    assert '\x00' not in checked.said and '\u202e' not in checked.said
    document = markdown.render(made)
    assert '<script' not in document.replace('\\<script', '')


def test_a_journal_that_is_cut_off_is_reported_and_said_to_be():
    cut = BACK[:len(BACK) * 2 // 3]
    made = report(cut)
    assert made.outcome == 'unknown' and 'ends without a word' in made.headline
    assert any('cut off in the middle' in one for one in made.damage)
    said = rendered(made).said
    assert 'Ended without a word' in said and 'cut off in the middle' in said


def test_a_run_that_was_killed_tells_what_became_of_the_traffic():
    events = BACK.splitlines()
    cut = next(number for number, line in enumerate(events) if '"verdict"' in line and 'canary 5 %' in line)
    made = report('\n'.join(events[:cut]) + '\n', alive=False)
    assert made.outcome == 'unknown'
    assert 'in stage 1 of 4 (canary 5 %)' in made.headline and 'ended with its lease' in made.headline
    assert report('\n'.join(events[:cut]) + '\n', alive=True).outcome == 'running'
    assert not made.damage


def test_a_run_that_a_signal_ended_says_which_and_where_the_traffic_is():
    text = without(BACK, 'rollout_finished').replace('"event": "verdict", "stage": "canary 5 %"',
                                                     '"event": "signal", "signal": "SIGINT", "stage": "canary 5 %"')
    made = report(text)
    assert made.outcome == 'interrupted'
    assert 'stopped by SIGINT in stage 1 of 4' in made.headline and 'back on blue' in made.headline


def test_an_empty_journal_is_said_to_be_empty():
    for text in ('', '\n\n'):
        made = report(text)
        assert (made.outcome, made.hurt_users) == ('unknown', None)
        assert 'nothing is known' in rendered(made).said and made.damage == ['The journal is empty.']


def test_a_gate_that_went_blind_is_not_the_new_versions_fault():
    conditions = [{'name': name, 'reason': 'the ring is not followed', 'verdict': 'error'} for name in ('errors', 'latency')]
    made = report(lines({'event': 'rollout_started', 'stable': 'blue', 'version': '2'},
                        {'event': 'stage_started', 'index': 1, 'label': 'c', 'arm': 'canary'},
                        {'event': 'way_back', 'to': 'blue', 'seconds': 1},
                        {'event': 'stage_finished', 'index': 1, 'label': 'c', 'arm': 'canary', 'verdict': 'error',
                         'reason': 'router is gone', 'conditions': conditions},
                        {'event': 'rollout_finished', 'outcome': 'rolled_back', 'reason': 'error: router is gone. Traffic is back.'}))
    assert made.why == 'error: router is gone.'
    assert made.follow_up[0] == 'Mend what the gate could not see (errors, latency): the ring is not followed.'
    assert not any('Find the cause' in one for one in made.follow_up)
    assert 'Find the cause in 5.1 (errors)' in report(BACK).follow_up[0]


def test_endpoints_that_the_way_back_did_not_reach_come_first():
    made = report(lines({'event': 'rollout_started', 'stable': 'blue', 'version': '2'},
                        {'event': 'stage_started', 'index': 1, 'label': 'c', 'arm': 'canary'},
                        {'event': 'way_back', 'to': 'blue', 'seconds': 1, 'complete': False,
                         'endpoints': [{'endpoint': 'lb2', 'ok': False, 'error': 'no answer.'}, {'endpoint': 'lb1', 'ok': True}]},
                        {'event': 'rollout_finished', 'outcome': 'rolled_back', 'reason': 'x'}))
    assert 'NOT all traffic could be returned' in made.headline and 'lb2: no answer' in made.follow_up[0]
    assert {one.name: one.verdict for one in made.criteria}['Time of the way back'] == 'missed'


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=12)
    | st.sampled_from(['canary', 'blue', 'canary 5 %', 'pass']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.sampled_from(
        'index arms canary blue requests errors stage label name reason p95_ms harm'.split()), inner, max_size=5),
    max_leaves=12)
FIELDS = '''index label name arm stage arms values evidence conditions plan requested_bp after_bp to seconds reason verdict stable version
service by lease_s outcome text criteria tools ts share_bp bake_s endpoints observed_bp at_s'''.split()
ANY_EVENT = st.builds(lambda name, ts, more: {**more, 'event': name, 'ts': ts}, st.sampled_from(sorted(EVENTS)),
                      st.floats(0, 1e11) | st.integers(), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8))


@given(st.lists(ANY_EVENT | JSON, max_size=12), st.integers(0, 400))
def test_no_journal_is_too_strange_for_a_report(events, cut):
    text = '\n'.join(json.dumps(event) for event in events)
    rendered(report(text[:len(text) - cut] if cut < 40 else text))


@given(st.data())
def test_a_recorded_journal_with_any_field_spoilt_still_makes_a_report(data):
    events = [json.loads(line) for line in BACK.splitlines()]
    for _time in range(data.draw(st.integers(1, 4))):
        spot = data.draw(st.sampled_from(events))
        for _depth in range(data.draw(st.integers(0, 3))):
            inner = [value for value in (spot.values() if isinstance(spot, dict) else spot) if isinstance(value, (dict, list)) and value]
            if not inner:
                break
            spot = data.draw(st.sampled_from(inner))
        key = data.draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
        spot[key] = data.draw(JSON)
    rendered(report('\n'.join(json.dumps(event) for event in events)))


@given(st.integers(0, len(BACK)))
def test_a_journal_may_end_anywhere(end):
    made = report(BACK[:end])
    assert made.outcome in ('unknown', 'rolled_back')
    rendered(made)


@given(st.binary(max_size=300))
def test_what_is_no_journal_at_all_makes_a_report_that_says_so(data):
    rendered(report(data.decode('utf-8', errors='replace')))


def test_checking_keeps_every_event_of_a_real_journal():
    for text in (BACK, GOOD):
        found = scan_journal(text)
        assert clean(found.events).refused == 0 and not found.unreadable


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.sampled_from('ab')), max_size=60), st.integers(1, 20))
def test_thinning_out_loses_no_request(counts, most):
    samples = [{'ts': float(number), 'stage': stage, 'arms': {'canary': {'requests': n + e, 'errors': e, 'p95_ms': float(n)}}}
               for number, (n, e, stage) in enumerate(counts)]
    thin = model.thin(samples, most)
    for key in ('requests', 'errors'):
        assert sum(one['arms']['canary'][key] for one in thin) == sum(one['arms']['canary'][key] for one in samples)
    assert len(thin) <= most + sum(one['stage'] != two['stage'] for one, two in zip(samples, samples[1:])) + 1
    assert max((one['arms']['canary']['p95_ms'] for one in thin), default=0) == max((n for n, _e, _s in counts), default=0)


@given(st.floats(1e-3, 1e9), st.floats(1e-3, 1e9))
def test_a_scale_holds_what_it_was_made_for(one, two):
    low, high = min(one, two), max(one, two)
    for scale in (charts.linear(0, high, str), charts.linear(0, high, str, root=True), charts.log(low, high, str)):
        assert scale.low < scale.high and len(scale.ticks) <= 12
        assert scale.high >= high * 0.99 and 0 <= scale(low) <= scale(high) <= 1
        assert list(scale.ticks) == sorted(scale.ticks)


@given(st.floats(0, 4e9), st.floats(0.01, 1e9))
def test_ticks_of_time_are_few_and_inside(start, span):
    ticks = charts.time_ticks(start, start + span)
    assert len(ticks) <= 8 and all(start - 1e-6 <= at <= start + span + 1e-6 for at, _label in ticks)


@pytest.mark.parametrize('ratio, told', [
    (0, '0 %'), (0.0001, '0.01 %'), (0.001, '0.1 %'), (0.2222222, '22.22 %'), (1, '100 %'), (1e-9, '< 0.001 %')])
def test_per_cent(ratio, told):
    assert facts.percent(ratio) == told


def test_an_availability_is_never_rounded_up_to_its_target():
    assert facts.percent(0.9989999, True) == '99.899 %'
    assert facts.percent(0.999999, True) == '99.999 %'


def test_the_three_files_are_written_at_once_and_only_when_they_change(tmp_path):
    journal = tmp_path / 'shop-1.jsonl'
    journal.write_text(BACK.replace('"report_dir": "/lab/state/shop"', '"report_dir": %s' % json.dumps(str(tmp_path / 'out'))))
    made = files.write(str(journal))
    assert made['changed'] and sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['shop-1.html', 'shop-1.json', 'shop-1.md']
    assert json.loads((tmp_path / 'out' / 'shop-1.json').read_text())['schema'] == 1
    assert not files.write(str(journal))['changed']
    assert files.write(str(journal), str(tmp_path / 'other'))['files']['md'] == str(tmp_path / 'other' / 'shop-1.md')


def test_a_report_that_is_made_again_by_another_process_is_the_same(tmp_path):
    journal = tmp_path / 'shop-1.jsonl'
    journal.write_text(GOOD)
    script = ('import sys; sys.path[:0] = %r\nfrom %s import files\nprint(files.write(%r, %r)["changed"])' % (
        sys.path, files.__name__.rpartition('.')[0], str(journal), str(tmp_path)))
    said = [subprocess.run([sys.executable, '-c', script], env={**os.environ, 'PYTHONHASHSEED': seed}, capture_output=True, text=True,
                           check=True).stdout.strip() for seed in '123']
    assert said == ['True', 'False', 'False']


def options(**more):
    return {'journal': None, 'service': None, 'state_dir': None, 'directory': None, 'arms': {}, 'endpoints': [], 'on_error': 'warn', **more}


def test_a_report_that_cannot_be_written_fails_only_where_it_is_asked_for(tmp_path):
    journal = tmp_path / 'shop-1.jsonl'
    journal.write_text(BACK)
    (tmp_path / 'file').write_text('')
    wrong = options(journal=str(journal), directory=str(tmp_path / 'file' / 'x'))
    told = asyncio.run(task.run(wrong))
    assert not told.get('failed') and 'delivery_report_dir' in told['warnings'][0]
    with pytest.raises(DeliveryError, match='delivery_report_dir'):
        asyncio.run(task.run({**wrong, 'on_error': 'fail'}))
    assert asyncio.run(task.run(options(journal=str(tmp_path / 'none.jsonl'))))['warnings']
    with pytest.raises(BadInput, match='has no journal'):
        asyncio.run(task.run(options(service='shop', state_dir=str(tmp_path), on_error='fail')))


def test_the_last_word_of_a_run_is_written_only_where_it_was_asked_for_and_never_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(task, '_LAST_DEADLINE_S', 0.1)
    journal = tmp_path / 'shop-1.jsonl'
    here = '"report_dir": %s' % json.dumps(str(tmp_path))
    journal.write_text(without(BACK, 'rollout_finished').replace('"report_dir": "/lab/state/shop"', here))
    assert task.write_where_asked(str(journal)) == str(tmp_path / 'shop-1.html')
    silent = tmp_path / 'shop-2.jsonl'
    silent.write_text(BACK.replace('"report_dir": "/lab/state/shop"', '"x": 1'))
    os.mkfifo(tmp_path / 'shop-3.jsonl')
    for path in (None, str(silent), str(tmp_path / 'none.jsonl'), str(tmp_path / 'shop-3.jsonl')):
        assert task.write_where_asked(path) is None
    with open(tmp_path / 'shop-3.jsonl', 'w', encoding='utf-8'):
        pass  # lets the thread that waits for a writer end
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.suffix != '.jsonl') == ['.html', '.json', '.md']


def test_markup_escapes_attributes_as_well():
    assert markup.el('a', '<', title='"><b>') == '<a title="&quot;&gt;&lt;b&gt;">&lt;</a>'


def test_a_balancer_that_does_not_answer_costs_the_last_look_and_nothing_else(tmp_path):
    journal = tmp_path / 'shop-1.jsonl'
    journal.write_text(BACK)
    told = asyncio.run(task.run(options(
        journal=str(journal), directory=str(tmp_path), arms={'blue': {'backend': 'blue'}, 'canary': {'backend': 'canary'}},
        endpoints=[{'name': 'lb1', 'socket': 'unix://%s' % (tmp_path / 'nobody.sock'), 'map': '/m'}])))
    assert 'counters' in told['warnings'][0] and (tmp_path / 'shop-1.html').exists()
    assert journal.read_text() == BACK
