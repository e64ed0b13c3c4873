# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a condition asks for, read from what a user wrote; and what every condition is fed with."""

from __future__ import annotations

import math
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._analysis import measure as m
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.history import Seen
from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import Block, Reading

COMPARES = ('value', 'difference', 'ratio')
LIMITS = ('abort_above', 'abort_below', 'pass_above', 'pass_below')
DEFAULTS: dict[str, t.Any] = {
    'name': None, 'type': 'threshold', 'source': 'router', 'metric': None, 'arm': None, 'compare': 'value',
    'abort_above': None, 'abort_below': None, 'pass_above': None, 'pass_below': None,
    'window': 60, 'min_sample': 10, 'min_events': 3, 'consecutive_limit': None, 'total_limit': None,
    'warm_up': None, 'no_data_after': None, 'required': True, 'per_endpoint': True,
}
"""Every key of a condition; a stage's conditions are plain data, so defaults are set here and not by the argument specification."""

_NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.:@+~ -]{0,79}')
_PERCENT = re.compile(r'\s*(-?\d{1,6}(?:\.\d{1,9})?)\s*%\s*')
_NUMBER = re.compile(r'\s*-?\d{1,15}(?:\.\d{1,12})?(?:[eE]-?\d{1,2})?\s*')


@dataclass
class Sample:
    """What one source said in one poll, *at* seconds after the watch began."""

    at: float
    source: str
    reading: Reading
    between: bool = False
    """A look between two samples of the interval that the user asked for: it can complete a proof, and counts as no sample."""
    _seen: dict[int, Seen] = field(default_factory=dict)

    def seen(self, block: Block) -> Seen:
        """Returns *block*, which is one of the reading's, counted once for all conditions."""
        if id(block) not in self._seen:
            self._seen[id(block)] = Seen(block)
        return self._seen[id(block)]


@dataclass(frozen=True)
class Context:
    """What conditions may refer to."""

    candidate: str
    stable: str | None
    arms: tuple[str, ...]
    sources: t.Mapping[str, t.Mapping[str, str]]
    """Name of each source, and what it offers (``Source.metrics``)."""
    endpoints: int = 1
    warm_up: float = 0.0
    error_limit: int = 3
    """Polls with an error in a row after which a source counts as gone."""
    alpha: float = 0.05
    """What the sequential conditions share: the probability of ever failing an unharmed candidate."""
    beta: float = 0.05
    """The probability that one of them passes a stage though there is harm beyond what is tolerated."""
    analysis_state: t.Mapping[str, t.Any] | None = None
    """What the rollout's sequential conditions know from its stages before."""


@dataclass(frozen=True)
class Spec:
    """A condition of type ``threshold``, checked."""

    name: str
    source: str
    metric: str
    measure: m.Measure | None
    """None for a gauge."""
    arm: str
    stable: str | None
    """The arm that is compared with; None without a comparison."""
    compare: str
    abort: tuple[tuple[str, float], ...]
    """Pairs (side, limit): beyond one of them, a sample fails."""
    good: tuple[tuple[str, float], ...]
    """Pairs (side, limit): the stage's value must lie on that side of each of them."""
    window: float
    min_sample: int
    min_events: int
    consecutive_limit: int | None
    total_limit: int | None
    warm_up: float
    no_data_after: float | None
    required: bool
    per_endpoint: bool
    error_limit: int

    @property
    def unit(self) -> str:
        return self.measure.unit if self.measure else m.PLAIN


