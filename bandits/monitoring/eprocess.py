"""e-processes: evidence against a claim that may be looked at after every value, and acted on at any time.

A gambler bets against the claim. While it holds, the capital is a supermartingale that begins with 1, so it ever
reaches 1/alpha with probability at most alpha, whatever the distribution and however often one looks (Ville). Several
gamblers with different stakes share the capital, since none is best against every alternative; theirs is the mean.

State has any leading shape (...): one e-process, or thousands side by side. A value that is NaN changes nothing.

Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences" (mixtures);
Waudby-Smith, Ramdas 2023, "Estimating means of bounded random variables by betting".
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandits.errors import EvidenceError

Floats = NDArray[np.float64]

SHARES = np.array([0.05, 0.12, 0.3, 0.6, 0.92])  # of the most that may be staked
_POINTS, _NEAREST, _FARTHEST = 10, 1.8, 0.97  # alternatives: from 1.8 times the tolerated odds to .97
_TILT = 0.3  # weights ~ alternative^-tilt: the small ones take longest, and gain most from a larger part


class EProcess(ABC):
    """Capital of the gamblers; `log_e` is the evidence, and its peak what counts at any time."""

    def __init__(self, weights: Floats, shape: tuple[int, ...] = ()) -> None:
        self._log = np.broadcast_to(np.log(weights / weights.sum()), (*shape, len(weights))).copy()
        self.peak: Floats = np.zeros(shape)  # highest log_e ever

    @property
    def log_e(self) -> Floats:
        """Log of the capital, (...)."""
        top = self._log.max(axis=-1)
        found: Floats = top + np.log(np.exp(self._log - top[..., None]).sum(axis=-1))
        return found

    def reached(self, alpha: float) -> NDArray[np.bool_]:
        """Whether the claim was ever refuted at error rate alpha, (...)."""
        return self.peak >= -np.log(alpha)

    def see(self, values: ArrayLike) -> None:
        """Take in the next value of each, (...)."""
        x = np.asarray(values, dtype=np.float64)
        known = np.isfinite(x)
        self._log += np.where(known[..., None], self._gains(np.where(known, x, 0.0)), 0.0)
        self.peak = np.maximum(self.peak, self.log_e)

    @abstractmethod
    def _gains(self, x: Floats) -> Floats:
        """Log of what each gambler's capital is multiplied by, (..., gamblers)."""


class TooOften(EProcess):
    """Against "a 1 comes with probability `tolerated` at most"; values are 0 or 1.

    Each gambler bets on one larger probability q: the likelihood ratio of q and `tolerated`, whose mean is at most 1
    for every probability up to `tolerated`.
    """

    def __init__(self, tolerated: float, shape: tuple[int, ...] = ()) -> None:
        if not 0.0 < tolerated < 1.0:
            raise EvidenceError(f"a tolerated rate must be in (0, 1), but got {tolerated!r}; 0.02 is one in fifty.")
        nearest, farthest = _odds(tolerated) * _NEAREST, max(_odds(_FARTHEST), _odds(tolerated) * 10.0)
        odds = np.geomspace(nearest, farthest, _POINTS)
        q = odds / (1.0 + odds)
        self._hit, self._miss = np.log(q / tolerated), np.log((1.0 - q) / (1.0 - tolerated))
        super().__init__(q**-_TILT, shape)

    def _gains(self, x: Floats) -> Floats:
        found: Floats = np.where(x[..., None] > 0.5, self._hit, self._miss)
        return found


class AboveZero(EProcess):
    """Against "the mean is 0 or less"; values are at least -`lowest`, each with that mean given those before it."""

    def __init__(self, lowest: float, shape: tuple[int, ...] = ()) -> None:
        if not (np.isfinite(lowest) and lowest > 0.0):
            raise EvidenceError(f"lowest must be > 0 and finite, but got {lowest!r}: values are at least -lowest.")
        self._stakes = SHARES / lowest
        self._lowest = lowest
        super().__init__(np.ones(len(SHARES)), shape)

    def _gains(self, x: Floats) -> Floats:
        if (x < -self._lowest * (1.0 + 1e-9)).any():
            raise EvidenceError(f"values must be at least {-self._lowest}, but got {float(x.min())!r}.")
        found: Floats = np.log1p(self._stakes * x[..., None])
        return found


def _odds(probability: float) -> float:
    return probability / (1.0 - probability)
