"""What would this policy have earned on the logged contexts, and does the log show it to be better than another?

A policy is judged on the same contexts that were served, without touching traffic: so this is also the shadow of a
candidate. Models of reward and price are fitted anew, each round by models that never saw it. The policy itself must
not have learned from the rounds that judge it: only rounds after it was published count, unless asked otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bandits.config import DomainConfig
from bandits.errors import EvidenceError
from bandits.evaluation import dr, report, sequences
from bandits.evaluation.intervals import Interval
from bandits.evaluation.moments import moments
from bandits.evaluation.report import Row
from bandits.evaluation.weights import Verdict
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.learners.frozen import thaw
from bandits.policy import Policy, served
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import load
from bandits.types import LoggedFeedback, Matrix, Scope, new_id
from bandits.warehouse.loading import Run, read_feedback, write_run
from bandits.what_if import counterfactual
from bandits.what_if.counterfactual import Models

EVALUATED = "evaluated"  # verdict of the run in the warehouse; a night's is another word
SERVED = "served"  # name of what acted: the logged probabilities
SIMPLE = ("fixed", "mix")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A policy, a baseline and what served, on the same rounds. The baseline is what served if none was named."""

    id: str
    scope: Scope
    time: float  # UTC, seconds since the epoch
    policy: str
    baseline: str
    rounds: int  # that judge
    left_out: int  # that one of the policies may have learned from
    rows: list[Row]  # each policy by each estimator
    costs: Mapping[str, float]  # expected USD per request by the price model; NaN without rounds
    agreement: Mapping[str, float]  # share of logged actions that the policy would have drawn too; NaN without rounds
    advantage: float  # paired, reward units; NaN without rounds
    interval: Interval  # for it, valid however often one looks
    alpha: float
    verdict: Verdict  # whether the log can speak of both
    conclusion: str  # a sentence for a person

    def run(self) -> Run:
        """As a row of the warehouse."""
        detail = _plain(asdict(self) | {"scope": str(self.scope)})
        return Run(id=self.id, scope=str(self.scope), time=self.time, verdict=EVALUATED, report=detail)


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    name: str
    policy: Policy
    created: float  # UTC seconds; -inf for a policy that learned nothing but what judges it


def evaluate(
    home: Home,
    scope: Scope,
    domain: DomainConfig,
    policy: str,
    baseline: str | None = None,
    *,
    now: float,
    alpha: float = 0.05,
    seen: bool = False,
) -> Evaluation:
    """Evaluate a snapshot against another, or against the best fixed arm or mix of these very rounds.

    policy, baseline:  version of a snapshot, `latest`, `fixed` or `mix`; no baseline: what served.
    now:   UTC, seconds since the epoch.     seen: judge also by rounds from before the policies were published, which
           they may have learned from: that flatters them.
    Raises WarehouseError, SnapshotError, KeyFileError, NotEnoughDataError (below 200 rounds), and EvidenceError when a
    snapshot has other arms or features than the domain.
    """
    feedback = _in_order(read_feedback(home.warehouse, scope, domain, now))
    models = counterfactual.fit(feedback, domain)
    names = list(dict.fromkeys(name for name in (policy, baseline) if name is not None))
    found = [_find(home, scope, domain, name, now, feedback, models) for name in names]
    judges = feedback.times > (-math.inf if seen else max(one.created for one in found))
    return judge(
        scope,
        feedback.where(judges),
        Models(models.q_hat[judges], models.cost_hat[judges]),
        {one.name: one.policy for one in found},
        left_out=int((~judges).sum()),
        now=now,
        alpha=alpha,
    )


def judge(
    scope: Scope,
    feedback: LoggedFeedback,
    models: Models,
    policies: Mapping[str, Policy],
    *,
    left_out: int,
    now: float,
    alpha: float,
) -> Evaluation:
    """The first of `policies` against the second, or against what served, on rounds that neither learned from."""
    probs = {name: on_contexts(feedback, policy) for name, policy in policies.items()}
    probs[SERVED] = feedback.probabilities
    name, baseline = list(probs)[:2]
    rows = report.evaluate(feedback, probs, models.q_hat, alpha)
    verdicts: dict[str, Verdict] = {row.policy: row.verdict for row in rows}
    verdict = verdicts[name] if verdicts[name] != "ok" else verdicts[baseline]
    first, second = probs[name], probs[baseline]
    interval = sequences.advantage(feedback, first, second, models.q_hat, alpha, horizon=len(feedback))
    lead = dr.scores(feedback, first, models.q_hat) - dr.scores(feedback, second, models.q_hat)
    return Evaluation(
        id=f"evaluate-{new_id(now)}",
        scope=scope,
        time=now,
        policy=name,
        baseline=baseline,
        rounds=len(feedback),
        left_out=left_out,
        rows=rows,
        costs={one: moments((p * models.cost_hat).sum(axis=1)).mean for one, p in probs.items()},
        agreement={one: moments(p[np.arange(len(p)), feedback.actions]).mean for one, p in probs.items()},
        advantage=moments(lead).mean,
        interval=interval,
        alpha=alpha,
        verdict=verdict,
        conclusion=_conclusion(name, baseline, interval, alpha, verdict),
    )


