"""Sample ratio: do the variants get the shares that were planned? A test that one may look at after every unit.

A Bayes factor of "some other shares", spread around the plan as a Dirichlet, against "the planned shares p":

    E_n = B(c p + counts) / B(c p)  /  prod_k p_k^counts_k

It is a martingale with mean 1 under the plan, so by Ville's inequality it ever reaches 1 / alpha with probability at
most alpha. A chi-square test looked at as often errs twenty times as often as it says.

Lindon, Malek 2022, "Anytime-valid inference for multinomial count data".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from bandits.errors import ExperimentError
from bandits.types import Vector

ALPHA = 0.001  # chance of ever crying wolf
CONCENTRATION = 200.0  # units that the prior of "other shares" is worth: it looks for a deviation of some 30 % at 5 %


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """The test so far: a fold over units in any order of looking. `see` returns the next one."""

    planned: tuple[float, ...]  # share of each variant, sum 1
    counts: tuple[int, ...]
    peak: float = 0.0  # largest log E seen at any look: what was once found stays found

    @classmethod
    def start(cls, planned: Sequence[float]) -> SampleRatio:
        """Nobody seen yet. Raises ExperimentError unless `planned` are two shares or more, > 0, that sum to 1."""
        _check(planned)
        return cls(tuple(planned), (0,) * len(planned))

    def see(self, counts: Sequence[int]) -> SampleRatio:
        """Take a look at counts of units by variant since the last look; each unit counts once."""
        if len(counts) != len(self.planned) or min(counts) < 0:
            raise ExperimentError(
                f"counts must be {len(self.planned)} numbers >= 0, one a variant, but got {tuple(counts)}."
            )
        total = tuple(old + new for old, new in zip(self.counts, counts, strict=True))
        now = float(log_evidence(np.array([total]), self.planned)[0])
        return replace(self, counts=total, peak=max(self.peak, now))

    @property
    def p_value(self) -> float:
        """Valid however often one looks; 1 when nothing speaks against the plan."""
        return math.exp(-self.peak)

    def mismatch(self, alpha: float = ALPHA) -> bool:
        """Whether the shares are not as planned; wrong with probability at most `alpha` over all looks."""
        return self.p_value <= alpha


def log_evidence(
    counts: npt.NDArray[np.int64], planned: Sequence[float], concentration: float = CONCENTRATION
) -> Vector:
    """log E, (n,), of each row of `counts`, (n, K): units by variant, all so far. Large: the shares are others."""
    _check(planned)
    shares = np.asarray(planned, dtype=np.float64)
    prior = concentration * shares
    seen = counts + prior
    with_other: Vector = gammaln(seen).sum(axis=1) - gammaln(seen.sum(axis=1))
    return with_other - float(gammaln(prior).sum() - gammaln(concentration)) - counts @ np.log(shares)


def _check(planned: Sequence[float]) -> None:
    if len(planned) < 2 or min(planned) <= 0.0 or not math.isclose(math.fsum(planned), 1.0, abs_tol=1e-9):
        raise ExperimentError(f"planned shares must be two or more, > 0 and sum to 1, but got {tuple(planned)}.")
