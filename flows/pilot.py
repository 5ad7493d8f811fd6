"""The content pilot as Prefect flows. The whole graph is one task: LangGraph owns the steps, Prefect the run.

A run is kept by the steps that have ended (graphs/runs.py): when Prefect tries a flow again, or another worker takes it
up, it goes on at the step that it stopped in.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from bandits.config import load_config
from bandits.home import Home
from bandits.warehouse.loading import write_run
from graphs import EXAMPLE
from graphs.inbox import run_inbox
from graphs.kit import equipped
from graphs.pilot import resume_pilot, run_pilot
from graphs.render import render
from graphs.state import Input, PilotRequest, PilotResult
from graphs.web import is_address


@task(name="pilot", cache_policy=NO_CACHE)
def run(request: PilotRequest, run_id: str | None) -> PilotResult:
    """All steps, in whichever runner there is. No retries: a document that cannot be read stays so."""
    with equipped(Home.here(), load_config(), request.tenant, request.workspace) as (runs, options):
        if run_id is not None:  # stored by whoever enqueued it
            return resume_pilot(run_id, request.tenant, runs, force=True, **options)
        mine = (flow_run.get_id() or "").replace("-", "")  # the same when Prefect tries again
        begun = runs.unless_failed(mine, request.tenant) if mine else None
        return run_pilot(request, runs=runs, run_id=begun, force=True, **options)


@task(name="inbox", cache_policy=NO_CACHE)
def read_inbox(request: PilotRequest, folder: str) -> PilotResult | None:
    """All steps on what is new in a folder."""
    with equipped(Home.here(), load_config(), request.tenant, request.workspace) as (runs, options):
        return run_inbox(Path(folder), request, runs, **options)


@flow(name="pilot", retries=1, retry_delay_seconds=10)
def pilot(
    tenant: str,
    workspace: str = "main",
    paths: list[str] | None = None,
    enable_segment: bool = True,
    enable_embed: bool = True,
    run_id: str | None = None,
) -> dict[str, Any]:
    """Ingest, segment, embed and analyse documents; the report is an artifact of the run.

    Args:
        tenant: For whom.
        workspace: Which of the tenant's workspaces.
        paths: Files or folders as the worker sees them, or addresses (https://…) of pages, feeds and captions; none:
            the packaged example.
        enable_segment: Cut documents into passages; without it, each document is one.
        enable_embed: Compute vectors for topics and search; without it, topics come from words alone.
        run_id: A run that is stored already (POST /pilot/run?mode=enqueue) or was killed: it goes on, with its own
            documents, and the fields above but the tenant are not looked at. Leave empty for a new one.
    """
    load_config().check_workspace(tenant, workspace)
    inputs: list[Input] = [one if is_address(one) else Path(one) for one in paths or ()] or [EXAMPLE]
    result = run(PilotRequest(tenant, workspace, inputs, enable_segment, enable_embed), run_id)
    return _shown(result)


@flow(name="inbox", retries=1, retry_delay_seconds=10)
def inbox(
    tenant: str,
    folder: str,
    workspace: str = "main",
    enable_segment: bool = True,
    enable_embed: bool = True,
) -> dict[str, Any] | None:
    """Run the pilot on what is new in a folder since the last time; each content is read once.

    Args:
        tenant: For whom.
        folder: A folder as the worker sees it; its subfolders belong to it, hidden files do not.
        workspace: Which of the tenant's workspaces.
        enable_segment: Cut documents into passages; without it, each document is one.
        enable_embed: Compute vectors for topics and search; without it, topics come from words alone.
    """
    load_config().check_workspace(tenant, workspace)
    result = read_inbox(PilotRequest(tenant, workspace, (), enable_segment, enable_embed), folder)
    return None if result is None else _shown(result)


def _shown(result: PilotResult) -> dict[str, Any]:
    """Put the report where people look: warehouse and artifacts. Raises RuntimeError for a run that failed."""
    found = result.to_dict()
    write_run(
        Home.here().warehouse,
        {
            "id": result.run_id,
            "scope": f"{result.tenant}/{result.workspace}/content_analysis",
            "time": time.time(),
            "verdict": result.status,
            "report": found,
        },
    )
    create_markdown_artifact(render(result), key=f"pilot-{result.tenant}-{result.workspace}".replace("_", "-"))
    if result.error is not None:
        raise RuntimeError(f"pilot run {result.run_id} failed in {result.error['step']}: {result.error['reason']}")
    return found
