"""Does the record keep all that it acknowledged when its writers are killed, and nothing else when its file is torn?

    python -m benchmarks.durability --cycles 1000

A cycle: two processes open one record, sixteen threads each append decisions and outcomes, alone and together; what
`append` answers goes down a pipe. At a random moment all are killed with SIGKILL; the record is opened again and read.
Every tenth cycle starts fresh interpreters and kills them when both have acknowledged a row; the others fork writers
from a process that has imported already and kill them when one has, so that the other may die while it opens.
At the end all of it is read once more and must say what the cycles saw. Then the write-ahead log of a living record is
copied and cut at every byte of its last 64 KiB, and each torn copy is read.

Read it: `lost` are acknowledged rows that are not at the position acknowledged, `duplicated` are rows that are there
twice; both must be 0, and positions gapless. `unacknowledged` rows are no fault: their writer died before it heard.
`restart_p99_s` is of the fresh interpreters alone, from starting the process to its first acknowledged append, Python's
own start included: < 2 s. `truncation_ok`: each torn copy held a prefix of what was appended, unharmed, and the whole
copy all of it. Each copy is read with SQLite itself; where it shows what no copy before it showed, as a record too.

What would make it wrong: SIGKILL tears no disk cache, so a store that never flushes would pass the cycles; that commits
are flushed is a fact in tests/record/test_record.py, and the torn log stands for what a power cut leaves.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from bandits.errors import PilotageError
from bandits.record.port import Record, rows
from bandits.record.sql import SqlRecord
from bandits.types import Decision, Entry, Outcome
from benchmarks.record import sample

PROCESSES, THREADS = 2, 16
FRESH = 10  # every so many cycles the writers are fresh interpreters
LOAD_S = 0.6  # the longest that a cycle's load lasts
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


def killed(url: str, cycle: int, load_s: float, fresh: bool) -> tuple[dict[str, int], list[float]]:
    """Start the writers and kill them; acknowledged name -> position, and the starts, s, of those that began.

    fresh: interpreters of their own, killed load_s after all have begun; else forks, load_s after the first of them.
    """
    context: Any = multiprocessing.get_context("spawn" if fresh else "forkserver")
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
    needed = PROCESSES if fresh else 1
    told: dict[str, int] = {}
    first: dict[Any, float] = {}
    listening = [asked for asked, _ in pipes]
    end, alive = begun + PATIENCE_S, True
    while listening:
        for asked in wait(listening, max(end - time.perf_counter(), 0.0) if alive else None):
            assert isinstance(asked, Connection)
            try:
                last, names = asked.recv()
            except (EOFError, ConnectionResetError):
                listening.remove(asked)
                continue
            told |= {one: position for position, one in enumerate(names, start=last - len(names) + 1)}
            if asked not in first:
                first[asked] = time.perf_counter() - begun
                if len(first) == needed:
                    end = time.perf_counter() + load_s
        if alive and time.perf_counter() >= end:
            alive = False
            for child in children:
                child.kill()
    for child in children:
        child.join()
    if len(first) < needed:
        sys.exit(f"{needed} writers must acknowledge within {PATIENCE_S:g} s, but {len(first)} of {PROCESSES} did.")
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


def shown(path: Path) -> str:
    """Digest of every row of every table as SQLite shows the file; why it shows none, if it does not."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA synchronous=OFF")  # a copy to look at and to throw away
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
        rows_of = [connection.execute(f'SELECT * FROM "{table}"').fetchall() for (table,) in tables]  # noqa: S608
        return hashlib.sha256(repr((tables, rows_of)).encode()).hexdigest()
    except sqlite3.Error as error:
        return str(error)
    finally:
        connection.close()


def held(path: Path, names: Sequence[str]) -> int:
    """Rows of the record at `path`; -1: they are no prefix of `names`, or not readable."""
    try:
        with SqlRecord(f"sqlite:///{path}") as record:
            found = [(position, name(entry)) for position, entry in rows(record)]
            sound = found == list(enumerate(names[: len(found)], start=1)) and record.head() == len(found)
    except PilotageError:
        sound = False
    return len(found) if sound else -1


