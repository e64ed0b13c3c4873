# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Where the process beside a rollout writes what the journal says, besides telling people: metrics in a file, annotations in Grafana.

Each is called in a thread of its own (``_outlet``), so that one that hangs holds up none of the others.
"""

from __future__ import annotations

import asyncio
import json
import os
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._annotations import Annotator
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unreachable
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import web
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_path
from ansible_collections.progressive.delivery.plugins.module_utils._rollout_metrics import Gauges

Event = t.Mapping[str, t.Any]
Trouble = t.Callable[[str, str], object]
"""Called with the event that could not be told of, and why."""

GRAFANA_OPTIONS = ('url', 'timeout') + web.ACCESS_OPTIONS
_MOST_BEFORE = 1_000_000
# After as many failures in a row nobody is asked any more.
_PATIENCE = 3
_SHOWN = 200


def check_textfile_dir(value: str) -> str:
    """Returns *value* when files can be made in that directory. Raises BadInput."""
    check_path('directory delivery_textfile_dir', value)
    if not os.path.isdir(value):
        raise BadInput('The directory %s for the metrics of the rollout (delivery_textfile_dir) is not there: make it, name the one that '
                       'the node exporter reads (--collector.textfile.directory), or leave the variable empty.' % value)
    if not os.access(value, os.W_OK | os.X_OK):
        raise BadInput('The directory %s for the metrics of the rollout (delivery_textfile_dir) may not be written to: give the user who '
                       'rolls out the right to, or leave the variable empty.' % value)
    return value


def check_grafana(options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Returns the options of the annotations, checked. Raises BadInput, which tells no secret."""
    strange = sorted(set(options) - set(GRAFANA_OPTIONS))
    if strange:
        raise BadInput('The annotations in Grafana have no option "%s": there are %s.' % (strange[0], ', '.join(GRAFANA_OPTIONS)))
    found = {key: value for key, value in options.items() if value not in (None, '')}
    web.check_url('url of Grafana (delivery_grafana_url)', found.get('url'))
    web.read_access('grafana', found)
    timeout = found.setdefault('timeout', 5)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 1 <= timeout <= 30:
        raise BadInput('The timeout of Grafana is %r: give 1 to 30 seconds.' % timeout)
    return found


class Textfile:
    """Writes the metrics of a rollout into *directory*, where the node exporter's textfile collector reads them."""

    def __init__(self, directory: str, service: str, trouble: Trouble) -> None:
        # The collector reads *.prom only, so what is half written has another name.
        self._path = os.path.join(directory, 'delivery_%s.prom' % service.replace(':', '_'))
        self._half = '%s.%d.tmp' % (self._path, os.getpid())
        self._trouble = trouble
        self._told = False
        self._gauges = Gauges(self._before())

    def _before(self) -> str:
        try:
            with open(self._path, encoding='utf-8', errors='replace') as file:
                return file.read(_MOST_BEFORE)
        except OSError:
            return ''

    def __call__(self, events: t.Sequence[Event], lost_at: float | None) -> None:
        """Takes events in and writes; *lost_at*: when the run was found to be gone."""
        self._gauges.feed(events)
        if lost_at is not None:
            self._gauges.lost(lost_at)
        text = self._gauges.text()
        if not text:
            return
        try:
            with open(self._half, 'w', encoding='utf-8') as file:
                file.write(text)
            os.chmod(self._half, 0o644)
            os.replace(self._half, self._path)
        except OSError as exc:
            if not self._told:
                self._trouble('metrics', '%s could not be written: %s' % (self._path, exc.strerror))
            self._told = True


class Grafana:
    """Writes annotations by Grafana's HTTP API. One that does not answer is asked three times in a row, and then no more."""

    def __init__(self, options: t.Mapping[str, t.Any], trouble: Trouble) -> None:
        options = check_grafana(options)
        self._url = options['url'].rstrip('/') + '/api/annotations'
        self._timeout = float(options['timeout'])
        self._client = web.Client(web.read_access('grafana', {
            **options, 'headers': {**(options.get('headers') or {}), 'Content-Type': 'application/json'}}), 1)
        self._secrets = [str(value) for value in (options.get('token'), options.get('password'), *(options.get('headers') or {}).values())
                         if value]
        self._trouble = trouble
        self._annotator = Annotator()
        self._failed = 0

    def __call__(self, events: t.Sequence[Event], _lost_at: float | None) -> None:
        for event in events:
            for note in self._annotator.feed(event):
                if self._failed < _PATIENCE:
                    self._send(note)

    def _send(self, note: t.Mapping[str, t.Any]) -> None:
        try:
            answer = asyncio.run(self._client.fetch(self._url, self._timeout, json.dumps(note).encode()))
            error = '' if 200 <= answer.status < 300 else 'it answered with status %d: %s' % (
                answer.status, ' '.join(answer.body.decode(errors='replace').split())[:_SHOWN])
        except Unreachable as exc:
            error = str(exc)
        self._failed = self._failed + 1 if error else 0
        if error:
            for secret in self._secrets:
                error = error.replace(secret, '***')
            self._trouble(str(note['tags'][-1]), error + (' It is not asked any more.' if self._failed == _PATIENCE else ''))
