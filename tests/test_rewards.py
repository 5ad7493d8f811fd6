"""Facts about rewards: what counts, what stays missing, and how rows fold into the log of a scope."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.errors import ContextError
from bandits.record.port import Row
from bandits.rewards import SKEW_S, cost, feedback, reward, telling
from bandits.settings.reward import RewardConfig
from bandits.testing.ports import ELSEWHERE, HERE, sample_decision, sample_outcome
from bandits.types import SIGNALS, Slot
from bandits.warehouse import joining
from tests.logs import sampled_domain

T = 1_790_000_000.0  # when the decision was made; sample_outcome comes 1.2 s later
WEEK = 7 * 86_400.0
SPEC = RewardConfig()


CONFIG = sampled_domain("small", "middle", "large", "broken")


def quality(value, time=T + 1.0):
    """An outcome that measured quality."""
    return sample_outcome(quality=value, time=time)


def vote(value, time=T + 1.0):
    """An outcome that is a vote and nothing else."""
    return sample_outcome(quality=None, cost_usd=None, vote=value, time=time)


def at(decision_id="d1", time=T, **changes):
    """A decision at T that was drawn and played."""
    return sample_decision(decision_id, **{"time": time, "forced": False, "slot": Slot.STABLE} | changes)


def numbered(*entries):
    """Rows at positions 1, 2, …"""
    return [Row(position, entry) for position, entry in enumerate(entries, start=1)]


outcomes = st.builds(
    sample_outcome,
    time=st.sampled_from([T - 2 * SKEW_S, T - SKEW_S, T, T + 1, T + WEEK, T + WEEK + 1]) | st.floats(T, T + WEEK),
    quality=st.none() | st.floats(0.0, 1.0),
    vote=st.sampled_from([None, -1, 1]),
    source=st.sampled_from(["app", *SIGNALS]),
    cost_usd=st.none() | st.floats(0.0, 10.0),
    latency_s=st.floats(0.0, 2.0),
)


class TestAnotherArmAnswered:
    """The arm drawn failed and cost .01; another answered for it, cost .5, was judged .9 and voted for."""

    CAME = (
        sample_outcome(quality=0.0, cost_usd=0.01, result="failed:timeout", time=T + 1),
        sample_outcome(quality=0.9, cost_usd=0.5, arm="large", result="stop", time=T + 2),
        sample_outcome(quality=None, cost_usd=None, vote=1, arm="large", time=T + 3),
    )

    def test_the_arm_drawn_learns_that_it_failed_and_what_it_cost_itself(self):
        """It never earns what its stand-in earned; the money is spent all the same."""
        assert reward(self.CAME, T, T, SPEC) == 0.0
        assert cost(telling(self.CAME, SPEC)) == 0.01
        assert cost(self.CAME) == 0.51

    def test_as_served_it_learns_what_was_served(self):
        """Then the failure on the way is no judgement."""
        spec = RewardConfig(fallback="as_served")
        assert reward(self.CAME, T, T, spec) == 0.9
        assert cost(telling(self.CAME, spec)) == 0.51
        assert reward(self.CAME[:1], T, T, spec) is None


class TestReward:
    @pytest.mark.parametrize(("aggregate", "expected"), [("first", 0.3), ("last", 0.1), ("mean", 0.6 / 3)])
    def test_aggregates_follow_the_time_of_the_outcomes_not_their_arrival(self, aggregate, expected):
        """The first, last and mean of three qualities, in all six orders of arrival; sums must not differ."""
        arrived = [quality(0.2, T + 2), quality(0.3, T + 1), quality(0.1, T + 3)]
        spec = RewardConfig(aggregate=aggregate)
        assert {reward(order, T, T, spec) for order in itertools.permutations(arrived)} == {expected}

    def test_of_the_same_instant_first_is_the_lowest_and_last_the_highest(self):
        """A tie is broken by value, so that arrival cannot matter."""
        pair = [quality(0.7), quality(0.3)]
        assert reward(pair, T, T, RewardConfig(aggregate="first")) == 0.3
        assert reward(pair, T, T, RewardConfig(aggregate="last")) == 0.7

    def test_measured_quality_beats_every_vote(self):
        """However late the vote comes."""
        assert reward([quality(0.4, T + 1), vote(1, T + 2)], T, T, SPEC) == 0.4

    def test_votes_are_mapped_by_the_specification(self):
        """To its upvote and its downvote."""
        spec = RewardConfig(upvote=0.8, downvote=0.1)
        assert reward([vote(1)], T, T, spec) == 0.8
        assert reward([vote(-1)], T, T, spec) == 0.1
        assert reward([vote(1), vote(-1)], T, T, RewardConfig(aggregate="mean")) == 0.5

    @pytest.mark.parametrize(
        ("time", "counts"),
        [
            (T - SKEW_S - 0.001, False),
            (T - SKEW_S, True),
            (T, True),
            (T + WEEK, True),
            (T + WEEK + 0.001, False),
        ],
    )
    def test_the_window_opens_a_skew_before_the_decision_and_closes_after_window_s(self, time, counts):
        """Both ends belong to it."""
        assert (reward([quality(0.5, time)], T, T + 2 * WEEK, SPEC) == 0.5) is counts
        assert (reward([quality(0.5, time)], T, T + 2 * WEEK, SPEC) is None) is not counts

    def test_a_late_quality_does_not_silence_a_vote_in_time(self):
        """What is outside of the window is as if it had not come."""
        assert reward([vote(1), quality(0.2, T + WEEK + 1)], T, T, SPEC) == 1.0

    def test_silence_is_missing_until_the_window_closes_and_the_default_after(self):
        """Never 0 by itself; without a default it stays missing for ever."""
        spec = RewardConfig(default=0.25)
        for came in ([], [sample_outcome(quality=None)], [quality(0.9, T + WEEK + 1)]):
            assert reward(came, T, T + WEEK, spec) is None
            assert reward(came, T, T + WEEK + 0.001, spec) == 0.25
            assert reward(came, T, T + 100 * WEEK, SPEC) is None

    def test_a_reward_of_zero_is_not_missing(self):
        """Zero was measured, or voted."""
        assert reward([quality(0.0)], T, T + 2 * WEEK, RewardConfig(default=1.0)) == 0.0
        assert reward([vote(-1)], T, T + 2 * WEEK, RewardConfig(default=1.0)) == 0.0

    @given(st.lists(outcomes, max_size=6), st.sampled_from(["first", "last", "mean", "sum"]), st.randoms())
    def test_order_of_arrival_never_matters(self, came, aggregate, chance):
        """Law: any permutation gives the same reward and the same cost, to the last bit; rewards are in [0, 1]."""
        spec = RewardConfig(aggregate=aggregate, default=0.5)
        shuffled = chance.sample(came, len(came))
        value = reward(came, T, T + 2 * WEEK, spec)
        assert value == reward(shuffled, T, T + 2 * WEEK, spec)
        assert 0.0 <= value <= 1.0
        assert cost(came) == cost(shuffled)


class TestWeights:
    """A reward of several parts, each of which must be known."""

    SPEC = RewardConfig(weights={"quality": 0.6, "cost": 0.3, "latency": 0.1}, dear_usd=0.02, slow_s=10.0)

    @staticmethod
    def came(**measured):
        """An outcome with these measurements only."""
        return sample_outcome(**{"time": T, "quality": None, "cost_usd": None} | measured)

    def test_a_reward_is_the_weighted_mean_of_its_parts(self):
        """Half quality, a quarter of what earns nothing in cost, the slower of two latencies; votes as ever."""
        came = [self.came(quality=0.5, cost_usd=0.004, latency_s=1.0), self.came(cost_usd=0.001, latency_s=4.0)]
        assert reward(came, T, T, self.SPEC) == pytest.approx(0.6 * 0.5 + 0.3 * 0.75 + 0.1 * 0.6, abs=1e-15)

    def test_what_costs_too_much_or_takes_too_long_earns_nothing_for_it(self):
        """Never less than nothing."""
        assert reward([self.came(quality=1.0, cost_usd=9.0, latency_s=99.0)], T, T, self.SPEC) == pytest.approx(0.6)

    @pytest.mark.parametrize("missing", ["quality", "cost_usd", "latency_s"])
    def test_a_part_that_is_missing_makes_the_reward_missing(self, missing):
        """It is neither 0 nor left out; measured as 0, it is."""
        whole = {"quality": 0.0, "cost_usd": 0.0, "latency_s": 0.0}
        assert reward([self.came(**whole)], T, T, self.SPEC) == pytest.approx(0.4)
        assert reward([self.came(**whole | {missing: None})], T, T + 2 * WEEK, self.SPEC) is None

    def test_a_part_without_weight_is_not_asked_for(self):
        """Quality alone is the reward as it was measured, to the last bit."""
        assert reward([self.came(quality=0.1)], T, T, SPEC) == 0.1
        only_cost = RewardConfig(weights={"quality": 0.0, "cost": 2.0}, dear_usd=0.02)
        assert reward([self.came(cost_usd=0.005)], T, T, only_cost) == 0.75

    def test_silence_has_its_default_quality_and_its_real_cost(self):
        """What was measured still counts."""
        spec = self.SPEC.model_copy(update={"default": 0.5})
        came = [self.came(cost_usd=0.01, latency_s=5.0)]
        assert reward(came, T, T, spec) is None
        assert reward(came, T, T + 2 * WEEK, spec) == pytest.approx(0.5)

    def test_a_sum_of_qualities_is_at_most_1(self):
        """Partial rewards add up."""
        spec = RewardConfig(aggregate="sum")
        assert reward([quality(0.25), quality(0.5, T + 2)], T, T, spec) == 0.75
        assert reward([quality(0.75), quality(0.5, T + 2)], T, T, spec) == 1.0

    @pytest.mark.parametrize(
        ("said", "complaint"),
        [
            ({"weights": {"quality": 0.0}}, "made of something"),
            ({"weights": {"cost": 1.0}}, "must say dear_usd"),
            ({"weights": {"latency": 1.0}}, "must say slow_s"),
            ({"weights": {"quality": 0.0, "cost": 1.0}, "dear_usd": 1.0, "default": 0.5}, "quality has weight 0"),
            ({"weights": {"quality": -1.0}}, "greater than or equal to 0"),
            ({"window_s": float("inf")}, "finite"),
        ],
    )
    def test_a_specification_that_says_half_is_refused(self, said, complaint):
        """With what it lacks."""
        with pytest.raises(ValueError, match=complaint):
            RewardConfig.model_validate(said)

    def test_a_fingerprint_tells_specifications_apart(self):
        """Version and content; what is said and is the default anyway changes nothing."""
        one = RewardConfig(aggregate="mean")
        assert one.fingerprint == RewardConfig(aggregate="mean", upvote=1.0).fingerprint
        others = [
            RewardConfig(),
            RewardConfig(aggregate="mean", version=2),
            RewardConfig(aggregate="mean", default=0.0),
        ]
        assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 4
        assert RewardConfig(version=3).fingerprint.startswith("3-")


class TestColumns:
    """Whole columns of decisions are joined as each one alone."""

    @given(
        st.lists(st.lists(outcomes, max_size=5), min_size=1, max_size=5),
        st.sampled_from(["first", "last", "mean", "sum"]),
        st.sampled_from([{}, {"cost": 0.25}, {"quality": 0.7, "cost": 0.1, "latency": 0.4}]),
        st.sampled_from([None, 0.5]),
        st.sampled_from([T, T + 2 * WEEK]),
        st.sampled_from([{}, {"reask": 0.375}, {"reask": 0.25, "regenerate": 0.0}]),
        st.randoms(),
    )
    def test_they_are_equal_to_the_last_bit(self, came, aggregate, weights, default, now, signals, chance):
        """Law: rewards and costs, whatever came, in any order; missing is NaN and nothing else is."""
        about = {"aggregate": aggregate, "weights": weights, "default": default, "signals": signals}
        spec = RewardConfig(**about, dear_usd=3.0, slow_s=1.7)
        flat = [(round_, outcome) for round_, some in enumerate(came) for outcome in some]
        chance.shuffle(flat)

        def column(name, missing=math.nan):
            values = (getattr(outcome, name) for _, outcome in flat)
            return np.array([missing if value is None else value for value in values])

        columns = joining.Came(
            np.array([round_ for round_, _ in flat], np.int64),
            *(column(name) for name in ("time", "quality", "cost_usd", "latency_s")),
            np.array([2 + SIGNALS.index(o.source) if o.source in SIGNALS else o.vote or 0 for _, o in flat], np.int8),
        )
        expected = [reward(some, T, now, spec) for some in came]
        found = joining.rewards(np.full(len(came), T), columns, now, spec)
        assert [None if math.isnan(value) else value for value in found.tolist()] == expected
        spent = joining.costs(len(came), columns).tolist()
        assert [None if math.isnan(value) else value for value in spent] == [cost(some) for some in came]


class TestCost:
    def test_costs_add_up_whenever_they_come(self):
        """Early, late, with or without quality."""
        came = [sample_outcome(cost_usd=0.25, time=T - WEEK), sample_outcome(cost_usd=0.5, time=T + 9 * WEEK)]
        assert cost(came) == 0.75

    def test_costs_beyond_a_float_are_infinite(self):
        """Not an error in the middle of a log."""
        assert cost([sample_outcome(cost_usd=1e308), sample_outcome(cost_usd=1e308)]) == math.inf

    def test_nothing_measured_is_missing_and_zero_measured_is_zero(self):
        """Missing is not zero."""
        assert cost([]) is None
        assert cost([sample_outcome(cost_usd=None)]) is None
        assert cost([sample_outcome(cost_usd=0.0), sample_outcome(cost_usd=None)]) == 0.0


class TestFeedback:
    def test_one_round_is_read_as_it_was_logged(self):
        """Every field of the log, from one decision and its two outcomes."""
        decision = at()
        log = feedback(
            numbered(decision, quality(0.3), sample_outcome(quality=None, cost_usd=0.5)), HERE, CONFIG, now=T
        )
        assert (log.arms, log.schema, log.ids) == (CONFIG.arm_names, "text-1", ("d1",))
        assert (log.times.tolist(), log.actions.tolist(), log.rewards.tolist()) == ([T], [1], [0.3])
        assert log.contexts.dtype == np.float32
        assert log.contexts.tobytes() == decision.context.tobytes()
        assert log.probabilities.tobytes() == decision.probabilities.tobytes()
        assert log.propensities.tolist() == [decision.propensity]
        assert log.costs.tolist() == [1e-5 + 0.5]
        assert (log.missing, log.position) == (0, 3)

    def test_nothing_gives_an_empty_log(self):
        """No rows, no rounds, no error."""
        log = feedback([], HERE, CONFIG, now=T)
        assert (len(log), log.k, log.missing, log.position) == (0, 4, 0, 0)

    def test_an_unknown_cost_is_nan(self):
        """Not zero."""
        log = feedback(numbered(at(), sample_outcome(cost_usd=None)), HERE, CONFIG, now=T)
        assert math.isnan(log.costs[0])

    def test_only_what_was_drawn_and_played_is_learned_from(self):
        """Forced and shadow decisions are left out, and not counted as missing either; canary and holdback stay."""
        rows = numbered(
            at("forced", forced=True),
            at("shadow", slot=Slot.SHADOW),
            at("canary", slot=Slot.CANARY),
            at("holdback", slot=Slot.HOLDBACK),
            *(sample_outcome(name, time=T) for name in ("forced", "shadow", "canary", "holdback")),
        )
        log = feedback(rows, HERE, CONFIG, now=T)
        assert (log.ids, log.missing) == (("canary", "holdback"), 0)

    def test_only_the_configured_schema_is_read(self):
        """Contexts of other features mean something else; their length may differ."""
        rows = numbered(at("a"), at("b", schema="text-2", context=np.zeros(9, np.float32)), at("c"))
        rows += [Row(p, sample_outcome(name, time=T)) for p, name in ((4, "a"), (5, "b"), (6, "c"))]
        assert feedback(rows, HERE, CONFIG, now=T).ids == ("a", "c")

    def test_only_the_scope_is_read_but_the_position_is_of_all_rows(self):
        """Another tenant's rows are nobody's business here."""
        rows = numbered(at("a"), at("b", scope=ELSEWHERE), sample_outcome("a", time=T))
        rows.append(Row(4, sample_outcome("b", scope=ELSEWHERE, time=T)))
        log = feedback(rows, HERE, CONFIG, now=T)
        assert (log.ids, log.missing, log.position) == (("a",), 0, 4)

    def test_unknown_rewards_are_counted_never_filled_in(self):
        """Silence is counted; with a default, silence is a reward once the window has closed."""
        rows = numbered(at("a"), at("b"), sample_outcome("a", time=T))
        log = feedback(rows, HERE, CONFIG, now=T)
        assert (log.ids, log.missing) == (("a",), 1)
        filled = feedback(rows, HERE, sampled_domain(*CONFIG.arm_names, default=0.0), now=T + WEEK + 1)
        assert (filled.ids, filled.missing, filled.rewards.tolist()) == (("a", "b"), 0, [0.3, 0.0])

    def test_arms_are_mapped_by_name(self):
        """The list was in another order, and has a new arm since: that one had probability 0."""
        now_configured = sampled_domain("large", "new", "broken", "middle", "small")
        log = feedback(numbered(at(), quality(0.3)), HERE, now_configured, now=T)
        p = at().probabilities
        assert log.probabilities.tolist() == [[p[2], 0.0, 0.0, p[1], p[0]]]
        assert (log.actions.tolist(), log.propensities.tolist()) == ([3], [p[1]])

    def test_a_round_that_played_an_arm_no_longer_configured_counts_as_missing(self):
        """It tells no reward of any arm there is."""
        log = feedback(numbered(at(), quality(0.3)), HERE, sampled_domain("small", "large"), now=T)
        assert (len(log), log.missing) == (0, 1)

    def test_without_an_arm_the_rest_is_the_distribution_given_that_it_was_not_drawn(self):
        """small .1, middle .2, large .7, and large is gone: 1/3 and 2/3."""
        log = feedback(numbered(at(), quality(0.3)), HERE, sampled_domain("small", "middle"), now=T)
        np.testing.assert_allclose(log.probabilities, [[1 / 3, 2 / 3]], rtol=1e-15)
        assert log.propensities[0] == log.probabilities[0, 1]

    def test_without_an_arm_that_could_not_be_drawn_nothing_changes(self):
        """`broken` had probability 0: the others keep every bit."""
        log = feedback(numbered(at(), quality(0.3)), HERE, sampled_domain("small", "middle", "large"), now=T)
        assert log.probabilities.tobytes() == at().probabilities[:3].tobytes()

    def test_reading_what_is_left_of_a_retired_arm_values_a_policy_without_bias(self):
        """Enumeration: IPS over the kept rounds, each weighted by its chance, is the policy's value exactly."""
        value = {"small": 0.25, "middle": 0.75, "large": 0.5}
        target = {"small": 0.4, "middle": 0.6}
        estimate = kept = 0.0
        for action, arm in enumerate(value):
            chance = float(at().probabilities[action])
            decision = at(action=action, propensity=chance)
            log = feedback(numbered(decision, quality(value[arm])), HERE, sampled_domain(*target), now=T)
            if len(log):
                estimate += chance * target[arm] / log.propensities[0] * log.rewards[0]
                kept += chance
        assert estimate / kept == pytest.approx(0.4 * 0.25 + 0.6 * 0.75, abs=1e-12)

    def test_contexts_of_one_schema_must_have_one_length(self):
        """The error names both decisions."""
        rows = numbered(at("a"), at("b", context=np.zeros(9, np.float32)))
        rows += [Row(p, sample_outcome(name, time=T)) for p, name in ((3, "a"), (4, "b"))]
        with pytest.raises(ContextError, match=r"3 in decision a and 9 in b.*new name or version"):
            feedback(rows, HERE, CONFIG, now=T)

    def test_rows_may_come_in_any_order(self):
        """The log is in order of the decisions' positions, whatever the order in which rows are handed over."""
        rows = numbered(*(at(name, time=T - i) for i, name in enumerate("abcdef")))
        rows += [Row(7 + i, sample_outcome(name, quality=i / 10, time=T)) for i, name in enumerate("fedcba")]
        expected = feedback(rows, HERE, CONFIG, now=T)
        assert expected.ids == tuple("abcdef")
        assert expected.rewards.tolist() == [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
        for seed in range(5):
            shuffled = feedback(random.Random(seed).sample(rows, len(rows)), HERE, CONFIG, now=T)
            assert (shuffled.ids, shuffled.position) == (expected.ids, 12)
            assert shuffled.rewards.tolist() == expected.rewards.tolist()
