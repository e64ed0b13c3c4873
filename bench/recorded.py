# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Healthy short rollouts out of counters that were recorded in the lab: how often are they stopped?

``python bench/recorded.py`` prints a table as Markdown. A rollout is a bootstrap of the recording: stretches of ten seconds, drawn with
replacement, so that what holds together in a real run within seconds (queues, connections, a pause of the machine) stays together. All
is seeded. ``bench/lab_runs.py record`` writes a new recording.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import typing as t
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / '.collections')]

import rules as r  # noqa: E402
import sampling as s  # noqa: E402

RECORDING = Path(__file__).resolve().parent / 'recorded-200rps.csv'
STRETCH_S = 10
HISTORY_S = 60
BAKE_S = 300


def read(path: Path = RECORDING) -> list[s.ArmsBlock]:
    """Returns a block for each recorded second."""
    rows = [[int(value) for value in line.split(',')] for line in path.read_text().splitlines() if line[:1].isdigit()]
    return [s.ArmsBlock(s.Counts(*row[:4]), 1.0, tuple(zip(row[4::2], row[5::2]))) for row in rows]


def rollout(seconds: t.Sequence[s.ArmsBlock], chance: random.Random, length: int, sick: float = 0.0) -> t.Iterator[s.ArmsBlock]:
    """Draws *length* seconds; the candidate fails the part *sick* of its good requests besides."""
    for _stretch in range(math.ceil(length / STRETCH_S)):
        begin = chance.randrange(len(seconds) - STRETCH_S + 1)
        for block in seconds[begin:begin + STRETCH_S]:
            e_b, n_b, e_c, n_c = block.counts
            more = sum(chance.random() < sick for _request in range(n_c - e_c)) if sick else 0
            yield s.ArmsBlock(s.Counts(e_b, n_b, e_c + more, n_c), block.seconds, block.servers)


def added(blocks: t.Iterable[s.ArmsBlock], seconds: int) -> t.Iterator[s.ArmsBlock]:
    """Adds *blocks* up to longer ones, as the counters of a slower poll are."""
    waiting: list[s.ArmsBlock] = []
    for block in blocks:
        waiting.append(block)
        if len(waiting) == seconds:
            yield s.ArmsBlock(s.Counts(*(sum(column) for column in zip(*(one.counts for one in waiting)))), float(seconds),
                              tuple((sum(e for e, _n in server), sum(n for _e, n in server)) for server in zip(
                                  *(one.servers for one in waiting))))
            waiting = []


def alone(block: s.ArmsBlock) -> s.ArmsBlock:
    """Returns the block as it would be without a candidate: for the history."""
    return s.ArmsBlock(s.Counts(*block.counts[:2], 0, 0), block.seconds, block.servers)


class Rows:
    """The rules that watch the same rollouts."""

    def __init__(self) -> None:
        self.makers: dict[str, tuple[int, t.Callable[[t.Sequence[s.ArmsBlock]], r.Rule]]] = {
            'last 10 s > 1 %, first failure (Argo)': (10, lambda history: r.Argo()),
            '60 s > 1 %, 5 failed checks (Flagger)': (10, lambda history: r.Flagger()),
            'Kayenta Mann-Whitney, from 10 points': (10, lambda history: r.Kayenta(10)),
            'z-test at every second': (1, lambda history: r.RepeatedZ()),
            'ours, any increase': (1, r.Shipped),
            'ours, +0.1 percentage points (default of the role)': (1, lambda history: r.Shipped(history, margin=0.001)),
        }


def stopped(seconds: t.Sequence[s.ArmsBlock], rollouts: int, seed: str, length: int = BAKE_S,
            sick: float = 0.0) -> dict[str, list[int | None]]:
    """Returns, for each rule, the second at which each rollout was stopped, None where it was not."""
    found: dict[str, list[int | None]] = {}
    for number in range(rollouts):
        chance = random.Random('%s/%g/%d' % (seed, sick, number))
        history = [alone(block) for block in added(rollout(seconds, chance, HISTORY_S), 10)]
        blocks = list(rollout(seconds, chance, length, sick))
        for name, (every, make) in Rows().makers.items():
            peek = r.first_alarm(make(history), blocks if every == 1 else added(blocks, every))
            found.setdefault(name, []).append(None if peek is None else peek * every)
    return found


def share(outcomes: t.Sequence[int | None]) -> float:
    """Returns the part of the rollouts that were stopped."""
    return sum(one is not None for one in outcomes) / len(outcomes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rollouts', type=int, default=2000)
    parser.add_argument('--seed', default='1')
    parser.add_argument('--file', type=Path, default=RECORDING)
    options = parser.parse_args()
    os.nice(19)
    seconds = read(options.file)
    rates = [sum(b.counts[i] for b in seconds) / sum(b.counts[i + 1] for b in seconds) for i in (0, 2)]
    print('%d recorded seconds, %.3g and %.3g requests per second, %.2g and %.2g %% errors (stable, canary); rollouts of %d s.\n' % (
        len(seconds), *(sum(b.counts[i] for b in seconds) / len(seconds) for i in (1, 3)), *(rate * 100 for rate in rates), BAKE_S))
    healthy = stopped(seconds, options.rollouts, options.seed)
    sick = {part: stopped(seconds, max(1, options.rollouts // 10), options.seed, sick=part) for part in (0.01, 0.05)}
    print('| | healthy, stopped | +1 % errors: stopped, median s | +5 % errors |\n|---|---|---|---|')
    for name, outcomes in healthy.items():
        cells = ['%.2g %%' % (100 * share(outcomes))]
        for part in sick.values():
            times = sorted(one for one in part[name] if one is not None)
            cells.append('%.0f %%%s' % (100 * share(part[name]), ', %d s' % times[len(times) // 2] if times else ''))
        print('| %s | %s |' % (name, ' | '.join(cells)), flush=True)
    ours = [outcomes for name, outcomes in healthy.items() if name.startswith('ours')]
    return 0 if all(share(one) <= 0.02 for one in ours) else 1


if __name__ == '__main__':
    sys.exit(main())
