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
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    web = Client(Access(use_proxy=False), len(urls))
    try:
        while True:
            left_s = max(_POLL_S, end - loop.time())
            said = [text for text in await asyncio.gather(*(_one(web, url, path, unseen, left_s) for url in urls)) if text]
            if not said or loop.time() + _POLL_S >= end:
                return '; '.join(said)
            await asyncio.sleep(_POLL_S)
    finally:
        web.close()


async def _one(web: Client, url: str, path: str, unseen: t.Callable[[t.Any], str], left_s: float) -> str:
    try:
        answer = await web.fetch(url + path, left_s)
        text = unseen(json.loads(answer.body)) if answer.status == 200 else 'it answered with status %d' % answer.status
    except ValueError:
        text = 'it did not answer with JSON of less than %d MiB' % (BODY_MAX >> 20)
    except DeliveryError as exc:
        return str(exc).rstrip('.')
    return text and '%s: %s' % (url, text)
