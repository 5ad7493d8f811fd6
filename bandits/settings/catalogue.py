"""The catalogue: who offers models, at what price, and what each model can take. All of it stands in pilotage.toml.

    [providers.openai]
    kind = "openai"
    key_env = "OPENAI_API_KEY"

    [[domains.model_routing.arms]]
    name = "small"
    provider = "openai"
    model = "…"
    usd_per_request = 3.0e-5
    usd_per_million = {input = 0.15, output = 0.6, cached = 0.075}
    prices_as_of = 2026-11-01

No price stands in code. A key of a provider stands in no file: the configuration names the variable that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bandits.errors import ConfigError

_Price = Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PricesConfig(_Strict):
    """What a model's tokens cost, in USD per million."""

    input: _Price
    output: _Price
    cached: _Price | None = Field(default=None, description="input that the provider had read before; none: as input")


class ModelConfig(_Strict):
    """A model of a provider: its prices, and what it can take. What is not said is taken to be beyond it."""

    model: str = Field(description="the name the provider knows it by")
    provider: str = Field(default="replay", description="one of [providers]; replay, a recording, is always there")
    usd_per_million: PricesConfig | None = Field(default=None, description="none: a call costs usd_per_request")
    prices_as_of: date | None = Field(default=None, description="the day these prices were read")
    context_tokens: int | None = Field(default=None, ge=1, description="prompt and answer together; none: unknown")
    tools: bool = Field(default=False, description="whether it can call tools")
    vision: bool = Field(default=False, description="whether it can see images")
    sampling: bool = Field(
        default=True, description="whether it takes temperature and top_p; many of today refuse them"
    )

    @model_validator(mode="after")
    def _dated(self) -> ModelConfig:
        if (self.usd_per_million is None) != (self.prices_as_of is None):
            raise ValueError("prices and their date belong together; give usd_per_million and prices_as_of, or neither")
        return self


class ProviderConfig(_Strict):
    """One provider of models, by the wire format that it speaks: openai is that of vLLM, Ollama and many others too."""

    kind: Literal["openai", "anthropic", "gemini", "replay"]
    base_url: str | None = Field(default=None, description="none: the official address of the kind")
    key_env: str | None = Field(default=None, description="the environment variable that holds the key; none: no key")
    trust_env: bool = Field(default=True, description="go through the proxy that HTTPS_PROXY and its kin name")
    max_reply_bytes: int = Field(default=10_000_000, ge=1, description="a longer reply is a failure")
    max_tokens: int = Field(default=4096, ge=1, description="of an answer, where nobody says but the provider wants it")
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="what a server of kind openai calls that limit; OpenAI's own: the latter"
    )
    recording: Path | None = Field(default=None, description="of kind replay; none: the example that comes along")

    @field_validator("key_env")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", value):
            raise ValueError("key_env must be the name of an environment variable, not a key")
        return value

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or "@" in url.netloc:
            raise ValueError("base_url must be http(s)://host[:port][/path], without user, query or fragment")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _fitting(self) -> ProviderConfig:
        if self.kind == "replay" and (self.base_url or self.key_env):
            raise ValueError("a replay calls nobody; leave base_url and key_env out")
        if self.kind != "replay" and self.recording is not None:
            raise ValueError("only a provider of kind replay has a recording; leave it out")
        return self


def key_of(name: str, settings: ProviderConfig, environ: Mapping[str, str]) -> str:
    """The provider's key; "" for one that needs none. Raises ConfigError, which says where it should be, never what is.

    name: of the provider, as configured.   environ: where the keys are.
    """
    if settings.key_env is None:
        return ""
    key = environ.get(settings.key_env, "").strip()
    if not key or not (key.isascii() and key.isprintable()) or " " in key:
        found = "holds something else" if key else "is not set"
        raise ConfigError(
            f"provider {name} needs its key in the variable {settings.key_env}, which {found}; set it to the key, "
            "one line of printable ASCII without spaces."
        )
    return key
