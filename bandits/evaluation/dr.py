"""Doubly robust scores: the reward model, corrected by what the log can prove. The default estimator."""

from __future__ import annotations

import numpy as np

from bandits.evaluation import dm
from bandits.evaluation.weights import check_probs, importance, of_actions
from bandits.types import LoggedFeedback, Matrix, Vector


def scores(feedback: LoggedFeedback, action_probs: Matrix, q_hat: Matrix) -> Vector:
    """Doubly robust scores, one per round; their mean estimates the target policy's value.

        s_i = sum_a pi_e(a|x_i) q_hat(x_i,a)  +  w_i (r_i - q_hat(x_i,a_i)),   w_i = pi_e/pi_b

    action_probs:  (n, K), rows sum to 1, target policy.
    q_hat:         (n, K), reward unit, fitted on other folds; clip it to [0, 1], which costs no bias.
    Returns (n,) in reward units. Unbiased if either propensity or q_hat is right, provided the log could have drawn
    every action the target plays; scores() cannot see that, the router's exploration floor guarantees it.
    Raises ShapeError, PropensityError, EvidenceError.

    Dudik, Erhan, Langford, Li 2014, "Doubly Robust Policy Evaluation and Optimization", section 3.
    """
    scores = dm.scores(feedback, action_probs, q_hat)
    weights = importance(feedback, action_probs)
    weights *= feedback.rewards - of_actions(q_hat, feedback.actions)
    scores += weights
    return scores


def score_range(feedback: LoggedFeedback, action_probs: Matrix) -> tuple[float, float]:
    """A range that holds every score for rewards and q_hat in [0, 1].

    For the drawn arm a the score is sum_{b != a} pi(b) q(b) + (pi(a) - w) q(a) + w r with w = pi(a)/p >= pi(a), so it
    lies between pi(a) - w and 1 - pi(a) + w. The extremes over the log's contexts and *all* arms that could be drawn
    are returned: blind to what was drawn, so a confidence sequence may bet within them.
    """
    check_probs(feedback, action_probs)
    p = feedback.probabilities
    above = np.divide(action_probs, p, out=np.zeros_like(p), where=p > 0.0)
    above -= np.where(p > 0.0, action_probs, 0.0)
    largest = float(above.max(initial=0.0))
    return -largest, 1.0 + largest


def difference_bound(feedback: LoggedFeedback, action_probs: Matrix, other_probs: Matrix) -> float:
    """How far the DR scores of two policies on one round can lie apart, for rewards and q_hat in [0, 1].

    Write D(a) for the difference of the two policies at a context, T = sum_a |D(a)| / 2, p for the propensity and a
    for the action. The difference of scores is

        sum_{b != a} D(b) q(b)  +  D(a) (1 - 1/p) q(a)  +  D(a) r / p.

    For D(a) >= 0 the first term lies in [-T, T - D(a)], the others in D(a) [1 - 1/p, 1/p]; likewise, mirrored, for
    D(a) < 0. So the difference is at most T + |D(a)| (1/p(a) - 1) in size, and some r and q_hat attain it. It never
    exceeds 1 / (least propensity). The largest value over the log's contexts and *all* arms that could be drawn is
    returned: it looks at no action and no reward, so that the gate's bets stay blind to what they bet on.

    action_probs, other_probs:  (n, K), rows sum to 1. Where the target plays an arm that the log could not draw the
    score is biased anyway (see Support.unsupported), and the arm adds nothing to the bound.
    """
    check_probs(feedback, action_probs)
    check_probs(feedback, other_probs)
    apart = np.abs(action_probs - other_probs)
    p = feedback.probabilities
    odds_against = np.divide(1.0 - p, p, out=np.zeros_like(p), where=p > 0.0)
    bounds = apart.sum(axis=1, keepdims=True) / 2.0 + apart * odds_against
    return float(bounds.max(initial=0.0))
