"""Gemini's generateContent, v1beta: https://ai.google.dev/api/generate-content.

The system's word stands apart, the assistant is called "model", results of tools are given by the name of the function.
A call may come with a signature of the thoughts behind it, which the newer models want back: it travels as Google's own
OpenAI-compatible server has it travel, in extra_content.google.thought_signature of the tool call.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from gateway.adapter import Ask, Finish, GatewayError, Message, Piece, ToolCall, Usage, text_of
from gateway.translate import Image, arguments_of, chosen, functions_of, merged, parts_of, schema_of, system_of, turns
from gateway.wire import Reader, cannot, count, given, usage_of

BASE_URL = "https://generativelanguage.googleapis.com/v1beta"
_FILTERED = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR"}
_UNSIGNED = "skip_thought_signature_validator"  # documented for calls that another model made
_NEVER_SIGNS = re.compile(r"(models/)?gemini-[12]\b")
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "function": "ANY"}


@dataclass(frozen=True, slots=True)
class Gemini:
    """The wire format."""

    def request(self, model: str, ask: Ask, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """See Wire."""
        system, functions, names = system_of(ask), functions_of(ask), _names(ask)
        signs = not _NEVER_SIGNS.match(model)
        said = merged(_content(message, names, signs) for message in turns(ask))
        body = given(
            {
                "contents": [{"role": role, "parts": parts} for role, parts in said],
                "systemInstruction": {"parts": [{"text": system}]} if system else None,
                "tools": [{"functionDeclarations": [_declared(one) for one in functions]}] if functions else None,
                "toolConfig": {"functionCallingConfig": _calling(ask)} if functions and ask.tool_choice else None,
                "generationConfig": _settings(ask) or None,
            }
        )
        place = quote(model if "/" in model else f"models/{model}", safe="/")
        return f"/{place}:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}", body

    def whole(self, body: Any) -> Piece:  # noqa: ANN401 - parsed JSON
        """See Wire."""
        return next(_Reader().read(body), Piece())

    def reader(self) -> Reader:
        """See Wire."""
        return _Reader()


class _Reader:
    def __init__(self) -> None:
        self.finished = self.done = False
        self._calls = 0
        self._usage: Usage | None = None

    def read(self, body: Any) -> Iterator[Piece]:  # noqa: ANN401 - parsed JSON
        """See Reader. Each chunk is a whole answer of its own form; the last one says why it stopped."""
        self._usage = _usage(body.get("usageMetadata")) or self._usage
        candidates = body.get("candidates") or ()
        blocked = (body.get("promptFeedback") or {}).get("blockReason")
        if blocked and not candidates:
            raise _blocked(str(blocked), self._usage)
        for candidate in candidates:
            if candidate.get("index", 0) == 0:
                yield from self._candidate(candidate)

    def _candidate(self, candidate: Mapping[str, Any]) -> Iterator[Piece]:
        parts = (candidate.get("content") or {}).get("parts") or ()
        text = "".join(part["text"] for part in parts if part.get("text") and not part.get("thought"))
        calls = []
        for part in parts:
            if "functionCall" in part:
                calls.append(_call(self._calls, part))
                self._calls += 1
        why = candidate.get("finishReason")
        finish = _finish(why, self._calls > 0) if why and why != "FINISH_REASON_UNSPECIFIED" else None
        self.finished = self.done = finish is not None
        if text or calls or finish:
            yield Piece(text, tuple(calls), finish, self._usage if finish else None)


def _content(message: Message, names: Mapping[str, str], signs: bool) -> tuple[str, Sequence[Any]]:
    """A message as a role and parts."""
    if message.get("role") == "tool":
        return "user", [{"functionResponse": _response(message, names)}]
    said = [_part(part) for part in parts_of(message)]
    calls = [_called(call, signs and i == 0) for i, call in enumerate(message.get("tool_calls") or ())]
    return ("model" if message.get("role") == "assistant" else "user"), [*said, *calls]


def _part(part: str | Image) -> Mapping[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if part.url:
        raise cannot("an image must come as a data URL for this model, but is an address", "send the image itself")
    return {"inlineData": {"mimeType": part.type, "data": part.data}}


def _called(call: ToolCall, wants_signature: bool) -> Mapping[str, Any]:
    signed = ((call.get("extra_content") or {}).get("google") or {}).get("thought_signature")
    signature = signed or (_UNSIGNED if wants_signature else None)
    function = {"id": call.get("id"), "name": call["function"]["name"], "args": arguments_of(call)}
    return given({"functionCall": given(function), "thoughtSignature": signature})


def _response(message: Message, names: Mapping[str, str]) -> Mapping[str, Any]:
    id_ = str(message.get("tool_call_id"))
    if id_ not in names:
        raise cannot(f"a tool's result must answer a call that came before it, but {id_!r} is none", "send that too")
    text = text_of(message)
    try:
        result = json.loads(text)
    except ValueError:
        result = None
    return {"id": id_, "name": names[id_], "response": result if isinstance(result, dict) else {"output": text}}


def _names(ask: Ask) -> Mapping[str, str]:
    """The name of the function of each call, by the call's id."""
    calls = (call for message in ask.messages for call in message.get("tool_calls") or ())
    return {str(call.get("id")): call["function"]["name"] for call in calls}


def _declared(function: Mapping[str, Any]) -> Mapping[str, Any]:
    return given(
        {
            "name": function.get("name"),
            "description": function.get("description"),
            "parametersJsonSchema": function.get("parameters"),
        }
    )


def _calling(ask: Ask) -> Mapping[str, Any]:
    choice, name = chosen(ask)
    return given({"mode": _MODES.get(choice, "AUTO"), "allowedFunctionNames": [name] if name else None})


def _settings(ask: Ask) -> Mapping[str, Any]:
    wants_json, schema = schema_of(ask)
    return given(
        {
            "maxOutputTokens": ask.max_tokens,
            "temperature": ask.temperature,
            "topP": ask.top_p,
            "stopSequences": list(ask.stop) or None,
            "seed": ask.seed,
            "responseMimeType": "application/json" if wants_json else None,
            "responseJsonSchema": schema,
        }
    )


def _call(index: int, part: Mapping[str, Any]) -> Mapping[str, Any]:
    call, signature = part["functionCall"], part.get("thoughtSignature")
    function = {"name": call["name"], "arguments": json.dumps(call.get("args") or {})}
    made = {
        "index": index,
        "id": call.get("id") or f"call_{uuid.uuid4().hex}",
        "type": "function",
        "function": function,
    }
    return {**made, "extra_content": {"google": {"thought_signature": signature}}} if signature else made


def _finish(why: str, called: bool) -> Finish:
    if why == "MAX_TOKENS":
        return "length"
    if why in _FILTERED or why.startswith("IMAGE_"):
        return "content_filter"
    return "tool_calls" if called else "stop"


def _blocked(reason: str, usage: Usage | None) -> GatewayError:
    return GatewayError(
        f"a prompt must pass the provider's filters, but was blocked ({reason[:40]}); change it, or ask another.",
        kind="filtered",
        usage=usage,
    )


def _usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """Thoughts are billed as output, what tools brought in as input."""
    if not usage:
        return None
    return usage_of(
        count(usage, "promptTokenCount", "toolUsePromptTokenCount"),
        count(usage, "candidatesTokenCount", "thoughtsTokenCount"),
        count(usage, "cachedContentTokenCount"),
    )
