"""Pass 1: centre and scale of logged contexts, so that one penalty suits every feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.errors import NotEnoughDataError
from bandits.learners.grid import STEP, on_grid
from bandits.types import Context, Matrix, Vector

CLIP = 5.0  # standard deviations; an outlier should not steer a linear model
_RANGE = 2.0**9  # raw features beyond this are clipped: they should have been logarithms


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
        steps = np.round(on_grid(contexts, _RANGE) / STEP).astype(np.int64)
        return cls(len(steps), steps.sum(axis=0), (steps * steps).sum(axis=0))

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
        out[:, :-1] = on_grid((contexts - self.mean) / self.scale, CLIP)
        out[:, -1] = 1.0
        return out
