"""Self-normalised doubly robust scores: doubly robust, with weights that are made to average to 1."""

from __future__ import annotations

from bandits.evaluation import dm
from bandits.evaluation.snips import ratio_scores
from bandits.evaluation.weights import check_q_hat, importance, of_actions
from bandits.types import LoggedFeedback, Matrix, Vector


def scores(feedback: LoggedFeedback, action_probs: Matrix, q_hat: Matrix) -> Vector:
    """SN-DR scores, one per round; their mean is that of dm plus the ratio R = sum(w e) / sum(w), e = r - q_hat.

        s_i = sum_a pi_e(a|x_i) q_hat(x_i,a)  +  R + (w_i / mean w) (e_i - R)

    As with snips the second part's mean is R and its spread that of a ratio; scores of two logs do not merge. Less
    thrown by a few large weights than dr; its bias is O(1/n) times the error of q_hat.

    action_probs:  (n, K), rows sum to 1, target policy.     q_hat: (n, K), reward unit, fitted on other folds.
    Returns (n,) in reward units.
    Raises ShapeError, PropensityError, EvidenceError, and NotEnoughDataError when no logged action could be the
    target's.

    Thomas, Brunskill 2016, "Data-Efficient Off-Policy Policy Evaluation for Reinforcement Learning", weighted DR.
    """
    check_q_hat(feedback, q_hat)
    residuals = feedback.rewards - of_actions(q_hat, feedback.actions)
    found = ratio_scores(importance(feedback, action_probs), residuals)
    found += dm.scores(feedback, action_probs, q_hat)
    return found
