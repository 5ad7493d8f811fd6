"""What an answer of each arm will cost, given the context: ridge on log-cost, scaled back to dollars.

Cost is estimated by this price model, never by importance weighting: with arms that cost 1 : 500 a weighted mean is
20 to 40 % off where the reward's is 1 % off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.learners.grid import limbs, on_grid
from bandits.learners.ridge import Gram, rowwise
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
        """Expected cost of each arm, (n, K), USD; of a row the same bits whatever rows come with it."""
        return np.exp(rowwise(phi, self.weights)) * self.scale


def fit_cost(phi: Matrix, actions: Actions, costs: Vector, catalogue: Vector) -> CostModel:
    """Fit on the events whose cost is known.

    phi: (n, D) on the grid.   costs: (n,) USD, NaN where unknown.   catalogue: (K,) USD per request, which an arm
    keeps until it has 15 known costs.
    """
    k = len(catalogue)
    known = np.isfinite(costs)
    phi, actions, costs = phi[known], actions[known], costs[known]
    gram = Gram.of(phi, actions, log_cost(costs), k)
    weights = solve_cost(gram)
    fitted = np.exp(np.einsum("nd,nd->n", phi, weights[actions]))
    paid, expected = (np.stack([limbs(usd)[actions == arm].sum(axis=0) for arm in range(k)]) for usd in (costs, fitted))
    return scaled_cost(weights, gram.count, paid, expected, catalogue)


def log_cost(costs: Vector) -> Vector:
    """What the ridge regresses, (n,) on the grid; 0 where the cost is unknown."""
    known = np.isfinite(costs)
    return np.where(known, on_grid(np.log(np.maximum(np.where(known, costs, 1.0), _LEAST)), 32.0), 0.0)


def solve_cost(gram: Gram) -> Matrix:
    """Weights, (K, D), of log-cost; 0 for an arm with too few known costs."""
    return np.where((gram.count < _TRUSTED)[:, None], 0.0, gram.solve(_SHARED, _OWN))


def scaled_cost(weights: Matrix, count: Vector, paid: Matrix, expected: Matrix, catalogue: Vector) -> CostModel:
    """The model whose predictions are right on average over each arm's own events, which exp of a mean log is not.

    count: (K,) known costs.   paid, expected: (K, 2) limbs of their sums, as paid and as exp(weights . phi) has them.
    Duan 1983, "Smearing Estimate: A Nonparametric Retransformation Method".
    """
    trusted = count >= _TRUSTED
    expected = np.where(trusted[:, None], expected, 0.5)
    return CostModel(weights, np.where(trusted, paid.sum(axis=1) / expected.sum(axis=1), catalogue))
