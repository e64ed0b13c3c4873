# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Questions to a person, and where their answers come from: a terminal, and the journal, where any process may write one.

In the journal a question is the event ``asked`` (``question``, its number; ``text``; ``by``, who may answer; ``timeout_s``). An answer is
the event ``answer`` (``question``, ``answer``, ``by``, ``reason``). The gate closes it with ``answered``: what counted, or that nobody
answered. The first answer that may be given counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import typing as t
from dataclasses import dataclass

from ansible_collections.progressive.delivery.plugins.module_utils._duration import parse_duration
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._names import check_token

GO, STOP = ANSWERS = ('go', 'stop')
LONGEST_TEXT = 500
LONGEST_TIMEOUT_S = 86400.0
_LOOK_S = 0.2
_KEYS = ('question', 'timeout', 'by')


@dataclass(frozen=True)
class Approval:
    """What only a person can say."""

    question: str
    timeout: float
    """Seconds until no answer is a stop."""
    by: tuple[str, ...] = ()
    """Who may answer; empty for anybody."""


@dataclass(frozen=True)
class Answer:
    """What a person said."""

    go: bool
    by: str
    reason: str
    via: str
    """``terminal`` or ``journal``."""

    def __str__(self) -> str:
        return '%s said %s%s' % (self.by, GO if self.go else STOP, ' (%s)' % self.reason if self.reason else '')


class Tail:
    """What is appended to a journal from now on, by whatever process. *position* is where it begins: no later tail begins there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._rest = b''
        try:
            self.position = os.stat(path).st_size
        except OSError:
            self.position = 0
        self._at = self.position

    def read(self) -> list[dict[str, t.Any]]:
        """Returns the events of the lines that are new and whole; lines that are no events are left out. Never raises."""
        try:
            with open(self._path, 'rb') as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            return []
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b'\n')
        events = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events


class Terminal(t.Protocol):
    """Where the one who runs the task can type."""

    def open(self) -> bool:
        """Gets ready, forgetting what was typed before; returns whether there is a terminal."""

    def read(self) -> str | None:
        """Returns a line that was typed meanwhile, None when there is none. Never waits, so whoever stops the terminal holds up nothing."""

    def close(self) -> None:
        """Gives the terminal back."""


def check_text(what: str, value: object) -> str:
    """Returns a text that people will read on one line. Raises BadInput for what would not be one, and for control characters."""
    text = str(value or '').strip()
    if len(text) > LONGEST_TEXT or not all(sign.isprintable() for sign in text):
        raise BadInput('The %s %.60r cannot be shown: write one line of at most %d characters, without control characters.' % (
            what, text, LONGEST_TEXT))
    return text


def check_names(what: str, value: object) -> tuple[str, ...]:
    """Returns names of people. Raises BadInput."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(',') if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise BadInput('The %s must be a list of names.' % what)
    return tuple(check_token(what, name) for name in value)


def check_timeout(what: str, value: object) -> float:
    """Returns seconds. Raises BadInput: a question that nobody can answer in time, or that stands for ever, helps nobody."""
    seconds = parse_duration(value, what)
    if not 1 <= seconds <= LONGEST_TIMEOUT_S:
        raise BadInput('The %s of %g s is not usable: give a person at least 1 s, and at most a day.' % (what, seconds))
    return seconds


def read_approval(value: object, where: str, timeout: object) -> Approval | None:
    """Returns the approval that an option asks for, a text or ``{question, timeout, by}``; None of nothing. *timeout* is the default.

    Raises BadInput with a sentence that names *where* it stands.
    """
    if value in (None, '', {}):
        return None
    given = {'question': value} if isinstance(value, str) else value
    if not isinstance(given, dict) or not given.get('question') or set(given) - set(_KEYS):
        raise BadInput('The approval of %s is not understood: write the question as a text, or a dictionary of %s.' % (
            where, ', '.join(_KEYS)))
    wanted = given.get('timeout')
    return Approval(check_text('question of %s' % where, given['question']),
                    check_timeout('time-out of the approval of %s' % where, timeout if wanted is None else wanted),
                    check_names('name in the approval of %s' % where, given.get('by') or []))


