# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Prometheus text format: any sample survives, nothing else passes for one; and what histograms become."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.exposition import parse, spread
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r'[a-zA-Z_:][a-zA-Z0-9_:]{0,20}', fullmatch=True)
TEXT = st.text(st.characters(blacklist_categories=('Cs',)))
LABELS = st.dictionaries(st.from_regex(r'[a-zA-Z_][a-zA-Z0-9_]{0,10}', fullmatch=True), TEXT, max_size=4)
VALUES = st.floats(allow_nan=False) | st.integers(-2 ** 50, 2 ** 50).map(float)


def written(name: str, labels: dict[str, str], value: float) -> str:
    inner = ','.join('%s="%s"' % (key, text.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n')) for key, text in labels.items())
    number = {math.inf: '+Inf', -math.inf: '-Inf'}.get(value) or repr(value)
    return name + ('{%s}' % inner if labels else '') + ' ' + number


@given(st.lists(st.tuples(NAMES, LABELS, VALUES), max_size=8), st.data())
def test_samples_survive(samples, data) -> None:
    text = '# HELP x y\n# TYPE x counter\n\n' + ''.join(
        written(*one) + data.draw(st.sampled_from(['', ' 1395066363000'])) + '\n' for one in samples)
    assert [tuple(one) for one in parse(text, {name for name, _labels, _value in samples})] == samples
    assert not parse(text, {'absent_name_that_is_longer_than_all'})


@given(st.text(max_size=200))
def test_nothing_else_raises_anything_else(text: str) -> None:
    try:
        found = parse(text, {'a', 'b'})
    except ValueError:
        return
    assert all(one.name in ('a', 'b') for one in found)


@pytest.mark.parametrize('line', ['a{b="c} 1', 'a{b=c} 1', 'a 1 2 3', 'a', 'a{b="c"', 'a 0x1', 'a 1_000', 'a{b="c";d="e"} 1'])
def test_what_is_no_sample_is_named(line: str) -> None:
    with pytest.raises(ValueError, match='^a'):
        parse('# x\n%s\n' % line, {'a'})


def test_a_page_that_is_something_else_is_no_empty_answer() -> None:
    with pytest.raises(ValueError, match='DOCTYPE'):
        parse('<!DOCTYPE html>\n<html>', {'a'})
    assert parse('', {'a'}) == []
    assert parse('# TYPE a counter\n', {'a'}) == []


def test_what_data_planes_write() -> None:
    text = '''# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="outbound|80|v2|shop.default.svc.cluster.local"} 12
traefik_service_requests_total{code="200",method="GET",protocol="http",service="default-shop-80@kubernetes"} 3.4e+06
traefik_service_requests_total_created{code="200"} 1
go_gc_duration_seconds{quantile="0"} NaN
'''
    names = {'envoy_cluster_upstream_rq', 'traefik_service_requests_total'}
    envoy, traefik = parse(text, names)
    assert envoy.labels['envoy_cluster_name'] == 'outbound|80|v2|shop.default.svc.cluster.local' and envoy.value == 12
    assert traefik.value == 3_400_000
    assert math.isnan(parse(text, {'go_gc_duration_seconds'})[0].value)


EDGES = st.lists(st.floats(0.001, 1e5), min_size=1, max_size=8, unique=True).map(sorted)


@given(EDGES, st.lists(st.floats(0.0, 2e5), max_size=60))
def test_what_lies_above_an_edge_is_exact(edges: list[float], values: list[float]) -> None:
    buckets = {edge: float(sum(value <= edge for value in values)) for edge in [*edges, math.inf]}
    made = spread(buckets)
    assert len(made) == len(values)
    for edge in edges:
        assert sum(value > edge for value in made) == sum(value > edge for value in values)


def test_a_bucket_is_filled_evenly() -> None:
    assert spread({100.0: 0, 300.0: 4, math.inf: 5}) == (125.0, 175.0, 225.0, 275.0, 300.0 * (1 + 1e-9))
    assert Counter(value > 300 for value in spread({300.0: 1, math.inf: 2})) == {True: 1, False: 1}
    # A scrape that is torn between two buckets never takes anything away.
    assert len(spread({100.0: 5, 300.0: 4, math.inf: 5})) == 5
