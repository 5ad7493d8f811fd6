"""What a server knows besides its snapshot: a fold over the record (design law 5), with checkpoints.

state = checkpoint + tail of the record. The fold is pure and takes rows in order of position, so every process that
serves a scope comes to the same state, and a restart folds only what came after the last checkpoint. A checkpoint is a
cache: one that is missing, damaged, or of another record or configuration costs a longer fold and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from bandits.config import DomainConfig
from bandits.errors import UnreadableRowError
from bandits.folds import checkpoints
from bandits.folds.following import names, tail
from bandits.money.budget import Pacer
from bandits.record.port import Record, Row
from bandits.types import Decision, Outcome, Scope, time_of

VERSION = 2  # of a checkpoint file; another is ignored
CHECKPOINT_EVERY = 5_000  # rows of the record


def day_of(time: float) -> str:
    """UTC day of a time in seconds since the epoch, "2026-11-22"."""
    return _day(int(time // 86_400.0))


@lru_cache(maxsize=16)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * 86_400, UTC).date().isoformat()


@dataclass(slots=True)
class State:
    """Spending of one scope on the newest day that the record, or a clock, has told of.

    position: of the last row that was folded.   last: id that this row names, to know the record again.
    """

    scope: Scope
    domain: DomainConfig
    position: int = 0
    last: str = ""
    day: str = ""
    pacer: Pacer = field(init=False)

    def __post_init__(self) -> None:
        self.pacer = Pacer(self.domain.budget_usd_per_request, self.domain.burst)

    def turn(self, day: str) -> None:
        """Begin a new day with nothing spent. A clock that goes back does not bring the old day back."""
        if day > self.day:
            self.day = day
            self.pacer = Pacer(self.domain.budget_usd_per_request, self.domain.burst)

    def add(self, entry: Decision | Outcome) -> None:
        """Count one entry of this scope. Only decisions of the day count, and what came back for them."""
        if isinstance(entry, Decision):
            self.turn(day_of(entry.time))
            if day_of(entry.time) == self.day:
                self.pacer.reserve(entry.id, self._price(entry.arm))
        elif entry.cost_usd is not None and self._is_of_today(entry.decision_id):
            self.pacer.settle(entry.decision_id, entry.cost_usd)

    def cancel(self, decision: Decision) -> None:
        """Take back a decision that the record refused."""
        if decision.id in self.pacer.reserved:
            self.pacer.cancel(decision.id)

    def fold(self, rows: Iterable[Row]) -> None:
        """Count rows that follow `position`, in order; those of other scopes only move the position."""
        for row in rows:
            self.skip(row)
            if row.entry.scope == self.scope:
                self.add(row.entry)

    def skip(self, row: Row) -> None:
        """Move the position only: the row was counted before, or is of another scope."""
        self.position, self.last = row.position, names(row)

    def _price(self, arm: str) -> float:
        """Catalogue price of a request, USD: what every process knows. An arm gone since promises nothing."""
        return next((known.usd_per_request for known in self.domain.arms if known.name == arm), 0.0)

    def _is_of_today(self, decision_id: str) -> bool:
        if decision_id in self.pacer.reserved:
            return True
        time = time_of(decision_id)  # settled before: a second cost adds up
        return time is not None and day_of(time) == self.day


def resume(path: Path, scope: Scope, domain: DomainConfig, record: Record) -> State:
    """The state up to the head of `record`: from the checkpoint at `path` where there is a fitting one."""
    state = _read(path, scope, domain, record) or State(scope, domain)
    state.fold(tail(record, state.position))
    return state


def save(path: Path, state: State) -> None:
    """Write a checkpoint of a state that nobody changes meanwhile. Raises OSError."""
    pacer = state.pacer
    head = {
        "version": VERSION,
        "domain": _fingerprint(state.domain),
        "position": state.position,
        "last": state.last,
        "day": state.day,
        "requests": pacer.requests,
        "settled": pacer.settled,
        "promised": pacer.promised,
    }
    checkpoints.write(path, head, pacer.reserved.items(), few=512)


def _read(path: Path, scope: Scope, domain: DomainConfig, record: Record) -> State | None:
    head, reserved = checkpoints.read(path) or ({}, [])
    if (head.get("version"), head.get("domain")) != (VERSION, _fingerprint(domain)):
        return None
    try:
        (row,) = record.read(head["position"] - 1, 1)
    except (ValueError, UnreadableRowError):
        return None
    if names(row) != head["last"]:
        return None
    state = State(scope, domain, head["position"], head["last"], head["day"])
    pacer = state.pacer
    pacer.requests, pacer.settled, pacer.promised = head["requests"], head["settled"], head["promised"]
    pacer.reserved = dict(reserved)
    return state


def _fingerprint(domain: DomainConfig) -> str:
    """What the fold depends on besides the record."""
    parts = (domain.budget_usd_per_request, domain.burst, [(arm.name, arm.usd_per_request) for arm in domain.arms])
    return sha256(repr(parts).encode()).hexdigest()
