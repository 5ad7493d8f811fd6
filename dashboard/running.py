"""How sure the log has become, round by round, that a policy is better than a fixed model. Pure, like figures.py."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bandits.evaluation import dr
from bandits.evaluation.intervals import betting
from bandits.evaluation.moments import moments
from bandits.types import Vector
from bandits.what_if.counterfactual import Log, Models
from dashboard.figures import ALPHA
from dashboard.words import signed

LOOKS = 40  # points of the line: each is a bisection over all rounds before it


class Look(NamedTuple):
    """What was known after so many rounds of policy less baseline, in reward units."""

    rounds: int
    mean: float
    low: float  # with probability 95 % the difference lies in all of these intervals at once
    high: float


def running(log: Log, models: Models, version: str, arm: int) -> list[Look]:
    """The interval of (policy `version` less always `arm`) at up to LOOKS times, over the rounds that the policy drew.

    By paired doubly robust scores, since what both do alike cancels. Rounds in which the arm could not be drawn tell
    nothing of it and are left out. Bets look at earlier rounds alone, and what was ruled out stays so: each interval
    lies in the one before, unless the difference moved (see intervals.betting).
    """
    probabilities = log.feedback.probabilities
    mine = (log.policies == version) & (probabilities[:, arm] > 0.0)
    part, q_hat = log.feedback.where(mine), models.q_hat[mine]
    n = len(part)
    if n < 2:
        return []
    always = np.broadcast_to(np.eye(part.k)[arm], (n, part.k))
    scores = dr.scores(part, part.probabilities, q_hat) - dr.scores(part, always, q_hat)
    scores = scores[np.argsort(part.times, kind="stable")]
    bound = dr.difference_bound(part, part.probabilities, always)
    looks = np.unique(np.linspace(2, n, LOOKS).round().astype(int))
    return [_look(scores[:rounds], bound) for rounds in looks.tolist()]


def _look(scores: Vector, bound: float) -> Look:
    low, high = betting(scores, ALPHA, low=-bound, high=bound)
    return Look(len(scores), moments(scores).mean, max(low, -1.0), min(high, 1.0))


def conclusion(looks: list[Look], policy: str, baseline: str) -> str:
    """What the last look says."""
    if not looks:
        return f"No round of {policy} tells anything of always {baseline}."
    last = looks[-1]
    between = f"between {signed(last.low)} and {signed(last.high)} after {last.rounds:,} rounds"
    if last.low > 0.0:
        return f"Policy {policy} is better than always {baseline}: {between}."
    if last.high < 0.0:
        return f"Policy {policy} is worse than always {baseline}: {between}."
    return f"Not known yet whether policy {policy} is better than always {baseline}: {between}."
