# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster of `make cluster`: each data plane serves what it is told, at its port of this machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from haproxy_lab import wait_for

HTTPROUTE = {'apiVersion': 'gateway.networking.k8s.io/v1', 'kind': 'HTTPRoute'}


@pytest.fixture(scope='module')
def shop(cluster):
    """A namespace with two arms that run."""
    with cluster.namespace() as name:
        cluster.arm(name, 'blue', '5.0')
        cluster.arm(name, 'green', '5.1')
        yield name


def shares(cluster, plane, host, count=60):
    """How many of *count* requests each arm answers."""
    seen = [cluster.arm_of(plane, host) for _number in range(count)]
    return {arm: seen.count(arm) for arm in set(seen)}


def both(cluster, plane, host):
    """Both arms answer, and nobody else."""
    wait_for(lambda: cluster.arm_of(plane, host), '%s to serve %s' % (plane, host), 30)
    wait_for(lambda: set(shares(cluster, plane, host, 20)) == {'blue', 'green'}, '%s to split %s' % (plane, host), 30)
    assert set(shares(cluster, plane, host)) == {'blue', 'green'}


@pytest.mark.parametrize(('plane', 'gateway'), [('traefik', 'traefik'), ('contour', 'projectcontour')])
def test_httproute(cluster, shop, plane, gateway):
    host = 'httproute-%s.%s.test' % (plane, shop)
    cluster.apply({**HTTPROUTE, 'metadata': {'name': plane, 'namespace': shop}, 'spec': {
        'parentRefs': [{'name': 'public', 'namespace': gateway}], 'hostnames': [host],
        'rules': [{'backendRefs': [{'name': 'blue', 'port': 80, 'weight': 50}, {'name': 'green', 'port': 80, 'weight': 50}]}]}})
    both(cluster, plane, host)


def test_httpproxy(cluster, shop):
    host = 'httpproxy.%s.test' % shop
    cluster.apply({'apiVersion': 'projectcontour.io/v1', 'kind': 'HTTPProxy', 'metadata': {'name': 'shop', 'namespace': shop}, 'spec': {
        'virtualhost': {'fqdn': host}, 'routes': [{'services': [
            {'name': 'blue', 'port': 80, 'weight': 50}, {'name': 'green', 'port': 80, 'weight': 50}]}]}})
    both(cluster, 'contour', host)


def test_virtualservice(cluster, shop):
    host = 'virtualservice.%s.test' % shop
    cluster.apply({'apiVersion': 'networking.istio.io/v1', 'kind': 'VirtualService', 'metadata': {'name': 'shop', 'namespace': shop},
                   'spec': {'hosts': [host], 'gateways': ['istio-system/public'], 'http': [{'route': [
                       {'destination': {'host': 'blue'}, 'weight': 50}, {'destination': {'host': 'green'}, 'weight': 50}]}]}})
    both(cluster, 'istio', host)


def test_traefikservice(cluster, shop):
    host = 'traefikservice.%s.test' % shop
    cluster.apply(
        {'apiVersion': 'traefik.io/v1alpha1', 'kind': 'TraefikService', 'metadata': {'name': 'shop', 'namespace': shop}, 'spec': {
            'weighted': {'services': [{'name': 'blue', 'port': 80, 'weight': 1}, {'name': 'green', 'port': 80, 'weight': 1}]}}},
        {'apiVersion': 'traefik.io/v1alpha1', 'kind': 'IngressRoute', 'metadata': {'name': 'shop', 'namespace': shop}, 'spec': {
            'entryPoints': ['web'], 'routes': [
                {'kind': 'Rule', 'match': 'Host(`%s`)' % host, 'services': [{'kind': 'TraefikService', 'name': 'shop'}]}]}})
    both(cluster, 'traefik', host)


