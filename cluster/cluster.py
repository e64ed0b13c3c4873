# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Kubernetes cluster with real data planes on this machine: kind, one node, everything at ports of 127.0.0.1.

    python cluster/cluster.py up|down|status

CLUSTER=existing takes the cluster that KUBECONFIG names instead of making one: the data planes are installed there, with images of
the registry CLUSTER_REGISTRY (or such as its nodes have already), and reached at its nodes' addresses. CLUSTER_DIR and CLUSTER_PORT
move the cluster, so that two can run side by side. Exit code 77, and why in one line, where none can be had.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

import definitions
import facts
import images
import programs
from layout import LabError

HERE = Path(__file__).resolve().parent
APT = HERE.parent / 'scripts' / 'apt'
DAEMON = HERE.parent / 'scripts' / 'docker-daemon'
IMAGE_PREFIX = 'progressive.delivery/'
DEPLOYMENTS = (('traefik', 'traefik'), ('istio-system', 'istiod'), ('istio-system', 'istio-ingressgateway'),
               ('projectcontour', 'contour'), ('projectcontour', 'envoy'), ('kube-system', 'metrics-server'))
LEFT_OUT = 77


class Tools:
    """The programs that make and fill a cluster, on the Docker daemon of *docker_host* (empty: the machine's own)."""

    def __init__(self, kubeconfig: Path, docker_host: str = '') -> None:
        self.kubeconfig = kubeconfig
        self._env = {**os.environ, 'KUBECONFIG': str(kubeconfig), **({'DOCKER_HOST': docker_host} if docker_host else {})}
        hyperkube, self.kind = programs.build(['hyperkube', 'kind'])
        self.kubectl_path = hyperkube.parent / 'kubectl'

    def run(self, *command: object, stdin: t.Any = None, text: str | None = None, doing: str = '') -> str:
        """Returns what *command* prints; LabError with its last lines when it fails."""
        done = subprocess.run([str(word) for word in command], stdin=stdin, input=text, capture_output=True, text=True, env=self._env,
                              check=False)
        if done.returncode:
            raise LabError('%s failed: %s' % (doing or ' '.join(str(word) for word in command[:4]),
                                              ' '.join((done.stderr or done.stdout).split('\n')[-12:]).strip()))
        return done.stdout

    def kubectl(self, *words: str, text: str | None = None) -> str:
        return self.run(self.kubectl_path, *words, text=text)


def up() -> facts.Facts:
    """Returns the facts of a cluster that answers, made first if there is none of these versions."""
    home = facts.directory()
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        there = _running()
        if there:
            return there
        wanted = os.environ.get('CLUSTER') or 'kind'
        if wanted == 'existing':
            made = _existing()
        elif wanted == 'kind':
            _down(home)
            made = _kind(home)
        else:
            raise LabError('CLUSTER is %r: give kind, or existing for the cluster that KUBECONFIG names.' % wanted)
        made.write()
        return made


def down() -> None:
    """Ends the cluster and the Docker daemon that was started for it; a cluster that is not ours keeps what it has."""
    home = facts.directory()
    if home.exists():
        with _locked(home):
            _down(home)
        shutil.rmtree(home, ignore_errors=True)


def _running() -> facts.Facts | None:
    try:
        there = facts.load()
    except LabError:
        return None
    if there.versions != programs.versions():
        return None
    done = subprocess.run([there.kubectl, '--kubeconfig', there.kubeconfig, 'get', '--raw', '/readyz', '--request-timeout=5s'],
                          capture_output=True, check=False)
    return None if done.returncode else there


def _kind(home: Path) -> facts.Facts:
    docker_host = _docker(home)
    if docker_host:
        os.environ['DOCKER_HOST'] = docker_host
    subprocess.run([str(APT), 'zstd'], check=True)
    node_archive, built = images.node()
    planes_archive = images.planes()
    tools = Tools(home / 'kubeconfig', docker_host)
    port, name = facts.first_port(), _name()
    config = (HERE / 'kind.yaml').read_text() + '    extraPortMappings:\n' + ''.join(
        '      - {listenAddress: 127.0.0.1, hostPort: %d, containerPort: %d}\n' % (port + number, node_port)
        for number, node_port in enumerate(facts.NODE_PORTS.values()))
    if built:
        config = config.replace('networking:\n', 'networking:\n  disableDefaultCNI: true\n')
    (home / 'kind.yaml').write_text(config)
    _load(tools, node_archive, ['docker', 'load', '--quiet'])
    print('starting Kubernetes: kind, %s' % ('a node image built here' if built else programs.versions()['KIND_NODE']), flush=True)
    tools.run(tools.kind, 'create', 'cluster', '--name', name, '--image', images.NODE_IMAGE, '--config', home / 'kind.yaml',
              '--wait', '120s', doing='kind create cluster')
    node = name + '-control-plane'
    _load(tools, planes_archive, ['docker', 'exec', '--interactive', node, 'ctr', '--namespace', 'k8s.io', 'images', 'import', '-'])
    _install(tools, IMAGE_PREFIX)
    addresses = {name: '127.0.0.1:%d' % (port + number) for number, name in enumerate(facts.NODE_PORTS)}
    return facts.Facts(str(tools.kubeconfig), 'kind-' + name, node, docker_host, str(tools.kubectl_path), IMAGE_PREFIX + 'service:lab',
                       addresses, programs.versions())


