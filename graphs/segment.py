"""Step 2: cut documents into passages of at most 1,000 characters, and never inside a word that fits in one.

A transcript is cut between cues, so a passage keeps its exact start, end and speaker; past 600 characters it ends
with the sentence. Text and Markdown are cut by semantic-text-splitter at the highest boundary that falls between
600 and 1,000 characters: heading, paragraph, sentence, word.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from graphs.passage import Cue, Document, Segment
from graphs.state import State

MAX_CHARS = 1_000
ENOUGH_CHARS = 600  # a passage this long ends at the next good place; shorter ones find more, and more exactly
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", '."', ".”")
_WINDOW = 20_000  # the splitter's time is quadratic in a stretch without a break: five minutes for 5 MB


def segment(state: State) -> State:
    """segments: passages of all documents in order."""
    return {"segments": _numbered(piece for document in state["documents"] for piece in passages(document))}


def segments_of(state: State) -> tuple[Segment, ...]:
    """The segments of the run; where segmenting was off or failed, each document is one."""
    if "segments" in state:
        return state["segments"]
    return _numbered(_whole(document) for document in state["documents"])


def passages(document: Document) -> Iterator[Segment]:
    """Cut one document; indices are given later."""
    if document.cues:
        for group in _groups(document.cues):
            yield from _from_cues(document, group)
        return
    breaks = [i for i, character in enumerate(document.text) if character == "\n"]
    split = MarkdownSplitter if document.kind == "markdown" else TextSplitter
    for start, text in _split(document.text, split((ENOUGH_CHARS, MAX_CHARS)).chunk_indices):
        lines = (bisect_right(breaks, start - 1) + 1, bisect_right(breaks, start + len(text) - 1) + 1)
        yield Segment(0, document.id, document.name, text, lines=lines)


def _whole(document: Document) -> Segment:
    if document.cues:
        return _joined(document, document.cues)
    return Segment(0, document.id, document.name, document.text.strip(), lines=(1, document.text.count("\n") + 1))


def _numbered(segments: Iterator[Segment]) -> tuple[Segment, ...]:
    return tuple(replace(piece, index=index) for index, piece in enumerate(segments))


def _groups(cues: Sequence[Cue]) -> Iterator[list[Cue]]:
    """Successive cues of one speaker that make a passage together."""
    group: list[Cue] = []
    size = 0  # of the group joined by blanks
    for cue in cues:
        full = size >= ENOUGH_CHARS and group[-1].text.endswith(_SENTENCE_ENDS)
        if group and (full or cue.speaker != group[0].speaker or size + 1 + len(cue.text) > MAX_CHARS):
            yield group
            group, size = [], 0
        size += len(cue.text) + (1 if group else 0)
        group.append(cue)
    if group:
        yield group


def _from_cues(document: Document, group: Sequence[Cue]) -> Iterator[Segment]:
    joined = _joined(document, group)
    if len(joined.text) <= MAX_CHARS:
        yield joined
    else:  # one cue longer than a passage: its pieces share its times, the finest that the file gives
        for _, text in _split(joined.text, TextSplitter((ENOUGH_CHARS, MAX_CHARS)).chunk_indices):
            yield replace(joined, text=text)


def _joined(document: Document, cues: Sequence[Cue]) -> Segment:
    speakers = {cue.speaker for cue in cues}
    lines = [cue.lines for cue in cues if cue.lines is not None]
    return Segment(
        index=0,
        document=document.id,
        name=document.name,
        text=" ".join(cue.text for cue in cues),
        start_s=cues[0].start_s,
        end_s=max(cue.end_s for cue in cues),
        speaker=speakers.pop() if len(speakers) == 1 else None,
        lines=(lines[0][0], lines[-1][1]) if lines else None,
    )


def _split(text: str, chunks: Callable[[str], list[tuple[int, str]]]) -> Iterator[tuple[int, str]]:
    """(offset, passage) over windows that end at a paragraph, a line, a sentence or a blank."""
    start = 0
    while start < len(text):
        end = _window_end(text, start)
        for offset, passage in chunks(text[start:end]):
            if passage.strip():
                yield start + offset, passage
        start = end


def _window_end(text: str, start: int) -> int:
    if len(text) - start <= _WINDOW:
        return len(text)
    for mark in ("\n\n", "\n", ". ", " "):
        at = text.rfind(mark, start + _WINDOW // 2, start + _WINDOW)
        if at >= 0:
            return at + len(mark)
    return start + _WINDOW
