"""The warehouse, made again from the record where its file is damaged. Only its copies of reports cannot come back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import duckdb

from bandits.errors import WarehouseError
from bandits.record.port import Record
from bandits.warehouse.loading import load

T = TypeVar("T")
_DAMAGE = re.compile(
    r"not a valid|corrupt|checksum|deseriali|unexpected end|internal error|could not read", re.IGNORECASE
)


def damaged(error: WarehouseError) -> bool:
    """Whether the error says that the file itself is broken: not locked, not of another version, not a full disk."""
    cause = error.__cause__
    if not isinstance(cause, duckdb.Error) or "Conflicting lock" in str(cause) or "No space left" in str(cause):
        return False
    return _DAMAGE.search(f"{type(cause).__name__}: {cause}") is not None


def up_to_date(record: Record, path: Path, read: Callable[[], T], *, patience_s: float) -> tuple[T, Path | None]:
    """Load the record into the warehouse, then `read` it; where the file is damaged, move it aside and begin anew.

    Returns what was read, and where the damaged file lies now (None: it was sound). Raises WarehouseError.
    """
    try:
        load(record, path, patience_s=patience_s)
        return read(), None
    except WarehouseError as error:
        if not damaged(error):
            raise
    aside = next(
        name for number in range(1, 10_000) if not (name := path.with_name(f"{path.name}.damaged-{number}")).exists()
    )
    path.rename(aside)
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
    load(record, path, patience_s=patience_s)
    return read(), aside
