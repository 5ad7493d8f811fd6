"""The night as Prefect flows: of one scope, and of all that are configured. The work: bandits/scheduled/nights.py."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from typing import Any

from prefect import Flow, Task, flow, task
from prefect._internal.concurrency import threads
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from bandits.config import load_config
from bandits.errors import PilotageError
from bandits.home import Home
from bandits.scheduled import looks
from bandits.scheduled import nights as work
from bandits.types import Scope
from flows.leaving import key_of, leave_night, tell

WORKERS = int(os.environ.get("PILOTAGE_NIGHT_WORKERS", "1"))  # processes that `nights` spends nights in


def step(name: str, function: Callable[..., Any]) -> Task[..., Any]:
    """A step of the night as a task. Only what reads is tried again: the others say why, and the next night comes."""
    retries = 2 if name == "load" else 0
    return task(name=name, cache_policy=NO_CACHE, retries=retries, retry_delay_seconds=5)(function)


@flow(name="night", flow_run_name="night-{tenant}-{workspace}-{domain}", validate_parameters=True)
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


@flow(name="nights", validate_parameters=True, task_runner=ThreadPoolTaskRunner(max_workers=WORKERS))  # type: ignore[arg-type]
def nights(scopes: list[str] | None = None, now: float | None = None) -> list[dict[str, Any]]:
    """Spend the night of every configured scope, each a task; one that fails stops no other, and fails this run.

    Args:
        scopes: Only these, each tenant/workspace/domain as pilotage.toml names it; left out, every configured one.
        now: UTC seconds since the epoch that the nights believe it is; left out, the clock's.
    """
    config, now = load_config(), time.time() if now is None else now
    futures = [of_scope.submit(str(scope), now) for scope in looks.named(config, scopes)]
    found = [future.result() for future in futures]
    table = [{name: one.get(name) for name in ("scope", "verdict", "repeated", "version", "reason")} for one in found]
    create_table_artifact(table=table, key="nights", description="# Nights of all scopes")
    failed = [f"{one['scope']}: {one['reason']}" for one in found if one["verdict"] == "failed"]
    if failed:
        raise PilotageError(f"{len(failed)} of {len(found)} nights failed: {'; '.join(failed)}")
    return table


@task(name="night-of-scope", task_run_name="{scope}", cache_policy=NO_CACHE)
def of_scope(scope: str, now: float) -> dict[str, Any]:
    """The night of one scope, its report left for people; a fault is an answer here, so that the others go on."""
    config, place = load_config(), Home.here()
    (found,) = work.spend_all(place, config, [Scope.parse(scope)], now, WORKERS)  # above one: in a process of its own
    leave_night(place, found)
    return found


def watched(on_trial: Callable[[int], None]) -> Flow[..., dict[str, Any]]:
    """The flow of one scope, telling `on_trial` how many trials of the search are done: for a progress bar."""

    @flow(name="night")
    def night_watched(tenant: str, workspace: str, domain: str, now: float) -> dict[str, Any]:
        return _night(tenant, workspace, domain, now, on_trial)

    return night_watched


def _night(
    tenant: str,
    workspace: str,
    domain: str,
    now: float | None = None,
    on_trial: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    config, place = load_config(), Home.here()
    scope = config.scope(tenant, workspace, domain)
    told = on_trial or _shown(scope, config.night.trials)
    try:
        found = work.spend(place, config, scope, time.time() if now is None else now, step=step, on_trial=told)
    except Exception as error:
        tell("night.failed", str(scope), reason=str(error))
        raise
    leave_night(place, found)
    if found["verdict"] == "failed":
        raise PilotageError(found["reason"])
    return found


def _shown(scope: Scope, trials: int) -> Callable[[int], None]:
    """Trials of the search as a bar on the page of the run."""
    bar = create_progress_artifact(progress=0.0, key=key_of("search", scope), description="trials of the search")
    return lambda done: update_progress_artifact(bar, 100.0 * done / trials)  # type: ignore[arg-type,return-value]


@atexit.register
def _stop_loops() -> None:
    """End Prefect's event loops: daemon threads outlive the interpreter with all they hold, and DuckDB then reports
    its types as leaked."""
    for loop in (getattr(threads, name, None) for name in ("_run_sync_loop", "_global_loop")):
        if loop is not None and loop.thread.is_alive():
            loop.shutdown()
            loop.thread.join(timeout=5.0)
