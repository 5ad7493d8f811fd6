"""A home to back up, and what tells two of them apart."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from bandits.backups.backup import Backup, backup
from bandits.config import Config, load_config
from bandits.home import Home
from bandits.ids import IdRing
from bandits.testing.ports import sample_decision
from bandits.types import Decision, Outcome, Scope, new_id
from tests.logs import truth

GOLDEN = Path(__file__).parents[1] / "golden"

TOML = """
[tenants.acme]
store_prompts = true
[tenants.acme.caps]
usd_per_user_day = 1.0
[tenants.rival]
[night]
min_rounds = 20
learners = ["linear"]
user_share = 1.0
[domains.own]
features = "vector-2"
budget_usd_per_request = 6e-4
[[domains.own.arms]]
name = "cheap"
model = "cheap"
usd_per_request = 1e-4
[[domains.own.arms]]
name = "dear"
model = "dear"
usd_per_request = 1e-3
"""
HERE, THERE = Scope("acme", "main", "own"), Scope("rival", "main", "own")
NOW, DAY = 1_790_000_000.0, 86_400.0
MARK = np.array([0.123456789, -0.987654321], np.float32)  # the context of one person, and of no other
ASKED = "what shall I do about my knee"
RUN = {"id": "run-1", "scope": str(HERE), "time": 1.0, "verdict": "kept", "report": {"n": 0.1}}
STEPS = ("begun", "runs", "record", "files", "library", "people", "manifest", "renamed", "old")


def person(home: Home) -> str:
    return IdRing(home.root).pseudonym("acme", "Ada Lovelace")


def drawn(rng: np.random.Generator, i: int, ada: str) -> tuple[Decision, Outcome]:
    """The i-th decision and what came back: every sixth Ada's, every third nobody's, the others each somebody's."""
    scope = (HERE, THERE)[i % 2]
    user = ada if i % 6 == 0 else "" if i % 3 == 0 else f"{i % 7:032x}"
    context = MARK if user == ada else rng.normal(size=2).astype(np.float32)
    action = int(rng.random() < 0.4)
    quality = float(np.clip(truth(context[None, :])[0, 2 * action] + rng.normal(0, 0.1), 0, 1))
    decision = sample_decision(
        new_id(NOW - 100.0 + i / 10, rng.bytes(10)), time=NOW - 100.0 + i / 10, scope=scope, schema="vector-2",
        context=context, arms=("cheap", "dear"), probabilities=np.array([0.6, 0.4]), action=action,
        propensity=(0.6, 0.4)[action], user=user, excluded={}, forced=False,
    )  # fmt: skip
    return decision, Outcome(decision.id, decision.time + 1.0, scope, quality=quality, cost_usd=(1e-4, 1e-3)[action])


def config_of(home: Home) -> Config:
    return load_config(home.root.parent / "pilotage.toml")


def back_up(home: Home, root: Path, now: float = NOW, **settings: object) -> Backup:
    return backup(home, home.root.parent / "pilotage.toml", root, now, **settings)


def table_rows(home: Home) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table of the record, as SQLite has it."""
    with closing(sqlite3.connect(home.root / "record.db")) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in names}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def whole(root: Path) -> list[Path]:
    """The backups there; nothing else but the keys of people may be."""
    found = sorted(path for path in root.iterdir() if path.is_dir())
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []
    return found


def known(said):
    """What is told, without the fields that hold nothing: an older format did not know them."""
    entries = [{k: v for k, v in entry.items() if v not in ("", None)} for entry in said["entries"]]
    return said | {"entries": entries}


def in_a_child(work) -> int:
    """The exit code of a fork that does the work; minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killer(step: str):
    def kill(done: str) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill
