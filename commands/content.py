"""The content pilot: documents in, insight out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandits.config import load_config
from bandits.types import new_id
from commands.table import Json, app, pilot, place, show

if TYPE_CHECKING:
    from graphs.runs import RunStore
    from graphs.state import PilotResult

Tenant = Annotated[str, typer.Option(help="For whom.")]
Workspace = Annotated[str, typer.Option(help="Which of the tenant's workspaces.")]
Segment = Annotated[bool, typer.Option(help="Cut documents into passages.")]
Embed = Annotated[bool, typer.Option(help="Compute vectors.")]
Orchestrator = Annotated[str, typer.Option(help="auto, langgraph or sequential.")]


@pilot.command("run")
def pilot_run(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH|URL]...", help="Files, folders, or addresses of pages, feeds, captions. None: an example."
        ),
    ] = None,
    tenant: Tenant = "demo",
    workspace: Workspace = "main",
    segment: Segment = True,
    embed: Embed = True,
    orchestrator: Orchestrator = "auto",
    resume: Annotated[str | None, typer.Option(metavar="RUN_ID", help="Go on with a run that was killed.")] = None,
    take_over: Annotated[bool, typer.Option(help="With --resume: even from a process of another host.")] = False,
    as_json: Json = False,
) -> None:
    """Ingest, segment, embed and analyse documents. Exit 1 if the run failed."""
    from graphs import EXAMPLE
    from graphs.pilot import resume_pilot, run_pilot
    from graphs.state import PilotRequest
    from graphs.web import is_address

    with _equipped(tenant, workspace, orchestrator) as (runs, options):
        if resume is not None:
            _tell(resume_pilot(resume, tenant, runs, force=take_over, **options), as_json)
            return
        inputs = [one if is_address(one) else Path(one) for one in what or ()] or [EXAMPLE]
        run_id = new_id(time.time())
        typer.echo(f"run {run_id}; if it is killed: pilotage pilot run --tenant {tenant} --resume {run_id}", err=True)
        request = PilotRequest(tenant, workspace, inputs, segment, embed)
        _tell(run_pilot(request, runs=runs, run_id=run_id, **options), as_json)


@pilot.command("inbox")
def pilot_inbox(
    folder: Annotated[Path, typer.Argument(help="Its subfolders belong to it, hidden files do not.")],
    tenant: Tenant = "demo",
    workspace: Workspace = "main",
    segment: Segment = True,
    embed: Embed = True,
    orchestrator: Orchestrator = "auto",
    only_list: Annotated[bool, typer.Option("--list", help="Say what is new, and run nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Run the pilot on what is new in a folder since the last time. Exit 1 if the run failed."""
    from graphs.inbox import new_files, run_inbox
    from graphs.state import PilotRequest

    request = PilotRequest(tenant, workspace, (), segment, embed)
    with _equipped(tenant, workspace, orchestrator) as (runs, options):
        if only_list:
            new = [str(path) for path in new_files(folder, request.namespace, runs).values()]
            show(new if as_json else "\n".join(new) or "Nothing is new.")
            return
        result = run_inbox(folder, request, runs, **options)
    if result is None:
        show({"status": "nothing new"} if as_json else "Nothing is new.")
    else:
        _tell(result, as_json)


@pilot.command("graph")
def pilot_graph() -> None:
    """Draw the graph of the steps, as Mermaid."""
    from bandits.errors import PilotageError
    from graphs.langgraph_pilot import mermaid

    try:
        show(mermaid().rstrip())
    except ImportError as error:
        raise PilotageError(f"langgraph must be there to draw its graph, but: {error}. Install it.") from None


@contextmanager
def _equipped(tenant: str, workspace: str, orchestrator: str) -> Iterator[tuple[RunStore, dict[str, Any]]]:
    from graphs.kit import equipped

    config = load_config()
    config.check_workspace(tenant, workspace)
    with equipped(place(), config, tenant, workspace) as (runs, options):
        yield runs, {**options, "orchestrator": orchestrator}


def _tell(result: PilotResult, as_json: bool) -> None:
    from graphs.render import render

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
