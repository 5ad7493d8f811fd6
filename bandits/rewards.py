"""Outcomes -> reward: pure, and done when reading, so that a new specification re-reads the whole history.

What came back stays in the record as it came; here it becomes one number in [0, 1], or stays missing. Order of arrival
never matters: outcomes are taken in order of their own time, and sums are rounded once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bandits.config import DomainConfig, RewardConfig
from bandits.errors import ContextError
from bandits.types import Decision, LoggedFeedback, Outcome, Scope, Slot, Vector

if TYPE_CHECKING:
    from bandits.record import Row

SKEW_S = 60.0  # clocks of two hosts may differ: an outcome may be stamped this much before its decision


def reward(outcomes: Sequence[Outcome], decided_at: float, now: float, spec: RewardConfig) -> float | None:
    """The reward of a decision, in [0, 1], or None while it is missing.

    Outcomes count from SKEW_S before the decision until spec.window_s after it. Measured quality beats votes: votes
    are mapped and used only if no outcome that counts has a quality. Among several, spec.aggregate takes the first,
    the last (of the same instant: the lowest, the highest) or the mean. When nothing counts: None while the window is
    open at `now`, spec.default once it has closed; a default of None stays missing.

    decided_at, now: UTC, seconds since the epoch.
    """
    closes = decided_at + spec.window_s
    counted = [o for o in outcomes if decided_at - SKEW_S <= o.time <= closes]
    values = [(o.time, o.quality) for o in counted if o.quality is not None] or [
        (o.time, spec.upvote if o.vote == 1 else spec.downvote) for o in counted if o.vote is not None
    ]
    if not values:
        return spec.default if now > closes else None
    if spec.aggregate == "mean":
        return math.fsum(value for _, value in values) / len(values)
    return (min if spec.aggregate == "first" else max)(values)[1]


def cost(outcomes: Sequence[Outcome]) -> float | None:
    """USD spent on a decision: the sum of all measured costs, early or late; None when none was measured."""
    costs = sorted(o.cost_usd for o in outcomes if o.cost_usd is not None)  # sorted: the sum knows no order of arrival
    return sum(costs) if costs else None


def feedback(rows: Iterable[Row], scope: Scope, config: DomainConfig, now: float) -> LoggedFeedback:
    """Fold rows of the record into the log of one scope, in order of the decisions' positions; see `fold`.

    rows: any order, any scopes. now: UTC, seconds since the epoch; closes windows, hides nothing.
    """
    decisions: list[tuple[int, Decision]] = []
    outcomes: defaultdict[str, list[Outcome]] = defaultdict(list)
    last = 0
    for position, entry in rows:
        last = max(last, position)
        if entry.scope != scope:
            continue
        if isinstance(entry, Decision):
            decisions.append((position, entry))
        else:
            outcomes[entry.decision_id].append(entry)
    decisions.sort(key=lambda pair: pair[0])
    return fold([decision for _, decision in decisions], outcomes, config, now, last)


def fold(
    decisions: Iterable[Decision],
    outcomes: Mapping[str, Sequence[Outcome]],
    config: DomainConfig,
    now: float,
    position: int,
) -> LoggedFeedback:
    """The log that learners read: `decisions` of one scope in order, with the reward and cost of each.

    Left out: forced and shadow decisions (their action was not drawn, or not played) and those of another feature
    schema. Counted in `missing`: decisions whose reward is unknown, and those that played an arm which is no longer
    configured, since they tell no reward of any arm there is.

    Arms are mapped by name onto those configured; a new arm has probability 0 in old rounds. Where an arm with
    probability > 0 is gone, the others are divided by what is left: given that one of them was drawn, that is the
    distribution it was drawn from.

    outcomes: by decision id. now: UTC, seconds since the epoch. position: of the last row that was read.
    Raises ContextError when contexts of the one schema differ in length.
    """
    arms = config.arm_names
    kept: list[tuple[Decision, int, Vector, float, float | None]] = []
    missing = 0
    for decision in decisions:
        if decision.forced or decision.slot is Slot.SHADOW or decision.schema != config.features:
            continue
        came_back = outcomes.get(decision.id, ())
        value = reward(came_back, decision.time, now, config.reward)
        if value is None or decision.arm not in arms:
            missing += 1
            continue
        kept.append((decision, arms.index(decision.arm), _over(arms, decision), value, cost(came_back)))
    probabilities = np.array([row for _, _, row, _, _ in kept], np.float64).reshape(len(kept), len(arms))
    actions = np.array([action for _, action, _, _, _ in kept], np.int64)
    return LoggedFeedback(
        arms=arms,
        schema=config.features,
        ids=tuple(decision.id for decision, *_ in kept),
        times=np.array([decision.time for decision, *_ in kept], np.float64),
        contexts=_stacked([decision for decision, *_ in kept]),
        actions=actions,
        propensities=probabilities[np.arange(len(kept)), actions],
        probabilities=probabilities,
        rewards=np.array([value for _, _, _, value, _ in kept], np.float64),
        costs=np.array([np.nan if usd is None else usd for *_, usd in kept], np.float64),
        missing=missing,
        position=position,
    )


def _over(arms: tuple[str, ...], decision: Decision) -> Vector:
    """The decision's probabilities over `arms`, (K,); they sum to 1."""
    if decision.arms == arms:
        return decision.probabilities
    logged = dict(zip(decision.arms, decision.probabilities.tolist(), strict=True))
    row = np.array([logged.get(arm, 0.0) for arm in arms])
    gone = any(probability > 0.0 for arm, probability in logged.items() if arm not in arms)
    return row / row.sum() if gone else row


def _stacked(decisions: Sequence[Decision]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Their contexts, (n, d); (0, 0) when there is none to tell d."""
    widths = {decision.context.shape: decision.id for decision in decisions}
    if len(widths) > 1:
        (one, one_id), (other, other_id) = list(widths.items())[:2]
        raise ContextError(
            f"contexts of one schema must have one length, but {decisions[0].schema!r} has {one[0]} in decision "
            f"{one_id} and {other[0]} in {other_id}; give changed features a new name or version."
        )
    if not decisions:
        return np.zeros((0, 0), np.float32)
    return np.stack([decision.context for decision in decisions])
