"""The nouns of the pilot. Times are seconds from the start of the document; lines count from 1, both ends included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from bandits.errors import ShapeError
from bandits.types import valid_name
from graphs.index import Index
from graphs.passage import Cue, Document, Segment

__all__ = [
    "Analysis",
    "Cue",
    "Depth",
    "Document",
    "Evidence",
    "Finding",
    "LeftOut",
    "PilotRequest",
    "PilotResult",
    "Segment",
    "State",
]

Input = str | Path | tuple[str, str]  # a path of a file or a folder, an address (https://…), or (name, text)
Status = Literal["ok", "degraded", "failed"]
Kind = Literal["topic", "key_phrase", "sentiment", "summary", "name", "claim", "question", "speaker", "new"]


@dataclass(frozen=True, slots=True)
class PilotRequest:
    """What to run on, for whom, and which of the optional steps to take."""

    tenant: str
    workspace: str
    inputs: Sequence[Input]
    enable_segment: bool = True
    enable_embed: bool = True

    def __post_init__(self) -> None:
        valid_name(self.tenant, "tenant")
        valid_name(self.workspace, "workspace")
        if isinstance(self.inputs, str | Path):
            raise ShapeError(f"inputs must be a list, but got the single input {str(self.inputs)!r}; wrap it in one.")
        object.__setattr__(self, "inputs", tuple(self.inputs))

    @property
    def namespace(self) -> str:
        """Key of everything that this request stores; names hold no colon, so no two scopes share one."""
        return f"{self.tenant}:{self.workspace}:pilot"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A document that was not read, and why."""

    name: str
    fault: str
    line: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Depth:
    """How deep a document is read, and by which decision (depth.py)."""

    document: str
    depth: str  # skim, standard, deep
    decision_id: str | None  # for votes; None where no money was left to decide
    propensity: float | None
    characters: int  # that are read


@dataclass(frozen=True, slots=True)
class Evidence:
    """A segment that supports a finding: where it stands, when it was said, how it begins."""

    segment: int
    document: str
    start_s: float | None
    end_s: float | None
    lines: tuple[int, int] | None
    speaker: str | None
    quote: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the analysis says, and the segments that it stands on.

    score: topic: share of the segments; key phrase, new: c-TF-IDF weight; sentiment: -1..1; summary: centrality 0..1,
    1 where a model wrote it; name: times it was said; claim: marks of a claim (claims.py); question: 1; speaker: share
    of the words.
    segments: every supporting segment; `evidence` shows the strongest few of them.
    """

    kind: Kind
    label: str
    score: float
    segments: tuple[int, ...]
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Author:
    """Which model was asked for the summary, by which decision, and at what cost (author.py)."""

    fault: str | None  # why the summary is not its own, but the extract
    arm: str | None = None  # that answered, or failed to; None where nothing could be decided
    decision_id: str | None = None  # for votes
    propensity: float | None = None
    cost_usd: float | None = None  # of all attempts


@dataclass(frozen=True, slots=True)
class Analysis:
    """All findings of a run. `sentiment` is None where no word of the lexicon was met: missing is not neutral."""

    language: str
    method: Mapping[str, str]
    topics: tuple[Finding, ...]
    key_phrases: tuple[Finding, ...]
    sentiment: float | None
    sentiment_by_segment: tuple[float | None, ...]
    sentiments: tuple[Finding, ...]
    summary: tuple[Finding, ...]
    sentiment_over_time: tuple[Finding, ...] = ()
    names: tuple[Finding, ...] = ()
    claims: tuple[Finding, ...] = ()
    questions: tuple[Finding, ...] = ()
    speakers: tuple[Finding, ...] = ()
    new: tuple[Finding, ...] = ()
    author: Author | None = None  # of the summary; None where no model was asked


class State(TypedDict, total=False):
    """What flows from step to step; a step returns the keys that it adds."""

    request: PilotRequest
    run_id: str
    documents: tuple[Document, ...]
    left_out: tuple[LeftOut, ...]
    duplicates: tuple[str, ...]
    depths: tuple[Depth, ...]
    near_duplicates: tuple[tuple[str, str, float], ...]  # (name, the earlier one it all but repeats, similarity)
    segments: tuple[Segment, ...]
    index: Index
    analysis: Analysis
    error: Mapping[str, str]  # {"step", "reason"}: set once, by the step that failed the run


@dataclass(frozen=True, slots=True)
class PilotResult:
    """The answer of a run. Everything in it is JSON: see `to_dict`."""

    run_id: str
    tenant: str
    workspace: str
    status: Status
    orchestrator: Literal["langgraph", "sequential"]
    duration_seconds: float
    ingest: Mapping[str, Any] | None
    segment: Mapping[str, Any] | None
    embed: Mapping[str, Any] | None
    analysis: Mapping[str, Any] | None
    degradations: tuple[Mapping[str, str], ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()
    error: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; steps that were not taken, or failed, have no key."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> PilotResult:
        """What `to_dict` gave, after a journey through JSON."""
        steps = dict.fromkeys(("ingest", "segment", "embed", "analysis"))
        tuples = {key: tuple(said[key]) for key in ("degradations", "events")}
        return cls(**{**steps, **said, **tuples})
