"""Before ingest: folders become their files, addresses what stands there. What cannot be had is left out, with why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from graphs.errors import IngestError
from graphs.fetch import Guard, shown
from graphs.state import Input, LeftOut, State
from graphs.web import documents, is_address


def gathering(ingest: Callable[[State], State], guard: Guard | None = None) -> Callable[[State], State]:
    """The ingest step over whatever a request names; a URL is fetched under `guard`."""

    def gathered(state: State) -> State:
        """What `ingest` gives, and left out with it what could not be fetched or listed."""
        inputs: list[Input] = []
        addresses: dict[str, str] = {}
        left_out: list[LeftOut] = []
        for item in state["request"].inputs:
            try:
                found = expand(item, guard)
            except IngestError as error:
                left_out.append(LeftOut(error.document, error.fault, error.line, str(error)))
                continue
            inputs += found
            if is_address(item):
                addresses |= {one[0]: shown(str(item)) for one in found if isinstance(one, tuple)}
        if left_out and not inputs:
            reasons = " ".join(one.reason for one in left_out)
            raise IngestError("inputs", "none_left", f"no document could be read: {reasons[:-1]}", "mend one of them")
        request = replace(state["request"], inputs=tuple(inputs))
        update = ingest({**state, "request": request})
        documents = tuple(replace(one, source=addresses.get(one.name, one.source)) for one in update["documents"])
        return {**update, "documents": documents, "left_out": (*left_out, *update.get("left_out", ()))}

    return gathered


def expand(item: Input, guard: Guard | None = None) -> list[Input]:
    """The inputs that one stands for. Raises IngestError."""
    if isinstance(item, str) and is_address(item):
        return list(documents(item, guard))
    if isinstance(item, str | Path) and Path(item).is_dir():
        return list(files(Path(item)))
    return [item]


def files(folder: Path) -> list[Path]:
    """The files under a folder, sorted; neither hidden ones nor links that lead out of it. Raises IngestError."""
    try:
        root = folder.resolve(strict=True)
        found = sorted(
            path
            for path in root.rglob("*")
            if path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(root).parts)
            and path.resolve().is_relative_to(root)
        )
    except OSError as error:
        raise IngestError(folder.name, "missing", f"it cannot be listed ({error})", "check its path") from None
    if not found:
        raise IngestError(folder.name, "empty", "there is no file in it", "put documents into it")
    return found
