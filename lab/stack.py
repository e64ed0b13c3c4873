# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's processes: what is started how, and when it counts as started."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import typing as t
from pathlib import Path

import jinja2

import kube
import monitoring
from layout import SERVICE, STABLE_ARM, LabError, Layout
from load import TIMEOUT_S
from processes import Process, stop_all, wait_until

HERE = Path(__file__).parent
ARMS = ('blue', 'green', 'canary')
FAULTS = ('none', 'errors', 'slow', 'crash', 'silent', 'hang')
EXPIRY, LOAD = 'expiry', 'load'
# The service serves on for 0.8 s after SIGTERM and gives what is left 2 s.
STOP_PATIENCE_S = 6.0


def up(lab: Layout, version: str, lifetime: float) -> None:
    """Starts everything afresh: what ran in this directory is stopped, what it left is deleted."""
    # It becomes part of an entry of the map.
    if not re.fullmatch(r'[A-Za-z0-9_.+~-]{1,60}', version):
        raise LabError('The version %r is not usable: use letters, digits and the signs "_.+~-".' % version)
    haproxy = _haproxy() if 'haproxy' in lab.routers else None
    kube.edges(lab)
    down(lab)
    for leftover in (lab.run, lab.logs, lab.received, lab.state, lab.textfile, lab.dir / 'prometheus', lab.dir / 'alertmanager'):
        shutil.rmtree(leftover, ignore_errors=True)
    for file in (lab.attack, lab.result, lab.pages):
        file.unlink(missing_ok=True)
    for directory in (lab.run, lab.logs, lab.received, lab.state, lab.textfile):
        directory.mkdir(parents=True)
    _check_ports(lab)
    (lab.dir / 'lab.json').write_text(json.dumps({'version': version, 'port': lab.port, 'routers': lab.routers}))
    # No lease, stable arm, drawn at random, no match, the version: docs/architecture.md.
    lab.map.write_text('%s 0/%s/rand/-/v=%s\n' % (SERVICE, STABLE_ARM, version))
    try:
        if lifetime:
            _process(lab, EXPIRY).start([sys.executable, HERE / 'lab.py', 'expire', '--after', lifetime], env=_environment(lab))
        if haproxy:
            start_arm(lab, STABLE_ARM, version, 'none')
            _start_haproxy(lab, haproxy)
            _start_prometheus(lab)
        if kube.used(lab):
            kube.up(lab, version, _environment(lab))
    except BaseException:
        down(lab)
        raise


def down(lab: Layout, spare: str = '') -> bool:
    """Stops every process of the lab but the one named *spare*; False when none ran."""
    names = sorted(path.stem for path in lab.run.glob('*.json')) if lab.run.is_dir() else []
    # The load first and alone: what it has sent should be answered before the rest goes.
    ran = stop_load(lab)
    ran |= stop_all([_process(lab, name) for name in names if name not in (LOAD, spare)], STOP_PATIENCE_S)
    with contextlib.suppress(LabError):
        if any(router in kube.ROUTES for router in about(lab).get('routers', ())):
            ran |= kube.down(lab)
    if spare:
        _process(lab, spare).forget()
    return ran


def load_process(lab: Layout) -> Process:
    return _process(lab, LOAD)


def stop_load(lab: Layout) -> bool:
    """Ends the load and waits for the answers to what it has sent; False when there was none."""
    return stop_all([load_process(lab)], TIMEOUT_S + 5.0, signal.SIGINT)


@contextlib.contextmanager
def claimed(lab: Layout) -> t.Iterator[None]:
    """Keeps others from starting the lab afresh under a command that uses it."""
    lab.dir.mkdir(parents=True, exist_ok=True)
    with open(lab.dir / 'lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LabError('Somebody uses the lab in %s: wait for the end, or set LAB_DIR and LAB_PORT for a lab of your own.'
                           % lab.dir) from None
        yield


def is_up(lab: Layout) -> bool:
    """Whether all that this lab is asked to be runs."""
    if 'haproxy' in lab.routers and _process(lab, 'haproxy').record() is None:
        return False
    return not kube.used(lab) or kube.is_up(lab)


