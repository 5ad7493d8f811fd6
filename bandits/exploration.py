"""Exploration: scores, and how sure they are, become probabilities with a floor. Pure functions of whole batches.

In all of them: scores, widths are (n, K) in units of reward; allowed is (n, K) with an arm in every row; the answer is
(n, K), rows sum to 1, 0 where not allowed, at least floor / (number allowed) elsewhere. An arm whose score is surely
the best comes to have all but the floor: each explores less as it knows more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from bandits.errors import EvidenceError
from bandits.policy import with_floor
from bandits.types import Mask, Matrix

_NODES = np.linspace(-6.0, 6.0, 49)  # deviations at which an arm's own distribution is cut


class Bounds(NamedTuple):
    """An interval for each score, (n, K) each."""

    low: Matrix
    high: Matrix


def bounds(scores: Matrix, widths: Matrix, miss: float) -> Bounds:
    """Two-sided intervals that a Gaussian of these means and deviations leaves with probability `miss`."""
    if not 0.0 < miss < 1.0:
        raise EvidenceError(f"the chance to miss must be in (0, 1), but got {miss!r}.")
    reach = float(ndtri(1.0 - miss / 2.0)) * _positive(widths, "widths")
    return Bounds(scores - reach, scores + reach)


def greedy(scores: Matrix, allowed: Mask, floor: float) -> Matrix:
    """Epsilon-greedy: the best allowed arm, and the floor (epsilon) shared among all allowed. Ties: the first."""
    chosen = np.zeros(scores.shape)
    chosen[np.arange(len(scores)), _masked(scores, allowed).argmax(axis=1)] = 1.0
    return with_floor(chosen, allowed, floor)


def squarecb(scores: Matrix, allowed: Mask, gamma: float, floor: float) -> Matrix:
    """Inverse gap weighting: p_a = 1 / (m + gamma (best - score_a)) on m allowed arms; the best has what is left.

    gamma: per unit of reward; let it rise with the events seen. Foster & Rakhlin 2020, "Beyond UCB", algorithm 1.
    """
    masked = _masked(scores, allowed)
    best = masked.argmax(axis=1)
    gap = np.where(allowed, masked.max(axis=1, keepdims=True) - masked, 0.0)
    weights = np.where(allowed, 1.0 / (allowed.sum(axis=1, keepdims=True) + gamma * gap), 0.0)
    rows = np.arange(len(scores))
    weights[rows, best] = 0.0
    weights[rows, best] = 1.0 - weights.sum(axis=1)
    return with_floor(weights, allowed, floor)


def boltzmann(scores: Matrix, allowed: Mask, temperature: float, floor: float) -> Matrix:
    """p_a proportional to exp(score_a / temperature).   temperature: > 0, in units of reward."""
    if not temperature > 0.0:
        raise EvidenceError(f"temperature must be > 0, but got {temperature!r}; use greedy for 0.")
    masked = _masked(scores, allowed)
    return with_floor(np.exp((masked - masked.max(axis=1, keepdims=True)) / temperature), allowed, floor)


def posterior(scores: Matrix, widths: Matrix, allowed: Mask, floor: float) -> Matrix:
    """Thompson's probabilities, computed: the chance that each arm is best if arm a ~ N(score_a, width_a²) apart.

    P(a) = integral of prod_{b != a} Phi_b dPhi_a, summed over the union of all arms' own nodes, so that a narrow arm
    beside a wide one is seen. Within .002 of the truth. Costs (K * 49) * K per row.
    """
    widths = np.maximum(_positive(widths, "widths"), 1e-9)
    n, k = scores.shape
    nodes = np.sort((scores[:, :, None] + widths[:, :, None] * _NODES).reshape(n, -1), axis=1)
    below = ndtr((nodes[:, :, None] - scores[:, None, :]) / widths[:, None, :])  # (n, nodes, K)
    below = np.where(allowed[:, None, :], below, 1.0)
    chances = np.zeros((n, k))
    for arm in range(k):
        others = np.delete(below, arm, axis=2).prod(axis=2)
        chances[:, arm] = (np.diff(below[:, :, arm], axis=1) * 0.5 * (others[:, 1:] + others[:, :-1])).sum(axis=1)
    return with_floor(chances, allowed, floor)


def posterior_sampled(
    scores: Matrix, widths: Matrix, allowed: Mask, floor: float, draws: int, rng: np.random.Generator
) -> Matrix:
    """The same by Monte Carlo: how often each arm was best in `draws` draws. The row is still the one drawn from."""
    noise = rng.normal(size=(draws, *scores.shape))
    drawn = np.where(allowed, scores + _positive(widths, "widths") * noise, -np.inf).argmax(axis=2)
    return with_floor((drawn[:, :, None] == np.arange(scores.shape[1])).mean(axis=0), allowed, floor)


def _masked(scores: Matrix, allowed: Mask) -> Matrix:
    return np.where(allowed, scores, -np.inf)


def _positive(values: Matrix, what: str) -> Matrix:
    if not (values >= 0.0).all():
        raise EvidenceError(f"{what} must be >= 0, but got {float(np.min(values))!r}.")
    return values
