"""Facts about the commands of rollouts: each as a person says it, on a real home, with what it answers."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bandits.config import load_config
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.record.audit import Audit
from bandits.rollout.giving import begin
from bandits.rollout.orders import OrderBook, Seen
from bandits.serving import Server
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.publishing import publish
from bandits.types import Outcome, Slot
from tests.rollout.world import ARMS, SCOPE
from tests.test_cli import run

ROOT = Path(__file__).parents[2]
NAME = str(SCOPE)
CONFIG = """
[tenants.acme]
[domains.own]
features = "vector-2"
budget_usd_per_request = 1e-3
arms = [{name = "a", model = "a", usd_per_request = 1e-4}, {name = "b", model = "b", usd_per_request = 1e-4}]
[rollout]
stages = [0.2, 0.5, 1.0]
min_seconds = 2.0
min_sample = 5
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Home:
    """An empty home, and a terminal of 80 columns."""
    (tmp_path / "pilotage.toml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PILOTAGE_CONFIG", str(tmp_path / "pilotage.toml"))
    monkeypatch.setenv("COLUMNS", "80")
    return Home(tmp_path / "home")


def put(place: Home) -> str:
    """Publish a policy; its version."""
    policy = ContextFree("fixed", ARMS, "vector-2", np.array([1.0, 0.0]), np.full(2, 1e-4), 1e-3, 0.02)
    given = {"position": 0, "parent": None, "evidence": {}, "created": time.time(), "expires": time.time() + 1e5}
    return publish(place.snapshots, SCOPE, policy.freeze(), key=signing_key(place.root), **given).version


def rolling(place: Home, mode: str = "auto", ago: float = 0.0) -> tuple[str, str]:
    """A stable version, and a candidate whose rollout began so many seconds ago."""
    config, now = load_config(), time.time() - ago
    config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"mode": mode})})
    stable, candidate = put(place), put(place)
    why = "The candidate is worth 0.012 ± 0.004 more than the best fixed arm, on 3,000 rounds that did not choose it."
    begin(place, SCOPE, config, candidate, previous=stable, key=signing_key(place.root), now=now, why=why)
    return stable, candidate


def serve(place: Home, users: range, result: str = "stop") -> set[Slot]:
    """One real decision of each user with its outcome, which is `result` where the canary answered; the slots seen."""
    with place.open_record() as record:
        router = Server(place, load_config(), SCOPE, record, np.random.default_rng(0)).router
        made = [router.decide(np.zeros(2, np.float32), f"u{user}") for user in users]
        for one in made:
            told = {"quality": 0.8, "result": "stop"} if one.slot is Slot.STABLE else {"quality": 0.8, "result": result}
            router.report(Outcome(one.id, time.time(), SCOPE, latency_s=0.1, **told))
        return {one.slot for one in made}


def seen(place: Home) -> Seen:
    book = OrderBook(place.record_url, trusted_keys(place.root))
    try:
        return book.read(SCOPE)
    finally:
        book.close()


def told(*arguments: str) -> str:
    """What a command that succeeds prints, which fits a terminal."""
    code, out, error = run(*arguments)
    assert (code, error) == (0, "")
    assert "--json" in arguments or max(map(len, out.splitlines())) <= 80
    return out


def test_before_any_order_rollout_says_what_serves_and_makes_nothing(place):
    """The first policy; then the newest good snapshot."""
    assert told("rollout", NAME).splitlines() == [NAME, "now: no order was given yet; the first policy serves"]
    assert not place.root.exists()

    newest = [put(place) for _ in range(2)][-1]
    assert f"no order was given yet; {newest} serves" in told("rollout", NAME)
    found = json.loads(told("rollout", NAME, "--json"))
    assert (found["stable"], found["phase"], found["orders"]) == (newest, None, [])
    assert not (place.root / "record.db").exists()


