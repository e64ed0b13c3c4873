# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the control host looks at before a rollout that is no router and no source: certificates, names, alerts, its own disk, the lock.

All look at the same time, each for a deadline; what cannot be seen is an ``error`` in the answer and never an exception.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import threading
import typing as t
from dataclasses import dataclass
from urllib.parse import urlencode

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._host import disk_ratio
from ansible_collections.progressive.delivery.plugins.module_utils._lock import Lock
from ansible_collections.progressive.delivery.plugins.module_utils._metrics import web
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_port

T = t.TypeVar('T')

ALERT_KINDS = ('prometheus', 'alertmanager')
_ALERTS_MAX = 50
_HOST = re.compile(r'[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,252})|[0-9A-Fa-f:.]{2,45}')
_PLACE = re.compile(r'(?:(?:https|tcp)://)?(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_.-]+))(?::(?P<port>\d{1,5}))?(?:/[^\s]*)?')


@dataclass(frozen=True)
class Place:
    """A TLS server whose certificate is looked at, as clients look at it: trusted, for that name."""

    name: str
    host: str
    port: int
    server_name: str
    ca_path: str | None


@dataclass(frozen=True)
class AlertSource:
    """Who knows of alerts. Only those that have all of *labels* count."""

    url: str
    kind: str
    labels: t.Mapping[str, str]
    access: web.Access


def read_places(given: t.Sequence[t.Any]) -> list[Place]:
    """Returns the TLS servers that the option ``certificates`` names. Raises BadInput."""
    places = []
    for item in given:
        options = item if isinstance(item, t.Mapping) else {'address': item}
        unknown = sorted(set(options) - {'address', 'server_name', 'ca_path'})
        match = _PLACE.fullmatch(str(options.get('address') or ''))
        if unknown or not match:
            raise BadInput('The certificate %r cannot be looked at: write https://host:port, host:port, or a dictionary of address, '
                           'server_name and ca_path.' % (item,))
        host = match['six'] or match['host']
        name = options.get('server_name') or host
        if not isinstance(name, str) or not _HOST.fullmatch(name):
            raise BadInput('The server_name %r of the certificate %s is not a name.' % (name, options['address']))
        path = options.get('ca_path')
        if path is not None and (not isinstance(path, str) or not path.startswith('/')):
            raise BadInput('The ca_path %r of the certificate %s must be an absolute path.' % (path, options['address']))
        places.append(Place(str(options['address']), host, check_port('port of the certificate', match['port'] or 443), name, path))
    return places


def read_names(given: t.Sequence[t.Any]) -> list[str]:
    """Returns the names that the option ``dns`` has. Raises BadInput."""
    for name in given:
        if not isinstance(name, str) or not _HOST.fullmatch(name):
            raise BadInput('The name %r cannot be looked up: write a host name.' % (name,))
    return list(given)


def read_alerts(given: t.Mapping[str, t.Any], service: str) -> AlertSource | None:
    """Returns who is asked for alerts, None for nobody. Without ``labels``, those of the label ``service`` count. Raises BadInput."""
    options = {key: value for key, value in given.items() if value is not None}
    if not options:
        return None
    unknown = sorted(set(options) - {'url', 'type', 'labels', *web.ACCESS_OPTIONS})
    kind, labels = options.get('type', ALERT_KINDS[0]), options.get('labels', {'service': service})
    if unknown or kind not in ALERT_KINDS or not isinstance(labels, t.Mapping):
        raise BadInput('The alerts of the preflight must have url, and may have type (%s), labels (a dictionary), %s: %s.' % (
            ' or '.join(ALERT_KINDS), ', '.join(web.ACCESS_OPTIONS), 'they have "%s"' % unknown[0] if unknown else 'one is wrong'))
    url = web.check_url('url of the alerts', options.get('url')).rstrip('/')
    return AlertSource(url, kind, {str(key): str(value) for key, value in labels.items()}, web.read_access('alerts', options))


async def certificate(place: Place, deadline: float) -> dict[str, t.Any]:
    """Returns ``{ends}`` in seconds since 1970, or ``{error}``."""
    def look() -> float:
        trust = ssl.create_default_context(cafile=place.ca_path if place.ca_path and os.path.isfile(place.ca_path) else None,
                                           capath=place.ca_path if place.ca_path and os.path.isdir(place.ca_path) else None)
        with socket.create_connection((place.host, place.port), timeout=deadline) as plain:
            with trust.wrap_socket(plain, server_hostname=place.server_name) as talk:
                return float(ssl.cert_time_to_seconds(t.cast(str, (talk.getpeercert() or {})['notAfter'])))
    if place.ca_path and not os.path.exists(place.ca_path):
        return {'error': 'The certificates of %s, to trust %s by, are not there.' % (place.ca_path, place.name)}
    try:
        return {'ends': await _aside(look, deadline)}
    except ssl.SSLCertVerificationError as exc:
        return {'error': 'Its certificate is not accepted: %s. Renew it, or name what signs it as ca_path.' % exc.verify_message}
    except (asyncio.TimeoutError, TimeoutError):
        return {'error': '%s:%d did not answer within %g s.' % (place.host, place.port, deadline)}
    except (OSError, KeyError, ValueError, UnicodeError) as exc:
        return {'error': 'Its certificate could not be read from %s:%d: %s.' % (place.host, place.port, _reason(exc))}


