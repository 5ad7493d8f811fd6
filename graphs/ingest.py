"""Step 1: read the inputs. One bad document is left out with its reason; when all are bad, the step fails."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from graphs import captions
from graphs.errors import IngestError
from graphs.passage import Cue, Document, DocumentKind
from graphs.state import Input, LeftOut, State

MAX_BYTES = 10 * 1024 * 1024
_LONGEST_S = 1e9  # no recording is longer; refuses NaN and infinity as well
KINDS: dict[str, DocumentKind] = {
    "": "text",
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".vtt": "webvtt",
    ".srt": "srt",
    ".json": "json",
}


def ingest(state: State) -> State:
    """documents, left_out, duplicates. Raises IngestError if no document is left."""
    documents: dict[str, Document] = {}
    left_out: list[LeftOut] = []
    duplicates: list[str] = []
    for item in state["request"].inputs:
        try:
            document = read(item)
        except IngestError as error:
            left_out.append(LeftOut(error.document, error.fault, error.line, str(error)))
            continue
        if document.id in documents:
            duplicates.append(document.name)
        documents.setdefault(document.id, document)
    if not documents:
        reasons = " ".join(one.reason for one in left_out) or "no input was given."
        raise IngestError(
            "inputs", "none_left", f"no document could be read: {reasons[:-1]}", "mend one, or give another"
        )
    return {"documents": tuple(documents.values()), "left_out": tuple(left_out), "duplicates": tuple(duplicates)}


def read(item: Input) -> Document:
    """Read one input, a path or (name, text). Raises IngestError."""
    name = item[0] if isinstance(item, tuple) else Path(item).name
    suffix = Path(name).suffix.lower()
    if suffix not in KINDS:
        known = ", ".join(sorted(filter(None, KINDS)))
        raise IngestError(name, "unsupported", f"{suffix} is not a kind that can be read", f"give one of {known}")
    text = _decode(name, _bytes(name, item))
    kind = KINDS[suffix]
    cues: tuple[Cue, ...] = ()
    if kind in ("webvtt", "srt"):
        cues = captions.parse(name, text, kind)
    elif kind == "json":
        cues = _json_cues(name, text)
    if kind not in ("text", "markdown"):
        if not cues:
            raise IngestError(
                name, "empty", "the transcript holds no cue with text", "export it again, with its captions"
            )
        text = "\n".join(cue.text for cue in cues)
    identity = hashlib.sha256(repr((kind, text, cues)).encode()).hexdigest()[:16]
    return Document(identity, name, kind, text, cues)


def _bytes(name: str, item: Input) -> bytes:
    if isinstance(item, tuple):
        try:
            data = item[1].encode()
        except UnicodeEncodeError as error:
            line = item[1].count("\n", 0, error.start) + 1
            raise IngestError(name, "encoding", "a lone surrogate is not text", "send valid Unicode", line) from None
    else:
        try:
            if not Path(item).is_file():
                raise IngestError(name, "missing", f"there is no file at {item}", "check the path")
            with Path(item).open("rb") as file:
                data = file.read(MAX_BYTES + 1)  # never more, whatever its size is said to be
        except (OSError, ValueError) as error:
            if isinstance(error, IngestError):
                raise
            raise IngestError(
                name, "missing", f"it cannot be opened ({error})", "check its path and permissions"
            ) from None
    if len(data) > MAX_BYTES:
        raise IngestError(name, "too_large", f"it is over {MAX_BYTES // 2**20} MB", "split it, and give the parts")
    return data


def _decode(name: str, data: bytes) -> str:
    """UTF-8, with or without a byte-order mark; line ends become \\n."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise IngestError(name, "encoding", "it is UTF-16, and UTF-8 is needed", "save it as UTF-8", 1)
    control = sum(data.count(byte) for byte in range(32) if byte not in b"\t\n\f\r\x1b")
    if b"\0" in data or control * 100 > len(data):
        raise IngestError(name, "binary", "it is binary, not text", "give the transcript itself")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise IngestError(name, "encoding", problem, "save it as UTF-8", line) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise IngestError(name, "empty", "it is empty", "check the export, or leave it away")
    return text


def _json_cues(name: str, text: str) -> tuple[Cue, ...]:
    """A list of {start, end, text, speaker?}, or {"segments": that list}; times in seconds."""
    mend = 'write a list of {"start": 0.0, "end": 1.5, "text": "…", "speaker": "…"}, or {"segments": that list}'
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        ended = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        problem = f"it ends inside the JSON ({error.msg})" if ended else f"it is not JSON ({error.msg})"
        raise IngestError(name, "truncated" if ended else "format", problem, mend, error.lineno) from None
    except (ValueError, RecursionError) as error:
        raise IngestError(name, "format", f"it is not JSON ({type(error).__name__})", mend) from None
    items = data.get("segments") if isinstance(data, dict) else data
    if not isinstance(items, list):
        raise IngestError(name, "format", f"a list of cues is needed, but it holds {type(items).__name__}", mend)
    cues: list[Cue] = []
    for number, item in enumerate(items, start=1):
        cue = _json_cue(name, item, number, mend)
        if cues and cue.start_s < cues[-1].start_s:
            problem = f"item {number} starts at {cue.start_s} s, before the one above it at {cues[-1].start_s} s"
            raise IngestError(name, "times", problem, "sort the items by their start")
        cues.append(cue)
    return tuple(cue for cue in cues if cue.text)


def _json_cue(name: str, item: object, number: int, mend: str) -> Cue:
    if not isinstance(item, dict):
        raise IngestError(name, "format", f"item {number} must be an object, but is {type(item).__name__}", mend)
    start, end = (_seconds(name, item.get(key), f"{key} of item {number}", mend) for key in ("start", "end"))
    if end < start:
        problem = f"item {number} ends at {end} s, before it starts at {start} s"
        raise IngestError(name, "times", problem, "swap or correct its times")
    text, speaker = item.get("text"), item.get("speaker")
    if not isinstance(text, str) or not (speaker is None or isinstance(speaker, str)):
        raise IngestError(name, "format", f"text and speaker of item {number} must be strings", mend)
    if any("\ud800" <= character <= "\udfff" for character in text + (speaker or "")):
        raise IngestError(name, "encoding", f"item {number} holds a lone surrogate", "write valid Unicode")
    return Cue(" ".join(text.split()), start, end, " ".join((speaker or "").split()) or None)


def _seconds(name: str, value: object, what: str, mend: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LONGEST_S:
        raise IngestError(name, "format", f"{what} must be seconds from 0 up, but is {str(value)[:40]!r}", mend)
    return float(value)
