# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The work of haproxy_backend_info, on whichever host it runs."""

from __future__ import annotations

import asyncio
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._backend import everywhere, plain_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.client import Runtime
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.site import read_pools
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import ENDPOINTS_OPTION, Endpoint

INFO_SPEC: dict[str, t.Any] = {
    'endpoints': ENDPOINTS_OPTION,
    'backends': {'type': 'list', 'elements': 'str'},
    'run_on': {'type': 'str', 'choices': ['control', 'target'], 'default': 'control'},
}


def run_info(options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Reads all endpoints at once and returns the task's result. Raises DeliveryError when one of them cannot be read."""
    endpoints = plain_endpoints(options['endpoints'])
    only = options.get('backends')
    if only is not None:
        only = list(dict.fromkeys(check_name('backend', name) for name in only))
    found = asyncio.run(everywhere([(endpoint.name, _read(endpoint, only)) for endpoint in endpoints]))
    return {'changed': False, 'endpoints': found}


async def _read(endpoint: Endpoint, only: t.Sequence[str] | None) -> dict[str, t.Any]:
    info, pools = await read_pools(Runtime(endpoint.address, endpoint.deadline), only)
    return {'name': endpoint.name, 'version': info.version, 'pid': info.pid, 'uptime_s': info.uptime_s,
            'backends': [pool.facts() for pool in pools.values()]}
