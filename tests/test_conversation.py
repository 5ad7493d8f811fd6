"""Facts about conversations: one draw, later turns stay with it, and switching is weighed against what it loses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.config import DomainConfig
from bandits.conversation import ANOTHER, DEAR, FOLLOWS, Talk, saving, talk
from bandits.errors import ConfigError
from bandits.explaining.replay import again, replays
from bandits.ids import IdRing
from bandits.learners.cost import CostModel
from bandits.learners.linear_policy import LinearPolicy, PriceCurve
from bandits.learners.scaling import Scaler
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.record.sql import SqlRecord
from bandits.rewards import activated, feedback, reward
from bandits.router import Router
from bandits.served import Serving
from bandits.types import JUDGE, Outcome, Scope
from tests.logs import ARMS, PRICES, domain

SCOPE = Scope("acme", "main", "model_routing")
CONTEXT = np.zeros(2, np.float32)
HOUR = 3600.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    """One for each test."""
    return Clock()


def priced(**conversations) -> DomainConfig:
    """A domain whose arms have prices by the token: cached input costs a tenth."""
    made = domain(1.0, conversations=conversations)
    priced_arms = [
        arm.model_dump()
        | {"usd_per_million": {"input": 10.0, "output": 30.0, "cached": 1.0}, "prices_as_of": "2026-11-01"}
        for arm in made.arms
    ]
    return DomainConfig.model_validate(made.model_dump() | {"arms": priced_arms})


def router(clock, config=None, record=None, seed=0, **others) -> Router:
    record = MemoryRecord() if record is None else record
    config = domain(1.0) if config is None else config
    return Router(SCOPE, config, record, np.random.default_rng(seed), clock, **others)


def foretelling(q: tuple[float, ...], price: float = 100.0) -> Serving:
    """A policy that foretells these rewards whatever the context, at this price of a dollar."""
    k = len(ARMS)
    weights = np.zeros((k, 3))
    weights[:, -1] = q
    cost = CostModel(np.zeros((k, 3)), np.full(k, 1e-9))
    curve = PriceCurve(np.array([0.0, price]), np.array([1e6, 0.0]))
    policy = LinearPolicy(
        ARMS, "vector-2", Scaler(np.zeros(2), np.ones(2)), weights, cost, np.ones(k, bool), PRICES, curve, 1e-9, 0.02
    )
    return Serving(policy, "000001")


def turns(made: Router, clock: Clock, n: int, **others):
    """So many turns of one conversation, a second apart."""
    found = []
    for _ in range(n):
        found.append(made.decide(CONTEXT, "ann", **({"conversation": "c"} | others)))
        clock.now += 1.0
    return found


class TestStaying:
    def test_a_later_turn_stays_with_the_arm_and_draws_nothing(self, clock):
        """One draw; the turns behind it name it, are certain, and are never learned from."""
        made = router(clock)

        first, *later = turns(made, clock, 20)

        assert activated(first)
        assert {turn.arm for turn in later} == {first.arm}
        assert {turn.policy for turn in later} == {FOLLOWS + first.id}
        assert not any(activated(turn) for turn in later)
        assert all(turn.propensity == 1.0 and set(turn.excluded.values()) == {ANOTHER} for turn in later)

    def test_without_a_conversation_every_request_is_drawn(self, clock):
        """Which would pass the test above by chance only once in many worlds."""
        made = router(clock)
        assert len({made.decide(CONTEXT, "ann").arm for _ in range(40)}) > 1

    def test_other_processes_stay_with_it_too(self, clock, tmp_path):
        """The record is all that they share."""
        with SqlRecord(f"sqlite:///{tmp_path / 'record.db'}") as record:
            first = router(clock, record=record).decide(CONTEXT, conversation="c")
            others = [router(clock, record=record, seed=seed).decide(CONTEXT, conversation="c") for seed in range(1, 9)]
        assert {turn.arm for turn in others} == {first.arm}

    def test_conversations_of_other_scopes_do_not_meet(self, clock):
        """Not even under one key."""
        record = MemoryRecord()
        router(clock, record=record).decide(CONTEXT, conversation="c")
        elsewhere = Router(
            Scope("acme", "other", "model_routing"), domain(1.0), record, np.random.default_rng(1), clock
        )
        assert activated(elsewhere.decide(CONTEXT, conversation="c"))

    def test_money_counts_each_turn_as_a_request(self, clock):
        """A budget is per request: a long conversation is many."""
        made = router(clock)
        for turn in turns(made, clock, 5):
            made.report(Outcome(turn.id, clock.now, SCOPE, cost_usd=0.25))
        assert (made.pacer.requests, made.pacer.spent) == (5, 1.25)

    def test_a_conversation_that_certainly_begins_is_drawn(self, clock):
        """Whatever stands in the record under its key."""
        made = router(clock)
        assert all(activated(turn) for turn in turns(made, clock, 5, conversation=Talk("c", begins=True)))


class TestDrawingAnew:
    def test_when_the_arm_is_unavailable(self, clock):
        """A breaker, a prompt that does not fit: whoever says so names the reason. The next turn stays with the new."""
        made = router(clock)
        first = made.decide(CONTEXT, conversation="c")

        second = made.decide(CONTEXT, "", {first.arm: "its breaker is open"}, conversation="c")
        third = made.decide(CONTEXT, conversation="c")

        assert activated(second)
        assert second.excluded[first.arm] == "its breaker is open"
        assert (third.arm, third.policy) == (second.arm, FOLLOWS + second.id)

    @pytest.mark.parametrize(("silence", "is_drawn"), [(HOUR, False), (HOUR + 1.0, True)])
    def test_after_a_silence(self, clock, silence, is_drawn):
        """Counted from the last turn, not from the draw."""
        made = router(clock)
        turns(made, clock, 1)
        clock.now += HOUR / 2
        turns(made, clock, 1)
        clock.now += silence - 1.0
        assert activated(turns(made, clock, 1)[0]) is is_drawn

    def test_when_the_budget_does_not_reach_the_arm_any_more(self, clock):
        """The running cap takes it out of reach, as it does for everybody."""
        made = router(clock, domain(2e-2, burst=1))
        dear = next(d for i in range(1000) if (d := made.decide(CONTEXT, conversation=f"c{i}")).arm == "dear")
        made.report(Outcome(dear.id, clock.now, SCOPE, cost_usd=1e3))
        again_ = made.decide(CONTEXT, conversation=dear.conversation)
        assert activated(again_)
        assert again_.arm == "cheap"

    def test_when_the_arm_left_the_configuration(self, clock):
        """A conversation outlives a configuration."""
        record = MemoryRecord()
        first = router(clock, record=record).decide(CONTEXT, conversation="c", pinned="dear")
        config = domain(1.0)
        less = config.model_copy(update={"arms": config.arms[:2]})
        assert first.arm == "dear"
        assert activated(router(clock, less, record, seed=1).decide(CONTEXT, conversation="c"))

    def test_an_arm_that_the_caller_pinned_stays(self, clock):
        """Nobody drew it, nobody learns from it, and the conversation goes on with it."""
        made = router(clock)
        first = made.decide(CONTEXT, conversation="c", pinned="dear")
        second = made.decide(CONTEXT, conversation="c")
        third = made.decide(CONTEXT, conversation="c", pinned="cheap")
        assert (second.arm, second.policy) == ("dear", FOLLOWS + first.id)
        assert third.arm == "cheap"
        assert not any(map(activated, (first, second, third)))


class TestWhatIsSaidOfATurn:
    def test_it_is_said_of_the_draw_and_learned_once(self, clock):
        """Quality, votes: of the whole conversation. The log has one round."""
        record = MemoryRecord()
        made = router(clock, record=record)
        first, _, third = turns(made, clock, 3)
        made.report(Outcome(first.id, clock.now, SCOPE, quality=0.9, cost_usd=0.5, latency_s=1.0))
        made.report(Outcome(third.id, clock.now + 1, SCOPE, quality=0.2, cost_usd=0.75, latency_s=2.0, key="k"))

        log = feedback(rows(record), SCOPE, made.domain, clock.now + 2)

        assert (log.ids, log.rewards.tolist(), log.costs.tolist()) == ((first.id,), [0.2], [0.5])
        copy = record.outcomes(first.id)[1]
        assert (copy.key, copy.cost_usd, copy.latency_s) == (f"turn-{third.id}-k", None, None)

    def test_aggregates_are_over_the_turns(self, clock):
        """The mean of what was said of each."""
        record = MemoryRecord()
        made = router(clock, domain(1.0, reward={"aggregate": "mean"}), record)
        for turn, vote in zip(turns(made, clock, 4), (1, 1, -1, 1), strict=True):
            made.report(Outcome(turn.id, clock.now, SCOPE, vote=vote))
        assert feedback(rows(record), SCOPE, made.domain, clock.now).rewards.tolist() == [0.75]

    def test_a_turn_in_which_the_arm_failed_is_no_word_on_the_others(self, clock):
        """It stays with the turn."""
        record = MemoryRecord()
        made = router(clock, record=record)
        first, second = turns(made, clock, 2)
        made.report(Outcome(first.id, clock.now, SCOPE, vote=1))
        made.report(Outcome(second.id, clock.now, SCOPE, quality=0.0, latency_s=1.0, result="failed:server"))
        assert len(record.outcomes(first.id)) == 1

    def test_a_stand_in_answers_for_itself(self, clock):
        """What is said of it is said of it at the draw too, and earns the arm drawn nothing."""
        record = MemoryRecord()
        made = router(clock, record=record)
        first, second = turns(made, clock, 2)
        made.report(Outcome(second.id, clock.now, SCOPE, vote=1, arm="another"))
        (copy,) = record.outcomes(first.id)
        assert copy.arm == "another"
        assert reward([copy], first.time, clock.now, made.domain.reward) is None

    def test_what_one_person_says_does_not_cling_to_a_draw_of_another(self, clock):
        """Each can be erased without the other."""
        record = MemoryRecord()
        made = router(clock, record=record)
        first = made.decide(CONTEXT, "ann", conversation="c")
        second = made.decide(CONTEXT, "ben", conversation="c")
        made.report(Outcome(second.id, clock.now, SCOPE, vote=-1))
        assert second.arm == first.arm
        assert record.outcomes(first.id) == []

    def test_an_erased_draw_takes_no_turn_down_with_it(self, clock, tmp_path):
        """The turn still hears what is said of it."""
        with SqlRecord(f"sqlite:///{tmp_path / 'record.db'}") as record:
            made = router(clock, record=record)
            first, second = turns(made, clock, 2)
            record.erase("acme", before=clock.now - 1.5)
            made.report(Outcome(second.id, clock.now, SCOPE, vote=1))
            assert [len(record.outcomes(one.id)) for one in (first, second)] == [0, 1]


CAME = {"cost_usd": 0.1, "latency_s": 1.0, "input_tokens": 9_000, "output_tokens": 1_000}


class TestSwitching:
    """A domain that draws each turn. 10,000 tokens are cached: staying saves .09 USD, worth 9 at 100 a dollar."""

    def second(self, clock, config, serving, came=CAME, first_arm="cheap", wait=1.0, **others):
        """The second turn of a conversation that began with `first_arm`."""
        made = router(clock, config, serving=serving)
        first = made.decide(CONTEXT, conversation="c", pinned=first_arm)
        if came:
            made.report(Outcome(first.id, clock.now, SCOPE, **came))
        clock.now += wait
        return made.decide(CONTEXT, conversation="c", **others)

    def test_an_arm_whose_gain_does_not_pay_for_the_cache_is_excluded_with_its_reason(self, clock):
        """Nothing is forced: the turn is a draw among those that are left, and is learned from."""
        made = self.second(clock, priced(decide="each_turn"), foretelling((0.5, 0.7, 0.9)))
        assert activated(made)
        assert made.arm == "cheap"
        assert dict(made.excluded) == {"middle": DEAR, "dear": DEAR}

    def test_an_arm_that_pays_stays(self, clock):
        """At a hundredth of the tokens .0009 USD are at stake, worth .09: .1 more is enough, .05 is not."""
        came = CAME | {"input_tokens": 90, "output_tokens": 10}
        made = self.second(clock, priced(decide="each_turn"), foretelling((0.5, 0.55, 0.6)), came)
        assert dict(made.excluded) == {"middle": DEAR}
        assert made.probabilities[2] > 0.9

    @pytest.mark.parametrize(
        "change",
        [
            {"came": None},
            {"came": CAME | {"arm": "another"}},
            {"came": CAME | {"result": "failed:stalled"}},
            {"wait": HOUR + 1.0},
            {"unavailable": {"cheap": "resting"}},
            {"serving": foretelling((0.5, 0.7, 0.9), price=0.0)},
        ],
    )
    def test_nothing_is_excluded_where_nothing_is_lost(self, clock, change):
        """No tokens known, the cache of a stand-in, of a failure; a long silence; no choice; money no object."""
        serving = change.pop("serving", foretelling((0.5, 0.7, 0.9)))
        made = self.second(clock, priced(decide="each_turn"), serving, **change)
        assert DEAR not in made.excluded.values()
        assert activated(made)
        assert made.arm == "dear" or made.propensity < 0.1

    def test_a_policy_that_foretells_nothing_stays(self, clock):
        """It cannot say what switching would earn."""
        made = self.second(clock, priced(decide="each_turn"), None)
        assert made.policy.startswith(FOLLOWS)

    def test_once_is_once_whatever_it_would_earn(self, clock):
        """The default."""
        made = self.second(clock, priced(), foretelling((0.0, 0.5, 1.0)))
        assert (made.arm, activated(made)) == ("cheap", False)

    @settings(max_examples=60, deadline=None)
    @given(
        q=st.tuples(*[st.floats(0, 1)] * 3),
        tokens=st.integers(0, 20_000),
        price=st.floats(0, 50),
        first=st.sampled_from(ARMS),
    )
    def test_exactly_those_stay_whose_gain_pays_and_it_replays_to_the_bit(self, q, tokens, price, first):
        """Law: gain >= lambda tokens (input - cached), and what was logged is all that replay needs."""
        serving, config, clock = foretelling(q, price), priced(decide="each_turn"), Clock()
        came = CAME | {"input_tokens": tokens, "output_tokens": 0}
        made = self.second(clock, config, serving, came, first)
        lost = made.price * tokens * 9e-6
        gain = np.array(q) - made.price * 1e-9 - (q[ARMS.index(first)] - made.price * 1e-9)
        for arm, worth in zip(ARMS, gain, strict=True):
            if arm == first or lost == 0.0:
                assert arm not in made.excluded
            elif abs(worth - lost) > 1e-9:
                assert (arm in made.excluded) is bool(worth < lost)
        assert replays(made, serving.policy)
        assert again(made, serving.policy).tobytes() == made.probabilities.tobytes()

    def test_the_saving_is_of_what_was_read_and_written(self, clock):
        """10,000 tokens at 9 USD less a million; nothing where no price for cached input is known."""
        arm = priced().arms[0]
        came = Outcome("d", 0.0, SCOPE, **CAME)
        judged = Outcome("d", 0.0, SCOPE, cost_usd=1.0, source="judge", arm=JUDGE)
        assert saving(arm, [came, judged]) == pytest.approx(0.09)
        assert saving(domain(1.0).arms[0], [came]) == 0.0
        assert saving(arm, [dataclasses.replace(came, input_tokens=None)]) == 0.0


class TestKnowingAConversation:
    SYSTEM, ASK = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}
    ANSWER, MORE = {"role": "assistant", "content": "Rayleigh."}, {"role": "user", "content": "And red?"}

    @pytest.fixture
    def ids(self, tmp_path):
        """The keys of a home."""
        return IdRing(tmp_path)

    def test_by_how_it_began(self, ids):
        """Later turns have the key of the first, which certainly begins; nothing of the words stands in it."""
        first = talk(ids, SCOPE, [self.SYSTEM, self.ASK], "ann")
        later = talk(ids, SCOPE, [self.SYSTEM, self.ASK, self.ANSWER, self.MORE], "ann")
        assert (first.key, first.begins, later.begins) == (later.key, True, False)
        assert len(first.key) == 32

    def test_another_beginning_user_scope_or_tenant_is_another_conversation(self, ids):
        """And a name is never taken for a beginning."""
        messages = [self.SYSTEM, self.ASK]
        keys = [
            talk(ids, SCOPE, messages, "ann").key,
            talk(ids, SCOPE, messages, "ben").key,
            talk(ids, SCOPE, [self.ASK], "ann").key,
            talk(ids, Scope("acme", "other", "model_routing"), messages, "ann").key,
            talk(ids, Scope("other", "main", "model_routing"), messages, "ann").key,
            talk(ids, SCOPE, messages, "ann", key="t-1").key,
        ]
        assert len(set(keys)) == len(keys)

    def test_by_its_name(self, ids):
        """Whatever is said in it and by whom: a thread is one conversation of many."""
        one = talk(ids, SCOPE, [self.ASK], "ann", key="thread-1")
        other = talk(ids, SCOPE, [self.MORE], "ben", key="thread-1")
        assert (one, one.begins) == (other, False)

    def test_no_message_and_no_name_is_no_conversation(self, ids):
        """A request by itself."""
        assert talk(ids, SCOPE, []).key == ""

    def test_it_survives_the_process(self, tmp_path):
        """The key lies in the home."""
        assert talk(IdRing(tmp_path), SCOPE, [self.ASK]) == talk(IdRing(tmp_path), SCOPE, [self.ASK])


@pytest.mark.parametrize("bad", [{"decide": "never"}, {"redecide_after_s": 0.0}, {"reask_s": -1.0}, {"sticky": True}])
def test_settings_that_make_no_sense_are_refused(bad):
    """With all others."""
    with pytest.raises((ConfigError, ValueError)):
        domain(1.0, conversations=bad)
