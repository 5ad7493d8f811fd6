"""Facts about a record whose disk is full, whose file goes, or whose file is broken: an error for all, and no hang."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from bandits.errors import RecordError
from bandits.record.port import rows
from bandits.record.sql import SqlRecord
from bandits.testing.ports import at_once, sample_decision, sample_outcome

FULL = """
import resource, sys, threading
from bandits.errors import RecordError
from bandits.record.sql import SqlRecord
from bandits.record.port import rows
from bandits.testing.ports import sample_decision

record, told, refused = SqlRecord(sys.argv[1]), {}, []
record.append(sample_decision("first"))

def work(name):
    i = 0
    while True:
        try:
            told[f"{name}-{i}"] = record.append(sample_decision(f"{name}-{i}"))
        except RecordError as error:
            refused.append(str(error))
            return
        i += 1

unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, unlimited[1]))
threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(refused) == 12
assert all("free space" in text for text in refused), refused
assert record.decision("first", "acme").id == "first"  # who only reads is not disturbed
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)  # somebody made room
after = record.append(sample_decision("after"))
record.close()
with SqlRecord(sys.argv[1]) as again:
    held = {row.entry.id: row.position for row in rows(again)}
assert sorted(held.values()) == list(range(1, len(held) + 1))
assert held == {"first": 1, **told, "after": after}
print(len(told))
"""


@pytest.fixture
def path(tmp_path):
    """A closed record of 200 decisions and as many outcomes: more than one page of each table."""
    path = tmp_path / "record.db"
    with SqlRecord(f"sqlite:///{path}") as record:
        record.append(*(entry for i in range(200) for entry in (sample_decision(str(i)), sample_outcome(str(i)))))
    return path


def test_a_full_disk_is_told_to_all_and_costs_nothing_that_was_acknowledged(tmp_path):
    """No file may grow past 250 kB: twelve callers hear of it; when there is room, the record goes on."""
    command = [sys.executable, "-c", FULL, f"sqlite:///{tmp_path}/record.db"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) > 20  # by how many wait for each commit


def refusals(record, count):
    """What so many callers at once are refused with."""
    heard = []

    def work(name):
        with pytest.raises(RecordError) as refused:
            record.append(sample_decision(name))
        heard.append(str(refused.value))

    at_once(work, [f"new{i}" for i in range(count)])
    return heard


@pytest.mark.parametrize("gone", ["record.db", "record.db-wal"])
def test_nothing_is_acknowledged_into_a_file_that_was_removed(path, gone):
    """The system would go on writing to a file without a name; whoever appends hears that it is gone."""
    with SqlRecord(f"sqlite:///{path}") as record:
        record.append(sample_decision("a"))
        (path.parent / gone).unlink()
        heard = refusals(record, 8)
        assert all("was removed or replaced" in text and "open it anew" in text for text in heard)
        assert len(heard) == 8


def test_nothing_is_acknowledged_into_a_file_that_was_replaced(path, tmp_path):
    """A backup put in its place is another file: the old one, still open, is not what others will read."""
    with SqlRecord(f"sqlite:///{tmp_path}/backup.db") as backup:
        backup.append(sample_decision("other"))
    with SqlRecord(f"sqlite:///{path}") as record:
        record.append(sample_decision("a"))
        (tmp_path / "backup.db").rename(path)
        assert "was removed or replaced" in refusals(record, 1)[0]
    with SqlRecord(f"sqlite:///{path}") as anew:
        assert [row.entry.id for row in anew.read()] == ["other"]


def test_a_folder_that_vanishes_is_an_error_for_all_and_closing_still_works(path):
    """rm -r under a living record: no hang, neither for callers nor for who closes."""
    record = SqlRecord(f"sqlite:///{path}")
    record.append(sample_decision("a"))
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    assert len(refusals(record, 8)) == 8
    closing = threading.Thread(target=record.close, daemon=True)
    closing.start()
    closing.join(30.0)
    assert not closing.is_alive()


@pytest.mark.parametrize("kept", [1, 99, 100, 512, 4096, 5000, 3 * 4096, 10 * 4096, -4096, -1])
def test_a_truncated_database_never_shows_an_invented_row(path, kept):
    """Cut to `kept` bytes (of its end, if negative): opened or read, it is refused, or shows rows as they were."""
    with SqlRecord(f"sqlite:///{path}") as record:
        whole = [(row.position, row.entry.time) for row in rows(record)]
    data = path.read_bytes()
    path.write_bytes(data[:kept])
    try:
        with SqlRecord(f"sqlite:///{path}") as record:
            found = [(row.position, row.entry.time) for row in rows(record)]
    except RecordError:
        found = []
    assert found in ([], whole[: len(found)])


def test_a_database_truncated_in_mid_life_answers_everyone(path):
    """Whatever SQLite makes of it, each caller hears an answer or an error, and closing ends."""
    record, answered = SqlRecord(f"sqlite:///{path}"), []

    def work(name):
        try:
            answered.append(record.append(sample_decision(name)))
        except RecordError as error:
            answered.append(error)

    with path.open("r+b") as file:
        file.truncate(2 * 4096)
    at_once(work, [f"new{i}" for i in range(8)])
    closing = threading.Thread(target=record.close, daemon=True)
    closing.start()
    closing.join(30.0)
    assert not closing.is_alive()
    assert len(answered) == 8
    assert all(isinstance(answer, RecordError) for answer in answered)
