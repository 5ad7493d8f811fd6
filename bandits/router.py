"""Scope + context -> Decision: which arms may be drawn, with what probability, and the draw itself, recorded.

The heart of Pilotage. Read `decide` top to bottom: allowed arms, distribution, draw, record.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from bandits.budget import Pacer, affordable
from bandits.config import DomainConfig
from bandits.errors import ContextError
from bandits.features import check_context, width
from bandits.learners.baselines import ContextFree
from bandits.policy import Policy, draw
from bandits.record import Record, rows
from bandits.types import Context, Decision, Mask, Outcome, Scope, Vector, new_id


@dataclass(frozen=True, slots=True)
class Serving:
    """The policy that serves, and the version that decisions log."""

    policy: Policy
    version: str


def first_policy(domain: DomainConfig) -> Serving:
    """What serves before any night: explore all affordable arms as evenly as the budget allows."""
    prices = np.array([arm.usd_per_request for arm in domain.arms])
    values = np.zeros(len(prices))
    budget = domain.budget_usd_per_request
    policy = ContextFree("explore", domain.arm_names, domain.features, values, prices, budget, domain.floor)
    return Serving(policy, "explore")


class Router:
    """Decides for one scope. Thread-safe: decisions and outcomes may come from many callers.

    rng is the only source of chance; clock gives UTC seconds.
    """

    def __init__(
        self,
        scope: Scope,
        domain: DomainConfig,
        record: Record,
        rng: np.random.Generator,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.scope, self.domain = scope, domain
        self._record, self._rng, self._clock = record, rng, clock
        self._serving = first_policy(domain)
        self._lock = threading.Lock()
        self._day = _day(clock())
        self._pacer = self._spent_today()

    @property
    def serving(self) -> Serving:
        """The policy that serves now."""
        return self._serving

    @property
    def pacer(self) -> Pacer:
        """Spending of the current day."""
        return self._pacer

    def swap(self, serving: Serving) -> None:
        """Serve another policy from the next decision on. Refuses one for other arms or features."""
        if serving.policy.arms != self.domain.arm_names or serving.policy.schema != self.domain.features:
            raise ContextError(
                f"a policy for {self.scope} must have arms {self.domain.arm_names} and features "
                f"{self.domain.features!r}, but {serving.version} has {serving.policy.arms} and "
                f"{serving.policy.schema!r}; train again after the configuration changed."
            )
        self._serving = serving

    def decide(self, context: Context, user: str = "") -> Decision:
        """Draw an arm for one context, (d,), and record the draw; returns when the record has it.

        user: the pseudonym of whoever asks (ids.py); "" for nobody in particular.
        Raises ContextError for a context that is not finite or not of the domain's length.
        """
        context = check_context(context, width(self.domain.features))
        now = self._clock()
        with self._lock:
            self._turn_day(now)
            policy, pressure = self._serving.policy, self._pacer.pressure
            allowed, excluded = self._allowed(policy)
            probabilities = policy.probabilities(context[None, :], allowed[None, :], pressure)[0]
            action, propensity = draw(probabilities, self._rng)
            decision = Decision(
                id=new_id(now, self._rng.bytes(10)),
                time=now,
                scope=self.scope,
                schema=self.domain.features,
                context=context,
                arms=self.domain.arm_names,
                excluded=excluded,
                probabilities=probabilities,
                action=action,
                propensity=propensity,
                policy=self._serving.version,
                price=policy.price(pressure),
                pressure=pressure,
                user=user,
            )
            self._pacer.reserve(decision.id, float(policy.prices[action]))
        self._record.append(decision)
        return decision

    def report(self, outcome: Outcome) -> None:
        """Record what came back for a decision of this scope, and settle its cost."""
        self._record.append(outcome)
        if outcome.cost_usd is not None:
            with self._lock:
                self._pacer.settle(outcome.decision_id, outcome.cost_usd)

    def _allowed(self, policy: Policy) -> tuple[Mask, dict[str, str]]:
        """Arms that may be drawn now, (K,), and why the others may not."""
        rules: list[tuple[str, Mask]] = [
            ("exploring it would cost more than a tenth of the budget", self._affordable(policy.prices)),
            ("too few logged draws to be trusted", policy.supported),
            ("the running cap of the budget is reached", self._pacer.within_cap(policy.prices)),
        ]
        allowed = np.logical_and.reduce([mask for _, mask in rules])
        if not allowed.any():  # a request that the cap blocks is answered by the cheapest arm
            allowed[int(np.argmin(policy.prices))] = True
        excluded = {
            arm: next(reason for reason, mask in rules if not mask[index])
            for index, arm in enumerate(self.domain.arm_names)
            if not allowed[index]
        }
        return allowed, excluded

    def _affordable(self, prices: Vector) -> Mask:
        return affordable(prices, self.domain.floor, self.domain.budget_usd_per_request)

    def _turn_day(self, now: float) -> None:
        """Start a new pacer with each UTC day."""
        if _day(now) != self._day:
            self._day = _day(now)
            self._pacer = Pacer(self.domain.budget_usd_per_request, self.domain.burst)

    def _spent_today(self) -> Pacer:
        """Today's spending as the record has it: a restart must not forget what was spent."""
        pacer = Pacer(self.domain.budget_usd_per_request, self.domain.burst)
        prices = dict(zip(self.domain.arm_names, self._serving.policy.prices.tolist(), strict=True))
        for _, entry in rows(self._record):
            if entry.scope == self.scope and isinstance(entry, Decision) and _day(entry.time) == self._day:
                pacer.reserve(entry.id, prices.get(entry.arm, 0.0))  # an arm gone since: its cost tells, if known
            elif isinstance(entry, Outcome) and entry.cost_usd is not None and entry.decision_id in pacer.reserved:
                pacer.settle(entry.decision_id, entry.cost_usd)
        return pacer


def _day(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).date().isoformat()
