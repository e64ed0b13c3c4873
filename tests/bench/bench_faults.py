# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a fault to the last answer of the bad version: whole rollouts of bad candidates in a lab of their own.

Usage: bench_faults.py [RUNS]   (default 3 of each candidate)
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'e2e'))

from e2e_lab import Lab


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    lab = Lab(Path(tempfile.mkdtemp(prefix='pd-bench-', dir='/tmp')))
    print('%-8s %28s %28s %14s %8s %14s' % (
        '', 'fault to last bad answer, s', 'fault to last request, s', 'way back, ms', 'failed', 'failed_stable'))
    try:
        for candidate in ('errors', 'crash', 'silent', 'slow'):
            found = [lab.rollout(candidate)[1] for _n in range(runs)]
            print('%-8s %28s %28s %14s %8s %14s' % (
                candidate, spread([f['fault_to_last_bad_s'] for f in found]), spread([f['fault_to_last_received_s'] for f in found]),
                spread([f['rollback_s'] * 1000 for f in found], '%.0f'), max(f['failed'] for f in found),
                max(f['failed_stable'] for f in found)), flush=True)
    finally:
        lab.run(*lab.command('down'))
        shutil.rmtree(lab.dir, ignore_errors=True)


def spread(values, form='%.2f'):
    values = [value for value in values if value is not None]
    if not values:
        return '-'
    return '%s (%s to %s)' % tuple(form % value for value in (statistics.median(values), min(values), max(values)))


if __name__ == '__main__':
    main()