def torn(copy: Path, names: Sequence[str], lengths: Sequence[int]) -> list[int]:
    """Rows that a copy holds whose log was cut to each of these lengths, bytes; -1: not a prefix, or not readable."""
    database, log = copy.read_bytes(), copy.with_name(f"{copy.name}-wal").read_bytes()
    known: dict[str, int] = {}  # what SQLite shows -> the record's rows: one opening for all cuts that show the same
    found = []
    with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
        path = Path(folder) / "torn.db"

        def cut(length: int) -> None:
            for stale in path.parent.iterdir():
                stale.unlink()
            path.write_bytes(database)
            path.with_name("torn.db-wal").write_bytes(log[:length])

        for length in lengths:
            cut(length)
            state = shown(path)
            if state not in known:
                cut(length)  # closing has changed the file
                known[state] = held(path, names)
            found.append(known[state])
    return found


def truncation(folder: Path, step: int, workers: int) -> dict[str, Any]:
    """Cut the log's tail at every `step`-th byte and at its very end."""
    copy, names = living(folder)
    size = copy.with_name(f"{copy.name}-wal").stat().st_size
    lengths = [*range(size - TAIL, size, step), size]
    parts = [lengths[start : start + 1024] for start in range(0, len(lengths), 1024)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        kept = list(itertools.chain(*pool.map(partial(torn, copy, names), parts)))
    ordered = all(a <= b for a, b in itertools.pairwise(kept))  # a longer log never holds less
    return {
        "truncations": len(kept),
        "rows_kept": [min(kept), max(kept)],
        "truncation_ok": min(kept) >= 0 and ordered and kept[-1] == len(names),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read options, run the cycles, print a row for each, cut the log, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=20, help="how many times the writers are killed")
    parser.add_argument("--acknowledged", type=int, default=0, help="add cycles until so many rows are acknowledged")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of killing")
    parser.add_argument("--step", type=int, default=1, help="cut the log at every step-th byte")
    parser.add_argument("--workers", type=int, default=2, help="processes that open torn copies")
    parser.add_argument("--out", type=Path, help="folder for the records (default: temporary)")
    options = parser.parse_args(arguments)
    if min(options.cycles, options.step, options.workers) < 1 or min(options.seed, options.acknowledged) < 0:
        parser.error("--cycles, --step and --workers must be positive, --seed and --acknowledged not negative.")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options.seed)
    total: Counter[str] = Counter()
    starts: list[float] = []
    seen, gapless = Seen(0, hashlib.sha256()), True
    multiprocessing.set_forkserver_preload(["benchmarks.record"])
    forkserver.ensure_running()
    cycle = 0
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        url = f"sqlite:///{folder}/record.db"
        while cycle < options.cycles or total["acknowledged"] < options.acknowledged:
            fresh = cycle % FRESH == 0
            told, started = killed(url, cycle, float(rng.uniform(0.0, LOAD_S)), fresh)
            begun = time.perf_counter()
            with SqlRecord(url) as record:
                open_s = time.perf_counter() - begun
                found = check(record, told, seen)
            gapless &= found["gapless"]
            total.update({key: found[key] for key in ("acknowledged", "lost", "duplicated", "unacknowledged")})
            row = {"cycle": cycle, "fresh": fresh, **found, "open_s": round(open_s, 4)}
            if fresh:
                starts += started
                row["restart_s"] = round(max(started), 3)
            print(json.dumps(row), flush=True)
            cycle += 1
        with SqlRecord(url) as record:
            unchanged = same(record, seen)
        print(f"cutting the log at every byte, step {options.step} ...", file=sys.stderr)
        cut = truncation(Path(folder), options.step, options.workers)
    restart = round(float(np.percentile(starts, 99)), 3)
    sound = gapless and unchanged and not total["lost"] and not total["duplicated"]
    met = bool(sound and cut["truncation_ok"] and restart < 2.0)
    summary = {**total, "gapless": gapless, "unchanged": unchanged, "restart_p99_s": restart, **cut, "met": met}
    print(json.dumps({"summary": True, "cycles": cycle, "restarts": len(starts), **summary}))


if __name__ == "__main__":
    main()
