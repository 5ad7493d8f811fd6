"""The learners of a night that compete to serve a scope: each trained and cross-fitted at the same budget.

The linear one, which training.py folds from a log of any size, is the simplest and always there. The others hold the
log in memory, lift it (lift.py), and are tried where they can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bandits.evaluation import dr
from bandits.learners import corrected, offset_tree
from bandits.learners.choice import LEARNERS, Chosen, Learner, choose
from bandits.learners.corrected import Corrected, evidence_of
from bandits.learners.doubly_robust import Events, playing
from bandits.learners.lift import Lift
from bandits.learners.lifted_policy import LiftedPolicy
from bandits.learners.linear_policy import PriceCurve, greedy
from bandits.learners.passes import curve_of, spent
from bandits.learners.tree_policy import TreePolicy
from bandits.money.budget import TARGET
from bandits.policy import Policy, with_floor
from bandits.training.training import Prepared, Trained
from bandits.types import Matrix, Vector

MOST_ROUNDS = 20_000  # of a log that is lifted: time and memory grow with it (see docs/training.md)
WAVES, BANDWIDTH, LINEAR, WEIGHT = 512, 0.8, 1.0, 6.0  # of the lift, see lift.py
WAVES_A_FEATURE = 32  # at most: narrow contexts bend in few ways


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """What one learner would serve.   action_probs: (n, K), cross-fitted.   settings: plain JSON."""

    policy: Policy
    action_probs: Matrix
    settings: Mapping[str, Any]  # what the log chose, and how far it can be trusted about the policy


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """All candidates, the simplest first, and which of them the log speaks for."""

    candidates: Mapping[Learner, Candidate]
    choice: Chosen
    action_probs: Matrix  # (n, K) of the candidate that was chosen without the row's fold
    left_out: Mapping[Learner, str]  # why it was not tried

    @property
    def policy(self) -> Policy:
        """What goes on to the guard, which judges it by `action_probs`: the best of several is high by luck."""
        return self.candidates[self.choice.learner].policy

    def detail(self) -> dict[str, Any]:
        """As plain JSON: for the report, and for the snapshot that signs it."""
        settings = {learner: dict(each.settings) for learner, each in self.candidates.items()}
        return asdict(self.choice) | {"settings": settings, "left_out": dict(self.left_out)}


def compete(prepared: Prepared, linear: Trained, learners: Sequence[Learner]) -> Contest:
    """Train the learners that are wanted and can be tried, and let the log choose.

    linear: the incumbent of the choice, whose cross-fitted rewards are the yardstick and whose prices are everybody's.
    """
    left_out = {learner: why for learner in LEARNERS if learner in learners and (why := _unfit(learner, prepared))}
    wanted = [learner for learner in LEARNERS if learner in learners and learner not in left_out]
    found: dict[Learner, Candidate] = {
        "linear": Candidate(linear.policy, linear.action_probs, _trust(prepared, linear.action_probs))
    }
    if set(wanted) - {"linear"}:
        # A search for a minimum rounds differently on more threads, and its snapshot would have another hash.
        with threadpool_limits(limits=1):
            found |= dict(_lifted(prepared, linear, wanted))
    q_hat = np.clip(linear.scores.q_hat, 0.0, 1.0)
    scores = {learner: dr.scores(prepared.feedback, each.action_probs, q_hat) for learner, each in found.items()}
    return Contest(found, choose(scores), crossed(found, scores, prepared.slab.folds), left_out)


def crossed(found: Mapping[Learner, Candidate], scores: Mapping[Learner, Vector], folds: NDArray[np.uint8]) -> Matrix:
    """action_probs, (n, K), where the rows of each fold are of the learner that the other folds speak for."""
    out = np.empty_like(found["linear"].action_probs)
    for rows in (folds == fold for fold in np.unique(folds)):
        chosen = choose({learner: each[~rows] for learner, each in scores.items()})
        out[rows] = found[chosen.learner].action_probs[rows]
    return out


def _unfit(learner: Learner, prepared: Prepared) -> str | None:
    """Why a learner cannot be tried on this log."""
    domain, n = prepared.domain, len(prepared.slab)
    dearest = float(prepared.prices[prepared.allowed].max())
    if learner == "linear":
        return None
    if n > MOST_ROUNDS:
        return f"it is tried on at most {MOST_ROUNDS} rounds, and the log has {n}"
    if domain.half_life_days is not None:
        return "it cannot let old days fade, and half_life_days asks for it"
    if learner == "offset_tree" and dearest > TARGET * domain.budget_usd_per_request:
        budget = domain.budget_usd_per_request
        return (
            f"a tree cannot weigh money, and the dearest arm costs {dearest:.2e} USD where the budget is {budget:.2e}"
        )
    return None


def _lifted(prepared: Prepared, linear: Trained, wanted: Sequence[Learner]) -> Iterator[tuple[Learner, Candidate]]:
    waves = min(WAVES, WAVES_A_FEATURE * len(prepared.scaler.mean))
    lift = Lift.draw(prepared.scaler, waves, BANDWIDTH, LINEAR, WEIGHT)
    flat = prepared.events
    events = Events(
        lift.features(prepared.feedback.contexts), flat.actions, flat.targets, flat.propensities, flat.folds, flat.k
    )
    cost_hat = linear.scores.cost_hat
    if "direct_method" in wanted or "doubly_robust" in wanted:
        learned = corrected.learn(events, lambda q_hat: priced(prepared, q_hat, cost_hat)[1])
        straight = Corrected(learned.q.model, np.zeros_like(learned.q.shift))
        for name, q, q_hat in (
            ("direct_method", straight, learned.direct),
            ("doubly_robust", learned.q, learned.best),
        ):
            if name in wanted:
                yield name, _corrected(prepared, lift, learned, q, q_hat, cost_hat)  # type: ignore[misc]
    if "offset_tree" in wanted:
        yield "offset_tree", _tree(prepared, lift, events)


def priced(prepared: Prepared, q_hat: Matrix, cost_hat: Matrix) -> tuple[PriceCurve, Matrix]:
    """The price curve and the action_probs, (n, K), at the domain's budget, of cross-fitted estimates, (n, K) each."""
    domain, allowed = prepared.domain, prepared.allowed
    curve = curve_of(spent(q_hat, cost_hat, allowed, prepared.points), allowed, prepared.points, domain.floor)
    price = curve.price(TARGET * domain.budget_usd_per_request)
    return curve, greedy(q_hat, cost_hat, np.broadcast_to(allowed, q_hat.shape), price, domain.floor)


