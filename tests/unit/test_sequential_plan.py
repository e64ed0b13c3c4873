# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.progressive.delivery.plugins.module_utils._analysis._planning import plan
from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import Question

ERRORS = Question('errors', pass_margin=0.005)


class TestPlan:
    def test_it_tells_what_can_be_found(self):
        told = plan(ERRORS, 95, 5, 0.001, 1800, harm=0.01)
        assert told.median_s == pytest.approx(81, abs=1) and told.late_s < 1800 and not told.warnings
        assert 0.002 < told.smallest < 0.004 and told.pass_s < 1800
        assert told.text == ('errors: in 30 min at 5 and 95 requests per second, with 0.1 % on stable, 0.29 % errors or more on the '
                             'candidate is found in nine of ten cases; 1 % is found in 1 min 21 s, in one of ten cases only after '
                             '2 min 43 s; a candidate as good as stable passes after 3 min 7 s, in one of ten cases '
                             'only after 6 min 14 s')

    def test_it_warns_of_a_bake_that_is_too_short(self):
        told = plan(ERRORS, 95, 5, 0.001, 60, harm=0.005)
        assert len(told.warnings) == 2
        assert told.warnings[0].startswith('The bake of 1 min is too short for the condition "errors" to find 0.5 %')
        assert 'to pass a candidate' in told.warnings[1]

    def test_it_warns_of_a_pass_that_cannot_be(self):
        told = plan(Question('errors'), 95, 5, 0.001, 1800)
        assert told.pass_s is None and 'pass_margin' in told.warnings[0]

    def test_it_warns_of_a_harm_within_the_limit(self):
        told = plan(Question('slo', ratio=0, margin=0.02), 95, 5, 0.001, 1800, harm=0.01)
        assert told.median_s is None and 'never finds 1 %' in told.warnings[0]

    def test_without_traffic_nothing_is_found(self):
        told = plan(ERRORS, 95, 0, 0.001, 1800, harm=0.5)
        assert told.smallest is None and 'no rate of the candidate is surely found' in told.text
        assert json.loads(json.dumps(told.as_dict(), allow_nan=False))['smallest'] is None

    def test_a_part_of_alpha_and_bursts_take_longer(self):
        alone, part, bursty = (plan(ERRORS, 95, 5, 0.001, 1800, 0.01, alpha=alpha, phi=phi).median_s for alpha, phi in (
            (0.05, 1), (0.0125, 1), (0.05, 3)))
        assert alone < part < bursty == pytest.approx(3 * alone)
