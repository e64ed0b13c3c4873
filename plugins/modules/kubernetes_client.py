#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_client
short_description: Have the client of Kubernetes at hand
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Fails when the Python package C(kubernetes) is missing on the control host. Otherwise every later task of the play has it loaded
    already, which saves each of them half a second.
  - This is an action plugin. It runs on the control host.
extends_documentation_fragment:
  - progressive.delivery.attributes
attributes:
  check_mode:
    support: full
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: Have the client of Kubernetes at hand
  progressive.delivery.kubernetes_client:
"""

RETURN = r"""
version:
  description: Version of the package.
  returned: success
  type: str
"""
