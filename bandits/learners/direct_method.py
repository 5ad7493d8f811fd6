"""Direct method: a logistic model of the reward of each arm, to be played greedily or corrected.

Two links, because rewards come in two kinds, and a log can tell which:

    independent   q(x, a) = sigmoid(w_a . phi(x))              each arm is right or wrong for itself
    competing     q(x, a) = softmax(w_1 . phi, ..., w_K . phi, w_0 . phi)_a    at most one arm is right

Both are fitted to the logged arm alone, by maximum likelihood of its reward: minus log-likelihood r log q(x, a) +
(1 - r) log(1 - q(x, a)), with a penalty on the weights. Under `competing` a success of one arm is a failure of all
others and a failure is a little success of the others, so that one event teaches K arms (Kakade, Shalev-Shwartz &
Tewari 2008, "Efficient Bandit Algorithms for Online Multiclass Prediction", learn from the same coupling). Where
several arms may be right it does not hold, and then its predictions are worse and the choice falls on the other.

Weights are solved by L-BFGS: a solution, not a sum. Logs merge by fitting again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bandits.types import Actions, Matrix, Vector

Link = Literal["independent", "competing"]
LINKS: tuple[Link, ...] = ("independent", "competing")

_CONSTANT = 1e-3  # of the penalty: the constant is all but free
_ROUNDS = 30  # of L-BFGS; stopping before the optimum penalises a little more, and costs a fifth
_SURE = 1e-9  # no model is surer than this, so that one surprise does not outweigh the log


@dataclass(frozen=True, slots=True, eq=False)
class RewardModel:
    """A fitted reward model.   weights: (K, D) if independent, (K + 1, D) if competing, the last one for "none"."""

    link: Link
    weights: Matrix

    def predict(self, phi: Matrix) -> Matrix:
        """q_hat, (n, K), expected rewards in [0, 1].   phi: (n, D), last column 1."""
        scores = phi @ self.weights.T
        return _sigmoid(scores) if self.link == "independent" else _softmax(scores)[:, :-1]


def fit(phi: Matrix, actions: Actions, rewards: Vector, k: int, link: Link, penalty: float) -> RewardModel:
    """Fit on n events.   phi: (n, D), last column 1.   rewards: (n,) in [0, 1].   penalty: > 0, on half |w|².

    An independent arm without events gets the mean reward of all; a competing one what the others leave over.
    """
    weigh = np.full(phi.shape[1], penalty)
    weigh[-1] *= _CONSTANT
    if link == "competing":
        return RewardModel(link, _competing(phi, actions, rewards, k, weigh))
    weights = np.zeros((k, phi.shape[1]))
    mean = np.clip(rewards.mean(), _SURE, 1.0 - _SURE) if len(rewards) else 0.5
    for arm in range(k):
        mine = actions == arm
        if mine.any():
            weights[arm] = _independent(phi[mine], rewards[mine], weigh)
        else:
            weights[arm, -1] = np.log(mean / (1.0 - mean))
    return RewardModel(link, weights)


def _independent(phi: Matrix, rewards: Vector, weigh: Vector) -> Vector:
    """Penalised logistic regression of one arm, (D,)."""

    def loss(w: Vector) -> tuple[float, Vector]:
        score = phi @ w
        value = np.maximum(score, 0.0) - rewards * score + np.log1p(np.exp(-np.abs(score)))
        slope = phi.T @ (_sigmoid(score) - rewards)
        return float(value.sum() + 0.5 * (weigh * w) @ w), slope + weigh * w

    return _minimise(loss, phi.shape[1])


def _competing(phi: Matrix, actions: Actions, rewards: Vector, k: int, weigh: Vector) -> Matrix:
    """Penalised regression of all arms and "none" together, (K + 1, D)."""
    rows = np.arange(len(phi))

    def loss(flat: Vector) -> tuple[float, Vector]:
        w = flat.reshape(k + 1, -1)
        share = _softmax(phi @ w.T)
        q = np.clip(share[rows, actions], _SURE, 1.0 - _SURE)
        value = -(rewards * np.log(q) + (1.0 - rewards) * np.log1p(-q))
        # d value / d score_b = slope * (1[b = a] - share_b), where slope = q * d value / d q
        slope = (q - rewards) / (1.0 - q)
        by_score = -slope[:, None] * share
        by_score[rows, actions] += slope
        gradient = by_score.T @ phi + weigh * w
        return float(value.sum() + 0.5 * (weigh * w * w).sum()), gradient.ravel()

    return _minimise(loss, (k + 1) * phi.shape[1]).reshape(k + 1, -1)


def _minimise(loss: object, size: int) -> Vector:
    from scipy.optimize import minimize  # noqa: PLC0415  (only who fits pays for scipy, not who decides)

    return minimize(loss, np.zeros(size), jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS}).x


def _sigmoid(scores: Matrix) -> Matrix:
    e = np.exp(-np.abs(scores))
    return np.where(scores >= 0.0, 1.0, e) / (1.0 + e)


def _softmax(scores: Matrix) -> Matrix:
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
