# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab with a canary at 5 %: a real HAProxy, real instances, real load. ``record`` writes its counters down, ``catch`` lets gates
watch a canary that fails.

    python bench/lab_runs.py record FILE --rate 200 --seconds 900 --errors 0.003
    python bench/lab_runs.py catch --rate 200 --interval 10 --errors 0.05 --runs 10

``record`` lets both arms fail the same share of their requests: a healthy canary of a service that is not perfect. ``catch`` prints, for
each run, after how many polls the gate of the delivery role's default conditions sent the canary back. All on 127.0.0.1, in a
lab of its own that stops by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / '.collections'), str(ROOT / 'tests' / 'e2e')]

import yaml  # noqa: E402
from e2e_lab import Lab  # noqa: E402

from ansible_collections.progressive.delivery.plugins.module_utils import _gate, _traffic  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._display import line  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._lease import held  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import REQUESTS  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import build_sources  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._watch import watch  # noqa: E402

ARMS = {arm: {'backend': arm} for arm in ('blue', 'canary')}
COLUMNS = ('stable_errors', 'stable_requests', 'canary_errors', 'canary_requests', 'b1_errors', 'b1_requests', 'b2_errors', 'b2_requests')


class Running:
    """A lab under load, with *errors* as the part of the requests that a faulty arm fails."""

    def __init__(self, rate: int, seconds: float, errors: float, faulty: t.Sequence[str]) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix='pd-bench-', dir='/tmp'))
        self.lab = Lab(self.dir)
        self.lab.env['LAB_ERROR_SHARE'] = '%g' % errors
        self.rate, self.seconds, self.faulty = rate, seconds, faulty
        self.load: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> 'Running':
        try:
            self._do('up', '--lifetime', '%g' % (self.seconds + 120))
            self._do('start-arm', '--arm', 'canary', '--version', '5.1')
            for arm in self.faulty:
                self._do('fault', '--arm', arm, '--fault', 'errors')
            self.load = subprocess.Popen(self.lab.command('load', '--rate', str(self.rate), '--duration', '%g' % (self.seconds + 60)),
                                         env=self.lab.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self.load is not None:
            self.load.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.load.wait(30)
        self.lab.run(*self.lab.command('down'))
        shutil.rmtree(self.dir, ignore_errors=True)

    def _do(self, *words: str) -> None:
        done = self.lab.run(*self.lab.command(*words))
        if done.returncode:
            raise SystemExit('The lab could not do "%s": %s' % (' '.join(words), done.stderr or done.stdout))

    @property
    def endpoints(self) -> list[dict[str, t.Any]]:
        return [{'name': 'lab', 'socket': 'unix://%s/admin.sock' % self.dir, 'map': str(self.dir / 'delivery.map'), 'ring': 'shop_events',
                 'slots': 2}]

    def move(self, **more: t.Any) -> dict[str, t.Any]:
        """Gives the canary its 5 %, or what *more* says."""
        options = {key: spec.get('default') for key, spec in _traffic.TRAFFIC_SPEC.items()}
        options.update({'service': 'shop', 'arms': ARMS, 'endpoints': self.endpoints, 'split': {'canary': '5%'}, 'stable': 'blue',
                        'lease': '30s', 'rollout': 'bench', **more})
        return asyncio.run(_traffic.run(options, False))


async def _record(running: Running, lease: t.Mapping[str, t.Any], out: t.TextIO) -> None:
    source, keeper = build_sources('shop', ARMS, running.endpoints, {})[0], held(lease)
    await source.open()
    begin = time.monotonic()
    print(','.join(COLUMNS), file=out)
    for second in range(int(running.seconds) + 1):
        await asyncio.sleep(max(0.0, begin + second - time.monotonic()))
        await keeper.renew()
        reading = await source.poll(time.monotonic())
        blocks = {block.arm: block for block in reading.blocks if block.metric == REQUESTS}
        if len(blocks) < 2:
            continue
        servers = {name.rpartition('/')[2]: (bad, requests) for name, bad, requests in blocks['blue'].servers}
        print(','.join(str(value) for value in (
            blocks['blue'].bad, blocks['blue'].requests, blocks['canary'].bad, blocks['canary'].requests,
            *servers.get('b1', (0, 0)), *servers.get('b2', (0, 0)))), file=out, flush=True)
    await source.close()


def record(options: argparse.Namespace) -> None:
    """Writes a line of counters for each second."""
    with Running(options.rate, options.seconds, options.errors, ('blue', 'canary')) as running, open(options.file, 'w') as out:
        print('# Counters of each second of a real run in the lab: %d requests per second, 5 %% on a healthy canary, %g %% errors on both '
              'arms (bench/lab_runs.py record).' % (options.rate, options.errors * 100), file=out)
        asyncio.run(_record(running, running.move()['lease'], out))


def _conditions() -> list[dict[str, t.Any]]:
    """Returns the default conditions of the delivery role, with its default figures."""
    defaults = yaml.safe_load((ROOT / 'roles' / 'delivery' / 'defaults' / 'main.yml').read_text())

    def value(text: t.Any) -> t.Any:
        return defaults[text.strip('{} ')] if isinstance(text, str) and text.startswith('{{') else text

    return [{key: value(text) for key, text in one.items()} for one in defaults['delivery_default_conditions']]


def catch(options: argparse.Namespace) -> int:
    """Prints a table of runs; returns how many caught the canary within three polls."""
    print('| run | polls | seconds | condition | why |\n|---|---|---|---|---|')
    caught = 0
    seconds = options.runs * (options.bake + 15)
    with Running(options.rate, seconds, options.errors, ('canary',)) as running:
        for run in range(1, options.runs + 1):
            # What the gate of a rollout knows from before: a moment of stable alone.
            time.sleep(5)
            full = {key: spec.get('default') for key, spec in _gate.ARGUMENT_SPEC.items()}
            full.update(service='shop', arms=ARMS, endpoints=running.endpoints, candidate='canary', stable='blue', bake=options.bake,
                        interval=options.interval, conditions=_conditions(), leases=[running.move()['lease']])
            lines: list[str] = []
            result = asyncio.run(watch(_gate.read_gate(full), Journal(None, None), lambda shown: lines.append(
                shown if isinstance(shown, str) else line(shown)), lines.append))
            polls = -(-result['duration'] // options.interval)
            caught += result['verdict'] == 'fail' and polls <= 3
            blamed = next((one['name'] for one in result['conditions'] if one['verdict'] == 'fail'), '-')
            print('| %d | %s | %.1f | %s | %s |' % (run, '%d' % polls if result['verdict'] == 'fail' else 'not caught',
                                                    result['duration'], blamed, result['reason']), flush=True)
            running.move(state='way_back', split=None, stable=None, lease=None)
    print('\n%d of %d within three polls of %g s, at %d requests per second with 5 %% on a canary that fails %g %%.' % (
        caught, options.runs, options.interval, options.rate, options.errors * 100))
    return caught


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='name', required=True)
    one = commands.add_parser('record')
    one.add_argument('file', type=Path)
    one.add_argument('--seconds', type=float, default=900)
    one.add_argument('--errors', type=float, default=0.003)
    two = commands.add_parser('catch')
    two.add_argument('--interval', type=float, default=1)
    two.add_argument('--bake', type=float, default=60)
    two.add_argument('--runs', type=int, default=10)
    two.add_argument('--errors', type=float, default=0.05)
    for sub in (one, two):
        sub.add_argument('--rate', type=int, default=200)
    options = parser.parse_args()
    if options.name == 'record':
        record(options)
        return 0
    return 0 if catch(options) >= 0.9 * options.runs else 1


if __name__ == '__main__':
    sys.exit(main())
