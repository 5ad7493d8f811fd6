"""Facts about the nouns: what can be a name, and what a decision must be true to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.errors import InvalidNameError, PropensityError, ShapeError
from bandits.types import Decision, Outcome, Scope, new_id

SCOPE = Scope("acme", "main", "model_routing")


def decision(**changes: object) -> Decision:
    made = Decision(
        id="d1",
        time=1.0,
        scope=SCOPE,
        schema="vector-2",
        context=np.zeros(2, np.float32),
        arms=("a", "b"),
        excluded={},
        probabilities=np.array([0.25, 0.75]),
        action=1,
        propensity=0.75,
        policy="explore",
    )
    return replace(made, **changes)


@pytest.mark.parametrize("name", ["a:b", "", "x" * 300, "../x", "A", "-a", "a b", "a\n", "ä", "a/b", "."])
def test_a_name_that_could_not_be_a_key_everywhere_is_refused(name):
    """SQL, paths and URLs all must carry the name unchanged."""
    with pytest.raises(InvalidNameError, match="tenant must be 1 to 63"):
        Scope(name, "main", "model_routing")


def test_a_very_long_name_does_not_flood_the_message():
    """The one who reads the error sees its length, not all of it."""
    with pytest.raises(InvalidNameError) as caught:
        Scope("x" * 300, "main", "model_routing")

    assert "300 characters" in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True))
def test_a_scope_reads_back_from_its_text(name):
    """str and parse are inverse."""
    scope = Scope(name, "main", "d")

    assert Scope.parse(str(scope)) == scope


def test_a_scope_has_three_parts():
    """Two are not enough to say where a row belongs."""
    with pytest.raises(InvalidNameError, match="tenant/workspace/domain"):
        Scope.parse("acme/main")


def test_ids_sort_by_time():
    """Later decisions have greater ids, whatever their random part."""
    ids = [new_id(1_700_000_000.0 + i * 0.001) for i in range(50)]

    assert ids == sorted(ids)
    assert len(set(ids)) == 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"propensity": 0.0, "probabilities": np.array([1.0, 0.0])}, "propensity must be > 0"),
        ({"propensity": 0.5}, "equal probabilities"),
        ({"probabilities": np.array([0.5, 0.75])}, "sum to 1"),
        ({"probabilities": np.array([-0.25, 1.25]), "propensity": 1.25}, ">= 0"),
        ({"probabilities": np.array([np.nan, 0.75])}, "sum to 1"),
    ],
)
def test_a_decision_logs_the_distribution_that_was_drawn_from(changes, message):
    """A zero or invented propensity would poison every estimate."""
    with pytest.raises(PropensityError, match=message):
        decision(**changes)


@pytest.mark.parametrize("action", [-1, 2])
def test_an_action_is_one_of_the_arms(action):
    """Negative indices are not a way to count from the end."""
    with pytest.raises(ShapeError, match=r"action must be in 0\.\.1"):
        decision(action=action)


def test_probabilities_match_the_arms():
    """One number an arm."""
    with pytest.raises(ShapeError, match=r"shape \(k=2,\)"):
        decision(probabilities=np.array([0.2, 0.3, 0.5]))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"quality": 1.01},
        {"quality": float("nan")},
        {"cost_usd": -1.0},
        {"cost_usd": float("inf")},
        {"latency_s": float("nan")},
        {"vote": 0},
    ],
)
def test_an_outcome_carries_something_and_in_range(values):
    """Nothing, NaN and out of range are refused before they reach the record."""
    with pytest.raises(ShapeError):
        Outcome("d1", 1.0, SCOPE, **values)
