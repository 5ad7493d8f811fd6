"""Facts about a server's state: it is a fold of the record, from any checkpoint, in every process alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import DuplicateDecisionError, RecordError
from bandits.folds import checkpoints
from bandits.folds.following import tail
from bandits.folds.state import State, resume, save
from bandits.record.memory import MemoryRecord
from bandits.router import Router
from bandits.types import Outcome, Scope, new_id, time_of
from tests.logs import domain

SCOPE, OTHER = Scope("acme", "main", "model_routing"), Scope("rival", "main", "model_routing")
DAY = 86_400.0
CONTEXT = np.zeros(2, np.float32)


class CountingRecord(MemoryRecord):
    """Counts the rows that are read."""

    rows_read = 0

    def read(self, after=0, limit=10_000):
        found = super().read(after, limit)
        self.rows_read += len(found)
        return found


def filled(steps, record=None) -> MemoryRecord:
    """A record of decisions of two scopes and costs that come back at once, late, twice or never."""
    record = MemoryRecord() if record is None else record
    rng = np.random.default_rng(0)
    now = [0.0]
    routers = {scope: Router(scope, domain(1e-2), record, rng, lambda: now[0]) for scope in (SCOPE, OTHER)}
    made = []
    for scope, hours, costs in steps:
        now[0] += hours * 3600.0
        made.append(routers[scope].decide(CONTEXT))
        for back, usd in costs:
            decision = made[-1 - back % len(made)]
            routers[decision.scope].report(Outcome(decision.id, now[0], decision.scope, cost_usd=usd))
    return record


STEPS = st.lists(
    st.tuples(
        st.sampled_from([SCOPE, OTHER]),
        st.sampled_from([0.0, 1.0, 13.0]),
        st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 0.01)), max_size=2),
    ),
    max_size=12,
)


def plain(state: State) -> tuple:
    return (state.position, state.last, state.day, state.pacer)


@settings(deadline=None, max_examples=60)
@given(steps=STEPS, cut=st.integers(0, 40))
def test_a_checkpoint_and_the_tail_behind_it_give_the_state_of_the_whole_record(tmp_path_factory, steps, cut):
    """Cut anywhere, through the file: every bit of the state is the same."""
    path = tmp_path_factory.mktemp("checkpoints") / "deep" / "one.json"
    record = filled(steps)
    whole = State(SCOPE, domain(1e-2))
    whole.fold(tail(record, 0))
    head = State(SCOPE, domain(1e-2))
    head.fold(record.read(0, cut))
    save(path, head)

    again = resume(path, SCOPE, domain(1e-2), record)

    assert plain(again) == plain(whole)


def test_routers_of_two_processes_come_to_one_state():
    """Each counts its own decisions at once and the other's when it catches up; then both agree with the record."""
    record = MemoryRecord()
    one, two = (Router(SCOPE, domain(1e-2), record, np.random.default_rng(seed), lambda: 0.0) for seed in (0, 1))
    decisions = [router.decide(CONTEXT) for router in (one, two, two, one, two)]
    assert (one.pacer.requests, two.pacer.requests) == (2, 3)
    one.report(Outcome(decisions[1].id, 0.0, SCOPE, cost_usd=0.25))
    two.report(Outcome(decisions[0].id, 0.0, SCOPE, cost_usd=0.5))

    assert one.catch_up() == two.catch_up() == record.head()

    fold = State(SCOPE, domain(1e-2))
    fold.fold(tail(record, 0))
    for router in (one, two):
        assert router.pacer.requests == fold.pacer.requests == 5
        assert router.pacer.spent == pytest.approx(fold.pacer.spent)
        assert router.pacer.reserved == fold.pacer.reserved


def test_catching_up_twice_counts_nothing_twice():
    """Also of two outcomes that are equal in every field: both cost money, each once."""
    record = MemoryRecord()
    router = Router(SCOPE, domain(1e-2), record, np.random.default_rng(0), lambda: 0.0)
    decision = router.decide(CONTEXT)
    for _ in range(2):
        router.report(Outcome(decision.id, 0.0, SCOPE, cost_usd=0.25))
    router.catch_up()
    router.catch_up()

    assert (router.pacer.requests, router.pacer.spent) == (1, 0.5)


def test_a_restart_with_a_checkpoint_reads_only_what_came_after_it(tmp_path):
    """Of 60 rows, the 10 behind the checkpoint (and the one that tells it is the same record)."""
    record = filled([(SCOPE, 0.0, [])] * 60, CountingRecord())
    state = State(SCOPE, domain(1e-2))
    state.fold(record.read(0, 50))
    save(tmp_path / "one.json", state)
    record.rows_read = 0

    again = resume(tmp_path / "one.json", SCOPE, domain(1e-2), record)

    assert (again.position, record.rows_read) == (60, 11)


