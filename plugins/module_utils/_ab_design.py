# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The design of an A/B test: its arms, what is counted, and what decides. Checked before the first change, and kept as it was for as long
as the test runs: a question that is chosen after the answers were seen proves nothing. Pure.
"""

from __future__ import annotations

import math
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._analysis._sequential import Question, check_question
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.experiment import Metric
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration, parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.prometheus import Query
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.registry import ROUTER
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, format_share, parse_share

LONGEST_LEASE_S = 7 * 86400.0
LONGEST_TEST_S = 30 * 86400.0

DESIGN_OPTIONS = ('test_arms', 'control', 'duration', 'grace', 'lease', 'metrics', 'visitors', 'guardrails', 'alpha', 'guardrail_alpha',
                  'ratio_alpha', 'ratio_tolerance', 'burst', 'equivalence', 'effect')
"""What is kept in the journal when the test begins, and asked of it from then on."""

_METRIC = re.compile(r'[A-Za-z_][A-Za-z0-9_]{0,59}')
_METRIC_KEYS = {'name', 'source', 'successes', 'total', 'direction', 'burst'}
_GUARD_KEYS = {'name', 'source', 'bad', 'total', 'direction', 'ratio', 'margin', 'min_events', 'burst'}
_VISITOR_KEYS = {'source', 'total'}
_DIRECTIONS = {'more': 1, 'fewer': -1}


class TestArm(t.NamedTuple):
    """*arm* is the name among the service's arms, *share* in basis points."""

    arm: str
    share: int
    version: str | None


class Count(t.NamedTuple):
    """Where the counts of a metric come from: two PromQL expressions of *source*, or none for those of the router."""

    name: str
    source: str
    events: str | None
    total: str | None


@dataclass(frozen=True)
class Design:
    """A checked design. Times in seconds; keys of ``arms`` are the names of the test, in order of their slots."""

    control: str
    arms: t.Mapping[str, TestArm]
    metrics: tuple[tuple[Count, Metric], ...]
    """The first one decides."""
    guards: tuple[tuple[Count, Question], ...]
    visitors: Count | None
    duration: float
    grace: float
    lease: float | None
    alpha: float
    guardrail_alpha: float
    ratio_alpha: float
    ratio_tolerance: float
    burst: float
    equivalence: float
    effect: float | None

    @property
    def variants(self) -> list[str]:
        return [name for name in self.arms if name != self.control]

    @property
    def shares(self) -> dict[str, int]:
        return {name: arm.share for name, arm in self.arms.items()}

    @property
    def split(self) -> dict[str, int]:
        """The candidates' shares, under the names of the service's arms."""
        return {self.arms[name].arm: self.arms[name].share for name in self.variants}

    @property
    def counts(self) -> list[Count]:
        """Everything that is asked of sources other than the router."""
        own = [count for count, _metric in self.metrics] + [count for count, _question in self.guards]
        return [count for count in own + ([self.visitors] if self.visitors else []) if count.source != ROUTER]

    def lease_s(self, left_s: float) -> float:
        """Returns how long a lease that is given now may be, *left_s* seconds before the test's end: never beyond it."""
        return max(min(left_s, self.lease or LONGEST_LEASE_S, LONGEST_LEASE_S), 0.0)


