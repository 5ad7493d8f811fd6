"""The night as a Prefect flow: load, learn, judge, publish, each a task; the work itself is in bandits/night.py."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from prefect import Flow, flow, task
from prefect._internal.concurrency import threads
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from bandits import judging
from bandits import night as work
from bandits.config import Config, load_config
from bandits.durable import locked
from bandits.errors import NotEnoughDataError
from bandits.keys import signing_key
from bandits.night_report import NightReport
from bandits.privacy import complete
from bandits.serving import Home
from bandits.types import LoggedFeedback, Scope, new_id
from bandits.warehouse import load as load_warehouse
from bandits.warehouse import read_feedback, write_run


@task(name="load", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
def load(place: Home, config: Config, scope: Scope, now: float) -> LoggedFeedback:
    """Bring the warehouse up to date and read the scope's log from it."""
    with place.open_record() as record:
        load_warehouse(record, place.warehouse)
    return read_feedback(place.warehouse, scope, config.domains[scope.domain], now)


@task(name="learn", cache_policy=NO_CACHE)
def learn(
    place: Home, config: Config, scope: Scope, feedback: LoggedFeedback, now: float, on_trial: Callable[[int], None]
) -> work.Learned:
    """Train, tune and choose, leaning on sibling scopes where [night] share allows it and the log shows it helps."""
    domain, study = config.domains[scope.domain], f"{scope}@{feedback.position}"
    siblings = [read_feedback(place.warehouse, one, domain, now) for one in config.siblings(scope)]
    return work.learn(
        feedback, domain, config.night, siblings=siblings, study=study, storage=place.study, on_trial=on_trial
    )


@task(name="judge", cache_policy=NO_CACHE)
def judge(place: Home, config: Config, scope: Scope, learned: work.Learned, now: float) -> work.Judged:
    """Evaluate off-policy, ask the guard and the gate."""
    domain = config.domains[scope.domain]
    incumbent = work.serving_learned(place, scope, domain, now)
    night = work.nights_since(place, scope, incumbent, now)
    trial = None if incumbent is None else judging.standing(place, scope, domain, incumbent.version, now)
    return work.judge(learned, config.night, incumbent, night, trial, now)


@task(name="publish", cache_policy=NO_CACHE)
def publish(
    place: Home,
    config: Config,
    run_id: str,
    learned: work.Learned,
    judged: work.Judged,
    scope: Scope,
    now: float,
    epoch: int,
) -> NightReport:
    """Publish the chosen policy as a signed snapshot, or keep what serves."""
    with locked(place.publishing), place.open_record() as record:
        if record.epoch().number != epoch:
            why = "An erasure began a new epoch while the night ran: what it learned from is not all there any more."
            return work.keep(run_id, scope, learned.prepared.feedback, place, now, why)
        return work.conclude(run_id, scope, learned, judged, config.night, place, signing_key(place.root), now)


@flow(name="night", validate_parameters=True)
def night(
    tenant: str, workspace: str = "main", domain: str = "model_routing", now: float | None = None
) -> dict[str, Any]:
    """Learn from the log of one scope and publish a policy, if the evidence allows.

    Args:
        tenant: Whose log, as pilotage.toml names it.
        workspace: Which of the tenant's workspaces.
        domain: Which kind of decision, as pilotage.toml names it.
        now: UTC seconds since the epoch that the night believes it is; left out, the clock's.
    """
    return _night(tenant, workspace, domain, now)


def watched(on_trial: Callable[[int], None]) -> Flow[..., dict[str, Any]]:
    """The same flow, telling `on_trial` how many trials of the search are done: for a progress bar."""

    @flow(name="night")
    def night_watched(tenant: str, workspace: str, domain: str, now: float) -> dict[str, Any]:
        return _night(tenant, workspace, domain, now, on_trial)

    return night_watched


def _night(
    tenant: str,
    workspace: str,
    domain: str,
    now: float | None = None,
    on_trial: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    now = time.time() if now is None else now
    config, place = load_config(), Home.here()
    scope = config.scope(tenant, workspace, domain)
    run_id = new_id(time.time())
    work.note_changes(place, config, signing_key(place.root), now)
    complete(place, config)  # of erasures that were interrupted
    with place.open_record() as record:
        epoch = record.epoch().number
    feedback = load(place, config, scope, now)
    try:
        learned = learn(place, config, scope, feedback, now, on_trial)
    except NotEnoughDataError as error:
        report = work.keep(run_id, scope, feedback, place, now, str(error))
    else:
        judged = judge(place, config, scope, learned, now)
        report = publish(place, config, run_id, learned, judged, scope, now, epoch)
    found = asdict(report) | {"scope": str(scope), "markdown": report.render()}
    write_run(
        place.warehouse,
        {"id": run_id, "scope": str(scope), "time": now, "verdict": report.verdict, "report": found},
    )
    create_markdown_artifact(found["markdown"], key=f"night-{tenant}-{workspace}-{domain}".replace("_", "-"))
    return found


@atexit.register
def _stop_loops() -> None:
    """End Prefect's event loops: daemon threads outlive the interpreter with all they hold, and DuckDB then reports
    its types as leaked."""
    for loop in (getattr(threads, name, None) for name in ("_run_sync_loop", "_global_loop")):
        if loop is not None and loop.thread.is_alive():
            loop.shutdown()
            loop.thread.join(timeout=5.0)
