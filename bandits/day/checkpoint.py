"""A checkpoint of what was learned between nights, so that a restart folds few rows (see learning.py).

A cache, as of state.py: one that is missing, damaged, or of another record, policy or configuration is not used. The
first line is the hash of the second, which is JSON; floats come back to the last bit.
"""

from __future__ import annotations

import json
import os
import uuid
from base64 import b64decode, b64encode
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from bandits.day.learning import Held, Learning
from bandits.durable import make_folder
from bandits.errors import UnreadableRowError
from bandits.following import names
from bandits.record.port import Record
from bandits.types import Outcome, Scope

VERSION = 1  # of the file; a change of what is learned, or how, is another


def save(path: Path, learning: Learning, record: Record) -> None:
    """Write a checkpoint: whole or not at all. Raises OSError, RecordError."""
    rows = record.read(learning.position - 1, 1)
    if not rows:
        return  # an erasure took the row that would tell the record again; the next checkpoint has another
    watch = learning.watch
    content = {
        "of": _fingerprint(learning),
        "position": learning.position,
        "last": names(rows[0]),
        "since": learning.since,
        "means": learning.means.tolist(),
        "counts": learning.counts.tolist(),
        "wealth": watch.wealth,
        "draws": watch.draws.tolist(),
        "usual": watch.usual.tolist(),
        "quarantined": watch.quarantined.tolist(),
    }
    # one by one: other threads have no turn while an encoder is at it, and all of them together take it 20 ms
    waiting = ", ".join(json.dumps(_plain(id_, held)) for id_, held in learning.waiting.items())
    text = f'{json.dumps(content)[:-1]}, "waiting": [{waiting}]}}'
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        temporary.write_text(f"{sha256(text.encode()).hexdigest()}\n{text}")
        os.replace(temporary, path)  # it is a cache: if the disk loses it, a longer fold makes up for it
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, learning: Learning, record: Record) -> bool:
    """Take `learning`, which has folded nothing, to where a fitting checkpoint was; False where there is none."""
    try:
        digest, text = path.read_text().split("\n", 1)
        content = json.loads(text) if digest == sha256(text.encode()).hexdigest() else {}
        rows = record.read(content["position"] - 1, 1)
    except (OSError, ValueError, KeyError, UnreadableRowError):
        return False
    if content["of"] != _fingerprint(learning) or [content["last"]] != [names(row) for row in rows]:
        return False
    watch = learning.watch
    learning.position, learning.since = content["position"], content["since"]
    learning.means, learning.counts = np.array(content["means"]), np.array(content["counts"])
    watch.wealth = content["wealth"]
    watch.draws, watch.usual = np.array(content["draws"]), np.array(content["usual"])
    watch.quarantined = np.array(content["quarantined"], np.bool_)
    learning.waiting = {one["id"]: _held(one) for one in content["waiting"]}
    return True


def _plain(id_: str, held: Held) -> dict[str, Any]:
    context = b64encode(held.context.astype("<f4").tobytes()).decode()
    outcomes = [asdict(one) | {"scope": str(one.scope)} for one in held.outcomes]
    return {"id": id_, "action": held.action, "time": held.time, "context": context, "outcomes": outcomes}


def _held(one: dict[str, Any]) -> Held:
    context = np.frombuffer(b64decode(one["context"]), "<f4").astype(np.float32)
    outcomes = [Outcome(**given | {"scope": Scope.parse(given["scope"])}) for given in one["outcomes"]]
    return Held(one["action"], one["time"], context, outcomes)


def _fingerprint(learning: Learning) -> str:
    """What the fold depends on besides the rows behind its start."""
    said = (VERSION, str(learning.scope), learning.version, learning.start, learning.epoch, learning.watch.options)
    return sha256(f"{said!r} {learning.domain.model_dump_json()}".encode()).hexdigest()