def read_design(options: t.Mapping[str, t.Any], arms: t.Collection[str], sources: t.Mapping[str, t.Any]) -> Design:
    """Returns the checked design. *arms* are those of the service. Raises BadInput with a sentence that says what to mend."""
    tested = _read_arms(options, arms)
    metrics = tuple(_read_metric(raw, sources) for raw in options['metrics'] or ())
    if not metrics:
        raise BadInput('The A/B test has no metric: give metrics with name, successes and total, such as conversion_rate.')
    guards = tuple(_read_guard(raw, sources) for raw in options['guardrails'] or ())
    visitors = None
    if options.get('visitors'):
        _check_keys('visitors', options['visitors'], _VISITOR_KEYS)
        visitors = _count('visitors', options['visitors'], None, sources)
    names = [count.name for count, _what in (*metrics, *guards)] + ['visitors']
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput('Two metrics or guardrails of the A/B test have the name "%s": each needs one of its own%s.' % (
            twice[0], ', and "visitors" is taken' if twice[0] == 'visitors' else ''))
    duration, grace = parse_duration(options['duration'], 'duration of the A/B test'), parse_duration(options['grace'], 'grace')
    if duration < 1 or duration + grace > LONGEST_TEST_S:
        raise BadInput('The A/B test would last %s and %s of grace: give at least 1 s, and 30 days at most together.' % (
            format_duration(duration), format_duration(grace)))
    lease = parse_duration(options['lease'], 'lease') if options.get('lease') else None
    if lease is not None and not 1 <= lease <= LONGEST_LEASE_S:
        raise BadInput('The lease of the A/B test is %s: give 1 s to 7 days, or none for one up to the end.' % format_duration(lease))
    return Design(
        control=options['control'], arms=tested, metrics=metrics, guards=guards, visitors=visitors, duration=duration, grace=grace,
        lease=lease, alpha=_part('alpha', options['alpha']), guardrail_alpha=_part('guardrail_alpha', options['guardrail_alpha']),
        ratio_alpha=_part('ratio_alpha', options['ratio_alpha']), ratio_tolerance=_ratio('ratio_tolerance', options['ratio_tolerance']),
        burst=_number('burst', options['burst'], 1.0), equivalence=_ratio('equivalence', options['equivalence']),
        effect=_ratio('effect', options['effect']) if options.get('effect') else None)


def _read_arms(options: t.Mapping[str, t.Any], arms: t.Collection[str]) -> dict[str, TestArm]:
    raw, control = options['test_arms'], options['control']
    if not isinstance(raw, t.Mapping) or len(raw) < 2:
        raise BadInput('The A/B test needs two arms or more, such as {control: {arm: blue, share: 50%}, variant_a: {arm: green, share: '
                       '50%}}.')
    if control not in raw:
        raise BadInput('The A/B test has no arm "%s" to compare with: name one of %s as control.' % (
            control, ', '.join(str(name) for name in raw)))
    found: dict[str, TestArm] = {}
    for name, value in raw.items():
        check_name('arm of the A/B test', name)
        if not isinstance(value, t.Mapping):
            raise BadInput('The arm "%s" of the A/B test must be a dictionary with share, and arm where it is called otherwise.' % name)
        _check_keys('arm "%s"' % name, value, {'arm', 'share', 'version'})
        arm = value.get('arm') or name
        if arm not in arms:
            raise BadInput('The arm "%s" of the A/B test is "%s" of the service, which has %s.' % (name, arm, ', '.join(sorted(arms))))
        if value.get('share') is None:
            raise BadInput('The arm "%s" of the A/B test has no share.' % name)
        share = parse_share(value['share'])
        if 0 < share <= 100 and str(value['share']).strip().isdigit():
            raise BadInput('The share %s of the arm "%s" could mean per cent or basis points: write "%s%%" or "%sbp".' % (
                share, name, share, share))
        if not share:
            raise BadInput('The arm "%s" of the A/B test has a share of 0 %%: nothing could be learned about it.' % name)
        found[name] = TestArm(arm, share, check_token('version', str(value['version'])) if value.get('version') else None)
    if sum(one.share for one in found.values()) != TOTAL:
        raise BadInput('The shares of the A/B test add up to %s, not to 100 %%: %s.' % (
            _percent_of(found), ', '.join('%s %s' % (name, format_share(one.share)) for name, one in found.items())))
    if len({one.arm for one in found.values()}) < len(found):
        raise BadInput('Two arms of the A/B test are the same arm of the service: each needs instances of its own.')
    return found


def _percent_of(found: t.Mapping[str, TestArm]) -> str:
    return '%g %%' % (sum(one.share for one in found.values()) / 100)


def _read_metric(raw: t.Mapping[str, t.Any], sources: t.Mapping[str, t.Any]) -> tuple[Count, Metric]:
    name = _named(raw, _METRIC_KEYS)
    count = _count(name, raw, 'successes', sources)
    default = 'fewer' if count.source == ROUTER else 'more'
    return count, Metric(name, _direction(name, raw, default), _number('burst', raw.get('burst', 1), 1.0))


