"""What an experiment is, as a person declares it in pilotage.toml; all of it is known before the first unit comes.

A variant plays one of these policies, each of which any process can make again from the configuration alone:

    stable                 what the scope serves anyway
    explore                what serves before any night: every affordable arm, as evenly as the budget allows
    fixed:ARM              one arm (the other allowed ones share the floor)
    mix:ARM=SHARE,ARM=…    these shares, whatever the context
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from bandits.assignment import Experiment
from bandits.errors import ExperimentError
from bandits.types import valid_name

_Share = Annotated[float, Field(gt=0.0, lt=1.0)]
_Dollars = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VariantConfig(_Strict):
    """One variant: what it plays, and its share of the units that take part."""

    policy: str
    share: _Share


class RampConfig(_Strict):
    """From `at` on, this share of all units takes part."""

    at: AwareDatetime
    exposed: float = Field(gt=0.0, le=1.0)


class GuardrailConfig(_Strict):
    """What a variant must not cost."""

    usd_more: _Dollars = Field(description="USD per request that a variant may cost more than the control")
    dear_usd: _Dollars = Field(description="a unit whose requests cost more on average counts as one that costs this")


class ExperimentConfig(_Strict):
    """One experiment. The first variant is the control. Once it runs, nothing may change but later steps of the ramp
    and an earlier end: what a unit was given is worked out from this and from nothing else.
    """

    start: AwareDatetime
    end: AwareDatetime
    unit: Literal["user", "decision"] = "user"
    variants: dict[str, VariantConfig] = Field(min_length=2, description="shares must sum to 1")
    exposed: float = Field(default=1.0, gt=0.0, le=1.0, description="share of all units that takes part from the start")
    ramp: tuple[RampConfig, ...] = ()
    effect: float = Field(default=0.05, gt=0.0, le=1.0, description="least difference of reward that is worth finding")
    spread: float = Field(default=0.5, gt=0.0, le=0.5, description="standard deviation of a unit's mean reward")
    alpha: _Share = Field(default=0.05, description="error rate, over all looks and variants")
    power: _Share = Field(default=0.8, description="chance to find the effect by the planned size")
    outcome_days: float = Field(
        default=1.0, gt=0.0, allow_inf_nan=False, description="a unit counts so long after its first exposure, and then"
    )
    guardrail: GuardrailConfig | None = None

    @model_validator(mode="after")
    def _sound(self) -> ExperimentConfig:
        if self.end <= self.start:
            raise ValueError(f"end must be after start, but is {self.end.isoformat()}")
        times = [self.start, *(step.at for step in self.ramp)]
        shares = [self.exposed, *(step.exposed for step in self.ramp)]
        if times != sorted(set(times)) or shares != sorted(shares):
            raise ValueError("steps of a ramp must come after start, one after the other, and never lower the share")
        if not self.alpha < self.power:
            raise ValueError(f"power must be above alpha={self.alpha}")
        for name in self.variants:
            valid_name(name, "variant")
        self.steps("any")  # raises for shares that do not sum to 1
        return self

    def steps(self, seed: str) -> tuple[tuple[float, Experiment], ...]:
        """How units are spread from each time on (UTC seconds since the epoch), the first step at the start."""
        names, shares = tuple(self.variants), tuple(one.share for one in self.variants.values())
        ramp = [(self.start, self.exposed), *((step.at, step.exposed) for step in self.ramp)]
        return tuple((at.timestamp(), Experiment(seed, names, shares, exposed)) for at, exposed in ramp)

    @property
    def control(self) -> str:
        """The variant that the others are held against."""
        return next(iter(self.variants))


class HoldbackConfig(_Strict):
    """A share of users who are always served by a simple policy: what all learning since `start` has earned."""

    start: AwareDatetime
    share: _Share = 0.02
    policy: str = "explore"

    def as_experiment(self) -> ExperimentConfig:
        """The same, as an experiment of everybody without an end."""
        variants = {
            "holdback": VariantConfig(policy=self.policy, share=self.share),
            "served": VariantConfig(policy="stable", share=1.0 - self.share),
        }
        return ExperimentConfig(start=self.start, end=datetime.max.replace(tzinfo=self.start.tzinfo), variants=variants)


def shares_of(policy: str, arms: tuple[str, ...]) -> tuple[float, ...] | None:
    """Shares, one an arm, that `policy` plays; None for `stable` and `explore`, which shares do not describe.

    Raises ExperimentError for anything else.
    """
    if policy in ("stable", "explore"):
        return None
    kind, _, rest = policy.partition(":")
    if kind == "fixed":
        given = {rest: 1.0}
    elif kind == "mix":
        parts = [part.partition("=") for part in rest.split(",")]
        given = {name.strip(): _number(share) for name, _, share in parts}
    else:
        given = {}
    if not given or not set(given) <= set(arms) or min(given.values()) <= 0.0 or abs(sum(given.values()) - 1.0) > 1e-9:
        raise ExperimentError(
            "a variant's policy must be stable, explore, fixed:ARM or mix:ARM=SHARE,ARM=SHARE with shares > 0 that sum "
            f"to 1, but got {policy!r}; the arms are {', '.join(arms)}."
        )
    return tuple(given.get(arm, 0.0) for arm in arms)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
