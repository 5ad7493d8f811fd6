"""Does the nightly search gain anything, on rounds that it never saw?

    python -m benchmarks.tuning --data paretobandit PATH/zeroeval control --seeds 10

Day 0 is served by the first policy, which explores within the budget. The search (tuning.py, TPE) sees 70 % of that
log; the point that it chooses is judged once on the other 30 %, and serves only if it is proven better there. Day 1 is
the truth: nobody saw it, and every model's outcome is known. The same is done with random search at equal trials.

Read it: `before` and `after` are what the learner earns on day 1 (expected reward) with the default settings and with
those that the search leaves in force; `interval` is of the difference (95 %, paired over requests). `ungated` is what
the chosen point would have earned had it served unproven. `held_out` is the gain that was shown on the held-out log,
`overfit_gap` what the search saw in it beyond that. `violations` counts points in force that day 1 shows to be worse
than the defaults (by 1.96 standard errors), or dearer by more than a tenth of the budget; `refused_served` counts
points that were refused and stand in the signed snapshot all the same. `changed` is the share of day 1's prompts on
which the preferred model is another one. What competes with this learner in a night (training/candidates.py) is left
out.

`control` is a made-up world of steep slopes, in which the default penalties are plainly wrong: there the search has to
gain, or it would be no search at all.

What would make it wrong: judging by the log that was searched; a day 1 that the defaults were chosen by (on both data
sets the default penalties were chosen by looking at these days, so the defaults are hard to beat here).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bandits.config import DomainConfig, NightConfig
from bandits.errors import PilotageError
from bandits.home import Home
from bandits.night import night
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.rewards import feedback
from bandits.router import Router
from bandits.settings.tuning import DIMENSIONS, LEARNING, TuningConfig
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.loading import load
from bandits.training import training
from bandits.training.training import Prepared
from bandits.tuning.points import Point, point_of
from bandits.tuning.search import under
from bandits.tuning.studies import open_study
from bandits.types import LoggedFeedback, Matrix, Scope, Vector
from benchmarks.days import serve
from benchmarks.outcome_table import Day, OutcomeTable, load_table
from benchmarks.routing import Clock, budgets_of

SCOPE = Scope("bench", "main", "model_routing")
BUDGETS = {
    "paretobandit": 3.0e-4,
    "control": 2.0e-3,
}  # of data that have a budget of their own; else the middle one of `auto`
SLACK = 0.1
Z = 1.96


def table_of(source: str, seed: int) -> OutcomeTable:
    """The data: as benchmarks/routing.py has them, and `control`, a world of steep slopes made of noise by the seed."""
    if source != "control":
        return load_table(source, seed)
    rng, days = np.random.default_rng([seed, 3]), []
    for name, n in (("first", 600), ("second", 2_000)):
        x = rng.normal(size=(n, 2)).astype(np.float32)
        steep = 0.5 + 0.4 * np.tanh(3.0 * np.stack([x[:, 1], x[:, 0], -x[:, 0] - x[:, 1]], axis=1).astype(np.float64))
        quality = np.clip(steep + rng.normal(0.0, 0.1, steep.shape), 0.0, 1.0)
        days.append(Day(tuple(f"{name}-{i}" for i in range(n)), x, quality, np.full((n, 3), 1e-3)))
    return OutcomeTable(("one", "two", "three"), "vector-2", *days)


def log_of(table: OutcomeTable, domain: DomainConfig, seed: int) -> LoggedFeedback:
    """Day 0, served by the first policy through the product's own router."""
    rng, clock, record = np.random.default_rng([seed, 1]), Clock(), MemoryRecord()
    router = Router(SCOPE, domain, record, rng, clock)
    serve(router, table.replay(), table.first, rng.permutation(len(table.first)), clock.tick)
    return feedback(rows(record), SCOPE, domain, clock.now)


def earned(prepared: Prepared, point: Point, day: Day) -> tuple[Vector, Vector, Matrix]:
    """Expected reward and cost of each of the day's requests, (n,) each, and the probabilities, (n, K)."""
    policy = training.train(under(prepared, point), point.parameters).policy
    probs = policy.probabilities(day.contexts, np.broadcast_to(prepared.allowed, day.quality.shape))
    return (probs * day.quality).sum(axis=1), (probs * day.cost).sum(axis=1), probs


def searched(
    log: LoggedFeedback, domain: DomainConfig, settings: NightConfig, tuning: TuningConfig, home: Home
) -> tuple[night.Learned, Point, Point]:
    """A night's learning with this sampler; the point in force, and the one that the search chose before its proof."""
    name = f"{tuning.sampler}@{SCOPE}"  # families of their own: neither begins with what the other found
    learned = night.learn(log, domain, settings, study=name, storage=home.study, tuning=tuning)
    study, _ = open_study(name, home.study, tuning, ["maximize"])
    return learned, learned.tuned.point, point_of(study.user_attrs["chosen"])


def read_back(learned: night.Learned, settings: NightConfig, home: Home) -> Point:
    """The point that the signed manifest of tonight's snapshot says is in force."""
    judged = night.judge(learned, settings)
    night.conclude("bench", SCOPE, learned, judged, settings, home, signing_key(home.root), 0.0)
    said = load(home.snapshots, SCOPE, trusted=trusted_keys(home.root), now=0.0).manifest.evidence["tuning"]
    return point_of({name: said[name] for name in ("parameters", "floor", "half_life_days", "spend")})


