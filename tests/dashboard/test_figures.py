"""Facts about the numbers of the dashboard, against loops that a student could write and logs whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bandits.learners.baselines import best_mix
from bandits.record.memory import MemoryRecord
from bandits.record.port import rows
from bandits.snapshots.loading import Listed
from bandits.snapshots.manifest import Manifest
from bandits.testing.ports import ELSEWHERE, HERE, sample_decision, sample_outcome
from bandits.what_if.counterfactual import Log, fit, fixed_arm, unknown
from dashboard import figures
from dashboard.figures import DAY_S, Draws, Estimate, PlaneRow
from dashboard.words import MINUS, age, dollars, money_interval, per_thousand, percent, reward_interval, signed
from tests.dashboard.worlds import ARMS, BUDGET, DOMAIN, PRICES, truth, two_days

TRUTH = truth()


def draws(hours, arms, costs, drawn=None):
    """A day that begins at day 3."""
    return Draws(
        start=3 * DAY_S,
        times=3 * DAY_S + 3_600.0 * np.array(hours, np.float64),
        arms=arms,
        costs=np.array(costs, np.float64),
        drawn=np.ones(len(hours), bool) if drawn is None else np.array(drawn),
    )


def judged(log):
    """The log and its three fixed arms."""
    models = fit(log.feedback, DOMAIN)
    return log, [fixed_arm(log, models, arm) for arm in range(3)]


class TestMoney:
    """Spend against budget."""

    def test_unknown_costs_are_counted_and_not_guessed(self):
        """The mean is over known costs, and the pace is that mean against the budget."""
        found = figures.spend(draws([1, 2, 3], ["a"] * 3, [1e-4, math.nan, 5e-4]), 2e-4)
        assert (found.requests, found.known) == (3, 2)
        assert found.usd == pytest.approx(6e-4)
        assert found.per_request == pytest.approx(3e-4)
        assert found.pace == pytest.approx(1.5)

    def test_a_day_without_a_cost_has_no_pace(self):
        """Nothing known is not nothing spent."""
        found = figures.spend(draws([1], ["a"], [math.nan]), 2e-4)
        assert math.isnan(found.per_request)
        assert math.isnan(found.pace)
        assert found.usd == 0.0

    def test_the_curve_is_the_running_sum(self):
        """In order of time, the last point being the whole day; what a cost is not known of adds nothing."""
        found = figures.spend_curve(draws([2.5, 1.0, 3.0], ["a"] * 3, [2.0, 1.0, math.nan]), 10.0)
        assert found == [(1.0, 1.0, 10.0), (2.5, 3.0, 20.0), (3.0, 3.0, 30.0)]

    def test_a_long_day_is_thinned_but_ends_where_it_ends(self):
        """No more than 120 points, the last one the total."""
        found = figures.spend_curve(draws(np.linspace(0, 23, 5_000), ["a"] * 5_000, [1.0] * 5_000), 1.0)
        assert len(found) <= 120
        assert found[-1] == (23.0, 5_000.0, 5_000.0)

    def test_an_empty_day_has_no_curve_and_no_share(self):
        """Nothing, rather than an error."""
        empty = draws([], [], [])
        assert figures.spend_curve(empty, 1.0) == []
        assert figures.hourly_shares(empty) == []
        assert figures.spend(empty, 1.0).requests == 0


@given(st.lists(st.tuples(st.floats(0, 23.99), st.sampled_from("abc")), min_size=1, max_size=40))
def test_shares_are_counts_by_hour(chosen):
    """Against a loop; the shares of an hour sum to 1."""
    hours, arms = zip(*chosen, strict=True)
    found = figures.hourly_shares(draws(hours, list(arms), [math.nan] * len(hours)))
    counted = {}
    for hour, arm in chosen:
        counted[int(hour), arm] = counted.get((int(hour), arm), 0) + 1
    assert {(one.hour, one.arm): one.decisions for one in found} == counted
    for hour in {one.hour for one in found}:
        assert sum(one.share for one in found if one.hour == hour) == pytest.approx(1.0)


class TestQuality:
    """Reward and feedback of a day."""

    def test_the_mean_is_over_the_rewards_of_the_day(self):
        """Mean and interval are those of that day's rounds alone."""
        log = two_days(0)
        mine = [r for r, t in zip(log.feedback.rewards, log.feedback.times, strict=True) if t >= DAY_S]
        found = figures.mean_reward(log, DAY_S)
        assert found.value == pytest.approx(sum(mine) / len(mine))
        half = 1.959964 * np.std(mine, ddof=1) / math.sqrt(len(mine))
        assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))
        assert figures.mean_reward(log, 5 * DAY_S) is None

    def test_forced_and_shadow_decisions_are_not_waited_for(self):
        """The rate counts decisions that may earn a reward, and those of the day alone."""
        log = two_days(0, n=30)
        day = draws([1, 2, 3, 4], ["a"] * 4, [1.0] * 4, drawn=[True, True, True, False])
        assert figures.feedback_rate(day, log) == figures.FeedbackRate(0, 3)
        second = Draws(DAY_S, np.full(40, DAY_S), ["a"] * 40, np.ones(40), np.ones(40, bool))
        assert figures.feedback_rate(second, log).rate == pytest.approx(30 / 40)
        assert math.isnan(figures.FeedbackRate(0, 0).rate)


