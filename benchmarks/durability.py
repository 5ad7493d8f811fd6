"""Does the record keep all that it acknowledged when its writers are killed, and nothing else when its file is torn?

    python -m benchmarks.durability --cycles 1000

A cycle: two processes open one record, eight threads each append decisions and outcomes, alone and together; what
`append` answers goes down a pipe. At a random moment all are killed with SIGKILL; the record is opened again and read.
At the end all of it is read once more and must say what the cycles saw. Then the write-ahead log of a living record is
copied and cut at every byte of its last 64 KiB, and each torn copy is opened.

Read it: `lost` are acknowledged rows that are not at the position acknowledged, `duplicated` are rows that are there
twice; both must be 0, and positions gapless. `unacknowledged` rows are no fault: their writer died before it heard.
`restart_p99_s` is from starting a process to its first acknowledged append, Python's own start included: < 2 s.
`truncation_ok`: each torn copy held a prefix of what was appended, unharmed, and the whole copy all of it.

What would make it wrong: SIGKILL tears no disk cache, so a store that never flushes would pass the cycles; that commits
are flushed is a fact in tests/test_record.py, and the torn log stands for what a power cut leaves.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from bandits.errors import PilotageError
from bandits.record import Entry, Record, SqlRecord, rows
from bandits.types import Decision, Outcome
from benchmarks.record import sample

PROCESSES, THREADS = 2, 8
LOAD_S = 0.5  # the longest that a cycle's load lasts from the first acknowledgement on
PATIENCE_S = 60.0  # a process that has not acknowledged anything by then never will
TAIL = 64 * 1024  # bytes of the log that are cut, one by one


@dataclass
class Seen:
    """What reading has shown so far: the head, and a digest of every position and its entry up to there."""

    head: int
    digest: Any


def name(entry: Entry) -> str:
    """What tells an entry from all others here: a decision's id, an outcome's source."""
    return entry.id if isinstance(entry, Decision) else entry.source


def work(template: Decision, prefix: str) -> Iterator[tuple[Entry, ...]]:
    """Batches without end: a decision alone, then its outcome alone, then both at once."""
    for i in itertools.count():
        alone = replace(template, id=f"{prefix}-{i}a", time=time.time())
        both = replace(template, id=f"{prefix}-{i}b", time=time.time())
        yield (alone,)
        yield (Outcome(alone.id, time.time(), alone.scope, quality=0.5, source=f"{alone.id}/outcome"),)
        yield both, Outcome(both.id, time.time(), both.scope, vote=1, source=f"{both.id}/outcome")


def writing(url: str, prefix: str, acknowledgements: Connection) -> None:
    """One process: append until killed; sends (position of the last, names) of each batch once it is acknowledged."""
    record, template, one_at_a_time = SqlRecord(url), sample(), threading.Lock()

    def append(thread: int) -> None:
        for batch in work(template, f"{prefix}-{thread}"):
            told = record.append(*batch), [name(entry) for entry in batch]
            with one_at_a_time:
                acknowledgements.send(told)

    threads = [threading.Thread(target=append, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def killed(url: str, cycle: int, load_s: float) -> tuple[dict[str, int], list[float]]:
    """Start the writers, kill them load_s after all have begun; acknowledged name -> position, and each start, s."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(PROCESSES)]
    children = [
        context.Process(target=writing, args=(url, f"{cycle}-{child}", answer), daemon=True)
        for child, (_, answer) in enumerate(pipes)
    ]
    begun = time.perf_counter()
    for child in children:
        child.start()
    for _, answer in pipes:
        answer.close()  # the child's end: when it dies, reading comes to an end
    told: dict[str, int] = {}
    first: dict[Any, float] = {}
    listening = [asked for asked, _ in pipes]
    end, alive = begun + PATIENCE_S, True
    while listening:
        for asked in wait(listening, max(end - time.perf_counter(), 0.0) if alive else None):
            assert isinstance(asked, Connection)
            try:
                last, names = asked.recv()
            except EOFError:
                listening.remove(asked)
                continue
            told |= {one: position for position, one in enumerate(names, start=last - len(names) + 1)}
            if asked not in first:
                first[asked] = time.perf_counter() - begun
                if len(first) == PROCESSES:
                    end = time.perf_counter() + load_s
        if alive and time.perf_counter() >= end:
            alive = False
            for child in children:
                child.kill()
    for child in children:
        child.join()
    if len(first) < PROCESSES:
        sys.exit(f"every writer must acknowledge within {PATIENCE_S:g} s, but {len(first)} of {PROCESSES} did.")
    return told, list(first.values())


def check(record: Record, told: dict[str, int], seen: Seen) -> dict[str, Any]:
    """Read what came since `seen`, moving it on, and hold it against the acknowledgements."""
    times: Counter[str] = Counter()
    places: dict[str, int] = {}
    gapless = True
    for position, entry in rows(record, seen.head):
        gapless &= position == seen.head + 1
        seen.head = position
        seen.digest.update(f"{position} {name(entry)}\n".encode())
        times[name(entry)] += 1
        places[name(entry)] = position
    return {
        "acknowledged": len(told),
        "lost": sum(places.get(one) != position for one, position in told.items()),
        "duplicated": sum(times.values()) - len(times),
        "unacknowledged": len(places.keys() - told.keys()),
        "gapless": gapless and seen.head == record.head(),
    }


