# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One rollout of a service at a time on one control host.

The lock names its holder: the ansible-playbook process. A holder that is gone (killed, rebooted) does not hold; its
lease in the data plane has returned its traffic by then or is about to. Control hosts that share no file system are
told apart by the claim that travels with the split itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._errors import Conflict, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._journal import iso


@dataclass(frozen=True)
class Holder:
    """Who rolls out: *since* in seconds since 1970; *pid* and *started* (clock ticks after boot) name a process of *host*."""

    rollout: str
    by: str
    since: float
    host: str
    pid: int
    started: int | None

    def alive(self) -> bool:
        """Whether the holder's process still runs. One of another host is taken to be."""
        return self.host != socket.gethostname() or process_start(self.pid) == self.started

    def __str__(self) -> str:
        return '%s by %s since %s (process %d on %s)' % (self.rollout, self.by, iso(self.since), self.pid, self.host)


def process_start(pid: int) -> int | None:
    """Returns when a process started, in clock ticks after boot (proc(5), /proc/pid/stat field 22), or None when it is gone."""
    try:
        with open('/proc/%d/stat' % pid, encoding='ascii', errors='replace') as file:
            fields = file.read().rpartition(')')[2].split()
    except OSError:
        return None
    # A zombie has ended: it waits for its parent only.
    return None if fields[0] == 'Z' else int(fields[19])


def holder_for(rollout: str, by: str, since: float, pid: int) -> Holder:
    """Returns the Holder that process *pid* of this host is."""
    return Holder(rollout, by, since, socket.gethostname(), pid, process_start(pid))


class Lock:
    """The lock file of one service."""

    def __init__(self, path: str) -> None:
        self.path = path

    def holder(self) -> Holder | None:
        """Returns who holds the lock, alive or not."""
        try:
            with open(self.path, encoding='utf-8') as file:
                return Holder(**json.load(file))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as exc:
            raise DeliveryError('The lock %s could not be read (%s): when no rollout runs, remove the file.' % (self.path, exc)) from exc

    def acquire(self, holder: Holder, force: bool = False) -> Holder | None:
        """Takes the lock for *holder* and returns a former holder that had died (or was displaced by *force*).

        Raises Conflict that says who holds it since when.
        """
        with self._guard():
            former = self.holder()
            if former and former.rollout != holder.rollout and former.alive() and not force:
                raise Conflict(
                    'A rollout of this service is under way: %s. Wait for it, stop it with Ctrl-C, '
                    'or roll back with progressive.delivery.rollback.' % former)
            temporary = '%s.%d' % (self.path, os.getpid())
            with open(temporary, 'w', encoding='utf-8') as file:
                json.dump(asdict(holder), file)
            os.replace(temporary, self.path)
            return former if former and former.rollout != holder.rollout else None

    def release(self, rollout: str) -> bool:
        """Gives the lock back when *rollout* holds it; returns whether it did."""
        with self._guard():
            former = self.holder()
            if not former or former.rollout != rollout:
                return False
            os.unlink(self.path)
            return True

    @contextlib.contextmanager
    def _guard(self) -> t.Iterator[None]:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            descriptor = os.open(self.path + '.guard', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise DeliveryError('The lock %s could not be taken: %s. Set delivery_state_dir to a directory you may write.' % (
                self.path, exc.strerror)) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
