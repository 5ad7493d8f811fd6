"""Random features: a linear learner over them can bend.

phi(x) = [half the standardised context, waves, 1]. The waves are random Fourier features (Rahimi & Recht 2007, "Random
Features for Large-Scale Kernel Machines"): cosines whose inner products approach a Gaussian kernel. They are drawn
from a seed, so a snapshot holds what it needs and nothing is fitted but the scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.learners.grid import STEP, on_grid
from bandits.learners.scaling import Scaler
from bandits.types import Context, Matrix, Vector

_LIMIT = 16.0  # of |phi|; sums of 2²³ products of two such stay exact, of the usual ones many more (see grid.py)
_BLOCK = 2**9  # rows that are computed at once: they fit in the cache
_SCORED = 2**12  # rows whose features a policy holds at once
_FINE = 2.0**-24  # of frequencies: with a context on its grid, sums of products need 2⁻³⁵ to 2¹⁷, 52 bits


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
        frequencies = np.round(rng.normal(size=(d, m)) / (bandwidth * np.sqrt(d)) / _FINE) * _FINE
        return cls(scaler, frequencies, rng.uniform(0.0, 2.0 * np.pi, m), linear, waves)

    def features(self, contexts: Context) -> Matrix:
        """phi, (n, D), on the grid."""
        n, d = contexts.shape
        out = np.empty((n, d + len(self.phases) + 1))
        weight = self.waves * np.sqrt(2.0 / max(len(self.phases), 1)) / STEP
        for start in range(0, n, _BLOCK):
            block = out[start : start + _BLOCK]
            z = self.scaler.features(contexts[start : start + _BLOCK])[:, :-1]
            block[:, :d] = on_grid(self.linear * z, _LIMIT)
            # Both factors lie on a grid: the product is exact, so a row's does not depend on the rows it comes with.
            angles = z @ self.frequencies
            angles += self.phases
            steps = np.cos(angles.astype(np.float32))
            steps *= np.float32(weight)
            np.clip(np.rint(steps, out=steps), -_LIMIT / STEP, _LIMIT / STEP, out=steps)
            np.multiply(steps, STEP, out=block[:, d:-1])
            block[:, -1] = 1.0
        return out

    def in_blocks(self, contexts: Context, score: Callable[[Matrix], Matrix]) -> Matrix:
        """score(phi) of all rows, with the features of one block in memory at a time."""
        starts = range(0, len(contexts), _SCORED) or (0,)
        return np.concatenate([score(self.features(contexts[start : start + _SCORED])) for start in starts])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a snapshot holds of it."""
        units = np.array([self.linear, self.waves])
        scale = {"mean": self.scaler.mean, "scale": self.scaler.scale}
        return scale | {"frequencies": self.frequencies, "phases": self.phases, "units": units}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Lift:
        """What `arrays` froze. Raises KeyError or ValueError for arrays that are not whole."""
        linear, waves = map(float, arrays["units"])
        return cls(Scaler(arrays["mean"], arrays["scale"]), arrays["frequencies"], arrays["phases"], linear, waves)
