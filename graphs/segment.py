"""Step 2: cut documents into passages of at most 1,000 characters, and never inside a word that fits in one.

A transcript is cut between cues, so a passage keeps its exact start and end: past 600 characters with the sentence, or
with the turn. Talk of many short turns is cut where its words change (tiling.py), or where it pauses. Text, Markdown
and pages are cut by semantic-text-splitter at the highest boundary that falls between 600 and 1,000 characters:
heading, paragraph, sentence, word.
"""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from graphs.passage import Cue, Document, Segment
from graphs.state import State
from graphs.tiling import depths

_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", '."', ".”")
_WINDOW = 20_000  # the splitter's time is quadratic in a stretch without a break: five minutes for 5 MB
_SHORT_TURN = 100  # median characters of a turn below which speakers take turns inside a passage
_PAUSE_S = 1_800.0  # talk that rests for half an hour begins anew


@dataclass(frozen=True, slots=True)
class Limits:
    """Characters of a passage. One of `enough` ends at the next good place: shorter ones find more, and more exactly.

    overlap: of what ends a passage, at most so much begins the next one as well, in whole cues or whole sentences.
    """

    enough: int = 600
    most: int = 1_000
    overlap: int = 0


LIMITS = Limits()
MAX_CHARS = LIMITS.most


def segment(state: State) -> State:
    """segments: passages of all documents in order."""
    return {"segments": _numbered(piece for document in state["documents"] for piece in passages(document))}


def segments_of(state: State) -> tuple[Segment, ...]:
    """The segments of the run; where segmenting was off or failed, each document is one."""
    if "segments" in state:
        return state["segments"]
    return _numbered(_whole(document) for document in state["documents"])


def passages(document: Document, limits: Limits = LIMITS) -> Iterator[Segment]:
    """Cut one document; indices are given later."""
    if document.cues:
        for group in _overlapping(_groups(document.cues, limits), limits):
            yield from _from_cues(document, group, limits)
        return
    breaks = [i for i, character in enumerate(document.text) if character == "\n"]
    split = TextSplitter if document.kind == "text" else MarkdownSplitter
    sized = split((limits.enough, limits.most), overlap=limits.overlap)
    for start, text in _split(document.text, sized.chunk_indices):
        lines = (bisect_right(breaks, start - 1) + 1, bisect_right(breaks, start + len(text) - 1) + 1)
        yield Segment(0, document.id, document.name, text, lines=lines if document.kind != "html" else None)


def _whole(document: Document) -> Segment:
    if document.cues:
        return _joined(document, document.cues)
    return Segment(0, document.id, document.name, document.text.strip(), lines=(1, document.text.count("\n") + 1))


def _numbered(segments: Iterator[Segment]) -> tuple[Segment, ...]:
    return tuple(replace(piece, index=index) for index, piece in enumerate(segments))


def _groups(cues: Sequence[Cue], limits: Limits) -> Iterator[list[Cue]]:
    """Successive cues that make a passage together."""
    turns = list(_turns(cues))
    short = len(turns) > 1 and statistics.median(sum(len(cue.text) for cue in turn) for turn in turns) < _SHORT_TURN
    yield from _of_talk(cues, limits) if short else _of_turns(turns, limits)


def _turns(cues: Sequence[Cue]) -> Iterator[list[Cue]]:
    """Successive cues of one speaker."""
    turn: list[Cue] = []
    for cue in cues:
        if turn and cue.speaker != turn[0].speaker:
            yield turn
            turn = []
        turn.append(cue)
    if turn:
        yield turn


