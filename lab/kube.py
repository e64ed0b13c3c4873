# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's part in a Kubernetes cluster (`make cluster`): a namespace, the arms' Services, and one route a router.

The arms themselves come from the collection's own role (kubernetes_workload), as they would in production.
"""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t
from pathlib import Path

import yaml

from layout import SERVICE, STABLE_ARM, LabError, Layout

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / 'cluster'))

import facts  # noqa: E402

ROUTES = {'httproute': 'traefik', 'ingress': 'traefik', 'virtualservice': 'istio'}
"""router: the data plane that serves it, by its name in the cluster's addresses."""
RECEIVED = '/var/lib/lab-received'
"""Where a pod writes what it received: the node's directory of this name, one below it for each namespace."""
PORT = 80
# The Service of an arm, as roles/kubernetes_workload names it.
STABLE_SERVICE = '%s-%s' % (SERVICE, STABLE_ARM)


def used(lab: Layout) -> bool:
    """Whether this lab has a part in a cluster."""
    return any(router in ROUTES for router in lab.routers)


def edges(lab: Layout) -> dict[str, str]:
    """router: host:port of this machine where its data plane answers."""
    if not used(lab):
        return {}
    addresses = facts.load().addresses
    return {router: addresses[ROUTES[router]] for router in lab.routers if router in ROUTES}


def up(lab: Layout, version: str, environment: t.Mapping[str, str]) -> None:
    """Makes the namespace afresh, with *version* on the stable arm and routes that send everything to it."""
    known = facts.load()
    down(lab)
    _on_node(known, 'mkdir -p -m 0777 %s/%s' % (RECEIVED, lab.namespace))
    _kubectl(known, 'apply', '-f', '-', given=yaml.safe_dump_all(_objects(lab)))
    done = subprocess.run(
        [Path(sys.executable).with_name('ansible-playbook'), '-i', HERE.parent / 'inventories' / 'local', HERE / 'stable_arm.yml',
         '-e', 'delivery_version=%s' % version], env={**os.environ, 'ANSIBLE_CONFIG': str(HERE.parent / 'ansible.cfg'), **environment},
        cwd=HERE.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError('The stable arm did not start in the cluster: %s' % (done.stdout + done.stderr).strip()[-1500:])


def is_up(lab: Layout) -> bool:
    known = facts.load()
    return bool(_kubectl(known, 'get', 'namespace', lab.namespace, '--ignore-not-found', '-o', 'name').strip())


def down(lab: Layout) -> bool:
    """Deletes the namespace and all in it; False when there was none, or no cluster."""
    try:
        known = facts.load()
    except LabError:
        return False
    if not _kubectl(known, 'get', 'namespace', lab.namespace, '--ignore-not-found', '-o', 'name').strip():
        return False
    _kubectl(known, 'delete', 'namespace', lab.namespace, '--wait')
    _on_node(known, 'rm -rf %s/%s' % (RECEIVED, lab.namespace))
    return True


def collect(lab: Layout) -> None:
    """Brings the pods' own records of the requests that reached them to the others'."""
    if not used(lab):
        return
    known = facts.load()
    text = _on_node(known, 'cat %s/%s/*.jsonl 2>/dev/null || true' % (RECEIVED, lab.namespace))
    (lab.received / 'pods.jsonl').write_text(text)


def status(lab: Layout) -> str:
    """What runs in the cluster, as kubectl tells it; empty without a part there."""
    if not used(lab):
        return ''
    return _kubectl(facts.load(), '-n', lab.namespace, 'get', 'pods', '-o', 'wide').strip()


def _objects(lab: Layout) -> list[dict]:
    def made(kind: str, api: str, name: str, **rest: object) -> dict:
        return {'apiVersion': api, 'kind': kind, 'metadata': {'name': name, 'namespace': lab.namespace}, **rest}

    namespace: dict = {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': lab.namespace}}
    routes = {
        'httproute': made('HTTPRoute', 'gateway.networking.k8s.io/v1', 'shop', spec={
            'parentRefs': [{'name': 'public', 'namespace': 'traefik'}], 'hostnames': ['*.' + lab.domain('httproute')],
            'rules': [{'backendRefs': [{'name': STABLE_SERVICE, 'port': PORT}]}]}),
        'virtualservice': made('VirtualService', 'networking.istio.io/v1', 'shop', spec={
            'hosts': ['*.' + lab.domain('virtualservice')], 'gateways': ['istio-system/public'],
            'http': [{'name': 'shop', 'route': [{'destination': {'host': STABLE_SERVICE, 'port': {'number': PORT}}}]}]}),
        'ingress': made('Ingress', 'networking.k8s.io/v1', 'shop', spec={
            'ingressClassName': 'nginx', 'rules': [{'host': '*.' + lab.domain('ingress'), 'http': {'paths': [{
                'path': '/', 'pathType': 'Prefix',
                'backend': {'service': {'name': STABLE_SERVICE, 'port': {'number': PORT}}}}]}}]}),
    }
    return [namespace, *(route for router, route in routes.items() if router in lab.routers)]


def _kubectl(known: facts.Facts, *words: str, given: str | None = None) -> str:
    done = subprocess.run([known.kubectl, '--kubeconfig', known.kubeconfig, '--context', known.context, *words], input=given,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError('kubectl %s said: %s' % (' '.join(words), done.stderr.strip()[-800:]))
    return done.stdout


def _on_node(known: facts.Facts, script: str) -> str:
    """Runs *script* on the cluster's node, where the cluster is ours."""
    if not known.node:
        return ''
    words = ['docker', *(('--host', known.docker_host) if known.docker_host else ()), 'exec', known.node, 'sh', '-c', script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError('The node %s did not run "%s": %s' % (known.node, script, done.stderr.strip()[-400:]))
    return done.stdout
