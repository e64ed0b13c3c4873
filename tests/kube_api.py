# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real Kubernetes API server with its etcd, as plain processes on 127.0.0.1: objects, schemas, permissions, conflicts,
watches and webhooks as in a cluster, but no nodes, no controllers and no data plane.

    with KubeApi() as api:
        api.define('traefik.io', 'TraefikService', 'traefikservices')     # a CRD of any content
        api.apply(open(manifest).read())
        api.request('GET', '/api/v1/namespaces/default/services')
        api.kubeconfig                    # for the product: cluster administrator
        api.kubeconfig_for('someone')     # of KubeApi(users=['someone']): no permission until RBAC gives him some

Its programs are built from Go modules on first use, which takes minutes (cluster/programs.py).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from haproxy_lab import free_port, wait_for

CLUSTER = Path(__file__).resolve().parents[1] / 'cluster'
ADMINISTRATOR = 'administrator'


class ApiError(Exception):
    """The server refused a request: *status* is HTTP's, *body* the Status object (or text) that came with it."""

    def __init__(self, status: int, body: t.Any) -> None:
        super().__init__('%d: %s' % (status, body.get('message') if isinstance(body, dict) else body))
        self.status, self.body = status, body


def programs(*names: str) -> list[Path]:
    """The paths of programs of a cluster (`kubectl` is hyperkube's directory / 'kubectl'), built first where they are not there."""
    done = subprocess.run([sys.executable, str(CLUSTER / 'programs.py'), *names], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 77:
        pytest.skip('the programs of a cluster are not built', allow_module_level=True)
    done.check_returncode()
    return [Path(line) for line in done.stdout.split()]


class KubeApi:
    """One etcd and one kube-apiserver, from __enter__ to __exit__. *users* can log in besides the administrator."""

    def __init__(self, users: t.Sequence[str] = ()) -> None:
        self._dir = Path(tempfile.mkdtemp(prefix='pd-kube-', dir='/tmp'))
        self._processes: dict[str, subprocess.Popen] = {}
        self._etcd_port, self._etcd_peer, self.port = free_port(), free_port(), free_port()
        self._tokens = {user: os.urandom(16).hex() for user in (ADMINISTRATOR, *users)}

    @property
    def server(self) -> str:
        return 'https://127.0.0.1:%d' % self.port

    @property
    def kubeconfig(self) -> str:
        """The path of a kubeconfig of the cluster's administrator; its context is `test`."""
        return self.kubeconfig_for(ADMINISTRATOR)

    def __enter__(self) -> 'KubeApi':
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_what: object) -> None:
        for name in reversed(list(self._processes)):
            self._end(name)
        shutil.rmtree(self._dir, ignore_errors=True)

    def _start(self) -> None:
        hyperkube, self._etcd = programs('hyperkube', 'etcd')
        self.bin = hyperkube.parent
        # RSA, since RS256 is what every client of the service account tokens can check.
        subprocess.run(['openssl', 'genrsa', '-out', str(self._dir / 'sa.key'), '2048'], check=True, capture_output=True)
        (self._dir / 'tokens.csv').write_text(''.join(
            '%s,%s,%s%s\n' % (token, user, user, ',system:masters' * (user == ADMINISTRATOR)) for user, token in self._tokens.items()))
        url = 'http://127.0.0.1:%d'
        self._spawn('etcd', [
            self._etcd, '--data-dir', self._dir / 'etcd', '--listen-client-urls', url % self._etcd_port,
            '--advertise-client-urls', url % self._etcd_port, '--listen-peer-urls', url % self._etcd_peer,
            '--initial-advertise-peer-urls', url % self._etcd_peer, '--initial-cluster', 'default=' + url % self._etcd_peer,
            '--unsafe-no-fsync', '--log-level', 'warn'])
        self.start_server()
        wait_for(lambda: self._has('/api/v1/namespaces/default'), 'the namespace default', 30)

    def start_server(self) -> None:
        """Starts the API server (again) at the same port and waits until it is ready."""
        self._spawn('kube-apiserver', [
            self.bin / 'kube-apiserver', '--etcd-servers', 'http://127.0.0.1:%d' % self._etcd_port,
            '--bind-address', '127.0.0.1', '--advertise-address', '127.0.0.1', '--secure-port', self.port,
            '--cert-dir', self._dir / 'certs', '--token-auth-file', self._dir / 'tokens.csv', '--authorization-mode', 'RBAC',
            '--service-account-issuer', 'https://kubernetes.default.svc', '--service-account-key-file', self._dir / 'sa.key',
            '--service-account-signing-key-file', self._dir / 'sa.key', '--service-cluster-ip-range', '10.96.0.0/16',
            # There is no controller that makes the service accounts which this one asks of pods.
            '--disable-admission-plugins', 'ServiceAccount', '--endpoint-reconciler-type', 'none', '--profiling=false'])
        wait_for(self._ready, 'the API server to be ready', 60)

    def stop_server(self, how: int = signal.SIGKILL) -> None:
        """Ends the API server with signal *how*; etcd keeps what it has. A token or connection meets a closed port."""
        self._end('kube-apiserver', how)

    @contextlib.contextmanager
    def frozen(self) -> t.Iterator[None]:
        """The API server takes connections and does not answer."""
        process = self._processes['kube-apiserver']
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def request(self, method: str, path: str, body: t.Any = None, content_type: str = 'application/json',
                user: str = ADMINISTRATOR, timeout: float = 10) -> t.Any:
        """Returns the decoded answer of *path* (with its query); raises ApiError for a refusal, OSError for none at all."""
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data, {
            'Authorization': 'Bearer ' + self._tokens[user], 'Content-Type': content_type, 'Accept': 'application/json'}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=self._trust()) as answer:
                return _decoded(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, _decoded(error.read())) from None

    def apply(self, manifest: str, *options: str) -> str:
        """`kubectl apply -f` of YAML or JSON text; returns what kubectl said."""
        return self.kubectl('apply', '-f', '-', *options, stdin=manifest)

    def kubectl(self, *words: str, stdin: str | None = None, user: str = ADMINISTRATOR) -> str:
        done = subprocess.run([str(self.bin / 'kubectl'), '--kubeconfig', self.kubeconfig_for(user), *words], input=stdin,
                              capture_output=True, text=True, check=False, env={**os.environ, 'HOME': str(self._dir)})
        if done.returncode:
            raise AssertionError('kubectl %s: %s' % (' '.join(words), done.stderr.strip()))
        return done.stdout

    def define(self, group: str, kind: str, plural: str, versions: t.Sequence[str] = ('v1',), namespaced: bool = True,
               status: bool = True) -> None:
        """Defines a kind whose objects may hold anything (a CRD that keeps unknown fields) and waits until it is served.

        It stands in for a definition that cannot be had here; where the real one can, use `definitions`.
        """
        anything = {'type': 'object', 'x-kubernetes-preserve-unknown-fields': True}
        schema = {'type': 'object', 'properties': {'spec': anything, 'status': anything}, 'x-kubernetes-preserve-unknown-fields': True}
        self.request('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', {
            'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition', 'metadata': {'name': '%s.%s' % (plural, group)},
            'spec': {'group': group, 'scope': 'Namespaced' if namespaced else 'Cluster',
                     'names': {'kind': kind, 'plural': plural, 'singular': kind.lower(), 'listKind': kind + 'List'},
                     'versions': [{'name': name, 'served': True, 'storage': number == 0, 'schema': {'openAPIV3Schema': schema},
                                   **({'subresources': {'status': {}}} if status else {})} for number, name in enumerate(versions)]}})
        for version in versions:
            wait_for(lambda: self._has('/apis/%s/%s/%s' % (group, version, plural)), '%s.%s to be served' % (plural, group), 30)

    def definitions(self, *names: str) -> None:
        """Installs the published CRDs of *names* (`cluster/definitions.py` lists them) and waits until they are established."""
        done = subprocess.run([sys.executable, str(CLUSTER / 'definitions.py'), *names], stdout=subprocess.PIPE, text=True, check=True)
        for path in done.stdout.split():
            self.kubectl('apply', '--server-side', '-f', path)
            self.kubectl('wait', '--for=condition=Established', '--timeout=60s', '-f', path)

    def kubeconfig_for(self, user: str) -> str:
        """The path of a kubeconfig of *user*, the administrator or one of those that were given."""
        path = self._dir / ('kubeconfig-%s' % user)
        if not path.exists():
            authority = base64.b64encode((self._dir / 'certs' / 'apiserver.crt').read_bytes()).decode()
            path.write_text(json.dumps({
                'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'test',
                'clusters': [{'name': 'test', 'cluster': {'server': self.server, 'certificate-authority-data': authority}}],
                'users': [{'name': user, 'user': {'token': self._tokens[user]}}],
                'contexts': [{'name': 'test', 'context': {'cluster': 'test', 'user': user}}]}))
        return str(path)

    def log(self, name: str = 'kube-apiserver') -> str:
        """What the process (kube-apiserver or etcd) has written."""
        return (self._dir / (name + '.log')).read_text(errors='replace')

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self._dir / 'certs' / 'apiserver.crt'))

    def _ready(self) -> bool:
        try:
            return self.request('GET', '/readyz', timeout=2) == 'ok'
        except (ApiError, OSError):
            if self._processes['kube-apiserver'].poll() is not None:
                raise AssertionError('The API server ended: %s' % self.log()[-1500:]) from None
            return False

    def _has(self, path: str) -> bool:
        try:
            self.request('GET', path)
        except (ApiError, OSError):
            return False
        return True

    def _spawn(self, name: str, command: t.Sequence[object]) -> None:
        with open(self._dir / (name + '.log'), 'ab') as log:
            self._processes[name] = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                     cwd=self._dir)

    def _end(self, name: str, how: int = signal.SIGKILL) -> None:
        process = self._processes.pop(name)
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _decoded(data: bytes) -> t.Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors='replace')
