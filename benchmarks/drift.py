"""An arm breaks without saying so: how soon is it left alone, is it taken back, and is a sound arm ever locked away?

    OMP_NUM_THREADS=1 python -m benchmarks.drift --data paretobandit --budget 1.9e-3 --seeds 20

The product serves: router, record (in memory), pacer and caps, a night over day 0 of the table (outcome_table.py), and
what watches between nights (bandits/day/learning.py). Day 0 is served by the first policy; then what the night would
publish serves requests drawn at random from both days, a request a second, catching up with the record after each. It
hears the drawn arm's reward and cost only. After 3,000 requests the arm then most in use loses quality until its mean
is .75, for 1,000 requests, then heals, for 4,000. `graded` rewards are the table's judgements; `binary` ones are 1 with
that probability. Apart from that, every seed serves --stationary requests without any fall.

Read it: `broken_share` is the broken arm's share of decisions 101 to 300 after its fall; `recovered_after` the
decisions after healing until a window of 100 gives it half its old share again, null if none does;
`false_quarantines_per_10k` counts quarantines without a fall. The bars speak of graded rewards.

What would make it wrong: a router told of the fall; a fall of an arm that nobody plays; too few stationary decisions
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

from bandits.config import DomainConfig, NightConfig
from bandits.errors import PilotageError
from bandits.learners.frozen import thaw
from bandits.night import night
from bandits.policy import FrozenPolicy
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows as rows_of
from bandits.rewards import feedback
from bandits.router import Router
from bandits.served import Serving
from bandits.types import Context, Matrix, Outcome
from benchmarks.outcome_table import OutcomeTable, load_table
from benchmarks.routing import SCOPE, Clock

STABLE, BROKEN, HEALED = 3000, 1000, 4000  # requests of each phase
FALLEN = 0.75  # mean quality of the broken arm
WINDOW = 100
SHARE, FALSE = 0.15, 1.0  # bars: share in decisions 101-300; false quarantines per 10,000 decisions


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Requests with every arm's outcome.   quality, cost: (n, K).   first: how many of them, in front, are day 0."""

    contexts: Context
    quality: Matrix
    cost: Matrix
    first: int
    domain: DomainConfig

    @classmethod
    def of(cls, table: OutcomeTable, budget: float, mode: str = "watch") -> World:
        """Both days of a table.   mode: what the domain does between nights."""
        days = (table.first, table.second)
        contexts, quality, cost = (
            np.concatenate([getattr(day, name) for day in days]) for name in ("contexts", "quality", "cost")
        )
        domain = table.domain(budget).model_copy(update={"between_nights": mode})
        return cls(contexts, quality, cost, len(table.first), domain)


class Desk:
    """Serves requests one by one, through a router and a record of its own."""

    def __init__(self, world: World, seed: Sequence[int], binary: bool, policy: FrozenPolicy | None = None) -> None:
        self.world, self.binary, self.rng = world, binary, np.random.default_rng(seed)
        self.record, self.clock, self.alarms = MemoryRecord(), Clock(), 0
        first = None if policy is None else Serving(thaw(policy), "000001")
        (rng,) = self.rng.spawn(1)
        self.router = Router(SCOPE, world.domain, self.record, rng, self.clock, serving=first)

    def any(self, fallen: int | None = None) -> int:
        """Answer a request drawn at random; returns the arm drawn.   fallen: the arm that is broken."""
        return self.answer(int(self.rng.integers(len(self.world.contexts))), fallen)

    def answer(self, row: int, fallen: int | None = None) -> int:
        """Answer one request."""
        world, before = self.world, self.router.quarantined
        decision = self.router.decide(world.contexts[row])
        arm = decision.action
        quality = float(world.quality[row, arm])
        if arm == fallen:
            quality = max(quality - float(world.quality[:, arm].mean()) + FALLEN, 0.0)
        if self.binary:
            quality = float(self.rng.random() < quality)
        self.router.report(
            Outcome(decision.id, decision.time, SCOPE, quality=quality, cost_usd=float(world.cost[row, arm]))
        )
        self.router.catch_up()
        self.alarms += len(set(self.router.quarantined) - set(before))
        self.clock.tick()
        return arm

    def sleep(self, seed: int) -> FrozenPolicy:
        """Spend a night: what would be published."""
        settings = NightConfig(seed=seed)
        log = feedback(rows_of(self.record), SCOPE, self.world.domain, self.clock.now)
        judged = night.judge(night.learn(log, self.world.domain, settings), settings)
        return judged.policies[judged.publish or "candidate"].freeze()


def published(world: World, seed: int, binary: bool) -> FrozenPolicy:
    """What serves after day 0 and its night."""
    desk = Desk(world, [seed, binary, 0], binary)
    for row in desk.rng.permutation(world.first).tolist():
        desk.answer(row)
    return desk.sleep(seed)


def fall(world: World, policy: FrozenPolicy, seed: int, binary: bool) -> dict[str, Any]:
    """One seed: stable, broken, healed."""
    desk = Desk(world, [seed, binary, 1], binary, policy)
    stable = np.array([desk.any() for _ in range(STABLE)])
    early = desk.alarms
    shares = np.bincount(stable[-500:], minlength=len(world.domain.arms)) / 500
    arm = int(shares.argmax())
    broken = np.array([desk.any(arm) for _ in range(BROKEN)]) == arm
    seen = world.domain.arm_names[arm] in desk.router.quarantined
    healed = np.array([desk.any() for _ in range(HEALED)]) == arm
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


def calm(world: World, policy: FrozenPolicy, seed: int, binary: bool, requests: int) -> dict[str, Any]:
    """One seed without any fall."""
    desk = Desk(world, [seed, binary, 2], binary, policy)
    for _ in range(requests):
        desk.any()
    pacer = desk.router.pacer
    spend = round(pacer.spent / pacer.requests / pacer.budget, 3)
    name = "binary" if binary else "graded"
    return {"seed": seed, "rewards": name, "stationary": requests, "alarms": desk.alarms, "spend_ratio": spend}


def rows(world: World, seeds: int, stationary: int) -> Iterator[dict[str, Any]]:
    """Every seed with a fall and without, both kinds of reward."""
    for binary in (False, True):
        for seed in range(seeds):
            policy = published(world, seed, binary)
            yield fall(world, policy, seed, binary)
            yield calm(world, policy, seed, binary, stationary)


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
    parser.add_argument("--mode", default="watch", choices=("still", "watch", "learn"), help="between nights")
    parser.add_argument("--stationary", type=int, default=10_000, help="decisions without a fall, per seed")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.stationary < 1 or not options.budget > 0.0:
        parser.error("--seeds, --stationary and --budget must be positive.")
    try:
        world = World.of(load_table(options.data, 0), options.budget, options.mode)
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
