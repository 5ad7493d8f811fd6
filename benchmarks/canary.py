"""How often is a sound canary rolled back, and how soon is a bad one, when every outcome is looked at?

    python -m benchmarks.canary --rollouts 2000 --decisions 20000

A/A: canaries that are as good as what they replace, under the product's default terms (bandits/settings/rollout.py).
Each rollout serves `--decisions` decisions, an equal number at each stage, with an outcome each; after each of them the
three e-processes that may end it are looked at. Four designs: rewards of 0 or 1, or graded; and a canary that is equal
to the control (0.5 % failures), or *just* as bad as is still tolerated in errors, slowness and reward at once, which is
the worst that must not be rolled back more often than alpha.

Detection: 1,000 rollouts for each size of fault, with one fault at a time.

Read it: `share` of A/A rollouts that were rolled back at any time, by any of the three; the bar is alpha, with
2 sqrt(alpha (1 - alpha) / R) for chance. `detect_p50` and `detect_p95` are outcomes of the canary until the breach;
`bar_p95` is 1.25 times what a sketch of such a test needed (errors at 0.1 % false alarms, rewards at 1 %), and
`decisions_p95` the decisions of the whole scope at each stage's share. `false_rollbacks` is the worst design's share.

What would make it wrong: outcomes of one user are independent here (a user who comes often is several votes); slots are
uniform numbers put to the product's rule (that its hash is uniform is a test's affair); rewards come with the decision,
so no delay makes pairs of different times.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from bandits.assignment import BUCKETS
from bandits.monitoring.eprocess import AboveZero, EProcess, TooOften
from bandits.rollout.evidence import ALPHAS
from bandits.rollout.slots import canary_ends, control_begins
from bandits.settings.rollout import RolloutConfig
from bandits.types import Mask, Vector

TERMS = RolloutConfig()
CONTROL = 0.78  # mean reward
SPREAD = 0.14  # of graded rewards
RUNS = 1_000  # for each size of a fault
ERRORS = {1.0: 3, 0.5: 15, 0.2: 61, 0.1: 217, 0.05: 1_048}  # rate of failures -> p95 of the sketch
BINARY = {0.08: 2_617, 0.18: 416, 0.38: 89, 0.68: 25}  # drop of reward -> likewise
GRADED = {0.08: 291, 0.18: 71, 0.38: 28}
SLACK = 1.25

Draw = Callable[[np.random.Generator, float, int], Vector]


def binary(rng: np.random.Generator, mean: float, n: int) -> Vector:
    """Thumbs: n rewards of 0 or 1."""
    return (rng.random(n) < mean).astype(np.float64)


def graded(rng: np.random.Generator, mean: float, n: int) -> Vector:
    """A judge's: n rewards in [0, 1]."""
    return np.clip(rng.normal(mean, SPREAD, n), 0.0, 1.0)


