"""The contract of a record that several processes share, as a pytest class: no row is lost, passed by, or moved.

A backend passes when a subclass that gives the fixtures passes, as tests/record/test_record.py does.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bandits.errors import RecordError
from bandits.record.port import rows
from bandits.record.sql import SqlRecord
from bandits.testing.ports import plain, sample_decision, sample_outcome
from bandits.types import Decision
from bandits.warehouse.loading import load

_APPENDER = """
import sys, threading
from bandits.record.sql import SqlRecord
from bandits.testing.ports import sample_decision, sample_outcome
record = SqlRecord(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
def work(name):
    for i in range(int(sys.argv[3])):
        key = f"{name}{i}"
        position = record.append(sample_decision(key), sample_outcome(key))
        sys.stdout.write(f"{key} {position}\\n")
        sys.stdout.flush()
threads = [threading.Thread(target=work, args=(f"{sys.argv[2]}{t}-",)) for t in range(int(sys.argv[4]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
_STALLING = """
import sys
from bandits.record.sql import SqlRecord
from bandits.record.commit import Commit
from bandits.testing.ports import sample_decision, sample_outcome
insert = Commit.insert
def stall(commit, *rows):
    insert(commit, *rows)
    print("stalled", flush=True)
    sys.stdin.readline()
with SqlRecord(sys.argv[1]) as record:
    Commit.insert = stall
    print(record.append(sample_decision("slow"), sample_outcome("slow")), flush=True)
"""
_FORKED = """
import os, sys
from bandits.errors import RecordError
from bandits.record.sql import SqlRecord
from bandits.testing.ports import sample_decision
record = SqlRecord(sys.argv[1])
record.append(sample_decision("parent"))
if os.fork() == 0:
    for call in (lambda: record.append(sample_decision("child")), record.append, record.head, record.read):
        try:
            call()
        except RecordError as error:
            print(error, flush=True)
    record.close()
    with SqlRecord(sys.argv[1]) as own:
        print(own.append(sample_decision("child")), flush=True)
    os._exit(0)
os.wait()
print(record.append(sample_decision("again")))
"""


def appender(url: str, name: str, count: int, threads: int = 1) -> subprocess.Popen[str]:
    """A process that opens the record, waits for a line, and appends `count` pairs a thread, telling each position."""
    return _python(_APPENDER, url, name, str(count), str(threads))


@contextmanager
def stalled(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has written a decision and its outcome, "slow", and stops in front of the commit.

    It commits when it is sent a line, and then tells its position.
    """
    child = _python(_STALLING, url)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "stalled\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def _python(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def _ids(record: SqlRecord) -> list[tuple[int, str]]:
    return [
        (position, entry.id if isinstance(entry, Decision) else f"of {entry.decision_id}")
        for position, entry in rows(record)
    ]


class SharedRecordConformance:
    """What processes that share a record may rely on. A subclass gives the fixture `url`, that of an empty one."""

    def test_processes_append_to_one_record(self, url: str) -> None:
        """They even make it together; all positions are there once, and each thread was told the right ones."""
        names, threads, count = "xy", 8, 25
        children = [appender(url, name, count, threads) for name in names]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
        for child in children:  # all are open: start them at once
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        told: dict[str, str] = {}
        for child in children:
            for line in child.communicate()[0].splitlines():
                key, position = line.split()
                told[key] = position
            assert child.returncode == 0
        with SqlRecord(url) as record:
            found = list(rows(record, batch=7))
        assert [position for position, _ in found] == list(range(1, 2 * len(names) * threads * count + 1))
        assert len(told) == len(names) * threads * count
        assert {e.decision_id: str(p) for p, e in found if not isinstance(e, Decision)} == told

    def test_a_killed_process_loses_nothing_that_it_acknowledged(self, url: str) -> None:
        """kill -9 in mid-work: every position that was answered is there, and the next process goes on."""
        child = appender(url, "x", 100_000)
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        child.stdin.write("go\n")
        child.stdin.flush()
        told = [child.stdout.readline().split() for _ in range(20)]
        child.kill()
        child.communicate()
        with SqlRecord(url) as record:
            # Its last commit may still be under way at a server; it holds the lock, so an append comes after it.
            after = record.append(sample_decision("next"))
            found = {e.decision_id: position for position, e in record.read() if not isinstance(e, Decision)}
            assert {key: found[key] for key, _ in told} == {key: int(position) for key, position in told}
            assert after == record.head() == 2 * len(found) + 1

    def test_a_writer_that_stalls_before_its_commit_keeps_others_waiting_not_readers(
        self, url: str, tmp_path: Path
    ) -> None:
        """Nobody gets a position behind it and commits first; who reads or loads meanwhile misses nothing later."""
        warehouse = tmp_path / "warehouse.duckdb"
        with SqlRecord(url) as record, SqlRecord(url, busy_s=0.2) as hasty:
            record.append(sample_decision("old"))
            with stalled(url) as child:
                with pytest.raises(RecordError):  # it would have to stand behind what may never be committed
                    hasty.append(sample_decision("hasty"))
                assert (record.head(), _ids(record)) == (1, [(1, "old")])
                assert load(record, warehouse).position == 1
                told: list[int] = []
                patient = threading.Thread(target=lambda: told.append(record.append(sample_decision("patient"))))
                patient.start()
                assert child.communicate("go\n")[0] == "3\n"
                patient.join()
            assert told == [4]
            assert hasty.append(sample_decision("hasty")) == 5
            expected = [(1, "old"), (2, "slow"), (3, "of slow"), (4, "patient"), (5, "hasty")]
            assert _ids(record) == _ids(hasty) == expected
            loaded = load(record, warehouse)
            assert (loaded.rows, loaded.quarantined, loaded.position) == (4, 0, 5)

    def test_a_writer_that_dies_before_its_commit_leaves_no_gap(self, url: str) -> None:
        """What it wrote was acknowledged to nobody; its position goes to the next."""
        with SqlRecord(url) as record:
            with stalled(url) as child:
                child.kill()
                child.wait()
                assert record.append(sample_decision("next")) == 1
            assert [plain(entry) for _, entry in record.read()] == [plain(sample_decision("next"))]

    def test_a_forked_process_is_told_to_open_its_own_record(self, url: str) -> None:
        """It neither hangs nor writes through its parent's connection; its own works, and the parent's goes on."""
        command = [sys.executable, "-c", _FORKED, url]
        *errors, child, parent = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert len(errors) == 4
        assert all("is its fork; open it anew there" in error for error in errors)
        assert (child, parent) == ("2", "3")
        with SqlRecord(url) as record:
            assert record.append(sample_outcome("again")) == 4
