# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Workloads on a real cluster: versions that come up, and versions that do not, each for another reason."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_lab import service
from haproxy_lab import wait_for

from ansible_collections.progressive.delivery.plugins.module_utils._capacity import run_capacity
from ansible_collections.progressive.delivery.plugins.module_utils._workload import run_status

ROOT = Path(__file__).resolve().parents[2]
STATUS = {'state': 'ready', 'replicas': 0, 'wait': True, 'wait_timeout': '3m', 'stall_grace': '8s', 'deadline': 10.0, 'context': None}
CAPACITY = {'state': 'ready', 'headroom': 1, 'min_replicas': 1, 'hold': True, 'on_shortage': 'fail', 'deadline': 10.0, 'context': None}


def broken(namespace, name, image, **changes):
    """A Deployment whose container has *changes*; ``pod`` changes the pod."""
    made = service(namespace, name, '5.1', image)[0]
    pod = made['spec']['template']['spec']
    pod['containers'][0].update(changes.pop('container', {}))
    pod.update(changes.pop('pod', {}))
    made['spec'].update(changes)
    return made


CASES = {
    'no-image': ({'container': {'image': 'progressive.delivery/service:none', 'imagePullPolicy': 'Never'}}, 'image_pull',
                 ['progressive.delivery/service:none cannot be pulled', 'Correct the version, or push the image']),
    'no-registry': ({'container': {'image': 'registry.invalid/shop:9'}}, 'image_pull', ['registry.invalid/shop:9 cannot be pulled']),
    'crash': ({'container': {'command': ['python3', '-c', 'print("no such table: orders", flush=True); raise SystemExit(3)'], 'args': []}},
              'crash_loop', ['ends with exit code 3', 'its log ends with "no such table: orders"']),
    'oom': ({'container': {'command': ['python3', '-c', 'x = bytearray(2 ** 30); print(sum(x))'], 'args': [],
                           'resources': {'limits': {'memory': '32Mi'}}}}, 'crash_loop', ['killed for using more memory']),
    'never-ready': ({'container': {'readinessProbe': {'httpGet': {'path': '/nowhere', 'port': 8080}, 'periodSeconds': 1}}}, 'not_ready',
                    ['its readinessProbe does not pass', '404']),
    'never-started': ({'container': {'startupProbe': {'httpGet': {'path': '/nowhere', 'port': 8080}, 'periodSeconds': 1,
                                                      'failureThreshold': 4}}}, 'crash_loop', ['its startupProbe fails']),
    'huge': ({'container': {'resources': {'requests': {'cpu': '400'}}}}, 'unschedulable', ['no node takes the pod', 'Insufficient cpu']),
    'no-secret': ({'container': {'envFrom': [{'secretRef': {'name': 'nowhere'}}]}}, 'container_config', ['secret "nowhere" not found']),
    'no-volume': ({'pod': {'volumes': [{'name': 'x', 'secret': {'secretName': 'nowhere'}}]},
                   'container': {'volumeMounts': [{'name': 'x', 'mountPath': '/x'}]}}, 'volume', ['secret "nowhere" not found']),
    'no-account': ({'pod': {'serviceAccountName': 'nobody'}}, 'refused', ['serviceaccount "nobody" not found']),
    'paused': ({'paused': True}, 'paused', ['is paused']),
}


@pytest.fixture(scope='module')
def bad(cluster):
    """A namespace with every bad version at once."""
    with cluster.namespace() as name:
        cluster.apply(*(broken(name, case, cluster.facts.service_image, **copy.deepcopy(changes))
                        for case, (changes, *_more) in CASES.items()))
        yield name


@pytest.mark.parametrize('case', list(CASES))
def test_why_a_version_does_not_come_up(cluster, bad, case):
    namespace = bad
    _changes, reason, texts = CASES[case]
    found = run_status({**STATUS, 'kubeconfig': cluster.facts.kubeconfig, 'namespace': namespace, 'name': case})
    print('%s: %.1f s: %s' % (case, found['waited_s'], found['msg']))
    assert found['failed'] and (found['state'], found['reason']) == ('stalled', reason)
    for text in ['Deployment "%s" in namespace "%s"' % (case, namespace), *texts]:
        assert text in found['msg']


