"""How near does each estimator come to a truth that is known, and how fast?

    python -m benchmarks.ope --n 10000 100000 1000000 --reps 20

Each repetition makes a log (10 arms, 5 features, logistic rewards: synthetic.py) whose policy was mild or adverse to
the target's, fits the reward model, and estimates the target's value with the product's own estimators. The reward
model is the learner's: one ridge of all arms (learners/ridge.py) over standardised features, left out fold by fold,
its penalties the defaults, clipped to [0, 1].

Read it: `rel_error` is the mean of |estimate - truth| / truth over repetitions, `rmse` in units of reward, `ms` the
median CPU time of the one thread from log to mean *and* standard error, the reward model apart (CPU time, so that a
neighbour on the same cores shows less), `rss_mib` the peak of the process that measured this n and logging: log, reward
model and all estimates. In the summary a bar is null when the n that it speaks of was not measured. The time of switch
includes the search for its threshold.

What would make it wrong: a reward model that saw the round it speaks of; a truth taken from the drawn rewards; another
process on the same cores while it runs; few repetitions, since a mean of 20 errors is itself known to about 17 %.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import reduce
from multiprocessing import get_context
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bandits.evaluation import dm, dr, ips, sndr, snips, switch
from bandits.evaluation.moments import moments
from bandits.learners.doubly_robust import FOLDS, Parameters
from bandits.learners.grid import on_grid
from bandits.learners.ridge import Gram
from bandits.learners.scaling import ContextSums
from bandits.types import LoggedFeedback, Matrix, Vector
from benchmarks.synthetic import LOGGING, known

ARMS, FEATURES = 10, 5
RATIO = {"mild": 1.15, "adverse": 1.3}  # RMSE of dr over that of snips, at every n
ABOUT = {"mild": 0.0035, "adverse": 0.0075}  # best relative error: .3 % and .7 % once rounded
LARGE, MIDDLE = 1_000_000, 100_000

Estimator = Callable[[LoggedFeedback, Matrix, Matrix], Vector]
ESTIMATORS: Mapping[str, Estimator] = {
    "ips": lambda log, target, q_hat: ips.scores(log, target),
    "snips": lambda log, target, q_hat: snips.scores(log, target),
    "dm": dm.scores,
    "dr": dr.scores,
    "sndr": sndr.scores,
    "switch": lambda log, target, q_hat: switch.scores(log, target, q_hat, switch.tune(log, target, q_hat)),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One n and one logging policy, all repetitions."""

    n: int
    logging: str
    errors: Mapping[str, Sequence[float]]  # estimator -> (estimate - truth) by repetition, reward
    truths: Sequence[float]
    seconds: Mapping[str, Sequence[float]]  # estimator -> time by repetition
    model_seconds: Sequence[float]
    rss_mib: float


