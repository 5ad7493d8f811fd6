"""Which learner serves a scope: the one that the log speaks for, with the reason in words.

The first, the simplest, is the incumbent. Another replaces it only if its paired, cross-validated doubly robust gain is
more than one standard error: the best of several noisy values is high by luck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bandits.errors import NotEnoughDataError
from bandits.evaluation.moments import finite_scores, moments
from bandits.types import Vector

Learner = Literal["linear", "direct_method", "doubly_robust", "offset_tree"]
LEARNERS: tuple[Learner, ...] = ("linear", "direct_method", "doubly_robust", "offset_tree")  # the simplest first


@dataclass(frozen=True, slots=True)
class Chosen:
    """The learner, why, and what each would have earned (reward, cross-validated)."""

    learner: Learner
    reason: str
    values: Mapping[Learner, float]


def choose(scores: Mapping[Learner, Vector]) -> Chosen:
    """Compare learners, the simplest first, by what each would have earned in the same rounds.

    scores: doubly robust scores, (n,) each, by one yardstick, of policies that did not see the round.
    Raises NotEnoughDataError below two rounds: a difference needs a standard error.
    """
    best, *others = scores
    reasons = []
    for learner in scores:
        finite_scores(scores[learner], learner)
    if len(scores[best]) < 2:
        raise NotEnoughDataError(
            f"a choice needs two rounds, but the log has {len(scores[best])}; serve on and try again."
        )
    for learner in others:
        gain = moments(scores[learner] - scores[best])
        won = gain.mean > gain.standard_error
        reasons.append(
            f"{learner} {'gains' if won else 'does not gain'} more than a standard error on {best}: "
            f"{gain.mean:+.4f} ± {gain.standard_error:.4f}"
        )
        best = learner if won else best
    values = {learner: moments(each).mean for learner, each in scores.items()}
    return Chosen(best, "; ".join(reasons) or f"{best} alone was tried", values)
