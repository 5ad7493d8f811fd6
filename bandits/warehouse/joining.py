"""Outcomes -> rewards, for a whole column of decisions at once: `rewards.reward` and `rewards.cost`, to the last bit.

Outcomes come in any order. NaN is what is missing: no measured value is ever NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bandits.rewards import SKEW_S, total
from bandits.settings.reward import RewardConfig
from bandits.types import SIGNALS, Mask, Vector

Rounds = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Came:
    """What came back, m outcomes as columns."""

    rounds: Rounds  # (m,) which of the n decisions each is about
    times: Vector  # (m,) UTC, seconds since the epoch
    quality: Vector  # (m,) NaN where it was not measured
    cost_usd: Vector  # (m,) likewise
    latency_s: Vector  # (m,) likewise
    vote: NDArray[np.int8]  # (m,) -1 or 1; 2, 3 … for SIGNALS, in their order; 0 where nobody voted


def rewards(decided: Vector, came: Came, now: float, spec: RewardConfig) -> Vector:
    """The reward of each decision, (n,), NaN while it is missing; see `rewards.reward`.

    decided: (n,) when each was made, now: UTC, seconds since the epoch.
    """
    n, closes = len(decided), decided + spec.window_s
    counts = (came.times >= decided[came.rounds] - SKEW_S) & (came.times <= closes[came.rounds])
    weights, parts = spec.weights, []
    if weights.quality > 0.0:
        quality = _quality(n, came, counts, spec)
        if spec.default is not None:
            quality[np.isnan(quality) & (now > closes)] = spec.default
        parts.append((weights.quality, quality))
    if weights.cost > 0.0 and spec.dear_usd is not None:
        spent = _sums(n, came.rounds, came.cost_usd, counts & ~np.isnan(came.cost_usd))
        parts.append((weights.cost, np.maximum(0.0, 1.0 - spent / spec.dear_usd)))
    if weights.latency > 0.0 and spec.slow_s is not None:
        slowest = np.full(n, -np.inf)
        heard = counts & ~np.isnan(came.latency_s)
        np.maximum.at(slowest, came.rounds[heard], came.latency_s[heard])
        slowest[np.isneginf(slowest)] = np.nan
        parts.append((weights.latency, np.maximum(0.0, 1.0 - slowest / spec.slow_s)))
    if len(parts) == 1:
        return parts[0][1]
    summed, weight = np.zeros(n), 0.0
    for share, part in parts:
        summed, weight = summed + share * part, weight + share
    return summed / weight


def costs(n: int, came: Came) -> Vector:
    """USD spent on each of n decisions, (n,), early or late; NaN where none was measured. See `rewards.cost`."""
    return _sums(n, came.rounds, came.cost_usd, ~np.isnan(came.cost_usd))


def _quality(n: int, came: Came, counts: Mask, spec: RewardConfig) -> Vector:
    """Measured quality of each decision, or else its votes and signals; NaN where there is neither."""
    measured = counts & ~np.isnan(came.quality)
    has_quality = np.zeros(n, np.bool_)
    has_quality[came.rounds[measured]] = True
    signals = [getattr(spec.signals, source) for source in SIGNALS]
    worth = np.array([np.nan, spec.upvote, *signals, spec.downvote], np.float64)  # by vote; -1 is the last
    voted = worth[came.vote]
    taken = measured | (counts & ~np.isnan(voted) & ~has_quality[came.rounds])
    values = np.where(measured, came.quality, voted)
    if spec.aggregate in ("first", "last"):
        return _picked(n, came.rounds[taken], came.times[taken], values[taken], spec.aggregate)
    summed = _sums(n, came.rounds, values, taken)
    if spec.aggregate == "sum":
        return np.minimum(summed, 1.0)
    return summed / np.maximum(np.bincount(came.rounds[taken], minlength=n), 1)


def _picked(n: int, rounds: Rounds, times: Vector, values: Vector, which: Literal["first", "last"]) -> Vector:
    """The first or the last value of each round by time, then by value; (n,), NaN where there is none."""
    found = np.full(n, np.nan)
    found[rounds] = values + 0.0  # -0.0 is 0.0
    several = np.bincount(rounds, minlength=n)[rounds] > 1
    if several.any():
        rounds, times, values = rounds[several], times[several], values[several]
        order = np.lexsort((values, times, rounds))
        rounds, values = rounds[order], values[order]
        change = np.flatnonzero(np.diff(rounds))
        at = np.concatenate([[0], change + 1]) if which == "first" else np.append(change, len(rounds) - 1)
        found[rounds[at]] = values[at] + 0.0
    return found


def _sums(n: int, rounds: Rounds, values: Vector, taken: Mask) -> Vector:
    """Sum of the taken values of each round, rounded once; (n,), NaN where there is none."""
    rounds, values = rounds[taken], values[taken]
    counts = np.bincount(rounds, minlength=n)
    if not (counts > 1).any():
        found = np.full(n, np.nan)
        found[rounds] = values + 0.0
        return found
    values = values[np.argsort(rounds, kind="stable")]
    ends = np.cumsum(counts)
    starts = ends - counts
    found = np.full(n, np.nan)
    one, two = counts == 1, counts == 2
    found[one] = values[starts[one]] + 0.0
    with np.errstate(over="ignore"):
        found[two] = values[starts[two]] + values[starts[two] + 1] + 0.0  # one addition rounds once
    for many in np.flatnonzero(counts > 2):
        found[many] = total(values[starts[many] : ends[many]].tolist())
    return found
