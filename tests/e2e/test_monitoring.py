# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alerts of a real Prometheus while a bad candidate gets traffic and after it was taken out."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from haproxy_lab import wait_for

pytestmark = [pytest.mark.xdist_group('e2e'), pytest.mark.skipif(not shutil.which('prometheus'), reason='Prometheus is not installed')]


def fired(lab, alert):
    """The labels and the beginning of each time that an alert fired."""
    return [(labels, began) for labels, values in lab.history('ALERTS_FOR_STATE{alertname="%s"}' % alert)
            for began in sorted({value for _at, value in values})]


def firing(lab, alert):
    return lab.ask('ALERTS{alertname="%s",alertstate="firing"}' % alert)


@pytest.fixture(scope='module')
def rolled_back(lab):
    if not shutil.which('prometheus-node-exporter'):
        pytest.skip('the node exporter is not installed')
    done, result = lab.rollout('errors')
    assert result['outcome'] == 'rolled_back', done.stdout + done.stderr
    return result


def test_a_bad_candidate_is_told_of_once_and_it_is_over_after_the_way_back(lab, rolled_back):
    for alert, arm in (('DeliveryErrorRateHigh', 'canary'), ('DeliveryRolledBack', None)):
        wait_for(lambda: fired(lab, alert), '%s; there were %s' % (alert, lab.ask('ALERTS')), 30)
        (labels, _began), = fired(lab, alert)
        assert (labels['service'], labels.get('arm')) == ('shop', arm)
        wait_for(lambda: not firing(lab, alert), 'the end of %s' % alert, 60)
        assert len(fired(lab, alert)) == 1
    # The same truth as the journal's.
    assert lab.ask('delivery_rollout_outcome{outcome="rolled_back"}')[0][1] == 1
    (info, _one), = lab.ask('delivery_rollout_info')
    assert info['rollout'] in rolled_back['journal'] and info['version'] == '5.1'
    assert {labels['arm']: value for labels, value in lab.ask('delivery_rollout_share_ratio{kind="configured"}')}['blue'] == 1


def test_the_labs_rules_are_those_of_the_role(lab):
    assert subprocess.run(['promtool', 'check', 'rules', str(lab.dir / 'rules.yml')], capture_output=True, check=False).returncode == 0
