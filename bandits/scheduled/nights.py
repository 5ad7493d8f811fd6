"""A night from its beginning to its end, and the nights of many scopes: plain functions, which anybody may schedule.

    spend(home, config, scope, now)      load -> learn (train, tune) -> judge -> publish, one scope
    spend_all(home, config, scopes, now) each of these, over processes

One night of a scope at a time (a lock), and the same night once: where no round, no reward and no setting is another
than in a run that was completed, and what it left still serves, the night says so and changes nothing. A run that was
cut short at any step left a whole snapshot or none; the next run completes it.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bandits.config import Config
from bandits.durable import locked
from bandits.errors import NotEnoughDataError, PilotageError
from bandits.home import Home
from bandits.night import changes, judging
from bandits.night import night as work
from bandits.night.incumbent import nights_since
from bandits.night.incumbent import serving_learned as incumbent_of
from bandits.night.report import NightReport
from bandits.privacy.erasing import complete
from bandits.record.audit import Audit
from bandits.rollout import giving
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.reader import SnapshotReader
from bandits.training import training
from bandits.training.influence import LeftOut, capped
from bandits.tuning.tuning import Tuned, tune
from bandits.types import LoggedFeedback, Scope, Vector, new_id
from bandits.warehouse.loading import opened, read_feedback, write_run
from bandits.warehouse.repair import up_to_date

PATIENCE_S = 60.0  # for the warehouse: other nights read it meanwhile
DONE = ("published", "kept")  # verdicts of a night that need not be spent again
_LATENCY = (
    "SELECT d.arm, avg(o.latency_s) FROM outcomes o JOIN decisions d ON d.position = o.decision "
    "WHERE d.tenant = ? AND d.workspace = ? AND d.domain = ? AND o.latency_s IS NOT NULL GROUP BY d.arm"
)
_SPENT = (
    "SELECT id, report FROM runs WHERE tenant = ? AND workspace = ? AND domain = ? AND list_contains(?, verdict) "
    "AND json_extract_string(report, '$.night') = ? ORDER BY time DESC, id DESC"
)

F = TypeVar("F", bound=Callable[..., Any])
Step = Callable[[str, F], F]  # wraps a step of the night, by its name: a Prefect task, say


def plainly(name: str, function: F) -> F:
    """A step as it is."""
    del name
    return function


def spend(
    home: Home,
    config: Config,
    scope: Scope,
    now: float,
    *,
    step: Step[Any] = plainly,
    on_trial: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Spend the night of one scope: the report as plain JSON, with `markdown`, and `repeated` where it was spent.

    now: UTC seconds.   step: wraps each step.   on_trial: is told how many trials of the search are done.
    Raises PilotageError where record, warehouse, keys or disk refuse; what serves goes on serving.
    """
    with locked(night_lock(home, scope)):
        return _spend(home, config, scope, now, step, on_trial)


def spend_all(
    home: Home, config: Config, scopes: Sequence[Scope], now: float, workers: int = 1
) -> Iterator[dict[str, Any]]:
    """The night of each scope, as soon as it is over; one that fails says why and stops no other.

    workers: processes. Each report is as of `spend`; of a night that failed it has scope, verdict "failed" and reason.
    """
    if workers == 1:
        yield from (_or_why(home, config, now, scope) for scope in scopes)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
        yield from pool.map(partial(_or_why, home, config, now), scopes)


def search(
    home: Home, config: Config, scope: Scope, now: float, on_trial: Callable[[int], None] = lambda done: None
) -> Tuned:
    """The search alone, as tonight's would be; it publishes nothing, and the night's search begins with what it found.

    Raises NotEnoughDataError, and what `spend` raises.
    """
    with locked(night_lock(home, scope)), Audit(home.audit_url) as audit:
        changed = changes.changed(audit.rows(), scope.domain)
        feedback, _ = read_log(home, config, scope, now, changed)
        study = f"{scope}@tune-{feedback.position}-{digest(config, scope, feedback, 0, now)[:12]}"
        heard, _ = capped(feedback, config.night.user_share)
        prepared = training.prepare(heard, config.domains[scope.domain], config.night.min_rounds)
        return tune(
            prepared,
            trials=config.night.trials,
            seed=config.night.seed + 1,  # not the very points that the night would try
            study=study,
            storage=study_place(home),
            settings=config.tuning,
            latencies=latencies(home, config, scope),
            on_trial=on_trial,
        )


def night_lock(home: Home, scope: Scope) -> Path:
    """The lock of whoever spends a scope's night."""
    return home.root / "nights" / scope.tenant / scope.workspace / f"{scope.domain}.lock"


