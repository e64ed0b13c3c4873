#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: say
short_description: Print a text as it is
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Prints a text, of several lines if need be, without the frame that a stdout callback draws around results, and also where
    C(display_ok_hosts) is off.
  - This is an action plugin. It runs on the control host.
extends_documentation_fragment:
  - progressive.delivery.attributes
attributes:
  check_mode:
    support: full
    description: Prints in check mode as well.
options:
  msg:
    description: The text.
    type: str
    required: true
seealso:
  - module: ansible.builtin.debug
"""

EXAMPLES = r"""
- name: Tell who receives traffic
  progressive.delivery.say:
    msg: "{{ now.text }}"
"""

RETURN = r"""
msg:
  description: The text.
  returned: always
  type: str
"""
