"""Talk written down as text: IRC logs, flight logs as Spacelog keeps them, and plain "Name: what was said".

A text is taken for one of them when most of its lines look like it; otherwise it is a text like any other. Joins,
parts and quits were not said, and are left away.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

from graphs.passage import Cue

_SAMPLE = 300  # lines that the form is told by
_MOST = 0.6  # share of them that must have it
_DAY_S = 86_400

_STAMP = r"(?:(?P<date>\d{4}-\d\d-\d\d)[ T])?\s*\[?(?P<clock>\d{1,2}:\d\d(?::\d\d)?)\]?"
_MESSAGE = re.compile(
    rf"^(?:[#\w.-]{{1,40}} )??(?:{_STAMP}\s*)?"
    r"(?:<\s*[@+%~&!]?(?P<nick>[^<>\s]{1,64})>|\*\s(?P<doer>[^\s*]{1,64})(?=\s))\s*(?P<said>.*)$"
)
_EVENT = re.compile(rf"^(?:[#\w.-]{{1,40}} )??(?:{_STAMP}\s*)?(?:===|\*\*\*|-!-|---|-->|<--)(?:\s|$)")
_COLOURS = re.compile(r"\x03(?:\d{1,2}(?:,\d{1,2})?)?|[\x02\x0f\x11\x16\x1d\x1e\x1f]")
_MISSION = re.compile(r"^\[(-?)(\d{1,3}):(\d\d):(\d\d):(\d\d)\]\s*$")
_TURN = re.compile(r"^(?P<name>\w[\w .'’()/-]{0,39}?)\s*:\s+(?P<said>\S.*)$")
_MISSION_TURN = re.compile(r"^(?P<name>[^\s:_#][^:]{0,39}?)\s*:\s+(?P<said>\S.*)$")
_TIMED_TURN = re.compile(
    r"^\[?(?P<clock>(?:\d{1,2}:)?\d{1,2}:\d\d(?:[.,]\d{1,3})?)\]?\s+"
    r"(?P<name>\w[\w .'’()/-]{0,39}?)\s*:\s+(?P<said>\S.*)$"
)


def parse(text: str) -> tuple[Cue, ...]:
    """Cues of a text that is talk; () if it is not."""
    lines = text.split("\n")
    sample = [line for line in lines if line.strip()][:_SAMPLE]
    for is_one, read in _FORMS:
        if is_one(sample):
            return tuple(replace(cue, text=" ".join(cue.text.split())) for cue in read(lines) if cue.text.strip())
    return ()


def _is_irc(sample: Sequence[str]) -> bool:
    said = sum(bool(_MESSAGE.match(line)) for line in sample)
    return said >= 2 and said + sum(bool(_EVENT.match(line)) for line in sample) >= _MOST * len(sample)


def _irc(lines: Sequence[str]) -> Iterator[Cue]:
    """Seconds from the first message; past midnight, where no date is written, the clock runs on.

    A line that is neither message nor event goes on with the message above it, as pasted ones do.
    """
    clock = _Clock([match["clock"] for line in lines if (match := _MESSAGE.match(line)) and match["clock"]])
    message: Cue | None = None
    for number, line in enumerate(lines, start=1):
        plain = _COLOURS.sub("", line)
        match = _MESSAGE.match(plain)
        if match is None:
            if message is not None and message.lines is not None and plain.strip() and not _EVENT.match(plain):
                message = replace(message, text=f"{message.text} {plain}", lines=(message.lines[0], number))
            continue
        if message is not None:
            yield message
        at = clock.at(match["date"], match["clock"])
        message = Cue(match["said"], at, at, match["nick"] or match["doer"], (number, number))
    if message is not None:
        yield message


class _Clock:
    """Turns dates and times of day, of which either may be missing, into seconds from the first.

    Clocks that show neither 0 nor 13 hours, and go back past 12, show only twelve: they come round twice a day.
    """

    def __init__(self, clocks: Sequence[str]) -> None:
        hours = [int(clock.split(":")[0]) for clock in clocks]
        twelve = all(1 <= hour <= 12 for hour in hours) and any(a == 12 > b for a, b in pairwise(hours))
        self._round_s = _DAY_S / 2 if twelve else _DAY_S
        self._first: float | None = None
        self._before = 0.0

    def at(self, date: str | None, clock: str | None) -> float | None:
        if clock is None:
            return None
        now = _seconds(clock if clock.count(":") == 2 else f"{clock}:00") % self._round_s
        try:
            now += datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() if date else 0.0
        except ValueError:
            return self._before - (self._first or 0.0)
        if date is None:
            now += self._before // self._round_s * self._round_s
            if now < self._before - self._round_s / 2:
                now += self._round_s
        now = max(now, self._before)  # a log is written in order; a clock that was set back does not undo that
        self._first = now if self._first is None else self._first
        self._before = now
        return now - self._first


def _seconds(clock: str) -> float:
    seconds = 0.0
    for part in clock.replace(",", ".").split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _is_mission(sample: Sequence[str]) -> bool:
    stamps = sum(bool(_MISSION.match(line)) for line in sample)
    return stamps >= 2 and stamps * 4 >= len(sample)


def _mission(lines: Sequence[str]) -> Iterator[Cue]:
    """[days:hours:minutes:seconds] above the turns said then, in mission time; before lift-off it is negative."""
    at: float | None = None
    turn: Cue | None = None
    for number, line in enumerate(lines, start=1):
        stamp, said = _MISSION.match(line), _MISSION_TURN.match(line)
        if (stamp or said or not line.strip()) and turn is not None:
            yield turn
            turn = None
        if stamp:
            days, hours, minutes, seconds = (int(stamp[i]) for i in (2, 3, 4, 5))
            at = float(((days * 24 + hours) * 60 + minutes) * 60 + seconds) * (-1 if stamp[1] else 1)
        elif said:
            turn = Cue(said["said"], at, at, said["name"], (number, number))
        elif turn is not None and turn.lines is not None and not line.startswith(("_", "#")):
            turn = replace(turn, text=f"{turn.text} {line}", lines=(turn.lines[0], number))
    if turn is not None:
        yield turn


def _named(pattern: re.Pattern[str]) -> Callable[[Sequence[str]], bool]:
    def is_one(sample: Sequence[str]) -> bool:
        """Most lines begin with a name, two at least speak, and they come back."""
        names = Counter(match["name"] for line in sample if (match := pattern.match(line)))
        turns = names.total()
        return turns >= 4 and turns >= _MOST * len(sample) and 2 <= len(names) <= turns / 2

    return is_one


def _turns(pattern: re.Pattern[str]) -> Callable[[Sequence[str]], Iterator[Cue]]:
    def read(lines: Sequence[str]) -> Iterator[Cue]:
        """A line without a name goes on with the turn above it."""
        turn: Cue | None = None
        for number, line in enumerate(lines, start=1):
            match = pattern.match(line)
            if match is None:
                if turn is not None and turn.lines is not None and line.strip():
                    turn = replace(turn, text=f"{turn.text} {line}", lines=(turn.lines[0], number))
                elif line.strip():
                    turn = Cue(line, None, None, None, (number, number))
                continue
            if turn is not None:
                yield turn
            at = _seconds(match["clock"]) if "clock" in pattern.groupindex else None
            turn = Cue(match["said"], at, at, match["name"], (number, number))
        if turn is not None:
            yield turn

    return read


_FORMS: tuple[tuple[Callable[[Sequence[str]], bool], Callable[[Sequence[str]], Iterator[Cue]]], ...] = (
    (_is_mission, _mission),
    (_is_irc, _irc),
    (_named(_TIMED_TURN), _turns(_TIMED_TURN)),
    (_named(_TURN), _turns(_TURN)),
)
