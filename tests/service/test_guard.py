"""The rails of the door: bodies that parsers disagree on, slow and large ones, headers, secrets."""

from __future__ import annotations

import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

import service.gate
from service.errors import InvalidRequestError
from service.strict import DEEPEST, read_json

JSON = {"Content-Type": "application/json"}
AMBIGUOUS = {
    "a name twice": (b'{"prompt": "a", "prompt": "b"}', "'prompt' stands twice"),
    "a name twice, written otherwise": (b'{"prompt": "a", "\\u0070rompt": "b"}', "'prompt' stands twice"),
    "a name twice, inside": (b'{"prompt": "x", "asker": {"requests": 1, "requests": 2}}', "'requests' stands twice"),
    "not a number": (b'{"prompt": "x", "asker": {"requests": 1, "days": NaN}}', "must be finite, but got NaN"),
    "no end": (b'{"context": [Infinity, 1, 2], "domain": "own"}', "must be finite, but got Infinity"),
    "too deep": (b'{"prompt": ' + b"[" * 40 + b"]" * 40 + b"}", "nested at most 32 deep"),
}


@pytest.mark.parametrize(("body", "words"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_body_that_could_be_read_in_two_ways_is_refused(shared, body, words):
    """Nothing is recorded."""
    head = shared.head()
    answer = shared.api.post("/route", content=body, headers=JSON)

    assert (answer.status_code, words in answer.json()["error"]["message"]) == (422, True)
    assert shared.head() == head


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(alphabet='a"\\{[]}'),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=60,
    )
)
def test_json_that_is_sound_passes(value):
    """Brackets and quotes inside of texts count for nothing."""
    assert read_json(json.dumps(value).encode()) == value
    assert read_json(json.dumps({"text": "[" * 100 + '\\"' + "{" * 100}).encode()) is not None


@given(st.integers(1, 60))
def test_depth_is_counted_to_the_last(depth):
    """A list in each, and nothing else."""
    body = b"[" * depth + b"]" * depth
    if depth <= DEEPEST:
        read_json(body)
    else:
        with pytest.raises(InvalidRequestError, match="deep"):
            read_json(body)


def test_a_body_that_does_not_come_is_not_waited_for(shared, monkeypatch):
    """408, and the connection is free."""
    monkeypatch.setattr(service.gate, "PATIENCE_S", 0.05)
    host, port = shared.running.url.removeprefix("http://").split(":")
    head = f"POST /route HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.acme}\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + b'{"prompt"')
        assert connection.recv(65_536).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("ask", [("GET", "/healthz"), ("GET", "/snapshots"), ("GET", "/nowhere"), ("POST", "/route")])
def test_every_answer_carries_the_headers_that_keep_browsers_out(shared, ask):
    """Errors and refusals as well; and none tells what serves."""
    for client in (shared.api, shared.stranger):
        headers = client.request(*ask).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers
