# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What being watched costs the way back: rollouts of a bad candidate with nobody to be told or asked, with all, and with all of them dead.

Usage: bench_monitoring.py [RUNS]   (default 5 of each)

One after the other in turns, so that whatever else the machine does meets all alike; medians, and their ratios to those with nobody.
The lab is in memory where it can be: a way back ends when the map file is on the disk, and a disk that others write to is slow by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / 'e2e')]

from e2e_lab import Dead, Lab
from receivers import Http, Smtp

NOBODY = {'delivery_sources': {}, 'delivery_extra_conditions': [], 'delivery_notifications': [], 'delivery_grafana_url': '',
          'delivery_textfile_dir': ''}
# Half of the traffic: how long three failures take at 5 % is chance, and would hide what is asked here.
STAGES = {'delivery_canary_stages': [{'name': 'canary', 'share': '50%', 'bake': '6s'}]}
FIGURES = {'rollback_s': 'way back, ms', 'fault_to_last_bad_s': 'fault to last bad answer, ms'}


def everybody(http: Http, mail: Smtp, textfile_dir: Path) -> dict:
    """Receivers that take what they are told, and the lab's own Prometheus asked by the gates."""
    return {
        'delivery_notifications': [
            {'name': kind, 'type': kind, 'url': http.url(kind)} for kind in ('slack', 'teams', 'webhook')] + [
            {'name': 'duty', 'type': 'pagerduty', 'url': http.url('duty'), 'integration_key': 'x'},
            {'name': 'mail', 'type': 'email', 'host': '127.0.0.1', 'port': mail.port, 'sender': 'a@example.org', 'to': 'b@example.org',
             'secure': 'never'}],
        'delivery_grafana_url': http.url('grafana'), 'delivery_grafana_token': 'x', 'delivery_textfile_dir': str(textfile_dir),
        'delivery_notify_timeout': '2m'}


def rollback(lab: Lab, variables: dict) -> dict:
    """One rollout of a bad candidate in the lab as it is; returns its result.json."""
    done = lab.run(*lab.command('run', '--', *lab.playbook(
        'rollout.yml', '-e', 'delivery_version=5.1', '-e', 'lab_candidate=errors', '-e', json.dumps({
            **STAGES, 'delivery_before_stage_tasks': str(lab.dir / 'pause.yml'), **variables}))), timeout=600)
    result = json.loads((lab.dir / 'result.json').read_text())
    assert result['outcome'] == 'rolled_back', done.stdout + done.stderr
    return result


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    lab = Lab(Path(tempfile.mkdtemp(prefix='pd-bench-', dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else '/tmp')))
    http, mail = Http(), Smtp()
    metrics = lab.dir / 'metrics'
    metrics.mkdir()
    # As long as a deployment takes at least: the news of the start is told meanwhile, and not by the same two cores as the first look.
    (lab.dir / 'pause.yml').write_text('- ansible.builtin.pause: {seconds: 8}\n')
    dead = Dead(lab.dir / 'unwritable')
    (lab.dir / 'unwritable').mkdir()
    # A directory in the place of the file: what is to be there cannot be put there.
    (lab.dir / 'unwritable' / 'delivery_shop.prom').mkdir()
    modes = {'nobody': NOBODY, 'everybody': everybody(http, mail, metrics), 'everybody, dead': dead.variables}
    found: dict[str, list[dict]] = {name: [] for name in modes}
    try:
        done = lab.run(*lab.command('up', '--lifetime', '7200'))
        assert not done.returncode, done.stderr
        for turn in range(runs):
            # Each is the first as often as the others.
            for name in [*modes][turn % 3:] + [*modes][:turn % 3]:
                found[name].append(rollback(lab, modes[name]))
                print('%-16s %s' % (name, ', '.join('%s %.0f' % (title, found[name][-1][key] * 1000) for key, title in FIGURES.items())),
                      flush=True)
        for key, title in FIGURES.items():
            base = None
            for name, results in found.items():
                values = [result[key] * 1000 for result in results]
                median = statistics.median(values)
                base = base or median
                print('%-30s %-16s median %6.0f (%.0f to %.0f)   %.2f of that with nobody' % (
                    title, name, median, min(values), max(values), median / base), flush=True)
        print('annotations and notices taken: %d by HTTP, %d by mail' % (len(http.received), len(mail.received)))
    finally:
        lab.run(*lab.command('down'))
        for one in (dead, http, mail):
            one.close()
        shutil.rmtree(lab.dir, ignore_errors=True)


if __name__ == '__main__':
    main()
