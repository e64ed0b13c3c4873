# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.logline import LogLine
from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.parse import StatRow
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Block, add_up
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.counters import Counters, Waiting


def row(**columns):
    return StatRow('be', 's1', 'server', **columns)


def difference(old, new):
    return Counters.of(row(**new)).since(Counters.of(row(**old)) if old is not None else None).tally()


def test_kinds_of_failures_as_haproxy_counts_them():
    """Each pair is what a real 2.6 showed for one request (tests/integration/test_metrics_haproxy.py has them live)."""
    for columns, requests, bad in (
            ({'stot': 1, 'hrsp_2xx': 1}, 1, 0), ({'stot': 1, 'hrsp_5xx': 1}, 1, 1), ({'stot': 1, 'hrsp_4xx': 1}, 1, 0),
            ({'stot': 1, 'eresp': 1}, 1, 1),                                        # reset, invalid, 504
            ({'stot': 1, 'hrsp_2xx': 1, 'eresp': 1, 'srv_abrt': 1}, 1, 1),          # breaks off
            ({'stot': 1, 'hrsp_2xx': 1, 'srv_abrt': 1}, 1, 1),                      # stalls
            ({'stot': 1, 'hrsp_5xx': 1, 'eresp': 1, 'srv_abrt': 1}, 1, 1),          # a 500 that breaks off
            ({'stot': 3, 'econ': 1, 'wretr': 2}, 1, 1),                             # refused for good
            ({'stot': 4, 'wredis': 4}, 0, 0),                                       # redispatched: another server's
            ({'stot': 4, 'hrsp_5xx': 1, 'wretr': 6}, 1, 1),                         # layer 7 retries
            ({'stot': 1, 'hrsp_1xx': 1, 'hrsp_2xx': 1}, 1, 0)):                     # 103 before 200
        tally = difference({}, columns)
        assert (tally.requests, tally.bad) == (requests, bad), columns
        assert tally.bad <= tally.bad_tries <= tally.tries == columns['stot']


COLUMNS = st.fixed_dictionaries({name: st.integers(0, 10 ** 6) for name in (
    'scur', 'stot', 'hrsp_2xx', 'hrsp_3xx', 'hrsp_4xx', 'hrsp_5xx', 'hrsp_other', 'econ', 'eresp', 'srv_abrt', 'wretr', 'wredis')})


@given(COLUMNS, COLUMNS)
def test_differences_are_never_negative_and_bad_ones_are_a_part(old, new):
    tally = difference(old, new)
    assert 0 <= tally.bad <= tally.requests and 0 <= tally.bad_tries <= tally.tries


@given(st.lists(COLUMNS, min_size=2, max_size=6))
def test_differences_add_up_over_polls(steps):
    totals = []
    sums = dict.fromkeys(steps[0], 0)
    for step in steps:
        sums = {name: sums[name] + step[name] for name in sums}
        sums['eresp'] = sums['srv_abrt'] = sums['scur'] = 0
        totals.append(dict(sums))
    parts = [difference(a, b) for a, b in zip(totals, totals[1:])]
    whole = difference(totals[0], totals[-1])
    assert sum(part.requests for part in parts) == whole.requests and sum(part.bad for part in parts) == whole.bad


def test_counters_that_went_down_began_anew():
    assert difference({'stot': 100, 'hrsp_2xx': 100}, {'stot': 7, 'hrsp_2xx': 7}).requests == 7
    # One column is enough: the process is another one.
    assert difference({'stot': 5, 'hrsp_2xx': 4, 'hrsp_5xx': 1}, {'stot': 9, 'hrsp_2xx': 9}).requests == 9


# (begin, end) of requests in milliseconds; the end may lie after the last poll.
REQUESTS = st.lists(st.tuples(st.integers(0, 9000), st.one_of(st.integers(0, 400), st.integers(0, 20_000))), max_size=60)


def _replay(requests, polls, logged, lost=()):
    """Runs *requests* past the polls; yields what Waiting says and the truth: ages of the unfinished, at each poll."""
    waiting, seen = Waiting(), 0
    spans = [(begin, begin + length) for begin, length in requests]
    for now in polls:
        begun, ended = [s for s in spans if s[0] < now], [s for s in spans if s[1] < now]
        rows = {'be/s1': row(stot=len(begun), scur=len(begun) - len(ended))}
        for index, (begin, end) in enumerate(spans):
            if logged and seen <= end < now and index not in lost:
                waiting.ended('be/s1', LogLine(begin / 1000, 'f', 'be', 's1', 0, 0, 0, 0, end - begin, 200, '----', False))
        seen = now
        yield waiting.over(now / 1000, rows, ['be/s1']), sorted(now - begin for begin, end in spans if begin < now <= end), now
        waiting.mark(now / 1000, now / 1000, rows)


