# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_lab import Cluster


# Before pytest-xdist, which writes the group into the id.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file has a namespace or a lab of its own, which its tests share: they stay with one worker. Whole rollouts come first: begun
    last, they would keep one worker busy for minutes while the other has nothing left to do."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: item.path.stem != 'test_cluster_rollout')


@pytest.fixture(scope='module')
def cluster():
    """The cluster of `make cluster`."""
    return Cluster()
