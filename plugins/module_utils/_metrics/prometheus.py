# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Prometheus as a source of observations: instant queries (HTTP API, ``/api/v1/query``).

``queries`` are values of now (gauges); ``counts`` are pairs of cumulative counters, differenced here per series, because
``increase()`` extrapolates and averages. Anything that speaks the same API will do (Thanos, Mimir, VictoriaMetrics).
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import typing as t
from dataclasses import dataclass, field
from urllib.parse import urlencode

from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError, Refused
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import base, web
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.cumulative import SERIES_MAX, Counter
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token

OPTIONS = ('url', 'queries', 'counts', 'window', 'timeout') + web.ACCESS_OPTIONS

_AT_ONCE = 8
_QUERY_MAX = 10_000
_METRIC = re.compile(r'[A-Za-z_][A-Za-z0-9_]{0,79}')
_DURATION = re.compile(r'(?:\d{1,6}(?:ms|[smhdwy])){1,7}')
# Strings of PromQL, with what decides how a value is written into them, and placeholders outside of strings.
_PARTS = re.compile(r'(?P<regex>[=!]~\s*)?(?:(?P<string>"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`)|'
                    r'\$\{(?P<braced>[a-z_]+)\}|\$(?P<plain>[a-z_]+))', re.S)
_PLACE = re.compile(r'\$\$(?=[a-z{])|\$\{([a-z_]+)\}|\$([a-z_]+)')
_OF_ARM = ('arm', 'backend', 'version')


class Query:
    """A PromQL expression with placeholders ``$arm``, ``$backend``, ``$version``, ``$service`` and ``$window`` (also ``${arm}``).

    Inside a string a value is written as it is, escaped in one that is a regular expression (``=~``); elsewhere it is put in
    quotes, except ``$window``. ``$$`` stands for ``$`` before a letter.
    """

    def __init__(self, source: str, name: str, text: object) -> None:
        self.name = name
        if not isinstance(text, str) or not text.strip() or len(text) > _QUERY_MAX:
            raise BadInput('The query "%s" of the source "%s" must be a PromQL expression of at most %d characters.' % (
                name, source, _QUERY_MAX))
        self._text = text
        self._source = source
        self.names: set[str] = set()
        self.fill(dict.fromkeys(_OF_ARM + ('service', 'window'), 'x'))

    @property
    def per_arm(self) -> bool:
        """Whether each arm has an expression of its own."""
        return not self.names.isdisjoint(_OF_ARM)

    def fill(self, values: t.Mapping[str, str]) -> str:
        """Returns the expression. *values* have been checked against the grammar of names. Raises BadInput for a name it lacks."""

        def value(name: str) -> str:
            self.names.add(name)
            if name in values:
                return values[name]
            if name in _OF_ARM + ('service', 'window'):
                raise BadInput('The query "%s" of the source "%s" uses $%s, which is not known here.' % (self.name, self._source, name))
            raise BadInput('The query "%s" of the source "%s" uses $%s: known are $arm, $backend, $version, $service and $window; '
                           'write $$%s for the text itself.' % (self.name, self._source, name, name))

        def escaped(name: str, regex: str | None, quote: str) -> str:
            # A backslash is one in backquotes and two in other strings. Names hold no other signs of regular expressions.
            return re.sub(r'([.+])', r'\\\1' if quote == '`' else r'\\\\\1', value(name)) if regex else value(name)

        def part(match: 're.Match[str]') -> str:
            regex, text = match['regex'], match['string']
            if text:
                return (regex or '') + _PLACE.sub(lambda place: '$' if place.group() == '$$' else escaped(
                    place.group(1) or place.group(2), regex, text[0]), text)
            name = match['braced'] or match['plain']
            return (regex or '') + (value(name) if name == 'window' else '"%s"' % escaped(name, regex, '"'))

        return _PARTS.sub(part, self._text)


@dataclass
class _Pair:
    """``bad`` of ``total``, for one arm."""

    bad: Counter = field(default_factory=Counter)
    total: Counter = field(default_factory=Counter)
    at: float | None = None