def edges(lab: Layout) -> dict[str, str]:
    """Domain of the service's hosts: host:port of the data plane that serves them."""
    own = {'haproxy': '127.0.0.1:%d' % lab.ports['frontend']} if 'haproxy' in lab.routers else {}
    return {lab.domain(router): address for router, address in {**own, **kube.edges(lab)}.items()}


def about(lab: Layout) -> dict:
    """What the lab was started with."""
    try:
        return json.loads((lab.dir / 'lab.json').read_text())
    except OSError:
        raise LabError('There is no lab in %s: run `make lab` first.' % lab.dir) from None


def start_arm(lab: Layout, arm: str, version: str, fault: str) -> bool:
    """Brings *arm* up with *version* and waits until it is ready; False when it was up with just that already."""
    wanted = {'arm': arm, 'version': version, 'fault': fault}
    servers = {_process(lab, server): port for server, port in lab.arms[arm].items()}
    records = [server.record() for server in servers]
    if all(record and {key: record.get(key) for key in wanted} == wanted for record in records):
        return False
    stop_arm(lab, arm)
    for process, port in servers.items():
        process.start([sys.executable, HERE / 'service.py', '--arm', arm, '--version', version, '--port', port, '--fault', fault,
                       '--received', lab.received / (process.name + '.jsonl')], wanted)
    for process, port in servers.items():
        if not wait_until(lambda: process.record() is None or _ready(port), 15.0) or not process.record():
            complaint = process.complaint()
            stop_arm(lab, arm)
            raise LabError('%s of arm %s (version %s) did not become ready on port %d; it said: %s' % (
                process.name, arm, version, port, complaint))
    return True


def stop_arm(lab: Layout, arm: str) -> bool:
    """Stops *arm* gracefully; False when it did not run."""
    return stop_all([_process(lab, server) for server in lab.arms[arm]], STOP_PATIENCE_S)


def set_fault(lab: Layout, arm: str, server: str, fault: str) -> None:
    port = lab.arms[arm][server]
    try:
        with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=5)) as client:
            client.request('PUT', '/admin/fault', fault)
            code = client.getresponse().status
    except OSError as exc:
        raise LabError('%s of arm %s could not be told its fault on port %d: %s. Is the arm up?' % (server, arm, port, exc)) from exc
    if code != 200:
        raise LabError('%s of arm %s refused the fault "%s" with status %d.' % (server, arm, fault, code))


def ask(lab: Layout, command: str) -> str:
    """One command to HAProxy's runtime socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(lab.socket))
        client.sendall(command.encode() + b'\n')
        parts = []
        while part := client.recv(65536):
            parts.append(part)
    return b''.join(parts).decode()


def server_states(lab: Layout) -> dict[str, str]:
    """backend/server: HAProxy's word for its state, backups left out."""
    try:
        table = ask(lab, 'show stat').removeprefix('# ')
    except OSError:
        return {}
    return {'%s/%s' % (row['pxname'], row['svname']): row['status'] for row in csv.DictReader(table.splitlines())
            if row['type'] == '2' and row['bck'] == '0'}


def await_load(lab: Layout, generator: Process) -> None:
    """Returns when the load's first answers are there."""
    if not wait_until(lambda: not generator.record() or (lab.attack.exists() and lab.attack.stat().st_size > 4096), 10.0) \
            or not generator.record():
        raise LabError('The load generator did not start; it said: %s' % generator.complaint())


def status(lab: Layout) -> str:
    """One line a process, and the split."""
    lines = []
    for path in sorted(lab.run.glob('*.json')):
        record = _process(lab, path.stem).record()
        detail = '  %(arm)s %(version)s, fault %(fault)s' % record if record and 'arm' in record else ''
        lines.append('%-12s %s%s' % (path.stem, 'pid %d' % record['pid'] if record else 'gone', detail))
    if _process(lab, 'haproxy').record():
        lines += ['%-12s %s' % pair for pair in sorted(server_states(lab).items())]
        lines.append('split        ' + ask(lab, 'show map %s' % lab.map).strip())
    lines += kube.status(lab).splitlines()
    return '\n'.join(lines) or 'Nothing of the lab runs.'


def _process(lab: Layout, name: str) -> Process:
    return Process(lab.run, lab.logs, name)