def false_rollbacks(
    draw: Draw, boundary: bool, rollouts: int, decisions: int, rng: np.random.Generator
) -> dict[str, Any]:
    """One A/A design: the share of rollouts that any of the three ended, and of each alone."""
    shape = (rollouts,)
    errors, slow = TooOften(TERMS.error_rate, shape), TooOften(TERMS.slow_share, shape)
    drop = AboveZero(1.0 + TERMS.reward_drop, shape)
    failing = TERMS.error_rate if boundary else 0.005
    slowing = TERMS.slow_share if boundary else 0.01
    below = TERMS.reward_drop if boundary else 0.0
    waiting = np.zeros((2, rollouts), np.int64)  # rewards without a partner: control, canary
    for step in range(decisions):
        share = TERMS.stages[step * len(TERMS.stages) // decisions]
        places = rng.integers(BUCKETS, size=rollouts)
        canary, control = places < canary_ends(share), places >= control_begins(share)
        errors.see(_where(canary, binary(rng, failing, rollouts)))
        slow.see(_where(canary, binary(rng, slowing, rollouts)))
        waiting += np.stack([control, canary])
        paired = waiting.min(axis=0) > 0
        waiting -= paired
        lead = draw(rng, CONTROL, rollouts) - draw(rng, CONTROL - below, rollouts)
        drop.see(_where(paired, lead - TERMS.reward_drop))
        if step % 1_000 == 0:
            print(f"\r{step} of {decisions} decisions", end="", file=sys.stderr)
    print("\r", end="", file=sys.stderr)
    ended = {name: one.reached(TERMS.alpha * ALPHAS[name]) for name, one in _named(errors, slow, drop)}
    return {
        "share": float(np.logical_or.reduce(list(ended.values())).mean()),
        **{name: float(each.mean()) for name, each in ended.items()},
    }


def detection(process: EProcess, name: str, draw: Callable[[], Vector], most: int) -> Vector:
    """Outcomes of the canary until the breach, (RUNS,); infinite where `most` did not do."""
    found = np.full(RUNS, np.inf)
    for n in range(1, most + 1):
        process.see(draw())
        found = np.where(np.isinf(found) & process.reached(TERMS.alpha * ALPHAS[name]), n, found)
        if np.isfinite(found).all():
            break
    return found


def detections(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """A row for each kind and size of fault."""
    for rate, p95 in ERRORS.items():
        rare = TooOften(TERMS.error_rate, (RUNS,))
        failures = partial(binary, rng, rate, RUNS)
        yield _cell(f"errors {rate:g}", detection(rare, "errors", failures, 20 * p95), p95)
    for kind, draw, sizes in (("thumbs", binary, BINARY), ("graded", graded, GRADED)):
        for size, p95 in sizes.items():

            def lead(draw: Draw = draw, size: float = size) -> Vector:
                return draw(rng, CONTROL, RUNS) - draw(rng, CONTROL - size, RUNS) - TERMS.reward_drop

            mean = AboveZero(1.0 + TERMS.reward_drop, (RUNS,))
            yield _cell(f"reward {kind} -{size:g}", detection(mean, "drop", lead, 20 * p95), p95)


def _cell(name: str, found: Vector, p95: int) -> dict[str, Any]:
    at95 = float(np.quantile(found, 0.95))

    def controlled(share: float) -> bool:  # a stage of everybody has nobody to hold rewards against
        return share < 1.0 or name.startswith("errors")

    return {
        "cell": name,
        "detect_p50": float(np.median(found)),
        "detect_p95": at95,
        "bar_p95": SLACK * p95,
        "decisions_p95": {f"{share:g}": math.ceil(at95 / share) for share in TERMS.stages if controlled(share)},
        "met": at95 <= SLACK * p95,
    }


def _named(errors: EProcess, slow: EProcess, drop: EProcess) -> Iterator[tuple[str, EProcess]]:
    yield from (("errors", errors), ("slow", slow), ("drop", drop))


def _where(known: Mask, values: Vector) -> Vector:
    return np.where(known, values, np.nan)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rollouts", type=int, default=2_000)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.rollouts < 1 or args.decisions < len(TERMS.stages):
        parser.error(f"--rollouts must be 1 or more and --decisions {len(TERMS.stages)} or more")
    rng = np.random.default_rng(args.seed)
    found = []
    for row in detections(rng):
        print(json.dumps(row), flush=True)
        found.append(bool(row["met"]))
    slack = 2.0 * math.sqrt(TERMS.alpha * (1.0 - TERMS.alpha) / args.rollouts)
    shares = []
    for kind, draw in (("thumbs", binary), ("graded", graded)):
        for boundary in (False, True):
            start = time.perf_counter()
            row = false_rollbacks(draw, boundary, args.rollouts, args.decisions, rng)
            name = f"aa {kind} {'just tolerated' if boundary else 'equal'}"
            print(json.dumps({"cell": name, **row, "seconds": time.perf_counter() - start}), flush=True)
            shares.append(row["share"])
    summary = {
        "summary": True,
        "alpha": TERMS.alpha,
        "rollouts": args.rollouts,
        "decisions": args.decisions,
        "false_rollbacks": max(shares),
        "limit": TERMS.alpha + slack,
        "detected_in_time": all(found),
        "met": max(shares) <= TERMS.alpha + slack and all(found),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
