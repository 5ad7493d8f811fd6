"""The fold: a log -> a policy, and what that policy would have done on contexts that it never saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandits.budget import affordable
from bandits.config import DomainConfig
from bandits.errors import NotEnoughDataError
from bandits.learners import doubly_robust
from bandits.learners.cost import CostModel, fit_cost
from bandits.learners.doubly_robust import FOLDS, Events, Parameters
from bandits.learners.grid import on_grid
from bandits.learners.linear_policy import LinearPolicy, Scores, greedy, solve_curve
from bandits.learners.ridge import Gram
from bandits.learners.scaling import ContextSums, Scaler
from bandits.types import LoggedFeedback, Mask, Matrix, Vector

LEAST_EVENTS = 15  # an arm with fewer logged draws is not trusted: its estimate is a guess (positivity)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The passes that do not depend on the parameters, so that a search shares them."""

    feedback: LoggedFeedback
    domain: DomainConfig
    scaler: Scaler
    events: Events
    folded: list[Gram]
    cost: CostModel
    prices: Vector  # (K,) USD per request, averaged over the logged contexts
    supported: Mask  # (K,) enough logged draws to be trusted
    allowed: Mask  # (K,) supported and affordable


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A policy and its honest shadow: each row of `scores` and `action_probs` comes from a model without that row."""

    policy: LinearPolicy
    scores: Scores  # (n, K) each, cross-fitted
    action_probs: Matrix  # (n, K), cross-fitted
    cost_per_request: float  # USD, expected of the policy by the price model
    parameters: Parameters


def prepare(feedback: LoggedFeedback, domain: DomainConfig, min_rounds: int) -> Prepared:
    """Run the shared passes. Raises NotEnoughDataError below `min_rounds` rounds or without two trusted arms."""
    n = len(feedback)
    if n < min_rounds:
        raise NotEnoughDataError(
            f"training needs {min_rounds} rounds with a reward, but the log has {n} ({feedback.missing} more wait for "
            "theirs); serve on and try again tomorrow."
        )
    counts = np.bincount(feedback.actions, minlength=feedback.k)
    supported = counts >= LEAST_EVENTS
    if supported.sum() < 2:
        drawn = dict(zip(feedback.arms, counts.tolist(), strict=True))
        raise NotEnoughDataError(
            f"training needs two arms with {LEAST_EVENTS} draws each, but the log has {drawn}; "
            "raise the floor or the budget so that more arms are tried."
        )
    scaler = ContextSums.of(feedback.contexts).scaler()
    phi = scaler.features(feedback.contexts)
    folds = np.array([doubly_robust.fold_of(id_) for id_ in feedback.ids])
    rewards = on_grid(feedback.rewards, 1.0)
    events = Events(phi, feedback.actions, rewards, feedback.propensities, folds, feedback.k)
    catalogue = np.array([arm.usd_per_request for arm in domain.arms])
    cost = fit_cost(phi, feedback.actions, feedback.costs, catalogue)
    prices = cost.predict(phi).mean(axis=0)
    allowed = supported & affordable(prices, domain.floor, domain.budget_usd_per_request)
    if not allowed.any():
        allowed = supported.copy()
    return Prepared(feedback, domain, scaler, events, doubly_robust.grams(events), cost, prices, supported, allowed)


def train(prepared: Prepared, parameters: Parameters) -> Trained:
    """Learn the Doubly Robust policy, and cross-fit it: every fold is scored by a learner that left it out."""
    events, domain = prepared.events, prepared.domain
    q_hat = np.empty((len(events.phi), events.k))
    for fold in range(FOLDS):
        part = events.folds == fold
        weights = doubly_robust.fit(events, prepared.folded, parameters, without=fold)
        q_hat[part] = events.phi[part] @ weights.T
    scores = Scores(q_hat, prepared.cost.predict(events.phi))
    policy = LinearPolicy(
        prepared.feedback.arms,
        prepared.feedback.schema,
        prepared.scaler,
        doubly_robust.fit(events, prepared.folded, parameters),
        prepared.cost,
        prepared.supported,
        prepared.prices,
        solve_curve(scores, prepared.allowed, domain.floor),
        domain.budget_usd_per_request,
        domain.floor,
    )
    mask = np.broadcast_to(prepared.allowed, q_hat.shape)
    action_probs = greedy(*scores, mask, policy.price(), domain.floor)
    spend = float((action_probs * scores.cost_hat).sum(axis=1).mean())
    return Trained(policy, scores, action_probs, spend, parameters)