def _corrected(
    prepared: Prepared, lift: Lift, learned: corrected.Learned, q: Corrected, q_hat: Matrix, cost_hat: Matrix
) -> Candidate:
    domain, feedback = prepared.domain, prepared.feedback
    curve, action_probs = priced(prepared, q_hat, cost_hat)
    policy = LiftedPolicy(
        feedback.arms,
        feedback.schema,
        prepared.scaler,
        q.model.weights,
        prepared.cost,
        prepared.supported,
        prepared.prices,
        curve,
        domain.budget_usd_per_request,
        domain.floor,
        lift,
        q.shift,
    )
    chosen = learned.chosen
    correction = None if not q.shift.any() else chosen.correction
    settings = {
        "link": chosen.link,
        "penalty": chosen.penalty,
        "correction": correction,
        **_trust(prepared, action_probs),
    }
    return Candidate(policy, action_probs, settings)


def _tree(prepared: Prepared, lift: Lift, events: Events) -> Candidate:
    feedback, floor = prepared.feedback, prepared.domain.floor
    grown = offset_tree.learn(events, allowed=prepared.allowed)
    policy = TreePolicy(feedback.arms, feedback.schema, lift, grown.tree, prepared.supported, prepared.prices, floor)
    played = playing(grown.played, events.k)
    action_probs = with_floor(played, np.broadcast_to(prepared.allowed, played.shape), floor)
    return Candidate(policy, action_probs, asdict(grown.parameters) | _trust(prepared, action_probs))


def _trust(prepared: Prepared, action_probs: Matrix) -> dict[str, float]:
    return asdict(evidence_of(prepared.events, action_probs))