def _read_guard(raw: t.Mapping[str, t.Any], sources: t.Mapping[str, t.Any]) -> tuple[Count, Question]:
    name = _named(raw, _GUARD_KEYS)
    count = _count(name, raw, 'bad', sources)
    events = raw.get('min_events', 3)
    if not isinstance(events, int) or isinstance(events, bool):
        raise BadInput('The min_events of the guardrail "%s" is %r: give a whole number.' % (name, events))
    question = Question(
        name=name, what='errors' if count.source == ROUTER else name, ratio=_number('ratio', raw.get('ratio', 1), 0.0),
        margin=_ratio('margin', raw.get('margin', 0.0), signed=True), direction=_direction(name, raw, 'more'), min_events=events,
        burst=_number('burst', raw.get('burst', 1), 1.0))
    check_question(question)
    return count, question


def _named(raw: object, keys: t.Collection[str]) -> str:
    if not isinstance(raw, t.Mapping) or not isinstance(raw.get('name'), str) or not _METRIC.fullmatch(raw['name']):
        raise BadInput('A metric or guardrail of the A/B test has no usable name: use letters, digits and "_".')
    _check_keys('metric "%s"' % raw['name'], raw, keys)
    return raw['name']


def _check_keys(what: str, raw: t.Mapping[str, t.Any], keys: t.Collection[str]) -> None:
    unknown = sorted(str(key) for key in raw if key not in keys)
    if unknown:
        raise BadInput('The %s of the A/B test has the unknown key "%s": known are %s.' % (what, unknown[0], ', '.join(sorted(keys))))


def _count(name: str, raw: t.Mapping[str, t.Any], events: str | None, sources: t.Mapping[str, t.Any]) -> Count:
    """Reads what is counted; *events* is the key of the first expression, None where there is but a total."""
    keys = [key for key in (events, 'total') if key]
    given = [key for key in keys if raw.get(key)]
    source = raw.get('source') or ('prometheus' if given else ROUTER)
    if source == ROUTER and events:
        if given:
            raise BadInput('The metric "%s" of the A/B test counts failed requests of the router, and takes no %s.' % (
                name, ' or '.join(given)))
        return Count(name, ROUTER, None, None)
    options = sources.get(source)
    if not isinstance(options, t.Mapping) or options.get('type', source) != 'prometheus':
        raise BadInput('The metric "%s" of the A/B test asks the source "%s", which is none of type prometheus: those are %s.' % (
            name, source, ', '.join(key for key, one in sources.items() if isinstance(one, t.Mapping) and
                                    one.get('type', key) == 'prometheus') or 'not given'))
    if given != keys:
        raise BadInput('The metric "%s" of the A/B test needs %s: PromQL expressions that name the arm and $window.' % (
            name, ' and '.join(keys)))
    for key in keys:
        query = Query(source, '%s_%s' % (name, key), raw[key])
        if not query.per_arm or 'window' not in query.names:
            raise BadInput('The %s of the metric "%s" must count one arm since the test began: use $arm, $backend or $version, and '
                           '$window, as in sum(increase(visits_total{arm="$arm"}[$window])).' % (key, name))
    return Count(name, source, raw[events] if events else None, raw['total'])


def _direction(name: str, raw: t.Mapping[str, t.Any], default: str) -> int:
    value = raw.get('direction', default)
    if value not in _DIRECTIONS:
        raise BadInput('The direction of "%s" is %r: write "more" or "fewer".' % (name, value))
    return _DIRECTIONS[value]


def _number(what: str, value: object, least: float) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not least <= number < math.inf:
        raise BadInput('The %s of the A/B test is %r: give a number of at least %g.' % (what, value, least))
    return number


def _ratio(what: str, value: object, signed: bool = False) -> float:
    """Reads ``'5%'`` or ``0.05``."""
    text = str(value).strip()
    try:
        number = float(text[:-1]) / 100 if text.endswith('%') else float(text)
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not (-1 if signed else 0) <= number < 1:
        raise BadInput('The %s of the A/B test is %r: give a part such as "5%%" or 0.05, below 100 %%.' % (what, value))
    return number


def _part(what: str, value: object) -> float:
    number = _number(what, value, 0.0)
    if not 0 < number < 1:
        raise BadInput('The %s of the A/B test is %r: a probability lies between 0 and 1.' % (what, value))
    return number
