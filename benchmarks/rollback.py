"""How long does a bad snapshot go on serving after the record has shown that it is bad?

    python -m benchmarks.rollback --rollbacks 200

Three processes serve one scope from one SQLite record, each with the service's own `Servers`, its thread that looks for
orders, and its own threads that decide and report; together they make at least 200 decisions a second. The third has a
slow disk: each of its transactions, reading or writing, waits half a second first. Each rollback publishes a snapshot,
begins its rollout at 5, 20 or 50 % of users, waits until it serves, and from then on half of its answers fail. Every
fourth time the second process is stopped with SIGSTOP when failing begins, and goes on 6 s later.

Then, in each stage, `pilotage watch` is the only process with the signing key, serves as the controller, and is killed
with SIGKILL: nobody can renew the lease.

Read it: `seconds` is from the time of the outcome whose row in the record was the breach (found by folding the finished
record again) to the draw of the last decision by the bad snapshot, in any process, in all of the record; 0 where none
came after. `answered_s` is the same to the answer of that decision: what was drawn before may wait for a disk, or in a
stopped process. `late_decisions` is how many were drawn after the breach. For a killed controller: from the kill to the
last draw by the canary. Bars: p50 <= 1 s, p99 <= 5 s, max <= 10 s, killed controller <= 10 s.

What would make it wrong: `--out` on a file system in memory; a clock that is set while it runs; a machine so busy that
less than 200 decisions/s are made (`decisions_per_s` tells; three processes share one file and its flushes).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import sqlalchemy as sa

from bandits.config import Config, parse_config
from bandits.errors import PilotageError
from bandits.folds.following import batches
from bandits.home import Home
from bandits.learners.baselines import ContextFree
from bandits.record.sql import SqlRecord
from bandits.rollout.evidence import Evidence
from bandits.rollout.giving import abort, begin
from bandits.rollout.machine import Order
from bandits.rollout.orders import OrderBook
from bandits.rollout.watching import watch
from bandits.router import Router
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.snapshots.publishing import publish
from bandits.types import Decision, Outcome, Scope, Slot
from service.servers import Servers

SCOPE = Scope("bench", "main", "own")
ARMS = ("a", "b")
SHARES = (0.05, 0.2, 0.5)
USERS = 20_000
PROCESSES, THREADS = 3, 8
SLOW_S, STOPPED_S = 0.5, 6.0
PATIENCE_S, START_S = 90.0, 300.0
BARS = {"p50_s": 1.0, "p99_s": 5.0, "max_s": 10.0, "controller_kill_max_s": 10.0}
QUIET_S = 5.0  # longer than a lease
_LINE = 50  # bytes


def config(stages: Sequence[float], **more: object) -> Config:
    """Two arms, two features, and how to roll out."""
    arms = [{"name": name, "model": name, "usd_per_request": 1e-4} for name in ARMS]
    domain = {"arms": arms, "budget_usd_per_request": 1e-3, "features": "vector-2"}
    rollout = {"stages": list(stages), **more}
    return parse_config({"tenants": {"bench": {}}, "domains": {"own": domain}, "rollout": rollout}, "benchmark")


def serving(home: Home, number: int, rate: float, slow: bool, failing: Event, stop: Event, told: Path) -> None:
    """One process that serves: its threads decide and report at `rate` decisions/s until `stop`.

    told: where it tells of answers by canaries; it is there once the process serves.
    """
    with ExitStack() as stack:
        record = stack.enter_context(home.open_record())
        servers = Servers(home, config([1.0]), record, np.random.default_rng(number), time.time, 1.0)
        server = servers.get(SCOPE)
        servers.start()
        if slow:
            sa.event.listen(sa.pool.Pool, "checkout", lambda *_: time.sleep(SLOW_S))
        answers = stack.enter_context(told.open("w", buffering=1))
        threads = [
            threading.Thread(
                target=_decide, args=(server.router, number * 1_000 + i, rate / THREADS, failing, stop, answers)
            )
            for i in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        servers.stop()


def _decide(router: Router, seed: int, rate: float, failing: Event, stop: Event, answers: TextIO) -> None:
    rng = np.random.default_rng(seed)
    due = time.monotonic() + rng.random() / rate
    while not stop.is_set():
        time.sleep(max(due - time.monotonic(), 0.0))
        due = max(due + 1.0 / rate, time.monotonic() - 1.0)  # what cannot be caught up with is let go
        with suppress(PilotageError):  # such as a database that a stopped process holds; the record tells what was made
            decision = router.decide(np.zeros(2, np.float32), f"u{rng.integers(USERS)}")
            if decision.slot is Slot.CANARY:
                answers.write(f"{decision.id} {time.time()!r}\n")
            bad = decision.slot is Slot.CANARY and failing.is_set() and rng.random() < 0.5
            quality, result = (0.0, "failed:server") if bad else (float(rng.uniform(0.7, 0.9)), "stop")
            router.report(Outcome(decision.id, time.time(), SCOPE, quality=quality, latency_s=0.2, result=result))


def watching(home: Home, settings: Config) -> None:
    """`pilotage watch`, to be killed."""
    watch(home, settings, lambda line: print(line, file=sys.stderr), threading.Event())


@dataclass
class Told:
    """What the finished part of the record says: canary decisions by version, and when each rollout's breach came."""

    home: Home
    orders: dict[str, Evidence] = field(default_factory=dict)  # by seed
    position: int = 0
    drawn: dict[str, list[tuple[float, str]]] = field(default_factory=dict)  # version -> time and id
    breaches: dict[str, float] = field(default_factory=dict)  # version -> time
    decisions: int = 0

    def follow(self, record: SqlRecord) -> None:
        """Read on."""
        head = record.head()
        for rows in batches(record, self.position, head):
            for row in rows:
                entry = row.entry
                if isinstance(entry, Decision):
                    self.decisions += 1
                    if entry.slot is Slot.CANARY:
                        self.drawn.setdefault(entry.policy, []).append((entry.time, entry.id))
                for version, evidence in self.orders.items():
                    if evidence.breach is None:
                        evidence.fold([row])
                        if evidence.breach is not None:
                            self.breaches[version] = entry.time
        self.position = head

    def late(self, version: str, answers: dict[str, float]) -> dict[str, Any]:
        """How long and how often it served after its breach."""
        breach = self.breaches[version]
        late = [(time_, id_) for time_, id_ in self.drawn.get(version, []) if time_ > breach]
        answered = [answers[id_] - breach for _, id_ in self.drawn.get(version, []) if id_ in answers]
        return {
            "seconds": max((time_ - breach for time_, _ in late), default=0.0),
            "answered_s": max([0.0, *answered]),
            "late_decisions": len(late),
        }


