# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time
import typing as t
from pathlib import Path

from ansible import constants as C

from ansible_collections.progressive.delivery.plugins.plugin_utils import _observer
from ansible_collections.progressive.delivery.plugins.module_utils._channels import check_channels, masked
from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal, load_journal
from ansible_collections.progressive.delivery.plugins.module_utils._lock import process_start
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name
from ansible_collections.progressive.delivery.plugins.module_utils._sinks import check_grafana, check_textfile_dir
from ansible_collections.progressive.delivery.plugins.plugin_utils._action import DeliveryAction

_COLLECTION = Path(__file__).parents[2]
_POLL_S = 0.1


class ActionModule(DeliveryAction):
    """Starts the process that tells people of a rollout, waits for its last word, and keeps how each notice went."""

    SPEC = {
        'state': {'type': 'str', 'required': True, 'choices': ['checked', 'started', 'awaited', 'announced', 'recorded', 'told']},
        'journal': {'type': 'path'},
        'rollout': {'type': 'str'},
        'channels': {'type': 'list', 'elements': 'dict', 'default': [], 'no_log': True},
        'state_every': {'type': 'raw', 'default': '30m'},
        'variables': {'type': 'dict', 'default': {}},
        'timeout': {'type': 'raw', 'default': '10s'},
        'observer': {'type': 'dict', 'default': {}},
        'notice': {'type': 'dict', 'default': {}},
        'error': {'type': 'str', 'default': ''},
        'service': {'type': 'str', 'default': ''},
        'textfile_dir': {'type': 'path', 'default': ''},
        'grafana': {'type': 'dict', 'default': {}, 'no_log': True},
    }
    CONSTRAINTS = {'required_if': [('state', 'started', ('journal', 'rollout')), ('state', 'awaited', ('journal', 'rollout')),
                                   ('state', 'recorded', ('journal', 'rollout'))]}

    def control(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        return {'changed': False, **getattr(self, '_' + options['state'])(options)}

    def _checked(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        check_channels(options['channels'])
        parse_duration(options['state_every'], 'state_every')
        parse_duration(options['timeout'], 'timeout')
        if options['textfile_dir']:
            check_textfile_dir(options['textfile_dir'])
        if options['grafana']:
            check_grafana(options['grafana'])
        return {}

    def _started(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        channels = check_channels(options['channels'])
        if self._task.check_mode or not (channels or options['textfile_dir'] or options['grafana']):
            return {'observer': {}}
        if options['textfile_dir']:
            check_name('service', options['service'])
        return self._start(options, channels, [])

    def _announced(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        """One notice that no journal tells of, and a wait until it was sent."""
        channels = check_channels(options['channels'])
        if self._task.check_mode or not channels:
            return {}
        notice = {'number': 1, 'facts': (), 'version': '', 'incident': '', 'at': time.time(), 'rollout': options['rollout'],
                  **options['notice']}
        return self._awaited({**options, **self._start(options, channels, [notice])})

    def _start(self, options: dict[str, t.Any], channels: list[dict[str, t.Any]], notices: list[dict[str, t.Any]]) -> dict[str, t.Any]:
        followed = {} if notices else {
            'service': options['service'], 'textfile_dir': options['textfile_dir'],
            'grafana': check_grafana(options['grafana']) if options['grafana'] else {}}
        # The worker's parent is the ansible-playbook process: it lives as long as the rollout does.
        pid = os.getppid()
        orders = _observer.Orders(
            journal=options['journal'], rollout=options['rollout'], pid=pid, started=process_start(pid), notices=notices,
            playbook=str(_COLLECTION / 'playbooks' / 'notify.yml'), channels=channels, variables=options['variables'], **followed,
            state_every_s=parse_duration(options['state_every'], 'state_every'))
        above = str(_COLLECTION.parents[2])
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, [above, os.environ.get('PYTHONPATH')])),
                       'ANSIBLE_COLLECTIONS_PATH': os.pathsep.join([above, *C.config.get_config_value('COLLECTIONS_PATHS')]),
                       'ANSIBLE_NOCOLOR': '1', 'ANSIBLE_LOCALHOST_WARNING': 'false'}
        try:
            child = _observer.start(orders, environment)
        except OSError as exc:
            # People not told are no reason to hold up a rollout.
            Journal(options['journal'], options['rollout']).write('notified', notice=0, about='started', channel=None, ok=False,
                                                                  error=str(exc))
            return {'observer': {}, 'warnings': ['The process that tells people of the rollout did not start: %s.' % exc]}
        return {'observer': {'pid': child, 'started': process_start(child)}}

    def _awaited(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        """Waits until the observer has ended, at most as long as it may take; then says who was not told."""
        observer = options['observer']
        if self._task.check_mode or not observer:
            return {}
        end = time.monotonic() + parse_duration(options['timeout'], 'timeout')
        while self._runs(observer) and time.monotonic() < end:
            time.sleep(_POLL_S)
        events = load_journal(options['journal']).events if options['journal'] else []
        lost: dict[str, list[t.Any]] = {}
        for event in events:
            if event.get('event') == 'notified' and not event.get('ok'):
                lost.setdefault(event.get('channel') or 'somebody', []).append(event)
        told = ['The channel "%s" did not take %d of the notices (%s): %s' % (
            name, len(missed), ', '.join(event['about'] for event in missed), missed[-1].get('error')) for name, missed in lost.items()]
        if self._runs(observer):
            told.append('Some notices are still on their way, %s after the end of the rollout.' % options['timeout'])
        return {'warnings': told}

    @staticmethod
    def _runs(observer: t.Mapping[str, t.Any]) -> bool:
        return observer.get('started') is not None and process_start(observer['pid']) == observer['started']

    def _recorded(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        """One channel's notice, in the playbook that sends: kept in the journal without a secret."""
        channel = options['channels'][0]
        error = masked(options['error'], channel).strip()
        Journal(options['journal'], options['rollout']).write(
            'notified', notice=options['notice'].get('number'), about=options['notice'].get('event'), channel=channel.get('name'),
            ok=not error, error=error)
        return {}

    def _told(self, options: dict[str, t.Any]) -> dict[str, t.Any]:
        """A channel that is tried by a person: said on the screen, and a failure when it did not take the notice."""
        channel = options['channels'][0]
        name, error = channel.get('name') or channel.get('type'), masked(options['error'], channel).strip()
        if error:
            return {'failed': True, 'msg': 'The channel "%s" did not take the notice: %s' % (name, error)}
        self._display.display('The channel "%s" took the notice.' % name)
        return {}
