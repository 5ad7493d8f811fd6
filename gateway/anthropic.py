"""Anthropic's messages, version 2023-06-01: https://platform.claude.com/docs/en/api/messages.

The system's word stands apart, an answer has a limit always, tool calls and their results are blocks of content. What
it has no word for (seed, top_p beside temperature) is left out. Nothing is marked for its prompt cache, so nothing is
written there; what it read from there is counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.adapter import Ask, Finish, Message, Piece, Usage, text_of
from gateway.translate import Image, arguments_of, chosen, functions_of, merged, parts_of, schema_of, system_of, turns
from gateway.wire import Reader, count, given, usage_of

BASE_URL = "https://api.anthropic.com/v1"
HEADERS = {"anthropic-version": "2023-06-01"}
_FINISH: Mapping[str, Finish] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_JSON = "Answer with one JSON object and nothing else."


@dataclass(frozen=True, slots=True)
class Anthropic:
    """The wire format.   max_tokens: of an answer, where the request does not say."""

    max_tokens: int = 4096

    def request(self, model: str, ask: Ask, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """See Wire. A temperature above 1, the highest here, counts as 1."""
        wants_json, schema = schema_of(ask)
        system = "\n\n".join(part for part in (system_of(ask), _JSON if wants_json and schema is None else "") if part)
        said = merged((role, blocks) for role, blocks in map(_blocks, turns(ask)))
        functions = functions_of(ask)
        body = given(
            {
                "model": model,
                "max_tokens": self.max_tokens if ask.max_tokens is None else ask.max_tokens,
                "messages": [{"role": role, "content": blocks} for role, blocks in said],
                "stream": stream,
                "system": system or None,
                "tools": [_tool(one) for one in functions] or None,
                "tool_choice": _choice(ask) if functions else None,
                "temperature": None if ask.temperature is None else min(ask.temperature, 1.0),
                "top_p": ask.top_p if ask.temperature is None else None,  # its models refuse the two together
                "stop_sequences": [stop for stop in ask.stop if stop.strip()] or None,
                "output_config": {"format": {"type": "json_schema", "schema": schema}} if schema else None,
            }
        )
        return "/messages", body

    def whole(self, body: Any) -> Piece:  # noqa: ANN401 - parsed JSON
        """See Wire."""
        blocks = body["content"]
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        uses = (block for block in blocks if block["type"] == "tool_use")
        calls = tuple(_call(i, use, json.dumps(use["input"])) for i, use in enumerate(uses))
        return Piece(text, calls, _finish(body.get("stop_reason")), _usage(body["usage"]))

    def reader(self) -> Reader:
        """See Wire."""
        return _Reader()


class _Reader:
    def __init__(self) -> None:
        self.finished = self.done = False
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, int] = {}  # index of a block -> that of the tool call

    def read(self, body: Any) -> Iterator[Piece]:  # noqa: ANN401 - parsed JSON
        """See Reader. Its documentation asks to pass over types of events that one does not know."""
        match body["type"]:
            case "message_start":
                self._usage |= given(body["message"].get("usage") or {})
            case "content_block_start":
                yield from self._start(body["index"], body["content_block"])
            case "content_block_delta":
                yield from self._delta(body["index"], body["delta"])
            case "message_delta":
                self._usage |= given(body.get("usage") or {})  # counts are of the whole so far
                if why := body["delta"].get("stop_reason"):
                    self.finished = True
                    yield Piece(finish=_finish(why), usage=_usage(self._usage))
            case "message_stop":
                self.done = True

    def _start(self, index: int, block: Mapping[str, Any]) -> Iterator[Piece]:
        if block["type"] == "tool_use":
            self._calls[index] = len(self._calls)
            yield Piece(
                tool_calls=(_call(self._calls[index], block, json.dumps(block["input"]) if block.get("input") else ""),)
            )
        elif block["type"] == "text" and block.get("text"):
            yield Piece(block["text"])

    def _delta(self, index: int, delta: Mapping[str, Any]) -> Iterator[Piece]:
        if delta["type"] == "text_delta":
            yield Piece(delta["text"])
        elif delta["type"] == "input_json_delta" and index in self._calls and delta["partial_json"]:
            more = {"index": self._calls[index], "function": {"arguments": delta["partial_json"]}}
            yield Piece(tool_calls=(more,))


def _blocks(message: Message) -> tuple[str, Sequence[Any]]:
    """A message as a role and blocks of content; the result of a tool is the user's."""
    if message.get("role") == "tool":
        result = {"type": "tool_result", "tool_use_id": _id(message.get("tool_call_id"))}
        return "user", [{**result, "content": text_of(message)}]
    said = [_block(part) for part in parts_of(message)]
    uses = [
        {"type": "tool_use", "id": _id(call.get("id")), "name": call["function"]["name"], "input": arguments_of(call)}
        for call in message.get("tool_calls") or ()
    ]
    return ("assistant" if message.get("role") == "assistant" else "user"), [*said, *uses]


def _block(part: str | Image) -> Mapping[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if part.url:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": part.type, "data": part.data}}


def _id(given_id: object) -> str:
    """Other providers' ids hold characters that this one refuses."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", str(given_id))


def _tool(function: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return given({"name": function.get("name"), "description": function.get("description"), "input_schema": schema})


def _choice(ask: Ask) -> Mapping[str, Any]:
    choice, name = chosen(ask)
    return {"type": "tool", "name": name} if name else {"type": {"required": "any"}.get(choice, choice)}


def _call(index: int, use: Mapping[str, Any], arguments: str) -> Mapping[str, Any]:
    function = {"name": use["name"], "arguments": arguments}
    return {"index": index, "id": use["id"], "type": "function", "function": function}


def _finish(why: str | None) -> Finish:
    return _FINISH.get(why or "", "stop")


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Its input_tokens are those that its cache neither gave nor took."""
    read = count(usage, "cache_read_input_tokens")
    fresh = count(usage, "input_tokens", "cache_creation_input_tokens")
    return usage_of(fresh + read, count(usage, "output_tokens"), read)