def _of_turns(turns: Sequence[Sequence[Cue]], limits: Limits) -> Iterator[list[Cue]]:
    """Passages of one speaker each; past `enough`, one ends with the sentence. What little is left joins the last."""
    for turn in turns:
        groups: list[list[Cue]] = [[]]
        size = 0  # of the last group joined by blanks
        for cue in turn:
            full = size >= limits.enough and groups[-1][-1].text.endswith(_SENTENCE_ENDS)
            if groups[-1] and (full or size + 1 + len(cue.text) > limits.most):
                groups.append([])
                size = 0
            size += len(cue.text) + (1 if groups[-1] else 0)
            groups[-1].append(cue)
        if len(groups) > 1 and size < limits.enough // 3:
            whole = groups[-2] + groups[-1]
            if sum(len(cue.text) + 1 for cue in whole) - 1 <= limits.most:
                groups[-2:] = [whole]
        yield from groups


def _of_talk(cues: Sequence[Cue], limits: Limits) -> Iterator[list[Cue]]:
    """Passages of many turns: past half of `enough`, each ends where the topic clearly changes, or changes most."""
    valleys = depths([cue.text for cue in cues])
    clear = float(valleys.mean() + valleys.std())  # Hearst's cutoff is lower; passages need not end so often
    sizes = [len(cue.text) + len(cue.speaker or "") + 3 for cue in cues]  # "name: text" and a line end
    start = 0
    while start < len(cues):
        size, end = sizes[start], start + 1
        best = -1.0
        stop = end
        while end < len(cues) and size + sizes[end] <= limits.most and not _pauses(cues[end - 1], cues[end]):
            if size >= limits.enough // 2 and valleys[end - 1] >= best:
                best, stop = float(valleys[end - 1]), end
                if best > clear:
                    break
            size += sizes[end]
            end += 1
        if end == len(cues) or _pauses(cues[end - 1], cues[end]) or best < 0 or valleys[end - 1] >= best:
            stop = end  # the talk, or what fits, ends here
        yield list(cues[start:stop])
        start = stop


def _pauses(cue: Cue, after: Cue) -> bool:
    return cue.end_s is not None and after.start_s is not None and after.start_s - cue.end_s > _PAUSE_S


def _overlapping(groups: Iterator[list[Cue]], limits: Limits) -> Iterator[list[Cue]]:
    """Each passage begins with the last cues of the one before it, as far as `overlap` and `most` allow."""
    before: list[Cue] = []
    for group in groups:
        room = min(limits.overlap, limits.most - _size(group) - 1)
        shared = next((before[i:] for i in range(len(before)) if _size(before[i:]) <= room), [])
        yield [*shared, *group]
        before = group


def _size(cues: Sequence[Cue]) -> int:
    return sum(len(cue.text) + len(cue.speaker or "") + 3 for cue in cues)


def _from_cues(document: Document, group: Sequence[Cue], limits: Limits) -> Iterator[Segment]:
    joined = _joined(document, group)
    if len(joined.text) <= limits.most:
        yield joined
    else:  # one cue longer than a passage: its pieces share its times, the finest that the file gives
        for _, text in _split(joined.text, TextSplitter((limits.enough, limits.most)).chunk_indices):
            yield replace(joined, text=text)


def _joined(document: Document, cues: Sequence[Cue]) -> Segment:
    speakers = tuple(dict.fromkeys(cue.speaker for cue in cues if cue.speaker))
    one = len({cue.speaker for cue in cues}) == 1
    lines = [cue.lines for cue in cues if cue.lines is not None]
    starts = [cue.start_s for cue in cues if cue.start_s is not None]
    ends = [cue.end_s for cue in cues if cue.end_s is not None]
    return Segment(
        index=0,
        document=document.id,
        name=document.name,
        text=" ".join(cue.text for cue in cues) if one else "\n".join(map(_turn_text, _turns(cues))),
        start_s=min(starts, default=None),
        end_s=max(ends, default=None),
        speaker=cues[0].speaker if one else None,
        lines=(lines[0][0], lines[-1][1]) if lines else None,
        speakers=speakers,
    )


def _turn_text(turn: Sequence[Cue]) -> str:
    said = " ".join(cue.text for cue in turn)
    return f"{turn[0].speaker}: {said}" if turn[0].speaker else said


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
