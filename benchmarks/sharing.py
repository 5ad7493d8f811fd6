"""Does a small workspace learn better when it leans on its tenant's other workspaces?

    OMP_NUM_THREADS=1 python -m benchmarks.sharing --data paretobandit --budget 3.0e-4 --rounds 250 500 1000 --seeds 10

Day 0 of an outcome table (outcome_table.py) is dealt to two workspaces at random: `--rounds` requests to one, all
others to its sibling. Both are served by the product's router and first policy, into one record. One night then trains
and tunes the small one alone (`alone`) and with its sibling's log (`shared`: training/training.py, `siblings`); day 1,
whole, says what each of the two candidates is worth at the budget. `kin` is where the sibling lies: `same` world, or
`opposite`, where its rewards are turned round (1 - r) and leaning on it would do harm.

Read it: `gain` is the reward of `shared` less that of `alone`, paired by seed, with its standard error; `weight` what
an event of the sibling counted, mean over seeds; `adopted` the share of seeds in which the search adopted it. `met`: no
size loses by more than two standard errors, with either kind of sibling.

What would make it wrong: a sibling that shares requests with the small workspace; a day 1 that either has seen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bandits.errors import PilotageError
from bandits.learners.linear_policy import LinearPolicy
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.rewards import feedback
from bandits.router import Router
from bandits.training import training
from bandits.tuning.tuning import Tuned, tune
from bandits.types import LoggedFeedback, Scope
from benchmarks.days import serve, value
from benchmarks.outcome_table import OutcomeTable, load_table

KIN = ("same", "opposite")
SCOPES = Scope("bench", "small", "model_routing"), Scope("bench", "sibling", "model_routing")


def logs(table: OutcomeTable, budget: float, n: int, rng: np.random.Generator) -> list[LoggedFeedback]:
    """Day 0 served in two workspaces: n requests in the first, the others in the second."""
    domain, replay, record = table.domain(budget), table.replay(), MemoryRecord()
    order = rng.permutation(len(table.first))
    for scope, part in zip(SCOPES, (order[:n], order[n:]), strict=True):
        serve(Router(scope, domain, record, rng, lambda: 0.0), replay, table.first, part)
    return [feedback(rows(record), scope, domain, 1.0) for scope in SCOPES]


def night(
    table: OutcomeTable, budget: float, own: LoggedFeedback, siblings: Sequence[LoggedFeedback], seed: int, trials: int
) -> tuple[float, Tuned]:
    """What a night's candidate is worth on day 1, and how it was tuned."""
    prepared = training.prepare(own, table.domain(budget), 2, siblings)
    tuned = tune(prepared, trials=trials, seed=seed, study="sharing")
    policy: LinearPolicy = training.train(prepared, tuned.parameters).policy
    allowed = np.broadcast_to(prepared.allowed, table.second.quality.shape)
    return value(table.second, policy.probabilities(table.second.contexts, allowed))[0], tuned


def run(table: OutcomeTable, budget: float, n: int, seed: int, trials: int) -> list[dict[str, Any]]:
    """One seed at one size, both kinds of sibling."""
    own, other = logs(table, budget, n, np.random.default_rng([seed, n]))
    alone, _ = night(table, budget, own, [], seed, trials)
    found = []
    for kin in KIN:
        sibling = other if kin == "same" else replace(other, rewards=1.0 - other.rewards)
        shared, tuned = night(table, budget, own, [sibling], seed, trials)
        weight = tuned.parameters.siblings
        found.append({"rounds": n, "seed": seed, "kin": kin, "alone": alone, "shared": shared, "weight": weight})
    return found


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By size and kind of sibling."""
    cells: dict[str, Any] = {}
    for n, kin in sorted({(row["rounds"], row["kin"]) for row in found}):
        mine = [row for row in found if (row["rounds"], row["kin"]) == (n, kin)]
        gains = np.array([row["shared"] - row["alone"] for row in mine])
        error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0
        cells[f"{n} {kin}"] = {
            "alone": round(float(np.mean([row["alone"] for row in mine])), 4),
            "shared": round(float(np.mean([row["shared"] for row in mine])), 4),
            "gain": round(float(gains.mean()), 4),
            "gain_se": round(error, 4),
            "weight": round(float(np.mean([row["weight"] for row in mine])), 3),
            "adopted": round(float(np.mean([row["weight"] > 0.0 for row in mine])), 2),
        }
    met = all(cell["gain"] >= -2.0 * cell["gain_se"] for cell in cells.values())
    return {"summary": True, "cells": cells, "met": met}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, run every (size, seed), print rows, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="paretobandit", help="paretobandit, FILE.npz or DIR")
    parser.add_argument("--budget", type=float, default=3.0e-4, help="USD per request")
    parser.add_argument("--rounds", type=int, nargs="+", default=[250, 500, 1000], help="of the small workspace")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--trials", type=int, default=16, help="of the nightly search")
    options = parser.parse_args(arguments)
    try:
        table = load_table(options.data, 0)
    except (PilotageError, ValueError) as error:
        parser.error(str(error))
    if (
        options.seeds < 1
        or options.budget <= 0.0
        or not 2 <= min(options.rounds) <= max(options.rounds) < len(table.first)
    ):
        parser.error(f"--seeds and --budget must be positive, --rounds between 2 and {len(table.first) - 1}.")
    found = []
    for n in options.rounds:
        for seed in range(options.seeds):
            print(f"{n} rounds, seed {seed}", file=sys.stderr)
            for row in run(table, options.budget, n, seed, options.trials):
                found.append(row)
                print(json.dumps(row), flush=True)
    print(json.dumps(summary(found)))


if __name__ == "__main__":
    main()
