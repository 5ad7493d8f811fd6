"""A point of the nightly search, and what the search found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bandits.config import DomainConfig
from bandits.learners.doubly_robust import Parameters


@dataclass(frozen=True, slots=True)
class Point:
    """One place in the space: what the learner is given, and what of the domain's settings is another."""

    parameters: Parameters = field(default_factory=Parameters)
    floor: float | None = None  # probability, never below the domain's own; None: that
    half_life_days: float | None = None  # None: the domain's
    spend: float = 1.0  # share of the budget that the price of a dollar is solved for

    def domain(self, domain: DomainConfig) -> DomainConfig:
        """The domain's settings with this point's."""
        update: dict[str, Any] = {"budget_usd_per_request": domain.budget_usd_per_request * self.spend}
        if self.floor is not None:
            update["floor"] = max(self.floor, domain.floor)
        if self.half_life_days is not None:
            update["half_life_days"] = self.half_life_days
        return domain if self == Point(self.parameters) else domain.model_copy(update=update)


@dataclass(frozen=True, slots=True)
class Tuned:
    """What the search found. Values are doubly robust estimates on rounds that neither trained nor chose."""

    parameters: Parameters
    floor: float | None
    half_life_days: float | None
    spend: float
    before: float  # value of the default point, held out
    best: float  # value of the chosen trial, held out
    gain: float  # best - before, paired by round
    standard_error: float  # of the gain
    adopted: bool  # the chosen trial is used: proven better and feasible, held out; else the defaults are
    trials: int
    reason: str  # a sentence
    overfit_gap: float = 0.0  # gain in the search - gain held out
    stopped: str = ""  # why the search ended
    convergence: tuple[float, ...] = ()  # best feasible reward after each trial, as the search saw it
    front: tuple[Mapping[str, Any], ...] = ()  # feasible trials that no other beats in reward and cost

    @property
    def point(self) -> Point:
        """What serves from tonight: the chosen point if it was adopted, else the defaults."""
        return Point(self.parameters, self.floor, self.half_life_days, self.spend)


def point_of(stored: Mapping[str, Any]) -> Point:
    """The point that `asdict` made plain."""
    return Point(**{**stored, "parameters": Parameters(**stored["parameters"])})


def defaults(reason: str) -> Tuned:
    """A search that ends with the defaults, for this reason."""
    return Tuned(Parameters(), None, None, 1.0, 0.0, 0.0, 0.0, 0.0, adopted=False, trials=0, reason=reason)
