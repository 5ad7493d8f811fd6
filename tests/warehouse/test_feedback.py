"""Facts about reading logs from the warehouse: by columns, in windows, in pieces, and equal to the fold over rows."""

from __future__ import annotations

import dataclasses
import json

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import ContextError, WarehouseError
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.rewards import feedback
from bandits.testing.ports import ELSEWHERE, HERE, sample_decision, sample_outcome
from bandits.types import JUDGE, SIGNALS, Outcome, Slot
from bandits.warehouse import feedback as warehouse_feedback
from bandits.warehouse.loading import feedback_batches, load, read_feedback
from tests.logs import same, sampled_domain

NOW = 1_790_000_500.0
DAY = 86_400.0
ARMS = ("small", "middle", "large", "broken")


CONFIG = sampled_domain(*ARMS)


def put_together(pieces):
    """What pieces of a log say, one after another."""
    some = [piece for piece in pieces if len(piece)] or pieces[:1]
    arrays = [f.name for f in dataclasses.fields(some[0]) if isinstance(getattr(some[0], f.name), np.ndarray)]
    whole = {name: np.concatenate([getattr(piece, name) for piece in some]) for name in arrays}
    ids = tuple(id_ for piece in some for id_ in piece.ids)
    users = tuple(user for piece in some for user in piece.users)
    return dataclasses.replace(some[0], **whole, ids=ids, users=users, missing=sum(piece.missing for piece in pieces))


specifications = st.fixed_dictionaries(
    {
        "aggregate": st.sampled_from(["first", "last", "mean", "sum"]),
        "window_s": st.sampled_from([500.0, 1e6]),
        "weights": st.sampled_from(
            [{}, {"cost": 0.25}, {"quality": 0.7, "cost": 0.1, "latency": 0.4}, {"quality": 0.0, "latency": 1.0}]
        ),
        "dear_usd": st.just(0.5),
        "slow_s": st.just(0.75),
        "upvote": st.just(0.875),
        "fallback": st.sampled_from(["failed", "as_served"]),
        "signals": st.sampled_from([{}, {"reask": 0.375}, {"reask": 0.25, "regenerate": 0.0}]),
    }
)


@st.composite
def histories(draw):
    """A record of up to 8 decisions with up to 32 outcomes between them, late and early, of two scopes."""
    record = MemoryRecord()
    made = []
    for i in range(draw(st.integers(0, 8))):
        arms = draw(st.sampled_from([ARMS, ("large", "small"), ("retired", "middle", "small")]))
        weights = draw(st.lists(st.floats(1e-6, 1.0), min_size=len(arms), max_size=len(arms)))
        probabilities = np.array(weights) / sum(weights)
        action = draw(st.integers(0, len(arms) - 1))
        schema = draw(st.sampled_from(["text-1", "text-1", "text-2"]))
        width = 3 if schema == "text-1" else draw(st.integers(0, 3))
        decision = sample_decision(
            f"d{i}",
            time=NOW - draw(st.floats(0, 1000)),
            scope=draw(st.sampled_from([HERE, HERE, ELSEWHERE])),
            schema=schema,
            context=np.array(draw(st.lists(st.floats(-9, 9, width=32), min_size=width, max_size=width)), np.float32),
            arms=arms,
            excluded=draw(st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2).filter(clean)),
            probabilities=probabilities,
            action=action,
            propensity=float(probabilities[action]),
            slot=draw(st.sampled_from(list(Slot))),
            forced=draw(st.sampled_from([False, False, True])),
            user=draw(st.sampled_from(["", "ann", "bo", "ü"])),
        )
        record.append(decision)
        made.append(decision)
        for _ in range(draw(st.integers(0, 4))):
            about = draw(st.sampled_from(made))
            outcome = sample_outcome(
                about.id,
                scope=about.scope,
                time=about.time + draw(st.sampled_from([-100.0, -1.0, 0.0, 1.0, 600.0])),
                quality=draw(st.none() | st.floats(0, 1)),
                cost_usd=draw(st.none() | st.floats(0, 1)),
                latency_s=draw(st.floats(0, 1)),
                vote=draw(st.sampled_from([None, -1, 1])),
                source=draw(st.sampled_from(["app", "app", "judge", *SIGNALS])),
                arm=draw(st.sampled_from(["", "", "large", JUDGE])),
                result=draw(st.sampled_from(["", "stop", "failed:timeout"])),
            )
            record.append(outcome)
    return record


def clean(texts):
    """Whether the record takes them: no NUL."""
    return "\0" not in "".join([*texts, *texts.values()])


