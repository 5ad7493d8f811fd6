"""The first day: spend draws where they decide, while the record tells more and more.

A fifth is an even spread over all arms, so that a night can learn about each; the rest is Thompson sampling over
*mixes*: means are drawn from what is believed of each arm, and the best mix at the budget is played for each draw. What
is played is the mean over a fixed set of draws, so its probabilities are exact, it costs no more than the budget, and
it is a pure function of what was heard so far: replicas agree, and a decision can be replayed.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bandits.types import Matrix, Vector

EVEN = 0.2  # share of the draws that are spread evenly
_DRAWS = 128


def first_mix(values: Vector, counts: Vector, prices: Vector, budget: float) -> Vector:
    """Probabilities, (K,), of the first day: even at first, then ever more on the arms that may be in the best mix.

    values: (K,) mean reward so far.   counts: (K,) rewards behind it.   prices, budget: USD per request.
    """
    even = np.array(_evenly(tuple(prices.tolist()), budget))
    if not counts.any():
        return even
    return EVEN * even + (1.0 - EVEN) * thompson_mix(values, counts, prices, budget)


def exploring_mix(prices: Vector, budget: float) -> Vector:
    """Probabilities, (K,), that learn most evenly about all arms within `budget`: the first day's policy.

    Maximises sum_a log p_a subject to the mean price, so no arm starves: p_a = 1 / (m + n price_a), uniform when that
    is affordable. When nothing but the cheapest is, the cheapest.
    """
    k = len(prices)
    uniform = np.full(k, 1.0 / k)
    if float(uniform @ prices) <= budget:
        return uniform
    if float(prices.min()) >= budget:
        return np.eye(k)[int(np.argmin(prices))]
    # Substituting m = K - n * budget satisfies both constraints at once: sum p = 1 and sum p price = budget both
    # hold at the one root n of f(n) = sum_a 1 / (K + n (price_a - budget)) - 1 away from 0.
    excess = prices - budget
    low, high = 0.0, -k / float(excess.min())
    for _ in range(200):
        n = 0.5 * (low + high)
        if float((excess / (k + n * excess)).sum()) > 0.0:
            low = n
        else:
            high = n
    p = 1.0 / (k + 0.5 * (low + high) * excess)
    return np.asarray(p / p.sum())


def thompson_mix(values: Vector, counts: Vector, prices: Vector, budget: float) -> Vector:
    """Probabilities, (K,): the mean of the best mixes at `budget`, over draws from what is believed of each arm.

    When nothing is affordable, the cheapest.
    Thompson 1933; of mixes under a budget Badanidiyuru, Kleinberg & Slivkins 2013, "Bandits with Knapsacks".
    """
    k = len(prices)
    if float(prices.min()) > budget:
        return np.eye(k)[int(np.argmin(prices))]
    mean, deviation = believed(values, counts)
    drawn = mean + deviation * _normal(k)
    # Every pair of an affordable arm a and any arm b, with the largest share of b that the budget allows.
    a, b = (side.ravel() for side in np.meshgrid(np.flatnonzero(prices <= budget), np.arange(k), indexing="ij"))
    dearer = np.where(prices[b] > budget, prices[b] - prices[a], 1.0)
    share = np.where(prices[b] > budget, (budget - prices[a]) / dearer, 1.0)
    best = ((1.0 - share) * drawn[:, a] + share * drawn[:, b]).argmax(axis=1)
    found = np.bincount(a[best], 1.0 - share[best], minlength=k) + np.bincount(b[best], share[best], minlength=k)
    return np.asarray(found / found.sum())


def believed(values: Vector, counts: Vector) -> tuple[Vector, Vector]:
    """What is believed of each arm, (K,) each: a Gaussian with the mean and deviation of Beta(1 + n v, 1 + n (1 - v)).

    A uniform prior, and rewards of 0 or 1, whose deviation is the largest that rewards in [0, 1] can have.
    """
    mean = (1.0 + counts * values) / (2.0 + counts)
    return mean, np.sqrt(mean * (1.0 - mean) / (3.0 + counts))


@lru_cache(maxsize=1024)
def _evenly(prices: tuple[float, ...], budget: float) -> tuple[float, ...]:
    return tuple(exploring_mix(np.array(prices), budget).tolist())


@lru_cache(maxsize=64)
def _normal(k: int) -> Matrix:
    """Standard normal draws, (m, K): always the same ones, and with every draw its mirror image."""
    half = np.random.default_rng(k).standard_normal((_DRAWS // 2, k))
    return np.concatenate([half, -half])