def _environment(lab: Layout) -> dict[str, str]:
    return {'LAB_DIR': str(lab.dir), 'LAB_PORT': str(lab.port), 'LAB_ROUTERS': ','.join(lab.routers)}


def _check_ports(lab: Layout) -> None:
    for port in [*lab.ports.values(), *(port for arm in lab.arms.values() for port in arm.values())]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(('127.0.0.1', port))
            except OSError:
                raise LabError('Port %d is in use by something else: set LAB_PORT to the first of 40 free ports.' % port) from None


def _ready(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException), \
            contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=1)) as client:
        client.request('GET', '/health/ready')
        return client.getresponse().status == 200
    return False


def _render(lab: Layout, template: str, **values: object) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return environment.from_string((HERE / template).read_text()).render(ports=lab.ports, arms=lab.arms, **values)


def _haproxy() -> str:
    found = shutil.which('haproxy') or shutil.which('haproxy', path='/usr/sbin:/usr/local/sbin')
    if not found:
        raise LabError('HAProxy is not installed: run scripts/apt haproxy.')
    return found


def _start_haproxy(lab: Layout, binary: str) -> None:
    config = lab.dir / 'haproxy.cfg'
    config.write_text(_render(lab, 'haproxy.cfg.j2', socket=lab.socket, map=lab.map))
    check = subprocess.run([binary, '-c', '-q', '-f', str(config)], capture_output=True, text=True, check=False)
    if check.returncode:
        raise LabError('HAProxy does not accept %s: %s' % (config, check.stderr.strip()))
    process = _process(lab, 'haproxy')
    process.start([binary, '-db', '-f', config])
    # HAProxy takes servers for up until their first checks have failed: the lab is up when it knows better.
    settled = {'%s/%s' % (arm, server): 'UP' if arm == STABLE_ARM else 'DOWN' for arm, servers in lab.arms.items() for server in servers}
    if not wait_until(lambda: not process.record() or server_states(lab) == settled, 15.0) or not process.record():
        raise LabError('HAProxy did not see the servers as they are, but %s; it said: %s' % (server_states(lab), process.complaint()))


def _start_prometheus(lab: Layout) -> None:
    binary = shutil.which('prometheus')
    if not binary:
        print('Prometheus is not installed: the lab does without it.')
        return
    exporter = shutil.which('prometheus-node-exporter') or shutil.which('node_exporter')
    if exporter:
        _process(lab, 'node-exporter').start([
            exporter, '--collector.disable-defaults', '--collector.textfile', '--collector.textfile.directory=%s' % lab.textfile,
            '--web.listen-address=127.0.0.1:%d' % lab.ports['node'], '--log.level=warn'])
    alertmanager = _start_alertmanager(lab)
    config = lab.dir / 'prometheus.yml'
    config.write_text(_render(lab, 'prometheus.yml.j2', textfile=lab.textfile if exporter else None, alertmanager=alertmanager))
    (lab.dir / 'rules.yml').write_text(monitoring.rules_text(lab))
    _process(lab, 'prometheus').start([
        binary, '--config.file=%s' % config, '--storage.tsdb.path=%s' % (lab.dir / 'prometheus'), '--storage.tsdb.retention.time=2h',
        '--web.listen-address=127.0.0.1:%d' % lab.ports['prometheus'], '--log.level=warn'])


def _start_alertmanager(lab: Layout) -> bool:
    """Starts it and the one that it tells; False where it is not installed."""
    binary = shutil.which('prometheus-alertmanager') or shutil.which('alertmanager')
    if binary:
        config = lab.dir / 'alertmanager.yml'
        config.write_text(monitoring.alertmanager_text(lab))
        _process(lab, 'pager').start([sys.executable, HERE / 'pager.py', '--port', lab.ports['pager'], '--file', lab.pages])
        # Without an address for its peers it keeps to itself.
        _process(lab, 'alertmanager').start([
            binary, '--config.file=%s' % config, '--storage.path=%s' % (lab.dir / 'alertmanager'), '--cluster.listen-address=',
            '--web.listen-address=127.0.0.1:%d' % lab.ports['alertmanager'], '--log.level=warn'])
    return bool(binary)
