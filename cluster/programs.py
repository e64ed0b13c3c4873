# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs that a cluster is made of, built once from Go modules into the user's cache.

    python cluster/programs.py NAME...      prints each program's path; builds first what is not there yet

A program's directory in the cache is named by what it is built from, so another version is another directory. What Go needs
to build them all (several gigabytes) lies in the cache only until all that was asked for is built.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / 'lab'))

from golang import go  # noqa: E402
from layout import LabError, cache_dir  # noqa: E402

OLDEST_GO = (1, 26)


def versions() -> dict[str, str]:
    """What versions.env pins, by name, and KUBERNETES, ETCD and ISTIO from the modules that do."""
    lines = (HERE / 'versions.env').read_text().splitlines()
    pins = dict(line.split('=', 1) for line in lines if line and not line.startswith('#'))
    for name, directory, module in (('KUBERNETES', 'hyperkube', 'k8s.io/kubernetes'), ('ETCD', 'etcd', 'go.etcd.io/etcd/server/v3'),
                                    ('ISTIO', 'istiod', 'istio.io/istio')):
        words = (HERE / 'go' / directory / 'go.mod').read_text().split()
        pins[name] = words[words.index(module) + 1]
    return pins


@dataclass(frozen=True)
class Program:
    """How a program is built: from *package* of *module* as published under the version that *pin* names, or, without a
    module, from our own go/NAME. It may be called under the names of *aliases* too."""

    package: str = '.'
    module: str = ''
    pin: str = ''
    aliases: tuple[str, ...] = ()


PROGRAMS = {
    'hyperkube': Program(aliases=('kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kube-proxy', 'kubelet', 'kubeadm',
                                  'kubectl')),
    'etcd': Program(),
    'pause': Program(),
    'istiod': Program(),
    'kind': Program('sigs.k8s.io/kind', 'sigs.k8s.io/kind', 'KIND'),
    'coredns': Program('github.com/coredns/coredns', 'github.com/coredns/coredns', 'COREDNS'),
    'contour': Program('github.com/projectcontour/contour/cmd/contour', 'github.com/projectcontour/contour', 'CONTOUR'),
    'metrics-server': Program('sigs.k8s.io/metrics-server/cmd/metrics-server', 'sigs.k8s.io/metrics-server', 'METRICS_SERVER'),
    'traefik': Program('./cmd/traefik', 'github.com/traefik/traefik/v3', 'TRAEFIK'),
}


def path(name: str) -> Path:
    """Where the program lies, or will once it is built."""
    return _directory(name) / name


class NotBuilt(LabError):
    """Something is not in the cache, and CLUSTER_BUILDS=no says that it is not the time to build it."""


def check_time_to_build(what: str) -> None:
    """Raises NotBuilt where building is not wanted now: `make test` has a step of its own for it, with a limit."""
    if os.environ.get('CLUSTER_BUILDS') == 'no':
        raise NotBuilt('%s is not built yet: run `make cluster-images`' % what)


