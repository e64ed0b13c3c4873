# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How often gates are wrong and how fast they are, by simulation: ours, and the rules of Argo Rollouts, Flagger and Kayenta.

``python bench/simulate.py`` prints the tables of the statistics note (section 5) as Markdown and whether the targets of its section 6
hold; exit status 1 when one does not. All is seeded. The whole, 2000 bakes a cell, takes some twenty minutes, ``--ours`` fifteen,
``--short`` seconds; one process, of the lowest priority.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
import typing as t
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / '.collections')]

import latency  # noqa: E402
import rules as r  # noqa: E402
import svg  # noqa: E402
import tables  # noqa: E402

from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import (  # noqa: E402
    ArmsBlock, Question, SequentialState)

RPS = (100.0, 1000.0)
SECTIONS = ('cost', '5.1', '5.2', '5.3', '5.4', '5.5', '5.6')
MEDIANS = {100.0: {'0.5 %': 270, '1 %': 90, '5 %': 20, '50 %': 20}, 1000.0: {'0.5 %': 40, '1 %': 20, '5 %': 10, '50 %': 10}}
"""Section 6: the longest median time to abort, in seconds."""
FALSE_ALARMS, BURST_ALARMS, FALSE_PASSES = 0.02, 0.04, 0.05
COST_MS = 5.0
MANY = 1000
"""Bakes from which a figure is taken as it is."""


class Report:
    """Prints tables and collects the targets that were missed."""

    def __init__(self, out: t.TextIO) -> None:
        self.out = out
        self.missed: list[str] = []
        self.held = 0

    def say(self, text: str = '') -> None:
        print(text, file=self.out, flush=True)

    def table(self, title: str, table: tables.Table, text: t.Callable[[str, tables.Cell], str]) -> None:
        """Prints *table*; *text* makes a cell's text of its column and itself."""
        columns = list(dict.fromkeys(column for cells in table.values() for column in cells))
        self.say('\n**%s**\n\n| | %s |\n|---|%s' % (title, ' | '.join(columns), '---|' * len(columns)))
        for name, cells in table.items():
            self.say('| %s | %s |' % (name, ' | '.join(text(column, cells[column]) if column in cells else '' for column in columns)))

    def target(self, what: str, held: bool) -> None:
        """Notes whether a target was held."""
        self.held += held
        if not held:
            self.missed.append(what)
            self.say('MISSED: %s' % what)

    def at_most(self, what: str, cell: tables.Cell, rate: float) -> None:
        """The share of alarms is to be *rate* at most; with few bakes, as far as chance (one in a thousand) lets one see."""
        n, alarms = len(cell.peeks), sum(peek is not None for peek in cell.peeks)
        allowed = most_by_chance(n, rate) if n < MANY else rate * n
        self.target('%s: %d false alarms in %d bakes, at most %g allowed' % (what, alarms, n, allowed), alarms <= allowed)

    def median(self, what: str, cell: tables.Cell, longest: float) -> None:
        """The median is to be *longest* seconds at most, with the same allowance."""
        n, later = len(cell.peeks), sum(peek is None or peek * tables.POLL_S > longest for peek in cell.peeks)
        self.target('%s is aborted after %g s in the median, at most %g allowed' % (what, cell.seconds(0.5), longest),
                    cell.seconds(0.5) <= longest or (n < MANY and later <= most_by_chance(n, 0.5)))


def most_by_chance(n: int, rate: float) -> int:
    """Returns how many of *n* one sees at most, but for one time in a thousand."""
    seen = 0.0
    for k in range(n + 1):
        seen += math.comb(n, k) * rate ** k * (1 - rate) ** (n - k)
        if seen > 0.999:
            return k
    return n


