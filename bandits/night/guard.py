"""The guard: never worse than simple. Candidate, best context-free mix, or best affordable fixed arm?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bandits.errors import EvidenceError, NotEnoughDataError, ShapeError
from bandits.evaluation.moments import finite_scores, moments
from bandits.types import Vector

Choice = Literal["candidate", "mix", "fixed"]

_ROUNDING = 1e-9  # means that differ by less tie; a cost above the budget by less (relatively) is within it


@dataclass(frozen=True, slots=True)
class GuardVerdict:
    """Which policy to publish, and why."""

    chosen: Choice
    advantage: float  # of the candidate over the better simple policy, in reward units
    standard_error: float  # of that advantage, paired
    reason: str  # a sentence for a person


def choose(
    candidate: Vector,
    mix: Vector,
    fixed: Vector,
    *,
    costs: Mapping[Choice, float],
    budget: float,
    mix_lead: float | None = None,
) -> GuardVerdict:
    """Choose by per-round DR scores, (n,) each, of the three policies on the same rounds.

    All three must be scored on rounds that did not choose them: the best of twelve arms by the scores that picked it
    looks better than it is, and a candidate that is judged on fresh rounds would seldom beat it.

    The candidate only if it is affordable and its mean paired advantage over the better simple policy, less one
    standard error, is > 0. Otherwise the mix, if it is affordable and better than the fixed arm; otherwise the fixed
    arm, which wins ties and is the last resort whatever it costs: something must serve.

    costs:   estimated USD per request of each of the three.     budget: USD per request.
    mix_lead:  value of the mix over the fixed arm, where more is known of it than these scores tell; None: their mean.
    Raises ShapeError, EvidenceError, and NotEnoughDataError when n < 2.
    """
    _check(candidate, mix, fixed, costs, budget)
    affordable = {name: cost <= budget * (1.0 + _ROUNDING) for name, cost in costs.items()}
    mix_lead = moments(mix - fixed).mean if mix_lead is None else mix_lead
    mix_wins = affordable["mix"] and mix_lead > _ROUNDING
    simple: Choice = "mix" if mix_wins else "fixed"
    lead = moments(candidate - (mix if mix_wins else fixed))
    advantage, error = lead.mean, lead.standard_error
    shown = f"its advantage over the {_NAMES[simple]} is {advantage:+.4f} with a standard error of {error:.4f}"
    if not affordable["candidate"]:
        reason = (
            f"The candidate would cost {costs['candidate']:.3g} USD per request and the budget is {budget:.3g}, "
            f"so the {_NAMES[simple]} serves."
        )
        return GuardVerdict(simple, advantage, error, reason)
    if advantage - error > 0.0:
        return GuardVerdict("candidate", advantage, error, f"The candidate serves: {shown}.")
    reason = f"The candidate is not shown to be better ({shown}), so the {_NAMES[simple]} serves."
    return GuardVerdict(simple, advantage, error, reason)


_NAMES: Mapping[Choice, str] = {"candidate": "candidate", "mix": "context-free mix", "fixed": "fixed arm"}


def _check(candidate: Vector, mix: Vector, fixed: Vector, costs: Mapping[Choice, float], budget: float) -> None:
    for name, scores in (("candidate", candidate), ("mix", mix), ("fixed", fixed)):
        finite_scores(scores, name)
    if not len(candidate) == len(mix) == len(fixed):
        raise ShapeError(
            f"candidate, mix and fixed must be scored on the same rounds, but got n={len(candidate)}, {len(mix)} "
            f"and {len(fixed)}."
        )
    if len(candidate) < 2:
        raise NotEnoughDataError(f"the guard needs at least 2 rounds, but got {len(candidate)}; gather feedback first.")
    if set(costs) != set(_NAMES):
        raise EvidenceError(f"costs must name candidate, mix and fixed, but got {', '.join(sorted(costs)) or 'none'}.")
    for name, dollars in (*costs.items(), ("budget", budget)):
        if not (math.isfinite(dollars) and dollars >= 0.0):
            raise EvidenceError(f"{name} must be finite USD per request and >= 0, but got {dollars!r}.")
