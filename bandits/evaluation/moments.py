"""Count, sum and sum of squares of scores, kept exactly: any split of a log, merged in any order, is the same object.

A float sum depends on its order. Here a sum is a short tuple of floats whose total is the exact one: the first is the
sum correctly rounded, the second what that rounding lost, and so on until nothing is left. The tuple depends on the
exact sum alone, so equality of Moments is equality of what they summarise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bandits.errors import EvidenceError, ShapeError
from bandits.types import Vector

LARGEST = 1e150  # of a score in size, so that neither its square nor their sum overflows
_CHUNK = 2**15  # values that are summed at once: they stay in the processor's cache
_ANCHOR = 16  # 2^16 >= _CHUNK + 2, so that not even a sum of the largest heads rounds
_ROUNDS = 5  # of extraction, before what is left is added one by one
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
    parts = [scores[start : start + _CHUNK] for start in range(0, len(scores), _CHUNK)]
    total = exact_sum(itertools.chain.from_iterable(map(_leading_sums, parts)))
    squares = exact_sum(itertools.chain.from_iterable(_leading_sums(part * part) for part in parts))
    return Moments(len(scores), total, squares)


def exact_sum(values: Iterable[float]) -> Sum:
    """The exact sum of finite floats: each part is the correctly rounded remainder of the parts before it."""
    rest = list(values)
    parts: list[float] = []
    while (part := math.fsum(rest)) != 0.0:
        parts.append(part)
        rest.append(-part)
    return tuple(parts)


def _leading_sums(values: Vector) -> list[float]:
    """A few floats whose exact sum is that of `values`, (at most _CHUNK,), finite.

    Adding a power of two that is large enough, and taking it away again, leaves of each value the bits that lie above
    one common place. Such heads add up without rounding in any order, and what is left of each value is below that
    place: so three or four rounds leave nothing, unless values are of very different size.

    Rump, Ogita, Oishi 2008, "Accurate Floating-Point Summation, Part I", algorithm 3.2 (ExtractVector).
    """
    sums: list[float] = []
    for _ in range(_ROUNDS):
        largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
        if largest == 0.0:
            return sums
        anchor = math.ldexp(1.0, math.frexp(largest)[1] + _ANCHOR)
        heads = values + anchor
        heads -= anchor
        sums.append(float(heads.sum()))
        values = np.subtract(values, heads, out=heads)
    return sums + values[values != 0.0].tolist()


def finite_scores(scores: Vector, name: str) -> Vector:
    """Return `scores` if they are a vector, (n,), of finite numbers; raise ShapeError or EvidenceError otherwise."""
    if scores.ndim != 1:
        raise ShapeError(f"{name} must have shape (n,), but got {scores.shape}; pass one score per round.")
    if scores.max(initial=0.0) <= LARGEST and scores.min(initial=0.0) >= -LARGEST:  # never true of NaN
        return scores
    bad = np.flatnonzero(~(np.abs(scores) <= LARGEST))
    if bad.size:
        raise EvidenceError(
            f"{name} must be finite, but got {float(scores[bad[0]])!r} at rows {bad[:5].tolist()}; "
            "leave out rounds whose reward is not known."
        )
    return scores
