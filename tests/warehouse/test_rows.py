"""Facts about bringing rows in by columns: it takes exactly what row by row would take, and shares the file fairly."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from bandits.errors import WarehouseError
from bandits.record.columns import spans
from bandits.record.memory import MemoryRecord
from bandits.record.sql import SqlRecord
from bandits.testing.ports import ELSEWHERE, HERE, sample_decision, sample_outcome
from bandits.types import Slot
from bandits.warehouse.loading import Loaded, load, opened
from benchmarks import load as benchmark

BAD_DECISIONS = {  # what a row of the record must not hold: column -> values
    "time": [float("inf"), "soon", b"\0"],
    "tenant": ["Acme", "", "a b", b"acme"],
    "domain": ["../etc"],
    "schema": ["text\0"],
    "context": [b"\0\0\0", np.array([np.nan], "<f4").tobytes(), np.array([1, np.inf], "<f4").tobytes(), "text"],
    "arms": ['["small", "middle"]', '["a", "b", "c", "c"]', '["a", "b", "c", 4]', '{"a": 1}', "[", "[]", '["a"'],
    "excluded": ['{"broken": 4}', "[1]", "{", '{"broken": "\\ud800"}', '{"broken": "\\u0000"}'],
    "probabilities": [
        b"",
        np.array([0.1, 0.2, 0.7], "<f8").tobytes(),
        np.array([0.1, 0.2, 0.7, np.nan], "<f8").tobytes(),
        np.array([-0.1, 0.2, 0.9, 0.0], "<f8").tobytes(),
        np.array([0.1, 0.2, 0.7, 1e-6], "<f8").tobytes(),
    ],
    "action": [-1, 4, 0],
    "propensity": [0.0, 0.3, "half", float("inf")],
    "policy": ["ridge\0"],
    "slot": ["best", "Stable"],
    "price": [float("inf"), "dear"],
    "pressure": [float("-inf")],
    "user": ["\0"],
}
BAD_OUTCOMES = {
    "time": [float("inf"), "later"],
    "workspace": ["-"],
    "quality": [-0.1, 1.1, "good"],
    "cost_usd": [-1.0, float("inf")],
    "latency_s": [-1.0],
    "vote": [0, 2],
    "source": ["\0"],
    "key": ["a\0"],
}
STRANGE = {  # what looks odd and is sound
    "context": [b"", np.array([3e-39, -0.0], "<f4").tobytes()],
    "arms": ['["small","middle","large","br\\u00f6ken"]'],
    "excluded": ["{}", '{"broken":  "é", "": ""}'],
    "forced": [0],
    "seen": [0, -1],
    "user": ["", "ü"],
}
CASES = [("decisions", column, value) for column, values in BAD_DECISIONS.items() for value in values]
CASES += [("outcomes", column, value) for column, values in BAD_OUTCOMES.items() for value in values]
ODD = [("decisions", column, value) for column, values in STRANGE.items() for value in values]


class ByRows:
    """Another record, as far as columns know: read row by row."""

    def __init__(self, record):
        self.read, self.head, self.erased = record.read, record.head, record.erased


def tables(path):
    """All that the warehouse derives from the record."""
    with opened(path) as connection:
        names = ("decisions", "outcomes", "quarantine", "meta")
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY position").fetchall() for name in names}


@pytest.fixture(scope="module")
def tampered(tmp_path_factory):
    """A record of good rows in which each case was written into one: (record, position of each case)."""
    folder = tmp_path_factory.mktemp("tampered")
    with SqlRecord(f"sqlite:///{folder}/record.db") as record:
        entries, positions = [], []
        for number, (table, _, _) in enumerate(CASES + ODD):
            scope = (HERE, ELSEWHERE)[number % 2]
            entries.append(sample_decision(f"d{number}", scope=scope, slot=Slot.STABLE))
            entries.append(sample_outcome(f"d{number}", scope=scope, vote=1))
            positions.append(len(entries) - (table == "decisions"))
        record.append(*entries)
        connection = sqlite3.connect(folder / "record.db")
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        for (table, column, value), position in zip(CASES + ODD, positions, strict=True):
            connection.execute(f'UPDATE {table} SET "{column}" = ? WHERE position = ?', (value, position))
        connection.execute("UPDATE outcomes SET quality = NULL, cost_usd = NULL, vote = NULL WHERE position = 2")
        connection.execute("DELETE FROM outcomes WHERE position = 4")
        connection.commit()
        connection.close()
        yield record, positions


class TestColumns:
    @pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: "-".join(map(repr, CASES[n][:2])))
    def test_a_bad_value_is_never_taken(self, tampered, number):
        """Each alone: whichever check would miss it, no other hides that."""
        record, positions = tampered
        (span,) = spans(record, positions[number] - 1, 1)
        assert [position for position, _ in span.bad] == [positions[number]]
        assert span.rows == 0

    def test_an_odd_value_that_is_sound_is_taken(self, tampered):
        """Quarantine is for what cannot be read, not for what is rare."""
        record, positions = tampered
        for position in positions[len(CASES) :]:
            (span,) = spans(record, position - 1, 1)
            assert (span.rows, span.bad) == (1, [])

    def test_a_whole_load_is_the_same_as_one_row_by_row(self, tampered, tmp_path):
        """Every good row, every bad one with its reason, and one that vanished, in any batches."""
        record, positions = tampered
        loaded = load(ByRows(record), tmp_path / "rows.duckdb")
        assert loaded.quarantined == len(CASES) + 2
        expected = tables(tmp_path / "rows.duckdb")
        bad = dict(expected["quarantine"])
        assert set(bad) == {*positions[: len(CASES)], 2, 4}
        assert "must carry quality, cost, latency or vote" in bad[2]
        assert "holds none here" in bad[4]
        for batch in (7, 250_000):
            path = tmp_path / f"{batch}.duckdb"
            assert load(record, path, batch=batch) == loaded
            assert tables(path) == expected

    def test_a_row_that_vanished_from_among_good_ones_is_missed(self, tmp_path):
        """Its position is in quarantine, and the next load does not stumble over it."""
        with SqlRecord(f"sqlite:///{tmp_path}/record.db") as record:
            record.append(*(sample_decision(f"d{i}") for i in range(6)))
            connection = sqlite3.connect(tmp_path / "record.db")
            connection.execute("DROP TRIGGER decisions_no_delete")
            connection.execute("DELETE FROM decisions WHERE position = 3")
            connection.commit()
            connection.close()
            assert load(record, tmp_path / "w.duckdb") == Loaded(5, 1, 6)
            assert load(record, tmp_path / "w.duckdb") == Loaded(0, 0, 6)
        assert [position for position, _ in tables(tmp_path / "w.duckdb")["quarantine"]] == [3]

    def test_rows_of_a_scope_are_stored_together_and_in_order(self, tmp_path):
        """So that reading one scope skips blocks of another's, and needs no sorting."""
        record = MemoryRecord()
        for i in range(12):
            scope = (HERE, ELSEWHERE)[i % 2]
            record.append(sample_decision(f"d{i}", scope=scope), sample_outcome(f"d{i}", scope=scope))
        load(record, tmp_path / "w.duckdb", batch=12)
        with opened(tmp_path / "w.duckdb") as connection:
            stored = connection.execute("SELECT tenant, position FROM decisions_3").fetchall()
            about = connection.execute("SELECT tenant, decision, position FROM outcomes").fetchall()
        assert stored[:6] == [("acme", p) for p in (1, 5, 9)] + [("rival", p) for p in (3, 7, 11)]
        assert [row for row in stored if row[0] == "acme"] == [("acme", p) for p in range(1, 24, 4)]
        assert all(position == decision + 1 for _, decision, position in about)

    def test_an_outcome_finds_its_decision_whenever_it_comes(self, tmp_path):
        """In the same load, in a later one, after a restart; if its decision is in quarantine it finds none."""
        record = MemoryRecord()
        record.append(sample_decision("a"), sample_decision("b"))
        load(record, tmp_path / "w.duckdb")
        record.append(sample_decision("c"), sample_outcome("b"), sample_outcome("c"), sample_outcome("a"))
        load(record, tmp_path / "w.duckdb")
        with opened(tmp_path / "w.duckdb") as connection:
            found = connection.execute("SELECT position, decision FROM outcomes ORDER BY position").fetchall()
        assert found == [(4, 2), (5, 3), (6, 1)]

    def test_contexts_lie_as_arrays_of_fixed_size(self, tmp_path):
        """A table for each length, and one view over them all."""
        record = MemoryRecord()
        for i, d in enumerate((3, 5, 0, 3)):
            record.append(sample_decision(f"d{i}", context=np.arange(d, dtype=np.float32), schema=f"vector-{d}"))
        load(record, tmp_path / "w.duckdb")
        with opened(tmp_path / "w.duckdb") as connection:
            types = connection.execute(
                "SELECT table_name, data_type FROM duckdb_columns() WHERE column_name = 'context' "
                "AND table_name <> 'decisions' ORDER BY table_name"
            ).fetchall()
            contexts = connection.execute("SELECT context FROM decisions ORDER BY position").fetchall()
        assert types == [("decisions_0", "FLOAT[]"), ("decisions_3", "FLOAT[3]"), ("decisions_5", "FLOAT[5]")]
        assert [len(context) for (context,) in contexts] == [3, 5, 0, 3]


