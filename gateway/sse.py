"""Server-sent events out of bytes, however these were cut: the WHATWG HTML standard, section 9.2."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event.   name: "message" where the server gave none.   data: its lines, joined by newlines."""

    data: str
    name: str = "message"


class Parser:
    """Feed it the bytes of a stream as they come; it gives each event once its blank line is there.

    Lines end in LF, CR or CRLF; comments and unknown fields are skipped, an event without data is none, and one that
    the stream broke off is never given. `id` and `retry` serve to resume a stream, which no provider of models offers.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._line: list[str] = []  # what has come of the line that is not yet ended
        self._data: list[str] = []
        self._name = ""
        self._first = True  # character of the stream: it may be a byte order mark
        self._after_cr = False  # an LF that comes next belongs to a CR that ended a line already

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that end within `chunk`."""
        text = self._decoder.decode(chunk)
        if not text:
            return
        if self._first:
            text, self._first = text.removeprefix("\ufeff"), False
        if self._after_cr and text.startswith("\n"):
            text = text[1:]
        self._after_cr = text.endswith("\r") if text else False
        *ended, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in ended:
            event = self._take("".join((*self._line, line)))
            self._line.clear()
            if event is not None:
                yield event
        if rest:
            self._line.append(rest)

    def _take(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")  # a comment has the empty field
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None

    def _dispatch(self) -> Event | None:
        data, name = self._data, self._name
        self._data, self._name = [], ""
        return Event("\n".join(data), name or "message") if data else None
