"""An arm breaks without saying so: how soon is it left alone, is it taken back, and is a sound arm ever locked away?

    OMP_NUM_THREADS=1 python -m benchmarks.drift --data paretobandit --budget 1.9e-3 --seeds 20

Requests are drawn at random from both days of the table (outcome_table.py), contexts scaled as on day 0. The default
online learner (bandits/learners/online.py) decides: its bounds less the price of a dollar times each arm's catalogue
price; the pacer and its cap (bandits/budget.py) as in the router; the watch (bandits/change.py) keeps quarantined arms
to its probes. It hears the drawn arm's reward and cost only. After 3,000 requests the arm then most in use loses
quality until its mean is .75, for 1,000 requests, then heals, for 4,000. `graded` rewards are the table's judgements;
`binary` ones are 1 with that probability. Apart from that, every seed serves --stationary requests without any fall.

Read it: `broken_share` is the broken arm's share of decisions 101 to 300 after its fall; `recovered_after` the
decisions after healing until a window of 100 gives it half its old share again, null if none does;
`false_quarantines_per_10k` counts quarantines without a fall. The bars speak of graded rewards.

What would make it wrong: a learner told of the fall; a fall of an arm that nobody plays; too few stationary decisions
for a rate of 1 in 10,000.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bandits.budget import TARGET, Pacer, affordable
from bandits.change import Watch
from bandits.errors import PilotageError
from bandits.learners.online import DEFAULT, OnlineLearner
from bandits.learners.scaling import ContextSums
from bandits.policy import draw
from bandits.types import Context, Matrix, Vector
from benchmarks.outcome_table import OutcomeTable, load_table

STABLE, BROKEN, HEALED = 3000, 1000, 4000  # requests of each phase
FALLEN = 0.75  # mean quality of the broken arm
WINDOW = 100
SHARE, FALSE = 0.15, 1.0  # bars: share in decisions 101-300; false quarantines per 10,000 decisions
REPRICE = 100  # requests between solutions of the price


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Requests with every arm's outcome.   quality, cost: (n, K).   prices: (K,) USD, the catalogue's."""

    contexts: Context
    quality: Matrix
    cost: Matrix
    prices: Vector
    day0: Context
    budget: float
    burst: int

    @classmethod
    def of(cls, table: OutcomeTable, budget: float) -> World:
        """Both days of a table."""
        days, domain = (table.first, table.second), table.domain(budget)
        contexts, quality, cost = (
            np.concatenate([getattr(day, name) for day in days]) for name in ("contexts", "quality", "cost")
        )
        prices = np.array([arm.usd_per_request for arm in domain.arms])
        return cls(contexts, quality, cost, prices, table.first.contexts, budget, domain.burst)


class Desk:
    """Serves requests one by one: learner, price, pacer and watch together."""

    def __init__(self, world: World, seed: int, binary: bool) -> None:
        k = len(world.prices)
        self.world, self.binary, self.rng = world, binary, np.random.default_rng([seed, binary])
        self.learner = OnlineLearner(k, ContextSums.of(world.day0).scaler(), DEFAULT)
        self.pacer, self.watch = Pacer(world.budget, world.burst), Watch.start(k)
        self.reachable = affordable(world.prices, DEFAULT.floor, world.budget)
        self.totals, self.counts, self.price = np.zeros(k), np.zeros(k), 0.0
        self.alarms = 0

    def serve(self, fallen: int | None = None) -> int:
        """Answer one request; returns the arm drawn.   fallen: the arm that is broken."""
        world, row = self.world, int(self.rng.integers(len(self.world.contexts)))
        context, prices = world.contexts[row], world.prices
        if self.pacer.requests % REPRICE == 0:
            values = self.totals / np.maximum(self.counts, 1.0)
            self.price = dollar(values, prices, TARGET * world.budget / self.pacer.pressure)
        allowed = self.reachable & self.pacer.within_cap(prices)
        if not allowed.any():
            allowed[int(prices.argmin())] = True
        probabilities = self.learner.probabilities(context[None], allowed[None], self.price * prices)[0]
        action, _ = draw(self.watch.guard(probabilities, allowed), self.rng)
        id_ = str(self.pacer.requests)
        self.pacer.reserve(id_, float(prices[action]))
        self.pacer.settle(id_, float(world.cost[row, action]))
        quality = float(world.quality[row, action])
        if action == fallen:
            quality = max(quality - float(world.quality[:, action].mean()) + FALLEN, 0.0)
        self._hear(context, action, float(self.rng.random() < quality) if self.binary else quality)
        return action

    def _hear(self, context: Context, action: int, reward: float) -> None:
        before = bool(self.watch.quarantined[action])
        if self.watch.see(action, float(self.learner.estimates(context)[action]), reward):
            self.learner.learn(context, action, reward)
            self.totals[action] += reward
            self.counts[action] += 1.0
        self.alarms += bool(self.watch.quarantined[action]) and not before


