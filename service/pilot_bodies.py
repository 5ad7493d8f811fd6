"""What the pilot is asked over HTTP, and what it answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.bodies import Incoming, TenantOnly, Workspace

LONGEST_TEXT = 10_000_000  # characters; a length of whatever kind also keeps halves of surrogate pairs out
MOST_INPUTS = 100
MOST_URLS = 20
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
Url = Annotated[str, Field(max_length=2_000, pattern=r"^https?://")]


def _flag(value: object) -> object:
    word = value.lower() if isinstance(value, str) else value
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("must be 1, true, yes, on, or 0, false, no, off")


class PilotQuery(TenantOnly):
    """What of the pilot to run, and where."""

    workspace: Workspace | None = None
    enable_segment: Annotated[bool, BeforeValidator(_flag)] | None = Field(
        default=None, description="Cut the documents into segments; default true. 1 true yes on, 0 false no off."
    )
    enable_embed: Annotated[bool, BeforeValidator(_flag)] | None = Field(
        default=None, description="Embed the segments; default true. 1 true yes on, 0 false no off."
    )
    mode: Literal["wait", "background", "enqueue"] = Field(
        default="wait",
        description="wait: the answer is the result; background: it is run here, the answer is its run_id (202); "
        "enqueue: it is run by Prefect, likewise.",
    )


class PilotInput(Incoming):
    """One document."""

    name: Annotated[str, Field(min_length=1, max_length=200, description="Ends in what it is: .vtt, .md, …")]
    text: Annotated[str, Field(max_length=LONGEST_TEXT)]


class PilotBody(Incoming):
    """What to run the pilot on. Left out: the packaged example."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": [{"name": "notes.md", "text": "The deploy failed."}]}]}
    )

    inputs: Annotated[list[PilotInput], Field(min_length=1, max_length=MOST_INPUTS)] | None = None
    urls: Annotated[list[Url], Field(min_length=1, max_length=MOST_URLS)] | None = Field(
        default=None, description="Pages, feeds or captions to fetch: public addresses only, text only."
    )
    tenant: str | None = Field(default=None, description="The key's own, or left out.")
    workspace: Workspace | None = None
    enable_segment: bool | None = None
    enable_embed: bool | None = None


class PilotAnswer(BaseModel):
    """A run of the pilot. Steps that were not taken have no key."""

    run_id: str
    tenant: str
    workspace: str
    status: Literal["ok", "degraded"]
    orchestrator: Literal["langgraph", "sequential"]
    duration_seconds: float
    ingest: dict[str, Any]
    segment: dict[str, Any] | None = None
    embed: dict[str, Any] | None = None
    analysis: dict[str, Any]
    degradations: list[dict[str, Any]] = Field(description="What the run had to do without, and why.")
    events: list[dict[str, Any]] = Field(description="The audit trail, step by step.")


class PilotAccepted(BaseModel):
    """A run that was taken on, and goes on without its caller."""

    run_id: str = Field(description="For GET and DELETE /pilot/runs/{run_id}.")
    mode: Literal["background", "enqueue"]
    flow_run_id: str | None = Field(default=None, description="Prefect's own id of it, where Prefect runs it.")


class PilotRun(BaseModel):
    """How a run stands."""

    run_id: str
    tenant: str
    workspace: str
    time: float = Field(description="When it was asked for: UTC, seconds since the epoch.")
    mode: Literal["wait", "background", "enqueue"]
    phase: Literal["waiting", "running", "ended"]
    cancelled: bool = Field(description="It was asked to stop, and does so before its next step.")
    status: Literal["ok", "degraded", "failed"] | None = Field(description="null until it has ended.")
    error: dict[str, str] | None = Field(description="Which step failed the run, and why.")
    steps: dict[str, str] = Field(description="What happened last in each step: started, retried, completed, …")
    events: list[dict[str, Any]] = Field(description="The audit trail, step by step.")
    degradations: list[dict[str, Any]]
    result: dict[str, Any] | None = Field(description="As POST /pilot/run answers it, once the run has ended.")
