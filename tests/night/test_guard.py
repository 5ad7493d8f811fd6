"""The guard: the candidate only if it is affordable and shown to be better than simple."""

import math

import numpy as np
import pytest

from bandits.errors import EvidenceError, NotEnoughDataError, ShapeError
from bandits.night.guard import choose

COSTS = {"candidate": 3e-4, "mix": 3e-4, "fixed": 1e-4}
BUDGET = 3e-4
N = 100


def spread(mean):
    """100 scores with this mean, and a standard error of about 0.1005."""
    return mean + np.tile([1.0, -1.0], N // 2)


def flat(mean):
    """100 equal scores."""
    return np.full(N, mean)


class TestChoice:
    """Which of the three serves."""

    def test_the_candidate_needs_more_than_one_standard_error(self):
        above = choose(spread(0.62), flat(0.5), flat(0.4), costs=COSTS, budget=BUDGET)
        below = choose(spread(0.58), flat(0.5), flat(0.4), costs=COSTS, budget=BUDGET)
        assert (above.chosen, below.chosen) == ("candidate", "mix")
        assert above.advantage == pytest.approx(0.12)
        assert above.standard_error == pytest.approx(math.sqrt(1 / 99))
        assert above.reason == (
            "The candidate serves: its advantage over the context-free mix is +0.1200 with a standard error of 0.1005."
        )
        assert "not shown to be better" in below.reason

    def test_the_advantage_is_paired(self):
        """What both policies share cancels: noise of 0.1 hides nothing from a difference of 0.01 in each round."""
        found = choose(spread(0.51), spread(0.5), flat(0.4), costs=COSTS, budget=BUDGET)
        assert found.chosen == "candidate"
        assert found.standard_error == pytest.approx(0.0, abs=1e-8)

    def test_the_better_simple_policy_is_the_one_to_beat(self):
        found = choose(flat(0.5), flat(0.4), flat(0.6), costs=COSTS, budget=BUDGET)
        assert (found.chosen, found.advantage) == ("fixed", pytest.approx(-0.1))
        found = choose(flat(0.5), flat(0.6), flat(0.4), costs=COSTS, budget=BUDGET)
        assert (found.chosen, found.advantage) == ("mix", pytest.approx(-0.1))

    def test_the_fixed_arm_wins_a_tie(self):
        assert choose(flat(0.1), flat(0.5 + 1e-12), flat(0.5), costs=COSTS, budget=BUDGET).chosen == "fixed"
        assert choose(flat(0.1), flat(0.5 + 1e-6), flat(0.5), costs=COSTS, budget=BUDGET).chosen == "mix"

    def test_what_is_known_besides_the_scores_chooses_between_the_simple_policies(self):
        """The scores of each fold come from what the others chose; all rounds together know more."""
        scores = flat(0.1), flat(0.5), flat(0.4)
        assert choose(*scores, costs=COSTS, budget=BUDGET, mix_lead=-0.01).chosen == "fixed"
        assert choose(*scores, costs=COSTS, budget=BUDGET, mix_lead=0.0).chosen == "fixed"
        assert choose(*reversed(scores), costs=COSTS, budget=BUDGET, mix_lead=0.01).chosen == "mix"

    def test_a_candidate_equal_to_the_fixed_arm_does_not_replace_it(self):
        assert choose(flat(0.5), flat(0.5), flat(0.5), costs=COSTS, budget=BUDGET).chosen == "fixed"

    def test_a_candidate_over_budget_is_refused_however_good(self):
        found = choose(flat(1.0), flat(0.5), flat(0.4), costs={**COSTS, "candidate": 3.1e-4}, budget=BUDGET)
        assert (found.chosen, found.advantage) == ("mix", pytest.approx(0.5))
        assert found.reason == (
            "The candidate would cost 0.00031 USD per request and the budget is 0.0003, so the context-free mix serves."
        )

    def test_a_cost_at_the_budget_to_rounding_is_within_it(self):
        costs = {**COSTS, "candidate": BUDGET * (1 + 1e-12)}
        assert choose(flat(1.0), flat(0.5), flat(0.4), costs=costs, budget=BUDGET).chosen == "candidate"

    def test_a_mix_over_budget_is_neither_chosen_nor_the_one_to_beat(self):
        costs = {**COSTS, "mix": 4e-4}
        assert choose(flat(0.3), flat(0.9), flat(0.4), costs=costs, budget=BUDGET).chosen == "fixed"
        assert choose(flat(0.5), flat(0.9), flat(0.4), costs=costs, budget=BUDGET).chosen == "candidate"

    def test_the_fixed_arm_serves_when_nothing_is_affordable(self):
        costs = dict.fromkeys(COSTS, 1.0)
        assert choose(flat(0.9), flat(0.8), flat(0.1), costs=costs, budget=BUDGET).chosen == "fixed"


class TestBadInput:
    """What makes no sense is refused."""

    @pytest.mark.parametrize("who", [0, 1, 2])
    def test_scores_that_are_not_finite_are_refused(self, who):
        scores = [flat(0.5), flat(0.5), flat(0.5)]
        scores[who][3] = math.nan
        with pytest.raises(EvidenceError, match=r"must be finite, but got nan at rows \[3\]"):
            choose(*scores, costs=COSTS, budget=BUDGET)

    def test_scores_must_be_of_the_same_rounds(self):
        with pytest.raises(ShapeError, match="n=100, 99 and 100"):
            choose(flat(0.5), flat(0.5)[1:], flat(0.5), costs=COSTS, budget=BUDGET)
        with pytest.raises(ShapeError, match=r"mix must have shape \(n,\)"):
            choose(flat(0.5), flat(0.5)[:, None], flat(0.5), costs=COSTS, budget=BUDGET)

    def test_one_round_is_not_enough(self):
        with pytest.raises(NotEnoughDataError, match="at least 2 rounds, but got 1"):
            choose(np.ones(1), np.zeros(1), np.zeros(1), costs=COSTS, budget=BUDGET)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
    def test_costs_and_budget_must_be_dollars(self, bad):
        with pytest.raises(EvidenceError, match="candidate must be finite USD per request"):
            choose(flat(0.5), flat(0.5), flat(0.5), costs={**COSTS, "candidate": bad}, budget=BUDGET)
        with pytest.raises(EvidenceError, match="budget must be finite USD per request"):
            choose(flat(0.5), flat(0.5), flat(0.5), costs=COSTS, budget=bad)

    def test_every_policy_must_have_a_cost(self):
        with pytest.raises(EvidenceError, match="costs must name candidate, mix and fixed, but got fixed, mix"):
            choose(flat(0.5), flat(0.5), flat(0.5), costs={"mix": 1.0, "fixed": 1.0}, budget=BUDGET)
