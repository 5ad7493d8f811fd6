"""Facts about the command line: help for each command, typed errors without a traceback, JSON for machines."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import pilotage
from bandits.config import load_config
from bandits.home import Home
from bandits.learners.lift import Lift
from bandits.learners.offset_tree import OffsetTree
from bandits.learners.scaling import Scaler
from bandits.learners.tree_policy import TreePolicy
from bandits.served import first_policy
from bandits.serving import Server
from bandits.snapshots.keys import signing_key
from bandits.snapshots.publishing import publish
from bandits.types import Outcome, Scope

ROOT = Path(__file__).parents[1]
SCOPE = Scope("demo", "main", "model_routing")
COMMANDS = [command.name or command.callback.__name__ for command in pilotage.app.registered_commands]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty home and the shipped configuration."""
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PILOTAGE_CONFIG", str(ROOT / "pilotage.toml"))
    return Home(tmp_path / "home")


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `pilotage ARGUMENTS`, through its own error handling."""
    result = CliRunner().invoke(pilotage.app, list(arguments))
    if isinstance(result.exception, pilotage.PilotageError):
        return 1, result.output, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def decide(place: Home, quality: float | None = 0.5) -> str:
    """One real decision with its outcome; its id."""
    with place.open_record() as record:
        router = Server(place, load_config(), SCOPE, record, np.random.default_rng(0)).router
        decision = router.decide(np.zeros(76, np.float32))
        if quality is not None:
            router.report(Outcome(decision.id, decision.time, SCOPE, quality=quality, cost_usd=1e-4))
        return decision.id


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    """At 80 columns."""
    code, out, _ = run(command.replace("_", "-"), "--help")

    assert code == 0
    assert "Usage" in out


def test_an_unknown_command_is_a_usage_error():
    """Exit 2, as of any good tool."""
    assert run("fly")[0] == 2


def test_why_tells_the_story_of_a_decision_and_replays_it(place):
    """For a person and for a machine."""
    decision_id = decide(place)

    code, out, _ = run("why", decision_id)
    assert code == 0
    assert decision_id in out
    assert "equal, to the last bit" in out
    assert max(map(len, out.splitlines())) <= 80
    story = json.loads(run("why", decision_id, "--json")[1])
    assert story["replays"] is True
    assert story["reward"] == 0.5
    assert sum(arm["probability"] for arm in story["arms"]) == pytest.approx(1.0)


def test_missing_is_missing_in_a_story_too(place):
    """A decision without outcomes has no reward, not reward 0."""
    story = json.loads(run("why", decide(place, quality=None), "--json")[1])

    assert story["reward"] is None
    assert story["cost_usd"] is None


def test_a_decision_of_another_configuration_is_told_without_replaying_it(place, monkeypatch, tmp_path):
    """The first policy is made from the configuration; when that changed, nothing can be recomputed, and it says so."""
    decision_id = decide(place)
    text = (ROOT / "pilotage.toml").read_text(encoding="utf-8").replace("gemini-2-5-pro", "another")
    (tmp_path / "changed.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PILOTAGE_CONFIG", str(tmp_path / "changed.toml"))

    story = json.loads(run("why", decision_id, "--json")[1])

    assert story["replays"] is None
    assert len(story["arms"]) == 3


@pytest.mark.parametrize("tenant", ["demo", "other"])
def test_why_of_an_unknown_decision_is_an_error(place, tenant):
    """The same for another tenant's: nothing leaks."""
    decision_id = decide(place)
    code, _, error = run("why", decision_id if tenant == "other" else "nope", "--tenant", tenant)

    assert code == 1
    assert f"{tenant!r} has no" in error


def test_a_prefect_server_that_is_absent_is_named_and_the_night_is_spent_without(place, monkeypatch):
    """Nothing of the night needs it."""
    decide(place)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")

    code, out, error = run("night", "--json")

    assert code == 0
    assert "without Prefect: the Prefect server must answer at http://127.0.0.1:9/api" in error
    (report,) = json.loads(out)
    assert (report["verdict"], report["rounds"]) == ("kept", 1)


