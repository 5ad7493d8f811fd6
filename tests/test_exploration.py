"""Facts about exploration: rows are distributions with a floor, and each rule is what its paper says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm

from bandits.errors import EvidenceError
from bandits.exploration import boltzmann, bounds, greedy, posterior, posterior_sampled, squarecb

ALL = np.ones((1, 3), np.bool_)
RULES = {
    "greedy": greedy,
    "squarecb": lambda s, m, f: squarecb(s, m, 30.0, f),
    "boltzmann": lambda s, m, f: boltzmann(s, m, 0.1, f),
    "posterior": lambda s, m, f: posterior(s, np.full_like(s, 0.1), m, f),
    "sampled": lambda s, m, f: posterior_sampled(s, np.full_like(s, 0.1), m, f, 50, np.random.default_rng(0)),
}


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 5).flatmap(
        lambda k: st.tuples(
            hnp.arrays(np.float64, (4, k), elements=st.floats(-2.0, 2.0)),
            hnp.arrays(np.bool_, (4, k)).map(lambda m: m | ~m.any(axis=1, keepdims=True)),
        )
    ),
    st.floats(0.001, 0.5),
)
def test_rows_are_distributions_with_a_floor(rule, rows, floor):
    """They sum to 1, allowed arms keep floor / m, the others have nothing."""
    scores, allowed = rows

    p = RULES[rule](scores, allowed, floor)

    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-9)
    assert (p >= np.where(allowed, floor / allowed.sum(axis=1, keepdims=True) * (1 - 1e-9), 0.0)).all()
    assert (p[~allowed] == 0.0).all()


def test_greedy_is_epsilon_greedy():
    """1 - epsilon + epsilon / m on the best, epsilon / m on the rest."""
    assert greedy(np.array([[0.1, 0.9, 0.3]]), ALL, 0.3)[0] == pytest.approx([0.1, 0.8, 0.1])


def test_squarecb_weighs_by_the_inverse_gap():
    """Written out by hand; gamma 0 is uniform, a large one greedy."""
    scores = np.array([[0.5, 0.9, 0.8]])

    p = squarecb(scores, ALL, 20.0, 0.0)[0]

    assert p == pytest.approx([1 / 11, 1 - 1 / 11 - 1 / 5, 1 / 5])
    assert squarecb(scores, ALL, 0.0, 0.0)[0] == pytest.approx([1 / 3] * 3)
    assert squarecb(scores, ALL, 1e9, 0.0)[0][1] == pytest.approx(1.0)


def test_boltzmann_is_softmax_and_does_not_overflow():
    """Also where exp of a score would."""
    p = boltzmann(np.array([[1.0, 2.0, 0.0], [5e3, 5e3, 0.0]]), np.ones((2, 3), np.bool_), 0.5, 0.0)

    weights = np.exp([2.0, 4.0, 0.0])
    assert p[0] == pytest.approx(weights / weights.sum())
    assert p[1] == pytest.approx([0.5, 0.5, 0.0])


def test_posterior_of_two_arms_is_the_closed_form():
    """P(0 beats 1) = Phi(difference / root of summed variances), also with a narrow arm beside a wide one."""
    for s, w in [((0.3, 0.1), (0.2, 0.1)), ((0.0, 0.5), (1.0, 1e-3)), ((0.2, 0.2), (0.1, 3.0))]:
        p = posterior(np.array([s]), np.array([w]), np.ones((1, 2), np.bool_), 0.0)[0]

        assert p[0] == pytest.approx(norm.cdf((s[0] - s[1]) / np.hypot(*w)), abs=2e-3)


def test_computed_and_sampled_posteriors_agree():
    """Within 4 standard errors of 40,000 draws; with other widths they do not (the negative control)."""
    rng = np.random.default_rng(1)
    scores, widths = rng.normal(size=(5, 4)), rng.uniform(0.1, 1.0, (5, 4))
    allowed = rng.random((5, 4)) < 0.8
    allowed[:, 0] = True

    exact = posterior(scores, widths, allowed, 0.0)
    sampled = posterior_sampled(scores, widths, allowed, 0.0, 40_000, rng)
    other = posterior_sampled(scores, 3.0 * widths, allowed, 0.0, 40_000, rng)

    error = 4.0 * np.sqrt(exact * (1.0 - exact) / 40_000) + 2e-3
    assert (np.abs(sampled - exact) <= error).all()
    assert (np.abs(other - exact) > error).any()


def test_thompson_is_calibrated():
    """Over worlds drawn from the posterior, an arm given p is best in a share p of them."""
    rng = np.random.default_rng(2)
    scores, widths = 0.3 * rng.normal(size=(4000, 3)), rng.uniform(0.1, 0.4, (4000, 3))
    p = posterior(scores, widths, np.ones((4000, 3), np.bool_), 0.0)
    best = (scores + widths * rng.normal(size=scores.shape)).argmax(axis=1)

    hit = best[:, None] == np.arange(3)
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        mine = (p >= low) & (p < low + 0.2)
        assert abs(hit[mine].mean() - p[mine].mean()) < 4.0 * np.sqrt(0.25 / mine.sum())


def test_it_explores_less_as_it_knows_more():
    """The same scores with narrower widths leave less to the others."""
    scores = np.array([[0.5, 0.6, 0.4]])
    left = [1.0 - posterior(scores, np.full((1, 3), w), ALL, 0.001)[0, 1] for w in (0.5, 0.1, 0.02)]

    assert left[0] > left[1] > left[2]
    assert left[2] < 0.01


def test_bounds_cover_what_they_promise():
    """Ridge with its posterior deviation: 90 % intervals for 400 true means, each from a world drawn from the prior."""
    rng, covered = np.random.default_rng(3), {0.1: 0, 0.5: 0}
    for _ in range(400):
        weights, x = rng.normal(size=5), rng.normal(size=(40, 5))
        inverse = np.linalg.inv(x.T @ x / 0.09 + np.eye(5))
        estimate = inverse @ x.T @ (x @ weights + 0.3 * rng.normal(size=40)) / 0.09
        probe = rng.normal(size=5)
        width = np.sqrt(probe @ inverse @ probe)
        for miss in covered:
            low, high = bounds(np.array([[probe @ estimate]]), np.array([[width]]), miss)
            covered[miss] += bool(low[0, 0] <= probe @ weights <= high[0, 0])

    for miss, count in covered.items():
        assert abs(count / 400 - (1.0 - miss)) < 4.0 * np.sqrt(miss * (1.0 - miss) / 400)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bounds(np.zeros((1, 2)), np.ones((1, 2)), 1.0),
        lambda: bounds(np.zeros((1, 2)), -np.ones((1, 2)), 0.1),
        lambda: boltzmann(np.zeros((1, 3)), ALL, 0.0, 0.1),
        lambda: posterior(np.zeros((1, 3)), np.full((1, 3), np.nan), ALL, 0.1),
    ],
)
def test_nonsense_is_refused(call):
    """A negative or unknown width, a temperature of 0, a chance of 1."""
    with pytest.raises(EvidenceError):
        call()
