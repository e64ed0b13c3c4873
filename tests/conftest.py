# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / '.collections'))
sys.path.insert(0, str(Path(__file__).resolve().parent))

try:
    from hypothesis import settings
except ImportError:
    pass
else:
    # How long an example takes says more about the machine than about the code.
    settings.register_profile('delivery', deadline=None)
    settings.load_profile('delivery')


# A shell starts what stands behind a `&` with SIGINT ignored, and so would be every playbook that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests that share a lab or a data plane must share a process. pytest-xdist says so in their ids, or has stopped to work."""
    if getattr(session.config.option, 'loadgroup', False):
        alone = [item.nodeid for item in session.items if item.get_closest_marker('xdist_group') and '@' not in item.nodeid]
        if alone:
            raise pytest.UsageError('pytest-xdist does not keep the group of %s together: it does not fit this pytest.' % alone[0])
