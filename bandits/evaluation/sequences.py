"""Confidence sequences for a policy's value, and for the paired difference of two: valid however often one looks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bandits.errors import EvidenceError
from bandits.evaluation import dr, ips
from bandits.evaluation.intervals import Interval, betting
from bandits.evaluation.weights import check_q_hat
from bandits.types import LoggedFeedback, Matrix


def value(
    feedback: LoggedFeedback,
    action_probs: Matrix,
    q_hat: Matrix | None,
    alpha: float,
    *,
    horizon: int | None = None,
) -> Interval:
    """Where the policy's value in [0, 1] lies, with probability 1 - alpha at every n at which one looks.

    By doubly robust scores; by inverse propensity scores when q_hat is None. Assumes that the policy is worth the same
    in every round, whoever logged it and however the propensities moved, and that the log could have drawn every arm
    that the policy plays.

    action_probs:  (n, K), rows sum to 1.    horizon: see intervals.betting.
    q_hat:         (n, K) in [0, 1]; each row from rounds before it, or from other rounds than these.
    Raises ShapeError, PropensityError, EvidenceError, also when rounds are not in order of time.

    Karampatziakis, Mineiro, Ramdas 2021, "Off-policy Confidence Sequences".
    """
    _check(feedback, q_hat)
    if q_hat is None:
        return _by_rewards_and_losses(feedback, action_probs, alpha, horizon)
    low, high = dr.score_range(feedback, action_probs)
    return _within(betting(dr.scores(feedback, action_probs, q_hat), alpha, low=low, high=high, horizon=horizon), 0.0)


def advantage(
    feedback: LoggedFeedback,
    action_probs: Matrix,
    other_probs: Matrix,
    q_hat: Matrix,
    alpha: float,
    *,
    horizon: int | None = None,
) -> Interval:
    """By how much the first policy is worth more than the second, in [-1, 1], with probability 1 - alpha at every n.

    The difference of doubly robust scores on the same rounds: what both policies do alike cancels, and q_hat takes out
    what it foresees, so it is known far better than either value. Arguments and errors as for `value`.
    """
    _check(feedback, q_hat)
    if not len(feedback):
        return Interval(-1.0, 1.0)
    differences = dr.scores(feedback, action_probs, q_hat) - dr.scores(feedback, other_probs, q_hat)
    bound = dr.difference_bound(feedback, action_probs, other_probs)
    return _within(betting(differences, alpha, low=-bound, high=bound, horizon=horizon), -1.0)


def _by_rewards_and_losses(
    feedback: LoggedFeedback, action_probs: Matrix, alpha: float, horizon: int | None
) -> Interval:
    """What the sequence of weighted rewards and that of weighted losses 1 - r both allow, each at half of alpha.

    Weights average to 1, so both speak of the value; the one that is mostly 0 says more, and which that is depends on
    whether rewards are rare or common.
    """
    scores_range = ips.score_range(feedback, action_probs)
    won, lost = (
        betting(ips.scores(log, action_probs), alpha / 2.0, low=scores_range[0], high=scores_range[1], horizon=horizon)
        for log in (feedback, replace(feedback, rewards=1.0 - feedback.rewards))
    )
    ends = max(won.low, 1.0 - lost.high), min(won.high, 1.0 - lost.low)
    return _within(Interval(min(ends), max(ends)), 0.0)


def _within(found: Interval, least: float) -> Interval:
    """The interval without what no value, or difference of values, can be: below `least` or above 1."""
    low, high = np.clip(found, least, 1.0)
    return Interval(float(low), float(high))


def check_order(feedback: LoggedFeedback) -> None:
    """Raise EvidenceError unless rounds are in order of time: a sequence bets on what comes next."""
    back = np.flatnonzero(~(np.diff(feedback.times) >= 0.0))
    if back.size:
        at = int(back[0])
        raise EvidenceError(
            f"rounds must be in order of time, but {float(feedback.times[at])!r} is followed by "
            f"{float(feedback.times[at + 1])!r} at row {at + 1}; sort the log: a sequence bets on what comes next."
        )


def _check(feedback: LoggedFeedback, q_hat: Matrix | None) -> None:
    check_order(feedback)
    if q_hat is None:
        return
    check_q_hat(feedback, q_hat)
    if q_hat.min(initial=0.0) < 0.0 or q_hat.max(initial=1.0) > 1.0:
        raise EvidenceError(
            f"q_hat must lie in [0, 1] like the rewards, but goes from {float(q_hat.min())!r} to "
            f"{float(q_hat.max())!r}; clip it, which costs no bias."
        )
