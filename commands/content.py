"""The content pilot: documents in, insight out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from bandits.config import load_config
from commands.table import Json, app, pilot, place, show


@pilot.command("run")
def pilot_run(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files, folders: text, pages, captions, chats. None: an example."),
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
    from graphs.equipment import equipped, library_of
    from graphs.pilot import run_pilot
    from graphs.render import render
    from graphs.state import PilotRequest
    from graphs.steps import STEPS

    config = load_config()
    config.check_workspace(tenant, workspace)
    request = PilotRequest(tenant, workspace, paths or [EXAMPLE], segment, embed)
    library = library_of(config.embedding, place().root)
    steps = equipped(STEPS, library)
    word: Any = orchestrator  # it checks the word itself
    result = run_pilot(request, orchestrator=word, steps=steps, store=library)
    show(result.to_dict() if as_json else render(result).rstrip())
    if result.status == "failed":
        raise typer.Exit(1)


@app.command("search")
def search(
    query: Annotated[str, typer.Argument(help="What is looked for: words, or a question.")],
    tenant: Annotated[str, typer.Option(help="Whose documents.")] = "demo",
    workspace: Annotated[str, typer.Option(help="Which of the tenant's workspaces.")] = "main",
    name: Annotated[str, typer.Option(help="Which of the workspace's collections.")] = "pilot",
    many: Annotated[int, typer.Option("--top", "-k", min=1, max=100, help="Passages at most.")] = 5,
    as_json: Json = False,
) -> None:
    """Find passages of the documents that the pilot has read. Exit 1 if there are none."""
    from graphs.equipment import library_of
    from graphs.hits import render_hits

    config = load_config()
    config.check_workspace(tenant, workspace)
    found = library_of(config.embedding, place().root).search(f"{tenant}:{workspace}:{name}", query, many)
    show([asdict(hit) for hit in found] if as_json else render_hits(query, found).rstrip())
    if not found:
        raise typer.Exit(1)
