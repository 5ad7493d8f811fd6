"""Killed with -9 in any step, a run goes on at that step, in either runner; nothing is done or stored twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest

from graphs.pilot import run_pilot
from graphs.runs import RunStore
from graphs.state import PilotRequest
from graphs.steps import STEPS as TABLE

FORK = multiprocessing.get_context("fork")  # a process that need not import everything anew
INPUTS = [
    ("a.txt", "The quiz night was wonderful. The bot played music."),
    ("b.md", "# Gateway\n\nIt crashed."),
    ("c.vtt", ""),
]
STEPS = ["ingest", "segment", "embed", "analysis"]
RUN = "0193a5c1f2e0" + "5f" * 10


def drive(home, orchestrator, victim="-", when="after"):
    """A run, or the rest of it, in a process of its own that kills itself in a step. Its exit code, and its result."""
    process = FORK.Process(target=_run, args=(home, orchestrator, victim, when))
    process.start()
    process.join(120)
    answer = home / "result.json"
    return process.exitcode, json.loads(answer.read_text()) if process.exitcode == 0 else None


def _run(home, orchestrator, victim, when):
    def logged(step):
        def run(state):
            with (home / "work.log").open("a") as log:
                log.write(step.name + "\n")
            update = step.run(state) if (step.name, when) != (victim, "before") else None
            if step.name == victim:
                os.kill(os.getpid(), signal.SIGKILL)
            return update

        return replace(step, run=run)

    with RunStore(f"sqlite:///{home}/pilot.db") as runs:
        request = PilotRequest("acme", "main", INPUTS)
        steps = tuple(logged(step) for step in TABLE)
        result = run_pilot(request, orchestrator=orchestrator, steps=steps, runs=runs, run_id=RUN)
    (home / "result.json").write_text(json.dumps(result.to_dict()))


def work(home):
    return (home / "work.log").read_text().split()


def ends(result):
    return [(event["step"], event["what"]) for event in result["events"] if event["what"] != "started"]


def told(home):
    """What the file of the runs holds, by table."""
    connection = sqlite3.connect(home / "pilot.db")
    counts = {
        table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("pilot_runs", "pilot_updates", "pilot_events")
    }
    connection.close()
    return counts


def comparable(result):
    whole = {key: value for key, value in result.items() if key not in ("duration_seconds", "orchestrator", "events")}
    return whole | {"ends": ends(result)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of a run that nobody killed."""
    with suppress(ImportError):  # here, so that no child has to
        import langgraph.checkpoint.sqlite
        import langgraph.graph  # noqa: F401
    code, result = drive(tmp_path_factory.mktemp("whole"), "sequential")
    assert code == 0
    return result


@pytest.mark.parametrize("orchestrator", ["langgraph", "sequential"])
@pytest.mark.parametrize("victim", STEPS)
def test_a_run_that_was_killed_in_a_step_repeats_only_that_step(tmp_path, whole, orchestrator, victim):
    """The worst moment: the work of the step is done, and nothing of it is kept yet."""
    if orchestrator == "langgraph":
        pytest.importorskip("langgraph.checkpoint.sqlite")
    at = STEPS.index(victim)
    assert drive(tmp_path, orchestrator, victim)[0] == -signal.SIGKILL
    assert work(tmp_path) == STEPS[: at + 1]
    assert told(tmp_path)["pilot_updates"] == at

    code, result = drive(tmp_path, orchestrator)
    assert code == 0
    assert Counter(work(tmp_path)) == Counter([*STEPS, victim])
    assert result["orchestrator"] == orchestrator
    assert comparable(result) == comparable(whole)
    starts = [event["step"] for event in result["events"] if event["what"] == "started"]
    assert Counter(starts) == Counter([*STEPS, victim])
    assert told(tmp_path) == {"pilot_runs": 1, "pilot_updates": 0, "pilot_events": len(result["events"]) + 1}

    assert drive(tmp_path, orchestrator) == (0, result)  # it has ended: the same result, and no work
    assert len(work(tmp_path)) == len(STEPS) + 1


def test_a_run_that_langgraph_began_is_ended_by_the_plain_runner(tmp_path, whole):
    """What was done is kept by the run, not by the runner."""
    pytest.importorskip("langgraph.checkpoint.sqlite")
    drive(tmp_path, "langgraph", "embed", "before")
    _, result = drive(tmp_path, "sequential")

    assert Counter(work(tmp_path)) == Counter([*STEPS, "embed"])
    assert comparable(result) == comparable(whole)


def test_a_lost_checkpoint_costs_nothing(tmp_path, whole):
    """LangGraph begins at the start, and every step that has ended is passed by."""
    pytest.importorskip("langgraph.checkpoint.sqlite")
    drive(tmp_path, "langgraph", "analysis", "before")
    for path in tmp_path.glob("pilot.graph.db*"):
        path.unlink()
    _, result = drive(tmp_path, "langgraph")

    assert Counter(work(tmp_path)) == Counter([*STEPS, "analysis"])
    assert comparable(result) == comparable(whole)
