# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is written over a dashboard's plots while a rollout goes on. Pure.

Grafana's HTTP API, 'Create annotation': ``POST /api/annotations`` with ``time`` and ``timeEnd`` in milliseconds since 1970, ``tags`` and
``text``. A dashboard asks for them by tags, so they are bound to none.
"""

from __future__ import annotations

import html
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._report.clean import clean

TAG = 'progressive.delivery'


@dataclass
class Annotator:
    """Events in, annotations out, as Grafana takes them. A stage is a region once it has ended."""

    _tags: list[str] = field(default_factory=list)
    _name: str = ''
    _begun: float = 0.0

    def feed(self, event: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
        """Returns what is to be written because of *event*."""
        cleaned = clean([event]).events
        handler = getattr(self, '_on_' + cleaned[0]['event'], None) if cleaned else None
        if handler is None or (not self._tags and cleaned[0]['event'] != 'rollout_started'):
            return []
        found = handler(cleaned[0])
        return [found] if found else []

    def _note(self, kind: str, text: str, at: float, begun: float | None = None) -> dict[str, t.Any]:
        # Grafana shows the text as HTML, cleaned by itself; what a journal says is text and stays so.
        note = {'time': int((at if begun is None else begun) * 1000), 'tags': [*self._tags, kind], 'text': html.escape(text, quote=False)}
        return note if begun is None else {**note, 'timeEnd': int(at * 1000)}

    def _on_rollout_started(self, event: dict[str, t.Any]) -> dict[str, t.Any]:
        self._name = '%s %s' % (event.get('service', '?'), event.get('version', '?'))
        self._tags = [TAG, event.get('service', '?'), event.get('rollout', '?')]
        return self._note('started', 'Rollout of %s begins' % self._name, event['ts'])

    def _on_stage_started(self, event: dict[str, t.Any]) -> dict[str, t.Any]:
        self._begun = event['ts']
        return self._note('stage', '%s: %s' % (self._name, event.get('label', '?')), event['ts'])

    def _on_stage_finished(self, event: dict[str, t.Any]) -> dict[str, t.Any]:
        return self._note('stage', '%s: %s' % (self._name, event.get('label', '?')), event['ts'], min(self._begun, event['ts']))

    def _on_verdict(self, event: dict[str, t.Any]) -> dict[str, t.Any]:
        verdict = event.get('verdict', '?')
        reason = '' if verdict == 'pass' else ': %s' % event.get('reason', '')
        return self._note('verdict', '%s: %s in %s%s' % (self._name, verdict, event['stage'], reason), event['ts'])

    def _on_way_back(self, event: dict[str, t.Any]) -> dict[str, t.Any]:
        return self._note('rolled_back', '%s: traffic back on %s' % (self._name, event.get('to', 'stable')), event['ts'])

    def _on_rollout_finished(self, event: dict[str, t.Any]) -> dict[str, t.Any]:
        return self._note('finished', '%s: %s' % (self._name, str(event.get('outcome', '?')).replace('_', ' ')), event['ts'])
