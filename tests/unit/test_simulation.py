# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The short form of bench/simulate.py, and that it would see a gate that is wrong."""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'bench'))

import rules  # noqa: E402
import sampling  # noqa: E402
import simulate  # noqa: E402
import tables  # noqa: E402

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _eprocess as ep  # noqa: E402

BAKES = 25


def short(sections=('5.1', '5.2'), bakes=BAKES):
    return simulate.run(sections, bakes, '1', True, io.StringIO(), rps=(100.0,), sizes=(3,))


def test_the_targets_hold(tmp_path):
    out = io.StringIO()
    report = simulate.run(('5.1', '5.2'), BAKES, '1', True, out, rps=(100.0,), sizes=(3,), folder=tmp_path)
    assert report.missed == [] and report.held == 9
    assert '| F2 as shipped |' in out.getvalue()
    assert {file.name for file in tmp_path.iterdir()} == {'false-alarms-100.svg', 'time-to-abort-100.svg'}
    for file in tmp_path.iterdir():
        lines = ElementTree.parse(file).findall('{http://www.w3.org/2000/svg}path[@fill="none"]')
        assert len(lines) >= 4, 'a line for each rule that has anything to show'


def test_a_gate_that_takes_too_much_for_evidence_is_found(monkeypatch):
    right = ep.block_log_e
    monkeypatch.setattr(ep, 'block_log_e', lambda *arguments: 1.5 * right(*arguments) + 0.02)
    assert any('false alarms' in missed for missed in short().missed)


def test_a_gate_that_is_slow_is_found(monkeypatch):
    right = ep.block_log_e
    monkeypatch.setattr(ep, 'block_log_e', lambda *arguments: 0.3 * right(*arguments))
    assert any('aborted after' in missed for missed in short(('5.1',)).missed)


def test_bursts_that_are_not_measured_are_found(monkeypatch):
    monkeypatch.setattr(ep.Dispersion, 'phi', lambda self, burst=1.0: burst)
    assert any('bursts' in missed for missed in short(('5.2',)).missed)


def test_thresholds_and_repeated_tests_alarm_on_the_healthy():
    rows = tables.rows_named('last 10 s', 'z-test', '60 s', 'Kayenta Mann-Whitney, from 2', tables.SHIPPED)
    table: tables.Table = {}
    traffic = sampling.Traffic(100.0, sampling.steady(0.001), sampling.steady(0.001))
    tables.watch(table, 'A/A', rows, traffic, BAKES, 'seed')
    shares = {name.split()[0]: cells['A/A'].share for name, cells in table.items()}
    assert shares['last'] == 1 and shares['z-test'] > 0.15 and shares['60'] == 0 and shares['F2'] <= 0.08
    again: tables.Table = {}
    tables.watch(again, 'A/A', rows, traffic, BAKES, 'seed')
    assert again == table


@pytest.mark.parametrize('mean', [0.05, 3, 29, 31, 950])
def test_poisson_numbers_have_their_mean_and_variance(mean):
    chance, n = random.Random(5), 8000
    drawn = [sampling.poisson(chance, mean) for _i in range(n)]
    average = sum(drawn) / n
    variance = sum((one - average) ** 2 for one in drawn) / (n - 1)
    assert abs(average - mean) < 5 * (mean / n) ** 0.5
    assert variance == pytest.approx(mean, rel=0.1 if mean > 1 else 0.3)


def test_bursts_keep_the_mean_and_have_the_dispersion_told():
    chance, n = random.Random(5), 20000
    drawn = [sampling.failed(chance, 2.0, 3.0) for _i in range(n)]
    average = sum(drawn) / n
    assert average == pytest.approx(2, rel=0.1)
    assert sum((one - average) ** 2 for one in drawn) / n / average == pytest.approx(5, rel=0.1)


def test_kayentas_judge_sees_a_shift_and_no_noise():
    judge, chance = rules.Kayenta(10), random.Random(2)
    assert not any(judge.point(chance.gauss(10, 1), chance.gauss(10, 1)) for _i in range(30))
    judge = rules.Kayenta(10)
    alarms = [judge.point(chance.gauss(20, 1), chance.gauss(10, 1)) for _i in range(12)]
    assert not any(alarms[:9]) and alarms[-1]
