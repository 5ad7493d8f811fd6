"""[embedding] of pilotage.toml: what turns the passages of the content pilot into vectors."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class EmbeddingConfig(BaseModel):
    """`default` needs nothing; `packaged` the extra of that name; `http` a server that speaks OpenAI's /embeddings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Literal["default", "packaged", "http"] = "default"
    url: str = Field(default="", description="of the server, up to and with /v1")
    model: str = Field(default="", description="the name that the server knows it by")
    key_env: str = Field(default="", description="the environment variable that holds its key; the key is not set here")

    @model_validator(mode="after")
    def _whole(self) -> EmbeddingConfig:
        if self.backend == "http" and not (self.url.startswith(("http://", "https://")) and self.model):
            raise ValueError(
                f"backend http must have an http(s) url and a model, but got {self.url!r} and {self.model!r}; set both"
            )
        if self.backend != "http" and (self.url or self.model or self.key_env):
            raise ValueError(f"url, model and key_env are for backend http, but it is {self.backend!r}; set that")
        return self
