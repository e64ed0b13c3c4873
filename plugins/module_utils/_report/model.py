# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A report from the events of a journal. Pure; never raises, whatever the journal holds."""

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._approval import open_question
from ansible_collections.progressive.delivery.plugins.module_utils._duration import format_duration
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Scan
from ansible_collections.progressive.delivery.plugins.module_utils._report import facts, sentences
from ansible_collections.progressive.delivery.plugins.module_utils._report import values as r
from ansible_collections.progressive.delivery.plugins.module_utils._report.clean import clean
from ansible_collections.progressive.delivery.plugins.module_utils._split import format_share
from ansible_collections.progressive.delivery.plugins.module_utils._summary import summarize

MOST_SAMPLES = 400
"""A plot of some hundred pixels shows no more."""
_MOST_MOMENTS = 400

Event = t.Mapping[str, t.Any]


def build(scan: Scan, journal: str | None = None, alive: bool | None = None) -> r.Report:
    """Returns the report of the journal that *scan* was read from; *alive* tells whether its rollout still runs, None: not known."""
    cleaned = clean(scan.events)
    # Several processes write: at the same moment, in any order.
    events = sorted(cleaned.events, key=lambda event: event['ts'])
    start = _first(events, 'rollout_started')
    end = _last(events, 'rollout_finished')
    back = _back(events)
    outcome = _outcome(end, events, alive)
    stages = _stages(events, start)
    losses = facts.losses(events, start, stages)
    seconds = None if not start or not events else round(((end or events[-1])['ts'] - start['ts']), 3)
    parts = facts.parts(events, start, end, stages, back)
    criteria = facts.criteria(start.get('criteria'), stages, losses, back, seconds if end else None, start.get('stable'))
    damage = _damage(scan, cleaned.refused, events, start)
    told = sentences.Told(outcome=outcome, start=start, end=end, events=events, stages=stages, losses=losses, back=back, seconds=seconds)
    hurt_users, hurt = sentences.hurt(told, criteria)
    return r.Report(
        outcome=outcome, headline=sentences.headline(told), why=sentences.why(told), hurt=hurt, hurt_users=hurt_users,
        service=start.get('service'), version=start.get('version'), previous_version=start.get('previous_version') or None,
        rollout=next((event['rollout'] for event in events if event.get('rollout')), None), strategy=start.get('strategy'),
        by=start.get('by'), stable=start.get('stable'), target=start.get('target'), started=start.get('ts'),
        ended=end['ts'] if end else None, last=events[-1]['ts'] if events else None, seconds=seconds, journal=journal,
        report_dir=start.get('report_dir'),
        events=len(events), damage=damage, stages=stages,
        checks=[{'label': event['stage'], 'verdict': event.get('verdict'), 'reason': event.get('reason', ''), 'at': event['ts']}
                for event in events if event['event'] == 'verdict' and event['stage'] not in {stage.label for stage in stages}],
        criteria=criteria, parts=parts, losses=losses, back=back,
        approvals=[r.Approval(event['ts'], '%s: %s' % (event.get('stage', ''), _answer(event)), event.get('by'))
                   for event in events if event['event'] == 'answered'],
        waits=_waits(events) if outcome == r.RUNNING else None,
        follow_up=sentences.follow_up(told, criteria, damage),
        notes=[r.Moment(event['ts'], event['text']) for event in events if event['event'] == 'note'],
        timeline=_timeline(events, stages), tools=start.get('tools', {}),
        samples=thin([event for event in events if event['event'] == 'sample'], MOST_SAMPLES),
        limits={event['stage']: event.get('conditions', []) for event in events if event['event'] == 'watching'},
        split=_split(events, start))


