# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the Job of a lease against a real API server that has no nodes: this file stands in for job controller and kubelet.

The program, its arguments and its token are those that the pod would have; the token is the service account's own, from the
TokenRequest API, so that permissions are those of its Role.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

from kube_api import ApiError, KubeApi


class Pod:
    """The process of the one container of a Job."""

    def __init__(self, api: KubeApi, job: t.Mapping[str, t.Any], directory: Path) -> None:
        spec = job['spec']['template']['spec']
        namespace, account = job['metadata']['namespace'], spec['serviceAccountName']
        self.token = api.request('POST', '/api/v1/namespaces/%s/serviceaccounts/%s/token' % (namespace, account), {
            'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenRequest', 'spec': {'expirationSeconds': 3600}})['status']['token']
        name = '%s-%s' % (job['metadata']['name'], os.urandom(3).hex())
        token, authority, self.log = (directory / ('%s.%s' % (name, part)) for part in ('token', 'ca', 'log'))
        token.write_text(self.token)
        cluster = json.loads(Path(api.kubeconfig).read_text())['clusters'][0]['cluster']
        authority.write_bytes(base64.b64decode(cluster['certificate-authority-data']))
        command = spec['containers'][0]['command']
        assert command[0] == 'python3'
        self.access = [api.server, str(token), str(authority)]
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen([sys.executable, *command[1:], *self.access],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={}, cwd='/')

    def said(self) -> str:
        return self.log.read_text()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Jobs:
    """Runs every Job that is made in a namespace, each once."""

    def __init__(self, api: KubeApi, namespace: str, directory: Path) -> None:
        self.api, self.namespace, self.directory = api, namespace, directory
        self.pods: dict[str, Pod] = {}

    def look(self) -> None:
        with contextlib.suppress(ApiError, OSError):
            for job in self.api.request('GET', '/apis/batch/v1/namespaces/%s/jobs' % self.namespace)['items']:
                if job['metadata']['uid'] not in self.pods:
                    self.pods[job['metadata']['uid']] = Pod(self.api, job, self.directory)

    def during(self, work: t.Coroutine[t.Any, t.Any, t.Any]) -> t.Any:
        """Does *work* while Jobs that are made meanwhile are started."""
        async def both() -> t.Any:
            task = asyncio.ensure_future(work)
            while not task.done():
                await asyncio.get_running_loop().run_in_executor(None, self.look)
                await asyncio.wait([task], timeout=0.05)
            return await task
        return asyncio.run(both())

    @property
    def last(self) -> Pod:
        return list(self.pods.values())[-1]

    def stop(self) -> None:
        for pod in self.pods.values():
            pod.stop()
