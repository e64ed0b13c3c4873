# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Channels that notices go to, as users write them: checked before the first change, and kept out of what is recorded."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name
from ansible_collections.progressive.delivery.plugins.module_utils._notices import EVENTS

_COMMON = {'name': str, 'type': str, 'events': list, 'template': str, 'timeout': int}
TYPES: dict[str, tuple[dict[str, type], tuple[tuple[str, ...], ...]]] = {
    'slack': ({'url': str, 'token': str, 'channel': str}, (('url', 'token'),)),
    'teams': ({'url': str}, (('url',),)),
    'email': ({'host': str, 'port': int, 'username': str, 'password': str, 'secure': str, 'sender': str, 'to': list},
              (('to',), ('sender',))),
    'pagerduty': ({'integration_key': str, 'url': str}, (('integration_key',),)),
    'webhook': ({'url': str, 'headers': dict}, (('url',),)),
}
"""type: its members, and those of which one at least is needed."""
_SECRET = ('url', 'token', 'password', 'integration_key', 'headers')
_SHORTEST_SECRET = 4
_URL = re.compile(r'https?://[^\s/]+(/\S*)?')


def check_channels(raw: t.Any) -> list[dict[str, t.Any]]:
    """Returns the channels. Raises BadInput with one sentence for the first that is not understood; it never tells a secret."""
    if not isinstance(raw, (list, tuple)):
        raise BadInput('The notifications must be a list of channels, each with a name and a type.')
    found: list[dict[str, t.Any]] = []
    for number, item in enumerate(raw, 1):
        if not isinstance(item, t.Mapping):
            raise BadInput('The notification channel %d is no dictionary: give it a name and a type.' % number)
        found.append(_check_channel(number, {key: value for key, value in item.items() if value is not None}))
    names = [channel['name'] for channel in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput('Two notification channels are called "%s": each needs a name of its own.' % twice[0])
    return found


def _check_channel(number: int, channel: dict[str, t.Any]) -> dict[str, t.Any]:
    kind = channel.get('type')
    if kind not in TYPES:
        raise BadInput('The type of notification channel %d is missing or unknown: use one of %s.' % (number, ', '.join(TYPES)))
    name = check_name('notification channel', channel.setdefault('name', kind))
    members, needed = TYPES[kind]
    for key, value in channel.items():
        expected = {**_COMMON, **members}.get(key)
        if expected is None:
            raise BadInput('The notification channel "%s" has the unknown member "%s": a channel of type %s has %s.' % (
                name, key, kind, ', '.join(sorted({**_COMMON, **members}))))
        if expected is int and isinstance(value, str) and value.isdigit():
            channel[key] = int(value)
        elif expected is list and isinstance(value, str):
            channel[key] = [value]
        elif not isinstance(value, expected) or isinstance(value, bool):
            raise BadInput('The member "%s" of the notification channel "%s" must be of type %s.' % (key, name, expected.__name__))
    for group in needed:
        if not any(channel.get(key) for key in group):
            raise BadInput('The notification channel "%s" needs %s.' % (name, ' or '.join('"%s"' % key for key in group)))
    strange = [event for event in channel.get('events') or () if event not in EVENTS]
    if strange:
        raise BadInput('The notification channel "%s" asks for the event %r: there are %s.' % (name, strange[0], ', '.join(EVENTS)))
    if 'url' in channel and not _URL.fullmatch(channel['url']):
        raise BadInput('The url of the notification channel "%s" is not one that begins with http:// or https:// and names a host.' % name)
    timeout = channel.setdefault('timeout', 10)
    if not 1 <= timeout <= 30:
        raise BadInput('The timeout of the notification channel "%s" is %d: give 1 to 30 seconds.' % (name, timeout))
    return channel


def masked(text: str, channel: t.Mapping[str, t.Any]) -> str:
    """Returns *text* without any of the channel's secrets, whole or, of an address, what comes after its host."""
    secrets = []
    for key in _SECRET:
        value = channel.get(key)
        for one in value.values() if isinstance(value, t.Mapping) else [value]:
            if isinstance(one, str):
                secrets += [one, *_URL.findall(one), one.partition('://')[2].partition('/')[2]]
    for secret in sorted({secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}, key=len, reverse=True):
        text = text.replace(secret, '***')
    return text
