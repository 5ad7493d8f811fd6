"""One night of one scope: learn from the log, judge on rounds that were not learned from, publish or keep, say why.

Plain functions in the order of the night; flows/night.py wraps each as a Prefect task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bandits.config import DomainConfig, NightConfig
from bandits.errors import EvidenceError, SnapshotError
from bandits.evaluation import dr, report
from bandits.home import Home
from bandits.learners.baselines import ContextFree, arm_values
from bandits.night import guard, judging, promotion
from bandits.night.changes import reopened
from bandits.night.gates import GateVerdict
from bandits.night.guard import Choice, GuardVerdict
from bandits.night.incumbent import Incumbent
from bandits.night.judging import Trial
from bandits.night.report import NightReport, kept
from bandits.policy import Policy
from bandits.record.audit import Action, Audit, Head
from bandits.settings.tuning import TuningConfig
from bandits.snapshots.keys import SigningKey
from bandits.snapshots.loading import latest
from bandits.snapshots.manifest import Manifest
from bandits.snapshots.publishing import publish
from bandits.training import training
from bandits.training.candidates import Contest, compete
from bandits.training.influence import NOTHING, LeftOut, capped
from bandits.training.training import Prepared, Trained
from bandits.tuning.tuning import Tuned, applied, tune
from bandits.types import LoggedFeedback, Mask, Matrix, Scope, Vector

Published = Choice | Literal["trial", "reopened"]

DAY = 86_400.0
SETTLED_S = DAY  # rounds younger than this, or than the reward's window, do not judge yet: outcomes may still come


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What was trained tonight."""

    prepared: Prepared
    tuned: Tuned
    trained: Trained  # the linear learner: the yardstick, and the price model
    contest: Contest
    whole: LoggedFeedback  # the log before anything was left out of it
    left_out: LeftOut  # rounds of users beyond their share (training/influence.py)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What the log says of the candidate and of the simple policies, and what follows."""

    policies: Mapping[Published, Policy]
    costs: Mapping[Choice, float]  # expected USD per request, by the price model
    rows: list[report.Row]
    guard: GuardVerdict
    gate: GateVerdict
    publish: Published | None  # None: keep what serves
    reason: str
    effect: Mapping[str, Any]  # what the candidate is expected to gain over the better simple policy, with an interval
    against: str | None  # the snapshot that the guard's choice goes on trial against (judging.py); None: no new trial
    night: int


def learn(
    feedback: LoggedFeedback,
    domain: DomainConfig,
    settings: NightConfig,
    *,
    siblings: Sequence[LoggedFeedback] = (),
    study: str = "night",
    storage: Path | str | None = None,
    tuning: TuningConfig | None = None,
    latencies: Vector | None = None,
    on_trial: Callable[[int], None] = lambda done: None,
) -> Learned:
    """Train, tune, and choose among learners. Raises NotEnoughDataError when the log is too small.

    Nothing here sees more of one user than settings.user_share of the log, of each sibling's likewise
    (training/influence.py).

    siblings: logs of the same domain in other workspaces of the tenant, to lean on where that is shown to help.
    study, storage, tuning, latencies: of the search (tuning/tuning.py).
    """
    heard, left_out = capped(feedback, settings.user_share)
    siblings = [capped(one, settings.user_share)[0] for one in siblings]
    prepared = training.prepare(heard, domain, settings.min_rounds, siblings)
    tuned = tune(
        prepared,
        trials=settings.trials,
        seed=settings.seed,
        study=study,
        storage=storage,
        settings=tuning or TuningConfig(),
        latencies=latencies,
        on_trial=on_trial,
    )
    trained = training.train(applied(prepared, tuned), tuned.parameters)
    contest = compete(prepared, trained, settings.learners)
    return Learned(prepared, tuned, trained, contest, feedback, left_out)


