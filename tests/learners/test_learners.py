"""Facts about the passes: exact sums that merge and subtract, and what the solved weights are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.errors import NotEnoughDataError
from bandits.learners import doubly_robust
from bandits.learners.cost import fit_cost
from bandits.learners.doubly_robust import FOLDS, Events, Parameters
from bandits.learners.grid import STEP, on_grid
from bandits.learners.ridge import Gram
from bandits.learners.scaling import ContextSums


def events(n: int, d: int, k: int, seed: int) -> Events:
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(n, d)).astype(np.float32)
    phi = ContextSums.of(contexts).scaler().features(contexts)
    folds = np.array([doubly_robust.fold_of(f"{seed}-{i}") for i in range(n)])
    return Events(phi, rng.integers(0, k, n), on_grid(rng.random(n), 1.0), np.full(n, 1.0 / k), folds, k)


@given(st.floats(-1e6, 1e6), st.floats(0.1, 100.0))
def test_the_grid_is_near_and_bounded(value, limit):
    """At most half a step away inside the limit, never outside it by more."""
    snapped = float(on_grid(value, limit))

    assert snapped / STEP == round(snapped / STEP)
    assert abs(snapped - np.clip(value, -limit, limit)) <= STEP / 2


def test_float_sums_without_the_grid_do_care():
    """The negative control: why the grid is there."""
    rng = np.random.default_rng(0)
    phi, half = rng.normal(size=(4000, 6)), 1234

    assert ((phi.T @ phi) != (phi[:half].T @ phi[:half]) + (phi[half:].T @ phi[half:])).any()


def test_the_scaler_standardises_and_silences_constants():
    """Mean 0, deviation 1, outliers at ±5; a constant feature becomes 0; the last column is 1."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(3.0, 2.0, 5000), np.full(5000, 7.0)], axis=1).astype(np.float32)

    phi = ContextSums.of(x).scaler().features(np.vstack([x, [[1000.0, 7.0]]]).astype(np.float32))

    assert abs(phi[:5000, 0].mean()) < 1e-3
    assert abs(phi[:5000, 0].std() - 1.0) < 1e-2
    assert phi[5000, 0] == 5.0
    assert (phi[:, 1] == 0.0).all()
    assert (phi[:, 2] == 1.0).all()


def test_no_context_has_no_scale():
    """Rather than a division by zero."""
    with pytest.raises(NotEnoughDataError):
        ContextSums.of(np.zeros((0, 3), np.float32)).scaler()


@pytest.mark.parametrize(("shared", "own"), [(30.0, 300.0), (100.0, 3000.0), (1.0, 1.0)])
def test_weights_solve_the_shrunken_least_squares(shared, own):
    """Against the same problem written out as one big design matrix: [phi, phi of arm 0, phi of arm 1, ...]."""
    e = events(300, 4, 3, 5)
    n, d = e.phi.shape
    design = np.zeros((n, d * 4))
    design[:, :d] = e.phi
    for i, arm in enumerate(e.actions):
        design[i, d * (1 + arm) : d * (2 + arm)] = e.phi[i]
    penalty = np.full(d * 4, own)
    penalty[:d] = shared
    penalty[d - 1] = shared * 1e-6
    penalty[[d * (2 + arm) - 1 for arm in range(3)]] = 7.0
    solved = np.linalg.solve(design.T @ design + np.diag(penalty), design.T @ e.targets)
    expected = np.stack([solved[:d] + solved[d * (1 + arm) : d * (2 + arm)] for arm in range(3)])

    weights = Gram.of(e.phi, e.actions, e.targets, 3).solve(shared, own, level=7.0)

    np.testing.assert_allclose(weights, expected, atol=1e-8)


@pytest.mark.parametrize(("shared", "own"), [(30.0, 300.0), (100.0, 3000.0), (1.0, 1.0)])
def test_covariances_are_those_of_the_same_big_problem(shared, own):
    """The inverse of its normal matrix, summed over the blocks of s and t_k; also of an arm without events."""
    e = events(300, 4, 3, 5)
    n, d = e.phi.shape
    design = np.zeros((n, d * 5))
    design[:, :d] = e.phi
    for i, arm in enumerate(e.actions):
        design[i, d * (1 + arm) : d * (2 + arm)] = e.phi[i]
    penalty = np.full(d * 5, own)
    penalty[:d] = shared
    penalty[d - 1] = shared * 1e-6
    penalty[[d * (2 + arm) - 1 for arm in range(4)]] = 7.0
    joint = np.linalg.inv(design.T @ design + np.diag(penalty)).reshape(5, d, 5, d)
    expected = [sum(joint[a, :, b] for a in (0, arm) for b in (0, arm)) for arm in range(1, 5)]

    covariances = Gram.of(e.phi, e.actions, e.targets, 4).covariances(shared, own, level=7.0)

    np.testing.assert_allclose(covariances, expected, rtol=1e-7, atol=1e-10)


def test_an_arm_without_events_gets_the_shared_part():
    """A new arm starts from what all arms have in common, not from nothing."""
    e = events(300, 4, 2, 6)
    gram = Gram.of(e.phi, e.actions, e.targets, 3)

    weights = gram.solve(10.0, 1e9)

    np.testing.assert_allclose(weights[2, :-1], weights[0, :-1], atol=1e-6)


