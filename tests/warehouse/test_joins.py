"""The join of decisions and outcomes: a machine decides, reports, restarts, rebuilds, re-reads, and nothing is lost."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from bandits.config import ArmConfig, DomainConfig
from bandits.errors import DuplicateOutcomeError, ForeignDecisionError, UnknownDecisionError
from bandits.record.port import rows
from bandits.record.sql import SqlRecord
from bandits.rewards import SKEW_S, State, feedback, reward, state
from bandits.settings.reward import RewardConfig
from bandits.testing.ports import ELSEWHERE, HERE, sample_decision, sample_outcome
from bandits.types import Slot
from bandits.warehouse.loading import load, read_feedback

START = 1_790_000_000.0
FOR_EVER = START + 1e9
ARMS = tuple(ArmConfig(name=name, model=name, usd_per_request=1.0) for name in ("small", "middle", "large", "broken"))
SMALL = st.integers(0, 8).map(lambda n: n / 1024)  # sums of a few are exact, and far from 1


class Joining(RuleBasedStateMachine):
    """Decisions and outcomes of one scope, in a record and its warehouse, and beside them what must come out."""

    @initialize()
    def open_all(self):
        self.folder = Path(tempfile.mkdtemp())
        self.record = self.open_record()
        self.clock = START
        self.spec = RewardConfig(aggregate="sum", window_s=100.0)
        self.decisions, self.outcomes = [], []

    def open_record(self):
        return SqlRecord(f"sqlite:///{self.folder}/record.db")

    def teardown(self):
        if hasattr(self, "folder"):
            self.joins_are_whole()
            self.record.close()
            shutil.rmtree(self.folder)

    @rule(
        slot=st.sampled_from([Slot.STABLE, Slot.STABLE, Slot.CANARY, Slot.SHADOW]),
        forced=st.sampled_from([False, False, False, True]),
        skew=st.sampled_from([0.0, -30.0, 30.0]),
    )
    def decide(self, slot, forced, skew):
        decision = sample_decision(f"d{len(self.decisions)}", time=self.clock + skew, slot=slot, forced=forced)
        self.record.append(decision)
        self.decisions.append(decision)

    @precondition(lambda self: self.decisions)
    @rule(
        which=st.randoms(use_true_random=False),
        after=st.sampled_from([-SKEW_S - 1.0, -SKEW_S, 0.0, 1.0, 99.0, 100.0, 101.0, 500.0]),
        quality=st.none() | SMALL,
        keyed=st.booleans(),
    )
    def report(self, which, after, quality, keyed):
        """Early, in time, or late: the record takes it all."""
        about = which.choice(self.decisions)
        key = f"event-{len(self.outcomes)}" if keyed else ""
        outcome = sample_outcome(about.id, time=about.time + after, quality=quality, cost_usd=1 / 1024, key=key)
        self.record.append(outcome)
        self.outcomes.append(outcome)

    @precondition(lambda self: any(outcome.key for outcome in self.outcomes))
    @rule(which=st.randoms(use_true_random=False))
    def report_again(self, which):
        said = which.choice([outcome for outcome in self.outcomes if outcome.key])
        with pytest.raises(DuplicateOutcomeError):
            self.record.append(said)

    @rule()
    def report_on_nothing(self):
        with pytest.raises(UnknownDecisionError):
            self.record.append(sample_outcome("never"))

    @precondition(lambda self: self.decisions)
    @rule()
    def report_on_a_stranger(self):
        with pytest.raises(ForeignDecisionError):
            self.record.append(sample_outcome(self.decisions[-1].id, scope=ELSEWHERE))

    @rule(seconds=st.sampled_from([1.0, 60.0, 150.0, -200.0]))
    def wait(self, seconds):
        """Time goes by, or somebody sets the clock back."""
        self.clock += seconds

    @rule()
    def restart(self):
        self.record.close()
        self.record = self.open_record()

    @rule(batch=st.sampled_from([2, 1000]))
    def bring(self, batch):
        load(self.record, self.folder / "warehouse.duckdb", batch=batch)

    @rule()
    def rebuild(self):
        (self.folder / "warehouse.duckdb").unlink(missing_ok=True)

    @rule(
        aggregate=st.sampled_from(["first", "last", "mean", "sum"]),
        window=st.sampled_from([50.0, 100.0, 1000.0]),
        default=st.sampled_from([None, 0.5]),
    )
    def change_the_specification(self, aggregate, window, default):
        self.spec = RewardConfig(aggregate=aggregate, window_s=window, default=default)

    @rule()
    def joins_are_whole(self):
        path = self.folder / "warehouse.duckdb"
        load(self.record, path)
        domain = DomainConfig(arms=ARMS, budget_usd_per_request=1.0, reward=self.spec)
        for now in (self.clock, FOR_EVER):
            scratch, joined = feedback(rows(self.record), HERE, domain, now), read_feedback(path, HERE, domain, now)
            for name in ("ids", "missing", "position"):
                assert getattr(joined, name) == getattr(scratch, name)
            for name in ("times", "rewards", "costs", "propensities"):
                assert getattr(joined, name).tobytes() == getattr(scratch, name).tobytes()
            self.check_states(joined, now)
        self.check_rewards(joined)

    def own(self, decision):
        return [outcome for outcome in self.outcomes if outcome.decision_id == decision.id]

    def in_time(self, decision):
        """Qualities that count, by the machine's own reading of the rules."""
        opens, closes = decision.time - SKEW_S, decision.time + self.spec.window_s
        return [o.quality for o in self.own(decision) if o.quality is not None and opens <= o.time <= closes]

    def check_states(self, joined, now):
        """Each decision is in one state, the log holds those that have a reward, and `missing` counts the others."""
        states = {one.id: state(one, self.own(one), now, self.spec) for one in self.decisions}
        rewarded = {id_ for id_, found in states.items() if found in (State.JOINED, State.DEFAULTED)}
        assert set(joined.ids) == rewarded
        assert len(joined.ids) == len(rewarded)
        counts = Counter(states.values())
        assert joined.missing == counts[State.EXPIRED] + counts[State.WAITING]
        assert counts.total() == len(self.decisions)
        for decision in self.decisions:
            if decision.forced or decision.slot is Slot.SHADOW:
                expected = State.NOT_ACTIVATED
            elif self.in_time(decision):
                expected = State.JOINED
            elif now <= decision.time + self.spec.window_s:
                expected = State.WAITING
            else:
                expected = State.EXPIRED if self.spec.default is None else State.DEFAULTED
            assert states[decision.id] is expected
        if now == FOR_EVER:
            assert not counts[State.WAITING]

    def check_rewards(self, joined):
        """Nothing is lost or counted twice: what came in time and what silence is worth is what the log adds up to."""
        played = [one for one in self.decisions if not one.forced and one.slot is not Slot.SHADOW]
        silent = sum(not self.in_time(one) for one in played)
        silence = 0.0 if self.spec.default is None else self.spec.default * silent
        if self.spec.aggregate == "sum":
            came = math.fsum(value for one in played for value in self.in_time(one))
            assert math.fsum(joined.rewards) == came + silence
        logged = [one for one in played if self.in_time(one) or self.spec.default is not None]
        assert np.nansum(joined.costs) * 1024 == sum(len(self.own(one)) for one in logged)


