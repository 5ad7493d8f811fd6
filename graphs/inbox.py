"""An inbox: a folder of which each content is read once, under whatever name, however often one looks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from graphs.gather import files
from graphs.pilot import run_pilot
from graphs.runs import RunStore
from graphs.state import PilotRequest, PilotResult


def new_files(folder: Path, namespace: str, runs: RunStore) -> dict[str, Path]:
    """Files of a folder that no run of the namespace has read, by the hash of their content. Raises IngestError."""
    found: dict[str, Path] = {}
    for path in files(folder):
        with path.open("rb") as file:
            found.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), path)
    return {content: found[content] for content in sorted(runs.new(namespace, list(found)), key=found.__getitem__)}


def run_inbox(folder: Path, request: PilotRequest, runs: RunStore, **options: Any) -> PilotResult | None:  # noqa: ANN401
    """Run the pilot on what is new in a folder; None where nothing is.

    request: for whom and which steps; its inputs are the new files.   options: those of run_pilot.
    The same files are the same run: one that was killed goes on. What was read, or could not be, is new no more; where
    another step than ingest failed, all of it is tried again next time.
    Raises IngestError (there is no such folder, or no file in it) and RunsError.
    """
    new = new_files(folder, request.namespace, runs)
    if not new:
        return None
    asked = PilotRequest(
        request.tenant, request.workspace, tuple(new.values()), request.enable_segment, request.enable_embed
    )
    these = hashlib.sha256("\n".join([request.namespace, *sorted(new)]).encode()).hexdigest()[:32]
    result = run_pilot(asked, runs=runs, run_id=runs.unless_failed(these, request.tenant), **options)
    if result.error is None or result.error["step"] == "ingest":
        runs.mark(request.namespace, list(new), result.run_id)
    return result
