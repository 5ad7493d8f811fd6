"""Which learner serves a scope: the one that the log speaks for, with the reason in words.

The simplest, the direct method, is the incumbent. Another replaces it only if its paired, cross-validated doubly robust
gain is more than one standard error: the best of several noisy values is high by luck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bandits.errors import NotEnoughDataError
from bandits.learners import corrected, offset_tree
from bandits.learners.doubly_robust import Events, dr_scores

Learner = Literal["direct_method", "doubly_robust", "offset_tree"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The learner, why, and what each would have earned (reward, cross-validated)."""

    learner: Learner
    reason: str
    values: Mapping[Learner, float]


def choose(events: Events, learned: corrected.Learned, grown: offset_tree.Learned) -> Chosen:
    """Compare what was learned from n events on folds that each learner did not see, by one yardstick.

    Raises NotEnoughDataError below two events: a difference needs a standard error.
    """
    if len(events.phi) < 2:
        raise NotEnoughDataError(
            f"a choice needs two events, but the log has {len(events.phi)}; serve on and try again."
        )
    arms: dict[Learner, np.ndarray[tuple[int], np.dtype[np.int64]]] = {
        "direct_method": learned.direct,
        "doubly_robust": learned.played,
        "offset_tree": grown.played,
    }
    scores = {learner: dr_scores(events, learned.q_hat, played) for learner, played in arms.items()}
    best: Learner = "direct_method"
    reasons = []
    for learner in arms:
        if learner == "direct_method":
            continue
        gain = scores[learner] - scores[best]
        error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
        won = float(gain.mean()) > error
        reasons.append(
            f"{learner} {'gains' if won else 'does not gain'} more than a standard error on {best}: "
            f"{gain.mean():+.4f} ± {error:.4f}"
        )
        best = learner if won else best
    return Chosen(best, "; ".join(reasons), {learner: float(each.mean()) for learner, each in scores.items()})
