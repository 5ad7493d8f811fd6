"""Advice: each sentence has the figures that it rests on; what the log does not show is not advised on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bandits.monitoring.recommend import Fall, Figures, look, recommend
from bandits.monitoring.trend import DAY, Trend
from bandits.types import Scope
from bandits.what_if.counterfactual import Log
from tests.logs import domain, simulate

SCOPE = Scope("acme", "main", "routing")
WELL = Figures(1000, 900, 9e-4, 1e-3, 0.02, {"a": 400.0, "b": 300.0}, {}, Trend(9, 0.0, -0.01, 0.01), {})


def log_of(feedback):
    """One policy acted."""
    return Log(feedback, np.full(len(feedback), "explore"))


class TestRecommend:
    """From figures to sentences."""

    def test_all_well_is_no_sentence(self):
        assert recommend(WELL, SCOPE) == []
        assert recommend(Figures(0, 0, None, 1e-3, 0.02, {}, {}, None, {}), SCOPE) == []

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"quarantined": ("a",)}, ["a is kept away"]),
            ({"falls": {"b": Fall(1.0, 0.8123, 0.4)}}, ["reward of b fell from 0.812 to 0.400"]),
            ({"spend": 2e-3}, ["2.00e-03 USD per request is 200% of the budget"]),
            ({"spend": 2e-4}, ["Only 20% of the budget is spent"]),
            ({"rewards": Trend(9, -0.02, -0.03, -0.01)}, ["falls by 0.0200 a day", "0.0100 to 0.0300, 9 days"]),
            ({"rewarded": 100}, ["100 of 1,000 decisions (10%) have a reward"]),
            (
                {"effective": {"a": 400.0, "b": 12.4}},
                ["Only 12 effective rounds speak for b", "200 are needed", "0.02"],
            ),
            ({"barred": {"c": 5e-2}}, ["c was never allowed", "5.00e-02", "1.00e-03"]),
        ],
    )
    def test_each_fault_is_one_sentence_with_its_figures_and_a_command(self, change, words):
        (one,) = recommend(replace(WELL, **change), SCOPE)
        for word in words:
            assert word in one.text
        assert one.command.startswith("pilotage ")

    def test_the_most_urgent_comes_first_and_few_decisions_say_nothing(self):
        bad = replace(WELL, quarantined=("a",), falls={"b": Fall(1.0, 0.8, 0.7)}, spend=2e-3, rewarded=100)
        assert [one.text.split()[0] for one in recommend(bad, SCOPE)] == ["a", "The", "2.00e-03", "Only"]
        few = replace(WELL, decisions=150, rewarded=3, spend=1e-5, effective={"a": 1.0})
        assert recommend(few, SCOPE) == []


class TestLook:
    """From a log to figures."""

    def test_counts_spend_and_effective_rounds_are_those_of_the_log(self):
        log = replace(simulate(2000, 0), missing=500)
        found = look(log_of(log), domain(1.5e-3))
        assert (found.decisions, found.rewarded) == (2500, 2000)
        assert found.spend == pytest.approx(log.costs.mean())
        for i, arm in enumerate(log.arms):
            assert found.effective[arm] == pytest.approx((log.actions == i).sum())
        assert found.barred == {}
        assert found.rewards is None
        unknown = look(log_of(replace(log, costs=np.full(2000, np.nan))), domain(1.5e-3))
        assert unknown.spend is None

    def test_an_arm_that_the_budget_never_allows_is_told_with_the_budget_that_does(self):
        """At that budget exploring it costs a tenth: the rule of budget.affordable."""
        from bandits.money.budget import affordable

        log = simulate(500, 1, probabilities=(0.5, 0.5, 0.0))
        small = domain(1e-5, floor=0.3)
        found = look(log_of(log), small)
        assert set(found.barred) == {"dear"}
        prices = np.array([arm.usd_per_request for arm in small.arms])
        assert affordable(prices, 0.3, 1.0001 * found.barred["dear"])[2]
        assert not affordable(prices, 0.3, 0.999 * found.barred["dear"])[2]

    def test_a_falling_reward_is_seen_by_the_day_and_by_the_arm(self):
        """Dear falls from .85 to .4 in the last third; the same log without that is the negative control."""
        log = replace(simulate(6000, 2), times=np.linspace(0.0, 12 * DAY - 1.0, 6000))
        assert look(log_of(log), domain(1.5e-3)).falls == {}
        broken = (np.arange(6000) >= 4000) & (log.actions == 2)
        fallen = replace(log, rewards=np.where(broken, log.rewards - 0.45, log.rewards).clip(0, 1))
        found = look(log_of(fallen), domain(1.5e-3))
        assert set(found.falls) == {"dear"}
        assert found.falls["dear"].usual == pytest.approx(0.84, abs=0.03)
        assert found.falls["dear"].now == pytest.approx(0.4, abs=0.03)
        assert found.falls["dear"].time > log.times[4000]
        assert found.rewards.n == 12
        assert found.rewards.high < 0.0

    def test_an_arm_that_has_recovered_is_not_told_of(self):
        log = simulate(12_000, 3)
        broken = (np.arange(12_000) >= 3000) & (np.arange(12_000) < 5000) & (log.actions == 2)
        fallen = replace(log, rewards=np.where(broken, log.rewards - 0.45, log.rewards).clip(0, 1))
        assert look(log_of(fallen.where(np.arange(12_000) < 5000)), domain(1.5e-3)).falls
        assert look(log_of(fallen), domain(1.5e-3)).falls == {}
