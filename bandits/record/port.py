"""What a record is: the port that all who read and write it know, and a walk over its rows.

Rows are only ever appended. Position is one gapless number shared by decisions and outcomes and given inside the
commit, so "everything up to position p" means the same to every reader, for ever. `SqlRecord` is durable and open to
several processes; `MemoryRecord` keeps the same contract (see testing/ports.py) in a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, Self

from bandits.record.erasure import Epoch
from bandits.types import Decision, Entry, Outcome


class Row(NamedTuple):
    """One entry of the record and its place in it, counted from 1."""

    position: int
    entry: Entry


class Record(Protocol):
    """An append-only sequence of decisions and outcomes. Any thread may call any method.

    The arrays of a decision belong to the record once it is appended: do not write into them.
    """

    def append(self, *entries: Entry) -> int:
        """Append all of `entries`, or none, in one transaction; return the position of the last, once it is durable.

        A decision may stand in the same batch as its outcomes, before them. Without entries: the head.
        Raises ContextError (context not a finite float32 vector), DuplicateDecisionError, UnknownDecisionError (an
        outcome of no decision), ForeignDecisionError (an outcome from another scope than its decision),
        DuplicateOutcomeError (the decision has an outcome with this key), RecordError.
        """

    async def append_soon(self, *entries: Entry) -> int:
        """See `append`: the event loop goes on meanwhile. Who gives up waiting does not take anything back."""

    def read(self, after: int = 0, limit: int = 10_000) -> list[Row]:
        """The rows at positions after+1 .. after+limit, or as many as there are, in order.
        Where rows were erased there are fewer, or none: only the head tells the end (see `rows`).
        Raises UnreadableRowError, with the first position that does not read back.
        """

    def recall(self, after: int = 0, limit: int = 10_000) -> list[Row]:
        """The same rows; those that this process appended lately may come from its memory, and prove nothing of the
        store. Raises what `read` raises.
        """

    def decision(self, decision_id: str, tenant: str) -> Decision:
        """The decision of this id and tenant; raises UnknownDecisionError, also when it is another tenant's."""

    def outcomes(self, decision_id: str) -> list[Outcome]:
        """What came back for a decision, in order of position; they share its scope, so ask `decision` first."""

    def conversation(self, tenant: str, conversation: str) -> Decision | None:
        """The newest decision that was made for a conversation of this tenant; None where there is none."""

    def head(self) -> int:
        """Position of the last row; 0 when there is none."""

    def erased(self, after: int, until: int) -> set[int]:
        """Positions in after+1 .. until whose rows were erased: nothing is missing there."""

    def epoch(self) -> Epoch:
        """The epoch that lasts: what was decided before it began can be read, but not be promised to replay."""

    def close(self) -> None:
        """Let go of the store; what was acknowledged stays."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


def rows(record: Record, after: int = 0, batch: int = 10_000) -> Iterator[Row]:
    """All rows of `record` behind position `after`, read in batches until the record has no more."""
    while after < (until := record.head()):
        while after < until:
            limit = min(batch, until - after)
            yield from record.read(after, limit)
            after += limit
