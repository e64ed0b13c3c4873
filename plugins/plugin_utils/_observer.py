# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins!

"""A process beside the rollout that reads its journal, tells people, keeps its metrics and annotates dashboards, so that nothing of that
can hold the rollout up.

It is started in a session of its own, ends when the journal says that the rollout has, or when the process that rolls out is
gone, which it tells too. What it is to do comes over its standard input, so that no secret lies in a file or an argument:
``python _observer.py < JSON``, with the members of ``Orders``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import typing as t
from dataclasses import asdict, dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._lock import process_start
from ansible_collections.progressive.delivery.plugins.module_utils._notices import Narrator, Notice
from ansible_collections.progressive.delivery.plugins.module_utils._outlet import Outlet
from ansible_collections.progressive.delivery.plugins.module_utils._sinks import Grafana, Textfile

GIVEN = 'PROGRESSIVE_DELIVERY_NOTICE'
"""The variable of the environment that has what is sent and where, as JSON: nobody else can read it, and nothing in it is a template."""
_POLL_S = 0.25
# The gates of the rollout come first on a small control host.
_NICE = 10
# Grafana and a full disk get so long after the rollout's end; people are told however long it takes (`Orders.timeout_s` each).
_FAREWELL_S = 10.0

Sink = t.Callable[[t.Sequence[t.Mapping[str, t.Any]], t.Optional[float]], object]
"""Called with new events, and with the moment when the run was found to be gone; returns at once."""


@dataclass(frozen=True)
class Orders:
    """What to observe and whom to tell. *pid* and *started* name the process that rolls out (``_lock.Holder``)."""

    journal: str | None
    rollout: str
    pid: int
    started: int | None
    playbook: str
    """Sends one notice to all channels: ``playbooks/notify.yml``."""
    channels: list[dict[str, t.Any]] = field(default_factory=list)
    state_every_s: float = 1800.0
    timeout_s: float = 60.0
    """For one notice to all channels; the playbook's own time-outs are shorter."""
    variables: dict[str, t.Any] = field(default_factory=dict)
    notices: list[dict[str, t.Any]] = field(default_factory=list)
    """What to tell where there is no journal to be read: these, and nothing else."""
    service: str = ''
    textfile_dir: str = ''
    """Where the metrics of the rollout go (``_sinks.Textfile``)."""
    grafana: dict[str, t.Any] = field(default_factory=dict)
    """Where annotations go (``_sinks.Grafana``)."""


class Follower:
    """The events of a journal as they are written. A line is read when it is whole; one that is no JSON object is passed over."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0

    def events(self) -> list[dict[str, t.Any]]:
        """Returns what is new. A journal that is not there yet has nothing."""
        try:
            with open(self._path, 'rb') as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        whole, newline, _rest = data.rpartition(b'\n')
        self._offset += len(whole) + len(newline)
        found = []
        for line in whole.split(b'\n'):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict) and 'ts' in event:
                found.append(event)
        return found


def observe(orders: Orders, send: t.Callable[[Notice], None], clock: t.Callable[[], float] = time.time,
            sleep: t.Callable[[float], None] = time.sleep, sinks: t.Sequence[Sink] = ()) -> None:
    """Sends the notices of a rollout, in order, until it is over, and gives its events to the *sinks*."""
    if orders.journal is None:
        for notice in orders.notices:
            send(Notice(**notice))
        return
    follower, narrator = Follower(orders.journal), Narrator(orders.state_every_s)
    while True:
        # Asked before the journal is read: a process that was alive here may have written its last word since, not the reverse.
        alive = orders.started is None or process_start(orders.pid) == orders.started
        events = follower.events()
        notices = [notice for event in events for notice in narrator.feed(event)]
        lost_at = None if alive or narrator.over else clock()
        if events or lost_at is not None:
            for sink in sinks:
                sink(events, lost_at)
        if not notices or not alive:
            notices += narrator.tick(clock(), alive)
        for notice in notices:
            send(notice)
        if narrator.over or not alive:
            return
        if not notices:
            sleep(_POLL_S)


def wanted(channel: t.Mapping[str, t.Any], notice: Notice) -> bool:
    """Whether *channel* wants *notice*: an incident's channel what begins or ends one, the others the events they name, or all."""
    if channel.get('type') == 'pagerduty':
        return bool(notice.incident)
    return notice.event in (channel.get('events') or (notice.event,))


class Sender:
    """Sends by the playbook, each notice in a run of its own, and keeps in the journal how it went."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._journal = Journal(orders.journal, orders.rollout)

    def __call__(self, notice: Notice) -> None:
        channels = [channel for channel in self._orders.channels if wanted(channel, notice)]
        if not channels:
            return
        given = {**self._orders.variables, 'notify_channels': channels, 'notify_notice': notice.plain(),
                 'notify_journal': self._orders.journal or ''}
        words = [sys.executable, '-m', 'ansible', 'playbook', '-i', 'localhost,', self._orders.playbook]
        try:
            done = subprocess.run(words, env={**os.environ, GIVEN: json.dumps(given)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  timeout=self._orders.timeout_s, check=False)
            # The playbook records each channel itself; what keeps it from doing so is found here.
            trouble = '' if not done.returncode else 'the playbook ended with status %d' % done.returncode
        except subprocess.TimeoutExpired:
            trouble = 'it took longer than %g s' % self._orders.timeout_s
        except OSError as exc:
            trouble = 'the playbook could not be started: %s' % exc.strerror
        if trouble:
            self._journal.write('notified', notice=notice.number, about=notice.event, channel=None, ok=False, error=trouble)


def start(orders: Orders, environment: t.Mapping[str, str]) -> int:
    """Starts the observer and returns its pid. Raises OSError."""
    child = subprocess.Popen([sys.executable, os.path.abspath(__file__)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, start_new_session=True, close_fds=True, env=dict(environment))
    with t.cast(t.IO[bytes], child.stdin) as given:
        given.write(json.dumps(asdict(orders)).encode())
    return child.pid


def _step_back() -> None:
    """Lets the rollout have the processor: playbooks that tell people begin in the moment in which a stage does."""
    os.nice(_NICE)
    # A session is an autogroup where the kernel makes them (sched(7)): among those, only the group's own nice value counts.
    with contextlib.suppress(OSError), open('/proc/self/autogroup', 'w', encoding='ascii') as group:
        group.write(str(_NICE))


def main() -> None:
    orders = Orders(**json.load(sys.stdin))
    # What it was started with must not stay the input of those that it starts.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _step_back()
    journal = Journal(orders.journal, orders.rollout)

    def trouble(channel: str) -> t.Callable[[str, str], None]:
        return lambda about, error: journal.write('notified', notice=None, about=about, channel=channel, ok=False, error=error)

    told, sinks = Outlet(Sender(orders)), []
    if orders.textfile_dir:
        sinks.append(Outlet(Textfile(orders.textfile_dir, orders.service, trouble('metrics'))))
    if orders.grafana:
        sinks.append(Outlet(Grafana(orders.grafana, trouble('grafana'))))
    observe(orders, told, sinks=sinks)
    # A notice has its own end, so this one is never reached.
    told.close(threading.TIMEOUT_MAX)
    for sink in sinks:
        sink.close(_FAREWELL_S)
    # A thread that hangs in a request must not keep the process.
    os._exit(0)


if __name__ == '__main__':
    main()
