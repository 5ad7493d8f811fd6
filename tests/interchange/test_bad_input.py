"""Bad rows of a file are set aside, and every rule of a round can fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bandits.errors import InterchangeError
from bandits.interchange import dsjson, parquet, rounds
from tests.interchange.samples import lines, same, sample


class TestBadInput:
    """One bad row costs one row: it is named with its place and its reason, and the rest is imported."""

    @pytest.fixture
    def written(self, tmp_path: Path) -> Path:
        dsjson.write(sample(), tmp_path / "log")
        return tmp_path / "log"

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda line: line | {"_label_probability": 0.25}, "propensity must be > 0 and the probability"),
            (lambda line: line | {"_label_probability": 0.0, "p": [0.0, 0.5, 0.5]}, "propensity must be > 0"),
            (lambda line: line | {"p": [0.5, 0.2, 0.2], "_label_probability": 0.5}, "must be >= 0 and sum to 1"),
            (lambda line: line | {"p": [1.5, -0.5, 0.0], "_label_probability": 1.5}, "must be >= 0 and sum to 1"),
            (lambda line: line | {"p": [float("nan")] * 3}, "must be >= 0 and sum to 1"),
            (lambda line: line | {"p": [0.5, 0.5]}, "must rank 3 actions"),
            (lambda line: line | {"p": [0.5, 0.5, "0"]}, "p must hold numbers alone"),
            (lambda line: line | {"a": [1, 1, 2]}, "must rank 3 actions"),
            (lambda line: line | {"a": [True, 2, 3]}, "must rank 3 actions"),
            (lambda line: line | {"a": line["a"][::-1]}, "a begin with _label_Action"),
            (lambda line: line | {"_label_Action": 9}, "a begin with _label_Action"),
            (lambda line: line | {"_label_Action": 1.0}, "'_label_Action', of type int"),
            (lambda line: line | {"_label_cost": 0.5}, "reward must be in [0, 1], but is -0.5"),
            (lambda line: line | {"_label_cost": None}, "_label_cost must be a number"),
            (lambda line: line | {"_label_cost": True}, "_label_cost must be a number"),
            (lambda line: line | {"_label_cost": -(10**400)}, "must fit 64 bits"),
            (lambda line: line | {"EventId": 7}, "'EventId', of type str"),
            (lambda line: line | {"EventId": ""}, "an id must not be empty"),
            (lambda line: line | {"EventId": "é|3-0"}, "'é|3-0' stands there before"),
            (lambda line: line | {"c": line["c"] | {"context": [0.5]}}, "must be those of line 1"),
            (lambda line: line | {"c": line["c"] | {"context": [0.5, 1e39]}}, "context must be finite"),
            (lambda line: line | {"c": line["c"] | {"context": "x"}}, "'context', of type list"),
            (lambda line: line | {"c": line["c"] | {"_multi": [{"arm": {str(i): 1}} for i in range(3)]}}, "of line 1"),
            (lambda line: line | {"c": line["c"] | {"_multi": [{"arm": {"x": 1}}] * 3}}, "arms must be distinct"),
            (lambda line: line | {"c": line["c"] | {"_multi": [{"arm": {"x": 1, "y": 1}}] * 3}}, "one feature"),
            (lambda line: line | {"c": line["c"] | {"_multi": [7]}}, "'arm', of type dict"),
            (lambda line: line | {"pilotage": line["pilotage"] | {"format": 2}}, "format must be 1, but is 2"),
            (lambda line: line | {"pilotage": line["pilotage"] | {"schema": "text-9"}}, "must be those of line 1"),
            (lambda line: line | {"pilotage": line["pilotage"] | {"time": float("inf")}}, "time must be UTC"),
            (lambda line: line | {"pilotage": line["pilotage"] | {"cost_usd": -1}}, "cost must be USD >= 0"),
            (lambda line: {name: line[name] for name in line if name != "pilotage"}, "'pilotage', of type dict"),
            (lambda line: [line], "'pilotage', of type dict"),
        ],
    )
    def test_a_bad_line_is_set_aside_with_its_reason(self, written, change, reason):
        """Whatever is wrong with it."""
        found = lines(written)
        found[3] = change(found[3])
        written.write_text("\n".join(map(json.dumps, found)))
        back = dsjson.read(written)

        ((row, why),) = back.quarantined
        assert row == 4
        assert reason in why
        keep = np.arange(6) != 3
        assert same(back.feedback, sample().where(keep))

    def test_every_truncation_costs_the_last_line_alone(self, written):
        """Cut anywhere within it: what stands before is imported."""
        raw = written.read_bytes()
        last = raw[:-1].rindex(b"\n") + 1
        for end in range(last + 1, len(raw) - 1, 5):
            written.write_bytes(raw[:end])
            back = dsjson.read(written)
            assert [rejected.row for rejected in back.quarantined] == [6]
            assert "may have been cut off" in back.quarantined[0].reason
            assert len(back.feedback) == 5

    @pytest.mark.parametrize("raw", [b"\xff\xfe", b"{", b"[" * 99_999, b"\x00", b"null", b"NaN"])
    def test_a_line_that_is_no_json_object_is_set_aside(self, written, raw):
        """Bytes of no language; the lines around it are imported."""
        good = written.read_bytes().splitlines()
        written.write_bytes(b"\n".join([raw, *good[:3], b"", raw, *good[3:]]))
        back = dsjson.read(written)

        assert [rejected.row for rejected in back.quarantined] == [1, 6]
        assert same(back.feedback, sample())

    @pytest.mark.parametrize("raw", [b"", b"\n\n", b"{}\n"])
    def test_a_file_without_a_round_is_refused(self, tmp_path, raw):
        """There are no arms to speak of."""
        (tmp_path / "log").write_bytes(raw)

        with pytest.raises(InterchangeError, match="must hold a round"):
            dsjson.read(tmp_path / "log")

    @pytest.mark.parametrize(
        ("column", "value", "reason"),
        [
            ("propensity", 0.25, "propensity must be > 0"),
            ("propensity", None, "propensity must be > 0"),
            ("probabilities", [0.5, 0.2, 0.2], "sum to 1"),
            ("probabilities", [0.5, 0.5], "sum to 1"),
            ("probabilities", None, "sum to 1"),
            ("context", [0.5], "context must be finite"),
            ("context", None, "context must be finite"),
            ("context", [0.5, None], "context must be finite"),
            ("action", 3, "action must be in 0..2, but is 3"),
            ("action", None, "action must be in 0..2, but is -1"),
            ("reward", 1.5, "reward must be in [0, 1], but is 1.5"),
            ("reward", None, "reward must be in [0, 1]"),
            ("time", None, "time must be UTC"),
            ("cost_usd", -1.0, "cost must be USD >= 0"),
            ("id", "é|3-0", "stands there before"),
            ("id", None, "an id must not be empty"),
        ],
    )
    def test_a_bad_row_of_a_table_is_set_aside_with_its_reason(self, tmp_path, column, value, reason):
        """Null, ragged, or wrong."""
        parquet.write(sample(), tmp_path / "log")
        table = pq.read_table(tmp_path / "log")
        values = table[column].to_pylist()
        values[3] = value
        place = table.column_names.index(column)
        pq.write_table(
            table.set_column(place, column, pa.array(values, table.schema.field(column).type)), tmp_path / "log"
        )
        back = parquet.read(tmp_path / "log")

        ((row, why),) = back.quarantined
        assert row == 4
        assert reason in why
        assert same(back.feedback, sample().where(np.arange(6) != 3))

    def test_every_truncation_of_a_table_is_refused(self, tmp_path):
        """Its directory is at its end: a table that was cut off says nothing."""
        parquet.write(sample(), tmp_path / "log")
        raw = (tmp_path / "log").read_bytes()
        for end in range(0, len(raw), 41):
            (tmp_path / "log").write_bytes(raw[:end])
            with pytest.raises(InterchangeError, match="must be Parquet, whole and readable"):
                parquet.read(tmp_path / "log")

    @pytest.mark.parametrize(
        ("about", "message"),
        [
            (None, "its metadata does not say so"),
            (b"{", "its metadata does not say so"),
            (b"[]", "must have format 1, but has None"),
            (b'{"format":2}', "must have format 1, but has 2"),
            (b'{"format":1}', "must name distinct arms"),
            (b'{"format":1,"arms":["a","a"],"schema":"s","missing":0,"position":0}', "must name distinct arms"),
            (b'{"format":1,"arms":[],"schema":"s","missing":0,"position":0}', "must name distinct arms"),
        ],
    )
    def test_a_table_of_another_make_is_refused(self, tmp_path, about, message):
        """Unknown versions, too."""
        parquet.write(sample(), tmp_path / "log")
        table = pq.read_table(tmp_path / "log")
        pq.write_table(table.replace_schema_metadata(about and {b"pilotage": about}), tmp_path / "log")

        with pytest.raises(InterchangeError, match=message):
            parquet.read(tmp_path / "log")

    def test_a_table_without_a_column_or_of_other_types_is_refused(self, tmp_path):
        """A propensity that went through float32 is another number; columns beside ours do no harm."""
        parquet.write(sample(), tmp_path / "log")
        table = pq.read_table(tmp_path / "log")
        pq.write_table(table.append_column("note", pa.array(["x"] * 6)), tmp_path / "log")
        assert same(parquet.read(tmp_path / "log").feedback, sample())
        pq.write_table(table.drop_columns("time"), tmp_path / "log")
        with pytest.raises(InterchangeError, match="a column time of type double, but has none"):
            parquet.read(tmp_path / "log")
        place = table.column_names.index("propensity")
        narrow = table.set_column(place, "propensity", table["propensity"].cast(pa.float32()))
        pq.write_table(narrow, tmp_path / "log")
        with pytest.raises(InterchangeError, match="propensity of type double, but has float"):
            parquet.read(tmp_path / "log")


def test_every_rule_of_a_round_can_fail():
    """The checks themselves, on a sound log and on one that breaks each rule once."""
    log = sample(9)
    assert rounds.faults(rounds.of_feedback(log)) == {}
    bad = rounds.of_feedback(log)
    ids = list(bad.ids)
    ids[0], ids[2] = "", ids[1]
    bad.times[3], bad.contexts[4, 0], bad.actions[5] = np.nan, np.inf, -1
    bad.probabilities[6], bad.propensities[7], bad.costs[8] = 0.4, 0.123, np.inf

    assert sorted(rounds.faults(replace(bad, ids=tuple(ids)))) == [0, 2, 3, 4, 5, 6, 7, 8]