TestJoining = Joining.TestCase
TestJoining.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)


def test_an_end_is_an_end_until_the_specification_changes():
    """Time never moves a decision out of joined, defaulted, not activated or expired; a longer window can."""
    decision, late = (
        sample_decision("d", forced=False, time=START),
        sample_outcome("d", time=START + 150.0, quality=0.5),
    )
    spec = RewardConfig(window_s=100.0)
    assert state(decision, [late], START + 100.0, spec) is State.WAITING
    assert {state(decision, [late], START + later, spec) for later in (101.0, 1e6)} == {State.EXPIRED}
    assert state(decision, [late], START + 101.0, RewardConfig(window_s=100.0, default=0.0)) is State.DEFAULTED
    assert state(decision, [late], START + 101.0, RewardConfig(window_s=200.0)) is State.JOINED
    assert reward([late], START, START + 101.0, RewardConfig(window_s=200.0)) == 0.5


def test_a_decision_of_which_a_part_is_missing_expires():
    """Quality came, and the cost that the specification asks for did not."""
    spec = RewardConfig(window_s=100.0, weights={"cost": 0.5}, dear_usd=1.0)
    decision = sample_decision("d", forced=False, time=START)
    came = [sample_outcome("d", time=START, quality=0.5, cost_usd=None)]
    assert state(decision, came, START, spec) is State.WAITING
    assert state(decision, came, FOR_EVER, spec) is State.EXPIRED
    assert (
        state(decision, [*came, sample_outcome("d", time=START, quality=None, cost_usd=0.0)], START, spec)
        is State.JOINED
    )
