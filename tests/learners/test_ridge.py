"""Facts about exact sums of a regression: blocks, halves and rows never show in them."""

from __future__ import annotations

import numpy as np
import pytest

from bandits.learners.grid import STEP, limbs, on_grid, snap
from bandits.learners.ridge import BLOCK, Gram, moments, rowwise
from bandits.learners.scaling import ContextSums

RNG = np.random.default_rng(0)
N = 2 * BLOCK + 77
PHI = on_grid(RNG.normal(size=(N, 6)), 5.0)
ACTIONS = RNG.integers(0, 3, N)
TARGETS = on_grid(RNG.random(N), 1.0)


def test_sums_over_blocks_are_those_of_each_event_in_turn():
    """Against integers, which do not round."""
    steps, values = (np.round(a / STEP).astype(int).astype(object) for a in (PHI, TARGETS))
    gram = Gram.of(PHI, ACTIONS, TARGETS, 3)

    for arm in range(3):
        mine = arm == ACTIONS
        assert (gram.gram[arm] / STEP**2 == steps[mine].T @ steps[mine]).all()
        assert (gram.moment[arm] / STEP**2 == steps[mine].T @ values[mine]).all()
    assert gram.count.tolist() == np.bincount(ACTIONS).tolist()
    assert (moments(PHI, ACTIONS, TARGETS, 3) == gram.moment).all()


def test_a_gram_matrix_is_symmetric_to_the_last_bit():
    gram = Gram.of(PHI, ACTIONS, TARGETS, 3).gram

    assert (gram == gram.transpose(0, 2, 1)).all()


def test_a_row_of_estimates_does_not_depend_on_the_others():
    """Nor on how the matrix lies in memory."""
    weights = RNG.normal(size=(3, 6))
    whole = rowwise(PHI, weights)

    assert all((rowwise(PHI[i : i + m], weights) == whole[i : i + m]).all() for i, m in ((0, 1), (5, 3), (9, 4000)))
    assert (rowwise(np.asfortranarray(PHI), weights) == whole).all()
    np.testing.assert_allclose(whole, PHI @ weights.T, atol=1e-12)


def test_context_sums_over_blocks_are_those_of_integers():
    """Beyond ±512 a feature is clipped; squares of the largest still add up exactly."""
    contexts = RNG.normal(0.0, 400.0, (N, 3)).astype(np.float32)
    contexts[:, 2] = 1e9
    steps = np.round(np.clip(contexts.astype(np.float64), -512.0, 512.0) / STEP).astype(int).astype(object)

    sums = ContextSums.of(contexts)

    assert (sums.total == steps.sum(axis=0)).all()
    assert (sums.squares == (steps * steps).sum(axis=0)).all()


def test_snapping_works_in_place_and_equals_on_grid():
    values = RNG.normal(0.0, 4.0, (50, 3))
    expected = on_grid(values, 5.0)

    assert snap(values, 5.0) is values
    assert (values == expected).all()


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1.0, 1e4])
def test_limbs_hold_a_number_to_two_to_the_minus_61(scale):
    """And each limb lies on its own grid."""
    values = RNG.random(100) * scale
    coarse, fine = limbs(values).T

    assert (np.abs(coarse + fine - values) <= 2.0**-61 + 2.0**-53 * values).all()
    assert (coarse * 2.0**30 == np.round(coarse * 2.0**30)).all()
    assert (fine * 2.0**60 == np.round(fine * 2.0**60)).all()
    assert (np.abs(fine) <= 2.0**-31).all()
