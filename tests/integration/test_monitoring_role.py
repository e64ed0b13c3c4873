# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role beside a Prometheus and an Alertmanager that are already there: real ones, in a directory of the test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from haproxy_lab import wait_for
from receivers import Http

ROOT = Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def answers(url):
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(url, timeout=2) as reply:
            return json.loads(reply.read() or b'true') if 'api' in url else True
    return False


class Host:
    """A directory in place of /etc/prometheus, and the variables that say so."""

    def __init__(self, directory):
        self.dir = directory
        self.rules = directory / 'rules.d'
        self.rules.mkdir()
        self.config = directory / 'prometheus.yml'
        self.port = free_port()
        self.configure("rule_files: ['rules.d/*.yml']\n")
        self.vars = {
            'delivery_service': 'shop', 'delivery_arms': {'blue': {'backend': 'blue'}, 'canary': {'backend': 'canary'}},
            'delivery_endpoints': [], 'monitoring_prometheus_config': str(self.config), 'monitoring_prometheus_rules_dir': str(self.rules),
            'monitoring_prometheus_url': 'http://127.0.0.1:%d' % self.port, 'monitoring_reload': 'none'}

    def configure(self, text):
        self.config.write_text('global: {scrape_interval: 1s}\n' + text)

    def play(self, playbook=ROOT / 'playbooks' / 'monitoring.yml', *words, **variables):
        done = subprocess.run(
            [str(Path(sys.executable).with_name('ansible-playbook')), '-i', 'localhost,', '-c', 'local', str(playbook), *words,
             '-e', json.dumps({**self.vars, 'ansible_python_interpreter': sys.executable, **variables})],
            env={**os.environ, 'ANSIBLE_CONFIG': str(ROOT / 'ansible.cfg'), 'ANSIBLE_NOCOLOR': '1'}, cwd=ROOT, capture_output=True,
            text=True, timeout=300, check=False)
        return done.returncode, done.stdout + done.stderr

    @contextlib.contextmanager
    def running(self, *command, ready):
        """A process for as long as the body runs, which begins when *ready* answers."""
        with open(self.dir / 'log', 'ab') as log:
            process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
            try:
                wait_for(lambda: answers(ready), command[0], 30)
                yield
            finally:
                process.terminate()
                process.wait(20)

    def prometheus(self, config):
        return self.running('prometheus', '--config.file=%s' % config, '--storage.tsdb.path=%s' % (self.dir / 'data'),
                            '--web.listen-address=127.0.0.1:%d' % self.port, '--web.enable-lifecycle',
                            ready='http://127.0.0.1:%d/-/ready' % self.port)

    def alertmanager(self, config, port):
        return self.running('prometheus-alertmanager', '--config.file=%s' % config, '--storage.path=%s' % (self.dir / 'alerts'),
                            '--web.listen-address=127.0.0.1:%d' % port, '--cluster.listen-address=',
                            ready='http://127.0.0.1:%d/-/ready' % port)

    def limits(self):
        made = yaml.safe_load((self.rules / 'progressive_delivery.yml').read_text())
        rules = [rule for group in made['groups'] for rule in group['rules']]
        return [rule['expr'] for rule in rules if rule.get('alert') == 'DeliveryErrorRateHigh']


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_it_plugs_into_a_prometheus_that_runs_and_twice_is_once(host):
    with host.prometheus(host.config):
        before = host.config.read_text()
        status, said = host.play(monitoring_reload='http')
        assert status == 0, said
        groups = answers('http://127.0.0.1:%d/api/v1/rules' % host.port)['data']['groups']
        names = {rule['name'] for group in groups for rule in group['rules']}
        assert {'DeliveryErrorRateHigh', 'DeliveryRolloutStuck', 'service_arm:delivery_errors:ratio'} <= names
        assert host.config.read_text() == before and [path.name for path in host.rules.iterdir()] == ['progressive_delivery.yml']
        status, said = host.play(monitoring_reload='http')
        assert status == 0 and 'changed=0' in said, said
        assert ' > 0.005 ' in host.limits()[0]
        # The gate's variable is the alert's.
        status, said = host.play(delivery_error_ratio_abort=0.02)
        assert status == 0 and ' > 0.02 ' in host.limits()[0], said


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which('apt-get') or not shutil.which('amtool'),
                    reason='needs root on Debian, with Alertmanager: run scripts/apt prometheus-alertmanager')
