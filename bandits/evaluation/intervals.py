"""Intervals for the mean of scores: two for a single look at the end, one that stays valid however often one looks."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from bandits.errors import EvidenceError
from bandits.evaluation.moments import Moments, finite_scores
from bandits.types import Vector

_ROUNDING = 1e-12  # a range narrower than this is one number
_TRUNCATION = 0.75  # share of the capital that one bet may lose at most
STAKE = 2.5  # of Brownian motion: 2 would be best for being rich *at* the horizon, 2.5 is for ever by then (power .8)
_HALVINGS = 28  # ends are exact to 2^-28 of the range


class Interval(NamedTuple):
    """Low and high end, in the unit of the scores."""

    low: float
    high: float


def normal(moments: Moments, alpha: float) -> Interval:
    """Mean -+ z standard errors: covers with 1 - alpha for large n, *one* look, and weights without a heavy tail.

    Everything is possible (-inf, inf) when n < 2.
    """
    check_alpha(alpha)
    if moments.n < 2:
        return Interval(-math.inf, math.inf)
    half = NormalDist().inv_cdf(1.0 - alpha / 2.0) * moments.standard_error
    return Interval(moments.mean - half, moments.mean + half)


def bootstrap(scores: Vector, alpha: float, rng: np.random.Generator, resamples: int = 1000) -> Interval:
    """Percentile bootstrap of the mean: the spread of means of rounds drawn anew, with replacement.

    For *one* look, like `normal`, but it follows the skew of heavy weights. Takes n times `resamples` draws.
    Everything is possible (-inf, inf) when n < 2. The same rng gives the same interval.

    Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
    """
    check_alpha(alpha)
    finite_scores(scores, "scores")
    n = len(scores)
    if n < 2:
        return Interval(-math.inf, math.inf)
    if resamples < 1:
        raise EvidenceError(f"resamples must be 1 or more, but got {resamples}; 1000 is usual.")
    means = [float(scores[rng.integers(n, size=n)].mean()) for _ in range(resamples)]
    low, high = np.quantile(means, (alpha / 2.0, 1.0 - alpha / 2.0))
    return Interval(float(low), float(high))


def betting(scores: Vector, alpha: float, *, low: float, high: float, horizon: int | None = None) -> Interval:
    """Confidence sequence at time n for the mean of scores in [low, high]: with probability 1 - alpha it holds the mean
    at *every* n at which one looks, for any distribution on the range.

    Two gamblers share alpha: one bets that the mean is high, as `lower_bound` says, the other the same of -scores.
    Where each rules out what the other leaves, no mean is left: that happens once in 1/alpha, or because the mean
    moved. The gap between them is returned, which claims less than nothing left.

    Arguments and errors as for `lower_bound`.
    """
    check_alpha(alpha)
    up = lower_bound(scores, alpha / 2.0, low=low, high=high, horizon=horizon)
    down = -lower_bound(-scores, alpha / 2.0, low=-high, high=-low, horizon=horizon)
    return Interval(min(up, down), max(up, down))


def lower_bound(scores: Vector, alpha: float, *, low: float, high: float, horizon: int | None = None) -> float:
    """A number that the mean of scores in [low, high] is above, with probability 1 - alpha at *every* n at once.

    For each possible mean m a gambler bets that the mean is above m, with stakes set by the rounds before. Were m the
    mean, it would not get rich: by Ville's inequality its capital ever reaches 1/alpha with probability at most alpha.
    An m against which it once did is ruled out for good: so the bound at n is never below that of any n before.
    Capital is monotone in m, so what is ruled out is all below one number, found by halving; the m returned is ruled
    out itself, so rounding never raises the bound.

    scores:   (n,), in order of time, each with the same mean given those before it.
    low, high: a range that holds every score, not chosen by looking at them.
    horizon:  n at which the bound should be best, fixed in advance (not by looking at the scores); without it, all n
              alike. Either way it is valid at every n.
    Raises EvidenceError for a score out of range: clipping would bias the mean.

    Waudby-Smith, Ramdas 2023, "Estimating means of bounded random variables by betting", Theorem 3 with predictable
    plug-in bets.
    """
    check_alpha(alpha)
    x = _unit(scores, low, high)
    if high - low <= _ROUNDING:
        return low
    return low + (high - low) * _ruled_out_below(x, _bets(x, alpha, horizon), alpha)


def check_alpha(alpha: float) -> None:
    """Raise EvidenceError unless `alpha` is an error rate."""
    if not 0.0 < alpha < 1.0:
        raise EvidenceError(f"alpha must be in (0, 1), but got {alpha!r}; 0.05 errs once in twenty.")


def _bets(x: Vector, alpha: float, horizon: int | None) -> Vector:
    """Stakes, (n,), by the spread of the rounds before, begun with one round of mean 1/2 and variance 1/4.

    They are the same for x and for 1 - x: gamblers on either side stake alike.
    """
    t = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (t + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (t + 1)
    before = np.concatenate(([0.25], variance[:-1]))
    pace = t * np.log1p(t) if horizon is None else np.full(len(x), float(max(horizon, 1)))
    bets: Vector = np.sqrt(-STAKE * math.log(alpha) / (before * pace))
    return bets


def _ruled_out_below(x: Vector, bets: Vector, alpha: float) -> float:
    """The largest m, to rounding, that betting on "the mean is above m" ever ruled out; 0 if none. x: (n,)."""
    rich = -math.log(alpha)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        m = (low + high) / 2.0
        capital = np.log1p(np.minimum(bets, _TRUNCATION / m) * (x - m)).cumsum()
        low, high = (m, high) if capital.max(initial=0.0) >= rich else (low, m)
    return low


def _unit(scores: Vector, low: float, high: float) -> Vector:
    """Scores in [low, high] -> [0, 1]."""
    finite_scores(scores, "scores")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise EvidenceError(f"the range must be finite with low <= high, but got [{low!r}, {high!r}].")
    slack = _ROUNDING + 1e-9 * (high - low)  # a score on the edge may lie past it by rounding
    bad = np.flatnonzero((scores < low - slack) | (scores > high + slack))
    if bad.size:
        raise EvidenceError(
            f"scores must lie in [{low:g}, {high:g}], but got {float(scores[bad[0]])!r} at rows {bad[:5].tolist()}; "
            "state the true range, or clip q_hat (not the scores) to [0, 1]."
        )
    unit: Vector = np.clip((scores - low) / max(high - low, _ROUNDING), 0.0, 1.0)
    return unit
