"""Direct method: trust the reward model. Its interval knows nothing of the model's own error."""

from __future__ import annotations

import numpy as np

from bandits.evaluation.weights import check_probs, check_q_hat
from bandits.types import LoggedFeedback, Matrix, Vector


def scores(feedback: LoggedFeedback, action_probs: Matrix, q_hat: Matrix) -> Vector:
    """Direct-method scores, one per round; their mean estimates the target policy's value.

        s_i = sum_a pi_e(a|x_i) q_hat(x_i,a)

    action_probs:  (n, K), rows sum to 1, target policy.
    q_hat:         (n, K), reward unit, fitted on other folds.
    Returns (n,) in reward units. Unbiased only if q_hat is right; needs no propensities. Its spread is that of the
    contexts alone.
    Raises ShapeError, PropensityError, EvidenceError.

    Dudik, Erhan, Langford, Li 2014, "Doubly Robust Policy Evaluation and Optimization", section 3.1.
    """
    check_probs(feedback, action_probs)
    check_q_hat(feedback, q_hat)
    return values(action_probs, q_hat)


def values(action_probs: Matrix, q_hat: Matrix) -> Vector:
    """What the model expects of the policy in each round, (n,); needs no log. Rows must be distributions."""
    expected: Vector = np.einsum("nk,nk->n", action_probs, q_hat)
    return expected