def keep_reading(path, stop, told):
    """A reader that never rests."""
    while not stop.is_set():
        with opened(path, patience_s=60.0) as connection:
            (found,) = connection.execute("SELECT position FROM meta").fetchall()[0]
            time.sleep(0.02)  # a query that takes its time
        told.value = found


class TestSharing:
    def test_readers_that_never_rest_do_not_keep_the_loader_out(self, tmp_path):
        """Three processes hold the file in turns that overlap; a writer gets its turn, and they see what it wrote."""
        path, record = tmp_path / "w.duckdb", MemoryRecord()
        record.append(sample_decision("a"))
        load(record, path)
        context = multiprocessing.get_context("spawn")
        stop, told = context.Event(), [context.Value("q", 0) for _ in range(3)]
        readers = [context.Process(target=keep_reading, args=(path, stop, each), daemon=True) for each in told]
        for reader in readers:
            reader.start()
        wait_until(lambda: all(each.value == 1 for each in told))
        for i in range(3):
            record.append(sample_decision(f"b{i}"))
            assert load(record, path, patience_s=60.0) == Loaded(1, 0, 2 + i)
        wait_until(lambda: all(each.value == 4 for each in told))
        stop.set()
        for reader in readers:
            reader.join()
        assert [reader.exitcode for reader in readers] == [0] * 3

    def test_who_waits_to_write_is_let_in_before_new_readers(self, tmp_path):
        """A reader that comes later waits behind it, and says so when its patience ends."""
        path, record = tmp_path / "w.duckdb", MemoryRecord()
        load(record, path)
        hold = (
            "import fcntl\n"
            f"turn = open({str(path) + '.turn'!r}, 'ab')\n"
            "fcntl.flock(turn, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "input()\n"
        )
        child = subprocess.Popen([sys.executable, "-c", hold], stdin=-1, stdout=-1, text=True)
        assert child.stdout.readline() == "held\n"
        for use in (lambda: load(record, path, patience_s=0.1), lambda: opened(path, patience_s=0.1).__enter__()):
            with pytest.raises(WarehouseError, match=r"others waited.*or hold w\.duckdb\.turn; wait"):
                use()
        child.kill()
        child.communicate()
        assert load(record, path) == Loaded(0, 0, 0)


