"""What a document is made of: cues as they were spoken, segments as they are searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DocumentKind = Literal["text", "markdown", "html", "webvtt", "srt", "json", "tsv", "chat"]
Lines = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cue:
    """One caption, message or turn: what was said, by whom and when where the file says it.

    Times are seconds: of a recording from its start, of a chat from its first message. Where a format gives no end
    (a chat, a flight log), the end is the start; where it gives no times, both are None.
    """

    text: str
    start_s: float | None
    end_s: float | None
    speaker: str | None = None
    lines: Lines | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was wrong with a document and could be borne. `lost`: some of its text is not there."""

    fault: str
    line: int | None
    reason: str
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was read. `id` is a hash of its content: the same content is the same document."""

    id: str
    name: str
    kind: DocumentKind
    text: str  # as read, line ends normalised; for a transcript the cues' text, one cue a line
    cues: tuple[Cue, ...] = ()  # empty for text, Markdown and HTML
    source: str = ""  # where it came from: a path, an address, or "" for a text that was handed over
    encoding: str = "utf-8"
    language: str = "unknown"
    notes: tuple[Note, ...] = ()

    @property
    def start_s(self) -> float | None:
        """When its first cue begins."""
        return min((cue.start_s for cue in self.cues if cue.start_s is not None), default=None)

    @property
    def end_s(self) -> float | None:
        """When its last cue ends."""
        return max((cue.end_s for cue in self.cues if cue.end_s is not None), default=None)

    @property
    def speakers(self) -> tuple[str, ...]:
        """Who speaks in it, by name."""
        return tuple(sorted({cue.speaker for cue in self.cues if cue.speaker}))


@dataclass(frozen=True, slots=True)
class Segment:
    """A passage: the unit of search and of evidence. `index` counts over the whole run.

    Where several people speak, each turn is a line of the text that begins with a name; `speech` is without them.
    """

    index: int
    document: str  # id
    name: str
    text: str
    start_s: float | None = None
    end_s: float | None = None
    speaker: str | None = None  # where one person speaks the whole passage
    lines: Lines | None = None  # in the source; None for JSON, whose lines mean nothing
    speakers: tuple[str, ...] = ()  # all of them, in the order of their first turn

    @property
    def turns(self) -> tuple[tuple[str | None, str], ...]:
        """(who, what) of each turn in it."""
        if self.speaker is not None or not self.speakers:
            return ((self.speaker, self.text),)
        heads = {f"{speaker}: ": speaker for speaker in self.speakers}
        return tuple(_parted(line, heads) for line in self.text.split("\n"))

    @property
    def speech(self) -> str:
        """What was said, without the names of those who said it."""
        return "\n".join(said for _, said in self.turns)


def _parted(line: str, heads: Mapping[str, str]) -> tuple[str | None, str]:
    return next(((heads[head], line[len(head) :]) for head in heads if line.startswith(head)), (None, line))
