"""How long does one decision take, from the raw context vector to (probabilities, action, propensity)?

    OMP_NUM_THREADS=1 python -m benchmarks.latency --d 64 --k 4 32

Each cell runs in a process of its own, which imports nothing but the decision path: 1,000 events of play first, so that
every arm has data, then 20,000 decisions timed one by one, then 20,000 outcomes learned. `default` and `linear` are
the product's frozen configurations (bandits/learners/online.py). The drawn action is part of the time.

Read it: `p50_us` and `p99_us` are microseconds of one call; `learn_per_s` is outcomes learned per second of CPU time,
foldings included; `rss_mib` the process at the end. Each cell is the best of `--repeat` runs by p50, because another
process on the same core only ever adds time. `heavy_modules` must be empty: neither sklearn nor scipy is loaded.

What would make it wrong: a loaded machine (watch p99); a context made ready before the clock starts; a learner that
was not taught, whose products are of zeros.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bandits.learners.online import DEFAULT, LINEAR, OnlineLearner
from bandits.learners.scaling import Scaler

LEARNERS = {"default": DEFAULT, "linear": LINEAR}
P50 = {("default", 4): 16.0, ("default", 32): 24.0, ("linear", 4): 10.0, ("linear", 32): 10.0}  # microseconds
TAIL, LEARN, RSS = 3.0, 60_000.0, 120.0  # p99 over p50; linear at K = 4, per second; MiB
HEAVY = ("duckdb", "optuna", "pyarrow", "pydantic", "scipy", "sklearn", "sqlalchemy")


def measure(name: str, d: int, k: int, decisions: int) -> dict[str, Any]:
    """One cell, in this process."""
    rng = np.random.default_rng(0)
    contexts = rng.standard_normal((4096, d)).astype(np.float32)
    rewards = ((contexts @ (rng.standard_normal((d, k)) / 8)) > 0).astype(np.float64)
    learner = OnlineLearner(k, Scaler(np.zeros(d), np.ones(d)), LEARNERS[name])
    for i in range(1000):
        choice = learner.decide(contexts[i], rng)
        learner.learn(contexts[i], choice.action, float(rewards[i, choice.action]))
    clock, decide, times = time.perf_counter_ns, learner.decide, np.empty(decisions)
    for i in range(decisions):
        context = contexts[i % 4096]
        started = clock()
        decide(context, rng)
        times[i] = clock() - started
    actions = rng.integers(0, k, decisions)
    outcomes = [(contexts[i % 4096], int(a), float(rewards[i % 4096, a])) for i, a in enumerate(actions)]
    began = time.process_time()
    for outcome in outcomes:
        learner.learn(*outcome)
    spent = time.process_time() - began
    p50, p99 = np.percentile(times, [50, 99]) / 1e3
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "learner": name,
        "d": d,
        "k": k,
        "p50_us": round(float(p50), 2),
        "p99_us": round(float(p99), 2),
        "learn_per_s": round(decisions / spent),
        "rss_mib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        "heavy_modules": [module for module in HEAVY if module in sys.modules],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, measure each cell in a fresh process, print rows, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d", type=int, default=64, help="features of a context")
    parser.add_argument("--k", type=int, nargs="+", default=[4, 32], help="arms")
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3, help="processes per cell; the best p50 counts")
    parser.add_argument("--one", choices=LEARNERS, help="measure this learner in this process and end")
    options = parser.parse_args(arguments)
    if options.d < 1 or min(options.k) < 2 or options.decisions < 100 or options.repeat < 1:
        parser.error("--d must be >= 1, --k >= 2, --decisions >= 100 and --repeat >= 1.")
    if options.one:
        print(json.dumps(measure(options.one, options.d, options.k[0], options.decisions)))
        return
    rows = []
    for name in LEARNERS:
        for k in options.k:
            print(f"{name}, {k} arms", file=sys.stderr)
            runs = [_apart(name, options.d, k, options.decisions) for _ in range(options.repeat)]
            rows.append(min(runs, key=lambda row: row["p50_us"]))
            print(json.dumps(rows[-1]), flush=True)
    print(json.dumps(summary(rows)))


def _apart(name: str, d: int, k: int, decisions: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.latency", "--one", name, "--d", str(d), "--k", str(k)]
    command += ["--decisions", str(decisions)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each figure that a bar names, and whether all are kept."""
    met = True
    for row in rows:
        met &= row["p50_us"] <= P50.get((row["learner"], row["k"]), float("inf"))
        met &= row["p99_us"] <= TAIL * row["p50_us"] and row["rss_mib"] < RSS and not row["heavy_modules"]
        met &= row["learner"] != "linear" or row["k"] != 4 or row["learn_per_s"] >= LEARN
    cells = {f"{row['learner']} k={row['k']}": {name: row[name] for name in list(row)[3:]} for row in rows}
    return {"summary": True, "cells": cells, "bars": {f"{n} k={k}": us for (n, k), us in P50.items()}, "met": met}


if __name__ == "__main__":
    main()
