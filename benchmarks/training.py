"""How fast does the fold learn from the warehouse, in how much memory, and does it scale without changing a bit?

    python -m benchmarks.training --events 1000000 --d 64 --k 4 --workers 1 2

A warehouse file gets --events rounds (contexts standard normal, rewards logistic in them as in synthetic.py, a softmax
that logged them, one outcome each with quality and cost) over --days days, written by DuckDB itself: a million real
decisions would take minutes, and only reading is measured. Everything after that is the product's: its reader joins the
outcomes, its passes fold the days, its solves make the weights.

    linear          ridge per arm: two passes (scale; Gram matrices)
    default         the same over 256 random features (learners/lift.py), D = d + 257
    doubly_robust   cross-fitted ridge and its correction: three passes, one hash an event
    night           all that a night's snapshot holds: prices of the arms and the price curve as well

Read it: `seconds` is wall time from the warehouse to the solved arrays, reading included, with the workers (processes)
already there; `cpu_seconds` is what all of them used, reading `read_cpu_seconds` of it, and `events_per_cpu_s` follows
from it: on one worker it is the rate of one core that nobody else uses; `fold_events_per_cpu_s` is the same without
reading. `rss_mib` is the peak of the process that folds
plus, with workers, of each worker. `snapshot_hash` is content_hash of the solved arrays: one for each learner, whatever
the workers. Every learner and number of workers is measured in a fresh process, --repeat times; the quickest counts.
The summary's bars are on one worker's `events_per_cpu_s`, and null for fewer than a million events, another d or k.

What would make it wrong: other processes on the same cores (wall time, and memory bandwidth); a file that is not in the
page cache; contexts that are nearly constant, which fold as fast but say nothing; a hash over less than what is solved.
offset_tree is measured if the product has its passes, and else listed in `left_out`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bandits.config import ArmConfig, DomainConfig
from bandits.learners.doubly_robust import Parameters
from bandits.learners.lift import Lift
from bandits.learners.passes import Contexts, Corrections, Rewards, corrected, grams_of, reward_models, scaler_of
from bandits.snapshots.manifest import content_hash
from bandits.training.fold import Fold, Logged, Spooled, in_turn, parts_of, spool
from bandits.training.training import train_parts
from bandits.types import Scope
from bandits.warehouse.tables import add_width, writable
from benchmarks.synthetic import softmax

SCOPE = Scope("bench", "main", "training")
START, DAY_S = 1.75e9 // 86_400 * 86_400, 86_400.0
WAVES, BANDWIDTH, PENALTY = 256, 1.0, 1.0
BARS = {"linear": 1_000_000, "doubly_robust": 400_000, "default": 150_000}  # events a second on one core
BAR_MIB = 1024.0
_WRITTEN = 100_000  # rounds written at once

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One measurement."""

    learner: str
    workers: int
    log: Logged


def domain(d: int, k: int) -> DomainConfig:
    """Arms whose prices lie a factor of 4 apart; the budget is that of the second."""
    arms = tuple(ArmConfig(name=f"arm-{a}", model=f"arm-{a}", usd_per_request=1e-5 * 4**a) for a in range(k))
    return DomainConfig(arms=arms, features=f"vector-{d}", budget_usd_per_request=4e-5)


