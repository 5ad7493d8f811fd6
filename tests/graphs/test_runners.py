"""Both runners, one contract: the same result, the same audit trail, the same counts, on the same table of steps."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from graphs import EXAMPLE
from graphs.audit import Counters
from graphs.index import VectorStore
from graphs.pilot import run_pilot
from graphs.state import PilotRequest
from graphs.steps import STEPS

NAMES = ["ingest", "segment", "embed", "analysis"]
GOOD = [("a.txt", "The quiz night was wonderful. The bot played music."), ("b.txt", "The gateway crashed.")]
EMBED = next(step for step in STEPS if step.name == "embed")
LONG = ("long.vtt", "\n\n".join(EXAMPLE.read_text(encoding="utf-8").split("\n\n")[:16]))  # its first cues


def boom(state):
    raise RuntimeError("the disk is full")


def rubbish(state):
    return {"colour": "blue"}


def nothing(state):
    return None


def interrupt(state):
    raise KeyboardInterrupt


def greedy(state):
    state["documents"] = ()
    return boom(state)


def broken(step, run=boom):
    """The table of steps with another function in one of its rows."""
    return tuple(replace(one, run=run) if one.name == step else one for one in STEPS)


def request(*inputs, **flags):
    return PilotRequest("acme", "main", inputs or GOOD, **flags)


def ends(result):
    return [(event["step"], event["what"]) for event in result.events if event["what"] != "started"]


def counts(counters):
    """{step: (completed, failed, skipped, in flight)}."""
    steps = counters.snapshot()["steps"]
    return {
        name: tuple(steps[name][what] for what in ("completed", "failed", "skipped", "in_flight")) for name in steps
    }


CASES = {
    "the example": (request(EXAMPLE), STEPS),
    "two documents": (request(), STEPS),
    "one of them bad": (request(*GOOD, ("c.vtt", "")), STEPS),
    "all bad": (request(("c.vtt", ""), ("d.pdf", "x")), STEPS),
    "no input": (PilotRequest("acme", "main", []), STEPS),
    "no segments": (request(LONG, enable_segment=False), STEPS),
    "no embeddings": (request(LONG, enable_embed=False), STEPS),
    "neither": (request(LONG, enable_segment=False, enable_embed=False), STEPS),
    "segment breaks": (request(LONG), broken("segment")),
    "embed breaks": (request(LONG), broken("embed")),
    "analysis breaks": (request(LONG), broken("analysis")),
    "ingest breaks": (request(LONG), broken("ingest")),
    "a step returns rubbish": (request(), broken("segment", rubbish)),
    "a step returns nothing": (request(), broken("analysis", nothing)),
    "a step spoils its state and breaks": (request(), broken("segment", greedy)),
}


def comparable(result):
    """All that must be equal: without ids, times and the runner's name."""
    whole = result.to_dict()
    for key in ("run_id", "duration_seconds", "orchestrator"):
        del whole[key]
    whole["events"] = [(event["step"], event["what"], event["reason"]) for event in whole["events"]]
    return whole


