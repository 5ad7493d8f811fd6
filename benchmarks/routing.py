"""Does a night of learning from logged draws route better, for the same money, than any simple policy?

    python -m benchmarks.routing --data paretobandit --seeds 20 \\
        --budgets 8.3e-5 2.3e-4 3.0e-4 6.6e-4 1.9e-3 5.3e-3 1.5e-2

Day 0 is served by the first policy, which explores within the budget; one night trains, tunes, judges; day 1 is
served by what the guard chose (`pilotage`) and by the trained candidate regardless (`ungated`). Learning sees only
the outcome of the model that was drawn. Router, record (in memory), night and pacing are the product's own.

Read it: `reward` is mean quality on day 1 over seeds, `spend_ratio` mean spend / budget; compare `pilotage` with
`best_fixed` and `mix`, which know day 1 in hindsight, and with `oracle`, which knows each request. `ahead_of_fixed` is
the paired lead over the best affordable fixed model with its standard error over requests.

What would make it wrong: features that know the task's label; a catalogue price that leaks more than its first digit;
choosing defaults by looking at these very days (on paretobandit the penalties of doubly_robust.Parameters and the
constants of money/budget.py were; on zeroeval doubly_robust.LEVEL and first_day.EVEN).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bandits.config import NightConfig
from bandits.errors import PilotageError
from bandits.learners.frozen import thaw
from bandits.night import night
from bandits.night.guard import Choice
from bandits.policy import FrozenPolicy
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.rewards import feedback
from bandits.router import Router
from bandits.served import Serving
from bandits.types import Scope
from benchmarks.days import Served, hindsight, serve, value
from benchmarks.outcome_table import OutcomeTable, load_table

SCOPE = Scope("bench", "main", "model_routing")
DAY_S = 86_400.0

# ParetoBandit 0.1.1 on the prompts of its own package, reproduced: online on day 0, then day 1; mean of 20 seeds.
PARETOBANDIT = {
    8.3e-5: 0.8133,
    2.3e-4: 0.8580,
    3.0e-4: 0.8738,
    6.6e-4: 0.8969,
    1.9e-3: 0.9174,
    5.3e-3: 0.9246,
    1.5e-2: 0.9291,
}


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One seed at one budget: what was served, and the simple policies' (reward, cost) on the same day."""

    chosen: Choice  # by the guard
    first: Served
    pilotage: Served
    ungated: Served
    simple: Mapping[str, tuple[float, float]]
    lead: float  # of pilotage over the best affordable fixed arm, per request
    lead_se: float  # paired, over requests
    candidate: FrozenPolicy  # as trained that night, whichever policy was chosen


class Clock:
    """Time that passes by a second a request, so that a benchmark takes no longer than it must."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now

    def tick(self) -> None:
        """A second passes."""
        self.now += 1.0


def run(source: str, arms: tuple[str, ...] | None, budget: float, seed: int, schema: str = "text-1") -> Run:
    """Serve day 0, spend the night, serve day 1.   schema: of the contexts of prompts."""
    table = table_of(source, arms, seed, schema)
    domain, replay, settings = table.domain(budget), table.replay(), NightConfig(seed=seed)
    rng, clock, record = np.random.default_rng([seed, 1]), Clock(), MemoryRecord()
    router = Router(SCOPE, domain, record, rng, clock)
    first = serve(router, replay, table.first, rng.permutation(len(table.first)), clock.tick)

    learned = night.learn(feedback(rows(record), SCOPE, domain, clock.now), domain, settings)
    judged = night.judge(learned, settings)
    order = rng.permutation(len(table.second))

    def second(choice: Choice) -> Served:
        clock.now = DAY_S
        served = Router(SCOPE, domain, MemoryRecord(), np.random.default_rng([seed, 2]), clock)
        served.swap(Serving(thaw(judged.policies[choice].freeze()), choice))
        return serve(served, replay, table.second, order, clock.tick)

    chosen = judged.guard.chosen
    pilotage = second(chosen)
    ungated = pilotage if chosen == "candidate" else second("candidate")
    simple = hindsight(table.second, budget)
    lead = pilotage.rewards - (simple["best_fixed"] * table.second.quality).sum(axis=1)[order]
    return Run(
        chosen,
        first,
        pilotage,
        ungated,
        {name: value(table.second, probabilities) for name, probabilities in simple.items()},
        float(lead.mean()),
        float(lead.std(ddof=1) / np.sqrt(len(lead))),
        judged.policies["candidate"].freeze(),
    )


def table_of(source: str, arms: tuple[str, ...] | None, seed: int, schema: str) -> OutcomeTable:
    """The table that a run of this seed serves."""
    return _table(source, seed if Path(source).is_dir() else 0, arms, schema)


@lru_cache(maxsize=2)
def _table(source: str, seed: int, arms: tuple[str, ...] | None, schema: str) -> OutcomeTable:
    return load_table(source, seed, arms, schema)


def summarise(budget: float, runs: Sequence[Run], arms: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one budget, one a policy; `pilotage` first."""
    day0 = [float(r.first.costs.mean()) / budget for r in runs]
    shared = {"budget": budget, "seeds": len(runs), "day0_spend_ratio": _round(np.mean(day0))}
    out = []
    for name in ("pilotage", "ungated"):
        served: list[Served] = [getattr(r, name) for r in runs]
        drawn = np.mean([np.bincount(s.actions, minlength=len(arms)) / len(s.actions) for s in served], axis=0)
        row = _row(name, [float(s.rewards.mean()) for s in served], [float(s.costs.mean()) for s in served], budget)
        row["share"] = {arm: _round(x) for arm, x in zip(arms, drawn, strict=True)}
        out.append({**shared, **row})
    chosen = [r.chosen for r in runs]
    out[0]["chosen"] = {choice: chosen.count(choice) for choice in ("candidate", "mix", "fixed")}
    out[0]["worst_day0_spend_ratio"] = _round(max(day0))
    out[0]["ahead_of_fixed"] = _round(np.mean([r.lead for r in runs]))
    out[0]["ahead_of_fixed_se"] = _round(np.mean([r.lead_se for r in runs]))
    for name in runs[0].simple:
        reward, cost = zip(*(r.simple[name] for r in runs), strict=True)
        out.append({**shared, **_row(name, reward, cost, budget)})
    return out