def save(evaluation: Evaluation, warehouse: Path) -> None:
    """Write the evaluation to the warehouse as a run. Raises WarehouseError."""
    write_run(warehouse, evaluation.run())


def on_contexts(feedback: LoggedFeedback, policy: Policy) -> Matrix:
    """What `policy` would have drawn from in each logged round, (n, K).

    Over the arms that were allowed at some time in the log: what is never allowed, it would not serve either. Where an
    arm was allowed in some rounds only, the verdict will be no support.
    Raises EvidenceError when arms or features differ.
    """
    for what, has, wanted in (("arms", policy.arms, feedback.arms), ("features", policy.schema, feedback.schema)):
        if has != wanted:
            raise EvidenceError(
                f"a policy can be judged only by a log of its own {what}, {has}, but the domain has {wanted}; "
                "judge a snapshot that was trained since they changed."
            )
    if not len(feedback):
        return np.zeros((0, feedback.k))
    playable = (feedback.probabilities > 0.0).any(axis=0)
    return served(policy, feedback.contexts, np.broadcast_to(playable, (len(feedback), feedback.k)))


def _find(
    home: Home, scope: Scope, domain: DomainConfig, name: str, now: float, feedback: LoggedFeedback, models: Models
) -> _Named:
    if name not in SIMPLE:
        snapshot = load(home.snapshots, scope, name, trusted=trusted_keys(home.root), now=now)
        return _Named(snapshot.manifest.version, thaw(snapshot.frozen), snapshot.manifest.created)
    each = np.eye(feedback.k)
    values = [dr.scores(feedback, np.broadcast_to(arm, models.q_hat.shape), models.q_hat).mean() for arm in each]
    # An arm that was never drawn has a guess for a value: the baseline does not rest on it.
    drawn = np.bincount(feedback.actions, minlength=feedback.k) > 0
    simple = ContextFree(
        name,
        feedback.arms,
        feedback.schema,
        np.where(drawn, values, 0.0),
        models.cost_hat.mean(axis=0),
        domain.budget_usd_per_request,
        domain.floor,
    )
    return _Named(name, simple, -math.inf)


def _in_order(feedback: LoggedFeedback) -> LoggedFeedback:
    """The log in order of time: clocks of several hosts may differ by a little, and a sequence wants them in order."""
    if (np.diff(feedback.times) >= 0.0).all():
        return feedback
    order = np.argsort(feedback.times, kind="stable")
    columns = ("times", "contexts", "actions", "propensities", "probabilities", "rewards", "costs")
    sorted_columns: dict[str, Any] = {name: getattr(feedback, name)[order] for name in columns}
    ids = tuple(feedback.ids[i] for i in order.tolist())
    users = tuple(feedback.users[i] for i in order.tolist()) if feedback.users else ()
    return replace(feedback, ids=ids, users=users, **sorted_columns)


def _conclusion(name: str, baseline: str, interval: Interval, alpha: float, verdict: Verdict) -> str:
    if verdict != "ok":
        return f"Cannot say whether {name} is better than {baseline}: {verdict}."
    low, high = interval
    between = f"its advantage is between {low:+.4f} and {high:+.4f} ({1.0 - alpha:.0%}, at every look)"
    if low > 0.0:
        return f"{name} is better than {baseline}: {between}."
    if high < 0.0:
        return f"{name} is worse than {baseline}: {between}."
    return f"The log cannot tell {name} from {baseline}: {between}."


def _plain(value: Any) -> Any:  # noqa: ANN401 - anything that a dataclass may hold
    """The same as JSON can say it: tuples are lists, numbers that are not finite are null."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