class TestFullDisk:
    def test_a_disk_that_is_full_loses_nothing(self, tmp_path):
        """The load says so and ends; what it brought before stands, and with space again the next one goes on."""
        path = tmp_path / "w.duckdb"
        with SqlRecord(f"sqlite:///{tmp_path}/record.db") as record:
            record.append(*(sample_decision(f"d{i}") for i in range(100)))
            load(record, path)
            before = tables(path)
            context = np.random.default_rng(0).normal(size=(2_000, 256)).astype(np.float32)
            record.append(*(sample_decision(f"e{i}", context=context[i]) for i in range(2_000)))
            child = (
                "import resource, signal, sys\n"
                "from pathlib import Path\n"
                "from bandits.record.sql import SqlRecord\n"
                "from bandits.warehouse.loading import load\n"
                "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
                "record = SqlRecord(sys.argv[1])\n"
                "record.head()\n"
                "most = Path(sys.argv[2]).stat().st_size + 300_000\n"
                "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))\n"
                "load(record, Path(sys.argv[2]))\n"
            )
            ended = subprocess.run(
                [sys.executable, "-c", child, record.url, str(path)], capture_output=True, text=True, check=False
            )
            assert ended.returncode == 1
            assert "WarehouseError: the warehouse must be a DuckDB file that can be read and written" in ended.stderr
            assert tables(path) == before
            assert load(record, path) == Loaded(2_000, 0, 2_100)
            load(record, tmp_path / "undisturbed.duckdb")
        assert tables(path) == tables(tmp_path / "undisturbed.duckdb")


class TestBenchmark:
    def test_a_small_run_adds_up(self, capsys):
        """Every row loaded, the rebuild equal, every round read back both ways."""
        benchmark.main(["--rows", "301", "--d", "5", "--k", "3"])
        row, summary = map(json.loads, capsys.readouterr().out.splitlines())
        assert (row["rows"], row["quarantined"], row["rounds"], row["rounds_in_pieces"]) == (301, 0, 150, 150)
        assert row["rebuild_equal"] is summary["rebuild_equal"] is True
        assert summary["met"] is (row["rows_per_s"] >= benchmark.ROWS_PER_S)

    def test_a_difference_of_one_bit_is_seen(self, tmp_path):
        """The control of `rebuild_equal`: a vote, a cost, the sign of a zero."""
        digests = set()
        for number, changed in enumerate([{}, {"vote": -1}, {"cost_usd": 1e-5 + 1e-20}, {"latency_s": 0.0}]):
            record = MemoryRecord()
            record.append(sample_decision("a"), sample_outcome("a", **{"vote": 1, "latency_s": -0.0} | changed))
            load(record, tmp_path / f"{number}.duckdb")
            digests.add(benchmark.digest(tmp_path / f"{number}.duckdb"))
        assert len(digests) == 4

    @pytest.mark.parametrize("bad", [["--rows", "1"], ["--k", "1"], ["--d", "0"]])
    def test_options_that_measure_nothing_are_refused(self, bad):
        """By argparse."""
        with pytest.raises(SystemExit):
            benchmark.main(bad)


def wait_until(true):
    """Until it holds; the suite's own timeout is the end of patience."""
    while not true():
        time.sleep(0.01)
