"""What happened in a run, step by step, and how often it has happened in this process.

Each step of a run ends as exactly one of completed, failed, skipped; `in_flight` rises when it starts and falls when it
ends, however it ends. The runners only say what happens; the sums are made here, once.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from graphs.state import Status

What = Literal["started", "completed", "failed", "skipped"]
_LONGEST_REASON = 2_000


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit trail."""

    run_id: str
    step: str
    what: What
    time: float  # UTC, seconds since the epoch
    duration_s: float | None = None  # of the step, when it ends
    reason: str | None = None  # why it failed or was skipped


@dataclass(frozen=True, slots=True)
class Degradation:
    """Something that the run had to do without, and why."""

    event: str  # fallback_sequential, segment_failed, embed_failed, documents_left_out, listener_failed
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
            if event.what != "skipped":
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
        "steps": {step: {"completed", "failed", "skipped", "in_flight", "seconds"}}}.
        """
        with self._lock:
            names = sorted({step for step, _ in self._steps} | set(self._in_flight))
            return {
                "runs": dict(self._runs),
                "runs_in_flight": self._runs_in_flight,
                "degradations": dict(self._degradations),
                "steps": {
                    name: {
                        **{what: self._steps[name, what] for what in ("completed", "failed", "skipped")},
                        "in_flight": self._in_flight[name],
                        "seconds": self._seconds[name],
                    }
                    for name in names
                },
            }


COUNTERS = Counters()  # of this process: what a service shows as metrics


class Recorder:
    """The audit trail of one run: writes it, counts it, tells the listener."""

    def __init__(self, run_id: str, counters: Counters, listener: Listener | None = None) -> None:
        self.run_id = run_id
        self.events: list[Event] = []
        self.degradations: list[Degradation] = []
        self._counters = counters
        self._listener = listener

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Record a step from start to end; an exception is recorded as its failure and goes on upwards."""
        start = time.perf_counter()
        self._add(Event(self.run_id, name, "started", time.time()))
        try:
            yield
        except BaseException as error:  # an interrupt, too, must take the step out of flight
            self._add(Event(self.run_id, name, "failed", time.time(), time.perf_counter() - start, reason_of(error)))
            raise
        self._add(Event(self.run_id, name, "completed", time.time(), time.perf_counter() - start))

    def skip(self, name: str, reason: str) -> None:
        """Record that a step is not taken."""
        self._add(Event(self.run_id, name, "skipped", time.time(), None, reason))

    def degrade(self, event: str, step: str, reason: str) -> None:
        """Record something that the run does without."""
        degradation = Degradation(event, step, reason)
        self.degradations.append(degradation)
        self._counters.degrade(degradation)

    def close(self, steps: Sequence[str]) -> None:
        """Record as skipped every step that has not come to its end, with the reason that stopped the run."""
        ended = {event.step for event in self.events if event.what != "started"}
        failed = [event.step for event in self.events if event.what == "failed"]
        for name in steps:
            if name not in ended:
                self.skip(name, f"{failed[-1]} failed" if failed else "the run stopped before it")

    def trail(self) -> tuple[dict[str, Any], ...]:
        """The events, as JSON."""
        return tuple(asdict(event) for event in self.events)

    def _add(self, event: Event) -> None:
        self.events.append(event)
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
