"""What an answer of each arm will cost, given the context: ridge on log-cost, scaled back to dollars.

Cost is estimated by this price model, never by importance weighting: with arms that cost 1 : 500 a weighted mean is
20 to 40 % off where the reward's is 1 % off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.learners.grid import on_grid
from bandits.learners.ridge import Gram
from bandits.types import Actions, Matrix, Vector

_SHARED, _OWN = 100.0, 300.0  # penalties, see ridge.py; log-cost is smooth in the length of the prompt
_LEAST = 1e-9  # USD; a free answer still has a logarithm
_TRUSTED = 15.0  # events before an arm's own costs replace its catalogue price


@dataclass(frozen=True, slots=True, eq=False)
class CostModel:
    """cost(x, a) = scale[a] exp(weights[a] . phi(x)), USD.   weights: (K, D).   scale: (K,)."""

    weights: Matrix
    scale: Vector

    def predict(self, phi: Matrix) -> Matrix:
        """Expected cost of each arm, (n, K), USD."""
        return np.exp(phi @ self.weights.T) * self.scale


def fit_cost(phi: Matrix, actions: Actions, costs: Vector, catalogue: Vector) -> CostModel:
    """Fit on the events whose cost is known.

    phi: (n, D) on the grid.   costs: (n,) USD, NaN where unknown.   catalogue: (K,) USD per request, which an arm
    keeps until it has 15 known costs. The scale makes each arm's predictions right on average over its own events
    (Duan 1983, "Smearing Estimate"), which exp of a mean logarithm is not.
    """
    k = len(catalogue)
    known = np.isfinite(costs)
    phi, actions, costs = phi[known], actions[known], costs[known]
    gram = Gram.of(phi, actions, on_grid(np.log(np.maximum(costs, _LEAST)), 32.0), k)
    weights = gram.solve(_SHARED, _OWN)
    scale = np.empty(k)
    for arm in range(k):
        mine = actions == arm
        if gram.count[arm] < _TRUSTED:
            weights[arm], scale[arm] = 0.0, catalogue[arm]
        else:
            scale[arm] = costs[mine].mean() / np.exp(phi[mine] @ weights[arm]).mean()
    return CostModel(weights, scale)
