# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The archives that a cluster's node and what runs on it are loaded from: kept in the user's cache, taken from a registry where one
answers, and built from Go modules and the distribution's packages where none does (CLUSTER_IMAGES=pull or =build: only that)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import typing as t
from pathlib import Path

import definitions
import programs
from layout import LabError, cache_dir

IMAGES = Path(__file__).resolve().parent / 'images'
CHECKOUT = IMAGES.parents[1]
NODE_PROGRAMS = ('hyperkube', 'etcd', 'coredns', 'pause')
PLANE_PROGRAMS = ('traefik', 'contour', 'istiod', 'metrics-server')
NODE_IMAGE = 'progressive.delivery/node:lab'
PYTHON_IMAGE = 'progressive.delivery/python:lab'


def node() -> tuple[Path, bool]:
    """Returns the archive of the node's image, which holds NODE_IMAGE, and whether it was built here (and has no network of
    its own that kind would install)."""
    names = ('KUBERNETES', 'ETCD', 'COREDNS', 'PAUSE')
    built = _archive('node-built', [IMAGES / 'node', IMAGES / '10-bridge.conflist', CHECKOUT / 'scripts' / 'runc-bounded'],
                     [str(programs.path(name)) for name in NODE_PROGRAMS] + [programs.versions()[name] for name in names])
    pulled = _archive('node-pulled', [], [programs.versions()['KIND_NODE']])

    def pull() -> bool:
        return not _run(['bash', '-c', 'set -o pipefail; docker pull --quiet "$1" >/dev/null && docker tag "$1" "$2" && '
                         'docker save "$2" | zstd --quiet -T0 -6 --force -o "$3.new" && mv "$3.new" "$3"', 'pull',
                         programs.versions()['KIND_NODE'], NODE_IMAGE, str(pulled)], quiet=True)

    def build() -> None:
        with _gathered(NODE_PROGRAMS) as directory:
            pins = {name: programs.versions()[name] for name in names}
            if _run([str(IMAGES / 'node'), str(built), directory, str(definitions.node_files())], NODE_IMAGE=NODE_IMAGE, **pins):
                raise LabError('The image of a Kubernetes node could not be built; what went wrong is above.')
    archive = _kept(pulled, pull, built, build, 'a Kubernetes node')
    return archive, built_here(archive)


def python() -> Path:
    """Returns the archive of PYTHON_IMAGE: Python and what the lab's service needs. The daemon need not have it."""
    published = programs.versions()['PYTHON_IMAGE']
    common = [IMAGES / 'python', IMAGES / 'locked.py', CHECKOUT / 'requirements' / 'run.txt']
    pulled, built = _archive('python-pulled', common, [published]), _archive('python-built', common, [])

    def pull() -> bool:
        return not _run([str(IMAGES / 'python'), str(pulled), published], quiet=True)

    def build() -> None:
        if _run([str(IMAGES / 'python'), str(built)]):
            raise LabError('The image of Python could not be built; what went wrong is above.')
    return _kept(pulled, pull, built, build, 'Python')


def planes() -> Path:
    """Returns the archive of the data planes' images. The daemon has PYTHON_IMAGE by now."""
    published = {name: version for name, version in programs.versions().items() if name.endswith('_IMAGE')}
    pulled = _archive('planes-pulled', [IMAGES / 'planes'], sorted(published.values()))
    built = _archive('planes-built', [IMAGES / 'planes', IMAGES / 'envoy.txt'], [str(programs.path(name)) for name in PLANE_PROGRAMS])

    def pull() -> bool:
        return not _run([str(IMAGES / 'planes'), str(pulled), ''], quiet=True, **published)

    def build() -> None:
        with _gathered(PLANE_PROGRAMS) as directory:
            if _run([str(IMAGES / 'planes'), str(built), directory]):
                raise LabError('The images of the data planes could not be built; what went wrong is above.')
    return _kept(pulled, pull, built, build, 'the data planes')


def built_here(archive: Path) -> bool:
    """Whether *archive* was built, and not taken from a registry."""
    return '-built-' in archive.name


def service() -> str:
    """The name of the image of the lab's service as it is now: another lab/service.py is another name."""
    sources = (CHECKOUT / 'lab' / 'service.py').read_bytes() + (IMAGES / 'Dockerfile.service').read_bytes()
    return 'progressive.delivery/service:%s' % hashlib.sha256(sources).hexdigest()[:12]


def build_service() -> list[str]:
    """Builds service(), and the same as progressive.delivery/service:lab; returns both names. The daemon has PYTHON_IMAGE by now."""
    names = [service(), 'progressive.delivery/service:lab']
    with tempfile.TemporaryDirectory(prefix='pd-service-') as context:
        shutil.copyfile(CHECKOUT / 'lab' / 'service.py', Path(context, 'service.py'))
        Path(context, 'service.py').chmod(0o644)
        shutil.copyfile(IMAGES / 'Dockerfile.service', Path(context, 'Dockerfile'))
        done = subprocess.run(['docker', 'build', '--quiet', *(word for name in names for word in ('--tag', name)), context],
                              env={**os.environ, 'DOCKER_BUILDKIT': '0'}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError('The image of the lab\'s service could not be built: %s' % done.stderr.strip()[-800:])
    return names


def _archive(name: str, files: t.Sequence[Path], words: t.Sequence[str]) -> Path:
    key = hashlib.sha256()
    if name.endswith('built'):
        key.update('\n'.join(re.findall(r'^(?:ID|VERSION_CODENAME)=.*', Path('/etc/os-release').read_text(), re.M)).encode())
    for file in files:
        key.update(file.read_bytes())
    key.update('\n'.join(Path(word).parent.name if word.startswith('/') else word for word in words).encode())
    return cache_dir() / ('cluster-%s-%s.tar.zst' % (name, key.hexdigest()[:12]))


def _kept(pulled: Path, pull: t.Callable[[], bool], built: Path, build: t.Callable[[], None], what: str) -> Path:
    wanted = os.environ.get('CLUSTER_IMAGES') or ''
    if wanted not in ('', 'pull', 'build'):
        raise LabError('CLUSTER_IMAGES is %r: give pull, build, or nothing for what can be had.' % wanted)
    found = {'pull': [pulled], 'build': [built], '': [pulled, built]}[wanted]
    for archive in found:
        if archive.exists():
            os.utime(archive)
            return archive
    programs.check_time_to_build('the archive of %s' % what)
    if wanted != 'build' and pull():
        return pulled
    if wanted == 'pull':
        raise LabError('The images of %s could not be pulled from their registries.' % what)
    print('no registry answers: building the images of %s into %s, once' % (what, built), flush=True)
    build()
    return built


class _gathered:
    """A directory with (links to) the programs of these names, built first where they are not there."""

    def __init__(self, names: t.Sequence[str]) -> None:
        self._names = names

    def __enter__(self) -> str:
        self._directory = tempfile.TemporaryDirectory(prefix='pd-programs-', dir='/tmp')
        for name, path in zip(self._names, programs.build(self._names)):
            Path(self._directory.name, name).symlink_to(path)
        return self._directory.name

    def __exit__(self, *_what: object) -> None:
        self._directory.cleanup()


def _run(command: t.Sequence[str], quiet: bool = False, **env: str) -> int:
    return subprocess.run(command, env={**os.environ, **env}, stderr=subprocess.DEVNULL if quiet else None, check=False).returncode
