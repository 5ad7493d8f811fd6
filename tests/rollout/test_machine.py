"""The state machine under everything that can happen to it, through the real server, book, probes and audit chain."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bandits.errors import PilotageError, RecordError, RolloutError
from bandits.record.audit import Audit
from bandits.record.memory import MemoryRecord
from bandits.rollout import giving
from bandits.rollout.machine import Aborted, Approved, Judged, RolledBack, after, begun, first
from bandits.rollout.orders import OrderBook
from bandits.rollout.sealing import seal
from bandits.rollout.slots import canary_ends, place
from bandits.settings.rollout import RolloutConfig
from bandits.types import Slot
from tests.rollout.world import SCOPE, World

ENDS = ("complete", "rolled back", "aborted")
TERMS = RolloutConfig(stages=(0.2, 0.5, 1.0))
BEFORE = replace(first(SCOPE, "000001", TERMS, 0.0, who="ann", why="so"), number=4)


def start(**terms: object):
    return begun(BEFORE, "000002", TERMS.model_copy(update=terms), 1.0, 7, who="night", why="better")


RUNNING = {"first": start(), "asks": start(mode="ask"), "last": replace(start(), stage=2)}
ABSURD = [(start(), Approved("a", "b")), (BEFORE, Approved("a", "b")), (BEFORE, Aborted("a", "b"))]


@pytest.mark.parametrize("order", RUNNING.values(), ids=RUNNING)
def test_a_breach_in_any_state_leads_to_stable(order):
    """Also while it waits for a person."""
    ended = after(order, Judged("fail", "it fails"), 2.0)
    assert (ended.phase, ended.stable, ended.share, ended.why) == ("rolled back", "000001", 0.0, "it fails")
    assert ended.number == order.number + 1


@pytest.mark.parametrize("order", [start(), start(mode="ask"), BEFORE], ids=["canary", "asks", "none"])
def test_a_hold_changes_nothing(order):
    """No data, not enough, the store down."""
    assert after(order, Judged("hold", "no data"), 1e9) is order


def test_stages_are_passed_one_by_one_and_never_while_it_waits():
    """Every share in turn, then everybody for good."""
    order, shares = start(), []
    while order.active:
        shares.append(order.share)
        order = after(order, Judged("pass", "fine"), 2.0)
    assert (shares, order.phase, order.stable) == ([0.2, 0.5, 1.0], "complete", "000002")
    waiting = start(mode="ask")
    assert after(waiting, Judged("pass", "fine"), 2.0) is waiting
    assert after(waiting, Approved("ann", "go"), 2.0).share == 0.2


@pytest.mark.parametrize(("most", "share"), [(0.5, 0.5), (0.4, 0.2), (0.1, 0.2)])
def test_the_first_of_all_begins_at_the_last_stage_that_leaves_enough_explorers(most, share):
    """And where the first policy serves again, after a rollback to it."""
    terms = TERMS.model_copy(update={"first_share": most})
    for before in (replace(BEFORE, stable=None), after(BEFORE, RolledBack(None, "ann", "bad"), 2.0)):
        order = begun(before, "000002", terms, 1.0, 7, who="night", why="better")
        assert (order.phase, order.share, order.stable) == ("canary", share, None)
    assert begun(BEFORE, "000002", terms, 1.0, 7, who="night", why="better").share == 0.2


@pytest.mark.parametrize("terms", [{"first_share": 1.0}, {"stages": (1.0,)}])
def test_the_first_of_all_serves_at_once_where_the_terms_say_so(terms):
    """Complete from the beginning."""
    order = begun(replace(BEFORE, stable=None), "000002", TERMS.model_copy(update=terms), 1.0, 7, who="n", why="w")
    assert (order.phase, order.stable) == ("complete", "000002")


@pytest.mark.parametrize(("order", "event"), ABSURD)
def test_what_makes_no_sense_is_refused_and_says_why(order, event):
    """By its phase."""
    with pytest.raises(RolloutError, match=r"must be a rollout of .* but order \d+ of"):
        after(order, event, 1.0)


def test_an_end_is_an_end():
    """Nothing that evidence says later revives it; one rollout at a time."""
    ended = after(start(), Aborted("ann", "no"), 2.0)
    for outcome in ("pass", "fail", "hold"):
        assert after(ended, Judged(outcome, ""), 3.0) is ended
    with pytest.raises(RolloutError, match="one rollout"):
        begun(start(), "000003", TERMS, 1.0, 0, who="", why="")
    again = begun(ended, "000002", TERMS, 1.0, 0, who="", why="")
    assert again.seed != start().seed, "a restarted rollout draws its users anew"
    by_hand = after(BEFORE, RolledBack("000000", "ann", "bad"), 2.0)
    assert (by_hand.phase, by_hand.stable, by_hand.candidate, by_hand.seed) == ("rolled back", "000000", "000001", "")


class Shaky(MemoryRecord):
    """A record whose store can be down."""

    down = False

    def _check(self) -> None:
        if self.down:
            raise RecordError("the record must be readable, but its store is down (a test).")

    def head(self):
        self._check()
        return super().head()

    def append(self, *entries):
        self._check()
        return super().append(*entries)


class Crash(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


class Rollouts(RuleBasedStateMachine):
    """One scope, its users, its night, its people and its misfortunes."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self._folder.name), stages=[0.2, 0.5, 1.0], min_seconds=1.0, min_sample=3)
        self.world.record = Shaky()
        self.world.begin(self.world.put(), None)
        self.world.start()
        self.users = itertools.count()
        self.crash_in: int | None = None
        self.fresh = 0  # outcomes since the stage began
        self.last = self.newest()
        self.patch = pytest.MonkeyPatch()
        for name in ("place", "renew"):
            self.patch.setattr(OrderBook, name, self.crashing(getattr(OrderBook, name)))
        self.patch.setattr("bandits.rollout.controller.seal", self.crashing(seal))

    def crashing(self, write):
        """Dies before or after a write, when its time has come."""

        def wrapped(*args, **kwargs):
            if self.crash_in is None:
                return write(*args, **kwargs)
            self.crash_in -= 1
            if self.crash_in == 0:
                raise Crash
            done = write(*args, **kwargs)
            self.crash_in -= 1
            if self.crash_in == 0:
                raise Crash
            return done

        return wrapped

    def teardown(self):
        self.patch.undo()
        self.world.record.down = False
        seal(self.world.home, self.world.book(), SCOPE)
        orders = self.world.orders()
        ended = Counter(order.seed for order in orders if order.phase in ENDS and order.seed)
        begun_ = {order.seed for order in orders if order.seed}
        active = {orders[-1].seed} if orders[-1].active else set()
        assert all(ended[seed] == (seed not in active) for seed in begun_), "exactly one end, with its reason"
        assert all(order.why and order.who for order in orders)
        with Audit(self.world.home.audit_url) as audit:
            sealed = [row.content["evidence"]["order"] for row in audit.rows("acme")]
        assert sorted(sealed) == [order.number for order in orders], "each order is sealed once"
        self._folder.cleanup()

    def newest(self):
        return self.world.orders()[-1]

    def look(self) -> None:
        """As a server does; a crash is followed by a restart."""
        try:
            self.world.server.refresh()
        except Crash:
            self.crash_in = None
            if not self.world.record.down:
                self.world.start()

    @rule(mode=st.sampled_from(["auto", "ask"]))
    def night(self, mode):
        """Publish and begin."""
        rollout = self.world.config.rollout.model_copy(update={"mode": mode})
        self.world.config = self.world.config.model_copy(update={"rollout": rollout})
        crash, self.crash_in = self.crash_in, None
        self.world.begin(self.world.put(), None)
        self.crash_in, self.fresh = crash, 0
        self.look()

    @rule(n=st.integers(5, 60), failing=st.sampled_from([0, 0, 0, 1]))
    def serve(self, n, failing):
        """Users come, and the canary's answers are fine, or fail."""
        for _ in range(n):
            try:
                decision = self.world.decide(f"u{next(self.users)}")
                bad = failing and decision.slot is Slot.CANARY
                self.world.report(decision, 0.0 if bad else 0.8, **({"result": "failed:server"} if bad else {}))
            except PilotageError:
                break
            self.fresh += 1
        self.check(self.world.drawn)
        self.world.drawn.clear()

    def check(self, drawn):
        """Never above the stage's share, never without a lease of the stage."""
        for decision in drawn:
            if decision.slot is Slot.CANARY:
                order = self.world.server.order
                assert order.phase == "canary"
                assert decision.policy == order.candidate
                assert place(order.seed, decision.user) < canary_ends(order.share)
                assert self.world.server.canary.lease.holds(self.world.now)

    @rule()
    def nothing(self):
        """A look without any news."""
        self.look()

    @rule(seconds=st.sampled_from([0.5, 3.0, 30.0, 3_600.0, -3_600.0]))
    def time(self, seconds):
        """Goes on, or jumps."""
        self.world.now += seconds
        self.look()

    @rule()
    def watched(self):
        """Some seconds in which a server looks."""
        for _ in range(3):
            self.world.now += 1.0
            self.look()

    @rule()
    def store(self):
        """Goes down, or comes back."""
        self.world.record.down = not self.world.record.down
        self.look()

    @rule(writes=st.integers(1, 4))
    def crash(self, writes):
        """A process is killed at one of its next writes."""
        self.crash_in = writes
        self.look()

    @precondition(lambda self: not self.world.record.down)
    @rule()
    def restart(self):
        """Of everything; whoever is killed while it starts is started again."""
        try:
            self.world.start()
        except Crash:
            self.crash_in = None
            self.world.start()

    @rule(verb=st.sampled_from(["approve", "abort", "roll back"]))
    def person(self, verb):
        """Asks for what may or may not make sense just now."""
        world, crash, self.crash_in = self.world, self.crash_in, None
        given = {"who": "ann", "why": "so"}
        try:
            if verb == "approve":
                giving.approve(world.home, SCOPE, world.key, world.now, **given)
            elif verb == "abort":
                giving.abort(world.home, SCOPE, world.key, world.now, **given)
            else:
                giving.roll_back(world.home, SCOPE, world.config, world.key, world.now, **given)
        except RolloutError:
            pass
        self.crash_in, self.fresh = crash, 0
        self.look()

    @invariant()
    def numbers_rise_and_no_data_never_advances(self):
        newest = self.newest()
        assert newest.number >= self.last.number
        if newest.seed == self.last.seed and newest.phase == "canary" == self.last.phase:
            assert newest.stage - self.last.stage <= min(self.fresh, 1)
        if (newest.seed, newest.stage, newest.phase) != (self.last.seed, self.last.stage, self.last.phase):
            self.fresh = 0
        self.last = newest

    @invariant()
    def a_breach_serves_nobody(self):
        server = self.world.server
        evidence = server._controller.evidence
        if evidence is not None and evidence.breach is not None and server.canary is not None:
            canary = server.canary
            assert canary.evidence is not evidence or not any(canary.takes(f"u{i}", self.world.now) for i in range(50))


Rollouts.TestCase.settings = settings(
    max_examples=4, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRollouts = Rollouts.TestCase