def test_a_rollout_that_waits_is_approved_served_and_given_up(place):
    """Each word of a person is an order with its reason, sealed in the audit chain."""
    stable, candidate = rolling(place, mode="ask")
    waiting = told("rollout", NAME)
    assert f"{candidate} waits for approval; {stable} serves" in waiting
    assert f"\n  pilotage approve {NAME} --reason ...\n" in waiting
    assert "evidence: hold, waits for approval" in waiting

    said = told("approve", NAME, "--reason", "looked at the card " * 8)
    assert f"   2  {time.strftime('%Y-')}" in said
    assert f"{candidate} serves 20% of users, {stable} the others" in said
    assert serve(place, range(60)) == {Slot.STABLE, Slot.CANARY}
    running = told("rollout", NAME)
    assert f"now: {candidate} serves 20% of users, under a fresh lease" in running
    assert "e^-0.0" not in running

    assert f"{candidate} was given up; {stable} serves" in told("abort", NAME, "--reason", "enough")
    ended = told("rollout", NAME)
    assert f"now: no rollout is under way; {stable} serves" in ended
    assert "evidence" not in ended
    with Audit(place.audit_url) as audit:
        assert [row.content["why"] for row in audit.rows("acme")][1:] == ["looked at the card " * 8, "enough"]


def test_rollout_tells_the_evidence_and_where_it_decides(place):
    """For a person and for a machine; the numbers are those of the terms."""
    stable, candidate = rolling(place)
    serve(place, range(60))

    found = json.loads(told("rollout", NAME, "--json"))
    assert [(one["number"], one["phase"], one["stable"], one["candidate"]) for one in found["orders"]] == [
        (1, "canary", stable, candidate)
    ]
    assert (found["verdict"], found["leased"], found["share"]) == ("hold", True, 0.2)
    assert found["sample"] > 0
    assert found["log_e"].keys() == found["needed"].keys() == {"errors", "slow", "drop", "safe"}
    assert found["needed"]["errors"] == pytest.approx(-np.log(0.01 * 0.1))
    assert found["needed"]["safe"] == pytest.approx(-np.log(0.05))
    text = told("rollout", NAME)
    assert "the rollout ends at e^6.9" in text
    assert "a stage is passed from e^3.0" in text


def test_a_canary_that_nobody_looks_after_is_told_to_serve_nobody(place):
    """Its lease has run out."""
    stable, candidate = rolling(place, ago=60.0)

    text = " ".join(told("rollout", NAME).split())
    assert f"{candidate} serves 20% of users" in text, "so says the order"
    assert f"now: {stable} serves everybody: no lease is fresh" in text


def test_rollout_names_an_order_that_it_does_not_believe(place):
    """Somebody wrote to the database; what serves stays, and the person who looks is told."""
    rolling(place)
    with sqlite3.connect(place.root / "record.db") as connection:
        connection.execute("UPDATE rollout_orders SET content = replace(content, '000002', '000009')")

    assert "FAULT order 1 of acme/main/own must be signed by a trusted key" in told("rollout", NAME)


def test_a_rollback_goes_back_in_one_command_and_says_to_what(place):
    """From a canary to the stable one; then to a version that is named."""
    stable, candidate = rolling(place)
    assert f"rolled back from {candidate}: {stable} serves" in told("rollback", NAME, "--reason", "users complain")
    assert serve(place, range(60)) == {Slot.STABLE}
    assert f"rolled back from {stable}: {candidate} serves" in told(
        "rollback", NAME, "--reason", "it was another's fault", "--to", candidate
    )
    assert seen(place).order.stable == candidate
    assert "users complain" in told("rollout", NAME)


def test_the_commands_work_where_the_record_is_on_a_server(place, postgres_url, monkeypatch):
    """Orders lie there too, and no file is made in the home."""
    monkeypatch.setenv("PILOTAGE_RECORD", postgres_url)
    place = Home.here()
    assert "no order was given yet; the first policy serves" in told("rollout", NAME)
    stable, candidate = rolling(place)
    assert serve(place, range(40)) == {Slot.STABLE, Slot.CANARY}

    assert f"now: {candidate} serves 20% of users, under a fresh lease" in told("rollout", NAME)
    assert f"rolled back from {candidate}: {stable} serves" in told("rollback", NAME, "--reason", "so")
    assert not (place.root / "record.db").exists()


