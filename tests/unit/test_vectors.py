# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checker of reference values: what it finds, and that it finds it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / 'vectors'))

import check  # noqa: E402

VECTORS = json.loads((TESTS / 'vectors' / 'stats.json').read_text(encoding='utf-8'))

# What other implementations know less exactly than ours: a change of a thousandth need not show.
COARSE = ('savvi_log_ratio_ci', 'confseq_beta_binomial_t_opt_n')
INPUTS = ('rho', 'rho_canary', 'alpha', 'k', 'x', 'grid', 'config', 'theta_b', 'theta_c', 'a', 'm', 'margin', 'weights', 'p_b', 'p_c')


def expected_numbers(value, path=()):
    """The paths of all numbers that a row expects of an implementation: they are the floats that are no inputs."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in INPUTS:
                yield from expected_numbers(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from expected_numbers(inner, (*path, i))
    elif isinstance(value, float):
        yield path


CHANGES = [(name, i, path) for name, section in VECTORS.items() for i, row in enumerate(section['rows']) for path in expected_numbers(row)]


def test_all_reference_values_agree():
    agreed, unknown = check.check(VECTORS)
    assert set(agreed) == set(VECTORS) and not unknown and min(agreed.values()) > 0


@pytest.mark.parametrize('name', VECTORS)
def test_every_changed_number_is_found(name):
    for _name, i, path in (change for change in CHANGES if change[0] == name):
        row = copy.deepcopy(VECTORS[name]['rows'][i])
        *outer, last = path
        where = row
        for key in outer:
            where = where[key]
        where[last] = where[last] * 2.5 + 0.01 if path[0] in COARSE else where[last] * (1 + 1e-7) + 1e-11
        with pytest.raises(check.Different):
            check.check({name: {'rows': [row]}})


def test_a_row_that_lacks_a_value_is_a_difference():
    for name, section in VECTORS.items():
        row = dict(section['rows'][0])
        del row[next(key for key in row if key not in ('name', 'note'))]
        with pytest.raises(check.Different):
            check.check({name: {'rows': [row]}})


@pytest.mark.parametrize('text, status', [
    (json.dumps(VECTORS), 0), ('{"chi2_sf": {"rows": [{"x": 1, "df": 1, "sf": 0.3}]}}', 1), ('{}', 2), ('[]', 2), ('x', 2),
    ('{"other": {"rows": [{}]}}', 2), ('{"chi2_sf": 1}', 2)])
def test_its_exit_status(tmp_path, text, status):
    file = tmp_path / 'vectors.json'
    file.write_text(text, encoding='utf-8')
    program = [sys.executable, str(TESTS / 'vectors' / 'check.py'), str(file)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert bool(done.stderr) == (status > 0)


def test_a_file_that_is_not_there(tmp_path):
    assert check.main([str(tmp_path / 'none.json')]) == 2 and check.main([]) == 2
