"""What a night publishes: most reward for the money, with a floor for every arm, whatever foretells the reward.

Greedy in q_hat(x, a) - price * cost_hat(x, a). The price of a dollar is read off a curve that the night solved over
its whole log; the day's pressure only chooses the point on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bandits.learners.cost import CostModel
from bandits.learners.scaling import Scaler
from bandits.money.budget import TARGET
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
class PricedPolicy(ABC):
    """Money and floor around a reward model, which a subclass gives.

    scaler: of the contexts, which the price model reads.   weights: (.., D) of the reward model.
    supported, prices (USD a request): (K,).   curve: spending by price of a dollar, solved over the night's log.
    """

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

    @abstractmethod
    def q_hat(self, contexts: Context, phi: Matrix) -> Matrix:
        """Estimated reward of each arm, (n, K).   phi: (n, d + 1), the standardised contexts."""

    @abstractmethod
    def freeze(self) -> FrozenPolicy:
        """See Policy."""

    @abstractmethod
    def raised(self, levels: Vector) -> Self:
        """The same policy with `levels`, (K,), added to its estimates of the reward."""

    def scores(self, contexts: Context) -> Scores:
        """Estimated reward and cost of each arm for each context, (n, d)."""
        phi = self.scaler.features(contexts)
        return Scores(self.q_hat(contexts, phi), self.cost.predict(phi))

    def price(self, pressure: float = 1.0) -> float:
        """Reward that a dollar has to earn now."""
        return self.curve.price(TARGET * self.budget / pressure)

    def probabilities(self, contexts: Context, allowed: Mask, pressure: float = 1.0) -> Matrix:
        """See Policy."""
        return greedy(*self.scores(contexts), allowed, self.price(pressure), self.floor)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What every kind freezes."""
        return {
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

    @classmethod
    def fields_of(cls, frozen: FrozenPolicy) -> dict[str, Any]:
        """What `arrays` froze, by name of the field."""
        a = frozen.arrays
        budget, floor = map(float, a["money"])
        return {
            "arms": frozen.arms,
            "schema": frozen.schema,
            "scaler": Scaler(a["mean"], a["scale"]),
            "weights": a["weights"],
            "cost": CostModel(a["cost_weights"], a["cost_scale"]),
            "supported": a["supported"].astype(np.bool_),
            "prices": a["prices"],
            "curve": PriceCurve(a["curve_prices"], a["curve_costs"]),
            "budget": budget,
            "floor": floor,
        }


@dataclass(frozen=True, slots=True, eq=False)
class LinearPolicy(PricedPolicy):
    """Linear scores over a standardised context.   weights: (K, D).

    covariances: (K, D, D) of the weights, or None where nobody knows them. No decision reads them.
    Raises ValueError for arrays of other shapes.
    """

    covariances: Matrix | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        expected = (*self.weights.shape, self.weights.shape[-1])
        if self.covariances is not None and self.covariances.shape != expected:
            raise ValueError(f"covariances must have shape {expected}, but got {self.covariances.shape}")

    def sigma(self, contexts: Context) -> Matrix | None:
        """Posterior deviation of each arm's estimated reward, (n, K); None where the policy does not know it."""
        if self.covariances is None:
            return None
        phi = self.scaler.features(contexts)
        return np.sqrt(np.maximum(np.einsum("nd,kde,ne->nk", phi, self.covariances, phi, optimize=True), 0.0))

    def q_hat(self, contexts: Context, phi: Matrix) -> Matrix:
        """See PricedPolicy."""
        return phi @ self.weights.T

    def raised(self, levels: Vector) -> Self:
        """See PricedPolicy."""
        return replace(self, weights=with_levels(self.weights, levels))

    def freeze(self) -> FrozenPolicy:
        """See Policy."""
        known = {} if self.covariances is None else {"covariances": self.covariances}
        return FrozenPolicy("linear", self.arms, self.schema, self.arrays() | known)

    @classmethod
    def thaw(cls, frozen: FrozenPolicy) -> LinearPolicy:
        """The policy that `freeze` froze."""
        return cls(**cls.fields_of(frozen), covariances=frozen.arrays.get("covariances"))


def with_levels(weights: Matrix, levels: Vector) -> Matrix:
    """`weights`, (K, D), with `levels`, (K,), added to the weight of the constant, which comes last."""
    raised = weights.copy()
    raised[:, -1] += levels
    return raised


def greedy(q_hat: Matrix, cost_hat: Matrix, allowed: Mask, price: float, floor: float) -> Matrix:
    """Probabilities, (n, K): the allowed arm of highest q_hat - price * cost_hat, and the floor for the others."""
    worth = np.where(allowed, q_hat - price * cost_hat, -np.inf)
    chosen = np.zeros_like(q_hat)
    chosen[np.arange(len(q_hat)), worth.argmax(axis=1)] = 1.0
    return with_floor(chosen, allowed, floor)
