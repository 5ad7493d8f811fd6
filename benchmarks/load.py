"""How fast does the record become columns, and does a rebuild give the same?

    python -m benchmarks.load --rows 1000000

A record in SQLite is filled with decisions (contexts of --d numbers, --k arms) and one outcome after each, then loaded
into a warehouse, loaded again into another, and both are compared: every table, in order of position, every bit.

rows_per_s            rows of the record / seconds that `warehouse.load` took, from no file to a closed one
rows_per_cpu_s        rows / seconds of processor time that it took: what a machine that others share says too
rebuild_equal         the warehouse that was rebuilt has the same tables, to the last bit
read_per_s            rounds / second that `read_feedback` gives back, all at once
read_per_cpu_s        rounds / second of processor time
batches_per_s         rounds / second of `feedback_batches`, in pieces
rss_mib               most memory that reading in pieces took, in a process of its own
bytes_per_row         size of the warehouse

What would make it wrong: a record that is already in the cache of the disk (it is, here: it was just written), rows
that compress better than real ones (contexts are random, so they do not), too few rows to outlast the opening.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bandits.config import ArmConfig, DomainConfig
from bandits.record.port import Record
from bandits.record.sql import SqlRecord
from bandits.types import Decision, Entry, Outcome, Scope, new_id
from bandits.warehouse.loading import feedback_batches, load, opened, read_feedback

SCOPE = Scope("acme", "main", "model_routing")
ROWS_PER_S = 100_000.0  # the bar
START, PERIOD_S = 1_790_000_000.0, 1.0  # the first decision, and seconds between two
_TABLES = ("decisions", "outcomes", "quarantine", "meta")


def fill(record: Record, rows: int, d: int, k: int, rng: np.random.Generator) -> None:
    """Append `rows` rows, a decision and its outcome in turn."""
    arms = tuple(f"arm-{arm}" for arm in range(k))
    probabilities = np.full((16, k), 0.02 / k)
    probabilities += 0.98 * rng.dirichlet(np.ones(k), 16)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    entries: list[Entry] = []
    for i in range((rows + 1) // 2):
        drawn, now = probabilities[i % 16], START + i * PERIOD_S
        action = int(rng.integers(k))
        decision = Decision(
            id=new_id(now, rng.bytes(10)),
            time=now,
            scope=SCOPE,
            schema=f"vector-{d}",
            context=rng.standard_normal(d, np.float32),
            arms=arms,
            excluded={},
            probabilities=drawn,
            action=action,
            propensity=float(drawn[action]),
            policy="explore",
            price=float(rng.random()),
        )
        cost, latency = rng.random(2).tolist()
        outcome = Outcome(decision.id, now + 1.5, SCOPE, float(rng.random()), cost * 1e-3, latency, source="judge")
        entries += [decision, outcome]
        if len(entries) >= 10_000:
            record.append(*entries)
            entries = []
    entries = entries[: len(entries) - rows % 2]
    if entries:
        record.append(*entries)


def domain(d: int, k: int) -> DomainConfig:
    """The domain that `fill` decided for."""
    arms = tuple(ArmConfig(name=f"arm-{arm}", model=f"arm-{arm}", usd_per_request=1e-3) for arm in range(k))
    return DomainConfig(arms=arms, features=f"vector-{d}", budget_usd_per_request=1e-3)


def digest(path: Path, step: int = 50_000) -> str:
    """A hash of all that the warehouse derives from the record, in order of position, whatever its pages look like."""
    found = hashlib.sha256()
    with opened(path) as connection:
        (head,) = connection.execute("SELECT position FROM meta").fetchall()[0]
        for table in _TABLES:
            query = f"SELECT * FROM {table} WHERE position > $1 AND position <= $2 ORDER BY position"  # noqa: S608
            for after in range(0, int(head), step):
                columns = _zeroed(connection.sql(query, params=[after, after + step]).to_arrow_table())
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, columns.schema) as stream:
                    stream.write_table(columns)
                found.update(sink.getvalue())
    return found.hexdigest()


def _zeroed(table: pa.Table) -> pa.Table:
    """The same with 0 for each missing number, and which were missing: the memory under a NULL may hold anything."""
    for name in table.column_names:
        column = table.column(name)
        if column.null_count and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            at = table.column_names.index(name)
            table = table.set_column(at, name, column.fill_null(pa.scalar(0, column.type)))
            table = table.append_column(f"{name} is known", column.is_valid())
    return table.combine_chunks()


def reading(path: str, d: int, k: int, answer: Connection) -> None:
    """What a process of its own does: read in pieces, and say how long that took and what memory."""
    begun, rounds = time.perf_counter(), 0
    for piece in feedback_batches(Path(path), SCOPE, domain(d, k), START):
        rounds += len(piece)
    seconds = time.perf_counter() - begun
    answer.send((rounds, seconds, peak_mib()))


def peak_mib() -> float:
    """Most memory of this process, MiB; without that of its parent, which ru_maxrss counts on Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path, rows: int, d: int, k: int, seed: int) -> dict[str, Any]:
    """One row."""
    first, again = folder / "first.duckdb", folder / "again.duckdb"
    with SqlRecord(f"sqlite:///{folder}/record.db") as record:
        print(f"filling a record with {rows:,} rows ...", file=sys.stderr)
        fill(record, rows, d, k, np.random.default_rng(seed))
        seconds, work = [], []
        for path in (first, again):
            print("loading ...", file=sys.stderr)
            begun, worked = time.perf_counter(), time.process_time()
            loaded = load(record, path)
            seconds.append(time.perf_counter() - begun)
            work.append(time.process_time() - worked)
    print("comparing ...", file=sys.stderr)
    equal = digest(first) == digest(again)
    print("reading ...", file=sys.stderr)
    begun, worked = time.perf_counter(), time.process_time()
    rounds = len(read_feedback(first, SCOPE, domain(d, k), START))
    whole, reading_work = time.perf_counter() - begun, time.process_time() - worked
    context = multiprocessing.get_context("spawn")
    asked, answer = context.Pipe(duplex=False)
    child = context.Process(target=reading, args=(str(first), d, k, answer), daemon=True)
    child.start()
    answer.close()
    in_pieces, piecewise, rss = asked.recv()
    child.join()
    return {
        "rows": loaded.rows,
        "quarantined": loaded.quarantined,
        "d": d,
        "k": k,
        "rows_per_s": round(rows / min(seconds), 1),
        "slower_rows_per_s": round(rows / max(seconds), 1),
        "rows_per_cpu_s": round(rows / min(work), 1),
        "rebuild_equal": equal,
        "rounds": rounds,
        "rounds_in_pieces": in_pieces,
        "read_per_s": round(rounds / whole, 1),
        "read_per_cpu_s": round(rounds / reading_work, 1),
        "batches_per_s": round(in_pieces / piecewise, 1),
        "rss_mib": round(rss, 1),
        "bytes_per_row": round(first.stat().st_size / rows, 1),
    }


def verdict(row: dict[str, Any]) -> dict[str, Any]:
    """The figures that the bar names, and whether they were met."""
    sound = row["rebuild_equal"] and row["quarantined"] == 0 and row["rounds_in_pieces"] == row["rounds"]
    named = {name: row[name] for name in ("rows_per_s", "rebuild_equal", "read_per_s", "batches_per_s", "rss_mib")}
    return {**named, "met": bool(sound and row["rows_per_s"] >= ROWS_PER_S)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, measure, print the row, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the record, half of them decisions")
    parser.add_argument("--d", type=int, default=64, help="length of a context")
    parser.add_argument("--k", type=int, default=4, help="number of arms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the files (default: temporary)")
    options = parser.parse_args(arguments)
    if options.rows < 2 or options.d < 1 or options.k < 2 or options.seed < 0:
        parser.error("--rows and --k must be at least 2, --d at least 1, and --seed at least 0.")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        row = measure(Path(folder), options.rows, options.d, options.k, options.seed)
    print(json.dumps(row), flush=True)
    print(json.dumps({"summary": True, **verdict(row)}))


if __name__ == "__main__":
    main()
