# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options C(service), C(endpoints) and C(arms), which every plugin that speaks to routers takes."""

    DOCUMENTATION = r"""
options:
  endpoints:
    description: The processes of the data plane, each of which splits the traffic by itself. All are addressed at once.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name in messages and results. Without it, the socket.
        type: str
      router:
        description:
          - V(haproxy_map) keeps the split in one entry of an HAProxy map that the frontend reads for each request. It is exact to
            0.01 % and ends by itself when its lease runs out.
          - V(haproxy_weights) sets the weights of servers of one backend, for configurations without such a map. The lease is kept by a
            watchdog process on the host that runs the task.
        type: str
        choices: [haproxy_map, haproxy_weights]
        default: haproxy_map
      socket:
        description: The runtime socket, C(unix:///path) or C(tcp://host:port). It needs C(level admin).
        type: str
        required: true
      map:
        description: Path of the map as the HAProxy configuration writes it. Required for V(haproxy_map).
        type: str
      file:
        description:
          - Where the map file lies for whoever runs the task. It is written too, so that a reload of HAProxy keeps the split.
          - The default is O(endpoints[].map) for a C(unix://) socket, and no file for a C(tcp://) one. An empty text keeps no file.
        type: str
      slots:
        description: For how many candidates the configuration has lines.
        type: int
        default: 1
      matches:
        description: The conditions of the C(acl pd_match) in the configuration. All lead to the same arm.
        type: list
        elements: dict
        suboptions:
          header:
            description: Name of a request header.
            type: str
          cookie:
            description: Name of a cookie.
            type: str
          value:
            description: The value that matches.
            type: str
            required: true
      sticky:
        description: Whether the configuration has the line that draws by the hash of a key, so that users keep their arm.
        type: bool
        default: false
      ring:
        description: Name of the ring that receives the frontend's log, from which latencies are read.
        type: str
      share:
        description: The part of all traffic that goes through this endpoint.
        type: raw
        default: 100%
      arms:
        description: Backend and servers of arms where this endpoint differs from the arms of the service.
        type: dict
      deadline:
        description: Seconds that one operation on this endpoint may take.
        type: float
        default: 2.0
      tolerance_bp:
        description: For V(haproxy_weights), by how many basis points a share may miss what was asked for.
        type: int
        default: 50
      state_dir:
        description:
          - For V(haproxy_weights), the directory on the host that runs the task in which owner and lease are kept.
          - The default is C(~/.local/state/progressive.delivery/weights).
        type: path
"""

    ARMS = r"""
options:
  service:
    description: Name of the service; for C(haproxy_map) the key of its entry in the map.
    type: str
    required: true
  arms:
    description:
      - The arms of the service by name, in a fixed order. Each has C(backend), by default the name of the arm, and may have C(servers),
        by default all of the backend that are not backups.
    type: dict
    required: true
"""
