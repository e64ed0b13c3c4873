# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where everything of a lab is: one directory and a row of loopback ports, so that two labs can run side by side."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass
from pathlib import Path

SERVICE = 'shop'
STABLE_ARM = 'blue'
ROUTERS = ('haproxy', 'httproute', 'virtualservice', 'ingress')
"""What the lab can stand behind, all of it at once if asked for: HAProxy of its own, and routes of the cluster of `make cluster`."""
ROUTER_SETS = {'kubernetes': ROUTERS[1:], 'hybrid': ROUTERS}
# The limit of a UNIX socket's path is 107 bytes, and HAProxy binds it under a longer name first.
LONGEST_SOCKET = 90


class LabError(Exception):
    """A sentence for the one who runs the lab."""


@dataclass(frozen=True)
class Layout:
    """A lab's paths and ports. All ports are on 127.0.0.1, within 40 from *port* on."""

    dir: Path
    port: int
    routers: tuple[str, ...] = ROUTERS[:1]

    @classmethod
    def from_environment(cls, environ: t.Mapping[str, str] | None = None) -> 'Layout':
        """LAB_DIR (default: .lab of the checkout), LAB_PORT (default: 18000), LAB_ROUTERS (default: haproxy)."""
        environ = os.environ if environ is None else environ
        port = environ.get('LAB_PORT') or '18000'
        if not port.isdigit() or not 1024 <= int(port) <= 65000:
            raise LabError('LAB_PORT is %r: give the first of 40 free ports, from 1024 to 65000.' % port)
        asked = environ.get('LAB_ROUTERS') or ROUTERS[0]
        routers = ROUTER_SETS.get(asked) or tuple(dict.fromkeys(asked.split(',')))
        strange = [router for router in routers if router not in ROUTERS]
        if strange:
            raise LabError('LAB_ROUTERS names "%s": give some of %s with commas between, or %s.' % (
                strange[0], ', '.join(ROUTERS), ' or '.join(ROUTER_SETS)))
        lab = cls(Path(environ.get('LAB_DIR') or Path(__file__).parents[1] / '.lab').resolve(), int(port), routers)
        if len(str(lab.socket)) > LONGEST_SOCKET:
            raise LabError('The path %s is too long for a UNIX socket: set LAB_DIR to a shorter directory.' % lab.socket)
        return lab

    @property
    def ports(self) -> dict[str, int]:
        return {name: self.port + n for n, name in enumerate(('frontend', 'statistics', 'prometheus', 'node', 'alertmanager', 'pager'))}

    @property
    def arms(self) -> dict[str, dict[str, int]]:
        """arm: {server as HAProxy names it: port}; backends are called as their arms."""
        first = {'blue': 11, 'green': 21, 'canary': 31}
        return {arm: {arm[0] + str(n + 1): self.port + offset + n for n in range(2)} for arm, offset in first.items()}

    @property
    def namespace(self) -> str:
        """Where the lab is in the cluster."""
        return 'lab-%d' % self.port

    def domain(self, router: str) -> str:
        """The service's hosts behind *router* are all names in this domain."""
        return '%s-%d.lab.test' % (router, self.port)

    @property
    def socket(self) -> Path:
        return self.dir / 'admin.sock'

    @property
    def map(self) -> Path:
        return self.dir / 'delivery.map'

    @property
    def run(self) -> Path:
        """What each process is, while it is."""
        return self.dir / 'run'

    @property
    def logs(self) -> Path:
        return self.dir / 'log'

    @property
    def received(self) -> Path:
        """One file a process: the work requests that reached it."""
        return self.dir / 'received'

    @property
    def state(self) -> Path:
        """delivery_state_dir of the inventory: locks and journals."""
        return self.dir / 'state'

    @property
    def textfile(self) -> Path:
        """delivery_textfile_dir of the inventory: the metrics of the rollout."""
        return self.dir / 'textfile'

    @property
    def pages(self) -> Path:
        """What Alertmanager has told somebody, a line each."""
        return self.dir / 'pages.jsonl'

    @property
    def attack(self) -> Path:
        """vegeta's own record of each request (its binary format)."""
        return self.dir / 'load.bin'

    @property
    def result(self) -> Path:
        return self.dir / 'result.json'


def cache_dir() -> Path:
    """Where what was built once lies, outside the checkout."""
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(base) / 'progressive.delivery'
