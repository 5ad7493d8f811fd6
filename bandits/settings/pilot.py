"""What of the content pilot a person sets in pilotage.toml: what is fetched, who sums up, how long runs are kept."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

_Some = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class PilotConfig(BaseModel):
    """The content pilot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: tuple[str, ...] | None = Field(
        default=None, description="hosts that may be fetched, or patterns (*.example.org); none: every public one"
    )
    allow: tuple[str, ...] = Field(
        default=(), description="networks that may be reached although they are not public, e.g. 10.1.2.0/24"
    )
    fetch_mb: _Some = Field(default=10.0, description="a page larger than this is left out")
    fetch_s: _Some = Field(default=20.0, description="a page that takes longer is left out")
    summary: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="who writes the summary, named as in /v1: auto, auto:DOMAIN, an arm or a model; none: an extract",
    )
    keep_days: _Some = Field(default=30.0, description="runs older than this are forgotten")
    deployment: str = Field(
        default="pilot/daily",
        pattern=r"^[\w .-]+/[\w .-]+$",
        description="flow/deployment of Prefect that takes what ?mode=enqueue asks for",
    )

    @field_validator("allow")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            ipaddress.ip_network(one)
        return value