def test_the_pilot_works_for_configured_tenants_only(place, tmp_path):
    """And says what it found, where it is asked by one; a broken transcript fails the run with exit 1."""
    (tmp_path / "notes.txt").write_text("The release went well. The votes are good.\n")
    (tmp_path / "broken.vtt").write_bytes(bytes(range(256)) * 8)

    assert run("pilot", "run", "--tenant", "nobody")[0] == 1
    code, out, _ = run("pilot", "run", str(tmp_path / "notes.txt"), "--no-embed", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["status"] == "ok"
    assert "embed" not in result
    code, out, _ = run("pilot", "run", str(tmp_path / "broken.vtt"))
    assert code == 1
    assert "broken.vtt" in out


def test_load_brings_in_each_row_once(place):
    """Two rows, then none."""
    decide(place)

    assert json.loads(run("load", "--json")[1]) == {"rows": 2, "quarantined": 0, "position": 2}
    assert json.loads(run("load", "--json")[1])["rows"] == 0


def test_doctor_finds_nothing_wrong_with_an_empty_home(place):
    """And makes nothing."""
    code, out, _ = run("doctor")

    assert code == 0
    assert "FAULT" not in out
    assert not place.root.exists()


def test_doctor_names_each_fault_and_hides_none(place, monkeypatch, tmp_path):
    """A broken record, a broken warehouse, a broken configuration: three faults, exit 1."""
    place.root.mkdir()
    (place.root / "record.db").write_bytes(b"this is no database" * 100)
    place.warehouse.write_bytes(b"nor is this" * 100)
    (tmp_path / "bad.toml").write_text("[nigt]\n")
    monkeypatch.setenv("PILOTAGE_CONFIG", str(tmp_path / "bad.toml"))

    code, out, _ = run("doctor", "--json")

    assert code == 1
    faults = {check["name"]: check["found"] for check in json.loads(out) if not check["ok"]}
    assert set(faults) >= {"configuration", "record", "warehouse"}
    assert "'night'" in faults["configuration"]


def test_doctor_names_each_provider_without_its_key_and_shows_none(place, monkeypatch, tmp_path):
    """A key that is not set, one that is none: both named with their variable, no value shown; set, all is well."""
    text = (ROOT / "pilotage.toml").read_text()
    for name in ("one", "two", "three"):
        text += f'\n[providers.{name}]\nkind = "openai"\nkey_env = "PILOTAGE_TEST_{name.upper()}"\n'
    (tmp_path / "live.toml").write_text(text)
    monkeypatch.setenv("PILOTAGE_CONFIG", str(tmp_path / "live.toml"))
    monkeypatch.delenv("PILOTAGE_TEST_ONE", raising=False)
    monkeypatch.setenv("PILOTAGE_TEST_TWO", "sk-two with-a-space")
    monkeypatch.setenv("PILOTAGE_TEST_THREE", "sk-three")

    code, out, _ = run("doctor")

    assert code == 1
    (fault,) = [line for line in out.splitlines() if line.startswith("FAULT")]
    assert "provider one needs its key in the variable PILOTAGE_TEST_ONE, which is not set; set it" in fault
    assert "provider two needs its key in the variable PILOTAGE_TEST_TWO, which holds something else" in fault
    assert "three" not in fault

    monkeypatch.setenv("PILOTAGE_TEST_ONE", "sk-one")
    monkeypatch.setenv("PILOTAGE_TEST_TWO", "sk-two")
    code, well, _ = run("doctor")
    assert code == 0
    assert "ok   providers: one has its key; replay needs none; three has its key; two has its key" in well
    assert "sk-" not in out + well


def test_doctor_advises_with_figures_once_there_is_a_log(place):
    """The shipped budget never allows one of the arms; that is advice, not a fault."""
    assert "advice: none: nothing is loaded yet" in run("doctor")[1]
    decide(place)
    run("load")

    code, out, _ = run("doctor")

    assert code == 0
    assert "gemini-2-5-pro was never allowed: trying it takes 1.00e-03 USD per request, not 3.00e-04" in out


def test_snapshots_of_an_empty_home_says_what_to_do(place):
    """Not silence."""
    assert "run `pilotage night`" in run("snapshots")[1]


def test_snapshots_print_the_rules_of_a_tree_that_serves(place):
    """Those of the newest one, readable, under its line; another kind has none."""
    domain, scaler = load_config().domains["model_routing"], Scaler(np.zeros(76), np.ones(76))
    tree = OffsetTree(np.array([[0, 1], [2, 3]]), np.eye(77)[[11, 4]])
    lift = Lift.draw(scaler, 0, 1.0)
    prices, known = np.array([arm.usd_per_request for arm in domain.arms]), np.ones(3, np.bool_)
    grown = TreePolicy(domain.arm_names, "text-1", lift, tree, known, prices, 0.02).freeze()
    simple = first_policy(domain).policy.freeze()
    for parent, frozen in ((None, simple), ("000001", grown), ("000002", grown)):
        when = {"created": time.time(), "expires": time.time() + 1e4}
        key = signing_key(place.root)
        publish(place.snapshots, SCOPE, frozen, position=0, parent=parent, evidence={}, key=key, **when)

    code, out, _ = run("snapshots")

    assert code == 0
    first, second, third, *rules = out.splitlines()
    assert [line.split()[1:] for line in (first, second, third)] == [
        ["000001", "explore", "ok"],
        ["000002", "offset_tree", "ok"],
        ["000003", "offset_tree", "ok"],
    ]
    assert rules[0] == "    if +1.000 share_symbols +0.000 > 0:"
    assert rules[-1] == f"        {domain.arm_names[2]}"


def test_the_demo_never_erases_a_record_that_is_not_its_own(place):
    """A home with somebody's decisions is refused, untouched."""
    decide(place)
    before = (place.root / "record.db").read_bytes()

    code, _, error = run("demo")

    assert code == 1
    assert "set PILOTAGE_HOME" in error
    assert (place.root / "record.db").read_bytes() == before


def test_a_decision_replays_and_a_range_verifies(place):
    """Exit 0 and the logged numbers beside the new ones; exit 1 once a row was tampered with."""
    decision_id = decide(place)

    code, out, _ = run("replay", decision_id)
    assert code == 0
    assert out.rstrip().endswith("equal, to the last bit")
    code, out, _ = run("verify")
    assert code == 0
    assert "2 rows, 1 decisions: 1 replay to the last bit" in out

    with closing(sqlite3.connect(place.root / "record.db", isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER decisions_no_update")
        connection.execute('UPDATE decisions SET excluded = \'{"mistral-large": "no"}\'')
    assert run("replay", decision_id)[0] == 1
    code, out, _ = run("verify")
    assert code == 1
    assert "does not replay" in out
    assert run("replay", "nope")[0] == 1


def test_the_audit_shows_what_was_changed_and_names_a_broken_link(place):
    """Making a key is a change; so is what somebody did to the chain behind our back."""
    assert run("audit", "verify")[0] == 0
    run("key", "demo", "for-tests")

    code, out, _ = run("audit", "show", "--tenant", "demo")
    assert code == 0
    assert "command line: an API key was made" in out
    assert "plt_" not in out
    assert run("audit", "verify")[0] == 0

    with closing(sqlite3.connect(place.root / "audit.db", isolation_level=None)) as connection:
        connection.execute("UPDATE audit SET time = 0")
    code, out, _ = run("audit", "verify")
    assert code == 1
    assert "row 1: its link" in out
    assert "FAULT audit" in run("doctor")[1]


def test_a_person_is_exported_and_erased_and_a_home_backed_up_and_restored(place, monkeypatch, tmp_path):
    """One way through the commands: what was Ada's is shown, backed up, erased, and stays erased when restored."""
    with place.open_record() as record:
        server = Server(place, load_config(), SCOPE, record, np.random.default_rng(0))
        ada = server.ids.pseudonym("demo", "ada")
        for user in (ada, ada, ""):
            server.router.decide(np.zeros(76, np.float32), user=user)
    assert len(run("privacy", "export", "ada")[1].splitlines()) == 2
    code, out, _ = run("backup", str(tmp_path / "backups"))
    assert code == 0
    assert "3 rows up to position 3" in out
    (made,) = [path for path in (tmp_path / "backups").iterdir() if path.is_dir()]

    assert "erased 2 decisions" in run("privacy", "erase", "ada")[1]
    assert "nothing was found" in run("privacy", "erase", "ada")[1]
    assert run("privacy", "export", "ada")[1] == ""
    assert "nothing is that old" in run("privacy", "sweep")[1]

    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "again"))
    code, out, error = run("restore", str(made))
    assert code == 0, error
    assert "1 rows up to position 3" in out
    assert run("verify")[0] == 0
    assert run("audit", "verify")[0] == 0


@pytest.mark.parametrize("form", ["parquet", "dsjson"])
def test_a_log_goes_out_to_a_file_and_comes_back(place, tmp_path, form):
    """Into another scope of the same home; a file that is there is not overwritten."""
    for seed in range(3):
        with place.open_record() as record:
            router = Server(place, load_config(), SCOPE, record, np.random.default_rng(seed)).router
            decision = router.decide(np.zeros(76, np.float32))
            router.report(Outcome(decision.id, decision.time, SCOPE, quality=0.5, cost_usd=1e-4))
    run("load")
    file = tmp_path / f"log.{form}"

    code, out, _ = run("export", str(SCOPE), str(file), "--format", form)
    assert code == 0
    assert "3 rounds" in out
    assert run("export", str(SCOPE), str(file), "--format", form)[0] == 1
    (place.root / "record.db").unlink()
    code, out, error = run("import", str(SCOPE), str(file), "--format", form)
    assert code == 0, error
    assert "3 rounds appended" in out.replace("rows", "rounds")
