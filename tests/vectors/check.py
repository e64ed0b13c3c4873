# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the collection's statistics against a file of reference values: ``python tests/vectors/check.py FILE``.

FILE is JSON: sections of rows, each with the inputs and what other implementations made of them (``stats.json`` beside this program).
Exit status: 0 when all agree; 1 at the first difference, which is printed; 2 when the file cannot be read or holds nothing to check.
Needs Python's standard library alone.
"""

from __future__ import annotations

import json
import math
import sys
import typing as t
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / '.collections'))

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _counts as counts  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._analysis import _eprocess as ep  # noqa: E402

Row = t.Mapping[str, t.Any]
Value = t.Tuple[str, t.Any, t.Any, float]
"""What is compared: its name, what the file has, what we have, the relative tolerance."""

# Section 6 of the statistics note; the wider ones are the accuracy of the other implementation, as its "source" tells.
LOG_E, F1, INTERVAL, SAVVI_RAW, TAIL = 1e-9, 1e-10, 1e-8, 1e-9, 1e-8
SAVVI_CVXPY = 1e-3
# Around zero a relative tolerance asks for more than doubles have.
FLOOR = 1e-13
# confseq mixes over other alternatives: the same interval but for its width.
OTHER_MIXTURE = 0.7
# statsmodels' likeliest rates under a margin are a little beside the maximum (see statsmodels_score_z).
SCORE_SLIP = 0.05


class Different(Exception):
    """The first difference, as a sentence."""


def f1(row: Row) -> t.Iterator[Value]:
    log_e = counts.multinomial_log_e(row['counts'], row['rho'], row['k'])
    yield 'log_e', row['log_e'], log_e, F1
    yield 'p', row['p'], counts.always_valid_p(log_e), F1
    if 'savvi_p_raw' in row:
        yield 'savvi_p_raw', row['savvi_p_raw'], math.exp(-log_e), SAVVI_RAW


def f1_ratio(row: Row) -> t.Iterator[Value]:
    arguments = row['x_canary'], row['x_baseline'], row['rho_canary'], row['alpha'], row['k']
    ratio = counts.rate_ratio_interval(*arguments)
    yield 'theta', row['theta'], counts.share_interval(*arguments), INTERVAL
    yield 'ratio', row['ratio'], ratio, INTERVAL
    if 'savvi_log_ratio_ci' in row:
        yield 'exp(savvi_log_ratio_ci)', [math.exp(edge) for edge in row['savvi_log_ratio_ci']], ratio, SAVVI_CVXPY


def single_rate(row: Row) -> t.Iterator[Value]:
    x, n, alpha = row['x'], row['n'], row['alpha']
    own = counts.rate_interval(x, n, alpha)
    yield 'jeffreys_mixture_cs', row['jeffreys_mixture_cs'], own, INTERVAL
    if 'wilson' in row:
        yield 'wilson', row['wilson'], counts.wilson_interval(x, n, alpha), INTERVAL
    for edge, ours in zip(row.get('confseq_beta_binomial_t_opt_n', ()), own):
        if 0 < ours < 1 and not abs(math.log(edge / (1 - edge) * (1 - ours) / ours)) < OTHER_MIXTURE:
            raise Different('confseq_beta_binomial_t_opt_n: the file has %r, which is not near ours, %r' % (edge, ours))


def f2_products(row: Row) -> t.Iterator[Value]:
    n_b, n_c = row['n_baseline_per_block'], row['n_canary_per_block']
    prior = {'b': (2, 18), 'c': (6, 14)}
    log_e, done, events_b, events_c = 0.0, 0, 0, 0
    for e_b, e_c in zip(row['errors_baseline'], row['errors_canary'], strict=True):
        theta_b = (prior['b'][0] + events_b) / (sum(prior['b']) + done * n_b)
        theta_c = (prior['c'][0] + events_c) / (sum(prior['c']) + done * n_c)
        log_e += ep.block_log_e(ep.Counts(e_b, n_b, e_c, n_c), theta_b, theta_c, 1, row['margin'])
        done, events_b, events_c = done + 1, events_b + e_b, events_c + e_c
    yield 'e_value', row['e_value'], math.exp(log_e), LOG_E


def f2_block(row: Row) -> t.Iterator[Value]:
    thetas = row['theta_b'], row['theta_c'], row['a'], row['m']
    yield 'q_b', row['q_b'], ep.project(row['n_b'], row['n_c'], *thetas), LOG_E
    yield 'log_e', row['log_e'], ep.block_log_e(ep.Counts(row['e_b'], row['n_b'], row['e_c'], row['n_c']), *thetas), LOG_E


def f2_path(row: Row) -> t.Iterator[Value]:
    config = row['config']
    if tuple(row['grid']) != ep.GRID:
        raise Different('grid: the file has %s, ours is %s' % (row['grid'], list(ep.GRID)))
    process = ep.EProcess(config['a'], config['m'], config['direction'], pocket=1 - float(Fraction(config['pi0'])))
    baseline = ep.Baseline(*config['hist'])
    onset, phi = float(Fraction(config['h'])), float(config.get('phi', 1))
    for i, (raw, log_e) in enumerate(zip(row['blocks_eb_nb_ec_nc'], row['log_E'], strict=True)):
        block = ep.Counts(*raw)
        if baseline.requests:
            process.update(block, baseline.theta, onset, phi)
        baseline.add(block.e_b, block.n_b)
        yield 'log_E[%d]' % i, log_e, process.log_e, LOG_E


def srm(row: Row) -> t.Iterator[Value]:
    yield 'p', row['p'], counts.chi_square_p(row['observed'], row['weights']), TAIL


def chi2(row: Row) -> t.Iterator[Value]:
    yield 'sf', row['sf'], counts.chi2_sf(row['x'], row['df']), TAIL


def statsmodels_score_z(e_b: int, n_b: int, e_c: int, n_c: int, d: float) -> float:
    """What statsmodels 0.15 returns: Miettinen and Nurminen's cubic with ``count0*diff`` where their paper has ``nobs0*diff``."""
    n, events = n_b + n_c, e_b + e_c
    third = ((n_c + 2 * n_b) * d - n - events) / (3 * n)
    tmp1 = ((e_b * d - n - 2 * e_b) * d + events) / n
    q = third ** 3 - tmp1 * third / 2 + e_b * d * (1 - d) / (2 * n)
    p = math.copysign(math.sqrt(third ** 2 - tmp1 / 3), q)
    rate = 2 * p * math.cos((math.pi + math.acos(q / p ** 3)) / 3) - third
    variance = (rate + d) * (1 - rate - d) / n_c + rate * (1 - rate) / n_b
    return (e_c / n_c - e_b / n_b - d) / math.sqrt(variance * n / (n - 1))


