"""Random features: a linear learner over them can bend.

phi(x) = [half the standardised context, waves, 1]. The waves are random Fourier features (Rahimi & Recht 2007, "Random
Features for Large-Scale Kernel Machines"): cosines whose inner products approach a Gaussian kernel. They are drawn
from a seed, so a snapshot holds what it needs and nothing is fitted but the scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.learners.grid import on_grid
from bandits.learners.scaling import Scaler
from bandits.types import Context, Matrix, Vector

_LIMIT = 16.0  # of |phi|; sums of 2²³ products of two such stay exact, of the usual ones many more (see grid.py)


@dataclass(frozen=True, slots=True, eq=False)
class Lift:
    """Frozen map from contexts, (n, d), to features, (n, D) on the grid, D = d + m + 1.

    frequencies: (d, m).   phases: (m,).   linear, waves: how much a unit of the context, or of the kernel, weighs.
    """

    scaler: Scaler
    frequencies: Matrix
    phases: Vector
    linear: float
    waves: float

    @classmethod
    def draw(cls, scaler: Scaler, m: int, bandwidth: float, linear: float = 0.5, waves: float = 6.0) -> Lift:
        """m waves of the Gaussian kernel exp(-|z - z'|² / (2 d bandwidth²)): the same ones for the same d and m."""
        d = len(scaler.mean)
        rng = np.random.default_rng([d, m])
        frequencies = rng.normal(size=(d, m)) / (bandwidth * np.sqrt(d))
        return cls(scaler, frequencies, rng.uniform(0.0, 2.0 * np.pi, m), linear, waves)

    def features(self, contexts: Context) -> Matrix:
        """phi, (n, D), on the grid."""
        z = self.scaler.features(contexts)[:, :-1]
        n, d = z.shape
        out = np.empty((n, d + len(self.phases) + 1))
        out[:, :d] = self.linear * z
        out[:, d:-1] = self.waves * np.sqrt(2.0 / max(len(self.phases), 1)) * np.cos(z @ self.frequencies + self.phases)
        out[:, -1] = 1.0
        return on_grid(out, _LIMIT)
