"""What one fixed model would have earned and cost, estimated from the log of policies that mostly chose others.

Rewards and costs alike by doubly robust scores (bandits.evaluation.dr), with models that never saw the round they
score. One question decides how well that works: how likely was the log to try the model? A day of exploring tries it
often, a learned policy almost only where it is good. Mixed as they come, the few lucky draws of the second kind, each
of weight 100, drown the first. So each policy version's rounds are a stratum, and strata are weighted by the number of
effective rounds that their *probabilities* promise, n / mean(1/p): blind to what was drawn and to what came back.

    V = sum_i c_i s_i,   c_i = 1 / mean over the version of (1/p),  scaled to sum to 1

Assumes that prompts and models stayed alike over the window. Counts only rounds in which the model could be drawn.

Agarwal, Basu, Schnabel, Joachims 2017, "Effective Evaluation using Logged Bandit Feedback from Multiple Loggers".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bandits.config import DomainConfig
from bandits.evaluation import dr
from bandits.evaluation.weights import ENOUGH, Verdict, support
from bandits.learners.cost import fit_cost
from bandits.learners.doubly_robust import FOLDS, Parameters
from bandits.training import training
from bandits.types import LoggedFeedback, Mask, Matrix, Scope, Vector
from bandits.warehouse.loading import PATIENCE_S, opened, read_feedback

_POLICIES = "SELECT id, policy FROM decisions WHERE tenant = ? AND workspace = ? AND domain = ?"


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """The log of one scope, and who acted.   policies: (n,) version of each round."""

    feedback: LoggedFeedback
    policies: NDArray[np.str_]

    def where(self, rows: Mask) -> Log:
        """The rounds that the mask, (n,), picks."""
        return Log(self.feedback.where(rows), self.policies[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """Expected reward and USD of each arm in each round, (n, K), by models that never saw the round."""

    q_hat: Matrix
    cost_hat: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class FixedArm:
    """One model for every request.

    rewards, costs: (n,) scores, whose mean is the estimate and whose spread is that of the estimate times n; NaN
    throughout when the verdict is not `ok`.
    """

    name: str
    rewards: Vector
    costs: Vector  # USD per request
    drawn: int  # times that the log played it
    ess: float  # effective rounds that speak for it
    verdict: Verdict


def read(
    path: Path,
    scope: Scope,
    domain: DomainConfig,
    now: float,
    *,
    since: float | None = None,
    patience_s: float = PATIENCE_S,
) -> Log:
    """The scope's log, with the policy version of each round.   Arguments and errors as for `read_feedback`."""
    feedback = read_feedback(path, scope, domain, now, since, patience_s=patience_s)
    with opened(path, patience_s=patience_s) as connection:
        found = connection.execute(_POLICIES, [scope.tenant, scope.workspace, scope.domain]).fetchall()
    versions: dict[str, str] = dict(found)
    return Log(feedback, np.array([versions[id_] for id_ in feedback.ids], dtype=np.str_))


def fit(feedback: LoggedFeedback, domain: DomainConfig) -> Models:
    """Cross-fit the reward model and the price model of the nightly learner; raises NotEnoughDataError."""
    prepared = training.prepare(feedback, domain, int(ENOUGH))
    q_hat = training.train(prepared, Parameters()).scores.q_hat
    cost_hat = np.empty_like(q_hat)
    catalogue = np.array([arm.usd_per_request for arm in domain.arms])
    phi, folds = prepared.events.phi, prepared.events.folds
    for fold in range(FOLDS):
        part = folds == fold
        model = fit_cost(phi[~part], feedback.actions[~part], feedback.costs[~part], catalogue)
        cost_hat[part] = model.predict(phi[part])
    return Models(np.clip(q_hat, 0.0, 1.0), cost_hat)


def fixed_arm(log: Log, models: Models, arm: int) -> FixedArm:
    """Estimate what playing `arm` always would have earned and cost."""
    feedback = log.feedback
    priced = np.isfinite(feedback.costs)
    ess = effective(log.where(priced), arm)
    if ess < ENOUGH:
        return unknown(log, arm)
    n = len(feedback)
    always = np.broadcast_to(np.eye(feedback.k)[arm], (n, feedback.k))
    everywhere = np.ones(n, dtype=np.bool_)
    rewards = dr.scores(feedback, always, models.q_hat)
    # The same estimator judges costs, in units of the dearest: its input wants numbers in [0, 1].
    top = max(float(np.nanmax(feedback.costs)), 1e-9)
    spending = replace(feedback, rewards=np.where(priced, feedback.costs, 0.0) / top)
    costs = top * dr.scores(spending, always, models.cost_hat / top)
    return FixedArm(
        name=feedback.arms[arm],
        rewards=weighted(rewards, _coefficients(log, arm, everywhere)),
        costs=weighted(costs, _coefficients(log, arm, priced)),
        drawn=_drawn(feedback, arm),
        ess=ess,
        verdict="ok",
    )


def unknown(log: Log, arm: int) -> FixedArm:
    """An arm of which the log says too little."""
    feedback = log.feedback
    nothing = np.full(len(feedback), np.nan)
    possible = bool((feedback.probabilities[:, arm] > 0.0).any())
    verdict: Verdict = "not enough data" if possible else "no support"
    ess = effective(log.where(np.isfinite(feedback.costs)), arm)
    return FixedArm(feedback.arms[arm], nothing, nothing, _drawn(feedback, arm), ess, verdict)


def weighted(scores: Vector, coefficients: Vector) -> Vector:
    """Scores, (n,), whose mean is V = sum c_i s_i for coefficients that sum to 1, and whose spread is that of V.

    n c_i (s_i - V) + V: as with SNIPS, mean and interval then come from bandits.evaluation, and the difference of
    two such estimates over the same rounds is paired for nothing.
    """
    value = float(coefficients @ scores)
    result: Vector = value + len(scores) * coefficients * (scores - value)
    return result


def share(rows: Mask) -> Vector:
    """Coefficients of the plain mean over `rows`, (n,); at least one must be true."""
    return rows / float(rows.sum())


def _coefficients(log: Log, arm: int, rows: Mask) -> Vector:
    """How much each round says of `arm`, (n,), summing to 1; 0 outside `rows` and where it could not be drawn."""
    p = log.feedback.probabilities[:, arm]
    found = np.zeros(len(p))
    for stratum in _strata(log, arm, rows):
        found[stratum] = 1.0 / np.mean(1.0 / p[stratum])
    return found / found.sum()


def effective(log: Log, arm: int) -> float:
    """Effective rounds that speak for always playing `arm`, summed over the versions."""
    target = np.eye(log.feedback.k)[arm]
    total = 0.0
    for stratum in _strata(log, arm, np.ones(len(log.feedback), dtype=np.bool_)):
        part = log.feedback.where(stratum)
        total += support(part, np.broadcast_to(target, (len(part), part.k))).ess
    return total


def _drawn(feedback: LoggedFeedback, arm: int) -> int:
    return int((feedback.actions == arm).sum())


def _strata(log: Log, arm: int, rows: Mask) -> list[Mask]:
    possible = rows & (log.feedback.probabilities[:, arm] > 0.0)
    versions = np.unique(log.policies[possible])
    return [possible & (log.policies == version) for version in versions]