def fixed_horizon(row: Row) -> t.Iterator[Value]:
    pair = row['e_b'], row['n_b'], row['e_c'], row['n_c']
    z = counts.pooled_z(*pair)
    yield 'z_pooled', row['z_pooled'], z, TAIL
    yield 'p_larger', row['p_larger'], counts.normal_sf(z), TAIL
    yield 'p_two_sided', row['p_two_sided'], 2 * counts.normal_sf(abs(z)), TAIL
    yield 'fisher_p_greater', row['fisher_p_greater'], counts.fisher_p(*pair), TAIL
    yield 'conditional_binomial_p_greater', row['conditional_binomial_p_greater'], counts.conditional_p(*pair), TAIL
    yield 'newcombe_ci95', row['newcombe_ci95'], counts.newcombe_interval(*pair, 0.05), INTERVAL
    for name, value in row.items():
        kind, _sep, margin = name.partition('_ni_margin_')
        if not margin:
            continue
        z = counts.wald_z(*pair, float(margin)) if kind == 'wald' else counts.score_z(*pair, float(margin))
        if kind == 'score':
            theirs = statsmodels_score_z(*pair, float(margin))
            if abs(theirs - z) > SCORE_SLIP * (1 + abs(z)):
                raise Different('%s.z: ours is %r, statsmodels has %r' % (name, z, theirs))
            z = theirs if abs(value['z'] - theirs) < abs(value['z'] - z) else z
        yield name + '.z', value['z'], z, TAIL
        yield name + '.p_larger', value['p_larger'], counts.normal_sf(z), TAIL


