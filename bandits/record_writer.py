"""Group commit: callers queue, one thread writes all that wait in one transaction, and one fsync serves them all.

A disk flushes a few hundred times a second whatever a flush carries. So nobody flushes alone: while one group is being
written, the next one gathers, and the busier a process is, the more each flush carries. A lone caller waits for its
own commit and nothing else. Knows nothing of SQL: what a group is written with is handed in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeAlias, TypeVar

from bandits.errors import PilotageError, RecordError

GATHER_S = 0.005  # the longest that a group waits for callers who were busy a moment ago

_T = TypeVar("_T")
Answer: TypeAlias = int | PilotageError  # to one caller: the position of its last row, or why it was refused


class _Ticket(Generic[_T]):
    """A batch in the queue, and the place where its caller waits for the answer."""

    __slots__ = ("_answer", "_told", "batch")

    def __init__(self, batch: _T) -> None:
        self.batch = batch
        self._answer: Answer = 0
        self._told = threading.Lock()  # held until there is an answer: an Event does the same, ten times slower
        self._told.acquire()

    def tell(self, answer: Answer) -> None:
        self._answer = answer
        self._told.release()

    def wait(self) -> int:
        self._told.acquire()
        if isinstance(self._answer, PilotageError):
            raise self._answer
        return self._answer


class GroupWriter(Generic[_T]):
    """One thread that writes batches of many callers, group by group, in the order in which they came."""

    def __init__(self, commit: Callable[[Sequence[_T]], Iterable[Answer]]) -> None:
        """The thread starts with the first batch; it is a daemon, since nobody was told of what still waits.

        commit: writes a group durably and answers each batch in order; what it raises, every caller of the group gets.
        """
        self._commit = commit
        self._gate = threading.Lock()  # for all that follows
        self._queue: list[_Ticket[_T]] = []
        self._wanted = 1  # callers that are worth waking the writer for
        self._enough = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Callers whose batch is in no group yet."""
        return len(self._queue)

    @property
    def started(self) -> bool:
        """Whether there is a thread: somebody has appended."""
        return self._thread is not None

    @property
    def closed(self) -> bool:
        """Whether nothing can be appended any more."""
        return self._closed

    def write(self, batch: _T) -> int:
        """The position of the last row of `batch`, once it is durable.

        Raises what the batch was refused with, or RecordError: the commit failed, or the writer is closed.
        """
        ticket = _Ticket(batch)
        with self._gate:
            if self._closed:
                raise RecordError("a record must be open to append, but this one was closed; open it anew.")
            thread = self._thread
            if thread is None:
                thread = threading.Thread(target=self._run, name="record-writer", daemon=True)
                thread.start()  # it waits at the gate; if none can start, nothing was queued
            self._queue.append(ticket)
            self._thread = thread
            if len(self._queue) >= self._wanted:
                self._enough.set()
        return ticket.wait()

    def close(self) -> None:
        """Write what waits, answer everyone, and end the thread. Closing twice is closing once."""
        with self._gate:
            self._closed = True
            self._enough.set()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while group := self._group():
            begun = time.monotonic()
            answers = self._answers([ticket.batch for ticket in group])
            patience_s = min(time.monotonic() - begun, GATHER_S)
            self._expect(len(group))
            for ticket, answer in zip(group, answers, strict=True):
                ticket.tell(answer)
            self._enough.wait(patience_s)

    def _expect(self, answered: int) -> None:
        """All who were at work a moment ago, waiting or about to be answered, are worth a moment's patience."""
        with self._gate:
            self._wanted = answered + len(self._queue)
            if answered > 1 and not self._closed:
                self._enough.clear()

    def _group(self) -> list[_Ticket[_T]]:
        """All that waits, at least one; empty at the end."""
        while True:
            with self._gate:
                group, self._queue = self._queue, []
                if group or self._closed:
                    return group
                self._wanted = 1
                self._enough.clear()
            self._enough.wait()

    def _answers(self, batches: Sequence[_T]) -> list[Answer]:
        try:
            return list(self._commit(batches))
        except Exception as error:  # whatever it is, everyone who waits must hear of it, and the thread must live
            text = str(error) if isinstance(error, RecordError) else f"the record must be written, but: {error!r}."
            answers: list[Answer] = []
            for _ in batches:  # to each its own: threads that raise one exception write into one traceback
                failed = RecordError(text)
                failed.__cause__ = error
                answers.append(failed)
            return answers
