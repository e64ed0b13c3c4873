# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._routers import istio_deadline
from ansible_collections.progressive.delivery.plugins.module_utils._routers.istio_deadline import below, deadline, limit_of
from hypothesis import example, given
from hypothesis import strategies as st

LIMITS = st.one_of(st.integers(1, 200), st.integers(1, 10 ** 12), st.integers(17_900_000_000, 18_100_000_000))


@given(LIMITS, st.data())
@example(10_000, None)
@example(1, None)
def test_matches_exactly_the_smaller_numbers_of_as_many_digits(limit, data):
    width = len(str(limit))
    expression = re.compile(below(limit))
    near = [limit - 1, limit, limit + 1, 0, 10 ** width - 1]
    near += [limit // 10 ** k * 10 ** k + shift for k in range(width) for shift in (-1, 0, 1)]
    if data is not None:
        near.append(data.draw(st.integers(0, 10 ** width - 1)))
    for number in near:
        if 0 <= number < 10 ** width:
            assert bool(expression.fullmatch(str(number).zfill(width))) == (number < limit), number


@given(LIMITS, st.integers(0, 10 ** 13))
def test_a_number_of_another_length_does_not_match(limit, number):
    if len(str(number)) != len(str(limit)):
        assert not re.fullmatch(below(limit), str(number))


@given(LIMITS)
def test_the_limit_can_be_read_back(limit):
    assert limit_of(below(limit)) == limit


@given(st.one_of(st.text(alphabet='0123456789[]-|{}', max_size=30), st.none(), st.integers()))
def test_nothing_else_is_taken_for_a_limit(text):
    limit = limit_of(text)
    assert limit is None or below(limit) == text


@pytest.mark.parametrize('text', ['[0-9]{1,9}', '1[0-4][0-9]{999999999}', '0|1', '[0-4][0-9]', '.*', ''])
def test_expressions_that_are_not_ours(text):
    assert limit_of(text) == (50 if text == '[0-4][0-9]' else None)


def test_a_lease_ends_on_the_tenth_before():
    assert deadline(1795372635.799) == 17953726357
    assert deadline(1795372635.8) == 17953726358


@given(st.integers(16_000_000_000, 99_999_999_999))
def test_istiod_takes_an_expression_of_at_most_1024_characters(limit):
    assert len(below(limit)) < 200


def test_there_is_no_number_below_zero():
    with pytest.raises(ValueError):
        istio_deadline.below(0)