class PrometheusSource:
    """*values* are the placeholders of each arm. Raises BadInput for wrong *options*."""

    quick = False

    def __init__(self, name: str, options: t.Mapping[str, t.Any], values: t.Mapping[str, t.Mapping[str, str]]) -> None:
        self.name = name
        self._client = web.Client(web.read_access(name, options), _AT_ONCE)
        self._url = web.check_url('url of the source "%s"' % name, options.get('url')).rstrip('/')
        if '?' in self._url or '#' in self._url:
            raise BadInput('The url of the source "%s" must end with the host, or the path below which Prometheus lies.' % name)
        self._timeout = parse_duration(options.get('timeout', 5.0), 'timeout of the source "%s"' % name)
        if not 0.01 <= self._timeout <= 600:
            raise BadInput('The timeout of the source "%s" is %g s: give 0.01 to 600 s.' % (name, self._timeout))
        window = options.get('window', '1m')
        if not isinstance(window, str) or not _DURATION.fullmatch(window):
            raise BadInput('The window %r of the source "%s" is not a duration of PromQL: write "1m" or "30s".' % (window, name))
        self._values = {arm: dict(checked(own), window=window) for arm, own in values.items()}
        queries, counts = options.get('queries') or {}, options.get('counts') or {}
        if not isinstance(queries, t.Mapping) or not isinstance(counts, t.Mapping) or not (queries or counts):
            raise BadInput('The source "%s" asks nothing: give queries as {name: expression}, or counts as {name: {bad: expression, '
                           'total: expression}}.' % name)
        for metric in [*queries, *counts]:
            if not isinstance(metric, str) or not _METRIC.fullmatch(metric) or (metric in queries and metric in counts):
                raise BadInput('The metric %r of the source "%s" is not usable: use letters, digits and "_", and each name once.' % (
                    metric, name))
        self._queries = {metric: Query(name, metric, text) for metric, text in queries.items()}
        self._counts: dict[str, tuple[Query, Query]] = {}
        for metric, pair in counts.items():
            if not isinstance(pair, t.Mapping) or set(pair) != {'bad', 'total'}:
                raise BadInput('The counts "%s" of the source "%s" must have exactly bad and total.' % (metric, name))
            self._counts[metric] = (Query(name, metric + '.bad', pair['bad']), Query(name, metric + '.total', pair['total']))
            if not (self._counts[metric][0].per_arm and self._counts[metric][1].per_arm):
                raise BadInput('The counts "%s" of the source "%s" must name the arm: use $arm, $backend or $version in both.' % (
                    metric, name))
        for query in self._all():
            for own in self._values.values():
                query.fill(own)
        self._at: str | None = None
        self._pairs = {(metric, arm): _Pair() for metric in self._counts for arm in self._values}

    @property
    def metrics(self) -> dict[str, str]:
        return {**dict.fromkeys(self._queries, base.GAUGE), **dict.fromkeys(self._counts, base.COUNTS)}

    def _all(self) -> list[Query]:
        return [*self._queries.values(), *(query for pair in self._counts.values() for query in pair)]

    def _filled(self, query: Query) -> list[tuple[str, str]]:
        """Returns pairs (arm, expression)."""
        if query.per_arm:
            return [(arm, query.fill(own)) for arm, own in self._values.items()]
        return [('', query.fill(next(iter(self._values.values()))))]

    async def open(self) -> None:
        """Tries every query once. Raises Refused for one that Prometheus does not understand, or does not answer to this user."""
        found = await asyncio.gather(*(self._ask(query, text, []) for query in self._all() for _arm, text in self._filled(query)),
                                     return_exceptions=True)
        for error in found:
            if isinstance(error, Refused) or isinstance(error, BaseException) and not isinstance(error, DeliveryError):
                raise error

    async def align(self) -> None:
        """Has every query from now on evaluated at one moment, this one of Prometheus' clock: what is counted by several queries belongs
        together. Raises DeliveryError."""
        query = Query(self.name, 'time', 'time()')
        self._at = '%.3f' % (await self._ask(query, 'time()', []))[()]

    async def close(self) -> None:
        """Ends what still runs."""
        self._client.close()

    async def poll(self, now: float) -> base.Reading:
        notes: list[str] = []
        single = [(metric, arm, query, text) for metric, query in self._queries.items() for arm, text in self._filled(query)]
        values, blocks = await asyncio.gather(
            asyncio.gather(*(self._value(query, text, notes) for _metric, _arm, query, text in single), return_exceptions=True),
            asyncio.gather(*(self._block(metric, arm, now, notes) for metric, arm in self._pairs), return_exceptions=True))
        errors = []
        for found in [*values, *blocks]:
            if isinstance(found, DeliveryError):
                errors.append(str(found))
            elif isinstance(found, BaseException):
                raise found
        return base.Reading(
            tuple(block for block in blocks if isinstance(block, base.Block)),
            {(metric, arm): value for (metric, arm, _query, _text), value in zip(single, values) if isinstance(value, float)},
            tuple(dict.fromkeys(errors)), tuple(dict.fromkeys(notes)))

    async def _value(self, query: Query, text: str, notes: list[str]) -> float | None:
        """Returns the one value of a query; None for an empty answer and for NaN, which is what 0/0 is."""
        series = await self._ask(query, text, notes)
        if len(series) > 1:
            raise Refused('The query "%s" gave %d series (%s, %s, ...) instead of one value: aggregate them, for example with sum(...).' % (
                query.name, len(series), *(_labels(key) for key in sorted(series)[:2])))
        value = next(iter(series.values()), math.nan)
        return None if math.isnan(value) else value

    async def _block(self, metric: str, arm: str, now: float, notes: list[str]) -> base.Block | None:
        pair, (bad_query, total_query) = self._pairs[metric, arm], self._counts[metric]
        # The failed ones first: a scrape between the two must not show failures of requests that are not counted yet.
        bad = await self._ask(bad_query, bad_query.fill(self._values[arm]), notes)
        total = await self._ask(total_query, total_query.fill(self._values[arm]), notes)
        if not total:
            return None
        known, seconds = pair.total.last is not None, now - (pair.at or 0.0)
        pair.at = now
        # A series of failures often begins with the first failure, so where there were requests before, it began at 0.
        counted, failed = pair.total.since(total, from_zero=known), pair.bad.since(bad, from_zero=known)
        if not known:
            return None
        if counted is None or failed is None:
            notes.append('The counts "%s" of the arm "%s" went down, so this poll is left out: give %s without sum(), so that a '
                         'restart of one instance can be told.' % (
                             metric, arm, metric + '.bad' if counted is not None else metric + '.total'))
            return None
        requests = round(counted)
        return base.Block(arm, '', metric, seconds, requests, min(round(failed), requests))

    async def _ask(self, query: Query, text: str, notes: list[str]) -> dict[tuple[tuple[str, str], ...], float]:
        """Returns the series of an instant query; a scalar is a series without labels."""
        form = {'query': text, 'timeout': '%gs' % self._timeout, **({'time': self._at} if self._at else {})}
        answer = await self._client.fetch(self._url + '/api/v1/query', self._timeout, form=urlencode(form).encode())
        try:
            reply = json.loads(answer.body)
            status = reply['status']
        except (ValueError, KeyError, TypeError, RecursionError):
            reply, status = {}, None
        if status == 'error' or answer.status != 200:
            said = _text(reply.get('error') if isinstance(reply, dict) else None) or answer.body[:200].decode('utf-8', 'replace')
            message = 'Prometheus at %s answered the query "%s" with HTTP %d: %s' % (
                self._url, query.name, answer.status, ' '.join(said.split()))
            # What a retry cannot mend: a bad query, no right to ask, no such page.
            raise (Refused if 400 <= answer.status < 500 and answer.status not in (408, 429) else DeliveryError)(message)
        notes += ['Prometheus warns about the query "%s": %s' % (query.name, _text(warning))
                  for warning in (reply.get('warnings') or []) + (reply.get('infos') or [])]
        try:
            return _series(reply['data'])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise Refused('The query "%s" at %s gave a result of type %s: write an instant query whose result is a vector or a scalar of '
                          'numbers.' % (query.name, self._url, _text((reply.get('data') or {}).get('resultType')) or 'unknown')) from None


def checked(values: t.Mapping[str, str | None]) -> dict[str, str]:
    """Returns the placeholders of an arm that are known, each within its grammar. Raises BadInput."""
    return {name: check_token(name, value) if name == 'version' else check_name(name, value)
            for name, value in values.items() if value is not None}


def _series(data: t.Mapping[str, t.Any]) -> dict[tuple[tuple[str, str], ...], float]:
    if data['resultType'] == 'scalar':
        return {(): float(data['result'][1])}
    if data['resultType'] != 'vector' or len(data['result']) > SERIES_MAX:
        raise ValueError
    return {tuple(sorted(item['metric'].items())): float(item['value'][1]) for item in data['result']}


def _labels(key: tuple[tuple[str, str], ...]) -> str:
    return '{%s}' % ', '.join('%s="%s"' % (name, _text(value)) for name, value in key if name != '__name__')


def _text(value: object) -> str:
    """Something from a server's answer as it may stand in a sentence."""
    return ' '.join(str(value).split())[:300] if value is not None else ''
