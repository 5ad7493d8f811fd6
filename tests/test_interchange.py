"""Facts about files of logged feedback: every bit comes back, Vowpal Wabbit agrees, and bad rows are set aside."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import InterchangeError
from bandits.evaluation import ips
from bandits.interchange import dsjson, parquet, rounds
from bandits.interchange.entries import entries
from bandits.record.port import rows
from bandits.record.sql import SqlRecord
from bandits.rewards import feedback as fold_feedback
from bandits.types import LoggedFeedback, Scope
from tests.logs import domain, simulate

FORMATS = [dsjson, parquet]
GOLDEN = Path(__file__).parent / "golden" / "interchange-1"
both = pytest.mark.parametrize("form", FORMATS, ids=["dsjson", "parquet"])


def same(one: LoggedFeedback, other: LoggedFeedback) -> bool:
    """To the bit: NaN is NaN, -0.0 is not 0.0, and types count."""
    for field in fields(LoggedFeedback):
        here, there = getattr(one, field.name), getattr(other, field.name)
        if isinstance(here, np.ndarray):
            if (here.dtype, here.shape, here.tobytes()) != (there.dtype, there.shape, there.tobytes()):
                return False
        elif here != there:
            return False
    return True


def sample(n: int = 6) -> LoggedFeedback:
    """A small log with an arm out of reach, an unknown cost, rewards 0 and 1, and words of other languages."""
    log = simulate(n, 3, probabilities=(0.1, 0.7, 0.2))
    probabilities, costs, rewards = log.probabilities.copy(), log.costs.copy(), log.rewards.copy()
    first = int(log.actions[0])
    probabilities[0] = 0.0
    probabilities[0, [first, (first + 1) % 3]] = 1 / 3, 2 / 3
    costs[1], costs[2], rewards[:3] = np.nan, 0.0, (0.0, 1.0, 5e-324)
    return replace(
        log,
        arms=("llama-3-1-8b", "größe", "a b|c:d"),
        ids=tuple(f"é|{id_}" for id_ in log.ids),
        times=log.times + 1.79e9 + 0.1,
        probabilities=probabilities,
        propensities=probabilities[np.arange(n), log.actions],
        costs=costs,
        rewards=rewards,
        missing=7,
        position=2**53 + 1,
    )


@st.composite
def logs(draw: st.DrawFn) -> LoggedFeedback:
    """Any log that can be: floats of every size, one arm or many, no round or some."""
    n, k, d = draw(st.integers(0, 5)), draw(st.integers(1, 4)), draw(st.integers(0, 3))
    unit, text = st.floats(0.0, 1.0), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
    weights = np.array(draw(st.lists(st.lists(st.floats(1e-300, 1.0), min_size=k, max_size=k), min_size=n, max_size=n)))
    probabilities = weights.reshape(n, k) / weights.reshape(n, k).sum(axis=1, keepdims=True)
    actions = np.array(draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)), np.int64)
    context = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=d, max_size=d)
    costs = st.lists(st.just(np.nan) | st.floats(0.0, 1e300), min_size=n, max_size=n)
    return LoggedFeedback(
        arms=tuple(draw(st.lists(text, min_size=k, max_size=k, unique=True))),
        schema=draw(text),
        ids=tuple(draw(st.lists(text, min_size=n, max_size=n, unique=True))),
        times=np.array(draw(st.lists(st.floats(-6e10, 6e10), min_size=n, max_size=n)), np.float64),
        contexts=np.array(draw(st.lists(context, min_size=n, max_size=n)), np.float32).reshape(n, d),
        actions=actions,
        propensities=probabilities[np.arange(n), actions],
        probabilities=probabilities,
        rewards=np.array(draw(st.lists(unit, min_size=n, max_size=n)), np.float64),
        costs=np.array(draw(costs), np.float64),
        missing=draw(st.integers(0, 2**70)),
        position=draw(st.integers(0, 2**62)),
    )


class TestRoundTrip:
    @both
    @settings(max_examples=40, deadline=None)
    @given(log=logs())
    def test_any_log_comes_back_to_the_bit(self, tmp_path_factory, form, log):
        """Contexts, propensities, rewards, costs that are not known, ids in any script."""
        if (log.propensities == 0.0).any() or (form is dsjson and not len(log)):
            return
        path = tmp_path_factory.mktemp("any") / "log"
        form.write(log, path)
        back = form.read(path)

        assert back.quarantined == ()
        if len(log) or form is dsjson:
            assert same(back.feedback, log)
        else:
            assert same(back.feedback, replace(log, contexts=np.zeros((0, 0), np.float32)))

    @both
    def test_what_was_written_once_is_read_for_ever(self, form):
        """Files of format 1, kept: whatever comes later must still read them."""
        name = form.__name__.rpartition(".")[2]
        back = form.read(GOLDEN / f"log.{name}")

        assert back.quarantined == ()
        assert same(back.feedback, sample())

    @both
    def test_a_log_goes_through_the_record_and_comes_back(self, form, tmp_path):
        """Imported into the record as decisions and outcomes, and folded from there: the same log, to the bit."""
        scope, config = Scope("acme", "main", "model_routing"), domain(1.0)
        log = replace(simulate(40, 1), times=1.79e9 + np.arange(40.0), missing=0, position=80)
        form.write(log, tmp_path / "log")
        with SqlRecord(f"sqlite:///{tmp_path / 'record.db'}") as record:
            for pair in entries(form.read(tmp_path / "log").feedback, scope):
                record.append(*pair)
            assert same(fold_feedback(rows(record), scope, config, 1.8e9), log)


def check_vw() -> None:
    if importlib.util.find_spec("vowpalwabbit") is None:
        pytest.skip("vowpalwabbit is not installed: pip install vowpalwabbit==9.11.9")


class TestVowpalWabbit:
    """The real one reads what we write, and means the same by it."""

    def run(self, log: LoggedFeedback, folder: Path, options: str):
        """Let VW learn from the file: its mean loss, its number of examples, and what it would have played, (n, K)."""
        check_vw()
        from vowpalwabbit import Workspace

        path, played = folder / "log.dsjson", folder / "played"
        dsjson.write(log, path)
        vw = Workspace(f"--dsjson --cb_explore_adf {options} -d {path} -p {played} --quiet")
        loss, examples = vw.get_sum_loss(), vw.get_weighted_examples()
        vw.finish()
        probs = np.zeros((len(log), log.k))
        lines = [line for line in played.read_text().splitlines() if line]
        for row, line in zip(probs, lines, strict=True):
            for pair in line.split(","):
                action, probability = pair.split(":")
                row[int(action)] = float(probability)
        return loss / examples, examples, probs / probs.sum(axis=1, keepdims=True)  # VW prints six digits

    def test_its_mean_loss_of_the_uniform_policy_is_ours(self, tmp_path):
        """Cost, probability and number of rounds: IPS of what plays all arms alike, on both sides."""
        log = replace(simulate(500, 2), arms=("a", "b", "c"))
        loss, examples, _ = self.run(log, tmp_path, "--epsilon 1")

        assert examples == 500
        uniform = np.full((500, 3), 1 / 3)
        assert -loss == pytest.approx(ips.scores(log, uniform).mean(), rel=1e-5)

    @pytest.mark.parametrize("options", ["--cb_type ips --epsilon .1", "--cb_type mtr --epsilon .2"])
    def test_its_progressive_loss_is_the_ips_of_what_it_would_have_played(self, tmp_path, options):
        """Actions, too: its own predictions, judged by our estimator, give its own mean loss; shifted ones do not."""
        log = simulate(500, 4)
        loss, _, played = self.run(log, tmp_path, f"{options} -q ca")

        assert -loss == pytest.approx(ips.scores(log, played).mean(), rel=1e-4)
        assert -loss != pytest.approx(ips.scores(log, played[:, [1, 2, 0]]).mean(), rel=1e-2)

    def test_it_sees_contexts_and_arms(self, tmp_path):
        """It learns which arm is best where, and earns more than any arm that looks at nothing."""

        def truth(x: np.ndarray) -> np.ndarray:
            return np.stack([0.5 + 0.4 * np.tanh(x[:, 1]), 0.5 + 0.4 * np.tanh(x[:, 0]), np.full(len(x), 0.5)], axis=1)

        log = simulate(4000, 5, expected=truth)
        _, _, played = self.run(log, tmp_path, "--cb_type mtr -q ca --epsilon .05")
        late = truth(log.contexts.astype(float))[2000:]

        assert (played[2000:] * late).sum(axis=1).mean() > late.mean(axis=0).max() + 0.05


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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


class TestWriting:
    @both
    def test_an_export_never_replaces_a_file(self, form, tmp_path):
        """What is there stays, and nothing is left beside it."""
        (tmp_path / "log").write_text("mine")

        with pytest.raises(InterchangeError, match="must not replace a file"):
            form.write(sample(), tmp_path / "log")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"log": "mine"}

    def test_nor_one_that_came_while_it_was_written(self, tmp_path):
        """Whoever put it there first keeps it."""

        def overtaken() -> None:
            with rounds.new_file(tmp_path / "log") as temporary:
                temporary.write_text("ours")
                (tmp_path / "log").write_text("mine")

        with pytest.raises(InterchangeError, match="must not replace a file"):
            overtaken()
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"log": "mine"}

    def test_a_cost_that_is_not_known_is_null_for_others(self, tmp_path):
        """Not NaN, which other programs would add up."""
        parquet.write(sample(), tmp_path / "log")

        assert pq.read_table(tmp_path / "log")["cost_usd"].null_count == 1

    @both
    def test_a_full_disk_leaves_nothing(self, form, tmp_path):
        """Not half a file that looks like a whole one."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(InterchangeError, match="must reach the disk"):
                form.write(sample(), tmp_path / "log")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert os.listdir(tmp_path) == []

    @both
    def test_a_folder_or_file_that_is_not_there_says_so(self, form, tmp_path):
        """In the operating system's words."""
        with pytest.raises(InterchangeError, match="No such file"):
            form.write(sample(), tmp_path / "none" / "log")
        with pytest.raises(InterchangeError, match="No such file"):
            form.read(tmp_path / "log")

    @both
    def test_what_would_be_refused_is_not_written(self, form, tmp_path):
        """The first bad round is named, with what is wrong with it."""
        log = sample()
        log.probabilities[4] = 0.5

        with pytest.raises(InterchangeError, match=r"1 are not, first round 4 of id 'é\|3-4': probabilities must be"):
            form.write(log, tmp_path / "log")
        assert os.listdir(tmp_path) == []

    def test_what_vw_reads_stands_in_each_line(self, tmp_path):
        """The words of the format, by hand."""
        dsjson.write(sample(), tmp_path / "log")
        log, line = sample(), lines(tmp_path / "log")[2]
        action = int(log.actions[2])

        assert line["_label_Action"] == line["a"][0] == action + 1
        assert line["_labelIndex"] == action
        assert line["_label_probability"] == line["p"][0] == log.propensities[2]
        assert line["_label_cost"] == -log.rewards[2]
        assert line["Timestamp"] == "2026-09-21T14:13:22.1000000Z"
        assert line["EventId"] == "é|3-2"
        assert [next(iter(arm["arm"])) for arm in line["c"]["_multi"]] == list(log.arms)
        assert line["c"]["context"] == log.contexts[2].tolist()


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
