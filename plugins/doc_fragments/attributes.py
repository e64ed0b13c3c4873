# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Attributes that several modules have in the same words."""

    # It runs on the control host and changes nothing that could be compared.
    DOCUMENTATION = r"""
options: {}
attributes:
  diff_mode:
    support: none
    description: There is nothing to compare.
  action:
    support: full
    description: This is an action plugin; it runs on the control host.
"""

    # It only looks, and says the same in check mode.
    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return what it would return without it.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

    # It runs where its option says.
    TARGET = r"""
options: {}
attributes:
  action:
    support: full
    description: This is an action plugin. It runs on the control host unless O(run_on=target).
"""
