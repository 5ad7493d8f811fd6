"""What an experiment has shown so far. It may be looked at whenever one likes, and stopped at what it says.

In this order: are the shares as planned (or something besides the coin decided who was counted), was everybody served
as assigned, is there enough; only then by how much each variant is better than the control, and whether it costs more
than it may. Error rates hold over all looks; several variants share them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from bandits.errors import ExperimentError
from bandits.experiments import ab, srm
from bandits.experiments.ab import Difference
from bandits.experiments.exposure import Units
from bandits.experiments.serving import Running
from bandits.settings.experiments import GuardrailConfig
from bandits.types import Mask, Vector

ENOUGH = 50  # units with an outcome, of each variant: fewer are not shown as a difference
STRAYED = 0.01  # share of units that were not served as assigned, from which on nothing is concluded
_FIT = 20  # units before the regression on what was known before is trusted

Health = Literal["not begun", "shares not as planned", "not served as assigned", "not enough data", "ok"]
Guard = Literal["breached", "kept", "hold"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One variant against the control, by the units whose outcome is known."""

    variant: str
    units: tuple[int, int]  # of the control, of the variant
    planned: int  # units of both together, for the effect worth finding
    reward: Difference
    explained: float | None  # share of the rewards' variance that was known before the exposure; None: nothing was
    usd: Difference | None  # per request, with a guardrail
    guard: Guard | None


@dataclass(frozen=True, slots=True)
class Findings:
    """An experiment at one look."""

    name: str
    time: float  # UTC, seconds since the epoch
    alpha: float
    control: str
    exposed: dict[str, int]  # units by variant
    counted: dict[str, int]  # of these, with a known outcome
    p_shares: float  # of the sample ratio, over all looks
    p_silence: float  # likewise, of units whose outcome is known: below srm.ALPHA, variants differ in who answers
    strayed: int  # units that were not always served as assigned
    health: Health
    comparisons: tuple[Comparison, ...]  # empty unless healthy

    @property
    def conclusion(self) -> str:
        """A sentence for a person."""
        if self.health != "ok":
            return f"{self.name}: {self.health}; nothing is concluded."
        return " ".join(_sentence(one, self.control) for one in self.comparisons)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"conclusion": self.conclusion}


def analyse(one: Running, units: Units, now: float) -> Findings:
    """What the units show at `now` (UTC, seconds since the epoch)."""
    config, names = one.config, tuple(one.config.variants)
    planned = one.steps[0][1].shares
    known = ~np.isnan(units.rewards)
    exposed = np.bincount(units.variants, minlength=len(names))
    counted = np.bincount(units.variants[known], minlength=len(names))
    p_shares = _p_value(units, np.ones(len(units), np.bool_), planned)
    health: Health = "ok"
    if now < one.start:
        health = "not begun"
    elif p_shares <= srm.ALPHA:
        health = "shares not as planned"
    elif units.strayed.sum() > STRAYED * len(units):
        health = "not served as assigned"
    elif counted.min() < ENOUGH:
        health = "not enough data"
    return Findings(
        name=one.name,
        time=now,
        alpha=config.alpha,
        control=config.control,
        exposed=dict(zip(names, exposed.tolist(), strict=True)),
        counted=dict(zip(names, counted.tolist(), strict=True)),
        p_shares=p_shares,
        p_silence=_p_value(units, known, planned),
        strayed=int(units.strayed.sum()),
        health=health,
        comparisons=tuple(_compared(one, units, place) for place in range(1, len(names))) if health == "ok" else (),
    )


def foretold(outcomes: Vector, before: Vector) -> Vector:
    """What was to be expected of each unit, (m,) in [0, 1], from the units before it and what was known of it.

        m_i = mean of outcomes_{<i}  +  theta_{<i} (before_i - mean of before_{<i}),   theta = cov / var

    outcomes: (m,) in [0, 1], in order of exposure.   before: (m,), NaN where nothing was known: the mean alone.
    Since it looks at no later unit, the sequence stays valid; a covariate that explains nothing costs next to nothing.

    Deng, Xu, Kohavi, Walker 2013, "Improving the Sensitivity of Online Controlled Experiments by Utilizing
    Pre-Experiment Data" (CUPED), with theta as known at each unit.
    """
    known = ~np.isnan(before)
    x, y = np.where(known, before, 0.0), np.where(known, outcomes, 0.0)
    n, sx, sy, sxx, sxy = (_before(column) for column in (known.astype(np.float64), x, y, x * x, x * y))
    count = np.maximum(n, 1.0)
    spread = sxx - sx * sx / count
    fit = (n >= _FIT) & (spread > 1e-9)
    theta = np.divide(sxy - sx * sy / count, spread, out=np.zeros(len(x)), where=fit)
    usual = (0.5 + _before(outcomes)) / (1.0 + np.arange(len(outcomes)))
    # Those of whom nothing was known may earn otherwise: where there is a line, it is the line of those who are known.
    level = np.where(fit & known, sy / count + theta * (x - sx / count), usual)
    guess: Vector = np.clip(level, 0.0, 1.0)
    return guess


