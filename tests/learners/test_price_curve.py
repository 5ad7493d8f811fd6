"""Facts about what a policy spends at each price of a dollar: what trying every price would find, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.learners.grid import limbs
from bandits.learners.passes import Sums, spent


def by_trying_every_price(q_hat, cost_hat, allowed, prices) -> Sums:
    """The definition."""
    q_hat, usd = q_hat[:, allowed], cost_hat[:, allowed]
    parts, each = limbs(usd), np.arange(len(usd))
    chosen = [parts[each, (q_hat - price * usd).argmax(axis=1)].sum(axis=0) for price in prices]
    return Sums({"chosen": np.array(chosen), "explored": parts.sum(axis=(0, 1)), "n": np.array(len(usd))})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 60),
    k=st.integers(1, 6),
    digits=st.sampled_from([1, 2, 12]),
    m=st.integers(1, 40),
)
def test_halving_finds_what_trying_every_price_finds(seed, n, k, digits, m):
    """Also where arms are equal in worth, in price, or in both; where there is one arm, one price, or no event."""
    rng = np.random.default_rng(seed)
    q_hat = np.round(rng.random((n, k)), digits)
    usd = np.round(np.exp(rng.normal(0.0, 2.0, (n, k))), digits)
    allowed = rng.random(k) < 0.8
    allowed[rng.integers(k)] = True
    prices = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, m - 1)])

    one, two = (f(q_hat, usd, allowed, prices) for f in (spent, by_trying_every_price))

    for name in ("chosen", "explored", "n"):
        assert np.array_equal(one[name], two[name])


@pytest.mark.parametrize("cut", [0, 1, 100, 299])
def test_parts_add_up_to_the_whole(cut):
    """Wherever the log is cut."""
    rng = np.random.default_rng(0)
    q_hat, usd, allowed = rng.random((300, 4)), np.exp(rng.normal(-7.0, 2.0, (300, 4))), np.ones(4, np.bool_)
    prices = np.concatenate([[0.0], np.geomspace(1.0, 1e6, 255)])

    parts = [spent(q_hat[rows], usd[rows], allowed, prices) for rows in (slice(cut), slice(cut, None))]
    whole = spent(q_hat, usd, allowed, prices)

    for name in ("chosen", "explored", "n"):
        assert np.array_equal((parts[0] + parts[1])[name], whole[name])
