"""The LangGraph runner: one node for each step, an edge to whichever step the request wants next, one out on failure.

LangGraph decides what comes next, tries again, and remembers in its checkpoints how far a run has come; what the steps
leave is kept once, in the run itself (audit.py, runs.py). So a checkpoint holds a few words and no object, and one
that is lost costs nothing: a step that has ended is not taken again.

langgraph takes a second to import, and may be absent or broken: it is imported when a graph is built, only here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import sqlalchemy as sa

from bandits.durable import make_folder
from graphs.audit import COUNTERS, Recorder
from graphs.state import PilotRequest, State
from graphs.steps import STEPS, Again, Step, take

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

    Graph = CompiledStateGraph["Progress", None, "Progress", "Progress"]

_BUSY_S = 30.0


class Progress(TypedDict):
    """What LangGraph knows of a run: the steps that it wants, and whether one has ended it. The rest is State."""

    wanted: list[str]
    over: bool


class Runner:
    """One run on LangGraph. Raises whatever a missing or broken langgraph raises."""

    def __init__(self, steps: Sequence[Step], state: State, recorder: Recorder) -> None:
        self._steps, self._recorder = steps, recorder
        self.state = state

    def run(self, checkpoints: str | None = None) -> State:
        """Take the steps, going on from the last checkpoint; the state that they leave.

        checkpoints: URL of the database for them (SQLite or PostgreSQL); none are kept without one.
        """
        wanted = [step.name for step in self._steps if step.enabled(self.state["request"])]
        first: Progress = {"wanted": wanted, "over": False}
        with _saver(checkpoints) if checkpoints else nullcontext() as saver:
            graph = self.graph(saver)
            if saver is None:
                graph.invoke(first)
                return self.state
            thread: Any = {"configurable": {"thread_id": self._recorder.run_id}}  # a thread for each run
            for update in self._recorder.updates.values():  # of an earlier process
                self.state = {**self.state, **update}
            before = graph.get_state(thread)
            if before.next or not before.values:
                graph.invoke(None if before.values else first, thread, durability="sync")
            saver.delete_thread(self._recorder.run_id)
        return self.state

    def graph(self, saver: BaseCheckpointSaver[Any] | None = None) -> Graph:
        """The compiled graph."""
        from langgraph.graph import END, START, StateGraph  # noqa: PLC0415
        from langgraph.types import RetryPolicy  # noqa: PLC0415

        graph = StateGraph(Progress)
        for step in self._steps:
            retries = RetryPolicy(initial_interval=step.pause_s, max_attempts=step.attempts, retry_on=Again)
            graph.add_node(step.name, cast(Any, self._taking(step)), retry_policy=retries)
        ways = [START, *(step.name for step in self._steps)]
        for at, here in enumerate(ways):
            there = [*self._reached(at), *([] if here == START else [END])]
            if len(there) > 1:
                graph.add_conditional_edges(here, self._way(at), there)
            else:
                graph.add_edge(here, there[0])
        return graph.compile(name="pilot", checkpointer=saver)

    def _taking(self, step: Step) -> Callable[[Progress], Any]:
        def node(progress: Progress) -> Any:  # noqa: ANN401 - a part of Progress
            update = take(step, self._steps, self.state, self._recorder)
            self.state = {**self.state, **update}
            return {"over": "error" in self.state}

        return node

    def _way(self, at: int) -> Callable[[Progress], str]:
        """From step number `at` (0: the start) to the next that is wanted, or out."""

        def way(progress: Progress) -> str:
            from langgraph.graph import END  # noqa: PLC0415

            left = [step.name for step in self._steps[at:] if step.name in progress["wanted"]]
            return END if progress["over"] or not left else left[0]

        return way

    def _reached(self, at: int) -> Iterator[str]:
        """The steps that can follow step number `at`: all up to the first that nobody can switch off."""
        for step in self._steps[at:]:
            yield step.name
            if step.always:
                return


def mermaid(steps: Sequence[Step] = STEPS) -> str:
    """The graph as Mermaid text. Raises ImportError where there is no langgraph."""
    state: State = {"request": PilotRequest("a", "a", ()), "run_id": ""}
    return Runner(steps, state, Recorder("", COUNTERS)).graph().get_graph().draw_mermaid()


@contextmanager
def _saver(url: str) -> Iterator[BaseCheckpointSaver[Any]]:
    """LangGraph's own saver, in SQLite or PostgreSQL. It may read back plain values only, and never a pickle."""
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer  # noqa: PLC0415

    plain = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=None)
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: PLC0415

        path = Path(str(parsed.database)).with_suffix(".graph.db")  # beside the runs: it may be deleted
        make_folder(path.parent)
        with closing(sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            yield SqliteSaver(connection, serde=plain)
        return
    import psycopg  # noqa: PLC0415 - an extra
    from langgraph.checkpoint.postgres import PostgresSaver  # noqa: PLC0415
    from psycopg.rows import dict_row  # noqa: PLC0415

    place = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(place, autocommit=True, prepare_threshold=0, row_factory=dict_row) as server:
        saver = PostgresSaver(server, serde=plain)
        saver.setup()
        yield saver
