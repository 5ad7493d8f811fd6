"""Which features of a prompt earn their place, and does a choice flip when only its spelling changes?

    python -m benchmarks.features --data paretobandit --seeds 5 --budgets 8.3e-5 3.0e-4

The days and the night of benchmarks/routing.py, once for each schema: "text-1", "text-2", and "text-2" without each of
its groups. A group that is the same for every prompt of the data (no conversation, no time, nobody known) is named
under `constant` and not run: it can neither help nor hurt here.

Read it: `reward` is what Pilotage earned on day 1 with this schema, `candidate` what the learned policy earned
whether or not the guard chose it; `over_text_2` its paired difference to the whole of text-2 over seeds, with standard
error: a group that earns its place makes it negative. `flip_*`: share of day 1's prompts for which the learned policy's
likeliest arm changes under a small edit (edits.py); `flip_rate` is their mean. The bars: flip_rate of text-2 is at most
.05 at every budget (on RouterArena, whose edits are heavier, routers that read the prompt keep 23 to 73 of 100
choices), its candidate earns no less than text-1's, by more than a standard error, and no seed overspends by 5 %.

What would make it wrong: edits made to suit a schema, or that change what is asked; a group judged by few seeds; data
of one language and no conversation, which can say nothing about the groups that read these.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bandits.errors import PilotageError
from bandits.features import GROUPS, Request, context, names, without
from bandits.learners.frozen import thaw
from bandits.money.budget import affordable
from bandits.policy import Policy
from bandits.types import Actions, Context, Vector
from benchmarks.edits import EDITS, edited
from benchmarks.outcome_table import OutcomeTable, load_table
from benchmarks.routing import Run, budgets_of, run, table_of

WHOLE, FIRST = "text-2", "text-1"
MOST_FLIPS = 0.05


@dataclass(frozen=True, slots=True)
class Cell:
    """One schema at one budget and seed.   spend: of the budget."""

    reward: float
    candidate: float
    spend: float
    flips: dict[str, float]


def measure(source: str, arms: tuple[str, ...] | None, budget: float, seed: int, schema: str) -> Cell:
    """A run of the routing benchmark, and how its learned policy takes edited prompts."""
    made: Run = run(source, arms, budget, seed, schema)
    table = table_of(source, arms, seed, schema)
    policy, floor = thaw(made.candidate), table.domain(budget).floor
    chosen = choices(policy, table.second.contexts, floor, budget)
    flips = {}
    for kind in EDITS:
        features = np.stack([_edited(text, kind, schema) for text in table.second.texts])
        flips[kind] = float(np.mean(choices(policy, features, floor, budget) != chosen))
    spend = float(made.pilotage.costs.mean()) / budget
    return Cell(float(made.pilotage.rewards.mean()), float(made.ungated.rewards.mean()), spend, flips)


def choices(policy: Policy, features: Context, floor: float, budget: float) -> Actions:
    """The likeliest arm of each context, (n,), while spending is on target."""
    allowed = policy.supported & affordable(policy.prices, floor, budget)
    rows = np.broadcast_to(allowed, (len(features), len(allowed)))
    return np.asarray(policy.probabilities(features, rows).argmax(axis=1))


def constant_groups(table: OutcomeTable) -> list[str]:
    """Groups of text-2 that are the same for every prompt of both days."""
    both = np.concatenate([table.first.contexts, table.second.contexts])
    varies = dict(zip(names(WHOLE), np.ptp(both, axis=0) > 0.0, strict=True))
    return [group for group, one in GROUPS.items() if not any(varies[name] for name in one.names)]


def row(schema: str, budget: float, cells: Sequence[Cell], whole: Sequence[Cell]) -> dict[str, Any]:
    """The row of one schema at one budget; `whole`: the cells of text-2, seed by seed the same."""
    flips = {f"flip_{kind}": _mean([cell.flips[kind] for cell in cells]) for kind in EDITS}
    lead = _candidates(cells) - _candidates(whole)
    return {
        "budget": budget,
        "schema": schema,
        "reward": _mean([cell.reward for cell in cells]),
        "candidate": _mean(_candidates(cells)),
        "over_text_2": _mean(lead),
        "over_text_2_se": _error(lead),
        "worst_spend_ratio": _round(max(cell.spend for cell in cells)),
        **flips,
        "flip_rate": _mean([share for cell in cells for share in cell.flips.values()]),
    }


def verdict(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the bars ask, over all budgets, and whether it is met."""
    ours = [row for row in rows if row["schema"] == WHOLE]
    first = [row for row in rows if row["schema"] == FIRST]
    behind = _mean([row["over_text_2"] for row in first])
    error = _round(np.sqrt(sum(row["over_text_2_se"] ** 2 for row in first)) / len(first))
    by_schema = {
        schema: {name: _mean([row[name] for row in rows if row["schema"] == schema]) for name in _SHOWN}
        for schema in dict.fromkeys(row["schema"] for row in rows)
    }
    worst_flips, worst_spend = (max(row[name] for row in ours) for name in ("flip_rate", "worst_spend_ratio"))
    return {
        "schemas": by_schema,
        "text_1_over_text_2": behind,
        "text_1_over_text_2_se": error,
        "flip_rate_max": worst_flips,
        "worst_spend_ratio": worst_spend,
        "met": bool(worst_flips <= MOST_FLIPS and behind <= error and worst_spend <= 1.05),
    }


