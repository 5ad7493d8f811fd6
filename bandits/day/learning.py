"""What a server learns between two nights: a fold of its scope's outcomes behind the snapshot that serves.

An outcome is heard once its decision's reward is first known (rewards.py is the definition); what corrects it later
waits for the night. Only rows in the order of the record count, so every process that has folded up to one position
serves the same policy there, a decision that logs the position can be replayed, and a restart loses nothing.

What is learned: which arms are quarantined (change.py), and with `between_nights = "learn"` also the level of each arm
of a learned policy, the ridge estimate of r - q_hat(x, a) with the snapshot as its prior; of the first policy the mean
reward of each arm, by which it explores (learners/first_day.py). What serves is a pure function of the snapshot, these
numbers and the quarantine. A policy that foretells no reward is held against an arm's own mean.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

import numpy as np

from bandits.config import DomainConfig
from bandits.day.change import Watch, guarded
from bandits.folds.following import Follower
from bandits.learners.baselines import ContextFree
from bandits.learners.linear_policy import PricedPolicy, Scores
from bandits.policy import FrozenPolicy, Policy
from bandits.rewards import activated, reward
from bandits.types import Context, Decision, Mask, Matrix, Outcome, Scope, Vector

PRIOR = 300.0  # outcomes of an arm that weigh as much as the snapshot's estimate of it
WAITING = 5_000  # decisions that may wait for their reward; beyond, the oldest is left to the night
_MEMORY = 1000.0  # outcomes over which an arm's mean is taken


@runtime_checkable
class Scored(Protocol):
    """A policy that foretells rewards."""

    def scores(self, contexts: Context) -> Scores:
        """Estimated reward and cost of each arm for each context, (n, d)."""


@dataclass(frozen=True, slots=True, eq=False)
class Guarded:
    """A policy some of whose arms are quarantined, (K,).

    since: (K,) position of the outcome that did it, 0 for the other arms.   probe: most probability that they have.
    """

    base: Policy
    quarantined: Mask
    since: tuple[int, ...]
    probe: float

    @property
    def arms(self) -> tuple[str, ...]:
        """See Policy."""
        return self.base.arms

    @property
    def schema(self) -> str:
        """See Policy."""
        return self.base.schema

    @property
    def prices(self) -> Vector:
        """See Policy."""
        return self.base.prices

    @property
    def supported(self) -> Mask:
        """See Policy."""
        return self.base.supported

    @property
    def floor(self) -> float:
        """See Policy."""
        return self.base.floor

    def price(self, pressure: float = 1.0) -> float:
        """See Policy."""
        return self.base.price(pressure)

    def probabilities(self, contexts: Context, allowed: Mask, pressure: float = 1.0) -> Matrix:
        """See Policy. A quarantined arm has `probe` at most; what it loses goes where it would without that arm."""
        rows = self.base.probabilities(contexts, allowed, pressure)
        kept_away = allowed & self.quarantined
        kept_away[~(allowed & ~kept_away).any(axis=1)] = False  # something must answer
        if not kept_away.any():
            return rows
        return guarded(rows, self.base.probabilities(contexts, allowed & ~kept_away, pressure), kept_away, self.probe)

    def told(self) -> list[str | None]:
        """Of each arm since when it is quarantined, for people; None for the others."""
        text = f"probed with at most {self.probe:.2g}"
        each = zip(self.quarantined.tolist(), self.since, strict=True)
        return [f"quarantined since position {at} of the record: {text}" if kept else None for kept, at in each]

    def freeze(self) -> FrozenPolicy:
        """See Policy: of the snapshot; what came since follows from the record."""
        return self.base.freeze()


@dataclass(slots=True, eq=False)
class Held:
    """What a decision leaves until its reward is known."""

    action: int
    time: float
    context: Context  # (d,) of the record: nobody writes into it
    outcomes: list[Outcome] = field(default_factory=list)

    def __deepcopy__(self, memo: object) -> Held:
        return Held(self.action, self.time, self.context, self.outcomes.copy())


@dataclass(slots=True)
class Learning(Follower):
    """The fold. Not thread-safe: its owner holds a lock, as the router does.

    start: position of the snapshot, whose log ends there.
    epoch: of the record in which it began; after an erasure another one must begin.
    """

    scope: Scope
    domain: DomainConfig
    policy: Policy
    version: str
    start: int
    epoch: int = 1
    position: int = field(init=False)
    waiting: dict[str, Held] = field(default_factory=dict)  # in order of the record
    watch: Watch = field(init=False)
    since: list[int] = field(init=False)  # (K,)
    means: Vector = field(init=False)  # (K,) of rewards, less what was foretold of them
    counts: Vector = field(init=False)  # (K,) outcomes learned from
    scored: bool = field(init=False)  # whether the policy foretells rewards
    bends: bool = field(init=False)  # whether what serves follows the levels
    _learned: Policy | None = None

    def __post_init__(self) -> None:
        k = len(self.policy.arms)
        self.scored = isinstance(self.policy, Scored)
        learns = self.domain.between_nights == "learn" and isinstance(self.policy, PricedPolicy)
        self.bends = learns or (isinstance(self.policy, ContextFree) and self.policy.rule == "explore")
        self.position = self.start
        self.watch, self.since = Watch.start(k), [0] * k
        self.means, self.counts = np.zeros(k), np.zeros(k)

    @property
    def seen(self) -> int:
        """What a decision logs: the position up to which was learned, 0 for no row behind the snapshot."""
        return self.position if self.position > self.start else 0

    @property
    def learned(self) -> Policy:
        """The policy that serves now."""
        if self._learned is None:
            base = self._bent() if self.bends else self.policy
            kept_away, probe = self.watch.quarantined.copy(), self.watch.options.probe
            self._learned = Guarded(base, kept_away, tuple(self.since), probe) if kept_away.any() else base
        return self._learned

    def copy(self) -> Learning:
        """One that learns on alone."""
        shared: list[object] = [self.scope, self.domain, self.policy]
        return copy.deepcopy(self, {id(one): one for one in shared})

    def _hold(self, decision: Decision) -> None:
        self._close(decision.time)
        if activated(decision) and (decision.arms, decision.schema) == (self.policy.arms, self.policy.schema):
            self.waiting[decision.id] = Held(decision.action, decision.time, decision.context)
            if len(self.waiting) > WAITING:
                del self.waiting[next(iter(self.waiting))]

    def _hear(self, outcome: Outcome) -> None:
        held = self.waiting.get(outcome.decision_id)
        if held is None:
            return
        held.outcomes.append(outcome)
        spec = self.domain.reward
        if spec.default is not None:
            return  # until its window closes: whoever hears answers first and silence later hears good news only
        value = reward(held.outcomes, held.time, held.time, spec)
        if value is not None:
            del self.waiting[outcome.decision_id]
            self._learn(held, value)

    def _close(self, now: float) -> None:
        """Let go of decisions whose window has closed; silence counts where the specification says what it is worth."""
        spec = self.domain.reward
        while self.waiting:
            first, held = next(iter(self.waiting.items()))
            if now <= held.time + spec.window_s:
                return
            del self.waiting[first]
            value = reward(held.outcomes, held.time, now, spec)
            if value is not None:
                self._learn(held, value)

    def _learn(self, held: Held, value: float) -> None:
        arm = held.action
        foretold, level = self._estimate(held), float(self._levels()[arm])
        if not self.scored and not self.counts[arm]:
            level = value  # nothing is foretold of an arm before its first reward
        elif self.scored and not self.bends:
            level = 0.0
        before = bool(self.watch.quarantined[arm])
        sound = self.watch.see(arm, foretold + level, value)
        if bool(self.watch.quarantined[arm]) != before:
            self.since[arm] = 0 if before else self.position
            self._learned = None
        if sound:
            self.counts[arm] += 1.0
            self.means[arm] += (value - foretold - self.means[arm]) / min(self.counts[arm], _MEMORY)
            self._learned = None if self.bends else self._learned

    def _estimate(self, held: Held) -> float:
        """What the snapshot foretells of a decision; 0 where it foretells nothing."""
        if not self.scored:
            return 0.0
        scored = cast("Scored", self.policy)
        return float(scored.scores(held.context[None]).q_hat[0, held.action])

    def _levels(self) -> Vector:
        """What to add to the estimate of each arm, (K,): the mean error where one was estimated, shrunk toward 0."""
        if not self.scored:
            return self.means
        counts = np.minimum(self.counts, _MEMORY)
        return self.means * (counts / (counts + PRIOR))

    def _bent(self) -> Policy:
        """The policy with what was learned of each arm: its level, or its mean reward where it is the first policy."""
        if isinstance(self.policy, ContextFree):
            return self.policy.knowing(self._levels().copy(), np.minimum(self.counts, _MEMORY))
        return cast("PricedPolicy", self.policy).raised(self._levels())
