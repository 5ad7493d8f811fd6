"""The LangGraph runner: one node for each step, one edge onward, and one out where a failure ends the run.

langgraph takes a second to import, and may be absent or broken: it is imported when a graph is built, only here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

from graphs.audit import Recorder
from graphs.state import State
from graphs.steps import Step, take

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph


def build(steps: Sequence[Step], recorder: Recorder) -> CompiledStateGraph[State, None, State, State]:
    """Compile the graph of a run. Raises whatever a missing or broken langgraph raises."""
    from langgraph.graph import END, START, StateGraph  # noqa: PLC0415

    graph = StateGraph(State)
    for step in steps:
        graph.add_node(_node(step.name), cast(Any, _taking(step, recorder)))
    graph.add_edge(START, _node(steps[0].name))
    for here, there in pairwise(steps):
        graph.add_conditional_edges(_node(here.name), _way, {"on": _node(there.name), "out": END})
    graph.add_edge(_node(steps[-1].name), END)
    return graph.compile(name="pilot")


def run(graph: CompiledStateGraph[State, None, State, State], state: State) -> State:
    """Run a built graph; the state that it leaves."""
    return cast(State, graph.invoke(state))


def _taking(step: Step, recorder: Recorder) -> Callable[[State], State]:
    def node(state: State) -> State:
        return take(step, state, recorder)

    return node


def _way(state: State) -> Literal["on", "out"]:
    return "out" if "error" in state else "on"


def _node(name: str) -> str:
    """A node may not be called as a key of the state is; "analysis" is one."""
    return f"{name}_step"
