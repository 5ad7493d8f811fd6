"""Before the start: how many units an experiment needs, how long these take to come, and what it will cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bandits.config import DomainConfig
from bandits.experiments import ab
from bandits.experiments.analysis import comparison_alpha, planned_units, share_against_control
from bandits.experiments.exposure import DAY_S, Rows
from bandits.experiments.serving import Running, builtin
from bandits.money.budget import affordable
from bandits.policy import Policy
from bandits.warehouse import joining

_KNOWN = 20  # units before their spread is spoken of


@dataclass(frozen=True, slots=True)
class Planned:
    """One variant against the control. What the log cannot tell is None."""

    variant: str
    policy: str
    share: float  # of the units that take part
    needed: int  # units of it and the control together, for the effect worth finding
    days: float | None  # until so many are exposed, at the pace of the log
    detectable: float | None  # effect that is found by the end, at that pace
    usd_per_request: float | None  # that its policy spends by the price list; None: whatever the scope spends


@dataclass(frozen=True, slots=True)
class Plan:
    """What can be said of an experiment before it begins."""

    name: str
    unit: str
    effect: float
    spread: float
    alpha: float
    power: float
    exposed: float  # share of all units at the start
    budget: float  # USD per request, of the domain
    units_per_day: float | None  # new ones, in the log
    measured: float | None  # spread of the units' mean rewards in the log, to hold beside the declared one
    variants: tuple[Planned, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def plan(one: Running, domain: DomainConfig, rows: Rows, since: float, until: float) -> Plan:
    """Size and duration of an experiment, at the pace of the log of [since, until) (UTC seconds)."""
    config = one.config
    pace = units_per_day(one, rows, since, until)
    found = [_planned(one, domain, name, pace) for name in config.variants if name != config.control]
    control = config.variants[config.control]
    usd = _usd(builtin(control.policy, domain), domain)
    first = Planned(config.control, control.policy, control.share, 0, None, None, usd)
    return Plan(
        name=one.name,
        unit=config.unit,
        effect=config.effect,
        spread=config.spread,
        alpha=config.alpha,
        power=config.power,
        exposed=config.exposed,
        budget=domain.budget_usd_per_request,
        units_per_day=pace,
        measured=spread(one, domain, rows, until),
        variants=(first, *found),
    )


def units_per_day(one: Running, rows: Rows, since: float, until: float) -> float | None:
    """New units a day in a log; None for an empty one. Users who come back count once, so a short log promises more."""
    units = {unit for user, id_ in zip(rows.users, rows.ids, strict=True) if (unit := one.unit(user, id_))}
    return len(units) / ((until - since) / DAY_S) if units and until > since else None


def spread(one: Running, domain: DomainConfig, rows: Rows, now: float) -> float | None:
    """Standard deviation of the mean reward of a unit in a log; None for fewer than 20 with a reward."""
    names = [one.unit(user, id_) for user, id_ in zip(rows.users, rows.ids, strict=True)]
    rewards = joining.rewards(rows.times, rows.came, now, domain.reward)
    known = ~np.isnan(rewards) & np.array([bool(name) for name in names], np.bool_)
    _, at = np.unique(np.array(names)[known], return_inverse=True)
    means = np.bincount(at, rewards[known]) / np.bincount(at)
    return float(means.std(ddof=1)) if len(means) >= _KNOWN else None


def _planned(one: Running, domain: DomainConfig, name: str, pace: float | None) -> Planned:
    config, share = one.config, share_against_control(one, name)
    needed = planned_units(one, name)
    both = config.variants[name].share + config.variants[config.control].share
    daily = None if pace is None else pace * config.exposed * both
    length = (config.end - config.start).total_seconds() / DAY_S
    within = 0 if daily is None else math.floor(daily * length)
    return Planned(
        variant=name,
        policy=config.variants[name].policy,
        share=config.variants[name].share,
        needed=needed,
        days=None if not daily else needed / daily,
        detectable=ab.detectable(within, config.spread, comparison_alpha(one), config.power, share=share)
        if within > 1
        else None,
        usd_per_request=_usd(builtin(config.variants[name].policy, domain), domain),
    )


def _usd(policy: Policy | None, domain: DomainConfig) -> float | None:
    """By the price list, over the arms that the budget allows to explore."""
    if policy is None:
        return None
    allowed = affordable(policy.prices, domain.floor, domain.budget_usd_per_request)
    return float((policy.probabilities(np.zeros((1, 0), np.float32), allowed[None, :]) @ policy.prices)[0])