def read_typed(line: str, by: str) -> Answer:
    """Returns the answer that a typed line is: ``go``, ``stop``, and why. Raises BadInput with what to type."""
    word, _blank, reason = line.strip().partition(' ')
    if word.lower() not in ANSWERS:
        raise BadInput('Type "go" or "stop", a blank and why; Enter alone shows how it goes.')
    return Answer(word.lower() == GO, by, check_text('reason', reason), 'terminal')


def check_may(by: str, names: t.Collection[str]) -> None:
    """Raises BadInput when *by* is not one of those who may answer."""
    if names and by not in names:
        raise BadInput('%s may not answer this question: it is for %s.' % (by, ' or '.join(names)))


def open_question(events: t.Iterable[t.Mapping[str, t.Any]]) -> t.Mapping[str, t.Any] | None:
    """Returns the event of the question that stands at the end of a journal."""
    asked: t.Mapping[str, t.Any] | None = None
    for event in events:
        if event['event'] == 'asked':
            asked = event
        elif event['event'] in ('answered', 'rollout_finished', 'stage_finished'):
            asked = None
    return asked


def instruction(approval: Approval, terminal: bool) -> str:
    """Returns how to answer, for the one who reads the question."""
    here = 'Type "go" or "stop", a blank and why; Enter alone shows how it goes. Or elsewhere: ' if terminal else ''
    # Ansible splits key=value at blanks that are not quoted for it.
    return ('%sansible-playbook progressive.delivery.approve -e delivery_answer=go (or stop) -e \'delivery_answer_reason="..."\'%s. '
            'No answer is a stop.' % (here, ', as %s' % ' or '.join(approval.by) if approval.by else ''))


async def await_answer(number: int, approval: Approval, tail: Tail | None, terminal: Terminal | None, by: str,
                       tell: t.Callable[[str], None]) -> Answer:
    """Waits for the first answer to question *number* that may be given, from the journal's *tail* or from *terminal*, where *by* types.

    *tell* says why an answer does not count; an empty text asks it to show how things go. Without either it waits until it is cancelled.
    """
    ways = []
    if tail:
        ways.append(asyncio.create_task(_written(number, approval, tail, tell)))
    if terminal:
        ways.append(asyncio.create_task(_typed(approval, terminal, by, tell)))
    try:
        # A journal on a disk that hangs does not keep the terminal from answering.
        done, _rest = await asyncio.wait(ways or [asyncio.create_task(asyncio.sleep(LONGEST_TIMEOUT_S))],
                                         return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for way in ways:
            way.cancel()


async def _written(number: int, approval: Approval, tail: Tail, tell: t.Callable[[str], None]) -> Answer:
    while True:
        for event in await asyncio.get_running_loop().run_in_executor(None, tail.read):
            if event.get('event') == 'answer' and event.get('question') == number:
                try:
                    if event.get('answer') not in ANSWERS:
                        raise BadInput('The answer %.40r is neither "go" nor "stop".' % (event.get('answer'),))
                    by = check_token('name of who answers', event.get('by'))
                    check_may(by, approval.by)
                    return Answer(event['answer'] == GO, by, check_text('reason', event.get('reason')), 'journal')
                except BadInput as exc:
                    tell(str(exc))
        await asyncio.sleep(_LOOK_S)


async def _typed(approval: Approval, terminal: Terminal, by: str, tell: t.Callable[[str], None]) -> Answer:
    while True:
        line = terminal.read()
        if line is None:
            await asyncio.sleep(_LOOK_S)
            continue
        if not line:
            tell('')
            continue
        try:
            answer = read_typed(line, by)
            check_may(by, approval.by)
            return answer
        except BadInput as exc:
            tell(str(exc))