def judge(
    learned: Learned,
    settings: NightConfig,
    incumbent: Incumbent | None = None,
    night: int = 1,
    trial: Trial | None = None,
    now: float = math.inf,
    changed: Mapping[str, float] | None = None,
) -> Judged:
    """The guard chooses among candidate, best mix and best fixed arm. Where nothing learned serves, its choice does.

    A learned policy is replaced by one that was on trial against it, if the rounds since then prove it better; when no
    trial stands, or one has failed, the guard's choice goes on trial. So a simple policy, too, can replace a learned
    one that has gone stale, and on the same evidence.
    An incumbent that counts on an arm which has become another one since it was published serves on with that arm on
    trial, and trials that were fixed before the change end: nothing that was logged speaks for what the arm is now.

    The guard hears no more of one user than the learners did: what it chooses is what the night has learned, and
    whoever outvoted it would need no learner. The gate hears all rounds: a trial is a test of a stated error rate on
    rounds as they come, and who is beyond a share is known only by later ones; a round that leaves the test after it
    was counted would break that rate. A hostile user can delay there, or carry what was learned without much of them.

    night: nights since the last promotion, from 1.   trial: what stands against the incumbent.   now: UTC seconds.
    changed: arms that became others, and when (changes.py).
    """
    late = {arm: time for arm, time in (changed or {}).items() if incumbent is not None and time > incumbent.created}
    if trial is not None and any(time > trial.fixed for time in late.values()):
        trial = None
    prepared, trained = learned.prepared, learned.trained
    feedback, domain = prepared.feedback, prepared.domain
    q_hat = np.clip(trained.scores.q_hat, 0.0, 1.0)
    simple = _simple(prepared, q_hat, np.ones(len(feedback), np.bool_))
    policies: dict[Published, Policy] = {"candidate": learned.contest.policy}
    policies |= {"mix": simple["mix"], "fixed": simple["fixed"]}
    allowed = np.broadcast_to(prepared.allowed, q_hat.shape)
    rows = {name: policy.probabilities(feedback.contexts[:1], allowed[:1])[0] for name, policy in simple.items()}
    probs: dict[Choice, Matrix] = {"candidate": learned.contest.action_probs, **_shadows(prepared, q_hat)}
    costs = {name: float(row @ trained.scores.cost_hat.mean(axis=0)) for name, row in rows.items()}
    costs["candidate"] = float((probs["candidate"] * trained.scores.cost_hat).sum(axis=1).mean())
    scores = {name: dr.scores(feedback, p, q_hat) for name, p in probs.items()}
    guarded = guard.choose(
        scores["candidate"],
        scores["mix"],
        scores["fixed"],
        costs=costs,
        budget=domain.budget_usd_per_request,
        mix_lead=float((rows["mix"] - rows["fixed"]) @ simple["mix"].values),
    )
    gated = _gate(learned.whole, domain, settings, incumbent, trial, now)
    table = report.evaluate(feedback, {str(name): p for name, p in probs.items()}, q_hat)
    chosen: Published | None = None
    against: str | None = None
    why = guarded.reason
    if guarded.chosen == "candidate":
        choice = learned.contest.choice
        why += f" It was learned by {choice.learner}: {choice.reason}."
    if incumbent is None:
        chosen, reason = guarded.chosen, why
    elif trial is not None and gated.outcome == "pass":
        chosen, policies["trial"] = "trial", trial.policy
        reason = f"Trial {trial.version} replaces snapshot {incumbent.version}: {gated.reason}"
    elif (again := reopened(incumbent.policy, late)) is not None:
        chosen, policies["reopened"] = "reopened", again
        reason = f"Snapshot {incumbent.version} serves on with {', '.join(sorted(late))} on trial again: changed since."
    else:
        reason = f"Snapshot {incumbent.version} stays: {gated.reason}"
        if trial is None or gated.outcome == "fail":
            against = incumbent.version
            reason += f" From now on tonight's choice is on trial, the {guarded.chosen}. {why}"
    effect = _effect(guarded, len(feedback))
    return Judged(policies, costs, table, guarded, gated, chosen, reason, effect, against, night)