def _row(policy: str, rewards: Sequence[float], costs: Sequence[float], budget: float) -> dict[str, Any]:
    spread = float(np.std(rewards, ddof=1)) if len(rewards) > 1 else 0.0
    return {
        "policy": policy,
        "reward": _round(np.mean(rewards)),
        "reward_se": _round(spread / np.sqrt(len(rewards))),
        "spend_ratio": _round(np.mean(costs) / budget),
        "worst_spend_ratio": _round(max(costs) / budget),
    }


def verdict(table: Sequence[dict[str, Any]], is_paretobandit: bool) -> dict[str, Any]:
    """What the bars ask of one budget, and whether it is met."""
    by = {row["policy"]: row for row in table}
    ours = by["pilotage"]
    simple = max(by["best_fixed"]["reward"], by["mix"]["reward"])
    bar = PARETOBANDIT.get(ours["budget"]) if is_paretobandit else None
    named = {
        "reward": ours["reward"],
        "ungated": by["ungated"]["reward"],
        "paretobandit": bar,
        "best_fixed": by["best_fixed"]["reward"],
        "mix": by["mix"]["reward"],
        "over_simple": _round(ours["reward"] - simple),
        "ahead_of_fixed": ours["ahead_of_fixed"],
        "ahead_of_fixed_se": ours["ahead_of_fixed_se"],
        "spend_ratio": ours["spend_ratio"],
        "worst_spend_ratio": ours["worst_spend_ratio"],
        "day0_spend_ratio": ours["day0_spend_ratio"],
    }
    spend = ours["spend_ratio"] <= 1.0 and ours["worst_spend_ratio"] <= 1.05 and ours["day0_spend_ratio"] <= 1.15
    rewarded = ours["reward"] >= bar if bar else ours["ahead_of_fixed"] >= -ours["ahead_of_fixed_se"]
    return {**named, "met": bool(spend and rewarded)}


def budgets_of(table: OutcomeTable, wanted: Sequence[str]) -> list[float]:
    """The budgets asked for, USD per request; "auto": five, geometric between the cheapest and the dearest model."""
    if list(wanted) != ["auto"]:
        return [float(budget) for budget in wanted]
    means = np.concatenate([table.first.cost, table.second.cost]).mean(axis=0)
    return [float(f"{budget:.3g}") for budget in np.geomspace(means.min(), means.max(), 7)[1:-1]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, run every (budget, seed), print rows as budgets finish, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="paretobandit", help="paretobandit, FILE.npz or DIR")
    parser.add_argument("--budgets", nargs="+", default=["auto"], help="USD per request, or auto")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--arms", nargs="+", help="models to choose among (default: all)")
    parser.add_argument("--features", default="text-1", help="schema of the prompts' contexts")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    arms = tuple(options.arms) if options.arms else None
    try:
        table = load_table(options.data, 0, arms, options.features)
        budgets = budgets_of(table, options.budgets)
    except (PilotageError, ValueError) as error:
        parser.error(str(error))
    if options.seeds < 1 or min(budgets) <= 0.0:
        parser.error("--seeds and --budgets must be positive.")
    by_budget = {}
    for budget, runs in _all(options, arms, budgets):
        found = summarise(budget, runs, table.arms)
        is_paretobandit = options.data == "paretobandit" or options.data.endswith("paretobandit_k3.npz")
        by_budget[f"{budget:.3g}"] = verdict(found, is_paretobandit)
        for row in found:
            print(json.dumps(row), flush=True)
    met = all(entry["met"] for entry in by_budget.values())
    print(json.dumps({"summary": True, "data": Path(options.data).name, "budgets": by_budget, "met": met}))


def _all(
    options: argparse.Namespace, arms: tuple[str, ...] | None, budgets: Sequence[float]
) -> Iterator[tuple[float, list[Run]]]:
    """Each budget with its runs, in order, as soon as all its seeds are there."""
    with (
        ProcessPoolExecutor(options.workers, get_context("spawn"), initializer=_one_thread) as pool,
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("runs", total=len(budgets) * options.seeds)
        seeds, schema = range(options.seeds), options.features
        jobs = {b: [pool.submit(run, options.data, arms, b, seed, schema) for seed in seeds] for b in budgets}
        for budget, futures in jobs.items():
            runs = []
            for future in futures:
                runs.append(future.result())
                progress.advance(task)
            yield budget, runs


def _one_thread() -> None:
    """Two processes that each start two BLAS threads on two cores get in each other's way."""
    threadpool_limits(limits=1)


def _round(x: float | np.floating[Any]) -> float:
    return round(float(x), 5)


if __name__ == "__main__":
    main()