def edit(path, **changes):
    """A whole file, but another."""
    head, items = checkpoints.read(path)
    checkpoints.write(path, head | changes, items, few=2)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: edit(path, version=99),
        lambda path: edit(path, position=99),
        lambda path: edit(path, position=-1),
        lambda path: edit(path, last="another"),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"requests": ', b'"requests": 1')),
        lambda path: path.write_bytes(path.read_bytes()[:-70]),
        lambda path: path.unlink(),
    ],
)
def test_a_checkpoint_that_cannot_be_trusted_costs_a_longer_fold_and_nothing_else(tmp_path, tamper):
    """Damaged, of another version, of another record, or gone: the state comes from the record alone."""
    record = filled([(SCOPE, 0.0, [(0, 0.001)])] * 5)
    path = tmp_path / "one.json"
    save(path, resume(path, SCOPE, domain(1e-2), record))
    tamper(path)
    whole = State(SCOPE, domain(1e-2))
    whole.fold(tail(record, 0))

    assert plain(resume(path, SCOPE, domain(1e-2), record)) == plain(whole)


def test_a_checkpoint_made_for_other_prices_is_not_used(tmp_path):
    """What was promised depends on the catalogue."""
    record = filled([(SCOPE, 0.0, [])] * 5)
    path = tmp_path / "one.json"
    save(path, resume(path, SCOPE, domain(1e-2), record))
    dearer = domain(1e-2, prices=np.array([1.0, 1.0, 1.0]))

    assert resume(path, SCOPE, dearer, record).pacer.spent == 5.0


def test_a_clock_that_goes_back_over_midnight_does_not_forget_what_was_spent():
    """Yesterday does not come back; a decision stamped yesterday is not counted today."""
    now = [DAY + 10.0]
    router = Router(SCOPE, domain(1e-2), MemoryRecord(), np.random.default_rng(0), lambda: now[0])
    router.report(Outcome(router.decide(CONTEXT).id, now[0], SCOPE, cost_usd=0.25))
    now[0] = DAY - 10.0
    router.decide(CONTEXT)

    assert (router.pacer.requests, router.pacer.spent) == (1, 0.25)


def test_a_decision_that_the_record_refuses_costs_nothing():
    """Neither a request nor a promise stays behind."""

    class Full(MemoryRecord):
        def append(self, *entries):
            raise RecordError("the disk must have room, but is full.")

    router = Router(SCOPE, domain(1e-2), Full(), np.random.default_rng(0), lambda: 0.0)
    with pytest.raises(RecordError):
        router.decide(CONTEXT)

    assert (router.pacer.requests, router.pacer.spent, router.pacer.reserved) == (0, 0.0, {})


def test_a_second_cost_of_a_settled_decision_of_today_adds_up_also_after_a_restart():
    """The id tells the day; what is late from yesterday is not today's money."""
    record = MemoryRecord()
    now = [DAY - 1.0]
    router = Router(SCOPE, domain(1e-2), record, np.random.default_rng(0), lambda: now[0])
    yesterday = router.decide(CONTEXT)
    now[0] = DAY + 1.0
    today = router.decide(CONTEXT)
    for decision, usd in ((yesterday, 9.0), (today, 0.25), (today, 0.5), (yesterday, 9.0)):
        router.report(Outcome(decision.id, now[0], SCOPE, cost_usd=usd))

    again = State(SCOPE, domain(1e-2))
    again.fold(tail(record, 0))
    assert router.pacer.spent == again.pacer.spent == 0.75


@given(st.floats(0.0, 4e9), st.binary(min_size=10, max_size=10))
def test_an_id_tells_its_time_to_the_millisecond(time, noise):
    """And an id that was not made here tells none."""
    assert time_of(new_id(time, noise)) == int(time * 1000) / 1000
    assert time_of("d1") is None
    assert time_of("zz" + new_id(time, noise)[2:]) is None


def test_a_twin_id_is_refused_and_the_first_one_still_counts():
    """A generator that repeats itself cannot take back another's promise."""
    record = MemoryRecord()
    one = Router(SCOPE, domain(1e-2), record, np.random.default_rng(0), lambda: 0.0)
    two = Router(SCOPE, domain(1e-2), record, np.random.default_rng(0), lambda: 0.0)
    one.decide(CONTEXT)
    with pytest.raises(DuplicateDecisionError):
        two.decide(CONTEXT)
    two.catch_up()

    assert one.pacer.requests == two.pacer.requests == 1
