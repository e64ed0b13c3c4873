# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A map file on disk: one entry is replaced, all else stays. HAProxy reads it when it starts or reloads."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import Refused

_RETRY_S = 0.005


def entry_of(text: str, key: str) -> str | None:
    """Returns the value of *key*, None when it has no line. HAProxy takes the first line of a key."""
    for line in text.splitlines():
        parts = line.split(None, 1)
        if parts and parts[0] == key:
            return parts[1].strip() if len(parts) > 1 else ''
    return None


def with_entry(text: str, key: str, value: str | None) -> str:
    """Returns *text* with the line of *key* replaced, added at the end, or taken out (None). Comments stay."""
    lines, done = [], value is None
    for line in text.splitlines():
        parts = line.split(None, 1)
        if not parts or parts[0] != key:
            lines.append(line)
        elif not done:
            lines.append('%s %s' % (key, value))
            done = True
    if not done:
        lines.append('%s %s' % (key, value))
    return ''.join(line + '\n' for line in lines)


def check_writable(path: str) -> None:
    """Raises Refused when the file could not be written."""
    path = os.path.realpath(path)
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise Refused('The map file %s cannot be written: there is no directory %s.' % (path, directory))
    if os.path.exists(path) and not os.path.isfile(path):
        raise Refused('The map file %s cannot be written: it is not a regular file.' % path)
    if not os.access(directory, os.W_OK | os.X_OK) or (os.path.exists(path) and not os.access(path, os.R_OK)):
        raise Refused('The map file %s cannot be written by this user, and a reload would lose the split: run the task as a user who may '
                      'write its directory, or set "file" to where it lies, or to an empty text to keep no file.' % path)


def read_entry(path: str, key: str) -> str | None:
    """Returns the value of *key* in the file. Raises Refused when it cannot be read."""
    try:
        with open(path, encoding='utf-8', errors='surrogateescape') as file:
            return entry_of(file.read(), key)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Refused('The map file %s could not be read: %s.' % (path, exc.strerror)) from exc


def write_entry(path: str, key: str, value: str | None, wait_s: float) -> None:
    """Puts *value* into the file, as a whole or not at all, and reads it back.

    Mode and owner stay. Several processes can write different keys at once: they wait for one another up to *wait_s*.
    Raises Refused.
    """
    path = os.path.realpath(path)
    try:
        with _locked(path, wait_s) as file:
            before = file.read()
            after = with_entry(before, key, value)
            if after != before:
                _replace(path, after, os.fstat(file.fileno()))
    except OSError as exc:
        raise Refused('The map file %s could not be written: %s.' % (
            path, exc.strerror or exc)) from exc
    if read_entry(path, key) != value:
        raise Refused('The map file %s does not hold what was written: something else changes it.' % path)


@contextlib.contextmanager
def _locked(path: str, wait_s: float) -> t.Iterator[t.TextIO]:
    """Opens the file and holds a lock on it; whoever waited for the lock of a file that was replaced meanwhile, tries the new one."""
    end = time.monotonic() + wait_s
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with open(descriptor, encoding='utf-8', errors='surrogateescape', newline='') as file:
            if _is_ours(path, file):
                yield file
                return
        if time.monotonic() > end:
            raise OSError(errno.EAGAIN, 'another process holds its lock')
        time.sleep(_RETRY_S)


def _is_ours(path: str, file: t.TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False


def _replace(path: str, text: str, former: os.stat_result) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix='.%s.' % os.path.basename(path), dir=os.path.dirname(path))
    try:
        with open(descriptor, 'w', encoding='utf-8', errors='surrogateescape', newline='') as file:
            os.fchmod(descriptor, former.st_mode & 0o7777)
            # Only root may give a file away; HAProxy reads it before it drops its rights, so the mode is what counts.
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, former.st_uid, former.st_gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