def planning(row: Row) -> t.Iterator[Value]:
    yield 'G', row['G'], ep.growth_rate(row['rps_baseline'], row['rps_canary'], row['p_b'], row['p_c'], row['a'], row['m']), LOG_E


SECTIONS: dict[str, t.Callable[[Row], t.Iterator[Value]]] = {
    'f1_dirichlet_multinomial': f1, 'f1_ratio_confidence_sequence': f1_ratio, 'single_rate_confidence_sequence': single_rate,
    'f2_block_products_vs_R_safestats': f2_products, 'f2_block': f2_block, 'f2_path': f2_path, 'srm_chi_square': srm, 'chi2_sf': chi2,
    'fixed_horizon_two_proportions': fixed_horizon, 'planning_growth_rate': planning,
}


def compare(name: str, theirs: t.Any, ours: t.Any, tolerance: float) -> int:
    """Returns how many numbers were compared. Raises Different."""
    if isinstance(theirs, list):
        if len(theirs) != len(ours):
            raise Different('%s: the file has %d numbers, ours are %d' % (name, len(theirs), len(ours)))
        return sum(compare('%s[%d]' % (name, i), *pair, tolerance) for i, pair in enumerate(zip(theirs, ours)))
    theirs = float(theirs)
    if theirs == ours or abs(theirs - ours) <= max(FLOOR, tolerance * abs(theirs)):
        return 1
    raise Different('%s: the file has %r, ours is %r (relative difference %.1e, allowed %.0e)' % (
        name, theirs, ours, abs(theirs - ours) / abs(theirs) if theirs else math.inf, tolerance))


def check(vectors: t.Mapping[str, t.Any]) -> tuple[dict[str, int], list[str]]:
    """Returns how many numbers agree in each section, and the sections that nothing here computes. Raises Different at the first
    difference, and for a row that lacks an input or an expected value."""
    agreed: dict[str, int] = {}
    unknown = [name for name in vectors if name not in SECTIONS]
    for name, section in vectors.items():
        if name in unknown:
            continue
        agreed[name] = 0
        for i, row in enumerate(section['rows']):
            try:
                for value in SECTIONS[name](row):
                    agreed[name] += compare(*value)
            except Different as exc:
                raise Different('%s, row %d, %s' % (name, i, exc)) from None
            except (KeyError, TypeError, ValueError, ArithmeticError) as exc:
                raise Different('%s, row %d cannot be computed: %s: %s' % (name, i, type(exc).__name__, exc)) from None
    return agreed, unknown


def main(arguments: t.Sequence[str]) -> int:
    if len(arguments) != 1:
        print('usage: check.py FILE', file=sys.stderr)
        return 2
    try:
        vectors = json.loads(Path(arguments[0]).read_text(encoding='utf-8'))
        agreed, unknown = check(vectors)
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as exc:
        print('%s is not a file of reference values: %s: %s' % (arguments[0], type(exc).__name__, exc), file=sys.stderr)
        return 2
    except Different as exc:
        print('DIFFERENT: %s' % exc, file=sys.stderr)
        return 1
    for name, number in agreed.items():
        print('%-36s %4d numbers agree' % (name, number))
    for name in unknown:
        print('%-36s not checked: nothing in the collection computes it' % name, file=sys.stderr)
    if not sum(agreed.values()):
        print('%s holds nothing to check.' % arguments[0], file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
