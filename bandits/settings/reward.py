"""How outcomes become a reward: settings of a domain."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bandits.settings.conversation import SignalWorth

_Dollars = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
_Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
_Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RewardWeights(_Strict):
    """What a reward is made of: of a part of weight 0, nothing; without any other part the reward is missing."""

    quality: _Weight = 1.0
    cost: _Weight = 0.0
    latency: _Weight = 0.0

    @model_validator(mode="after")
    def _some(self) -> RewardWeights:
        if self.quality + self.cost + self.latency == 0.0:
            raise ValueError("a reward must be made of something, but all weights are 0")
        return self


class RewardConfig(_Strict):
    """How outcomes become a reward in [0, 1]; changing it re-reads history, which keeps the outcomes themselves."""

    version: int = Field(default=1, ge=1)
    aggregate: Literal["first", "last", "mean", "sum"] = "last"
    upvote: float = Field(default=1.0, ge=0.0, le=1.0)
    downvote: float = Field(default=0.0, ge=0.0, le=1.0)
    window_s: float = Field(
        default=7 * 86_400.0, gt=0.0, allow_inf_nan=False, description="outcomes later than this do not count"
    )
    default: float | None = Field(
        default=None, ge=0.0, le=1.0, description="quality of a decision whose window closed in silence; none: missing"
    )
    fallback: Literal["failed", "as_served"] = Field(
        default="failed",
        description="what an arm learns when another answered for it: that it failed, or what was served",
    )
    signals: SignalWorth = Field(default=SignalWorth(), description="what asking again and regenerating say of quality")
    weights: RewardWeights = RewardWeights()
    dear_usd: _Dollars | None = Field(default=None, description="a cost that earns nothing; free earns 1")
    slow_s: _Seconds | None = Field(default=None, description="a latency that earns nothing; none at all earns 1")

    @model_validator(mode="after")
    def _complete(self) -> RewardConfig:
        for weight, scale in (("cost", "dear_usd"), ("latency", "slow_s")):
            if getattr(self.weights, weight) > 0.0 and getattr(self, scale) is None:
                raise ValueError(f"a reward with a weight for {weight} must say {scale}, which earns nothing")
        if self.default is not None and self.weights.quality == 0.0:
            raise ValueError("default is the quality of silence, but quality has weight 0; leave one of them out")
        return self

    @property
    def fingerprint(self) -> str:
        """Version and hash of all that differs from the defaults: two of the same read history alike."""
        said = self.model_dump_json(exclude_defaults=True, exclude={"version"})
        return f"{self.version}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
