"""Step 1: read the inputs. One bad document is left out with its reason; when all are bad, the step fails."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from graphs import captions, chat, records
from graphs.article import article_text, looks_like_html
from graphs.decode import decode
from graphs.errors import IngestError
from graphs.language import languages
from graphs.near import near_duplicates
from graphs.passage import Cue, Document, DocumentKind, Note
from graphs.state import Input, LeftOut, State

MAX_BYTES = 10 * 1024 * 1024
KINDS: dict[str, DocumentKind] = {
    "": "text",
    ".txt": "text",
    ".text": "text",
    ".log": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".vtt": "webvtt",
    ".srt": "srt",
    ".json": "json",
    ".tsv": "tsv",
}
_NOTHING_LOST = ("times", "encoding")
_Parsed = tuple[DocumentKind, str, tuple[Cue, ...], tuple[IngestError, ...]]


def ingest(state: State) -> State:
    """documents, left_out, duplicates, near_duplicates. Raises IngestError if no document is left."""
    documents: dict[str, Document] = {}
    left_out: list[LeftOut] = []
    duplicates: list[str] = []
    for item in _unfolded(state["request"].inputs):
        try:
            document = read(item)
        except IngestError as error:
            left_out.append(LeftOut(error.document, error.fault, error.line, str(error)))
            continue
        if document.id in documents:
            duplicates.append(document.name)
            continue
        documents[document.id] = document
        left_out += [
            LeftOut(document.name, note.fault, note.line, f"{note.reason} The rest of it was read.")
            for note in document.notes
            if note.lost
        ]
    if not documents:
        reasons = " ".join(one.reason for one in left_out) or "no input was given."
        raise IngestError(
            "inputs", "none_left", f"no document could be read: {reasons[:-1]}", "mend one, or give another"
        )
    kept = tuple(documents.values())
    near = near_duplicates([document.text for document in kept])
    return {
        "documents": kept,
        "left_out": tuple(left_out),
        "duplicates": tuple(duplicates),
        "near_duplicates": tuple((kept[later].name, kept[earlier].name, similar) for earlier, later, similar in near),
    }


def _unfolded(inputs: Sequence[Input]) -> Iterator[Input]:
    """Each file of a folder, by name, whatever lies how deep; hidden ones are not meant."""
    for item in inputs:
        if isinstance(item, tuple) or not _is_folder(Path(item)):
            yield item
            continue
        folder = Path(item)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a path that no file can have; reading it says so
        return False


def read(item: Input) -> Document:
    """Read one input, a path or (name, text). Raises IngestError; what could be borne is in its notes."""
    name = item[0] if isinstance(item, tuple) else Path(item).name
    suffix = Path(name).suffix.lower()
    if suffix not in KINDS:
        known = ", ".join(sorted(filter(None, KINDS)))
        raise IngestError(name, "unsupported", f"{suffix} is not a kind that can be read", f"give one of {known}")
    text, encoding, notes = decode(name, _bytes(name, item))
    kind, body, cues, faults = _PARSERS[KINDS[suffix]](name, text)
    if kind not in ("text", "markdown", "html"):
        if not cues:
            raise IngestError(
                name, "empty", "the transcript holds no cue with text", "export it again, with its captions"
            )
        body = "\n".join(cue.text for cue in cues)
    return Document(
        id=hashlib.sha256(repr((kind, body, cues)).encode()).hexdigest()[:16],
        name=name,
        kind=kind,
        text=body,
        cues=cues,
        source="" if isinstance(item, tuple) else str(item),
        encoding=encoding,
        language="+".join(languages(body)) or "unknown",
        notes=notes + tuple(Note(one.fault, one.line, str(one), one.fault not in _NOTHING_LOST) for one in faults),
    )


def _text(name: str, text: str) -> _Parsed:
    if looks_like_html(text):
        return _page(name, text)
    cues = chat.parse(text)
    return "chat" if cues else "text", text, cues, ()


def _page(name: str, text: str) -> _Parsed:
    return "html", article_text(name, text), (), ()


def _captions(kind: DocumentKind) -> Callable[[str, str], _Parsed]:
    return lambda name, text: (kind, "", *captions.parse(name, text, kind))


def _records(parse: Callable[[str, str], records.Read]) -> Callable[[str, str], _Parsed]:
    def read(name: str, text: str) -> _Parsed:
        kind, cues, faults = parse(name, text)
        return kind, "", cues, faults

    return read


_PARSERS: dict[DocumentKind, Callable[[str, str], _Parsed]] = {
    "text": _text,
    "markdown": lambda name, text: ("markdown", text, (), ()),
    "html": _page,
    "webvtt": _captions("webvtt"),
    "srt": _captions("srt"),
    "json": _records(records.from_json),
    "tsv": _records(records.from_tsv),
}


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
