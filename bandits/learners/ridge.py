"""Pass 2: least squares per arm, from exact sums, with the arms shrunk toward what they share.

A night at a small community has a few hundred answers of each model. Fitted apart, K regressions pick noise; fitted
together they cannot tell the models apart. So each arm is a shared part plus a difference of its own (Evgeniou &
Pontil 2004, "Regularized Multi-Task Learning"):

    minimise  sum_k ||y_k - Phi_k (s + t_k)||²  +  shared ||s||²  +  own sum_k ||t_k||²     (constants unpenalised)

solved in closed form from each arm's Gram matrix: own -> infinity is one regression with K intercepts, shared ->
infinity is K separate ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.types import Actions, Matrix, Vector

BLOCK = 2**12  # rows that are multiplied at once: they fit in the cache


def moments(phi: Matrix, actions: Actions, targets: Vector, k: int) -> Matrix:
    """Sums of phi y by arm, (k, D), of n events.   phi: (n, D) on the grid.   targets: (n,) on the grid."""
    return np.stack([phi[actions == arm].T @ targets[actions == arm] for arm in range(k)])


def rowwise(phi: Matrix, weights: Matrix) -> Matrix:
    """phi . weights, (n, K), of K weight vectors, (K, D): of a row the same bits whatever rows come with it.

    A BLAS product does not promise that, and a fold needs it: what it predicts must not depend on the partition.
    """
    return np.einsum("nd,kd->nk", np.ascontiguousarray(phi), np.ascontiguousarray(weights))


@dataclass(frozen=True, slots=True, eq=False)
class Gram:
    """Sums of one pass for K arms: exact on the grid, so they add, subtract and merge in any order.

    gram: (K, D, D) sums of phi phi'.   moment: (K, D) sums of phi y.   count: (K,) events.
    """

    gram: Matrix
    moment: Matrix
    count: Vector

    @classmethod
    def of(cls, phi: Matrix, actions: Actions, targets: Vector, k: int) -> Gram:
        """Fold n events.   phi: (n, D) on the grid.   targets: (n,) on the grid."""
        d = phi.shape[1]
        gram, moment = np.zeros((k, d, d)), np.zeros((k, d))
        order = np.argsort(actions.astype(np.int16 if k < 2**15 else np.int64), kind="stable")  # short keys: radix sort
        count = np.bincount(actions, minlength=k)
        for arm, mine in enumerate(np.split(order, np.cumsum(count)[:-1])):
            for start in range(0, len(mine), BLOCK):
                rows = mine[start : start + BLOCK]
                chosen = phi[rows]
                gram[arm] += chosen.T @ chosen  # of a matrix with itself, BLAS computes one half
                moment[arm] += targets[rows] @ chosen
        return cls(gram, moment, count.astype(np.float64))

    def __add__(self, other: Gram) -> Gram:
        return Gram(self.gram + other.gram, self.moment + other.moment, self.count + other.count)

    def __sub__(self, other: Gram) -> Gram:
        return Gram(self.gram - other.gram, self.moment - other.moment, self.count - other.count)

    def scaled(self, weight: float) -> Gram:
        """The same events, each of weight `weight`: not on the grid any more, so for solving only."""
        return Gram(weight * self.gram, weight * self.moment, weight * self.count)

    def solve(self, shared: float, own: float, level: float = 1.0) -> Matrix:
        """Weights, (K, D), of the shrunken least squares above. An arm without events gets the shared part.

        shared, own, level: penalties > 0, in events (a penalty of 30 weighs as much as 30 events of unit variance);
        `level` holds each arm's own constant.
        """
        inverse, residual, system = self._parts(shared, own, level)
        s = np.linalg.solve(system, np.einsum("kij,kj->i", residual, self.moment))
        t = np.einsum("kij,kj->ki", inverse, self.moment - self.gram @ s)
        return s + t

    def covariances(self, shared: float, own: float, level: float = 1.0) -> Matrix:
        """Posterior covariances, (K, D, D), of the weights that `solve` gives, in units of the noise's variance.

        The penalties are the precisions of Gaussian priors on s and t_k (Rasmussen & Williams 2006, "Gaussian
        Processes for Machine Learning", section 2.1); what an arm shares, the events of all arms tell of.
        """
        inverse, residual, system = self._parts(shared, own, level)
        found = inverse + residual.transpose(0, 2, 1) @ np.linalg.inv(system) @ residual
        return np.asarray(0.5 * (found + found.transpose(0, 2, 1)))

    def _parts(self, shared: float, own: float, level: float) -> tuple[Matrix, Matrix, Matrix]:
        """For given s: t_k = (G_k + own P)^-1 (m_k - G_k s). Eliminating t_k leaves one system for s.

        The inverses, (K, D, D), what of each arm's events they leave to s, (K, D, D), and that system, (D, D).
        """
        d = self.moment.shape[1]
        everyone = np.eye(d)
        everyone[-1, -1] = 1e-6  # the constant of the shared part is all but free
        apart = np.eye(d)
        apart[-1, -1] = level / own
        inverse = np.asarray(np.linalg.inv(self.gram + own * apart), dtype=np.float64)
        residual = np.eye(d) - self.gram @ inverse
        return inverse, residual, (residual @ self.gram).sum(axis=0) + shared * everyone