def read_log(
    home: Home, config: Config, scope: Scope, now: float, changed: dict[str, float]
) -> tuple[LoggedFeedback, Path | None]:
    """The log, up to date, without what it says of arms before they changed; and where a damaged warehouse lies now."""
    with home.open_record() as record:
        read = partial(read_feedback, home.warehouse, scope, config.domains[scope.domain], now, patience_s=PATIENCE_S)
        feedback, aside = up_to_date(record, home.warehouse, read, patience_s=PATIENCE_S)
    return changes.since(feedback, changed), aside


def learn(
    home: Home,
    config: Config,
    scope: Scope,
    feedback: LoggedFeedback,
    now: float,
    changed: dict[str, float],
    study: str,
    on_trial: Callable[[int], None],
) -> work.Learned:
    """Train, tune and choose, leaning on sibling scopes where [night] share allows it and the log shows it helps."""
    domain = config.domains[scope.domain]
    siblings = [
        changes.since(read_feedback(home.warehouse, one, domain, now, patience_s=PATIENCE_S), changed)
        for one in config.siblings(scope)
    ]
    return work.learn(
        feedback,
        domain,
        config.night,
        siblings=siblings,
        study=study,
        storage=study_place(home),
        tuning=config.tuning,
        latencies=latencies(home, config, scope),
        on_trial=on_trial,
    )


def judge(
    home: Home, config: Config, scope: Scope, learned: work.Learned, now: float, changed: dict[str, float]
) -> work.Judged:
    """Evaluate off-policy, ask the guard and the gate."""
    domain = config.domains[scope.domain]
    incumbent = incumbent_of(home, scope, domain, now)
    night = nights_since(home, scope, incumbent, now)
    trial = None if incumbent is None else judging.standing(home, scope, domain, incumbent.version, now)
    if trial is not None and judging.was_published(home, scope, trial, now):
        trial = None  # it proved better once, and was rolled back: that is not undone by the same proof
    return work.judge(learned, config.night, incumbent, night, trial, now, changed)


def publish(
    home: Home,
    config: Config,
    run_id: str,
    learned: work.Learned,
    judged: work.Judged,
    scope: Scope,
    now: float,
    epoch: int,
    same: str = "",
) -> NightReport:
    """Publish the chosen policy as a signed snapshot, or keep what serves."""
    with locked(home.publishing), home.open_record() as record:
        if record.epoch().number != epoch:
            why = "An erasure began a new epoch while the night ran: what it learned from is not all there any more."
            return work.keep(run_id, scope, learned.prepared.feedback, home, now, why)
        return work.conclude(run_id, scope, learned, judged, config.night, home, signing_key(home.root), now, same)


def study_place(home: Home) -> Path | str:
    """Where searches are kept: with the record, where that is on a server."""
    return home.study if home.record_file else home.record_url


def latencies(home: Home, config: Config, scope: Scope) -> Vector | None:
    """Mean latency of each arm, (K,) seconds; None unless it was measured of every one, or where nobody asks."""
    if "latency" not in {*config.tuning.objectives, *config.tuning.constraints}:
        return None
    with opened(home.warehouse, patience_s=PATIENCE_S) as connection:
        found = dict(connection.execute(_LATENCY, [scope.tenant, scope.workspace, scope.domain]).fetchall())
    arms = config.domains[scope.domain].arm_names
    return np.array([found[arm] for arm in arms]) if all(arm in found for arm in arms) else None


def digest(config: Config, scope: Scope, feedback: LoggedFeedback, epoch: int, now: float) -> str:
    """What makes a night the same as another: every round with what came back for it, and every setting."""
    domain = config.domains[scope.domain]
    midnight = now - now % work.DAY  # rounds settle at each moment of a day; those of the last midnight make the night
    settled = int((feedback.times <= midnight - min(domain.reward.window_s, work.SETTLED_S)).sum())
    rounds = hashlib.sha256("\n".join(feedback.ids).encode())
    for column in (feedback.probabilities, feedback.rewards, feedback.costs):
        rounds.update(np.ascontiguousarray(column).tobytes())
    read = [str(scope), epoch, rounds.hexdigest(), feedback.missing, settled]
    read += [feedback.position] if config.siblings(scope) else []  # their rows count too
    told = [one.model_dump_json() for one in (domain, config.night, config.tuning)]
    return hashlib.sha256(json.dumps([read, told]).encode()).hexdigest()


