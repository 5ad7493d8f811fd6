"""Facts about OpenAI's format: its official types go in and out, of servers alike and nearly alike."""

from __future__ import annotations

import time

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter

from gateway.adapter import Ask, Usage
from tests.gateway.provider import ADD, ASK, KEY, TALK, as_events, as_json, data, joined, talk

USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 5,
    "total_tokens": 25,
    "prompt_tokens_details": {"cached_tokens": 12},
}


def chunk(delta: dict | None, finish: str | None = None, **more: object) -> dict:
    """A chunk as OpenAI's own client would read it."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    body = {"id": "c", "object": "chat.completion.chunk", "created": int(time.time()), "model": "m", "choices": choices}
    return ChatCompletionChunk.model_validate(body | more).model_dump(mode="json")


def completion(message: dict, finish: str = "stop") -> dict:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, "logprobs": None}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": USAGE}
    return ChatCompletion.model_validate(body).model_dump(mode="json")


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_is_what_the_official_client_sends(stream):
    """Validated by its own types; `extra` goes along, and replaces nothing of ours."""
    reply = (
        as_events(*data(chunk({"content": "3"}, "stop"), done=True))
        if stream
        else as_json(completion({"content": "3"}))
    )

    _, served = talk("openai", reply, ASK, stream=stream)

    (body,) = served.bodies
    shape = CompletionCreateParamsStreaming if stream else CompletionCreateParamsNonStreaming
    TypeAdapter(shape).validate_python(body)
    assert served.paths == ["/v1/chat/completions"]
    assert served.headers[0]["authorization"] == f"Bearer {KEY}"
    assert served.headers[0]["accept-encoding"] == "identity"
    assert body["messages"] == list(TALK)
    assert (body["model"], body["user"], body["tools"], body["seed"]) == ("m", "u1", [ADD], 7)
    assert (body["max_tokens"], body["temperature"], body["stop"]) == (64, 1.5, ["END"])
    assert body["stream"] is stream
    assert body.get("stream_options") == ({"include_usage": True} if stream else None)


def test_what_nobody_said_is_left_to_the_provider():
    """And a model that refuses temperature and top_p is not given them."""
    _, served = talk("openai", as_json(completion({"content": "x"})), Ask.of("hi"), stream=False)
    assert set(served.bodies[0]) == {"model", "messages", "stream"}

    settings = {"sampling": False, "max_tokens_name": "max_completion_tokens"}
    _, served = talk("openai", as_json(completion({"content": "x"})), ASK, stream=False, **settings)
    assert {"temperature", "top_p", "max_tokens"} & set(served.bodies[0]) == set()
    assert served.bodies[0]["max_completion_tokens"] == 64


def test_a_stream_comes_in_pieces_with_its_usage():
    """Text as it comes, cut inside a character; the usage comes after the finish."""
    events = "".join(
        data(chunk({"role": "assistant", "content": ""}), chunk({"content": "dé"}), chunk({"content": "jà"}))
        + data(chunk({}, "stop"), chunk(None, usage=USAGE), done=True)
    ).replace("\\u00e9", "é")
    raw = events.encode()
    at = raw.index("é".encode()) + 1

    pieces, _ = talk("openai", as_events(raw[:at], raw[at:]), Ask.of("hi"))

    assert [piece.text for piece in pieces] == ["dé", "jà", "", ""]
    assert pieces[2].finish == "stop"
    assert pieces[3].usage == Usage(20, 5, 12)


def test_tool_calls_stream_through():
    """Two at once, their arguments in deltas; a server that says "stop" for them is understood."""
    deltas = [
        {"index": 0, "id": "call_a", "type": "function", "function": {"name": "add", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
        {"index": 1, "id": "call_b", "type": "function", "function": {"name": "add", "arguments": "{}"}},
    ]
    events = data(*(chunk({"tool_calls": [delta]}) for delta in deltas), chunk({}, "stop"), done=True)

    pieces, _ = talk("openai", as_events(*events), Ask(TALK, tools=(ADD,)))

    _, calls = joined(pieces)
    assert calls[0] == {"id": "call_a", "name": "add", "arguments": '{"a": 1}'}
    assert calls[1] == {"id": "call_b", "name": "add", "arguments": "{}"}
    assert pieces[-1].finish == "tool_calls"


def test_an_answer_in_one():
    """Text, tool calls with their index, finish and usage."""
    call = {"id": "call_a", "type": "function", "function": {"name": "add", "arguments": "{}"}}

    ((piece,), _) = talk(
        "openai", as_json(completion({"content": None, "tool_calls": [call]}, "tool_calls")), ASK, stream=False
    )

    assert piece.tool_calls[0]["index"] == 0
    assert piece.tool_calls[0]["function"] == call["function"]
    assert (piece.finish, piece.usage) == ("tool_calls", Usage(20, 5, 12))


@pytest.mark.parametrize(
    ("why", "finish"), [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("eos", "stop")]
)
def test_why_it_stopped(why, finish):
    """Reasons of other servers that nobody knows are a stop."""
    body = completion({"content": "x"})
    body["choices"][0]["finish_reason"] = why

    ((piece,), _) = talk("openai", as_json(body), Ask.of("hi"), stream=False)

    assert piece.finish == finish


def test_servers_nearly_alike_are_understood():
    """A refusal is an answer, thoughts are not; text in parts; no usage; no [DONE] after the finish."""
    body = completion({"content": None, "refusal": "I will not."})
    assert talk("openai", as_json(body), Ask.of("hi"), stream=False)[0][0].text == "I will not."

    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hi"}]
    body = {"choices": [{"message": {"content": parts}}]}
    ((piece,), _) = talk("openai", as_json(body), Ask.of("hi"), stream=False)
    assert (piece.text, piece.finish, piece.usage) == ("Hi", "stop", None)

    events = data({"choices": [{"delta": {"reasoning_content": "hm"}}]}, {"choices": [{"delta": {"content": "Hi"}}]})
    pieces, _ = talk(
        "openai", as_events(*events, *data({"choices": [{"delta": {}, "finish_reason": "stop"}]})), Ask.of("hi")
    )
    assert [piece.text for piece in pieces] == ["Hi", ""]


def test_what_gemini_hung_on_a_call_is_not_sent_to_another():
    """Strict servers refuse fields that they do not know."""
    call = {**TALK[2]["tool_calls"][0], "extra_content": {"google": {"thought_signature": "c2ln"}}}
    ask = Ask(({"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [call]}))

    _, served = talk("openai", as_json(completion({"content": "x"})), ask, stream=False)

    assert served.bodies[0]["messages"][1]["tool_calls"] == [TALK[2]["tool_calls"][0]]
