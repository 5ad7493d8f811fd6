"""What should be done? A few sentences, each with the figures that it rests on and the command that shows them.

Pure: `look` takes figures from a log, `recommend` sentences from figures. No figure, no sentence: what the log does not
show is not advised on. Nothing is changed by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bandits.config import DomainConfig
from bandits.evaluation.weights import ENOUGH
from bandits.monitoring.ecusum import Drop
from bandits.monitoring.trend import DAY, Trend, trend
from bandits.types import Mask, Scope, Vector
from bandits.what_if.counterfactual import Log, effective

ALPHA = 0.05  # of the trend, for one look
SPARSE = 0.2  # share of decisions with a reward below which learning is slow
OVER, UNDER = 1.05, 0.5  # spend as a share of the budget
_LEAST = 200  # decisions before shares of them are spoken of
_DAYS = 5  # with a reward before a trend is


class Fall(NamedTuple):
    """An alarm of the e-CUSUM."""

    time: float  # UTC, seconds since the epoch
    usual: float  # mean reward before, doubts taken off
    now: float  # mean of the latest rewards


@dataclass(frozen=True, slots=True)
class Figures:
    """What a log shows of one scope. What is None is not known."""

    decisions: int
    rewarded: int  # of these, with a reward
    spend: float | None  # USD per request
    budget: float
    floor: float
    effective: Mapping[str, float]  # rounds that speak for always playing each arm; of arms that were allowed at all
    barred: Mapping[str, float]  # arms that were never allowed -> the budget, USD per request, that would allow them
    rewards: Trend | None  # of daily means
    falls: Mapping[str, Fall]  # arms whose reward fell, the last alarm each
    quarantined: tuple[str, ...] = ()  # arms that are kept away now


class Advice(NamedTuple):
    """A sentence with its figures, and the command that shows them."""

    text: str
    command: str


def look(log: Log, domain: DomainConfig, quarantined: tuple[str, ...] = ()) -> Figures:
    """The figures of a log."""
    feedback = log.feedback
    known = feedback.costs[np.isfinite(feedback.costs)]
    allowed: Mask = np.asarray((feedback.probabilities > 0.0).any(axis=0))
    least = domain.floor / len(domain.arms) * 10.0  # of the budget a tenth may go to exploring an arm: money/budget.py
    return Figures(
        decisions=len(feedback) + feedback.missing,
        rewarded=len(feedback),
        spend=float(known.mean()) if len(known) else None,
        budget=domain.budget_usd_per_request,
        floor=domain.floor,
        effective={arm.name: effective(log, i) for i, arm in enumerate(domain.arms) if allowed[i]},
        barred={
            arm.name: least * arm.usd_per_request
            for i, arm in enumerate(domain.arms)
            if len(feedback) and not allowed[i] and least * arm.usd_per_request > domain.budget_usd_per_request
        },
        rewards=_trend(log),
        falls=_falls(log),
        quarantined=quarantined,
    )


def recommend(found: Figures, scope: Scope) -> list[Advice]:
    """What the figures call for, the most urgent first."""
    said = [
        Advice(
            f"{arm} is kept away, since it broke without saying so: mend it or take it out of pilotage.toml.",
            "pilotage why DECISION_ID",
        )
        for arm in found.quarantined
    ]
    for arm, fall in found.falls.items():
        text = f"The reward of {arm} fell from {fall.usual:.3f} to {fall.now:.3f}: find out what changed there."
        said.append(Advice(text, f"pilotage evaluate {scope}"))
    if found.spend is not None and found.spend > OVER * found.budget:
        over = f"{found.spend:.2e} USD per request is {found.spend / found.budget:.0%} of the budget"
        said.append(Advice(f"{over}: correct the catalogue's prices, or cap it.", "pilotage dashboard"))
    if found.rewards is not None and found.rewards.high < 0.0:
        line = found.rewards
        text = (
            f"Reward falls by {-(line.slope or 0.0):.4f} a day (95 %: {-line.high:.4f} to {-line.low:.4f}, {line.n} "
            "days): compare what serves with the simple policies."
        )
        said.append(Advice(text, f"pilotage evaluate {scope} --baseline mix"))
    if found.decisions >= _LEAST and found.rewarded < SPARSE * found.decisions:
        share = f"{found.rewarded:,} of {found.decisions:,} decisions ({found.rewarded / found.decisions:.0%})"
        text = f"Only {share} have a reward: ask for feedback, or say what silence is worth (reward.default)."
        said.append(Advice(text, "pilotage dashboard"))
    said += [
        _faint(found, arm, ess) for arm, ess in found.effective.items() if found.rewarded >= _LEAST and ess < ENOUGH
    ]
    for arm, budget in found.barred.items():
        text = f"{arm} was never allowed: trying it takes {budget:.2e} USD per request, not {found.budget:.2e}."
        said.append(Advice(text, "pilotage why DECISION_ID"))
    if found.spend is not None and found.decisions >= _LEAST and found.spend < UNDER * found.budget:
        text = f"Only {found.spend / found.budget:.0%} of the budget is spent: a lower one would do, or dearer arms."
        said.append(Advice(text, "pilotage dashboard"))
    return said


def _faint(found: Figures, arm: str, ess: float) -> Advice:
    return Advice(
        f"Only {ess:.0f} effective rounds speak for {arm}, and {ENOUGH:.0f} are needed to judge it: wait, or raise the "
        f"floor, now {found.floor:g}.",
        "pilotage evaluate --policy fixed",
    )


def _trend(log: Log) -> Trend | None:
    """Of the daily mean reward."""
    days = (log.feedback.times // DAY).astype(np.int64)
    known, at = np.unique(days, return_inverse=True)
    if len(known) < _DAYS:
        return None
    means: Vector = np.bincount(at, log.feedback.rewards) / np.bincount(at)
    return trend(known.astype(np.float64) * DAY, means, ALPHA)


def _falls(log: Log) -> dict[str, Fall]:
    """The last alarm of each arm, unless its latest rewards are as they were before."""
    found: dict[str, Fall] = {}
    for action, arm in enumerate(log.feedback.arms):
        mine = log.feedback.actions == action
        rewards, watch, usual, at = log.feedback.rewards[mine], Drop(), None, 0.0
        for reward, time in zip(rewards.tolist(), log.feedback.times[mine].tolist(), strict=True):
            before = watch.usual
            if watch.see(reward):
                usual, at = before, time
        now = float(rewards[-watch.options.patience :].mean()) if usual is not None else 0.0
        if usual is not None and now < usual:
            found[arm] = Fall(at, usual, now)
    return found