@pytest.mark.parametrize('quota, kind, text', [
    ({'apiVersion': 'v1', 'kind': 'ResourceQuota', 'spec': {'hard': {'pods': '1'}}}, 'quota', 'exceeded quota: small'),
    ({'apiVersion': 'v1', 'kind': 'ResourceQuota', 'spec': {'hard': {'requests.cpu': '1'}}}, 'quota', 'wants resources to be given')])
def test_a_quota_that_is_used_up(cluster, quota, kind, text):
    with cluster.namespace() as name:
        cluster.apply({**quota, 'metadata': {'name': 'small', 'namespace': name}})
        # Until its controller has seen it, a quota keeps nobody out.
        wait_for(lambda: cluster.kubectl('-n', name, 'get', 'resourcequota', 'small', '-o', 'jsonpath={.status.hard}'), 'the quota', 30)
        cluster.apply(broken(name, 'shop', cluster.facts.service_image, replicas=2, container={'resources': {}}))
        found = run_status({**STATUS, 'kubeconfig': cluster.facts.kubeconfig, 'namespace': name, 'name': 'shop'})
        print('%.1f s: %s' % (found['waited_s'], found['msg']))
        assert found['failed'] and found['reason'] == kind and text in found['msg']


def test_the_restricted_profile_refuses_what_is_not_restricted(cluster):
    with cluster.namespace() as name:
        cluster.kubectl('label', 'namespace', name, 'pod-security.kubernetes.io/enforce=restricted')
        cluster.apply(broken(name, 'shop', cluster.facts.service_image, container={'securityContext': {}}))
        found = run_status({**STATUS, 'kubeconfig': cluster.facts.kubeconfig, 'namespace': name, 'name': 'shop'})
        assert found['reason'] == 'refused' and 'Pod Security' in found['msg'] and 'runAsNonRoot' in found['msg']


def test_capacity_follows_the_share_and_autoscalers_hold(cluster):
    def scaler(arm):
        cpu = {'type': 'Resource', 'resource': {'name': 'cpu', 'target': {'type': 'Utilization', 'averageUtilization': 70}}}
        return {'apiVersion': 'autoscaling/v2', 'kind': 'HorizontalPodAutoscaler', 'metadata': {'name': arm, 'namespace': name}, 'spec': {
            'scaleTargetRef': {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'name': arm}, 'minReplicas': 1, 'maxReplicas': 3,
            'metrics': [cpu]}}

    def behavior(arm):
        return json.loads(cluster.kubectl('--namespace', name, 'get', 'hpa', arm, '-o', 'json'))['spec'].get('behavior')

    def capacity(check=False, **options):
        return run_capacity({**CAPACITY, 'kubeconfig': cluster.facts.kubeconfig, 'namespace': name, 'survivor': 'blue',
                             'candidate': 'green', **options}, check)

    with cluster.namespace() as name:
        cluster.arm(name, 'blue', '5.0', replicas=3)
        cluster.arm(name, 'green', '5.1')
        cluster.apply(scaler('blue'), scaler('green'))
        assert capacity(True, share='50%')['changed'] and behavior('blue') is None
        found = capacity(share='50%')
        assert (found['changed'], found['carries'], found['needed']) == (True, 3, 2)
        assert behavior('blue')['scaleDown']['selectPolicy'] == behavior('green')['scaleDown']['selectPolicy'] == 'Disabled'
        assert not capacity(share='50%')['changed']
        done = run_status({**STATUS, 'kubeconfig': cluster.facts.kubeconfig, 'namespace': name, 'name': 'green', 'replicas': 2})
        assert (done['state'], done['ready']) == ('done', 2)
        assert not capacity(share='5%')['changed'], 'it never scales down'
        with pytest.raises(Exception, match='may not go above 3 pods, but 6 are needed'):
            capacity(share='100%', headroom=2)
        assert capacity(state='released')['changed'] and behavior('blue') is behavior('green') is None
        assert not capacity(state='released')['changed']
        cluster.kubectl('--namespace', name, 'scale', 'deployment/blue', '--replicas=1')
        run_status({**STATUS, 'kubeconfig': cluster.facts.kubeconfig, 'namespace': name, 'name': 'blue'})
        with pytest.raises(Exception, match='has 1 ready pods and needs 3 to carry all of the traffic'):
            capacity(share='50%', carries=3)
        assert 'has 1 ready pods' in capacity(share='50%', carries=3, on_shortage='warn')['warnings'][0]


