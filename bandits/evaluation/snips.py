"""Self-normalised inverse propensity scores: the only ratio among the estimators."""

from __future__ import annotations

import numpy as np

from bandits.errors import NotEnoughDataError
from bandits.evaluation.weights import importance
from bandits.types import LoggedFeedback, Matrix, Vector

_BLOCK = 2**14  # values that are scaled at once


def scores(feedback: LoggedFeedback, action_probs: Matrix) -> Vector:
    """SNIPS scores, one per round; their mean is the ratio R = sum(w r) / sum(w).

        s_i = R + (w_i / mean w) (r_i - R)

    The second term sums to 0, so the mean is R, and the spread is that of the ratio to first order (delta method): so
    mean and standard error come from moments.py as for every other estimator. Because R is in each score, scores of
    two logs do not merge: score the joined log.

    action_probs:  (n, K), rows sum to 1, target policy.
    Returns (n,) in reward units. Biased by O(1/n), consistent; moves with the reward: r + c gives R + c.
    Raises ShapeError, PropensityError, and NotEnoughDataError when no logged action could be the target's.

    Swaminathan, Joachims 2015, "The Self-Normalized Estimator for Counterfactual Learning".
    """
    return ratio_scores(importance(feedback, action_probs), feedback.rewards)


def ratio_scores(weights: Vector, values: Vector) -> Vector:
    """Scores, (n,), of the ratio sum(w v) / sum(w), written into `weights`. Raises NotEnoughDataError if that is 0."""
    total = float(weights.sum())
    if total == 0.0:
        raise NotEnoughDataError(
            f"a ratio needs a round whose logged action the target plays, but none of {len(weights)} is; "
            "wait until the log has tried the target's arms."
        )
    ratio = float(np.einsum("n,n->", weights, values)) / total
    scale = len(weights) / total
    for start in range(0, len(weights), _BLOCK):  # in the processor's cache, without a copy of the whole
        block = weights[start : start + _BLOCK]
        block *= scale
        block *= values[start : start + _BLOCK] - ratio
        block += ratio
    return weights
