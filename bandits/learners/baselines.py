"""The simple policies that see no context. Nothing learned may serve unless it beats the better of them (law 7).

`best_mix` is the strongest opponent that a budget allows: the point of the cost-quality hull at that budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from bandits.learners.first_day import believed, first_mix
from bandits.money.budget import TARGET
from bandits.policy import FrozenPolicy, with_floor
from bandits.types import Context, LoggedFeedback, Mask, Matrix, Vector


def arm_values(feedback: LoggedFeedback, q_hat: Matrix) -> Vector:
    """Mean reward of each arm over the logged contexts, (K,), as exactly as the log can tell it.

        v(a) = mean_i q_hat(x_i, a)  +  sum_i 1[a = a_i] (r_i - q_hat(x_i, a)) / sum_i p_i(a)

    The doubly robust mean, but each round's share in the correction is p_i(a), the inverse of its variance: a rare
    draw under pressure does not outweigh a hundred others. The mean of rewards where nobody looked at contexts; biased
    only as far as the error of q_hat differs between rounds where the arm was likely and rounds where it was not.
    Made to choose among arms; what is chosen is judged by dr.scores.

    q_hat: (n, K), reward unit, fitted on other folds.
    Li, Morgan & Zaslavsky 2018, "Balancing Covariates via Propensity Score Weighting": overlap weights.
    """
    surprise = feedback.rewards - q_hat[np.arange(len(feedback)), feedback.actions]
    drawn = np.bincount(feedback.actions, surprise, minlength=feedback.k)
    expected = feedback.probabilities.sum(axis=0)
    correction = np.divide(drawn, expected, out=np.zeros_like(drawn), where=expected > 0.0)
    return np.asarray(q_hat.mean(axis=0) + correction)


def best_mix(values: Vector, prices: Vector, budget: float) -> Vector:
    """Probabilities, (K,), of the context-free mix of highest value whose mean price is within `budget`.

    A linear programme with one constraint, so at most two arms share the probability: every pair is tried. When not
    even the cheapest arm is affordable, the cheapest.

    values: (K,) mean reward.   prices, budget: USD per request.
    """
    k = len(values)
    best, best_value = np.eye(k)[int(np.argmin(prices))], -np.inf
    for a in range(k):
        for b in range(k):
            if prices[a] > budget:
                continue
            share = 1.0 if prices[b] <= budget else (budget - prices[a]) / (prices[b] - prices[a])
            value = (1.0 - share) * values[a] + share * values[b]
            if value > best_value + 1e-12:
                best, best_value = (1.0 - share) * np.eye(k)[a] + share * np.eye(k)[b], value
    return best


def best_fixed(values: Vector, prices: Vector, budget: float) -> int:
    """The affordable arm of highest value; the cheapest when none is affordable."""
    fits = prices <= budget
    return int(np.argmax(np.where(fits, values, -np.inf))) if fits.any() else int(np.argmin(prices))


@dataclass(frozen=True, slots=True, eq=False)
class ContextFree:
    """A context-free policy: `rule` says how it spends the budget (explore, mix, fixed), or that it spends what it is
    told to (shares).

    values: (K,) mean reward; of `shares` they are the shares.   prices: (K,) and budget: USD per request.
    counts: (K,) rewards behind the values, or None; only `explore` asks.
    """

    rule: str
    arms: tuple[str, ...]
    schema: str
    values: Vector
    prices: Vector
    budget: float
    floor: float
    counts: Vector | None = field(default=None, kw_only=True)

    @property
    def supported(self) -> Mask:
        """A policy without a model trusts every arm."""
        return _trusted(len(self.arms))

    def price(self, pressure: float = 1.0) -> float:
        """See Policy. A rule that sees no context has no use for a price."""
        return 0.0

    def probabilities(self, contexts: Context, allowed: Mask, pressure: float = 1.0) -> Matrix:
        """See Policy. Pressure divides the budget that the rule spends, in steps of 1 %."""
        values, prices = tuple(self.values.tolist()), tuple(self.prices.tolist())
        counts = (0.0,) * len(prices) if self.counts is None else tuple(self.counts.tolist())
        rows = [
            _solve(_Problem(self.rule, values, counts, prices, self.budget, self.floor, tuple(row), round(pressure, 2)))
            for row in allowed.tolist()
        ]
        return np.array(rows)

    def knowing(self, values: Vector, counts: Vector) -> ContextFree:
        """The same rule, after so many rewards of each arm, (K,), with this mean."""
        return replace(self, values=values, counts=counts)

    def believed(self) -> tuple[Vector, Vector] | None:
        """Mean reward of each arm as this policy believes it, and how sure it is, (K,) each; NaN of those that it heard
        nothing of. None for a rule that goes by other numbers.
        """
        if self.rule != "explore" or self.counts is None:
            return None
        heard = self.counts > 0.0
        mean, deviation = believed(self.values, self.counts)
        return np.where(heard, mean, np.nan), np.where(heard, deviation, np.nan)

    def freeze(self) -> FrozenPolicy:
        """See Policy."""
        numbers = {"values": self.values, "prices": self.prices, "money": np.array([self.budget, self.floor])}
        if self.counts is not None:
            numbers["counts"] = self.counts
        return FrozenPolicy(self.rule, self.arms, self.schema, numbers)

    @classmethod
    def thaw(cls, frozen: FrozenPolicy) -> ContextFree:
        """The policy that `freeze` froze."""
        a = frozen.arrays
        budget, floor = map(float, a["money"])
        return cls(
            frozen.kind, frozen.arms, frozen.schema, a["values"], a["prices"], budget, floor, counts=a.get("counts")
        )


class _Problem(NamedTuple):
    rule: str
    values: tuple[float, ...]
    counts: tuple[float, ...]
    prices: tuple[float, ...]
    budget: float
    floor: float
    allowed: tuple[bool, ...]
    pressure: float


@lru_cache(maxsize=16)
def _trusted(k: int) -> Mask:
    """All of k arms; read only."""
    found = np.ones(k, dtype=np.bool_)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=4096)
def _solve(problem: _Problem) -> tuple[float, ...]:
    """The row of probabilities. Cached: many decisions in a row ask the same."""
    mask = np.array(problem.allowed)
    values, prices = np.array(problem.values)[mask], np.array(problem.prices)[mask]
    # The floor spends its share of the budget whatever the rule does; the rule has the rest.
    spendable = TARGET * problem.budget / problem.pressure - problem.floor * float(prices.mean())
    rest = spendable / (1.0 - problem.floor)
    if problem.rule == "explore":
        inner = first_mix(values, np.array(problem.counts)[mask], prices, rest)
    elif problem.rule == "mix":
        inner = best_mix(values, prices, rest)
    elif problem.rule == "shares":
        inner = values
    else:
        inner = np.eye(len(prices))[best_fixed(values, prices, rest)]
    row = np.zeros((1, len(mask)))
    row[0, mask] = inner
    return tuple(with_floor(row, mask[None, :], problem.floor)[0].tolist())