class TestSaved:
    """What routing earned against simple choices."""

    def test_intervals_cover_the_truth(self):
        """Reward, money and money at equal reward, each against the known truth, over 40 logs.

        An exact 95 % interval fails one of the three bounds less than once in 3,000.
        """
        t = (TRUTH.live_reward - TRUTH.rewards[0]) / (TRUTH.rewards[1] - TRUTH.rewards[0])
        mix_usd = (1 - t) * PRICES[0] + t * PRICES[1]
        hits = np.zeros(3)
        for seed in range(40):
            log, arms = judged(two_days(seed))
            found = figures.saved(log, arms, PRICES, DAY_S, BUDGET)
            assert found.arm == "cheap"
            hits += [
                found.reward.low <= TRUTH.live_reward - TRUTH.rewards[0] <= found.reward.high,
                found.usd.low <= TRUTH.usd[0] - TRUTH.live_usd <= found.usd.high,
                found.equal_reward.low <= mix_usd - TRUTH.live_usd <= found.equal_reward.high,
            ]
        assert (hits >= binom.ppf(1e-4, 40, 0.95)).all(), hits

    def test_it_is_a_difference_of_means(self):
        """The day's mean less the fixed arm's, and the fixed arm's cost less what was paid."""
        log, arms = judged(two_days(5))
        found = figures.saved(log, arms, PRICES, DAY_S, BUDGET)
        day = log.feedback.times >= DAY_S
        assert found.reward.value == pytest.approx(log.feedback.rewards[day].mean() - arms[0].rewards.mean())
        assert found.usd.value == pytest.approx(arms[0].costs.mean() - log.feedback.costs[day].mean())
        assert found.paid == pytest.approx(log.feedback.costs[day].mean())

    def test_the_best_is_chosen_among_what_the_budget_affords(self):
        """With a budget above the price of the good one, that is the one to beat."""
        log, arms = judged(two_days(5))
        assert figures.saved(log, arms, PRICES, DAY_S, 2.5e-4).arm == "cheap"
        assert figures.saved(log, arms, PRICES, DAY_S, 5e-4).arm == "good"

    def test_models_that_the_log_knows_too_little_of_are_named(self):
        """The dear one was drawn one time in ten."""
        log, arms = judged(two_days(5))
        assert figures.saved(log, arms, PRICES, DAY_S, BUDGET).unknown == ("dear",)

    def test_it_says_nothing_without_data(self):
        """No estimate of any arm, no affordable arm with an estimate, or a day of fewer than 50 rewards."""
        log, arms = judged(two_days(5))
        nothing = [unknown(log, arm) for arm in range(3)]
        assert figures.saved(log, nothing, PRICES, DAY_S, BUDGET) is None
        assert figures.saved(log, [nothing[0], *arms[1:]], PRICES, DAY_S, BUDGET) is None
        assert figures.saved(log, arms, PRICES, 9 * DAY_S, BUDGET) is None
        few = log.feedback.times < DAY_S + 100.0
        assert figures.saved(*judged(log.where(few)), PRICES, DAY_S, BUDGET) is None

    def test_no_mix_earns_as_much_as_the_best_policy(self):
        """Beyond the hull there is nothing to save against; at its foot there is the cheapest arm itself."""
        log, arms = judged(two_days(5))
        rewards = log.feedback.rewards.copy()
        rewards[log.feedback.times >= DAY_S] = 1.0
        best = Log(replace(log.feedback, rewards=rewards.copy()), log.policies)
        assert figures.saved(best, arms, PRICES, DAY_S, BUDGET).equal_reward is None
        rewards[log.feedback.times >= DAY_S] = 0.0
        worst = Log(replace(log.feedback, rewards=rewards.copy()), log.policies)
        found = figures.saved(worst, arms, PRICES, DAY_S, BUDGET)
        assert found.equal_reward == pytest.approx(found.usd)