def thin(samples: t.Sequence[Event], most: int) -> list[dict[str, t.Any]]:
    """Returns at most about *most* samples: those of one stage that follow each other are put together, their requests added up,
    of quantiles the worst kept."""
    size = -(-len(samples) // most) if samples else 1
    kept: list[dict[str, t.Any]] = []
    held = 0
    for sample in samples:
        one = {key: sample[key] for key in ('ts', 'stage', 'at_s', 'arms', 'values', 'evidence', 'lease_s', 'errors') if key in sample}
        one.setdefault('arms', {})
        if kept and held < size and kept[-1]['stage'] == one['stage']:
            arms = {name: dict(arm) for name, arm in kept[-1]['arms'].items()}
            for name, arm in one['arms'].items():
                into = arms.setdefault(name, {})
                for key, value in arm.items():
                    into[key] = into.get(key, 0) + value if key in ('requests', 'errors') else max(into.get(key, value), value)
            kept[-1] = {**one, 'arms': arms}
            held += 1
        else:
            kept.append(one)
            held = 1
    return kept


def _first(events: t.Sequence[Event], name: str) -> Event:
    return next((event for event in events if event['event'] == name), {})


def _last(events: t.Sequence[Event], name: str) -> Event:
    return next((event for event in reversed(events) if event['event'] == name), {})


def _outcome(end: Event, events: t.Sequence[Event], alive: bool | None) -> str:
    if end:
        return end['outcome'] if end.get('outcome') in (r.PROMOTED, r.ROLLED_BACK, r.FAILED) else r.UNKNOWN
    if _first(events, 'signal'):
        return r.INTERRUPTED
    return r.RUNNING if alive and events else r.UNKNOWN


def _back(events: t.Sequence[Event]) -> r.Back | None:
    """The first way back: it is the one that the verdict called for; a later one reads it back."""
    event = _first(events, 'way_back')
    if not event:
        return None
    rows = event.get('endpoints', [])
    return r.Back(
        at=event['ts'], seconds=event.get('seconds'), reason=event.get('reason', ''), to=event.get('to'),
        complete=event.get('complete', all(row.get('ok', False) for row in rows)),
        lost=['%s: %s' % (row['endpoint'], row.get('error', 'it did not say why')) for row in rows if row.get('ok') is False])


def _stages(events: t.Sequence[Event], start: Event) -> list[r.Stage]:
    plan = {one['index']: one for one in start.get('plan', [])}
    seen = {one['index']: one for one in summarize(events)['stages']} if events else {}
    plans: dict[str, list[str]] = {}
    for event in events:
        if event['event'] == 'plan' and event.get('text'):
            plans.setdefault(event.get('stage', ''), []).extend([event['text'], *event.get('warnings', [])])
    verdicts = {event['stage']: event for event in events if event['event'] == 'verdict'}
    made = []
    for index in sorted({*plan, *seen})[:1000]:
        asked, one = plan.get(index, {}), seen.get(index, {})
        arm = one.get('arm') or asked.get('arm') or ''
        share = asked.get('share_bp', one.get('requested_bp', {}).get(arm, 0))
        label = one.get('label') or '%s %s' % (arm, format_share(share))
        # A run that was killed wrote its verdict, and no more.
        gate = verdicts.get(label, {})
        made.append(r.Stage(
            index=index, name=one.get('name') or asked.get('name') or label, label=label, arm=arm, share_bp=share,
            planned_s=asked.get('bake_s', one.get('bake_s', 0.0)), started=one.get('from'), ended=one.get('to'),
            watched_s=one.get('duration_s', gate.get('duration')), requested_bp=one.get('requested_bp', {}),
            configured_bp=one.get('configured_bp'), endpoints=one.get('endpoints', {}),
            observed_bp=one.get('observed_bp', gate.get('observed_bp')), verdict=one.get('verdict', gate.get('verdict')),
            reason=one.get('reason', gate.get('reason', '')), extensions=gate.get('extensions', 0),
            arms=one.get('arms') or gate.get('arms', {}), conditions=one.get('conditions') or gate.get('conditions', []),
            plan=plans.get(label, [])))
    return made


def _split(events: t.Sequence[Event], start: Event) -> list[dict[str, t.Any]]:
    """What the routers had, from event to event. Of several endpoints, the one that changed last stands for all."""
    found: list[dict[str, t.Any]] = []

    def put(ts: float, bp: t.Mapping[str, int]) -> None:
        if not found or found[-1]['bp'] != bp:
            found.append({'ts': ts, 'bp': dict(bp)})

    if start.get('stable'):
        put(start['ts'], {start['stable']: 10_000})
    lease, seen = None, None
    for event in events:
        if lease is not None and seen is not None and event['ts'] > seen + lease and start.get('stable'):
            put(seen + lease, {start['stable']: 10_000})
            lease = None
        if event['event'] == 'change' and event.get('after_bp'):
            put(event['ts'], event['after_bp'])
            lease, seen = event.get('lease_s'), event['ts']
        elif event['event'] == 'sample' and event.get('lease_s') is not None and lease is not None:
            lease, seen = max(event['lease_s'], 0.0), event['ts']
        elif event['event'] == 'way_back' and event.get('to'):
            put(event['ts'], {event['to']: 10_000})
            lease = None
    return found


def _damage(scan: Scan, refused: int, events: t.Sequence[Event], start: Event) -> list[str]:
    found = []
    if not scan.lines or not (scan.events or scan.unreadable):
        found.append('The journal is empty.')
    if scan.unreadable:
        lines = ', '.join('%d' % number for number in scan.unreadable[:5]) + (' and others' if len(scan.unreadable) > 5 else '')
        found.append('Line%s %s of the journal could not be read%s: what %s said is not in this report.' % (
            's' if len(scan.unreadable) > 1 else '', lines,
            ' (cut off in the middle)' if scan.unreadable == [scan.lines] else '', 'they' if len(scan.unreadable) > 1 else 'it'))
    if refused:
        found.append('%d event%s of the journal made no sense and %s left out.' % (
            refused, 's' if refused > 1 else '', 'were' if refused > 1 else 'was'))
    if events and not start:
        found.append('The journal has no beginning: what was asked for is not known.')
    return found


_SILENT = {'sample', 'intent', 'analysis', 'counters', 'watching', 'plan', 'stage_finished'}


def _timeline(events: t.Sequence[Event], stages: t.Sequence[r.Stage]) -> list[r.Moment]:
    total = len(stages)
    made = [r.Moment(event['ts'], _moment(event, total)) for event in events if event['event'] not in _SILENT
            and not (event['event'] == 'servers' and event.get('phase') == 'intent')]
    if len(made) <= _MOST_MOMENTS:
        return made
    half = _MOST_MOMENTS // 2
    return [*made[:half], r.Moment(made[half].at, '%d more events: see the journal' % (len(made) - _MOST_MOMENTS)), *made[-half:]]


def _moment(event: Event, stages: int) -> str:
    name = event['event']
    if name == 'rollout_started':
        return 'Rollout of %s %s began, by %s' % (event.get('service', '?'), event.get('version', '?'), event.get('by', 'unknown'))
    if name == 'stage_started':
        return 'Stage %d of %d began: %s' % (event['index'], stages, event.get('label', event.get('name', '')))
    if name == 'change':
        return '%s: %s' % (event.get('endpoint', 'a router'), shares(event.get('before_bp', {}), event.get('after_bp', {})))
    if name == 'verdict':
        return '%s: verdict %s: %s' % (event['stage'], event.get('verdict', 'none'), event.get('reason', ''))
    if name == 'way_back':
        took = event.get('seconds')
        return 'Traffic back on %s%s%s' % (
            event.get('to', 'stable'), '' if took is None else ', after ' + format_duration(took),
            '' if event.get('complete', True) else ', NOT on every endpoint')
    if name == 'signal':
        return '%s received while watching %s' % (event.get('signal', 'A signal'), event.get('stage', ''))
    if name == 'rollout_finished':
        return 'Rollout closed: %s' % event.get('outcome', 'without an outcome').replace('_', ' ')
    if name == 'servers':
        return 'Servers changed in the balancers' if event.get('phase') == 'done' else 'Servers could not be changed: %s' % _said(event)
    if name == 'asked':
        return '%s: asked %s: %s' % (event.get('stage', ''), ', '.join(event.get('by', [])) or 'for a word', event['text'])
    if name == 'answered':
        return '%s: %s' % (event.get('stage', ''), _answer(event))
    if name == 'released':
        return 'Routers given free for the next rollout'
    if name == 'note':
        return 'Note: %s' % event['text']
    return ('%s: %s' % (name.replace('_', ' '), _said(event))).rstrip(': ')


def _waits(events: t.Sequence[Event]) -> r.Moment | None:
    asked = open_question(events)
    return None if asked is None else r.Moment(asked['ts'], _moment(asked, 0))


def _answer(event: Event) -> str:
    if not event.get('answer'):
        return 'nobody answered "%s"' % event['text']
    return '%s said %s to "%s"%s' % (event.get('by', 'somebody'), event['answer'], event['text'],
                                     ' (%s)' % event['reason'] if event.get('reason') else '')


def _said(event: Event) -> str:
    return next((event[key] for key in ('text', 'reason', 'msg', 'stage') if event.get(key)), '')


def shares(before: t.Mapping[str, int], after: t.Mapping[str, int]) -> str:
    """Returns ``canary 0 % → 5 %, blue 100 % → 95 %``."""
    return ', '.join('%s %s → %s' % (arm, format_share(before.get(arm, 0)), format_share(after.get(arm, 0)))
                     for arm in dict.fromkeys([*after, *before])) or 'no split'
