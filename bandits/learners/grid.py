"""The binary grid on which sums are exact (design law 5).

A float64 holds 53 bits. Numbers that are multiples of 2⁻¹¹ and at most 2⁵ have products that are multiples of 2⁻²²
below 2¹⁰, so 2²¹ of the largest (and more than 50 million of the usual ones, |z| <= 5) add up without any rounding.
A sum without rounding does not care about order, partition or threads, and subtracting a part is as if it had never
been added.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bandits.types import Matrix

STEP = 2.0**-11
_COARSE, _FINE = 2.0**-30, 2.0**-60  # of the two limbs


def on_grid(values: ArrayLike, limit: float) -> Matrix:
    """Nearest multiples of 2⁻¹¹ within [-limit, limit], as float64. The error is at most 2⁻¹² inside the limit."""
    return snap(np.array(values, dtype=np.float64), limit)


def snap(values: Matrix, limit: float) -> Matrix:
    """The same in place; returns `values`."""
    np.clip(values, -limit, limit, out=values)
    values *= 1.0 / STEP
    np.rint(values, out=values)
    values *= STEP
    return values


def limbs(values: ArrayLike) -> Matrix:
    """Each value as a coarse and a fine number, (..., 2), whose sums stay exact: for dollars, which need more digits.

    coarse + fine is the value to 2⁻⁶¹. Sums are exact up to 2²³ in total and 2²⁴ values of any size below that.
    """
    out = np.empty((*np.shape(values), 2))
    whole = np.asarray(values, dtype=np.float64)
    out[..., 0] = np.rint(whole / _COARSE) * _COARSE
    out[..., 1] = np.rint((whole - out[..., 0]) / _FINE) * _FINE
    return out
