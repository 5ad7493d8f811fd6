"""The port to language models: what is asked, what comes back in pieces, how it fails. Every provider speaks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from bandits.errors import PilotageError

Message = Mapping[str, Any]  # in OpenAI's form: {"role", "content", "tool_calls"?, "tool_call_id"?}; content: or parts
ToolCall = Mapping[str, Any]  # in OpenAI's form: {"id", "type": "function", "function": {"name", "arguments"}}
Finish = Literal["stop", "length", "tool_calls", "content_filter"]

Failure = Literal[
    "refused",  # no connection
    "rate_limited",  # 429
    "no_credit",  # 402
    "denied",  # 401, 403
    "server",  # 5xx
    "bad_request",  # any other 4xx: asking the same model again is in vain
    "too_long",  # the prompt does not fit the model's context
    "filtered",  # the provider's policy refused the content
    "connect_timeout",
    "first_token_timeout",
    "stalled",  # no token for too long, after the first
    "total_timeout",
    "cut",  # the connection ended before the answer did
    "malformed",  # what came is not the provider's format
    "wrong_type",  # nor its content type
    "too_large",
    "empty",  # a success without text or tool call is none
    "unknown_prompt",  # a recording does not have it
    "resting",  # it was not even asked: its breaker is open
]


class GatewayError(PilotageError):
    """A model did not answer. `cost_usd` is what the attempt cost all the same.

    kind: what went wrong.   retry_after_s: how long the provider asks to be left alone; None where it does not say.
    usage: the tokens that it bills all the same, where it said so in no piece.
    """

    def __init__(
        self,
        message: str,
        cost_usd: float = 0.0,
        *,
        kind: Failure = "server",
        retry_after_s: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.cost_usd = cost_usd
        self.kind: Failure = kind
        self.retry_after_s = retry_after_s
        self.usage = usage


@dataclass(frozen=True, slots=True)
class Ask:
    """What a model is asked. What is None or empty is left to the provider."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()  # in OpenAI's form
    tool_choice: str | Mapping[str, Any] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_format: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # passed through to OpenAI-compatible servers only

    @classmethod
    def of(cls, prompt: str) -> Ask:
        """One user message."""
        return cls(({"role": "user", "content": prompt},))

    @property
    def prompt(self) -> str:
        """The text of the last user message."""
        return next((text_of(one) for one in reversed(self.messages) if one.get("role") == "user"), "")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider counts them. cached: those of the input that it had read before."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer as it streams. tool_calls: deltas in OpenAI's form, with "index".

    quality: [0, 1] where a recording has a judgement.   cost_usd: where it has that; else usage and prices tell.
    restart: what came before is void, another model begins anew; only the gateway says so, and only where allowed to.
    """

    text: str = ""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    quality: float | None = None
    cost_usd: float | None = None
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered, and what that took. quality: [0, 1] where a judge has spoken already, else None."""

    text: str
    model: str
    cost_usd: float
    latency_s: float
    quality: float | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish = "stop"
    usage: Usage | None = None
    first_token_s: float | None = None


class Adapter(Protocol):
    """One provider of models. Knows its wire format, and nothing of retries, deadlines or decisions."""

    def stream(self, model: str, ask: Ask) -> AsyncIterator[Piece]:
        """The answer of `model` in pieces; the last ones carry finish and usage. Raises GatewayError.

        Cancelled, it lets go of the connection. It sets no deadline of its own.
        """

    async def complete(self, model: str, ask: Ask) -> tuple[Piece, ...]:
        """The same without streaming: asked for in one reply of the provider. Raises GatewayError."""

    async def close(self) -> None:
        """Let go of connections."""


def text_of(message: Message) -> str:
    """The text of a message, whichever of OpenAI's two forms its content has."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
