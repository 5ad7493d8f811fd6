"""Files of checkpoints: caches of a fold, used whole or not at all, and written with rests beside threads that answer.

A file is lines of JSON: a head, the items a few to a line, and the SHA-256 of all that. One that is missing, damaged or
cut short costs a longer fold and nothing else, so nobody waits for the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from bandits.durable import make_folder
from bandits.folds.following import resting


def write(path: Path, head: Mapping[str, Any], items: Iterable[Any], few: int) -> None:
    """Write a file: whole or not at all. Raises OSError.

    items: made as they are asked for.   few: of a line: an encoder lets no other thread have a turn while it is at one,
    so they should take it less than a millisecond.
    """
    make_folder(path.parent)
    temporary, digest = path.with_name(f".{path.name}-{uuid.uuid4().hex}"), hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            for line in resting(_lines(head, items, few)):
                digest.update(line)
                file.write(line)
            file.write(digest.hexdigest().encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Any], list[Any]] | None:
    """Head and items of a file; None where there is no whole one."""
    try:
        content, _, digest = path.read_bytes().rpartition(b"\n")
    except OSError:
        return None
    content += b"\n"
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    head, *lines = map(json.loads, content.splitlines())
    return head, [item for line in lines for item in line]


def _lines(head: Mapping[str, Any], items: Iterable[Any], few: int) -> Iterator[bytes]:
    yield json.dumps(head).encode() + b"\n"
    rest = iter(items)
    while line := list(islice(rest, few)):
        yield json.dumps(line).encode() + b"\n"
