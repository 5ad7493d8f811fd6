"""Does a confidence sequence hold the truth at every look, and how narrow is it after 2,000 rounds?

    python -m benchmarks.intervals --reps 1000

A design is a target policy, a floor (least probability with which the log draws an arm), and how the log draws:
`stationary` (one arm is preferred, the others have the floor), `drifting` (which arm is preferred wanders through all
of them), `adaptive` (the arm that did best so far is preferred). Five arms, two kinds of context, rewards 0 or 1 whose
chance depends on both. The five targets: `one` arm always, the floor's own in the stationary log; `best` arm of each
context; `uniform`; `soft`, which prefers the best arms mildly; `logging`-like, which prefers the stationary log's arm.
What is estimated does not change over a log; only the way of logging does.

Each repetition is judged by the product's own sequences at alpha = 0.05: `ipw` and `dr` the value of the target (dr
with the constant 1/2 as reward model), `paired` its advantage over the policy that prefers arm 0.

Read it: `miss` is the share of logs in which the truth lay outside at *any* of the rounds up to n; `width` the mean
width at n, within the range that a value can have. A sequence never takes back what it ruled out, so the interval at n
tells of every look before. Bars: each `miss` at most alpha + 2 sqrt(alpha (1 - alpha) / reps) (with many designs one
or two may exceed that by chance: `over` names them); the width bars speak of the hardest design, target `one` under
stationary logging: ipw <= .38 and dr <= .33 at floor .05, dr <= .23 at floor .1. `power`: share of logs that show
an advantage of +.15 of `one` over arm 0, at floor .05, by the low end of a two-sided interval; the bar on power is the
gate's, whose low end has the whole of alpha (benchmarks/gates.py). `control_miss` is the normal interval looked at
every 20 rounds in the same logs: it must miss more often than alpha, or the measuring is blind.

What would make it wrong: a truth other than the target's expected reward; few repetitions; a range of scores that was
chosen by looking at them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from bandits.evaluation import ips, sequences
from bandits.evaluation.intervals import Interval
from bandits.types import Actions, LoggedFeedback, Matrix, Vector

ALPHA, ROUNDS = 0.05, 2000
ARMS = 5
FLOORS = (0.025, 0.05, 0.1)
Logging = Literal["stationary", "drifting", "adaptive"]
LOGGING: tuple[Logging, ...] = ("stationary", "drifting", "adaptive")
# Chance of a reward, by kind of context and arm. Arm 1 is worth .6 on average, arm 0 .45.
EXPECTED = np.array([[0.50, 0.50, 0.80, 0.30, 0.40], [0.40, 0.70, 0.20, 0.60, 0.50]])
ESTIMATORS = ("ipw", "dr", "paired")
WIDTHS = {"width_ipw_05": ("ipw", 0.05, 0.38), "width_dr_05": ("dr", 0.05, 0.33), "width_dr_10": ("dr", 0.1, 0.23)}


def targets() -> dict[str, Matrix]:
    """Probabilities of each target policy, (2, K), by kind of context."""
    soft = np.exp(2.0 * EXPECTED)
    return {
        "one": np.tile(np.eye(ARMS)[1], (2, 1)),
        "best": np.eye(ARMS)[EXPECTED.argmax(axis=1)],
        "uniform": np.full((2, ARMS), 1.0 / ARMS),
        "soft": soft / soft.sum(axis=1, keepdims=True),
        "logging": preferring(np.array([0, 0]), 0.05),
    }


def preferring(arms: Actions, floor: float) -> Matrix:
    """Rows, (n, K), that give each arm the floor and the rest to one arm each."""
    rows = np.full((len(arms), ARMS), floor)
    rows[np.arange(len(arms)), arms] = 1.0 - (ARMS - 1) * floor
    return rows


def log(n: int, floor: float, logging: Logging, rng: np.random.Generator) -> LoggedFeedback:
    """n rounds, drawn as `logging` says; the context, one number, is the kind."""
    kinds, points, luck = rng.integers(2, size=n), rng.random(n), rng.random(n)
    if logging == "adaptive":
        preferred = _adaptive(kinds, points, luck, floor)
    else:
        preferred = np.zeros(n, dtype=np.int64) if logging == "stationary" else np.arange(n) * ARMS // n
    probabilities = preferring(preferred, floor)
    actions = (points[:, None] >= probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return LoggedFeedback(
        arms=tuple(f"arm-{arm}" for arm in range(ARMS)),
        schema="vector-1",
        ids=tuple(map(str, range(n))),
        times=np.arange(n, dtype=np.float64),
        contexts=kinds[:, None].astype(np.float32),
        actions=actions,
        propensities=probabilities[np.arange(n), actions],
        probabilities=probabilities,
        rewards=(luck < EXPECTED[kinds, actions]).astype(np.float64),
        costs=np.full(n, np.nan),
    )


def _adaptive(kinds: Actions, points: Vector, luck: Vector, floor: float) -> Actions:
    """Which arm is preferred in each round, (n,): the one with the best mean reward so far, begun with 1 of 2."""
    won, drawn = [1.0] * ARMS, [2.0] * ARMS
    preferred = []
    for kind, point, chance in zip(kinds.tolist(), points.tolist(), luck.tolist(), strict=True):
        best = max(range(ARMS), key=lambda arm: won[arm] / drawn[arm])
        preferred.append(best)
        reached, action = 0.0, -1
        while action < ARMS - 1 and point >= reached:
            action += 1
            reached += 1.0 - (ARMS - 1) * floor if action == best else floor
        won[action] += chance < EXPECTED[kind, action]
        drawn[action] += 1.0
    return np.array(preferred, dtype=np.int64)


def measure(floor: float, logging: Logging, reps: int, n: int, seed: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of one floor and way of logging: each target by each estimator, all on the same logs."""
    policies, other = targets(), preferring(np.array([0, 0]), floor)
    truths = {name: float((probs * EXPECTED).sum() / 2.0) for name, probs in policies.items()}
    found: dict[tuple[str, str], list[Interval]] = {(name, by): [] for name in policies for by in ESTIMATORS}
    control = dict.fromkeys(policies, 0)
    for rep in range(reps):
        one = log(n, floor, logging, np.random.default_rng([*seed, rep]))
        kinds = one.contexts[:, 0].astype(np.int64)
        q_hat = np.full((n, ARMS), 0.5)
        for name, probs in policies.items():
            target = probs[kinds]
            found[name, "ipw"].append(sequences.value(one, target, None, ALPHA, horizon=n))
            found[name, "dr"].append(sequences.value(one, target, q_hat, ALPHA, horizon=n))
            against = sequences.advantage(one, target, other[kinds], q_hat, ALPHA, horizon=n)
            found[name, "paired"].append(against)
            control[name] += _ever_missed(ips.scores(one, target), truths[name])
    base = float((other * EXPECTED).sum() / 2.0)
    rows = []
    for (name, by), intervals in found.items():
        truth = truths[name] - (base if by == "paired" else 0.0)
        rows.append(
            {
                "design": f"{name} {floor:g} {logging}",
                "estimator": by,
                "miss": float(np.mean([not low <= truth <= high for low, high in intervals])),
                "width": round(float(np.mean([high - low for low, high in intervals])), 4),
                "control_miss": control[name] / reps,
            }
        )
    return rows