class TestPlane:
    """Cost against quality."""

    def test_a_version_stands_by_its_own_rounds(self):
        """Mean cost and reward of the rounds that it served; fewer than 50 stand for nothing."""
        log, arms = judged(two_days(6))
        few = np.array(["explore"] * 600 + ["000001"] * 570 + ["000002"] * 30)
        rows_ = {row.name: row for row in figures.plane(Log(log.feedback, few), arms, ["000001", "000002"])}
        assert rows_["000001"].reward.value == pytest.approx(log.feedback.rewards[600:1170].mean())
        assert rows_["000001"].usd.value == pytest.approx(log.feedback.costs[600:1170].mean())
        assert (rows_["000002"].reward, rows_["000002"].verdict) == (None, "not enough data")
        assert rows_["cheap"].reward.value == pytest.approx(arms[0].rewards.mean())
        assert (rows_["dear"].usd, rows_["dear"].verdict) == (None, "not enough data")
        assert [row.kind for row in rows_.values()] == ["fixed model"] * 3 + ["policy"] * 2

    def test_the_newest_version_comes_first(self):
        """By the time of its last decision; no more than asked for."""
        log = two_days(6)
        assert figures.newest_versions(log) == ["000001", "explore"]
        assert figures.newest_versions(log, 1) == ["000001"]

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(1, 1_000), st.floats(0, 1)), min_size=2, max_size=4, unique_by=lambda p: p[0])
    )
    def test_no_mix_lies_above_the_hull(self, points):
        """Every point of the hull is the best mix at its own price, and it begins at the cheapest arm's price."""
        points = [(1e-5 * price, value) for price, value in points]
        prices, values = (np.array(column) for column in zip(*points, strict=True))
        fixed = [
            PlaneRow(str(i), "fixed model", Estimate(p, p, p), Estimate(v, v, v), 1, 1.0, "ok")
            for i, (p, v) in enumerate(points)
        ]
        found = figures.hull(fixed)
        assert found[0].usd == pytest.approx(prices.min())
        for point in found:
            best = best_mix(values, prices, point.usd * (1 + 1e-12)) @ values
            assert point.reward == pytest.approx(best, abs=1e-6)
        for i in range(len(points)):
            at = [point.reward for point in found if point.usd <= prices[i] * (1 + 1e-9)]
            assert max(at) >= values[i] - 1e-9

    def test_one_known_model_has_no_mixes(self):
        """A hull needs two."""
        assert figures.hull([PlaneRow("a", "fixed model", Estimate(1, 1, 1), Estimate(1, 1, 1), 1, 1.0, "ok")]) == []


def manifest(version):
    """A manifest of this version."""
    return Manifest(HERE, version, None, "linear", "text-1", ("a", "b"), 7, {}, 1.0, 2.0, "0" * 64, {}, "0" * 16)


def test_the_newest_version_that_verifies_is_active():
    """A newer one that is refused is named with its fault; without any, the first policy explores."""
    good, bad = Listed("000001", manifest("000001"), None), Listed("000002", manifest("000002"), "expired")
    found = figures.active([good, bad], "explore")
    assert (found.version, found.kind, found.manifest) == ("000001", "linear", good.manifest)
    assert found.faults == ("000002: expired",)
    assert figures.active([], "explore").version == "explore"
    assert figures.active([bad], "explore").manifest is None


def test_the_tail_is_of_one_scope():
    """Counts and the last decision of the scope asked for, not of a neighbour."""
    record = MemoryRecord()
    record.append(sample_decision("d1", time=5.0), sample_outcome("d1"), sample_decision("d2", time=4.0))
    record.append(sample_decision("d3", time=9.0, scope=ELSEWHERE))
    found = figures.tail(list(rows(record)), HERE)
    assert found == figures.Tail(2, 1, 5.0, "middle")
    assert figures.tail([], HERE) == figures.Tail(0, 0, None, None)


def test_numbers_read_well():
    """Units, three digits, and one minus sign."""
    assert dollars(0.2886) == "$0.289"
    assert dollars(-0.0312) == f"{MINUS}$0.0312"
    assert (dollars(15.0), dollars(1234.5), dollars(0.0), dollars(math.nan)) == (
        "$15.00",
        "$1,234.50",
        "$0.00",
        "unknown",
    )
    assert per_thousand(3e-4) == "$0.300"
    assert money_interval(Estimate(9.55e-5, 5.24e-5, 1.385e-4)) == "95 %: $0.0524 to $0.1385"
    assert reward_interval(Estimate(0.1, -0.02, 0.22), sign=True) == f"95 %: {MINUS}0.020 to +0.220"
    assert reward_interval(Estimate(0.1, -math.inf, math.inf)) == "no interval from one reward"
    assert (signed(0.1), signed(-0.1)) == ("+0.100", f"{MINUS}0.100")
    assert (age(59), age(61), age(7_300), age(200_000), age(-3)) == ("59 s", "1 min", "2 h", "2 d", "0 s")
    assert percent(0.963) == "96 %"
    assert figures.negated(Estimate(1.0, 0.5, 2.0)) == Estimate(-1.0, -2.0, -0.5)
    assert figures.catalogue(DOMAIN).tolist() == PRICES.tolist()
    assert DOMAIN.arm_names == ARMS
