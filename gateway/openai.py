"""OpenAI's chat completions, which vLLM, Ollama, llama.cpp, OpenRouter and many others speak too.

The house's own form of messages, tools and tool calls is this one, so that nearly all of it goes through as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.adapter import Ask, Finish, Message, Piece, Usage
from gateway.wire import Reader, count, given, usage_of

BASE_URL = "https://api.openai.com/v1"
_FINISH: Mapping[str, Finish] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


@dataclass(frozen=True, slots=True)
class OpenAI:
    """The wire format.   max_tokens_name: what the server calls the limit of an answer."""

    max_tokens_name: str = "max_tokens"

    def request(self, model: str, ask: Ask, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """See Wire. What the house has no word for (`extra`) never replaces what it has one for."""
        said = given(
            {
                self.max_tokens_name: ask.max_tokens,
                "tools": list(ask.tools) or None,
                "tool_choice": ask.tool_choice,
                "temperature": ask.temperature,
                "top_p": ask.top_p,
                "stop": list(ask.stop) or None,
                "seed": ask.seed,
                "response_format": ask.response_format,
            }
        )
        body = {**ask.extra, **said}
        body |= {"model": model, "messages": [_own(one) for one in ask.messages], "stream": stream}
        body.pop("stream_options", None)
        if stream:
            body["stream_options"] = {"include_usage": True}
        return "/chat/completions", body

    def whole(self, body: Any) -> Piece:  # noqa: ANN401 - parsed JSON
        """See Wire."""
        (choice,) = (one for one in body["choices"] if one.get("index", 0) == 0)
        message = choice["message"]
        calls = tuple({**call, "index": i} for i, call in enumerate(message.get("tool_calls") or ()))
        return Piece(_text(message), calls, _finish(choice.get("finish_reason") or "stop", bool(calls)), _usage(body))

    def reader(self) -> Reader:
        """See Wire."""
        return _Reader()


class _Reader:
    def __init__(self) -> None:
        self.finished = self.done = False
        self._called = False

    def read(self, body: Any) -> Iterator[Piece]:  # noqa: ANN401 - parsed JSON
        """See Reader. Chunks without a choice, such as that of the usage, come before and after the answer."""
        choice: Mapping[str, Any] = next((one for one in body["choices"] if one.get("index", 0) == 0), {})
        delta, why, usage = choice.get("delta") or {}, choice.get("finish_reason"), _usage(body)
        text, calls = _text(delta), tuple(delta.get("tool_calls") or ())
        self._called = self._called or bool(calls)
        finish = _finish(why, self._called) if why else None
        self.finished = self.finished or finish is not None
        if text or calls or finish or usage:
            yield Piece(text, calls, finish, usage)


def _own(message: Message) -> Message:
    """A message without what other providers hung on its tool calls: strict servers refuse what they do not know."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    return {**message, "tool_calls": [{k: v for k, v in call.items() if k != "extra_content"} for call in calls]}


def _text(said: Mapping[str, Any]) -> str:
    """The text of a message or delta; a model's refusal is its answer, its thoughts are not."""
    content = said.get("content") or said.get("refusal") or ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _finish(why: str, called: bool) -> Finish:
    """Some servers finish with "stop" although they call a tool."""
    finish = _FINISH.get(why, "stop")
    return "tool_calls" if called and finish == "stop" else finish


def _usage(body: Mapping[str, Any]) -> Usage | None:
    usage = body.get("usage")
    if not usage:
        return None
    cached = count(usage.get("prompt_tokens_details") or {}, "cached_tokens")
    return usage_of(count(usage, "prompt_tokens"), count(usage, "completion_tokens"), cached)
