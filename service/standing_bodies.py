"""How a tenant stands: its money, and what is decided for it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class CapAnswer(BaseModel):
    """One hard cap, in USD."""

    cap: str = Field(description="day, month or user day.")
    limit_usd: float
    spent_usd: float
    held_usd: float = Field(description="For requests under way.")
    left_usd: float
    resets: float = Field(description="UTC, seconds since the epoch.")


class PacedAnswer(BaseModel):
    """What a scope has spent today, in USD."""

    scope: str
    budget_usd_per_request: float = Field(description="Mean spend to stay under.")
    requests: int
    spent_usd: float
    promised_usd: float = Field(description="Expected of decisions whose cost was not reported.")
    pressure: float = Field(description="Above 1: spend is above its budget, and a dollar has to earn more.")


class BudgetsAnswer(BaseModel):
    """The money of a tenant."""

    time: float = Field(description="UTC, seconds since the epoch.")
    caps: list[CapAnswer] = Field(description="Empty: the tenant has none.")
    scopes: list[PacedAnswer]


class DomainAnswer(BaseModel):
    """One kind of decision, as configured."""

    name: str
    workspaces: list[str]
    features: str
    feature_names: list[str]
    floor: float = Field(description="Probability shared among the arms that may be drawn.")
    budget_usd_per_request: float
    between_nights: str
    arms: list[dict[str, Any]] = Field(description="With the prices of the catalogue.")
    reward: dict[str, Any]
