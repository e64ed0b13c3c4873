# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Kubernetes cluster with real data planes on this machine: kind, one node, everything at ports of 127.0.0.1.

    python cluster/cluster.py up|down|status|build
    python cluster/cluster.py run -- COMMAND...      ended afterwards if it did not run before

CLUSTER=existing takes the cluster that KUBECONFIG names instead of making one: the data planes are installed there, with images of
the registry CLUSTER_REGISTRY (or such as its nodes have already), and reached at its nodes' addresses. CLUSTER_DIR and CLUSTER_PORT
move the cluster, so that two can run side by side. Exit code 77, and why in one line, where none can be had.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
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
CPU_SHARES = 16 * 1024


class NoCluster(Exception):
    """No cluster can be had on this machine: a sentence that says why."""


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

    def piped(self, source: t.Sequence[object], target: t.Sequence[object]) -> None:
        """Runs *source* into *target*."""
        with subprocess.Popen([str(word) for word in source], stdout=subprocess.PIPE, env=self._env) as writing:
            self.run(*target, stdin=writing.stdout, doing='%s | %s' % (source[0], ' '.join(map(str, target[:3]))))
        if writing.returncode:
            raise LabError('%s failed.' % ' '.join(map(str, source)))

    def load(self, archive: Path) -> None:
        """Gives the Docker daemon the images of *archive*."""
        self.piped(['zstd', '--quiet', '--decompress', '--stdout', archive], ['docker', 'load', '--quiet'])

    def kubectl(self, *words: str, text: str | None = None) -> str:
        return self.run(self.kubectl_path, *words, text=text)


def up() -> tuple[facts.Facts, bool]:
    """Returns the facts of a cluster that answers, and whether it was made for that: there was none, or one of other versions."""
    home = facts.directory()
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        there = _running()
        if there:
            return _with_service(there), False
        wanted = os.environ.get('CLUSTER') or 'kind'
        if wanted == 'existing':
            made = _existing()
        elif wanted == 'kind':
            _down(home)
            try:
                made = _kind(home)
            except BaseException:
                _down(home)
                raise
        else:
            raise LabError('CLUSTER is %r: give kind, or existing for the cluster that KUBECONFIG names.' % wanted)
        made.write()
        return made, True


def run(command: t.Sequence[str]) -> int:
    """Runs *command* while the cluster is up, with the cluster's Docker daemon in DOCKER_HOST, and returns its exit code; ends the cluster
    afterwards if it was started for it."""
    made = False
    try:
        there, made = up()
        _use(there.docker_host)
        return subprocess.run(command, check=False).returncode
    except (NoCluster, programs.NotBuilt) as error:
        print('Left out: what needs a Kubernetes cluster (%s).' % error)
        return 0
    finally:
        if made:
            down()


def down() -> None:
    """Ends the cluster and the Docker daemon that was started for it; a cluster that is not ours keeps what it has."""
    home = facts.directory()
    if home.exists():
        with _locked(home):
            _down(home)
        shutil.rmtree(home, ignore_errors=True)


def _running(patience: float = 60.0) -> facts.Facts | None:
    """The cluster that runs, if it is of these versions. One that runs and does not answer within *patience* seconds is left to its
    owner (LabError): a busy machine is slow, and others may be at work in it."""
    try:
        there = facts.load()
    except LabError:
        return None
    if there.versions != programs.versions() or there.node and not _node_runs(there):
        return None
    end = time.monotonic() + patience
    while True:
        done = subprocess.run([there.kubectl, '--kubeconfig', there.kubeconfig, 'get', '--raw', '/readyz', '--request-timeout=10s'],
                              capture_output=True, text=True, check=False)
        if not done.returncode:
            return there
        if time.monotonic() > end:
            raise LabError('The cluster of %s runs but does not answer (%s): wait, or end it with `make cluster-down`.' % (
                there.kubeconfig, done.stderr.strip()[-200:]))
        time.sleep(0.5)


def _node_runs(there: facts.Facts) -> bool:
    done = subprocess.run(['docker', 'inspect', '--format', '{{.State.Running}}', there.node], capture_output=True, text=True, check=False,
                          env={**os.environ, **({'DOCKER_HOST': there.docker_host} if there.docker_host else {})})
    return done.stdout.strip() == 'true'


def _with_service(there: facts.Facts) -> facts.Facts:
    """The same cluster, with the lab's service as it is now."""
    if not there.node or there.service_image == images.service():
        return there
    _use(there.docker_host)
    tools = Tools(Path(there.kubeconfig), there.docker_host)
    tools.load(images.python())
    _load_service(tools, there.node)
    there = dataclasses.replace(there, service_image=images.service())
    there.write()
    return there


