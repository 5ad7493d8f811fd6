"""The gate: may this candidate replace the learned policy that is serving? pass, fail, or hold.

It may be asked every night: the error rate is spent over the nights since the last promotion, and within a night the
interval is valid however often one looks. Not enough data is hold, never pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bandits.errors import EvidenceError, ShapeError
from bandits.evaluation.intervals import check_alpha, lower_bound
from bandits.evaluation.moments import finite_scores, moments
from bandits.evaluation.weights import ENOUGH
from bandits.types import Vector


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What the gate says and the evidence it rests on. What is None was not estimated: missing is not zero."""

    outcome: Literal["pass", "fail", "hold"]
    reason: str  # a sentence for a person
    n: int  # rounds
    ess: float  # as given by the caller
    alpha: float  # spent tonight
    advantage: float | None = None  # mean of candidate - incumbent, in reward units
    low: float | None = None  # it is above this, and below `high`: each at the whole of tonight's alpha
    high: float | None = None


def gate(
    candidate_scores: Vector,
    incumbent_scores: Vector | None,
    *,
    alpha: float,
    night: int,
    bound: float,
    ess: float,
    horizon: int | None = None,
) -> GateVerdict:
    """Judge a candidate against the learned policy that serves, by their DR scores on the same rounds.

    candidate_scores, incumbent_scores:  (n,) in order of time; None when no learned policy is serving. Neither policy
           nor q_hat may have been fitted on these rounds: a candidate chosen by them looks better than it is.
    alpha: error rate over all nights since the last promotion; divide it by the number of candidates if several try.
    night: 1 for the first night since the last promotion; night t may spend alpha 6 / (pi^2 t^2), in all alpha.
    bound: largest |candidate - incumbent| on one round: evaluation.dr.difference_bound, or 1 / (least propensity).
           Scores are not clipped: one beyond the bound raises.
    ess:   the smaller of the two policies' Support.evidence, which is 0 if a policy lacks support.
    horizon: of the bets, in rounds; the log's own length if None, and then each look has to spend a night of its own.
           Fixed before the first round, together with the bound, looks are free: a trial (judging.py) spends once.

    With probability 1 - alpha no policy that is no better ever passes; and, separately, with probability 1 - alpha none
    that is no worse ever fails. A pass rests on the low end alone and a fail on the high end alone, so each end has all
    of tonight's alpha: together they hold the advantage with probability 1 - 2 alpha.
    An advantage that moved, so that the log shows it to be above one number and below a smaller one, is hold.
    Raises ShapeError, EvidenceError.
    """
    spent = spend(alpha, night)
    finite_scores(candidate_scores, "candidate_scores")
    n = len(candidate_scores)
    if incumbent_scores is None:
        return GateVerdict("hold", "no learned policy is serving; the guard decides.", n, ess, spent)
    finite_scores(incumbent_scores, "incumbent_scores")
    if incumbent_scores.shape != (n,):
        raise ShapeError(
            f"candidate and incumbent must be scored on the same rounds, but got n={n} and n={len(incumbent_scores)}."
        )
    differences = candidate_scores - incumbent_scores
    horizon = n if horizon is None else horizon
    above = lower_bound(differences, spent, low=-bound, high=bound, horizon=horizon)
    below = -lower_bound(-differences, spent, low=-bound, high=bound, horizon=horizon)
    advantage = moments(differences).mean if n else None
    outcome, reason = _judge(above, below, spent, night, ess)
    return GateVerdict(outcome, reason, n, ess, spent, advantage, min(above, below), max(above, below))


def spend(alpha: float, night: int) -> float:
    """Error rate that night `night` (1, 2, ...) may spend; over all nights the sum is `alpha`."""
    check_alpha(alpha)
    if night < 1:
        raise EvidenceError(f"night must be 1 or more, but got {night}; the night after a promotion is 1.")
    return alpha * 6.0 / (math.pi * night) ** 2


def _judge(
    above: float, below: float, alpha: float, night: int, ess: float
) -> tuple[Literal["pass", "fail", "hold"], str]:
    """above, below: the log shows the advantage to be above the one and below the other."""
    between = f"advantage between {above:+.4f} and {below:+.4f} (alpha {alpha:.2g}, test {night})"
    if not ess >= ENOUGH:
        return "hold", f"not enough data: the effective sample size is {ess:.0f}, and a verdict needs {ENOUGH:.0f}."
    if above > below:  # no one number is both: what part of the log proved, another part disproved
        return "hold", f"the advantage moved: shown to be above {above:+.4f} and, at another time, below {below:+.4f}."
    if above > 0.0:
        return "pass", f"the candidate is better than the serving policy: {between}."
    if below < 0.0:
        return "fail", f"the candidate is worse than the serving policy: {between}."
    return "hold", f"the log cannot tell yet: {between}."
