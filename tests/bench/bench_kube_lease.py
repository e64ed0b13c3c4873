# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How exactly a lease in the cluster ends: from its last renewal to the route on stable again, against a real API server.

    .venv/bin/python tests/bench/bench_kube_lease.py [rounds, default 20]

The Job's program runs as a plain process, so its start costs no image and no scheduling. Prints milliseconds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / '.collections'), str(ROOT / 'tests')]

from ansible_collections.progressive.delivery.plugins.module_utils._kube import client, deadman  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Ref  # noqa: E402
from deadman_lab import Jobs  # noqa: E402
from kube_api import KubeApi  # noqa: E402

LEASE_S = 2


async def one(kube, api, jobs, number):
    """Returns milliseconds: arming, one renewal, and from the last renewal to the end."""
    route = Ref('example.test', 'v1', 'routes', 'default', 'r%d' % number)
    kube.request('POST', route.collection, {
        'apiVersion': 'example.test/v1', 'kind': 'Route', 'spec': {'canary': 20},
        'metadata': {'name': route.name, 'annotations': {'progressive.delivery/shop': '{"rollout":"bench"}'}}})
    spec = deadman.DeadmanSpec(
        service='shop', endpoint='bench', rollout='bench', resource=route, lease_s=LEASE_S, image='none/none', way_back=({
            'method': 'PATCH', 'path': route.path, 'content_type': 'application/merge-patch+json', 'body': {'spec': {'canary': 0}}},))
    began = time.perf_counter()
    arming = asyncio.ensure_future(deadman.arm(api, spec))
    while not arming.done():
        await asyncio.get_running_loop().run_in_executor(None, jobs.look)
        await asyncio.sleep(0.02)
    await arming
    armed = time.perf_counter()
    await asyncio.sleep(0.3)
    renewing = time.perf_counter()
    await deadman.renew(api, spec.names, LEASE_S)
    renewed = time.perf_counter()
    while kube.request('GET', route.path)['spec']['canary']:
        await asyncio.sleep(0.003)
    ended = time.perf_counter()
    return (armed - began) * 1000, (renewed - renewing) * 1000, (ended - renewed) * 1000


def main(rounds):
    with KubeApi() as kube, tempfile.TemporaryDirectory(prefix='pd-', dir='/tmp') as directory:
        kube.define('example.test', 'Route', 'routes')
        api, jobs = client.connect(kube.kubeconfig, None, 5), Jobs(kube, 'default', Path(directory))
        try:
            found = [asyncio.run(one(kube, api, jobs, number)) for number in range(rounds)]
        finally:
            jobs.stop()
    for name, values in zip(('arm', 'renew', 'last renewal to way back, of a lease of %d ms' % (LEASE_S * 1000)), zip(*found)):
        print('%-55s median %7.1f   min %7.1f   max %7.1f ms' % (name, statistics.median(values), min(values), max(values)))


if __name__ == '__main__':
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
