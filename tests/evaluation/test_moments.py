"""Sums of scores: exact whatever the order, and fast."""

import math
import statistics
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import EvidenceError, ShapeError
from bandits.evaluation.intervals import normal
from bandits.evaluation.moments import LARGEST, Moments, exact_sum, moments

QUICK = settings(max_examples=60, deadline=None)
FINITE = st.floats(-1e100, 1e100)


class TestMoments:
    """Count, sum and squares, exact under every split and order."""

    @QUICK
    @given(st.lists(FINITE, max_size=30), st.integers(0, 30), st.randoms(use_true_random=False))
    def test_any_split_in_any_order_is_the_same_moments(self, values, cut, random):
        whole = moments(np.array(values, dtype=np.float64))
        random.shuffle(values)
        a, b = (moments(np.array(part, dtype=np.float64)) for part in (values[:cut], values[cut:]))
        assert a + b == whole
        assert b + a == whole
        assert whole + Moments() == whole

    @QUICK
    @given(st.lists(FINITE, max_size=20))
    def test_the_sum_is_exact(self, values):
        assert sum(map(Fraction, exact_sum(values)), Fraction()) == sum(map(Fraction, values), Fraction())

    @QUICK
    @given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
    def test_mean_and_variance_are_those_of_the_textbook(self, values):
        m = moments(np.array(values))
        assert m.mean == pytest.approx(statistics.fmean(values), abs=1e-12)
        assert m.variance == pytest.approx(statistics.variance(values), rel=1e-9, abs=1e-10)
        assert m.standard_error == pytest.approx(math.sqrt(m.variance / len(values)))

    def test_spread_of_fewer_than_two_scores_is_unknown(self):
        assert math.isnan(Moments().mean)
        assert Moments().standard_error == math.inf
        assert moments(np.array([0.3])).standard_error == math.inf
        assert normal(moments(np.array([0.3])), 0.05) == (-math.inf, math.inf)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
    def test_scores_that_are_not_finite_are_refused(self, bad):
        with pytest.raises(EvidenceError, match=r"scores must be finite, but got .* at rows \[1\]"):
            moments(np.array([0.0, bad]))

    def test_scores_must_be_a_vector(self):
        with pytest.raises(ShapeError, match=r"must have shape \(n,\), but got \(2, 2\)"):
            moments(np.zeros((2, 2)))


class TestFastSums:
    """Sums by extraction are the exact ones, whatever the size and the number of what is added."""

    KINDS: ClassVar = {
        "ordinary": lambda rng, n: rng.normal(size=n),
        "of all sizes": lambda rng, n: rng.normal(size=n) * 10.0 ** rng.integers(-300, 150, n),
        "tenths": lambda rng, n: np.full(n, 0.1),
        "weights": lambda rng, n: (rng.random(n) < 0.05) * 20.0,
        "huge": lambda rng, n: (2.0 * rng.random(n) - 1.0) * LARGEST,
        "tiny": lambda rng, n: np.where(rng.random(n) < 0.5, 5e-324, -1.5e-323),
        "cancelling": lambda rng, n: np.tile([1e16, 1.0, -1e16, 1e-16], n)[:n],
    }

    @pytest.mark.parametrize("kind", KINDS)
    def test_they_are_those_of_fsum(self, kind):
        for n in (1, 2, 17, 2**15 + 1):
            x = self.KINDS[kind](np.random.default_rng(n), n)
            assert moments(x) == Moments(n, exact_sum(x.tolist()), exact_sum((x * x).tolist()))

    def test_a_plain_sum_is_not(self):
        """The negative control."""
        x = self.KINDS["cancelling"](None, 4000)
        assert (float(x.sum()),) != exact_sum(x.tolist())
