"""The learned policy that a night publishes: most reward for the money, with a floor for every arm.

Greedy in q_hat(x, a) - price * cost_hat(x, a). The price of a dollar is read off a curve that the night solved over
its whole log; the day's pressure only chooses the point on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandits.budget import TARGET
from bandits.learners.cost import CostModel
from bandits.learners.scaling import Scaler
from bandits.policy import FrozenPolicy, with_floor
from bandits.types import Context, Mask, Matrix, Vector


class Scores(NamedTuple):
    """What the policy thinks of each arm.   q_hat: reward, cost_hat: USD; each (n, K)."""

    q_hat: Matrix
    cost_hat: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class PriceCurve:
    """Mean cost of the policy at each price of a dollar.   prices: (m,) rising.   costs: (m,) USD, falling."""

    prices: Vector
    costs: Vector

    def price(self, budget: float) -> float:
        """Least price, in reward per USD, at which mean cost is within `budget`; 0 when it is anyway."""
        if self.costs[0] <= budget:
            return 0.0
        return float(np.interp(budget, self.costs[::-1], self.prices[::-1]))


@dataclass(frozen=True, slots=True, eq=False)
class LinearPolicy:
    """Linear scores over a standardised context.   weights: (K, D).   supported, prices (USD a request): (K,)."""

    arms: tuple[str, ...]
    schema: str
    scaler: Scaler
    weights: Matrix
    cost: CostModel
    supported: Mask
    prices: Vector
    curve: PriceCurve
    budget: float
    floor: float

    def scores(self, contexts: Context) -> Scores:
        """Estimated reward and cost of each arm for each context, (n, d)."""
        phi = self.scaler.features(contexts)
        return Scores(phi @ self.weights.T, self.cost.predict(phi))

    def price(self, pressure: float = 1.0) -> float:
        """Reward that a dollar has to earn now."""
        return self.curve.price(TARGET * self.budget / pressure)

    def probabilities(self, contexts: Context, allowed: Mask, pressure: float = 1.0) -> Matrix:
        """See Policy."""
        return greedy(*self.scores(contexts), allowed, self.price(pressure), self.floor)

    def freeze(self) -> FrozenPolicy:
        """See Policy."""
        arrays: dict[str, NDArray[Any]] = {
            "mean": self.scaler.mean,
            "scale": self.scaler.scale,
            "weights": self.weights,
            "cost_weights": self.cost.weights,
            "cost_scale": self.cost.scale,
            "supported": self.supported.astype(np.uint8),
            "prices": self.prices,
            "curve_prices": self.curve.prices,
            "curve_costs": self.curve.costs,
            "money": np.array([self.budget, self.floor]),
        }
        return FrozenPolicy("linear", self.arms, self.schema, arrays)

    @classmethod
    def thaw(cls, frozen: FrozenPolicy) -> LinearPolicy:
        """The policy that `freeze` froze."""
        a = frozen.arrays
        budget, floor = map(float, a["money"])
        return cls(
            frozen.arms,
            frozen.schema,
            Scaler(a["mean"], a["scale"]),
            a["weights"],
            CostModel(a["cost_weights"], a["cost_scale"]),
            a["supported"].astype(np.bool_),
            a["prices"],
            PriceCurve(a["curve_prices"], a["curve_costs"]),
            budget,
            floor,
        )


def greedy(q_hat: Matrix, cost_hat: Matrix, allowed: Mask, price: float, floor: float) -> Matrix:
    """Probabilities, (n, K): the allowed arm of highest q_hat - price * cost_hat, and the floor for the others."""
    worth = np.where(allowed, q_hat - price * cost_hat, -np.inf)
    chosen = np.zeros_like(q_hat)
    chosen[np.arange(len(q_hat)), worth.argmax(axis=1)] = 1.0
    return with_floor(chosen, allowed, floor)
