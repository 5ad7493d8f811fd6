"""OpenAI's chat completions, in and out: what is read, what is passed on, and what is refused as it would be lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.adapter import Ask, Usage

MOST_MESSAGES = 1_000
PASSED = (  # fields that go to OpenAI-compatible servers as they are, and are left out for others
    "frequency_penalty", "logit_bias", "logprobs", "metadata", "modalities", "parallel_tool_calls", "prediction",
    "presence_penalty", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "safety_identifier",
    "service_tier", "store", "top_logprobs", "verbosity", "web_search_options",
)  # fmt: skip


class MessageBody(BaseModel):
    """A message in OpenAI's form; what else stands in it is passed on."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(BaseModel):
    """What a stream should say."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatBody(BaseModel):
    """A chat completion as OpenAI's clients ask for it. A field that nobody here knows is refused, not lost."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"model": "auto", "messages": [{"role": "user", "content": "Explain tail recursion."}]}],
            "description": f"Passed on as they are: {', '.join(PASSED)}.",
        },
    )

    model: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="auto, auto:DOMAIN, auto:DOMAIN@WORKSPACE; or an arm or a model by name, which is then asked "
        "whatever the policy thinks, and never learned from."
    )
    messages: Annotated[list[MessageBody], Field(min_length=1, max_length=MOST_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=200)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = None
    n: Literal[1] | None = Field(default=None, description="One answer; each would be a decision of its own.")
    response_format: dict[str, Any] | None = None
    user: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Your name for the person who asks; only a keyed hash of it is kept."
    )
    frequency_penalty: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    metadata: Any = None
    modalities: Any = None
    parallel_tool_calls: Any = None
    prediction: Any = None
    presence_penalty: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    reasoning_effort: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    top_logprobs: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    @model_validator(mode="after")
    def _asked(self) -> ChatBody:
        if all(message.role != "user" for message in self.messages):
            raise ValueError("messages must hold one of role user, which the features are made of")
        return self

    def ask(self) -> Ask:
        """What the models are asked."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Ask(
            messages=tuple(message.model_dump(exclude_unset=True) for message in self.messages),
            tools=tuple(self.tools or ()),
            tool_choice=self.tool_choice,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=stop,
            seed=self.seed,
            response_format=self.response_format,
            extra={name: getattr(self, name) for name in PASSED if name in self.model_fields_set},
        )


class ChatAnswer(BaseModel):
    """A chat completion as OpenAI's clients read it."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str = Field(description="Of the arm that answered.")
    choices: list[dict[str, Any]]
    usage: dict[str, Any] = Field(description="As OpenAI's, and cost_usd: what the request cost in all.")


class ModelAnswer(BaseModel):
    """A name that `model` may have."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = Field(description="The provider; pilotage, where the policy chooses.")


class ModelsAnswer(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]


def usage_of(usage: Usage | None, cost_usd: float) -> dict[str, Any]:
    """OpenAI's object of usage; without a count of the provider, its tokens are 0."""
    used = usage or Usage(0, 0)
    return {
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
        "cost_usd": cost_usd,
    }


def event(value: Mapping[str, Any] | str) -> bytes:
    """One event of a stream (server-sent events, WHATWG)."""
    return b"data: " + (value if isinstance(value, str) else json.dumps(value)).encode() + b"\n\n"
