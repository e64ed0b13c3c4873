# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service "shop" with arms blue, canary and green behind real HAProxy processes, for tests of traffic_weight."""

from __future__ import annotations

import asyncio
import contextlib
import re
import typing as t
from pathlib import Path

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._traffic import TRAFFIC_SPEC, run
from ansible_collections.progressive.delivery.plugins.module_utils._traffic_info import INFO_SPEC, run_info
from haproxy_lab import HAProxy, Origin

ARMS = {'blue': {'backend': 'blue'}, 'canary': {'backend': 'canary'}, 'green': {'backend': 'green'}}
_DOC = Path(__file__).resolve().parents[1] / 'docs' / 'architecture.md'

BACKENDS = '''
backend blue
    server b1 127.0.0.1:{blue} check inter 50ms fastinter 50ms downinter 50ms fall 1 rise 1
backend canary
    server c1 127.0.0.1:{canary} check inter 50ms fastinter 50ms downinter 50ms fall 1 rise 1
    server b1 127.0.0.1:{blue} backup
backend green
    server g1 127.0.0.1:{green} check inter 50ms fastinter 50ms downinter 50ms fall 1 rise 1
'''


def documented_lines(map_path: str = '{dir}/delivery.map') -> str:
    """The frontend's lines as docs/architecture.md gives them: what is tested is what users copy."""
    text = _DOC.read_text().split("The configuration's part", 1)[1]
    block = re.search(r'((?:^    .*\n)+)', text, re.M).group(1)
    assert 'default_backend' in block
    return block.replace('{', '{{').replace('}', '}}').replace('/etc/haproxy/delivery.map', map_path)


FRONTEND = '''
frontend fe
    bind 127.0.0.1:{port}
'''


class Shop:
    """Origins and HAProxy processes; ``do`` runs traffic_weight on all of them, ``look`` traffic_weight_info."""

    def __init__(self, count: int = 1, backends: str = BACKENDS, map_text: str = '# kept\nother 0/x/rand/-/-\nshop 0/blue/rand/-/v=5.0\n',
                 frontend: str | None = None, env: t.Mapping[str, str] | None = None) -> None:
        self.origins = {name: Origin(name) for name in ARMS}
        self._stack = contextlib.ExitStack()
        self._count, self._backends, self._map_text = count, backends, map_text
        self._env = env
        self._frontend = FRONTEND + documented_lines() if frontend is None else frontend
        self.proxies: list[HAProxy] = []

    def __enter__(self) -> 'Shop':
        for origin in self.origins.values():
            self._stack.enter_context(origin)
        ports = {name: origin.port for name, origin in self.origins.items()}
        for _i in range(self._count):
            proxy = HAProxy(self._frontend + self._backends, files={'delivery.map': self._map_text}, env=self._env, **ports)
            self.proxies.append(self._stack.enter_context(proxy))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def proxy(self) -> HAProxy:
        return self.proxies[0]

    def endpoints(self, **more: t.Any) -> list[dict[str, t.Any]]:
        return [{'name': 'lb%d' % n, 'socket': proxy.address, 'map': str(proxy.dir / 'delivery.map'), 'slots': 2, 'sticky': True,
                 'matches': [{'header': 'x-canary-user', 'value': 'true'}], **more} for n, proxy in enumerate(self.proxies, 1)]

    def options(self, **options: t.Any) -> dict[str, t.Any]:
        return {'service': 'shop', 'arms': ARMS, 'endpoints': self.endpoints(), **options}

    def do(self, check: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """Runs the task. Raises DeliveryError, and AssertionError for options that the argument spec refuses."""
        return asyncio.run(run(validated(TRAFFIC_SPEC, self.options(**options)), check))

    def look(self, **options: t.Any) -> dict[str, t.Any]:
        return asyncio.run(run_info(validated(INFO_SPEC, self.options(**options))))

    def entry(self, n: int = 0) -> str | None:
        """The running map's value for shop."""
        return _value(line.split(' ', 1)[1] for line in self.proxies[n].ask('show map %s/delivery.map' % self.proxies[n].dir).splitlines()
                      if line)

    def filed(self, n: int = 0) -> str | None:
        """The same in the file."""
        return _value((self.proxies[n].dir / 'delivery.map').read_text().splitlines())


def _value(lines: t.Iterable[str]) -> str | None:
    return next((line.split(' ', 1)[1] for line in lines if line.startswith('shop ')), None)


def validated(spec: dict[str, t.Any], options: dict[str, t.Any]) -> dict[str, t.Any]:
    found = ArgumentSpecValidator(spec).validate(options)
    assert not found.error_messages, found.error_messages
    return found.validated_parameters


def sentence(work: t.Callable[[], t.Any]) -> str:
    """Returns the error that *work* ends with."""
    try:
        result = work()
    except DeliveryError as exc:
        return str(exc)
    raise AssertionError('no error, but %r' % (result,))
