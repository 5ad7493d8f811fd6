"""Facts about the record under SIGKILL, torn logs and load, and about the benchmarks that show them."""

from __future__ import annotations

import hashlib
import json

import pytest

from bandits.record.memory import MemoryRecord
from bandits.record.sql import SqlRecord
from bandits.testing.ports import sample_decision, sample_outcome
from benchmarks import durability, record


def run(main, capsys, *options):
    """Rows and summary of a benchmark."""
    main([str(option) for option in options])
    *rows, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert summary["summary"] is True
    return rows, summary


def lasting(capsys, tmp_path, cycles, step, acknowledged=0):
    """The cycles lost and doubled nothing, and the sums are those of the rows. How quick it was is not judged here."""
    options = ("--cycles", cycles, "--acknowledged", acknowledged, "--step", step, "--seed", cycles, "--out", tmp_path)
    rows, summary = run(durability.main, capsys, *options)
    assert [row["cycle"] for row in rows] == list(range(summary["cycles"]))
    assert len(rows) >= cycles
    assert summary["acknowledged"] >= acknowledged
    assert all(row["acknowledged"] > 0 and row["gapless"] for row in rows)
    assert all(row["acknowledged"] >= durability.PROCESSES and "restart_s" in row for row in rows[:: durability.FRESH])
    assert summary["acknowledged"] == sum(row["acknowledged"] for row in rows)
    assert (summary["lost"], summary["duplicated"], summary["gapless"], summary["unchanged"]) == (0, 0, True, True)
    assert summary["truncation_ok"]
    assert summary["truncations"] == -(-durability.TAIL // step) + 1
    assert list(tmp_path.iterdir()) == []


def test_killed_writers_lose_nothing_that_was_acknowledged(capsys, tmp_path):
    """Twenty times in mid-load, two processes of sixteen threads; and a log torn anywhere holds a prefix."""
    lasting(capsys, tmp_path, 20, 1021)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_writers_lose_nothing_over_a_thousand_cycles(capsys, tmp_path):
    """A thousand times and half a million rows, and the log cut at every byte of its last 64 KiB."""
    lasting(capsys, tmp_path, 1000, 1, acknowledged=500_000)


def seen(head=0):
    return durability.Seen(head, hashlib.sha256())


def test_a_lost_a_moved_and_a_doubled_row_are_found():
    """The check itself, on a record that is not what was acknowledged."""
    store = MemoryRecord()
    store.append(sample_decision("a"), sample_outcome("a", source="x"), sample_outcome("a", source="x"))

    assert durability.check(store, {"a": 1, "x": 3}, seen()) == {
        "acknowledged": 2,
        "lost": 0,
        "duplicated": 1,
        "unacknowledged": 0,
        "gapless": True,
    }
    assert durability.check(store, {"a": 2, "gone": 4}, seen())["lost"] == 2
    assert not durability.check(store, {}, seen(head=7))["gapless"]


def test_a_record_that_changed_behind_the_cycles_is_found():
    """The last reading must say what the readings after each kill said together."""
    store, other, so_far = MemoryRecord(), MemoryRecord(), seen()
    for i in range(2):
        store.append(sample_decision(f"a{i}"))
        durability.check(store, {}, so_far)
        other.append(sample_decision(f"b{i}"))

    assert durability.same(store, so_far)
    assert not durability.same(other, so_far)
    store.append(sample_decision("late"))
    assert not durability.same(store, so_far)


def test_an_invented_row_and_a_ruined_database_are_found(tmp_path):
    """The check of torn copies, on copies that are not what was appended."""
    copy, names = durability.living(tmp_path)
    size = copy.with_name("copy.db-wal").stat().st_size

    assert durability.torn(copy, names, [size, 0]) == [len(names), 16]
    assert durability.torn(copy, ["other", *names[1:]], [size]) == [-1]
    assert durability.torn(copy, names[:-1], [size]) == [-1]
    copy.write_bytes(b"no database" * 1000)
    assert durability.torn(copy, names, [0]) == [-1]


def test_a_small_run_of_the_record_prints_rows_and_a_summary(capsys, tmp_path):
    """Acknowledged is what is in the record, for one process and for two."""
    rows, summary = run(record.main, capsys, "--callers", 3, "--processes", 1, 2, "--seconds", 0.3, "--out", tmp_path)

    assert [(row["backend"], row["callers"], row["processes"]) for row in rows] == [("sqlite", 3, 1), ("sqlite", 3, 2)]
    for row in rows:
        assert row["missing"] == 0
        assert row["acknowledged"] > 0
        assert 0.0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert summary["by_processes"].keys() == {"sqlite_1", "sqlite_2"}
    assert list(tmp_path.iterdir()) == []


def test_the_verdict_on_the_record_is_that_of_one_process_and_of_every_row():
    """Too slow, too late or a row missing: not met. Many processes are reported, not judged."""
    row = {"backend": "sqlite", "processes": 1, "per_s": 10_000.0, "p50_ms": 5.0, "p99_ms": 19.9, "missing": 0}
    many = row | {"processes": 4, "per_s": 100.0, "p99_ms": 900.0}

    assert record.verdict([row, many])["met"]
    for change in ({"per_s": 9_999.0}, {"p99_ms": 20.0}, {"missing": 1}):
        assert not record.verdict([row | change, many])["met"]
    assert not record.verdict([row, many | {"missing": 1}])["met"]
    assert not record.verdict([many])["met"]
    server = row | {"backend": "postgresql", "p99_ms": 30.0}  # its wait is reported, its rate is judged
    assert record.verdict([row, server])["met"]
    assert not record.verdict([row, server | {"per_s": 9_999.0}])["met"]


@pytest.mark.parametrize(
    ("main", "options", "message"),
    [
        (record.main, ["--backend", "mysql"], "invalid choice"),
        (record.main, ["--callers", "0"], "must be positive"),
        (record.main, ["--seconds", "nan"], "must be positive"),
        (durability.main, ["--cycles", "0"], "must be positive"),
        (durability.main, ["--cycles", "many"], "invalid int"),
        (durability.main, ["--seed", "-1"], "not negative"),
        (durability.main, ["--acknowledged", "-1"], "not negative"),
    ],
)
def test_bad_options_end_with_a_usage_error(main, options, message, capsys):
    """Before anything is measured."""
    with pytest.raises(SystemExit) as ended:
        main(options)

    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_work_of_the_cycles_is_accepted_by_a_record(tmp_path):
    """Three batches a round: four rows, of two decisions and their outcomes."""
    batches = durability.work(record.sample(), "x")
    with SqlRecord(f"sqlite:///{tmp_path}/record.db") as store:
        assert [store.append(*next(batches)) for _ in range(6)] == [1, 2, 4, 5, 6, 8]
