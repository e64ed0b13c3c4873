# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from cluster_lab import Cluster


@pytest.fixture(scope='module')
def cluster():
    """The cluster of `make cluster`."""
    return Cluster()
