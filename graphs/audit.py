"""What happened in a run, step by step, and how often it has happened in this process.

Each step of a run ends as exactly one of completed, failed, skipped; `in_flight` rises when it starts and falls when it
ends, however it ends. The runners only say what happens; the sums are made here, once.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from graphs.state import State, Status

What = Literal["started", "retried", "completed", "failed", "skipped"]
_LONGEST_REASON = 2_000


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit trail."""

    run_id: str
    step: str
    what: What
    time: float  # UTC, seconds since the epoch
    duration_s: float | None = None  # of the step, when it ends
    reason: str | None = None  # why it failed, was skipped, or is tried again


@dataclass(frozen=True, slots=True)
class Degradation:
    """Something that the run had to do without, and why."""

    event: (
        str  # fallback_sequential, segment_failed, embed_failed, documents_left_out, summary_not_written, not_stored,
    )
    # listener_failed
    step: str
    reason: str


Listener = Callable[[Event], None]


class Counters:
    """Counts over all runs of this process; safe under threads. Read them with `snapshot`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: Counter[tuple[str, str]] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._runs: Counter[str] = Counter()
        self._runs_in_flight = 0
        self._degradations: Counter[str] = Counter()

    def count(self, event: Event) -> None:
        """Add one event of a step."""
        with self._lock:
            if event.what == "started":
                self._in_flight[event.step] += 1
                return
            if event.what in ("completed", "failed"):
                self._in_flight[event.step] -= 1
                self._seconds[event.step] += event.duration_s or 0.0
            self._steps[event.step, event.what] += 1

    def degrade(self, degradation: Degradation) -> None:
        """Add one degradation."""
        with self._lock:
            self._degradations[degradation.event] += 1

    def run_started(self) -> None:
        """A run is in flight."""
        with self._lock:
            self._runs_in_flight += 1

    def run_ended(self, status: Status) -> None:
        """A run is over."""
        with self._lock:
            self._runs_in_flight -= 1
            self._runs[status] += 1

    def snapshot(self) -> dict[str, Any]:
        """{"runs": {status: n}, "runs_in_flight": n, "degradations": {event: n},
        "steps": {step: {"completed", "failed", "skipped", "retried", "in_flight", "seconds"}}}.
        """
        with self._lock:
            names = sorted({step for step, _ in self._steps} | set(self._in_flight))
            return {
                "runs": dict(self._runs),
                "runs_in_flight": self._runs_in_flight,
                "degradations": dict(self._degradations),
                "steps": {
                    name: {
                        **{what: self._steps[name, what] for what in ("completed", "failed", "skipped", "retried")},
                        "in_flight": self._in_flight[name],
                        "seconds": self._seconds[name],
                    }
                    for name in names
                },
            }


COUNTERS = Counters()  # of this process: what a service shows as metrics


class Journal(Protocol):
    """Where a run is made durable, and what an earlier process left of it (runs.py)."""

    events: list[Event]
    degradations: list[Degradation]
    updates: Mapping[str, State]

    def write(self, told: Sequence[Event | Degradation], step: str | None = None, update: State | None = None) -> None:
        """Keep what happened, and with it what a step that ended has left; all or nothing."""

    def cancelled(self) -> bool:
        """Whether somebody asked the run to stop."""


class Recorder:
    """The audit trail of one run: writes it, counts it, tells the listener; with a journal, durably.

    What an earlier process did stands in the trail, and is not counted again. Raises what the journal raises.
    """

    def __init__(
        self, run_id: str, counters: Counters, listener: Listener | None = None, journal: Journal | None = None
    ) -> None:
        self.run_id = run_id
        self.events: list[Event] = [] if journal is None else list(journal.events)
        self.degradations: list[Degradation] = [] if journal is None else list(journal.degradations)
        self.updates: dict[str, State] = {} if journal is None else dict(journal.updates)  # of steps that have ended
        self.stopped: str | None = None  # why no further step is taken
        self._counters, self._listener, self._journal = counters, listener, journal
        self._started: dict[str, float] = {}  # steps in flight, by when they began
        self._unwritten: list[Event | Degradation] = []

    def start(self, name: str) -> None:
        """A step begins; one that is tried again goes on."""
        if name not in self._started:
            self._started[name] = time.perf_counter()
            self._add(Event(self.run_id, name, "started", time.time()))
            self.flush()

    def retry(self, name: str, error: BaseException, attempts: int) -> bool:
        """Whether a step that failed may be tried again; if so, that is recorded."""
        before = sum(event.step == name and event.what == "retried" for event in self.events)
        if before + 1 >= attempts:
            return False
        self._add(Event(self.run_id, name, "retried", time.time(), None, reason_of(error)))
        self.flush()
        return True

    def end(self, name: str, what: What, reason: str | None = None) -> None:
        """A step ends, completed or failed."""
        self._add(Event(self.run_id, name, what, time.time(), time.perf_counter() - self._started.pop(name), reason))

    def skip(self, name: str, reason: str) -> None:
        """Record that a step is not taken."""
        self._add(Event(self.run_id, name, "skipped", time.time(), None, reason))

    def degrade(self, event: str, step: str, reason: str) -> None:
        """Record something that the run does without; the same of the same step once."""
        degradation = Degradation(event, step, reason)
        if degradation in self.degradations:
            return
        self.degradations.append(degradation)
        self._unwritten.append(degradation)
        self._counters.degrade(degradation)

    def leave(self, name: str, update: State) -> State:
        """Keep what a step that has ended leaves, together with all that was not written yet; gives the update."""
        if self._journal is not None:
            self._journal.write(self._unwritten, name, update)
        self._unwritten = []
        self.updates[name] = update
        return update

    def flush(self) -> None:
        """Make durable what happened."""
        if self._journal is not None and self._unwritten:
            self._journal.write(self._unwritten)
        self._unwritten = []

    def unwritten(self) -> Sequence[Event | Degradation]:
        """What happened since the journal was last written."""
        return tuple(self._unwritten)

    def cancelled(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self._journal is not None and self._journal.cancelled()

    def close(self, steps: Sequence[str]) -> None:
        """Leave nothing open: what is in flight has failed, what was not taken is skipped, with the reason."""
        for name in list(self._started):
            self.end(name, "failed", "the run stopped in it")
        ended = {event.step for event in self.events if event.what in ("completed", "failed", "skipped")}
        failed = [event.step for event in self.events if event.what == "failed"]
        for name in steps:
            if name not in ended:
                self.skip(name, self.stopped or (f"{failed[-1]} failed" if failed else "the run stopped before it"))

    def trail(self) -> tuple[dict[str, Any], ...]:
        """The events, as JSON."""
        return tuple(asdict(event) for event in self.events)

    def _add(self, event: Event) -> None:
        self.events.append(event)
        self._unwritten.append(event)
        self._counters.count(event)
        if self._listener is not None:
            try:
                self._listener(event)
            except Exception as error:  # whoever listens must not decide whether the run succeeds
                self._listener = None
                self.degrade("listener_failed", event.step, reason_of(error))


def reason_of(error: BaseException) -> str:
    """One line that names the error."""
    text = type(error).__name__
    with suppress(Exception):
        text = f"{text}: {error}" if str(error) else text
    return " ".join(text.split())[:_LONGEST_REASON]
