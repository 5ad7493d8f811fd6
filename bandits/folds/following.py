"""How a fold follows the record: in order of position, each row once, and nothing of another scope.

State, what is learned by day, and the evidence of a rollout are such folds. So every process that has read up to one
position has come to the same, and a restart goes on from where a checkpoint ends.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

from bandits.errors import UnreadableRowError
from bandits.record.port import Record, Row
from bandits.types import Decision, Outcome, Scope

_READ = 2_000  # rows read at once
_READ_GENTLY, _FEW = 250, 16  # rows read at once, and folded before a rest
_REST, _REST_S = 2.0, 0.1  # times as long as was worked; seconds at most

_T = TypeVar("_T")
Reading: TypeAlias = Callable[[Record, int, int | None], Iterator[list[Row]]]  # `batches`, or `gently`


class Follower(ABC):
    """A fold of one scope's rows. Not thread-safe.

    position: of the last row that was folded; those at or before it were taken in already.
    """

    scope: Scope
    position: int

    def follow(self, record: Record, until: int | None = None, read: Reading | None = None) -> None:
        """Fold what is new in `record`, up to position `until` or its head. read: `gently`; left out, `batches`.

        Raises RecordError.
        """
        until = record.head() if until is None else until
        for rows in (read or batches)(record, self.position, until):
            self.fold(rows)
        self.position = max(self.position, until)

    def fold(self, rows: Iterable[Row]) -> None:
        """Take in rows in order of position."""
        for row in rows:
            if row.position <= self.position:
                continue
            self.position = row.position
            if row.entry.scope == self.scope:
                if isinstance(row.entry, Decision):
                    self._hold(row.entry)
                else:
                    self._hear(row.entry)

    @abstractmethod
    def _hold(self, decision: Decision) -> None:
        """A decision of the scope was made."""

    @abstractmethod
    def _hear(self, outcome: Outcome) -> None:
        """Something came back for one."""


def tail(record: Record, after: int) -> Iterator[Row]:
    """The rows of `record` behind position `after`; one that does not read back is left out (the load tells of it)."""
    for rows in batches(record, after):
        yield from rows


def batches(record: Record, after: int, until: int | None = None) -> Iterator[list[Row]]:
    """The same as they are read, up to position `until`, or to the head if that is None or lies before it."""
    until = record.head() if until is None else min(until, record.head())
    yield from _batches(after, until, _READ, record.read)


def gently(record: Record, after: int, until: int | None = None) -> Iterator[list[Row]]:
    """The same in few rows at a time, with rests; rows that this very process wrote come from its memory."""
    until = record.head() if until is None else min(until, record.head())
    batches_ = _batches(after, until, _READ_GENTLY, record.recall)
    yield from resting(read[first : first + _FEW] for read in batches_ for first in range(0, len(read), _FEW))


def resting(parts: Iterable[_T]) -> Iterator[_T]:
    """The same, resting several times as long as it took to make each and to work at it.

    For a thread beside others that answer requests. They want the interpreter a dozen times for each answer, and wait
    for it each time as long as this one computes: so a part should be work for a fraction of a millisecond.
    """
    begun = time.monotonic()
    for part in parts:
        yield part
        time.sleep(min(_REST * (time.monotonic() - begun), _REST_S))
        begun = time.monotonic()


def names(row: Row) -> str:
    """The id that a row names, to know the record again."""
    return row.entry.id if isinstance(row.entry, Decision) else row.entry.decision_id


def _batches(after: int, until: int, most: int, read: Callable[[int, int], list[Row]]) -> Iterator[list[Row]]:
    while after < until:
        limit = min(most, until - after)
        try:
            yield read(after, limit)
            after += limit
        except UnreadableRowError as error:
            yield read(after, error.position - after - 1)
            after = error.position