def measure(
    table: OutcomeTable, name: str, budget: float, seed: int, trials: int, tuning: TuningConfig
) -> dict[str, Any]:
    """One row."""
    domain = table.domain(budget)
    settings = NightConfig(seed=seed, trials=trials, learners=("linear",))
    log = log_of(table, domain, seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        learned, point, chosen = searched(log, domain, settings, tuning, home)
        by_chance = tuning.model_copy(update={"sampler": "random"})
        random, in_force, _ = searched(log, domain, settings, by_chance, home)
        stored = read_back(learned, settings, home)
    found = {what: earned(learned.prepared, one, table.second) for what, one in
             (("before", Point()), ("after", point), ("ungated", chosen), ("random", in_force))}  # fmt: skip
    lead = found["after"][0] - found["before"][0]
    error = float(lead.std(ddof=1) / np.sqrt(len(lead)))
    dearer = float((found["after"][1] - found["before"][1]).mean())
    worse = float(lead.mean()) < -Z * error
    tuned = learned.tuned
    return {
        "data": name,
        "seed": seed,
        "budget": budget,
        "trials": tuned.trials,
        "before": _round(found["before"][0].mean()),
        "after": _round(found["after"][0].mean()),
        "interval": [_round(lead.mean() - Z * error), _round(lead.mean() + Z * error)],
        "random_search": _round(found["random"][0].mean()),
        "ungated": _round(found["ungated"][0].mean()),
        "held_out": _round(tuned.gain),
        "held_out_se": _round(tuned.standard_error),
        "overfit_gap": _round(tuned.overfit_gap),
        "adopted": tuned.adopted,
        "random_adopted": random.tuned.adopted,
        "spend_ratio": _round(found["after"][1].mean() / budget),
        "violations": int(tuned.adopted and (worse or dearer > SLACK * budget)),
        "refused_served": int(stored != point or (not tuned.adopted and stored != Point())),
        "changed": _round((found["after"][2].argmax(axis=1) != found["before"][2].argmax(axis=1)).mean()),
    }


def summary(found: Sequence[dict[str, Any]], alpha: float) -> dict[str, Any]:
    """By data: means over seeds, the standard error of the gain over seeds, and what the bars ask."""
    data = {}
    for name in dict.fromkeys(row["data"] for row in found):
        mine = [row for row in found if row["data"] == name]
        gain = np.array([row["after"] - row["before"] for row in mine])
        over_random = np.array([row["after"] - row["random_search"] for row in mine])
        data[name] = {
            **{what: _round(np.mean([row[what] for row in mine])) for what in
               ("before", "after", "random_search", "ungated", "held_out", "overfit_gap", "adopted", "changed")},
            "gain": _round(gain.mean()),
            "gain_se": _round(_error(gain)),
            "over_random": _round(over_random.mean()),
            "over_random_se": _round(_error(over_random)),
            "violations": sum(row["violations"] for row in mine),
        }  # fmt: skip
    n = len(found)
    violations, refused = (sum(row[what] for row in found) for what in ("violations", "refused_served"))
    allowed = alpha + 2.0 * float(np.sqrt(alpha * (1.0 - alpha) / n))
    no_worse = all(one["gain"] >= -2.0 * one["gain_se"] for one in data.values())
    gains = "control" not in data or data["control"]["gain"] > 2.0 * data["control"]["gain_se"]
    return {
        "summary": True,
        "data": data,
        "alpha": alpha,
        "violation_rate": _round(violations / n),
        "refused_served": refused,
        "met": bool(refused == 0 and violations / n <= allowed and no_worse and gains),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, run every (data, seed), print rows, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", default=["paretobandit", "control"], help="paretobandit, control, FILE.npz, DIR"
    )
    parser.add_argument("--budget", type=float, help="USD per request (default: by data)")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--space", nargs="+", choices=DIMENSIONS, default=LEARNING, help="what may vary")
    parser.add_argument("--trials", type=int, default=16, help="of each search")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.trials < 1 or (options.budget is not None and not options.budget > 0.0):
        parser.error("--seeds, --trials and --budget must be positive.")
    found, tuning = [], TuningConfig(space=tuple(options.space))
    with threadpool_limits(limits=1):
        for source in options.data:
            for seed in range(options.seeds):
                try:
                    table = table_of(source, seed)
                except (PilotageError, ValueError) as error:
                    parser.error(str(error))
                name = Path(source).name
                budget = options.budget or BUDGETS.get(name) or budgets_of(table, ["auto"])[2]
                print(f"{name}, seed {seed} ...", file=sys.stderr)
                found.append(measure(table, name, budget, seed, options.trials, tuning))
                print(json.dumps(found[-1]), flush=True)
    print(json.dumps(summary(found, tuning.alpha)))


def _error(values: np.ndarray[Any, Any]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _round(x: float | np.floating[Any]) -> float:
    return round(float(x), 5)


if __name__ == "__main__":
    main()
