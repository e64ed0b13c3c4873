# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The plan of a rollout: every stage with its split, bake and conditions, checked before the first change. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import asdict

from ansible_collections.progressive.delivery.plugins.module_utils._approval import check_timeout, read_approval
from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_name, check_token
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, format_share, parse_share

STRATEGIES = {'hybrid': ('canary', 'blue_green'), 'canary': ('canary', 'blue_green'), 'blue_green': ('blue_green',)}
"""The roles whose stages a strategy runs, in order. A canary alone ends in the instant switch of one blue-green stage."""

_STAGE_KEYS = {'name', 'arm', 'share', 'bake', 'interval', 'warm_up', 'conditions', 'approval', 'mirror'}


def parse_stages(value: object, what: str) -> list[dict[str, t.Any]]:
    """Returns stages as dictionaries: a list is taken as it is, a text ``'5%:30m, 20%:45m'`` (an AWX survey's answer) is read."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(',') if part.strip()]
        pairs = [part.partition(':') for part in parts]
        if not pairs or not all(share and bake for share, _colon, bake in pairs):
            raise BadInput('The %s %r are not understood: write "5%%:30m, 20%%:45m" or a list of stages with share and bake.' % (
                what, value))
        return [{'share': share.strip(), 'bake': bake.strip()} for share, _colon, bake in pairs]
    if not isinstance(value, list) or not all(isinstance(stage, dict) for stage in value):
        raise BadInput('The %s must be a list of stages with share and bake.' % what)
    return [dict(stage) for stage in value]


def agreed_stable(service: str, told: t.Iterable[tuple[str, str | None]]) -> str:
    """Returns the stable arm of *service* that the routers agree on, *told* being pairs of endpoint and arm. Raises BadInput."""
    found: dict[str, list[str]] = {}
    for endpoint, arm in told:
        if arm:
            found.setdefault(arm, []).append(endpoint)
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise BadInput('No router says which arm of %s is stable: name it as delivery_stable_arm.' % service)
    raise BadInput('The routers disagree on the stable arm of %s (%s): '
                   'run rollback.yml or promote.yml first, or name it as delivery_stable_arm.' % (
                       service, '; '.join('%s on %s' % (arm, ', '.join(names)) for arm, names in sorted(found.items()))))


def target_arm(arms: t.Collection[str], stable: str, canary: str | None, wanted: str | None = None) -> str:
    """Returns the arm that takes over from *stable*: the one *wanted*, or the only one left beside stable and canary, or canary."""
    if wanted:
        if wanted not in arms:
            raise BadInput('The target arm "%s" is not one of the service: its arms are %s.' % (wanted, ', '.join(sorted(arms))))
        if wanted == stable:
            raise BadInput('The target arm "%s" is the stable one already: name another arm as delivery_target_arm.' % wanted)
        return wanted
    others = [arm for arm in arms if arm not in (stable, canary)]
    if len(others) > 1:
        absent = '' if canary is None or canary in arms else ', and the canary arm "%s" is not one of them' % canary
        raise BadInput('Which arm takes over from "%s" is not clear%s: name one of %s as delivery_target_arm.' % (
            stable, absent, ', '.join(sorted(others))))
    if others:
        return others[0]
    if canary in arms and canary != stable:
        return t.cast(str, canary)
    raise BadInput('The service has no arm but "%s": a new version needs a second one.' % stable)


def make_plan(service: str, version: str, strategy: str, stages: t.Mapping[str, object], arms: t.Collection[str], stable: str,
              conditions: t.Sequence[t.Mapping[str, t.Any]], canary: str | None = None, target: str | None = None,
              interval: object = 10, warm_up: object = 0, settle: object = 0, ask_timeout: object = 1800,
              lease: object = '30s', timeouts: t.Mapping[str, object] | None = None) -> dict[str, t.Any]:
    """Returns ``{stable, canary, target, candidates, brings_up, stages, asks, settle...}`` for a rollout of *version*; ``asks`` is what the
    sequential conditions ask, ``brings_up`` says which arms each role brings up: those of its stages that no role before it has.

    *stages* maps a role (``canary``, ``blue_green``) to its stages; *conditions* apply to every stage, and a stage's own
    conditions replace those of the same name; *lease* is that of every share, *timeouts* are durations by name that are used later and
    must be readable; *settle* is how long the candidates' servers must stay up before the first stage.
    Each planned stage has ``index`` (from 1), ``role``, ``name``, ``label``,
    ``arm``, ``share_bp``, ``split``, ``mirror`` (copies of requests besides, ``{}`` for none), ``load_bp`` (what the arm gets of all
    requests, copies included), ``bake_s``, ``interval_s``, ``warm_up_s``, ``conditions``, ``approval`` (what a person has to say,
    ``{}`` for nothing; *ask_timeout* is how long that may take where it does not say) and ``promotes``.

    Raises BadInput for a stage list that goes down or does not end at 100 %, an unknown arm, and all else that is wrong.
    """
    check_name('service', service)
    check_token('version', version)
    for arm in arms:
        check_name('arm', arm)
    if stable not in arms:
        raise BadInput('The stable arm "%s" is not one of the service: its arms are %s.' % (stable, ', '.join(sorted(arms))))
    if strategy not in STRATEGIES:
        raise BadInput('The strategy "%s" is not known: use one of %s.' % (strategy, ', '.join(STRATEGIES)))
    # The arm that was the canary may have become the stable one: the canary of this rollout is then the first other arm.
    if canary == stable:
        canary = None
    goal = target_arm(arms, stable, canary, target)
    names = {'canary': canary or goal, 'target': goal}
    planned: list[dict[str, t.Any]] = []
    for role in STRATEGIES[strategy]:
        raw = parse_stages(stages.get(role, []), '%s stages' % role)
        if strategy == 'canary' and role == 'blue_green':
            raw = raw[-1:]
        for stage in raw:
            planned.append(_plan_stage(stage, role, len(planned) + 1, names, arms, stable, conditions, interval, warm_up,
                                       check_timeout('ask_timeout', ask_timeout)))
    _check_order(planned)
    _check_questions(planned)
    for name, value in (timeouts or {}).items():
        parse_duration(value, name)
    _check_lease(planned, parse_duration(lease, 'delivery_lease'))
    needed_by = {stage['arm']: stage['role'] for stage in reversed(planned)}
    candidates = list(dict.fromkeys(stage['arm'] for stage in planned))
    settle_s = parse_duration(settle, 'settle')
    return {
        'service': service, 'version': version, 'strategy': strategy, 'stable': stable, 'canary': names['canary'], 'target': goal,
        'candidates': candidates, 'stages': planned,
        'brings_up': {role: [arm for arm in candidates if needed_by[arm] == role] for role in ('canary', 'blue_green')},
        'asks': _questions(planned[0]),
        'settle_s': settle_s, 'settle_interval_s': min(parse_duration(interval, 'interval'), settle_s) or 1.0,
        'settle_conditions': [
            {'name': 'servers of %s' % arm, 'metric': 'servers_up_ratio', 'arm': arm, 'abort_below': 1.0} for arm in candidates],
    }


def _plan_stage(stage: t.Mapping[str, t.Any], role: str, index: int, names: t.Mapping[str, str], arms: t.Collection[str], stable: str,
                conditions: t.Sequence[t.Mapping[str, t.Any]], interval: object, warm_up: object, ask_timeout: float) -> dict[str, t.Any]:
    where = 'stage %d (%s)' % (index, stage.get('name') or role)
    unknown = sorted(set(stage) - _STAGE_KEYS)
    if unknown:
        raise BadInput('The %s has the unknown key "%s": known are %s.' % (where, unknown[0], ', '.join(sorted(_STAGE_KEYS))))
    for key in ('share', 'bake'):
        if stage.get(key) is None:
            raise BadInput('The %s has no %s.' % (where, key))
    wanted = stage.get('arm') or ('canary' if role == 'canary' else 'target')
    arm = names.get(wanted, wanted)
    if arm not in arms:
        known = 'its arms are %s' % ', '.join(sorted(arms))
        if wanted == 'canary':
            raise BadInput('The %s needs the canary arm "%s", which the service does not have: %s. Name the one that canary stages use as '
                           'delivery_canary_arm (%s would do), or take delivery_strategy=blue_green.' % (
                               where, arm, known, names['target']))
        raise BadInput('The %s names the arm "%s", which the service does not have: %s.' % (where, arm, known))
    if arm == stable:
        raise BadInput('The %s names the arm "%s", which is the stable one now: a candidate must be another arm.' % (where, arm))
    share = _share(stage['share'], where)
    copied = _share(stage['mirror'], where) if stage.get('mirror') is not None else 0
    if not share and not copied:
        raise BadInput('The %s has a share of 0 %%: a stage moves traffic, or copies of it ("mirror").' % where)
    if share == TOTAL and copied:
        raise BadInput('The %s has all of the traffic: there is nothing that could be copied to it.' % where)
    bake, every = parse_duration(stage['bake'], 'bake of %s' % where), parse_duration(stage.get('interval', interval), 'interval')
    if every <= 0:
        raise BadInput('The interval of %s must be above 0 s.' % where)
    if bake < every:
        raise BadInput('The bake of %s (%g s) is shorter than its interval (%g s): nothing would be seen.' % (where, bake, every))
    merged = {condition.get('name'): dict(condition) for condition in conditions}
    merged.update({condition.get('name'): dict(condition) for condition in stage.get('conditions') or []})
    if not merged:
        raise BadInput('The %s has no conditions: a stage that nothing judges would pass whatever happens.' % where)
    approval = read_approval(stage.get('approval'), where, ask_timeout)
    label = '%s %s' % (arm, format_share(share)) + (' and copies of %s' % format_share(copied) if copied else '')
    return {
        'index': index, 'role': role, 'name': str(stage.get('name') or label), 'arm': arm, 'label': label, 'share_bp': share,
        'split': {arm: share}, 'mirror': {'arm': arm, 'share': copied} if copied else {}, 'load_bp': min(TOTAL, share + copied),
        'bake_s': bake, 'interval_s': every,
        'warm_up_s': parse_duration(stage.get('warm_up', warm_up), 'warm_up of %s' % where), 'conditions': list(merged.values()),
        'approval': asdict(approval) if approval else {}, 'promotes': share == TOTAL,
    }


def _share(value: object, where: str) -> int:
    try:
        share = parse_share(value)
    except BadInput as exc:
        raise BadInput('The %s cannot be planned: %s' % (where, exc)) from None
    if 0 < share <= 100 and str(value).strip().isdigit():
        # A bare 5 is 0.05 %: almost nobody means that.
        raise BadInput('The share %s of %s could mean %s %% or %s basis points: write "%s%%" or "%sbp".' % (
            value, where, share, share, share, share))
    return share


def _questions(stage: t.Mapping[str, t.Any]) -> dict[t.Any, dict[str, t.Any]]:
    """Returns what the sequential conditions of a stage ask, by their names; what only tells how a stage takes it is left out."""
    return {condition.get('name') or condition.get('metric'): {
        key: value for key, value in condition.items() if key not in ('must_pass', 'harm', 'warm_up')}
        for condition in stage['conditions'] if condition.get('type') == 'sequential'}


def _check_questions(planned: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    first = planned[0]
    for stage in planned[1:]:
        before, now = _questions(first), _questions(stage)
        other = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if other:
            raise BadInput('The sequential condition "%s" differs between stage %d (%s) and stage %d (%s): evidence for one question is '
                           'none for another, so ask the same in all stages.' % (
                               other[0], first['index'], first['label'], stage['index'], stage['label']))


def _check_lease(planned: t.Sequence[t.Mapping[str, t.Any]], lease: float) -> None:
    for stage in planned:
        if not stage['promotes'] and lease < 3 * stage['interval_s']:
            raise BadInput('The delivery_lease of %g s is shorter than three intervals of stage %d (%s, every %g s): a share would be lost '
                           'to a single hitch. Make it %g s or more, or the interval shorter.' % (
                               lease, stage['index'], stage['label'], stage['interval_s'], 3 * stage['interval_s']))


def _check_order(planned: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    if not planned:
        raise BadInput('The rollout has no stages: give canary_stages or blue_green_stages.')
    for before, after in zip(planned, planned[1:]):
        if after['share_bp'] < before['share_bp']:
            raise BadInput('Stage %d (%s) has a smaller share than stage %d (%s): stages only go up; the way down is the rollback.' % (
                after['index'], after['label'], before['index'], before['label']))
        if before['promotes']:
            raise BadInput('Stage %d (%s) has all of the traffic, and another follows: 100 %% must be the last stage.' % (
                before['index'], before['label']))
    last = planned[-1]
    if not last['promotes']:
        raise BadInput('The last stage (%s) leaves traffic split: a candidate has a share only while somebody watches it, '
                       'so the stages must end at 100 %%.' % last['label'])
