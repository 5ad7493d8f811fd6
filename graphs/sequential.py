"""The plain runner: the steps in order, one after another."""

from __future__ import annotations

from collections.abc import Sequence

from graphs.audit import Recorder
from graphs.state import State
from graphs.steps import Step, take


def run(steps: Sequence[Step], state: State, recorder: Recorder) -> State:
    """Take the steps until one ends the run; the state that they leave."""
    for step in steps:
        update = take(step, state, recorder)
        state = {**state, **update}
        if "error" in state:
            break
    return state
