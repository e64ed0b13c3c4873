# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the cluster is, for what uses it: the lab, the tests, molecule.

`make cluster` writes facts.json into CLUSTER_DIR (default: .cluster of the checkout); `load()` reads it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent / 'lab') not in sys.path:
    sys.path.append(str(HERE.parent / 'lab'))

from layout import LabError  # noqa: E402

NODE_PORTS = {
    'traefik': 30080,  # HTTPRoute, GRPCRoute, canary ingress, Traefik's own objects
    'traefik_admin': 30081,  # /api/rawdata, /metrics, /ping
    'istio': 30082,  # VirtualService
    'istio_admin': 30083,  # Envoy's administration of that gateway: /config_dump, /clusters, /stats
    'istiod': 30084,  # /metrics, /debug/syncz, ...
    'contour': 30085,  # HTTPProxy, HTTPRoute, GRPCRoute
    'contour_admin': 30086,  # Envoy's administration behind Contour
    'contour_metrics': 30087,  # Contour's own /metrics
    'spare_1': 30090, 'spare_2': 30091, 'spare_3': 30092, 'spare_4': 30093,  # for what a test puts into the cluster
}
"""name: NodePort in the cluster. On the host they are a row from CLUSTER_PORT on, in this order."""


def directory() -> Path:
    """CLUSTER_DIR, or .cluster of the checkout."""
    return Path(os.environ.get('CLUSTER_DIR') or HERE.parent / '.cluster').resolve()


def first_port() -> int:
    """CLUSTER_PORT: the first of 20 loopback ports (default 19000)."""
    port = os.environ.get('CLUSTER_PORT') or '19000'
    if not port.isdigit() or not 1024 <= int(port) <= 65000:
        raise LabError('CLUSTER_PORT is %r: give the first of 20 free ports, from 1024 to 65000.' % port)
    return int(port)


@dataclass(frozen=True)
class Facts:
    """A cluster that runs, with its data planes ready."""

    kubeconfig: str
    """Path; its current context is *context*, a cluster administrator's."""
    context: str
    node: str
    """Name of the node's container; empty where the cluster is not ours."""
    docker_host: str
    """DOCKER_HOST of the daemon that the node runs on; empty for the machine's own."""
    kubectl: str
    """Path of a kubectl."""
    service_image: str
    """The lab's service as an image that the nodes have: `args` of its container are those of lab/service.py."""
    addresses: dict[str, str]
    """host:port, reachable from this machine, by the names of NODE_PORTS."""
    versions: dict[str, str]

    @property
    def path(self) -> Path:
        return directory() / 'facts.json'

    def write(self) -> None:
        new = self.path.with_suffix('.new')
        new.write_text(json.dumps(dataclasses.asdict(self), indent=2) + '\n')
        new.replace(self.path)


def load() -> Facts:
    """Returns what `make cluster` has written; LabError where it has not."""
    path = directory() / 'facts.json'
    try:
        return Facts(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise LabError('There is no cluster in %s (%s): start one with `make cluster`.' % (path.parent, error)) from None
