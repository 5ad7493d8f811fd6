"""A judge of answers: which model, how often, and for how much money."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bandits.settings.catalogue import ModelConfig

_Dollars = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class JudgeConfig(ModelConfig):
    """One judge of a domain: a model of the catalogue, best one that answers nothing itself."""

    usd_per_request: _Dollars = Field(description="price of one verdict, where tokens or their prices are not known")
    share: float = Field(default=0.05, gt=0.0, le=1.0, description="of the drawn answers that are judged, on average")
    calls_per_day: int = Field(default=1_000, ge=1, description="verdicts asked for in one UTC day, of all processes")
    usd_per_day: _Dollars = Field(description="what they may cost in one UTC day")
    most_chars: int = Field(default=12_000, ge=100, description="of a question, and of an answer; the rest is cut off")
    timeout_s: float = Field(default=30.0, gt=0.0, allow_inf_nan=False, description="of one call")