WRONG = {
    "no scope": (("rollback", "--reason", "x"), 2, "Missing argument"),
    "no reason": (("rollback", NAME), 2, "Missing option '--reason'"),
    "half a scope": (("rollout", "own"), 1, "scope must be tenant/workspace/domain"),
    "a stranger's scope": (("abort", "other/main/own", "--reason", "x"), 1, "scope must be configured"),
    "an empty reason": (("approve", NAME, "--reason", " "), 1, "must have a reason"),
    "an empty reason to give up": (("abort", NAME, "--reason", ""), 1, "must have a reason"),
    "an empty reason to go back": (("rollback", NAME, "--reason", ""), 1, "must have a reason"),
    "what does not wait": (
        ("approve", NAME, "--reason", "x"),
        1,
        "waits for approval, but order 1 of 000002",
    ),
    "no such version": (("rollback", NAME, "--reason", "x", "--to", "000009"), 1, "000009 may not: snapshot"),
    "a path": (("rollback", NAME, "--reason", "x", "--to", "../../keys"), 1, "six to twelve digits"),
}


@pytest.mark.parametrize(("arguments", "code", "said"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused_and_changes_nothing(place, arguments, code, said):
    """Exit 2 where the command line is at fault, 1 where the world is."""
    rolling(place)

    found, out, error = run(*arguments)

    assert found == code
    assert said in " ".join((out + error).split())
    assert seen(place).order.number == 1


def test_what_is_over_cannot_be_given_up_or_approved_or_gone_back_to(place):
    """The order that holds is named."""
    stable, _ = rolling(place)
    told("abort", NAME, "--reason", "x")
    for verb, said in (("abort", "that is under way"), ("approve", "that waits for approval")):
        code, _, error = run(verb, NAME, "--reason", "x")
        assert code == 1
        assert f"{said}, but order 2 of 000002 is aborted" in error
    code, _, error = run("rollback", NAME, "--reason", "x", "--to", stable)
    assert (code, error) == (1, f"a rollback must change who serves, but {stable} serves {NAME} already.")


@pytest.mark.parametrize("verb", ["approve", "abort", "rollback"])
def test_where_the_signing_key_is_not_no_order_is_given_and_no_key_is_made(place, verb):
    """A key of one's own would sign what nobody else believes: the command would lie."""
    rolling(place)
    key = place.root / "keys" / "signing.key"
    key.unlink()

    code, _, error = run(verb, NAME, "--reason", "x")

    assert code == 1
    assert f"{key} is not there" in error
    assert not key.exists()
    assert seen(place).order.number == 1


def test_who_has_no_name_is_a_number(place, monkeypatch):
    """As in a container whose user no list knows; a rollback must not fail for it."""
    rolling(place)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert f"uid {os.getuid()}: so" in told("rollback", NAME, "--reason", "so")


def test_the_real_command_rolls_back_and_an_error_is_one_line(place):
    """A process of its own, as a person's shell starts it: exit 0; then 1, on standard error, without a traceback."""
    stable, candidate = rolling(place)
    command = [sys.executable, "-m", "pilotage", "rollback", NAME, "--reason", "so", "--to", stable]

    first, second = (subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False) for _ in "ab")

    assert (first.returncode, first.stderr) == (0, "")
    assert f"rolled back from {candidate}: {stable} serves" in first.stdout
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith("error: a rollback must change who serves")
    assert len(second.stderr.splitlines()) == 1


def test_watch_renews_rolls_back_and_ends_at_ctrl_c(place):
    """A process of its own: it finds a canary whose lease has run out, keeps it, and ends it when its answers fail."""
    stable, candidate = rolling(place, ago=60.0)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pilotage", "watch"], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == f"watching {NAME} until Ctrl-C.\n"
        assert f"{NAME}  order 1  {candidate} serves 20% of users, {stable} the others. night: " in (
            process.stdout.readline()
        )
        assert seen(place).lease.holds(time.time()), "renewed before it was told"
        assert serve(place, range(200), result="failed:server") == {Slot.STABLE, Slot.CANARY}
        ended = process.stdout.readline()
        assert f"order 2  rolled back from {candidate}: {stable} serves. evidence: more than" in ended
        process.send_signal(signal.SIGINT)
        assert (process.wait(60), process.stdout.read()) == (0, "")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_watch_without_a_signing_key_says_that_it_cannot_act(place):
    """Else a person would think that somebody looks after it."""
    rolling(place)
    (place.root / "keys" / "signing.key").unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "pilotage", "watch"], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert "signing.key is not there: until it is, this tells and cannot act." in process.stdout.readline()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