def test_canary_ingress_by_weight_and_by_header(cluster, shop):
    host = 'ingress.%s.test' % shop
    canary = {'nginx.ingress.kubernetes.io/canary': 'true', 'nginx.ingress.kubernetes.io/canary-weight': '50',
              'nginx.ingress.kubernetes.io/canary-by-header': 'x-canary-user'}
    for name, backend, marks in (('shop', 'blue', {}), ('shop-canary', 'green', canary)):
        cluster.apply({
            'apiVersion': 'networking.k8s.io/v1', 'kind': 'Ingress',
            'metadata': {'name': name, 'namespace': shop, 'annotations': marks},
            'spec': {'ingressClassName': 'nginx', 'rules': [{'host': host, 'http': {'paths': [
                {'path': '/', 'pathType': 'Prefix', 'backend': {'service': {'name': backend, 'port': {'number': 80}}}}]}}]}})
    both(cluster, 'traefik', host)
    for value, arm in (('always', 'green'), ('never', 'blue')):
        assert {cluster.arm_of('traefik', host, {'x-canary-user': value}) for _number in range(10)} == {arm}


@pytest.mark.parametrize(('plane', 'path', 'said'), [
    ('traefik_admin', '/metrics', 'traefik_'), ('traefik_admin', '/api/rawdata', '"routers"'), ('istio_admin', '/config_dump', 'ads'),
    ('istio_admin', '/stats', 'update_rejected: 0'), ('istiod', '/metrics', 'pilot_'),
    ('contour_admin', '/clusters', 'contour::'), ('contour_metrics', '/metrics', 'contour_')])
def test_what_data_planes_say_of_themselves(cluster, plane, path, said):
    answer = cluster.get(plane, path=path)
    assert answer.status == 200
    assert said in answer.body


def test_istiod_tells_what_it_has_pushed_to_those_who_show_a_token(cluster):
    token = cluster.kubectl('--namespace', 'istio-system', 'create', 'token', 'istiod', '--audience=istio-ca').strip()
    assert cluster.get('istiod', path='/debug/syncz').status == 401
    told = json.loads(cluster.get('istiod', path='/debug/syncz', headers={'Authorization': 'Bearer ' + token}).body)
    assert [proxy['proxy_type'] for proxy in told] == ['router']


def test_a_pod_that_crashes_is_started_again(cluster, shop):
    """The service ends by its fault although it is the first process of its container, which takes no signal of its own."""
    cluster.arm(shop, 'crash', '5.2', fault='crash')
    cluster.kubectl('--namespace', shop, 'expose', 'deployment', 'crash', '--name=crash-port', '--type=NodePort',
                    '--port=80', '--target-port=8080', '--overrides={"spec":{"ports":[{"port":80,"targetPort":8080,"nodePort":30093}]}}')
    wait_for(lambda: cluster.arm_of('spare_4', 'crash') == 'crash', 'the service that will crash')

    def restarts():
        pods = json.loads(cluster.kubectl('--namespace', shop, 'get', 'pods', '-l', 'arm=crash', '-o', 'json'))['items']
        return [status['restartCount'] for pod in pods for status in pod['status'].get('containerStatuses', ())]
    wait_for(lambda: restarts() == [1], 'a restart', 30)


def test_cpu_and_memory_of_pods_are_known(cluster, shop):
    wait_for(lambda: 'blue' in top(cluster, shop), 'metrics of the pods', 90)


def top(cluster, namespace):
    try:
        return cluster.kubectl('--namespace', namespace, 'top', 'pods')
    except AssertionError:
        return ''


def test_up_twice_is_up_once(cluster):
    """The second `up` finds the first one's cluster and leaves it alone."""
    uid = cluster.kubectl('get', 'namespace', 'kube-system', '-o', 'jsonpath={.metadata.uid}')
    subprocess.run([sys.executable, 'cluster/cluster.py', 'up'], check=True, capture_output=True)
    assert cluster.kubectl('get', 'namespace', 'kube-system', '-o', 'jsonpath={.metadata.uid}') == uid