@given(REQUESTS, st.booleans(), st.sets(st.integers(0, 59)))
def test_waiting_is_never_more_than_those_who_really_wait(requests, logged, lost):
    for pairs, ages, _now in _replay(requests, range(1000, 12_000, 700), logged, lost):
        assert [ms for ms, _n in pairs] == sorted(ms for ms, _n in pairs)
        assert [n for _ms, n in pairs] == sorted((n for _ms, n in pairs), reverse=True)
        for ms, count in pairs:
            assert 0 < count <= sum(age >= ms - 0.001 for age in ages)


@given(REQUESTS)
def test_waiting_is_exact_with_a_complete_log(requests):
    polls = list(range(1000, 12_000, 700))
    # Beginnings within the tolerance of the two clocks right after a poll cannot be told apart.
    requests = [(begin, length) for begin, length in requests if not any(poll <= begin <= poll + 12 for poll in polls)]
    for pairs, ages, now in _replay(requests, polls, True):
        block = Block('a', 'e', waiting=pairs)
        for poll in polls:
            if poll < now:
                assert block.waiting_over(now - poll - 0.001) == sum(age > now - poll for age in ages)


def test_the_history_of_polls_is_bounded_and_keeps_its_beginning():
    waiting = Waiting()
    for second in range(5000):
        waiting.mark(float(second), float(second), {'be/s1': row(stot=3, scur=3)})
    pairs = waiting.over(5000.0, {'be/s1': row(stot=3, scur=3)}, ['be/s1'])
    assert pairs == ((5_000_000.0, 3),)
    assert len(waiting._marks) <= 121


def test_a_thinned_history_still_knows_what_ended():
    waiting, silent = Waiting(), 3
    for second in range(400):
        for _n in range(10 if second else 0):
            waiting.ended('be/s1', LogLine(second - 0.5, 'f', 'be', 's1', 0, 0, 0, 0, 1, 200, '----', False))
        waiting.mark(float(second), float(second), {'be/s1': row(stot=silent + 10 * second, scur=silent)})
    assert waiting.over(400.0, {'be/s1': row(stot=silent + 3990, scur=silent)}, ['be/s1']) == ((400_000.0, 3),)


def test_waiting_is_never_more_than_the_sessions_whatever_the_log_says():
    waiting = Waiting()
    waiting.mark(0.0, 0.0, {'be/s1': row(stot=5, scur=1)})
    for _n in range(100):
        waiting.ended('be/s1', LogLine(0.5, 'f', 'be', 's1', 0, 0, 0, 0, 1, 200, '----', False))
    assert waiting.over(1.0, {'be/s1': row(stot=5, scur=1)}, ['be/s1']) == ((1000.0, 1),)


def test_a_server_that_began_anew_has_nobody_waiting_from_before():
    waiting = Waiting()
    waiting.mark(0.0, None, {'be/s1': row(stot=1000, scur=1)})
    waiting.forget('be/s1')
    assert waiting.over(9.0, {'be/s1': row(stot=2, scur=2)}, ['be/s1']) == ()


@given(st.lists(st.builds(Block, arm=st.just('a'), endpoint=st.sampled_from('xyz'), seconds=st.just(1.0), requests=st.integers(0, 9),
                          bad=st.integers(0, 9), latencies_ms=st.lists(st.floats(0, 9), max_size=3).map(tuple),
                          waiting=st.lists(st.integers(1, 9), max_size=3).map(lambda ages: tuple(
                              (float(ms), sum(age >= ms for age in ages)) for ms in sorted(set(ages))))), min_size=1, max_size=12))
def test_blocks_add_up_over_endpoints_and_polls(blocks):
    whole = add_up(blocks)
    assert whole.requests == sum(block.requests for block in blocks) and whole.bad == sum(block.bad for block in blocks)
    assert sorted(whole.latencies_ms) == sorted(ms for block in blocks for ms in block.latencies_ms)
    last = {block.endpoint: block for block in blocks}
    for ms in range(0, 11):
        assert whole.waiting_over(ms) == sum(block.waiting_over(ms) for block in last.values())
    assert whole.seconds == max(sum(block.endpoint == name for block in blocks) for name in last)


def test_nothing_adds_up_to_nothing():
    assert add_up([]) is None