def write_warehouse(path: Path, events: int, d: int, k: int, days: int, seed: int) -> Logged:
    """A warehouse of `events` rounds, each with one outcome; see the module's first lines."""
    rng = np.random.default_rng(seed)
    config = domain(d, k)
    slopes, prices = rng.uniform(-1.0, 1.0, (d, k)) / np.sqrt(d), np.array([arm.usd_per_request for arm in config.arms])
    with writable(path) as connection:
        connection.execute("SET enable_progress_bar = false")
        add_width(connection, d)
        connection.execute(
            'INSERT INTO series (tenant, workspace, domain, "schema", width) VALUES (?, ?, ?, ?, ?)',
            [SCOPE.tenant, SCOPE.workspace, SCOPE.domain, config.features, d],
        )
        for start in range(0, events, _WRITTEN):
            rounds = np.arange(start, min(start + _WRITTEN, events))
            contexts = rng.normal(size=(len(rounds), d)).astype(np.float32)
            expected = 1.0 / (1.0 + np.exp(-2.0 * (contexts @ slopes)))
            probabilities = 0.9 * softmax(expected.copy()) + 0.1 / k
            actions = (rng.random((len(rounds), 1)) >= probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)
            rewards = np.clip(expected[np.arange(len(rounds)), actions] + rng.normal(0.0, 0.2, len(rounds)), 0.0, 1.0)
            costs = prices[actions] * np.exp(0.3 * contexts[:, 0] + rng.normal(0.0, 0.2, len(rounds)))
            batch = pa.table(
                {
                    "i": rounds,
                    "decided": START + rounds * (days * DAY_S / events),
                    "context": pa.FixedSizeListArray.from_arrays(contexts.ravel(), d),
                    "probabilities": pa.FixedSizeListArray.from_arrays(probabilities.ravel(), k),
                    "action": actions.astype(np.int32),
                    "reward": rewards,
                    "cost": costs,
                }
            )
            connection.register("batch", batch)
            scope = "$tenant AS tenant, $workspace AS workspace, $domain AS domain"
            who = {"tenant": SCOPE.tenant, "workspace": SCOPE.workspace, "domain": SCOPE.domain}
            connection.execute(
                f"""INSERT INTO decisions_{d} BY NAME SELECT 2 * i + 1 AS position,
                printf('%012x%020x', (decided * 1000)::BIGINT, i * 7919) AS id, decided AS time, {scope},
                $schema AS "schema", context, $arms AS arms, '{{}}' AS excluded,
                probabilities::DOUBLE[] AS probabilities, action,
                'arm-' || action AS arm, probabilities[action + 1] AS propensity, 'bench' AS policy,
                'stable' AS slot, 0.0 AS price, 1.0 AS pressure, false AS forced, '' AS "user", 0 AS seen,
                '' AS conversation FROM batch
                ORDER BY i""",  # noqa: S608 - d is an int
                who | {"schema": config.features, "arms": json.dumps(config.arm_names)},
            )
            connection.execute(
                f"""INSERT INTO outcomes BY NAME SELECT 2 * i + 2 AS position,
                printf('%012x%020x', (decided * 1000)::BIGINT, i * 7919) AS decision_id, decided + 1.0 AS time, {scope},
                reward AS quality, cost AS cost_usd, NULL::DOUBLE AS latency_s, NULL::TINYINT AS vote,
                'bench' AS source, '' AS "key", '' AS arm, '' AS result, 2 * i + 1 AS decision FROM batch ORDER BY i""",  # noqa: S608
                who,
            )
            connection.unregister("batch")
        connection.execute("UPDATE meta SET position = ?", [2 * events])
    return Logged(path, SCOPE, config, START + (days + 1) * DAY_S)


def linear(log: Fold, parts: Sequence[Spooled], config: DomainConfig, waves: int = 0) -> Arrays:
    """Ridge per arm over the scaled context, or over random features of it."""
    k = len(config.arms)
    scaler = scaler_of(log.sums(Contexts(k)))
    features = Lift.draw(scaler, waves, BANDWIDTH) if waves else scaler
    gram = grams_of(log.sums(Rewards(features, k, folds=1, priced=False)))[0]
    return {"mean": scaler.mean, "scale": scaler.scale, "weights": gram.solve(PENALTY, PENALTY)}


def doubly_robust(log: Fold, parts: Sequence[Spooled], config: DomainConfig) -> Arrays:
    """Cross-fitted ridge and its correction, as a night has them, without prices."""
    k, parameters = len(config.arms), Parameters()
    scaler = scaler_of(log.sums(Contexts(k)))
    grams = grams_of(log.sums(Rewards(scaler, k, priced=False)))
    sums = log.sums(Corrections(scaler, reward_models(grams, parameters)))
    return {"mean": scaler.mean, "scale": scaler.scale, "weights": corrected(grams, sums, parameters)}


def night(log: Fold, parts: Sequence[Spooled], config: DomainConfig) -> Arrays:
    """The whole policy that a night publishes."""
    return train_parts(parts, config, 200, Parameters(), over=log.over).policy.freeze().arrays


LEARNERS: Mapping[str, Callable[[Fold, Sequence[Spooled], DomainConfig], Arrays]] = {
    "linear": linear,
    "default": partial(linear, waves=WAVES),
    "doubly_robust": doubly_robust,
    "night": night,
}
UNCROSSED = ("linear", "default")
LEFT_OUT = ("offset_tree",)


def measure(asked: Asked) -> dict[str, Any]:
    """One row; runs in a process of its own, so that its peak of memory is its own."""
    with threadpool_limits(limits=1), TemporaryDirectory() as folder:
        if asked.workers == 1:
            return _measured(asked, Path(folder), in_turn)
        with ProcessPoolExecutor(asked.workers, get_context("spawn"), initializer=_one_thread) as pool:
            list(pool.map(_nothing, range(4 * asked.workers)))
            row = _measured(asked, Path(folder), pool.map)
        used, waited = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        row["cpu_seconds"] = round(_cpu(used) + _cpu(waited), 3)  # start-up of the workers included
        row["events_per_cpu_s"] = round(row["events"] / row["cpu_seconds"])
        row["rss_mib"] += round(asked.workers * _mib(waited))
        return row


