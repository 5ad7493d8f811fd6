"""What the record says of a canary: a fold in the order of the record, so every process comes to the same verdict.

Four e-processes (monitoring/eprocess.py). Three may end the rollout, and share its alpha:

    errors    failed answers of the canary        against: no more than `error_rate`
    slow      answers that took over slow_s       against: no more than `slow_share`
    drop      control - canary - reward_drop      against: a mean of 0 or less

The fourth must be won to pass a stage: canary - control + effect, against: a mean of 0 or less. So a stage is passed on
evidence that no drop of that size is there, not for want of evidence. Rewards are paired in the order in which they
come: the canary's next with the control's next. An answer is one of its decision's first outcome.

Which stage a row belongs to is told by the rows: the lowest whose share holds every place that the canary has served.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from bandits.config import DomainConfig
from bandits.folds.following import Follower
from bandits.monitoring.eprocess import AboveZero, EProcess, TooOften
from bandits.rewards import activated, reward
from bandits.rollout.machine import Judged, Order
from bandits.rollout.slots import canary_ends, control_begins, place
from bandits.types import Decision, Outcome, Slot

FIRST_POLICY = "explore"  # what decisions log where no snapshot serves
ALPHAS = {"errors": 0.1, "slow": 0.1, "drop": 0.8}  # parts of alpha: hard faults show soon whatever theirs is
WAITING = 5_000  # decisions that may wait for their outcomes, and rewards for the other side's


@dataclass(slots=True)
class _Held:
    """What a decision leaves until its reward is known."""

    canary: bool
    time: float
    outcomes: list[Outcome] = field(default_factory=list)
    timed: bool = False


class Evidence(Follower):
    """The fold of one rollout."""

    def __init__(self, order: Order, domain: DomainConfig) -> None:
        terms = order.terms
        self.seed, self.scope, self.position = order.seed, order.scope, order.start
        self._order, self._domain = order, domain
        self.errors, self.slow = TooOften(terms.error_rate), TooOften(terms.slow_share)
        self.drop, self.safe = AboveZero(1.0 + terms.reward_drop), AboveZero(1.0 - terms.effect)
        self.stage = 0  # highest that the canary was seen to serve
        self.sample = 0  # outcomes of the canary there
        self.rewards = 0  # of the canary, in all
        self.breach: str | None = None  # why the canary must not serve; it stays
        self.breached_at = 0  # position of the row that said so
        self._waiting: dict[str, _Held] = {}
        self._unpaired: tuple[deque[float], deque[float]] = (deque(maxlen=WAITING), deque(maxlen=WAITING))

    def judge(self, order: Order, served_s: float) -> Judged:
        """pass, fail or hold, and why. served_s: how long this stage has served under a lease, seconds."""
        terms = order.terms
        if self.breach is not None:
            return Judged("fail", self.breach)
        if order.phase != "canary":
            return Judged("hold", "waits for approval")
        sample = self.sample if self.stage == order.stage else 0
        if sample < terms.min_sample:
            return Judged("hold", f"{sample} of {terms.min_sample} outcomes of the canary in this stage")
        if not served_s >= terms.min_seconds:
            return Judged("hold", f"served {served_s:.0f} of {terms.min_seconds:g} s in this stage")
        needed = -math.log(terms.effect_alpha)
        if not float(self.safe.log_e) >= needed:
            found = f"evidence e^{float(self.safe.log_e):.1f} of e^{needed:.1f}"
            return Judged("hold", f"a drop of {terms.effect:g} is not ruled out yet ({found})")
        return Judged("pass", f"{sample} outcomes, no breach, and a drop of {terms.effect:g} is ruled out")

    def _hold(self, decision: Decision) -> None:
        order = self._order
        if not activated(decision) or decision.slot not in (Slot.CANARY, Slot.STABLE):
            return
        at = place(self.seed, decision.user or decision.id)
        canary = decision.slot is Slot.CANARY and decision.policy == order.candidate
        if canary:
            self._note_stage(at)
        elif (
            decision.slot is Slot.CANARY
            or decision.policy != (order.stable or FIRST_POLICY)
            or at < control_begins(order.terms.stages[self.stage])
        ):
            return
        self._waiting[decision.id] = _Held(canary, decision.time)
        if len(self._waiting) > WAITING:
            del self._waiting[next(iter(self._waiting))]

    def _note_stage(self, at: int) -> None:
        stages, before = self._order.terms.stages, self.stage
        while self.stage + 1 < len(stages) and at >= canary_ends(stages[self.stage]):
            self.stage += 1
        if self.stage != before:
            self.sample = 0

    def _hear(self, outcome: Outcome) -> None:
        held = self._waiting.get(outcome.decision_id)
        if held is None:
            return
        if held.canary and not held.outcomes:
            self.sample += 1
            self.errors.see(float(_is_error(outcome)))
        if held.canary and outcome.latency_s is not None and not held.timed:
            held.timed = True
            self.slow.see(float(outcome.latency_s > self._order.terms.slow_s))
        held.outcomes.append(outcome)
        value = reward(held.outcomes, held.time, held.time, self._domain.reward)
        if value is not None and math.isfinite(value):
            del self._waiting[outcome.decision_id]
            self._pair(held.canary, value)
        self._look()

    def _pair(self, canary: bool, value: float) -> None:
        self.rewards += canary
        self._unpaired[canary].append(value)
        while all(self._unpaired):
            lead = self._unpaired[False].popleft() - self._unpaired[True].popleft()  # of the control
            self.drop.see(lead - self._order.terms.reward_drop)
            self.safe.see(self._order.terms.effect - lead)

    def _look(self) -> None:
        if self.breach is not None:
            return
        terms = self._order.terms
        for name, process, said in (
            ("errors", self.errors, f"more than {terms.error_rate:g} of the canary's answers fail"),
            ("slow", self.slow, f"more than {terms.slow_share:g} of the canary's answers take over {terms.slow_s:g} s"),
            ("drop", self.drop, f"the canary's mean reward is more than {terms.reward_drop:g} below the control's"),
        ):
            if refuted(process, terms.alpha, name):
                self.breached_at = self.position
                self.breach = f"{said} (e^{float(process.peak):.1f} at {self.position}, {self.sample} outcomes here)"
                return


def refuted(process: EProcess, alpha: float, name: str) -> bool:
    """Whether one of the three has ended a rollout whose false alarms in all are at most alpha."""
    return bool(process.reached(alpha * ALPHAS[name]).all())


def _is_error(outcome: Outcome) -> bool:
    """Whether the arm drawn did not answer, and is to blame: not if it answered when asked again."""
    return outcome.failed and not outcome.arm and outcome.quality is not None
