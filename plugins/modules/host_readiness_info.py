#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_readiness_info
short_description: Read how much of a host's processors, memory and disks is in use, and how far its clock is off
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Looks at the task's host for O(seconds), with the standard library of Python only, and changes nothing.
  - >-
    A host that cannot be reached, or that is no Linux, is an RV(error) and no failure: M(progressive.delivery.preflight) judges, and a
    rollout of many hosts is not broken off by one.
extends_documentation_fragment:
  - progressive.delivery.attributes.info
attributes:
  idempotent:
    support: full
    description: Changes nothing.
  platform:
    platforms: linux
    support: full
    description: Reads C(/proc).
options:
  paths:
    description: Paths whose file systems are looked at.
    type: list
    elements: path
    default: [/]
  seconds:
    description: How long to look at the processors, 0.1 to 10 s.
    type: float
    default: 0.5
seealso:
  - module: progressive.delivery.preflight
"""

EXAMPLES = r"""
- name: Look at the service's hosts
  progressive.delivery.host_readiness_info:
    paths: [/, /var/log]
  register: readiness
"""

RETURN = r"""
cpu:
  description: Share of the processors' time that was busy, 0 to 1.
  returned: success
  type: float
memory:
  description: Share of the memory that is not available to new programs, 0 to 1.
  returned: success
  type: float
disks:
  description: Share of each file system that is in use, 0 to 1; empty for a path that is not there.
  returned: success
  type: dict
  sample: {"/": 0.42}
time:
  description: The host's clock, in seconds since 1970.
  returned: success
  type: float
skew_s:
  description: By how many seconds the host's clock is ahead of the control host's.
  returned: success
  type: float
within_s:
  description: How exactly RV(skew_s) is known.
  returned: success
  type: float
error:
  description: Why nothing is known of the host.
  returned: when it could not be asked
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.progressive.delivery.plugins.module_utils._host import HOST_SPEC, look


def main() -> None:
    module = AnsibleModule(argument_spec=HOST_SPEC, supports_check_mode=True)
    seconds = module.params['seconds']
    if not 0.1 <= seconds <= 10:
        module.fail_json(msg='seconds is %g: give 0.1 to 10.' % seconds)
    try:
        found = look(module.params['paths'], seconds)
    except (OSError, ValueError) as exc:
        module.fail_json(msg='/proc could not be read: %s. Only Linux hosts can be looked at.' % exc)
    module.exit_json(changed=False, **found)


if __name__ == '__main__':
    main()
