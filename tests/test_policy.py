"""Facts about the one draw and the floor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chisquare

from bandits.errors import PropensityError
from bandits.policy import draw, with_floor


def weights(k: int) -> st.SearchStrategy:
    return hnp.arrays(np.float64, k, elements=st.floats(0.0, 1.0)).filter(lambda w: w.sum() > 1e-3)


@given(st.integers(1, 8).flatmap(weights), st.integers(0, 2**32))
def test_the_propensity_is_the_drawn_arms_own_probability_and_never_zero(w, seed):
    """What is sampled and what is logged come from the same row."""
    p = w / w.sum()

    action, propensity = draw(p, np.random.default_rng(seed))

    assert propensity == p[action]
    assert propensity > 0.0


def test_draws_follow_the_distribution():
    """20,000 draws against their row by chi-square; the same draws refute another row (the negative control)."""
    p = np.array([0.02, 0.28, 0.0, 0.7])
    rng = np.random.default_rng(1)
    counts = np.bincount([draw(p, rng).action for _ in range(20_000)], minlength=4)

    assert counts[2] == 0
    played = [0, 1, 3]
    assert chisquare(counts[played], 20_000 * p[played]).pvalue > 1e-6
    assert chisquare(counts[played], 20_000 * np.array([0.05, 0.25, 0.7])).pvalue < 1e-6


@pytest.mark.parametrize("row", [[0.5, 0.6], [1.5, -0.5], [np.nan, 1.0], [0.0, 0.0]])
def test_a_row_that_is_no_distribution_is_not_drawn_from(row):
    """Nor repaired in silence."""
    with pytest.raises(PropensityError, match="sum to 1"):
        draw(np.array(row), np.random.default_rng(0))


@given(
    st.integers(1, 6).flatmap(
        lambda k: st.tuples(
            hnp.arrays(np.float64, (5, k), elements=st.floats(0.0, 1.0)),
            hnp.arrays(np.bool_, (5, k)).map(lambda m: m | ~m.any(axis=1, keepdims=True)),
        )
    ),
    st.floats(0.001, 0.5),
)
def test_every_allowed_arm_keeps_its_floor_and_no_other_arm_any_mass(rows, floor):
    """Rows sum to 1, are >= floor / m on the m allowed arms, and 0 elsewhere."""
    probabilities, allowed = rows

    mixed = with_floor(probabilities, allowed, floor)

    np.testing.assert_allclose(mixed.sum(axis=1), 1.0, atol=1e-12)
    least = floor / allowed.sum(axis=1, keepdims=True)
    assert (mixed >= np.where(allowed, least * (1 - 1e-12), 0.0)).all()
    assert (mixed[~allowed] == 0.0).all()


def test_a_row_without_an_allowed_arm_is_an_error():
    """The router answers such a request with the cheapest arm; here it would be a bug."""
    with pytest.raises(PropensityError, match="at least one arm"):
        with_floor(np.array([[1.0, 0.0]]), np.array([[False, False]]), 0.02)
