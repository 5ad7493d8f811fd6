"""What a run leaves for people and for automations: a report, a table, a link, an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from bandits.home import Home
from bandits.types import Scope


def key_of(what: str, scope: Scope | str) -> str:
    """The key of an artifact: lower case, digits and dashes."""
    return f"{what}-{scope}".replace("_", "-").replace("/", "-")


def tell(event: str, scope: str, **payload: Any) -> None:  # noqa: ANN401 - anything that JSON can say
    """Emit `pilotage.EVENT` about a scope."""
    resource = {"prefect.resource.id": f"pilotage.scope.{scope}", "prefect.resource.name": scope}
    emit_event(event=f"pilotage.{event}", resource=resource, payload=payload)


def leave_night(home: Home, found: Mapping[str, Any]) -> None:
    """Report, candidates, promotion card and link to the snapshot of a night; and the event of how it ended."""
    scope = found["scope"]
    create_markdown_artifact(found["markdown"], key=key_of("night", scope))
    rows = found.get("detail", {}).get("rows", [])
    if rows:
        create_table_artifact(table=rows, key=key_of("candidates", scope), description="# Candidates of the night")
    if found.get("card"):
        create_markdown_artifact(found["card"], key=key_of("promotion", scope))
    if found.get("version"):
        manifest = home.snapshots / scope / found["version"] / "manifest.json"
        create_link_artifact(manifest.as_uri(), link_text=f"snapshot {found['version']}", key=key_of("snapshot", scope))
    verdict = "repeated" if found["repeated"] else found["verdict"]
    tell(f"night.{verdict}", scope, reason=found["reason"], version=found.get("version"), run=found.get("run_id"))