def test_it_installs_and_configures_all_of_it_and_twice_is_once(host):
    """The packages are those of this machine; their configuration is put elsewhere, and taken by real ones."""
    etc, port = host.dir / 'etc', free_port()
    etc.mkdir()
    ours = {'monitoring_install': True, 'monitoring_prometheus_config': str(etc / 'prometheus.yml'),
            'monitoring_prometheus_rules_dir': str(etc / 'rules.d'), 'monitoring_alertmanager_config': str(etc / 'alertmanager.yml'),
            'monitoring_alertmanager_url': 'http://127.0.0.1:%d' % port, 'monitoring_interval': '1s',
            'monitoring_scrape_configs': [
                {'job_name': 'shop', 'static_configs': [{'targets': ['127.0.0.1:9'], 'labels': {'arm': 'blue'}}]}]}
    # On a host that has none of it yet.
    status, said = host.play(ROOT / 'playbooks' / 'monitoring.yml', '--check', **{
        **ours, 'monitoring_promtool': '/nowhere/promtool', 'monitoring_amtool': '/nowhere/amtool', 'monitoring_reload': 'systemd'})
    assert status == 0 and not list(etc.iterdir()), said
    status, said = host.play(**ours)
    assert status == 0, said
    kept = etc / 'alertmanager.yml'
    assert (kept.stat().st_mode & 0o777, kept.group()) == (0o640, 'prometheus'), 'receivers have secrets, and it does not run as root'
    with host.alertmanager(etc / 'alertmanager.yml', port), host.prometheus(etc / 'prometheus.yml'):
        def seen(what):
            return answers('http://127.0.0.1:%d/api/v1/%s' % (host.port, what))['data']
        wait_for(lambda: [one['url'] for one in seen('alertmanagers')['activeAlertmanagers']] == [
            'http://127.0.0.1:%d/api/v2/alerts' % port], 'Alertmanager', 30)
        assert [group['name'] for group in seen('rules')['groups']] == ['delivery of all services', 'delivery shop']
        wait_for(lambda: [one['labels']['arm'] for one in seen('targets')['activeTargets']] == ['blue'], 'the target', 30)
    status, said = host.play(**ours)
    assert status == 0 and 'changed=0' in said, said


def test_a_half_written_configuration_is_named_and_nothing_is_replaced(host):
    host.configure("rule_files: ['rules.d/*.yml']\nscrape_configs:\n  - job_nam")
    status, said = host.play()
    assert status != 0 and not list(host.rules.iterdir())
    assert "Prometheus' own configuration %s is not valid, so nothing was put in place:" % host.config in said.replace('\\', ''), said
    assert 'line' in said


def test_a_directory_that_nothing_loads_is_named(host):
    host.configure('rule_files: []\n')
    status, said = host.play()
    assert status != 0 and not list(host.rules.iterdir())
    assert 'Prometheus loads nothing from %s' % host.rules in said, said


def test_a_wrong_limit_or_query_stops_before_the_first_change(host):
    for variables, text in (({'delivery_error_ratio_abort': 'little'}, "The limit error_ratio_abort"),
                            ({'monitoring_queries': {'requests': 'rate(x[', 'errors': 'y'}}, 'what was there stays: failed to validate')):
        status, said = host.play(**variables)
        assert status != 0 and text in said, said
        assert not list(host.rules.iterdir())


@pytest.fixture
def told():
    receiver = Http()
    yield receiver
    receiver.close()


