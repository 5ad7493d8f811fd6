"""What a document is made of: cues as they were spoken, segments as they are searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DocumentKind = Literal["text", "markdown", "webvtt", "srt", "json"]
Lines = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cue:
    """One caption: what was said from `start_s` to `end_s`, and by whom where the file says it."""

    text: str
    start_s: float
    end_s: float
    speaker: str | None = None
    lines: Lines | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was read. `id` is a hash of its content: the same content is the same document."""

    id: str
    name: str
    kind: DocumentKind
    text: str  # as read, line ends normalised; for a transcript the cues' text, one cue a line
    cues: tuple[Cue, ...] = ()  # empty for text and Markdown


@dataclass(frozen=True, slots=True)
class Segment:
    """A passage: the unit of search and of evidence. `index` counts over the whole run."""

    index: int
    document: str  # id
    name: str
    text: str
    start_s: float | None = None
    end_s: float | None = None
    speaker: str | None = None  # where one person speaks the whole passage
    lines: Lines | None = None  # in the source; None for JSON, whose lines mean nothing
