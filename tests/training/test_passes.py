"""Facts about the passes: sums that are exact whatever the partition, the company or the order of arms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bandits.learners import doubly_robust
from bandits.learners.cost import CostModel, fit_cost
from bandits.learners.doubly_robust import FOLDS, Events, Parameters
from bandits.learners.grid import limbs
from bandits.learners.lift import Lift
from bandits.learners.passes import (
    Contexts,
    Corrections,
    Prices,
    Rewards,
    corrected,
    grams_of,
    reward_models,
    scaler_of,
)
from bandits.learners.slab import folds_of
from bandits.training.fold import Fold
from bandits.training.training import prepare
from tests.logs import simulate
from tests.training.rounds import DOMAIN, in_parts, slab_of

N = 240


def test_sums_that_are_not_on_the_grid_depend_on_the_partition():
    """The negative control: dollars as they came."""
    costs = slab_of(4000, 0).costs
    costs = costs[np.isfinite(costs)]

    assert costs.sum() != sum(costs.tolist())
    assert limbs(costs).sum(axis=0).tobytes() == sum(limbs(costs)).tobytes()
    assert limbs(costs).sum() == pytest.approx(costs.sum(), rel=1e-14)


@pytest.mark.parametrize("features", ["scaler", "lift"])
def test_the_features_of_an_event_do_not_depend_on_its_company(features):
    """Alone, or among any others: so a partition cannot be seen in them."""
    contexts = np.random.default_rng(0).normal(size=(1500, 64)).astype(np.float32)
    sums = Contexts(1)(replace(slab_of(1500, 0), contexts=contexts, actions=np.zeros(1500, np.int64)))
    scaler = scaler_of(sums)
    view = scaler if features == "scaler" else Lift.draw(scaler, 256, 1.0)

    whole = view.features(contexts)

    if isinstance(view, Lift):  # so that a product of two numbers on grids is exact, however BLAS blocks it
        steps = view.frequencies * 2.0**24
        assert (steps == np.round(steps)).all()
    for rows in (slice(0, 1), slice(3, 10), slice(700, 1401), slice(1499, 1500)):
        assert view.features(contexts[rows]).tobytes() == whole[rows].tobytes()


def test_a_matrix_product_without_the_grid_does_depend_on_it():
    """The negative control: why rows are multiplied one by one, or on a grid."""
    rng = np.random.default_rng(0)
    phi, weights = rng.normal(size=(999, 77)), rng.normal(size=(77, 3))

    assert any(((phi @ weights)[i] != phi[i] @ weights).any() for i in range(999))


def test_the_passes_give_the_doubly_robust_learner_bit_for_bit():
    """For every fold that is left out, and for none: corrections folded once are those that `fit` computes for each."""
    slab = slab_of(1500, 3)
    scaler = scaler_of(Contexts(3)(slab))
    phi = scaler.features(slab.contexts)
    events = Events(phi, slab.actions, slab.targets, slab.propensities, slab.folds.astype(np.int64), 3)
    grams = grams_of(Rewards(scaler, 3)(slab))
    sums = Corrections(scaler, reward_models(grams, Parameters()))(slab)

    weights = corrected(grams, sums, Parameters())

    folded = doubly_robust.grams(events)
    for fold_ in range(FOLDS):
        assert weights[fold_].tobytes() == doubly_robust.fit(events, folded, Parameters(), without=fold_).tobytes()
    assert weights[FOLDS].tobytes() == doubly_robust.fit(events, folded, Parameters()).tobytes()


def test_the_price_model_is_the_same_from_passes():
    """Gram matrices of known costs by taking away the unknown ones, and the scale in a pass of its own."""
    slab, catalogue = slab_of(1500, 4), np.array([1e-4, 1e-3, 1e-2])
    scaler = scaler_of(Contexts(3)(slab))
    prepared = prepare(replace(simulate(1500, 4), costs=slab.costs), DOMAIN, 200)

    straight = fit_cost(scaler.features(slab.contexts), slab.actions, slab.costs, catalogue)

    assert prepared.cost.weights.tobytes() == straight.weights.tobytes()
    assert prepared.cost.scale.tobytes() == straight.scale.tobytes()


def test_folds_of_many_ids_are_those_of_each():
    ids = tuple(f"décision-{i}" for i in range(500))

    assert folds_of(ids).tolist() == [doubly_robust.fold_of(id_) for id_ in ids]


def test_permuting_arms_permutes_sums_and_weights():
    """No arm is special in any pass."""
    slab, turn = slab_of(800, 7), np.array([2, 0, 1])
    turned = replace(slab, actions=turn[slab.actions])
    scaler = scaler_of(Contexts(3)(slab))
    one, other = (Rewards(scaler, 3)(s) for s in (slab, turned))

    assert (other["gram"][:, turn] == one["gram"]).all()
    models = reward_models(grams_of(one), Parameters())
    straight, permuted = Corrections(scaler, models)(slab), Corrections(scaler, models[:, :, [1, 2, 0]])(turned)
    assert (permuted["moment"][:, turn] == straight["moment"]).all()
    np.testing.assert_allclose(
        corrected(grams_of(other), permuted, Parameters())[:, turn],
        corrected(grams_of(one), straight, Parameters()),
        atol=1e-9,
    )


def test_merged_parts_of_prices_are_those_of_the_whole():
    """Means by exact sums, and the least and the most of any."""
    slab = slab_of(500, 9)
    scaler = scaler_of(Contexts(3)(slab))
    cost = CostModel(np.random.default_rng(0).normal(0, 0.3, (3, 3)), np.array([1e-4, 1e-3, 1e-2]))
    one = Prices(scaler, cost)

    whole, parts = one(slab), Fold(in_parts(slab, [7, 300])).sums(one)

    assert parts.usd.tobytes() == whole.usd.tobytes()
    assert (parts.n, parts.low, parts.high) == (500, whole.low, whole.high)
    np.testing.assert_allclose(whole.mean, cost.predict(scaler.features(slab.contexts)).mean(axis=0), rtol=1e-12)


def test_collinear_features_have_a_stable_solution():
    """Twice the same feature and a constant one share their weight instead of blowing up."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 1))
    contexts = np.hstack([x, x, np.ones((5000, 1))]).astype(np.float32)
    actions = rng.integers(0, 2, 5000)
    rewards = np.clip(0.5 + 0.1 * x[:, 0], 0.0, 1.0)
    slab = replace(slab_of(5000, 0), contexts=contexts, actions=actions, targets=np.round(rewards * 2048) / 2048)
    gram = grams_of(Rewards(scaler_of(Contexts(2)(slab)), 2, folds=1, priced=False)(slab))[0]

    weights = gram.solve(1e-3, 1e-3)

    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights[:, 0], weights[:, 1], atol=1e-6)
    np.testing.assert_allclose(weights[:, 0] + weights[:, 1], 0.1, atol=0.01)
