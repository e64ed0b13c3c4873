# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins!

"""Versions of what does a rollout, for its record."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from ansible.release import __version__


def versions() -> dict[str, str]:
    """Returns the versions of the collection (where it is installed and not a checkout), of ansible-core and of Python."""
    found = {'ansible-core': __version__, 'Python': platform.python_version()}
    try:
        manifest = json.loads((Path(__file__).parents[2] / 'MANIFEST.json').read_text(encoding='utf-8'))
        return {'progressive.delivery': str(manifest['collection_info']['version']), **found}
    except (OSError, ValueError, KeyError, TypeError):
        return {'progressive.delivery': 'checkout', **found}
