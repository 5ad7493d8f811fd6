"""Transcripts as data: JSON and TSV with start, end, text and speaker, and Discord channels as DiscordChatExporter
writes them. An item that cannot be read is left out with its number; the rest stands.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

from graphs.errors import IngestError
from graphs.passage import Cue, DocumentKind

Read = tuple[DocumentKind, tuple[Cue, ...], tuple[IngestError, ...]]

_LONGEST_S = 1e9  # no recording is longer; refuses NaN and infinity as well
_MEND = 'write a list of {"start": 0.0, "end": 1.5, "text": "…", "speaker": "…"}, or {"segments": that list}'
_TSV_MEND = "begin with the header start, end, text (and speaker), tabs between"
_CLOCK = re.compile(r"^(?:(\d{1,10}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d{1,9})?)$")
_SLOWEST = 0.5  # characters a second; people who say less have times in milliseconds


def from_json(name: str, text: str) -> Read:
    """A list of {start, end or duration, text, speaker?}, that under "segments", or a Discord export."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        ended = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        problem = f"it ends inside the JSON ({error.msg})" if ended else f"it is not JSON ({error.msg})"
        raise IngestError(name, "truncated" if ended else "format", problem, _MEND, error.lineno) from None
    except (ValueError, RecursionError) as error:
        raise IngestError(name, "format", f"it is not JSON ({type(error).__name__})", _MEND) from None
    if isinstance(data, dict) and isinstance(data.get("messages"), list):
        return ("chat", *_gather(name, enumerate(data["messages"], start=1), _discord(name)))
    items = data.get("segments") if isinstance(data, dict) else data
    if not isinstance(items, list):
        raise IngestError(name, "format", f"a list of cues is needed, but it holds {type(items).__name__}", _MEND)
    return ("json", *_gather(name, enumerate(items, start=1), lambda number, item: _item(name, number, item)))


def from_tsv(name: str, text: str) -> Read:
    """Columns start, end, text and speaker by their header; times in seconds, as a clock, or in milliseconds."""
    rows = list(csv.reader(text.split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE))
    header = [column.strip().casefold() for column in rows[0]]
    if not {"start", "end", "text"} <= set(header):
        raise IngestError(name, "format", f"columns start, end and text are needed, but got {header}", _TSV_MEND, 1)
    items = [(i, dict(zip(header, row, strict=False))) for i, row in enumerate(rows[1:], start=2) if any(row)]
    scale = _scale(items)

    def read(number: int, item: Any) -> Cue | None:  # noqa: ANN401 - what a file holds
        if len(item) < len(header):
            problem = f"a row needs {len(header)} columns, but has {len(item)}"
            raise IngestError(name, "format", problem, _TSV_MEND, number)
        start, end = (_clock(name, item[key], key, number) * scale for key in ("start", "end"))
        return _cue(name, start, end, item["text"], item.get("speaker"), f"row {number}", (number, number))

    return ("tsv", *_gather(name, items, read))


def _gather(
    name: str, items: Iterable[tuple[int, Any]], read: Callable[[int, Any], Cue | None]
) -> tuple[tuple[Cue, ...], tuple[IngestError, ...]]:
    """Cues by their start, and the faults of those that are left out. Raises the first if all are."""
    cues: list[Cue] = []
    faults: list[IngestError] = []
    numbers: list[int] = []
    for number, item in items:
        try:
            cue = read(number, item)
        except IngestError as fault:
            faults.append(fault)
            continue
        if cue is not None:
            cues.append(cue)
            numbers.append(number)
    if not cues and faults:
        raise faults[0]
    back = [i for i, (a, b) in enumerate(pairwise(cues)) if (b.start_s or 0.0) < (a.start_s or 0.0)]
    if back:
        a, b = cues[back[0]], cues[back[0] + 1]
        problem = f"item {numbers[back[0] + 1]} starts at {b.start_s} s, before the one above it at {a.start_s} s"
        line = b.lines[0] if b.lines else None
        faults.append(IngestError(name, "times", f"{problem} (all are sorted)", "sort the items by their start", line))
    cues.sort(key=lambda cue: cue.start_s or 0.0)
    return tuple(cue for cue in cues if cue.text), tuple(faults)


def _item(name: str, number: int, item: object) -> Cue:
    if not isinstance(item, dict):
        raise IngestError(name, "format", f"item {number} must be an object, but is {type(item).__name__}", _MEND)
    start = _number(name, item.get("start"), f"start of item {number}")
    if "end" not in item and "duration" in item:
        end = start + _number(name, item["duration"], f"duration of item {number}")
    else:
        end = _number(name, item.get("end"), f"end of item {number}")
    return _cue(name, start, end, item.get("text"), item.get("speaker"), f"item {number}")


def _cue(
    name: str, start: float, end: float, text: object, speaker: object, what: str, lines: tuple[int, int] | None = None
) -> Cue:
    line = lines[0] if lines else None
    if end < start:
        problem = f"{what} ends at {end} s, before it starts at {start} s"
        raise IngestError(name, "times", problem, "swap or correct its times", line)
    if not isinstance(text, str) or not (speaker is None or isinstance(speaker, str)):
        raise IngestError(name, "format", f"text and speaker of {what} must be strings", _MEND, line)
    if any("\ud800" <= character <= "\udfff" for character in text + (speaker or "")):
        raise IngestError(name, "encoding", f"{what} holds a lone surrogate", "write valid Unicode", line)
    return Cue(" ".join(text.split()), start, end, " ".join((speaker or "").split()) or None, lines)


def _number(name: str, value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LONGEST_S:
        raise IngestError(name, "format", f"{what} must be seconds from 0 up, but is {str(value)[:40]!r}", _MEND)
    return float(value)


def _clock(name: str, value: str, what: str, row: int) -> float:
    match = _CLOCK.match(value.strip())
    if match:
        return (int(match[1] or 0) * 60 + int(match[2])) * 60 + float(match[3].replace(",", "."))
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < _LONGEST_S:
        raise IngestError(name, "format", f"{what} must be seconds from 0 up, but is {value[:40]!r}", _TSV_MEND, row)
    return seconds


def _scale(items: Iterable[tuple[int, Mapping[str, str]]]) -> float:
    """.001 where the times are whole numbers and nobody would say so little in so many seconds; Whisper writes so."""
    rates = []
    for _, item in items:
        start, end = item.get("start", "").strip(), item.get("end", "").strip()
        if not (start.isdigit() and end.isdigit()):
            return 1.0
        if int(end) > int(start):
            rates.append(len(item.get("text", "")) / (int(end) - int(start)))
    return 0.001 if rates and statistics.median(rates) < _SLOWEST else 1.0


def _discord(name: str) -> Callable[[int, Any], Cue | None]:
    first: list[datetime] = []

    def read(number: int, item: Any) -> Cue | None:  # noqa: ANN401 - what a file holds
        """One message, in seconds from the first; None where it says nothing (a join, a pin, a lone picture)."""
        try:
            said, at = item["content"], datetime.fromisoformat(item["timestamp"])
            speaker = item["author"].get("nickname") or item["author"]["name"]
            first[:] = first or [at]
            seconds = (at - first[0]).total_seconds()
        except (KeyError, TypeError, ValueError, AttributeError):
            mend = "export the channel again as JSON with DiscordChatExporter"
            raise IngestError(name, "format", f"message {number} lacks content, timestamp or author", mend) from None
        if not str(said).strip() or item.get("type", "Default") not in ("Default", "Reply"):
            return None
        return _cue(name, max(seconds, 0.0), max(seconds, 0.0), said, speaker, f"message {number}")

    return read
