"""Without LangGraph: missing, broken or switched off, the pilot runs all the same and says so."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import pytest

from bandits.errors import ConfigError, InvalidNameError, ShapeError
from graphs.audit import COUNTERS, Counters
from graphs.pilot import ENV, run_pilot
from graphs.state import PilotRequest

NAMES = ["ingest", "segment", "embed", "analysis"]


def run(orchestrator="auto", **more):
    counters = Counters()
    request = PilotRequest("acme", "main", [("a.txt", "The quiz night was wonderful.")])
    return run_pilot(request, orchestrator=orchestrator, counters=counters, **more), counters


def fell_back(result, counters, reason):
    """The facts of a fallback, whatever its cause."""
    assert result.orchestrator == "sequential"
    assert result.status == "degraded"
    assert result.analysis is not None
    (only,) = result.degradations
    assert (only["event"], only["step"]) == ("fallback_sequential", "orchestrator")
    assert reason in only["reason"]
    assert counters.snapshot()["degradations"] == {"fallback_sequential": 1}
    steps = counters.snapshot()["steps"]
    assert {name: (steps[name]["completed"], steps[name]["in_flight"]) for name in steps} == dict.fromkeys(
        NAMES, (1, 0)
    )


def fake(graph_class):
    """A `langgraph.graph` with a StateGraph of its own."""
    module = ModuleType("langgraph.graph")
    module.START, module.END, module.StateGraph = "__start__", "__end__", graph_class
    return module


def put_in_place_of_langgraph(monkeypatch, graph):
    types = ModuleType("langgraph.types")
    types.RetryPolicy = dict
    for name, module in (
        ("langgraph", ModuleType("langgraph")),
        ("langgraph.graph", graph),
        ("langgraph.types", types),
    ):
        monkeypatch.setitem(sys.modules, name, module)


class Graph:
    """As much of a StateGraph as the pilot uses."""

    def __init__(self, state):
        self.nodes = {}

    def add_node(self, name, function, **options):
        self.nodes[name] = function

    def add_edge(self, *ends):
        pass

    add_conditional_edges = add_edge

    def compile(self, **options):
        return self


class BreaksAtCompile(Graph):
    def compile(self, **options):
        raise TypeError("unknown option")


class BreaksAtOnce(Graph):
    def invoke(self, progress):
        raise RuntimeError("no loop")


class BreaksHalfway(Graph):
    def invoke(self, progress):
        self.nodes["ingest"](progress)
        raise RuntimeError("lost the thread")


class TestFallback:
    @pytest.mark.parametrize("asked", ["auto", "langgraph"])
    def test_a_missing_langgraph(self, monkeypatch, asked):
        monkeypatch.setitem(sys.modules, "langgraph.graph", None)
        monkeypatch.setitem(sys.modules, "langgraph", None)

        fell_back(*run(asked), "langgraph")

    @pytest.mark.parametrize(
        ("graph", "reason"), [(BreaksAtCompile, "TypeError: unknown option"), (BreaksAtOnce, "RuntimeError: no loop")]
    )
    def test_a_broken_langgraph(self, monkeypatch, graph, reason):
        put_in_place_of_langgraph(monkeypatch, fake(graph))

        fell_back(*run(), reason)

    def test_a_langgraph_of_another_shape(self, monkeypatch):
        put_in_place_of_langgraph(monkeypatch, ModuleType("langgraph.graph"))

        fell_back(*run(), "ImportError")

    @pytest.mark.parametrize("asked", ["auto", "langgraph"])
    def test_switched_off_by_the_environment(self, monkeypatch, asked):
        monkeypatch.setenv(ENV, "sequential")

        fell_back(*run(asked), "PILOTAGE_ORCHESTRATOR=sequential")

    def test_asking_for_the_plain_runner_is_no_fallback(self, monkeypatch):
        for switch in ("sequential", "auto"):
            monkeypatch.setenv(ENV, switch)
            result, _ = run("sequential")
            assert (result.orchestrator, result.status, result.degradations) == ("sequential", "ok", ())

    def test_langgraph_breaking_halfway_is_left_there_and_no_step_is_taken_twice(self, monkeypatch):
        put_in_place_of_langgraph(monkeypatch, fake(BreaksHalfway))

        fell_back(*run(), "RuntimeError: lost the thread")


class TestChoice:
    @pytest.mark.parametrize("value", ["", "auto", "langgraph", " Sequential "])
    def test_the_switch_is_read_kindly(self, monkeypatch, value):
        monkeypatch.setenv(ENV, value)

        assert run("sequential")[0].status == "ok"

    def test_an_unknown_runner_is_refused_before_anything_runs(self, monkeypatch):
        counters = Counters()
        request = PilotRequest("acme", "main", [("a.txt", "Hello.")])
        with pytest.raises(ConfigError, match=r"orchestrator must be auto, langgraph or sequential, but got 'airflow'"):
            run_pilot(request, orchestrator="airflow", counters=counters)
        monkeypatch.setenv(ENV, "of")
        with pytest.raises(ConfigError, match=r"PILOTAGE_ORCHESTRATOR must be .* but got 'of'"):
            run_pilot(request, counters=counters)

        assert counters.snapshot()["runs_in_flight"] == 0

    @pytest.mark.parametrize(("tenant", "workspace"), [("a:b", "main"), ("acme", "../x"), ("", "main"), ("A", "main")])
    def test_a_name_that_is_no_key_is_refused(self, tenant, workspace):
        with pytest.raises(InvalidNameError):
            PilotRequest(tenant, workspace, [])

    def test_a_single_input_must_stand_in_a_list(self):
        with pytest.raises(ShapeError, match=r"inputs must be a list, but got the single input 'a\.txt'"):
            PilotRequest("acme", "main", "a.txt")


class TestCounters:
    def test_runs_of_many_threads_are_counted_exactly(self):
        counters = Counters()
        request = PilotRequest("acme", "main", [("a.txt", "Hello.")], enable_embed=False)
        work = [
            threading.Thread(
                target=run_pilot, args=(request,), kwargs={"orchestrator": "sequential", "counters": counters}
            )
            for _ in range(8)
        ]
        for one in work:
            one.start()
        for one in work:
            one.join()
        seen = counters.snapshot()

        assert (seen["runs"], seen["runs_in_flight"]) == ({"ok": 8}, 0)
        assert seen["steps"]["ingest"]["completed"] == seen["steps"]["embed"]["skipped"] == 8

    def test_runs_count_in_the_counters_of_the_process_unless_told_otherwise(self):
        before = COUNTERS.snapshot()["runs"].get("ok", 0)
        request = PilotRequest("acme", "main", [("a.txt", "Hello.")])
        run_pilot(request, orchestrator="sequential")
        run_pilot(request, orchestrator="sequential", counters=Counters())

        assert COUNTERS.snapshot()["runs"]["ok"] == before + 1
