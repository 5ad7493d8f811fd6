"""Facts about the first day: even at first, within the budget always, and ever more where draws decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.learners import first_day
from bandits.learners.baselines import ContextFree, best_mix
from bandits.learners.first_day import EVEN, exploring_mix, first_mix, thompson_mix
from bandits.learners.frozen import thaw


def problem(seed: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Values, counts, prices and a budget, over orders of magnitude."""
    rng = np.random.default_rng(seed)
    return rng.random(k), rng.integers(0, 300, k) * 1.0, np.exp(rng.uniform(-11, -3, k)), np.exp(rng.uniform(-11, -3))


PROBLEMS = given(st.integers(0, 2**32), st.integers(1, 5))


@settings(deadline=None)
@PROBLEMS
def test_before_the_first_reward_all_arms_are_explored_evenly(seed, k):
    """As evenly as the budget allows."""
    values, _, prices, budget = problem(seed, k)

    np.testing.assert_array_equal(
        first_mix(values, np.zeros(len(prices)), prices, budget), exploring_mix(prices, budget)
    )


@settings(deadline=None)
@PROBLEMS
def test_whatever_is_believed_it_is_a_distribution_within_the_budget(seed, k):
    """When nothing is affordable, the cheapest; and no arm has less than its share of the even spread."""
    values, counts, prices, budget = problem(seed, k)

    p, q = thompson_mix(values, counts, prices, budget), first_mix(values, counts, prices, budget)

    for row in (p, q):
        assert row.sum() == pytest.approx(1.0)
        assert (row >= 0.0).all()
        assert row @ prices <= max(budget, prices.min()) * (1 + 1e-9)
    assert (q >= EVEN * exploring_mix(prices, budget) - 1e-12).all()


def test_it_is_the_mean_of_the_best_mixes_over_draws_of_the_beliefs():
    """Against a loop over the draws, each with the linear programme's solver; Beta's own mean and deviation."""
    values, counts = np.array([0.4, 0.6, 0.7]), np.array([5.0, 20.0, 2.0])
    prices, budget = np.array([1e-4, 1e-3, 1e-2]), 2e-3
    ones, zeros = 1.0 + counts * values, 1.0 + counts * (1.0 - values)
    mean, both = ones / (ones + zeros), ones + zeros
    deviation = np.sqrt(ones * zeros / (both**2 * (both + 1.0)))
    drawn = mean + deviation * first_day._normal(3)

    slow = np.mean([best_mix(each, prices, budget) for each in drawn], axis=0)

    np.testing.assert_allclose(thompson_mix(values, counts, prices, budget), slow, atol=1e-12)


def test_draws_go_where_they_decide():
    """An arm surely worse is left to the even spread; two that cannot be told apart share the rest."""
    values, counts = np.array([0.3, 0.8, 0.8]), np.array([200.0, 200.0, 200.0])

    p = first_mix(values, counts, np.full(3, 1e-3), 1.0)

    assert p[0] == pytest.approx(EVEN / 3)
    assert p[1] == pytest.approx((1.0 - EVEN / 3) / 2, abs=0.1)


def test_knowing_goes_through_a_frozen_policy():
    """And only the rule that explores asks how often an arm was heard of."""
    values, counts = np.array([0.3, 0.8, 0.8]), np.array([200.0, 20.0, 2.0])
    contexts, allowed = np.zeros((1, 2), np.float32), np.ones((1, 3), np.bool_)

    for rule in ("explore", "mix", "fixed"):
        policy = ContextFree(rule, ("a", "b", "c"), "vector-2", values, np.array([1e-4, 1e-3, 1e-2]), 5e-3, 0.02)
        knowing = policy.knowing(values, counts)
        rows = [each.probabilities(contexts, allowed).tobytes() for each in (policy, knowing, thaw(knowing.freeze()))]
        assert rows[1] == rows[2]
        assert (rows[0] == rows[1]) == (rule != "explore")
