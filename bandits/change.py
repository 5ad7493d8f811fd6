"""Change: find the arm that broke without saying so, keep it away, keep asking it, and take it back when it heals.

An e-CUSUM per arm (Shin, Ramdas & Rinaldo 2022, "E-detectors") on how far rewards fall short of what was foretold:

    M_t = max(M_{t-1}, 1) L_t,     L_t = 1 - bet_t (r_t - q_t + margin),     bet_t = share / (1 - q_t + margin)

While the arm earns what is foretold, less `margin`, L_t has a mean of at most 1 whatever the distribution of rewards,
so the average run length to a false alarm is at least `run_length` draws of that arm. Bets are as high as a reward of at
most 1 permits: an arm of which .9 is foretold gives itself away in some 20 draws. Several shares are averaged,
since none is best for every fall.

A quarantined arm has the probability `probe` and no more. Its draws are not learned from; they bet on its recovery: the
arm is released once a process against "it still falls short by `short`" passes 1 / `mistake`.
These are sequential folds in the order of the record; they do not merge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.errors import EvidenceError
from bandits.types import Mask, Vector

_SHARES = np.array([0.1, 0.3, 0.6])  # of the largest bet that keeps L_t positive
_LEAST = 1e-6  # least room for a bet


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """When to worry."""

    run_length: float = 100_000.0  # draws of an arm between false alarms, at least, on average
    margin: float = 0.03  # reward that an arm may fall short by, for ever
    short: float = 0.08  # shortfall that a quarantined arm must be shown not to have
    mistake: float = 0.05  # chance of releasing an arm that still has it
    probe: float = 0.02  # probability of a quarantined arm
    patience: int = 50  # draws of an arm before it is watched: until then nothing is foretold of it


@dataclass(slots=True)
class Watch:
    """The detectors of K arms."""

    k: int
    options: ChangeOptions
    wealth: Vector  # (K, shares) of the e-CUSUMs; of the recovery processes while quarantined
    draws: Vector  # (K,)
    quarantined: Mask  # (K,)

    @classmethod
    def start(cls, k: int, options: ChangeOptions | None = None) -> Watch:
        """Nothing seen yet."""
        wealth = np.ones((k, len(_SHARES)))
        return cls(k, options or ChangeOptions(), wealth, np.zeros(k), np.zeros(k, np.bool_))

    def see(self, arm: int, foretold: float, reward: float) -> bool:
        """Take in one outcome, before it is learned from; True if it may be learned from.

        foretold: what was expected of this arm for this context (clipped to [0, 1]).   reward: [0, 1].
        """
        if not 0.0 <= reward <= 1.0 or np.isnan(foretold):
            raise EvidenceError(f"reward must be in [0, 1] and foretold a number, but got {reward!r}, {foretold!r}.")
        expected = min(max(foretold, 0.0), 1.0)
        if self.quarantined[arm]:
            self._recovery(arm, reward - expected, expected)
            return False
        self.draws[arm] += 1.0
        if self.draws[arm] <= self.options.patience:
            return True
        self._alarm(arm, reward - expected, expected)
        return not bool(self.quarantined[arm])

    def guard(self, probabilities: Vector, allowed: Mask) -> Vector:
        """One row, (K,): each quarantined allowed arm has `probe` (or less, as a share of 1), the others the rest.

        When no other arm is allowed, the row stays as it is: something must answer.
        """
        kept_away = self.quarantined & allowed
        others = np.where(kept_away, 0.0, probabilities)
        mass = float(others.sum())
        if not kept_away.any() or mass <= 0.0:
            return probabilities
        probe = min(self.options.probe, 1.0 / self.k)
        row = others * ((1.0 - probe * int(kept_away.sum())) / mass)
        row[kept_away] = probe
        return row

    def _alarm(self, arm: int, residual: float, expected: float) -> None:
        over = residual + self.options.margin
        bets = _SHARES / max(1.0 - expected + self.options.margin, _LEAST)
        self.wealth[arm] = np.maximum(self.wealth[arm], 1.0) * (1.0 - bets * over)
        if self.wealth[arm].mean() >= self.options.run_length:
            self.quarantined[arm] = True
            self.wealth[arm] = 1.0

    def _recovery(self, arm: int, residual: float, expected: float) -> None:
        bets = _SHARES / max(expected - self.options.short, _LEAST)
        self.wealth[arm] *= np.maximum(1.0 + bets * (residual + self.options.short), 0.0)
        if self.wealth[arm].mean() >= 1.0 / self.options.mistake:
            self.quarantined[arm] = False
            self.draws[arm], self.wealth[arm] = 0.0, 1.0
