"""Facts about nights that something breaks: named, waited for, made good by the next, never half done."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

from bandits import durable
from bandits.errors import PilotageError, WarehouseError
from bandits.home import Home
from bandits.record.audit import Audit
from bandits.record.sql import SqlRecord
from bandits.rollout import giving
from bandits.scheduled import nights
from bandits.scheduled.nights import spend, spend_all
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.loading import load
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.loading import read_runs
from tests.logs import ARMS, domain
from tests.scheduled.scopes import BUDGET, CONFIG, NOW, ROWS, SCOPE, START, filled, state, versions
from tests.training.rounds import entries

ROOT = Path(__file__).parents[2]


def test_days_without_any_data_change_nothing_and_say_so(home):
    """Whoever served before serves on; not a file is another."""
    first = spend(home, CONFIG, SCOPE, NOW)
    before = state(home)

    for day in (1, 2, 3):
        found = spend(home, CONFIG, SCOPE, NOW + day * 86_400.0)
        assert (found["repeated"], found["run_id"]) == (True, first["run_id"])
        assert "nothing came since, nothing was done" in found["markdown"]
    assert state(home) == before


def test_a_day_of_poisoned_rewards_goes_on_trial_at_most(home):
    """All of a day's users praise the dear arm and damn the others: a night later what served serves on."""
    spend(home, CONFIG, SCOPE, NOW)
    praised = {row.id: float(row.action == 2) for row in ROWS if isinstance(row, Decision)}
    later, late = 10 * 86_400.0, list[Decision | Outcome]()
    for row in ROWS:
        if isinstance(row, Decision):
            late.append(replace(row, id=f"late-{row.id}", time=row.time + later))
        else:
            id_, quality = row.decision_id, praised[row.decision_id]
            late.append(replace(row, decision_id=f"late-{id_}", time=row.time + later, quality=quality))
    filled(home, late)

    found = spend(home, CONFIG, SCOPE, NOW + later)

    assert (found["verdict"], versions(home)) == ("kept", ["000001"])
    assert found["reason"].startswith("Snapshot 000001 stays")


@pytest.mark.parametrize("at", ["load", "publish"])
def test_a_record_that_another_process_locks_fails_the_night_by_name_and_the_next_completes(home, monkeypatch, at):
    """Before anything was read; and after the snapshot was published, before its rollout could begin."""
    monkeypatch.setitem(SqlRecord.__init__.__kwdefaults__, "busy_s", 0.2)
    monkeypatch.setattr(giving, "BUSY_S", 0.2)
    signing_key(home.root)
    with closing(sqlite3.connect(home.record_file, isolation_level=None)) as other:

        def step(name, function):
            def locking(*arguments):
                if name == "load" == at:
                    other.execute("BEGIN EXCLUSIVE")
                found = function(*arguments)
                if name == "publish" == at:
                    other.execute("BEGIN IMMEDIATE")
                return found

            return locking

        with pytest.raises(PilotageError, match="locked"):
            spend(home, CONFIG, SCOPE, NOW, step=step)
        assert versions(home) == (["000001"] if at == "publish" else [])
        other.execute("ROLLBACK")

    found = spend(home, CONFIG, SCOPE, NOW)

    assert (found["verdict"], found["repeated"], versions(home)) == ("published", False, ["000001"])
    assert giving.standing(home, SCOPE).stable == "000001"
    assert spend(home, CONFIG, SCOPE, NOW)["repeated"]


@pytest.mark.parametrize("damage", ["garbage", pytest.param("flipped", marks=pytest.mark.slow)])
def test_a_damaged_warehouse_is_made_again_from_the_record(home, damage):
    """The file is put aside, not deleted; the report says so."""
    spend(home, CONFIG, SCOPE, NOW)
    raw = home.warehouse.read_bytes()
    flipped = bytes(byte ^ 0xFF for byte in raw[4096 * 3 :])
    home.warehouse.write_bytes(b"not a database" if damage == "garbage" else raw[: 4096 * 3] + flipped)

    found = spend(home, CONFIG, SCOPE, NOW)

    assert found["verdict"] == "published"  # by the first run: its snapshot says so, whose report is written again
    assert versions(home) == ["000001"]
    assert home.warehouse.with_name("warehouse.duckdb.damaged-1").exists()


def test_a_warehouse_that_another_process_holds_is_waited_for_and_then_named(home, monkeypatch):
    """Not taken for damaged; the night of the next try completes."""
    monkeypatch.setattr(nights, "PATIENCE_S", 0.1)
    spend(home, CONFIG, SCOPE, NOW)
    kept = state(home)
    context = multiprocessing.get_context("spawn")
    holds, free = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(home.warehouse), holds, free), daemon=True)
    process.start()
    assert holds.wait(60)
    try:
        (found,) = spend_all(home, CONFIG, [SCOPE], NOW)
        with pytest.raises(WarehouseError, match="must be free for a moment"):
            spend(home, CONFIG, SCOPE, NOW)
    finally:
        free.set()
        process.join(60)

    assert found["verdict"] == "failed"
    assert "must be free for a moment" in found["reason"]
    assert state(home) == kept
    assert spend(home, CONFIG, SCOPE, NOW)["repeated"]


