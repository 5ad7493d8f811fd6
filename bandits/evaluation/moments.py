"""Count, sum and sum of squares of scores, kept exactly: any split of a log, merged in any order, is the same object.

A float sum depends on its order. Here a sum is a short tuple of floats whose total is the exact one: the first is the
sum correctly rounded, the second what that rounding lost, and so on until nothing is left. The tuple depends on the
exact sum alone, so equality of Moments is equality of what they summarise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bandits.errors import EvidenceError, ShapeError
from bandits.types import Vector

LARGEST = 1e150  # of a score in size, so that neither its square nor their sum overflows
Sum = tuple[float, ...]  # exact: the sum of its parts, largest first; () is zero


@dataclass(frozen=True, slots=True)
class Moments:
    """What mean, standard error and interval need to know of n scores. `a + b` is the moments of both together."""

    n: int = 0
    total: Sum = ()
    squares: Sum = ()  # of the scores' squares, each rounded once: variance is good to 1e-15 of the mean square

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, exact_sum(self.total + other.total), exact_sum(self.squares + other.squares))

    @property
    def mean(self) -> float:
        """Sum over n, in the scores' unit; NaN when n = 0."""
        return math.fsum(self.total) / self.n if self.n else math.nan

    @property
    def variance(self) -> float:
        """Unbiased sample variance (n - 1); infinite when n < 2: nothing is known of the spread."""
        if self.n < 2:
            return math.inf
        total, squares = (sum(map(Fraction, parts), Fraction()) for parts in (self.total, self.squares))
        return max(0.0, float((squares - total * total / self.n) / (self.n - 1)))

    @property
    def standard_error(self) -> float:
        """Of the mean, in the scores' unit; infinite when n < 2."""
        return math.sqrt(self.variance / self.n) if self.n else math.inf


def moments(scores: Vector) -> Moments:
    """Moments of `scores`, (n,); raises ShapeError or EvidenceError unless they are a vector of finite numbers."""
    finite_scores(scores, "scores")
    return Moments(len(scores), exact_sum(scores.tolist()), exact_sum((scores * scores).tolist()))


def exact_sum(values: Iterable[float]) -> Sum:
    """The exact sum of finite floats: each part is the correctly rounded remainder of the parts before it."""
    rest = list(values)
    parts: list[float] = []
    while (part := math.fsum(rest)) != 0.0:
        parts.append(part)
        rest.append(-part)
    return tuple(parts)


def finite_scores(scores: Vector, name: str) -> Vector:
    """Return `scores` if they are a vector, (n,), of finite numbers; raise ShapeError or EvidenceError otherwise."""
    if scores.ndim != 1:
        raise ShapeError(f"{name} must have shape (n,), but got {scores.shape}; pass one score per round.")
    bad = np.flatnonzero(~(np.abs(scores) <= LARGEST))
    if bad.size:
        raise EvidenceError(
            f"{name} must be finite, but got {float(scores[bad[0]])!r} at rows {bad[:5].tolist()}; "
            "leave out rounds whose reward is not known."
        )
    return scores