def _kind(home: Path) -> facts.Facts:
    docker_host = _docker(home)
    _use(docker_host)
    subprocess.run([str(APT), 'zstd'], check=True)
    node_archive, built = images.node()
    tools = Tools(home / 'kubeconfig', docker_host)
    tools.load(node_archive)
    tools.load(images.python())
    planes_archive = images.planes()
    port, name = facts.first_port(), _name()
    config = (HERE / 'kind.yaml').read_text() + '    extraPortMappings:\n' + ''.join(
        '      - {listenAddress: 127.0.0.1, hostPort: %d, containerPort: %d}\n' % (port + number, node_port)
        for number, node_port in enumerate(facts.NODE_PORTS.values()))
    if built:
        config = config.replace('networking:\n', 'networking:\n  disableDefaultCNI: true\n')
    (home / 'kind.yaml').write_text(config)
    print('starting Kubernetes: kind, %s' % ('a node image built here' if built else programs.versions()['KIND_NODE']), flush=True)
    tools.run(tools.kind, 'create', 'cluster', '--name', name, '--image', images.NODE_IMAGE, '--config', home / 'kind.yaml',
              '--wait', '120s', doing='kind create cluster')
    node = name + '-control-plane'
    # Against everything else on the machine a container has the weight of one process; on a busy one, probes would time out.
    tools.run('docker', 'update', '--cpu-shares', CPU_SHARES, node)
    tools.piped(['zstd', '--quiet', '--decompress', '--stdout', planes_archive], _importing(node))
    _load_service(tools, node)
    _install(tools, IMAGE_PREFIX)
    addresses = {name: '127.0.0.1:%d' % (port + number) for number, name in enumerate(facts.NODE_PORTS)}
    return facts.Facts(str(tools.kubeconfig), 'kind-' + name, node, docker_host, str(tools.kubectl_path), images.service(), addresses,
                       programs.versions())


def build() -> None:
    """Fills the cache with all that a cluster is made of, and with the programs that tests run by themselves."""
    home = facts.directory()
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        ours = not _running()
        if ours:
            _down(home)
        needed = {'hyperkube', 'etcd', 'traefik', 'kind'}
        try:
            try:
                _use(_docker(home) if ours else facts.load().docker_host)
                subprocess.run([str(APT), 'zstd'], check=True)
                if images.built_here(images.python()):
                    # No registry answers, so the rest is needed too: at once, since what Go compiles for one serves the others.
                    needed.update(images.NODE_PROGRAMS, images.PLANE_PROGRAMS)
            finally:
                programs.build([name for name in programs.PROGRAMS if name in needed])
            images.node()
            images.planes()
        finally:
            if ours:
                _down(home)


def _load_service(tools: 'Tools', node: str) -> None:
    tools.piped(['docker', 'save', *images.build_service()], _importing(node))


def _importing(node: str) -> list[str]:
    return ['docker', 'exec', '--interactive', node, 'ctr', '--namespace', 'k8s.io', 'images', 'import', '-']


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


def _docker(home: Path) -> str:
    """Returns the DOCKER_HOST of a daemon: empty when one answers already, else that of one started for this cluster."""
    if shutil.which('docker') and not subprocess.run(['docker', 'info'], capture_output=True, check=False).returncode:
        return os.environ.get('DOCKER_HOST', '')
    # Not below the checkout: UNIX sockets lie deep below it, and their paths may have 107 bytes.
    own = tempfile.mkdtemp(prefix='pd-docker.', dir='/tmp')
    (home / 'docker').write_text(own)
    done = subprocess.run([str(DAEMON), 'start', own], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise NoCluster(done.stderr.strip().removeprefix('Left out: '))
    return 'unix://%s/docker.sock' % own


def _use(docker_host: str) -> None:
    """Lets the scripts that make images find the daemon."""
    if docker_host:
        os.environ['DOCKER_HOST'] = docker_host


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


def _stop(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main() -> None:
    signal.signal(signal.SIGTERM, _stop)
    try:
        if sys.argv[1:] == ['up']:
            _say(up()[0])
        elif sys.argv[1:] == ['build']:
            build()
        elif sys.argv[1:] == ['down']:
            down()
        elif sys.argv[1:] == ['status']:
            _say(_running() or sys.exit('No cluster answers: start one with `make cluster`.'))
        elif sys.argv[1:3] == ['run', '--'] and sys.argv[3:]:
            sys.exit(run(sys.argv[3:]))
        else:
            sys.exit('usage: cluster.py up|down|status|build|run -- COMMAND...')
    except NoCluster as error:
        print('Left out: %s' % error, file=sys.stderr)
        sys.exit(LEFT_OUT)
    except LabError as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
