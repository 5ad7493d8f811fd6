"""How calls to models are made, in `[gateway]` of the configuration: deadlines, retries, stand-ins, breakers.

What each does when is told in docs/failures.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class GatewayConfig(BaseModel):
    """Every time is in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect_s: _Seconds = Field(default=3.0, description="until a connection to the provider stands")
    first_token_s: _Seconds = Field(default=20.0, description="from asking until a stream has its first token")
    stall_s: _Seconds = Field(default=10.0, description="between two tokens")
    total_s: _Seconds = Field(default=60.0, description="of a request, with all its retries and stand-ins")
    retries: int = Field(default=1, ge=0, le=5, description="of one model in one request")
    retry_share: float = Field(
        default=0.1, ge=0.0, le=1.0, description="retries in all, at most, as a share of requests"
    )
    backoff_s: _Seconds = Field(default=0.2, description="mean pause before the first retry; it doubles")
    stand_ins: int = Field(default=2, ge=0, le=10, description="other models that a request may try; 0: none")
    midway: Literal["cut", "restart"] = Field(
        default="cut", description="of a stream that fails midway: tell the client, or begin anew with another model"
    )
    breaker_failures: int = Field(default=5, ge=1, description="failures in a row until a model is left alone")
    breaker_pause_s: _Seconds = Field(default=1.0, description="until it is tried again; it doubles up to the longest")
    breaker_longest_s: _Seconds = Field(default=4.0, description="so soon, at the latest, a recovery is found")
    breaker_unpaid_s: _Seconds = Field(
        default=60.0, description="pause of a model that lacks credit or refuses our key"
    )

    @model_validator(mode="after")
    def _ordered(self) -> GatewayConfig:
        if self.total_s < max(self.connect_s, self.first_token_s, self.stall_s):
            raise ValueError("total_s must be at least connect_s, first_token_s and stall_s, which are parts of it")
        if self.breaker_longest_s < self.breaker_pause_s:
            raise ValueError("breaker_longest_s must be at least breaker_pause_s, from which it doubles")
        return self
