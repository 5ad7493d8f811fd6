"""Bytes to text: UTF-8 first, then what the bytes say they are, and a note wherever something was assumed."""

from __future__ import annotations

from charset_normalizer import from_bytes

from graphs.errors import IngestError
from graphs.passage import Note

_MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_LEGACY = ["cp1252", "gb18030", "shift_jis", "big5", "euc_kr", "cp1251", "koi8_r", "cp1250", "cp1253", "cp1254"]
_SAYS = b"\t\n\f\r\x1b\x02\x03\x0f\x16\x1d\x1f"  # white space, colours of a terminal, and of an IRC client
_MOSTLY = 0.9  # of the bytes beyond ASCII, so many must be UTF-8 for the rest to be damage and not another encoding
_LATIN = 0.5  # fewer letters than this beyond ASCII: a Latin script
_ENOUGH = 200  # accents that tell one Latin encoding from another; below it the commonest is the better guess
_SAMPLE = 64_000  # bytes around the first foreign one that the encoding is told by


def decode(name: str, data: bytes) -> tuple[str, str, tuple[Note, ...]]:
    """(text, encoding, notes); line ends become \\n. Raises IngestError on what is no text."""
    mark = next((encoding for begin, encoding in _MARKS if data.startswith(begin)), None)
    if mark is not None:
        text, encoding, notes = _marked(name, data, mark)
    else:
        control = sum(data.count(byte) for byte in range(32) if byte not in _SAYS)
        if b"\0" in data or control * 100 > len(data):
            raise IngestError(name, "binary", "it is binary, not text", "give the transcript itself")
        text, encoding, notes = _unmarked(name, data)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise IngestError(name, "empty", "it is empty", "check the export, or leave it away")
    return text, encoding, notes


def _marked(name: str, data: bytes, encoding: str) -> tuple[str, str, tuple[Note, ...]]:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        problem = f"it begins as {encoding} but is not ({error.reason})"
        raise IngestError(name, "encoding", problem, "save it as UTF-8") from None
    if "\0" in text:
        raise IngestError(name, "binary", "it is binary, not text", "give the transcript itself")
    return text, encoding, ()


def _unmarked(name: str, data: bytes) -> tuple[str, str, tuple[Note, ...]]:
    try:
        return data.decode("utf-8-sig"), "utf-8", ()
    except UnicodeDecodeError as error:
        first = error.start
    line = data.count(b"\n", 0, first) + 1
    foreign = sum(byte >= 0x80 for byte in data)
    whole = data.decode("utf-8-sig", errors="ignore")
    if foreign and len(whole.encode()) - (len(data) - foreign) >= _MOSTLY * foreign:
        text = data.decode("utf-8-sig", errors="replace")
        reason = f"{text.count(chr(0xFFFD))} characters are damaged and shown as {chr(0xFFFD)}; export it again."
        return text, "utf-8", (Note("encoding", line, reason, lost=True),)
    for encoding in _candidates(data, first, foreign):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        reason = f"byte 0x{data[first]:02x} is not UTF-8, so it was read as {encoding}; save it as UTF-8."
        return text, encoding, (Note("encoding", line, reason),)
    problem = f"byte 0x{data[first]:02x} is not UTF-8, nor is it any other encoding that is known"
    raise IngestError(name, "encoding", problem, "save it as UTF-8", line)


def _candidates(data: bytes, first: int, foreign: int) -> list[str]:
    """Encodings to try in order."""
    letters = sum(byte >= 0x80 or chr(byte).isalpha() for byte in data)
    if foreign < _LATIN * letters and foreign < _ENOUGH:
        return ["cp1252"]
    sample = data[max(0, first - _SAMPLE // 2) : first + _SAMPLE // 2]
    guess = from_bytes(sample, cp_isolation=_LEGACY, threshold=0.3).best()
    return [guess.encoding, "cp1252"] if guess is not None else ["cp1252"]
