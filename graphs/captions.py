"""WebVTT and SubRip to cues. webvtt-py reads them; this file keeps line numbers, and lets nothing vanish.

webvtt-py passes silently over a cue that it cannot read. So every line with an arrow is looked at here first, and
each that holds text must come back as a cue; one that does not is a fault with its line, and the rest is kept.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import webvtt
from webvtt.errors import MalformedCaptionError, MalformedFileError
from webvtt.models import Caption, Timestamp

from graphs.errors import IngestError
from graphs.passage import Cue

_TIMING = {
    "webvtt": re.compile(
        r"\s*((?:\d{1,10}:)?\d{1,2}:\d{1,2}\.\d{1,3})\s*-->\s*((?:\d{1,10}:)?\d{1,2}:\d{1,2}\.\d{1,3})"
    ),
    "srt": re.compile(r"\s*(\d{1,10}:\d{1,2}:\d{1,2}[,.]\d{1,9})\s*-->\s*(\d{1,10}:\d{1,2}:\d{1,2}[,.]\d{1,9})"),
}
_MODEL = {"webvtt": "00:01:02.345 --> 00:01:04.000", "srt": "00:01:02,345 --> 00:01:04,000"}
_VOICE = re.compile(r"<v(?:\.[\w.]+)?\s+([^<>\n]{1,200})>")
_STYLE_OVERRIDE = re.compile(r"\{\\[^{}\n]{0,100}\}")  # {\an8} and the like, which players obey and nobody says
_LEAP_MS = 3_600_000  # an hour without a word is more often a wrong stamp
_NOT_CUES = ("NOTE", "STYLE", "REGION")


@dataclass(frozen=True, slots=True)
class _Timing:
    line: int
    start_ms: int
    end_ms: int
    last_line: int  # of its text; equal to `line` if it has none


def parse(name: str, text: str, kind: str) -> tuple[tuple[Cue, ...], tuple[IngestError, ...]]:
    """Cues of a WebVTT or SubRip text by their start, rolling repeats removed; and what could not be read of it.

    Raises IngestError where it is no such file at all.
    """
    lines = text.split("\n")
    first = next(i for i, line in enumerate(lines) if line.strip())
    if kind == "webvtt" and not lines[first].startswith("WEBVTT"):
        raise IngestError(name, "format", "a WebVTT file must begin with WEBVTT", "add that line at its top", first + 1)
    faults: list[IngestError] = []
    timings = _timings(name, lines, kind, faults)
    _no_stray_blocks(name, lines, kind, first, faults)
    if not timings and faults:
        raise faults[0]
    try:
        parsed = webvtt.from_buffer(lines[first:], format="vtt" if kind == "webvtt" else "srt").captions
    except (MalformedCaptionError, MalformedFileError) as error:
        mend = "number each cue above its times" if kind == "srt" else "write each cue as times, then text"
        raise IngestError(name, "format", f"the first cue cannot be read ({error})", mend, first + 1) from None
    paired = list(_pair(name, parsed, timings, faults))
    sound = _in_order(name, paired, faults)
    cues = tuple(cue for caption, timing in _unroll(sound) for cue in _cues(caption, timing))
    if not cues and faults:
        raise faults[0]
    return cues, tuple(sorted(faults, key=lambda fault: fault.line or 0))


def _timings(name: str, lines: list[str], kind: str, faults: list[IngestError]) -> list[_Timing]:
    """Every line of times that can be read; a cue whose times cannot is emptied, so that it spoils no other."""
    found: list[_Timing] = []
    for i, line in enumerate(lines):
        if "-->" not in line or (kind == "srt" and not _starts_srt_cue(lines, i)):
            continue
        last = i
        while last + 1 < len(lines) and lines[last + 1].strip() and "-->" not in lines[last + 1]:
            last += 1
        match = _TIMING[kind].match(line)
        try:
            stamps = [_milliseconds(match.group(g), kind) for g in (1, 2)] if match else []
        except MalformedCaptionError:
            stamps = []
        if stamps:
            found.append(_Timing(i + 1, stamps[0], stamps[1], last + 1))
            continue
        cut = not any(rest.strip() for rest in lines[i + 1 :])
        problem = "the file ends inside a cue" if cut else "times cannot be read"
        mend = "write them as " + _MODEL[kind]
        faults.append(
            IngestError(name, "truncated" if cut else "format", f"{problem}: {line.strip()[:60]!r}", mend, i + 1)
        )
        named = i > 0 and lines[i - 1].strip() and (i < 2 or not lines[i - 2].strip())
        _empty(lines, i - 1 if named and (kind == "webvtt" or lines[i - 1].strip().isdigit()) else i, last)
    if found and not any(line.strip() for line in lines[found[-1].line :]):
        mend = "export the file again, or delete its last cue"
        problem = "the file ends before the text of its last cue"
        faults.append(IngestError(name, "truncated", problem, mend, found[-1].line))
        found.pop()
    return found


def _empty(lines: list[str], first: int, last: int) -> None:
    lines[first : last + 1] = [""] * (last + 1 - first)


def _starts_srt_cue(lines: Sequence[str], i: int) -> bool:
    """In SubRip an arrow inside a text is text; times stand at the start of a block or below its number."""
    above = lines[i - 1].strip() if i else ""
    return not above or above.isdigit() or bool(_TIMING["srt"].match(lines[i]))


def _milliseconds(stamp: str, kind: str) -> int:
    if kind == "webvtt":
        return int(Timestamp.from_string(stamp).in_milliseconds())
    hours, minutes, seconds, milliseconds = (int(part) for part in re.split("[:,.]", stamp))
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds


def _no_stray_blocks(name: str, lines: list[str], kind: str, first: int, faults: list[IngestError]) -> None:
    """Text without times would be lost (WebVTT) or, cut off at the end, glued to the cue before it (SubRip)."""
    blocks = list(_blocks(lines, kind))
    for at, block in blocks:
        if any("-->" in line for line in block) or (
            kind == "webvtt" and (at == first or block[0].startswith(_NOT_CUES))
        ):
            continue
        last = at == blocks[-1][0]
        cut_number = len(block) == 1 and block[0].strip().isdigit()
        if last and (kind == "webvtt" or cut_number or re.match(r"\s*\d{1,2}:\d", block[-1])):
            problem, mend = "the file ends inside a cue", "export the file again, or delete its last cue"
            faults.append(IngestError(name, "truncated", problem, mend, at + len(block)))
        elif kind == "webvtt":
            problem = f"text without times: {block[0].strip()[:60]!r}"
            faults.append(IngestError(name, "format", problem, "put its times above it, or begin it with NOTE", at + 1))
        else:
            continue
        _empty(lines, at, at + len(block) - 1)


def _blocks(lines: Sequence[str], kind: str) -> Iterator[tuple[int, list[str]]]:
    """Blocks between empty lines, each with the index of its first line. A blank in WebVTT does not end a block."""
    start = 0
    block: list[str] = []
    for i, line in enumerate([*lines, ""]):
        if line if kind == "webvtt" else line.strip():
            start = start if block else i
            block.append(line)
        elif block:
            yield start, block
            block = []


def _in_order(
    name: str, paired: list[tuple[Caption, _Timing]], faults: list[IngestError]
) -> list[tuple[Caption, _Timing]]:
    """Cues by their start; one that ends before it starts ends where it starts. Each kind of fault is told once."""
    reversed_ = [timing for _, timing in paired if timing.end_ms < timing.start_ms]
    if reversed_:
        one = reversed_[0]
        problem = f"a cue ends at {_clock(one.end_ms)}, before it starts at {_clock(one.start_ms)}"
        problem += f" ({len(reversed_)} of {len(paired)} do so, and are taken to end where they start)"
        faults.append(IngestError(name, "times", problem, "swap or correct their times", one.line))
    sound = [(caption, replace(timing, end_ms=max(timing.start_ms, timing.end_ms))) for caption, timing in paired]
    back = [(a, b) for (_, a), (_, b) in pairwise(sound) if b.start_ms < a.start_ms]
    if back:
        before, after = back[0]
        problem = f"a cue starts at {_clock(after.start_ms)}, before the one above it at {_clock(before.start_ms)}"
        problem += f" ({len(back)} of {len(paired)} do so, and all are sorted)"
        faults.append(IngestError(name, "times", problem, "sort the cues by their start", after.line))
    sound.sort(key=lambda pair: pair[1].start_ms)
    leap = next(((a, b) for (_, a), (_, b) in pairwise(sound) if b.start_ms - a.end_ms > _LEAP_MS), None)
    if leap is not None:
        problem = f"the times leap from {_clock(leap[0].end_ms)} to {_clock(leap[1].start_ms)}"
        faults.append(IngestError(name, "times", problem, "check the times of this cue", leap[1].line))
    return sound


def _clock(milliseconds: int) -> str:
    seconds = milliseconds // 1000
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds % 1000:03}"


def _pair(
    name: str, captions: Sequence[Caption], timings: Sequence[_Timing], faults: list[IngestError]
) -> Iterator[tuple[Caption, _Timing]]:
    """Each caption with its line; a timing line with text that did not become a caption is a fault."""
    waiting = iter([caption for caption in captions if caption.text.strip()])
    caption = next(waiting, None)
    for timing in timings:
        if caption is not None and caption.start_time.in_milliseconds() == timing.start_ms:
            yield caption, timing
            caption = next(waiting, None)
        elif timing.last_line > timing.line:
            mend = "write each cue as an empty line, a number, its times, its text"
            faults.append(IngestError(name, "format", "a cue cannot be read", mend, timing.line))


def _unroll(paired: list[tuple[Caption, _Timing]]) -> list[tuple[Caption, _Timing]]:
    """Remove what rolling captions repeat: each cue shows the last line of the one before it, then adds to it.

    Only where a third of all cues (and two at least) do so: people do say a thing twice.
    """
    texts = [caption.text.split() for caption, _ in paired]
    carried = [0] * len(paired)
    for i in range(1, len(paired)):
        if paired[i][1].start_ms <= paired[i - 1][1].end_ms + 100:
            last = [line for line in paired[i - 1][0].text.split("\n") if line.strip()][-1].split()
            overlap = _overlap(texts[i - 1], texts[i])
            carried[i] = overlap if overlap >= len(last) else 0
    rolling = sum(1 for count in carried if count)
    if rolling < max(2, (len(paired) - 1) / 3):
        return paired
    kept = []
    for (caption, timing), words, count in zip(paired, texts, carried, strict=True):
        if count:
            caption.lines = [html.escape(" ".join(words[count:]), quote=False)]
        if words[count:]:
            kept.append((caption, timing))
    return kept


def _overlap(before: list[str], after: list[str], most: int = 200) -> int:
    """Number of words that end `before` and begin `after`."""
    sizes = range(min(len(before), len(after), most), 0, -1)
    return next((n for n in sizes if before[-n:] == after[:n]), 0)


def _cues(caption: Caption, timing: _Timing) -> Iterator[Cue]:
    """One cue for each voice in a caption."""
    pieces = _VOICE.split(caption.raw_text)
    whole = Cue("", timing.start_ms / 1000, timing.end_ms / 1000, None, (timing.line, timing.last_line))
    for speaker, piece in [(None, pieces[0]), *zip(pieces[1::2], pieces[2::2], strict=True)]:
        text = _STYLE_OVERRIDE.sub("", html.unescape(Caption(text=piece).text))
        text = " ".join(text.split())
        if text:
            name = " ".join((speaker or "").split())
            named = any(character.isalnum() for character in name)  # some tools write <v -> for "somebody"
            yield replace(whole, text=text, speaker=name if named else None)
