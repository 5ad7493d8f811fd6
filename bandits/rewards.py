"""Outcomes -> reward: pure, and done when reading, so that a new specification re-reads the whole history.

What came back stays in the record as it came; here it becomes one number in [0, 1], or stays missing. Order of arrival
never matters: outcomes are taken in order of their own time, and sums are rounded once.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from bandits.config import DomainConfig
from bandits.errors import ContextError
from bandits.settings.reward import RewardConfig
from bandits.types import JUDGE, SIGNALS, Decision, LoggedFeedback, Matrix, Outcome, Scope, Slot, Vector

if TYPE_CHECKING:
    from bandits.record.port import Row

SKEW_S = 60.0  # clocks of two hosts may differ: an outcome may be stamped this much before its decision


class State(StrEnum):
    """What became of a decision. All but `WAITING` are ends; which one may change with the specification only."""

    NOT_ACTIVATED = "not activated"  # forced or shadow: not drawn, or never shown; nothing is learned from it
    JOINED = "joined"  # enough came back in time to tell its reward
    DEFAULTED = "defaulted"  # its window closed in silence, and the specification says what silence is worth
    EXPIRED = "expired"  # its window closed before its reward was known: it stays missing
    WAITING = "waiting"  # its window is open, and its reward is missing so far


def state(decision: Decision, outcomes: Sequence[Outcome], now: float, spec: RewardConfig) -> State:
    """What became of `decision` by `now` (UTC, seconds since the epoch); `outcomes` are its own, in any order."""
    if not activated(decision):
        return State.NOT_ACTIVATED
    if reward(outcomes, decision.time, now, spec) is None:
        return State.EXPIRED if now > decision.time + spec.window_s else State.WAITING
    silent = spec.weights.quality > 0.0 and _quality(_counted(outcomes, decision.time, spec), spec) is None
    return State.DEFAULTED if silent else State.JOINED


def activated(decision: Decision) -> bool:
    """Whether its action was drawn and played, so that its outcome tells something of the arm."""
    return not decision.forced and decision.slot is not Slot.SHADOW


def reward(outcomes: Sequence[Outcome], decided_at: float, now: float, spec: RewardConfig) -> float | None:
    """The reward of a decision, in [0, 1], or None while it is missing.

        (w_quality quality + w_cost max(0, 1 - cost / dear_usd) + w_latency max(0, 1 - latency / slow_s)) / sum of w

    Outcomes count from SKEW_S before the decision until spec.window_s after it. Measured quality beats votes: votes
    are mapped and used only if no outcome that counts has a quality; so are signals to which the specification gives a
    worth, the others say nothing. Among several, spec.aggregate takes the first,
    the last (of the same instant: the lowest, the highest), the mean, or the sum but no more than 1. When no quality
    counts: None while the window is open at `now`, spec.default once it has closed; a default of None stays missing.
    Costs add up; of latencies the longest counts. A part of weight > 0 that is missing makes the reward missing.

    When another arm answered for the one drawn, that one learns what it did itself (`telling`).

    decided_at, now: UTC, seconds since the epoch.
    """
    counted, weights = _counted(telling(outcomes, spec), decided_at, spec), spec.weights
    parts: list[tuple[float, float | None]] = []
    if weights.quality > 0.0:
        quality = _quality(counted, spec)
        closed = now > decided_at + spec.window_s
        parts.append((weights.quality, spec.default if quality is None and closed else quality))
    if weights.cost > 0.0 and spec.dear_usd is not None:
        parts.append((weights.cost, _less(cost(counted), spec.dear_usd)))
    if weights.latency > 0.0 and spec.slow_s is not None:
        slowest = max((o.latency_s for o in counted if o.latency_s is not None), default=None)
        parts.append((weights.latency, _less(slowest, spec.slow_s)))
    if len(parts) == 1:
        return parts[0][1]
    summed = weight = 0.0
    for share, part in parts:
        if part is None:
            return None
        summed, weight = summed + share * part, weight + share
    return summed / weight


def telling(outcomes: Sequence[Outcome], spec: RewardConfig) -> Sequence[Outcome]:
    """Those that tell of the arm that was drawn.

    Where another answered for it, that is what it did itself: a dead arm must not earn its stand-in's reward. With
    spec.fallback "as_served" it is all that was served, and no failure on the way says anything of quality. What a
    judge was paid is never the arm's.
    """
    return [o for o in outcomes if not o.arm or (spec.fallback == "as_served" and o.arm != JUDGE)]


def cost(outcomes: Sequence[Outcome]) -> float | None:
    """USD spent on a decision: the sum of all measured costs, early or late; None when none was measured."""
    costs = [o.cost_usd for o in outcomes if o.cost_usd is not None]
    return total(costs) if costs else None


def total(values: Sequence[float]) -> float:
    """Sum of values >= 0, rounded once, so that it knows no order of arrival; infinite where it is beyond a float."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


