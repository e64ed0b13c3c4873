# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._split import (
    TOTAL, Split, all_to, fit, format_share, make_split, observed_bp, parse_share)

SHARES = st.integers(0, TOTAL)


@given(SHARES)
def test_shares_survive_being_written(bp):
    assert parse_share(format_share(bp)) == parse_share(bp) == parse_share(str(bp)) == bp


@pytest.mark.parametrize('text, bp', [('5%', 500), ('5 %', 500), (' 0.01% ', 1), ('100%', 10000), ('12.5%', 1250), (0, 0), ('33.33%', 3333),
                                      ('5', 5)])
def test_parse_share(text, bp):
    assert parse_share(text) == bp


@pytest.mark.parametrize('text', ['', '%', '5%%', '-5%', '101%', '0.001%', 5.0, True, None, [], '5\n%', '１%', '1e2', 10001, -1, '5 % x'])
def test_parse_share_refuses(text):
    with pytest.raises(BadInput):
        parse_share(text)


@given(st.lists(SHARES, min_size=1, max_size=5))
def test_every_split_sums_to_all_with_stable_last(shares):
    given_shares = {'a%d' % i: bp for i, bp in enumerate(shares)}
    try:
        split = make_split(given_shares, 'stable')
    except BadInput:
        assert sum(shares) > TOTAL
        return
    assert sum(split.shares.values()) == TOTAL
    assert split.arms[-1][0] == split.stable
    assert split.stable == 'stable' or split.shares[split.stable] == TOTAL
    assert split.partial == bool(split.candidates)
    assert all(bp > 0 and name != split.stable for name, bp in split.candidates)


def test_an_arm_with_everything_becomes_stable():
    split = make_split({'green': '100%'}, 'blue')
    assert split.stable == 'green' and not split.partial and split.shares == {'blue': 0, 'green': TOTAL}


@pytest.mark.parametrize('value', ['rest', None, '80%'])
def test_stable_may_say_that_it_takes_the_rest(value):
    assert make_split({'canary': '20%', 'blue': value}, 'blue').shares == {'canary': 2000, 'blue': 8000}


@pytest.mark.parametrize('shares, stable, more, said', [
    ({'canary': '60%', 'green': '50%'}, 'blue', {}, 'more than 100'),
    ({'canary': '20%', 'blue': '70%'}, 'blue', {}, '"blue" should have 80 %'),
    ({'canary': '20%'}, 'blue', {'known': ['blue']}, 'its arms are blue'),
    ({'can ary': '20%'}, 'blue', {}, 'not a valid name'),
    ({'canary': '20%'}, 'b;lue', {}, 'not a valid name'),
    ({'canary': '20%'}, 'blue', {'sticky': 'cookie'}, 'stickiness'),
    ({'canary': '20%'}, 'blue', {'matches': [{'header': 'x', 'cookie': 'y', 'value': '1', 'arm': 'canary'}]},
        'either a header or a cookie'),
    ({'canary': '20%'}, 'blue', {'matches': [{'header': 'x', 'value': '1 2', 'arm': 'canary'}]}, 'not usable'),
    ({'canary': '20%'}, 'blue', {'matches': [{'header': 'x', 'value': '1', 'arm': 'green'}]}, 'does not name'),
])
def test_make_split_refuses(shares, stable, more, said):
    with pytest.raises(BadInput, match=said):
        make_split(shares, stable, **more)


def test_a_match_alone_is_partial():
    split = make_split({'canary': 0}, 'blue', [{'header': 'X-Canary', 'value': 'true', 'arm': 'canary'}])
    assert split.partial and split.matches[0].condition == ('header', 'x-canary', 'true')


@given(st.lists(st.integers(0, 500), min_size=1, max_size=6).filter(any), st.integers(1, 10000))
def test_fit_keeps_the_sum_and_never_loses_an_arm(parts, total):
    try:
        fitted = fit(parts, total)
    except DeliveryError as exc:
        assert isinstance(exc, Unsupported)
        return
    assert sum(fitted) == total
    for part, whole in zip(parts, fitted):
        assert bool(part) == bool(whole)
        assert abs(whole - part * total / sum(parts)) < 1


@given(st.dictionaries(st.sampled_from('abc'), st.integers(0, 10**9), min_size=1))
def test_observed_shares_are_those_of_the_counts(counts):
    shares = observed_bp(counts)
    if not sum(counts.values()):
        assert shares is None
    else:
        assert abs(sum(shares.values()) - TOTAL) <= len(counts)


def test_text_of_a_split():
    assert str(Split((('canary', 500), ('green', 0), ('blue', 9500)))) == 'canary 5 %, blue 95 %'
    assert str(all_to('blue')) == 'blue 100 %'
