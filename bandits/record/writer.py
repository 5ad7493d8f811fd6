"""Group commit: callers queue, one thread writes all that wait in one transaction, and one fsync serves them all.

A disk flushes a few hundred times a second whatever a flush carries. So nobody flushes alone: while one group is being
written, the next one gathers, and the busier a process is, the more each flush carries. A lone caller waits for its
own commit and nothing else. Knows nothing of SQL: what a group is written with is handed in.

Who is answered wakes who is next, not the writer each of them: that halves what a row costs, since woken threads do
not fight for the interpreter. A group's callers wait at one queue, which passes the wake-up on within a single call of
C: nothing can interrupt a caller who holds up the others, and one who is interrupted while it waits holds up nobody.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeAlias, TypeVar

from bandits.errors import PilotageError, RecordError

GATHER_S = 0.005  # the longest that a group waits for callers who were busy a moment ago

_T = TypeVar("_T")
Answer: TypeAlias = int | PilotageError  # to one caller: the position of its last row, or why it was refused


class _Group(Generic[_T]):
    """Batches that are written together, and the queue at which their callers wait, each for one token."""

    __slots__ = ("answers", "batches", "loops", "told")

    def __init__(self) -> None:
        self.batches: list[_T] = []
        self.answers: Sequence[Answer] = ()  # in order of the batches; there before the first token
        self.told: SimpleQueue[None] = SimpleQueue()
        self.loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[int], int]]] = {}

    def tell(self, answers: Sequence[Answer]) -> None:
        self.answers = answers
        for _ in range(len(answers) - sum(map(len, self.loops.values()))):
            self.told.put(None)  # who was interrupted leaves a token that nobody needs
        for loop, waiting in self.loops.items():
            with suppress(RuntimeError):  # it was closed, and nobody waits any more
                loop.call_soon_threadsafe(self.resolve, waiting)

    def resolve(self, waiting: Sequence[tuple[asyncio.Future[int], int]]) -> None:
        """In their event loop: answer all who wait there."""
        for future, place in waiting:
            answer = self.answers[place]
            if future.cancelled():
                continue
            if isinstance(answer, PilotageError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def wait(self, place: int) -> int:
        """What the batch at `place` was answered with; raises it if it is an error."""
        self.told.get()
        answer = self.answers[place]
        if isinstance(answer, PilotageError):
            raise answer
        return answer


class GroupWriter(Generic[_T]):
    """One thread that writes batches of many callers, group by group, in the order in which they came."""

    def __init__(self, commit: Callable[[Sequence[_T]], Iterable[Answer]]) -> None:
        """The thread starts with the first batch; it is a daemon, since nobody was told of what still waits.

        commit: writes a group durably and answers each batch in order; what it raises, every caller of the group gets.
        """
        self._commit = commit
        self._gate = threading.Lock()  # for all that follows
        self._gathering: _Group[_T] = _Group()
        self._wanted = 1  # callers that are worth waking the writer for
        self._bell = threading.Lock()  # free when it was rung: an Event breaks for all if a caller is interrupted in it
        self._bell.acquire()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Callers whose batch is in no group that is being written."""
        return len(self._gathering.batches)

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
        with self._gate:
            group, place = self._join(batch)
        return group.wait(place)

    def write_soon(self, batch: _T) -> asyncio.Future[int]:
        """The same for the event loop that runs: no thread waits, and one wake-up serves all of a group.

        Who gives up waiting does not take the batch back.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        with self._gate:
            group, place = self._join(batch)
            group.loops.setdefault(loop, []).append((future, place))
        return future

    def close(self) -> None:
        """Write what waits, answer everyone, and end the thread. Closing twice is closing once."""
        with self._gate:
            self._closed = True
            self._ring()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _join(self, batch: _T) -> tuple[_Group[_T], int]:
        """The group that `batch` will be written with, and its place there; only behind the gate."""
        if self._closed:
            raise RecordError("a record must be open to append, but this one was closed; open it anew.")
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="record-writer", daemon=True)
            thread.start()  # it waits at the gate; if none can start, nothing was queued
            self._thread = thread
        group = self._gathering
        place = len(group.batches)
        group.batches.append(batch)
        if place + 1 >= self._wanted:
            self._ring()
        return group, place

    def _ring(self) -> None:
        """Wake the writer, now or when it next waits; only behind the gate."""
        if self._bell.locked():
            self._bell.release()

    def _run(self) -> None:
        while group := self._group():
            begun = time.monotonic()
            answers = self._answers(group.batches)
            patience_s = min(time.monotonic() - begun, GATHER_S)
            self._expect(len(answers))
            group.tell(answers)
            self._bell.acquire(timeout=patience_s)

    def _expect(self, answered: int) -> None:
        """All who were at work a moment ago, waiting or about to be answered, are worth a moment's patience."""
        with self._gate:
            self._wanted = answered + self.waiting
            if answered > 1 and not self._closed:
                self._bell.acquire(blocking=False)

    def _group(self) -> _Group[_T] | None:
        """All that waits, at least one; None at the end, and for a thread whose caller was interrupted starting it."""
        while True:
            with self._gate:
                if self._thread is not threading.current_thread():
                    return None
                group = self._gathering
                if group.batches:
                    self._gathering = _Group()
                    return group
                if self._closed:
                    return None
                self._wanted = 1
                self._bell.acquire(blocking=False)
            self._bell.acquire()

    def _answers(self, batches: Sequence[_T]) -> list[Answer]:
        try:
            answers = list(self._commit(batches))
            if len(answers) != len(batches):
                raise RuntimeError(f"a commit must answer each of {len(batches)} batches, but answered {len(answers)}")
            return answers
        except Exception as error:  # whatever it is, everyone who waits must hear of it, and the thread must live
            text = str(error) if isinstance(error, RecordError) else f"the record must be written, but: {error!r}."
            failures: list[Answer] = []
            for _ in batches:  # to each its own: threads that raise one exception write into one traceback
                failed = RecordError(text)
                failed.__cause__ = error
                failures.append(failed)
            return failures