def _spend(
    home: Home, config: Config, scope: Scope, now: float, step: Step[Any], on_trial: Callable[[int], None]
) -> dict[str, Any]:
    run_id = new_id(time.time())
    with locked(home.root / "nights" / "changes.lock"):
        rows = changes.note(home, config, signing_key(home.root), now)
    changed = changes.changed(rows, scope.domain)
    complete(home, config)  # of erasures that were interrupted
    with home.open_record() as record:
        epoch = record.epoch().number
    feedback, aside = step("load", read_log)(home, config, scope, now, changed)
    same = digest(config, scope, feedback, epoch, now)
    if (before := _before(home, config, scope, same, now)) is not None:
        return before
    if (order := giving.standing(home, scope)) is not None and order.active:
        why = f"Snapshot {order.candidate} is being rolled out ({order.phase}): what it shows comes before a newer one."
        return _end(home, config, work.keep(run_id, scope, feedback, home, now, why), same, now)
    try:
        study = f"{scope}@{feedback.position}-{same[:12]}"
        learned = step("learn", learn)(home, config, scope, feedback, now, changed, study, on_trial)
    except NotEnoughDataError as error:
        _, left_out = capped(feedback, config.night.user_share)
        report = work.keep(run_id, scope, feedback, home, now, str(error), left_out)
    else:
        judged = step("judge", judge)(home, config, scope, learned, now, changed)
        report = step("publish", publish)(home, config, run_id, learned, judged, scope, now, epoch, same)
    notes = [changes.explain(changed, scope.domain, rows)] if changed else []
    notes += (
        [f"The warehouse was damaged and made again from the record; the old file is {aside.name}."] if aside else []
    )
    return _end(home, config, replace(report, notes=tuple(notes)), same, now)


def _end(home: Home, config: Config, report: NightReport, same: str, now: float) -> dict[str, Any]:
    """What was published begins to be rolled out; the report goes into the warehouse, and the night is over.

    Also of a night that published and was killed before it came here.
    """
    if report.version:
        key, before = signing_key(home.root), report.parent
        giving.begin(home, report.scope, config, report.version, previous=before, key=key, now=now, why=report.reason)
    scope = str(report.scope)
    told = {"night": same, "serves": _serves(home, report.scope, now), "repeated": False}
    found = asdict(report) | {"scope": scope, "markdown": report.render()} | told
    found = json.loads(json.dumps(found, allow_nan=False))  # as the warehouse will give it back
    run = {"id": report.run_id, "scope": scope, "time": now, "verdict": report.verdict, "report": found}
    write_run(home.warehouse, run, patience_s=PATIENCE_S)  # type: ignore[arg-type]
    return found


def _before(home: Home, config: Config, scope: Scope, same: str, now: float) -> dict[str, Any] | None:
    """The run that spent this very night, if what it left still serves; one that died after it published is ended."""
    serves = _serves(home, scope, now)
    with opened(home.warehouse, patience_s=PATIENCE_S) as connection:
        spent = connection.execute(_SPENT, [scope.tenant, scope.workspace, scope.domain, list(DONE), same]).fetchall()
    for id_, report_ in spent:
        found = json.loads(report_)
        if found["serves"] == serves:
            said = f"# Night of {scope}\n\n**The same night** as run {id_}: nothing came since, nothing was done."
            return found | {"repeated": True, "markdown": f"{said}\n\n---\n\n{found['markdown']}"}
    current = _reader(home, scope, now).current
    if current is None or current.manifest.evidence.get("night") != same:
        return None
    manifest, evidence = current.manifest, current.manifest.evidence
    shown = ("tuning", "choice", "guard", "gate", "costs", "budget", "reward", "rows", "checks")
    report = NightReport(
        run_id=evidence["run_id"],
        scope=scope,
        time=manifest.created,
        position=manifest.position,
        rounds=0,
        missing=0,
        verdict="published",
        version=manifest.version,
        policy=evidence["chosen"],
        reason=evidence["reason"],
        detail={name: evidence[name] for name in shown},
        parent=manifest.parent,
        left_out=LeftOut(**evidence.get("left_out", {})),  # snapshots of earlier versions do not tell
        notes=(
            "The run was cut short after it had published; this one only wrote its report, without the log's size.",
        ),
    )
    return _end(home, config, report, same, now)


def _reader(home: Home, scope: Scope, now: float) -> SnapshotReader:
    reader = SnapshotReader(home.snapshots, scope, trusted_keys(home.root))
    reader.refresh(now)
    return reader


def _serves(home: Home, scope: Scope, now: float) -> str | None:
    current = _reader(home, scope, now).current
    return None if current is None else current.manifest.version


def _or_why(home: Home, config: Config, now: float, scope: Scope) -> dict[str, Any]:
    try:
        return spend(home, config, scope, now)
    except Exception as error:
        if not isinstance(error, PilotageError):
            traceback.print_exception(error)
        text = f"# Night of {scope}\n\n**FAILED**, what served serves on. {error}"
        return {"scope": str(scope), "verdict": "failed", "reason": str(error), "repeated": False, "markdown": text}


def _one_thread() -> None:
    """Processes that each start a BLAS thread a core get in each other's way."""
    threadpool_limits(limits=1)
