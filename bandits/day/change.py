"""Change: find the arm that broke without saying so, keep it away, keep asking it, and take it back when it heals.

An e-CUSUM per arm (Shin, Ramdas & Rinaldo 2022, "E-detectors") on how far rewards fall short of what was foretold:

    M_t = max(M_{t-1}, 1) L_t,     L_t = 1 - share (g_t - usual + margin),     g_t = (r_t - q_t) / room_t

room = max(1 - q, .1) is how far a reward can lie above what is foretold, so g is at most 1, and bets are as high as
that permits: an arm of which .9 is foretold and that earns .75 gives itself away in some 30 draws. `usual` is the
running mean of g, within [-.5, 0]: who is chosen for a high estimate disappoints a little, always. While the arm earns
what it usually does, less `margin`, L_t has a mean of at most 1 whatever the distribution of rewards, so the average
run length to a false alarm is at least `run_length` draws of that arm. Several shares are averaged, since none is best
for every fall.

A quarantined arm has the probability `probe`, or less where its policy gives it less. Its draws are not learned from;
they bet on its recovery: the arm is released once a test process against "it still falls short by `short`" passes
1 / `mistake`.
These are sequential folds in the order of the record; they do not merge.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import numpy as np

from bandits.errors import EvidenceError
from bandits.monitoring.ecusum import average, fresh, grow
from bandits.types import Mask, Matrix, Vector

_SHARES = (0.1, 0.3, 0.55)  # at most 1 / (1 + .5 + margin), which keeps L_t positive
_ROOM = 0.1  # least room: of an arm of which 1 is foretold, the least slip would count without end


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """When to worry."""

    run_length: float = 100_000.0  # draws of an arm between false alarms, at least, on average
    margin: float = 0.2  # shortfall that is for ever forgiven, as a share of the room
    short: float = 0.1  # shortfall, in reward, that a quarantined arm must be shown not to have
    mistake: float = 0.05  # chance of releasing an arm that still has it
    probe: float = 0.04  # most probability of a quarantined arm
    patience: int = 100  # draws of an arm before it is watched: until then nothing is foretold of it
    memory: int = 1000  # draws over which the usual shortfall is averaged


@dataclass(slots=True)
class Watch:
    """The detectors of K arms."""

    k: int
    options: ChangeOptions
    wealth: list[list[float]]  # K of one per share: of the e-CUSUMs; of the recovery processes while quarantined
    draws: Vector  # (K,) since it was watched or released
    usual: Vector  # (K,) running mean of g, at most 0 counts
    quarantined: Mask  # (K,)

    @classmethod
    def start(cls, k: int, options: ChangeOptions | None = None) -> Watch:
        """Nothing seen yet."""
        wealth = [fresh(_SHARES) for _ in range(k)]
        return cls(k, options or ChangeOptions(), wealth, np.zeros(k), np.zeros(k), np.zeros(k, np.bool_))

    def see(self, arm: int, foretold: float, reward: float) -> bool:
        """Take in one outcome, before it is learned from; True if it may be learned from.

        foretold: what was expected of this arm for this context (clipped to [0, 1]).   reward: [0, 1].
        """
        if not 0.0 <= reward <= 1.0 or isnan(foretold):
            raise EvidenceError(f"reward must be in [0, 1] and foretold a number, but got {reward!r}, {foretold!r}.")
        expected = min(max(foretold, 0.0), 1.0)
        room = max(1.0 - expected, _ROOM)
        usual = max(min(float(self.usual[arm]), 0.0), -0.5)
        if self.quarantined[arm]:
            self._recovery(arm, reward - expected - usual * room, expected + usual * room)
            return False
        self.draws[arm] += 1.0
        shortfall = (reward - expected) / room
        if self.draws[arm] > self.options.patience:
            self._alarm(arm, shortfall - usual)
        self.usual[arm] += (shortfall - self.usual[arm]) / min(self.draws[arm], self.options.memory)
        return not bool(self.quarantined[arm])

    def _alarm(self, arm: int, gain: float) -> None:
        self.wealth[arm] = grow(self.wealth[arm], gain + self.options.margin, _SHARES)
        if average(self.wealth[arm]) >= self.options.run_length:
            self.quarantined[arm] = True
            self.wealth[arm] = fresh(_SHARES)

    def _recovery(self, arm: int, residual: float, expected: float) -> None:
        short = self.options.short
        room = max(expected - short, _ROOM)
        self.wealth[arm] = [
            wealth * (1.0 + 1.5 * share / room * (residual + short))
            for share, wealth in zip(_SHARES, self.wealth[arm], strict=True)
        ]
        if average(self.wealth[arm]) >= 1.0 / self.options.mistake:
            self.quarantined[arm] = False
            self.draws[arm], self.wealth[arm] = 0.0, fresh(_SHARES)


def guarded(rows: Matrix, others: Matrix, kept_away: Mask, probe: float) -> Matrix:
    """`rows`, (n, K), with arms kept away, (n, K): these have `probe` at most, and never more than they had.

    others: (n, K) rows over the arms that are not kept away; they have what is left, in proportion.
    """
    probes = np.where(kept_away, np.minimum(rows, probe), 0.0)
    return others * (1.0 - probes.sum(axis=1, keepdims=True)) + probes
