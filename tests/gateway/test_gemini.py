"""Facts about Gemini's format: OpenAI's form goes in, and comes out again."""

from __future__ import annotations

import json

import pytest

from gateway.adapter import Ask, GatewayError, Usage
from gateway.gemini import Gemini
from tests.gateway.provider import ADD, ASK, KEY, TALK, as_events, as_json, data, talk

USAGE = {"promptTokenCount": 20, "candidatesTokenCount": 4, "thoughtsTokenCount": 6, "cachedContentTokenCount": 12}


def chunk(*parts: dict, why: str | None = None, usage: dict | None = None) -> dict:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0} | (
        {"finishReason": why} if why else {}
    )
    return {"candidates": [candidate], "modelVersion": "m"} | ({"usageMetadata": usage} if usage else {})


def test_a_request_in_its_form():
    """The assistant is the model, results go by the function's name, all of one turn together."""
    _, served = talk("gemini", as_json(chunk({"text": "3"}, why="STOP")), ASK, stream=False)

    assert served.paths == ["/v1/models/m:generateContent"]  # the key is not in the address
    assert served.headers[0]["x-goog-api-key"] == KEY
    call = {"name": "add"}
    assert served.bodies[0] == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "1+2?"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}],
            },
            {
                "role": "model",
                "parts": [
                    {
                        "functionCall": call | {"id": "call:1", "args": {"a": 1}},
                        "thoughtSignature": "skip_thought_signature_validator",
                    },
                    {"functionCall": call | {"id": "call:2", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": call | {"id": "call:1", "response": {"sum": 3}}},
                    {"functionResponse": call | {"id": "call:2", "response": {"output": "unclear"}}},
                    {"text": "Go on."},
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "add", "description": "Adds.", "parametersJsonSchema": ADD["function"]["parameters"]}
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        "generationConfig": {
            "maxOutputTokens": 64,
            "temperature": 1.5,
            "topP": 0.9,
            "stopSequences": ["END"],
            "seed": 7,
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
        },
    }


def test_a_stream_in_pieces():
    """Thoughts are passed over but billed; the usage comes with the finish."""
    events = data(
        chunk({"text": "hm", "thought": True}, usage={"promptTokenCount": 20}),
        chunk({"text": "dé"}),
        chunk({"text": "jà"}, why="STOP", usage=USAGE),
    )

    pieces, served = talk("gemini", as_events(*events), Ask.of("hi"))

    assert served.paths == ["/v1/models/m:streamGenerateContent?alt=sse"]
    assert served.bodies[0] == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    assert [piece.text for piece in pieces] == ["dé", "jà"]
    assert (pieces[-1].finish, pieces[-1].usage) == ("stop", Usage(20, 10, 12))


def test_a_tool_call_and_its_signature_come_back_as_they_went():
    """What the model signed is sent back with the call, under an id that it may lack itself."""
    call = {"functionCall": {"name": "add", "args": {"a": 1}}, "thoughtSignature": "c2ln"}
    pieces, _ = talk("gemini", as_events(*data(chunk(call), chunk(call, why="STOP", usage=USAGE))), ASK)

    first, second = (made for piece in pieces for made in piece.tool_calls)
    assert (first["index"], second["index"]) == (0, 1)
    assert first["id"] != second["id"]
    assert json.loads(first["function"]["arguments"]) == {"a": 1}
    assert pieces[-1].finish == "tool_calls"
    again = Ask(({"role": "assistant", "content": "", "tool_calls": [first]},))
    _, body = Gemini().request("gemini-3-pro", again, stream=False)
    assert body["contents"][0]["parts"] == [
        call | {"functionCall": {"id": first["id"], "name": "add", "args": {"a": 1}}}
    ]


def test_models_that_never_sign_get_no_stand_in_for_a_signature():
    """It would be no signature of theirs."""
    _, body = Gemini().request("gemini-2.5-pro", Ask(TALK), stream=False)
    assert "thoughtSignature" not in json.dumps(body)


@pytest.mark.parametrize(
    ("why", "finish"),
    [("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("IMAGE_SAFETY", "content_filter"), ("OTHER", "stop")],
)
def test_why_it_stopped(why, finish):
    """In the house's words."""
    ((piece,), _) = talk("gemini", as_json(chunk({"text": "x"}, why=why)), ASK, stream=False)
    assert piece.finish == finish


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": USAGE}, "filtered"),
        (chunk(why="SAFETY", usage=USAGE), "filtered"),
        (chunk(why="MALFORMED_FUNCTION_CALL", usage=USAGE), "empty"),
    ],
)
def test_what_was_blocked_or_came_to_nothing_is_no_answer(body, kind, stream):
    """Prompt or answer; and the tokens were paid for."""
    with pytest.raises(GatewayError) as caught:
        talk("gemini", as_events(*data(body)) if stream else as_json(body), ASK, stream=stream)

    assert caught.value.kind == kind
    if not stream:
        assert caught.value.usage == Usage(20, 10, 12)


def test_a_result_without_its_call_is_a_request_at_fault():
    """Gemini wants the function's name, which only the call tells."""
    with pytest.raises(GatewayError, match="must answer a call") as caught:
        talk("gemini", as_json({}), Ask(TALK[3:]), stream=False)

    assert caught.value.kind == "bad_request"