async def resolve(name: str, deadline: float) -> dict[str, t.Any]:
    """Returns ``{addresses}``, or ``{error}``."""
    try:
        found = await _aside(lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM), deadline)
    except (asyncio.TimeoutError, TimeoutError):
        return {'error': 'The name was not resolved within %g s: check the name servers of the control host.' % deadline}
    except (OSError, UnicodeError) as exc:
        return {'error': 'The name is not resolved: %s. Correct it, or its DNS entry.' % _reason(exc)}
    return {'addresses': list(dict.fromkeys(str(one[4][0]) for one in found))}


async def alerts(source: AlertSource, deadline: float) -> dict[str, t.Any]:
    """Returns ``{url, found}``, or ``{url, error}``: of Prometheus' HTTP API (/api/v1/alerts) or Alertmanager's (/api/v2/alerts)."""
    client = web.Client(source.access, 1)
    path = '/api/v1/alerts' if source.kind == 'prometheus' else '/api/v2/alerts?' + urlencode(
        {'active': 'true', 'silenced': 'false', 'inhibited': 'false'})
    try:
        answer = await asyncio.wait_for(client.fetch(source.url + path, deadline), deadline + 1)
        if answer.status != 200:
            return {'url': source.url, 'error': '%s answered with HTTP %d when it was asked for alerts.' % (source.url, answer.status)}
        told = json.loads(answer.body)
        raw = told['data']['alerts'] if source.kind == 'prometheus' else told
        return {'url': source.url, 'found': [_alert(one) for one in raw if _concerns(one, source.labels)][:_ALERTS_MAX]}
    except (asyncio.TimeoutError, TimeoutError):
        return {'url': source.url, 'error': '%s did not answer within %g s.' % (source.url, deadline)}
    except DeliveryError as exc:
        return {'url': source.url, 'error': str(exc)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {'url': source.url, 'error': '%s did not answer as %s does: correct url and type.' % (source.url, source.kind.capitalize())}
    finally:
        client.close()


def _concerns(alert: t.Mapping[str, t.Any], labels: t.Mapping[str, str]) -> bool:
    own = alert['labels']
    return all(own.get(key) == value for key, value in labels.items())


def _alert(one: t.Mapping[str, t.Any]) -> dict[str, str]:
    notes, state = one.get('annotations') or {}, one.get('state') or (one.get('status') or {}).get('state')
    said = ' '.join(str(notes.get('summary') or notes.get('description') or '').split())[:200]
    return {'name': str(one['labels'].get('alertname', '?'))[:100], 'state': 'pending' if state == 'pending' else 'firing', 'text': said}


def journal_place(state_dir: str) -> dict[str, t.Any]:
    """Returns ``{path, used}`` of the file system that will keep the journal, or ``{path, error}``."""
    path = os.path.abspath(state_dir)
    while not os.path.exists(path) and path != '/':
        path = os.path.dirname(path)
    if not os.path.isdir(path) or not os.access(path, os.W_OK | os.X_OK):
        return {'path': path, 'error': 'The journals cannot be kept in %s: %s. Set delivery_state_dir to a directory you may write.' % (
            state_dir, '%s may not be written' % path if os.path.isdir(path) else '%s is no directory' % path)}
    return {'path': path, 'used': disk_ratio(path) or 0.0}


def lock_state(state_dir: str, service: str, rollout: str | None) -> dict[str, t.Any]:
    """Returns ``{holder, alive, ours}``, ``{}`` when nobody holds the lock of *service*, or ``{error}``."""
    try:
        holder = Lock(os.path.join(state_dir, service, 'lock')).holder()
    except DeliveryError as exc:
        return {'error': str(exc)}
    return {'holder': str(holder), 'alive': holder.alive(), 'ours': holder.rollout == rollout} if holder else {}


async def _aside(work: t.Callable[[], T], deadline: float) -> T:
    """Returns what *work* returns, within *deadline* seconds. It runs in a thread that nobody waits for at the end of the process: name
    servers that are silent cannot be given a deadline otherwise."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if not done.done():
            if error is None:
                done.set_result(t.cast(T, value))
            else:
                done.set_exception(error)

    def run() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = work(), None
        except Exception as exc:  # pylint: disable=broad-except
            outcome = None, exc
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:
            pass  # The loop has ended: too late.

    threading.Thread(target=run, daemon=True, name='delivery-preflight').start()
    return await asyncio.wait_for(done, deadline)


def _reason(exc: BaseException) -> str:
    return (exc.strerror if isinstance(exc, OSError) and exc.strerror else ' '.join(str(exc).split())).rstrip('.') or type(exc).__name__
