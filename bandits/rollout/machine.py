"""What follows from an order and what was learned since: the state machine of a rollout, pure.

    (none) ─ begun ─► waiting ─ approved ─► canary: stage 0, 1, … ─ pass at the last ─► complete
                         └───── fail ─────────────┴──► rolled back          (abort ─► aborted)

The newest order is the whole state, so a restart of everything goes on from it. `complete`, `rolled back` and
`aborted` are ends: a rollout has exactly one, with its reason. A failure ends it in every state, also while it waits
for a person; a `hold` (no data, not enough, the store down) changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from bandits.errors import RolloutError
from bandits.settings.rollout import RolloutConfig
from bandits.types import Scope

Phase: TypeAlias = Literal["waiting", "canary", "complete", "rolled back", "aborted"]
Outcome: TypeAlias = Literal["pass", "fail", "hold"]


@dataclass(frozen=True, slots=True)
class Order:
    """What serves a scope, until a higher number says otherwise."""

    scope: Scope
    number: int  # from 1; only ever rises
    phase: Phase
    stable: str | None  # version that serves; None: the first policy, which no snapshot holds
    candidate: str | None  # version that this rollout is about; served in phase `canary` alone
    stage: int  # index of terms.stages
    seed: str  # of the slots: another one for each rollout
    start: int  # position of the record where the rollout began
    terms: RolloutConfig
    time: float  # when it was given, UTC, seconds since the epoch
    who: str
    why: str

    @property
    def active(self) -> bool:
        """A rollout is under way."""
        return self.phase in ("waiting", "canary")

    @property
    def share(self) -> float:
        """Share of users whom the candidate may serve, in [0, 1]."""
        return self.terms.stages[self.stage] if self.phase == "canary" else 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """What the evidence, or a probe, says."""

    outcome: Outcome
    why: str
    who: str = "evidence"


@dataclass(frozen=True, slots=True)
class Approved:
    """A person lets a rollout that waits begin."""

    who: str
    why: str


@dataclass(frozen=True, slots=True)
class Aborted:
    """A rollout is given up: by a person, or since a newer snapshot takes its place."""

    who: str
    why: str


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Somebody wants another version to serve, at once; `to` None: what served before all snapshots."""

    to: str | None
    who: str
    why: str


Event: TypeAlias = Judged | Approved | Aborted | RolledBack


def first(
    scope: Scope, stable: str | None, terms: RolloutConfig, now: float, *, who: str, why: str, number: int = 0
) -> Order:
    """An order that nothing changes: `stable` serves everybody. number: 0 is never given, it is where one starts."""
    return Order(scope, number, "complete", stable, stable, 0, "", 0, terms, now, who, why)


def begun(
    before: Order,
    version: str,
    terms: RolloutConfig,
    now: float,
    position: int,
    *,
    who: str,
    why: str,
    fault: str | None = None,
) -> Order:
    """A rollout of `version` where none is under way; one that ends as it begins where the version has a `fault`.

    All at once where the terms say so. Where no snapshot serves yet it begins with more users (`first_share`): what
    explores on purpose should not do so for long. position: of the record's last row.
    """
    if before.active:
        raise RolloutError(
            f"one rollout of {before.scope} at a time, but order {before.number} of {before.candidate} is "
            f"{before.phase}; abort it first."
        )
    number = before.number + 1
    seed = f"{before.scope} {version} {number}"
    order = Order(before.scope, number, "waiting", before.stable, version, 0, seed, position, terms, now, who, why)
    if fault is not None:
        return replace(order, phase="rolled back", who="probe", why=fault)
    return order if terms.mode == "ask" else _started(order)


def after(order: Order, event: Event, now: float) -> Order:
    """The order that follows an event; the same one where nothing changes.

    now: UTC, seconds since the epoch. Raises RolloutError for what a person asks where it makes no sense.
    """
    match event:
        case Judged():
            return _judged(order, event, now)
        case RolledBack() if order.active:
            return _next(order, event, now, phase="rolled back", stable=event.to)
        case RolledBack():
            return _next(order, event, now, phase="rolled back", stable=event.to, candidate=order.stable, seed="")
        case Approved() if order.phase == "waiting":
            return _started(_next(order, event, now))
        case Aborted() if order.active:
            return _next(order, event, now, phase="aborted")
        case _:
            wanted = "waits for approval" if isinstance(event, Approved) else "is under way"
            raise RolloutError(
                f"there must be a rollout of {order.scope} that {wanted}, but order {order.number} of "
                f"{order.candidate} is {order.phase}; `pilotage rollout {order.scope}` tells."
            )


def _judged(order: Order, verdict: Judged, now: float) -> Order:
    if verdict.outcome == "fail" and order.active:
        return _next(order, verdict, now, phase="rolled back")
    if verdict.outcome != "pass" or order.phase != "canary":
        return order
    if order.stage + 1 < len(order.terms.stages):
        return _next(order, verdict, now, stage=order.stage + 1)
    return _next(order, verdict, now, phase="complete", stable=order.candidate)


def _started(order: Order) -> Order:
    terms, stage = order.terms, 0
    if order.stable is None:
        stage = max(sum(share <= terms.first_share for share in terms.stages) - 1, 0)
    if terms.stages[stage] == 1.0:
        return replace(order, phase="complete", stable=order.candidate)
    return replace(order, phase="canary", stage=stage)


def _next(order: Order, event: Event, now: float, **changes: object) -> Order:
    said = {"number": order.number + 1, "time": now, "who": event.who, "why": event.why}
    return replace(order, **said, **changes)  # type: ignore[arg-type]
