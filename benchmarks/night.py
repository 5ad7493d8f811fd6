"""How long does a night of many scopes take, by processes, and is anything trained twice?

    python -m benchmarks.night --scopes 30 --rows 1000000 --workers 1 2

A record of that many rows (half decisions, half outcomes, shared evenly among the scopes of one tenant) is filled and
loaded once. For each number of workers the nights of all scopes are spent anew, from the same record and warehouse, by
the product's own `spend_all`: load, train, tune, judge, validate, publish. Then all of them are spent again.

Read it: `seconds` is the wall time of the first time, without the load of the record, which is done before and told on
its own (`load_seconds`: the five-minute load has done it by night); `trained_twice` counts scopes that were trained
again at the second time, though nothing was another, plus snapshots beyond one a scope; `again_seconds` is what that
second time took. `contents` is a digest of what was published: the same for any number of workers.

`--learners linear` leaves the learners out that hold a lifted log in memory (training/candidates.py): with them a scope
of 17,000 rounds takes five times as long.

What would make it wrong: more workers than cores; other work on the machine (the ratio of the rows stands).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bandits.config import ArmConfig, Config, DomainConfig, NightConfig, TenantConfig
from bandits.home import Home
from bandits.learners.choice import LEARNERS
from bandits.record.sql import SqlRecord
from bandits.scheduled.nights import spend_all
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.loading import list_versions
from bandits.types import Decision, Outcome, Scope
from bandits.warehouse.loading import load

PRICES = (1e-4, 1e-3, 1e-2, 2e-3)
START, DAYS, DAY_S = 1_790_000_000.0, 5, 86_400.0
NOW = START + 10 * DAY_S
_BATCH = 5_000


def config_of(scopes: int, d: int, night: NightConfig) -> Config:
    """A tenant with so many workspaces, each one scope."""
    arms = tuple(ArmConfig(name=f"arm-{i}", model=f"arm-{i}", usd_per_request=price) for i, price in enumerate(PRICES))
    domain = DomainConfig(arms=arms, features=f"vector-{d}", budget_usd_per_request=2e-3)
    tenant = TenantConfig(workspaces=tuple(f"w{i}" for i in range(scopes)))
    return Config(tenants={"bench": tenant}, domains={"own": domain}, night=night)


def entries(scope: Scope, number: int, rounds: int, d: int) -> Iterator[Decision | Outcome]:
    """The log of one scope: evenly drawn arms, whose worth the context tells, differently in each scope."""
    rng, k = np.random.default_rng(number), len(PRICES)
    contexts = rng.normal(size=(rounds, d)).astype(np.float32)
    slopes = rng.normal(size=(k, d)) / np.sqrt(d)
    actions, probabilities = rng.integers(k, size=rounds), np.full(k, 1.0 / k)
    expected = 0.6 + 0.15 * np.tanh(contexts @ slopes.T) + np.array([-0.1, 0.0, 0.1, 0.03])
    quality = np.clip(expected[np.arange(rounds), actions] + rng.normal(0.0, 0.1, rounds), 0.0, 1.0).tolist()
    times = (START + np.sort(rng.uniform(0.0, DAYS * DAY_S, rounds))).tolist()
    arms = tuple(f"arm-{i}" for i in range(k))
    for i, action in enumerate(actions.tolist()):
        id_ = f"{number:06x}{i:026x}"
        yield Decision(
            id=id_,
            time=times[i],
            scope=scope,
            schema=f"vector-{d}",
            context=contexts[i],
            arms=arms,
            excluded={},
            probabilities=probabilities,
            action=action,
            propensity=1.0 / k,
            policy="explore",
        )
        yield Outcome(id_, times[i] + 5.0, scope, quality=quality[i], cost_usd=PRICES[action])


def fill(record: SqlRecord, config: Config, rows: int, d: int) -> None:
    """Put the logs of all scopes into the record."""
    scopes = config.scopes()
    for number, scope in enumerate(scopes):
        print(f"filling {scope} ...", file=sys.stderr)
        pending: list[Decision | Outcome] = []
        for entry in entries(scope, number, rows // 2 // len(scopes), d):
            pending.append(entry)
            if len(pending) >= _BATCH:
                record.append(*pending)
                pending = []
        if pending:
            record.append(*pending)


def measure(home: Home, config: Config, workers: int) -> dict[str, Any]:
    """One row: the nights of all scopes, and all of them again."""
    scopes = config.scopes()
    begun = time.perf_counter()
    first = []
    for found in spend_all(home, config, scopes, NOW, workers):
        first.append(found)
        print(f"{found['scope']}: {found['verdict']} {found['reason'][:100]}", file=sys.stderr)
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    second = list(spend_all(home, config, scopes, NOW, workers))
    again = time.perf_counter() - begun
    trusted, digest, extra = trusted_keys(home.root), hashlib.sha256(), 0
    for scope in scopes:
        listed = list_versions(home.snapshots, scope, trusted=trusted, now=NOW)
        extra += max(len(listed) - 1, 0)
        for one in listed:
            digest.update((one.manifest.content if one.manifest else str(one.fault)).encode())
    verdicts = [one["verdict"] for one in first]
    return {
        "workers": workers,
        "scopes": len(scopes),
        "seconds": round(seconds, 2),
        "trained_twice": sum(not one["repeated"] for one in second) + extra,
        "again_seconds": round(again, 2),
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "contents": digest.hexdigest()[:16],
    }


def summary(found: Sequence[dict[str, Any]], rows: int, load_seconds: float) -> dict[str, Any]:
    """Seconds by workers, and whether every night was spent once, alike."""
    once = all(row["trained_twice"] == 0 and "failed" not in row["verdicts"] for row in found)
    return {
        "summary": True,
        "rows": rows,
        "scopes": found[0]["scopes"],
        "load_seconds": round(load_seconds, 2),
        "seconds": {str(row["workers"]): row["seconds"] for row in found},
        "trained_twice": sum(row["trained_twice"] for row in found),
        "met": bool(once and len({row["contents"] for row in found}) == 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, fill, measure by workers, print rows, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scopes", type=int, default=30)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the record, half of them decisions")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes")
    parser.add_argument("--d", type=int, default=32, help="length of a context")
    parser.add_argument("--trials", type=int, default=16, help="of each nightly search")
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=LEARNERS, help="those that compete")
    parser.add_argument("--out", type=Path, help="folder for the files (default: temporary)")
    options = parser.parse_args(arguments)
    if min(options.scopes, options.d, options.trials, *options.workers) < 1 or options.rows < 2 * options.scopes:
        parser.error("--scopes, --workers, --d and --trials must be positive, and --rows two a scope at least.")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    learners = tuple(options.learners)
    config = config_of(options.scopes, options.d, NightConfig(trials=options.trials, learners=learners))
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        filled = Home(Path(folder) / "filled")
        signing_key(filled.root)
        with filled.open_record() as record:
            fill(record, config, options.rows, options.d)
            begun = time.perf_counter()
            load(record, filled.warehouse)
            load_seconds = time.perf_counter() - begun
        found = []
        for workers in options.workers:
            home = Home(Path(folder) / f"by-{workers}")
            shutil.copytree(filled.root, home.root)
            found.append(measure(home, config, workers))
            print(json.dumps(found[-1]), flush=True)
            shutil.rmtree(home.root)
    print(json.dumps(summary(found, options.rows, load_seconds)))


if __name__ == "__main__":
    main()
