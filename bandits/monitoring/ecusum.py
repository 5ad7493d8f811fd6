"""e-CUSUM: has the mean of a stream in [0, 1] dropped? An alarm with a stated average run length.

    M_t = max(M_{t-1}, 1) L_t,     L_t = 1 - share (g_t + margin),     g_t = (x_t - usual_t) / room_t

room = max(1 - usual, .1) is how far a value can lie above the usual, so g is at most 1 and bets are as high as that
permits. `usual` is the running mean of the values before. While the mean is what it was, less `margin`, L_t has a mean
of at most 1 whatever the distribution: so false alarms are at least `run_length` values apart, on average. Several
shares are averaged, since none is best for every drop. A sequential fold in order of time: it does not merge.

Shin, Ramdas, Rinaldo 2022, "E-detectors: a nonparametric framework for sequential change detection".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bandits.errors import EvidenceError

SHARES = (0.1, 0.3, 0.55)  # bets; at most 1 / (1 + margin), which keeps L_t >= 0
ROOM = 0.1  # least room: where 1 is usual, the least slip would count without end


@dataclass(frozen=True, slots=True)
class DropOptions:
    """When to worry. Raises EvidenceError for what no detector can promise."""

    run_length: float = 10_000.0  # values between false alarms, at least, on average
    margin: float = 0.05  # drop that is for ever forgiven, as a share of the room
    patience: int = 100  # values before it watches: until then nothing is usual
    memory: int = 1000  # values over which the usual is averaged

    def __post_init__(self) -> None:
        if not (self.run_length > 1.0 and 0.0 <= self.margin <= 0.8 and self.patience >= 1):
            raise EvidenceError(
                "run_length must be > 1, margin in [0, 0.8] and patience 1 or more, but got "
                f"{self.run_length!r}, {self.margin!r} and {self.patience!r}."
            )
        if self.memory < self.patience:
            raise EvidenceError(f"memory must be at least patience={self.patience}, but got {self.memory}.")


@dataclass(slots=True)
class Drop:
    """The detector of one stream."""

    options: DropOptions = field(default_factory=DropOptions)
    wealth: list[float] = field(default_factory=lambda: fresh())  # of each share
    seen: int = 0
    usual: float = 0.0  # mean of the values seen, in [0, 1]

    def see(self, value: float) -> bool:
        """Take in the next value, in [0, 1]; True is the alarm, after which what is usual is learned anew."""
        if not 0.0 <= value <= 1.0:
            raise EvidenceError(
                f"a value must be in [0, 1], but got {value!r} after {self.seen}; leave out the missing."
            )
        if self.seen >= self.options.patience:
            shortfall = (value - self.usual) / max(1.0 - self.usual, ROOM)
            self.wealth = grow(self.wealth, shortfall + self.options.margin)
            if mean(self.wealth) >= self.options.run_length:
                self.wealth, self.seen, self.usual = fresh(), 0, 0.0
                return True
        self.seen += 1
        self.usual += (value - self.usual) / min(self.seen, self.options.memory)
        return False


def fresh() -> list[float]:
    """Wealth of the gamblers before the first bet, one a share."""
    return [1.0] * len(SHARES)


def grow(wealth: Sequence[float], over: float) -> list[float]:
    """Wealth after one more value that was `over` above what is forgiven; below -1 / share and up to 1 / share."""
    return [max(before, 1.0) * (1.0 - share * over) for share, before in zip(SHARES, wealth, strict=True)]


def mean(wealth: Sequence[float]) -> float:
    """What the alarm looks at: the average over shares."""
    return sum(wealth) / len(wealth)
