# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alerts of a real Prometheus while a bad candidate gets traffic and after it was taken out."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request

import pytest

from haproxy_lab import wait_for

pytestmark = [pytest.mark.xdist_group('e2e'), pytest.mark.skipif(not shutil.which('prometheus'), reason='Prometheus is not installed')]


def ask(lab, query):
    """Returns [(labels, value)] of an instant query."""
    url = 'http://127.0.0.1:%d/api/v1/query?%s' % (int(lab.env['LAB_PORT']) + 2, urllib.parse.urlencode({'query': query}))
    with urllib.request.urlopen(url, timeout=10) as reply:
        return [(one['metric'], float(one['value'][1])) for one in json.load(reply)['data']['result']]


def history(lab, selector):
    """Returns [(labels, [(time, value)])] of all that Prometheus has of *selector*."""
    url = 'http://127.0.0.1:%d/api/v1/query?%s' % (int(lab.env['LAB_PORT']) + 2, urllib.parse.urlencode({'query': selector + '[15m]'}))
    with urllib.request.urlopen(url, timeout=10) as reply:
        return [(one['metric'], [(at, float(value)) for at, value in one['values']]) for one in json.load(reply)['data']['result']]


def fired(lab, alert):
    """The labels and the beginning of each time that an alert fired."""
    return [(labels, began) for labels, values in history(lab, 'ALERTS_FOR_STATE{alertname="%s"}' % alert)
            for began in sorted({value for _at, value in values})]


def firing(lab, alert):
    return ask(lab, 'ALERTS{alertname="%s",alertstate="firing"}' % alert)


@pytest.mark.skipif(not shutil.which('prometheus-node-exporter'), reason='the node exporter is not installed')
def test_a_bad_candidate_is_told_of_once_and_it_is_over_after_the_way_back(lab):
    done, result = lab.rollout('errors')
    assert result['outcome'] == 'rolled_back', done.stdout + done.stderr
    for alert, arm in (('DeliveryErrorRateHigh', 'canary'), ('DeliveryRolledBack', None)):
        wait_for(lambda: fired(lab, alert), '%s; there were %s' % (alert, ask(lab, 'ALERTS')), 30)
        (labels, _began), = fired(lab, alert)
        assert (labels['service'], labels.get('arm')) == ('shop', arm)
        wait_for(lambda: not firing(lab, alert), 'the end of %s' % alert, 60)
        assert len(fired(lab, alert)) == 1
    # The same truth as the journal's.
    assert ask(lab, 'delivery_rollout_outcome{outcome="rolled_back"}')[0][1] == 1
    (info, _one), = ask(lab, 'delivery_rollout_info')
    assert info['rollout'] in result['journal'] and info['version'] == '5.1'
    assert {labels['arm']: value for labels, value in ask(lab, 'delivery_rollout_share_ratio{kind="configured"}')}['blue'] == 1
    # Prometheus has counted what the load generator has sent; what was recorded of it is a rate over a window, so a little off.
    counters = [values for _labels, values in history(lab, 'haproxy_backend_http_responses_total{proxy=~"blue|green|canary"}')]
    assert sum(values[-1][1] for values in counters) == pytest.approx(result['requests'], rel=0.01)
    (_labels, rates), = history(lab, 'service:delivery_requests:rate{service="shop"}')
    recorded = sum((later - at) * (rate + after) / 2 for (at, rate), (later, after) in zip(rates, rates[1:]))
    # Its first scrape may come after the first requests.
    assert recorded == pytest.approx(sum(values[-1][1] - values[0][1] for values in counters), rel=0.05)


def test_the_labs_rules_are_those_of_the_role(lab):
    assert subprocess.run(['promtool', 'check', 'rules', str(lab.dir / 'rules.yml')], capture_output=True, check=False).returncode == 0