def _hold(path: str, holds, free) -> None:
    with duckdb.connect(path):
        holds.set()
        free.wait(60)


KILL = """
import json, os, signal, sys
from bandits.record.sql import SqlRecord
from bandits.rollout import giving
from bandits.scheduled import nights
from bandits.config import Config
from bandits.home import Home
from bandits.types import Scope

home, config, at = Home(__import__("pathlib").Path(sys.argv[1])), Config.model_validate_json(sys.argv[2]), sys.argv[3]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

if at == "after begin":
    nights.write_run = lambda *_, **__: die()

def step(name, function):
    def killed(*arguments):
        if at == f"before {name}":
            die()
        found = function(*arguments)
        if at == f"after {name}":
            die()
        return found
    return killed

nights.spend(home, config, Scope.parse(sys.argv[4]), float(sys.argv[5]), step=step,
             on_trial=lambda done: die() if at == f"trial {done}" else None)
"""


@pytest.mark.parametrize(
    "at",
    [
        "after publish",
        *(
            pytest.param(at, marks=pytest.mark.slow)
            for at in ("after load", "trial 2", "before publish", "after begin")
        ),
    ],
)
def test_a_night_that_is_killed_leaves_a_whole_snapshot_or_none_and_the_next_completes(home, tmp_path, at):
    """kill -9 of a real process; the night after is the one that nobody killed: same content, one snapshot."""
    whole = filled(Home(tmp_path / "whole"), ROWS)
    spend(whole, CONFIG, SCOPE, NOW)
    arguments = [str(home.root), CONFIG.model_dump_json(), at, str(SCOPE), str(NOW)]
    done = subprocess.run([sys.executable, "-c", KILL, *arguments], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert versions(home) == (["000001"] if at in ("after publish", "after begin") else [])

    found = spend(home, CONFIG, SCOPE, NOW)

    assert (found["verdict"], found["repeated"], versions(home)) == ("published", False, ["000001"])
    assert spend(home, CONFIG, SCOPE, NOW)["repeated"]
    contents = [
        load(one.snapshots, SCOPE, trusted=trusted_keys(one.root), now=NOW).manifest.content for one in (home, whole)
    ]
    assert contents[0] == contents[1]
    assert [run["id"] for run in read_runs(home.warehouse, SCOPE)] == [found["run_id"]]


@pytest.mark.parametrize("jump", [-3600.0, pytest.param(3600.0, marks=pytest.mark.slow)])
def test_a_clock_that_jumps_by_an_hour_stops_no_night(home, jump):
    """With a row more, so that it is another night; what serves stays, and it is judged against."""
    spend(home, CONFIG, SCOPE, NOW)
    filled(home, [replace(ROWS[0], id="f" * 32, time=NOW + jump)])

    found = spend(home, CONFIG, SCOPE, NOW + jump)

    assert (found["verdict"], found["repeated"], versions(home)) == ("kept", False, ["000001"])
    assert found["reason"].startswith("Snapshot 000001 stays")


@pytest.mark.parametrize("writes", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 8))])
def test_a_full_disk_leaves_what_serves_and_the_next_night_publishes(home, monkeypatch, writes):
    """The kernel says ENOSPC from the n-th file on: in validation, at the snapshot, in the middle of it."""
    signing_key(home.root)
    left, sync = [writes], os.fsync

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "fsync", full)
        (found,) = spend_all(home, CONFIG, [SCOPE], NOW)

    assert found["verdict"] == "failed"
    assert "No space left on device" in found["reason"]
    assert versions(home) == []
    assert spend(home, CONFIG, SCOPE, NOW)["verdict"] == "published"
    with Audit(home.audit_url) as audit:
        last = [row.action for row in audit.rows("acme") if row.tenant]
    assert last[-2:] == ["promotion", "rollout"]


def test_a_fault_of_one_scope_takes_the_night_from_no_other(tmp_path):
    """The record of one domain holds contexts of two lengths, which no log may."""
    other = Scope("acme", "main", "other")
    sound = next(entries(1, other, "vector-2", ARMS, START))
    pair = [replace(sound, id=id_ * 32, context=np.zeros(d, np.float32)) for id_, d in (("d", 2), ("e", 3))]
    told = [Outcome(one.id, one.time, other, quality=1.0) for one in pair]
    home = filled(Home(tmp_path / "home"), [*entries(300, SCOPE, "vector-2", ARMS, START), *pair, *told])
    config = CONFIG.model_copy(update={"domains": {"own": domain(BUDGET), "other": domain(BUDGET)}})

    found = {one["scope"]: one for one in spend_all(home, config, [other, SCOPE], NOW)}

    assert found[str(other)]["verdict"] == "failed"
    assert "contexts of one schema must have one length" in found[str(other)]["reason"]
    assert found[str(SCOPE)]["verdict"] == "published"
    json.dumps(list(found.values()), allow_nan=False)