def cost(report: Report) -> None:
    """One poll over 20 conditions."""
    chance = random.Random(1)
    questions = [Question('q%d' % i, ratio=(1, 1.5)[i % 2], margin=(0, 0.001)[i % 3 == 0], pass_margin=0.005) for i in range(20)]
    state = SequentialState(questions)
    polls = [{one.name: ArmsBlock(r.ep.Counts(chance.randint(0, 2), 950, chance.random() < 0.05, 50), 1.0, ((0, 240),) * 4)
              for one in questions} for _poll in range(200)]
    begin = time.process_time()
    for poll in polls:
        state.update(poll)
    each = (time.process_time() - begin) / len(polls) * 1000
    report.say('One poll over 20 conditions costs %.2f ms.' % each)
    report.target('one poll over 20 conditions costs %.2f ms, at most %g' % (each, COST_MS), each < COST_MS)


def section_5_1(report: Report, rps: float, rows: t.Sequence[tables.Row], replicates: int, seed: str) -> tables.Table:
    table = tables.alarms(rps, rows, replicates, seed)
    report.table('5.1 False alarms (0.1 %%) and time to abort, %g rps' % rps, table,
                 lambda column, cell: cell.alarms_text() if column == '0.1 %' else cell.times_text())
    ours = table[tables.SHIPPED]
    report.at_most('A/A, %g rps' % rps, ours['0.1 %'], FALSE_ALARMS)
    for rate, longest in MEDIANS[rps].items():
        report.median('a canary of %s at %g rps' % (rate, rps), ours[rate], longest)
    return table


def section_5_2(report: Report, rps: float, rows: t.Sequence[tables.Row], replicates: int, seed: str, sizes: t.Sequence[float]) -> None:
    table = tables.conditions(rps, rows, replicates, seed)
    report.table('5.2 Healthy canary in hard conditions, %g rps' % rps, table, lambda column, cell: cell.alarms_text())
    for name, cell in table[tables.SHIPPED].items():
        report.at_most('%s, %g rps' % (name, rps), cell, FALSE_ALARMS)
    table = tables.bursts(rps, tables.HEALTHY, sizes, replicates, seed)
    report.table('5.2 Bursts, healthy canary, %g rps' % rps, table, lambda column, cell: cell.alarms_text())
    for name, cell in table[tables.SHIPPED].items():
        report.at_most('%s, %g rps' % (name, rps), cell, BURST_ALARMS)
    report.table('5.2 Bursts, canary of 1 %%, %g rps' % rps, {tables.SHIPPED: tables.bursts(
        rps, 0.01, sizes, max(1, replicates // 4), seed)[tables.SHIPPED]}, lambda column, cell: cell.times_text())


def section_5_5(report: Report, rps: float, replicates: int, seed: str) -> None:
    table = tables.passes(rps, max(1, replicates // 2), seed)
    report.table('5.5 Proof that harm is excluded, %g rps' % rps, table,
                 lambda column, cell: cell.times_text() if column == 'equal' else cell.alarms_text())
    for name, cells in table.items():
        report.at_most('false pass, %s, %g rps' % (name, rps), cells['at the margin'], FALSE_PASSES)


def section_5_6(report: Report, replicates: int, seed: str) -> None:
    for title, lift, split in (('no lift', 0.0, (1, 1, 1)), ('lift 20 %', 0.2, (1, 1, 1)), ('lift 50 %', 0.5, (1, 1, 1)),
                               ('split 35/32.5/32.5', 0.0, (0.35, 0.325, 0.325))):
        report.table('5.6 Three arms, %s: share of tests, median hours' % title, tables.variants(lift, replicates, seed, split),
                     lambda column, cell: '%s: %s h' % (cell.alarms_text(), '%.0f' % (
                         tables.Cell([peek for peek in cell.peeks if peek]).seconds(0.5) / tables.POLL_S) if any(cell.peeks) else '-'))


def plots(folder: Path, by_rps: t.Mapping[float, tables.Table]) -> None:
    """Draws, of table 5.1, how false alarms add up while one looks on, and how long a canary of each error rate lives."""
    folder.mkdir(parents=True, exist_ok=True)
    for rps, table in by_rps.items():
        false: dict[str, list[tuple[float, float]]] = {}
        for name, cells in table.items():
            peeks = cells['0.1 %'].peeks
            false[name] = [(peek / 6, 100 * sum(one is not None and one <= peek for one in peeks) / len(peeks))
                           for peek in range(0, r.PEEKS + 1, 6)]
        svg.line_chart(folder / ('false-alarms-%g.svg' % rps), 'Healthy canaries stopped so far, %g requests per second' % rps,
                       'minutes of bake', 'per cent', false)
        lives: dict[str, list[tuple[float, float]]] = {}
        for name, cells in table.items():
            points = [(float(rate.split()[0]), cell.seconds(0.5)) for rate, cell in cells.items() if rate != '0.1 %']
            points = [point for point in points if point[1] < math.inf]
            if points:
                lives[name] = points
        svg.line_chart(folder / ('time-to-abort-%g.svg' % rps), 'Median time to abort, %g requests per second, 5 %% on the canary' % rps,
                       'errors of the canary, per cent', 'seconds', lives, log_x=True)


def run(sections: t.Sequence[str], replicates: int, seed: str, ours: bool, out: t.TextIO, rps: t.Sequence[float] = RPS,
        sizes: t.Sequence[float] = (1, 1.2, 3, 10, 30), folder: Path | None = None) -> Report:
    """Runs *sections* with *replicates* bakes a cell and returns what was found."""
    report = Report(out)
    rows = [row for row in tables.ALL_ROWS if row.ours or not ours]
    hard = tables.rows_named(tables.SHIPPED) if ours else tables.rows_named(
        *tables.OTHERS, 'z-test', 'exact', "O'Brien", 'asymptotic', tables.SHIPPED)
    drawn: dict[float, tables.Table] = {}
    begin = time.process_time()
    for section in sections:
        if section == 'cost':
            cost(report)
        elif section == '5.6':
            section_5_6(report, max(1, replicates // 4), seed)
        for one in rps:
            if section == '5.1':
                drawn[one] = section_5_1(report, one, rows, replicates, seed)
            elif section == '5.2':
                section_5_2(report, one, hard, replicates, seed, sizes)
            elif section == '5.3':
                table = tables.late(one, max(1, replicates // 4), seed)
                report.table('5.3 The canary goes from 0.1 %% to 1 %% at a moment; delay after it, %g rps' % one, table,
                             lambda column, cell: cell.late_text())
            elif section == '5.4':
                report.table('5.4 Latency, %g rps' % one, latency.latency(one, max(1, replicates // 4), seed, ours),
                             lambda column, cell: cell.alarms_text() if column == 'A/A' else cell.times_text())
            elif section == '5.5':
                section_5_5(report, one, replicates, seed)
    if folder and drawn:
        plots(folder, drawn)
    report.say('\n%d targets held, %d missed; %.0f s of computing time, seed %s, %d bakes a cell.' % (
        report.held, len(report.missed), time.process_time() - begin, seed, replicates))
    return report


def main(arguments: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sections', nargs='+', choices=SECTIONS, default=SECTIONS)
    parser.add_argument('--replicates', type=int, default=2000)
    parser.add_argument('--seed', default='1')
    parser.add_argument('--ours', action='store_true', help='only the rows of our own gate')
    parser.add_argument('--short', action='store_true', help='few bakes, the rows of our own gate, 100 requests per second')
    parser.add_argument('--nice', type=int, default=19, help='priority, 19 for the lowest (default) to 0')
    parser.add_argument('--plots', type=Path, help='directory for charts (SVG)')
    options = parser.parse_args(arguments)
    os.nice(options.nice)
    if options.short:
        report = run(('cost', '5.1', '5.2'), 40, options.seed, True, sys.stdout, rps=RPS[:1], sizes=(1, 3), folder=options.plots)
    else:
        report = run(options.sections, options.replicates, options.seed, options.ours, sys.stdout, folder=options.plots)
    return 1 if report.missed else 0


if __name__ == '__main__':
    sys.exit(main())
