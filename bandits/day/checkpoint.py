"""A checkpoint of what was learned between nights, so that a restart folds few rows (see learning.py).

A cache, as of state.py: one that is missing, damaged, or of another record, policy or configuration is not used. Floats
come back to the last bit.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bandits.day.learning import Held, Learning
from bandits.errors import UnreadableRowError
from bandits.folds import checkpoints
from bandits.folds.following import names
from bandits.record.port import Record
from bandits.types import Outcome, Scope

VERSION = 2  # of the file; a change of what is learned, or how, is another


class Taken(NamedTuple):
    """What a checkpoint has: the fold as it was at a position, whatever it hears afterwards.

    waiting: of each decision that waits how many outcomes it had.
    """

    head: dict[str, Any]
    epoch: int  # of the record; in a later one it must not stay
    waiting: list[tuple[str, Held, int]]


def take(learning: Learning, record: Record) -> Taken | None:
    """What there is to be kept of a fold, quickly; None where an erasure took the row that tells the record again.

    Raises RecordError.
    """
    rows = record.read(learning.position - 1, 1)
    if not rows:
        return None
    watch = learning.watch
    head = {
        "of": _fingerprint(learning),
        "position": learning.position,
        "last": names(rows[0]),
        "since": learning.since.copy(),
        "means": learning.means.tolist(),
        "counts": learning.counts.tolist(),
        "wealth": watch.wealth.copy(),
        "draws": watch.draws.tolist(),
        "usual": watch.usual.tolist(),
        "quarantined": watch.quarantined.tolist(),
    }
    waiting = [(id_, held, len(held.outcomes)) for id_, held in learning.waiting.items()]
    return Taken(head, learning.epoch, waiting)


def save(path: Path, taken: Taken) -> None:
    """Write a checkpoint. Raises OSError."""
    checkpoints.write(path, taken.head, (_plain(*one) for one in taken.waiting), few=32)


def load(path: Path, learning: Learning, record: Record) -> bool:
    """Take `learning`, which has folded nothing, to where a fitting checkpoint was; False where there is none."""
    head, waiting = checkpoints.read(path) or ({}, [])
    if head.get("of") != _fingerprint(learning):
        return False
    try:
        rows = record.read(head["position"] - 1, 1)
    except UnreadableRowError:
        return False
    if [head["last"]] != [names(row) for row in rows]:
        return False
    watch = learning.watch
    learning.position, learning.since = head["position"], head["since"]
    learning.means, learning.counts = np.array(head["means"]), np.array(head["counts"])
    watch.wealth = head["wealth"]
    watch.draws, watch.usual = np.array(head["draws"]), np.array(head["usual"])
    watch.quarantined = np.array(head["quarantined"], np.bool_)
    learning.waiting = {one["id"]: _held(one) for one in waiting}
    return True


def _plain(id_: str, held: Held, heard: int) -> dict[str, Any]:
    context = b64encode(held.context.astype("<f4").tobytes()).decode()
    outcomes = [asdict(one) | {"scope": str(one.scope)} for one in held.outcomes[:heard]]
    return {"id": id_, "action": held.action, "time": held.time, "context": context, "outcomes": outcomes}


def _held(one: dict[str, Any]) -> Held:
    context = np.frombuffer(b64decode(one["context"]), "<f4").astype(np.float32)
    outcomes = [Outcome(**given | {"scope": Scope.parse(given["scope"])}) for given in one["outcomes"]]
    return Held(one["action"], one["time"], context, outcomes)


def _fingerprint(learning: Learning) -> str:
    """What the fold depends on besides the rows behind its start."""
    said = (VERSION, str(learning.scope), learning.version, learning.start, learning.epoch, learning.watch.options)
    return sha256(f"{said!r} {learning.domain.model_dump_json()}".encode()).hexdigest()
