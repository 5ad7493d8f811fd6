"""Facts about the warehouse: a view of the record that loads exactly once, reads back equal, and can be deleted."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import numpy as np
import pytest

from bandits.errors import WarehouseError
from bandits.record.memory import MemoryRecord
from bandits.record.sql import SqlRecord
from bandits.rewards import feedback
from bandits.testing.ports import HERE, sample_decision, sample_outcome
from bandits.warehouse import loading as warehouse
from bandits.warehouse.loading import Loaded, load, opened, read_feedback, read_runs, write_run
from tests.logs import same, sampled_domain

GOLDEN = Path(__file__).parents[1] / "golden"
NOW = 1_790_000_500.0
RUN = {"id": "run-1", "scope": "acme/main/model_routing", "time": 7.5, "verdict": "hold", "report": {"n": [1, None]}}


CONFIG = sampled_domain("small", "middle", "large", "broken")


def filled(record, count=10):
    """The record with `count` decisions, an outcome after each."""
    for i in range(count):
        record.append(sample_decision(f"d{i}", forced=False, time=NOW - i), sample_outcome(f"d{i}", time=NOW + i))
    return record


def tables(path):
    """All that the warehouse derives from the record."""
    with opened(path) as connection:
        names = ("decisions", "outcomes", "quarantine", "meta")
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY position").fetchall() for name in names}


@pytest.fixture
def path(tmp_path):
    """Where the warehouse will be."""
    return tmp_path / "warehouse.duckdb"


@pytest.fixture
def loaded(path):
    """A warehouse of ten decisions and ten outcomes."""
    load(filled(MemoryRecord()), path)
    return path


class TestLoad:
    def test_a_row_comes_out_as_it_went_in(self, path):
        """Every column of a decision and of an outcome, arrays to the last bit, what is missing as NULL."""
        record, decision = MemoryRecord(), sample_decision("a")
        record.append(decision, sample_outcome("a", quality=0.1, vote=-1, key="vote-7"))
        assert load(record, path) == Loaded(rows=2, quarantined=0, position=2)
        with opened(path) as connection:
            names = [column[0] for column in connection.execute("SELECT * FROM decisions").description]
            row = dict(zip(names, connection.execute("SELECT * FROM decisions").fetchall()[0], strict=True))
            (outcome,) = connection.execute("SELECT * FROM outcomes").fetchall()
        assert np.array(row.pop("context"), np.float32).tobytes() == decision.context.tobytes()
        assert np.array(row.pop("probabilities")).tobytes() == decision.probabilities.tobytes()
        assert row == {
            "position": 1,
            "id": "a",
            "time": 1_790_000_000.123456,
            "tenant": "acme",
            "workspace": "main",
            "domain": "model_routing",
            "schema": "text-1",
            "arms": ["small", "middle", "large", "broken"],
            "excluded": {"broken": "quarantined: “no answer” since 3 h"},
            "action": 1,
            "arm": "middle",
            "propensity": 0.2,
            "policy": "ridge-7",
            "slot": "canary",
            "price": 12.7,
            "pressure": 0.9,
            "forced": True,
            "user": "u-5f3a",
            "seen": 2**40,
            "conversation": "c-7e1b",
        }
        scope = ("acme", "main", "model_routing")
        answered = ("", "stop", 2**40, 7, 0.25)
        assert outcome == (2, "a", 1_790_000_001.2, *scope, 0.1, 1e-5, None, -1, "é", "vote-7", *answered, 1)

    @pytest.mark.parametrize("batch", [1, 3, 1000])
    def test_batches_of_any_size_give_the_same_tables(self, loaded, tmp_path, batch):
        """The size of a transaction cannot be seen in the result."""
        other = tmp_path / "other.duckdb"
        assert load(filled(MemoryRecord()), other, batch=batch) == Loaded(20, 0, 20)
        assert tables(other) == tables(loaded)

    def test_a_second_load_brings_only_what_is_new(self, path):
        """Nothing twice, nothing lost, whenever one loads."""
        record = filled(MemoryRecord(), 3)
        assert load(record, path) == Loaded(6, 0, 6)
        assert load(record, path) == Loaded(0, 0, 6)
        record.append(sample_outcome("d1", time=NOW + 99))
        assert load(record, path) == Loaded(1, 0, 7)
        assert [row[0] for row in tables(path)["outcomes"]] == [2, 4, 6, 7]

    def test_deleting_the_file_and_loading_again_gives_equal_tables(self, loaded):
        """The warehouse is a view: nothing in it is only there."""
        before = tables(loaded)
        loaded.unlink()
        assert load(filled(MemoryRecord()), loaded) == Loaded(20, 0, 20)
        assert tables(loaded) == before

    def test_rows_and_watermark_are_one_transaction(self, path):
        """A load that fails at its watermark leaves no row behind; the next one brings each of them once."""
        record = filled(MemoryRecord(), 3)
        load(record, path)
        remake = "CREATE OR REPLACE TABLE meta (version INTEGER, position BIGINT CHECK (position < {})); "
        remake += "INSERT INTO meta VALUES (3, 6)"
        with duckdb.connect(str(path)) as connection:
            connection.execute(remake.format(8))
        before = tables(path)
        record.append(sample_decision("new"), sample_outcome("new"))
        with pytest.raises(WarehouseError, match="CHECK constraint"):
            load(record, path)
        assert tables(path) == before
        with duckdb.connect(str(path)) as connection:
            connection.execute(remake.format(9))
        assert load(record, path) == Loaded(2, 0, 8)
        assert [row[0] for row in tables(path)["decisions"]] == [1, 3, 5, 7]

    def test_an_empty_record_gives_an_empty_warehouse(self, path):
        """Which reads as an empty log."""
        assert load(MemoryRecord(), path) == Loaded(0, 0, 0)
        assert same(read_feedback(path, HERE, CONFIG, NOW), feedback([], HERE, CONFIG, NOW))

    def test_a_load_that_was_killed_is_continued_exactly_once(self, tmp_path, path):
        """kill -9 between two transactions, or in one: the next load leaves the tables of an undisturbed one."""
        url = f"sqlite:///{tmp_path}/record.db"
        with filled(SqlRecord(url), 15) as record:
            loader = (
                "import sys\n"
                "from pathlib import Path\n"
                "from bandits.record.sql import SqlRecord\n"
                "from bandits.warehouse.loading import load\n"
                "class Told(SqlRecord):\n"
                "    def read(self, after=0, limit=10_000):\n"
                "        print(after, flush=True)\n"
                "        return super().read(after, limit)\n"
                "load(Told(sys.argv[1]), Path(sys.argv[2]), batch=1)\n"
            )
            child = subprocess.Popen([sys.executable, "-c", loader, url, str(path)], stdout=-1, text=True)
            for _ in range(10):
                child.stdout.readline()
            child.kill()
            child.communicate()
            with opened(path) as connection:
                (reached,) = connection.execute("SELECT position FROM meta").fetchall()[0]
            assert reached >= 8
            assert load(record, path) == Loaded(30 - reached, 0, 30)
            load(record, tmp_path / "undisturbed.duckdb")
        assert tables(path) == tables(tmp_path / "undisturbed.duckdb")

    def test_a_warehouse_of_another_record_is_refused(self, loaded):
        """A shorter record, or one whose row at that position is another (as after an erasure), is not mixed in."""
        shifted = MemoryRecord()
        shifted.append(sample_decision("zero"))
        for record in (MemoryRecord(), filled(MemoryRecord(), 9), filled(shifted, 11)):
            with pytest.raises(WarehouseError, match=r"must be of this record.*delete it and run `pilotage load`"):
                load(record, loaded)
        assert len(tables(loaded)["decisions"]) == 10

    def test_threads_that_load_at_once_bring_each_row_once(self, path):
        """They wait for each other; the second finds nothing left to do."""
        record, answers = filled(MemoryRecord()), []
        threads = [threading.Thread(target=lambda: answers.append(load(record, path, batch=2))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [Loaded(0, 0, 20), Loaded(0, 0, 20), Loaded(20, 0, 20)]
        assert len(tables(path)["decisions"]) == 10


class TestQuarantine:
    @pytest.fixture
    def damaged(self, tmp_path):
        """A record of 20 rows, of which the decisions at 3 and 5 and the outcome at 20 do not read back."""
        file = tmp_path / "record.db"
        with filled(SqlRecord(f"sqlite:///{file}")) as record:
            connection = sqlite3.connect(file)
            connection.execute("DROP TRIGGER decisions_no_update")
            connection.execute("DROP TRIGGER outcomes_no_update")
            connection.execute("UPDATE decisions SET probabilities = zeroblob(32) WHERE position IN (3, 5)")
            connection.execute("UPDATE outcomes SET quality = 7 WHERE position = 20")
            connection.commit()
            connection.close()
            yield record

    @pytest.mark.parametrize("batch", [1, 3, 1000])
    def test_a_bad_row_is_set_aside_with_its_reason_and_the_rest_goes_on(self, damaged, path, batch):
        """Counted, positioned, explained; the watermark passes it, and the next load does not bring it again."""
        assert load(damaged, path, batch=batch) == Loaded(rows=17, quarantined=3, position=20)
        found = tables(path)
        assert [position for position, _ in found["quarantine"]] == [3, 5, 20]
        assert "sum to 1" in found["quarantine"][0][1]
        assert "quality must be in [0, 1], but got 7.0" in found["quarantine"][2][1]
        assert [row[0] for row in found["decisions"]] == [1, 7, 9, 11, 13, 15, 17, 19]
        assert load(damaged, path, batch=batch) == Loaded(0, 0, 20)

    def test_a_shorter_record_is_refused_though_the_last_row_is_in_quarantine(self, damaged, path):
        """There is no row to compare with, but the record cannot have shrunk."""
        load(damaged, path)
        with pytest.raises(WarehouseError, match="must be of this record"):
            load(filled(MemoryRecord(), 9), path)

    def test_feedback_is_read_from_the_good_rows(self, damaged, path):
        """d1 and d2 are gone; d9 lost its outcome and is missing."""
        load(damaged, path)
        log = read_feedback(path, HERE, CONFIG, NOW)
        assert (log.ids, log.missing, log.position) == (("d0", "d3", "d4", "d5", "d6", "d7", "d8"), 1, 20)


class TestRuns:
    def test_a_run_is_found_by_its_id_with_its_report(self, loaded):
        """As it was written, the report as JSON says it."""
        write_run(loaded, RUN)
        assert read_runs(loaded) == [RUN]

    def test_runs_come_oldest_first_and_by_scope(self, loaded):
        """A scope sees its own only."""
        earlier = RUN | {"id": "run-0", "time": 1.0}
        foreign = RUN | {"id": "run-2", "time": 3.0, "scope": "rival/main/model_routing"}
        for run in (RUN, foreign, earlier):
            write_run(loaded, run)
        assert [run["id"] for run in read_runs(loaded)] == ["run-0", "run-2", "run-1"]
        assert [run["id"] for run in read_runs(loaded, HERE)] == ["run-0", "run-1"]

    def test_writing_a_run_again_replaces_it(self, loaded):
        """A night that is resumed reports once."""
        write_run(loaded, RUN)
        write_run(loaded, RUN | {"verdict": "pass"})
        assert [run["verdict"] for run in read_runs(loaded)] == ["pass"]

    @pytest.mark.parametrize(
        "bad", [{"id": "x"}, RUN | {"report": {"n": float("nan")}}, RUN | {"report": {1j}}, RUN | {"scope": "acme"}]
    )
    def test_a_run_that_lacks_something_is_refused(self, path, bad):
        """Before anything is opened."""
        with pytest.raises(WarehouseError, match="a run must have id, scope, time, verdict"):
            write_run(path, bad)
        assert not path.exists()


class TestBadFiles:
    def test_a_missing_file_says_to_load(self, path):
        """And reading does not make one."""
        with pytest.raises(WarehouseError, match=r"must exist, but there is no .*; run `pilotage load`"):
            read_feedback(path, HERE, CONFIG, NOW)
        assert not path.exists()

    def test_a_file_held_by_another_process_is_waited_for_then_named(self, loaded):
        """Readers and the loader say who holds it; once it is free they work."""
        hold = f"import duckdb\nheld = duckdb.connect({str(loaded)!r})\nprint('held', flush=True)\ninput()\n"
        child = subprocess.Popen([sys.executable, "-c", hold], stdin=-1, stdout=-1, text=True)
        assert child.stdout.readline() == "held\n"
        with pytest.raises(WarehouseError, match=rf"process {child.pid}; wait until it is done"):
            read_feedback(loaded, HERE, CONFIG, NOW, patience_s=0.1)
        with pytest.raises(WarehouseError, match=rf"process {child.pid}; wait until it is done"):
            load(filled(MemoryRecord()), loaded, patience_s=0.0)
        threading.Timer(0.1, child.communicate, ["go on\n"]).start()  # lets go while the next call waits
        assert load(filled(MemoryRecord()), loaded, patience_s=60.0) == Loaded(0, 0, 20)
        child.wait()

    def test_a_file_held_by_another_thread_is_waited_for_then_said(self, loaded):
        """A reader in this process keeps the loader out, not other readers."""
        with opened(loaded) as _:
            assert len(read_feedback(loaded, HERE, CONFIG, NOW)) == 10
            with pytest.raises(WarehouseError, match="another thread of this process"):
                load(filled(MemoryRecord()), loaded, patience_s=0.0)
        assert load(filled(MemoryRecord()), loaded, patience_s=0.0) == Loaded(0, 0, 20)

    @pytest.mark.parametrize("damage", ["garbage", "empty", "cut", "flipped"])
    def test_a_corrupt_file_says_that_it_can_be_deleted_and_rebuilt(self, loaded, damage):
        """For readers and for the loader alike; and what it says to do works."""
        before, good = tables(loaded), loaded.read_bytes()
        bad = {
            "garbage": b"not a database" * 500,
            "empty": b"",
            "cut": good[: len(good) // 2],
            "flipped": good[:12_400] + bytes(255 - byte for byte in good[12_400:12_500]) + good[12_500:],
        }[damage]
        loaded.write_bytes(bad)
        with pytest.raises(WarehouseError, match=r"delete it, run `pilotage load`.*rebuilt"):
            read_feedback(loaded, HERE, CONFIG, NOW)
        with pytest.raises(WarehouseError, match=r"delete it, run `pilotage load`.*rebuilt"):
            load(filled(MemoryRecord()), loaded)
        loaded.unlink()
        load(filled(MemoryRecord()), loaded)
        assert tables(loaded) == before

    @pytest.mark.parametrize("tamper", ["UPDATE meta SET version = 4", "DELETE FROM meta", "DROP TABLE meta"])
    def test_another_version_or_program_says_what_to_do(self, loaded, tamper):
        """Nothing is changed in a file that is not understood."""
        with duckdb.connect(str(loaded)) as connection:
            connection.execute(tamper)
        for use in (lambda: read_runs(loaded), lambda: load(MemoryRecord(), loaded)):
            with pytest.raises(WarehouseError, match=r"must have version 3, but .*delete it and run `pilotage load`"):
                use()

    def test_a_query_that_is_wrong_is_not_called_a_corrupt_file(self, loaded):
        """Who writes bad SQL sees DuckDB's own words."""
        with pytest.raises(duckdb.CatalogException), opened(loaded) as connection:
            connection.execute("SELECT * FROM nothing")

    def test_a_query_cannot_reach_other_files(self, loaded, tmp_path):
        """External access is off: the warehouse is no way into the file system."""
        with opened(loaded) as connection, pytest.raises(duckdb.PermissionException):
            connection.execute("COPY decisions TO ?", [str(tmp_path / "copy.csv")])

    def test_a_warehouse_of_version_3_still_opens(self, tmp_path, path):
        """The golden file, made by golden/make_record.py: its tables are those of the golden record, loaded today."""
        path.write_bytes(gzip.decompress((GOLDEN / "warehouse-3.duckdb.gz").read_bytes()))
        shutil.copy(GOLDEN / "record-3.db", tmp_path / "record.db")
        with SqlRecord(f"sqlite:///{tmp_path}/record.db") as record:
            load(record, tmp_path / "new.duckdb")
            assert load(record, path) == Loaded(0, 0, 8)
        assert tables(path) == tables(tmp_path / "new.duckdb")
        assert [run["id"] for run in read_runs(path)] == ["run-1"]
        assert warehouse.VERSION == 3

    @pytest.mark.parametrize("version", [1, 2])
    def test_an_older_warehouse_is_made_anew_and_keeps_its_runs(self, tmp_path, path, version):
        """Readers say what to do; the next load does it: all that the record holds, and the runs that it does not."""
        path.write_bytes(gzip.decompress((GOLDEN / f"warehouse-{version}.duckdb.gz").read_bytes()))
        shutil.copy(GOLDEN / "record-2.db", tmp_path / "record.db")
        with pytest.raises(WarehouseError, match=rf"version {version}, of an older Pilotage; run `pilotage load`"):
            read_runs(path)
        with SqlRecord(f"sqlite:///{tmp_path}/record.db") as record:
            load(record, tmp_path / "new.duckdb")
            assert load(record, path) == Loaded(7, 0, 7)
            assert load(record, path) == Loaded(0, 0, 7)
        assert tables(path) == tables(tmp_path / "new.duckdb")
        assert [run["id"] for run in read_runs(path)] == ["run-1"]
