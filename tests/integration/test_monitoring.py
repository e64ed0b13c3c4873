# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules and alerts as Prometheus' own promtool judges them."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._monitoring import rules
from ansible_collections.progressive.delivery.plugins.module_utils._rollout_metrics import HELP
from monitoring_scenarios import burns, promtool_tests, quiet, scenarios

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = yaml.safe_load((ROOT / 'roles' / 'monitoring' / 'defaults' / 'main.yml').read_text())
GATES = yaml.safe_load((ROOT / 'roles' / 'delivery' / 'defaults' / 'main.yml').read_text())
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, float('inf'))


def options(**changed):
    """The role's defaults, with the limits that the gates have by default."""
    limits = {key: GATES['delivery_' + key] for key in ('error_ratio_abort', 'p95_pass_ms', 'p95_abort_ms', 'min_sample', 'min_events')}
    limits |= {'memory': DEFAULTS['monitoring_memory_abort'], 'cpu': DEFAULTS['monitoring_cpu_abort'],
               'failed_instances': DEFAULTS['monitoring_failed_instances_abort'],
               'workflow_errors': DEFAULTS['monitoring_workflow_errors_abort'], 'workflow_phase_s': DEFAULTS['monitoring_workflow_phase_s'],
               'objective': GATES['delivery_success_criteria']['availability']}
    queries = {**DEFAULTS['monitoring_queries'], 'workflow_errors': 'sum(increase(shop_workflow_failures_total{arm="$arm"}[$window]))',
               'workflow_phase': 'max(shop_phase_seconds{arm="$arm"})'}
    return {'limits': limits | changed, 'queries': queries, 'labels': {}, 'for': DEFAULTS['monitoring_for'],
            **{key: DEFAULTS['monitoring_' + key] for key in ('window', 'interval', 'stuck_after', 'rolled_back_hold')}}


def service(name='shop', **more):
    return {'name': name, 'arms': {arm: {'backend': arm} for arm in ('blue', 'canary')}, **more}


SHOP = service(conditions=[{'name': 'agents "all"', 'source': 'prometheus', 'metric': 'agents', 'abort_below': 0.92},
                           {'name': 'errors', 'metric': 'error_ratio', 'abort_above': 0.005}],
               sources={'prometheus': {'type': 'prometheus', 'queries': {'agents': 'max(shop_agents_ratio{arm="$arm"})'}}})