def test_permuting_arms_permutes_weights():
    """No arm is special."""
    e = events(400, 3, 3, 7)
    turned = (e.actions + 1) % 3

    straight = Gram.of(e.phi, e.actions, e.targets, 3).solve(30.0, 300.0)
    permuted = Gram.of(e.phi, turned, e.targets, 3).solve(30.0, 300.0)

    np.testing.assert_allclose(permuted, straight[[2, 0, 1]], atol=1e-9)


def test_leaving_a_fold_out_is_never_having_seen_it():
    """Cross-fitting by subtraction equals training on the other folds alone, bit for bit."""
    e = events(400, 3, 3, 8)
    rest = e.folds != 2
    alone = Events(e.phi[rest], e.actions[rest], e.targets[rest], e.propensities[rest], e.folds[rest], 3)

    left_out = doubly_robust.fit(e, doubly_robust.grams(e), Parameters(), without=2)
    never_seen = doubly_robust.fit(alone, doubly_robust.grams(alone), Parameters(), without=2)

    assert left_out.tobytes() == never_seen.tobytes()


def test_folds_are_even_and_belong_to_the_id():
    """By hash, so neither order nor company changes the fold of a decision."""
    folds = np.bincount([doubly_robust.fold_of(f"decision-{i}") for i in range(10_000)], minlength=FOLDS)

    assert (np.abs(folds - 2000) < 200).all()
    assert [doubly_robust.fold_of(x) for x in ("a", "b", "c", "d")] == [3, 3, 0, 0]


def test_the_correction_mends_a_reward_model_that_the_log_disproves():
    """Drawn mostly where an arm is good, plain regression flatters it; the doubly robust one errs less on the truth."""
    rng = np.random.default_rng(3)
    n = 20_000
    x = rng.normal(size=(n, 1)).astype(np.float32)
    truth = np.stack([np.full(n, 0.5), 0.5 + 0.3 * np.sign(x[:, 0]) * (np.abs(x[:, 0]) > 1)], axis=1)
    p1 = np.where(x[:, 0] > 0, 0.9, 0.05)  # arm 1 is drawn where it is good
    actions = (rng.random(n) < p1).astype(np.int64)
    phi = ContextSums.of(x).scaler().features(x)
    rewards = on_grid(truth[np.arange(n), actions], 1.0)
    folds = np.arange(n) % FOLDS
    e = Events(phi, actions, rewards, np.where(actions == 1, p1, 1 - p1), folds, 2)
    folded = doubly_robust.grams(e)

    def error(correction: float) -> float:
        weights = doubly_robust.fit(e, folded, Parameters(1.0, 1.0, correction))
        best = np.linalg.lstsq(phi, truth, rcond=None)[0].T  # the best linear model if every arm were seen everywhere
        return float(np.abs(phi @ (weights - best).T).mean())

    assert error(10.0) < 0.5 * error(1e12)


def test_rarely_drawn_arms_are_corrected_less():
    """Each arm's correction is a ridge whose penalty grows with the mean of 1[drawn] / p², which is its noise."""
    rng = np.random.default_rng(0)
    phi = np.hstack([rng.normal(size=(500, 3)), np.ones((500, 1))])
    gram, moment = phi.T @ phi, rng.normal(size=(2, 4))
    squares = np.array([500 * 2.0, 500 * 12.5])  # p = 1/2, p = .08

    found = doubly_robust.shift(gram, moment, squares, Parameters(correction=300.0))

    for arm, noise in enumerate((2.0, 12.5)):
        expected = np.linalg.solve(gram + 300.0 * noise * np.eye(4), moment[arm])
        np.testing.assert_allclose(found[arm], expected, atol=1e-12)
    never = doubly_robust.shift(gram, moment, np.zeros(2), Parameters(correction=300.0))
    np.testing.assert_allclose(never, np.linalg.solve(gram + 300.0 * np.eye(4), moment.T).T, atol=1e-12)


def test_costs_are_right_on_average_and_follow_the_context():
    """Each arm's predictions have its own mean cost; an arm with 14 known costs keeps its catalogue price."""
    rng = np.random.default_rng(0)
    n = 3000
    x = rng.normal(size=(n, 1)).astype(np.float32)
    phi = ContextSums.of(x).scaler().features(x)
    actions = rng.integers(0, 2, n)
    costs = np.exp(-8.0 + 2.0 * actions + 0.5 * x[:, 0] + rng.normal(0, 0.3, n))
    costs[::7] = np.nan
    actions[np.flatnonzero(np.isfinite(costs))[:14]] = 2

    model = fit_cost(phi, actions, costs, np.array([1.0, 1.0, 0.25]))

    predicted = model.predict(phi)
    for arm in (0, 1):
        mine = (actions == arm) & np.isfinite(costs)
        assert predicted[mine, arm].mean() == pytest.approx(costs[mine].mean(), rel=1e-9)
    assert np.corrcoef(np.log(predicted[:, 0]), x[:, 0])[0, 1] > 0.99
    assert (predicted[:, 2] == 0.25).all()