def _counted(outcomes: Sequence[Outcome], decided_at: float, spec: RewardConfig) -> list[Outcome]:
    """Those inside of the window."""
    return [o for o in outcomes if decided_at - SKEW_S <= o.time <= decided_at + spec.window_s]


def _quality(counted: Sequence[Outcome], spec: RewardConfig) -> float | None:
    said = [o for o in counted if not o.failed] if spec.fallback == "as_served" else counted
    values = [(o.time, o.quality) for o in said if o.quality is not None] or [
        (o.time, value) for o in said if (value := _voted(o, spec)) is not None
    ]
    if not values:
        return None
    if spec.aggregate in ("first", "last"):
        return (min if spec.aggregate == "first" else max)(values)[1] + 0.0  # -0.0 is 0.0
    summed = total([value for _, value in values])
    return min(summed, 1.0) if spec.aggregate == "sum" else summed / len(values)


def _voted(outcome: Outcome, spec: RewardConfig) -> float | None:
    """The quality that a vote or a signal stands for."""
    if outcome.source in SIGNALS:
        worth: float | None = getattr(spec.signals, outcome.source)
        return worth
    return None if outcome.vote is None else spec.upvote if outcome.vote == 1 else spec.downvote


def _less(amount: float | None, worth_nothing: float) -> float | None:
    return None if amount is None else max(0.0, 1.0 - amount / worth_nothing)


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
        if not activated(decision) or decision.schema != config.features:
            continue
        came_back = outcomes.get(decision.id, ())
        value = reward(came_back, decision.time, now, config.reward)
        if value is None or decision.arm not in arms:
            missing += 1
            continue
        spent = cost(telling(came_back, config.reward))
        kept.append((decision, arms.index(decision.arm), _over(arms, decision), value, spent))
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
        users=tuple(decision.user for decision, *_ in kept),
    )


def _over(arms: tuple[str, ...], decision: Decision) -> Vector:
    """The decision's probabilities over `arms`, (K,); they sum to 1."""
    return over(arms, decision.arms, decision.probabilities[None, :])[0]


def over(arms: tuple[str, ...], logged: tuple[str, ...], probabilities: Matrix) -> Matrix:
    """Probabilities over the arms that were `logged`, (n, K'), as probabilities over `arms`, (n, K); see `fold`."""
    if logged == arms:
        return probabilities
    found = np.zeros((len(probabilities), len(arms)))
    gone = np.zeros(len(probabilities), np.bool_)
    for column, arm in enumerate(logged):
        if arm in arms:
            found[:, arms.index(arm)] = probabilities[:, column]
        else:
            gone |= probabilities[:, column] > 0.0
    left = functools.reduce(np.add, found.T)  # in order of the arms, so that a row knows no other row
    return np.where(gone[:, None], found / np.where(gone, left, 1.0)[:, None], found)


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