class RunnerConformance:
    """What a runner owes. A subclass says which one it is."""

    orchestrator: str

    def run(self, what, steps=STEPS, **more):
        counters = Counters()
        result = run_pilot(what, orchestrator=self.orchestrator, steps=steps, counters=counters, **more)
        assert result.orchestrator == self.orchestrator
        return result, counters

    def test_a_good_run_is_ok_and_completes_each_step_once(self):
        result, counters = self.run(request())

        assert result.status == "ok"
        assert result.degradations == ()
        assert counts(counters) == dict.fromkeys(NAMES, (1, 0, 0, 0))
        assert counters.snapshot()["runs"] == {"ok": 1}
        assert [(event["step"], event["what"]) for event in result.events] == [
            (name, what) for name in NAMES for what in ("started", "completed")
        ]

    @pytest.mark.parametrize(
        ("flags", "skipped"),
        [
            ({"enable_segment": False}, {"segment"}),
            ({"enable_embed": False}, {"embed"}),
            ({"enable_segment": False, "enable_embed": False}, {"segment", "embed"}),
        ],
    )
    def test_a_step_that_is_switched_off_is_skipped_and_that_is_no_degradation(self, flags, skipped):
        result, counters = self.run(request(**flags))

        assert result.status == "ok"
        assert counts(counters) == {name: (0, 0, 1, 0) if name in skipped else (1, 0, 0, 0) for name in NAMES}
        assert {name for name in ("segment", "embed") if name not in result.to_dict()} == skipped
        assert result.analysis["method"]["vectors"] == ("tf-idf" if "embed" in skipped else "hashed-svd")

    @pytest.mark.parametrize("step", ["segment", "embed"])
    def test_segment_or_embed_failing_degrades_and_goes_on(self, step):
        result, counters = self.run(request(LONG), broken(step))

        assert result.status == "degraded"
        assert result.error is None
        assert result.analysis["topics"]
        assert result.degradations == (
            {"event": f"{step}_failed", "step": step, "reason": "RuntimeError: the disk is full"},
        )
        assert counts(counters) == {name: (0, 1, 0, 0) if name == step else (1, 0, 0, 0) for name in NAMES}
        assert counters.snapshot()["degradations"] == {f"{step}_failed": 1}

    def test_segment_failing_leaves_one_passage_a_document(self):
        result, _ = self.run(request(LONG), broken("segment"))

        assert result.embed["vectors"] == 1

    @pytest.mark.parametrize("step", ["ingest", "analysis"])
    def test_ingest_or_analysis_failing_fails_the_run(self, step):
        result, counters = self.run(request(), broken(step))
        at = NAMES.index(step)

        assert result.status == "failed"
        assert result.error == {"step": step, "reason": "RuntimeError: the disk is full"}
        assert ends(result) == [
            *((name, "completed") for name in NAMES[:at]),
            (step, "failed"),
            *((name, "skipped") for name in NAMES[at + 1 :]),
        ]
        assert all(sum(row[:3]) == 1 and row[3] == 0 for row in counts(counters).values())
        assert counters.snapshot()["runs"] == {"failed": 1}

    def test_steps_after_a_failure_say_what_stopped_them(self):
        result, _ = self.run(request(("c.vtt", "")))

        assert {event["reason"] for event in result.events if event["what"] == "skipped"} == {"ingest failed"}
        assert "c.vtt: it is empty" in result.error["reason"]

    def test_a_document_left_out_is_named_and_degrades(self):
        result, counters = self.run(request(*GOOD, ("c.vtt", "")))

        assert result.status == "degraded"
        assert [(one["name"], one["fault"]) for one in result.ingest["left_out"]] == [("c.vtt", "empty")]
        assert [one["event"] for one in result.degradations] == ["documents_left_out"]
        assert counts(counters)["ingest"] == (1, 0, 0, 0)

    @pytest.mark.parametrize("run", [rubbish, nothing])
    def test_an_update_that_is_none_is_a_failure_of_its_step(self, run):
        result, counters = self.run(request(), broken("segment", run))

        assert "step segment must return a dict with keys of State" in result.degradations[0]["reason"]
        assert counts(counters)["segment"] == (0, 1, 0, 0)

    def test_a_step_cannot_spoil_the_state_of_the_others(self):
        result, _ = self.run(request(), broken("segment", greedy))

        assert (result.status, result.embed["vectors"]) == ("degraded", 2)

    def test_an_interrupt_passes_and_leaves_nothing_in_flight(self):
        counters = Counters()
        with pytest.raises(KeyboardInterrupt):
            run_pilot(request(), orchestrator=self.orchestrator, steps=broken("embed", interrupt), counters=counters)

        assert counts(counters) == {
            "ingest": (1, 0, 0, 0),
            "segment": (1, 0, 0, 0),
            "embed": (0, 1, 0, 0),
            "analysis": (0, 0, 1, 0),
        }
        assert counters.snapshot()["runs_in_flight"] == 0
        assert counters.snapshot()["runs"] == {"failed": 1}

    def test_a_step_is_in_flight_while_it_runs(self):
        counters = Counters()
        seen = []

        def look(state):
            seen.append((counts(counters)["segment"][3], counters.snapshot()["runs_in_flight"]))
            return {}

        run_pilot(request(), orchestrator=self.orchestrator, steps=broken("segment", look), counters=counters)

        assert seen == [(1, 1)]
        assert counts(counters)["segment"] == (1, 0, 0, 0)

    @pytest.mark.parametrize("failures", [1, 2, 3])
    def test_what_may_pass_is_tried_again_and_what_does_not_is_not(self, failures):
        """Three attempts; a step is still counted once, and is in flight until it ends."""
        left, seen = [ConnectionResetError("the line is bad")] * failures, []

        def shaky(state):
            seen.append(counters.snapshot()["steps"]["embed"]["in_flight"])
            if left:
                raise RuntimeError("no embeddings") from left.pop()
            return EMBED.run(state)

        counters = Counters()
        steps = tuple(replace(one, run=shaky, pause_s=0.001) if one.name == "embed" else one for one in STEPS)
        result = run_pilot(request(), orchestrator=self.orchestrator, steps=steps, counters=counters)
        what = [event["what"] for event in result.events if event["step"] == "embed"]

        assert result.orchestrator == self.orchestrator
        assert what == ["started", *["retried"] * min(failures, 2), "completed" if failures < 3 else "failed"]
        assert seen == [1] * min(failures + 1, 3)
        assert counts(counters)["embed"] == ((1, 0, 0, 0) if failures < 3 else (0, 1, 0, 0))
        assert result.status == ("ok" if failures < 3 else "degraded")

    def test_the_listener_hears_every_event_in_order(self):
        heard = []
        result, _ = self.run(request(enable_embed=False), listener=heard.append)

        assert [(event.step, event.what) for event in heard] == [
            (event["step"], event["what"]) for event in result.events
        ]

    def test_a_listener_that_breaks_does_not_break_the_run(self):
        def deaf(event):
            raise OSError("nobody there")

        result, counters = self.run(request(), listener=deaf)

        assert result.status == "degraded"
        assert [one["event"] for one in result.degradations] == ["listener_failed"]
        assert counts(counters) == dict.fromkeys(NAMES, (1, 0, 0, 0))

    @pytest.mark.parametrize("case", CASES)
    def test_the_result_is_json(self, case):
        result, _ = self.run(*CASES[case])

        assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["run_id"] == result.run_id

    def test_a_run_repeated_gives_the_same_result(self):
        assert comparable(self.run(request(EXAMPLE))[0]) == comparable(self.run(request(EXAMPLE))[0])

    def test_runs_are_told_apart_and_sort_by_time(self):
        first, second = self.run(request())[0], self.run(request())[0]

        assert first.run_id != second.run_id
        assert first.run_id[:12] <= second.run_id[:12]
        assert {event["run_id"] for event in first.events} == {first.run_id}

    def test_durations_are_measured(self):
        result, _ = self.run(request())
        steps = sum(event["duration_s"] or 0.0 for event in result.events)

        assert 0.0 < steps <= result.duration_seconds
        assert all(event["duration_s"] > 0.0 for event in result.events if event["what"] == "completed")

    def test_a_store_that_breaks_degrades(self):
        class Full:
            def put(self, index):
                raise OSError("no space left")

        result, counters = self.run(request(), store=Full())

        assert (result.status, result.error) == ("degraded", None)
        assert [(one["event"], one["reason"]) for one in result.degradations] == [
            ("not_stored", "OSError: no space left")
        ]
        assert counters.snapshot()["runs"] == {"degraded": 1}

    def test_vectors_go_to_the_store_of_their_namespace(self):
        store = VectorStore()
        result, _ = self.run(request(), store=store)

        assert result.embed["namespace"] == "acme:main:pilot"
        assert store.search("acme:main:pilot", "quiz night")[0].run_id == result.run_id
        assert store.search("acme:other:pilot", "quiz night") == ()


class TestSequential(RunnerConformance):
    orchestrator = "sequential"


class TestLangGraph(RunnerConformance):
    orchestrator = "langgraph"

    @pytest.fixture(autouse=True)
    def _needs_langgraph(self):
        pytest.importorskip("langgraph", reason="langgraph is not installed")

    @pytest.mark.parametrize("case", CASES)
    def test_result_and_trail_equal_those_of_the_plain_runner(self, case):
        what, steps = CASES[case]
        plain = run_pilot(what, orchestrator="sequential", steps=steps, counters=Counters())

        assert comparable(self.run(what, steps)[0]) == comparable(plain)

    @pytest.mark.parametrize("case", CASES)
    def test_counts_equal_those_of_the_plain_runner(self, case):
        what, steps = CASES[case]
        plain = Counters()
        run_pilot(what, orchestrator="sequential", steps=steps, counters=plain)

        assert counts(self.run(what, steps)[1]) == counts(plain)