def false_stops(one: Running, units: Units, runs: int, rng: np.random.Generator) -> float:
    """A/A: how often an experiment of no effect would have stopped on these very outcomes (ab.false_stops)."""
    outcomes = units.rewards[~np.isnan(units.rewards)]
    if len(outcomes) < 2 * ENOUGH:
        raise ExperimentError(
            f"an A/A test needs {2 * ENOUGH} units with an outcome, but {one.name} has {len(outcomes)}; wait for more."
        )
    return ab.false_stops(outcomes, 0.5, one.config.alpha, runs, rng)


def comparison_alpha(one: Running) -> float:
    """Error rate of each comparison with the control."""
    return one.config.alpha / (len(one.config.variants) - 1)


def share_against_control(one: Running, variant: str) -> float:
    """Probability of `variant` among units of it and of the control."""
    config = one.config
    mine, control = config.variants[variant].share, config.variants[config.control].share
    return mine / (mine + control)


def planned_units(one: Running, variant: str) -> int:
    """Units of `variant` and the control together that show the effect worth finding with the stated power."""
    config, share = one.config, share_against_control(one, variant)
    return ab.units_needed(config.effect, config.spread, comparison_alpha(one), config.power, share=share)


def _compared(one: Running, units: Units, place: int) -> Comparison:
    name = tuple(one.config.variants)[place]
    mine = ((units.variants == 0) | (units.variants == place)) & ~np.isnan(units.rewards)
    treated, outcomes, before = units.variants[mine] == place, units.rewards[mine], units.before[mine]
    share, alpha, horizon = share_against_control(one, name), comparison_alpha(one), planned_units(one, name)
    known = int((~np.isnan(before)).sum())
    guess = foretold(outcomes, before)
    usd, guard = None, None
    if one.config.guardrail is not None:
        usd, guard = _spent(one.config.guardrail, units, mine, place, share, alpha, horizon)
    return Comparison(
        variant=name,
        units=(int((~treated).sum()), int(treated.sum())),
        planned=horizon,
        reward=ab.difference(treated, outcomes, share, alpha, foretold=guess, horizon=horizon),
        explained=_explained(outcomes, guess) if known >= 2 * _FIT else None,
        usd=usd,
        guard=guard,
    )


def _spent(
    rail: GuardrailConfig, units: Units, mine: Mask, place: int, share: float, alpha: float, horizon: int
) -> tuple[Difference, Guard]:
    """Difference of USD per request, and whether it is surely above or surely below what is allowed."""
    priced = mine & ~np.isnan(units.costs)
    costs = np.minimum(units.costs[priced], rail.dear_usd)
    found = ab.difference(
        units.variants[priced] == place, costs, share, alpha, low=0.0, high=rail.dear_usd, horizon=horizon
    )
    guard: Guard = "breached" if found.low > rail.usd_more else "kept" if found.high <= rail.usd_more else "hold"
    return found, "hold" if found.verdict == "moved" else guard


def _p_value(units: Units, taken: Mask, planned: tuple[float, ...]) -> float:
    """Of the sample ratio among `taken`, looked at after every unit."""
    seen = units.variants[taken]
    counts = (seen[:, None] == np.arange(len(planned))).cumsum(axis=0)
    peak = float(srm.log_evidence(counts, planned).max(initial=0.0)) if len(seen) else 0.0
    return math.exp(-peak)


def _explained(outcomes: Vector, guess: Vector) -> float:
    """Share of the variance of outcomes that a guess takes away; below 0 where it only adds noise."""
    usual = (0.5 + _before(outcomes)) / (1.0 + np.arange(len(outcomes)))
    return float(1.0 - np.var(outcomes - guess) / max(float(np.var(outcomes - usual)), 1e-12))


def _before(values: Vector) -> Vector:
    """Sum of the values before each."""
    sums: Vector = np.concatenate(([0.0], values.cumsum()[:-1])) if len(values) else values
    return sums


def _sentence(one: Comparison, control: str) -> str:
    low, high = one.reward.low, one.reward.high
    by = f"its reward differs by {low:+.4f} to {high:+.4f}"
    said = {
        "better": f"{one.variant} is better than {control}: {by}.",
        "worse": f"{one.variant} is worse than {control}: {by}.",
        "moved": f"{one.variant} was shown to be better than {control} and, at another time, worse.",
        "hold": f"{one.variant} cannot be told from {control} yet: {by}.",
    }[one.reward.verdict]
    costs = {
        "breached": " It costs more than the guardrail allows.",
        "kept": " Its cost keeps within the guardrail.",
        "hold": " Its cost cannot be judged yet.",
    }
    return said + (costs[one.guard] if one.guard else "")