def measure(n: int, logging: str, reps: int, seed: int, estimators: Mapping[str, Estimator] = ESTIMATORS) -> Cell:
    """Estimate `reps` logs of n rounds; runs in a process of its own, so that its peak of memory is its own."""
    with threadpool_limits(limits=1):
        runs = [_once(n, logging, [seed, rep], estimators) for rep in range(reps)]
    values, seconds, truths, model_seconds = zip(*runs, strict=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    return Cell(
        n,
        logging,
        {name: [v[name] - truth for v, truth in zip(values, truths, strict=True)] for name in estimators},
        truths,
        {name: [s[name] for s in seconds] for name in estimators},
        model_seconds,
        peak,
    )


def _once(
    n: int, logging: str, seed: Sequence[int], estimators: Mapping[str, Estimator]
) -> tuple[dict[str, float], dict[str, float], float, float]:
    """One log: the value by each estimator, its seconds, the truth, the reward model's seconds."""
    one = known(n, ARMS, FEATURES, LOGGING[logging], np.random.default_rng(seed))
    started = time.process_time()
    q_hat = reward_model(one.feedback)
    model_seconds = time.process_time() - started
    values, seconds = {}, {}
    for name, scores in estimators.items():
        started = time.process_time()
        found = moments(scores(one.feedback, one.target, q_hat))
        values[name], _ = found.mean, found.standard_error
        seconds[name] = time.process_time() - started
    return values, seconds, one.truth, model_seconds


def reward_model(feedback: LoggedFeedback) -> Matrix:
    """Cross-fitted q_hat, (n, K): each round is scored by a ridge that never saw its fold."""
    phi = ContextSums.of(feedback.contexts).scaler().features(feedback.contexts)
    rewards = on_grid(feedback.rewards, 1.0)
    # Rounds are drawn independently of each other: every fifth is as good a fold as a hash of ids.
    folds = [slice(fold, None, FOLDS) for fold in range(FOLDS)]
    folded = [Gram.of(phi[fold], feedback.actions[fold], rewards[fold], feedback.k) for fold in folds]
    q_hat = np.empty((len(phi), feedback.k))
    for left_out, fold in enumerate(folds):
        others = reduce(Gram.__add__, [one for other, one in enumerate(folded) if other != left_out])
        weights = others.solve(Parameters().shared, Parameters().own)
        q_hat[fold] = np.ascontiguousarray(phi[fold]) @ weights.T
    return np.clip(q_hat, 0.0, 1.0, out=q_hat)


def table(cell: Cell) -> list[dict[str, Any]]:
    """The rows of one cell, one an estimator."""
    truths = np.array(cell.truths)
    return [
        {
            "n": cell.n,
            "logging": cell.logging,
            "estimator": name,
            "rel_error": _round(np.mean(np.abs(errors) / truths)),
            "rmse": _round(np.sqrt(np.mean(np.square(errors)))),
            "ms": round(1e3 * float(np.median(cell.seconds[name])), 3),
            "rss_mib": round(cell.rss_mib),
        }
        for name, errors in cell.errors.items()
    ]


def verdict(cells: Sequence[Cell]) -> dict[str, Any]:
    """Every figure that a bar names, by n; `bars` says of each whether it is met, null where it was not measured."""
    by = {(row["n"], row["logging"], row["estimator"]): row for cell in cells for row in table(cell)}
    sizes = sorted({cell.n for cell in cells})
    ratio = {
        logging: {str(n): _round(by[n, logging, "dr"]["rmse"] / by[n, logging, "snips"]["rmse"]) for n in sizes}
        for logging in LOGGING
    }
    best = {
        logging: {str(n): min(by[n, logging, name]["rel_error"] for name in ESTIMATORS) for n in sizes}
        for logging in LOGGING
    }
    largest = [cell for cell in cells if cell.n == sizes[-1]]
    snips_ms, dr_ms = (max(by[sizes[-1], x, name]["ms"] for x in LOGGING) for name in ("snips", "dr"))
    model_s = round(max(float(np.median(cell.model_seconds)) for cell in largest), 4)
    rss_mib = max(row["rss_mib"] for row in by.values())
    large = sizes[-1] == LARGE
    bars: dict[str, bool | None] = {
        **{f"dr_over_snips_{x}": max(ratio[x].values()) <= RATIO[x] for x in LOGGING},
        **{f"best_rel_error_{x}": best[x][str(MIDDLE)] < ABOUT[x] if MIDDLE in sizes else None for x in LOGGING},
        "snips_ms": snips_ms <= 40.0 if large else None,
        "dr_ms": dr_ms <= 100.0 if large else None,
        "reward_model_s": model_s <= 1.0 if large else None,
        "rss_mib": rss_mib <= 600 if large else None,
    }
    return {
        "dr_over_snips": ratio,
        "best_rel_error": best,
        "snips_ms": snips_ms,
        "dr_ms": dr_ms,
        "reward_model_s": model_s,
        "rss_mib": rss_mib,
        "bars": bars,
        "met": all(bar is not False for bar in bars.values()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, measure every n under both logging policies, print rows as cells finish, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[10_000, MIDDLE, LARGE], help="rounds")
    parser.add_argument("--reps", type=int, default=20, help="logs of each n and logging policy")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if min(options.n) < 100 or options.reps < 1 or options.seed < 0:
        parser.error("--n must be at least 100, --reps positive and --seed not negative.")
    cells = []
    # One process at a time, a fresh one for each cell: neither time nor memory of one shows in another.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for n in sorted(set(options.n)):
            for logging in LOGGING:
                print(f"{n} rounds, {logging}", file=sys.stderr)
                cells.append(pool.submit(measure, n, logging, options.reps, options.seed).result())
                for row in table(cells[-1]):
                    print(json.dumps(row), flush=True)
    print(json.dumps({"summary": True, "reps": options.reps, **verdict(cells)}))


def _round(x: float | np.floating[Any]) -> float:
    return float(f"{x:.6g}")


if __name__ == "__main__":
    main()