def dollar(values: Vector, prices: Vector, budget: float) -> float:
    """Least price of a dollar, in reward per USD, at which the arm of highest value - price * cost is affordable."""
    gaps = prices[:, None] - prices
    worth = np.divide(values[:, None] - values, gaps, out=np.zeros_like(gaps), where=gaps > 0.0)
    for price in sorted({0.0, *np.maximum(worth, 0.0).ravel().tolist()}):
        # Just above the price at which two arms tie, the cheaper one is the better.
        if prices[int((values - (price * (1.0 + 1e-9) + 1e-12) * prices).argmax())] <= budget:
            return float(price)
    return 0.0


def fall(world: World, seed: int, binary: bool) -> dict[str, Any]:
    """One seed: stable, broken, healed."""
    desk = Desk(world, seed, binary)
    stable = np.array([desk.serve() for _ in range(STABLE)])
    early = desk.alarms
    shares = np.bincount(stable[-500:], minlength=len(world.prices)) / 500
    arm = int(shares.argmax())
    broken = np.array([desk.serve(arm) for _ in range(BROKEN)]) == arm
    seen = bool(desk.watch.quarantined[arm])
    healed = np.array([desk.serve() for _ in range(HEALED)]) == arm
    windows = np.convolve(healed, np.ones(WINDOW), "valid") / WINDOW
    back = np.flatnonzero(windows >= 0.5 * shares[arm])
    return {
        "seed": seed,
        "rewards": "binary" if binary else "graded",
        "arm": arm,
        "share_before": round(float(shares[arm]), 3),
        "broken_share": round(float(broken[100:300].mean()), 4),
        "quarantined": seen,
        "recovered_after": int(back[0]) + WINDOW if back.size else None,
        "early_alarms": early,
    }


def rows(world: World, seeds: int, stationary: int) -> Iterator[dict[str, Any]]:
    """Every seed with a fall, both kinds of reward; then every seed without."""
    for binary in (False, True):
        for seed in range(seeds):
            yield fall(world, seed, binary)
        for seed in range(seeds):
            desk = Desk(world, 1000 + seed, binary)
            for _ in range(stationary):
                desk.serve()
            name = "binary" if binary else "graded"
            spend = round(desk.pacer.spent / desk.pacer.requests / world.budget, 3)
            yield {"seed": seed, "rewards": name, "stationary": stationary, "alarms": desk.alarms, "spend_ratio": spend}


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds by kind of reward; the bars are of the graded ones."""
    out: dict[str, Any] = {"summary": True}
    for name in ("graded", "binary"):
        falls = [row for row in found if row["rewards"] == name and "arm" in row]
        calm = [row for row in found if row["rewards"] == name and "alarms" in row]
        decisions = sum(row["stationary"] for row in calm)
        back = [row["recovered_after"] for row in falls if row["recovered_after"] is not None]
        out[name] = {
            "broken_share_after_100": round(float(np.mean([row["broken_share"] for row in falls])), 4),
            "worst_broken_share": max(row["broken_share"] for row in falls),
            "recovered": len(back),
            "falls": len(falls),
            "recovered_after_p50": float(np.median(back)) if back else None,
            "stationary_decisions": decisions,
            "false_quarantines_per_10k": round(1e4 * sum(row["alarms"] for row in calm) / max(decisions, 1), 4),
        }
    graded = out["graded"]
    out["broken_share_after_100"] = graded["broken_share_after_100"]
    out["false_quarantines_per_10k"] = graded["false_quarantines_per_10k"]
    kept = graded["broken_share_after_100"] <= SHARE and graded["false_quarantines_per_10k"] <= FALSE
    return {**out, "met": bool(kept and graded["recovered"] == graded["falls"])}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, serve every seed, print rows as they finish, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="paretobandit", help="paretobandit, FILE.npz or DIR")
    parser.add_argument("--budget", type=float, default=1.9e-3, help="USD per request")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--stationary", type=int, default=10_000, help="decisions without a fall, per seed")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.stationary < 1 or not options.budget > 0.0:
        parser.error("--seeds, --stationary and --budget must be positive.")
    try:
        world = World.of(load_table(options.data, 0), options.budget)
    except PilotageError as error:
        parser.error(str(error))
    found = []
    with threadpool_limits(limits=1):
        for row in rows(world, options.seeds, options.stationary):
            found.append(row)
            print(json.dumps(row), flush=True)
            print(f"{row['rewards']} seed {row['seed']}", file=sys.stderr)
    print(json.dumps(summary(found)))


if __name__ == "__main__":
    main()
