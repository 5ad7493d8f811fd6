"""Conformance suites: the contract of a port as a pytest class.

A backend passes when a subclass that gives the fixture passes, as tests/record/test_record.py does.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from bandits.errors import (
    ContextError,
    DuplicateDecisionError,
    DuplicateOutcomeError,
    ForeignDecisionError,
    RecordError,
    UnknownDecisionError,
)
from bandits.record.port import Record, rows
from bandits.types import Decision, Entry, Outcome, Scope, Slot

HERE = Scope("acme", "main", "model_routing")
ELSEWHERE = Scope("rival", "main", "model_routing")


def sample_decision(decision_id: str = "d1", **changes: Any) -> Decision:  # noqa: ANN401 - the fields of Decision
    """A decision with something in every field, none of it round in binary."""
    probabilities = np.array([0.1, 0.2, 1.0 - 0.1 - 0.2, 0.0])
    fields: dict[str, Any] = {
        "id": decision_id,
        "time": 1_790_000_000.123456,
        "scope": HERE,
        "schema": "text-1",
        "context": np.array([0.1, -2.5, 3e-39], np.float32),
        "arms": ("small", "middle", "large", "broken"),
        "excluded": {"broken": "quarantined: “no answer” since 3 h"},
        "probabilities": probabilities,
        "action": 1,
        "propensity": float(probabilities[1]),
        "policy": "ridge-7",
        "slot": Slot.CANARY,
        "price": 12.7,
        "pressure": 0.9,
        "forced": True,
        "user": "u-5f3a",
        "seen": 2**40,
        "conversation": "c-7e1b",
    }
    return Decision(**fields | changes)


def sample_outcome(decision_id: str = "d1", **changes: Any) -> Outcome:  # noqa: ANN401 - the fields of Outcome
    """An outcome of that decision, some of it not measured."""
    fields: dict[str, Any] = {"time": 1_790_000_001.2, "scope": HERE, "quality": 0.3, "cost_usd": 1e-5, "source": "é"}
    fields |= {"result": "stop", "input_tokens": 2**40, "output_tokens": 7, "first_token_s": 0.25}
    return Outcome(decision_id, **fields | changes)


def plain(entry: Entry) -> dict[str, Any]:
    """All fields of an entry, as JSON can say them and == compare them; arrays with dtype and in hexadecimal."""
    fields = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            fields[name] = [value.dtype.str, *(number.hex() for number in value.ravel().tolist())]
    if isinstance(entry, Decision):
        fields |= {"arms": list(entry.arms), "excluded": dict(entry.excluded), "slot": str(entry.slot)}
    return {"kind": type(entry).__name__.lower(), **fields, "scope": str(entry.scope)}


def at_once(work: Callable[[str], None], names: Iterable[str]) -> None:
    """Do the work of each name in a thread of its own, all begun together; raises what the first of them raised."""
    names = list(names)
    start = threading.Barrier(len(names))
    errors: list[BaseException] = []

    def run(name: str) -> None:
        start.wait()
        try:
            work(name)
        except BaseException as error:  # pytest's own failures too
            errors.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places as often as they can, so that a race has its chance
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


class RecordConformance:
    """The contract of bandits.record.port.Record. A subclass gives the fixture `record`, an empty one."""

    def test_a_new_record_is_empty(self, record: Record) -> None:
        """Head is 0 and there is nothing to read."""
        assert (record.head(), record.read(), record.append()) == (0, [], 0)

    def test_what_is_read_is_what_was_appended_bit_for_bit(self, record: Record) -> None:
        """Every field comes back, floats and arrays to the last bit."""
        entries: list[Entry] = [
            sample_decision(),
            sample_outcome(),
            sample_outcome(quality=None, cost_usd=None, vote=-1),
        ]
        assert record.append(*entries) == 3
        found = record.read()
        assert [row.position for row in found] == [1, 2, 3]
        assert [plain(row.entry) for row in found] == [plain(entry) for entry in entries]

    def test_numpy_scalars_come_back_as_equal_numbers(self, record: Record) -> None:
        """An action of np.int64 or a quality of np.float64 is a number, not a blob."""
        record.append(
            sample_decision(action=np.int64(1), time=np.float64(5.5), forced=np.bool_(False)),
            sample_outcome(quality=np.float64(0.1), vote=np.int64(1)),
        )
        (_, decision), (_, outcome) = record.read()
        assert isinstance(decision, Decision)
        assert (decision.action, decision.time, decision.forced) == (1, 5.5, False)
        assert isinstance(outcome, Outcome)
        assert (outcome.quality, outcome.vote) == (0.1, 1)

    def test_positions_are_gapless_over_decisions_and_outcomes(self, record: Record) -> None:
        """Both share one count; append returns the position of its last row, which is the head."""
        assert record.append(sample_decision("a")) == 1
        assert record.append(sample_outcome("a")) == 2
        assert record.append(sample_decision("b"), sample_outcome("b"), sample_outcome("a")) == 5
        assert [row.position for row in record.read()] == [1, 2, 3, 4, 5]
        assert record.head() == 5

    def test_read_is_a_slice(self, record: Record) -> None:
        """Rows after+1 .. after+limit, or as many as there are, whatever they are."""
        record.append(sample_decision("a"), sample_outcome("a"), sample_decision("b"), sample_outcome("a"))
        record.append(sample_outcome("b"))
        for after in (-1, 0, 1, 4, 5, 9):
            for limit in (-1, 0, 1, 3, 100):
                start = max(after, 0)
                expected = [p for p in range(1, 6) if start < p <= start + limit]
                assert [row.position for row in record.read(after, limit)] == expected

    def test_reading_in_batches_of_any_size_gives_the_same_rows(self, record: Record) -> None:
        """The helper `rows` loses nothing between batches."""
        record.append(sample_decision("a"), sample_outcome("a"), sample_decision("b"), sample_outcome("a"))
        expected = [(row.position, plain(row.entry)) for row in record.read(1)]
        for batch in (1, 2, 3, 10):
            assert [(row.position, plain(row.entry)) for row in rows(record, 1, batch)] == expected

    def test_a_decision_is_found_by_id_and_tenant(self, record: Record) -> None:
        """To another tenant it is as unknown as one that never was, in the same words."""
        record.append(sample_decision("a"), sample_decision("b", scope=ELSEWHERE))
        assert plain(record.decision("a", "acme")) == plain(sample_decision("a"))
        with pytest.raises(UnknownDecisionError) as foreign:
            record.decision("b", "acme")
        with pytest.raises(UnknownDecisionError) as nowhere:
            record.decision("c", "acme")
        assert str(foreign.value).replace("'b'", "'c'") == str(nowhere.value)

    def test_outcomes_of_a_decision_come_in_order_of_position(self, record: Record) -> None:
        """Late, twice or never: all that came is there, in order of arrival, and only its own."""
        record.append(sample_decision("a"), sample_decision("b"), sample_decision("c"))
        record.append(sample_outcome("a", time=9.0), sample_outcome("b", time=8.0))
        record.append(sample_outcome("a", time=7.0))
        assert [outcome.time for outcome in record.outcomes("a")] == [9.0, 7.0]
        assert record.outcomes("c") == record.outcomes("never") == []

    @pytest.mark.parametrize(
        ("batch", "error"),
        [
            ([sample_decision("old")], DuplicateDecisionError),
            ([sample_decision("old", scope=ELSEWHERE)], DuplicateDecisionError),
            ([sample_decision("twin"), sample_decision("twin")], DuplicateDecisionError),
            ([sample_outcome("never")], UnknownDecisionError),
            ([sample_outcome("new"), sample_decision("new")], UnknownDecisionError),
            ([sample_outcome("old", scope=ELSEWHERE)], ForeignDecisionError),
            ([sample_decision("new"), sample_outcome("new", scope=ELSEWHERE)], ForeignDecisionError),
            ([sample_outcome("old", scope=Scope("acme", "other", "model_routing"))], ForeignDecisionError),
            ([sample_decision("new", context=np.array([1.0, np.nan], np.float32))], ContextError),
            ([sample_decision("new", context=np.array([np.inf], np.float32))], ContextError),
            ([sample_decision("new", context=np.zeros(3))], ContextError),
            ([sample_decision("new", context=np.zeros((1, 3), np.float32))], ContextError),
            ([sample_decision("new", arms=("same", "same", "b", "c"))], RecordError),
            ([sample_decision("new", time=float("nan"))], RecordError),
            ([sample_outcome("old", time=float("inf"))], RecordError),
            ([sample_decision("new", policy="a\0b")], RecordError),
            ([sample_outcome("old", source="\ud800")], RecordError),
            ([sample_outcome("old", key="vote-7"), sample_outcome("old", key="vote-7")], DuplicateOutcomeError),
            ([sample_decision("new", user="a\0b")], RecordError),
        ],
    )
    def test_a_refused_row_takes_its_whole_batch_with_it(
        self, record: Record, batch: list[Entry], error: type[Exception]
    ) -> None:
        """Nothing of the batch is written, not even the good row in front; the record stays usable."""
        record.append(sample_decision("old"))
        with pytest.raises(error):
            record.append(sample_decision("good"), *batch)
        assert record.head() == 1
        assert [row.position for row in record.read()] == [1]
        assert record.append(sample_decision("good"), sample_outcome("good")) == 3

    def test_an_outcome_with_a_key_is_heard_once(self, record: Record) -> None:
        """The same key again is refused; another key, another decision, or no key at all is another event."""
        record.append(sample_decision("a"), sample_decision("b"))
        record.append(sample_outcome("a", key="vote-7"))
        with pytest.raises(DuplicateOutcomeError, match="vote-7"):
            record.append(sample_outcome("a", key="vote-7", time=9.0))
        for outcome in (sample_outcome("b", key="vote-7"), sample_outcome("a", key="vote-8"), sample_outcome("a")):
            record.append(outcome)
        record.append(sample_outcome("a"))
        assert [outcome.key for outcome in record.outcomes("a")] == ["vote-7", "vote-8", "", ""]

    def test_of_equal_outcomes_at_once_one_is_heard(self, record: Record) -> None:
        """32 threads report the same event: one wins, wherever the groups of the commits fall."""
        record.append(sample_decision("a"))
        refused: list[str] = []

        def work(name: str) -> None:
            try:
                record.append(sample_outcome("a", key="vote-7", source=name))
            except DuplicateOutcomeError:
                refused.append(name)

        at_once(work, [str(i) for i in range(32)])
        assert (len(refused), len(record.outcomes("a"))) == (31, 1)

    def test_the_owner_of_a_foreign_decision_is_not_named(self, record: Record) -> None:
        """Who reports on a stranger's decision does not learn whose it is."""
        record.append(sample_decision("a", scope=ELSEWHERE))
        with pytest.raises(ForeignDecisionError) as refused:
            record.append(sample_outcome("a"))
        assert "rival" not in str(refused.value)

    def test_threads_share_a_record(self, record: Record) -> None:
        """Four threads append at once: no gap, each thread's rows in its own order, each told its own positions."""
        per_thread = 15
        told: dict[str, int] = {}

        def work(name: str) -> None:
            for i in range(per_thread):
                told[f"{name}{i}"] = record.append(sample_decision(f"{name}{i}"), sample_outcome(f"{name}{i}"))

        at_once(work, "abcd")
        found = record.read()
        assert [row.position for row in found] == list(range(1, 8 * per_thread + 1))
        assert told == {row.entry.decision_id: row.position for row in found if isinstance(row.entry, Outcome)}
        ids = [row.entry.id for row in found if isinstance(row.entry, Decision)]
        for name in "abcd":
            assert [i for i in ids if i.startswith(name)] == [f"{name}{i}" for i in range(per_thread)]

    def test_a_bad_append_among_many_good_ones_fails_alone(self, record: Record) -> None:
        """32 threads append good and bad in turn: each hears of its own error, nobody of another's, nothing is lost."""
        record.append(sample_decision("old"), sample_decision("theirs", scope=ELSEWHERE))
        bad: list[tuple[Entry, type[Exception]]] = [
            (sample_decision("old"), DuplicateDecisionError),
            (sample_outcome("never"), UnknownDecisionError),
            (sample_outcome("theirs"), ForeignDecisionError),
            (sample_decision("new", context=np.array([np.nan], np.float32)), ContextError),
        ]
        told: dict[str, list[int]] = {}
        heard: dict[str, list[type[Exception]]] = {}

        def work(name: str) -> None:
            entry, error = bad[int(name) % len(bad)]
            told[name], heard[name] = [], []
            for i in range(3):
                told[name].append(record.append(sample_decision(f"{name}-{i}"), sample_outcome(f"{name}-{i}")))
                with pytest.raises(error) as refused:
                    record.append(sample_decision(f"{name}-lost"), entry)
                heard[name].append(refused.type)
                told[name].append(record.append(sample_outcome(f"{name}-{i}", source=name)))

        names = [str(i) for i in range(32)]
        at_once(work, names)
        assert heard == {name: [bad[int(name) % len(bad)][1]] * 3 for name in names}
        found = record.read()
        assert [row.position for row in found] == list(range(1, 2 + 32 * 9 + 1))
        placed = [(row.entry.decision_id, row.position) for row in found if isinstance(row.entry, Outcome)]
        for name in names:
            mine = [position for key, position in placed if key.split("-")[0] == name]
            assert mine == told[name] == sorted(told[name])

    def test_of_equal_appends_at_once_one_wins(self, record: Record) -> None:
        """32 threads append the same decision: one is told its position, 31 that it is there already."""
        answers: list[int] = []
        refused: list[str] = []

        def work(name: str) -> None:
            try:
                answers.append(record.append(sample_decision("same", policy=name)))
            except DuplicateDecisionError:
                refused.append(name)

        at_once(work, [str(i) for i in range(32)])
        assert (answers, len(refused), record.head()) == ([1], 31, 1)
        assert record.decision("same", "acme").policy not in refused

    def test_the_newest_decision_of_a_conversation_is_found(self, record: Record) -> None:
        """By tenant and key; a decision of no conversation belongs to none."""
        record.append(sample_decision("a"), sample_decision("b"), sample_decision("single", conversation=""))
        record.append(sample_decision("theirs", scope=ELSEWHERE))
        found = record.conversation(HERE.tenant, "c-7e1b")
        assert found is not None
        assert found.id == "b"
        assert record.conversation(HERE.tenant, "c-other") is None
        assert record.conversation(HERE.tenant, "") is None

    def test_a_record_is_a_context_manager(self, record: Record) -> None:
        """`with` gives the record itself."""
        with record as same:
            assert same is record
