"""Facts about a recording: it speaks the port, invents nothing, and names the line that is broken."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.adapter import Ask, GatewayError, Piece
from gateway.replay import Recording, Replay

RECORDINGS = {"hello": {"m": Recording(0.5, 1e-4, "hi"), "n": Recording(1.0, 2e-4)}}


def test_it_answers_as_any_provider_streaming_or_not():
    """The text, then why it ended and what that was worth."""
    replay, ask = Replay(RECORDINGS), Ask.of("hello")

    async def both() -> tuple[list[Piece], list[Piece]]:
        return list(await replay.complete("m", ask)), [piece async for piece in replay.stream("m", ask)]

    whole, streamed = asyncio.run(both())
    assert whole == streamed == [Piece("hi"), Piece(finish="stop", quality=0.5, cost_usd=1e-4)]


def test_it_reads_the_last_that_the_user_said():
    """Whatever came before, and whichever form the content has."""
    said = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": "no"},
        {"role": "assistant", "content": "y"},
    ]
    ask = Ask((*said, {"role": "user", "content": [{"type": "text", "text": "hello"}]}))

    assert asyncio.run(Replay(RECORDINGS).complete("m", ask))[0].text == "hi"


def test_it_invents_nothing():
    """A prompt or a model that was not recorded is an error; a text that was not kept is said to be missing."""
    replay = Replay(RECORDINGS)

    assert "text was not kept" in asyncio.run(replay.complete("n", Ask.of("hello")))[0].text
    for model, prompt, message in (("z", "hello", "has m, n for this prompt, but not 'z'"), ("m", "x", "1 recorded")):
        with pytest.raises(GatewayError, match=message) as caught:
            replay.recorded(model, prompt)
        assert caught.value.kind == "unknown_prompt"


def test_a_recording_reads_back_from_json_lines(tmp_path):
    """One line a reply; characters that some take for line ends stay inside the text."""
    path = tmp_path / "r.jsonl"
    row = {"prompt": "a\u2028b", "model": "m", "quality": 0.5, "cost_usd": 1e-4, "text": "x\u2028y"}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n\n", encoding="utf-8")

    assert Replay.read(path).recorded("m", "a\u2028b") == Recording(0.5, 1e-4, "x\u2028y")


@pytest.mark.parametrize(
    "line",
    ["not json", "[1]", '{"prompt": "p", "model": "m"}', '"text"']
    + [
        json.dumps({"prompt": "p", "model": "m", "quality": 0.5, "cost_usd": 0.1} | odd)
        for odd in (
            {"quality": 1.5},
            {"quality": "much"},
            {"cost_usd": -1},
            {"cost_usd": float("nan")},
            {"prompt": ["p"]},
            {"text": 7},
        )
    ],
)
def test_a_broken_recording_names_its_line(tmp_path, line):
    """The one who wrote it must find it."""
    path = tmp_path / "r.jsonl"
    path.write_text('{"prompt": "p", "model": "m", "quality": 1, "cost_usd": 0}\n' + line + "\n", encoding="utf-8")

    with pytest.raises(GatewayError, match=r"r\.jsonl, line 2"):
        Replay.read(path)
