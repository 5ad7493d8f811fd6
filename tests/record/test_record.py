"""Facts about the record: the contract for both stores, and what only a file has to promise."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import PilotageError, RecordError, UnreadableRowError
from bandits.record.memory import MemoryRecord
from bandits.record.sql import SqlRecord
from bandits.record.sqlite import Sqlite
from bandits.record.writer import GroupWriter
from bandits.testing.ports import ELSEWHERE, HERE, RecordConformance, at_once, plain, sample_decision, sample_outcome
from bandits.testing.shared import SharedRecordConformance

GOLDEN = Path(__file__).parents[1] / "golden"


class TestMemoryRecord(RecordConformance):
    @pytest.fixture
    def record(self):
        return MemoryRecord()


class TestSqliteRecord(RecordConformance, SharedRecordConformance):
    @pytest.fixture
    def url(self, tmp_path):
        return f"sqlite:///{tmp_path}/record.db"

    @pytest.fixture
    def record(self, url):
        with SqlRecord(url) as record:
            yield record


@pytest.fixture
def path(tmp_path):
    """A file that holds one decision, a, and its outcome."""
    path = tmp_path / "record.db"
    with SqlRecord(f"sqlite:///{path}") as record:
        record.append(sample_decision("a"), sample_outcome("a"))
    return path


def sql(path: Path, *statements: str) -> None:
    """Do to the file what a stranger could."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


ids = st.sampled_from(["a", "b", "c", "d"])
scopes = st.sampled_from([HERE, HERE, HERE, ELSEWHERE])
floats = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def decisions(draw):
    """Decisions of few ids, so that they collide; some contexts are not finite."""
    weights = draw(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=5))
    probabilities = np.array(weights) / sum(weights)
    action = draw(st.integers(0, len(weights) - 1))
    return sample_decision(
        draw(ids),
        scope=draw(scopes),
        time=draw(floats),
        context=np.array(draw(st.lists(st.floats(width=32), max_size=4)), np.float32),
        arms=tuple(f"arm{i}" for i in range(len(weights))),
        excluded=draw(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)),
        probabilities=probabilities,
        action=action,
        propensity=float(probabilities[action]),
        price=draw(floats),
    )


outcomes = st.builds(
    sample_outcome,
    ids,
    scope=scopes,
    time=floats,
    quality=st.none() | st.floats(0.0, 1.0),
    cost_usd=st.floats(0.0, 1e9),
    vote=st.sampled_from([None, -1, 1]),
    source=st.text(max_size=3),
)


def appended(record, batch):
    """What the record answers: a position, or the error's name and text."""
    try:
        return record.append(*batch)
    except PilotageError as error:
        return type(error).__name__, str(error)


@settings(max_examples=15, deadline=None)
@given(batches=st.lists(st.lists(decisions() | outcomes, max_size=4), max_size=6))
def test_sql_and_memory_answer_alike_to_any_batches(tmp_path_factory, batches):
    """The list is the model: same positions, same refusals in the same words, same rows to the last bit."""
    memory = MemoryRecord()
    with SqlRecord(f"sqlite:///{tmp_path_factory.mktemp('law')}/record.db") as stored:
        for batch in batches:
            assert appended(stored, batch) == appended(memory, batch)
        assert stored.head() == memory.head()
        assert [(p, plain(e)) for p, e in stored.read()] == [(p, plain(e)) for p, e in memory.read()]


def test_an_acknowledged_row_survives_closing(path):
    """A second opening finds the rows of the first, and goes on counting."""
    with SqlRecord(f"sqlite:///{path}") as record:
        assert [plain(entry) for _, entry in record.read()] == [plain(sample_decision("a")), plain(sample_outcome("a"))]
        assert record.append(sample_decision("b")) == 3


def test_commits_are_flushed_to_disk(path):
    """WAL with synchronous=FULL: an acknowledgement means that the row is on the disk."""
    with Sqlite(sa.make_url(f"sqlite:///{path}"), 1.0).writing.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_the_folder_of_a_new_record_is_made(tmp_path):
    """`$PILOTAGE_HOME` need not exist before."""
    with SqlRecord(f"sqlite:///{tmp_path}/new/home/record.db") as record:
        assert record.append(sample_decision()) == 1


def test_outcomes_by_decision_use_the_index(path):
    """Nobody scans the whole record for one decision."""
    connection = sqlite3.connect(path)
    plan = connection.execute(
        "EXPLAIN QUERY PLAN SELECT * FROM outcomes WHERE decision_id = 'a' ORDER BY position"
    ).fetchall()
    connection.close()
    assert len(plan) == 1
    assert "USING INDEX outcomes_by_decision" in plan[0][-1]


