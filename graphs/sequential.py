"""The plain runner: the steps in order, one after another."""

from __future__ import annotations

import time
from collections.abc import Sequence

from graphs.audit import Recorder
from graphs.state import State
from graphs.steps import Again, Step, take


def run(steps: Sequence[Step], state: State, recorder: Recorder) -> State:
    """Take the steps that the request wants until one ends the run; the state that they leave."""
    for step in steps:
        if not step.enabled(state["request"]):
            continue
        state = {**state, **_insist(step, steps, state, recorder)}
        if "error" in state:
            break
    return state


def _insist(step: Step, steps: Sequence[Step], state: State, recorder: Recorder) -> State:
    """Take a step, as often as it may be tried."""
    pause_s = step.pause_s
    while True:
        try:
            return take(step, steps, state, recorder)
        except Again:
            time.sleep(pause_s)
            pause_s *= 2.0