# ---- the role

def run_role(cluster, namespace, tmp_path, *arguments, **variables):
    """Runs the role for the arm canary of the lab's service; returns the exit code and what was printed."""
    probe = {'httpGet': {'path': '/health/ready', 'port': 'http'}, 'periodSeconds': 1}
    play = {'hosts': 'localhost', 'gather_facts': False, 'connection': 'local', 'vars': {
        'ansible_python_interpreter': sys.executable, 'kubernetes_workload_kubeconfig': cluster.facts.kubeconfig,
        'kubernetes_workload_namespace': namespace, 'kubernetes_workload_service': 'shop', 'kubernetes_workload_arm': 'canary',
        'kubernetes_workload_version': '5.1', 'kubernetes_workload_image': cluster.facts.service_image,
        'kubernetes_workload_args': ['--arm', 'canary', '--version', '5.1', '--port', '8080', '--host', '0.0.0.0'],
        'kubernetes_workload_readiness_probe': probe, 'kubernetes_workload_startup_probe': {**probe, 'failureThreshold': 20},
        'kubernetes_workload_liveness_probe': {'httpGet': {'path': '/health/live', 'port': 'http'}},
        'kubernetes_workload_resources': {'requests': {'cpu': '10m', 'memory': '32Mi'}, 'limits': {'memory': '128Mi'}},
        'kubernetes_workload_pre_stop': 1, 'kubernetes_workload_grace': 10, 'kubernetes_workload_stall_grace': '5s', **variables},
        'tasks': [{'ansible.builtin.include_role': {'name': 'progressive.delivery.kubernetes_workload'}}]}
    path = tmp_path / 'play.yml'
    path.write_text(json.dumps([play]))
    return run_playbook(str(path), *arguments)