def test_a_record_locked_by_another_says_so_and_works_afterwards(path):
    """A stranger's open transaction: the append gives up, writes nothing, and the next one succeeds."""
    with SqlRecord(f"sqlite:///{path}", busy_s=0.05) as record:
        stranger = sqlite3.connect(path, isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(RecordError, match=r"database is locked.*no other process"):
            record.append(sample_decision("b"))
        assert record.head() == 2  # reading goes on meanwhile
        stranger.execute("ROLLBACK")
        stranger.close()
        assert record.append(sample_decision("b")) == 3


@contextmanager
def held(path):
    """Another program holds the file: what is appended meanwhile waits in the queue."""
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    yield
    stranger.execute("ROLLBACK")
    stranger.close()


def until(condition):
    """Wait for what must come; pytest's own limit ends it if it does not."""
    while not condition():
        time.sleep(0.001)


def test_callers_who_wait_are_written_together():
    """While the first group is being written, 31 come; they are the second group, in one commit."""
    go, groups = threading.Event(), []

    def commit(group):
        go.wait()
        groups.append(len(group))
        return [int(batch) for batch in group]

    writer, answers = GroupWriter(commit), {}
    threads = [threading.Thread(target=lambda: answers.update({1: writer.write("1")}))]
    threads[0].start()
    until(lambda: writer.waiting == 0 and writer.started)
    threads += [threading.Thread(target=lambda i=i: answers.update({i: writer.write(str(i))})) for i in range(2, 33)]
    for thread in threads[1:]:
        thread.start()
    until(lambda: writer.waiting == 31)
    go.set()
    for thread in threads:
        thread.join()
    writer.close()
    assert groups == [1, 31]
    assert answers == {i: i for i in range(1, 33)}


def test_a_commit_that_breaks_is_told_to_its_group_and_the_next_goes_on():
    """Whatever broke, a caller hears a RecordError with the cause, and the writer lives."""
    full = [OSError("no space left")]

    def commit(group):
        if full:
            raise full.pop()
        return [7 for _ in group]

    writer = GroupWriter(commit)
    with pytest.raises(RecordError, match="no space left") as refused:
        writer.write("a")
    assert isinstance(refused.value.__cause__, OSError)
    assert writer.write("b") == 7
    writer.close()


def test_a_locked_file_is_told_to_everyone_who_waited(path):
    """Twelve callers, good and bad, of a file that another holds: twelve errors, each its own, nothing written."""
    heard = []
    with SqlRecord(f"sqlite:///{path}", busy_s=0.05) as record:

        def work(name):
            with pytest.raises(RecordError, match="database is locked") as refused:
                record.append(sample_decision(name))
            heard.append(refused.value)

        with held(path):
            at_once(work, ["a", *map(str, range(11))])  # a is in the record: but who could know that now?
        assert len({id(error) for error in heard}) == 12
        assert record.append(sample_decision("b")) == 3


def test_closing_writes_what_waits(path):
    """Callers who wait when the record is closed are written and answered; who comes later is told to open it."""
    record, answers = SqlRecord(f"sqlite:///{path}"), {}
    callers = [
        threading.Thread(target=lambda i=i: answers.update({i: record.append(sample_outcome("a"))})) for i in range(8)
    ]
    closing = threading.Thread(target=record.close)
    with held(path):
        callers[0].start()
        until(lambda: record._writer.started and record._writer.waiting == 0)  # it waits for the file
        for caller in callers[1:]:
            caller.start()
        until(lambda: record._writer.waiting == 7)
        closing.start()
        until(lambda: record._writer.closed)
    for thread in (*callers, closing):
        thread.join()
    with pytest.raises(RecordError, match=r"open to append.*open it anew"):
        record.append(sample_outcome("a"))
    record.close()  # twice is once
    assert sorted(answers.values()) == list(range(3, 11))
    assert record.head() == 10


def test_the_writer_thread_starts_with_the_first_append_and_ends_with_the_record(path):
    """Who only reads pays for no thread, and nobody leaves one behind."""

    def writers():
        return [thread for thread in threading.enumerate() if thread.name == "record-writer"]

    before = len(writers())
    with SqlRecord(f"sqlite:///{path}") as record:
        record.read()
        assert len(writers()) == before
        record.append(sample_outcome("a"))
        assert len(writers()) == before + 1
    assert len(writers()) == before


@pytest.mark.parametrize("table", ["decisions", "outcomes"])
@pytest.mark.parametrize("change", ["UPDATE {} SET time = 0", "DELETE FROM {}"])
def test_the_file_refuses_to_change_history(path, table, change):
    """Even by hand, rows are only appended."""
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        sql(path, change.format(table))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("UPDATE decisions SET probabilities = zeroblob(32)", "sum to"),
        ("UPDATE decisions SET context = x'0000c07f'", "finite"),
        ("UPDATE decisions SET context = x'00'", "buffer"),
        ("UPDATE decisions SET arms = '[1'", "Expecting"),
        ("UPDATE decisions SET slot = 'first'", "Slot"),
        ("UPDATE decisions SET tenant = 'ACME'", "tenant"),
    ],
)
def test_a_damaged_row_is_named_and_the_rest_stays_readable(path, damage, reason):
    """Position and reason are in the error; reading on behind it works."""
    sql(path, "DROP TRIGGER decisions_no_update", damage)
    with SqlRecord(f"sqlite:///{path}") as record:
        record.append(sample_decision("b"))
        with pytest.raises(UnreadableRowError, match=reason) as refused:
            record.read()
        assert refused.value.position == 1
        assert [position for position, _ in record.read(1)] == [2, 3]


def test_the_first_of_several_damaged_rows_is_the_one_named(path):
    """An outcome at 2 before a decision at 3, though decisions are read first."""
    with SqlRecord(f"sqlite:///{path}") as record:
        record.append(sample_decision("b"))
        sql(path, "DROP TRIGGER decisions_no_update", "UPDATE decisions SET slot = 'first' WHERE position = 3")
        sql(path, "DROP TRIGGER outcomes_no_update", "UPDATE outcomes SET vote = 5")
        with pytest.raises(UnreadableRowError) as refused:
            record.read()
        assert refused.value.position == 2


def test_a_file_that_is_no_database_is_refused_untouched(tmp_path):
    """A wrong path is an error, not an overwritten file."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look at" * 100)
    with pytest.raises(RecordError, match="file is not a database"):
        SqlRecord(f"sqlite:///{path}")
    assert path.read_text().startswith("not a database")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        ("UPDATE meta SET value = '4'", "must have version 3 or an older one, but .* has '4'.*newer"),
        ("UPDATE meta SET value = 'x'", "must have version 3 or an older one, but .* has 'x'"),
        ("DELETE FROM meta", "must have version 3 or an older one, but .* has None"),
        ("DROP TABLE meta", "belongs to another program"),
    ],
)
def test_a_file_of_another_version_or_program_is_refused(path, tamper, message):
    """The error says what was found and what to do."""
    sql(path, tamper)
    with pytest.raises(RecordError, match=message):
        SqlRecord(f"sqlite:///{path}")


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "record.db", "", "mysql://host/db", "sqlite:///{tmp}", "sqlite:///{tmp}/f/r"],
)
def test_a_url_that_is_no_file_is_refused(tmp_path, url):
    """A database in memory would forget; a folder, or a file where the folder should be, cannot hold it."""
    (tmp_path / "f").touch()
    with pytest.raises(RecordError, match="record"):
        SqlRecord(url.format(tmp=tmp_path))


UNMEASURED = {"input_tokens": None, "output_tokens": None, "first_token_s": None}
LATER = {"decision": {"conversation": ""}, "outcome": {"arm": "", "result": "", **UNMEASURED}}
ADDED = {
    1: {"decision": {"user": "", "seen": 0, **LATER["decision"]}, "outcome": {"key": "", **LATER["outcome"]}},
    2: LATER,
    3: {"decision": {}, "outcome": {}},
}


@pytest.mark.parametrize("version", ADDED)
def test_a_record_of_any_version_still_reads_as_it_was_written(tmp_path, version):
    """The golden files, made by golden/make_record.py; what a version did not know has its neutral value."""
    shutil.copy(GOLDEN / f"record-{version}.db", tmp_path / "record.db")
    written = json.loads((GOLDEN / f"record-{version}.json").read_text(encoding="utf-8"))
    expected = [entry | ADDED[version][entry["kind"]] for entry in written]
    with SqlRecord(f"sqlite:///{tmp_path}/record.db"):
        pass  # a second opening finds the tables as the first left them
    with SqlRecord(f"sqlite:///{tmp_path}/record.db") as record:
        found = [{"position": position, **plain(entry)} for position, entry in record.read()]
        assert found == expected
        assert record.append(sample_decision("new"), sample_outcome("new")) == len(expected) + 2
