"""The fold of a night: a log -> a policy, and what that policy would have done on contexts that it never saw.

The passes (learners/passes.py) run over a log in memory (`prepare`, `train`) or over parts that are read in bounded
memory and folded by any number of workers (`train_parts`). Both give the same policy, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bandits.config import DomainConfig
from bandits.durable import make_folder
from bandits.errors import NotEnoughDataError, ShapeError
from bandits.learners.cost import CostModel, scaled_cost, solve_cost
from bandits.learners.doubly_robust import FOLDS, Events, Parameters
from bandits.learners.linear_policy import LinearPolicy, PriceCurve, Scores, greedy
from bandits.learners.passes import (
    Contexts,
    Corrections,
    Expected,
    Prices,
    Rewards,
    Spending,
    corrected,
    cost_gram_of,
    curve_of,
    grams_of,
    reward_models,
    scaler_of,
    spread,
)
from bandits.learners.ridge import Gram, rowwise
from bandits.learners.scaling import Scaler
from bandits.learners.slab import Slab
from bandits.money.budget import affordable
from bandits.training.fold import PART, Fold, Held, Logged, Map, Spooled, forget, in_turn, parts_of, spool
from bandits.training.influence import NOTHING, LeftOut
from bandits.training.shares import capped
from bandits.types import LoggedFeedback, Mask, Matrix, Vector

LEAST_EVENTS = 15  # an arm with fewer logged draws is not trusted: its estimate is a guess (positivity)
_WIDEST = 2**22  # numbers that a policy's covariances may have: 16 MB of a snapshot
_CLOCKS_S = 3600.0  # clocks of the workers and of the disk may differ by so much


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """The passes that do not depend on the parameters, so that a search shares them."""

    domain: DomainConfig
    scaler: Scaler
    folded: list[Gram]  # of reward, by fold
    cost: CostModel
    prices: Vector  # (K,) USD per request, averaged over the logged contexts
    points: Vector  # (m,) prices of a dollar at which the policy's spending is known
    supported: Mask  # (K,) enough logged draws to be trusted
    allowed: Mask  # (K,) supported and affordable
    squares: Vector  # (K,) of reward, summed
    siblings: Gram | None = field(default=None, kw_only=True)  # of reward, of sibling scopes


@dataclass(frozen=True, slots=True, eq=False)
class Prepared(Shared):
    """A log in memory and its shared passes."""

    feedback: LoggedFeedback
    slab: Slab

    @property
    def events(self) -> Events:
        """The log as learners over events read it."""
        s = self.slab
        assert s.phi is not None
        return Events(s.phi, s.actions, s.targets, s.propensities, s.folds.astype(np.int64), self.feedback.k)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What the parameters decide.   weights: (K, D).   without: (F, K, D), each from all folds but one.

    covariances: (K, D, D) of the weights; None where they would be larger than what they tell is worth.
    """

    weights: Matrix
    without: Matrix
    curve: PriceCurve
    covariances: Matrix | None


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A policy and its honest shadow: each row of `scores` and `action_probs` comes from a model without that row."""

    policy: LinearPolicy
    scores: Scores  # (n, K) each, cross-fitted
    action_probs: Matrix  # (n, K), cross-fitted
    cost_per_request: float  # USD, expected of the policy by the price model
    parameters: Parameters


@dataclass(frozen=True, slots=True, eq=False)
class TrainedParts:
    """A policy, and what is needed to score any batch of its log by models that never saw the round in question."""

    policy: LinearPolicy
    without: Matrix  # (F, K, D)
    rounds: int
    missing: int
    position: int
    parameters: Parameters
    left_out: LeftOut = NOTHING

    def scores(self, slab: Slab) -> Scores:
        """Cross-fitted scores of some events of the log, (n, K) each, bit-equal to those of `train`."""
        return _scores(slab, self.policy.scaler, self.without, self.policy.cost)


def prepare(
    feedback: LoggedFeedback, domain: DomainConfig, min_rounds: int, siblings: Sequence[LoggedFeedback] = ()
) -> Prepared:
    """Run the shared passes. Raises NotEnoughDataError below `min_rounds` rounds or without two trusted arms.

    siblings: logs of the same domain in other workspaces of the tenant; the search says what they are worth. Raises
    ShapeError for one over other arms or features.
    """
    slab = Slab.of(feedback)
    _check_rounds(len(feedback), feedback.missing, min_rounds)
    sums = Contexts(feedback.k)(slab)
    _check_arms(sums["drawn"], feedback.arms)
    scaler = scaler_of(sums)
    slab = replace(slab, phi=scaler.features(feedback.contexts))
    shared = _share(Fold([Held(slab)]), scaler, sums["drawn"], domain)
    shared = replace(shared, siblings=_siblings(siblings, feedback, scaler, domain.half_life_days))
    return Prepared(**{name: getattr(shared, name) for name in Shared.__slots__}, feedback=feedback, slab=slab)


def within(prepared: Prepared, rows: Mask, domain: DomainConfig) -> Prepared:
    """The rounds that the mask, (n,), picks, under settings that may be others; the features stay those of the log.

    Raises NotEnoughDataError without two trusted arms.
    """
    feedback, slab = prepared.feedback.where(rows), prepared.slab.where(np.flatnonzero(rows))
    drawn = np.bincount(slab.actions, minlength=feedback.k).astype(np.float64)
    _check_arms(drawn, feedback.arms)
    shared = _share(Fold([Held(slab)]), prepared.scaler, drawn, domain)
    shared = replace(shared, siblings=prepared.siblings)
    return Prepared(**{name: getattr(shared, name) for name in Shared.__slots__}, feedback=feedback, slab=slab)


def train(prepared: Prepared, parameters: Parameters) -> Trained:
    """Learn the Doubly Robust policy, and cross-fit it: every fold is scored by a learner that left it out."""
    domain, slab = prepared.domain, prepared.slab
    fitted = _fit(Fold([Held(slab)]), prepared, parameters)
    policy = _policy(prepared, fitted, prepared.feedback.arms, prepared.feedback.schema)
    scores = _scores(slab, prepared.scaler, fitted.without, prepared.cost)
    mask = np.broadcast_to(prepared.allowed, scores.q_hat.shape)
    action_probs = greedy(*scores, mask, policy.price(), domain.floor)
    spend = float((action_probs * scores.cost_hat).sum(axis=1).mean())
    return Trained(policy, scores, action_probs, spend, parameters)


def train_parts(
    parts: Sequence[Spooled],
    domain: DomainConfig,
    min_rounds: int,
    parameters: Parameters,
    *,
    over: Map = in_turn,
    checkpoints: Path | None = None,
) -> TrainedParts:
    """The policy that `train` would learn, from parts of a log: memory does not grow with the log.

    over: maps a function over the parts, anywhere. checkpoints: folder of sums that need not be computed again.
    Raises as `prepare` does.
    """
    log = Fold([part for part in parts if part.n], over, checkpoints)
    rounds, missing = sum(part.n for part in parts), sum(part.missing for part in parts)
    _check_rounds(rounds, missing, min_rounds)
    sums = log.sums(Contexts(len(domain.arms)))
    _check_arms(sums["drawn"], domain.arm_names)
    shared = _share(log, scaler_of(sums), sums["drawn"], domain)
    fitted = _fit(log, shared, parameters)
    policy = _policy(shared, fitted, domain.arm_names, domain.features)
    position = max(part.position for part in parts)
    return TrainedParts(policy, fitted.without, rounds, missing, position, parameters)


def train_log(
    log: Logged,
    min_rounds: int,
    parameters: Parameters,
    folder: Path,
    *,
    part: int = PART,
    over: Map = in_turn,
    user_share: float = 1.0,
) -> TrainedParts:
    """`train_parts` on the log of a scope in the warehouse, in parts of whole days.

    folder: for columns, deleted at the end, and for checkpoints, which the next night may use; every worker must see
    it and the warehouse under the same path. part: decisions of a part at least. user_share: of the log, that one user
    may teach (influence.py); 1 leaves out nothing.
    Raises as `prepare` and the warehouse's reader do.
    """
    checkpoints, began = folder / "checkpoints", time.time()
    make_folder(checkpoints)
    with TemporaryDirectory(dir=folder, prefix="columns-") as columns:
        parts: list[Spooled] = list(over(partial(spool, folder=Path(columns)), parts_of(log, part)))
        parts, left_out = capped(parts, user_share, over)
        found = train_parts(parts, log.config, min_rounds, parameters, over=over, checkpoints=checkpoints)
    forget(checkpoints, began - _CLOCKS_S)
    return replace(found, left_out=left_out)


def _share(log: Fold, scaler: Scaler, drawn: Vector, domain: DomainConfig) -> Shared:
    """Passes 2 and 4, and the price model's scale."""
    half_life = domain.half_life_days
    supported = drawn >= LEAST_EVENTS
    sums = log.faded(Rewards(scaler, len(drawn)), half_life)
    gram = cost_gram_of(sums)
    weights = solve_cost(gram)
    expected = log.faded(Expected(scaler, weights), half_life)["usd"]
    catalogue = np.array([arm.usd_per_request for arm in domain.arms])
    cost = scaled_cost(weights, gram.count, sums["paid"], expected, catalogue)
    priced = log.sums(Prices(scaler, cost))
    allowed = supported & affordable(priced.mean, domain.floor, domain.budget_usd_per_request)
    if not allowed.any():
        allowed = supported.copy()
    points, squares = priced.points(), sums["square"]
    return Shared(domain, scaler, grams_of(sums), cost, priced.mean, points, supported, allowed, squares)


