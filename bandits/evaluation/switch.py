"""SWITCH: doubly robust where the weight is small, the reward model alone where it is large."""

from __future__ import annotations

import math

import numpy as np

from bandits.errors import EvidenceError
from bandits.evaluation import dm
from bandits.evaluation.weights import importance, of_actions
from bandits.types import LoggedFeedback, Matrix, Vector

LARGEST = 2.0**20  # of the finite thresholds that are tried


def scores(feedback: LoggedFeedback, action_probs: Matrix, q_hat: Matrix, tau: float) -> Vector:
    """SWITCH scores, one per round; their mean estimates the target policy's value.

        s_i = sum_a pi_e(a|x_i) q_hat(x_i,a)  +  1[w_i <= tau] w_i (r_i - q_hat(x_i,a_i))

    tau = 0 is dm, tau = inf is dr. Between, the heaviest weights are given up for a bias, which is at most the
    target's mass on actions of weight above tau times the error of q_hat there.

    action_probs:  (n, K), rows sum to 1, target policy.     q_hat: (n, K), reward unit, fitted on other folds.
    tau:           largest weight that is used, >= 0; fixed in advance, or found by `tune`.
    Returns (n,) in reward units. Raises ShapeError, PropensityError, EvidenceError.

    Wang, Agarwal, Dudik 2017, "Optimal and Adaptive Off-policy Evaluation in Contextual Bandits", section 4, with
    the doubly robust part in place of the importance-weighted one.
    """
    if not tau >= 0.0:
        raise EvidenceError(f"tau must be >= 0, but got {tau!r}; 0 is dm, inf is dr.")
    model = dm.scores(feedback, action_probs, q_hat)
    weights = importance(feedback, action_probs)
    weights[weights > tau] = 0.0
    weights *= feedback.rewards - of_actions(q_hat, feedback.actions)
    model += weights
    return model


def tune(feedback: LoggedFeedback, action_probs: Matrix, q_hat: Matrix) -> float:
    """The threshold of least estimated squared error among 1, 2, 4, ..., the first above every weight being inf.

    Squared error = sample variance of the scores / n + (target's mass on arms of weight above tau)^2: no reward model
    in [0, 1] is further off than 1. So tau is given up for little: where the log has support, tune nearly says dr.

    Wang, Agarwal, Dudik 2017, section 4.1.
    """
    n = len(feedback)
    if n < 2:
        return math.inf
    model = dm.scores(feedback, action_probs, q_hat)
    weights = importance(feedback, action_probs)
    corrections = weights * (feedback.rewards - of_actions(q_hat, feedback.actions))
    none = np.full_like(action_probs, math.inf)  # an arm that could not be drawn has no weight, only the model
    every = np.divide(action_probs, feedback.probabilities, out=none, where=feedback.probabilities > 0.0)
    best, least, tau = math.inf, math.inf, 1.0
    while True:
        variance = float(np.var(model + np.where(weights <= tau, corrections, 0.0), ddof=1))
        bias = float(action_probs[every > tau].sum()) / n
        if variance / n + bias * bias < least:
            best, least = tau, variance / n + bias * bias
        if tau == math.inf:
            return best
        tau = tau * 2.0 if tau < min(float(weights.max()), LARGEST) else math.inf
