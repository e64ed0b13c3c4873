# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rollouts out of counters that were recorded in the lab: of 200 healthy ones at most four may be stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'bench'))

import recorded  # noqa: E402

ROLLOUTS = 200


@pytest.fixture(scope='module')
def outcomes():
    return recorded.stopped(recorded.read(), ROLLOUTS, 'tests', length=120)


def test_the_recording_is_a_healthy_canary_at_five_per_cent_of_200_requests_per_second():
    e_b, n_b, e_c, n_c = (sum(column) for column in zip(*(block.counts for block in recorded.read())))
    seconds = len(recorded.read())
    assert seconds >= 600 and (n_b + n_c) / seconds > 195
    assert 0.045 < n_c / (n_b + n_c) < 0.055 and 0.001 < e_b / n_b < 0.01 and 0.001 < e_c / n_c < 0.01


@pytest.mark.parametrize('rule', ['ours, any increase', 'ours, +0.1 percentage points (default of the role)'])
def test_of_200_healthy_rollouts_at_most_two_per_cent_are_stopped(outcomes, rule):
    assert len(outcomes[rule]) == ROLLOUTS and recorded.share(outcomes[rule]) <= 0.02


def test_the_same_rollouts_deceive_the_usual_rules(outcomes):
    assert recorded.share(outcomes['z-test at every second']) > 0.2
    assert recorded.share(outcomes['last 10 s > 1 %, first failure (Argo)']) > 0.5


def test_a_canary_that_fails_five_per_cent_more_is_stopped_in_each():
    found = recorded.stopped(recorded.read(), 20, 'tests', length=120, sick=0.05)['ours, +0.1 percentage points (default of the role)']
    assert None not in found and sorted(found)[10] <= 15