def read_spec(raw: t.Mapping[str, t.Any], context: Context) -> Spec:
    """Returns the checked condition. Raises BadInput with a sentence that names it."""
    given = {key: value for key, value in raw.items() if value is not None}
    name = condition_name(given)
    check_keys(name, given, DEFAULTS)
    value = {**DEFAULTS, **given}
    offered = offered_by(name, value['source'], context)
    try:
        measure = m.measure_of(str(value['metric']), offered)
    except KeyError:
        raise BadInput('The condition "%s" names the metric "%s", which the source "%s" does not have: it has %s.' % (
            name, value['metric'], value['source'], ', '.join(m.metrics_of(offered)))) from None
    arm = value['arm'] or context.candidate
    if context.arms and arm not in context.arms:
        raise BadInput('The condition "%s" names the arm "%s", which the service does not have: its arms are %s.' % (
            name, arm, ', '.join(sorted(context.arms))))
    compare = value['compare']
    if compare not in COMPARES:
        raise BadInput('The condition "%s" compares by "%s": use one of %s.' % (name, compare, ', '.join(COMPARES)))
    if compare != 'value':
        if context.stable is None:
            raise BadInput('The condition "%s" compares with the stable arm, but no stable arm was given.' % name)
        if context.stable == arm:
            raise BadInput('The condition "%s" would compare the arm "%s" with itself.' % (name, arm))
        if isinstance(measure, m.Share):
            raise BadInput('The condition "%s" compares shares, which already are parts of one whole: use compare: value.' % name)
    for key in ('min_sample', 'min_events') if measure is None else ():
        if key in given:
            raise BadInput('The condition "%s" gives %s, but "%s" is a value that is read and not made from requests.' % (
                name, key, value['metric']))
    unit = measure.unit if measure else m.PLAIN
    limits = {key: read_limit(name, key, value[key], unit, compare) for key in LIMITS if value[key] is not None}
    _check_limits(name, limits)
    whole = {key: read_whole(name, key, value[key], least) for key, least in (
        ('min_sample', 1), ('min_events', 1), ('consecutive_limit', 1), ('total_limit', 1))}
    if whole['consecutive_limit'] is None and whole['total_limit'] is None:
        whole['consecutive_limit'] = 1
    for key in ('required', 'per_endpoint'):
        if not isinstance(value[key], bool):
            raise BadInput('The %s of the condition "%s" is %r: write true or false.' % (key, name, value[key]))
    window = parse_duration(value['window'], 'window of the condition "%s"' % name)
    if not 0 < window <= 86400:
        raise BadInput('The window of the condition "%s" must be above 0 s and at most a day.' % name)
    return Spec(
        name=name, source=value['source'], metric=str(value['metric']), measure=measure, arm=arm,
        stable=context.stable if compare != 'value' else None, compare=compare,
        abort=tuple((side, limits['abort_' + side]) for side in (m.ABOVE, m.BELOW) if 'abort_' + side in limits),
        good=tuple((side, limits['pass_' + side]) for side in (m.ABOVE, m.BELOW) if 'pass_' + side in limits),
        window=window, min_sample=t.cast(int, whole['min_sample']), min_events=t.cast(int, whole['min_events']),
        consecutive_limit=whole['consecutive_limit'], total_limit=whole['total_limit'],
        warm_up=context.warm_up if value['warm_up'] is None else parse_duration(value['warm_up'], 'warm_up of the condition "%s"' % name),
        no_data_after=None if value['no_data_after'] is None else parse_duration(
            value['no_data_after'], 'no_data_after of the condition "%s"' % name),
        required=value['required'], per_endpoint=value['per_endpoint'] and context.endpoints > 1, error_limit=context.error_limit)


def check_keys(name: str, given: t.Mapping[str, t.Any], known: t.Mapping[str, t.Any]) -> None:
    """Raises BadInput when *given* has a key that its type of condition does not know."""
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise BadInput('The condition "%s" has the unknown key "%s": known are %s.' % (name, unknown[0], ', '.join(sorted(known))))


def offered_by(name: str, source: str, context: Context) -> t.Mapping[str, str]:
    """Returns what the *source* of the condition *name* offers. Raises BadInput when there is no such source."""
    offered = context.sources.get(source)
    if offered is None:
        raise BadInput('The condition "%s" names the source "%s", which is not configured: there %s %s.' % (
            name, source, 'is' if len(context.sources) == 1 else 'are', ', '.join(sorted(context.sources)) or 'none'))
    return offered