def promtool(*words):
    done = subprocess.run(['nice', 'promtool', *words], capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


def written(made, path):
    path.write_text(yaml.safe_dump(made, sort_keys=False, allow_unicode=True))
    return str(path)


def alerts(made):
    return [rule for group in made['groups'] for rule in group['rules'] if 'alert' in rule]


def without_annotations(made):
    """Their words are not what is tested here, and promtool would compare each."""
    made = copy.deepcopy(made)
    for rule in alerts(made):
        del rule['annotations']
    return made


def test_every_alert_fires_and_resolves(tmp_path):
    asked = options()
    made = rules.from_options([SHOP], asked)
    found = scenarios(asked, parse_duration, BUCKETS)
    assert {scenario.alert for scenario in found} | {'DeliveryBudgetBurn'} == {rule['alert'] for rule in alerts(made)}
    path = written(without_annotations(made), tmp_path / 'rules.yml')
    found += quiet(asked, parse_duration)
    status, said = promtool('test', 'rules', written(promtool_tests(path, found, '30s'), tmp_path / 'tests.yml'))
    assert status == 0, said


def test_every_burn_rate_fires_and_resolves(tmp_path):
    # Three days in steps of five minutes.
    asked = {**options(), 'window': '15m', 'interval': '5m'}
    made = without_annotations(rules.from_options([service()], asked))
    found = burns(asked, parse_duration, 300)
    assert {one.labels['burn'] for one in found} == {rule['labels']['burn'] for rule in alerts(made) if 'burn' in rule['labels']}
    for one in found:
        # The long windows' alerts fire as well where nothing else was before: each is tried alone.
        alone = {'groups': [{**group, 'rules': [rule for rule in group['rules'] if 'record' in rule
                                                or rule['labels'].get('burn') == one.labels['burn']]} for group in made['groups']]}
        path = written(alone, tmp_path / 'rules.yml')
        status, said = promtool('test', 'rules', written(promtool_tests(path, [one], '5m', 300), tmp_path / 'tests.yml'))
        assert status == 0, said


def test_promtool_accepts_the_rules_with_their_words(tmp_path):
    status, said = promtool('check', 'rules', written(rules.from_options([SHOP], options()), tmp_path / 'rules.yml'))
    assert status == 0, said


def test_a_gates_limit_is_the_alerts_limit(tmp_path):
    """The scenarios follow the limit; rules of another one do not pass them."""
    asked = options(error_ratio_abort=0.05)
    found = [one for one in scenarios(asked, parse_duration, BUCKETS) if one.alert == 'DeliveryErrorRateHigh']
    for limits, good in ((asked, True), (options(), False)):
        path = written(without_annotations(rules.from_options([SHOP], limits)), tmp_path / 'rules.yml')
        status, said = promtool('test', 'rules', written(promtool_tests(path, found, '30s'), tmp_path / 'tests.yml'))
        assert (status == 0) is good, said


def test_300_services_and_odd_names(tmp_path):
    odd = 'a "b" \'c\' {{ $value }} \\ ü: #'
    asked = options()
    made = rules.from_options([service('svc-%d' % n, labels={'team': odd}, runbook='https://x/"?{{ y }}', conditions=[
        {'name': odd, 'source': 'p', 'metric': 'm', 'abort_above': 1}], sources={'p': {'type': 'prometheus', 'queries': {'m': 'max(x)'}}})
        for n in range(298)] + [service('rollouts'), service('Shop.EU_1:b')], {**asked, 'labels': {'site': odd}})
    assert len(made['groups']) == 301
    status, said = promtool('check', 'rules', written(made, tmp_path / 'rules.yml'))
    assert status == 0 and 'SUCCESS' in said, said[-2000:]


@pytest.mark.parametrize('services, changed, text', [
    ([{'arms': {}}], {}, 'service None is not a valid name'),
    ([service('shop"x')], {}, 'is not a valid name'),
    ([service(), service()], {}, 'the service "shop" twice'),
    ([service(arms={})], {}, 'arms of the service "shop"'),
    ([service(limits={'p95': 1})], {}, 'There is no "p95"'),
    ([service(limits={'memory': 'much'})], {}, "memory of the service \"shop\" in monitoring_services is 'much'"),
    ([service(limits={'objective': 1})], {}, 'between 0 and 1'),
    ([service(queries={'requests': 'x{$nothing}'})], {}, r'uses \$nothing'),
    ([service(queries={'requests': ''})], {}, 'The query "requests"'),
    ([service(labels={'severity': 'x'})], {}, "label 'severity'"),
    ([service()], {'window': 'soon'}, 'monitoring_window'),
    ([service()], {'for': {}}, 'error_rate of monitoring_for'),
    ('shop', {}, 'must be a list'),
])
def test_mistakes_are_told_in_a_sentence(services, changed, text):
    with pytest.raises(BadInput, match=text) as refused:
        rules.from_options(services, {**options(), **changed})
    assert str(refused.value).endswith('.') and '\n' not in str(refused.value)


def lost(before, after, path=''):
    """What of *before* is not in *after*."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after[key], '%s.%s' % (path, key)) if key in after else ['%s.%s' % (path, key)]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, '%s[%d]' % (path, number))
    elif before != after:
        yield '%s: %r is %r' % (path, before, after)


@pytest.mark.parametrize('name', ['rollout', 'fleet'])
def test_dashboards_fit_grafanas_own_model(name):
    """A field that Grafana does not know is one that its model loses."""
    encoder = pytest.importorskip('grafana_foundation_sdk.cog.encoder')
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard
    plugins.register_default_plugins()
    raw = json.loads((ROOT / 'roles' / 'monitoring' / 'files' / (name + '.json')).read_text())
    assert list(lost(raw, json.loads(encoder.JSONEncoder(sort_keys=True).encode(Dashboard.from_json(raw))))) == []
    spoilt = copy.deepcopy(raw)
    spoilt['panels'][0]['options']['colourMode'] = 'value'
    assert list(lost(spoilt, json.loads(encoder.JSONEncoder(sort_keys=True).encode(Dashboard.from_json(spoilt)))))


@pytest.mark.parametrize('name', ['rollout', 'fleet'])
def test_dashboards_ask_for_what_there_is(name, tmp_path):
    raw = json.loads((ROOT / 'roles' / 'monitoring' / 'files' / (name + '.json')).read_text())
    asked = [target['expr'].replace('$service', 'shop') for panel in raw['panels'] for target in panel['targets']]
    made = rules.from_options([SHOP], options())
    there = {rule['record'] for group in made['groups'] for rule in group['rules'] if 'record' in rule} | set(HELP)
    named = {word for text in asked for word in re.findall(r'\b(?:service(?:_arm)?:)?delivery_[a-z_0-9:]+', text)}
    assert named <= there, named - there
    as_rules = {'groups': [{'name': name, 'rules': [{'record': 'asked:%d' % n, 'expr': text} for n, text in enumerate(asked)]}]}
    status, said = promtool('check', 'rules', written(as_rules, tmp_path / 'rules.yml'))
    assert status == 0, said