def _measured(asked: Asked, folder: Path, over: Callable[..., Any]) -> dict[str, Any]:
    started, cpu = time.perf_counter(), time.process_time()
    crossed = asked.learner not in UNCROSSED
    parts = list(over(partial(spool, folder=folder, crossed=crossed), parts_of(asked.log)))
    read = time.process_time() - cpu
    arrays = LEARNERS[asked.learner](Fold(parts, over), parts, asked.log.config)
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    events = sum(part.n for part in parts)
    return {
        "learner": asked.learner,
        "workers": asked.workers,
        "events": events,
        "seconds": round(seconds, 3),
        "events_per_s": round(events / seconds),
        "cpu_seconds": round(used, 3),
        "read_cpu_seconds": round(read, 3) if asked.workers == 1 else None,
        "events_per_cpu_s": round(events / used),
        "fold_events_per_cpu_s": round(events / (used - read)) if asked.workers == 1 else None,
        "rss_mib": round(_mib(resource.getrusage(resource.RUSAGE_SELF))),
        "snapshot_hash": content_hash(arrays),
    }


def verdict(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Rates and memory by learner, speed-up by workers, and whether the bars are met."""
    by = {(row["learner"], row["workers"]): row for row in rows}
    learners, least = sorted({row["learner"] for row in rows}), min(row["workers"] for row in rows)
    judged = options.events >= 1_000_000 and (options.d, options.k, least) == (64, 4, 1)
    rate = {name: by[name, least]["events_per_cpu_s"] for name in learners}
    equal = {name: len({row["snapshot_hash"] for row in rows if row["learner"] == name}) == 1 for name in learners}
    rss = max(row["rss_mib"] for row in rows if row["workers"] == least)
    bars: dict[str, bool | None] = {
        **{name: rate[name] >= bar if judged and name in rate else None for name, bar in BARS.items()},
        "rss_mib": rss < BAR_MIB if options.events >= 10_000_000 else None,
        "equal_hashes": all(equal.values()),
    }
    return {
        "events_per_cpu_s": rate,
        "fold_events_per_cpu_s": {name: by[name, least]["fold_events_per_cpu_s"] for name in learners},
        "events_per_s": {name: by[name, least]["events_per_s"] for name in learners},
        "speed_up": {
            name: {str(w): round(by[name, least]["seconds"] / by[name, w]["seconds"], 2) for w in options.workers}
            for name in learners
        },
        "rss_mib": rss,
        "equal_hashes": equal,
        "left_out": list(LEFT_OUT),
        "bars": bars,
        "met": all(bar is not False for bar in bars.values()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, write the warehouse, print a row for each learner and number of workers, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="rounds in the warehouse")
    parser.add_argument("--d", type=int, default=64, help="features of a context")
    parser.add_argument("--k", type=int, default=4, help="arms")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes that fold")
    parser.add_argument("--learners", nargs="+", choices=list(LEARNERS), default=list(LEARNERS))
    parser.add_argument("--days", type=int, default=16, help="days that the rounds are spread over: parts of the fold")
    parser.add_argument("--repeat", type=int, default=3, help="times that each row is measured; the quickest counts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.events < 1000 or options.d < 1 or options.k < 2 or min(options.workers) < 1 or options.seed < 0:
        parser.error("--events must be at least 1000, --d and --workers positive, --k at least 2, --seed not negative.")
    if not 1 <= options.days <= options.events or options.repeat < 1:
        parser.error("--days must be between 1 and --events, --repeat positive.")
    options.workers = sorted(set(options.workers))
    rows = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "warehouse.duckdb"
        print(f"writing {options.events} rounds", file=sys.stderr)
        with ProcessPoolExecutor(
            1, get_context("spawn"), max_tasks_per_child=1
        ) as pool:  # a process passes its peak on
            told = (path, options.events, options.d, options.k, options.days, options.seed)
            log = pool.submit(write_warehouse, *told).result()
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
            for learner in dict.fromkeys(options.learners):
                for workers in options.workers:
                    print(f"{learner}, {workers} worker(s)", file=sys.stderr)
                    asked = Asked(learner, workers, log)
                    found = [pool.submit(measure, asked).result() for _ in range(options.repeat)]
                    rows.append(min(found, key=lambda row: row["cpu_seconds" if workers == 1 else "seconds"]))
                    print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"summary": True, "events": options.events, **verdict(rows, options)}))


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    threadpool_limits(limits=1)


def _nothing(_: int) -> None:
    """Work for a worker that is only to start."""


def _cpu(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def _mib(used: resource.struct_rusage) -> float:
    return used.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


if __name__ == "__main__":
    main()
