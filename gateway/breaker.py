"""A breaker for each model of each provider: a model that keeps failing is left alone, and tried again one at a time.

    closed ── failures in a row, or "no credit" ──► open ── pause over ──► half open ── one probe answers ──► closed
                                                     ▲                         └── the probe fails ──┘ (longer pause)

`Breaker` is arithmetic over times that are passed in; `Breakers` keeps one for each model behind a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from bandits.settings.gateway import GatewayConfig
from gateway.adapter import Failure

Model = tuple[str, str]  # provider, and the name it knows the model by
State = Literal["closed", "open", "half open"]

UNPAID: frozenset[Failure] = frozenset({"no_credit", "denied"})  # the next call would fail just so
ALIVE: frozenset[Failure] = frozenset({"bad_request", "too_long", "filtered", "unknown_prompt"})  # it did answer
_LONGEST_WISH_S = 300.0  # a Retry-After is obeyed this far


@dataclass(slots=True)
class Breaker:
    """The health of one model. `now` is any clock that never goes back, in seconds."""

    settings: GatewayConfig
    failures: int = 0  # in a row
    until: float | None = None  # when its pause ends; None: closed
    pause_s: float = 0.0  # the length of that pause
    is_probing: bool = False
    reason: Failure | None = None  # of the last failure

    def state(self, now: float) -> State:
        """How it stands at `now`."""
        if self.until is None:
            return "closed"
        return "half open" if now >= self.until and not self.is_probing else "open"

    def enter(self, now: float) -> bool:
        """Whether a call may go to the model. Half open, that call is the probe, and the next ones may not."""
        state = self.state(now)
        self.is_probing |= state == "half open"
        return state != "open"

    def leave(self) -> None:
        """The probe was not made, or came to no end."""
        self.is_probing = False

    def answered(self, *, probe: bool) -> None:
        """A call came to its end. Once open, only the probe closes: another may have been answered long ago."""
        if self.until is None or probe:
            self.failures, self.until, self.pause_s, self.is_probing, self.reason = 0, None, 0.0, False, None

    def failed(self, kind: Failure, now: float, *, probe: bool, retry_after_s: float | None = None) -> None:
        """A call failed. One that began before it opened changes nothing, so that a burst is not punished twice."""
        if kind in ALIVE:
            self.answered(probe=probe)
            return
        if self.until is not None and not probe:
            return
        self.failures, self.reason = self.failures + 1, kind
        if kind in UNPAID:
            self._open(now, self.settings.breaker_unpaid_s)
        elif kind == "rate_limited" and retry_after_s is not None:
            self._open(now, min(max(retry_after_s, self.settings.breaker_pause_s), _LONGEST_WISH_S))
        elif probe or self.failures >= self.settings.breaker_failures:
            twice = 2.0 * min(self.pause_s, self.settings.breaker_longest_s)
            self._open(now, min(max(twice, self.settings.breaker_pause_s), self.settings.breaker_longest_s))

    def _open(self, now: float, pause_s: float) -> None:
        self.until, self.pause_s, self.is_probing = now + pause_s, pause_s, False


@dataclass(slots=True)
class Breakers:
    """The breakers of one process. Any thread may call any method."""

    settings: GatewayConfig
    _of: dict[Model, Breaker] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, models: Iterable[Model], now: float) -> tuple[dict[Model, str], frozenset[Model]]:
        """Ask for leave to call each of `models`: those that may not be called, with the reason, and the probes.

        Whoever got leave for a probe makes it and tells its end, or gives it back with `leave`: it is held from before
        a decision is drawn until the arm is known, so that the draw and the probe are one.
        """
        closed_to: dict[Model, str] = {}
        probes: set[Model] = set()
        with self._lock:
            for model in models:
                breaker = self._breaker(model)
                if model in probes or breaker.until is None:
                    continue
                if breaker.enter(now):
                    probes.add(model)
                else:
                    closed_to[model] = f"its breaker is open ({breaker.reason})"
        return closed_to, frozenset(probes)

    def leave(self, models: Iterable[Model]) -> None:
        """Give back probes that were not made, or that came to no end."""
        with self._lock:
            for model in models:
                self._breaker(model).leave()

    def answered(self, model: Model, *, probe: bool) -> None:
        """See Breaker."""
        with self._lock:
            self._breaker(model).answered(probe=probe)

    def failed(
        self, model: Model, kind: Failure, now: float, *, probe: bool, retry_after_s: float | None = None
    ) -> None:
        """See Breaker."""
        with self._lock:
            self._breaker(model).failed(kind, now, probe=probe, retry_after_s=retry_after_s)

    def states(self, now: float) -> dict[Model, State]:
        """How every model stands that was ever called."""
        with self._lock:
            return {model: breaker.state(now) for model, breaker in self._of.items()}

    def _breaker(self, model: Model) -> Breaker:
        return self._of.setdefault(model, Breaker(self.settings))
