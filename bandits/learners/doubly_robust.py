"""Doubly Robust policy learner: start from a reward model, correct it by what the log can prove.

The pseudo-outcome of every arm of every event,

    z_i(a) = q_hat(x_i, a) + 1[a = a_i] (r_i - q_hat(x_i, a_i)) / p_i,

has the true expected reward as its mean if either q_hat or the propensities are right (Dudik, Langford & Li 2011,
"Doubly Robust Policy Evaluation and Learning", eq. 3), provided q_hat never saw event i: it is cross-fitted. A plain
regression of z is too noisy (1/p multiplies the noise), so only the *residual* z - q_hat is regressed, on one Gram
matrix shared by all arms, and strongly shrunk: no proof in the log, no correction. Ridge's penalty is the variance of
the noise over that of the coefficients; the noise of arm a has the variance of a reward times mean(1[a = a_i] / p_i²),
so that is what the penalty of each arm is multiplied by: rarely drawn arms prove less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from hashlib import blake2b

import numpy as np

from bandits.learners.grid import on_grid
from bandits.learners.ridge import Gram, moments
from bandits.types import Actions, Mask, Matrix, Vector

FOLDS = 5
LEVEL = 10.0  # events that hold an arm's mean to that of all: rewards of 0 or 1, means that lie .14 apart
MAX_WEIGHT = 50.0  # 1/p is clipped here; the bias is at most mean(p < 1/50) times the error of q_hat


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the search may choose. Penalties in events (see ridge.py)."""

    shared: float = 100.0  # holds the part of the reward model that all arms share
    own: float = 3000.0  # holds each arm's difference from it
    correction: float = 3000.0  # holds the doubly robust correction, times mean(1[a = a_i] / p_i²) of each arm
    siblings: float = 0.0  # weight in the reward model of an event of another scope, against 1 for the scope's own


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Events as the passes read them.   phi: (n, D) on the grid.   folds: (n,) in 0..FOLDS-1, by hash of the id."""

    phi: Matrix
    actions: Actions
    targets: Vector
    propensities: Vector
    folds: Actions
    k: int

    def where(self, rows: Mask | Actions) -> Events:
        """The events that a mask, (n,), or their numbers pick."""
        return Events(
            self.phi[rows],
            self.actions[rows],
            self.targets[rows],
            self.propensities[rows],
            self.folds[rows],
            self.k,
        )


def fold_of(decision_id: str) -> int:
    """Fold of a decision: by hash, so that it never depends on order, partition or what else is in the log."""
    return int.from_bytes(blake2b(decision_id.encode(), digest_size=8).digest(), "big") % FOLDS


def grams(events: Events) -> list[Gram]:
    """Sums of the reward model, one Gram a fold: leaving folds out later is adding up the others."""
    parts = [events.folds == fold for fold in range(FOLDS)]
    return [Gram.of(events.phi[part], events.actions[part], events.targets[part], events.k) for part in parts]


def fit(events: Events, folded: Sequence[Gram], parameters: Parameters, without: int | None = None) -> Matrix:
    """Weights, (K, D): q(x, a) = weights[a] . phi(x). Learned from all folds but `without`.

    Three passes: reward models that leave out one more fold each; the residual of each event under the model that
    never saw it; the final reward model plus the shrunken correction.
    """
    inside = [fold for fold in range(FOLDS) if fold != without]
    k, d = folded[0].moment.shape
    moment, squares, gram = np.zeros((k, d)), np.zeros(k), np.zeros((d, d))
    for fold in inside:
        weights = _solve([folded[other] for other in inside if other != fold], parameters)
        part = events.folds == fold
        phi, actions = events.phi[part], events.actions[part]
        q_hat = np.einsum("nd,nd->n", phi, weights[actions])
        weight = np.minimum(1.0 / events.propensities[part], MAX_WEIGHT)
        moment += moments(phi, actions, on_grid((events.targets[part] - q_hat) * weight, 2 * MAX_WEIGHT), k)
        squares += np.bincount(actions, squared(weight), minlength=k)
        gram += folded[fold].gram.sum(axis=0)
    return _solve([folded[fold] for fold in inside], parameters) + shift(gram, moment, squares, parameters)


def squared(weights: Vector) -> Vector:
    """Squares of clipped weights, (n,), on the grid."""
    return on_grid(np.square(weights), MAX_WEIGHT**2)


def shift(gram: Matrix, moment: Matrix, squares: Vector, parameters: Parameters) -> Matrix:
    """The correction, (K, D).   gram: (D, D) of all events.   moment: (K, D).   squares: (K,) of weights, summed."""
    noise = np.maximum(squares / max(gram[-1, -1], 1.0), 1.0)  # the last feature is the constant 1
    penalties = parameters.correction * noise[:, None, None] * np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram + penalties, moment[..., None])[..., 0])


def dr_scores(events: Events, q_hat: Matrix, action_probs: Matrix) -> Vector:
    """Doubly robust scores, (n,), of a policy: their mean estimates what it would have earned.

    q_hat: (n, K), not fitted on these events.   action_probs: (n, K).   1/p is clipped at MAX_WEIGHT.
    """
    rows = np.arange(len(events.phi))
    surprise = (events.targets - q_hat[rows, events.actions]) * weights(events)
    return np.asarray((action_probs * q_hat).sum(axis=1) + action_probs[rows, events.actions] * surprise)


def playing(arms: Actions, k: int) -> Matrix:
    """The policy, (n, K), that plays these arms, (n,), for sure."""
    return np.asarray(arms[:, None] == np.arange(k), dtype=np.float64)


def weights(events: Events) -> Vector:
    """1/p, (n,), clipped at MAX_WEIGHT."""
    return np.minimum(1.0 / events.propensities, MAX_WEIGHT)


def _solve(parts: Sequence[Gram], parameters: Parameters) -> Matrix:
    return reduce(Gram.__add__, parts).solve(parameters.shared, parameters.own, LEVEL)