@pytest.fixture
def path(tmp_path):
    """Where the warehouse will be."""
    return tmp_path / "warehouse.duckdb"


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    """A year of 1,370 decisions a day, an outcome 2 s after each, one after another as loads leave them."""
    path = tmp_path_factory.mktemp("year") / "warehouse.duckdb"
    record = MemoryRecord()
    record.append(sample_decision("d0", forced=False, time=0.0), sample_outcome("d0", time=2.0))
    load(record, path)
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "INSERT INTO decisions_3 BY NAME SELECT one.* REPLACE (2 * i + 1 AS position, 'd' || i AS id, "
            "i * 63.0 AS time) FROM decisions_3 AS one, range(1, 500000) AS counted(i); "
            "INSERT INTO outcomes BY NAME SELECT one.* REPLACE (2 * i + 2 AS position, 2 * i + 1 AS decision, "
            "i * 63.0 + 2.0 AS time) FROM outcomes AS one, range(1, 500000) AS counted(i); "
            "UPDATE meta SET position = 1000000"
        )
    return path


class TestReadFeedback:
    @settings(max_examples=8, deadline=None)
    @given(record=histories(), spec=specifications, batch=st.integers(9, 50), piece=st.integers(2, 9))
    def test_it_equals_the_fold_over_the_record_bit_for_bit(self, tmp_path_factory, record, spec, batch, piece):
        """Law: whatever was recorded, the warehouse reads as the record does, for each scope, whole or in pieces."""
        path = tmp_path_factory.mktemp("law") / "warehouse.duckdb"
        config_ = sampled_domain("middle", "large", "new", "small", **spec)
        load(record, path, batch=batch)
        for scope in (HERE, ELSEWHERE):
            expected = feedback(rows(record), scope, config_, NOW)
            assert same(read_feedback(path, scope, config_, NOW), expected)
            pieces = list(feedback_batches(path, scope, config_, NOW, batch=piece))
            assert max(map(len, pieces)) <= piece
            if len(expected):
                assert same(put_together(pieces), expected)
            else:
                assert [len(found) for found in pieces] == [0] * len(pieces)
                assert sum(found.missing for found in pieces) == expected.missing

    @settings(max_examples=4, deadline=None)
    @given(record=histories(), bounds=st.tuples(st.floats(NOW - 1000, NOW), st.floats(NOW - 1000, NOW)))
    def test_a_window_reads_the_decisions_in_it_and_all_that_came_back_for_them(self, tmp_path_factory, record, bounds):
        """Law: it equals the fold over the record without the decisions outside of it; the first second is inside."""
        path = tmp_path_factory.mktemp("law") / "warehouse.duckdb"
        since, until = min(bounds), max(bounds)
        load(record, path)
        inside = [row for row in rows(record) if isinstance(row.entry, Outcome) or since <= row.entry.time < until]
        expected = feedback(inside, HERE, CONFIG, NOW)
        found = read_feedback(path, HERE, CONFIG, NOW, since, until)
        assert same(dataclasses.replace(found, position=expected.position), expected)
        pieces = list(feedback_batches(path, HERE, CONFIG, NOW, since=since, until=until, batch=2))
        assert sum(map(len, pieces)) == len(expected)

    def test_it_equals_the_fold_over_many_rows(self, path):
        """More than one chunk of DuckDB's, in pieces that begin in the midst of one, for scopes that take turns."""
        record, rng = MemoryRecord(), np.random.default_rng(5)
        for i in range(4_600):
            scope = (HERE, ELSEWHERE)[i % 2]
            context = rng.normal(size=3).astype(np.float32)
            user = ("", "ann", "bo")[int(rng.integers(3))]
            record.append(sample_decision(f"d{i}", context=context, forced=i % 7 == 0, scope=scope, user=user))
            if i % 3:
                record.append(sample_outcome(f"d{i}", quality=float(rng.random()), scope=scope))
        load(record, path, batch=2_500)
        for scope in (HERE, ELSEWHERE):
            expected = feedback(rows(record), scope, CONFIG, NOW)
            assert len(expected) > 1_300
            assert same(read_feedback(path, scope, CONFIG, NOW), expected)
            assert same(put_together(list(feedback_batches(path, scope, CONFIG, NOW, batch=700))), expected)

    def test_what_is_loaded_between_two_pieces_is_not_read(self, path):
        """The file is free between pieces, a loader uses that, and the log is still of one position."""
        record = MemoryRecord()
        for i in range(6):
            record.append(sample_decision(f"d{i}", forced=False), sample_outcome(f"d{i}", quality=0.0))
        load(record, path)
        before = read_feedback(path, HERE, CONFIG, NOW)
        pieces = feedback_batches(path, HERE, CONFIG, NOW, batch=2)
        found = [next(pieces)]
        record.append(sample_outcome("d5", quality=1.0, time=NOW), sample_decision("late"), sample_outcome("late"))
        load(record, path, patience_s=0.0)
        found += pieces
        assert same(put_together(found), before)
        assert read_feedback(path, HERE, CONFIG, NOW).rewards.tolist() == [0.0] * 5 + [1.0]

    def test_an_empty_log_is_one_piece_without_rounds(self, path):
        """So that whoever asks learns the position, and how many are missing."""
        record = MemoryRecord()
        load(record, path)
        assert [len(piece) for piece in feedback_batches(path, HERE, CONFIG, NOW)] == [0]
        record.append(sample_decision("d", forced=False))
        load(record, path)
        assert [(len(p), p.missing, p.position) for p in feedback_batches(path, HERE, CONFIG, NOW)] == [(0, 1, 1)]

    def test_contexts_of_one_schema_must_have_one_length(self, path):
        """Told with a decision of each; a decision that teaches nothing does not matter."""
        record = MemoryRecord()
        record.append(sample_decision("a", forced=False), sample_outcome("a"))
        record.append(sample_decision("b", forced=False, context=np.zeros(9, np.float32)))
        load(record, path)
        log = read_feedback(path, HERE, CONFIG, NOW)
        assert (log.ids, log.missing, log.contexts.shape) == (("a",), 1, (1, 3))
        record.append(sample_outcome("b"))
        load(record, path)
        with pytest.raises(ContextError, match=r"3 in decision a and 9 in b.*new name or version"):
            read_feedback(path, HERE, CONFIG, NOW)
        with pytest.raises(ContextError, match="new name or version"):
            list(feedback_batches(path, HERE, CONFIG, NOW))

    def test_an_empty_piece_cannot_be_asked_for(self, path):
        """It would never end."""
        with pytest.raises(WarehouseError, match="a decision or more, but got 0"):
            feedback_batches(path, HERE, CONFIG, NOW, batch=0)

    def test_rows_that_are_out_of_order_are_not_read(self, path):
        """Whoever wrote into the file must not make rounds vanish from the log."""
        record = MemoryRecord()
        record.append(sample_decision("a", forced=False), sample_decision("b", forced=False))
        load(record, path)
        with duckdb.connect(str(path)) as connection:
            connection.execute("UPDATE decisions_3 SET position = 3 - position")
        with pytest.raises(WarehouseError, match=r"in order of position.*delete the warehouse"):
            read_feedback(path, HERE, CONFIG, NOW)


