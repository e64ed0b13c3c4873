# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Kubernetes cluster of `make cluster`, for tests: objects in, answers of its data planes out.

    cluster = Cluster()                                 # LabError when `make cluster` has not been
    with cluster.namespace() as shop:                   # a name of its own, deleted afterwards
        cluster.arm(shop, 'blue', '5.0')                # Deployment and Service `blue`, ready
        cluster.apply(objects)
        cluster.get('traefik', 'shop.test')             # -> haproxy_lab.Answer, through that data plane
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import haproxy_lab

sys.path.append(str(Path(__file__).resolve().parents[1] / 'cluster'))

import facts  # noqa: E402

PORT = 8080


class Cluster:
    def __init__(self) -> None:
        self.facts = facts.load()

    def port(self, plane: str) -> int:
        """The port on 127.0.0.1 of what facts.NODE_PORTS calls *plane*."""
        return int(self.facts.addresses[plane].rpartition(':')[2])

    def get(self, plane: str, host: str = 'localhost', path: str = '/api/x', headers: t.Mapping[str, str] | None = None,
            timeout: float = 5.0) -> haproxy_lab.Answer:
        """One GET for *host* over a connection of its own."""
        return haproxy_lab.get(self.port(plane), path, {'Host': host, **(headers or {})}, timeout)

    def arm_of(self, plane: str, host: str, headers: t.Mapping[str, str] | None = None) -> str | None:
        """The arm whose service answers a request for *host*; None when none does (yet)."""
        try:
            return self.get(plane, host, headers=headers).headers.get('x-arm')
        except OSError:
            return None

    def kubectl(self, *words: str, text: str | None = None) -> str:
        done = subprocess.run([self.facts.kubectl, '--kubeconfig', self.facts.kubeconfig, *words], input=text, capture_output=True,
                              text=True, check=False)
        if done.returncode:
            raise AssertionError('kubectl %s: %s' % (' '.join(words), done.stderr.strip()))
        return done.stdout

    def apply(self, *objects: t.Mapping[str, t.Any]) -> None:
        self.kubectl('apply', '-f', '-', text=json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': objects}))

    @contextlib.contextmanager
    def namespace(self) -> t.Iterator[str]:
        name = 'test-' + os.urandom(4).hex()
        self.kubectl('create', 'namespace', name)
        try:
            yield name
        finally:
            self.kubectl('delete', 'namespace', name, '--wait=false')

    def arm(self, namespace: str, arm: str, version: str, replicas: int = 1, fault: str = 'none', ready: bool = True) -> None:
        """Makes the Deployment and the Service (port 80) *arm* of lab/service.py, and waits until all replicas are ready."""
        self.apply(*service(namespace, arm, version, self.facts.service_image, replicas, fault))
        if ready:
            self.kubectl('--namespace', namespace, 'rollout', 'status', 'deployment/' + arm, '--timeout=60s')


def service(namespace: str, arm: str, version: str, image: str, replicas: int = 1, fault: str = 'none') -> list[dict]:
    """The Deployment and the Service of one arm, as objects; their pods carry the labels app=shop and arm=*arm*."""
    labels = {'app': 'shop', 'arm': arm}
    probe = {'periodSeconds': 1, 'timeoutSeconds': 3}
    container = {
        'name': 'service', 'image': image, 'imagePullPolicy': 'IfNotPresent', 'ports': [{'containerPort': PORT}],
        'args': ['--arm', arm, '--version', version, '--port', str(PORT), '--host', '0.0.0.0', '--fault', fault],
        'readinessProbe': {'httpGet': {'path': '/health/ready', 'port': PORT}, **probe},
        'resources': {'requests': {'cpu': '20m'}},
        'securityContext': {'allowPrivilegeEscalation': False, 'capabilities': {'drop': ['ALL']}, 'runAsNonRoot': True,
                            'seccompProfile': {'type': 'RuntimeDefault'}}}
    metadata = {'name': arm, 'namespace': namespace, 'labels': labels}
    return [
        {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': metadata, 'spec': {
            'replicas': replicas, 'selector': {'matchLabels': labels},
            'template': {'metadata': {'labels': labels}, 'spec': {'containers': [container], 'terminationGracePeriodSeconds': 5}}}},
        {'apiVersion': 'v1', 'kind': 'Service', 'metadata': metadata,
         'spec': {'selector': labels, 'ports': [{'name': 'http', 'port': 80, 'targetPort': PORT}]}}]
