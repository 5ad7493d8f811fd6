"""Facts about money: what is affordable, what spending so far does, and the cap that holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.money import budget
from bandits.money.budget import TARGET, Pacer, affordable

amounts = st.lists(st.tuples(st.floats(0.0, 1e-2), st.floats(0.0, 1e-2)), max_size=60)


def test_an_arm_is_affordable_if_exploring_it_takes_a_tenth_of_the_budget_at_most():
    """3 arms share a floor of .03: an arm of 10 budgets explores for a tenth of one."""
    prices = np.array([1e-4, 1e-3, 1.01e-3])

    assert affordable(prices, 0.03, 1e-4).tolist() == [True, True, False]


def test_the_cheapest_arm_is_always_affordable():
    """Something must answer."""
    assert affordable(np.array([5.0, 4.0, 9.0]), 0.02, 1e-9).tolist() == [False, True, False]


@given(amounts)
def test_what_is_spent_is_what_was_settled_plus_what_is_reserved(pairs):
    """Reserve each, settle every second: the sum of the costs known and the prices held, in any case."""
    pacer = Pacer(1e-3, 50)
    expected = 0.0
    for i, (price, cost) in enumerate(pairs):
        pacer.reserve(f"d{i}", price)
        if i % 2:
            pacer.settle(f"d{i}", cost)
        expected += cost if i % 2 else price

    assert pacer.spent == pytest.approx(expected, abs=1e-12)
    assert pacer.requests == len(pairs)


def test_pressure_starts_at_one_and_follows_spending_slowly():
    """Twice the target for 100 requests: spending stands at 3/2 of target, and pressure at its eighth power, capped."""
    pacer = Pacer(1e-3, 50)
    assert pacer.pressure == 1.0
    for i in range(25):
        pacer.reserve(f"d{i}", 2 * TARGET * 1e-3)
    assert pacer.pressure == pytest.approx((150 / 125) ** 8)
    for i in range(75):
        pacer.reserve(f"e{i}", 2 * TARGET * 1e-3)

    assert pacer.pressure == 20.0


@given(st.lists(st.floats(0.0, 5e-2), max_size=200))
def test_spend_never_passes_the_cap_when_only_allowed_arms_are_played(costs):
    """Playing the dear arm whenever the cap allows it spends at most budget * (requests + burst)."""
    pacer = Pacer(1e-3, 5)
    for i, cost in enumerate(costs):
        dear = bool(pacer.within_cap(np.array([cost]))[0])
        pacer.reserve(f"d{i}", cost if dear else 0.0)
        pacer.settle(f"d{i}", cost if dear else 0.0)

        assert pacer.spent <= 1e-3 * (pacer.requests + 5) * (1 + 1e-9)


def test_a_second_cost_of_a_decision_adds_up():
    """A retry is money too."""
    pacer = Pacer(1e-3, 5)
    pacer.reserve("d", 1e-3)
    pacer.settle("d", 2e-3)
    pacer.settle("d", 3e-3)

    assert pacer.spent == pytest.approx(5e-3)


def test_an_app_that_never_tells_costs_does_not_fill_the_memory(monkeypatch):
    """Of the oldest decisions the promise stays counted; only their names go."""
    monkeypatch.setattr(budget, "_PROMISES", 3)
    pacer = Pacer(1e-3, burst=5)
    for i in range(10):
        pacer.reserve(f"d{i}", 0.5)
    assert list(pacer.reserved) == ["d7", "d8", "d9"]
    assert (pacer.requests, pacer.spent, pacer.promised) == (10, 5.0, 1.5)
    pacer.settle("d9", 0.25)
    assert pacer.spent == 4.75
