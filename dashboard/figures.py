"""Every number of the dashboard, as pure functions of what source.py read. Knows no Streamlit, no file and no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from bandits.config import DomainConfig
from bandits.evaluation.intervals import normal
from bandits.evaluation.moments import moments
from bandits.evaluation.weights import Verdict
from bandits.learners.baselines import best_fixed, best_mix
from bandits.record.port import Row
from bandits.snapshots.loading import Listed
from bandits.snapshots.manifest import Manifest
from bandits.types import Decision, Mask, Outcome, Scope, Vector
from bandits.what_if.counterfactual import FixedArm, Log, share, weighted

DAY_S = 86_400.0
ALPHA = 0.05  # intervals are 95 %
LEAST = 50  # rounds behind a plain mean before its normal interval is shown beside others (no weights: 50 do)
_POINTS = 120  # of a line on the screen
_HULL = 100
_ROUNDING = 1e-12


class Estimate(NamedTuple):
    """A value with its 95 % interval; the interval is infinite for n < 2."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Every decision of a scope on one UTC day, in order of the record."""

    start: float  # of the day, UTC seconds since the epoch
    times: Vector  # (n,) UTC, seconds since the epoch
    arms: Sequence[str]  # (n,) name of the action
    costs: Vector  # (n,) USD, NaN where not known
    drawn: Mask  # (n,) neither forced nor shadow, and of the configured features: what may earn a reward


@dataclass(frozen=True, slots=True)
class Spend:
    """Money of a day against the budget. per_request and pace are NaN while no cost is known."""

    requests: int
    known: int  # requests whose cost is known
    usd: float  # sum of the known costs
    per_request: float  # USD, mean of the known costs
    budget: float  # USD per request
    pace: float  # per_request / budget: above 1 is too fast


class SpendPoint(NamedTuple):
    """Money up to an hour of the day: what is known to be spent, and what the budget allows for as many requests."""

    hour: float
    spent: float
    allowed: float


class HourShare(NamedTuple):
    """How often an arm was chosen in one hour of the day (UTC)."""

    hour: int
    arm: str
    decisions: int
    share: float  # of the hour's decisions


@dataclass(frozen=True, slots=True)
class FeedbackRate:
    """Of the day's decisions that may earn a reward, those that did."""

    rewarded: int
    decisions: int

    @property
    def rate(self) -> float:
        """In [0, 1]; NaN without a decision."""
        return self.rewarded / self.decisions if self.decisions else math.nan


@dataclass(frozen=True, slots=True)
class Saved:
    """What routing earned on a day, against the best affordable fixed model and against mixes of fixed models."""

    arm: str
    reward: Estimate  # live minus fixed, reward units
    usd: Estimate  # fixed minus live, USD per request: below 0, routing spends more
    equal_reward: (
        Estimate | None
    )  # USD per request saved against the cheapest mix that earns as much; None: no mix does
    paid: float  # USD per request
    ess: float  # effective rounds behind the fixed model's estimate
    unknown: tuple[str, ...]  # models of which the log says too little

    @property
    def equal_reward_share(self) -> float:
        """What was saved at equal reward, as a share of what that mix would cost; NaN where no mix earns as much."""
        return self.equal_reward.value / (self.equal_reward.value + self.paid) if self.equal_reward else math.nan


@dataclass(frozen=True, slots=True)
class PlaneRow:
    """One point of the cost-quality plane; reward and cost are None where the log says too little."""

    name: str
    kind: Literal["fixed model", "policy"]
    usd: Estimate | None  # per request
    reward: Estimate | None
    rounds: int  # logged rounds that played it
    ess: float
    verdict: Verdict


class HullPoint(NamedTuple):
    """The best that a context-free mix of fixed models earns at a price."""

    usd: float
    reward: float


@dataclass(frozen=True, slots=True)
class Active:
    """The policy that serves. manifest: None while nothing was published, and the first policy explores."""

    version: str
    kind: str
    manifest: Manifest | None
    faults: tuple[str, ...]  # of newer versions that were refused
    rollout: str = ""  # what is being rolled out beside it, in words


@dataclass(frozen=True, slots=True)
class Tail:
    """What the record holds beyond the warehouse."""

    decisions: int
    outcomes: int
    last_time: float | None
    last_arm: str | None


def catalogue(domain: DomainConfig) -> Vector:
    """Price list, (K,) USD per request."""
    return np.array([arm.usd_per_request for arm in domain.arms])


def estimate(scores: Vector) -> Estimate:
    """Mean of scores, (n,), with its normal interval."""
    found = moments(scores)
    return Estimate(found.mean, *normal(found, ALPHA))


