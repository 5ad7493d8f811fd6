"""The content pilot as a Prefect flow. The whole graph is one task: LangGraph owns the steps, Prefect the run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from bandits.config import home, load_config
from bandits.serving import Home
from bandits.warehouse import write_run
from graphs import EXAMPLE
from graphs.pilot import run_pilot
from graphs.render import render
from graphs.state import PilotRequest, PilotResult


@task(name="pilot", cache_policy=NO_CACHE)
def run(request: PilotRequest) -> PilotResult:
    """All steps, in whichever runner there is. No retries: a document that cannot be read stays so."""
    return run_pilot(request)


@flow(name="pilot", retries=1, retry_delay_seconds=10)
def pilot(
    tenant: str,
    workspace: str = "main",
    paths: list[str] | None = None,
    enable_segment: bool = True,
    enable_embed: bool = True,
) -> dict[str, Any]:
    """Ingest, segment, embed and analyse documents; the report is an artifact of the run.

    Args:
        tenant: For whom.
        workspace: Which of the tenant's workspaces.
        paths: Files as the worker sees them (text, Markdown, WebVTT, SRT, JSON transcript); none: the packaged example.
        enable_segment: Cut documents into passages; without it, each document is one.
        enable_embed: Compute vectors for topics and search; without it, topics come from words alone.
    """
    load_config().check_workspace(tenant, workspace)
    inputs = [Path(path) for path in paths] if paths else [EXAMPLE]
    result = run(PilotRequest(tenant, workspace, inputs, enable_segment, enable_embed))
    found = result.to_dict()
    write_run(
        Home(home()).warehouse,
        {
            "id": result.run_id,
            "scope": f"{tenant}/{workspace}/content_analysis",
            "time": time.time(),
            "verdict": result.status,
            "report": found,
        },
    )
    create_markdown_artifact(render(result), key=f"pilot-{tenant}-{workspace}".replace("_", "-"))
    if result.error is not None:
        raise RuntimeError(f"pilot run {result.run_id} failed in {result.error['step']}: {result.error['reason']}")
    return found