def _siblings(
    logs: Sequence[LoggedFeedback], own: LoggedFeedback, scaler: Scaler, half_life_days: float | None
) -> Gram | None:
    """Sums of the rewards of other scopes, in this scope's features; None where there are none."""
    for log in logs:
        if (log.arms, log.schema) != (own.arms, own.schema):
            raise ShapeError(
                f"a sibling's log must be over arms {own.arms} and features {own.schema!r}, but got {log.arms} and "
                f"{log.schema!r}; read it under the same configuration."
            )
    held = [Held(Slab.of(log)) for log in logs if len(log)]
    if not held:
        return None
    return grams_of(Fold(held).faded(Rewards(scaler, own.k, folds=1, priced=False), half_life_days))[0]


def _fit(log: Fold, shared: Shared, parameters: Parameters) -> Fitted:
    """Passes 3 and 5."""
    models = reward_models(shared.folded, parameters, shared.siblings)
    sums = log.faded(Corrections(shared.scaler, models), shared.domain.half_life_days)
    weights = corrected(shared.folded, sums, parameters, shared.siblings)
    spending = Spending(shared.scaler, weights[:FOLDS], shared.cost, shared.points, shared.allowed)
    curve = curve_of(log.sums(spending), shared.allowed, shared.points, shared.domain.floor)
    k, d = weights.shape[1:]
    covariances = spread(shared.folded, shared.squares, parameters, shared.siblings) if k * d * d <= _WIDEST else None
    return Fitted(weights[FOLDS], weights[:FOLDS], curve, covariances)