def negated(found: Estimate) -> Estimate:
    """The same difference, seen from the other side."""
    return Estimate(-found.value, -found.high, -found.low)


def spend(draws: Draws, budget: float) -> Spend:
    """Spend of the day.   budget: USD per request. Requests whose cost is not known are counted, never guessed."""
    known = draws.costs[np.isfinite(draws.costs)]
    per_request = float(known.mean()) if len(known) else math.nan
    usd = math.fsum(known.tolist())
    return Spend(len(draws.costs), len(known), usd, per_request, budget, per_request / budget)


def spend_curve(draws: Draws, budget: float) -> list[SpendPoint]:
    """Spend over the day in at most 120 points, the last one included.   budget: USD per request."""
    n = len(draws.times)
    if n == 0:
        return []
    order = np.argsort(draws.times, kind="stable")
    hours = (draws.times[order] - draws.start) / 3_600.0
    spent = np.cumsum(np.nan_to_num(draws.costs[order], nan=0.0))
    keep = np.unique(np.linspace(0, n - 1, min(n, _POINTS)).round().astype(int))
    return [SpendPoint(float(hours[i]), float(spent[i]), float(budget * (i + 1))) for i in keep]


def hourly_shares(draws: Draws) -> list[HourShare]:
    """How often each arm was chosen in each hour that had a decision."""
    hours = ((draws.times - draws.start) // 3_600.0).astype(int)
    names = np.array(draws.arms, dtype=np.str_)
    found = []
    for hour in np.unique(hours):
        arms, counts = np.unique(names[hours == hour], return_counts=True)
        total = int(counts.sum())
        found += [HourShare(int(hour), str(a), int(c), int(c) / total) for a, c in zip(arms, counts, strict=True)]
    return found


def feedback_rate(draws: Draws, log: Log) -> FeedbackRate:
    """Decisions with a reward among those that may earn one."""
    return FeedbackRate(int(on_day(log, draws.start).sum()), int(draws.drawn.sum()))


def mean_reward(log: Log, start: float) -> Estimate | None:
    """Mean reward of what was served on the day that begins at `start`; None without a reward."""
    rewards = log.feedback.rewards[on_day(log, start)]
    return estimate(rewards) if len(rewards) else None


def on_day(log: Log, start: float) -> Mask:
    """Rounds, (n,), of the UTC day that begins at `start`."""
    times = log.feedback.times
    day: Mask = (times >= start) & (times < start + DAY_S)
    return day


def saved(log: Log, arms: Sequence[FixedArm], prices: Vector, start: float, budget: float) -> Saved | None:
    """What the day's routing earned and spent against always playing the best affordable model.

    arms: estimates over the rounds of `log`, in the order of its arms.   prices: (K,) USD per request from the
    catalogue, for arms that have no estimate.   start: of the day.   budget: USD per request.
    Returns None (not enough data) while the day has fewer than 50 priced rewards, or no affordable model, or not the
    best choice there is, has an estimate.
    """
    live = on_day(log, start)
    priced = live & np.isfinite(log.feedback.costs)
    known = np.array([arm.verdict == "ok" for arm in arms])
    if priced.sum() < LEAST or not known.any():
        return None
    best = best_affordable(arms, prices, budget)
    if not known[best]:
        return None
    earned = weighted(log.feedback.rewards, share(live))
    paid = weighted(np.nan_to_num(log.feedback.costs), share(priced))
    return Saved(
        arm=arms[best].name,
        reward=estimate(earned - arms[best].rewards),
        usd=estimate(arms[best].costs - paid),
        equal_reward=_at_equal_reward([arm for arm in arms if arm.verdict == "ok"], earned, paid),
        paid=float(paid.mean()),
        ess=arms[best].ess,
        unknown=tuple(arm.name for arm in arms if arm.verdict != "ok"),
    )


def best_affordable(arms: Sequence[FixedArm], prices: Vector, budget: float) -> int:
    """The best fixed model that the budget affords, of those with an estimate; arguments as for `saved`."""
    values = np.array([arm.rewards.mean() if arm.verdict == "ok" else -np.inf for arm in arms])
    costs = np.array([a.costs.mean() if a.verdict == "ok" else p for a, p in zip(arms, prices, strict=True)])
    return best_fixed(values, costs, budget)


def _at_equal_reward(arms: Sequence[FixedArm], earned: Vector, paid: Vector) -> Estimate | None:
    """USD per request that the cheapest mix of `arms` earning as much would cost, less what was paid.

    Between neighbours a, b of the hull the mix that earns R plays b with share t = (R - v_a) / (v_b - v_a) and costs
    C = (1 - t) c_a + t c_b. To first order (delta method) its scores are those of the parts, with dC/dR = k:
    (1 - t) c_a + t c_b + k (R - (1 - t) v_a - t v_b).
    """
    reward = float(earned.mean())
    corners = _corners(arms)
    if reward > corners[-1].rewards.mean():
        return None
    above = next(i for i, arm in enumerate(corners) if arm.rewards.mean() >= reward)
    if above == 0:  # even the cheapest earns as much
        return estimate(corners[0].costs - paid)
    a, b = corners[above - 1], corners[above]
    rise = float(b.rewards.mean() - a.rewards.mean())
    t = (reward - float(a.rewards.mean())) / rise
    k = float(b.costs.mean() - a.costs.mean()) / rise
    mix = (1.0 - t) * a.costs + t * b.costs + k * (earned - (1.0 - t) * a.rewards - t * b.rewards)
    return estimate(mix - paid)


def _corners(arms: Sequence[FixedArm]) -> list[FixedArm]:
    """Corners of the hull of mixes, cheapest first: arms that the best mix at their own price plays alone."""
    values = np.array([arm.rewards.mean() for arm in arms])
    prices = np.array([arm.costs.mean() for arm in arms])
    alone = [i for i, price in enumerate(prices) if best_mix(values, prices, price)[i] >= 1.0 - _ROUNDING]
    return [arms[i] for i in sorted(alone, key=lambda i: prices[i])]


def plane(log: Log, arms: Sequence[FixedArm], versions: Sequence[str]) -> list[PlaneRow]:
    """Every fixed model and each of `versions` as a point with intervals; a version by its own rounds."""
    rows = [_fixed_row(arm) for arm in arms]
    for version in versions:
        mine = log.policies == version
        priced = mine & np.isfinite(log.feedback.costs)
        count = int(priced.sum())
        enough = count >= LEAST
        rows.append(
            PlaneRow(
                name=version,
                kind="policy",
                usd=estimate(log.feedback.costs[priced]) if enough else None,
                reward=estimate(log.feedback.rewards[mine]) if enough else None,
                rounds=int(mine.sum()),
                ess=float(count),
                verdict="ok" if enough else "not enough data",
            )
        )
    return rows


def newest_versions(log: Log, most: int = 3) -> list[str]:
    """The policy versions that acted last, the newest first."""
    last = {
        str(version): float(log.feedback.times[log.policies == version].max()) for version in np.unique(log.policies)
    }
    return sorted(last, key=lambda version: last[version], reverse=True)[:most]


def hull(rows: Iterable[PlaneRow]) -> list[HullPoint]:
    """The best context-free mix of the fixed models at each price from the cheapest to the dearest, log-spaced."""
    known = [(row.usd.value, row.reward.value) for row in rows if row.kind == "fixed model" and row.usd and row.reward]
    if len(known) < 2:
        return []
    prices, values = (np.array(column) for column in zip(*known, strict=True))
    points = []
    for budget in np.union1d(np.geomspace(prices.min(), prices.max(), _HULL), prices):
        mix = best_mix(values, prices, float(budget))
        points.append(HullPoint(float(mix @ prices), float(mix @ values)))
    return points


def active(listed: Sequence[Listed], first: str) -> Active:
    """The newest version that verifies, as a server would load it; `first` names what serves before any.

    listed: every version on disk, lowest first.
    """
    faults: list[str] = []
    for one in reversed(listed):
        if one.fault is None and one.manifest is not None:
            return Active(one.version, one.manifest.kind, one.manifest, tuple(faults))
        faults.append(f"{one.version}: {one.fault}")
    return Active(first, first, None, tuple(faults))


def tail(rows: Sequence[Row], scope: Scope) -> Tail:
    """What `rows` hold for `scope`."""
    decisions = [entry for _, entry in rows if isinstance(entry, Decision) and entry.scope == scope]
    outcomes = sum(isinstance(entry, Outcome) and entry.scope == scope for _, entry in rows)
    last = max(decisions, key=lambda d: d.time, default=None)
    return Tail(len(decisions), outcomes, last.time if last else None, last.arm if last else None)


def _fixed_row(arm: FixedArm) -> PlaneRow:
    known = arm.verdict == "ok"
    return PlaneRow(
        name=arm.name,
        kind="fixed model",
        usd=estimate(arm.costs) if known else None,
        reward=estimate(arm.rewards) if known else None,
        rounds=arm.drawn,
        ess=arm.ess,
        verdict=arm.verdict,
    )
