# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of published Go modules, kept in the user's cache: the definitions (CRDs) of the objects that data planes read.

    python cluster/definitions.py NAME...      prints the path of each definition's YAML; names: see DEFINITIONS
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import typing as t
from pathlib import Path

import programs
from layout import LabError, cache_dir

# name: (module, pin in versions.env, files). Gateway API's experimental channel, since Contour still asks for v1alpha2 of the
# routes below HTTP; without the policy that refuses to install an older version of the definitions afterwards.
DEFINITIONS = {
    'gateway-api': ('sigs.k8s.io/gateway-api', 'GATEWAY_API', 'config/crd/experimental/gateway.networking.k8s.io_*s.yaml'),
    'istio': ('istio.io/istio', 'ISTIO', 'manifests/charts/base/files/crd-all.gen.yaml'),
    'traefik': ('github.com/traefik/traefik/v3', 'TRAEFIK',
                'docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml'),
    'prometheus': ('github.com/prometheus-operator/prometheus-operator', 'PROMETHEUS_OPERATOR', 'example/prometheus-operator-crd/*.yaml'),
    'contour': ('github.com/projectcontour/contour', 'CONTOUR', 'examples/contour/01-crds.yaml'),
}


def definition(name: str) -> Path:
    """The path of one YAML file with all definitions of *name*, fetched now if it is not in the cache."""
    module, pin, pattern = DEFINITIONS[name]

    def write(source: Path, target: Path) -> None:
        found = sorted(path for path in source.glob(pattern) if '_vap_' not in path.name)
        if not found:
            raise LabError('%s %s has no %s.' % (module, programs.versions()[pin], pattern))
        (target / (name + '.yaml')).write_text('---\n'.join(path.read_text() for path in found))
    return _kept('definitions-' + name, module, pin, pattern, write) / (name + '.yaml')


def node_files() -> Path:
    """The directory of what kind puts into the file system of its nodes."""
    return _kept('node-files', 'sigs.k8s.io/kind', 'KIND', '', lambda source, target: shutil.copytree(
        source / 'images' / 'base' / 'files', target, dirs_exist_ok=True, copy_function=shutil.copyfile))


def _kept(what: str, module: str, pin: str, pattern: str, write: t.Callable[[Path, Path], object]) -> Path:
    version = programs.versions()[pin]
    key = hashlib.sha256(repr((module, version, pattern)).encode()).hexdigest()[:12]
    target = cache_dir() / ('cluster-%s-%s' % (what, key))
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix='cluster-', dir=cache_dir()) as temporary:
            new = Path(temporary, 'new')
            new.mkdir()
            write(programs.module_directory(module, version, Path(temporary, 'go')), new)
            new.rename(target)
    os.utime(target)
    return target


def main() -> None:
    unknown = [name for name in sys.argv[1:] if name not in DEFINITIONS]
    if unknown or not sys.argv[1:]:
        sys.exit('usage: definitions.py NAME...; names: %s' % ', '.join(DEFINITIONS))
    try:
        print('\n'.join(str(definition(name)) for name in sys.argv[1:]))
    except LabError as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
