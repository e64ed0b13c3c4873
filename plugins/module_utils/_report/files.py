# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Writes a report beside its journal, or where the journal says: HTML, Markdown and JSON, each complete or as it was."""

from __future__ import annotations

import json
import os
import typing as t
from datetime import datetime, tzinfo

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._journal import load_journal
from ansible_collections.progressive.delivery.plugins.module_utils._lock import Lock
from ansible_collections.progressive.delivery.plugins.module_utils._report import markdown, model, page
from ansible_collections.progressive.delivery.plugins.module_utils._report.values import Report

_ENDING = '.jsonl'


def load(journal: str) -> Report:
    """Returns the report of the journal *journal*. Raises DeliveryError when there is none to be read."""
    path = os.path.realpath(journal)
    scan = load_journal(path)
    rollout = os.path.basename(path)[:-len(_ENDING)] if path.endswith(_ENDING) else None
    try:
        holder = Lock(os.path.join(os.path.dirname(path), 'lock')).holder()
        alive = bool(holder and holder.rollout == rollout and holder.alive())
    except DeliveryError:
        alive = False
    return model.build(scan, path, alive)


def write(journal: str, directory: str | None = None, zone: tzinfo | None = None) -> dict[str, t.Any]:
    """Makes the report of *journal* and writes it into *directory*: else where the journal says, else beside the journal.

    Returns ``{report, files: {html, md, json}, changed}``. Raises DeliveryError when the journal cannot be read or the files not written.
    """
    report = load(journal)
    path = os.path.realpath(journal)
    folder = os.path.expanduser(directory or report.report_dir or os.path.dirname(path))
    base = os.path.basename(path)
    base = base[:-len(_ENDING)] if base.endswith(_ENDING) else base
    zone = zone or datetime.now().astimezone().tzinfo
    texts = {'html': page.render(report, zone), 'md': markdown.render(report, zone),
             'json': json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + '\n'}
    files = {kind: os.path.join(folder, '%s.%s' % (base, kind)) for kind in texts}
    try:
        os.makedirs(folder, exist_ok=True)
        changed = [_put(files[kind], text) for kind, text in texts.items()]
    except OSError as exc:
        raise DeliveryError('The report of %s could not be written to %s: %s. Free the disk, correct its permissions, or set '
                            'delivery_report_dir to a directory you may write; playbooks/report.yml makes the report again.' % (
                                base, folder, exc.strerror or exc)) from exc
    return {'report': report, 'files': files, 'changed': any(changed)}


def _put(path: str, text: str) -> bool:
    """Replaces a file at once: a reader sees the old or the new one. Returns whether it changed."""
    data = text.encode('utf-8', errors='replace')
    try:
        with open(path, 'rb') as file:
            if file.read() == data:
                return False
    except OSError:
        pass
    temporary = '%s.%d' % (path, os.getpid())
    try:
        with open(temporary, 'wb') as file:
            file.write(data)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return True
