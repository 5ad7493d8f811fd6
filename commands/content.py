"""The content pilot: documents in, insight out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bandits.config import load_config
from commands.table import Json, pilot, show


@pilot.command("run")
def pilot_run(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Text, Markdown, WebVTT, SRT, JSON transcript. None: an example.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="For whom.")] = "demo",
    workspace: Annotated[str, typer.Option(help="Which of the tenant's workspaces.")] = "main",
    segment: Annotated[bool, typer.Option(help="Cut documents into passages.")] = True,
    embed: Annotated[bool, typer.Option(help="Compute vectors.")] = True,
    orchestrator: Annotated[str, typer.Option(help="auto, langgraph or sequential.")] = "auto",
    as_json: Json = False,
) -> None:
    """Ingest, segment, embed and analyse documents. Exit 1 if the run failed."""
    from graphs import EXAMPLE
    from graphs.pilot import run_pilot
    from graphs.render import render
    from graphs.state import PilotRequest

    load_config().check_workspace(tenant, workspace)
    request = PilotRequest(tenant, workspace, paths or [EXAMPLE], segment, embed)
    result = run_pilot(request, orchestrator=orchestrator)  # type: ignore[arg-type]  # it checks the word itself
    show(result.to_dict() if as_json else render(result).rstrip())
    if result.status == "failed":
        raise typer.Exit(1)