_SHOWN = ("reward", "candidate", "over_text_2", "flip_case", "flip_whitespace", "flip_typos", "flip_rate")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, run every (budget, schema, seed), print a row a schema and budget, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="paretobandit", help="paretobandit or DIR: what holds prompts")
    parser.add_argument("--budgets", nargs="+", default=["auto"], help="USD per request, or auto")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--arms", nargs="+", help="models to choose among (default: all)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    arms = tuple(options.arms) if options.arms else None
    try:
        table = load_table(options.data, 0, arms, WHOLE)
        budgets = budgets_of(table, options.budgets)
    except (PilotageError, ValueError) as error:
        parser.error(str(error))
    if options.seeds < 2 or min(budgets) <= 0.0:
        parser.error("--seeds must be at least 2 and --budgets positive.")
    if not table.first.texts:
        parser.error(f"--data must hold prompts, but {options.data} holds vectors.")
    constant = constant_groups(table)
    schemas = [WHOLE, FIRST, *(without(group) for group in GROUPS if group not in constant)]
    rows = []
    with (
        ProcessPoolExecutor(options.workers, get_context("spawn"), initializer=partial(threadpool_limits, 1)) as pool,
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("runs", total=len(schemas) * len(budgets) * options.seeds)
        jobs = {
            (schema, budget): [
                pool.submit(measure, options.data, arms, budget, seed, schema) for seed in range(options.seeds)
            ]
            for schema in schemas
            for budget in budgets
        }
        cells: dict[tuple[str, float], list[Cell]] = {}
        for (schema, budget), futures in jobs.items():
            cells[schema, budget] = []
            for future in futures:
                cells[schema, budget].append(future.result())
                progress.advance(task)
            rows.append(row(schema, budget, cells[schema, budget], cells[WHOLE, budget]))
            print(json.dumps(rows[-1]), flush=True)
    told = {"summary": True, "data": Path(options.data).name, "seeds": options.seeds, "constant": constant}
    print(json.dumps(told | verdict(rows)))


@cache
def _edited(text: str, kind: str, schema: str) -> Context:
    """The context of a prompt after an edit: the same edit for every seed and budget of the runs."""
    return context(Request(edited(text, kind)), schema)


def _candidates(cells: Sequence[Cell]) -> Vector:
    return np.array([cell.candidate for cell in cells])


def _error(values: Vector) -> float:
    return _round(float(np.std(values, ddof=1)) / np.sqrt(len(values)))


def _mean(values: Sequence[float] | Vector) -> float:
    return _round(np.mean(values))


def _round(x: float | np.floating[Any]) -> float:
    return round(float(x), 5)


if __name__ == "__main__":
    main()
