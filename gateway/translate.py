"""What two wire formats need alike to leave OpenAI's form of messages, and to come back to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.adapter import Ask, Message, ToolCall, text_of
from gateway.wire import cannot

_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)(?:;[\w=.-]+)*;base64,(?P<data>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a message: its base64 data and their type, or an address where it lies."""

    type: str = ""
    data: str = ""
    url: str = ""


def system_of(ask: Ask) -> str:
    """All that the system says, which the other two formats keep apart from the conversation."""
    said = [text_of(one) for one in ask.messages if one.get("role") in ("system", "developer")]
    return "\n\n".join(text for text in said if text)


def turns(ask: Ask) -> Iterator[Message]:
    """The messages that are not the system's."""
    for message in ask.messages:
        if message.get("role") not in ("system", "developer"):
            yield message


def parts_of(message: Message) -> Iterator[str | Image]:
    """The texts and images of a message; raises GatewayError, `bad_request`, for anything else."""
    content = message.get("content") or ()
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        kind = part.get("type")
        if kind == "text":
            if part.get("text"):
                yield str(part["text"])
        elif kind == "refusal":
            yield str(part.get("refusal") or "")
        elif kind == "image_url":
            yield _image(part.get("image_url"))
        else:
            raise cannot(f"a message must hold text and images for this model, but holds {kind!r}", "leave that out")


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments of a tool call as an object; raises GatewayError, `bad_request`, where they are none."""
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError):
        arguments = None
    if not isinstance(arguments, dict):
        name = function.get("name")
        raise cannot(f"arguments of a tool call must be a JSON object, but those of {name!r} are none", "correct them")
    return arguments


def functions_of(ask: Ask) -> list[Mapping[str, Any]]:
    """The functions of the tools; raises GatewayError, `bad_request`, for tools of another type."""
    for tool in ask.tools:
        if tool.get("type", "function") != "function" or not isinstance(tool.get("function"), Mapping):
            raise cannot(f"a tool must be a function for this model, but is {tool.get('type')!r}", "leave it out")
    return [tool["function"] for tool in ask.tools]


def chosen(ask: Ask) -> tuple[str, str | None]:
    """What the tool choice says: "auto", "none", "required" or "function", and then its name."""
    choice = ask.tool_choice
    if isinstance(choice, Mapping):
        name = (choice.get("function") or {}).get("name")
        if not isinstance(name, str):
            raise cannot("a tool_choice must name a function", 'give {"type": "function", "function": {"name": …}}')
        return "function", name
    return choice or "auto", None


def schema_of(ask: Ask) -> tuple[bool, Mapping[str, Any] | None]:
    """Whether JSON is wanted, and by which schema."""
    wanted = ask.response_format or {}
    schema = (wanted.get("json_schema") or {}).get("schema") if wanted.get("type") == "json_schema" else None
    return wanted.get("type") in ("json_object", "json_schema"), schema


def merged(said: Iterable[tuple[str, Sequence[Any]]]) -> Iterator[tuple[str, list[Any]]]:
    """Roles and what they said, with neighbours of one role made one: results of parallel calls must come together."""
    role, parts = "", list[Any]()
    for next_role, more in said:
        if next_role != role:
            if parts:
                yield role, parts
            role, parts = next_role, []
        parts = [*parts, *more]
    if parts:
        yield role, parts


def _image(given: object) -> Image:
    url = given.get("url") if isinstance(given, Mapping) else given
    if isinstance(url, str) and (found := _DATA_URL.fullmatch(url)):
        return Image(found["type"], found["data"])
    if isinstance(url, str) and url.startswith(("https://", "http://")):
        return Image(url=url)
    raise cannot("an image must be a data URL in base64 or an http(s) address, but is neither", "give one of these")