class TestPruning:
    """A year of decisions is not read to see a day of it."""

    @staticmethod
    def scanned(path, query, **parameters):
        """How many rows DuckDB looks at for this query."""
        mine = {"tenant": HERE.tenant, "workspace": HERE.workspace, "domain": HERE.domain, "head": 1_000_000}
        with duckdb.connect(str(path), read_only=True) as connection:
            found = connection.execute(f"EXPLAIN (ANALYZE, FORMAT json) {query}", mine | parameters).fetchall()
        left, counts = json.loads(found[0][1])["operator"], []
        while left:
            operator = left.pop()
            left += operator.get("children", [])
            counts += [operator["rows_scanned"]] if operator["type"] == "TABLE_SCAN" else []
        (count,) = counts
        return count

    @pytest.mark.parametrize(("since", "until", "most"), [(200 * DAY, 201 * DAY, 125_000), (-DAY, 366 * DAY, 500_000)])
    def test_decisions_of_a_day_are_found_without_looking_at_the_year(self, year, since, until, most):
        """At most the block of rows that holds the day; the control asks for the year, and looks at all of it."""
        asked = {"schema": "text-1", "after": 0, "since": since, "until": until, "shadow": "shadow", "limit": 10**9}
        count = self.scanned(year, warehouse_feedback._DECISIONS.format(d=3), **asked)
        assert most / 4 < count <= most

    @pytest.mark.parametrize(("first", "last", "most"), [(600_001, 602_999, 125_000), (1, 1_000_000, 500_000)])
    def test_so_are_the_outcomes_of_a_day(self, year, first, last, most):
        """By the position of the decision that they are about."""
        count = self.scanned(
            year,
            warehouse_feedback._OUTCOMES.format(telling=warehouse_feedback.TELLING["failed"]),
            first=first,
            last=last,
        )
        assert most / 4 < count <= most
