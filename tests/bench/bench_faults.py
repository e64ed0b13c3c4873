# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a fault to the last answer of the bad version: whole rollouts of bad candidates in a lab of their own.

Routers other than haproxy need the cluster of `make cluster`. A candidate that never gets ready gets no request: its line says only
that nobody was hurt.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'e2e'))

from e2e_lab import lab_of_its_own

LINE = '%-10s %-8s %26s %26s %20s %7s %14s  %s'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--runs', type=int, default=3, help='rollouts of each candidate (default 3)')
    parser.add_argument('--rate', default='400', help='requests per second (default 400)')
    parser.add_argument('--routers', nargs='+', default=['haproxy'], help='haproxy, kubernetes, hybrid, or names with commas between')
    parser.add_argument('--candidates', nargs='+', default=['errors', 'crash', 'silent', 'slow'])
    options = parser.parse_args()
    print(LINE % ('router', 'version', 'fault to last bad answer, s', 'fault to last request, s', 'way back, ms', 'failed', 'failed_stable',
                  'outcomes'))
    for router in options.routers:
        with lab_of_its_own(router) as lab:
            for candidate in options.candidates:
                found = [lab.rollout(candidate, rate=options.rate)[1] for _n in range(options.runs)]
                print(LINE % (
                    router, candidate, spread([f['fault_to_last_bad_s'] for f in found]),
                    spread([f['fault_to_last_received_s'] for f in found]),
                    spread([f['rollback_s'] * 1000 for f in found if f['rollback_s']], '%.0f'), max(f['failed'] for f in found),
                    max(f['failed_stable'] for f in found), ', '.join(sorted({str(f['outcome']) for f in found}))), flush=True)


def spread(values, form='%.2f'):
    values = [value for value in values if value is not None]
    if not values:
        return '-'
    return '%s (%s to %s)' % tuple(form % value for value in (statistics.median(values), min(values), max(values)))


if __name__ == '__main__':
    main()
