# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab of its own for the tests that run whole playbooks under load."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import typing as t
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'lab'))

import load


def free_base() -> int:
    """Returns a port that, with the 40 above it, nothing listens on. Workers that look at the same moment look at different ones."""
    worker = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))
    for base in range(21000 + 1000 * worker, 30000, 100):
        try:
            for port in range(base, base + 40):
                with socket.socket() as probe:
                    probe.bind(('127.0.0.1', port))
        except OSError:
            continue
        return base
    raise RuntimeError('no free ports')


class Lab:
    """The lab in a directory and on ports of its own."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self.env = {**os.environ, 'LAB_DIR': str(directory), 'LAB_PORT': str(free_base()), 'ANSIBLE_CONFIG': str(ROOT / 'ansible.cfg'),
                    'ANSIBLE_NOCOLOR': '1'}
        self.env.pop('PYTEST_CURRENT_TEST', None)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(ROOT / 'lab' / 'lab.py'), *words]

    def playbook(self, name: str, *extra: str) -> list[str]:
        return [str(Path(sys.executable).parent / 'ansible-playbook'), '-i', str(ROOT / 'inventories' / 'local'),
                str(ROOT / 'playbooks' / name), *extra]

    def run(self, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)

    def play(self, name: str, *extra: str) -> subprocess.CompletedProcess[str]:
        """Runs a playbook against the lab as it is."""
        return self.run(*self.playbook(name, *extra))

    def rollout(self, candidate: str, *extra: str, rate: str = '400') -> tuple[subprocess.CompletedProcess[str], dict]:
        """What `make rollout` does, and its result.json."""
        done = self.run(*self.command('run', '--fresh', '--rate', rate, '--duration', '400', '--', *self.playbook(
            'rollout.yml', '-e', 'delivery_version=5.1', '-e', 'lab_candidate=%s' % candidate, *extra)), timeout=600)
        return done, json.loads((self.dir / 'result.json').read_text())

    def map_value(self) -> str:
        """The entry of the service, as HAProxy has it."""
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(str(self.dir / 'admin.sock'))
            talk.sendall(b'show map %s\n' % str(self.dir / 'delivery.map').encode())
            data = b''.join(iter(lambda: talk.recv(65536), b''))
        return data.decode().split(' shop ')[1].split()[0]

    def hits(self) -> list[load.Hit]:
        """Each request of the last load, as the load generator saw it."""
        return load.read_hits(load.built_vegeta(), self.dir / 'load.bin')

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """[(labels, value)] of an instant query to Prometheus."""
        return [(one['metric'], float(one['value'][1])) for one in self._query(query)]

    def history(self, selector: str) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """[(labels, [(time, value)])] of all that Prometheus has of *selector*."""
        return [(one['metric'], [(at, float(value)) for at, value in one['values']]) for one in self._query(selector + '[15m]')]

    def _query(self, query: str) -> list[dict]:
        url = 'http://127.0.0.1:%d/api/v1/query?%s' % (int(self.env['LAB_PORT']) + 2, urllib.parse.urlencode({'query': query}))
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.load(reply)['data']['result']


class Dead:
    """Everybody who may be told or asked beside a rollout, and none of them answers: variables of the rollout that name them."""

    SECRET = 's3cr3t'

    def __init__(self, textfile_dir: Path) -> None:
        # Connections to the one are taken and never answered, those to the other refused.
        self._silent, self._gone = socket.create_server(('127.0.0.1', 0)), socket.socket()
        self._gone.bind(('127.0.0.1', 0))
        silent, gone = ('http://127.0.0.1:%d' % one.getsockname()[1] for one in (self._silent, self._gone))
        self.variables = {
            'delivery_sources': {name: {'type': 'prometheus', 'url': url, 'queries': {'agents': 'shop_agents_active'}}
                                 for name, url in (('mute', silent), ('gone', gone))},
            'delivery_extra_conditions': [{'name': 'agents of ' + name, 'source': name, 'metric': 'agents', 'abort_below': 1,
                                           'required': False} for name in ('mute', 'gone')],
            'delivery_notifications': [
                {'name': 'slack', 'type': 'slack', 'url': '%s/%s' % (silent, self.SECRET), 'timeout': 1},
                {'name': 'teams', 'type': 'teams', 'url': '%s/%s' % (gone, self.SECRET), 'timeout': 1},
                {'name': 'hook', 'type': 'webhook', 'url': silent, 'headers': {'Authorization': 'Bearer ' + self.SECRET}, 'timeout': 1},
                {'name': 'duty', 'type': 'pagerduty', 'url': silent, 'integration_key': self.SECRET, 'timeout': 1},
                {'name': 'mail', 'type': 'email', 'host': '127.0.0.1', 'port': self._silent.getsockname()[1], 'username': 'x',
                 'password': self.SECRET, 'sender': 'a@example.org', 'to': 'b@example.org', 'secure': 'never', 'timeout': 1}],
            # Until the last of them has been given up; what never answers is not waited for as long.
            'delivery_notify_timeout': '2m', 'delivery_preflight_deadline': '5s',
            'delivery_grafana_url': silent, 'delivery_grafana_token': self.SECRET, 'delivery_textfile_dir': str(textfile_dir)}
        self.names = [channel['name'] for channel in self.variables['delivery_notifications']] + ['grafana', 'metrics']

    def close(self) -> None:
        self._silent.close()
        self._gone.close()


@contextlib.contextmanager
def lab_of_its_own(routers: str = 'haproxy', home: str = '/tmp') -> t.Iterator[Lab]:
    """A lab behind *routers* (LAB_ROUTERS) in a new directory below *home*; both are gone afterwards."""
    lab = Lab(Path(tempfile.mkdtemp(prefix='pd-lab-', dir=home)))
    lab.env['LAB_ROUTERS'] = routers
    try:
        yield lab
    finally:
        lab.run(*lab.command('down'))
        shutil.rmtree(lab.dir, ignore_errors=True)
