"""Facts about the pilot in backups: runs are seen and gone on with, what they read is found, whoever writes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from dataclasses import asdict, replace

import duckdb
import pytest

from bandits.backups.contents import copy_duckdb
from bandits.backups.restore import restore
from bandits.backups.runs import TABLES
from bandits.errors import BackupError
from bandits.home import Home
from graphs import runs as store
from graphs.library import Library
from graphs.pilot import resume_pilot, run_pilot
from graphs.runs import RunStore
from graphs.state import PilotRequest
from graphs.steps import STEPS
from tests.backups.home import NOW, TOML, back_up, in_a_child, killer, tree, whole

FORK = multiprocessing.get_context("fork")
INPUTS = [("quiz.txt", "The quiz night was wonderful. Ninety-four players came."), ("b.md", "# Gateway\n\nIt crashed.")]
SECRET = "Zyzzogeton"
LATER = [("late.txt", f"The beetle {SECRET} was found behind the server.")]
NAMESPACE = "acme:main:pilot"
ENDED, KILLED, WAITING = (f"{number:032x}" for number in (1, 2, 3))


def run(home: Home, run_id: str, inputs=INPUTS, steps=STEPS):
    with RunStore.at(home) as runs:
        request = PilotRequest("acme", "main", inputs)
        options = {"steps": steps, "store": Library(home.root / "library.duckdb")}
        return run_pilot(request, orchestrator="sequential", runs=runs, run_id=run_id, **options)


def kill(state):
    os.kill(os.getpid(), signal.SIGKILL)


KILLING = tuple(replace(step, run=kill) if step.name == "analysis" else step for step in STEPS)


def views(home: Home):
    with RunStore.at(home) as runs:
        return [runs.view(one, "acme") for one in (ENDED, KILLED, WAITING)]


def found(home: Home, query: str = "players of the quiz"):
    return [asdict(hit) for hit in Library(home.root / "library.duckdb").search(NAMESPACE, query)]


def fill(home: Home) -> Home:
    """One run that has ended, one that was killed before its last step, and one that a living process was given."""
    run(home, ENDED)
    assert in_a_child(lambda: run(home, KILLED, LATER, KILLING)) == -signal.SIGKILL
    with RunStore.at(home) as runs:
        request = PilotRequest("acme", "main", INPUTS)
        runs.begin(request, mode="background", run_id=WAITING, owner=store.this_process())
        runs.claim(WAITING, "acme")
        runs.mark(NAMESPACE, ["a" * 64], ENDED)
    return home


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """See fill."""
    folder = tmp_path_factory.mktemp("piloted")
    (folder / "pilotage.toml").write_text(TOML)
    return fill(Home(folder / "home")).root.parent


@pytest.fixture
def home(filled, tmp_path) -> Home:
    """A copy of it."""
    shutil.copytree(filled, tmp_path / "made")
    return Home(tmp_path / "made" / "home")


def assert_goes_on(home: Home, again: Home) -> None:
    """Its runs are seen as they were, and those that had not ended are gone on with; what was read is found."""
    assert views(again) == views(home)
    assert found(again) == found(home) != []
    with RunStore.at(again) as runs:
        assert set(runs.forsaken("wait") + runs.forsaken("background")) == {(KILLED, "acme"), (WAITING, "acme")}
        assert runs.new(NAMESPACE, ["a" * 64, "b" * 64]) == {"b" * 64}
        result = resume_pilot(
            KILLED, "acme", runs, orchestrator="sequential", store=Library(again.root / "library.duckdb")
        )
        assert [event["step"] for event in result.events].count("ingest") == 2  # started and completed, once
        assert (result.status, resume_pilot(WAITING, "acme", runs, orchestrator="sequential").status) == ("ok", "ok")
        assert runs.view(ENDED, "acme").result["status"] == "ok"
    assert SECRET in found(again, "beetle")[0]["segment"]["text"]


def test_runs_and_library_come_back(home, tmp_path):
    """Also runs whose process lives on where the backup was made: it runs them there, and not here."""
    with RunStore.at(home) as runs, pytest.raises(store.RunTakenError):
        resume_pilot(WAITING, "acme", runs)
    folder = back_up(home, tmp_path / "backups").path

    restore(folder, tmp_path / "new", NOW)

    for name in ("pilot.db", "library.duckdb"):
        assert (folder / name).stat().st_mode & 0o077 == 0
    assert_goes_on(home, Home(tmp_path / "new"))
    with RunStore.at(home) as runs, pytest.raises(store.RunTakenError):
        resume_pilot(WAITING, "acme", runs)


def test_runs_on_a_server_come_back_in_a_file(postgres_url, tmp_path):
    """Every table of the store, named as it names them."""
    assert set(TABLES) == set(store.TABLES.tables)
    (tmp_path / "pilotage.toml").write_text(TOML)
    elsewhere = Home(tmp_path / "home", postgres_url)
    elsewhere.open_record().close()
    fill(elsewhere)

    restore(back_up(elsewhere, tmp_path / "backups").path, tmp_path / "new", NOW)

    assert not (elsewhere.root / "pilot.db").exists()
    assert_goes_on(elsewhere, Home(tmp_path / "new"))


@pytest.mark.parametrize("name", ["pilot.db", "library.duckdb"])
def test_a_changed_byte_is_refused(home, tmp_path, name):
    """As of every other file."""
    path = back_up(home, tmp_path / "backups").path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(BackupError, match=rf"were changed.*{name}"):
        restore(path.parent, tmp_path / "new", NOW)


@pytest.mark.parametrize("step", ["runs", "library"])
def test_killed_behind_a_step_the_next_run_makes_all_of_it(home, tmp_path, step):
    """Backup and restore: whole, or not there."""
    root, target = tmp_path / "backups", tmp_path / "there" / "new"
    assert in_a_child(lambda: back_up(home, root, done=killer(step))) == -signal.SIGKILL
    assert list(root.glob("2*")) == []
    made = back_up(home, root)
    assert whole(root) == [made.path]
    assert in_a_child(lambda: restore(made.path, target, NOW, killer("files"))) == -signal.SIGKILL
    assert not target.exists()

    restore(made.path, target, NOW)

    assert [path.name for path in target.parent.iterdir()] == ["new"]
    assert_goes_on(home, Home(target))


def writing(home: Home, begun, stop) -> None:
    """Run after run, each with a document of its own, until told to stop."""
    number = 100
    while not stop.is_set():
        run(home, f"{number:032x}", [(f"{number}.txt", f"The lighthouse number{number} shines.")])
        number += 1
        begun.set()


@pytest.mark.parametrize("where", ["process", "thread"])
def test_what_is_written_meanwhile_is_whole(home, tmp_path, where):
    """Each run that had ended in the backup is found in its library; and no run was harmed by being watched."""
    kinds = {"process": (FORK.Event, FORK.Process), "thread": (threading.Event, threading.Thread)}
    event, worker = kinds[where]
    begun, stop = event(), event()
    one = worker(target=writing, args=(home, begun, stop))

    def wait_for_more(_: str) -> None:
        begun.clear()
        assert begun.wait(60)

    one.start()
    try:
        made = back_up(home, tmp_path / "backups", done=wait_for_more)
    finally:
        stop.set()
        one.join()
    restore(made.path, tmp_path / "new", NOW)

    again, ended = Home(tmp_path / "new"), 0
    documents = set(Library(again.root / "library.duckdb").documents(NAMESPACE).values())
    for place in (home, again):
        with RunStore.at(place) as runs:
            for number in range(100, 400):
                try:
                    view = runs.view(f"{number:032x}", "acme")
                except store.UnknownRunError:
                    break
                if view.phase == "ended":
                    assert (view.result["status"], view.result["degradations"]) == ("ok", [])
                    assert place is home or f"{number}.txt" in documents
                    ended += place is again
    assert ended > 0


def test_what_a_killed_writer_left_in_the_log_of_the_library_is_copied(tmp_path):
    """It was committed; the file alone does not have it."""

    def write() -> None:
        library = duckdb.connect(str(tmp_path / "a.duckdb"))
        library.execute("CREATE TABLE t AS SELECT 7 AS seven")
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(write) == -signal.SIGKILL
    assert (tmp_path / "a.duckdb.wal").exists()
    before = tree(tmp_path)

    copy_duckdb(tmp_path / "a.duckdb", tmp_path / "b.duckdb")

    assert {name: before[name] for name in before} == {name: tree(tmp_path)[name] for name in before}
    with duckdb.connect(str(tmp_path / "b.duckdb"), read_only=True) as copy:
        assert copy.execute("SELECT seven FROM t").fetchall() == [(7,)]
    assert not (tmp_path / "b.duckdb.wal").exists()


def test_what_was_forgotten_before_is_in_no_file_of_a_backup(home, tmp_path):
    """No free block of the library is carried over."""
    run(home, KILLED)
    with RunStore.at(home) as runs:
        resume_pilot(KILLED, "acme", runs, orchestrator="sequential", store=Library(home.root / "library.duckdb"))
    library = Library(home.root / "library.duckdb")
    assert library.forget(NAMESPACE, "late.txt") == 1

    back_up(home, tmp_path / "backups")

    with duckdb.connect(str(next((tmp_path / "backups").glob("2*/library.duckdb"))), read_only=True) as copy:
        assert copy.execute("SELECT DISTINCT name FROM passages ORDER BY 1").fetchall() == [("b.md",), ("quiz.txt",)]
    assert SECRET.encode() not in next((tmp_path / "backups").glob("2*/library.duckdb")).read_bytes()


def test_a_library_that_is_held_or_none_stops_the_backup(home, tmp_path, monkeypatch):
    """It follows from nothing: a backup without it would not be everything."""
    with duckdb.connect(str(home.root / "library.duckdb")), pytest.raises(duckdb.Error, match="already attached"):
        copy_duckdb(home.root / "library.duckdb", tmp_path / "copy", patience_s=0.05)
    (home.root / "library.duckdb").write_bytes(b"not a database" * 1_000)

    with pytest.raises(BackupError, match=r"must be readable.*library\.duckdb"):
        back_up(home, tmp_path / "backups")
    assert list((tmp_path / "backups").glob("2*")) == []
