# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sends records to Elasticsearch or Loki for rsyslog: run by omprog, with transactions and confirmations.

rsyslog writes ``BEGIN TRANSACTION``, records of JSON, one a line, and ``COMMIT TRANSACTION``; each is answered by a line: ``OK``,
``DEFER_COMMIT`` for a record that is kept until the commit, anything else for "try again" (omprog's "interface between rsyslog and the
program"). Elasticsearch takes pairs of lines at /_bulk and answers for each; Loki takes ``{streams: [{stream: labels, values:
[[nanoseconds, line]]}]}`` at /loki/api/v1/push; its labels are few on purpose: job, kind and service.

rsyslog's own omelasticsearch passes over what is answered with a status such as 503. Here only a record that is refused for itself is
passed over, and told on standard error: it must not hold up the others for ever.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import time
import typing as t
import urllib.error
import urllib.request
from datetime import datetime

TIMEOUT_S = 10


class Later(Exception):
    """The receiver takes nothing now."""


class Receiver:
    """One receiver with its *options*: ``url``, ``type``, and how it is asked."""

    def __init__(self, options: t.Mapping[str, t.Any]) -> None:
        self.options = options
        self._headers: dict[str, str] = {}
        if options.get('tenant'):
            self._headers['X-Scope-OrgID'] = options['tenant']
        if options.get('username'):
            pair = '%s:%s' % (options['username'], options['password'])
            self._headers['Authorization'] = 'Basic ' + base64.b64encode(pair.encode()).decode()
        self._trust = ssl.create_default_context(cafile=options.get('ca_path')) if options['url'].startswith('https:') else None

    def send(self, lines: t.Sequence[str]) -> None:
        """Sends *lines*. Raises Later when they are to be sent again."""
        (self._elasticsearch if self.options['type'] == 'elasticsearch' else self._loki)(lines)

    def _elasticsearch(self, lines: t.Sequence[str]) -> None:
        index = self.options.get('index') or 'progressive-delivery'
        # With an id of its own a record that is sent twice overwrites itself.
        body = ''.join('%s\n%s\n' % (json.dumps({'index': {'_index': index, '_id': json.loads(line)['id']}}), line) for line in lines)
        status, said = self._post('/_bulk', body.encode(), 'application/x-ndjson')
        if status != 200:
            raise Later('Elasticsearch answered with HTTP %d: %s' % (status, _brief(said)))
        try:
            refused = [item['index'] for item in json.loads(said)['items'] if item['index']['status'] >= 300]
        except (ValueError, KeyError, TypeError) as exc:
            raise Later('The answer is not that of Elasticsearch: %s' % _brief(said)) from exc
        if any(one['status'] in (429, 503) for one in refused):
            raise Later('Elasticsearch is too busy for some of the records')
        for one in refused:
            _tell('Elasticsearch refused the record %s: %s' % (one.get('_id'), json.dumps(one.get('error'))[:500]))

    def _loki(self, lines: t.Sequence[str]) -> None:
        status, said = self._post('/loki/api/v1/push', _streams(lines), 'application/json')
        if status == 400 and len(lines) > 1:
            for line in lines:
                self._loki([line])
        elif status == 400:
            _tell('Loki refused a record: %s' % _brief(said))
        elif status >= 300:
            raise Later('Loki answered with HTTP %d: %s' % (status, _brief(said)))

    def _post(self, path: str, body: bytes, kind: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self.options['url'].rstrip('/') + path, body, {'Content-Type': kind, **self._headers})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._trust) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read(2000)
        except OSError as exc:
            raise Later('%s could not be reached: %s' % (self.options['url'], exc)) from exc


def _streams(lines: t.Iterable[str]) -> bytes:
    streams: dict[tuple[str, str], list[list[str]]] = {}
    for line in lines:
        record = json.loads(line)
        key = str(record.get('kind') or 'unknown'), str(record.get('service') or 'unknown')
        streams.setdefault(key, []).append([str(_nanoseconds(record)), line])
    return json.dumps({'streams': [{'stream': {'job': 'progressive.delivery', 'kind': kind, 'service': service}, 'values': values}
                                   for (kind, service), values in streams.items()]}).encode()


def _nanoseconds(record: t.Mapping[str, t.Any]) -> int:
    """When a record was made; now, where it does not say."""
    try:
        moment = datetime.fromisoformat(str(record['@timestamp']).replace('Z', '+00:00'))
        return int(moment.timestamp() * 1_000_000) * 1000
    except (KeyError, ValueError):
        return time.time_ns()


def _brief(said: bytes) -> str:
    return ' '.join(said[:300].decode('utf-8', 'replace').split())


def _tell(text: str) -> None:
    sys.stderr.write(text + '\n')
    sys.stderr.flush()


def main() -> None:
    with open(sys.argv[1], encoding='utf-8') as file:
        receiver = Receiver(json.load(file))
    waiting: list[str] = []
    answer = 'OK'
    print(answer, flush=True)
    for line in sys.stdin:
        line = line.rstrip('\n')
        if line == 'BEGIN TRANSACTION':
            waiting, answer = [], 'OK'
        elif line == 'COMMIT TRANSACTION':
            answer = 'OK'
            try:
                if waiting:
                    receiver.send(waiting)
            except Later as exc:
                answer = ' '.join(str(exc).split())[:500]
        else:
            waiting.append(line)
            answer = 'DEFER_COMMIT'
        print(answer, flush=True)


if __name__ == '__main__':
    main()
