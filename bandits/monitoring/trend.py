"""Trend: by how much a figure rises a day, with an interval.

The least-squares slope of values over time. Its standard error is HC3, which allows values of unequal spread: days of
few decisions beside days of many. It assumes that values, say daily means, are independent once the line is taken out;
for one look, at a table or a chart. What must be watched is for `ecusum`.

MacKinnon, White 1985, "Some heteroskedasticity-consistent covariance matrix estimators with improved finite sample
properties"; HC3 as in Long, Ervin 2000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from bandits.errors import EvidenceError, ShapeError
from bandits.evaluation.intervals import check_alpha
from bandits.types import Vector

DAY = 86_400.0  # s


@dataclass(frozen=True, slots=True)
class Trend:
    """Slope per day, in the figure's unit; infinite ends say that nothing is known."""

    n: int
    slope: float | None  # None with fewer than two different times
    low: float
    high: float

    @property
    def verdict(self) -> Literal["rising", "falling", "flat or unknown"]:
        """What the interval shows."""
        return "rising" if self.low > 0.0 else "falling" if self.high < 0.0 else "flat or unknown"


def trend(times: Vector, values: Vector, alpha: float) -> Trend:
    """Trend of `values`, (n,), at `times`, (n,), seconds, in any order. Fewer than 4 values give no interval.

    Raises ShapeError, EvidenceError.
    """
    check_alpha(alpha)
    if times.ndim != 1 or times.shape != values.shape:
        raise ShapeError(f"times and values must be (n,) both, but got {times.shape} and {values.shape}.")
    bad = np.flatnonzero(~(np.isfinite(times) & np.isfinite(values)))
    if bad.size:
        raise EvidenceError(f"times and values must be finite, but are not at rows {bad[:5].tolist()}; leave them out.")
    n = len(times)
    days = (times - times.mean()) / DAY if n else times
    square = float(days @ days)
    if square == 0.0:
        return Trend(n, None, -math.inf, math.inf)
    slope = float(days @ values) / square
    leverage = 1.0 / n + days * days / square
    if n < 4 or leverage.max() >= 1.0 - 1e-9:  # a line through a point that nothing else speaks of
        return Trend(n, slope, -math.inf, math.inf)
    residuals = values - values.mean() - slope * days
    error = math.sqrt(float((days**2) @ (residuals / (1.0 - leverage)) ** 2)) / square
    half = float(stdtrit(n - 2, 1.0 - alpha / 2.0)) * error
    return Trend(n, slope, slope - half, slope + half)
