"""How many mistakes does the online learner make while it learns, from nothing, one outcome at a time?

    OMP_NUM_THREADS=1 python -m benchmarks.learn --data DIR --datasets letter digits --seeds 0 1 2 3 4

DIR holds NAME.npz with X (n, d) and y (n,) in 0..K-1. Each set is standardised over the whole set, clipped to ±5,
shuffled by the seed and cut to 20,000 rows. One pass: the learner sees x, draws a class with the probability that it
logs, hears 1 if the class is right and 0 if not, and nothing of the other classes. `default` and `linear` are the
product's frozen configurations (bandits/learners/online.py), the same for every set.

Read it: `pv_loss` is the share of wrong draws (progressive validation loss), `min_propensity` the least probability
that any arm had in any decision, `seconds` the whole pass. The summary has the mean over sets of the mean over seeds.

What would make it wrong: looking at a label that was not drawn; a configuration of a set's own; probabilities that are
not those drawn from; few seeds, since a set of 700 rows moves by .05 from seed to seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bandits.learners.online import DEFAULT, LINEAR, OnlineLearner, Options
from bandits.learners.scaling import Scaler
from bandits.types import Actions, Context

LEARNERS: Mapping[str, Options] = {"default": DEFAULT, "linear": LINEAR}
MOST_ROWS = 20_000
LOSS, LEAST, SECONDS = 0.215, 0.001, 180.0  # bars: mean loss; probability of an arm times K; a pass over letter


def load(path: Path, seed: int) -> tuple[Context, Actions, int]:
    """One set, standardised, clipped and shuffled: contexts (n, d), labels (n,), and the number of classes."""
    with np.load(path, allow_pickle=False) as file:
        x, y = file["X"].astype(np.float64), file["y"].astype(np.int64)
    scale = x.std(axis=0)
    z = np.clip((x - x.mean(axis=0)) / np.where(scale == 0.0, 1.0, scale), -5.0, 5.0).astype(np.float32)
    order = np.random.default_rng(1000 + seed).permutation(len(y))[:MOST_ROWS]
    return np.ascontiguousarray(z[order]), y[order], int(y.max()) + 1


def play(x: Context, y: Actions, k: int, options: Options, seed: int) -> tuple[float, float]:
    """One pass: the share of wrong draws, and the least probability that any arm had."""
    learner = OnlineLearner(k, Scaler(np.zeros(x.shape[1]), np.ones(x.shape[1])), options)
    rng, wrong, least = np.random.default_rng(seed), 0, 1.0
    for context, label in zip(x, y.tolist(), strict=True):
        probabilities, action, _ = learner.decide(context, rng)
        least = min(least, float(probabilities.min()))
        learner.learn(context, action, float(action == label))
        wrong += action != label
    return wrong / len(y), least


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, play every (set, seed, learner), print rows as they finish, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="a folder of NAME.npz")
    parser.add_argument("--datasets", nargs="+", help="names (default: all in the folder)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    options = parser.parse_args(arguments)
    names = options.datasets or sorted(path.stem for path in options.data.glob("*.npz"))
    missing = [name for name in names if not (options.data / f"{name}.npz").is_file()]
    if missing or not names or min(options.seeds) < 0:
        parser.error(f"--data must hold NAME.npz for each set and seeds be >= 0, but {options.data} lacks {missing}.")
    rows: list[dict[str, Any]] = []
    with threadpool_limits(limits=1):
        for name in names:
            for seed in options.seeds:
                x, y, k = load(options.data / f"{name}.npz", seed)
                for learner in options.learners:
                    started = time.perf_counter()
                    loss, least = play(x, y, k, LEARNERS[learner], seed)
                    seconds = round(time.perf_counter() - started, 2)
                    row = {"dataset": name, "seed": seed, "learner": learner, "pv_loss": round(loss, 5)}
                    rows.append({**row, "min_propensity": least, "k": k, "n": len(y), "seconds": seconds})
                    print(json.dumps(rows[-1]), flush=True)
                    print(f"{name} {seed} {learner} {loss:.3f} {seconds:.0f} s", file=sys.stderr)
    print(json.dumps(summary(rows)))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean loss by learner and set, and whether the default one keeps its bars."""
    by: dict[str, dict[str, float]] = {}
    for row in rows:
        same = [r["pv_loss"] for r in rows if (r["learner"], r["dataset"]) == (row["learner"], row["dataset"])]
        by.setdefault(row["learner"], {})[row["dataset"]] = round(float(np.mean(same)), 4)
    mean = {learner: round(float(np.mean(list(sets.values()))), 4) for learner, sets in by.items()}
    least = min(row["min_propensity"] * row["k"] for row in rows)
    slowest = max((row["seconds"] for row in rows if row["dataset"] == "letter"), default=None)
    met = mean.get("default", 1.0) <= LOSS and least >= LEAST and (slowest or 0.0) <= SECONDS
    out = {"summary": True, "pv_loss": mean, "by_dataset": by, "min_propensity_times_k": least}
    return {**out, "letter_seconds": slowest, "bars": {"pv_loss": LOSS, "letter_seconds": SECONDS}, "met": met}


if __name__ == "__main__":
    main()