def conclude(
    run_id: str,
    scope: Scope,
    learned: Learned,
    judged: Judged,
    settings: NightConfig,
    home: Home,
    key: SigningKey,
    now: float,
    same: str = "",
) -> NightReport:
    """Publish what was chosen as a signed snapshot, or keep what serves; either way a row of the audit and a report.

    The row comes first, and the snapshot signs it: there is no promotion without its reason in the chain. What fails a
    check (promotion.py) is not published, nor is anything where the disk refuses; the report says so.
    same: digest of what the night read and was told; a later run that finds it need not do it again
    (scheduled/nights.py).
    """
    feedback, parent = learned.prepared.feedback, latest(home.snapshots, scope)
    expires = now + settings.expires_days * DAY
    detail, report_card = _detail(learned, judged), ""
    manifest: Manifest | None = None
    if judged.publish is None:
        _seal(home, run_id, scope, "kept", judged.reason, now)
    else:
        frozen = judged.policies[judged.publish].freeze()
        domain = learned.prepared.domain
        checks = promotion.validate(promotion.Candidate(frozen, scope, domain, home, key, feedback.contexts))
        detail["checks"] = promotion.plain(checks)
        if failed := promotion.failures(checks):
            return _stopped(home, run_id, scope, learned, now, f"The {judged.publish} fails validation: {failed}")
        sealed = _seal(home, run_id, scope, "promotion", judged.reason, now)
        try:
            manifest = publish(
                home.snapshots,
                scope,
                frozen,
                position=feedback.position,
                parent=parent,
                evidence={
                    "run_id": run_id,
                    "night": same,
                    "chosen": judged.publish,
                    "reason": judged.reason,
                    "audit": sealed._asdict(),
                    "left_out": asdict(learned.left_out),
                    **detail,
                },
                created=now,
                expires=expires,
                key=key,
            )
        except SnapshotError as error:
            return _stopped(home, run_id, scope, learned, now, f"The {judged.publish} could not be published: {error}")
        told = judged.effect if judged.publish == "candidate" else None
        shown = report.table(judged.rows)
        report_card = promotion.card(
            scope, parent, judged.publish, judged.reason, told, detail["tuning"], checks, shown
        )
    if judged.against is not None:
        judging.register(
            home,
            scope,
            judged.policies[judged.guard.chosen],
            learned.prepared.domain,
            against=judged.against,
            number=judged.night,
            horizon=_week(learned.whole, settings),
            position=feedback.position,
            now=now,
            expires=expires,
            key=key,
        )
    return replace(
        kept(run_id, scope, learned.whole, now, judged.reason, learned.left_out),
        verdict="published" if manifest else "kept",
        version=manifest.version if manifest else None,
        policy=judged.publish or str(parent),
        detail=detail,
        parent=parent if manifest else None,
        card=report_card,
        table=report.table(judged.rows),
    )


def _stopped(home: Home, run_id: str, scope: Scope, learned: Learned, now: float, reason: str) -> NightReport:
    """What serves goes on serving, though the night had chosen: the next one tries again."""
    _seal(home, run_id, scope, "kept", reason, now)
    return replace(kept(run_id, scope, learned.whole, now, reason, learned.left_out), verdict="failed")


def keep(
    run_id: str,
    scope: Scope,
    feedback: LoggedFeedback,
    home: Home,
    now: float,
    reason: str,
    left_out: LeftOut = NOTHING,
) -> NightReport:
    """Keep what serves after a night that had nothing to learn from: a row of the audit and a report."""
    _seal(home, run_id, scope, "kept", reason, now)
    return kept(run_id, scope, feedback, now, reason, left_out)


