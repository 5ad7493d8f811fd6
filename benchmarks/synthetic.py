"""Logs whose truth is known: logistic rewards, a softmax that logged them, a sharper softmax that is judged on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from bandits.types import Actions, LoggedFeedback, Matrix

# What the logging policy makes of the true expected reward: softmax(beta q). Below 0 it plays the worst arms most.
LOGGING: Mapping[str, float] = MappingProxyType({"mild": 1.0, "adverse": -5.0})
TARGET = 10.0  # the same of the target policy: it plays the best arms


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A log of n rounds over K arms, a target policy, and what that policy is worth on the contexts of the log."""

    feedback: LoggedFeedback
    target: Matrix  # (n, K)
    truth: float


def known(n: int, k: int, d: int, beta: float, rng: np.random.Generator) -> Known:
    """n rounds over k arms of d standard normal features; rewards are 0 or 1, costs are not known.

    The logit of a reward is linear in context, arm, and the product of both, with coefficients uniform in [-1, 1],
    standardised over the log: the design that peers' packages measure themselves on.
    """
    contexts = rng.normal(size=(n, d)).astype(np.float32)
    logits = contexts @ (rng.uniform(-1.0, 1.0, (d, 1)) + rng.uniform(-1.0, 1.0, (d, k)))
    logits += rng.uniform(-1.0, 1.0, k)
    logits -= logits.mean()
    logits /= -logits.std()
    expected = 1.0 / (1.0 + np.exp(logits, out=logits))
    del logits  # at a million rounds every matrix counts
    probabilities, target = softmax(beta * expected), softmax(TARGET * expected)
    actions = _drawn(probabilities, rng)
    chosen = np.arange(n), actions
    feedback = LoggedFeedback(
        arms=tuple(f"arm-{arm}" for arm in range(k)),
        schema=f"vector-{d}",
        ids=tuple(map(str, range(n))),
        times=np.arange(n, dtype=np.float64),
        contexts=contexts,
        actions=actions,
        propensities=probabilities[chosen],
        probabilities=probabilities,
        rewards=(rng.random(n) < expected[chosen]).astype(np.float64),
        costs=np.full(n, np.nan),
    )
    return Known(feedback, target, float(np.einsum("nk,nk->", target, expected)) / n)


def softmax(scores: Matrix) -> Matrix:
    """Rows, (n, K), that sum to 1. Writes into `scores`."""
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def _drawn(probabilities: Matrix, rng: np.random.Generator) -> Actions:
    """One action a row, (n,). Many rows at once; the product's own draw takes one at a time."""
    point = rng.random(len(probabilities))
    actions = np.zeros(len(probabilities), dtype=np.int64)
    reached = np.zeros(len(probabilities))
    for arm in range(probabilities.shape[1] - 1):
        reached += probabilities[:, arm]
        actions += point >= reached
    return actions