def build(names: t.Sequence[str]) -> list[Path]:
    """Returns the programs' paths, all built. One process at a time builds."""
    for name in names:
        if not path(name).exists():
            check_time_to_build(name)
    base = cache_dir()
    base.mkdir(parents=True, exist_ok=True)
    if not all(path(name).exists() for name in names):
        with open(base / 'cluster-go.lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            work = base / 'cluster-go'
            for name in names:
                if not path(name).exists():
                    _build(name, work)
            shutil.rmtree(work, ignore_errors=True)
    for name in names:
        # What nothing has used for long is cleared from the cache (scripts/cache-dir).
        os.utime(_directory(name))
    return [path(name) for name in names]


def module_directory(module: str, version: str, work: Path) -> Path:
    """Unpacks the published *module* below *work* and returns where it is."""
    told = json.loads(_go(['mod', 'download', '-json', '%s@%s' % (module, version)], HERE, work))
    return Path(told['Dir'])


def _directory(name: str) -> Path:
    program, key = PROGRAMS[name], hashlib.sha256()
    key.update(repr((program.package, program.module, versions().get(program.pin))).encode())
    for source in sorted((HERE / 'go' / name).rglob('*')):
        if source.is_file():
            key.update(source.read_bytes())
    return cache_dir() / ('cluster-%s-%s' % (name, key.hexdigest()[:12]))


def _build(name: str, work: Path) -> None:
    program, target = PROGRAMS[name], _directory(name)
    print('building %s from Go modules into %s: once' % (name, target), file=sys.stderr, flush=True)
    flags = ['-trimpath', '-buildvcs=false', '-ldflags', ' '.join(['-s', '-w', *_stamps(name)])]
    with tempfile.TemporaryDirectory(prefix='cluster-', dir=cache_dir()) as temporary:
        new = Path(temporary, name)
        new.mkdir()
        if name == 'traefik':
            _build_traefik(program, flags, new / name, work)
        elif program.module:
            _go(['install', *flags, '%s@%s' % (program.package, versions()[program.pin])], HERE, work, GOBIN=str(new))
        else:
            _go(['build', *flags, '-mod=readonly', '-o', str(new / name), program.package], HERE / 'go' / name, work)
        for alias in program.aliases:
            (new / alias).symlink_to(name)
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)


def _stamps(name: str) -> list[str]:
    """What the linker writes into a program so that it knows its own version; kubeadm and kubelet compare theirs."""
    if name != 'hyperkube':
        return []
    version = versions()['KUBERNETES']
    major, minor = version.lstrip('v').split('.')[:2]
    return ['-X', 'k8s.io/component-base/version.gitVersion=' + version, '-X', 'k8s.io/component-base/version.gitMajor=' + major,
            '-X', 'k8s.io/component-base/version.gitMinor=' + minor, '-X', 'k8s.io/client-go/pkg/version.gitVersion=' + version]


def _build_traefik(program: Program, flags: list[str], binary: Path, work: Path) -> None:
    """Traefik's go.mod replaces modules, which `go install` refuses, one of them by a folder that its published archive
    lacks: go/traefik/ext stands in for it (types of the paid edition, empty in the free one)."""
    source = module_directory(program.module, versions()[program.pin], work)
    with tempfile.TemporaryDirectory() as temporary:
        for file in ('go.mod', 'go.sum'):
            shutil.copyfile(source / file, Path(temporary, file))
        _go(['mod', 'edit', '-replace', 'github.com/traefik/traefik/dynamic/ext=%s' % (HERE / 'go' / 'traefik' / 'ext'),
             '-replace', 'github.com/abbot/go-http-auth=github.com/containous/go-http-auth@v0.4.1-0.20200324110947-a37a7636d23e',
             temporary + '/go.mod'], source, work)
        _go(['build', *flags, '-mod=mod', '-modfile', temporary + '/go.mod', '-o', str(binary), program.package], source, work)


def _go(words: list[str], directory: Path, work: Path, **env: str) -> str:
    command = [str(go(OLDEST_GO)), *words]
    settings = {**os.environ, 'GOCACHE': str(work / 'build'), 'GOMODCACHE': str(work / 'mod'), 'GOFLAGS': '-modcacherw', 'GOWORK': 'off',
                'GOTOOLCHAIN': 'local', 'CGO_ENABLED': '0', **env}
    # Each may need the network: a module proxy that hiccups is no reason to fail.
    for _try in range(3):
        done = subprocess.run(command, cwd=directory, env=settings, capture_output=True, text=True, check=False)
        if not done.returncode:
            return done.stdout
    raise LabError('`%s` failed in %s: %s' % (' '.join(command), directory, done.stderr.strip()[-1500:]))


def main() -> None:
    unknown = [name for name in sys.argv[1:] if name not in PROGRAMS]
    if unknown or not sys.argv[1:]:
        sys.exit('usage: programs.py NAME...; names: %s' % ', '.join(PROGRAMS))
    try:
        print('\n'.join(map(str, build(sys.argv[1:]))))
    except NotBuilt as error:
        print('Left out: %s' % error, file=sys.stderr)
        sys.exit(77)
    except LabError as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
