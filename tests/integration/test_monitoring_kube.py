# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role before a real Kubernetes API server, with the definitions that Prometheus' operator publishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kube_api import KubeApi

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = '/apis/monitoring.coreos.com/v1/namespaces/watching/%s'
ARMS = {'blue': {'backend': 'blue'}, 'canary': {'backend': 'canary'}}
ODD = 'a "b" \'c\' $value \\ ü: #'


@pytest.fixture(scope='module')
def cluster():
    with KubeApi(users=['stranger']) as api:
        api.kubectl('create', 'namespace', 'watching')
        yield api


@pytest.fixture(scope='module')
def operator(cluster):
    cluster.definitions('prometheus')
    return cluster


@pytest.fixture
def play(tmp_path):
    def run(kubeconfig, *services):
        (tmp_path / 'vars.json').write_text(json.dumps({
            'ansible_python_interpreter': sys.executable, 'delivery_service': 'shop', 'delivery_arms': ARMS, 'delivery_endpoints': [],
            'monitoring_services': [{'name': name, 'arms': ARMS, 'labels': {'team': ODD}} for name in services],
            'monitoring_prometheus': False, 'monitoring_kubernetes': True, 'monitoring_kubernetes_namespace': 'watching',
            'monitoring_kubernetes_labels': {'release': 'prometheus'}, 'monitoring_kubernetes_connection': {'kubeconfig': kubeconfig},
            'monitoring_kubernetes_service_monitors': {'haproxy': {
                'selector': {'matchLabels': {'app': 'haproxy'}}, 'endpoints': [{'port': 'metrics', 'interval': '15s'}]}}}))
        done = subprocess.run(
            [str(Path(sys.executable).with_name('ansible-playbook')), '-i', 'localhost,', '-c', 'local',
             str(ROOT / 'playbooks' / 'monitoring.yml'), '-e', '@%s' % (tmp_path / 'vars.json')], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, 'ANSIBLE_CONFIG': str(ROOT / 'ansible.cfg'), 'ANSIBLE_NOCOLOR': '1'}, timeout=600, check=False)
        return done.returncode, ' '.join((done.stdout + done.stderr).split())
    return run


# The first of all, since definitions stay.
def test_without_the_operator_nothing_is_made(cluster, play):
    status, said = play(cluster.kubeconfig, 'shop')
    assert status != 0 and 'The cluster does not know PrometheusRule and ServiceMonitor, so nothing was made there' in said, said


def test_who_may_not_is_told_so_in_a_sentence(operator, play):
    status, said = play(operator.kubeconfig_for('stranger'), 'shop')
    assert status != 0 and 'The cluster did not take the rules or what is scraped' in said and 'forbidden' in said, said


def test_many_services_with_odd_names_and_twice_is_once(operator, play):
    # One object could not hold as many; and names of services may have what names of objects may not.
    names = ['svc-%d' % n for n in range(57)] + ['Shop.EU', 'shop-eu', 'shop_eu']
    status, said = play(operator.kubeconfig, *names)
    assert status == 0 and 'changed=2' in said, said
    rules = operator.request('GET', OBJECTS % 'prometheusrules')['items']
    assert len(rules) == 61 and {rule['metadata']['labels']['release'] for rule in rules} == {'prometheus'}
    alerts = {rule['metadata']['name']: [one for one in rule['spec']['groups'][0]['rules'] if 'alert' in one] for rule in rules}
    assert {'DeliveryRolledBack', 'DeliveryRolloutStuck'} <= {one['alert'] for one in alerts['progressive-delivery']}
    high, = [one for one in alerts['progressive-delivery-svc-0'] if one['alert'] == 'DeliveryErrorRateHigh']
    assert (high['labels']['service'], high['labels']['team']) == ('svc-0', ODD) and ' > 0.005 ' in high['expr']
    assert {one['labels']['service'] for found in alerts.values() for one in found if 'service' in one['labels']} == set(names)
    monitor = operator.request('GET', OBJECTS % 'servicemonitors/haproxy')
    assert monitor['spec']['endpoints'] == [{'port': 'metrics', 'interval': '15s'}]
    status, said = play(operator.kubeconfig, *names)
    assert status == 0 and 'changed=0' in said, said
