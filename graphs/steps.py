"""The one table of steps, and how one step is taken. Both runners use nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import httpx

from graphs.analysis import analysis
from graphs.audit import Recorder, reason_of
from graphs.depth import Choose, reading
from graphs.embed import HashedSvd, embed_with
from graphs.fetch import Guard
from graphs.gather import gathering
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
    attempts: int = 3  # at most, where what fails it may pass
    pause_s: float = 0.5  # before the second attempt; doubled before each further one

    @property
    def always(self) -> bool:
        """Whether no request can switch it off."""
        return self.enabled is always


def table(guard: Guard | None = None, choose: Choose | None = None) -> tuple[Step, ...]:
    """The steps. guard: what may be fetched where an input is an address; choose: how deep each document is read."""
    return (
        Step("ingest", reading(gathering(ingest, guard), choose), on_failure="fail"),
        Step("segment", segment, on_failure="degrade", enabled=lambda request: request.enable_segment),
        Step("embed", embed_with(HashedSvd()), on_failure="degrade", enabled=lambda request: request.enable_embed),
        Step("analysis", analysis, on_failure="fail"),
    )


STEPS = table()


class Again(Exception):  # noqa: N818 - no error: what a runner answers by taking the step again
    """A step failed of something that passes; take it again after a pause."""


def take(step: Step, steps: Sequence[Step], state: State, recorder: Recorder) -> State:
    """Take one step: its update; {} if its failure is bearable; {"error"} if it ends the run.

    A step that has ended before, in another process or another runner, is not taken again: it leaves what it left.
    Raises Again if it should be tried again, and RunsError if what it leaves cannot be kept.
    """
    if step.name in recorder.updates:
        return recorder.updates[step.name]
    _pass_over(step, steps, state, recorder)
    if recorder.cancelled():
        recorder.stopped = "the run was cancelled"
        return {"error": {"step": step.name, "reason": "the run was cancelled before this step"}}
    recorder.start(step.name)
    try:
        update = _checked(step, step.run(state.copy()))
    except Exception as error:
        if transient(error) and recorder.retry(step.name, error, step.attempts):
            raise Again(step.name) from error
        return _failed(step, error, recorder)
    except BaseException as error:  # an interrupt, too, must take the step out of flight
        recorder.end(step.name, "failed", reason_of(error))
        raise
    recorder.end(step.name, "completed")
    return recorder.leave(step.name, update)


def transient(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, may be gone in a moment: a connection, a time-out."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | httpx.TransportError):
            return True
        error = error.__cause__
    return False


def _failed(step: Step, error: Exception, recorder: Recorder) -> State:
    reason = reason_of(error)
    recorder.end(step.name, "failed", reason)
    if step.on_failure == "degrade":
        recorder.degrade(f"{step.name}_failed", step.name, reason)
        return recorder.leave(step.name, {})
    return recorder.leave(step.name, {"error": {"step": step.name, "reason": reason}})


def _pass_over(step: Step, steps: Sequence[Step], state: State, recorder: Recorder) -> None:
    """Record the steps before this one that the request does not want."""
    told = {event.step for event in recorder.events}
    for one in steps[: steps.index(step)]:
        if one.name not in told and not one.enabled(state["request"]):
            recorder.skip(one.name, "switched off in the request")


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
