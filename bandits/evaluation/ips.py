"""Inverse propensity scores: reweight what was logged. Unbiased, and the noisiest: a cross-check, never the default."""

from __future__ import annotations

import numpy as np

from bandits.evaluation.weights import check_probs, importance
from bandits.types import LoggedFeedback, Matrix, Vector


def scores(feedback: LoggedFeedback, action_probs: Matrix) -> Vector:
    """IPS scores (also called IPW), one per round; their mean estimates the target policy's value.

        s_i = w_i r_i,   w_i = pi_e(a_i|x_i) / pi_b(a_i|x_i)

    action_probs:  (n, K), rows sum to 1, target policy.
    Returns (n,) in reward units, in [0, 1 / least propensity]. Unbiased if propensities are right and the log could
    have drawn every action that the target plays. Adding c to every reward does not add c to the estimate: for that
    use snips or dr.
    Raises ShapeError, PropensityError.

    Horvitz, Thompson 1952, "A Generalization of Sampling Without Replacement from a Finite Universe".
    """
    weights = importance(feedback, action_probs)
    weights *= feedback.rewards
    return weights


def score_range(feedback: LoggedFeedback, action_probs: Matrix) -> tuple[float, float]:
    """A range that holds every score for rewards in [0, 1]: 0 to the largest weight of any arm that could be drawn.

    It looks at no action and no reward, so a confidence sequence may bet within it.
    """
    check_probs(feedback, action_probs)
    p = feedback.probabilities
    weights = np.divide(action_probs, p, out=np.zeros_like(p), where=p > 0.0)
    return 0.0, float(weights.max(initial=0.0))
