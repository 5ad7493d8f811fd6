"""Vowpal Wabbit's decision-service JSON: one round a line, read by `vw --dsjson --cb_explore_adf`.

    {"_label_cost": -reward, "_label_probability": propensity, "_label_Action": 1-based, "_labelIndex": 0-based,
     "Timestamp": …, "Version": "1", "EventId": id, "a": [actions, the drawn one first], "p": [their probabilities],
     "c": {"context": [x0, x1, …], "_multi": [{"arm": {name: 1}}, …]}, "pilotage": {…}}

For VW, `context` is the shared namespace c and `arm` the namespace a of each action: `-q ca` lets them meet. What VW
has no word for stands in `pilotage`, which it skips, so nothing is lost: floats are written so that each bit returns.
As the parser of VowpalWabbit 9 reads it; tests/interchange/test_round_trip.py asks the real one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bandits.errors import InterchangeError
from bandits.interchange.rounds import FORMAT, Imported, Rejected, Rounds, check, imported, new_file
from bandits.types import LoggedFeedback

_T = TypeVar("_T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Line(NamedTuple):
    """One line, taken apart."""

    row: int
    arms: tuple[str, ...]
    schema: str
    missing: int
    position: int
    id: str
    time: float
    context: list[float]
    action: int
    propensity: float
    probabilities: list[float]
    reward: float
    cost: float  # NaN where unknown


def write(feedback: LoggedFeedback, path: Path) -> None:
    """Write every round of `feedback` to a new file, which is there whole or not at all.

    Raises InterchangeError: a file is there, the disk refuses, or a round is not sound (see rounds.faults).
    """
    check(feedback)
    with new_file(path) as temporary, open(temporary, "x", encoding="ascii") as file:
        file.writelines(f"{json.dumps(line, allow_nan=False)}\n" for line in _lines(feedback))


def read(path: Path) -> Imported:
    """Read a file that `write` wrote, to the bit. A bad line is quarantined, and so is one of other arms or features.

    What holds of the file as a whole is said by its first sound line; `missing` and `position` are the highest told.
    Raises InterchangeError where the file cannot be read, or no line of it.
    """
    lines, rejected = list[_Line](), list[Rejected]()
    try:
        with open(path, "rb") as file:
            for row, raw in enumerate(file, start=1):
                if raw.strip():
                    try:
                        lines.append(_fitting(_parsed(row, raw), lines))
                    except _LineError as fault:
                        rejected.append(Rejected(row, str(fault)))
    except OSError as error:
        raise InterchangeError(f"the file to import must be readable, but: {error}.") from error
    if not lines:
        why = f"; line {rejected[0].row}: {rejected[0].reason}" if rejected else ": it is empty"
        raise InterchangeError(f"{path} must hold a round of dsjson as Pilotage writes it, but has none{why}")
    return imported(
        _columns(lines),
        rejected,
        arms=lines[0].arms,
        schema=lines[0].schema,
        missing=max(line.missing for line in lines),
        position=max(line.position for line in lines),
    )


def _lines(feedback: LoggedFeedback) -> Iterator[dict[str, Any]]:
    multi = [{"arm": {name: 1}} for name in feedback.arms]
    shared = {"missing": feedback.missing, "position": feedback.position, "schema": feedback.schema}
    columns = (feedback.times, feedback.contexts, feedback.actions, feedback.propensities, feedback.probabilities)
    rows = zip(feedback.ids, *(column.tolist() for column in (*columns, feedback.rewards, feedback.costs)), strict=True)
    for id_, time, context, action, propensity, probabilities, reward, cost in rows:
        ranked = [action, *(arm for arm in range(feedback.k) if arm != action)]
        own = {"format": FORMAT, "time": time, "cost_usd": None if math.isnan(cost) else cost}
        yield {
            "_label_cost": -reward,
            "_label_probability": propensity,
            "_label_Action": action + 1,
            "_labelIndex": action,
            "Timestamp": f"{(_EPOCH + timedelta(seconds=time)).replace(tzinfo=None).isoformat('T', 'microseconds')}0Z",
            "Version": "1",
            "EventId": id_,
            "a": [arm + 1 for arm in ranked],
            "c": {"context": context, "_multi": multi},
            "p": [probabilities[arm] for arm in ranked],
            "pilotage": own | shared,
        }


class _LineError(Exception):
    """Why a line is not imported."""


def _parsed(row: int, raw: bytes) -> _Line:
    try:
        data = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _LineError(f"a line must be JSON in UTF-8, but: {error}; it may have been cut off.") from None
    own = _field(data, "pilotage", dict)
    if own.get("format") != FORMAT:
        raise _LineError(f"pilotage.format must be {FORMAT}, but is {own.get('format')!r:.80}; upgrade Pilotage.")
    try:
        shared = _field(data, "c", dict)
        arms = [_only_key(_field(arm, "arm", dict)) for arm in _field(shared, "_multi", list)]
        ranked, probabilities = _field(data, "a", list), _numbers(data, "p")
        numbers = range(1, len(arms) + 1)
        if sorted(map(repr, ranked)) != sorted(map(repr, numbers)) or len(probabilities) != len(arms):
            raise _LineError(
                f"a and p must rank {len(arms)} actions, but are {ranked!r:.80} and {probabilities!r:.80}."
            )
        by_arm = dict(zip(ranked, probabilities, strict=True))
        action = _field(data, "_label_Action", int)
        if len(set(arms)) != len(arms) or action != ranked[0]:
            raise _LineError(
                f"arms must be distinct and a begin with _label_Action, but got {arms!r:.80} and {action!r}."
            )
        cost = own.get("cost_usd")
        return _Line(
            row,
            tuple(arms),
            _field(own, "schema", str),
            _field(own, "missing", int),
            _field(own, "position", int),
            _field(data, "EventId", str),
            _number(own, "time"),
            _numbers(shared, "context"),
            action - 1,
            _number(data, "_label_probability"),
            [by_arm[arm] for arm in numbers],
            -_number(data, "_label_cost"),
            math.nan if cost is None else _number(own, "cost_usd"),
        )
    except OverflowError as error:
        raise _LineError(f"numbers must fit 64 bits, but: {error}.") from None


def _fitting(line: _Line, lines: Sequence[_Line]) -> _Line:
    """The line, if it tells of the same arms, features and width as the first."""
    if lines:
        first = lines[0]
        here, there = ((one.arms, one.schema, len(one.context)) for one in (line, first))
        if here != there:
            raise _LineError(
                f"arms, schema and width must be those of line {first.row}, {there!r:.200}, but are {here!r:.200}; "
                "import them from a file of their own."
            )
    return line


def _columns(lines: Sequence[_Line]) -> Rounds:
    with np.errstate(over="ignore"):  # what no float32 holds becomes infinite, and is then refused as such
        contexts = np.array([line.context for line in lines], np.float32)
    return Rounds(
        rows=np.array([line.row for line in lines], np.int64),
        ids=tuple(line.id for line in lines),
        times=np.array([line.time for line in lines], np.float64),
        contexts=contexts,
        actions=np.array([line.action for line in lines], np.int64),
        propensities=np.array([line.propensity for line in lines], np.float64),
        probabilities=np.array([line.probabilities for line in lines], np.float64),
        rewards=np.array([line.reward for line in lines], np.float64),
        costs=np.array([line.cost for line in lines], np.float64),
    )


def _field(data: object, name: str, kind: type[_T]) -> _T:
    value = data.get(name) if isinstance(data, dict) else None
    if type(value) is not kind:
        raise _LineError(f"a line must have {name!r}, of type {kind.__name__}, but has {value!r:.80} there.")
    return value


def _number(data: object, name: str) -> float:
    value = data.get(name) if isinstance(data, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _LineError(f"{name} must be a number, but is {value!r:.80}.")
    return float(value)


def _numbers(data: object, name: str) -> list[float]:
    values = _field(data, name, list)
    if not all(type(value) in (int, float) for value in values):
        raise _LineError(f"{name} must hold numbers alone, but is {values!r:.80}.")
    return [float(value) for value in values]


def _only_key(named: dict[str, object]) -> str:
    if len(named) != 1:
        raise _LineError(f"arm must have one feature, its name, but has {named!r:.80}.")
    return str(next(iter(named)))