def _existing() -> facts.Facts:
    config = os.environ.get('KUBECONFIG') or ''
    if not config or not Path(config).is_file():
        raise LabError('CLUSTER=existing asks for a cluster, and KUBECONFIG (%r) names no file that tells of one.' % config)
    tools = Tools(Path(config).resolve())
    prefix = os.environ.get('CLUSTER_REGISTRY', IMAGE_PREFIX).rstrip('/') + '/'
    context = tools.kubectl('config', 'current-context').strip()
    nodes = json.loads(tools.kubectl('get', 'nodes', '-o', 'json'))['items']
    address = next(entry['address'] for entry in nodes[0]['status']['addresses'] if entry['type'] == 'InternalIP')
    _install(tools, prefix)
    addresses = {name: '%s:%d' % (address, node_port) for name, node_port in facts.NODE_PORTS.items()}
    return facts.Facts(str(tools.kubeconfig), context, '', '', str(tools.kubectl_path), prefix + 'service:lab', addresses,
                       programs.versions())


def _install(tools: Tools, prefix: str) -> None:
    """Puts the data planes into the cluster and waits until each serves."""
    print('installing Traefik, istiod with Envoy, Contour with Envoy, metrics-server', flush=True)
    for name in definitions.DEFINITIONS:
        path = str(definitions.definition(name))
        # An object of this size does not fit into the annotation that client-side apply writes.
        tools.kubectl('apply', '--server-side', '--force-conflicts', '-f', path)
        tools.kubectl('wait', '--for=condition=Established', '--timeout=60s', '-f', path)
    for path in sorted((HERE / 'manifests').glob('*.yaml')):
        tools.kubectl('apply', '-f', '-', text=path.read_text().replace('image: ' + IMAGE_PREFIX, 'image: ' + prefix))
    for namespace, name in DEPLOYMENTS:
        tools.kubectl('--namespace', namespace, 'rollout', 'status', 'deployment/' + name, '--timeout=180s')


def _load(tools: Tools, archive: Path, into: t.Sequence[str]) -> None:
    with subprocess.Popen(['zstd', '--quiet', '--decompress', '--stdout', str(archive)], stdout=subprocess.PIPE) as unpacking:
        tools.run(*into, stdin=unpacking.stdout, doing='loading %s' % archive.name)


def _docker(home: Path) -> str:
    """Returns the DOCKER_HOST of a daemon: empty when one answers already, else that of one started for this cluster."""
    if shutil.which('docker') and not subprocess.run(['docker', 'info'], capture_output=True, check=False).returncode:
        return os.environ.get('DOCKER_HOST', '')
    # Not below the checkout: UNIX sockets lie deep below it, and their paths may have 107 bytes.
    own = tempfile.mkdtemp(prefix='pd-docker.', dir='/tmp')
    (home / 'docker').write_text(own)
    done = subprocess.run([str(DAEMON), 'start', own], check=False)
    if done.returncode:
        _down(home)
        sys.exit(done.returncode)
    return 'unix://%s/docker.sock' % own


def _down(home: Path) -> None:
    own = home / 'docker'
    if own.exists():
        # The node and all that it holds end with the daemon, which keeps nothing.
        subprocess.run([str(DAEMON), 'stop', own.read_text()], check=True)
        own.unlink()
    elif (home / 'kind.yaml').exists():
        with contextlib.suppress(FileNotFoundError):
            tools = Tools(home / 'kubeconfig')
            tools.run(tools.kind, 'delete', 'cluster', '--name', _name())
    for name in ('facts.json', 'kubeconfig', 'kind.yaml'):
        (home / name).unlink(missing_ok=True)


def _name() -> str:
    return 'pd-%d' % facts.first_port()


@contextlib.contextmanager
def _locked(home: Path) -> t.Iterator[None]:
    with open(home / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(there: facts.Facts) -> None:
    print('kubeconfig: %s\nfacts:      %s' % (there.kubeconfig, there.path))
    for name, address in there.addresses.items():
        if not name.startswith('spare'):
            print('%-16s http://%s' % (name, address))


def main() -> None:
    try:
        if sys.argv[1:] == ['up']:
            _say(up())
        elif sys.argv[1:] == ['down']:
            down()
        elif sys.argv[1:] == ['status']:
            _say(_running() or sys.exit('No cluster answers: start one with `make cluster`.'))
        else:
            sys.exit('usage: cluster.py up|down|status')
    except LabError as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
