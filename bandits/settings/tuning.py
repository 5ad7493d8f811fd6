"""The settings of the nightly search, [tuning] in pilotage.toml."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Metric = Literal["reward", "cost", "latency"]
Dimension = Literal["shared", "own", "correction", "siblings", "floor", "half_life_days", "spend"]
PENALTIES: tuple[Dimension, ...] = ("shared", "own", "correction", "siblings")
LEARNING: tuple[Dimension, ...] = (*PENALTIES, "half_life_days")
DIMENSIONS: tuple[Dimension, ...] = (*LEARNING, "floor", "spend")


class TuningConfig(BaseModel):
    """What the search may vary, what it seeks, and what a point must prove before it serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: Literal["tpe", "random", "gp"] = Field(default="tpe", description="gp needs torch: an extra")
    objectives: tuple[Metric, ...] = Field(
        default=("reward",), min_length=1, description="more than one: a Pareto search"
    )
    constraints: dict[Metric, float] = Field(
        default={}, description="reward: at least, cost (USD) and latency (s): at most, by a confidence bound"
    )
    space: tuple[Dimension, ...] = Field(
        default=LEARNING,
        description="what may vary; floor and spend trade reward for knowledge and money, so name them with cost",
    )
    patience: int = Field(default=12, ge=1, description="trials without a better one after which the search stops")
    held_out: float = Field(default=0.3, gt=0.0, lt=1.0, description="share of the log that judges the chosen point")
    alpha: float = Field(default=0.05, gt=0.0, lt=0.5, description="chance that a point breaks a constraint unseen")

    @field_validator("objectives", "space")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each name may stand once")
        return value

    @model_validator(mode="after")
    def _finite(self) -> TuningConfig:
        for metric, limit in self.constraints.items():
            if not 0.0 <= limit < float("inf"):
                raise ValueError(f"the limit of {metric} must be a number >= 0, but is {limit!r}")
        return self
