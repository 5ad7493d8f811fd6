"""e-CUSUM: has the mean of a stream in [0, 1] dropped? An alarm with a stated average run length.

    M_t = max(M_{t-1}, 1) L_t,     L_t = 1 - share g_t,     g_t = (x_t - usual_t) / room_t

room = max(1 - usual, .1) is how far a value can lie above the usual, so g is at most 1 and bets are as high as that
permits. `usual` is the mean of the values before, less `doubt` standard errors of it. While the mean is no lower than
that, L_t has a mean of at most 1 whatever the distribution: so false alarms are at least `run_length` values apart, on
average. Two shares are averaged, since none is best for every drop. Values that come while the gamblers are winning are
set aside, and become usual only when they have lost again: else a drop would slowly excuse itself.

A sequential fold in order of time: it does not merge.

Shin, Ramdas, Rinaldo 2022, "E-detectors: a nonparametric framework for sequential change detection".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bandits.errors import EvidenceError

SHARES = (0.15, 0.25)  # bets; below 1 / (1 + what is forgiven), which keeps L_t > 0
ROOM = 0.1  # least room: where 1 is usual, the least slip would count without end
_WINNING = 1.5  # wealth from which values are set aside


@dataclass(frozen=True, slots=True)
class DropOptions:
    """When to worry. Raises EvidenceError for what no detector can promise."""

    run_length: float = 10_000.0  # values between false alarms, at least, on average
    doubt: float = 1.5  # standard errors by which the usual may have been overestimated
    patience: int = 300  # values before it watches: until then nothing is usual
    memory: int = 3000  # values over which the usual is averaged

    def __post_init__(self) -> None:
        if not (1.0 < self.run_length < math.inf and 0.0 <= self.doubt < math.inf and self.patience >= 1):
            raise EvidenceError(
                "run_length must be > 1, doubt >= 0 (both finite) and patience 1 or more, but got "
                f"{self.run_length!r}, {self.doubt!r} and {self.patience!r}."
            )
        if self.memory < self.patience:
            raise EvidenceError(f"memory must be at least patience={self.patience}, but got {self.memory}.")


@dataclass(slots=True)
class Drop:
    """The detector of one stream."""

    options: DropOptions = field(default_factory=DropOptions)
    wealth: list[float] = field(default_factory=lambda: fresh(SHARES))
    seen: int = 0  # values that made the usual
    mean: float = 0.0  # of them, in [0, 1]
    aside: int = 0  # values set aside
    aside_mean: float = 0.0

    def see(self, value: float) -> bool:
        """Take in the next value, in [0, 1]; True is the alarm, after which what is usual is learned anew."""
        if not 0.0 <= value <= 1.0:
            raise EvidenceError(f"a value must be in [0, 1], but got {value!r}; leave out what is missing.")
        if self.seen >= self.options.patience:
            usual = self.usual
            self.wealth = grow(self.wealth, (value - usual) / max(1.0 - usual, ROOM), SHARES)
            if average(self.wealth) >= self.options.run_length:
                self.wealth, self.seen, self.mean, self.aside, self.aside_mean = fresh(SHARES), 0, 0.0, 0, 0.0
                return True
        self.aside += 1
        self.aside_mean += (value - self.aside_mean) / self.aside
        if average(self.wealth) <= _WINNING:
            self._take_in()
        return False

    @property
    def usual(self) -> float:
        """What the next value is held against, in [0, 1]; a mean of n values in [0, 1] errs by sqrt(m (1 - m) / n)."""
        error = math.sqrt(self.mean * (1.0 - self.mean) / max(min(self.seen, self.options.memory), 1))
        return max(self.mean - self.options.doubt * error, 0.0)

    def _take_in(self) -> None:
        self.seen += self.aside
        weight = min(1.0, self.aside / min(self.seen, self.options.memory))
        self.mean += (self.aside_mean - self.mean) * weight
        self.mean = min(max(self.mean, 0.0), 1.0)  # rounding
        self.aside, self.aside_mean = 0, 0.0


def fresh(shares: Sequence[float]) -> list[float]:
    """Wealth of the gamblers before the first bet, one a share."""
    return [1.0] * len(shares)


def grow(wealth: Sequence[float], over: float, shares: Sequence[float]) -> list[float]:
    """Wealth of each share after a value that was `over` above what is forgiven, in units of the room."""
    return [max(before, 1.0) * (1.0 - share * over) for share, before in zip(shares, wealth, strict=True)]


def average(wealth: Sequence[float]) -> float:
    """What the alarm looks at: the mean over shares."""
    return sum(wealth) / len(wealth)
