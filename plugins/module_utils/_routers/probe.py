# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Requests of our own through a data plane, which say by a header of the answer which arm served them: what shows the shares (L3)
where nothing in the data plane counts requests.

They are real requests: the path should be one that may be asked often and costs little, and that the split applies to. Each is sent over a
connection of its own, because some data planes share out connections.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import ssl
import typing as t
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.web import check_url
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name

PROBE_SPEC: dict[str, t.Any] = {
    'url': {'type': 'str', 'required': True},
    'header': {'type': 'str', 'required': True},
    'host': {'type': 'str'},
    'values': {'type': 'dict'},
}

_AT_ONCE = 8
_BATCH = 40
_TEXT = re.compile(r'[A-Za-z0-9_.:@+~/ -]{1,200}')


class Probe:
    """Asks *url*, for *host* if given; *values* says what an arm's answers have in *header*: its name where it says nothing."""

    def __init__(self, url: str, header: str, host: str | None, values: t.Mapping[str, str], deadline: float) -> None:
        self.url, self.header, self.host, self.values, self._deadline = url, header, host, values, deadline
        self._threads: ThreadPoolExecutor | None = None
        self._trust: ssl.SSLContext | None = None
        self._counts: dict[str, int] = {}

    async def counts(self, arms: t.Iterable[str]) -> dict[str, int]:
        """Sends a few requests more and returns how many each arm has answered so far. Raises Unreachable when none was answered."""
        arm_of = {self.values.get(arm, arm): arm for arm in arms}
        counts = {arm: self._counts.get(arm, 0) for arm in arm_of.values()}
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_AT_ONCE, 'delivery-probe')
            self._trust = ssl.create_default_context() if self.url.startswith('https:') else None
        loop = asyncio.get_running_loop()
        answers = await asyncio.gather(*(loop.run_in_executor(self._threads, self._ask) for _n in range(_BATCH)), return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(failed) == len(answers):
            raise Unreachable('The probe %s got no answer: %s.' % (self.url.split('?')[0], failed[0] or type(failed[0]).__name__))
        for answer in answers:
            arm = arm_of.get(answer) if isinstance(answer, str) else None
            if arm:
                counts[arm] += 1
        self._counts = counts
        return dict(counts)

    def _ask(self) -> str:
        """Returns what one answer has in the header. Raises OSError or HTTPException."""
        parts = urlsplit(self.url)
        host = t.cast(str, parts.hostname)
        connection = http.client.HTTPSConnection(host, parts.port, timeout=self._deadline, context=self._trust) if self._trust else \
            http.client.HTTPConnection(host, parts.port, timeout=self._deadline)
        try:
            connection.request('GET', (parts.path or '/') + ('?' + parts.query if parts.query else ''), headers={
                'User-Agent': 'progressive.delivery', 'Connection': 'close', **({'Host': self.host} if self.host else {})})
            return connection.getresponse().headers.get(self.header) or ''
        finally:
            connection.close()

    def close(self) -> None:
        """Lets go of the threads; requests that still run end at their deadlines."""
        threads, self._threads = self._threads, None
        if threads:
            threads.shutdown(wait=False)


def parse_probe(endpoint: str, raw: t.Mapping[str, t.Any] | None, deadline: float) -> Probe | None:
    """Returns the probe of an endpoint as a user wrote it, None for none. Raises BadInput."""
    if not raw:
        return None
    options = {key: value for key, value in raw.items() if value is not None}
    unknown = sorted(set(options) - set(PROBE_SPEC))
    if unknown or not options.get('url') or not options.get('header'):
        raise BadInput('The probe of endpoint %s must have url and header, and may have host and values: %s.' % (
            endpoint, 'it has "%s"' % unknown[0] if unknown else 'one is missing'))
    values = options.get('values') or {}
    if not isinstance(values, t.Mapping) or not all(isinstance(one, str) and _TEXT.fullmatch(one) for one in values.values()):
        raise BadInput('The values of the probe of endpoint %s must say for each arm what its answers have in the header.' % endpoint)
    return Probe(check_url('url of the probe of endpoint %s' % endpoint, options['url']),
                 check_name('header of the probe of endpoint %s' % endpoint, options['header']),
                 check_name('host of the probe of endpoint %s' % endpoint, options['host']) if options.get('host') else None,
                 {str(arm): text for arm, text in values.items()}, deadline)