def _ever_missed(scores: Vector, truth: float) -> bool:
    """Whether a normal interval, looked at every 20 rounds, ever missed."""
    n = np.arange(1, len(scores) + 1)
    mean, square = np.cumsum(scores) / n, np.cumsum(scores * scores) / n
    half = NormalDist().inv_cdf(1.0 - ALPHA / 2.0) * np.sqrt(np.maximum(square - mean * mean, 0.0) / n)
    return bool((np.abs(mean - truth) > half)[19::20].any())


def power(reps: int, n: int, seed: Sequence[int]) -> float:
    """Share of logs that show arm 1 (worth .6) to be better than arm 0 (.45) at floor .05, at alpha two-sided."""
    shown = 0
    for rep in range(reps):
        one = log(n, 0.05, "stationary", np.random.default_rng([*seed, rep]))
        first, second = (np.tile(np.eye(ARMS)[arm], (n, 1)) for arm in (1, 0))
        shown += sequences.advantage(one, first, second, np.full((n, ARMS), 0.5), ALPHA, horizon=n).low > 0.0
    return shown / reps


def verdict(rows: Sequence[dict[str, Any]], reps: int, power_15: float) -> dict[str, Any]:
    """Every figure that a bar names, and whether it is met."""
    allowance = ALPHA + 2.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / reps)
    by = {(row["design"], row["estimator"]): row for row in rows}
    widths = {name: by[f"one {floor:g} stationary", how]["width"] for name, (how, floor, _) in WIDTHS.items()}
    misses = [row["miss"] for row in rows]
    bars = {
        "miss_max": max(misses) <= allowance,
        **{name: widths[name] <= bar for name, (_, _, bar) in WIDTHS.items()},
        "control": max(row["control_miss"] for row in rows) > allowance,
    }
    return {
        "alpha": ALPHA,
        "reps": reps,
        "allowance": round(allowance, 4),
        "miss_max": max(misses),
        "miss_mean": round(float(np.mean(misses)), 4),
        "over": [f"{row['design']} {row['estimator']}" for row in rows if row["miss"] > allowance],
        **widths,
        "power": power_15,
        "bars": bars,
        "met": all(bars.values()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, measure every floor and way of logging, print rows as cells finish, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=1000, help="logs of each floor and way of logging")
    parser.add_argument("--n", type=int, default=ROUNDS, help="rounds of a log; the bars speak of 2,000")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.reps < 2 or options.n < 20 or options.seed < 0:
        parser.error("--reps must be at least 2, --n at least 20 and --seed not negative.")
    rows = []
    for i, floor in enumerate(FLOORS):
        for j, logging in enumerate(LOGGING):
            print(f"floor {floor:g}, {logging}", file=sys.stderr)
            rows += measure(floor, logging, options.reps, options.n, [options.seed, i, j])
            for row in rows[-len(targets()) * len(ESTIMATORS) :]:
                print(json.dumps(row), flush=True)
    shown = power(options.reps, options.n, [options.seed, len(FLOORS)])
    print(json.dumps({"summary": True, **verdict(rows, options.reps, shown)}))


if __name__ == "__main__":
    main()
