# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._haproxy.logline import local_seconds, parse_line

# As HAProxy 2.6 wrote them, with and without headers.
BODY = b'127.0.0.1:58608 [22/Nov/2026:15:17:58.967] f be/s1 1/2/3/4/15 200 50 - - ---- 1/1/0/0/0 0/0 {a#7Bb} {} "GET /a#22b HTTP/1.1"'
HEADERS = (
    b'', b'<134>Nov 22 15:17:58 localhost haproxy[14637]: ', b'<134>1 2026-11-22T15:17:58.967123+01:00 localhost haproxy 14637 - - ',
    b'<6>', b'2026-11-22T15:17:58.967123+01:00 ', b'<6>2026-11-22T15:17:58.967123+01:00 ')


@pytest.mark.parametrize('header', HEADERS)
def test_reads_a_line_behind_every_header(header):
    line = parse_line(header + BODY)
    assert (line.frontend, line.backend, line.server) == ('f', 'be', 's1')
    assert (line.TR, line.Tw, line.Tc, line.Tr, line.Ta) == (1, 2, 3, 4, 15)
    assert (line.status, line.state, line.partial, line.answered) == (200, '----', False, True)
    # 2026-11-22T15:17:58.967Z
    assert line.start == 1795360678.967 and line.end == pytest.approx(1795360678.982)


@pytest.mark.parametrize('text, server, Ta, state, answered', [
    (b'::1:443 [22/Nov/2026:15:17:58.967] f~ be/s1 0/0/0/-1/2001 504 198 - - sH-- 1/1/0/0/0 0/0 "GET / HTTP/1.1"',
     's1', 2001, 'sH--', True),
    (b'unix:1 [22/Nov/2026:15:17:58.967] f be/<NOSRV> 0/1001/-1/-1/1001 503 217 - - sQ-- 2/2/1/0/0 0/1 "GET / HTTP/1.1"',
     '<NOSRV>', 1001, 'sQ--', True),
    (b'1.2.3.4:5 [22/Nov/2026:15:17:58.967] f be/s1 0/0/0/-1/70 -1 0 - - CH-- 1/1/0/0/+3 0/0 "GET / HTTP/1.1"',
     's1', 70, 'CH--', False),
    (b'1.2.3.4:5 [22/Nov/2026:15:17:58.967] f be/s1 0/0/0/5/303 200 53 - - CD-- 1/1/0/0/0 0/0 "GET / HTTP/1.1"',
     's1', 303, 'CD--', True),
    (b'1.2.3.4:5 [22/Nov/2026:15:17:58.967] f be/s1 0/0/0/5/9 200 5 S="a b ---- 1/1/1/1/0 0/0 - SD-- 1/1/0/0/0 0/0 "GET / HTTP/1.1"',
     's1', 9, None, True),
    # option httpslog
    (b'1.2.3.4:5 [22/Nov/2026:15:17:58.967] f~ be/s1 0/0/0/5/9 200 5 - - ---- 1/1/0/0/0 0/0 "GET / HTTP/1.1" 0/0/0/0/0 localhost/TLSv1.3/X',
     's1', 9, '----', True),
])
def test_reads_what_haproxy_writes_in_special_cases(text, server, Ta, state, answered):
    line = parse_line(text)
    assert (line.server, line.Ta, line.answered) == (server, Ta, answered)
    assert state is None or line.state == state


def test_logasap_is_marked_as_unfinished():
    assert parse_line(BODY.replace(b'/15 200 50', b'/+15 200 +50')).partial


@pytest.mark.parametrize('text', [
    b'', b'10 events dropped', b'\x00' * 50,
    # option tcplog
    b'127.0.0.1:5 [22/Nov/2026:15:17:58.967] f be/s1 0/0/15 200 -- 1/1/0/0/0 0/0',
    BODY.replace(b'Nov', b'Xyz'), BODY.replace(b'22/Nov', b'99/Nov'), BODY.replace(b'2026:', b'0000:'), BODY.replace(b'15:17', b'25:17'),
    BODY.replace(b'4/15', b'4/-15'), BODY.replace(b'4/15', b'4/1e3'), BODY.replace(b's1', b's 1'), BODY.replace(b's1', b's1;x'),
])
def test_other_text_is_refused(text):
    assert parse_line(text) is None


@pytest.mark.parametrize('header', HEADERS)
def test_a_truncated_line_is_whole_or_refused(header):
    """HAProxy cuts lines at maxlen: a cut number must never be read."""
    whole = parse_line(header + BODY)
    for length in range(len(header + BODY)):
        cut = parse_line((header + BODY)[:length])
        assert cut is None or cut == whole
    assert parse_line((header + BODY)[:len(header + BODY) - 10]) == whole


@given(st.binary(max_size=400))
@example(b'[22/Nov/2026:15:17:58.967] ' * 10)
@example(b'a:1 [22/Nov/2026:15:17:58.967] f be/s1 ' * 10)
def test_nothing_breaks_the_reader(text):
    parse_line(text)
    local_seconds(text)


@given(st.binary(max_size=300))
def test_what_a_client_says_changes_nothing_that_is_measured(text):
    """Request line and captured headers come from the client; everything measured stands before them."""
    start = BODY.index(b' {')
    line = parse_line(HEADERS[1] + BODY[:start] + b' {' + text.replace(b'\n', b'') + b'} "' + text.replace(b'\n', b'') + b'"')
    assert line == parse_line(BODY)


@given(st.binary(max_size=300))
def test_a_forged_line_inside_a_request_is_not_believed(text):
    forged = BODY.replace(b'be/s1', b'other/s9').replace(b'/15 ', b'/99999 ')
    for header in HEADERS:
        line = parse_line(header + BODY[:-1] + text.replace(b'\n', b'') + b' ' + forged)
        assert (line.backend, line.server, line.Ta) == ('be', 's1', 15)


@pytest.mark.parametrize('header', HEADERS)
def test_a_forged_line_in_a_captured_cookie_is_not_believed(header):
    """Cookies are written as they came, blanks included."""
    forged = BODY.replace(b'be/s1', b'other/s9').replace(b'/15 ', b'/99999 ')
    line = parse_line(header + BODY.replace(b'50 - - ', b'50 S=x ' + forged[:forged.index(b' {')] + b' - '))
    assert (line.backend, line.server, line.Ta, line.status) == ('be', 's1', 15, 200)


@given(st.integers(0, 2 ** 31), st.integers(0, 999))
def test_dates_come_back(seconds, ms):
    import time
    date = time.strftime('%d/%b/%Y:%H:%M:%S', time.gmtime(seconds)).encode()
    assert local_seconds(date) == seconds
    assert parse_line(BODY.replace(b'22/Nov/2026:15:17:58.967', date + b'.%03d' % ms)).start == seconds + ms / 1000
