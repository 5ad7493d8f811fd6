"""The store of runs: one process at a time, nothing twice, nothing of another tenant, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from bandits.home import Home
from graphs import runs as module
from graphs.audit import Counters
from graphs.errors import RunsError, RunTakenError, UnknownRunError
from graphs.inbox import new_files, run_inbox
from graphs.pilot import resume_pilot, run_pilot
from graphs.runs import EVENTS, RUNS, UPDATES, Journal, RunStore, this_process
from graphs.state import PilotRequest, PilotResult
from graphs.steps import STEPS

REQUEST = PilotRequest("acme", "main", [("a.txt", "The quiz night was wonderful.")])
NAMES = [step.name for step in STEPS]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/pilot.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def runs(url):
    with RunStore(url) as store:
        yield store


def test_runs_kept_on_an_empty_server_leave_room_for_the_record(tmp_path, postgres_url):
    """Whichever comes first: neither takes the other's tables for a foreign program's."""
    home = Home(tmp_path, postgres_url)
    with RunStore.at(home), home.open_record() as record:
        assert record.head() == 0


def rows(runs, *tables):
    with runs._transaction(write=False) as connection:
        return [connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in tables]


def run(runs, request=REQUEST, **more):
    return run_pilot(request, runs=runs, counters=Counters(), **more)


def json_of(result):
    return json.loads(json.dumps(result.to_dict()))


def stopping(runs, at, stop):
    """The steps, of which one calls `stop` first."""

    def instead(step):
        def act(state):
            stop(state["run_id"])
            return step.run(state)

        return replace(step, run=act) if step.name == at else step

    return tuple(instead(step) for step in STEPS)


@pytest.mark.parametrize("orchestrator", ["langgraph", "sequential"])
def test_a_run_leaves_its_trail_and_its_result_and_no_document(runs, orchestrator):
    """What was needed to go on is let go of."""
    result = run(runs, orchestrator=orchestrator)
    view = runs.view(result.run_id, "acme")

    assert result.orchestrator == orchestrator
    assert (view.phase, view.cancelled) == ("ended", False)
    assert list(view.events) == list(result.events)
    assert json_of(PilotResult.from_dict(view.result)) == json_of(result)
    assert rows(runs, RUNS, UPDATES) == [1, 0]
    with runs._transaction(write=False) as connection:
        assert connection.scalar(sa.select(RUNS.c.request)) is None


def test_a_run_that_has_ended_gives_its_result_again_and_does_nothing(runs):
    """The same id, the same answer; no event more."""
    first = run(runs, orchestrator="sequential")
    before = rows(runs, RUNS, EVENTS)

    assert json_of(run(runs, run_id=first.run_id)) == json_of(first)
    assert json_of(resume_pilot(first.run_id, "acme", runs)) == json_of(first)
    assert rows(runs, RUNS, EVENTS) == before


def test_a_run_belongs_to_one_process(runs):
    """It is refused to a second one, unless that takes it over; then the first can write no more."""
    run_id = runs.begin(REQUEST)
    first = runs.claim(run_id, "acme")
    with pytest.raises(RunTakenError, match="under way in"):
        runs.claim(run_id, "acme")
    second = runs.claim(run_id, "acme", force=True)

    with pytest.raises(RunTakenError, match="taken over"):
        first.write([], "ingest", {})
    second.write([], "ingest", {})
    assert rows(runs, UPDATES) == [1]


def test_a_run_whose_process_is_gone_is_taken_up_without_a_word(runs, monkeypatch):
    """On this host that can be told; of another host it cannot."""
    run_id, elsewhere = runs.begin(REQUEST), runs.begin(REQUEST)
    monkeypatch.setattr(module, "_SELF", "an earlier process of this number")
    runs.claim(run_id, "acme")
    monkeypatch.undo()
    assert isinstance(runs.claim(run_id, "acme"), Journal)

    monkeypatch.setattr(module.socket, "gethostname", lambda: "another-host")
    runs.claim(elsewhere, "acme")
    monkeypatch.undo()
    with pytest.raises(RunTakenError):
        runs.claim(elsewhere, "acme")
    assert isinstance(runs.claim(elsewhere, "acme", force=True), Journal)


@pytest.mark.parametrize("orchestrator", ["langgraph", "sequential"])
def test_a_process_that_was_taken_for_dead_stops_and_stores_nothing(runs, orchestrator):
    """Its next write says so; what the other stored stands."""

    def take_over(run_id):
        runs.claim(run_id, "acme", force=True)

    with pytest.raises(RunTakenError):
        run(runs, orchestrator=orchestrator, steps=stopping(runs, "segment", take_over))
    assert rows(runs, UPDATES) == [1]


@pytest.mark.parametrize("orchestrator", ["langgraph", "sequential"])
def test_a_run_that_is_cancelled_stops_before_its_next_step(runs, orchestrator):
    """What it is in the middle of, it ends."""
    counters = Counters()
    steps = stopping(runs, "segment", lambda run_id: runs.cancel(run_id, "acme"))
    result = run_pilot(REQUEST, runs=runs, orchestrator=orchestrator, steps=steps, counters=counters)
    numbers = counters.snapshot()["steps"]

    assert (result.status, result.error["step"]) == ("failed", "embed")
    assert "cancelled" in result.error["reason"]
    assert [numbers[name]["completed"] for name in NAMES] == [1, 1, 0, 0]
    assert [numbers[name]["skipped"] for name in NAMES] == [0, 0, 1, 1]
    assert {event["reason"] for event in result.events if event["what"] == "skipped"} == {"the run was cancelled"}


def test_nothing_of_another_tenant_can_be_seen_ended_or_begun_anew(runs):
    """Not even by its id."""
    run_id = runs.begin(REQUEST)
    theirs = PilotRequest("rival", "main", [])
    for touch in (runs.view, runs.cancel, runs.claim):
        with pytest.raises(UnknownRunError):
            touch(run_id, "rival")
    with pytest.raises(UnknownRunError):
        run(runs, theirs, run_id=run_id)
    assert runs.view(run_id, "acme").cancelled is False


def test_the_same_id_is_one_run(runs):
    """Whoever asks twice."""
    assert runs.begin(REQUEST, run_id="f" * 32) == runs.begin(REQUEST, run_id="f" * 32)
    assert rows(runs, RUNS) == [1]


def test_runs_are_forgotten_when_they_are_old_and_have_ended(runs, url):
    """The trail with them; one that waits stays."""
    ended, waits = run(runs, orchestrator="sequential").run_id, runs.begin(REQUEST)
    with runs._transaction() as connection:
        connection.execute(sa.update(RUNS).values(time=time.time() - 31 * 86_400.0))
    runs.begin(REQUEST)

    with pytest.raises(UnknownRunError, match="there is no"):
        runs.view(ended, "acme")
    assert runs.view(waits, "acme").phase == "waiting"
    assert rows(runs, RUNS, EVENTS) == [2, 0]


def test_only_what_a_dead_process_of_this_host_left_is_forsaken(runs, monkeypatch):
    """And of the mode that was asked for."""
    runs.begin(REQUEST, mode="background", owner=this_process())
    runs.begin(REQUEST, mode="enqueue")
    monkeypatch.setattr(module, "_SELF", "gone")
    left = runs.begin(REQUEST, mode="background", owner=this_process())
    runs.begin(REQUEST, mode="wait", owner=this_process())
    monkeypatch.undo()

    assert runs.forsaken("background") == [(left, "acme")]


def test_a_file_that_is_no_store_is_refused_with_its_name(tmp_path):
    """And what to do."""
    bad = tmp_path / "pilot.db"
    bad.write_bytes(b"no database" * 1000)
    with pytest.raises(RunsError, match=r"the store of runs must be .* but sqlite:.*pilot\.db says"):
        RunStore(f"sqlite:///{bad}")


class TestInbox:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "inbox"
        folder.mkdir()
        (folder / "a.txt").write_text("The quiz night was wonderful.")
        (folder / "broken.srt").write_bytes(b"\0\1")
        return folder

    def run(self, runs, folder, **more):
        return run_inbox(folder, PilotRequest("acme", "main", ()), runs, counters=Counters(), **more)

    def test_each_content_is_read_once_under_whatever_name(self, runs, folder):
        """A broken one as well, until it is mended; another workspace reads for itself."""
        first = self.run(runs, folder)
        assert [one["name"] for one in first.ingest["documents"]] == ["a.txt"]
        assert self.run(runs, folder) is None

        (folder / "copy.txt").write_text("The quiz night was wonderful.")
        assert self.run(runs, folder) is None
        (folder / "b.txt").write_text("The gateway crashed.")
        (folder / "broken.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nIt works now.\n")
        second = self.run(runs, folder)
        assert [one["name"] for one in second.ingest["documents"]] == ["b.txt", "broken.srt"]
        assert len(new_files(folder, "acme:other:pilot", runs)) == 3

    def test_what_another_step_failed_on_is_new_still(self, runs, folder):
        """And tried anew, not answered from the failure."""

        def boom(state):
            raise RuntimeError("the disk is full")

        broken = tuple(replace(step, run=boom) if step.name == "analysis" else step for step in STEPS)
        assert self.run(runs, folder, steps=broken).status == "failed"
        assert self.run(runs, folder).status == "degraded"
        assert self.run(runs, folder) is None

    def test_an_inbox_that_was_killed_goes_on_with_its_run(self, runs, folder, monkeypatch):
        """The same new files are the same run."""

        def interrupt(run_id):
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "_SELF", "gone")
        with pytest.raises(KeyboardInterrupt):
            self.run(runs, folder, steps=stopping(runs, "embed", interrupt))
        monkeypatch.undo()
        counters = Counters()
        result = run_inbox(folder, PilotRequest("acme", "main", ()), runs, counters=counters)

        assert result.analysis is not None
        assert rows(runs, RUNS) == [1]
        assert set(counters.snapshot()["steps"]) == {"embed", "analysis"}
