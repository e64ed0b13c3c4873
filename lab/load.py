# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load: vegeta (github.com/tsenart/vegeta), open loop, so that a slow answer does not hold back the next request.

vegeta is built once, from the versions and checksums that lab/vegeta pins, into the user's cache.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import typing as t
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from golang import go
from layout import LabError, Layout, cache_dir

MODULE = Path(__file__).parent / 'vegeta'
CLIENTS = 40
"""Client hosts, as vegeta sees them: each has keep-alive connections of its own."""
USERS = 1_000_000
POST_SHARE = 0.3
# Beyond every time-out of the proxy: it is the proxy's answer that counts, not the client's impatience.
TIMEOUT_S = 20


def targets(rng: random.Random, domains: t.Sequence[str], run: str) -> t.Iterator[str]:
    """Yields vegeta's JSON targets without end, to one domain after the other: an id of its own for each, a user's cookie, a GET or
    a POST."""
    for number in itertools.count(1):
        post = rng.random() < POST_SHARE
        target: dict[str, object] = {
            'method': 'POST' if post else 'GET',
            'url': 'http://%s/api/%s?id=%s-%d' % (
                host(number // len(domains) % CLIENTS, domains[number % len(domains)]), 'orders' if post else 'items', run, number),
            'header': {'Cookie': ['uid=u%d' % rng.randrange(USERS)]},
        }
        if post:
            target['header'] = {**t.cast(dict, target['header']), 'Content-Type': ['application/json']}
            target['body'] = base64.b64encode(b'{"item": %d, "amount": 1}' % number).decode()
        yield json.dumps(target) + '\n'


def host(client: int, domain: str) -> str:
    return 'client-%d.%s' % (client, domain)


def attack(lab: Layout, edges: t.Mapping[str, str], binary: Path, rate: int, duration: float, rng: random.Random) -> int:
    """Runs the load in the foreground until *duration* seconds are over or SIGINT or SIGTERM arrives; returns vegeta's status.

    *edges* is domain: host:port of the data plane that serves it; each gets the same part of the requests. Those that are on their
    way in the end are waited for and counted.
    """
    words = [binary, 'attack', '-lazy', '-format=json', '-rate=%d/s' % rate, '-duration=%gs' % duration,
             '-timeout=%ds' % TIMEOUT_S, '-max-body=0', '-name=', '-output=%s' % lab.attack]
    for domain, address in edges.items():
        for client in range(CLIENTS):
            words += ['-connect-to', '%s:80:%s' % (host(client, domain), address)]
    vegeta = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE, start_new_session=True)

    def stop(*_args: object) -> None:
        # vegeta ends and counts what it has on SIGINT; on a second one it would drop that.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        vegeta.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    assert vegeta.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        for line in targets(rng, list(edges), '%08x' % rng.getrandbits(32)):
            vegeta.stdin.write(line.encode())
            if vegeta.poll() is not None:
                break
    with contextlib.suppress(BrokenPipeError):
        vegeta.stdin.close()
    return vegeta.wait()


@dataclass(frozen=True)
class Hit:
    """One request as the load generator saw it; times in epoch seconds. code 0: there was no answer."""

    id: str
    method: str
    sent: float
    done: float
    code: int
    version: str | None
    arm: str | None

    @property
    def failed(self) -> bool:
        return not 200 <= self.code < 400


_TIMESTAMP = re.compile(r'(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)')


def parse_timestamp(text: str) -> float:
    """Returns epoch seconds of an RFC 3339 time, of which Go writes up to nine decimals."""
    found = _TIMESTAMP.fullmatch(text)
    if not found:
        raise LabError('The time %r in the record of the load is not understood.' % text)
    whole, fraction, zone = found.groups()
    return datetime.fromisoformat(whole + zone.replace('Z', '+00:00')).timestamp() + int((fraction or '0').ljust(9, '0')) / 1e9


def parse_hit(line: str) -> Hit:
    """Reads one line of ``vegeta encode --to=json``."""
    raw = json.loads(line)
    headers = {name.lower(): values[0] for name, values in (raw.get('headers') or {}).items()}
    sent = parse_timestamp(raw['timestamp'])
    return Hit(id=raw['url'].rpartition('id=')[2], method=raw['method'], sent=sent, done=sent + raw['latency'] / 1e9,
               code=raw['code'], version=headers.get('x-version'), arm=headers.get('x-arm'))


def read_hits(binary: Path, record: Path) -> list[Hit]:
    """All requests of the load's record."""
    if not record.exists() or not record.stat().st_size:
        return []
    encoded = subprocess.run([str(binary), 'encode', '--to=json', str(record)], capture_output=True, text=True, check=False)
    if encoded.returncode:
        raise LabError('vegeta could not read %s: %s' % (record, encoded.stderr.strip()))
    return [parse_hit(line) for line in encoded.stdout.splitlines()]


def vegeta_path() -> Path:
    """Where the pinned vegeta lies, or will: the path changes with each pinned version or checksum."""
    pins = hashlib.sha256((MODULE / 'go.mod').read_bytes() + (MODULE / 'go.sum').read_bytes()).hexdigest()
    return cache_dir() / ('vegeta-%s' % pins[:12]) / 'vegeta'


def built_vegeta() -> Path:
    """Returns the pinned vegeta, built now if it is not there yet (about 20 s with Go installed)."""
    binary = vegeta_path()
    if binary.exists():
        # What nothing has used for long is cleared from the cache (scripts/cache-dir).
        os.utime(binary.parent)
        return binary
    print('building the load generator (vegeta) into %s: once' % binary.parent, flush=True)
    binary.parent.mkdir(parents=True, exist_ok=True)
    new = binary.with_name('vegeta.%d' % os.getpid())
    # Both may need the network: a module proxy that hiccups is no reason to fail.
    for _try in range(3):
        done = _build(new)
        if not done.returncode:
            break
    else:
        raise LabError('Go could not build vegeta in %s: %s' % (MODULE, done.stderr.strip()[-800:]))
    new.replace(binary)
    return binary


def _build(binary: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(go()), 'build', '-mod=readonly', '-trimpath', '-o', str(binary), 'github.com/tsenart/vegeta/v12'], cwd=MODULE,
        env={**os.environ, 'GOFLAGS': '', 'GOWORK': 'off', 'GOTOOLCHAIN': 'local', 'CGO_ENABLED': '0'},
        capture_output=True, text=True, check=False)
