"""Facts about whole nights: the same one once, one at a time, and whatever goes wrong, what serves goes on serving."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

from bandits import durable
from bandits.config import ArmConfig
from bandits.durable import locked
from bandits.errors import WarehouseError
from bandits.home import Home
from bandits.learners.frozen import thaw
from bandits.policy import served
from bandits.record.audit import Audit
from bandits.scheduled import nights
from bandits.scheduled.nights import spend, spend_all
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.loading import load
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.loading import read_runs
from tests.logs import ARMS, domain, truth
from tests.scheduled.scopes import BUDGET, CONFIG, NOW, ROWS, SCOPE, START, filled, state, versions
from tests.training.rounds import entries

ROOT = Path(__file__).parents[2]


def test_the_same_night_again_changes_nothing_and_says_so(home):
    """No file, no row of the audit, no run, no trial of a search is another; its report is that of the first run."""
    now = START + 5 * 86_400.0 + 3_600.0  # rounds of the last day settle from minute to minute
    first = spend(home, CONFIG, SCOPE, now)
    before = state(home)
    filled(home, [replace(ROWS[0], id="f" * 32, scope=Scope("acme", "main", "other"))])  # another scope is no matter
    again = spend(home, CONFIG, SCOPE, now + 600.0)

    assert (first["verdict"], first["repeated"]) == ("published", False)
    assert state(home) == before
    assert (again["repeated"], again["run_id"]) == (True, first["run_id"])
    assert "The same night" in again["markdown"]
    assert [run["id"] for run in read_runs(home.warehouse, SCOPE)] == [first["run_id"]]


@pytest.mark.parametrize("what", ["row", "setting", "settled", "expired"])
def test_another_record_another_setting_or_a_policy_that_is_gone_make_another_night(home, what):
    """One decision more; one setting else; a day on which rounds settled; what was published no longer serves."""
    config, now = CONFIG, START + 5 * 86_400.0 + 3_600.0
    first = spend(home, config, SCOPE, now)
    if what == "row":
        filled(home, [replace(ROWS[0], id="f" * 32)])
    elif what == "setting":
        config = CONFIG.model_copy(update={"night": CONFIG.night.model_copy(update={"trials": 2})})
    else:
        now += {"settled": 1.0, "expired": 31.0}[what] * 86_400.0

    again = spend(home, config, SCOPE, now)

    assert not again["repeated"]
    assert again["run_id"] != first["run_id"]


def test_a_report_tells_of_the_search_the_checks_and_the_card(home):
    """What a person reads, and what the snapshot signs."""
    found = spend(home, CONFIG, SCOPE, NOW)
    manifest = load(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=NOW).manifest

    assert "- Search: 3 trials." in found["markdown"]
    assert "# Promotion card of acme/main/own" in found["card"]
    assert "- Expected effect: " in found["card"]
    assert [check["ok"] for check in manifest.evidence["checks"]] == [True] * 7
    assert manifest.evidence["night"] == found["night"]
    assert manifest.evidence["tuning"]["parameters"].keys() == {"shared", "own", "correction", "siblings"}


def _rows(what: str) -> list[Decision | Outcome]:
    if what == "nothing":
        return []
    if what == "ten rows":
        return ROWS[:10]
    return [row for row in ROWS if isinstance(row, Decision)]  # nobody ever said how it went


SELDOM = [pytest.param(what, marks=pytest.mark.slow) for what in ("nothing", "ten rows")]


@pytest.mark.parametrize("what", ["no rewards", *SELDOM])
def test_a_night_without_enough_data_keeps_and_says_why(tmp_path, what):
    """A row of the audit, a run, no snapshot; and the next night, with data, publishes."""
    home = filled(Home(tmp_path / "home"), _rows(what))

    found = spend(home, CONFIG, SCOPE, NOW)

    assert (found["verdict"], versions(home)) == ("kept", [])
    assert "needs 200 rounds with a reward" in found["reason"]
    assert spend(home, CONFIG, SCOPE, NOW)["repeated"]
    late = [
        replace(e, id=f"later-{e.id}") for e in entries(600, SCOPE, "vector-2", ARMS, START) if isinstance(e, Decision)
    ]
    told = [Outcome(e.id, e.time + 5.0, SCOPE, quality=0.5, cost_usd=1e-4) for e in late]
    filled(home, [*late, *told])
    assert spend(home, CONFIG, SCOPE, NOW)["verdict"] == "published"


def test_an_arm_that_was_never_drawn_is_on_trial_and_no_obstacle(home):
    """The configuration has a fourth arm that no row of the log knows."""
    new = ArmConfig(name="new", model="new", usd_per_request=1e-4)
    own = CONFIG.domains["own"]
    config = CONFIG.model_copy(update={"domains": {"own": own.model_copy(update={"arms": (*own.arms, new)})}})

    assert spend(home, config, SCOPE, NOW)["verdict"] == "published"

    policy = thaw(load(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=NOW).frozen)
    rows = served(policy, np.zeros((1, 2), np.float32), np.ones((1, 4), np.bool_))
    assert rows[0, 3] == pytest.approx(0.02 / 4)


@pytest.mark.slow
def test_one_hostile_user_in_a_hundred_moves_the_policy_little(tmp_path):
    """They praise the cheap arm whatever it did and damn the others; the value on the truth falls by 2 % at most."""
    worth = []
    rows = list(entries(2000, SCOPE, "vector-2", ARMS, START))
    actions = {row.id: row.action for row in rows if isinstance(row, Decision)}
    for share in (0.0, 0.01):
        rng = np.random.default_rng(7)
        hostile = [isinstance(row, Outcome) and rng.random() < share for row in rows]
        told = [
            replace(row, quality=float(actions[row.decision_id] == 0)) if lies else row
            for row, lies in zip(rows, hostile, strict=True)
        ]
        home = filled(Home(tmp_path / str(share)), told)
        assert spend(home, CONFIG, SCOPE, NOW)["policy"] == "candidate"
        worth.append(_worth(thaw(load(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=NOW).frozen)))

    assert worth[1] >= 0.98 * worth[0]


def _worth(policy) -> float:

    contexts = np.random.default_rng(99).normal(size=(4000, 2)).astype(np.float32)
    return float((policy.probabilities(contexts, np.ones((4000, 3), np.bool_)) * truth(contexts)).sum(axis=1).mean())


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


@pytest.mark.slow
def test_two_nights_at_once_are_one(home):
    """Both in processes of their own: one publishes, the other finds the same night spent."""
    found = list(spend_all(home, CONFIG, [SCOPE, SCOPE], NOW, workers=2))

    assert sorted(one["repeated"] for one in found) == [False, True]
    assert found[0]["run_id"] == found[1]["run_id"]
    assert versions(home) == ["000001"]


def test_a_night_waits_for_one_that_runs(home):
    """The lock is held for the whole of it."""
    entered = []

    def step(name, function):
        with nights.night_lock(home, SCOPE).open("ab") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        entered.append(name)
        return function

    spend(home, CONFIG, SCOPE, NOW, step=step)

    assert entered == ["load", "learn", "judge", "publish"]
    with locked(nights.night_lock(home, SCOPE)):
        pass


KILL = """
import json, os, signal, sys
from bandits.scheduled import nights
from bandits.config import Config
from bandits.home import Home
from bandits.types import Scope

home, config, at = Home(__import__("pathlib").Path(sys.argv[1])), Config.model_validate_json(sys.argv[2]), sys.argv[3]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

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
        *(pytest.param(at, marks=pytest.mark.slow) for at in ("after load", "trial 2", "before publish")),
    ],
)
def test_a_night_that_is_killed_leaves_a_whole_snapshot_or_none_and_the_next_completes(home, tmp_path, at):
    """kill -9 of a real process; the night after is the one that nobody killed: same content, one snapshot."""
    whole = filled(Home(tmp_path / "whole"), ROWS)
    spend(whole, CONFIG, SCOPE, NOW)
    arguments = [str(home.root), CONFIG.model_dump_json(), at, str(SCOPE), str(NOW)]
    done = subprocess.run([sys.executable, "-c", KILL, *arguments], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert versions(home) == (["000001"] if at == "after publish" else [])

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