class Fleet:
    """The three processes over one record, and what the benchmark does to them."""

    def __init__(self, home: Home, folder: Path, rate: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.failing, self._stop = context.Event(), context.Event()
        self.home, self._answers = home, [folder / f"answers-{n}" for n in range(PROCESSES)]
        rates = [rate * 0.49, rate * 0.49, rate * 0.02]  # a slow disk does not keep up with more
        self.processes: list[SpawnProcess] = [
            context.Process(
                target=serving,
                args=(home, n, rates[n], n == PROCESSES - 1, self.failing, self._stop, self._answers[n]),
                daemon=True,
            )
            for n in range(PROCESSES)
        ]
        for process in self.processes:
            process.start()
        wait_for("each process serves", lambda: all(path.exists() for path in self._answers), START_S)

    def answered(self) -> int:
        """How much the processes have told of answers by canaries, lines or so: cheap to ask."""
        return sum(path.stat().st_size for path in self._answers) // _LINE

    def answers(self) -> dict[str, float]:
        """Canary decision → when it was answered, UTC seconds."""
        lines = [line.split() for path in self._answers for line in path.read_text().splitlines()]
        return {parts[0]: float(parts[1]) for parts in lines if len(parts) == 2}

    @contextmanager
    def stopped(self, number: int) -> Iterator[None]:
        """SIGSTOP for a while; it goes on whatever happens."""
        pid = self.processes[number].pid or 0
        os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(STOPPED_S, os.kill, (pid, signal.SIGCONT))
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def close(self) -> None:
        """End the processes, and wait."""
        self._stop.set()
        for process in self.processes:
            process.join(30.0)
            if process.is_alive():
                process.kill()


def put(home: Home) -> str:
    """Publish one more policy, at the head of the record as a night does that has just read it; its version."""
    prices = np.array([1e-4, 1e-4])
    with home.open_record() as record:
        head = record.head()
    policy = ContextFree("fixed", ARMS, "vector-2", np.array([1.0, 0.0]), prices, 1e-3, 0.02)
    given: dict[str, Any] = {
        "position": head,
        "parent": None,
        "evidence": {},
        "created": time.time(),
        "expires": time.time() + 86_400.0,
    }
    return publish(home.snapshots, SCOPE, policy.freeze(), key=signing_key(home.root), **given).version


def wait_for(what: str, holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Look until it holds. Raises TimeoutError."""
    end = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience_s:g} s in vain until {what}")
        time.sleep(0.05)


def rollbacks(fleet: Fleet, book: OrderBook, count: int) -> Iterator[dict[str, Any]]:
    """A row for each rollback, told one later: by then whatever was late has come."""
    home, told = fleet.home, Told(fleet.home)
    key, stable = signing_key(home.root), put(home)
    begin(home, SCOPE, config([1.0]), stable, previous=None, key=key, now=time.time(), why="the first")
    waiting: tuple[dict[str, Any], str] | None = None
    with home.open_record() as record:
        wait_for("decisions are made", lambda: record.head() > 100)
        began, before = time.monotonic(), record.head()
        for n in range(count):
            scenario = "stopped" if n % 4 == 3 else "running"
            version, order = _begun(fleet, book, SHARES[n % len(SHARES)])
            told.orders[version] = Evidence(order, config([1.0]).domains[SCOPE.domain])
            fleet.failing.set()
            if scenario == "stopped":
                with fleet.stopped(1):
                    _ended(book, order)
            _ended(book, order)
            fleet.failing.clear()
            told.follow(record)
            if waiting is not None:
                yield waiting[0] | told.late(waiting[1], fleet.answers())
                del told.orders[waiting[1]]
            row = {"n": n, "scenario": scenario, "share": SHARES[n % len(SHARES)], "version": version}
            waiting = row, version
        time.sleep(QUIET_S)
        told.follow(record)
        if waiting is not None:
            yield waiting[0] | told.late(waiting[1], fleet.answers())
        made = (record.head() - before) / 2.0 / (time.monotonic() - began)
        yield {"decisions_per_s": made, "told": told}


def _begun(fleet: Fleet, book: OrderBook, share: float) -> tuple[str, Order]:
    """A new rollout at this share, and its canary seen to serve in the record of answers."""
    home, version = fleet.home, put(fleet.home)
    settings = config([share, 1.0], min_seconds=3_600.0)
    stable = standing(book).stable
    now, key = time.time(), signing_key(home.root)
    begin(home, SCOPE, settings, version, previous=stable, key=key, now=now, why="the next")
    order, before = standing(book), fleet.answered()
    wait_for("the canary serves", lambda: fleet.answered() > before + 5)
    return version, order


def _ended(book: OrderBook, order: Order) -> None:
    wait_for("it is rolled back", lambda: standing(book).number > order.number)


def _serves_in(stage: int, book: OrderBook, fleet: Fleet) -> None:
    wait_for(f"stage {stage} begins", lambda: standing(book).stage >= stage)
    before = fleet.answered()
    wait_for(f"stage {stage} serves", lambda: fleet.answered() > before + 5)


def standing(book: OrderBook) -> Order:
    """The newest order."""
    order = book.read(SCOPE).order
    assert order is not None
    return order


def kills(home: Home, folder: Path, rate: float) -> Iterator[dict[str, Any]]:
    """A row for each stage: the only process with the key is killed in it."""
    context = multiprocessing.get_context("spawn")
    followers = Home(folder / "followers", home.record_url)  # a host that trusts the key, and has it not
    (followers.root / "keys").mkdir(parents=True, mode=0o700)
    shutil.copy(home.root / "keys" / "signing.pub", followers.root / "keys" / "signing.pub")
    followers.snapshots.symlink_to(home.snapshots)
    stages = [*SHARES, 1.0]
    book = OrderBook(home.record_url, trusted_keys(home.root))
    fleet = Fleet(followers, folder / "followers", rate)
    try:
        for stage, share in enumerate(stages):
            version = put(home)
            rising = stages[: stage + 1] if share == 1.0 else [*stages[: stage + 1], 1.0]
            settings = config(rising, min_seconds=2.0, min_sample=10, effect=0.3)
            key, now = signing_key(home.root), time.time()
            begin(home, SCOPE, settings, version, previous=None, key=key, now=now, why="the next")
            watcher = context.Process(target=watching, args=(home, settings), daemon=True)
            watcher.start()
            _serves_in(stage, book, fleet)
            watcher.kill()
            killed = time.time()
            watcher.join()
            time.sleep(BARS["controller_kill_max_s"] + 2.0)
            with home.open_record() as record:
                told = Told(home, position=max(record.head() - 40_000, 0))
                told.follow(record)
            drawn = [time_ for time_, _ in told.drawn.get(version, [])]
            seconds = max([0.0, *(time_ - killed for time_ in drawn)])
            late = sum(time_ > killed for time_ in drawn)
            row = {"n": stage, "scenario": "controller killed", "share": share, "seconds": seconds}
            yield row | {"late_decisions": late, "served_before": len(drawn) - late}
            abort(home, SCOPE, key, time.time(), who="benchmark", why="measured")
    finally:
        fleet.close()
        book.close()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rollbacks", type=int, default=200)
    parser.add_argument("--rate", type=float, default=240.0, help="decisions/s that are tried for")
    parser.add_argument("--out", type=Path, help="folder for what is made; left out: a temporary one")
    args = parser.parse_args()
    if args.rollbacks < 1 or not args.rate > 0.0:
        parser.error("--rollbacks must be 1 or more, and --rate above 0")
    with tempfile.TemporaryDirectory(dir=args.out) as made:
        folder = Path(made)
        home = Home(folder / "home")
        signing_key(home.root)
        home.open_record().close()
        fleet = Fleet(home, folder, args.rate)
        book = OrderBook(home.record_url, trusted_keys(home.root))
        seconds: list[float] = []
        per_s = 0.0
        try:
            for row in rollbacks(fleet, book, args.rollbacks):
                if "told" in row:
                    per_s = row["decisions_per_s"]
                    continue
                seconds.append(row["seconds"])
                print(json.dumps(row), flush=True)
        finally:
            fleet.close()
            book.close()
        killed = []
        for row in kills(home, folder, args.rate):
            killed.append(row["seconds"])
            print(json.dumps(row), flush=True)
    figures = {
        "p50_s": float(np.quantile(seconds, 0.5)),
        "p99_s": float(np.quantile(seconds, 0.99)),
        "max_s": max(seconds),
        "controller_kill_max_s": max(killed),
    }
    met = all(figures[name] <= bar for name, bar in BARS.items()) and per_s >= 200.0
    print(json.dumps({"summary": True, "rollbacks": len(seconds), **figures, "decisions_per_s": per_s, "met": met}))


if __name__ == "__main__":
    main()
