# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab: HAProxy, the arms of a small service and a load generator, all on 127.0.0.1 of this machine. See lab/README.md."""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import kube
import load
import result
import stack
import watch
from layout import LabError, Layout


def up(lab: Layout, options: argparse.Namespace) -> int:
    with stack.claimed(lab):
        stack.up(lab, options.version, options.lifetime)
    print('The lab is up, files in %s. Its service answers at' % lab.dir)
    for domain, address in stack.edges(lab).items():
        print("  curl -H 'Host: %s' http://%s/api/items" % (load.host(0, domain), address))
    if 'haproxy' in lab.routers:
        print('HAProxy shows its statistics at http://127.0.0.1:%d/.' % lab.ports['statistics'])
    if options.lifetime:
        print('It stops by itself in %g minutes.' % (options.lifetime / 60))
    return 0


def down(lab: Layout, options: argparse.Namespace) -> int:
    print('The lab is down.' if stack.down(lab) else 'Nothing of the lab ran.')
    return 0


def expire(lab: Layout, options: argparse.Namespace) -> int:
    time.sleep(options.after)
    stack.down(lab, spare=stack.EXPIRY)
    return 0


def start_arm(lab: Layout, options: argparse.Namespace) -> int:
    print('changed' if stack.start_arm(lab, options.arm, options.version, options.fault) else 'unchanged')
    return 0


def stop_arm(lab: Layout, options: argparse.Namespace) -> int:
    print('changed' if stack.stop_arm(lab, options.arm) else 'unchanged')
    return 0


def fault(lab: Layout, options: argparse.Namespace) -> int:
    for server in lab.arms[options.arm]:
        stack.set_fault(lab, options.arm, server, options.fault)
    print('%s now has the fault "%s".' % (options.arm, options.fault))
    return 0


def setup(lab: Layout, options: argparse.Namespace) -> int:
    load.built_vegeta()
    return 0


def start_load(lab: Layout, options: argparse.Namespace) -> int:
    return load.attack(lab, stack.edges(lab), load.built_vegeta(), options.rate, options.duration, random.Random())


def run(lab: Layout, options: argparse.Namespace) -> int:
    """Runs a command while the load is on, then makes the result; its status is the command's."""
    if not options.command:
        raise LabError('Give the command to run after "--".')
    binary = load.built_vegeta()
    with stack.claimed(lab):
        if options.fresh:
            stack.up(lab, options.version, options.lifetime)
        elif not stack.is_up(lab):
            raise LabError('The lab is not up: run `make lab` first.')
        lab.attack.unlink(missing_ok=True)
        generator = stack.load_process(lab)
        began = time.time()
        generator.start([sys.executable, __file__, 'load', '--rate', options.rate, '--duration', options.duration])
        try:
            stack.await_load(lab, generator)
            status = _foreground(options.command)
        finally:
            stack.stop_load(lab)
        _write_result(lab, binary, began)
    return status


def _foreground(command: t.Sequence[str]) -> int:
    """Runs *command* on this terminal. Ctrl-C reaches it directly; SIGTERM is handed on: it decides how it ends, we wait."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        status = child.wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


def make_result(lab: Layout, options: argparse.Namespace) -> int:
    _write_result(lab, load.built_vegeta(), 0.0)
    return 0


def _write_result(lab: Layout, binary: Path, since: float) -> None:
    journal = result.newest_journal(lab.state, 'shop', since)
    kube.collect(lab)
    found = result.summarise(result.read_lines(journal) if journal else [], load.read_hits(binary, lab.attack),
                             result.read_receipts(lab.received), stack.about(lab)['version'])
    found['journal'] = str(journal) if journal else None
    lab.result.write_text(json.dumps(found, indent=2) + '\n')
    print(result.text(found))
    print('result: %s' % lab.result)
    if found['outcome']:
        print('%s%s' % (found['outcome'].replace('_', ' '), ': ' + found['reason'] if found['reason'] else ''))


def status(lab: Layout, options: argparse.Namespace) -> int:
    print(stack.status(lab))
    return 0


def watch_rollout(lab: Layout, options: argparse.Namespace) -> int:
    return watch.watch(lab, options.patience)


def main(words: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='lab.py', description=__doc__)
    commands = parser.add_subparsers(dest='name', required=True)

    def command(name: str, function: t.Callable[[Layout, argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    def of_the_lab(sub: argparse.ArgumentParser) -> None:
        sub.add_argument('--version', default='5.0', help='the version on blue (default 5.0)')
        sub.add_argument('--lifetime', type=float, default=1800, help='seconds until it stops by itself, 0 for never (default 1800)')

    of_the_lab(command('up', up, 'start the lab afresh: HAProxy, the stable arm, Prometheus where it is installed'))
    command('down', down, 'stop everything of the lab')
    command('status', status, 'what runs')
    sub = command('watch', watch_rollout, 'the rollout on one screen, until it ends')
    sub.add_argument('--patience', type=float, default=600, help='seconds to wait for a rollout to begin (default 600)')
    command('setup', setup, 'build the load generator')
    sub = command('expire', expire, 'stop the lab after a time')
    sub.add_argument('--after', type=float, required=True)
    sub = command('start-arm', start_arm, 'start a version on an arm; says "changed" or "unchanged"')
    sub.add_argument('--version', required=True)
    sub.add_argument('--arm', required=True, choices=stack.ARMS)
    sub.add_argument('--fault', default='none', choices=stack.FAULTS)
    sub = command('stop-arm', stop_arm, 'stop an arm; says "changed" or "unchanged"')
    sub.add_argument('--arm', required=True, choices=stack.ARMS)
    sub = command('fault', fault, 'switch the fault of an arm that runs')
    sub.add_argument('--arm', required=True, choices=stack.ARMS)
    sub.add_argument('--fault', required=True, choices=stack.FAULTS)
    for name, function, text in (('load', start_load, 'load in the foreground, until SIGINT or the end of the time'),
                                 ('run', run, 'run a command under load, then make result.json; the status is the command\'s')):
        sub = command(name, function, text)
        sub.add_argument('--rate', type=int, default=400, help='requests per second (default 400)')
        sub.add_argument('--duration', type=float, default=180, help='seconds after which the load ends in any case (default 180)')
    sub.add_argument('--fresh', action='store_true', help='start the lab afresh before')
    of_the_lab(sub)
    sub.add_argument('command', nargs='*')
    command('result', make_result, 'make result.json anew from the journal, the load\'s record and what the arms received')

    options = parser.parse_args(words)
    try:
        return options.function(Layout.from_environment(), options)
    except LabError as exc:
        print('lab: %s' % exc, file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
