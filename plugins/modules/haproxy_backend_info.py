#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_backend_info
short_description: Read backends and servers of HAProxy, on many HAProxy processes at once
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Returns weight, states, checks, sessions and addresses of servers, and algorithm, mode and usable servers of backends.
  - Fails, naming the endpoint, when one cannot be read.
extends_documentation_fragment:
  - progressive.delivery.attributes.target
  - progressive.delivery.endpoints
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
  idempotent:
    support: full
    description: It only reads.
  platform:
    support: full
    platforms: posix
    description: HAProxy 2.6 or later.
options:
  backends:
    description: Names of the backends. All when it is left out.
    type: list
    elements: str
  run_on:
    description: Who talks to the sockets. V(target) is for sockets that only the target host sees; it needs Python 3.9 or later there.
    type: str
    choices: [control, target]
    default: control
seealso:
  - module: progressive.delivery.haproxy_backend
"""

EXAMPLES = r"""
- name: Read all backends
  progressive.delivery.haproxy_backend_info:
    endpoints:
      - name: lb1
        socket: unix:///run/haproxy/admin.sock
  register: haproxy

- name: Show servers that should be up and are not
  ansible.builtin.debug:
    msg: >-
      {{ haproxy.endpoints | map(attribute='backends') | flatten | map(attribute='servers') | flatten
         | selectattr('admin', 'eq', 'ready') | rejectattr('up') | map(attribute='name') }}
"""

RETURN = r"""
endpoints:
  description: What each endpoint shows, in the order of the option.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the endpoint.
      type: str
    version:
      description: Version of HAProxy.
      type: str
    pid:
      description: Its process.
      type: int
    uptime_s:
      description: Seconds since it started.
      type: float
    backends:
      description: Its backends.
      type: list
      elements: dict
      contains:
        backend:
          description: Name of the backend.
          type: str
        algorithm:
          description: Its balancing algorithm.
          type: str
        mode:
          description: V(http) or V(tcp).
          type: str
        usable:
          description: Servers that can be chosen for a new request, backups not counted.
          type: int
        servers:
          description: Its servers, with the keys that M(progressive.delivery.haproxy_backend) returns from C(name) to C(usable).
          type: list
          elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.progressive.delivery.plugins.module_utils._backend_info import INFO_SPEC, run_info
from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError


def main() -> None:
    module = AnsibleModule(argument_spec=INFO_SPEC, supports_check_mode=True)
    try:
        result = run_info(module.params)
    except DeliveryError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == '__main__':
    main()