def _seal(home: Home, run_id: str, scope: Scope, action: Action, why: str, now: float) -> Head:
    evidence = {"scope": str(scope), "run_id": run_id}
    with Audit(home.audit_url) as audit:
        return audit.append(action, tenant=scope.tenant, who="night", why=why, evidence=evidence, time=now)


def _simple(prepared: Prepared, q_hat: Matrix, rounds: Mask) -> dict[Choice, ContextFree]:
    """Best mix and best fixed arm by what these rounds, (n,), tell of each; arms that are not allowed are worth 0."""
    feedback, domain = prepared.feedback, prepared.domain
    values = np.where(prepared.allowed, arm_values(feedback.where(rounds), q_hat[rounds]), 0.0)
    shared = (feedback.arms, feedback.schema, values, prepared.prices, domain.budget_usd_per_request, domain.floor)
    return {"mix": ContextFree("mix", *shared), "fixed": ContextFree("fixed", *shared)}


def _shadows(prepared: Prepared, q_hat: Matrix) -> dict[Choice, Matrix]:
    """What mix and fixed arm would have done, (n, K) each: in every fold, as the other folds choose them."""
    feedback, folds = prepared.feedback, prepared.slab.folds
    found: dict[Choice, Matrix] = {"mix": np.zeros_like(q_hat), "fixed": np.zeros_like(q_hat)}
    for fold in np.unique(folds):
        inside = folds == fold
        allowed = np.broadcast_to(prepared.allowed, q_hat[inside].shape)
        for name, policy in _simple(prepared, q_hat, ~inside).items():
            found[name][inside] = policy.probabilities(feedback.contexts[inside], allowed)
    return found


def _gate(
    feedback: LoggedFeedback,
    domain: DomainConfig,
    settings: NightConfig,
    incumbent: Incumbent | None,
    trial: Trial | None,
    now: float,
) -> GateVerdict:
    """What the settled rounds since it was fixed say of the candidate on trial."""
    if incumbent is None:
        return GateVerdict("hold", "no learned policy is serving; the guard decides.", len(feedback), 0.0, 0.0)
    if trial is None:
        return GateVerdict("hold", "no candidate was on trial against it.", 0, 0.0, 0.0)
    settled = feedback.where(feedback.times <= now - min(domain.reward.window_s, SETTLED_S))
    try:
        return judging.judge(settled, trial, incumbent.policy, settings.alpha)
    except EvidenceError as error:  # such as a floor that was lowered meanwhile
        return GateVerdict("fail", f"the trial cannot be judged any more: {error}", len(settled), 0.0, 0.0)


def _effect(guarded: GuardVerdict, n: int) -> dict[str, Any]:
    half = 1.96 * guarded.standard_error
    return {
        "over": "the better simple policy",
        "advantage": guarded.advantage,
        "low": guarded.advantage - half,
        "high": guarded.advantage + half,
        "n": n,
    }


def _week(feedback: LoggedFeedback, settings: NightConfig) -> int:
    """Rounds that a week of such days brings: when the bets of a trial are to be at their best."""
    days = max(float(np.ptp(feedback.times)) / DAY, 1.0)
    return max(math.ceil(7.0 * len(feedback) / days), settings.min_rounds)


def _detail(learned: Learned, judged: Judged) -> dict[str, Any]:
    return {
        "tuning": asdict(learned.tuned),
        "choice": learned.contest.detail(),
        "guard": asdict(judged.guard),
        "gate": asdict(judged.gate),
        "costs": dict(judged.costs),
        "budget": learned.prepared.domain.budget_usd_per_request,
        "reward": learned.prepared.domain.reward.fingerprint,
        "rows": [
            {
                "policy": row.policy,
                "by": row.estimator,
                "value": _finite(row.value),
                "low": _finite(row.low),
                "high": _finite(row.high),
                "ess": row.ess,
                "verdict": row.verdict,
            }
            for row in judged.rows
        ],
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
