# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the administration of data planes says (L2): every process is asked until it has a split."""

from __future__ import annotations

import asyncio
import json
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.web import BODY_MAX, Access, Client

_POLL_S = 0.1


async def lacking(urls: t.Sequence[str], path: str, unseen: t.Callable[[t.Any], str], timeout_s: float) -> str:
    """Returns what is lacking where after *timeout_s*, '' as soon as nothing is. *unseen* judges the decoded answer of one process."""
    web = Client(Access(use_proxy=False), len(urls))
    end = asyncio.get_running_loop().time() + timeout_s
    try:
        said = await asyncio.gather(*(_one(web, url, path, unseen, end) for url in urls))
    finally:
        web.close()
    return '; '.join(text for text in said if text)


async def _one(web: Client, url: str, path: str, unseen: t.Callable[[t.Any], str], end: float) -> str:
    """Asks one process until *end*; what it said last counts, not that there was no time for another answer."""
    loop = asyncio.get_running_loop()
    text = ''
    while True:
        try:
            answer = await web.fetch(url + path, max(_POLL_S, end - loop.time()))
            text = unseen(json.loads(answer.body)) if answer.status == 200 else 'it answered with status %d' % answer.status
            if not text:
                return ''
            text = '%s: %s' % (url, text)
        except ValueError:
            text = '%s: it did not answer with JSON of less than %d MiB' % (url, BODY_MAX >> 20)
        except DeliveryError as exc:
            text = text or str(exc).rstrip('.')
        if loop.time() + _POLL_S >= end:
            return text
        await asyncio.sleep(_POLL_S)
