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


def on_grid(values: ArrayLike, limit: float) -> Matrix:
    """Nearest multiples of 2⁻¹¹ within [-limit, limit], as float64. The error is at most 2⁻¹² inside the limit."""
    out = np.array(values, dtype=np.float64)  # one copy, then in place: at a million rounds the rest is memory traffic
    np.clip(out, -limit, limit, out=out)
    out /= STEP
    np.round(out, out=out)
    out *= STEP
    return out
