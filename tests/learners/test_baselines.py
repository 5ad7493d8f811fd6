"""Facts about the simple policies: optimal for what they know, within their budget, floored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import linprog

from bandits.evaluation import dr
from bandits.learners.baselines import ContextFree, arm_values, best_fixed, best_mix
from bandits.learners.first_day import exploring_mix
from bandits.learners.frozen import SIMPLE_KINDS, thaw
from bandits.money.budget import TARGET
from tests.logs import simulate, truth

problems = st.integers(1, 5).flatmap(
    lambda k: st.tuples(
        st.lists(st.floats(0.0, 1.0), min_size=k, max_size=k).map(np.array),
        st.lists(st.floats(-11.0, -3.0), min_size=k, max_size=k).map(np.exp),
        st.floats(-11.0, -3.0).map(np.exp),
    )
)


@given(problems)
def test_the_mix_is_the_optimum_of_the_linear_programme(problem):
    """Against scipy's solver; when nothing is affordable, the cheapest."""
    values, prices, budget = problem
    assume(not ((prices > budget) & (prices < budget * (1 + 1e-6))).any())  # the solver takes those for affordable

    mix = best_mix(values, prices, budget)

    assert mix.sum() == pytest.approx(1.0)
    if prices.min() > budget:
        assert mix[np.argmin(prices)] == 1.0
        return
    assert mix @ prices <= budget * (1 + 1e-9)
    solved = linprog(-values, A_ub=[prices / budget], b_ub=[1.0], A_eq=[np.ones(len(values))], b_eq=[1.0])
    assert mix @ values == pytest.approx(-solved.fun, abs=1e-6)


@given(problems)
def test_the_fixed_arm_is_the_best_of_those_within_budget(problem):
    """By enumeration."""
    values, prices, budget = problem

    arm = best_fixed(values, prices, budget)

    affordable = [a for a in range(len(values)) if prices[a] <= budget]
    if affordable:
        assert values[arm] == max(values[a] for a in affordable)
        assert arm in affordable
    else:
        assert prices[arm] == prices.min()


@given(problems)
def test_exploration_spends_the_budget_and_starves_no_arm(problem):
    """p_a = 1/(m + n price_a): positive everywhere, mean price at the budget, or uniform where that is affordable."""
    _, prices, budget = problem

    p = exploring_mix(prices, budget)

    assert p.sum() == pytest.approx(1.0)
    if prices.mean() <= budget:
        assert (p == 1.0 / len(prices)).all()
    elif prices.min() < budget * (1 - 1e-6):
        assert (p > 0.0).all()
        assert p @ prices == pytest.approx(budget, rel=1e-3)
        order = np.argsort(prices)
        assert (np.diff(p[order]) <= 1e-12).all()


def test_exploration_maximises_the_mean_logarithm():
    """No small step along the budget improves sum log p: the condition that defines it."""
    prices, budget = np.array([3e-5, 5e-4, 1.5e-2]), 1e-3
    p = exploring_mix(prices, budget)
    direction = np.linalg.svd(np.stack([np.ones(3), prices / budget]))[2][2]  # keeps sum and spend

    assert np.log(p).sum() >= np.log(p + 1e-4 * direction).sum()
    assert np.log(p).sum() >= np.log(p - 1e-4 * direction).sum()


@pytest.mark.parametrize("rule", SIMPLE_KINDS)
def test_a_rule_keeps_floor_and_budget_and_survives_freezing(rule):
    """Frozen and thawed, the same bits; spends at most the target of the budget where the floor allows it."""
    prices = np.array([1e-5, 1e-3, 2e-3])
    policy = ContextFree(rule, ("a", "b", "c"), "vector-1", np.array([0.5, 0.9, 0.95]), prices, 6e-4, 0.02)
    allowed = np.array([[True, True, True], [True, False, True], [False, True, False]])

    rows = policy.probabilities(np.zeros((3, 1), np.float32), allowed)

    assert (rows[allowed] >= 0.02 / 3 * (1 - 1e-9)).all()
    assert (rows[~allowed] == 0.0).all()
    assert rows[0] @ prices <= TARGET * 6e-4 * (1 + 1e-9)
    again = thaw(policy.freeze()).probabilities(np.zeros((3, 1), np.float32), allowed)
    assert again.tobytes() == rows.tobytes()


def test_pressure_makes_a_rule_spend_less():
    """Twice over target, half the budget."""
    prices = np.array([1e-5, 1e-3])
    policy = ContextFree("mix", ("a", "b"), "vector-1", np.array([0.5, 0.9]), prices, 5e-4, 0.02)
    context, allowed = np.zeros((1, 1), np.float32), np.array([[True, True]])

    calm, pressed = (policy.probabilities(context, allowed, pressure)[0] @ prices for pressure in (1.0, 2.0))

    assert calm == pytest.approx(TARGET * 5e-4)
    assert pressed == pytest.approx(TARGET * 2.5e-4)


def test_the_value_of_an_arm_is_its_doubly_robust_mean_where_probabilities_never_change():
    """The weights differ only where the chance to see an arm does."""
    log = simulate(300, 3)
    q_hat = np.clip(truth(log.contexts) + 0.1, 0.0, 1.0)

    values = arm_values(log, q_hat)

    robust = [dr.scores(log, np.tile(arm, (300, 1)), q_hat).mean() for arm in np.eye(3)]
    np.testing.assert_allclose(values, robust, atol=1e-12)


def test_a_rare_draw_does_not_outweigh_a_hundred_others():
    """Under pressure that comes and goes, the arm's value errs less than half as much as its doubly robust mean."""
    errors = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        p = np.where(rng.random(400) < 0.5, 0.5, 0.02)  # of the arm in question
        probabilities = np.stack([p, 0.5 - p / 2, 0.5 - p / 2], axis=1)
        actions = (rng.random((400, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
        log = replace(
            simulate(400, seed),
            actions=actions,
            probabilities=probabilities,
            propensities=probabilities[np.arange(400), actions],
            rewards=(rng.random(400) < 0.6).astype(float),
        )
        q_hat = np.full((400, 3), 0.5)
        robust = dr.scores(log, np.tile([1.0, 0.0, 0.0], (400, 1)), q_hat).mean()
        errors.append([arm_values(log, q_hat)[0] - 0.6, robust - 0.6])

    ours, robust = np.square(errors).mean(axis=0) ** 0.5
    assert ours < 0.5 * robust
    assert abs(np.mean(errors, axis=0)[0]) < 4.0 * ours / np.sqrt(200)


def test_an_arm_that_was_never_possible_is_worth_what_the_model_says():
    """Rather than a division by zero."""
    log = simulate(100, 0, probabilities=(0.5, 0.5, 0.0))

    assert arm_values(log, np.tile([0.2, 0.3, 0.4], (100, 1)))[2] == pytest.approx(0.4)
