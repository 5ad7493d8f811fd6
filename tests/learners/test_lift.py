"""Random features: their inner products are a kernel, they lie on the grid, and they are the same for everybody."""

import numpy as np

from bandits.learners.grid import STEP
from bandits.learners.lift import Lift
from bandits.learners.scaling import Scaler

RNG = np.random.default_rng(0)
CONTEXTS = RNG.normal(size=(50, 4)).astype(np.float32)
UNIT = Scaler(np.zeros(4), np.ones(4))


def test_inner_products_of_waves_approach_the_kernel():
    lift = Lift.draw(UNIT, m=40_000, bandwidth=0.7, linear=0.0, waves=1.0)
    cosines = np.cos(CONTEXTS @ lift.frequencies + lift.phases) * np.sqrt(2.0 / 40_000)
    distance = np.square(CONTEXTS[:, None] - CONTEXTS[None]).sum(axis=2)
    kernel = np.exp(-distance / (2 * 4 * 0.7**2))
    assert np.abs(cosines @ cosines.T - kernel).max() < 0.03
    assert np.abs(cosines @ cosines.T - np.sqrt(kernel)).max() > 0.1


def test_features_are_multiples_of_the_grid_and_end_in_one():
    phi = Lift.draw(UNIT, m=16, bandwidth=1.0).features(CONTEXTS)
    assert phi.shape == (50, 4 + 16 + 1)
    assert np.array_equal(phi / STEP, np.round(phi / STEP))
    assert (phi[:, -1] == 1.0).all()


def test_the_same_shape_draws_the_same_waves_and_another_shape_others():
    one, again, other = (Lift.draw(UNIT, m, 1.0) for m in (16, 16, 17))
    assert np.array_equal(one.frequencies, again.frequencies)
    assert not np.array_equal(one.frequencies[:, :16], other.frequencies[:, :16])
