"""How carefully a new snapshot is rolled out, as a person declares it in pilotage.toml: [rollout], or by domain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Share = Annotated[float, Field(gt=0.0, lt=1.0)]
_Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class RolloutConfig(BaseModel):
    """Stages, and what counts as evidence. A rollout keeps the terms that it began with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["auto", "ask"] = Field(default="auto", description="ask: a person approves the start of a rollout")
    stages: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] = Field(
        default=(0.05, 0.2, 0.5, 1.0), min_length=1, description="shares of users, rising to 1; [1.0]: all at once"
    )
    first_share: float = Field(
        default=0.5,
        gt=0.0,
        le=1.0,
        description="the first snapshot of a scope begins at the last stage up to this share; 1: all at once",
    )
    min_seconds: float = Field(
        default=600.0, ge=0.0, allow_inf_nan=False, description="a stage serves at least so long, under a fresh lease"
    )
    min_sample: int = Field(default=100, ge=1, description="outcomes of the canary in a stage before it is passed")
    alpha: _Share = Field(default=0.01, description="probability that a sound canary is ever rolled back")
    error_rate: _Share = Field(default=0.02, description="share of failed answers that is tolerated")
    slow_s: _Seconds = Field(default=30.0, description="an answer that takes longer counts as slow")
    slow_share: _Share = Field(default=0.05, description="share of slow answers that is tolerated")
    reward_drop: float = Field(default=0.02, ge=0.0, lt=0.5, description="mean reward below the control's, tolerated")
    effect: _Share = Field(default=0.1, description="drop of mean reward that must be ruled out to pass a stage")
    effect_alpha: _Share = Field(default=0.05, description="probability of ruling such a drop out where it is there")

    @model_validator(mode="after")
    def _sound(self) -> RolloutConfig:
        if list(self.stages) != sorted(set(self.stages)) or self.stages[-1] != 1.0:
            raise ValueError("stages must rise to 1.0, such as [0.05, 0.2, 0.5, 1.0]; [1.0] is all at once")
        if not self.reward_drop < self.effect:
            raise ValueError("effect, a drop that must be ruled out, must be above reward_drop, which is tolerated")
        return self