def _policy(shared: Shared, fitted: Fitted, arms: tuple[str, ...], schema: str) -> LinearPolicy:
    return LinearPolicy(
        arms,
        schema,
        shared.scaler,
        fitted.weights,
        shared.cost,
        shared.supported,
        shared.prices,
        fitted.curve,
        shared.domain.budget_usd_per_request,
        shared.domain.floor,
        covariances=None if fitted.covariances is None else fitted.covariances.astype(np.float32),
    )


def _scores(slab: Slab, scaler: Scaler, without: Matrix, cost: CostModel) -> Scores:
    phi = scaler.features(slab.contexts) if slab.phi is None else slab.phi
    q_hat = np.empty((len(slab), without.shape[1]))
    for fold_, weights in enumerate(without):
        part = slab.folds == fold_
        q_hat[part] = rowwise(phi[part], weights)
    return Scores(q_hat, cost.predict(phi))


def _check_rounds(n: int, missing: int, least: int) -> None:
    if n < least:
        raise NotEnoughDataError(
            f"training needs {least} rounds with a reward, but the log has {n} ({missing} more wait for "
            "theirs); serve on and try again tomorrow."
        )


def _check_arms(drawn: Vector, arms: tuple[str, ...]) -> None:
    if (drawn >= LEAST_EVENTS).sum() < 2:
        counts = dict(zip(arms, drawn.tolist(), strict=True))
        raise NotEnoughDataError(
            f"training needs two arms with {LEAST_EVENTS} draws each, but the log has {counts}; "
            "raise the floor or the budget so that more arms are tried."
        )
