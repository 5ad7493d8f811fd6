"""Facts about Anthropic's format: OpenAI's form goes in, and comes out again."""

from __future__ import annotations

import pytest

from gateway.adapter import Ask, GatewayError, Usage
from tests.gateway.provider import ADD, ASK, KEY, TALK, as_events, as_json, data, joined, talk


def whole(content: list, why: str = "end_turn") -> dict:
    usage = {"input_tokens": 9, "cache_creation_input_tokens": 1, "cache_read_input_tokens": 10, "output_tokens": 4}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": why,
        "usage": usage,
    }


def named(*bodies: dict) -> list[str]:
    """Events as Anthropic writes them: each with the name of its type."""
    return [f"event: {body['type']}\n{event}" for body, event in zip(bodies, data(*bodies), strict=True)]


START = {"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}
STOP = {"type": "message_stop"}


def text(said: str, index: int = 0) -> dict:
    return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": said}}


def test_a_request_in_its_form():
    """System apart, a limit always, blocks of content; results of parallel calls in one message; ids it accepts."""
    _, served = talk("anthropic", as_json(whole([{"type": "text", "text": "3"}])), ASK, stream=False)

    assert served.paths == ["/v1/messages"]
    assert served.headers[0]["x-api-key"] == KEY
    assert served.headers[0]["anthropic-version"] == "2023-06-01"
    assert "authorization" not in served.headers[0]
    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    use = {"type": "tool_use", "name": "add"}
    assert served.bodies[0] == {
        "model": "m",
        "max_tokens": 64,
        "stream": False,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "1+2?"}, {"type": "image", "source": image}]},
            {
                "role": "assistant",
                "content": [use | {"id": "call_1", "input": {"a": 1}}, use | {"id": "call_2", "input": {}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": '{"sum": 3}'},
                    {"type": "tool_result", "tool_use_id": "call_2", "content": "unclear"},
                    {"type": "text", "text": "Go on."},
                ],
            },
        ],
        "tools": [{"name": "add", "description": "Adds.", "input_schema": ADD["function"]["parameters"]}],
        "tool_choice": {"type": "any"},
        "temperature": 1.0,
        "stop_sequences": ["END"],
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    }


def test_what_nobody_said():
    """The provider insists on a limit; JSON without a schema is asked for in words."""
    reply = as_json(whole([{"type": "text", "text": "x"}]))
    ask = Ask(({"role": "user", "content": "x"},), response_format={"type": "json_object"}, top_p=0.5)

    _, served = talk("anthropic", reply, ask, stream=False, max_tokens=99)

    body = served.bodies[0]
    assert (body["max_tokens"], body["top_p"]) == (99, 0.5)
    assert "JSON object" in body["system"]
    assert set(body) == {"model", "max_tokens", "messages", "stream", "system", "top_p"}


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "add"}}, {"type": "tool", "name": "add"}),
    ],
)
def test_the_choice_of_a_tool(choice, told):
    """As its own words say it."""
    reply = as_json(whole([{"type": "text", "text": "x"}]))
    _, served = talk("anthropic", reply, Ask(TALK, tools=(ADD,), tool_choice=choice), stream=False)

    assert served.bodies[0]["tool_choice"] == told


def test_a_stream_of_text_and_tool_calls():
    """Thoughts, pings and events of tomorrow are passed over; calls are counted by themselves."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}}
    events = named(
        START,
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "ping"},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        text("Adding", 1),
        text("…", 1),
        {"type": "of_tomorrow", "anything": [1]},
        {"type": "content_block_start", "index": 2, "content_block": use},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": " 1}"}},
        {"type": "content_block_start", "index": 3, "content_block": use | {"id": "toolu_2"}},
        END | {"delta": {"stop_reason": "tool_use"}},
        STOP,
    )

    pieces, served = talk("anthropic", as_events(*events), ASK)

    said, calls = joined(pieces)
    assert served.bodies[0]["stream"] is True
    assert said == "Adding…"
    assert calls[0] == {"id": "toolu_1", "name": "add", "arguments": '{"a": 1}'}
    assert calls[1]["id"] == "toolu_2"
    assert (pieces[-1].finish, pieces[-1].usage) == ("tool_calls", Usage(25, 15, 0))


def test_an_answer_in_one():
    """What its cache gave and took is part of the input; what it gave is told apart."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}}

    ((piece,), _) = talk(
        "anthropic", as_json(whole([{"type": "text", "text": "Hm. "}, use], "tool_use")), ASK, stream=False
    )

    assert joined([piece]) == ("Hm. ", {0: {"id": "toolu_1", "name": "add", "arguments": '{"a": 1}'}})
    assert (piece.finish, piece.usage) == ("tool_calls", Usage(20, 4, 10))


@pytest.mark.parametrize(
    ("why", "finish"),
    [("stop_sequence", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"), ("pause_turn", "stop")],
)
def test_why_it_stopped(why, finish):
    """In the house's words."""
    pieces, _ = talk("anthropic", as_events(*named(START, text("x"), END | {"delta": {"stop_reason": why}}, STOP)), ASK)

    assert pieces[-1].finish == finish


def test_an_error_in_the_stream_has_its_kind_and_leaves_what_came():
    """Overloaded after the first word."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(GatewayError, match="529 overloaded_error") as caught:
        talk("anthropic", as_events(*named(START, text("x"), error)), ASK)

    assert caught.value.kind == "server"


@pytest.mark.parametrize(
    "ask",
    [
        Ask(({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},)),
        Ask(({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]},)),
        Ask(TALK, tools=({"type": "custom", "custom": {}},)),
        Ask(({"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[1]"}}]},)),
        Ask(({"role": "assistant", "tool_calls": [{"id": "1"}]},)),
        Ask(({"role": "user", "content": [7]},)),
        Ask(({"role": "user", "content": "x"},), extra={}, temperature=float("nan")),
    ],
)
@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
def test_what_cannot_be_said_in_a_format_is_not_sent(kind, ask):
    """A request at fault is told as such, before anything is paid."""
    with pytest.raises(GatewayError) as caught:
        talk(kind, as_json({}), ask, stream=False)

    assert caught.value.kind == "bad_request"
