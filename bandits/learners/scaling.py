"""Pass 1: centre and scale of logged contexts, so that one penalty suits every feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.errors import NotEnoughDataError
from bandits.learners.grid import STEP, snap
from bandits.types import Context, Matrix, Vector

CLIP = 5.0  # standard deviations; an outlier should not steer a linear model
_RANGE = 2.0**9  # raw features beyond this are clipped: they should have been logarithms
_BLOCK = 2**12  # rows: the squares of so many, at most (2⁹ / 2⁻¹¹)² each, add up exactly in a float64, which is quicker


@dataclass(frozen=True, slots=True, eq=False)
class ContextSums:
    """Count, sum and sum of squares per feature, in whole steps of the grid (int64, exact), so that parts merge.

    total: (d,) steps.   squares: (d,) steps².
    """

    count: int
    total: np.ndarray[tuple[int], np.dtype[np.int64]]
    squares: np.ndarray[tuple[int], np.dtype[np.int64]]

    @classmethod
    def of(cls, contexts: Context) -> ContextSums:
        """Fold contexts, (n, d)."""
        total, squares = np.zeros((2, contexts.shape[1]), np.int64)
        for start in range(0, len(contexts), _BLOCK):
            steps = np.clip(contexts[start : start + _BLOCK], -_RANGE, _RANGE)
            steps /= STEP
            steps = np.rint(steps, out=steps).astype(np.float64)
            total += steps.sum(axis=0).astype(np.int64)
            squares += np.einsum("nd,nd->d", steps, steps).astype(np.int64)
        return cls(len(contexts), total, squares)

    def __add__(self, other: ContextSums) -> ContextSums:
        return ContextSums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def __sub__(self, other: ContextSums) -> ContextSums:
        return ContextSums(self.count - other.count, self.total - other.total, self.squares - other.squares)

    def scaler(self) -> Scaler:
        """Mean and standard deviation; a constant feature gets scale 1 and so becomes 0 everywhere."""
        if self.count == 0:
            raise NotEnoughDataError("a scale needs at least one context, but the log has none.")
        mean = self.total / self.count
        variance = np.maximum(self.squares / self.count - mean * mean, 0.0)
        scale = np.sqrt(variance) * STEP
        return Scaler(mean * STEP, np.where(scale > STEP, scale, 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class Scaler:
    """Frozen result of pass 1.   mean, scale: (d,)."""

    mean: Vector
    scale: Vector

    def features(self, contexts: Context) -> Matrix:
        """phi, (n, d + 1), on the grid: the standardised context, clipped to ±5, then a constant 1."""
        out = np.empty((len(contexts), contexts.shape[1] + 1))
        z = out[:, :-1]
        np.subtract(contexts, self.mean, out=z)
        z /= self.scale
        snap(z, CLIP)
        out[:, -1] = 1.0
        return out
