"""The one table of steps, and how one step is taken. Both runners use nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from graphs.analysis import analysis
from graphs.audit import Recorder, reason_of
from graphs.embed import HashedSvd, embed_with
from graphs.ingest import ingest
from graphs.segment import segment
from graphs.state import PilotRequest, State


def always(request: PilotRequest) -> bool:
    """A step that every request takes."""
    return True


@dataclass(frozen=True, slots=True)
class Step:
    """A named function, State -> update; whether a request wants it; what its failure means for the run."""

    name: str
    run: Callable[[State], State]
    on_failure: Literal["fail", "degrade"]
    enabled: Callable[[PilotRequest], bool] = always


STEPS: tuple[Step, ...] = (
    Step("ingest", ingest, on_failure="fail"),
    Step("segment", segment, on_failure="degrade", enabled=lambda request: request.enable_segment),
    Step("embed", embed_with(HashedSvd()), on_failure="degrade", enabled=lambda request: request.enable_embed),
    Step("analysis", analysis, on_failure="fail"),
)


def take(step: Step, state: State, recorder: Recorder) -> State:
    """Take one step: its update; {} if it is skipped or its failure is bearable; {"error"} if it ends the run."""
    if not step.enabled(state["request"]):
        recorder.skip(step.name, "switched off in the request")
        return {}
    try:
        with recorder.step(step.name):
            return _checked(step, step.run(state.copy()))
    except Exception as error:
        reason = reason_of(error)
    if step.on_failure == "degrade":
        recorder.degrade(f"{step.name}_failed", step.name, reason)
        return {}
    return {"error": {"step": step.name, "reason": reason}}


def names(steps: Sequence[Step]) -> tuple[str, ...]:
    """Names of the steps in order."""
    return tuple(step.name for step in steps)


def _checked(step: Step, update: State) -> State:
    """An update with keys that no State has would be dropped by one runner and kept by the other."""
    if not isinstance(update, dict) or not update.keys() <= State.__annotations__.keys():
        got = sorted(update) if isinstance(update, dict) else type(update).__name__
        known = ", ".join(sorted(State.__annotations__))
        raise TypeError(f"step {step.name} must return a dict with keys of State ({known}), but returned {got}.")
    return update