def same(record: Record, seen: Seen) -> bool:
    """Whether the whole record, read from the start, is what the cycles saw one after the other."""
    again = Seen(0, hashlib.sha256())
    check(record, {}, again)
    return (again.head, again.digest.digest()) == (seen.head, seen.digest.digest())


def living(folder: Path) -> tuple[Path, list[str]]:
    """A record copied in mid-life, database and log, whose log is longer than the tail; names of its rows in order."""
    url, copy = f"sqlite:///{folder}/living.db", folder / "copy.db"
    batches = work(sample(), "x")
    with SqlRecord(url) as record:
        for batch in itertools.islice(batches, 12):
            record.append(*batch)
    with SqlRecord(url) as record:  # closing has moved the first rows from the log into the database
        log = folder / "living.db-wal"
        while log.stat().st_size <= TAIL:
            record.append(*next(batches))
        names = [name(entry) for _, entry in rows(record)]
        shutil.copy(folder / "living.db", copy)
        shutil.copy(log, folder / "copy.db-wal")
    return copy, names


def torn(copy: Path, names: Sequence[str], lengths: Sequence[int]) -> list[int]:
    """Rows that a copy holds whose log was cut to each of these lengths, bytes; -1: not a prefix, or not readable."""
    database, log = copy.read_bytes(), copy.with_name(f"{copy.name}-wal").read_bytes()
    found = []
    for length in lengths:
        with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
            path = Path(folder) / "torn.db"
            path.write_bytes(database)
            path.with_name("torn.db-wal").write_bytes(log[:length])
            try:
                with SqlRecord(f"sqlite:///{path}") as record:
                    held = [(position, name(entry)) for position, entry in rows(record)]
                    sound = held == list(enumerate(names[: len(held)], start=1)) and record.head() == len(held)
            except PilotageError:
                sound = False
            found.append(len(held) if sound else -1)
    return found


def truncation(folder: Path, step: int, workers: int) -> dict[str, Any]:
    """Cut the log's tail at every `step`-th byte and at its very end."""
    copy, names = living(folder)
    size = copy.with_name(f"{copy.name}-wal").stat().st_size
    lengths = [*range(size - TAIL, size, step), size]
    parts = [lengths[start : start + 256] for start in range(0, len(lengths), 256)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        held = list(itertools.chain(*pool.map(partial(torn, copy, names), parts)))
    ordered = all(a <= b for a, b in itertools.pairwise(held))  # a longer log never holds less
    return {
        "truncations": len(held),
        "rows_kept": [min(held), max(held)],
        "truncation_ok": min(held) >= 0 and ordered and held[-1] == len(names),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, run the cycles, print a row for each, cut the log, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=20, help="how many times the writers are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of killing")
    parser.add_argument("--step", type=int, default=1, help="cut the log at every step-th byte")
    parser.add_argument("--workers", type=int, default=2, help="processes that open torn copies")
    parser.add_argument("--out", type=Path, help="folder for the records (default: temporary)")
    options = parser.parse_args(arguments)
    if min(options.cycles, options.step, options.workers) < 1 or options.seed < 0:
        parser.error("--cycles, --step and --workers must be positive, --seed not negative.")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options.seed)
    total: Counter[str] = Counter()
    starts: list[float] = []
    seen, gapless = Seen(0, hashlib.sha256()), True
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        url = f"sqlite:///{folder}/record.db"
        for cycle in range(options.cycles):
            told, started = killed(url, cycle, float(rng.uniform(0.0, LOAD_S)))
            begun = time.perf_counter()
            with SqlRecord(url) as record:
                open_s = time.perf_counter() - begun
                found = check(record, told, seen)
            starts += started
            gapless &= found["gapless"]
            total.update({key: found[key] for key in ("acknowledged", "lost", "duplicated", "unacknowledged")})
            times = {"open_s": round(open_s, 4), "restart_s": round(max(started), 3)}
            print(json.dumps({"cycle": cycle, **found, **times}), flush=True)
        with SqlRecord(url) as record:
            unchanged = same(record, seen)
        print(f"cutting the log at every byte, step {options.step} ...", file=sys.stderr)
        cut = truncation(Path(folder), options.step, options.workers)
    restart = round(float(np.percentile(starts, 99)), 3)
    sound = gapless and unchanged and not total["lost"] and not total["duplicated"]
    met = bool(sound and cut["truncation_ok"] and restart < 2.0)
    summary = {**total, "gapless": gapless, "unchanged": unchanged, "restart_p99_s": restart, **cut, "met": met}
    print(json.dumps({"summary": True, "cycles": options.cycles, **summary}))


if __name__ == "__main__":
    main()