def run_playbook(*words):
    environ = {key: value for key, value in os.environ.items() if not key.startswith('ANSIBLE_')}
    environ.update(ANSIBLE_COLLECTIONS_PATH=str(ROOT / '.collections'), ANSIBLE_NOCOLOR='1', ANSIBLE_LOCALHOST_WARNING='0')
    done = subprocess.run([Path(sys.executable).parent / 'ansible-playbook', *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, timeout=600, env=environ)
    return done.returncode, done.stdout


def test_an_arm_is_deployed_scaled_stopped_and_deleted(cluster, tmp_path):
    with cluster.namespace() as name:
        cluster.kubectl('label', 'namespace', name, 'pod-security.kubernetes.io/enforce=restricted')
        cluster.arm(name, 'shop-blue', '5.0', replicas=3)
        variables = {'kubernetes_workload_survivor': 'shop-blue', 'kubernetes_workload_share': '50%',
                     'kubernetes_workload_autoscaling': {'min': 1, 'max': 4}}
        code, said = run_role(cluster, name, tmp_path, '--check', **variables)
        assert code == 0 and 'changed=1 ' in said, said
        assert 'shop-canary' not in cluster.kubectl('--namespace', name, 'get', 'deploy,svc,pdb,hpa')
        code, said = run_role(cluster, name, tmp_path, **variables)
        assert code == 0 and 'changed=2 ' in said, said
        deployment = json.loads(cluster.kubectl('--namespace', name, 'get', 'deploy', 'shop-canary', '-o', 'json'))
        assert (deployment['status']['availableReplicas'], deployment['spec']['replicas']) == (2, 2)
        assert deployment['spec']['template']['metadata']['labels']['app.kubernetes.io/version'] == '5.1'
        code, said = run_role(cluster, name, tmp_path, **variables)
        assert code == 0 and 'changed=0 ' in said, said
        code, said = run_role(cluster, name, tmp_path, kubernetes_workload_state='stopped')
        assert code == 0 and 'changed=1 ' in said, said
        assert cluster.kubectl('--namespace', name, 'get', 'pods', '-l', 'progressive.delivery/arm=canary', '-o', 'name') == ''
        code, said = run_role(cluster, name, tmp_path, **variables)
        assert code == 0 and 'changed=1 ' in said, said
        code, said = run_role(cluster, name, tmp_path, kubernetes_workload_state='absent')
        assert code == 0, said
        assert 'shop-canary' not in cluster.kubectl('--namespace', name, 'get', 'deploy,svc,pdb,hpa')
        code, said = run_role(cluster, name, tmp_path, kubernetes_workload_state='absent')
        assert code == 0 and 'changed=0 ' in said, said


def test_a_bad_version_ends_with_the_reason_and_leaves_the_old_pods(cluster, tmp_path):
    with cluster.namespace() as name:
        good = {'kubernetes_workload_replicas': 1}
        assert run_role(cluster, name, tmp_path, **good)[0] == 0
        code, said = run_role(cluster, name, tmp_path, kubernetes_workload_version='5.2', **good,
                              kubernetes_workload_image='progressive.delivery/service:none', kubernetes_workload_pull_policy='Never')
        assert code != 0 and 'the image progressive.delivery/service:none cannot be pulled' in ' '.join(said.split()), said
        assert 'availableReplicas":1' in cluster.kubectl('--namespace', name, 'get', 'deploy', 'shop-canary', '-o', 'json').replace(' ', '')


def test_what_is_no_name_of_kubernetes_is_refused_before_anything_is_asked(cluster, tmp_path):
    code, said = run_role(cluster, 'shop', tmp_path, kubernetes_workload_service='Shop_1', kubernetes_workload_image='a b',
                          kubernetes_workload_kubeconfig='/nowhere')
    assert code != 0 and 'kubernetes_workload_image: not usable' in ' '.join(said.split())


def test_fields_that_another_tool_has_set_are_not_taken_without_a_word(cluster, tmp_path):
    with cluster.namespace() as name:
        cluster.apply({**service(name, 'shop-canary', '5.1', cluster.facts.service_image)[1]})
        code, said = run_role(cluster, name, tmp_path, kubernetes_workload_replicas=1)
        said = ' '.join(said.split())
        assert code != 0 and '"shop-canary" could not be applied to namespace "%s"' % name in said, said
        assert 'conflicts with "kubectl-client-side-apply" using v1: - .spec.selector' in said, said
        assert 'set kubernetes_workload_take_over=true' in said, said


# ---- a whole rollout

def test_a_version_that_does_not_come_up_gets_no_traffic_a_good_one_gets_all_and_there_is_a_way_back(cluster, tmp_path):
    with cluster.namespace() as name:
        host = name + '.test'
        cluster.arm(name, 'blue', '5.0', replicas=2)
        # Services of arms that do not run yet.
        cluster.apply(*(dict(service(name, arm, '5.1', cluster.facts.service_image)[1], spec={
            'selector': {'app.kubernetes.io/instance': arm}, 'ports': [{'name': 'http', 'port': 80, 'targetPort': 'http'}]})
            for arm in ('green', 'canary')))
        backends = [{'name': arm, 'port': 80, 'weight': weight} for arm, weight in (('blue', 1), ('green', 0), ('canary', 0))]
        cluster.apply({'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute', 'metadata': {'name': 'shop', 'namespace': name},
                       'spec': {'parentRefs': [{'name': 'public', 'namespace': 'traefik'}], 'hostnames': [host],
                                'rules': [{'backendRefs': backends}]}})
        wait_for(lambda: cluster.arm_of('traefik', host) == 'blue', 60)
        probe = {'httpGet': {'path': '/health/ready', 'port': 'http'}, 'periodSeconds': 1}
        variables = {
            'ansible_connection': 'local', 'ansible_python_interpreter': sys.executable, 'delivery_service': 'shop',
            'delivery_arms': {'blue': {}, 'green': {}, 'canary': {}}, 'delivery_state_dir': str(tmp_path / 'state'),
            'delivery_endpoints': [{'name': 'gateway', 'router': 'httproute', 'object': 'shop', 'namespace': name, 'port': 80,
                                    'kubeconfig': cluster.facts.kubeconfig, 'lease_image': cluster.facts.service_image}],
            'delivery_deploy': 'kubernetes', 'delivery_settle': '0s', 'delivery_lease': '30s', 'delivery_interval': '1s',
            'delivery_canary_stages': [{'name': 'canary', 'share': '10%', 'bake': '2s'}],
            'delivery_blue_green_stages': [{'name': 'switch', 'share': '100%', 'bake': '2s'}],
            'delivery_default_conditions': [{'name': 'pods', 'metric': 'servers_up_ratio', 'abort_below': 1.0}],
            'delivery_policy': {'inconclusive': 'pass', 'no_data': 'pass', 'error': 'pass'}, 'delivery_report': False,
            'kubernetes_workload_image': cluster.facts.service_image, 'kubernetes_workload_pull_policy': 'Never',
            'kubernetes_workload_args': ['--arm', '{{ delivery_arm }}', '--version', '{{ delivery_version }}', '--port', '8080',
                                         '--host', '0.0.0.0'],
            'kubernetes_workload_startup_probe': {**probe, 'failureThreshold': 60}, 'kubernetes_workload_readiness_probe': probe,
            'kubernetes_workload_liveness_probe': {}, 'kubernetes_workload_pre_stop': 1, 'kubernetes_workload_grace': 5,
            'kubernetes_workload_take_over': True,
            'kubernetes_workload_resources': {'requests': {'cpu': '10m', 'memory': '32Mi'}, 'limits': {'memory': '128Mi'}}}
        (tmp_path / 'vars.json').write_text(json.dumps(variables))
        rollout = [str(ROOT / 'playbooks/rollout.yml'), '-e', '@%s' % (tmp_path / 'vars.json'), '-e', 'delivery_version=5.1']
        code, said = run_playbook(*rollout, '-e', 'kubernetes_workload_image=progressive.delivery/service:none')
        said = ' '.join(said.split())
        assert code != 0 and 'Stopped before any traffic moved' in said and 'service:none cannot be pulled' in said, said
        assert {cluster.arm_of('traefik', host) for _number in range(20)} == {'blue'}
        code, said = run_playbook(*rollout)
        assert code == 0, said
        wait_for(lambda: {cluster.arm_of('traefik', host) for _number in range(10)} == {'green'}, 30)
        found = json.loads(cluster.kubectl('--namespace', name, 'get', 'deploy', '-o', 'json'))['items']
        ready = {item['metadata']['name']: item['status'].get('availableReplicas', 0) for item in found}
        assert ready == {'blue': 2, 'green': 2, 'canary': 0}, 'green has what blue had, the canary is stopped, blue stays for the way back'
        cluster.kubectl('--namespace', name, 'scale', 'deployment/blue', '--replicas=1')
        code, said = run_playbook(str(ROOT / 'playbooks/rollback.yml'), *rollout[1:3])
        assert code == 0, said
        wait_for(lambda: {cluster.arm_of('traefik', host) for _number in range(10)} == {'blue'}, 30)
        assert cluster.kubectl('--namespace', name, 'get', 'deploy', 'blue', '-o', 'jsonpath={.spec.replicas}') == '2'
