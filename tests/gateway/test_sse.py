"""Facts about server-sent events: however the bytes are cut, the events are those of the standard."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sse import Event, Parser


def parse(*chunks: bytes) -> list[Event]:
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def slowly(stream: bytes) -> list[Event]:
    """The standard as a student would write it, of the whole stream at once."""
    text = stream.decode("utf-8", errors="replace").removeprefix("\ufeff")
    *lines, _ = re.split(r"\r\n|\n|\r", text)
    events, lines_of_data, name = [], [], ""
    for line in lines:
        if line == "":
            if lines_of_data:
                events.append(Event("\n".join(lines_of_data), name or "message"))
            lines_of_data, name = [], ""
            continue
        field, value = line.split(":", 1) if ":" in line else (line, "")
        value = value[1:] if value[:1] == " " else value
        if field == "data":
            lines_of_data.append(value)
        if field == "event":
            name = value
    return events


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [Event("a")]),
        (b"data:a\r\rdata: b\r\n\r\n", [Event("a"), Event("b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event("a")]),
        (b"data: a\ndata:  b\ndata\n\n", [Event("a\n b\n")]),
        (b": a comment\n\nevent: x\n\ndata: y\n\n", [Event("y")]),
        (b"event: x\ndata: y\nid: 1\nretry: 5\nelse: z\n\n", [Event("y", "x")]),
        (b"event: x\r\ndata: a\r\ndata: b\r\n\r\n", [Event("a\nb", "x")]),
        (b"data: whole\n\ndata: broken off", [Event("whole")]),
        (b"data: whole\n\ndata: not dispatched\n", [Event("whole")]),
        ('data: "é\u2028…"\n\n'.encode(), [Event('"é\u2028…"')]),
    ],
)
def test_examples_of_the_standard(stream, events):
    """Line ends, a mark at the start, several lines of data, comments, unknown fields, an end too soon."""
    assert parse(stream) == events
    assert slowly(stream) == events
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == events


TOKENS = st.sampled_from(
    ["data: é", "event: x", "data", ":", " ", "\r", "\n", "\r\n", "\n\n", "😀", "\ufeff", "\u2028"]
)


@given(st.lists(TOKENS, max_size=30), st.lists(st.integers(0, 60), max_size=6))
def test_where_the_bytes_are_cut_changes_nothing(tokens, cuts):
    """Inside a character, between CR and LF, anywhere."""
    stream = "".join(tokens).encode()
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]

    assert parse(*(stream[a:b] for a, b in pairwise(places))) == slowly(stream)
