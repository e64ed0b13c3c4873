# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What C(rollout_report) does: a last look at the counters, then the three files. It may take no longer than a rollout can wait."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal, load_journal
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import ROUTER, build_sources
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name
from ansible_collections.progressive.delivery.plugins.module_utils._report import files
from ansible_collections.progressive.delivery.plugins.module_utils._report.sentences import TITLES
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import ENDPOINTS_OPTION
from ansible_collections.progressive.delivery.plugins.module_utils._samples import counted

REPORT_SPEC: dict[str, t.Any] = {
    'journal': {'type': 'path'},
    'service': {'type': 'str'},
    'state_dir': {'type': 'path'},
    'directory': {'type': 'path'},
    'arms': {'type': 'dict', 'default': {}},
    'endpoints': {**ENDPOINTS_OPTION, 'required': False, 'default': []},
    'on_error': {'type': 'str', 'choices': ['fail', 'warn'], 'default': 'fail'},
}
CONSTRAINTS: dict[str, t.Any] = {'required_one_of': [['journal', 'service']], 'required_by': {'service': ['state_dir']}}

_LOOK_DEADLINE_S = 2.0
_WRITE_DEADLINE_S = 10.0
_LAST_DEADLINE_S = 3.0


async def run(options: t.Mapping[str, t.Any], check_mode: bool = False) -> dict[str, t.Any]:
    """Returns the task's result. Raises DeliveryError where ``on_error`` is ``fail``; else nothing at all may come of a failure."""
    try:
        return await _run(options, check_mode)
    except Exception as exc:
        if options['on_error'] == 'fail' and isinstance(exc, DeliveryError):
            raise
        sentence = str(exc) if isinstance(exc, DeliveryError) else 'The report could not be made (%s: %s).' % (type(exc).__name__, exc)
        if options['on_error'] == 'fail':
            raise DeliveryError(sentence) from exc
        return {'changed': False, 'files': {}, 'warnings': [sentence], 'msg': sentence}


async def _run(options: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    journal = journal_of(options)
    if check_mode:
        report = files.load(journal)
        return {'changed': False, 'files': {}, 'outcome': report.outcome, 'msg': 'Would write the report of %s.' % journal}
    warnings = await last_look(journal, options) if options['endpoints'] and options['arms'] else []
    made = _within(_WRITE_DEADLINE_S, lambda: files.write(journal, options['directory']))
    if made is None:
        raise DeliveryError('The report of %s was not written within %d s: the disk does not answer. playbooks/report.yml makes it '
                            'again.' % (journal, _WRITE_DEADLINE_S))
    report = made['report']
    return {'changed': made['changed'], 'files': made['files'], 'outcome': report.outcome, 'headline': report.headline,
            'hurt': report.hurt, **({'warnings': warnings} if warnings else {}),
            'msg': 'Report (%s): %s (.md and .json beside it)' % (TITLES[report.outcome].lower(), made['files']['html'])}


def _within(seconds: float, work: t.Callable[[], dict[str, t.Any] | None]) -> dict[str, t.Any] | None:
    """Returns what *work* returns, None when it takes longer: a disk that hangs keeps a thread of its own, and nothing else."""
    done: list[t.Any] = []

    def run_it() -> None:
        try:
            done.append(work())
        except Exception as exc:
            done.append(exc)

    thread = threading.Thread(target=run_it, daemon=True)
    thread.start()
    thread.join(seconds)
    if done and isinstance(done[0], Exception):
        raise done[0]
    return done[0] if done else None


def journal_of(options: t.Mapping[str, t.Any]) -> str:
    """Returns the path of the journal that is asked for: the service's last, where none is named. Raises BadInput."""
    if options.get('journal'):
        return options['journal']
    path = os.path.join(options['state_dir'], check_name('service', options['service']), 'latest.jsonl')
    if os.path.exists(path):
        return path
    raise BadInput('The service %s has no journal in %s: give delivery_journal, or delivery_state_dir as the rollout had it.' % (
        options['service'], options['state_dir']))


async def last_look(journal: str, options: t.Mapping[str, t.Any]) -> list[str]:
    """Writes to the journal what the balancers' counters hold now, so that requests after the last gate are counted as well.

    Returns what went wrong, in sentences: the report then says less, and no more.
    """
    events = load_journal(journal).events
    if not any(event.get('event') == 'counters' for event in events):
        # A look needs another one to compare with.
        return []
    service = next((event['service'] for event in events if event.get('event') == 'rollout_started' and event.get('service')), None)
    rollout = next((event['rollout'] for event in events if event.get('rollout')), None)
    try:
        endpoints = [{**endpoint, 'ring': None} for endpoint in options['endpoints']]
        source = next((one for one in build_sources(str(service), options['arms'], endpoints, {}) if one.name == ROUTER), None)
        if source is None:
            return []
        try:
            reading = await asyncio.wait_for(source.poll(time.monotonic()), _LOOK_DEADLINE_S)
        finally:
            await asyncio.wait_for(source.close(), 1.0)
    except (asyncio.TimeoutError, TimeoutError):
        return ['The counters of the routers could not be read for the report within %g s.' % _LOOK_DEADLINE_S]
    except Exception as exc:
        # Whatever it is: the report is worth more than its last figure.
        return ['The counters of the routers could not be read for the report: %s' % (str(exc) or type(exc).__name__)]
    if reading.errors:
        # A sum without one of the endpoints would be no sum.
        return ['The counters of the routers could not be read for the report: %s' % ' '.join(reading.errors)]
    arms = counted(reading.before)
    if arms:
        Journal(journal, rollout).write('counters', stage='report', arms=arms)
    return []


def write_where_asked(journal: str | None) -> str | None:
    """Writes the report of a rollout that ends here and now, when it asked for one; returns where.

    Never raises, and takes a few seconds at most: nobody is left to tell, and a journal may hang.
    """
    if not journal:
        return None
    try:
        made = _within(_LAST_DEADLINE_S, lambda: files.write(journal) if files.load(journal).report_dir else None)
    except Exception:
        return None
    return made['files']['html'] if made else None