def condition_name(raw: t.Mapping[str, t.Any]) -> str:
    """Returns the name a condition goes by: the one given, or its metric, with the arm where one is named. Raises BadInput."""
    if not raw.get('metric'):
        raise BadInput('The condition %r names no metric.' % (raw.get('name') or dict(raw),))
    name = raw.get('name') or ' '.join(str(part) for part in (raw.get('arm'), raw['metric']) if part)
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise BadInput("The name %r of a condition is not usable: use letters, digits, blanks and the signs '_.:@+~-', at most 80 of them." % (
        name,))


def read_limit(name: str, key: str, raw: object, unit: str, compare: str) -> float:
    """Reads a limit in the unit of its metric; a ratio to the stable arm has none."""
    what = '%s of the condition "%s"' % (key, name)
    value = math.nan
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        value = float(raw)
    elif isinstance(raw, str) and _NUMBER.fullmatch(raw):
        value = float(raw)
    elif isinstance(raw, str) and _PERCENT.fullmatch(raw) and (unit in (m.RATIO, m.SHARE, m.PLAIN) or compare == 'ratio'):
        value = float(t.cast('re.Match[str]', _PERCENT.fullmatch(raw)).group(1))
        value = value * 100 if unit == m.SHARE else value / 100
    elif isinstance(raw, str) and unit == m.MS and compare != 'ratio':
        value = parse_duration(raw, what) * 1000
    if not math.isfinite(value):
        raise BadInput('The %s, %r, is not understood: write %s.' % (what, raw, {
            m.RATIO: 'a percentage such as "0.5%" or a ratio such as 0.005',
            m.SHARE: 'a percentage such as "5%" or basis points such as 500',
            m.MS: 'milliseconds, or a duration such as "500ms"'}.get(unit if compare != 'ratio' else '', 'a number')))
    low = -math.inf if unit == m.PLAIN or compare == 'difference' else 0.0
    high = {m.RATIO: 1.0, m.SHARE: 10_000.0}.get(unit, math.inf) if compare != 'ratio' else math.inf
    if not low <= value <= high:
        hint = ' (a bare number is a ratio: write "%g%%" for per cent)' % value if unit == m.RATIO and value > 1 else ''
        raise BadInput('The %s, %r, is outside what %s can be%s.' % (
            what, raw, {m.RATIO: 'a ratio', m.SHARE: 'a share'}.get(unit, 'this metric'), hint))
    return value


def _check_limits(name: str, limits: t.Mapping[str, float]) -> None:
    if not limits:
        raise BadInput('The condition "%s" has no limit: give at least one of %s.' % (name, ', '.join(LIMITS)))

    def get(key: str, default: float) -> float:
        return limits.get(key, default)

    top, bottom = get('abort_above', math.inf), get('abort_below', -math.inf)
    least, most = get('pass_above', -math.inf), get('pass_below', math.inf)
    for wrong, text in (
            (bottom >= top, 'abort_below is not below abort_above, so every value would abort'),
            (least >= most, 'pass_above is not below pass_below, so no value could pass'),
            ('pass_below' in limits and most > top, 'pass_below is above abort_above, so it would pass what it must abort'),
            ('pass_above' in limits and least < bottom, 'pass_above is below abort_below, so it would pass what it must abort'),
            ('pass_below' in limits and most <= bottom, 'pass_below is not above abort_below, so no value could pass'),
            ('pass_above' in limits and least >= top, 'pass_above is not below abort_above, so no value could pass')):
        if wrong:
            raise BadInput('The limits of the condition "%s" contradict each other: %s.' % (name, text))


def read_whole(name: str, key: str, raw: object, least: int) -> int | None:
    if raw is None:
        return None
    if isinstance(raw, str) and raw.strip().isdigit():
        raw = int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= least:
        return raw
    raise BadInput('The %s of the condition "%s" is %r: write a whole number of at least %d.' % (key, name, raw, least))
