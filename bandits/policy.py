"""Policy: contexts -> probabilities over the allowed arms, and the one draw from them.

What is sampled and what is logged come from the same row of numbers (design law 1), so `draw` is the only place
in Pilotage where chance picks an arm.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bandits.errors import PropensityError
from bandits.types import Context, Mask, Matrix, Vector


class Policy(Protocol):
    """A distribution over arms for each context. Pure: the same arguments give the same rows, bit for bit."""

    @property
    def arms(self) -> tuple[str, ...]:
        """K names; columns follow this order."""

    @property
    def schema(self) -> str:
        """Name and version of the features that contexts must have."""

    @property
    def prices(self) -> Vector:
        """Expected price of a request by arm, (K,), USD."""

    @property
    def supported(self) -> Mask:
        """Arms, (K,), that the policy knows enough of to prefer; the others are on trial (see `served`)."""

    @property
    def floor(self) -> float:
        """Probability shared among the allowed arms."""

    def price(self, pressure: float = 1.0) -> float:
        """Reward that a dollar has to earn at this pressure; 0 for a policy that sees no context."""

    def probabilities(self, contexts: Context, allowed: Mask, pressure: float = 1.0) -> Matrix:
        """Rows of probabilities, (n, K), each summing to 1, 0 where not allowed, floored where allowed.

        contexts: (n, d) float32.   allowed: (n, K), at least one arm per row.
        pressure: what to divide the budget by; above 1 when too much was spent so far (see money/budget.py).
        """

    def freeze(self) -> FrozenPolicy:
        """The policy as plain arrays, ready for a snapshot."""


@dataclass(frozen=True, slots=True, eq=False)
class FrozenPolicy:
    """A policy as data: what a snapshot stores and signs. `thaw` in learners/ turns it back."""

    kind: str  # which class of policy reads the arrays
    arms: tuple[str, ...]
    schema: str
    arrays: Mapping[str, NDArray[Any]]


class Draw(NamedTuple):
    """What was drawn, and with which probability."""

    action: int
    propensity: float


def draw(probabilities: Vector, rng: np.random.Generator) -> Draw:
    """Draw one action from one row of probabilities, (K,); the propensity is that row's own entry.

    Raises PropensityError unless the row is a distribution (>= 0, sums to 1 within 1e-9).
    """
    row: list[float] = probabilities.tolist()  # of a few numbers plain arithmetic is quicker, and the same to the bit
    cumulative = list(accumulate(row))
    if not (abs(cumulative[-1] - 1.0) <= 1e-9 and min(row) >= 0.0):
        raise PropensityError(f"probabilities must be >= 0 and sum to 1 within 1e-9, but got {row}.")
    action = bisect_right(cumulative, rng.random() * cumulative[-1])
    # Rounding can leave the last cumulative step equal to the one before: never return an arm of probability 0.
    while row[action] == 0.0:
        action -= 1
    return Draw(action, row[action])


def served(policy: Policy, contexts: Context, allowed: Mask, pressure: float = 1.0) -> Matrix:
    """What decisions are drawn from, (n, K): the policy over the arms that it knows; the other allowed ones on trial.

    An arm on trial (new, or with too few draws) has its share of the floor and no more, whatever the policy thinks of
    it: so it is tried at a bounded rate until enough is known of it. Where no allowed arm is known, the policy decides.
    contexts, allowed, pressure: see Policy.probabilities.
    """
    on_trial = allowed & ~policy.supported
    if not np.count_nonzero(on_trial):  # of a few numbers quicker than `any`
        return policy.probabilities(contexts, allowed, pressure)
    on_trial[~(allowed & policy.supported).any(axis=1)] = False
    rows = policy.probabilities(contexts, allowed & ~on_trial, pressure)
    trials = on_trial * (policy.floor / allowed.sum(axis=1, keepdims=True))
    return rows * (1.0 - trials.sum(axis=1, keepdims=True)) + trials


def with_floor(probabilities: Matrix, allowed: Mask, floor: float) -> Matrix:
    """Mix rows, (n, K), with the uniform over allowed arms: each allowed arm keeps at least floor / (number allowed).

    Rows need not be normalised over the allowed arms; mass on arms that are not allowed moves to those that are.
    A row with no mass on any allowed arm becomes uniform over them.
    """
    count = allowed.sum(axis=1, keepdims=True)
    if not (count > 0).all():
        raise PropensityError("at least one arm must be allowed in every row; answer with the cheapest arm instead.")
    uniform = allowed / count
    masked = np.where(allowed, probabilities, 0.0)
    mass = masked.sum(axis=1, keepdims=True)
    kept = np.divide(masked, mass, out=uniform.copy(), where=mass > 0.0)
    return (1.0 - floor) * kept + floor * uniform