@pytest.mark.skipif(not shutil.which('amtool'), reason='Alertmanager is not installed: run scripts/apt prometheus-alertmanager')
def test_routes_inhibitions_and_silences_of_an_alertmanager(host, told):
    config, url = host.dir / 'alertmanager.yml', 'http://127.0.0.1:%d' % host.port
    status, said = host.play(
        monitoring_prometheus=False, monitoring_alertmanager=True, monitoring_alertmanager_config=str(config),
        monitoring_alertmanager_wait='1s', monitoring_alertmanager_interval='1s', monitoring_alertmanager_receivers=[
            {'name': name, 'webhook_configs': [{'url': told.url(path)}]} for name, path in (
                ('all', 'all'), ('duty "night"', 'duty'), ('shop', 'shop'))],
        monitoring_alertmanager_severities={'critical': 'duty "night"'}, monitoring_alertmanager_services={'shop': 'shop'})
    assert status == 0, said
    for labels, receiver in ((['service=shop', 'severity=critical'], 'shop'), (['service=other', 'severity=critical'], 'duty "night"'),
                             (['service=other', 'severity=warning'], 'all')):
        found = subprocess.run(['amtool', 'config', 'routes', 'test', '--config.file=%s' % config, *labels], capture_output=True, text=True,
                               check=True)
        assert found.stdout.strip() == receiver

    def fire(*alerts):
        """Alerts as Prometheus would send them: (name, severity, service)."""
        body = json.dumps([{'labels': dict(zip(('alertname', 'severity', 'service'), alert))} for alert in alerts]).encode()
        request = urllib.request.Request(url + '/api/v2/alerts', body, {'Content-Type': 'application/json'})
        urllib.request.urlopen(request, timeout=10).close()

    def heard(receiver):
        return {(alert['labels']['alertname'], alert['labels']['service']) for path, _kind, page in told.received if path == '/' + receiver
                for alert in page['alerts']}

    def quiet_by(why):
        there = answers(url + '/api/v2/alerts')
        return {(one['labels']['alertname'], one['labels']['service']): one['status'][why] for one in there if one['status'][why]}

    play, step = host.dir / 'silence.yml', {'name': 'progressive.delivery.monitoring', 'tasks_from': 'silence'}
    play.write_text(json.dumps([{'hosts': 'localhost', 'gather_facts': False, 'tasks': [{'ansible.builtin.include_role': step}]}]))
    with host.alertmanager(config, host.port):
        # What is critical of a service says the slow answers as well, those of another service are told.
        fire(('DeliveryErrorRateHigh', 'critical', 'other'), ('DeliveryLatencyHigh', 'warning', 'other'),
             ('DeliveryRolledBack', 'warning', 'other'), ('DeliveryLatencyHigh', 'warning', 'third'))
        wait_for(lambda: heard('duty') == {('DeliveryErrorRateHigh', 'other')}, 'the page', 30)
        loud = {('DeliveryRolledBack', 'other'), ('DeliveryLatencyHigh', 'third')}
        wait_for(lambda: heard('all') >= loud, 'warnings', 30)
        assert heard('all') == loud and list(quiet_by('inhibitedBy')) == [('DeliveryLatencyHigh', 'other')]
        # A planned step of shop is silent, and the alert that goes on is told when the silence ends.
        status, said = host.play(play, monitoring_alertmanager_url=url, delivery_by='me', monitoring_silence_s=600)
        assert status == 0, said
        silence, = answers(url + '/api/v2/silences')
        assert (silence['createdBy'], silence['matchers'][0]['name'], silence['matchers'][0]['value']) == ('me', 'service', 'shop')
        fire(('DeliveryErrorRateHigh', 'critical', 'shop'), ('DeliveryErrorRateHigh', 'critical', 'fourth'))
        wait_for(lambda: ('DeliveryErrorRateHigh', 'fourth') in heard('duty'), 'the other page', 30)
        assert quiet_by('silencedBy') == {('DeliveryErrorRateHigh', 'shop'): [silence['id']]} and not heard('shop')
        status, said = host.play(play, monitoring_alertmanager_url=url, monitoring_silence_state='absent',
                                 monitoring_silence_id=silence['id'])
        assert status == 0 and [one['status']['state'] for one in answers(url + '/api/v2/silences')] == ['expired'], said
        wait_for(lambda: heard('shop'), 'the page after the silence', 30)
    status, said = host.play(play, monitoring_alertmanager_url=url, delivery_by='me')
    assert status != 0 and 'Alertmanager at %s did not take the silence: ' % url in said and 'refused' in said, said
